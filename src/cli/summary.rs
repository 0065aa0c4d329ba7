//! The last lines of `snow-ort run`.

use super::outputs::Placed;
use super::{counted, say, score};
use crate::session::report::{RunReport, TextReport};
use crate::size;

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
    if let Some(looks) = &report.proposals {
        say(&format!(
            "found    {} in {} on {}",
            counted(looks.added, "object"),
            counted(looks.proposals, "proposal"),
            counted(looks.looks, "frame")
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
    if let Some(sheet) = &placed.sheet {
        say(&format!("sheet    {}", sheet.display()));
    }
    for line in report.scores.iter().flat_map(score::table) {
        say(&line);
    }
}

/// What a text found, with the numbers that its objects have in the masks.
fn of_text(text: &TextReport) -> String {
    let objects = score::listed(text.objects.iter().map(|found| found.object));
    let objects = objects.unwrap_or_else(|| "nothing".to_owned());
    format!("\"{}\": {objects}", text.text)
}
