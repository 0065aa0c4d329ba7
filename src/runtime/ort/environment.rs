//! The library's environment. A process has one, and this is the only place that remembers anything for the whole process.
//!
//! ONNX Runtime keeps in its environment what sessions share: the library itself, the thread pool, and for each device at most
//! one registered allocator. A session takes that allocator when it is made and keeps it. `ort` makes an environment once in a
//! process and refuses to make a second one, even after the first was dropped. So the environment stays until the process ends,
//! with its library and its number of threads. Arenas belong to the [`Engine`](super::Engine)s; only a weak reference to the one
//! that they share is kept here.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use ort::environment::{Environment, GlobalThreadPoolOptions};

use super::arena::{Arena, Place};
use super::message;
use crate::runtime::GraphError;
use crate::runtime::library::{self, Library};

static PROCESS: Mutex<Option<Arc<ProcessEnvironment>>> = Mutex::new(None);

/// The environment of this process, and which arena is registered with it.
pub(super) struct ProcessEnvironment {
    pub(super) environment: Environment,
    pub(super) library: Library,
    threads: Option<usize>,
    /// The arena that engines share, while an engine or a graph holds it. Locked before `registered`.
    shared: Mutex<Weak<Arena>>,
    /// The arena that the next session gets.
    registered: Mutex<Option<Registered>>,
}

/// An arena that is registered with the environment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Registered {
    /// The arena's number, which no other arena of the process has.
    pub(super) number: u64,
    /// Where it is.
    pub(super) place: Place,
}

impl ProcessEnvironment {
    /// The environment of this process; the first call loads `library`.
    ///
    /// # Errors
    /// A library that cannot be loaded, and [`GraphError::OtherEnvironment`] for another library or number of threads than
    /// those of the first call.
    pub(super) fn load(library: &Library, threads: Option<usize>) -> Result<Arc<Self>, GraphError> {
        let mut process = PROCESS.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(loaded) = process.as_ref() {
            if loaded.library.path != library.path || loaded.threads != threads {
                return Err(GraphError::OtherEnvironment {
                    loaded: loaded.library.path.clone(),
                    loaded_threads: loaded.threads,
                    requested: library.path.clone(),
                    requested_threads: threads,
                });
            }
            return Ok(Arc::clone(loaded));
        }
        let loaded = Arc::new(Self {
            environment: make(library, threads)?,
            library: library.clone(),
            threads,
            shared: Mutex::default(),
            registered: Mutex::default(),
        });
        *process = Some(Arc::clone(&loaded));
        Ok(loaded)
    }

    /// The arena that engines share, locked so that no other can be opened meanwhile.
    pub(super) fn shared(&self) -> MutexGuard<'_, Weak<Arena>> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Which arena is registered, locked: hold it while sessions are made.
    pub(super) fn registered(&self) -> MutexGuard<'_, Option<Registered>> {
        self.registered
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

fn make(library: &Library, threads: Option<usize>) -> Result<Environment, GraphError> {
    let failed = |reason: String| GraphError::LibraryLoad {
        path: library.path.clone(),
        origin: library.origin.clone(),
        reason,
    };
    library::check(library)?;
    // Nothing of `ort` may run before this: an error of its own would load a default library and panic.
    let builder = ort::init_from(&library.path).map_err(|error| match error {
        ort::LoadDynamicError::BadVersion { version_str, .. } => GraphError::LibraryTooOld {
            path: library.path.clone(),
            origin: library.origin.clone(),
            found: version_str,
            needed: ort::MINOR_VERSION,
        },
        ort::LoadDynamicError::MissingApi { .. } => {
            failed("it does not export OrtGetApiBase".to_owned())
        }
        ort::LoadDynamicError::Dlopen { error, .. } => {
            // The loader's own words are the cause of "dlopen failed".
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            failed(cause.unwrap_or_else(|| error.to_string()))
        }
        other => failed(other.to_string()),
    })?;
    // One pool for all sessions: they run one after the other, and separate pools would spin against each other.
    let mut pool = GlobalThreadPoolOptions::default();
    if let Some(threads) = threads {
        pool = pool
            .with_intra_threads(threads)
            .map_err(|error| failed(message(error)))?;
    }
    let environment = builder
        .with_name("snow-ort")
        .with_telemetry(false)
        .with_global_thread_pool(pool)
        .build();
    let environment = environment.map_err(|error| failed(message(error)))?;
    // Every failure comes back as an error, which says it once.
    environment.set_log_level(ort::logging::LogLevel::Fatal);
    Ok(environment)
}
