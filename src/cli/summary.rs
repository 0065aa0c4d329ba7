//! The last lines of `snow-ort run`.

use super::{counted, say};
use crate::scoring::report::{MeanScores, OBJECTS_BY_OVERLAP, ScoresReport};
use crate::session::Placed;
use crate::session::report::{RunReport, TextReport};
use crate::size;
use crate::table::{self, Style};
use crate::words::listed;

/// Prints what a run came to, and where its results are.
pub(super) fn show(report: &RunReport, placed: &Placed) {
    let mut memory = report.peak_memory_bytes.map_or(String::new(), |bytes| {
        format!(", peak memory {}", size::show(bytes))
    });
    if let Some(bytes) = report.device_memory_bytes {
        memory.push_str(&format!(", GPU {}", size::show(bytes)));
    }
    if let Some(arena) = &report.arena {
        memory.push_str(&format!(", arena {}", size::show(arena.peak_bytes)));
        if let Some(limit) = arena.limit_bytes {
            memory.push_str(&format!(" of {}", size::show(limit)));
        }
    }
    say(&format!(
        "done: {}, {}, {:.2} frames/s{memory}",
        counted(report.frames, "frame"),
        counted(report.objects.len() as u64, "object"),
        report.fps
    ));
    if let Some(proposals) = &report.proposals {
        say(&format!(
            "found    {} in {} on {}",
            counted(proposals.added, "object"),
            counted(proposals.proposals, "proposal"),
            counted(proposals.looks, "frame")
        ));
    }
    for text in &report.texts {
        say(&format!("found    {}", of_text(text)));
    }
    say(&format!("masks    {}", placed.run.join("masks").display()));
    say(&format!(
        "tracks   {}",
        placed.run.join("tracks.json").display()
    ));
    say(&format!(
        "run      {}",
        placed.run.join("run.json").display()
    ));
    if let Some(overlay) = &placed.overlay {
        say(&format!("overlay  {}", overlay.display()));
    }
    if let Some(logits) = &placed.logits {
        say(&format!("logits   {}", logits.display()));
    }
    if let Some(sheet) = &placed.contact_sheet {
        say(&format!("sheet    {}", sheet.display()));
    }
    for line in report.scores.iter().flat_map(score_table) {
        say(&line);
    }
}

/// What a text found, with the numbers that its objects have in the masks.
fn of_text(text: &TextReport) -> String {
    let objects = listed(text.objects.iter().map(|found| found.object));
    let objects = objects.unwrap_or_else(|| "nothing".to_owned());
    format!("\"{}\": {objects}", text.text)
}

/// The scores as lines of a table.
fn score_table(scores: &ScoresReport) -> Vec<String> {
    let row = |name: &str, mean: Option<&MeanScores>, frames: &str, note: &str| {
        let [j, f, both] = match mean {
            Some(mean) => [mean.j, mean.f, mean.j_and_f].map(|value| format!("{value:.3}")),
            None => ["-"; 3].map(str::to_owned),
        };
        [name, &j, &f, &both, frames, note].map(str::to_owned)
    };
    let found = scores.objects_by == OBJECTS_BY_OVERLAP;
    let mut table = table::new(Style::Plain);
    table.set_header(["object", "J", "F", "J&F", "frames", ""]);
    for object in &scores.objects {
        let note = match (object.tracked, object.matched) {
            (_, Some(id)) => format!("found as object {id}"),
            (true, None) => String::new(),
            (false, None) if found => "not found".to_owned(),
            (false, None) => "not tracked".to_owned(),
        };
        let name = object.object.to_string();
        let frames = object.frames.to_string();
        table.add_row(row(&name, object.mean.as_ref(), &frames, &note));
    }
    table.add_row(row("overall", scores.overall.as_ref(), "", ""));
    table::align_right(&mut table, &[1, 2, 3, 4]);
    let mut lines = vec![format!(
        "scores   {}, {}",
        scores.ground_truth,
        counted(scores.annotated_frames, "annotated frame")
    )];
    lines.extend(table::text(&table).lines().map(str::to_owned));
    if let (true, Some(objects)) = (found, listed(scores.not_scored.iter().copied())) {
        lines.push(format!(
            "the ground truth does not show {objects}: not scored"
        ));
    }
    lines
}
