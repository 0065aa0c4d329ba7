//! `snow-ort doctor`: looks at the machine, tries each provider, and says what is wrong and what to do.

mod compare;
mod show;
mod trial;

use std::io::IsTerminal as _;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::Args;

use super::args::{one_or_more, thread_count};
use super::signals::Interrupt;
use super::{complain, models, say};
use crate::bundle::Bundle;
use crate::doctor::facts::{BundleFacts, Facts};
use crate::doctor::links::Links;
use crate::doctor::{Report, Verdict, golden, gpu, host, library, memory};
use crate::output::{StagedFile, Unfinished, scratch};
use crate::runtime::Provider;

pub(super) use self::trial::{TrialArgs, run as run_trial};

const DOCTOR_HELP: &str = "\
Nothing has to be there: without a library, a GPU or a bundle it says what is missing.

Each provider of the library is tried in a process of its own. There a session is made, and each graph of the bundle runs on \
the inputs of its golden vectors; the result is compared with the unpatched reference (relative L2: up to 1e-2 in fp32, 5e-2 in \
fp16, 1e-1 in int8 is rounding; up to 5e-2, 2e-1 and 3e-1 doubtful; beyond, wrong). Then the memory that --objects take is \
measured, as by `snow-ort plan`.

Where a GPU serves, it and the processor follow 4 objects through a short drawn clip with the whole tracker, on the GPU all in \
one batch and then one at a time, and the masks are compared: each object's mean IoU has to be at least 0.98 in fp32 and 0.97 in \
fp16; with random weights, whose outlines are noise, the relative L2 distance of its logits at most 5e-2 and 2e-1. This sees what \
golden vectors do not, and needs none. A small bundle takes seconds and is compared always (6 frames); a large one may take \
minutes on the processor and is compared with --compare (3 frames).

Exit codes: 0 all fine; 1 it works, with findings that matter; 2 it does not work.";

/// Arguments of `snow-ort doctor`.
#[derive(Debug, Args)]
#[command(after_help = DOCTOR_HELP)]
pub(super) struct DoctorArgs {
    /// The bundle: a folder that snow-export wrote [default: the one that `run` would take, if there is one]
    #[arg(long, value_name = "DIR", conflicts_with_all = ["res", "models"])]
    pub model: Option<PathBuf>,

    /// Choose the bundle of this resolution among those found, as `run` does
    #[arg(long, value_name = "PIXELS", allow_negative_numbers = true)]
    pub res: Option<u32>,

    /// Folder in which bundles are looked for
    #[arg(long, value_name = "DIR")]
    pub models: Option<PathBuf>,

    /// What has to serve: cuda, or cpu, and no GPU is tried [default: a GPU may fail, which is a warning]
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

    /// Objects whose memory has to fit
    #[arg(long, value_name = "N", default_value = "1", allow_negative_numbers = true, value_parser = one_or_more)]
    pub objects: NonZeroUsize,

    /// Compare masks with the processor's also where that takes long [default: with a small bundle only]
    #[arg(long, conflicts_with = "no_compare")]
    pub compare: bool,

    /// Do not compare masks with the processor's
    #[arg(long)]
    pub no_compare: bool,

    /// Seconds after which trying a provider, or following the drawn clip on it, is given up
    #[arg(long, value_name = "SECONDS", default_value_t = 600, allow_negative_numbers = true, value_parser = clap::value_parser!(u64).range(1..))]
    pub timeout: u64,

    /// Also write everything as JSON, or with - print that instead
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
            "--compare with --provider cpu would compare the processor with itself; leave out one of them, where a GPU serves"
        );
    }
    let unfinished = Unfinished::default();
    let _interrupt = Interrupt::install(&unfinished)?;
    let to_stdout = args.json.as_deref() == Some(Path::new("-"));
    let file = match &args.json {
        Some(path) if !to_stdout => Some(StagedFile::create(path, args.overwrite, &unfinished)?),
        _ => None,
    };
    let report = Report::new(gather(args, &unfinished)?);
    let mut json = serde_json::to_string_pretty(&report)?;
    match to_stdout {
        true => say(&json),
        false => show::show(&report),
    }
    if let Some(file) = file {
        json.push('\n');
        std::fs::write(file.path(), json)
            .with_context(|| format!("cannot write {}", file.path().display()))?;
        file.commit()?;
    }
    Ok(report.verdict)
}

/// Looks at everything, and tries what can be tried.
fn gather(args: &DoctorArgs, unfinished: &Unfinished) -> Result<Facts> {
    let links = Links::here();
    let (driver, gpus) = gpu::look(&links);
    let mut facts = Facts {
        host: host::look(),
        driver,
        gpus,
        device_id: args.device_id,
        library: library::look(args.ort_lib.as_deref(), &links),
        required: args.provider.map(|provider| provider.to_string()),
        ..Facts::default()
    };
    match models::choose(args.model.as_deref(), args.res, args.models.as_deref()) {
        Ok(dir) => facts.bundle = Some(look_at(&dir)),
        // Without --model a bundle is welcome, not needed; its message says where it was looked for.
        Err(error) => facts.no_bundle = Some(without_advice(&super::chain(&error))),
    }
    let Some(library) = facts.library.path.clone() else {
        return Ok(facts);
    };
    let desk = scratch(unfinished).context("cannot make a folder for what the trials tell")?;
    let has_gpu = facts.library.cuda.is_some() && !facts.gpus.is_empty();
    let wanted = match args.provider {
        Some(provider) => provider == Provider::Cuda,
        None => has_gpu,
    };
    let cuda = wanted.then_some(Provider::Cuda);
    let terminal = std::io::stderr().is_terminal();
    for provider in [Provider::Cpu].into_iter().chain(cuda) {
        if terminal {
            complain(&format!("trying {provider} …"));
        }
        let launch = trial::Launch {
            provider,
            library: &library,
            bundle: facts
                .bundle
                .as_ref()
                .filter(|bundle| bundle.failure.is_none())
                .map(|bundle| bundle.dir.as_path()),
            budget: memory::budget(&facts, provider),
            timeout: Duration::from_secs(args.timeout),
            clip: None,
        };
        let tried = trial::start(args, &launch, desk.path(), &mut facts.library)?;
        facts.providers.push(tried);
    }
    compare::compare(args, &mut facts, desk.path(), terminal)?;
    Ok(facts)
}

/// The part of a message before what it advises, which a finding says itself.
fn without_advice(message: &str) -> String {
    let what = message.split("; give one with").next();
    what.unwrap_or(message).to_owned()
}

fn look_at(dir: &Path) -> BundleFacts {
    let mut facts = BundleFacts {
        dir: dir.to_path_buf(),
        ..BundleFacts::default()
    };
    if let Ok(manifest) = Bundle::peek(dir) {
        facts.name = Some(manifest.name);
        facts.resolution = Some(manifest.resolution);
        facts.precision = Some(manifest.precision.to_string());
        facts.random_weights = manifest.source.random_weights;
    }
    match Bundle::open(dir) {
        Ok(bundle) => {
            let graphs = &bundle.manifest().graphs;
            facts.files = bundle.manifest().files();
            facts.golden_graphs = graphs
                .iter()
                .filter(|graph| golden::file_of(&bundle, graph.role).is_some())
                .count();
        }
        Err(error) => facts.failure = Some(super::chain(&error.into())),
    }
    facts
}
