//! Warnings: what makes a verdict less certain.

use super::report::VariantReport;
use crate::bench::table::seconds;
use crate::words::counted;

/// Timings are noisy if the slowest round of a variant takes this many times as long as its fastest.
const NOISY: f64 = 1.25;

/// The warnings of a comparison, one sentence each.
pub(super) fn warnings(variants: &[VariantReport]) -> Vec<String> {
    let Some(baseline) = variants.first() else {
        return Vec::new();
    };
    let failures = variants.iter().filter_map(|variant| {
        let error = variant.error.as_ref()?;
        Some(format!("{} failed: {error}", variant.name))
    });
    let mut warnings: Vec<String> = failures.collect();
    warnings.extend(variants[1..].iter().filter_map(|v| speedup(v, baseline)));
    warnings.extend(noise(variants));
    let runs = || variants.iter().filter_map(|variant| variant.run.as_ref());
    if runs().any(|run| run.model.random_weights) {
        warnings.push("weights are random: the masks mean nothing".to_owned());
    }
    warnings.extend(variants.iter().filter_map(extra_objects));
    if baseline.found_count() == Some(0) {
        warnings.push(format!(
            "{} found no object, so there is nothing to compare with",
            baseline.name
        ));
    }
    if runs().next().is_some() && runs().all(|run| run.scores.is_none()) {
        warnings.push(format!(
            "without ground truth, agreement with {} is known, but not which masks are right",
            baseline.name
        ));
    }
    warnings
}

fn speedup(variant: &VariantReport, baseline: &VariantReport) -> Option<String> {
    let ratio = variant.speedup.as_ref().filter(|ratio| ratio.is_noise())?;
    Some(format!(
        "{} against {}: the difference in time is within the noise (speedup {:.2}, 95% interval {:.2} to {:.2}); close other \
         programs, or measure more rounds",
        variant.name, baseline.name, ratio.median, ratio.low, ratio.high
    ))
}

/// Names the noisiest variant only: a disturbance reaches all of them.
fn noise(variants: &[VariantReport]) -> Option<String> {
    let ranges = variants.iter().filter_map(|variant| {
        let rounds = variant.timing.as_ref()?.round_seconds();
        let min = rounds.iter().copied().reduce(f64::min)?;
        let max = rounds.iter().copied().reduce(f64::max)?;
        Some((max / min, min, max, variant.name.as_str()))
    });
    let (ratio, min, max, name) = ranges.max_by(|a, b| a.0.total_cmp(&b.0))?;
    (ratio > NOISY).then(|| {
        format!(
            "timings are noisy (rounds of {name} differ by {ratio:.2}x, {} to {} a frame); speedups are computed per round and \
             are less affected",
            seconds(min),
            seconds(max),
        )
    })
}

fn extra_objects(variant: &VariantReport) -> Option<String> {
    let extra = variant.truth_extra().filter(|extra| *extra > 0)?;
    Some(format!(
        "{} shows {} that the ground truth does not show; J&F does not count {}",
        variant.name,
        counted(extra, "object"),
        if extra == 1 { "it" } else { "them" }
    ))
}
