//! ONNX Runtime: with its submodules, the only code that names the `ort` crate.

use ort::memory::{AllocationDevice, AllocatorType, MemoryInfo, MemoryType};

mod alone;
mod arena;
mod backend;
mod blocks;
mod copies;
mod engine;
mod environment;
mod in_memory;
mod join;
mod placement;
mod provider_check;
mod running;
mod values;

pub use self::engine::{Engine, EngineOptions};

/// The host's memory.
fn cpu() -> Result<MemoryInfo<'static>, ort::Error> {
    MemoryInfo::new(
        AllocationDevice::CPU,
        0,
        AllocatorType::Device,
        MemoryType::Default,
    )
}

/// What an error of the library says, without the full stop.
fn message<R>(error: ort::Error<R>) -> String {
    error.message().trim().trim_end_matches('.').to_owned()
}
