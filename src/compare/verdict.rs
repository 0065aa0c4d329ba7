//! The verdict: which variant to run, in one sentence.

use super::report::{Agreement, FoundComparison, VariantReport, Verdict};
use super::warnings::warnings;
use crate::words::counted;

/// A variant is good enough if its J&F is at most this much below the best.
pub const J_AND_F_MARGIN: f64 = 0.01;

/// Without ground truth, a variant is good enough if its mean IoU with the baseline is at least this.
pub const MIN_IOU: f64 = 0.95;

/// Chooses the fastest of the variants whose masks are good enough; the first variant is the baseline.
///
/// With ground truth, masks are good enough if their J&F is at most [`J_AND_F_MARGIN`] below the best. Without it, their mean
/// IoU with the baseline must be at least [`MIN_IOU`], no object may be lost, and variants that find their objects by
/// themselves must find the same ones. If the difference in time is within the noise, the baseline wins, else the variant
/// with the better masks.
pub fn verdict(variants: &[VariantReport]) -> Verdict {
    let warnings = warnings(variants);
    let usable: Vec<&VariantReport> = variants
        .iter()
        .filter(|variant| variant.error.is_none())
        .collect();
    let (Some(baseline), false) = (variants.first(), usable.is_empty()) else {
        return Verdict {
            run: None,
            sentence: "None of the variants could be run.".to_owned(),
            also: None,
            warnings,
        };
    };
    let good = good_enough(&usable, baseline);
    let best = good.iter().copied().reduce(|best, other| {
        match best.time_ratio(other) {
            Some(ratio) if ratio.is_noise() => best_within_noise(best, other, baseline),
            // Above 1: the best so far takes longer.
            Some(ratio) if ratio.median > 1.0 => other,
            _ => best,
        }
    });
    let chosen = best.unwrap_or(usable[0]);
    Verdict {
        run: Some(chosen.name.clone()),
        sentence: sentence(chosen, baseline, &usable, &good),
        also: even_faster(chosen, baseline, &usable),
        warnings,
    }
}

fn j_and_f(variant: &VariantReport) -> Option<f64> {
    variant.means().map(|means| means.j_and_f)
}

fn good_enough<'a>(
    usable: &[&'a VariantReport],
    baseline: &VariantReport,
) -> Vec<&'a VariantReport> {
    let best = usable
        .iter()
        .filter_map(|variant| j_and_f(variant))
        .reduce(f64::max);
    if let Some(best) = best {
        let enough = |v: &&&VariantReport| j_and_f(v).is_some_and(|jf| jf >= best - J_AND_F_MARGIN);
        return usable.iter().filter(enough).copied().collect();
    }
    if baseline.error.is_some() {
        return usable.to_vec();
    }
    let enough =
        |variant: &&&VariantReport| variant.name == baseline.name || nearly_the_same(variant);
    usable.iter().filter(enough).copied().collect()
}

/// Whether a variant has the same objects as the baseline, and nearly the same masks.
fn nearly_the_same(variant: &VariantReport) -> bool {
    let finds = variant.found_objects.as_ref();
    if finds.is_some_and(|finds| finds.missed + finds.extra > 0) {
        return false;
    }
    match &variant.agreement {
        Some(alike) => alike.iou >= MIN_IOU && alike.objects_lost == 0,
        // Two runs that found no object agree.
        None => finds.is_some(),
    }
}

fn best_within_noise<'a>(
    one: &'a VariantReport,
    other: &'a VariantReport,
    baseline: &VariantReport,
) -> &'a VariantReport {
    let quality = |variant: &VariantReport| {
        let agreement = variant.agreement.as_ref().map(|agreement| agreement.iou);
        j_and_f(variant).or(agreement).unwrap_or(0.0)
    };
    let is_baseline = |variant: &VariantReport| variant.name == baseline.name;
    if is_baseline(one) || (!is_baseline(other) && quality(one) >= quality(other)) {
        one
    } else {
        other
    }
}

fn sentence(
    chosen: &VariantReport,
    baseline: &VariantReport,
    usable: &[&VariantReport],
    good: &[&VariantReport],
) -> String {
    let what = format!("{} ({})", chosen.name, chosen.what());
    if usable.len() == 1 {
        return format!("Run {what}: no other variant could be run.");
    }
    if baseline.error.is_some() {
        let quality = match j_and_f(chosen) {
            Some(jf) => format!("the fastest of those with a J&F near the best, {jf:.3}"),
            None => "the fastest; how good its masks are is not known".to_owned(),
        };
        return format!(
            "Run {what}: {quality}; the baseline {} could not be run.",
            baseline.name
        );
    }
    if chosen.name == baseline.name {
        let tied = good.iter().any(|other| {
            other.name != chosen.name && chosen.time_ratio(other).is_some_and(|r| r.is_noise())
        });
        let masks = match j_and_f(chosen) {
            Some(jf) => format!("with masks as good (its J&F is {jf:.3})"),
            None => "with nearly the same masks".to_owned(),
        };
        let why = match (good.len(), tied) {
            (1, _) => format!("no other variant comes {masks}"),
            (_, true) => format!("no variant {masks} is faster by more than the noise"),
            (_, false) => format!("no variant {masks} is faster"),
        };
        return format!("Stay with {what}: {why}.");
    }
    let (time, quality) = (time_text(chosen, baseline), quality_text(chosen, baseline));
    format!("Run {what}: {time}, {quality}.")
}

fn time_text(variant: &VariantReport, baseline: &VariantReport) -> String {
    match &variant.speedup {
        None => "its time is not known".to_owned(),
        Some(ratio) if ratio.is_noise() => format!("as fast as {} within the noise", baseline.name),
        Some(ratio) if ratio.median >= 1.0 => {
            format!("{:.2} times as fast as {}", ratio.median, baseline.name)
        }
        Some(ratio) => format!(
            "{:.2} times the time of {}",
            1.0 / ratio.median,
            baseline.name
        ),
    }
}

fn quality_text(variant: &VariantReport, baseline: &VariantReport) -> String {
    let masks = |agreement: &Agreement| {
        format!(
            "its masks agree with a mean IoU of {:.3} (at worst {:.3})",
            agreement.iou, agreement.worst_iou
        )
    };
    let found = variant.found_objects.as_ref().map(found_text);
    match (j_and_f(variant), j_and_f(baseline), &variant.agreement) {
        (Some(ours), Some(theirs), _) => format!("with J&F {ours:.3} against {theirs:.3}"),
        (_, _, Some(agreement)) => match found {
            Some(found) => format!("it finds {found}, and {}", masks(agreement)),
            None => format!("and {}", masks(agreement)),
        },
        (_, _, None) if found.is_some() => format!("it finds {}", found.unwrap_or_default()),
        _ => "and how good its masks are is not known".to_owned(),
    }
}

/// The objects that a variant found, compared with the baseline: `3 of 4 objects and 1 more`.
pub(super) fn found_text(finds: &FoundComparison) -> String {
    let all = finds.found + finds.missed;
    let more = match finds.extra {
        0 => String::new(),
        extra => format!(" and {extra} more"),
    };
    match (all, finds.missed) {
        (0, _) if finds.extra == 0 => "no object either".to_owned(),
        (0, _) => format!(
            "{} where the baseline finds none",
            counted(finds.extra, "object")
        ),
        (_, 0) => format!("the same {}{more}", counted(all, "object")),
        _ => format!("{} of {}{more}", finds.found, counted(all, "object")),
    }
}

fn even_faster(
    chosen: &VariantReport,
    baseline: &VariantReport,
    usable: &[&VariantReport],
) -> Option<String> {
    let faster = usable.iter().copied().filter(|other| {
        let ratio = chosen.time_ratio(other);
        ratio.is_some_and(|ratio| ratio.median > 1.0 && !ratio.is_noise())
    });
    let seconds = |variant: &VariantReport| {
        let timing = variant.timing.as_ref();
        timing.map_or(f64::MAX, |timing| timing.frame_s.median)
    };
    let fastest = faster.min_by(|a, b| seconds(a).total_cmp(&seconds(b)))?;
    // Without a baseline its speedup is not known.
    fastest.speedup.as_ref()?;
    Some(format!(
        "{} is even faster: {}, {}.",
        fastest.name,
        time_text(fastest, baseline),
        quality_text(fastest, baseline)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::doubles::{agreeing, finding, report, scored, timed};

    fn failed(name: &str) -> VariantReport {
        VariantReport {
            error: Some("out of memory".to_owned()),
            run: None,
            timing: None,
            ..timed(name, &[1.0])
        }
    }

    #[track_caller]
    fn decides(variants: Vec<VariantReport>, run: Option<&str>, words: &[&str]) -> Verdict {
        let verdict = verdict(&report(variants));
        assert_eq!(verdict.run.as_deref(), run, "{verdict:?}");
        for word in words {
            assert!(verdict.sentence.contains(word), "{word}: {verdict:?}");
        }
        assert_eq!(
            verdict.sentence.matches(". ").count(),
            0,
            "one sentence: {verdict:?}"
        );
        verdict
    }

    #[test]
    fn the_fastest_of_those_with_good_masks_is_to_be_run() {
        let a = || timed("a", &[4.0, 4.1, 4.0, 3.9]);
        let b = || agreeing(timed("b", &[2.0, 2.05, 2.0, 1.95]), 0.98);
        let c = || agreeing(timed("c", &[1.0, 1.025, 1.0, 0.975]), 0.80);
        let found = decides(
            vec![a(), b(), c()],
            Some("b"),
            &[
                "Run b (tiny 336 px fp32 on cpu)",
                "2.00 times as fast as a",
                "mean IoU of 0.980",
            ],
        );
        assert!(
            found
                .warnings
                .iter()
                .any(|w| w.contains("without ground truth")),
            "{found:?}"
        );
        let also = found.also.unwrap();
        assert!(
            also.starts_with("c is even faster: 4.00") && also.contains("0.800"),
            "{also}"
        );
        // With ground truth, what counts is the truth and not the baseline.
        let all = vec![scored(a(), 0.85), scored(b(), 0.70), scored(c(), 0.845)];
        let found = decides(all, Some("c"), &["J&F 0.845 against 0.850"]);
        assert!(
            found.warnings.is_empty() && found.also.is_none(),
            "{found:?}"
        );
        // Better masks at a price.
        let slow = scored(timed("b", &[8.0; 4]), 0.95);
        decides(
            vec![scored(a(), 0.85), slow],
            Some("b"),
            &["2.00 times the time of a", "0.950 against 0.850"],
        );
        decides(
            vec![a(), c()],
            Some("a"),
            &[
                "Stay with a",
                "no other variant comes with nearly the same masks",
            ],
        );
    }

    #[test]
    fn a_difference_below_the_noise_decides_nothing() {
        let a = timed("a", &[4.0, 4.2, 3.9, 4.1]);
        let b = agreeing(timed("b", &[4.1, 4.0, 4.0, 4.0]), 0.99);
        let found = decides(
            vec![a.clone(), b],
            Some("a"),
            &["Stay with a", "by more than the noise"],
        );
        let noise = found
            .warnings
            .iter()
            .find(|w| w.contains("is within the noise"))
            .unwrap();
        assert!(
            noise.starts_with("b against a") && noise.contains("more rounds"),
            "{noise}"
        );
        assert!(
            !found
                .warnings
                .iter()
                .any(|w| w.contains("timings are noisy")),
            "{found:?}"
        );
        // Clearly slower is no noise.
        let b = agreeing(timed("b", &[8.0, 8.1, 8.0, 8.2]), 0.99);
        let found = decides(
            vec![a, b],
            Some("a"),
            &["no variant with nearly the same masks is faster."],
        );
        assert!(
            !found
                .warnings
                .iter()
                .any(|w| w.contains("within the noise")),
            "{found:?}"
        );
        let restless = timed("a", &[2.0, 2.0, 3.0, 2.0]);
        let found = decides(
            vec![restless, failed("b")],
            Some("a"),
            &["no other variant could be run"],
        );
        assert!(
            found
                .warnings
                .iter()
                .any(|w| w.contains("timings are noisy") && w.contains("1.50")),
            "{found:?}"
        );
        assert_eq!(found.warnings[0], "b failed: out of memory");
    }

    #[test]
    fn a_variant_that_finds_other_objects_is_not_good_enough() {
        let a = || timed("a", &[4.0; 4]);
        let b = |finds| finding(agreeing(timed("b", &[2.0; 4]), 0.99), finds);
        decides(
            vec![a(), b([3, 0, 0])],
            Some("b"),
            &["it finds the same 3 objects, and its masks agree"],
        );
        let also = |finds| {
            let found = decides(vec![a(), b(finds)], Some("a"), &["Stay with a"]);
            found.also.unwrap()
        };
        assert!(also([2, 1, 0]).contains("it finds 2 of 3 objects, and"));
        assert!(also([3, 0, 1]).contains("it finds the same 3 objects and 1 more, and"));
        // Without an object in common.
        let alone = finding(timed("b", &[2.0; 4]), [0, 1, 2]);
        decides(vec![a(), alone], Some("a"), &["Stay with a"]);
        let nothing = finding(timed("b", &[2.0; 4]), [0, 0, 0]);
        decides(
            vec![a(), nothing],
            Some("b"),
            &["it finds no object either"],
        );
    }

    #[test]
    fn failures_leave_a_verdict_on_the_rest() {
        decides(
            vec![failed("a"), failed("b")],
            None,
            &["None of the variants"],
        );
        let (b, c) = (timed("b", &[4.0; 4]), timed("c", &[2.0; 4]));
        decides(
            vec![failed("a"), b.clone(), c.clone()],
            Some("c"),
            &["the baseline a could not be run", "is not known"],
        );
        decides(
            vec![failed("a"), scored(b, 0.9), scored(c, 0.5)],
            Some("b"),
            &["J&F near the best, 0.900"],
        );
    }
}
