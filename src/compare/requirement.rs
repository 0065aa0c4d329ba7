//! Requirements on variants, such as `b.iou>=0.97`.

use super::error::{AbError, RequirementProblem as Problem};
use super::report::{RequirementReport, Unit, VariantReport};
use super::variant::Variant;
use crate::size;

/// A number that can be required of a variant.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    /// Its name in a requirement.
    pub name: &'static str,
    /// What it is, for the help.
    pub what: &'static str,
    unit: Unit,
    needs: &'static [Need],
    value: fn(&VariantReport) -> Option<f64>,
}

/// What a metric cannot be computed without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Need {
    /// A baseline to compare with: the metric says nothing about the baseline itself.
    Baseline,
    /// Ground truth.
    GroundTruth,
    /// Objects that variants find by themselves.
    FoundObjects,
}

use Need::{Baseline, FoundObjects, GroundTruth};

impl Metric {
    const fn new(
        name: &'static str,
        needs: &'static [Need],
        what: &'static str,
        value: fn(&VariantReport) -> Option<f64>,
    ) -> Self {
        Self {
            name,
            what,
            unit: Unit::Number,
            needs,
            value,
        }
    }

    const fn bytes(
        name: &'static str,
        what: &'static str,
        value: fn(&VariantReport) -> Option<f64>,
    ) -> Self {
        Self {
            unit: Unit::Bytes,
            ..Self::new(name, &[], what, value)
        }
    }
}

/// All metrics, in the order of the help.
pub const METRICS: [Metric; 24] = [
    Metric::new(
        "iou",
        &[Baseline],
        "mean IoU of its masks with the baseline's, over objects and frames",
        |v| Some(v.agreement.as_ref()?.iou),
    ),
    Metric::new(
        "worst_iou",
        &[Baseline],
        "the lowest IoU of an object on a frame",
        |v| Some(v.agreement.as_ref()?.worst_iou),
    ),
    Metric::new(
        "lost",
        &[Baseline],
        "objects whose IoU stays below 0.5 to the end",
        |v| Some(v.agreement.as_ref()?.objects_lost as f64),
    ),
    Metric::new("j", &[GroundTruth], "mean J against ground truth", |v| {
        Some(v.means()?.j)
    }),
    Metric::new("f", &[GroundTruth], "mean F", |v| Some(v.means()?.f)),
    Metric::new("jf", &[GroundTruth], "mean J&F", |v| {
        Some(v.means()?.j_and_f)
    }),
    Metric::new(
        "gt_lost",
        &[GroundTruth],
        "objects whose J stays below 0.5 to the end",
        |v| {
            let run = v.run.as_ref()?;
            run.scores.as_ref()?;
            Some(run.lost.len() as f64)
        },
    ),
    Metric::new(
        "objects",
        &[FoundObjects],
        "objects that it found with texts or proposals",
        |v| Some(v.found_count()? as f64),
    ),
    Metric::new(
        "found",
        &[FoundObjects, Baseline],
        "objects of the baseline that it found too",
        |v| Some(v.found_objects.as_ref()?.found as f64),
    ),
    Metric::new(
        "missed",
        &[FoundObjects, Baseline],
        "objects of the baseline that it did not find",
        |v| Some(v.found_objects.as_ref()?.missed as f64),
    ),
    Metric::new(
        "extra",
        &[FoundObjects, Baseline],
        "its objects that the baseline did not find",
        |v| Some(v.found_objects.as_ref()?.extra as f64),
    ),
    Metric::new(
        "differ",
        &[FoundObjects, Baseline],
        "frames on which one of them shows an object that the other does not show",
        |v| Some(v.found_objects.as_ref()?.differing_frames as f64),
    ),
    Metric::new(
        "gt_missed",
        &[FoundObjects, GroundTruth],
        "objects of the ground truth that it did not find",
        |v| Some(v.truth_missed()? as f64),
    ),
    Metric::new(
        "gt_extra",
        &[FoundObjects, GroundTruth],
        "its objects that the ground truth does not show",
        |v| Some(v.truth_extra()? as f64),
    ),
    Metric::new(
        "speedup",
        &[Baseline],
        "the baseline's time of a frame divided by its own, the median of the rounds",
        |v| Some(v.speedup.as_ref()?.median),
    ),
    Metric::new(
        "speedup_low",
        &[Baseline],
        "the lower end of the 95% interval of speedup",
        |v| Some(v.speedup.as_ref()?.low),
    ),
    Metric::new(
        "fps",
        &[],
        "frames per second of the model, 1 / frame_s",
        |v| Some(1.0 / v.timing.as_ref()?.frame_s.median),
    ),
    Metric::new("frame_s", &[], "median seconds of a frame", |v| {
        Some(v.timing.as_ref()?.frame_s.median)
    }),
    Metric::new(
        "load_s",
        &[],
        "seconds from the start of its process until the model is loaded",
        |v| Some(v.timing.as_ref()?.load_s),
    ),
    Metric::new(
        "first_s",
        &[],
        "seconds from the start of its process to the first masks",
        |v| Some(v.timing.as_ref()?.cold_s),
    ),
    Metric::bytes("resident", "peak resident memory of its process", |v| {
        Some(v.resident_bytes()? as f64)
    }),
    Metric::bytes(
        "arena",
        "peak size of the arena that its graphs share",
        |v| Some(v.timing.as_ref()?.arena_peak_bytes? as f64),
    ),
    Metric::bytes("device", "memory on the GPU", |v| {
        Some(v.timing.as_ref()?.device_bytes? as f64)
    }),
    Metric::bytes("bank", "size of its memory bank", |v| {
        Some(v.timing.as_ref()?.bank_bytes? as f64)
    }),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    AtLeast,
    AtMost,
    Above,
    Below,
}

const ORDERS: [(&str, Order); 4] = [
    (">=", Order::AtLeast),
    ("<=", Order::AtMost),
    (">", Order::Above),
    ("<", Order::Below),
];

/// A requirement on one of the variants.
#[derive(Debug, Clone)]
pub struct Requirement {
    text: String,
    variant: String,
    metric: Metric,
    order: Order,
    bound: f64,
}

/// What a comparison has that some metrics need.
#[derive(Debug, Clone, Copy, Default)]
pub struct Given {
    /// Ground truth.
    pub ground_truth: bool,
    /// Objects that variants find by themselves, with texts or proposals.
    pub found_objects: bool,
}

/// Reads requirements that are separated by spaces or commas.
///
/// # Errors
/// [`AbError::Requirement`] for one that cannot be read, that names an unknown variant or metric, or whose metric needs
/// something that the comparison does not have.
pub fn parse(
    texts: &[String],
    variants: &[Variant],
    given: Given,
) -> Result<Vec<Requirement>, AbError> {
    let pieces = texts.iter().flat_map(|text| {
        let pieces = text.split(|c: char| c.is_whitespace() || c == ',');
        pieces.filter(|piece| !piece.is_empty())
    });
    pieces
        .map(|text| {
            parse_one(text, variants, given).map_err(|problem| AbError::Requirement {
                text: text.to_owned(),
                problem,
            })
        })
        .collect()
}

fn parse_one(text: &str, variants: &[Variant], given: Given) -> Result<Requirement, Problem> {
    let found = ORDERS.iter().find_map(|(sign, order)| {
        let (left, right) = text.split_once(sign)?;
        Some((left, *order, right))
    });
    let (left, order, right) = found.ok_or(Problem::Form)?;
    let (variant, name) = left.split_once('.').ok_or(Problem::Form)?;
    if !variants.iter().any(|known| known.name == variant) {
        return Err(Problem::UnknownVariant {
            name: variant.to_owned(),
            known: variants.iter().map(|v| v.name.clone()).collect(),
        });
    }
    let metric = METRICS.iter().find(|metric| metric.name == name);
    let metric = metric.ok_or_else(|| Problem::UnknownMetric {
        name: name.to_owned(),
        known: METRICS.iter().map(|metric| metric.name).collect(),
    })?;
    let is_baseline = variants.first().is_some_and(|first| first.name == variant);
    for need in metric.needs {
        let metric = metric.name;
        match need {
            Baseline if is_baseline => {
                let variant = variant.to_owned();
                return Err(Problem::OfBaseline { metric, variant });
            }
            FoundObjects if !given.found_objects => {
                return Err(Problem::NeedsFoundObjects { metric });
            }
            GroundTruth if !given.ground_truth => {
                return Err(Problem::NeedsGroundTruth { metric });
            }
            _ => {}
        }
    }
    Ok(Requirement {
        text: text.to_owned(),
        variant: variant.to_owned(),
        metric: *metric,
        order,
        bound: bound(right, metric.unit).map_err(|detail| Problem::Bound { detail })?,
    })
}

fn bound(text: &str, unit: Unit) -> Result<f64, String> {
    match unit {
        Unit::Bytes => Ok(size::parse(text)? as f64),
        Unit::Number => text
            .parse::<f64>()
            .ok()
            .filter(|bound| bound.is_finite())
            .ok_or_else(|| format!("expected a number, got {text:?}")),
    }
}

impl Requirement {
    /// Checks it against the results. A value that is not known does not meet it.
    pub fn check(&self, variants: &[VariantReport]) -> RequirementReport {
        let variant = variants.iter().find(|known| known.name == self.variant);
        let value = variant.and_then(self.metric.value);
        let met = value.is_some_and(|value| match self.order {
            Order::AtLeast => value >= self.bound,
            Order::AtMost => value <= self.bound,
            Order::Above => value > self.bound,
            Order::Below => value < self.bound,
        });
        RequirementReport {
            text: self.text.clone(),
            value,
            met,
            unit: self.metric.unit,
        }
    }
}

impl RequirementReport {
    /// The value as people read it, such as `0.9731` or `1.50 GiB`; `not known` without a value.
    pub fn value_text(&self) -> String {
        match (self.value, self.unit) {
            (None, _) => "not known".to_owned(),
            (Some(value), Unit::Bytes) => size::show(value as u64),
            (Some(value), Unit::Number) => format!("{value:.4}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::doubles::{agreeing, finding, report, timed};

    fn variants() -> Vec<Variant> {
        ["a=m", "b=m"]
            .map(|text| Variant::parse(text).unwrap())
            .to_vec()
    }

    #[test]
    fn requirements_are_read_and_judged() {
        let texts = [
            "b.iou>=0.97 b.speedup>1.3,".to_owned(),
            "a.resident<=2MiB".to_owned(),
        ];
        let all = parse(&texts, &variants(), Given::default()).unwrap();
        let mut a = timed("a", &[2.0; 4]);
        a.timing.as_mut().unwrap().peak_resident_bytes = Some(2 << 20);
        let b = agreeing(timed("b", &[1.0; 4]), 0.96);
        let report = report(vec![a, b]);
        let judged: Vec<_> = all.iter().map(|one| one.check(&report)).collect();
        let met: Vec<bool> = judged.iter().map(|one| one.met).collect();
        assert_eq!(met, [false, true, true]);
        assert_eq!(judged[0].value_text(), "0.9600");
        assert_eq!(judged[2].value_text(), "2.00 MiB");
        assert_eq!(judged[1].value, Some(2.0));
        // A bound itself is above nothing, and what is not known is never enough.
        let edge = parse(
            &["b.speedup>2 b.device<9GiB".to_owned()],
            &variants(),
            Given::default(),
        )
        .unwrap();
        assert!(edge.iter().all(|one| !one.check(&report).met));
        assert_eq!(edge[1].check(&report).value_text(), "not known");
        assert!(
            parse(&["b.speedup>=2".to_owned()], &variants(), Given::default()).unwrap()[0]
                .check(&report)
                .met
        );
    }

    #[test]
    fn what_cannot_be_required_is_named() {
        for (text, word) in [
            ("b.iou", "VARIANT.METRIC"),
            ("iou>=1", "VARIANT.METRIC"),
            ("c.iou>=1", "no variant is called \"c\"; there are a, b"),
            (
                "b.beauty>=1",
                "unknown metric \"beauty\", expected one of iou, worst_iou",
            ),
            ("b.iou>=high", "expected a number, got \"high\""),
            ("b.iou>=nan", "expected a number"),
            ("b.arena<=big", "expected a size"),
            (
                "a.iou>=1",
                "iou compares with the baseline, and a is the baseline",
            ),
            ("b.jf>=0.9", "jf needs ground truth"),
            ("b.missed<=0", "missed needs variants that find"),
            ("b.objects>=1", "their objects by themselves"),
        ] {
            let message = parse(&[text.to_owned()], &variants(), Given::default())
                .unwrap_err()
                .to_string();
            assert!(
                message.contains(word) && message.contains(text),
                "{message}"
            );
        }
        let truth = Given {
            ground_truth: true,
            found_objects: false,
        };
        assert!(parse(&["b.jf>=0.9".to_owned()], &variants(), truth).is_ok());
    }

    #[test]
    fn what_was_found_can_be_required() {
        let given = Given {
            ground_truth: false,
            found_objects: true,
        };
        let ask = |text: &str| parse(&[text.to_owned()], &variants(), given);
        let b = finding(agreeing(timed("b", &[1.0; 4]), 0.96), [2, 1, 0]);
        let report = report(vec![timed("a", &[2.0; 4]), b]);
        for (text, met) in [
            ("b.missed<=0", false),
            ("b.missed<=1", true),
            ("b.extra<=0", true),
            ("b.found>=2", true),
            ("b.differ<1", false),
        ] {
            let judged = ask(text).unwrap()[0].check(&report);
            assert_eq!(judged.met, met, "{judged:?}");
        }
        for (text, word) in [
            ("a.missed<=0", "a is the baseline"),
            ("b.gt_missed<=0", "gt_missed needs ground truth"),
        ] {
            let message = ask(text).unwrap_err().to_string();
            assert!(message.contains(word), "{message}");
        }
    }
}
