//! The text of a bench report, for a terminal and in Markdown.

use std::collections::BTreeSet;

use super::profile::GraphProfile;
use super::report::{BenchReport, Case, VariantTiming};
use super::stats::{Ratio, Spread};
use crate::size;
use crate::table::{self, Style};
use crate::words::counted;

/// The whole report: the machine, and for each trial a table of times and memory and a table of ratios.
pub fn render(report: &BenchReport, style: Style) -> String {
    let mut text = format!(
        "{}\nsnow-ort {}; {} frames to warm up, then {} of {} frames for each variant, in alternating order\n",
        report.machine.text(),
        report.snow_ort,
        report.warm_frames,
        rounds_text(report),
        report.block_frames,
    );
    if style == Style::Markdown {
        text = text.replace('\n', "  \n");
    }
    for case in &report.cases {
        text.push('\n');
        text.push_str(&heading(case, style));
        text.push_str(&times(case, style));
        if !case.ratios.is_empty() {
            text.push('\n');
            text.push_str(&ratios(case, style));
        }
        for variant in &case.variants {
            for profile in &variant.profile {
                text.push_str(&format!("\n{}: {}, one run\n", variant.name, profile.role));
                if style == Style::Markdown {
                    text.push('\n');
                }
                text.push_str(&operators(profile, style));
            }
        }
    }
    text
}

/// The largest number of operators that are shown.
const MAX_OPERATORS: usize = 10;

fn operators(profile: &GraphProfile, style: Style) -> String {
    let total: f64 = profile.operators.iter().map(|op| op.seconds).sum();
    let header = ["operator", "provider", "nodes", "time", "share"];
    let mut rows = table::new(style);
    rows.set_header(header);
    for operator in profile.operators.iter().take(MAX_OPERATORS) {
        rows.add_row([
            operator.name.clone(),
            operator.provider.replace("ExecutionProvider", ""),
            format!("{:.0}", operator.nodes),
            seconds(operator.seconds),
            format!("{:.1}%", 100.0 * operator.seconds / total.max(1e-12)),
        ]);
    }
    table::text(&rows)
}

fn rounds_text(report: &BenchReport) -> String {
    let first = report.cases.first().and_then(|case| case.variants.first());
    counted(
        first.map_or(0, |variant| variant.rounds.len() as u64),
        "block",
    )
}

fn heading(case: &Case, style: Style) -> String {
    let texts: Vec<String> = case.texts.iter().map(|text| format!("{text:?}")).collect();
    let objects = match case.objects {
        _ if !texts.is_empty() => format!("objects of the texts {}", texts.join(", ")),
        count => counted(count as u64, "object"),
    };
    match style {
        Style::Plain => format!("{objects}\n"),
        Style::Markdown => format!("**{objects}**\n\n"),
    }
}

fn times(case: &Case, style: Style) -> String {
    let mut stages: Vec<&str> = Vec::new();
    for variant in &case.variants {
        for (name, _) in &variant.stages_s {
            if !stages.contains(&name.as_str()) {
                stages.push(name);
            }
        }
    }
    let once: BTreeSet<&String> = case
        .variants
        .iter()
        .flat_map(|variant| variant.ready.once.keys())
        .collect();
    let mut header = vec!["variant", "px", "precision", "frame"];
    header.extend(&stages);
    let mut header: Vec<String> = header.into_iter().map(str::to_owned).collect();
    header.extend(once.iter().map(|name| format!("{name}, once")));
    header.extend(["first mask", "resident", "arena"].map(str::to_owned));
    let mut rows = table::new(style);
    rows.set_header(header);
    for variant in &case.variants {
        let mut row = vec![
            variant.name.clone(),
            variant.ready.resolution.to_string(),
            variant.ready.precision.clone(),
            spread(&variant.frame_s),
        ];
        row.extend(stages.iter().map(|&stage| {
            let known = variant.stages_s.iter().find(|(name, _)| name == stage);
            known.map_or("-".to_owned(), |(_, spread)| seconds(spread.median))
        }));
        row.extend(once.iter().map(|name| {
            let known = variant.ready.once.get(*name);
            known.map_or("-".to_owned(), |&time| seconds(time))
        }));
        row.push(seconds(variant.cold_s));
        row.push(
            variant
                .peak_resident_bytes
                .map_or("-".to_owned(), size::show),
        );
        row.push(arena(variant));
        rows.add_row(row);
    }
    table::text(&rows)
}

fn arena(variant: &VariantTiming) -> String {
    let bytes = variant.arena_peak_bytes;
    let text = bytes.map_or("-".to_owned(), size::show);
    match variant.device_bytes {
        Some(device) => format!("{text} (device {})", size::show(device)),
        None => text,
    }
}

fn ratios(case: &Case, style: Style) -> String {
    let header = ["variant / baseline", "frame", "vision encoder", "the rest"];
    let mut rows = table::new(style);
    rows.set_header(header);
    let shown = |ratio: &Option<Ratio>| ratio.as_ref().map_or("-".to_owned(), ratio_text);
    for comparison in &case.ratios {
        rows.add_row([
            format!("{} / {}", comparison.variant, comparison.baseline),
            ratio_text(&comparison.frame),
            shown(&comparison.vision_encoder),
            shown(&comparison.tracker),
        ]);
    }
    table::text(&rows)
}

/// Follows a ratio whose difference from 1 is within the noise.
pub const NOISE: &str = ", within the noise";

/// A ratio and its interval, such as `0.72 (0.70 to 0.75)`, with [`NOISE`] if the interval contains 1.
pub fn ratio_text(ratio: &Ratio) -> String {
    let text = format!(
        "{:.2} ({:.2} to {:.2})",
        ratio.median, ratio.low, ratio.high
    );
    match ratio.is_noise() {
        true => format!("{text}{NOISE}"),
        false => text,
    }
}

/// The median, with the quartiles in brackets if they differ in the digits that are shown.
pub fn spread(spread: &Spread) -> String {
    let (factor, unit) = unit_of(spread.median);
    let shown = |value: f64| number(value * factor);
    let (low, high) = (shown(spread.low), shown(spread.high));
    if low == high {
        return seconds(spread.median);
    }
    format!("{} ({low} to {high}) {unit}", shown(spread.median))
}

/// Seconds for people: `53.4 ms`, `1.20 s`.
pub fn seconds(value: f64) -> String {
    let (factor, unit) = unit_of(value);
    format!("{} {unit}", number(value * factor))
}

fn unit_of(seconds: f64) -> (f64, &'static str) {
    if seconds < 1.0 {
        (1e3, "ms")
    } else {
        (1.0, "s")
    }
}

/// A number with three significant digits.
pub fn number(value: f64) -> String {
    let digits = match value.abs() {
        value if value >= 99.95 => 0,
        value if value >= 9.995 => 1,
        _ => 2,
    };
    format!("{value:.digits$}")
}
