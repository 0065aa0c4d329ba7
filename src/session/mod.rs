//! One run, from its description to its report.
//!
//! [`open`] checks a [`Config`], plans its memory and loads its graphs; [`Session::run`] decodes, tracks, writes, and
//! returns the report. The command line, benchmarks, comparisons and other programs all run clips this way.

pub mod config;
pub(crate) mod detection;
mod discovery;
mod error;
mod model;
mod notes;
mod open;
mod output_conflicts;
pub(crate) mod outputs;
pub(crate) mod pipeline;
mod preflight;
pub mod report;
mod run;
pub(crate) mod text_parameters;
mod writer;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

pub use self::config::Config;
pub(crate) use self::error::chain;
pub use self::error::{OtherCheckpoint, ParameterError, SessionError};
pub use self::notes::{Note, NoteCode};
pub(crate) use self::open::StepTimes;
pub use self::open::{Session, open, open_with};
pub use self::output_conflicts::OutputConflict;
pub use self::outputs::Placed;
pub(crate) use self::preflight::{check_checkpoint, count_frames};
pub use self::run::Finished;
pub(crate) use self::run::reports_of;
use crate::tracker::FrameResult;

/// Is told how a run goes on. Every method does nothing by default.
pub trait Observer {
    /// The run begins; `frames` is the number of frames, if it is known.
    fn begin(&mut self, frames: Option<u64>) {
        let _ = frames;
    }

    /// A frame is tracked: its objects with their logits and scores. With texts an object of this result may turn out to
    /// be mistaken later; the written files leave it out.
    fn frame(&mut self, result: &FrameResult) {
        let _ = result;
    }

    /// An image is done, where objects are detected in images.
    fn image(&mut self) {}

    /// The run has ended, with or without an error.
    fn end(&mut self) {}

    /// Something that the user should know came up during the run.
    fn note(&mut self, note: &Note) {
        let _ = note;
    }
}

/// Observes nothing.
impl Observer for () {}

/// A flag that ends a run after the frame that is being tracked. Clones share the flag.
#[derive(Debug, Clone, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Asks the run to end.
    pub fn request(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    /// Whether the run was asked to end.
    pub fn requested(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}
