//! A trial in a separate process: starts `snow-ort doctor-worker`, gives it its config and waits for its end.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::cli::{say, spare_workspaces};
use crate::doctor::attention;
use crate::doctor::trial::{End, Event, TrialConfig, TrialOutput};
use crate::doctor::worker;
use crate::runtime::Provider;

/// Name of the hidden command.
const COMMAND: &str = "doctor-worker";

/// Time between two checks whether the process has ended.
const PAUSE: Duration = Duration::from_millis(20);

/// Runs `snow-ort doctor-worker`: reads a [`TrialConfig`] as JSON from standard input and writes the trial's events to its file.
pub(crate) fn run_worker() -> Result<()> {
    let config: TrialConfig = serde_json::from_reader(io::stdin())
        .context("cannot read the configuration of a trial from standard input")?;
    spare_workspaces(config.provider);
    let failed = || format!("cannot write {}", config.events.display());
    let mut file = File::create(&config.events).with_context(failed)?;
    let mut written = Ok(());
    worker::run(&config, &mut |event: Event| {
        if let Event::Begin {
            graph: Some(role), ..
        } = &event
        {
            say(&format!("{} {role}", attention::GRAPH));
        }
        let line = serde_json::to_string(&event).map_err(io::Error::from);
        let result = line.and_then(|line| writeln!(file, "{line}"));
        if written.is_ok() {
            written = result;
        }
    });
    written.with_context(failed)
}

/// Runs a trial in a process of this program and returns its output.
pub(super) fn run_trial(config: &TrialConfig, timeout: Duration) -> Result<TrialOutput> {
    let printed = config.events.with_extension("txt");
    let program = std::env::current_exe().context("cannot find this program's own file")?;
    let mut command = Command::new(program);
    command.arg(COMMAND);
    // A failure shows the last line that was printed, which must not be one of a backtrace.
    command.env("RUST_BACKTRACE", "0");
    if config.provider == Provider::Cuda && config.clip.is_none() {
        command.env(attention::VARIABLE, "1");
    }
    // Both streams go into one file, which keeps their order. A pipe would have to be read while the process runs.
    let output = File::create(&printed).context("cannot create a file for a trial's output")?;
    let errors = output
        .try_clone()
        .context("cannot share a file with a trial")?;
    command.stdin(Stdio::piped()).stdout(output).stderr(errors);
    let mut child = command.spawn().context("cannot start a trial")?;
    let json = serde_json::to_vec(config)?;
    if let Some(mut input) = child.stdin.take() {
        // A process that ended already is reported below.
        let _ = input.write_all(&json);
    }
    let end = wait(child, timeout)?;
    let read = |path: &Path| {
        let bytes = fs::read(path).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    };
    Ok(TrialOutput {
        events: read(&config.events),
        printed: read(&printed),
        end,
    })
}

/// Waits for the process, and ends it after `timeout`.
fn wait(mut child: Child, timeout: Duration) -> Result<End> {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().context("cannot wait for a trial")? {
            return Ok(status.signal().map_or(End::Exit, End::Signal));
        }
        if start.elapsed() >= timeout {
            // Both calls fail only if the process has just ended.
            let _ = child.kill();
            let _ = child.wait();
            return Ok(End::Timeout(timeout.as_secs()));
        }
        std::thread::sleep(PAUSE);
    }
}
