//! Comparing variants of a model on one clip: how alike their masks are, how good, how fast, in how much memory, and which
//! of them to run.
//!
//! A *variant* is a bundle with the way it is run. The first is the *baseline*: agreement and speed are relative to it. What
//! is here turns results into figures, a sentence and a page; [`crate::cli`] makes the results.

pub mod agreement;
mod chart;
pub mod finds;
pub mod frames;
pub mod numbers;
pub mod page;
pub mod picture;
pub mod report;
pub mod require;
pub mod table;
pub mod variant;
pub mod verdict;
mod warnings;

use std::path::PathBuf;

/// Why variants cannot be compared.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AbError {
    /// The text of a variant is not understood.
    #[error("--variant {text}: {detail}")]
    Variant {
        /// As given.
        text: String,
        /// What is wrong, and what is expected.
        detail: String,
    },
    /// The variants do not make a comparison.
    #[error("{detail}")]
    Variants {
        /// What is wrong, and what to do.
        detail: String,
    },
    /// A requirement is not understood, or cannot be judged.
    #[error("--require {text}: {detail}")]
    Requirement {
        /// The requirement at fault.
        text: String,
        /// What is wrong, and what is expected.
        detail: String,
    },
    /// A run's results are not as it leaves them.
    #[error("{}: {detail}; remove the folder, and the same command makes it again", path.display())]
    Results {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        detail: String,
    },
    /// A picture of the page cannot be made.
    #[error("frame {frame} of the page: {detail}")]
    Picture {
        /// The frame.
        frame: u64,
        /// The reason.
        detail: String,
    },
}
