//! A loaded library with its device and its arena.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};

use ort::ep::{self, ArbitrarilyConfigurableExecutionProvider as _};
use ort::memory::{AllocationDevice, AllocatorType, MemoryInfo, MemoryType};
use ort::session::Session;
use ort::session::builder::SessionBuilder;

use super::arena::{Arena, Place};
use super::copies::CopyCount;
use super::environment::ProcessEnvironment;
use super::running::OrtGraph;
use super::{cpu, message, placement};
use crate::runtime::library::{self, Library};
use crate::runtime::rows::JoinGraphs;
use crate::runtime::{GraphError, Provider};

/// What an [`Engine`] runs on.
#[derive(Debug, Clone)]
pub struct EngineOptions {
    /// Where graphs run.
    pub provider: Provider,
    /// The library's file or folder. If absent, it is found as [`library::find`] says.
    pub library: Option<PathBuf>,
    /// Threads of one operator; the number of cores if absent.
    pub threads: Option<usize>,
    /// Number of the GPU, from 0.
    pub device_id: i32,
    /// Most bytes of the arena that all graphs share; no limit if absent.
    pub mem_limit: Option<u64>,
    /// Whether weights are copied into the arena in the layout of the CPU's kernels, which is faster. Otherwise they stay mapped
    /// from their file and the arena does not hold them. On a GPU they are copied to the device in any case.
    pub pack_weights: bool,
    /// Options for the library's CUDA provider by their names there, beyond those that this program sets.
    pub cuda_options: Vec<(String, String)>,
    /// Folder to which the library writes a profile of each graph when it is dropped: `<role>_<time>.json`.
    pub profile: Option<PathBuf>,
    /// Whether graphs say where their nodes were put ([`Graph::placement`](crate::runtime::Graph::placement)).
    pub record_placement: bool,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            provider: Provider::default(),
            library: None,
            threads: None,
            device_id: 0,
            mem_limit: None,
            pack_weights: true,
            cuda_options: Vec::new(),
            profile: None,
            record_placement: false,
        }
    }
}

/// A loaded ONNX Runtime library, a device, and the arena that all graphs on it allocate from.
///
/// Clones share the library, the device and the arena. The arena is made when the first graph is loaded, and is gone when the
/// last clone and the last graph are dropped.
///
/// ONNX Runtime has one environment a process, which shows in two ways:
/// - The library and the number of threads are fixed for the process by the first engine, even after it was dropped. Loading
///   another one is [`GraphError::OtherEnvironment`].
/// - One arena is alive at a time. An engine with the same device and limit as one that is alive uses that one's arena. Loading a
///   graph on an engine with another device or limit is [`GraphError::OtherArena`] until the first engine, its clones and its
///   graphs are dropped; after that it works.
///
/// Neither concerns graphs that run alone ([`Engine::alone`], [`Engine::measure`]), which have an arena to themselves.
///
/// ```no_run
/// use snow_ort::runtime::{Engine, EngineOptions, Provider};
///
/// let engine = Engine::load(&EngineOptions {
///     provider: Provider::Cuda,
///     mem_limit: Some(4 << 30),
///     ..EngineOptions::default()
/// })?;
/// println!("ONNX Runtime {} on {}", engine.version(), engine.device_text());
/// # Ok::<(), snow_ort::runtime::GraphError>(())
/// ```
#[derive(Clone)]
pub struct Engine {
    pub(super) options: EngineOptions,
    pub(super) shared: Arc<Shared>,
}

/// What the clones of an engine share.
pub(super) struct Shared {
    pub(super) process: Arc<ProcessEnvironment>,
    version: String,
    pub(super) arena: OnceLock<Arc<Arena>>,
    pub(super) join_graphs: Mutex<JoinGraphs>,
    pub(super) copies: Arc<CopyCount>,
}

/// Where a session allocates from.
pub(super) enum Allocation {
    /// The arena that is registered with the environment when the session is made.
    Registered,
    /// An arena of the library for this session alone, with a limit in bytes. Used on a GPU only.
    Own(Option<u64>),
}

impl Engine {
    /// Finds and loads the library. The provider is tried when the first graph is loaded.
    ///
    /// # Errors
    /// [`GraphError::NoLibrary`], [`GraphError::LibraryMissing`], [`GraphError::LibraryLoad`] and
    /// [`GraphError::LibraryTooOld`] for a library that cannot serve; [`GraphError::OtherEnvironment`] if this process loaded
    /// another library or has another number of threads.
    pub fn load(options: &EngineOptions) -> Result<Self, GraphError> {
        let library = library::find(options.library.as_deref())?;
        let process = ProcessEnvironment::load(&library, options.threads)?;
        let version = version_of(ort::info(), &process.library.path);
        Ok(Self {
            options: options.clone(),
            shared: Arc::new(Shared {
                process,
                version,
                arena: OnceLock::new(),
                join_graphs: Mutex::default(),
                copies: Arc::default(),
            }),
        })
    }

    /// Sets [`EngineOptions::pack_weights`] for graphs that this value loads from now on.
    pub fn set_pack_weights(&mut self, pack: bool) {
        self.options.pack_weights = pack;
    }

    /// Most bytes of the arena; `None` without a limit.
    pub fn mem_limit(&self) -> Option<u64> {
        self.options.mem_limit
    }

    /// Sets [`EngineOptions::mem_limit`]. It must be set before the first graph is loaded: the arena cannot change afterwards,
    /// and loading a graph is [`GraphError::OtherArena`] then.
    pub fn set_mem_limit(&mut self, limit: Option<u64>) {
        self.options.mem_limit = limit;
    }

    /// Where graphs run.
    pub fn provider(&self) -> Provider {
        self.options.provider
    }

    /// Threads of one operator.
    pub fn threads(&self) -> usize {
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        self.options.threads.unwrap_or_else(cores)
    }

    /// Where graphs run, as text: `cpu`, or `cuda:0`.
    pub fn device_text(&self) -> String {
        self.place().to_string()
    }

    /// The library's version, such as `1.31.1`.
    pub fn version(&self) -> &str {
        &self.shared.version
    }

    /// The library's file.
    pub fn library(&self) -> &Path {
        &self.found_library().path
    }

    fn found_library(&self) -> &Library {
        &self.shared.process.library
    }

    pub(super) fn place(&self) -> Place {
        Place {
            provider: self.options.provider,
            device_id: match self.options.provider {
                Provider::Cpu => 0,
                Provider::Cuda => self.options.device_id,
            },
        }
    }

    /// The arena of all graphs; the first call makes it.
    pub(super) fn arena(&self) -> Result<Arc<Arena>, GraphError> {
        let (place, limit) = (self.place(), self.options.mem_limit);
        let fitting = |arena: Arc<Arena>| match arena.place() == place && arena.limit() == limit {
            true => Ok(arena),
            false => Err(GraphError::OtherArena {
                device: arena.place().to_string(),
                limit: arena.limit(),
                requested_device: place.to_string(),
                requested_limit: limit,
            }),
        };
        if let Some(arena) = self.shared.arena.get() {
            return fitting(Arc::clone(arena));
        }
        let process = &self.shared.process;
        let mut shared = process.shared();
        let arena = match shared.upgrade() {
            Some(arena) => fitting(arena)?,
            None => {
                let builder = || self.new_builder(&Allocation::Registered);
                let (arena, ()) = Arena::open(process, place, limit, builder, || ())
                    .map_err(|reason| self.provider_error(reason))?;
                *shared = Arc::downgrade(&arena);
                arena
            }
        };
        Ok(Arc::clone(self.shared.arena.get_or_init(|| arena)))
    }

    /// A builder of sessions.
    pub(super) fn builder(&self, allocation: &Allocation) -> Result<SessionBuilder, GraphError> {
        self.new_builder(allocation)
            .map_err(|reason| self.provider_error(reason))
    }

    pub(super) fn new_builder(&self, allocation: &Allocation) -> Result<SessionBuilder, String> {
        let builder = Session::builder(&self.shared.process.environment).map_err(message)?;
        // Shapes change with the number of objects and memories: a pattern of the last run does not fit the next.
        let builder = builder.with_memory_pattern(false).map_err(message)?;
        let builder = match allocation {
            Allocation::Registered => builder.with_env_allocators().map_err(message)?,
            Allocation::Own(_) => builder,
        };
        let builder = builder
            .with_prepacking(self.options.pack_weights)
            .map_err(message)?;
        let builder = match self.options.record_placement {
            true => placement::record(builder)?,
            false => builder,
        };
        match self.options.provider {
            Provider::Cpu => Ok(builder),
            Provider::Cuda => {
                let mut cuda = ep::CUDA::default()
                    .with_device_id(self.options.device_id)
                    .with_arena_extend_strategy(ep::ArenaExtendStrategy::SameAsRequested)
                    .with_conv_algorithm_search(ep::cuda::ConvAlgorithmSearch::Heuristic);
                if let Allocation::Own(Some(limit)) = allocation {
                    cuda = cuda.with_memory_limit(usize::try_from(*limit).unwrap_or(usize::MAX));
                }
                for (name, value) in &self.options.cuda_options {
                    cuda = cuda.with_arbitrary_config(name, value);
                }
                builder
                    .with_execution_providers([cuda.build().error_on_failure()])
                    .map_err(message)
            }
        }
    }

    /// A session of a graph file. `profile` is the folder for the library's profile of it.
    pub(super) fn session(
        &self,
        mut builder: SessionBuilder,
        role: &str,
        path: &Path,
        profile: Option<&Path>,
    ) -> Result<OrtGraph, GraphError> {
        if let Some(dir) = profile {
            builder = builder
                .with_profiling(dir.join(role))
                .map_err(|error| self.provider_error(message(error)))?;
        }
        let session = builder
            .commit_from_file(path)
            .map_err(|error| GraphError::Load {
                role: role.to_owned(),
                path: path.to_path_buf(),
                reason: message(error),
            })?;
        self.graph(role, session)
    }

    /// A session as a graph.
    pub(super) fn graph(&self, role: &str, session: Session) -> Result<OrtGraph, GraphError> {
        let device = self
            .device()
            .map_err(|error| self.provider_error(message(error)))?;
        Ok(OrtGraph {
            role: role.to_owned(),
            session,
            device,
            kept: Vec::new(),
            // Nothing is copied where graphs run in the host's memory.
            copies: (self.options.provider == Provider::Cuda)
                .then(|| Arc::clone(&self.shared.copies)),
            placed: self.options.record_placement,
        })
    }

    pub(super) fn provider_error(&self, reason: String) -> GraphError {
        GraphError::Provider {
            provider: self.options.provider,
            version: self.shared.version.clone(),
            library: self.found_library().path.clone(),
            reason,
            advice: "use --provider cpu, or a library with this provider (`pip install onnxruntime-gpu`) and its CUDA \
                     and cuDNN libraries"
                .to_owned(),
        }
    }

    fn device(&self) -> Result<MemoryInfo<'static>, ort::Error> {
        let device = match self.options.provider {
            Provider::Cpu => return cpu(),
            Provider::Cuda => AllocationDevice::CUDA,
        };
        MemoryInfo::new(
            device,
            self.options.device_id,
            AllocatorType::Device,
            MemoryType::Default,
        )
    }
}

/// The version from the file name (`libonnxruntime.so.1.31.1`), else from the build information.
fn version_of(info: &str, library: &Path) -> String {
    let name = library
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    if let Some((_, version)) = name.split_once(".so.")
        && version.contains('.')
    {
        return version.to_owned();
    }
    let branch = info
        .split([',', ' '])
        .find_map(|part| part.strip_prefix("git-branch=rel-"));
    branch.unwrap_or("unknown").to_owned()
}
