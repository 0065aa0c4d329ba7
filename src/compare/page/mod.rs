//! index.html: the page of a comparison, one file that loads nothing else.

mod cards;
mod charts;
mod cost;
mod data;
mod method;
mod series;
mod tables;

use std::collections::BTreeMap;

use askama::Template;

use self::cards::{Cards, Swatch};
use self::charts::{Bars, Lines, Series};
use self::cost::Time;
use self::data::Data;
use self::tables::Found;
use super::agreement::LOST;
use super::error::AbError;
use super::numbers::Numbers;
use super::picture::Picture;
use super::report::{AbReport, VariantReport};
use super::table;

const CSS: &str = include_str!("page.css");
const JS: &str = include_str!("page.js");

#[derive(Template)]
#[template(path = "page.html")]
struct Page<'a> {
    report: &'a AbReport,
    title: String,
    clip: String,
    baseline: &'a str,
    failed: Vec<&'a str>,
    /// The warnings, without those that the failures repeat.
    warnings: Vec<&'a str>,
    variants: Cards,
    found: Option<Found>,
    data: &'a Data<'a>,
    json: String,
    /// The numbers of the objects in the pictures, with their descriptions.
    key: Vec<(Swatch, u32, String)>,
    scores: Option<Lines>,
    ious: Option<Lines>,
    time: Option<Time>,
    memory: Vec<(&'static str, Bars)>,
    objects: Option<Cards>,
    method: Vec<(String, String)>,
}

/// The page of a comparison; `pictures` are those of `report.shown`, in the same order.
///
/// # Errors
/// [`AbError::Page`].
pub fn render(report: &AbReport, pictures: &[Picture]) -> Result<String, AbError> {
    let numbers = Numbers::of(&report.variants);
    let data = Data::new(report, numbers.as_ref(), pictures);
    let names: Vec<&str> = report.variants.iter().map(|v| v.name.as_str()).collect();
    let failed = report.variants.iter().filter(|v| v.error.is_some());
    let failed: Vec<&str> = failed.map(|variant| variant.name.as_str()).collect();
    let prompted = report.prompts.iter();
    let key: BTreeMap<u32, String> = match &numbers {
        Some(numbers) => numbers.shown.clone(),
        None => prompted.map(|p| (p.object, String::new())).collect(),
    };
    let key = key.into_iter();
    let page = Page {
        title: format!("{}: {}", names.join(" against "), report.clip.path),
        clip: clip(report),
        baseline: names.first().copied().unwrap_or_default(),
        warnings: warnings(report, &failed),
        failed,
        variants: tables::variants(report),
        found: tables::found(report, numbers.as_ref()),
        json: data.json(),
        data: &data,
        key: key
            .map(|(number, what)| (Swatch::of_object(number), number, what))
            .collect(),
        scores: lines(
            report,
            series::scores,
            "J&F against ground truth over frames",
        ),
        ious: lines(report, series::ious, "IoU with the baseline over frames"),
        time: cost::time(report),
        memory: cost::memory(report),
        objects: tables::objects(report),
        method: method::method(report),
        report,
    };
    Ok(page.render()?)
}

fn clip(report: &AbReport) -> String {
    let clip = &report.clip;
    let truth = match &report.ground_truth {
        Some(dir) => format!(", ground truth {dir}"),
        None => String::new(),
    };
    format!(
        "{}: {} frames of {}x{} pixels, {}{truth}; baseline {}",
        clip.path,
        clip.frames,
        clip.width,
        clip.height,
        table::tracked(report),
        report.variants.first().map_or("", |variant| &variant.name),
    )
}

/// The warnings without those of failures: these are long, and the table has them.
fn warnings<'a>(report: &'a AbReport, failed: &[&str]) -> Vec<&'a str> {
    let of_failure = |warning: &&str| {
        let mut names = failed.iter();
        names.any(|name| warning.starts_with(&format!("{name} failed: ")))
    };
    let all = report.verdict.warnings.iter().map(String::as_str);
    all.filter(|warning| !of_failure(warning)).collect()
}

/// A plot of the variants that have values; `None` if none has.
fn lines(
    report: &AbReport,
    points: fn(&VariantReport) -> Vec<(u64, f64)>,
    what: &str,
) -> Option<Lines> {
    let all = report.variants.iter().enumerate();
    let all = all.map(|(place, variant)| Series {
        place,
        name: &variant.name,
        points: points(variant),
    });
    let series: Vec<Series<'_>> = all.filter(|series| !series.points.is_empty()).collect();
    (!series.is_empty()).then(|| Lines::new(&series, report.clip.frames, what))
}
