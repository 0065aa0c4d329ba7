//! The processes of a comparison, and what is printed while it goes on.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result, bail};

use crate::bench::stderr_tail::StderrTail;
use crate::bench::trial::VariantCommand;
use crate::cli::progress::Progress;
use crate::cli::worker::Job;
use crate::cli::{chain, complain};
use crate::compare::comparison::{Event, Host};
use crate::session::Config;

const TIMING: &str = "the timing";
const REPORT: &str = "the report";

/// The parts of a comparison that are still to be done, for the message of an interruption.
#[derive(Clone, Default)]
pub(super) struct Missing(Arc<Mutex<Vec<String>>>);

impl Missing {
    /// All parts of a comparison of these variants.
    pub(super) fn begin<'a>(&self, variants: impl Iterator<Item = &'a str>) {
        let rest = [TIMING.to_owned(), REPORT.to_owned()];
        let parts = variants.map(run_of).chain(rest);
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = parts.collect();
    }

    fn done(&self, part: &str) {
        let mut parts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        parts.retain(|known| known != part);
    }

    pub(super) fn text(&self) -> String {
        let parts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        parts.join(", ")
    }
}

fn run_of(variant: &str) -> String {
    format!("the run of {variant}")
}

/// This program, which runs each variant as `snow-ort worker`.
pub(super) struct Workers {
    pub missing: Missing,
    pub quiet: bool,
    pub progress: Option<Progress>,
}

impl Workers {
    fn tell(&self, text: &str) {
        if !self.quiet {
            complain(text);
        }
    }
}

impl Host for Workers {
    fn run(&mut self, variant: &str, config: Config, frames: Option<u64>) -> Result<(), String> {
        let progress = Progress::named(variant, frames, self.quiet);
        run_worker(config, progress).map_err(|error| chain(&error))
    }

    fn trial_command(&mut self, variant: &str, config: Config) -> Result<VariantCommand, String> {
        let command = Job::Bench(Box::new(config)).command(variant.to_owned());
        command.map_err(|error| chain(&error))
    }

    fn event(&mut self, event: Event<'_>) {
        match event {
            Event::RunKept(variant) => self.tell(&format!("{variant}: its run is there already")),
            Event::RunFailed { variant, error } => {
                complain(&format!("warning: {variant} failed: {error}"));
            }
            Event::RunDone(variant) => self.missing.done(&run_of(variant)),
            Event::TrialKept => self.tell("timing: it is there already (--fresh measures again)"),
            Event::TrialStarted { frames } => {
                self.progress = Some(Progress::named("timing", Some(frames), self.quiet));
            }
            Event::TrialFrame => self.progress.iter_mut().for_each(Progress::frame),
            Event::TrialDone => {
                self.missing.done(TIMING);
                if let Some(progress) = self.progress.take() {
                    progress.finish();
                }
            }
            Event::Reported => self.missing.done(REPORT),
        }
    }
}

/// Runs a worker to its end. The error is its own error message.
fn run_worker(config: Config, mut progress: Progress) -> Result<()> {
    let job = Job::Run(Box::new(config));
    let program = std::env::current_exe().context("cannot find this program's own file")?;
    let mut command = Command::new(&program);
    command
        .arg("worker")
        .stdin(Stdio::piped())
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
    let (Some(mut input), Some(output), Some(errors)) =
        (child.stdin.take(), child.stdout.take(), child.stderr.take())
    else {
        bail!("cannot talk to {}", program.display());
    };
    // A process that has ended leaves its reason on its standard error.
    let _ = input.write_all(job.line()?.as_bytes());
    drop(input);
    let mut stderr = StderrTail::read(errors);
    for line in BufReader::new(output).lines() {
        if line.is_ok() {
            progress.frame();
        }
    }
    let status = child.wait().context("cannot wait for a run")?;
    progress.finish();
    match (status.success(), status.code()) {
        (true, _) => Ok(()),
        (false, Some(_)) => bail!("{}", stderr.message()),
        // The system ends a process with a signal if memory is short.
        (false, None) => bail!(
            "it was ended from outside ({status}); if it was SIGKILL, memory may have been short: {}",
            stderr.message()
        ),
    }
}
