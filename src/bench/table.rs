//! The tables that people read, on a terminal and in Markdown.

use std::collections::BTreeSet;

use super::profile::GraphProfile;
use super::report::{ArmReport, BenchReport, Case};
use super::stats::{Ratio, Spread};
use crate::size;

/// How a table is to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// Columns in line.
    Plain,
    /// A table of GitHub's Markdown.
    Markdown,
}

/// All of a report: machine, a table of times and memory for each case, and the ratios.
pub fn render(report: &BenchReport, style: Style) -> String {
    let mut text = format!(
        "{}\nsnow-ort {}; {} frames to warm up, then {} of {} frames an arm, in turn\n",
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
        for arm in &case.arms {
            for profile in &arm.profile {
                text.push_str(&format!("\n{}: {}, one run\n", arm.name, profile.role));
                if style == Style::Markdown {
                    text.push('\n');
                }
                text.push_str(&operators(profile, style));
            }
        }
    }
    text
}

/// Operators of a profile that are shown.
const SHOWN: usize = 10;

fn operators(profile: &GraphProfile, style: Style) -> String {
    let total: f64 = profile.operators.iter().map(|op| op.seconds).sum();
    let header = ["operator", "provider", "nodes", "time", "share"];
    let mut rows = vec![header.map(str::to_owned).to_vec()];
    for operator in profile.operators.iter().take(SHOWN) {
        rows.push(vec![
            operator.name.clone(),
            operator.provider.replace("ExecutionProvider", ""),
            format!("{:.0}", operator.nodes),
            seconds(operator.seconds),
            format!("{:.1}%", 100.0 * operator.seconds / total.max(1e-12)),
        ]);
    }
    table(&rows, style)
}

fn rounds_text(report: &BenchReport) -> String {
    let arms = report.cases.first().and_then(|case| case.arms.first());
    let rounds = arms.map_or(0, |arm| arm.rounds.len());
    format!("{rounds} {}", if rounds == 1 { "block" } else { "blocks" })
}

fn heading(case: &Case, style: Style) -> String {
    let texts: Vec<String> = case.texts.iter().map(|text| format!("{text:?}")).collect();
    let objects = match case.objects {
        _ if !texts.is_empty() => format!("objects found for {}", texts.join(", ")),
        1 => "1 object".to_owned(),
        count => format!("{count} objects"),
    };
    match style {
        Style::Plain => format!("{objects}\n"),
        Style::Markdown => format!("**{objects}**\n\n"),
    }
}

fn times(case: &Case, style: Style) -> String {
    let mut stages: Vec<&str> = Vec::new();
    for arm in &case.arms {
        for (name, _) in &arm.stages_s {
            if !stages.contains(&name.as_str()) {
                stages.push(name);
            }
        }
    }
    let once: BTreeSet<&String> = case
        .arms
        .iter()
        .flat_map(|arm| arm.ready.once.keys())
        .collect();
    let mut header = vec!["arm", "px", "precision", "frame"];
    header.extend(&stages);
    let mut header: Vec<String> = header.into_iter().map(str::to_owned).collect();
    header.extend(once.iter().map(|name| format!("{name}, once")));
    header.extend(["first mask", "resident", "arena"].map(str::to_owned));
    let mut rows = vec![header];
    for arm in &case.arms {
        let mut row = vec![
            arm.name.clone(),
            arm.ready.resolution.to_string(),
            arm.ready.precision.clone(),
            spread(&arm.frame_s),
        ];
        row.extend(stages.iter().map(|&stage| {
            let known = arm.stages_s.iter().find(|(name, _)| name == stage);
            known.map_or("-".to_owned(), |(_, spread)| seconds(spread.median))
        }));
        row.extend(once.iter().map(|name| {
            let known = arm.ready.once.get(*name);
            known.map_or("-".to_owned(), |&time| seconds(time))
        }));
        row.push(seconds(arm.cold_s));
        row.push(arm.peak_resident_bytes.map_or("-".to_owned(), size::show));
        row.push(arena(arm));
        rows.push(row);
    }
    table(&rows, style)
}

fn arena(arm: &ArmReport) -> String {
    let bytes = arm.arena_peak_bytes;
    let text = bytes.map_or("-".to_owned(), size::show);
    match arm.device_bytes {
        Some(device) => format!("{text} (device {})", size::show(device)),
        None => text,
    }
}

fn ratios(case: &Case, style: Style) -> String {
    let header = ["arm / baseline", "frame", "vision encoder", "the rest"];
    let mut rows = vec![header.map(str::to_owned).to_vec()];
    let shown = |ratio: &Option<Ratio>| ratio.as_ref().map_or("-".to_owned(), ratio_text);
    for comparison in &case.ratios {
        rows.push(vec![
            format!("{} / {}", comparison.arm, comparison.baseline),
            ratio_text(&comparison.frame),
            shown(&comparison.vision_encoder),
            shown(&comparison.tracker),
        ]);
    }
    table(&rows, style)
}

/// What stands behind a ratio that says nothing.
pub const NOISE: &str = ", within the noise";

/// `0.72 (0.70 to 0.75)`, with a remark where that says nothing.
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

/// The median, and the quartiles where they show.
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

/// Three digits that count.
pub fn number(value: f64) -> String {
    let digits = match value.abs() {
        value if value >= 99.95 => 0,
        value if value >= 9.995 => 1,
        _ => 2,
    };
    format!("{value:.digits$}")
}

/// Rows as a table; the first is the header.
pub fn table(rows: &[Vec<String>], style: Style) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let mut text = String::new();
    for (index, row) in rows.iter().enumerate() {
        match style {
            Style::Markdown => {
                text.push_str(&format!("| {} |\n", row.join(" | ")));
                if index == 0 {
                    text.push_str(&format!("|{}\n", " --- |".repeat(columns)));
                }
            }
            Style::Plain => {
                let mut line = String::from(" ");
                for (column, cell) in row.iter().enumerate() {
                    let padding = width(column) - cell.chars().count();
                    line.push_str(&format!(" {cell}{}", " ".repeat(padding + 1)));
                }
                text.push_str(line.trim_end());
                text.push('\n');
            }
        }
    }
    text
}
