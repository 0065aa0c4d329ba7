//! Trying a provider: the process that does it (`snow-ort doctor-trial`), and what starts it and waits for it.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use clap::Args;

use super::DoctorArgs;
use crate::cli::args::{RuntimeArgs, one_or_more};
use crate::cli::say;
use crate::doctor::attention;
use crate::doctor::clip;
use crate::doctor::facts::{LibraryFacts, ProviderFacts};
use crate::doctor::trial::{self, ClipTrial, End, Event, Trial};
use crate::runtime::Provider;

/// How often it is asked whether the process is done.
const PAUSE: Duration = Duration::from_millis(20);

/// Arguments of `snow-ort doctor-trial`.
#[derive(Debug, Args)]
pub(crate) struct TrialArgs {
    /// File to which each event is written, as a line of JSON
    #[arg(long, value_name = "FILE")]
    pub events: PathBuf,

    /// The bundle
    #[arg(long, value_name = "DIR")]
    pub model: Option<PathBuf>,

    /// Objects to plan for
    #[arg(long, value_name = "N", default_value = "1", value_parser = one_or_more)]
    pub objects: std::num::NonZeroUsize,

    /// Bytes that graphs may take
    #[arg(long, value_name = "BYTES")]
    pub budget: Option<u64>,

    /// Follow the drawn clip instead, and write its logits to this file
    #[arg(long, value_name = "FILE", requires = "model")]
    pub clip: Option<PathBuf>,

    /// Frames of the clip to follow
    #[arg(long, value_name = "N", default_value_t = clip::FRAMES)]
    pub frames: usize,

    #[command(flatten)]
    pub runtime: RuntimeArgs,
}

/// Runs `snow-ort doctor-trial`.
pub(crate) fn run(args: &TrialArgs) -> Result<()> {
    let mut file = File::create(&args.events)
        .with_context(|| format!("cannot write {}", args.events.display()))?;
    let plan = Trial {
        options: args.runtime.options(None),
        bundle: args.model.clone(),
        objects: args.objects.get(),
        budget: args.budget,
        clip: args.clip.clone().map(|file| ClipTrial {
            file,
            frames: args.frames,
        }),
    };
    let mut written = Ok(());
    trial::run(&plan, &mut |event: Event| {
        if let Event::Begin {
            graph: Some(role), ..
        } = &event
        {
            say(&format!("{} {role}", attention::GRAPH));
        }
        let line = serde_json::to_string(&event).map_err(std::io::Error::from);
        let put = line.and_then(|line| writeln!(file, "{line}"));
        if written.is_ok() {
            written = put;
        }
    });
    written.with_context(|| format!("cannot write {}", args.events.display()))
}

/// What to try.
pub(super) struct Launch<'a> {
    pub provider: Provider,
    /// The library that was found: the process must take the same.
    pub library: &'a Path,
    pub bundle: Option<&'a Path>,
    pub budget: Option<u64>,
    pub timeout: Duration,
    /// Follow the drawn clip instead of trying what there is.
    pub clip: Option<Clip<'a>>,
}

/// The drawn clip, to be followed.
pub(super) struct Clip<'a> {
    /// Where its logits go.
    pub file: &'a Path,
    pub frames: usize,
}

/// Starts the process, waits for it, and concludes. Its files lie in `desk`.
pub(super) fn start(
    args: &DoctorArgs,
    launch: &Launch<'_>,
    desk: &Path,
    library: &mut LibraryFacts,
) -> Result<ProviderFacts> {
    let provider = launch.provider.to_string();
    let kind = launch.clip.as_ref().map_or("trial", |_| "clip");
    let events = desk.join(format!("{provider}-{kind}.jsonl"));
    let printed = desk.join(format!("{provider}-{kind}.txt"));
    let program = std::env::current_exe().context("cannot find this program's own file")?;
    let mut command = Command::new(program);
    command.arg("doctor-trial").arg("--events").arg(&events);
    command.args(["--provider", &provider]);
    command.args(["--device-id", &args.device_id.to_string()]);
    command.arg("--ort-lib").arg(launch.library);
    command.args(["--objects", &args.objects.to_string()]);
    if let Some(threads) = args.threads {
        command.args(["--threads", &threads.to_string()]);
    }
    if let Some(dir) = launch.bundle {
        command.arg("--model").arg(dir);
    }
    if let Some(budget) = launch.budget {
        command.args(["--budget", &budget.to_string()]);
    }
    if let Some(clip) = &launch.clip {
        command.arg("--clip").arg(clip.file);
        command.args(["--frames", &clip.frames.to_string()]);
    }
    // Its last words are shown, and a stack is none.
    command.env("RUST_BACKTRACE", "0");
    if launch.provider == Provider::Cuda && launch.clip.is_none() {
        command.env(attention::VARIABLE, "1");
    }
    // Into a file: a pipe that nobody reads would stop the process, and both streams keep their order.
    let output = File::create(&printed).context("cannot make a file for what a trial prints")?;
    let errors = output.try_clone().context("cannot share a file")?;
    command.stdin(Stdio::null()).stdout(output).stderr(errors);
    let end = wait(command, launch.timeout)?;
    let read = |path: &Path| {
        let bytes = fs::read(path).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    };
    let told = (read(&events), read(&printed));
    Ok(trial::conclude(&provider, (&told.0, end, &told.1), library))
}

fn wait(mut command: Command, timeout: Duration) -> Result<End> {
    let mut child = command.spawn().context("cannot start a trial")?;
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().context("cannot wait for a trial")? {
            return Ok(status.signal().map_or(End::Exit, End::Signal));
        }
        if start.elapsed() >= timeout {
            // It may have ended just now, which is as good.
            let _ = child.kill();
            let _ = child.wait();
            return Ok(End::Timeout(timeout.as_secs()));
        }
        std::thread::sleep(PAUSE);
    }
}
