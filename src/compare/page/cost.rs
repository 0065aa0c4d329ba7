//! The parts of the page with time and memory.

use crate::bench::report::{ArmReport, ORDER};
use crate::bench::table::{seconds, spread};
use crate::compare::chart::{self, Bar, Samples};
use crate::compare::report::{AbReport, VariantReport};
use crate::size;

fn timed(report: &AbReport) -> Vec<(usize, &VariantReport, &ArmReport)> {
    let variants = report.variants.iter().enumerate();
    variants
        .filter_map(|(place, variant)| Some((place, variant, variant.timing.as_ref()?)))
        .collect()
}

/// Classes of what is no graph of the tracker: see `page.css`.
const REST: usize = ORDER.len();
const DETECTOR: usize = REST + 1;

fn is_detector(stage: &str) -> bool {
    stage.starts_with("detector")
}

/// A frame's stages in the order in which they run; the detector's are one. One that only some frames have counts with their share.
fn parts(arm: &ArmReport) -> Vec<(f64, String, String)> {
    let part = |class: usize, name: &str, value: f64| {
        let said = format!("{name} {}", seconds(value));
        (value, format!("s{class}"), said)
    };
    let of_tracker = |name: &str| ORDER.iter().position(|known| *known == name);
    let mut parts = Vec::new();
    let mut detector = 0.0;
    for (name, spread) in &arm.stages_s {
        match of_tracker(name) {
            Some(place) => parts.push(part(place, name, arm.share_s(name, spread.median))),
            None if is_detector(name) => detector += arm.share_s(name, spread.median),
            None => parts.push(part(REST, name, arm.share_s(name, spread.median))),
        }
    }
    if detector > 0.0 {
        parts.push(part(DETECTOR, "detector", detector));
    }
    let known: f64 = parts.iter().map(|(value, ..)| value).sum();
    let rest = (arm.frame_s.median - known).max(0.0);
    parts.push(part(REST, "the rest", rest));
    parts
}

/// Whether a stage is not on every frame.
fn sometimes(arm: &ArmReport) -> bool {
    let part = |name: &String| arm.share_s(name, 1.0) < 1.0;
    arm.stages_s.iter().any(|(name, _)| part(name))
}

pub(super) fn time(report: &AbReport) -> String {
    let timed = timed(report);
    if timed.is_empty() {
        return "<p class=\"note\">No variant was timed.</p>".to_owned();
    }
    let samples: Vec<Samples<'_>> = timed
        .iter()
        .map(|(place, variant, arm)| Samples {
            place: *place,
            name: &variant.name,
            rounds: arm
                .rounds
                .iter()
                .map(|block| block.iter().map(|frame| frame.seconds).collect())
                .collect(),
            quartiles: [arm.frame_s.low, arm.frame_s.median, arm.frame_s.high],
            text: spread(&arm.frame_s),
        })
        .collect();
    let mut html = String::from("<h3>Seconds of a frame, every sample</h3>");
    html.push_str(&chart::strips(&samples, seconds));
    html.push_str("<p class=\"note\">A dot is one frame, the first round above, the last below; the box holds the middle half, the bar is the median.</p>");
    html.push_str("<h3>Stages of a frame, medians</h3>");
    let detects = timed
        .iter()
        .any(|(_, _, arm)| arm.stages_s.iter().any(|(name, _)| is_detector(name)));
    let bars: Vec<Bar<'_>> = timed
        .iter()
        .map(|(_, variant, arm)| Bar {
            name: &variant.name,
            parts: parts(arm),
            text: seconds(arm.frame_s.median),
        })
        .collect();
    html.push_str(&chart::bars(&bars));
    if timed.iter().any(|(_, _, arm)| sometimes(arm)) {
        html.push_str("<p class=\"note\">What is done on some frames only counts with its share in a frame.</p>");
    }
    let entry = |(place, name): (usize, &str)| {
        format!(
            "<li><span class=\"swatch s{place}\"></span>{}</li>",
            name.replace('_', " ")
        )
    };
    let mut names: Vec<(usize, &str)> = ORDER.iter().copied().enumerate().collect();
    names.extend(detects.then_some((DETECTOR, "detector")));
    names.push((REST, "the rest"));
    html.push_str(&format!(
        "<ul class=\"legend\">{}</ul>",
        names.into_iter().map(entry).collect::<String>()
    ));
    html.push_str("<h3>From the start of the process to the first masks</h3>");
    let bars: Vec<Bar<'_>> = timed
        .iter()
        .map(|(place, variant, arm)| Bar {
            name: &variant.name,
            parts: vec![
                (
                    arm.load_s,
                    format!("c{}", place % 8),
                    "until the model is loaded".to_owned(),
                ),
                (
                    arm.cold_s - arm.load_s,
                    "s4".to_owned(),
                    "the first frame".to_owned(),
                ),
            ],
            text: seconds(arm.cold_s),
        })
        .collect();
    html.push_str(&chart::bars(&bars));
    html.push_str(
        "<p class=\"note\">In colour until the model is loaded, in grey the first frame.</p>",
    );
    html
}

pub(super) fn memory(report: &AbReport) -> String {
    let timed = timed(report);
    let mut html = String::new();
    type Kind = (&'static str, fn(&ArmReport) -> Option<u64>);
    let kinds: [Kind; 4] = [
        ("Greatest resident memory of the process", |arm| {
            arm.peak_resident_bytes
        }),
        ("Greatest size of the arena that all graphs share", |arm| {
            arm.arena_peak_bytes
        }),
        ("Memory on the GPU", |arm| arm.device_bytes),
        ("The bank: what is remembered of all objects", |arm| {
            arm.bank_bytes
        }),
    ];
    for (title, bytes) in kinds {
        let bars: Vec<Bar<'_>> = timed
            .iter()
            .filter_map(|(place, variant, arm)| {
                let bytes = bytes(arm)?;
                Some(Bar {
                    name: &variant.name,
                    parts: vec![(bytes as f64, format!("c{}", place % 8), title.to_owned())],
                    text: size::show(bytes),
                })
            })
            .collect();
        if !bars.is_empty() {
            html.push_str(&format!("<h3>{title}</h3>{}", chart::bars(&bars)));
        }
    }
    if html.is_empty() {
        html.push_str("<p class=\"note\">No variant was timed.</p>");
    }
    html
}
