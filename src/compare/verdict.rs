//! Which variant to run, in one sentence, and what to know before believing it.

use serde::{Deserialize, Serialize};

use super::agreement::Agreement;
use super::finds::Finds;
use super::report::VariantReport;
use super::warnings;
use crate::bench::stats::Ratio;
use crate::words::counted;

/// As good as the best: J&F at most this much below it.
pub const J_AND_F_MARGIN: f64 = 0.01;

/// Without ground truth, as good as the baseline: a mean IoU with it of at least this, and no object lost.
pub const ENOUGH_IOU: f64 = 0.95;

/// Which variant to run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// Its name; null if none could be run.
    pub run: Option<String>,
    /// The verdict in one sentence.
    pub sentence: String,
    /// A variant that is faster still, at the price of its masks, in one sentence; null if there is none.
    pub also: Option<String>,
    /// What speaks against it, or is to be known, one sentence each.
    pub warnings: Vec<String>,
}

/// The verdict on variants, of which the first is the baseline: among those whose masks are good enough, the one that
/// takes least time. With ground truth, good enough is a J&F of at most [`J_AND_F_MARGIN`] below the best; without it, a mean
/// IoU with the baseline of [`ENOUGH_IOU`] and no object lost, and where each finds its objects itself, the same ones. Where the difference in time is smaller than the noise, the
/// baseline, else the better masks.
pub fn verdict(variants: &[VariantReport]) -> Verdict {
    let warnings = warnings::warnings(variants);
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
        match ratio(best, other) {
            Some(ratio) if ratio.is_noise() => best_of_equals(best, other, baseline),
            // Above 1: the one so far takes longer.
            Some(ratio) if ratio.median > 1.0 => other,
            _ => best,
        }
    });
    let chosen = best.unwrap_or(usable[0]);
    Verdict {
        run: Some(chosen.name.clone()),
        sentence: sentence(chosen, baseline, &usable, &good),
        also: faster_still(chosen, baseline, &usable),
        warnings,
    }
}

/// The first's time divided by the second's, round by round.
pub fn ratio(first: &VariantReport, second: &VariantReport) -> Option<Ratio> {
    let rounds = |variant: &VariantReport| Some(variant.timing.as_ref()?.round_seconds());
    Ratio::of(&rounds(first)?, &rounds(second)?)
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

/// Whether a variant's masks are those of the baseline, of the same objects.
fn nearly_the_same(variant: &VariantReport) -> bool {
    let finds = variant.finds.as_ref();
    if finds.is_some_and(|finds| finds.missed + finds.extra > 0) {
        return false;
    }
    match &variant.agreement {
        Some(alike) => alike.iou >= ENOUGH_IOU && alike.objects_lost == 0,
        // Where both found nothing there is nothing to disagree about.
        None => finds.is_some(),
    }
}

fn best_of_equals<'a>(
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
            other.name != chosen.name && ratio(chosen, other).is_some_and(|r| r.is_noise())
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
    let found = variant.finds.as_ref().map(found_text);
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

/// What a variant finds of the baseline's objects: `3 of 4 objects and 1 more`.
pub(super) fn found_text(finds: &Finds) -> String {
    let all = finds.found + finds.missed;
    let more = match finds.extra {
        0 => String::new(),
        extra => format!(" and {extra} more"),
    };
    match (all, finds.missed) {
        (0, _) if finds.extra == 0 => "nothing either".to_owned(),
        (0, _) => format!("{} where nothing was found", counted(finds.extra, "object")),
        (_, 0) => format!("the same {}{more}", counted(all, "object")),
        _ => format!("{} of {}{more}", finds.found, counted(all, "object")),
    }
}

fn faster_still(
    chosen: &VariantReport,
    baseline: &VariantReport,
    usable: &[&VariantReport],
) -> Option<String> {
    let faster = usable.iter().copied().filter(|other| {
        let ratio = ratio(chosen, other);
        ratio.is_some_and(|ratio| ratio.median > 1.0 && !ratio.is_noise())
    });
    let seconds = |variant: &VariantReport| {
        let timing = variant.timing.as_ref();
        timing.map_or(f64::MAX, |timing| timing.frame_s.median)
    };
    let fastest = faster.min_by(|a, b| seconds(a).total_cmp(&seconds(b)))?;
    // Against a baseline that failed nothing is known.
    fastest.speedup.as_ref()?;
    Some(format!(
        "{} is faster still: {}, {}.",
        fastest.name,
        time_text(fastest, baseline),
        quality_text(fastest, baseline)
    ))
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::bench::arm::First;
    use crate::bench::protocol::{Frame, Ready};
    use crate::bench::report::ArmReport;
    use crate::compare::agreement::{Agreement, FrameIou, ObjectAgreement};
    use crate::compare::report::VariantRun;
    use crate::session::report::{MeanScores, ModelReport, RuntimeReport, ScoresReport};

    /// A variant whose rounds of one frame took `seconds`.
    pub fn timed(name: &str, seconds: &[f64]) -> VariantReport {
        let frame = |seconds: &f64| {
            vec![Frame {
                seconds: *seconds,
                stages: BTreeMap::from([("vision_encoder".to_owned(), seconds / 2.0)]),
                peak_resident_bytes: Some(100 << 20),
                arena_peak_bytes: Some(50 << 20),
                device_bytes: None,
                bank_bytes: Some(1 << 20),
            }]
        };
        let ready = Ready {
            what: "a double".to_owned(),
            resolution: 336,
            precision: "fp32".to_owned(),
            threads: 2,
            once: BTreeMap::new(),
        };
        let first = First {
            ready,
            load_s: 1.0,
            cold_s: 2.0,
        };
        let model = ModelReport {
            dir: format!("models/{name}"),
            name: "tiny".to_owned(),
            family: "sam3".to_owned(),
            resolution: 336,
            precision: "fp32".to_owned(),
            manifest_sha256: String::new(),
            random_weights: false,
        };
        let runtime = RuntimeReport {
            snow_ort: "0".to_owned(),
            onnxruntime: "0".to_owned(),
            library: String::new(),
            provider: "cpu".to_owned(),
            threads: None,
            chunk: 8,
            memory_selection: None,
        };
        VariantReport {
            name: name.to_owned(),
            dir: format!("models/{name}"),
            provider: "cpu".to_owned(),
            error: None,
            run: Some(VariantRun {
                folder: name.to_owned(),
                model,
                runtime,
                fps: 1.0,
                peak_memory_bytes: None,
                detector: None,
                proposals: None,
                texts: Vec::new(),
                scores: None,
                lost: Vec::new(),
            }),
            agreement: None,
            finds: None,
            timing: ArmReport::new(name, first, seconds.iter().map(frame).collect()),
            speedup: None,
        }
    }

    /// With a constant IoU with the baseline, on two frames.
    pub fn agreeing(mut variant: VariantReport, iou: f64) -> VariantReport {
        let per_frame = [0, 1].map(|frame| FrameIou { frame, iou }).to_vec();
        let object = ObjectAgreement {
            object: 1,
            iou,
            worst_iou: iou,
            worst_frame: 0,
            first_below: None,
            lost_from: None,
            per_frame,
        };
        variant.agreement = Agreement::of(vec![object]);
        variant
    }

    pub fn scored(mut variant: VariantReport, j_and_f: f64) -> VariantReport {
        let overall = MeanScores {
            j: j_and_f,
            j_recall: 1.0,
            f: j_and_f,
            f_recall: 1.0,
            j_and_f,
        };
        variant.run.as_mut().unwrap().scores = Some(ScoresReport {
            ground_truth: "gt".to_owned(),
            matched_by: "number".to_owned(),
            objects_by: crate::session::report::OBJECTS_BY_ID.to_owned(),
            annotated_frames: 2,
            overall: Some(overall),
            objects: Vec::new(),
            not_scored: Vec::new(),
        });
        variant
    }

    fn failed(name: &str) -> VariantReport {
        VariantReport {
            error: Some("out of memory".to_owned()),
            run: None,
            timing: None,
            ..timed(name, &[1.0])
        }
    }

    /// With the speedups that follow from the times.
    pub fn report(mut variants: Vec<VariantReport>) -> Vec<VariantReport> {
        let baseline = variants[0].clone();
        for variant in &mut variants[1..] {
            variant.speedup = ratio(&baseline, variant);
        }
        variants
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
            also.starts_with("c is faster still: 4.00") && also.contains("0.800"),
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
            .find(|w| w.contains("the noise is larger"))
            .unwrap();
        assert!(
            noise.starts_with("b against a") && noise.contains("--rounds"),
            "{noise}"
        );
        assert!(
            !found.warnings.iter().any(|w| w.contains("not quiet")),
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
            !found.warnings.iter().any(|w| w.contains("noise is larger")),
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
                .any(|w| w.contains("not quiet") && w.contains("1.50")),
            "{found:?}"
        );
        assert_eq!(found.warnings[0], "b failed: out of memory");
    }

    /// With what it found of the baseline's objects.
    pub fn finding(mut variant: VariantReport, [found, missed, extra]: [u64; 3]) -> VariantReport {
        variant.finds = Some(Finds {
            found,
            missed,
            extra,
            differing_frames: missed + extra,
            texts: Vec::new(),
        });
        variant
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
        decides(vec![a(), nothing], Some("b"), &["it finds nothing either"]);
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
