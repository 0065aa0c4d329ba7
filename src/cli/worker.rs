//! `snow-ort worker`: a run that another process of this program starts, described by one line of JSON on standard input.

use std::io::BufRead as _;
use std::process::Command;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use super::progress::warn;
use super::run::finish;
use super::say;
use super::signals::Interrupt;
use crate::bench;
use crate::bench::trial::VariantCommand;
use crate::bench::worker::WorkerError;
use crate::output::Unfinished;
use crate::runtime::Provider;
use crate::session::{Config, Note, Observer};
use crate::tracker::FrameResult;

/// What a worker does.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Job {
    /// Runs a clip and writes its results; prints a line for each frame.
    Run(Box<Config>),
    /// Tracks frames as they are asked for, and answers with times.
    Bench(Box<Config>),
}

impl Job {
    /// The first line of the worker's standard input.
    pub(super) fn line(&self) -> Result<String> {
        let mut line = serde_json::to_string(self).context("cannot describe the run")?;
        line.push('\n');
        Ok(line)
    }

    /// How a process that does this is started, as the variant `name` of a measurement.
    pub(super) fn command(&self, name: String) -> Result<VariantCommand> {
        let program = std::env::current_exe().context("cannot find this program's own file")?;
        let mut command = Command::new(program);
        command.arg("worker");
        Ok(VariantCommand {
            name,
            command,
            first_line: Some(self.line()?),
        })
    }

    /// Reads the first line of standard input.
    pub(super) fn read() -> Result<Self> {
        let mut line = String::new();
        std::io::stdin()
            .lock()
            .read_line(&mut line)
            .context("cannot read what to do")?;
        serde_json::from_str(&line).context("standard input does not describe a run")
    }

    /// Where its graphs run.
    pub(super) fn provider(&self) -> Provider {
        let (Self::Run(config) | Self::Bench(config)) = self;
        config.engine.provider
    }
}

/// Runs the command.
pub(super) fn run(job: Job) -> Result<()> {
    match job {
        Job::Bench(config) => {
            let (input, output) = (std::io::stdin().lock(), std::io::stdout().lock());
            match bench::worker::run(*config, input, output) {
                // Unwrapped, because hints are found by the type of the session's error.
                Err(WorkerError::Session(error)) => Err(error.into()),
                other => Ok(other?),
            }
        }
        Job::Run(config) => {
            let unfinished = Unfinished::default();
            let interrupt = Interrupt::install(&unfinished)?;
            finish(*config, &unfinished, &interrupt, &mut Lines).map(|_| ())
        }
    }
}

/// Prints a line for each frame.
struct Lines;

impl Observer for Lines {
    fn frame(&mut self, _result: &FrameResult) {
        say("frame");
    }

    fn note(&mut self, note: &Note) {
        warn(note);
    }
}
