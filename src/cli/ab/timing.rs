//! All variants' times, taken in turn.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use super::args::AbArgs;
use super::keys::Key;
use super::runs::{Contender, prompt_arguments};
use crate::bench::race::{Entry, OnFailure, race};
use crate::bench::report::ArmReport;
use crate::bench::rounds::Length;
use crate::cli::progress::Progress;
use crate::output::{StagedFile, Unfinished};
use crate::prompts::FlagPrompt;

/// The file in the output folder with what was timed.
pub(super) const TIMING_FILE: &str = "timing.json";

/// timing.json: what a later call of the same comparison need not measure again.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    key: String,
    arms: Vec<ArmReport>,
}

/// What became of each variant, in their order.
pub(super) type Timed = Vec<Result<ArmReport, String>>;

/// The key of a measurement of these variants.
pub(super) fn key(contenders: &[&Contender], length: Length) -> String {
    let mut key = Key::default();
    for contender in contenders {
        key.add(&contender.variant.name, &contender.key);
    }
    key.add(
        "length",
        &format!("{} {} {}", length.warm, length.rounds, length.block),
    );
    key.text()
}

/// A complete measurement with that key, if it was kept.
pub(super) fn kept(out: &Path, key: &str, contenders: &[&Contender]) -> Option<Timed> {
    let text = std::fs::read(out.join(TIMING_FILE)).ok()?;
    let kept: Kept = serde_json::from_slice(&text).ok()?;
    let whole = kept.key == key && kept.arms.len() == contenders.len();
    whole.then(|| kept.arms.into_iter().map(Ok).collect())
}

/// Measures, and keeps the result if no variant failed.
pub(super) fn make(
    contenders: &[&Contender],
    args: &AbArgs,
    flags: &[FlagPrompt],
    length: Length,
    out: &Path,
    key: String,
    unfinished: &Unfinished,
) -> Result<Timed> {
    let program = std::env::current_exe().context("cannot find this program's own file")?;
    let entry = |contender: &&Contender| {
        let mut command = Command::new(&program);
        command.arg("bench-worker");
        command.arg("--model").arg(&contender.variant.model);
        command.arg("--input").arg(&args.input);
        prompt_arguments(&mut command, args, flags);
        command.arg("--frames").arg(length.asked().to_string());
        command.args(contender.manner.arguments());
        Entry {
            name: contender.variant.name.clone(),
            command,
        }
    };
    let entries: Vec<Entry> = contenders.iter().map(entry).collect();
    let total = (contenders.len() * length.asked()) as u64;
    let mut progress = Progress::named("timing", Some(total), args.quiet);
    let ended = race(entries, length, OnFailure::GoOn, &mut || progress.frame())?;
    progress.finish();
    let timed: Timed = ended
        .into_iter()
        .map(|arm| arm.map_err(|error| error.to_string()))
        .collect();
    if let Ok(arms) = timed.iter().cloned().collect::<Result<Vec<_>, _>>() {
        let file = StagedFile::create(&out.join(TIMING_FILE), true, unfinished)?;
        serde_json::to_vec(&Kept { key, arms })
            .map_err(std::io::Error::from)
            .and_then(|text| std::fs::write(file.path(), text))
            .with_context(|| format!("cannot write {}", file.file().display()))?;
        file.commit()?;
    }
    Ok(timed)
}
