//! The process of a variant.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use super::BenchError;
use super::protocol::{Answer, Frame, NEXT, Ready};
use super::rounds::Timed;
use super::stderr_tail::StderrTail;

/// How long a process may take to end by itself.
const PATIENCE: Duration = Duration::from_secs(10);

/// How a variant's process started.
#[derive(Debug, Clone, PartialEq)]
pub struct Startup {
    /// The first line that it wrote.
    pub ready: Ready,
    /// Seconds from the start of the process until its model was loaded.
    pub load_s: f64,
    /// Seconds from the start of the process to the first frame's masks.
    pub cold_s: f64,
}

/// A process that tracks one frame for each request. Dropping it ends the process.
pub struct VariantProcess {
    name: String,
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    errors: StderrTail,
    started: Instant,
}

impl VariantProcess {
    /// Starts the process, and writes `first_line` to its standard input. It may take long until it answers.
    ///
    /// # Errors
    /// [`BenchError::Start`].
    pub fn start(
        name: &str,
        mut command: Command,
        first_line: Option<&str>,
    ) -> Result<Self, BenchError> {
        let started = Instant::now();
        let program = command.get_program().to_string_lossy().into_owned();
        let failed = |source| BenchError::Start {
            variant: name.to_owned(),
            program: program.clone(),
            source,
        };
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().map_err(failed)?;
        let missing = || failed(std::io::ErrorKind::BrokenPipe.into());
        let (input, output, errors) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (Some(mut input), Some(output), Some(errors)) = (input, output, errors) else {
            return Err(missing());
        };
        if let Some(line) = first_line {
            // A process that has ended does not answer, and that error says more than the pipe's.
            let _ = input.write_all(line.as_bytes());
        }
        Ok(Self {
            name: name.to_owned(),
            child,
            input: Some(input),
            output: BufReader::new(output),
            errors: StderrTail::read(errors),
            started,
        })
    }

    /// Waits until the model is loaded and the first frame is tracked.
    ///
    /// # Errors
    /// [`BenchError::Ended`] and [`BenchError::Protocol`].
    pub fn first_frame(&mut self) -> Result<Startup, BenchError> {
        self.request();
        let ready = match self.answer("while it was loading")? {
            (Answer::Ready(ready), _) => ready,
            (_, line) => return Err(self.unexpected(line, "{\"ready\": …}")),
        };
        let load_s = self.started.elapsed().as_secs_f64();
        self.tracked()?;
        Ok(Startup {
            ready,
            load_s,
            cold_s: self.started.elapsed().as_secs_f64(),
        })
    }

    fn request(&mut self) {
        // A process that has ended does not answer, and that error says more than the pipe's.
        if let Some(input) = &mut self.input {
            let _ = writeln!(input, "{NEXT}").and_then(|()| input.flush());
        }
    }

    fn tracked(&mut self) -> Result<Frame, BenchError> {
        match self.answer("while it was tracking")? {
            (Answer::Frame(frame), _) => Ok(frame),
            (_, line) => Err(self.unexpected(line, "{\"frame\": …}")),
        }
    }

    fn unexpected(&self, got: String, expected: &'static str) -> BenchError {
        BenchError::Protocol {
            variant: self.name.clone(),
            got,
            expected,
        }
    }

    fn answer(&mut self, when: &'static str) -> Result<(Answer, String), BenchError> {
        let mut line = String::new();
        let read = self.output.read_line(&mut line);
        if !matches!(read, Ok(1..)) {
            return Err(self.ended(when));
        }
        let line = line.trim_end().to_owned();
        match serde_json::from_str(&line) {
            Ok(answer) => Ok((answer, line)),
            Err(_) => Err(self.unexpected(line, "a line of JSON with ready or frame")),
        }
    }

    fn ended(&mut self, when: &'static str) -> BenchError {
        self.input = None;
        let status = match self.child.wait() {
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        };
        BenchError::Ended {
            variant: self.name.clone(),
            status,
            when,
            stderr: self.errors.message(),
        }
    }
}

impl Timed for VariantProcess {
    fn frame(&mut self) -> Result<Frame, BenchError> {
        self.request();
        self.tracked()
    }
}

impl Drop for VariantProcess {
    fn drop(&mut self) {
        // The end of its input ends the process, which may still write something. A process that hangs must not keep
        // this program from ending.
        self.input = None;
        let since = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) && since.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.errors.wait();
    }
}
