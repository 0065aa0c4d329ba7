//! Timing trackers against each other: each in a process of its own, warm, in balanced rounds.
//!
//! An *arm* is what is timed: a bundle in `snow-ort bench-worker`, or any command that speaks [`protocol`], such as the
//! PyTorch reference. All arms of a case see the same frames and prompts. Clocks drift and neighbours are noisy, so no arm
//! is measured in one piece: rounds go through the arms forwards and backwards in turn, and only times of one round are
//! divided by each other. `snow-ort bench` and `snow-ort ab` both measure with [`race::race`] and show what they found with
//! [`table`].

pub mod arm;
pub mod clip;
pub mod machine;
pub mod profile;
pub mod protocol;
pub mod race;
pub mod report;
pub mod rounds;
pub mod stats;
pub mod table;
pub mod words;

use std::io;
use std::path::PathBuf;

/// Why a measurement ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BenchError {
    /// An arm's process cannot be started.
    #[error("arm {arm}: cannot start {program}: {source}")]
    Start {
        /// The arm.
        arm: String,
        /// The program.
        program: String,
        /// The cause.
        source: io::Error,
    },
    /// An arm's process ended before it was asked to.
    #[error("arm {arm} ended ({status}) {when}: {words}")]
    Ended {
        /// The arm.
        arm: String,
        /// How, in the system's words.
        status: String,
        /// What it was doing.
        when: String,
        /// The last that it wrote to standard error.
        words: String,
    },
    /// An arm answered something else than what it was asked.
    #[error("arm {arm} said {got:?}, expected {expected}")]
    Protocol {
        /// The arm.
        arm: String,
        /// The line it wrote.
        got: String,
        /// What was expected.
        expected: &'static str,
    },
    /// No frame of an arm was counted.
    #[error("arm {arm}: no frame was counted; measure at least one round of one frame")]
    Nothing {
        /// The arm.
        arm: String,
    },
    /// The clip of a measurement cannot be written.
    #[error("{}: cannot be written: {detail}", path.display())]
    Clip {
        /// The file.
        path: PathBuf,
        /// The reason.
        detail: String,
    },
    /// A profile of the library's cannot be read.
    #[error("{}: no profile that ONNX Runtime wrote: {detail}", path.display())]
    Profile {
        /// The file, or its folder.
        path: PathBuf,
        /// The reason.
        detail: String,
    },
}
