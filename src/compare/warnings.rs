//! What to know before believing a verdict.

use super::report::VariantReport;
use crate::words::counted;

/// Rounds of one variant that are further apart than this ratio say that the machine did something else as well.
const QUIET: f64 = 1.25;

/// What speaks against a comparison, one sentence each.
pub(super) fn warnings(variants: &[VariantReport]) -> Vec<String> {
    let mut warnings = Vec::new();
    for variant in variants {
        if let Some(error) = &variant.error {
            warnings.push(format!("{} failed: {error}", variant.name));
        }
    }
    let Some(baseline) = variants.first() else {
        return warnings;
    };
    for variant in &variants[1..] {
        if let Some(ratio) = variant.speedup.as_ref().filter(|ratio| ratio.is_noise()) {
            warnings.push(format!(
                "{} against {}: the noise is larger than the difference in time (speedup {:.2}, 95% interval {:.2} to {:.2}); close other programs, or raise --rounds",
                variant.name, baseline.name, ratio.median, ratio.low, ratio.high
            ));
        }
    }
    // The one that shows it most: all of them have their turns at the same moments.
    let unrest = variants.iter().filter_map(|variant| {
        let rounds = variant.timing.as_ref()?.round_seconds();
        let least = rounds.iter().copied().reduce(f64::min)?;
        let most = rounds.iter().copied().reduce(f64::max)?;
        Some((most / least, least, most, variant.name.as_str()))
    });
    let worst = unrest.max_by(|a, b| a.0.total_cmp(&b.0));
    if let Some((ratio, least, most, name)) = worst.filter(|(ratio, ..)| *ratio > QUIET) {
        warnings.push(format!(
            "the machine was not quiet: rounds of {name} took {:.2} times as long as others ({} to {} a frame); ratios are taken within rounds and suffer less than times do",
            ratio,
            crate::bench::table::seconds(least),
            crate::bench::table::seconds(most),
        ));
    }
    let runs = || variants.iter().filter_map(|variant| variant.run.as_ref());
    if runs().any(|run| run.model.random_weights) {
        warnings.push("weights are random: the masks mean nothing".to_owned());
    }
    for variant in variants {
        if let Some([_, extra]) = variant.missed_and_extra().filter(|[_, extra]| *extra > 0) {
            warnings.push(format!(
                "{} shows {} that the ground truth does not; J&F counts what it shows only",
                variant.name,
                counted(extra, "object")
            ));
        }
    }
    if baseline.found() == Some(0) {
        warnings.push(format!(
            "{} found nothing: there is nothing to compare with",
            baseline.name
        ));
    }
    if runs().next().is_some() && runs().all(|run| run.scores.is_none()) {
        warnings.push(format!(
            "without ground truth (--gt) it is only known how far masks agree with those of {}, not which are right",
            baseline.name
        ));
    }
    warnings
}
