//! The table of a comparison, on a terminal and in Markdown.

use super::report::{AbReport, VariantReport};
use crate::bench::table::{ratio_text, seconds, spread};
use crate::size;
use crate::table::{self, Style};
use crate::words::counted;

/// A header, then one row for each variant. Columns without a value are left out.
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
        ("gt missed", |v| Some(v.truth_missed()?.to_string())),
        ("gt extra", |v| Some(v.truth_extra()?.to_string())),
        ("objects", |v| Some(v.found_count()?.to_string())),
        ("missed", |v| {
            Some(v.found_objects.as_ref()?.missed.to_string())
        }),
        ("extra", |v| {
            Some(v.found_objects.as_ref()?.extra.to_string())
        }),
        ("differ", |v| {
            Some(v.found_objects.as_ref()?.differing_frames.to_string())
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
                // Every frame is the usual case.
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
            // All that is known of a variant that failed is its provider.
            ("on", _) | (_, false) => cell(variant).unwrap_or("-".to_owned()),
            _ => "-".to_owned(),
        }));
        rows.push(row);
    }
    rows
}

/// The tracked objects: `4 objects`, `"bear", "a dog"`, or `proposals of colours.onnx`.
pub(super) fn tracked(report: &AbReport) -> String {
    if !report.texts.is_empty() {
        let texts = report.texts.iter().map(|text| format!("{text:?}"));
        return texts.collect::<Vec<_>>().join(", ");
    }
    if let Some(file) = &report.proposals {
        return format!("proposals of {file}");
    }
    counted(report.objects, "object")
}

/// The report as text: machine, protocol, table, warnings, requirements and the verdict.
pub fn render(report: &AbReport, style: Style) -> String {
    let protocol = &report.protocol;
    let mut text = format!(
        "{}\nsnow-ort {}; {}: {} frames, {}; {} frames to warm up, then {} blocks of {} frames for each variant, in alternating order\n\n",
        report.machine.text(),
        report.snow_ort,
        report.clip.path,
        report.clip.frames,
        tracked(report),
        protocol.warm_frames,
        protocol.rounds,
        protocol.block_frames,
    );
    let mut table = table::new(style);
    let mut rows = rows(report).into_iter();
    table.set_header(rows.next().unwrap_or_default());
    table.add_rows(rows);
    text.push_str(&table::text(&table));
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
            Some(_) => format!("found {}", requirement.value_text()),
            None => requirement.value_text(),
        };
        text.push_str(&format!("required {}: {word}, {found}\n", requirement.text));
    }
    text.push_str(&format!("{}\n", report.verdict.sentence));
    if let Some(also) = &report.verdict.also {
        text.push_str(&format!("{also}\n"));
    }
    text
}
