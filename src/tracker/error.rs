//! What stops the tracker.

use crate::runtime::GraphError;
use crate::tracker::memory_bank::BankError;

/// What stops the tracker.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrackError {
    /// A graph or the device fails.
    #[error("frame {frame}: {source}")]
    Graph {
        /// The frame.
        frame: usize,
        /// The cause.
        source: GraphError,
    },
    /// The memory bank cannot serve a recall.
    #[error("frame {frame}: {source}")]
    MemoryBank {
        /// The frame.
        frame: usize,
        /// The cause.
        source: BankError,
    },
    /// A graph cannot be prepared.
    #[error(transparent)]
    Load(GraphError),
    /// The manifest asks for something that this program does not support.
    #[error(
        "the bundle's {field} is {got}, expected {expected}; export it again with a matching snow-export"
    )]
    Unsupported {
        /// Field of the manifest.
        field: &'static str,
        /// What is there.
        got: String,
        /// What can be used.
        expected: &'static str,
    },
    /// A graph file is not what the manifest says of it.
    #[error(
        "{file}: {kind} {tensor} is {got}, but the manifest says {expected}; the bundle is damaged: copy or export it again"
    )]
    Signature {
        /// The graph's file.
        file: String,
        /// Input or output.
        kind: &'static str,
        /// The tensor.
        tensor: String,
        /// What the manifest says.
        expected: String,
        /// What the file says.
        got: String,
    },
    /// A prompt is for another frame than the one that is tracked.
    #[error(
        "frame {frame}: a prompt of object {object} is for frame {meant}; frames go forward only"
    )]
    WrongFrame {
        /// The frame at hand.
        frame: usize,
        /// The object.
        object: u32,
        /// The prompt's frame.
        meant: usize,
    },
}
