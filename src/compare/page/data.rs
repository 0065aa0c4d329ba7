//! The JSON in the page that its script reads: frames, masks and values.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;

use super::series;
use crate::compare::numbers::Numbers;
use crate::compare::picture::{GROUND_TRUTH, Picture};
use crate::compare::report::{AbReport, ShownFrame, VariantReport, Worst};

#[derive(Debug, Serialize)]
pub(super) struct Data<'a> {
    sources: Vec<&'a str>,
    pub frames: Vec<Shown<'a>>,
}

#[derive(Debug, Serialize)]
pub(super) struct Shown<'a> {
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

impl<'a> Data<'a> {
    /// `pictures` are those of `report.shown`, in the same order.
    pub(super) fn new(
        report: &'a AbReport,
        numbers: Option<&Numbers>,
        pictures: &'a [Picture],
    ) -> Self {
        let frames = report.shown.iter().zip(pictures);
        Self {
            sources: sources(report, pictures),
            frames: frames
                .map(|(frame, picture)| shown(report, numbers, frame, picture))
                .collect(),
        }
    }

    /// The JSON as the content of a script element, which ends at `</` and must not contain `<!--`.
    pub(super) fn json(&self) -> String {
        serde_json::to_string(self)
            .unwrap_or_default()
            .replace("</", "<\\/")
            .replace("<!--", "<\\u0021--")
    }
}

/// The variants that have a run, then the ground truth.
fn sources<'a>(report: &'a AbReport, pictures: &[Picture]) -> Vec<&'a str> {
    let ran = report.variants.iter().filter(|v| v.run.is_some());
    let mut sources: Vec<&str> = ran.map(|variant| variant.name.as_str()).collect();
    if pictures.iter().any(|p| p.masks.contains_key(GROUND_TRUTH)) {
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
    let mut worst = frame.worst.clone();
    if let (Some(worst), Some(numbers)) = (&mut worst, numbers)
        && worst.of_variant
    {
        worst.object = numbers.of_run(&worst.variant, worst.object);
    }
    Shown {
        frame: number,
        worst,
        among_worst: frame.among_worst,
        image: encoded("jpeg", &picture.jpeg),
        masks: picture
            .masks
            .iter()
            .map(|(name, bytes)| (name.as_str(), encoded("png", bytes)))
            .collect(),
        iou: of_variants(&|variant| {
            let worst = variant.agreement.as_ref()?.worst_per_frame();
            worst.get(&number).copied()
        }),
        score: of_variants(&|variant| {
            let scores = series::scores(variant);
            let score = scores.iter().find(|(frame, _)| *frame == number);
            score.map(|(_, value)| *value)
        }),
    }
}
