//! Time and memory on the page.

use super::charts::{Bar, Bars, Part, SampleRow, Samples};
use crate::bench::report::{TRACKER_STAGES, VariantTiming};
use crate::bench::table::{seconds, spread};
use crate::compare::report::{AbReport, VariantReport};
use crate::size;

/// The classes of colours after those of the tracker's stages; see `page.css`.
const REST: usize = TRACKER_STAGES.len();
const DETECTOR: usize = REST + 1;

/// A variant with its place and its timing.
type Measured<'a> = (usize, &'a VariantReport, &'a VariantTiming);

/// What the page shows of times.
pub(super) struct Time {
    pub samples: Samples,
    pub stages: Bars,
    /// Whether some stages run on some frames only.
    pub partial_stages: bool,
    /// The class and the name of each stage.
    pub legend: Vec<(String, String)>,
    pub startup: Bars,
}

fn measured(report: &AbReport) -> Vec<Measured<'_>> {
    let variants = report.variants.iter().enumerate();
    variants
        .filter_map(|(place, variant)| Some((place, variant, variant.timing.as_ref()?)))
        .collect()
}

/// The times of all variants; `None` if none was measured.
pub(super) fn time(report: &AbReport) -> Option<Time> {
    let measured = measured(report);
    let timings = || measured.iter().map(|(_, _, timing)| *timing);
    let stages = || timings().flat_map(|t| t.stages_s.iter().map(move |(name, _)| (t, name)));
    let mut legend: Vec<(usize, &str)> = TRACKER_STAGES.iter().copied().enumerate().collect();
    if stages().any(|(_, name)| is_detector(name)) {
        legend.push((DETECTOR, "detector"));
    }
    legend.push((REST, "the rest"));
    let legend = legend.into_iter();
    (!measured.is_empty()).then(|| Time {
        samples: Samples::new(measured.iter().map(sample_row).collect(), seconds),
        stages: Bars {
            bars: measured.iter().map(stage_bar).collect(),
        },
        partial_stages: stages().any(|(timing, name)| timing.share_s(name, 1.0) < 1.0),
        legend: legend
            .map(|(class, name)| (format!("s{class}"), name.replace('_', " ")))
            .collect(),
        startup: Bars {
            bars: measured.iter().map(startup_bar).collect(),
        },
    })
}

fn sample_row((place, variant, timing): &Measured<'_>) -> SampleRow {
    let rounds = timing.rounds.iter();
    SampleRow {
        place: *place,
        name: variant.name.clone(),
        rounds: rounds
            .map(|block| block.iter().map(|frame| frame.seconds).collect())
            .collect(),
        low: timing.frame_s.low,
        median: timing.frame_s.median,
        high: timing.frame_s.high,
        text: spread(&timing.frame_s),
    }
}

fn is_detector(stage: &str) -> bool {
    stage.starts_with("detector")
}

/// The stages of a frame in the order in which they run, those of the detector as one. A stage that runs on some frames
/// only counts with its share.
fn stage_bar((_, variant, timing): &Measured<'_>) -> Bar {
    let part = |class: usize, name: &str, value: f64| Part {
        value,
        class: format!("s{class}"),
        title: format!("{name} {}", seconds(value)),
    };
    let mut parts = Vec::new();
    let mut detector = 0.0;
    for (name, spread) in &timing.stages_s {
        let share = timing.share_s(name, spread.median);
        match TRACKER_STAGES.iter().position(|known| known == name) {
            Some(place) => parts.push(part(place, name, share)),
            None if is_detector(name) => detector += share,
            None => parts.push(part(REST, name, share)),
        }
    }
    if detector > 0.0 {
        parts.push(part(DETECTOR, "detector", detector));
    }
    let known: f64 = parts.iter().map(|part| part.value).sum();
    let rest = (timing.frame_s.median - known).max(0.0);
    parts.push(part(REST, "the rest", rest));
    Bar {
        name: variant.name.clone(),
        parts,
        text: seconds(timing.frame_s.median),
    }
}

fn startup_bar((place, variant, timing): &Measured<'_>) -> Bar {
    let part = |value: f64, class: String, title: &str| Part {
        value,
        class,
        title: title.to_owned(),
    };
    let first = timing.cold_s - timing.load_s;
    Bar {
        name: variant.name.clone(),
        parts: vec![
            part(
                timing.load_s,
                format!("c{}", place % 8),
                "until the model is loaded",
            ),
            part(first, format!("s{REST}"), "the first frame"),
        ],
        text: seconds(timing.cold_s),
    }
}

/// A chart for each kind of memory that was measured, with its title.
pub(super) fn memory(report: &AbReport) -> Vec<(&'static str, Bars)> {
    type Kind = (&'static str, fn(&VariantTiming) -> Option<u64>);
    let kinds: [Kind; 4] = [
        ("Peak resident memory of the process", |t| {
            t.peak_resident_bytes
        }),
        ("Peak size of the arena that all graphs share", |t| {
            t.arena_peak_bytes
        }),
        ("Memory on the GPU", |t| t.device_bytes),
        ("Memory bank of all objects", |t| t.bank_bytes),
    ];
    let measured = measured(report);
    let charts = kinds.into_iter().map(|(title, bytes)| {
        let bar = |(place, variant, timing): &Measured<'_>| {
            let bytes = bytes(timing)?;
            Some(Bar {
                name: variant.name.clone(),
                parts: vec![Part {
                    value: bytes as f64,
                    class: format!("c{}", place % 8),
                    title: title.to_owned(),
                }],
                text: size::show(bytes),
            })
        };
        let bars: Vec<Bar> = measured.iter().filter_map(bar).collect();
        (title, Bars { bars })
    });
    charts.filter(|(_, chart)| !chart.bars.is_empty()).collect()
}
