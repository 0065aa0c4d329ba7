//! `snow-ort doctor`: examines the machine, tries each provider, and says what is wrong and what to do.

mod process;

use std::io::IsTerminal as _;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::Args;

use super::args::{one_or_more, thread_count};
use super::signals::Interrupt;
use super::{complain, say};
use crate::bundle::locate;
use crate::doctor::compare::Compare;
use crate::doctor::examine::{Options, examine};
use crate::doctor::{Report, Verdict, text};
use crate::output::{StagedFile, Unfinished, scratch};
use crate::runtime::Provider;

pub(super) use self::process::run_worker;

const DOCTOR_HELP: &str = "\
The command needs nothing: if the library, a GPU or a bundle is missing, it says so.

Each provider of the library is tried in a separate process. It creates a session and runs each graph of the bundle on the \
inputs of its golden vectors; the outputs are compared with the unpatched reference (relative L2: up to 1e-2 in fp32, 5e-2 in \
fp16, 1e-1 in int8 is rounding; up to 5e-2, 2e-1 and 3e-1 is doubtful; more is wrong). Then it measures the memory that \
--objects take, as `snow-ort plan` does.

If a GPU works, it and the processor track 4 objects through a short drawn clip with the whole tracker, on the GPU first in one \
batch and then one at a time. The masks are compared: each object's mean IoU must be at least 0.98 in fp32 and 0.97 in fp16; \
with random weights, whose outlines are noise, the relative L2 distance of its logits must be at most 5e-2 and 2e-1. This finds \
errors that golden vectors miss, and needs no golden vectors. A small bundle takes seconds and is always compared (6 frames); a \
large one may take minutes on the processor and is compared with --compare (3 frames).

Exit codes: 0 all fine; 1 it works, with warnings; 2 it does not work.";

/// Arguments of `snow-ort doctor`.
#[derive(Debug, Args)]
#[command(after_help = DOCTOR_HELP)]
pub(super) struct DoctorArgs {
    /// The bundle: a folder that snow-export wrote [default: the one that `run` takes, if there is one]
    #[arg(long, value_name = "DIR", conflicts_with_all = ["res", "models"])]
    pub model: Option<PathBuf>,

    /// Use the bundle of this resolution, as `run` does
    #[arg(long, value_name = "PIXELS", allow_negative_numbers = true)]
    pub res: Option<u32>,

    /// Folder with bundles, instead of the default places
    #[arg(long, value_name = "DIR")]
    pub models: Option<PathBuf>,

    /// The provider that must work; with cpu no GPU is tried [default: a GPU is tried; its failure is a warning]
    #[arg(long, value_name = "cpu|cuda")]
    pub provider: Option<Provider>,

    /// The GPU to try
    #[arg(long, value_name = "N", default_value_t = 0, allow_negative_numbers = true, value_parser = clap::value_parser!(i32).range(0..))]
    pub device_id: i32,

    /// The ONNX Runtime library, as for `run`
    #[arg(long, value_name = "PATH")]
    pub ort_lib: Option<PathBuf>,

    /// CPU threads [default: one per core]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = thread_count)]
    pub threads: Option<NonZeroUsize>,

    /// Number of objects whose memory must fit
    #[arg(long, value_name = "N", default_value = "1", allow_negative_numbers = true, value_parser = one_or_more)]
    pub objects: NonZeroUsize,

    /// Compare masks with the processor's also if that takes minutes [default: with a small bundle only]
    #[arg(long, conflicts_with = "no_compare")]
    pub compare: bool,

    /// Do not compare masks with the processor's
    #[arg(long)]
    pub no_compare: bool,

    /// Time limit for trying a provider, and for tracking the drawn clip on it
    #[arg(long, value_name = "SECONDS", default_value_t = 600, allow_negative_numbers = true, value_parser = clap::value_parser!(u64).range(1..))]
    pub timeout: u64,

    /// Also write the report as JSON to a file; - prints JSON instead of text
    #[arg(long, value_name = "FILE|-")]
    pub json: Option<PathBuf>,

    /// Replace an earlier --json FILE
    #[arg(long)]
    pub overwrite: bool,
}

/// Runs the command.
pub(super) fn run(args: &DoctorArgs) -> Result<Verdict> {
    if args.compare && args.provider == Some(Provider::Cpu) {
        bail!(
            "--compare with --provider cpu would compare the processor with itself; leave out one of them, on a machine with a \
             working GPU"
        );
    }
    let unfinished = Unfinished::default();
    let _interrupt = Interrupt::install(&unfinished)?;
    let to_stdout = args.json.as_deref() == Some(Path::new("-"));
    let file = match &args.json {
        Some(path) if !to_stdout => Some(StagedFile::create(path, args.overwrite, &unfinished)?),
        _ => None,
    };
    let folder = scratch(&unfinished).context("cannot create a folder for the trials' files")?;
    let options = options(args, folder.path());
    let timeout = Duration::from_secs(args.timeout);
    let terminal = std::io::stderr().is_terminal();
    let facts = examine(&options, |config| {
        if terminal {
            let what = match config.clip {
                None => "trying",
                Some(_) => "tracking the drawn clip on",
            };
            complain(&format!("{what} {} …", config.provider));
        }
        process::run_trial(config, timeout)
    })?;
    let report = Report::new(facts);
    let mut json = serde_json::to_string_pretty(&report)?;
    match to_stdout {
        true => say(&json),
        false => text::lines(&report).iter().for_each(|line| say(line)),
    }
    if let Some(file) = file {
        json.push('\n');
        std::fs::write(file.path(), json)
            .with_context(|| format!("cannot write {}", file.path().display()))?;
        file.commit()?;
    }
    Ok(report.verdict)
}

/// What the arguments ask for; files of trials go to `folder`.
fn options(args: &DoctorArgs, folder: &Path) -> Options {
    // A bundle is optional. The error says which folders were searched.
    let bundle = locate::choose(args.model.as_deref(), args.res, args.models.as_deref())
        .map_err(|error| without_advice(&error.to_string()));
    Options {
        bundle,
        provider: args.provider,
        device_id: args.device_id,
        library: args.ort_lib.clone(),
        threads: args.threads.map(Into::into),
        objects: args.objects.get(),
        compare: match (args.no_compare, args.compare) {
            (true, _) => Compare::Never,
            (_, true) => Compare::Always,
            _ => Compare::IfQuick,
        },
        folder: folder.to_path_buf(),
    }
}

/// The part of a message before its advice. The finding gives its own.
fn without_advice(message: &str) -> String {
    let what = message.split("; give one with").next();
    what.unwrap_or(message).to_owned()
}
