//! Measures how fast trackers are, side by side.
//!
//! A *variant* is a bundle that runs in `snow-ort worker`, or any command that speaks [`protocol`], such as the
//! PyTorch reference. A *trial* ([`trial::run`]) starts one process for each variant, lets all of them track the same
//! frames with the same prompts until they are warm, and then measures them in *rounds*. Clock rates drift and other
//! programs disturb, so no variant is measured in one piece: a round has one block of frames for each variant, every
//! second round goes through the variants backwards, and only times of the same round are divided by each other.

pub mod clip;
pub mod machine;
pub mod process;
pub mod profile;
pub mod protocol;
pub mod report;
pub mod rounds;
pub mod stats;
pub mod stderr_tail;
pub mod table;
pub mod trial;
pub(crate) mod worker;

use std::io;
use std::path::PathBuf;

/// Why a trial cannot be run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BenchError {
    /// The process of a variant cannot be started.
    #[error("variant {variant}: cannot start {program}: {source}")]
    Start {
        /// The variant.
        variant: String,
        /// The program.
        program: String,
        /// The cause.
        source: io::Error,
    },
    /// The process of a variant ended too early.
    #[error("variant {variant} ended ({status}) {when}: {stderr}")]
    Ended {
        /// The variant.
        variant: String,
        /// Its exit status, as the system describes it.
        status: String,
        /// What it was doing.
        when: &'static str,
        /// Its last error message.
        stderr: String,
    },
    /// The process of a variant wrote a line that is not the expected answer.
    #[error("variant {variant} wrote {got:?}, expected {expected}")]
    Protocol {
        /// The variant.
        variant: String,
        /// The line it wrote.
        got: String,
        /// What was expected.
        expected: &'static str,
    },
    /// No frame of a variant was measured.
    #[error("variant {variant}: no frame was measured; measure at least one round of one frame")]
    Nothing {
        /// The variant.
        variant: String,
    },
    /// Blocks of about the requested length cannot all have the same number of detections.
    #[error(
        "blocks have different numbers of detections, which distorts the times; blocks of {block} frames would all have \
         the same number"
    )]
    UnevenBlocks {
        /// Frames of a block with which they all have the same number.
        block: usize,
    },
    /// The clip of a trial cannot be written.
    #[error("{}: cannot be written: {detail}", path.display())]
    Clip {
        /// The file.
        path: PathBuf,
        /// The reason.
        detail: String,
    },
    /// A profile of ONNX Runtime cannot be read.
    #[error("{}: cannot be read as a profile of ONNX Runtime: {detail}", path.display())]
    Profile {
        /// The file, or its folder.
        path: PathBuf,
        /// The reason.
        detail: String,
    },
}
