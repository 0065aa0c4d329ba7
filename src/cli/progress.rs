//! Progress on stderr: a bar on a terminal, a line every few seconds elsewhere.

use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::{complain, counted, hints};
use crate::session::{Note, Observer};
use crate::tracker::FrameResult;

const EVERY: Duration = Duration::from_secs(5);

/// Where a run stands.
pub(super) enum Progress {
    Silent,
    Bar(ProgressBar),
    Lines {
        name: String,
        total: Option<u64>,
        done: u64,
        start: Instant,
        last: Instant,
    },
}

impl Progress {
    /// Starts to count; `total` is the number of frames, if it is known.
    pub(super) fn start(total: Option<u64>, quiet: bool) -> Self {
        Self::named("", total, quiet)
    }

    /// Starts to count one of several things, which is named before each line.
    pub(super) fn named(name: &str, total: Option<u64>, quiet: bool) -> Self {
        let name = match name {
            "" => String::new(),
            name => format!("{name}: "),
        };
        if quiet {
            return Self::Silent;
        }
        if !std::io::stderr().is_terminal() {
            let start = Instant::now();
            return Self::Lines {
                name,
                total,
                done: 0,
                start,
                last: start,
            };
        }
        let bar = match total {
            Some(total) => ProgressBar::new(total),
            None => ProgressBar::no_length(),
        };
        let template = match total {
            Some(_) => "{prefix}{wide_bar} {pos}/{len} frames, {per_sec}, {eta} left",
            None => "{prefix}{spinner} {pos} frames, {per_sec}, {elapsed} so far",
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_prefix(name);
        Self::Bar(bar)
    }

    /// One frame more is done.
    pub(super) fn frame(&mut self) {
        match self {
            Self::Silent => {}
            Self::Bar(bar) => {
                bar.inc(1);
                // The container's count is a hint: there may be more frames.
                if bar.length().is_some_and(|length| bar.position() > length) {
                    bar.set_length(bar.position());
                }
            }
            Self::Lines {
                name,
                total,
                done,
                start,
                last,
            } => {
                *done += 1;
                if last.elapsed() >= EVERY {
                    *last = Instant::now();
                    complain(&format!("{name}{}", line(*done, *total, start.elapsed())));
                }
            }
        }
    }

    /// The end, whatever its reason.
    pub(super) fn finish(self) {
        match self {
            Self::Silent => {}
            Self::Bar(bar) => bar.finish_and_clear(),
            Self::Lines {
                name, done, start, ..
            } => complain(&format!("{name}{}", line(done, None, start.elapsed()))),
        }
    }
}

fn line(done: u64, total: Option<u64>, elapsed: Duration) -> String {
    let rate = done as f64 / elapsed.as_secs_f64().max(1e-9);
    match total {
        Some(total) if total >= done => {
            let left = (total - done) as f64 / rate.max(1e-9);
            format!("{done}/{total} frames, {rate:.2} frames/s, {left:.0} s left")
        }
        _ => format!("{}, {rate:.2} frames/s", counted(done, "frame")),
    }
}

/// Progress and warnings of a run, or of a detection, on the terminal.
pub(super) struct Terminal {
    quiet: bool,
    progress: Option<Progress>,
}

impl Terminal {
    /// Shows warnings, and progress unless `quiet`.
    pub(super) fn new(quiet: bool) -> Self {
        Self {
            quiet,
            progress: None,
        }
    }

    fn advance(&mut self) {
        if let Some(progress) = &mut self.progress {
            progress.frame();
        }
    }
}

impl Observer for Terminal {
    fn begin(&mut self, total: Option<u64>) {
        self.progress = Some(Progress::start(total, self.quiet));
    }

    fn frame(&mut self, _result: &FrameResult) {
        self.advance();
    }

    fn image(&mut self) {
        self.advance();
    }

    fn end(&mut self) {
        if let Some(progress) = self.progress.take() {
            progress.finish();
        }
    }

    fn note(&mut self, note: &Note) {
        warn(note);
    }
}

/// A note as a warning, with what to do about it.
pub(super) fn warn(note: &Note) {
    complain(&format!("warning: {note}{}", hints::of_note(note.code)));
}
