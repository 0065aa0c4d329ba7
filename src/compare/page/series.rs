//! Values of a variant for each frame of the clip.

use std::collections::BTreeMap;

use crate::compare::report::VariantReport;

/// Mean J&F over objects of each annotated frame.
pub(super) fn scores(variant: &VariantReport) -> Vec<(u64, f64)> {
    let scores = variant.run.as_ref().and_then(|run| run.scores.as_ref());
    let objects = scores.iter().flat_map(|scores| &scores.objects);
    let frames = objects.flat_map(|object| &object.per_frame);
    means(frames.map(|score| (score.frame, (score.j + score.f) / 2.0)))
}

/// Mean IoU with the baseline over objects of each frame.
pub(super) fn ious(variant: &VariantReport) -> Vec<(u64, f64)> {
    let agreement = variant.agreement.iter();
    let objects = agreement.flat_map(|agreement| &agreement.objects);
    let frames = objects.flat_map(|object| &object.per_frame);
    means(frames.map(|frame| (frame.frame, frame.iou)))
}

fn means(values: impl Iterator<Item = (u64, f64)>) -> Vec<(u64, f64)> {
    let mut sums: BTreeMap<u64, (f64, f64)> = BTreeMap::new();
    for (frame, value) in values {
        let sum = sums.entry(frame).or_default();
        sum.0 += value;
        sum.1 += 1.0;
    }
    sums.into_iter()
        .map(|(frame, (sum, count))| (frame, sum / count))
        .collect()
}
