//! ONNX Runtime: with its submodules, the only code that names the `ort` crate.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use half::{bf16, f16};
use ort::environment::{Environment, GlobalThreadPoolOptions};
use ort::ep::{self, ArbitrarilyConfigurableExecutionProvider as _};
use ort::memory::{AllocationDevice, Allocator, AllocatorType, MemoryInfo, MemoryType};
use ort::session::Session;
use ort::session::builder::SessionBuilder;
use ort::value::{DynTensor, Tensor as OrtTensor};

mod arena;
mod blocks;
mod copies;
mod join;
mod made;
mod placement;
mod running;
mod sounding;
mod trial;
mod values;

use self::arena::{Arena, Place};
use self::copies::CopyCount;
use self::running::{InArena, OrtGraph};
use self::values::{element_to, unwrap, wrap};
use super::library::{self, Library};
use super::rows::{self, JoinGraphs};
use super::{ArenaStats, Backend, Copies, Element, Graph, GraphError, Host, Provider, Tensor};

/// What to run on.
#[derive(Debug, Clone)]
pub struct RuntimeOptions {
    /// Where graphs run.
    pub provider: Provider,
    /// The library's file or folder; found as [`library::find`] says if absent.
    pub library: Option<PathBuf>,
    /// Threads of one operator; the number of cores if absent.
    pub threads: Option<usize>,
    /// Which GPU.
    pub device_id: i32,
    /// Most bytes of the arena that all graphs share; no limit if absent.
    pub mem_limit: Option<u64>,
    /// Whether weights are laid out anew for the processor's kernels, which is faster; the arena holds them then. They
    /// stay mapped from their file otherwise, and count for nothing. On a GPU they are copied there in any case.
    pub pack_weights: bool,
    /// Options for the library's CUDA provider by their names there, beyond those that this program sets.
    pub cuda_options: Vec<(String, String)>,
    /// Folder to which the library writes a profile of each graph when it is dropped: `<role>_<time>.json`.
    pub profile: Option<PathBuf>,
    /// Whether graphs say where their nodes were put ([`Graph::placement`]).
    pub record_placement: bool,
}

impl Default for RuntimeOptions {
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

/// A loaded library with a device.
pub struct Runtime {
    environment: Environment,
    options: RuntimeOptions,
    library: Library,
    version: String,
    join_graphs: Mutex<JoinGraphs>,
    arena: OnceLock<Arc<Arena>>,
    copies: Arc<CopyCount>,
}

struct Loaded {
    environment: Environment,
    library: Library,
    threads: Option<usize>,
    /// What sessions allocate from, since the first one was made.
    arena: Mutex<Option<Arc<Arena>>>,
}

// One environment a process is all that the library allows.
static LOADED: OnceLock<Loaded> = OnceLock::new();
static LOADING: Mutex<()> = Mutex::new(());

impl Runtime {
    /// Finds and loads the library and prepares the provider.
    ///
    /// # Errors
    /// No library, one that is too old, or a second load with another library or thread count in the same process.
    pub fn load(options: &RuntimeOptions) -> Result<Self, GraphError> {
        let library = library::find(options.library.as_deref())?;
        let _guard = LOADING
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let loaded = match LOADED.get() {
            Some(loaded) => loaded,
            None => {
                let environment = make_environment(&library, options.threads)?;
                LOADED.get_or_init(|| Loaded {
                    environment,
                    library: library.clone(),
                    threads: options.threads,
                    arena: Mutex::default(),
                })
            }
        };
        if loaded.library.path != library.path || loaded.threads != options.threads {
            return Err(GraphError::LibraryLoad {
                path: library.path,
                origin: library.origin,
                reason: format!(
                    "this process already runs {} with {:?} threads; start another process",
                    loaded.library.path.display(),
                    loaded.threads
                ),
            });
        }
        let version = version_of(ort::info(), &loaded.library.path);
        Ok(Self {
            environment: loaded.environment.clone(),
            options: options.clone(),
            library: loaded.library.clone(),
            version,
            join_graphs: Mutex::default(),
            arena: OnceLock::new(),
            copies: Arc::default(),
        })
    }

    /// Sets whether graphs that are loaded from now on get their weights laid out anew
    /// ([`RuntimeOptions::pack_weights`]).
    pub fn set_pack_weights(&mut self, pack: bool) {
        self.options.pack_weights = pack;
    }

    /// Most bytes of the arena; `None` without a limit.
    pub fn mem_limit(&self) -> Option<u64> {
        self.options.mem_limit
    }

    /// Sets the most bytes of the arena ([`RuntimeOptions::mem_limit`]), before the first graph is loaded.
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

    /// Where graphs run, in words: `cpu`, or `cuda:0`.
    pub fn device_text(&self) -> String {
        match self.options.provider {
            Provider::Cpu => "cpu".to_owned(),
            Provider::Cuda => format!("cuda:{}", self.options.device_id),
        }
    }

    /// The arena of all sessions of this process; the first call makes it.
    fn arena(&self) -> Result<Arc<Arena>, GraphError> {
        if let Some(arena) = self.arena.get() {
            return Ok(Arc::clone(arena));
        }
        let failed = |reason: String| GraphError::Device {
            operation: "making the arena that graphs share".to_owned(),
            reason,
        };
        let Some(loaded) = LOADED.get() else {
            return Err(failed("the library is not loaded".to_owned()));
        };
        let mut slot = loaded.arena.lock().unwrap_or_else(PoisonError::into_inner);
        let (place, limit) = (self.place(), self.options.mem_limit);
        let arena = match slot.as_ref() {
            Some(arena) if arena.place() == place && arena.limit() == limit => Arc::clone(arena),
            Some(arena) => {
                return Err(failed(format!(
                    "this process already has one on {} with limit {:?}; start another process",
                    arena.place().provider,
                    arena.limit()
                )));
            }
            None => {
                let arena = Arena::open(&self.environment, place, limit, || self.builder())
                    .map_err(|reason| self.provider_error(reason))?;
                let arena = Arc::new(arena);
                *slot = Some(Arc::clone(&arena));
                arena
            }
        };
        Ok(Arc::clone(self.arena.get_or_init(|| arena)))
    }

    fn place(&self) -> Place {
        Place {
            provider: self.options.provider,
            device_id: self.options.device_id,
        }
    }

    /// The library's version, such as `1.31.1`.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The library's file.
    pub fn library(&self) -> &Path {
        &self.library.path
    }

    fn builder(&self) -> Result<SessionBuilder, String> {
        let builder = Session::builder(&self.environment).map_err(message)?;
        // Shapes change with the number of objects and memories: a pattern of the last run does not fit the next.
        let builder = builder.with_memory_pattern(false).map_err(message)?;
        let builder = builder.with_env_allocators().map_err(message)?;
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
                for (name, value) in &self.options.cuda_options {
                    cuda = cuda.with_arbitrary_config(name, value);
                }
                builder
                    .with_execution_providers([cuda.build().error_on_failure()])
                    .map_err(message)
            }
        }
    }

    /// A session of a graph file, in whatever arena is registered.
    fn session(
        &self,
        role: &str,
        path: &Path,
        profile: Option<&Path>,
    ) -> Result<OrtGraph, GraphError> {
        let mut builder = self
            .builder()
            .map_err(|reason| self.provider_error(reason))?;
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
        let device = self
            .device()
            .map_err(|error| self.provider_error(message(error)))?;
        Ok(OrtGraph {
            role: role.to_owned(),
            session,
            device,
            kept: Vec::new(),
            copies: self.counted_copies(),
            placed: self.options.record_placement,
        })
    }

    /// The count that graphs add to; none where they run in the host's memory.
    fn counted_copies(&self) -> Option<Arc<CopyCount>> {
        (self.options.provider == Provider::Cuda).then(|| Arc::clone(&self.copies))
    }

    fn provider_error(&self, reason: String) -> GraphError {
        GraphError::Provider {
            provider: self.options.provider,
            version: self.version.clone(),
            library: self.library.path.clone(),
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

fn cpu() -> Result<MemoryInfo<'static>, ort::Error> {
    MemoryInfo::new(
        AllocationDevice::CPU,
        0,
        AllocatorType::Device,
        MemoryType::Default,
    )
}

fn message<R>(error: ort::Error<R>) -> String {
    error.message().trim().trim_end_matches('.').to_owned()
}

fn make_environment(library: &Library, threads: Option<usize>) -> Result<Environment, GraphError> {
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
    // One pool for all sessions: they run in turn, and each pool of its own would spin against the others.
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

impl Backend for Runtime {
    fn load(&self, role: &str, path: &Path) -> Result<Box<dyn Graph>, GraphError> {
        let arena = self.arena()?;
        let graph = OrtGraph::within(
            role,
            &arena,
            self.session(role, path, self.options.profile.as_deref()),
        )?;
        Ok(Box::new(InArena { graph, arena }))
    }

    fn reserve(&self, bytes: u64) -> Result<(), GraphError> {
        let arena = self.arena()?;
        let stats = arena.stats()?;
        // Weights come in by a way that does not look at the limit.
        let beyond = stats.limit.is_some_and(|limit| stats.held > limit);
        let missing = bytes.saturating_sub(stats.held);
        let full = |reason: String| GraphError::ArenaFull {
            what: "reserving the working memory".to_owned(),
            requested: Some(missing),
            held: stats.held,
            limit: stats.limit,
            reason,
        };
        if beyond {
            return Err(full("the weights alone are more".to_owned()));
        }
        arena.reserve(missing).map_err(full)
    }

    fn arena_stats(&self) -> Result<Option<ArenaStats>, GraphError> {
        self.arena.get().map(|arena| arena.stats()).transpose()
    }

    fn wants_equal_widths(&self) -> bool {
        self.options.provider == Provider::Cuda
    }

    fn copies(&self) -> Copies {
        self.copies.total()
    }

    fn upload(&self, shape: &[usize], data: Host) -> Result<Tensor, GraphError> {
        if shape.iter().product::<usize>() != data.len() {
            return Err(GraphError::Tensor {
                name: "upload".to_owned(),
                expected: format!(
                    "{} elements for shape {shape:?}",
                    shape.iter().product::<usize>()
                ),
                got: data.len().to_string(),
            });
        }
        let failed = |error: ort::Error| GraphError::Device {
            operation: format!("making a tensor of shape {shape:?}"),
            reason: message(error),
        };
        let shape = shape.to_vec();
        // On a GPU the binding copies an input once; it is small, or it is the image.
        let value = match data {
            Host::U8(data) => OrtTensor::from_array((shape, data))
                .map_err(failed)?
                .into_dyn(),
            Host::I64(data) => OrtTensor::from_array((shape, data))
                .map_err(failed)?
                .into_dyn(),
            Host::Bool(data) => OrtTensor::from_array((shape, data))
                .map_err(failed)?
                .into_dyn(),
            Host::F32(data) => OrtTensor::from_array((shape, data))
                .map_err(failed)?
                .into_dyn(),
            Host::F16(data) => OrtTensor::from_array((shape, data))
                .map_err(failed)?
                .into_dyn(),
            Host::Bf16(data) => OrtTensor::from_array((shape, data))
                .map_err(failed)?
                .into_dyn(),
        };
        wrap("upload", value)
    }

    fn empty(&self, element: Element, shape: &[usize]) -> Result<Tensor, GraphError> {
        if !shape.contains(&0) {
            return Err(GraphError::Tensor {
                name: "empty".to_owned(),
                expected: "an axis of length 0".to_owned(),
                got: format!("{shape:?}"),
            });
        }
        let value = DynTensor::new(&Allocator::default(), element_to(element), shape.to_vec());
        let value = value.map_err(|error| GraphError::Device {
            operation: format!("making an empty tensor of shape {shape:?}"),
            reason: message(error),
        })?;
        wrap("empty", value.into_dyn())
    }

    fn download(&self, tensor: &Tensor) -> Result<Vec<f32>, GraphError> {
        let value = unwrap("download", tensor)?;
        let failed = |error: ort::Error| GraphError::Device {
            operation: "copying a tensor to the host".to_owned(),
            reason: message(error),
        };
        let local;
        let value = match self.options.provider {
            Provider::Cpu => value,
            Provider::Cuda => {
                local = value.to(AllocationDevice::CPU, 0).map_err(failed)?;
                self.copies.add_to_host(tensor);
                &local
            }
        };
        match tensor.element() {
            Element::F32 => Ok(value
                .try_extract_tensor::<f32>()
                .map_err(failed)?
                .1
                .to_vec()),
            Element::F16 => {
                let (_, data) = value.try_extract_tensor::<f16>().map_err(failed)?;
                Ok(data.iter().map(|x| x.to_f32()).collect())
            }
            Element::Bf16 => {
                let (_, data) = value.try_extract_tensor::<bf16>().map_err(failed)?;
                Ok(data.iter().map(|x| x.to_f32()).collect())
            }
            other => Err(GraphError::Tensor {
                name: "download".to_owned(),
                expected: "a float tensor".to_owned(),
                got: format!("{other:?}"),
            }),
        }
    }

    fn gather_rows(&self, sources: &[(&Tensor, Vec<usize>)]) -> Result<Tensor, GraphError> {
        let plan = rows::plan_rows(sources)?;
        let tensors: Vec<&Tensor> = sources.iter().map(|(tensor, _)| *tensor).collect();
        if self.options.provider == Provider::Cpu {
            return join::on_host(&*self.arena()?, &tensors, &plan);
        }
        let rows: Vec<&[usize]> = sources.iter().map(|(_, rows)| rows.as_slice()).collect();
        self.join_on_device(&tensors, &rows, &plan)
    }

    fn concat_tokens(&self, tensors: &[&Tensor]) -> Result<Tensor, GraphError> {
        let plan = rows::plan_tokens(tensors)?;
        if self.options.provider == Provider::Cpu {
            return join::on_host(&*self.arena()?, tensors, &plan);
        }
        self.join_on_device(tensors, &[], &plan)
    }
}
