//! Each variant's run over the whole clip, as a process of its own.

use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, anyhow, bail};

use super::args::{AbArgs, Manner};
use crate::bench::words::Words;
use crate::cli::progress::Progress;
use crate::compare::agreement::lost_from;
use crate::compare::finds::{self, Sought};
use crate::compare::report::{LostObject, VariantRun};
use crate::compare::variant::Variant;
use crate::prompts::FlagPrompt;
use crate::session::report::{FoundReport, RunReport, ScoresReport, Status};

/// The file of a run's folder with its tracks.
pub(super) const TRACKS_FILE: &str = "tracks.json";

/// A variant that takes part.
#[derive(Debug)]
pub(super) struct Contender {
    pub variant: Variant,
    pub manner: Manner,
    /// What its results depend on.
    pub key: String,
    /// The folder of its run, relative to the output folder.
    pub folder: PathBuf,
}

/// What all variants are told alike: the clip's prompts as arguments.
pub(super) fn prompt_arguments(command: &mut Command, args: &AbArgs, flags: &[FlagPrompt]) {
    for flag in flags {
        match flag {
            FlagPrompt::Box(text) => command.arg("--box").arg(text),
            FlagPrompt::Point(text) => command.arg("--point").arg(text),
            FlagPrompt::Mask(path) => command.arg("--mask").arg(path),
        };
    }
    if let Some(file) = &args.prompting.prompts {
        command.arg("--prompts").arg(file);
    }
}

/// What a run that was kept says; `None` unless it is complete.
pub(super) fn kept(dir: &Path) -> Option<RunReport> {
    let text = std::fs::read(dir.join("run.json")).ok()?;
    let report: RunReport = serde_json::from_slice(&text).ok()?;
    let whole = report.status == Status::Done && dir.join(TRACKS_FILE).is_file();
    whole.then_some(report)
}

/// Runs a variant over the clip.
///
/// # Errors
/// What the run said when it ended.
pub(super) fn make(
    contender: &Contender,
    args: &AbArgs,
    flags: &[FlagPrompt],
    dir: &Path,
    frames: Option<u64>,
) -> Result<RunReport> {
    let program = std::env::current_exe().context("cannot find this program's own file")?;
    let mut command = Command::new(&program);
    command.arg("run").arg(&args.input);
    command.arg("--model").arg(&contender.variant.model);
    command.arg("--out").arg(dir);
    command.args(["--overwrite", "--tell-frames"]);
    prompt_arguments(&mut command, args, flags);
    if let Some(dir) = &args.gt {
        command.arg("--gt").arg(dir);
    }
    if let Some(most) = args.max_frames {
        command.arg("--max-frames").arg(most.to_string());
    }
    command.args(contender.manner.arguments());
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    // SAFETY: between fork and exec this makes one system call and touches no memory of this process.
    unsafe {
        command.pre_exec(|| {
            // A comparison that is killed must not leave a run behind that writes into its folder.
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM);
            Ok(())
        });
    }
    let mut child = command
        .spawn()
        .with_context(|| format!("cannot start {}", program.display()))?;
    let (Some(output), Some(errors)) = (child.stdout.take(), child.stderr.take()) else {
        bail!("cannot listen to {}", program.display());
    };
    let mut words = Words::listen(errors);
    let mut progress = Progress::named(&contender.variant.name, frames, args.quiet);
    for line in BufReader::new(output).lines() {
        if line.is_ok() {
            progress.frame();
        }
    }
    let status = child.wait().context("cannot wait for a run")?;
    progress.finish();
    if status.success() {
        return kept(dir).ok_or_else(|| anyhow!("it left no complete run in {}", dir.display()));
    }
    match status.code() {
        Some(_) => bail!("{}", words.last()),
        // The system's own way of telling that memory is short.
        None => bail!(
            "it was ended from outside ({status}); if it was SIGKILL, memory may have been short: {}",
            words.last()
        ),
    }
}

/// What the comparison keeps of a run.
///
/// # Errors
/// Tracks that cannot be read.
pub(super) fn summary(report: RunReport, out: &Path, folder: &Path) -> Result<VariantRun> {
    let sought = sought(&report);
    let texts = match sought.is_empty() {
        true => Vec::new(),
        false => finds::seen(&out.join(folder).join(TRACKS_FILE), &sought)?,
    };
    Ok(VariantRun {
        detector: report.detector,
        proposals: report.proposals,
        texts,
        folder: folder.display().to_string(),
        lost: report.scores.as_ref().map_or_else(Vec::new, lost),
        model: report.model,
        runtime: report.runtime,
        fps: report.fps,
        peak_memory_bytes: report.peak_memory_bytes,
        scores: report.scores,
    })
}

/// What a run looked for, with the objects that came of it.
fn sought(report: &RunReport) -> Vec<Sought> {
    if report.proposals.is_some() {
        let found = report.prompts.iter().filter_map(|prompt| {
            Some(FoundReport {
                object: prompt.object,
                score: prompt.proposal.as_ref()?.score,
            })
        });
        return vec![(None, found.collect())];
    }
    let texts = report.texts.iter();
    texts
        .map(|text| (Some(text.text.clone()), text.objects.clone()))
        .collect()
}

fn lost(scores: &ScoresReport) -> Vec<LostObject> {
    let objects = scores.objects.iter().filter_map(|object| {
        let series = object.per_frame.iter().map(|frame| (frame.frame, frame.j));
        Some(LostObject {
            object: object.object,
            from_frame: lost_from(series)?,
        })
    });
    objects.collect()
}
