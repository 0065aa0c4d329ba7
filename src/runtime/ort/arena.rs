//! The arena that all graphs of an engine allocate from, so that a limit on it bounds the whole run.
//!
//! By default each session has an arena to itself, and a limit on each bounds nothing. A shared arena is registered with the
//! environment through the library's C interface only; the safe wrapper has no function for it.
//!
//! On the CPU it is an allocator of this program ([`Blocks`]), which can be registered again at any time. On a GPU it is the
//! library's arena, and three facts of that shape what is done: it is registered when it is made and never again; weights come
//! into it by a way that does not look at the limit, so the caller compares after loading graphs ([`Arena::stats`]); and it never
//! joins two regions that it got from the system, so [`Arena::reserve`] asks for one region that everything later is cut from.

use std::ffi::{CStr, CString};
use std::fmt;
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ort::AsPointer as _;
use ort::environment::Environment;
use ort::memory::{AllocationDevice, Allocator, AllocatorType, MemoryInfo, MemoryType};
use ort::session::builder::SessionBuilder;
use ort::session::{NoSelectedOutputs, RunOptions, Session};
use ort::sys;
use ort::value::TensorElementType;

use super::blocks::Blocks;
use super::environment::{ProcessEnvironment, Registered};
use super::in_memory::{outlet, session_of};
use super::message;
use crate::runtime::{ArenaStats, GraphError, Provider};

/// Where an arena lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub provider: Provider,
    pub device_id: i32,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.provider {
            Provider::Cpu => f.write_str("cpu"),
            Provider::Cuda => write!(f, "cuda:{}", self.device_id),
        }
    }
}

impl Place {
    fn memory(self) -> ort::Result<MemoryInfo<'static>> {
        let (device, id, kind) = match self.provider {
            // The library keeps the other kind to its own arenas.
            Provider::Cpu => (AllocationDevice::CPU, 0, AllocatorType::Device),
            Provider::Cuda => (AllocationDevice::CUDA, self.device_id, AllocatorType::Arena),
        };
        MemoryInfo::new(device, id, kind, MemoryType::Default)
    }
}

/// Numbers for [`Registered::number`].
static NEXT: AtomicU64 = AtomicU64::new(0);

/// An arena. The environment forgets it when it is dropped; sessions and tensors that were made in it keep its memory.
pub(super) struct Arena {
    process: Arc<ProcessEnvironment>,
    number: u64,
    place: Place,
    limit: Option<u64>,
    /// The allocator on the CPU; `None` on a GPU.
    blocks: Option<Blocks>,
    // The safe wrapper does not let two threads use an allocator at once.
    allocator: Mutex<Allocator>,
}

impl Arena {
    /// Makes an arena, bounded by `limit` bytes, and registers it. `builder` gives builders of sessions that use what is
    /// registered; `make` makes sessions before another arena can be registered.
    pub(super) fn open<T>(
        process: &Arc<ProcessEnvironment>,
        place: Place,
        limit: Option<u64>,
        builder: impl FnOnce() -> Result<SessionBuilder, String>,
        make: impl FnOnce() -> T,
    ) -> Result<(Arc<Self>, T), String> {
        // First of all: this says why a provider cannot be loaded, where registering an arena for it ends the process.
        let builder = builder()?;
        let environment = &process.environment;
        let mut registered = process.registered();
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let blocks = match place.provider {
            Provider::Cpu => {
                let memory = place.memory().map_err(message)?;
                Some(Blocks::new(limit, memory).map_err(message)?)
            }
            Provider::Cuda => None,
        };
        if let Some(other) = registered.take() {
            unregister(environment, other.place).map_err(message)?;
        }
        match &blocks {
            Some(blocks) => register_blocks(environment, blocks),
            None => register(environment, place, limit),
        }
        .map_err(message)?;
        *registered = Some(Registered { number, place });
        // The library hands out a registered allocator through a session only.
        let allocator = smallest_session(&builder)
            .and_then(|session| Allocator::new(&session, place.memory()?));
        let allocator = match allocator {
            Ok(allocator) => allocator,
            Err(error) => {
                *registered = None;
                unregister(environment, place).map_err(message)?;
                return Err(message(error));
            }
        };
        let made = make();
        drop(registered);
        let arena = Self {
            process: Arc::clone(process),
            number,
            place,
            limit,
            blocks,
            allocator: Mutex::new(allocator),
        };
        Ok((Arc::new(arena), made))
    }

    /// The arena that a session on a GPU has to itself because its builder did not ask for the registered one.
    pub(super) fn of_session(
        process: &Arc<ProcessEnvironment>,
        place: Place,
        limit: Option<u64>,
        session: &Session,
    ) -> Result<Arc<Self>, String> {
        let memory = place.memory().map_err(message)?;
        let allocator = Allocator::new(session, memory).map_err(message)?;
        Ok(Arc::new(Self {
            process: Arc::clone(process),
            number: NEXT.fetch_add(1, Ordering::Relaxed),
            place,
            limit,
            blocks: None,
            allocator: Mutex::new(allocator),
        }))
    }

    /// Has `make` make sessions that allocate from this arena.
    pub(super) fn make_sessions<T>(&self, make: impl FnOnce() -> T) -> Result<T, String> {
        let mut registered = self.process.registered();
        if registered.is_none_or(|arena| arena.number != self.number) {
            let Some(blocks) = &self.blocks else {
                return Err("another arena was registered for this device".to_owned());
            };
            let environment = &self.process.environment;
            if let Some(other) = registered.take() {
                unregister(environment, other.place).map_err(message)?;
            }
            register_blocks(environment, blocks).map_err(message)?;
            *registered = Some(Registered {
                number: self.number,
                place: self.place,
            });
        }
        Ok(make())
    }

    /// Options that every run in this arena needs, if any.
    pub(super) fn run_options(&self) -> Option<&RunOptions<NoSelectedOutputs>> {
        self.blocks.as_ref().map(Blocks::options)
    }

    /// Size of a tensor that went over the limit since the last call, in bytes.
    pub(super) fn refused(&self) -> Option<u64> {
        self.blocks.as_ref().and_then(Blocks::refused)
    }

    pub(super) fn place(&self) -> Place {
        self.place
    }

    pub(super) fn limit(&self) -> Option<u64> {
        self.limit
    }

    /// The allocator, for tensors that are made outside of a run.
    pub(super) fn allocator(&self) -> MutexGuard<'_, Allocator> {
        self.allocator
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the arena hold a free region of `bytes` bytes, or says why it cannot. On the CPU it does nothing: blocks are taken from
    /// the system one by one.
    pub(super) fn reserve(&self, bytes: u64) -> Result<(), String> {
        if self.blocks.is_some() {
            return Ok(());
        }
        let length = usize::try_from(bytes).map_err(|error| error.to_string())?;
        if length == 0 {
            return Ok(());
        }
        let allocator = self.allocator();
        // Given back at once: the region stays with the arena.
        allocator.alloc::<u8>(length).map(drop).map_err(message)
    }

    /// What the arena holds.
    pub(super) fn stats(&self) -> Result<ArenaStats, GraphError> {
        let failed = |reason: String| GraphError::Device {
            operation: "asking the arena for its statistics".to_owned(),
            reason,
        };
        if let Some(blocks) = &self.blocks {
            let count = blocks.count();
            return Ok(ArenaStats {
                in_use: count.in_use,
                peak_in_use: count.peak_in_use,
                held: count.held,
                peak_held: count.peak_held,
                limit: self.limit,
            });
        }
        let allocator = self.allocator();
        let pairs = statistics(&allocator).map_err(|error| failed(message(error)))?;
        let number = |name: &str| {
            let text = pairs.iter().find(|(key, _)| key == name);
            text.and_then(|(_, value)| value.parse::<u64>().ok())
                .ok_or_else(|| failed(format!("it does not report {name}")))
        };
        Ok(ArenaStats {
            in_use: number("InUse")?,
            peak_in_use: number("MaxInUse")?,
            held: number("TotalAllocated")?,
            // It never gives memory back.
            peak_held: number("TotalAllocated")?,
            limit: self.limit,
        })
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        if let Some(blocks) = &self.blocks {
            blocks.close();
        }
        let mut registered = self.process.registered();
        if registered.is_some_and(|arena| arena.number == self.number) {
            *registered = None;
            // The library refuses only what is not registered.
            let _ = unregister(&self.process.environment, self.place);
        }
    }
}

/// `Some` if an error of the library is about a full arena, with the number of bytes that were asked for if it says so.
pub(super) fn is_full(reason: &str) -> Option<Option<u64>> {
    const SMALLER: &str = "is smaller than requested bytes of ";
    const FAILED: &str = "Failed to allocate memory for requested buffer of size ";
    let after = [SMALLER, FAILED]
        .iter()
        .find_map(|words| reason.split_once(words))?
        .1;
    let digits: String = after.chars().take_while(char::is_ascii_digit).collect();
    Some(digits.parse().ok())
}

fn check(status: sys::OrtStatusPtr) -> ort::Result<()> {
    // SAFETY: every status comes straight from the library, which gives it away, and is looked at once.
    unsafe { ort::Error::result_from_status(status) }
}

fn register_blocks(environment: &Environment, blocks: &Blocks) -> ort::Result<()> {
    // SAFETY: the environment is alive, and the table lives as long as the process.
    check(unsafe { (ort::api().RegisterAllocator)(environment.ptr().cast_mut(), blocks.table()) })
}

fn register(environment: &Environment, place: Place, limit: Option<u64>) -> ort::Result<()> {
    // 1 is "same as requested": the other way doubles each region, and stands at the limit long before it is used up.
    // Without a limit nothing is reserved, and only the other way keeps regions that later tensors fit in:
    // with 8 objects at 224 px, 46 MB in use were 365 MB in regions of the size requested.
    let strategy = usize::from(limit.is_some());
    let limit = limit.map_or(usize::MAX, |limit| {
        usize::try_from(limit).unwrap_or(usize::MAX)
    });
    // A chunk is always split: by default up to 128 MiB stay with a tensor that does not need them.
    let settings = [
        (c"max_mem", limit),
        (c"arena_extend_strategy", strategy),
        (c"max_dead_bytes_per_chunk", 256),
    ];
    let names = settings.map(|(name, _)| name.as_ptr());
    let values = settings.map(|(_, value)| value);
    let memory = place.memory()?;
    let api = ort::api();
    let mut config = ptr::null_mut();
    // SAFETY: names and values live through the call and are as many as it is told.
    check(unsafe {
        (api.CreateArenaCfgV2)(names.as_ptr(), values.as_ptr(), settings.len(), &mut config)
    })?;
    let env = environment.ptr().cast_mut();
    let id = CString::new(place.device_id.to_string()).unwrap_or_default();
    let bytes = CString::new(limit.to_string()).unwrap_or_default();
    let options: [(&CStr, &CStr); 3] = [
        (c"device_id", &id),
        (c"gpu_mem_limit", &bytes),
        (
            c"arena_extend_strategy",
            if strategy == 1 {
                c"kSameAsRequested"
            } else {
                c"kNextPowerOfTwo"
            },
        ),
    ];
    let names = options.map(|(name, _)| name.as_ptr());
    let values = options.map(|(_, value)| value.as_ptr());
    // SAFETY: environment, memory and config are alive, and the library copies what it needs of the last two; the strings
    // live until the end of this function. The library locks its list of allocators.
    let registered = check(unsafe {
        (api.CreateAndRegisterAllocatorV2)(
            env,
            c"CUDAExecutionProvider".as_ptr(),
            memory.ptr(),
            config,
            names.as_ptr(),
            values.as_ptr(),
            options.len(),
        )
    });
    // SAFETY: made above, and used nowhere else.
    unsafe { (api.ReleaseArenaCfg)(config) };
    registered
}

fn unregister(environment: &Environment, place: Place) -> ort::Result<()> {
    let memory = place.memory()?;
    // SAFETY: both are alive; the library keeps the allocator as long as a session has it.
    check(unsafe { (ort::api().UnregisterAllocator)(environment.ptr().cast_mut(), memory.ptr()) })
}

fn statistics(allocator: &Allocator) -> ort::Result<Vec<(String, String)>> {
    let api = ort::api();
    let mut pairs = ptr::null_mut();
    // SAFETY: the allocator is alive.
    check(unsafe { (api.AllocatorGetStats)(allocator.ptr(), &mut pairs) })?;
    let (mut keys, mut values, mut count) = (ptr::null(), ptr::null(), 0);
    let mut read = Vec::new();
    // SAFETY: the call above made the pairs. The two lists have `count` strings each, which live as long as the pairs;
    // they are copied before those are released.
    unsafe {
        (api.GetKeyValuePairs)(pairs, &mut keys, &mut values, &mut count);
        for i in 0..count {
            let text = |list: *const *const std::ffi::c_char| {
                CStr::from_ptr(*list.add(i)).to_string_lossy().into_owned()
            };
            read.push((text(keys), text(values)));
        }
        (api.ReleaseKeyValuePairs)(pairs);
    }
    Ok(read)
}

/// A session with one node and no weights.
fn smallest_session(builder: &SessionBuilder) -> ort::Result<Session> {
    use ort::editor::{Graph, Node, ONNX_DOMAIN};

    let port = |name: &str| outlet(name, TensorElementType::Float32, &[1]);
    let mut graph = Graph::new()?;
    graph.set_inputs([port("in")])?;
    graph.set_outputs([port("out")])?;
    graph.add_node(Node::new("Neg", ONNX_DOMAIN, "neg", ["in"], ["out"], [])?)?;
    session_of(graph, builder)
}

#[cfg(test)]
mod tests {
    use super::is_full;

    #[test]
    fn the_librarys_words_for_a_full_arena_are_known() {
        let grown =
            "Status Message: Available memory of 256 is smaller than requested bytes of 4096\nat";
        assert_eq!(is_full(grown), Some(Some(4096)));
        let refused = "Failed to allocate memory for requested buffer of size 77";
        assert_eq!(is_full(refused), Some(Some(77)));
        assert_eq!(is_full("axis == 1 was false"), None);
    }
}
