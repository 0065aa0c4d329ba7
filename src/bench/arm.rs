//! An arm's process.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use super::BenchError;
use super::protocol::{Answer, Frame, NEXT, Ready};
use super::words::Words;

/// How long a process may take to end by itself.
const PATIENCE: Duration = Duration::from_secs(10);

/// How an arm began.
#[derive(Debug, Clone, PartialEq)]
pub struct First {
    /// What it says of itself.
    pub ready: Ready,
    /// Seconds from the start of the process until its model was loaded.
    pub load_s: f64,
    /// Seconds from the start of the process to the first frame's masks.
    pub cold_s: f64,
}

/// A process that tracks a frame whenever it is asked to. Dropping it ends the process.
pub struct Arm {
    name: String,
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    words: Words,
    started: Instant,
}

impl Arm {
    /// Starts the process; it may take long until it answers.
    ///
    /// # Errors
    /// [`BenchError::Start`].
    pub fn start(name: &str, mut command: Command) -> Result<Self, BenchError> {
        let started = Instant::now();
        let program = command.get_program().to_string_lossy().into_owned();
        let failed = |source| BenchError::Start {
            arm: name.to_owned(),
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
        let (Some(input), Some(output), Some(errors)) = (input, output, errors) else {
            return Err(missing());
        };
        Ok(Self {
            name: name.to_owned(),
            child,
            input: Some(input),
            output: BufReader::new(output),
            words: Words::listen(errors),
            started,
        })
    }

    /// Waits until the model is loaded and the first frame is tracked.
    ///
    /// # Errors
    /// The process ended, or said something else.
    pub fn first(&mut self) -> Result<First, BenchError> {
        self.ask();
        let ready = match self.answer("while it was loading")? {
            (Answer::Ready(ready), _) => ready,
            (_, line) => return Err(self.confused(line, "{\"ready\": …}")),
        };
        let load_s = self.started.elapsed().as_secs_f64();
        self.tracked()?;
        Ok(First {
            ready,
            load_s,
            cold_s: self.started.elapsed().as_secs_f64(),
        })
    }

    /// Has it track the next frame.
    ///
    /// # Errors
    /// The process ended, or said something else.
    pub fn frame(&mut self) -> Result<Frame, BenchError> {
        self.ask();
        self.tracked()
    }

    fn ask(&mut self) {
        // A process that is gone is noticed when it does not answer; it has more to say than the pipe.
        if let Some(input) = &mut self.input {
            let _ = writeln!(input, "{NEXT}").and_then(|()| input.flush());
        }
    }

    fn tracked(&mut self) -> Result<Frame, BenchError> {
        match self.answer("while it was tracking")? {
            (Answer::Frame(frame), _) => Ok(frame),
            (_, line) => Err(self.confused(line, "{\"frame\": …}")),
        }
    }

    fn confused(&self, got: String, expected: &'static str) -> BenchError {
        BenchError::Protocol {
            arm: self.name.clone(),
            got,
            expected,
        }
    }

    fn answer(&mut self, when: &str) -> Result<(Answer, String), BenchError> {
        let mut line = String::new();
        let read = self.output.read_line(&mut line);
        if !matches!(read, Ok(1..)) {
            return Err(self.ended(when));
        }
        let line = line.trim_end().to_owned();
        match serde_json::from_str(&line) {
            Ok(answer) => Ok((answer, line)),
            Err(_) => Err(self.confused(line, "a line of JSON that says ready or frame")),
        }
    }

    fn ended(&mut self, when: &str) -> BenchError {
        self.input = None;
        let status = match self.child.wait() {
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        };
        BenchError::Ended {
            arm: self.name.clone(),
            status,
            when: when.to_owned(),
            words: self.words.last(),
        }
    }
}

impl Drop for Arm {
    fn drop(&mut self) {
        // The end of its input ends it, and it may have something left to write; one that is stuck must not keep the
        // program.
        self.input = None;
        let since = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) && since.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.words.end();
    }
}
