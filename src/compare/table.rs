//! The table of a comparison, on a terminal and in Markdown.

use super::report::{AbReport, VariantReport};
use super::require;
use crate::bench::table::{Style, ratio_text, seconds, spread, table};
use crate::size;

/// One row a variant, below a header. Columns that no variant fills are left out.
pub fn rows(report: &AbReport) -> Vec<Vec<String>> {
    type Cell = fn(&VariantReport) -> Option<String>;
    let columns: [(&str, Cell); 22] = [
        ("px", |v| Some(v.run.as_ref()?.model.resolution.to_string())),
        ("precision", |v| {
            Some(v.run.as_ref()?.model.precision.clone())
        }),
        ("on", |v| Some(v.provider.clone())),
        ("det px", |v| {
            let detector = v.run.as_ref()?.detector.as_ref()?;
            Some(detector.model.as_ref()?.resolution.to_string())
        }),
        ("detect every", |v| {
            let every = v.run.as_ref()?.detector.as_ref()?.every;
            Some(every.to_string())
        }),
        ("discover every", |v| {
            let every = v.run.as_ref()?.proposals.as_ref()?.discover_every;
            Some(every?.to_string())
        }),
        ("J&F", |v| Some(format!("{:.3}", v.means()?.j_and_f))),
        ("gt missed", |v| Some(v.missed_and_extra()?[0].to_string())),
        ("gt extra", |v| Some(v.missed_and_extra()?[1].to_string())),
        ("objects", |v| Some(v.found()?.to_string())),
        ("missed", |v| Some(v.finds.as_ref()?.missed.to_string())),
        ("extra", |v| Some(v.finds.as_ref()?.extra.to_string())),
        ("differ", |v| {
            Some(v.finds.as_ref()?.differing_frames.to_string())
        }),
        ("IoU", |v| Some(format!("{:.3}", v.agreement.as_ref()?.iou))),
        ("worst", |v| {
            Some(format!("{:.3}", v.agreement.as_ref()?.worst_iou))
        }),
        ("lost", |v| {
            Some(v.agreement.as_ref()?.objects_lost.to_string())
        }),
        ("frame", |v| Some(spread(&v.timing.as_ref()?.frame_s))),
        ("speedup", |v| Some(ratio_text(v.speedup.as_ref()?))),
        ("first mask", |v| Some(seconds(v.timing.as_ref()?.cold_s))),
        ("resident", |v| v.resident_bytes().map(size::show)),
        ("arena", |v| {
            v.timing.as_ref()?.arena_peak_bytes.map(size::show)
        }),
        ("device", |v| {
            v.timing.as_ref()?.device_bytes.map(size::show)
        }),
    ];
    let filled: Vec<&(&str, Cell)> = columns
        .iter()
        .filter(|(name, cell)| {
            let mut cells = report.variants.iter().filter_map(cell);
            match *name {
                // What all do in the usual way is no news.
                "detect every" => cells.any(|every| every != "1"),
                _ => cells.next().is_some(),
            }
        })
        .collect();
    let mut rows = vec![vec!["variant".to_owned()]];
    rows[0].extend(filled.iter().map(|(name, _)| (*name).to_owned()));
    for variant in &report.variants {
        let mut row = vec![variant.name.clone()];
        let failed = variant.run.is_none() && variant.timing.is_none();
        row.extend(filled.iter().map(|(name, cell)| match (*name, failed) {
            // Of one that did not run nothing is known but where it should have.
            ("on", _) | (_, false) => cell(variant).unwrap_or("-".to_owned()),
            _ => "-".to_owned(),
        }));
        rows.push(row);
    }
    rows
}

/// What is followed: `4 objects`, `"bear", "a dog"`, or `what colours.onnx proposes`.
pub(super) fn followed(report: &AbReport) -> String {
    if !report.texts.is_empty() {
        let texts = report.texts.iter().map(|text| format!("{text:?}"));
        return texts.collect::<Vec<_>>().join(", ");
    }
    if let Some(file) = &report.proposals {
        return format!("what {file} proposes");
    }
    match report.objects {
        1 => "1 object".to_owned(),
        objects => format!("{objects} objects"),
    }
}

/// The whole text: machine, protocol, table, failures, warnings, requirements and the verdict.
pub fn render(report: &AbReport, style: Style) -> String {
    let protocol = &report.protocol;
    let mut text = format!(
        "{}\nsnow-ort {}; {}: {} frames, {}; {} frames to warm up, then {} blocks of {} frames a variant, in turn\n\n",
        report.machine.text(),
        report.snow_ort,
        report.clip.path,
        report.clip.frames,
        followed(report),
        protocol.warm_frames,
        protocol.rounds,
        protocol.block_frames,
    );
    text.push_str(&table(&rows(report), style));
    text.push('\n');
    for warning in &report.verdict.warnings {
        text.push_str(&format!("warning: {warning}\n"));
    }
    for requirement in &report.requirements {
        let word = match requirement.met {
            true => "met",
            false => "NOT MET",
        };
        let found = match requirement.value {
            Some(_) => format!("found {}", require::shown(requirement)),
            None => require::shown(requirement),
        };
        text.push_str(&format!("required {}: {word}, {found}\n", requirement.text));
    }
    text.push_str(&format!("{}\n", report.verdict.sentence));
    if let Some(also) = &report.verdict.also {
        text.push_str(&format!("{also}\n"));
    }
    text
}
