//! What can go wrong below the tracker.

use std::path::PathBuf;

use super::Provider;
use crate::size;

/// What can go wrong with the library, a graph or a tensor.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GraphError {
    /// No library was found in any of the usual places.
    #[error(
        "no ONNX Runtime library found; looked for:\n{}\ninstall one with `pip install onnxruntime` into .venv, or name \
         it with --ort-lib or ORT_DYLIB_PATH",
        looked.iter().map(|place| format!("  - {place}")).collect::<Vec<_>>().join("\n")
    )]
    NoLibrary {
        /// Places in the order in which they were tried.
        looked: Vec<String>,
    },
    /// A library was named that is not there.
    #[error("ONNX Runtime library {}: {reason} ({origin}); give the path of libonnxruntime.so or of its folder", path.display())]
    LibraryMissing {
        /// The path as given.
        path: PathBuf,
        /// The flag or variable that named it.
        origin: String,
        /// Why it cannot be used.
        reason: String,
    },
    /// The library exists but cannot be loaded.
    #[error("ONNX Runtime library {} ({origin}) cannot be loaded: {reason}", path.display())]
    LibraryLoad {
        /// The library.
        path: PathBuf,
        /// How it was found.
        origin: String,
        /// The loader's reason.
        reason: String,
    },
    /// The library is older than the interface that this program uses.
    #[error(
        "ONNX Runtime library {} ({origin}) is version {found}, expected 1.{needed} or later; install a later one with \
         `pip install --upgrade onnxruntime` or name another with --ort-lib",
        path.display()
    )]
    LibraryTooOld {
        /// The library.
        path: PathBuf,
        /// How it was found.
        origin: String,
        /// Its version.
        found: String,
        /// The least minor version.
        needed: u32,
    },
    /// This process has loaded another library, or runs another number of threads. Both last until the process ends.
    #[error(
        "this process already runs ONNX Runtime {} with {}; {} with {} needs another process",
        loaded.display(), threads_text(*loaded_threads), requested.display(), threads_text(*requested_threads)
    )]
    OtherEnvironment {
        /// The library that is loaded.
        loaded: PathBuf,
        /// Its threads; `None` for one a core.
        loaded_threads: Option<usize>,
        /// The library that was asked for.
        requested: PathBuf,
        /// The threads that were asked for.
        requested_threads: Option<usize>,
    },
    /// Another arena is alive. It is gone once the engine that made it, its clones and its graphs are dropped.
    #[error(
        "this process has an arena on {device} with {} in use, so none on {requested_device} with {} can be made; drop the \
         engine and the graphs that use it first",
        limit_text(*limit), limit_text(*requested_limit)
    )]
    OtherArena {
        /// Device of the arena that is alive.
        device: String,
        /// Its limit in bytes.
        limit: Option<u64>,
        /// The device that was asked for.
        requested_device: String,
        /// The limit that was asked for, in bytes.
        requested_limit: Option<u64>,
    },
    /// The library does not have this provider, or the provider does not work.
    #[error("provider {provider} cannot serve with ONNX Runtime {version} at {}: {reason}; {advice}", library.display())]
    Provider {
        /// The provider that was asked for.
        provider: Provider,
        /// Version of the library.
        version: String,
        /// The library.
        library: PathBuf,
        /// The library's reason.
        reason: String,
        /// What to do.
        advice: String,
    },
    /// A graph file is refused.
    #[error("graph {role} ({}) cannot be prepared: {reason}", path.display())]
    Load {
        /// The graph's role in the bundle.
        role: String,
        /// Its file.
        path: PathBuf,
        /// The library's reason.
        reason: String,
    },
    /// A graph fails while running.
    #[error("graph {role} failed: {reason}")]
    Run {
        /// The graph's role in the bundle.
        role: String,
        /// The library's reason.
        reason: String,
    },
    /// The arena is full, by its limit or because the device has no more memory.
    #[error(
        "{what} needs {}, but the arena already holds {} and {}: {reason}; give a higher --mem-limit, a smaller --chunk, \
         fewer objects, or a bundle of a lower resolution",
        requested.map_or("more memory".to_owned(), |bytes| format!("{} more", size::show(bytes))),
        size::show(*held),
        limit.map_or("the device has no more".to_owned(), |limit| format!("its limit is {}", size::show(limit))),
    )]
    ArenaFull {
        /// The graph or operation.
        what: String,
        /// Bytes of the tensor that did not fit, if the library says so.
        requested: Option<u64>,
        /// Bytes that the arena holds.
        held: u64,
        /// Its limit in bytes.
        limit: Option<u64>,
        /// The library's reason.
        reason: String,
    },
    /// A tensor does not have the shape or dtype that an operation expects.
    #[error("tensor {name}: expected {expected}, got {got}")]
    Tensor {
        /// The tensor's name, or the operation.
        name: String,
        /// What was expected.
        expected: String,
        /// What it is.
        got: String,
    },
    /// An operation on the device fails.
    #[error("{operation} failed: {reason}")]
    Device {
        /// What was attempted.
        operation: String,
        /// The library's reason.
        reason: String,
    },
}

fn threads_text(threads: Option<usize>) -> String {
    threads.map_or("one thread a core".to_owned(), |count| {
        format!("{count} threads")
    })
}

fn limit_text(limit: Option<u64>) -> String {
    limit.map_or("no limit".to_owned(), |limit| {
        format!("a limit of {}", size::show(limit))
    })
}

/// An error that can be a full arena.
pub(crate) trait IsFull {
    /// Whether it is.
    fn is_full(&self) -> bool;
}

impl IsFull for GraphError {
    fn is_full(&self) -> bool {
        matches!(self, Self::ArenaFull { .. })
    }
}
