//! Why variants cannot be compared.

use std::io;
use std::path::{Path, PathBuf};

use crate::bench::BenchError;
use crate::session::SessionError;

/// Why variants cannot be compared.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AbError {
    /// The description of a variant cannot be read.
    #[error("variant {text}: {detail}")]
    Variant {
        /// The description.
        text: String,
        /// What is wrong, and what is expected.
        detail: String,
    },
    /// There are too few variants.
    #[error("a comparison needs two variants or more, got {count}")]
    TooFewVariants {
        /// Their number.
        count: usize,
    },
    /// Two variants have the same name, or names that differ in upper and lower case only.
    #[error("two variants are called {name}")]
    SameName {
        /// The name.
        name: String,
    },
    /// A requirement cannot be read or checked.
    #[error("requirement {text}: {problem}")]
    Requirement {
        /// The requirement.
        text: String,
        /// What is wrong.
        problem: RequirementProblem,
    },
    /// The output folder is a bundle.
    #[error("the output folder {} is a bundle; give another folder", out.display())]
    OutIsBundle {
        /// The folder.
        out: PathBuf,
    },
    /// A file that the comparison reads is in a folder that it replaces.
    #[error(
        "{what} {} lies in {}, which the comparison replaces; give another output folder, or copy it elsewhere first",
        path.display(), runs.display()
    )]
    InputInRuns {
        /// What the file or folder is.
        what: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The folder that is replaced.
        runs: PathBuf,
    },
    /// A run cannot be described or checked.
    #[error(transparent)]
    Session(Box<SessionError>),
    /// The trial cannot be run.
    #[error(transparent)]
    Bench(#[from] BenchError),
    /// A process cannot be started.
    #[error("{detail}")]
    Program {
        /// The reason.
        detail: String,
    },
    /// A file or folder cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Unreadable {
        /// The file or folder.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// A file cannot be written.
    #[error("cannot write {}: {source}", path.display())]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// A file of a run cannot be used.
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
    /// The page cannot be made.
    #[error("the page cannot be made: {0}")]
    Page(#[from] askama::Error),
}

impl From<SessionError> for AbError {
    fn from(error: SessionError) -> Self {
        Self::Session(Box::new(error))
    }
}

/// What is wrong with a requirement.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RequirementProblem {
    /// It does not have the form of a requirement.
    #[error(
        "expected VARIANT.METRIC and >=, <=, > or < and a number without spaces, such as b.iou>=0.97"
    )]
    Form,
    /// There is no such variant.
    #[error("no variant is called {name:?}; there are {}", known.join(", "))]
    UnknownVariant {
        /// The name in the requirement.
        name: String,
        /// The names of all variants.
        known: Vec<String>,
    },
    /// There is no such metric.
    #[error("unknown metric {name:?}, expected one of {}", known.join(", "))]
    UnknownMetric {
        /// The name in the requirement.
        name: String,
        /// The names of all metrics.
        known: Vec<&'static str>,
    },
    /// The metric compares a variant with the baseline, and the variant is the baseline.
    #[error(
        "{metric} compares with the baseline, and {variant} is the baseline; require it of another variant"
    )]
    OfBaseline {
        /// The metric.
        metric: &'static str,
        /// The baseline.
        variant: String,
    },
    /// The metric needs objects that the variants find by themselves.
    #[error("{metric} needs variants that find their objects by themselves")]
    NeedsFoundObjects {
        /// The metric.
        metric: &'static str,
    },
    /// The metric needs ground truth.
    #[error("{metric} needs ground truth")]
    NeedsGroundTruth {
        /// The metric.
        metric: &'static str,
    },
    /// The bound cannot be read.
    #[error("{detail}")]
    Bound {
        /// What was expected.
        detail: String,
    },
}

/// Makes an [`AbError::Unreadable`] of an error about the file or folder at `path`.
pub(super) fn unreadable(path: &Path) -> impl Fn(io::Error) -> AbError {
    move |source| AbError::Unreadable {
        path: path.to_owned(),
        source,
    }
}

/// Makes an [`AbError::Unwritable`] of an error about the file at `path`.
pub(super) fn unwritable(path: &Path) -> impl Fn(io::Error) -> AbError {
    move |source| AbError::Unwritable {
        path: path.to_owned(),
        source,
    }
}

/// Makes an [`AbError::Results`] of what is wrong with the file at `path`.
pub(super) fn results<E: ToString>(path: &Path) -> impl Fn(E) -> AbError {
    move |detail| AbError::Results {
        path: path.to_owned(),
        detail: detail.to_string(),
    }
}
