//! report/index.html: one file that needs nothing else.

mod cost;
mod found;
mod sections;

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;

use super::numbers::Numbers;
use super::report::{AbReport, ShownFrame, VariantReport, Worst};

/// The name under which the ground truth is shown beside the variants. No variant can have it.
pub const GROUND_TRUTH: &str = "ground truth";

const TEMPLATE: &str = include_str!("page.html");
const CSS: &str = include_str!("page.css");
const JS: &str = include_str!("page.js");

/// The pictures of a frame that the page shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    /// The frame as JPEG.
    pub jpeg: Vec<u8>,
    /// Masks as transparent PNGs, by the name of the variant, or [`GROUND_TRUTH`]; those without a mask are left out.
    pub masks: BTreeMap<String, Vec<u8>>,
}

/// What the page's program reads.
#[derive(Debug, Serialize)]
struct Data<'a> {
    sources: Vec<&'a str>,
    frames: Vec<Shown<'a>>,
}

#[derive(Debug, Serialize)]
struct Shown<'a> {
    frame: u64,
    worst: Option<Worst>,
    among_worst: bool,
    image: String,
    masks: BTreeMap<&'a str, String>,
    /// The lowest IoU of an object, by variant.
    iou: BTreeMap<&'a str, f64>,
    /// Mean J&F over objects, by variant.
    score: BTreeMap<&'a str, f64>,
}

/// The page of a comparison; `pictures` are those of `report.shown`, in the same order.
pub fn render(report: &AbReport, pictures: &[Picture]) -> String {
    let numbers = Numbers::of(&report.variants);
    let data = Data {
        sources: sources(report, pictures),
        frames: report
            .shown
            .iter()
            .zip(pictures)
            .map(|(frame, picture)| shown(report, numbers.as_ref(), frame, picture))
            .collect(),
    };
    // In a script element nothing but its end has a meaning.
    let data = serde_json::to_string(&data)
        .unwrap_or_default()
        .replace("</", "<\\/")
        .replace("<!--", "<\\u0021--");
    let names: Vec<&str> = report.variants.iter().map(|v| v.name.as_str()).collect();
    let parts = [
        (
            "title",
            escape(&format!(
                "{}: {}",
                names.join(" against "),
                report.clip.path
            )),
        ),
        ("css", CSS.trim_end().to_owned()),
        ("clip", sections::clip(report)),
        ("verdict", escape(&report.verdict.sentence)),
        ("also", sections::also(report)),
        ("warnings", sections::warnings(report)),
        ("requirements", sections::requirements(report)),
        ("table", sections::table(report)),
        ("found", found::section(report, numbers.as_ref())),
        (
            "viewer",
            sections::viewer(report, numbers.as_ref(), !pictures.is_empty()),
        ),
        ("quality", sections::quality(report)),
        ("time", cost::time(report)),
        ("memory", cost::memory(report)),
        ("objects", sections::objects(report)),
        ("how", sections::how(report)),
        ("data", data),
        ("js", JS.trim_end().to_owned()),
    ];
    fill(TEMPLATE, &parts)
}

/// Puts parts in the place of `{{name}}`; what a part contains is not looked at again.
fn fill(template: &str, parts: &[(&str, String)]) -> String {
    let mut text = String::new();
    let mut rest = template;
    while let Some((before, behind)) = rest.split_once("{{") {
        let (name, after) = behind.split_once("}}").unwrap_or((behind, ""));
        text.push_str(before);
        if let Some((_, part)) = parts.iter().find(|(known, _)| *known == name) {
            text.push_str(part);
        }
        rest = after;
    }
    text.push_str(rest);
    text
}

/// Ground truth first, then the variants that have a run.
fn sources<'a>(report: &'a AbReport, pictures: &[Picture]) -> Vec<&'a str> {
    let truth = pictures
        .iter()
        .any(|picture| picture.masks.contains_key(GROUND_TRUTH));
    let ran = report
        .variants
        .iter()
        .filter(|variant| variant.run.is_some());
    let mut sources: Vec<&str> = ran.map(|variant| variant.name.as_str()).collect();
    if truth {
        sources.push(GROUND_TRUTH);
    }
    sources
}

fn shown<'a>(
    report: &'a AbReport,
    numbers: Option<&Numbers>,
    frame: &'a ShownFrame,
    picture: &'a Picture,
) -> Shown<'a> {
    let number = frame.frame;
    let of_variants = |value: &dyn Fn(&VariantReport) -> Option<f64>| {
        let variants = report.variants.iter();
        variants
            .filter_map(|variant| Some((variant.name.as_str(), value(variant)?)))
            .collect()
    };
    let encoded =
        |kind: &str, bytes: &[u8]| format!("data:image/{kind};base64,{}", STANDARD.encode(bytes));
    Shown {
        frame: number,
        worst: frame.worst.clone().map(|mut worst| {
            if let (Some(numbers), true) = (numbers, worst.of_variant) {
                worst.object = numbers.of_run(&worst.variant, worst.object);
            }
            worst
        }),
        among_worst: frame.among_worst,
        image: encoded("jpeg", &picture.jpeg),
        masks: picture
            .masks
            .iter()
            .map(|(name, bytes)| (name.as_str(), encoded("png", bytes)))
            .collect(),
        iou: of_variants(&|variant| {
            variant
                .agreement
                .as_ref()?
                .worst_per_frame()
                .get(&number)
                .copied()
        }),
        score: of_variants(&|variant| {
            let scores = scores_per_frame(variant);
            scores
                .iter()
                .find(|(frame, _)| *frame == number)
                .map(|(_, value)| *value)
        }),
    }
}

/// Mean J&F over objects of each annotated frame.
fn scores_per_frame(variant: &VariantReport) -> Vec<(u64, f64)> {
    let scores = variant.run.as_ref().and_then(|run| run.scores.as_ref());
    let frames = scores.iter().flat_map(|scores| &scores.objects);
    let mut sums: BTreeMap<u64, (f64, f64)> = BTreeMap::new();
    for score in frames.flat_map(|object| &object.per_frame) {
        let sum = sums.entry(score.frame).or_default();
        sum.0 += (score.j + score.f) / 2.0;
        sum.1 += 1.0;
    }
    sums.into_iter()
        .map(|(frame, (sum, count))| (frame, sum / count))
        .collect()
}

/// Mean IoU over objects of each frame.
fn ious_per_frame(variant: &VariantReport) -> Vec<(u64, f64)> {
    let objects = variant
        .agreement
        .iter()
        .flat_map(|agreement| &agreement.objects);
    let mut sums: BTreeMap<u64, (f64, f64)> = BTreeMap::new();
    for frame in objects.flat_map(|object| &object.per_frame) {
        let sum = sums.entry(frame.frame).or_default();
        sum.0 += frame.iou;
        sum.1 += 1.0;
    }
    sums.into_iter()
        .map(|(frame, (sum, count))| (frame, sum / count))
        .collect()
}

/// Text as it stands in HTML, in quotes too.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            _ => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_put_in_their_places_and_not_looked_at() {
        let parts = [("a", "{{b}}".to_owned()), ("b", "x".to_owned())];
        assert_eq!(fill("1{{a}}2{{b}}3{{c}}4", &parts), "1{{b}}2x34");
        assert_eq!(escape("a<b & \"c\">"), "a&lt;b &amp; &quot;c&quot;&gt;");
    }
}
