//! `--require "b.iou>=0.97 b.speedup>=1.3"`: what a variant has to reach.

use super::AbError;
use super::report::{RequirementReport, VariantReport};
use super::variant::Variant;
use crate::size;

/// What can be required of a variant.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    /// Its name on the command line.
    pub name: &'static str,
    /// What it is, for the help.
    pub what: &'static str,
    kind: Kind,
    value: fn(&VariantReport) -> Option<f64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Compares with the baseline.
    Relative,
    /// Needs ground truth.
    Scored,
    /// Needs objects that are found.
    Found,
    /// Needs objects that are found, and compares with the baseline.
    FoundRelative,
    /// Needs objects that are found, and ground truth.
    FoundScored,
    /// A number of its own.
    Plain,
    /// A number of bytes.
    Bytes,
}

macro_rules! metric {
    ($name:literal, $kind:ident, $what:literal, $value:expr) => {
        Metric {
            name: $name,
            what: $what,
            kind: Kind::$kind,
            value: $value,
        }
    };
}

/// All metrics, in the order of the help.
pub const METRICS: [Metric; 24] = [
    metric!(
        "iou",
        Relative,
        "mean IoU of its masks with the baseline's, over objects and frames",
        |v| Some(v.agreement.as_ref()?.iou)
    ),
    metric!(
        "worst_iou",
        Relative,
        "the lowest IoU of an object on a frame",
        |v| Some(v.agreement.as_ref()?.worst_iou)
    ),
    metric!(
        "lost",
        Relative,
        "objects whose IoU stays below 0.5 to the end",
        |v| Some(v.agreement.as_ref()?.objects_lost as f64)
    ),
    metric!("j", Scored, "mean J against ground truth", |v| Some(
        v.means()?.j
    )),
    metric!("f", Scored, "mean F", |v| Some(v.means()?.f)),
    metric!("jf", Scored, "mean J&F", |v| Some(v.means()?.j_and_f)),
    metric!(
        "gt_lost",
        Scored,
        "objects whose J stays below 0.5 to the end",
        |v| {
            let run = v.run.as_ref()?;
            run.scores.as_ref()?;
            Some(run.lost.len() as f64)
        }
    ),
    metric!(
        "objects",
        Found,
        "objects that it found, with --text or --proposals",
        |v| Some(v.found()? as f64)
    ),
    metric!(
        "found",
        FoundRelative,
        "objects of the baseline that it found too",
        |v| Some(v.finds.as_ref()?.found as f64)
    ),
    metric!(
        "missed",
        FoundRelative,
        "objects of the baseline that it did not find",
        |v| Some(v.finds.as_ref()?.missed as f64)
    ),
    metric!(
        "extra",
        FoundRelative,
        "its objects that the baseline did not find",
        |v| Some(v.finds.as_ref()?.extra as f64)
    ),
    metric!(
        "differ",
        FoundRelative,
        "frames on which one of them shows an object that the other does not show there",
        |v| Some(v.finds.as_ref()?.differing_frames as f64)
    ),
    metric!(
        "gt_missed",
        FoundScored,
        "objects of the ground truth that it did not find",
        |v| Some(v.missed_and_extra()?[0] as f64)
    ),
    metric!(
        "gt_extra",
        FoundScored,
        "its objects that the ground truth does not show",
        |v| Some(v.missed_and_extra()?[1] as f64)
    ),
    metric!(
        "speedup",
        Relative,
        "the baseline's time of a frame divided by its own, the median of the rounds",
        |v| Some(v.speedup.as_ref()?.median)
    ),
    metric!(
        "speedup_low",
        Relative,
        "the lower end of the 95% interval of speedup",
        |v| Some(v.speedup.as_ref()?.low)
    ),
    metric!(
        "fps",
        Plain,
        "frames per second of the model, 1 / frame_s",
        |v| Some(1.0 / v.timing.as_ref()?.frame_s.median)
    ),
    metric!("frame_s", Plain, "median seconds of a frame", |v| Some(
        v.timing.as_ref()?.frame_s.median
    )),
    metric!(
        "load_s",
        Plain,
        "seconds from its start until the model is loaded",
        |v| Some(v.timing.as_ref()?.load_s)
    ),
    metric!(
        "first_s",
        Plain,
        "seconds from its start to the first masks",
        |v| Some(v.timing.as_ref()?.cold_s)
    ),
    metric!(
        "resident",
        Bytes,
        "greatest resident memory of its process",
        |v| { v.resident_bytes().map(|b| b as f64) }
    ),
    metric!(
        "arena",
        Bytes,
        "greatest size of the arena that its graphs share",
        |v| { v.timing.as_ref()?.arena_peak_bytes.map(|b| b as f64) }
    ),
    metric!("device", Bytes, "memory on the GPU", |v| {
        v.timing.as_ref()?.device_bytes.map(|b| b as f64)
    }),
    metric!("bank", Bytes, "what its memory bank holds", |v| {
        v.timing.as_ref()?.bank_bytes.map(|b| b as f64)
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

/// One requirement on a variant that exists.
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
    pub truth: bool,
    /// Whether objects are found, for texts or by a graph that proposes them.
    pub finds: bool,
}

/// Reads requirements, with spaces or commas between them.
///
/// # Errors
/// [`AbError::Requirement`] for one that is not understood, a variant or a metric that does not exist, and one that can
/// never be judged.
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
            one(text, variants, given).map_err(|detail| AbError::Requirement {
                text: text.to_owned(),
                detail,
            })
        })
        .collect()
}

fn one(text: &str, variants: &[Variant], given: Given) -> Result<Requirement, String> {
    const FORM: &str =
        "expected VARIANT.NAME and >=, <=, > or < and a number without spaces, such as b.iou>=0.97";
    let found = ORDERS.iter().find_map(|(sign, order)| {
        let (left, right) = text.split_once(sign)?;
        Some((left, *order, right))
    });
    let (left, order, right) = found.ok_or(FORM)?;
    let (variant, name) = left.split_once('.').ok_or(FORM)?;
    if !variants.iter().any(|known| known.name == variant) {
        let names: Vec<&str> = variants.iter().map(|v| v.name.as_str()).collect();
        return Err(format!(
            "no variant is called {variant:?}; there are {}",
            names.join(", ")
        ));
    }
    let metric = METRICS
        .iter()
        .find(|metric| metric.name == name)
        .ok_or_else(|| {
            let names: Vec<&str> = METRICS.iter().map(|metric| metric.name).collect();
            format!(
                "unknown name {name:?}, expected one of {}",
                names.join(", ")
            )
        })?;
    let relative = matches!(metric.kind, Kind::Relative | Kind::FoundRelative);
    if relative && variants.first().is_some_and(|first| first.name == variant) {
        return Err(format!(
            "{variant} is the baseline, with which {name} compares; require it of another variant"
        ));
    }
    let found = [Kind::Found, Kind::FoundRelative, Kind::FoundScored];
    if found.contains(&metric.kind) && !given.finds {
        return Err(format!(
            "{name} needs objects that are found; give --text or --proposals, or leave it out"
        ));
    }
    if matches!(metric.kind, Kind::Scored | Kind::FoundScored) && !given.truth {
        return Err(format!(
            "{name} needs ground truth; give --gt DIR, or leave it out"
        ));
    }
    let bound = match metric.kind {
        Kind::Bytes => size::parse(right)? as f64,
        _ => right
            .parse::<f64>()
            .ok()
            .filter(|bound| bound.is_finite())
            .ok_or_else(|| format!("expected a number, got {right:?}"))?,
    };
    Ok(Requirement {
        text: text.to_owned(),
        variant: variant.to_owned(),
        metric: *metric,
        order,
        bound,
    })
}

impl Requirement {
    /// What is found of it; a value that is not known does not meet it.
    pub fn judge(&self, variants: &[VariantReport]) -> RequirementReport {
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
        }
    }
}

/// What was found for a requirement, for people.
pub fn shown(requirement: &RequirementReport) -> String {
    // No variant's name has a point in it.
    let behind = requirement.text.split_once('.').map(|(_, behind)| behind);
    let name = behind.and_then(|behind| behind.split(['<', '>', '=']).next());
    let bytes = |metric: &Metric| metric.kind == Kind::Bytes && Some(metric.name) == name;
    match requirement.value {
        None => "not known".to_owned(),
        Some(value) if METRICS.iter().any(bytes) => size::show(value as u64),
        Some(value) => format!("{value:.4}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::verdict::tests::{agreeing, finding, report, timed};

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
        let judged: Vec<_> = all.iter().map(|one| one.judge(&report)).collect();
        let met: Vec<bool> = judged.iter().map(|one| one.met).collect();
        assert_eq!(met, [false, true, true]);
        assert_eq!(shown(&judged[0]), "0.9600");
        assert_eq!(shown(&judged[2]), "2.00 MiB");
        assert_eq!(judged[1].value, Some(2.0));
        // A bound itself is above nothing, and what is not known is never enough.
        let edge = parse(
            &["b.speedup>2 b.device<9GiB".to_owned()],
            &variants(),
            Given::default(),
        )
        .unwrap();
        assert!(edge.iter().all(|one| !one.judge(&report).met));
        assert_eq!(shown(&edge[1].judge(&report)), "not known");
        assert!(
            parse(&["b.speedup>=2".to_owned()], &variants(), Given::default()).unwrap()[0]
                .judge(&report)
                .met
        );
    }

    #[test]
    fn what_cannot_be_required_is_named() {
        for (text, word) in [
            ("b.iou", "VARIANT.NAME"),
            ("iou>=1", "VARIANT.NAME"),
            ("c.iou>=1", "no variant is called \"c\"; there are a, b"),
            (
                "b.beauty>=1",
                "unknown name \"beauty\", expected one of iou, worst_iou",
            ),
            ("b.iou>=high", "expected a number, got \"high\""),
            ("b.iou>=nan", "expected a number"),
            ("b.arena<=big", "expected a size"),
            ("a.iou>=1", "a is the baseline"),
            ("b.jf>=0.9", "--gt"),
            ("b.missed<=0", "--text"),
            ("b.objects>=1", "--text or --proposals"),
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
            truth: true,
            finds: false,
        };
        assert!(parse(&["b.jf>=0.9".to_owned()], &variants(), truth).is_ok());
    }

    #[test]
    fn what_was_found_can_be_required() {
        let given = Given {
            truth: false,
            finds: true,
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
            let judged = ask(text).unwrap()[0].judge(&report);
            assert_eq!(judged.met, met, "{judged:?}");
        }
        for (text, word) in [
            ("a.missed<=0", "a is the baseline"),
            ("b.gt_missed<=0", "--gt"),
        ] {
            let message = ask(text).unwrap_err().to_string();
            assert!(message.contains(word), "{message}");
        }
    }
}
