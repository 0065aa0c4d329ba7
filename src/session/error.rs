//! Why a run cannot be opened or cannot go on.

use std::path::PathBuf;

use crate::bundle::BundleError;
use crate::detector::DetectError;
use crate::media::MediaError;
use crate::memory::budget::{BudgetError, OverLimit};
use crate::output::OutputError;
use crate::prompts::PromptError;
use crate::proposals::ProposalError;
use crate::runtime::GraphError;
use crate::scoring::ScoringError;
use crate::scoring::ground_truth::GroundTruthError;
use crate::text_tracking::TextTrackingError;
use crate::tracker::TrackError;
use crate::words::counted;

use super::output_conflicts::OutputConflict;

/// Why a run cannot be opened or cannot go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SessionError {
    /// The prompts.
    #[error(transparent)]
    Prompts(#[from] PromptError),
    /// No text was given.
    #[error("no text was given")]
    NoText,
    /// Ground truth with proposals and prompts of the user.
    #[error(
        "ground truth cannot be used with both proposals and prompts: objects of prompts are scored by their ids, proposed ones by their masks"
    )]
    MixedGroundTruth,
    /// The input, or a file of frames.
    #[error(transparent)]
    Media(#[from] MediaError),
    /// The bundle.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// The detector's bundle comes from another checkpoint than the tracker's.
    #[error(transparent)]
    OtherCheckpoint(#[from] Box<OtherCheckpoint>),
    /// A changed parameter of text tracking.
    #[error(transparent)]
    Parameter(#[from] ParameterError),
    /// The ground truth.
    #[error(transparent)]
    GroundTruth(#[from] GroundTruthError),
    /// The scores.
    #[error(transparent)]
    Scoring(#[from] ScoringError),
    /// An output would replace what the run reads, or another output.
    #[error(transparent)]
    OutputConflict(#[from] OutputConflict),
    /// An output cannot be made.
    #[error(transparent)]
    Output(#[from] OutputError),
    /// The library, the device, or a graph.
    #[error(transparent)]
    Engine(#[from] GraphError),
    /// The tracker.
    #[error(transparent)]
    Track(#[from] TrackError),
    /// The detector.
    #[error(transparent)]
    Detect(#[from] DetectError),
    /// The loop that tracks texts.
    #[error(transparent)]
    TextTracking(#[from] TextTrackingError),
    /// The graph that proposes objects.
    #[error(transparent)]
    Proposals(#[from] ProposalError),
    /// The run needs more memory than its limit allows.
    #[error(transparent)]
    OverLimit(#[from] Box<OverLimit>),
    /// A step on a frame failed.
    #[error("cannot {action} frame {frame}")]
    Frame {
        /// What was to be done, such as `track`.
        action: &'static str,
        /// The frame.
        frame: usize,
        /// The cause.
        source: Box<SessionError>,
    },
    /// A file or folder cannot be written.
    #[error("cannot write {what}")]
    Write {
        /// The file or folder, in words.
        what: String,
        /// The cause.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The results cannot be written: nothing is kept. The message names files as the user does.
    #[error("{message}; nothing was kept")]
    NothingKept {
        /// What went wrong, with its causes.
        message: String,
    },
    /// The results are complete, but cannot be moved to their names.
    #[error("cannot put the results in place")]
    Place {
        /// The cause.
        source: OutputError,
    },
    /// The clip ended before the frame of a prompt.
    #[error(
        "the prompt of object {object} on frame {frame} was never reached: {} ended after {}; nothing was kept",
        input.display(), counted(*frames, "frame")
    )]
    PromptNotReached {
        /// The prompt's object.
        object: u32,
        /// The prompt's frame.
        frame: usize,
        /// The clip.
        input: PathBuf,
        /// Its number of frames.
        frames: u64,
    },
    /// The clip gave no frame.
    #[error("no frame was tracked; nothing was kept")]
    NoFrames,
    /// The run failed after some frames, which are kept.
    #[error("the run failed after {}, kept in {}", counted(*frames, "frame"), kept_in.display())]
    Failed {
        /// Complete frames.
        frames: u64,
        /// The folder with them.
        kept_in: PathBuf,
        /// The cause.
        source: Box<SessionError>,
    },
    /// A thread ended by a panic.
    #[error("the {thread} thread ended unexpectedly; this is a bug")]
    Thread {
        /// What it did, such as `decoding`.
        thread: &'static str,
    },
}

impl From<BudgetError> for SessionError {
    fn from(error: BudgetError) -> Self {
        match error {
            BudgetError::OverLimit(error) => Self::OverLimit(error),
            BudgetError::Track(error) => Self::Track(error),
            BudgetError::Detect(error) => Self::Detect(error),
        }
    }
}

impl SessionError {
    /// A file or folder that cannot be written.
    pub(crate) fn write(
        what: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::Write {
            what: what.into(),
            source: source.into(),
        }
    }

    /// The same on a frame.
    pub(crate) fn on_frame(self, action: &'static str, frame: usize) -> Self {
        Self::Frame {
            action,
            frame,
            source: Box::new(self),
        }
    }
}

/// An error with its causes in one line. Some errors repeat their cause in their own message; each is written once.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    text
}

/// The detector's bundle comes from another checkpoint than the tracker's.
#[derive(Debug, thiserror::Error)]
#[error(
    "{} comes from the checkpoint {detector_sha256}, but {} from {tracker_sha256}; export both from one checkpoint, such as with `{remedy}`",
    detector.display(), tracker.display()
)]
pub struct OtherCheckpoint {
    /// The detector's bundle.
    pub detector: PathBuf,
    /// SHA-256 of its checkpoint.
    pub detector_sha256: String,
    /// The tracker's bundle.
    pub tracker: PathBuf,
    /// SHA-256 of its checkpoint.
    pub tracker_sha256: String,
    /// A command that exports the detector's bundle.
    pub remedy: String,
}

/// Why a changed parameter of text tracking cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ParameterError {
    /// The bundle has no parameter of this name.
    #[error("{name}: no such parameter; there are {}", names.join(", "))]
    Unknown {
        /// The name.
        name: String,
        /// The bundle's parameters.
        names: Vec<String>,
    },
    /// The value has another type, or is out of range.
    #[error("{name}={value}: expected {name}={expected}, got {value:?}")]
    Value {
        /// The name.
        name: String,
        /// The value.
        value: String,
        /// What is expected.
        expected: String,
    },
    /// The parameters do not fit together.
    #[error("the parameters of text tracking cannot be used: {reason}")]
    Together {
        /// What is wrong.
        reason: String,
    },
}
