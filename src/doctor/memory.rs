//! Plans how many objects fit in the available memory.

use super::facts::{Facts, MAX_OBJECTS, MemoryFacts};
use crate::bundle::Bundle;
use crate::memory::{Extent, Group, Sizes, default_chunk, max_objects, plan, profile};
use crate::runtime::{Engine, Provider};
use crate::tracker::{ModelSpec, TrackError};

/// Bytes needed outside of the arena on a GPU: CUDA's context, and the memory of cuDNN and cuBLAS. An H100 showed 0.65 GiB.
pub const OUTSIDE_ON_GPU: u64 = 700 << 20;

/// Bytes needed outside of the arena in the process: the library, decoded frames, masks. A run at 336 px took 165 MiB; a 4K
/// video takes more.
pub const OUTSIDE_ON_HOST: u64 = 512 << 20;

/// Bytes that graphs may take on `provider`; `None` if the free memory is unknown.
pub fn budget(facts: &Facts, provider: Provider) -> Option<u64> {
    match provider {
        Provider::Cpu => {
            let free = facts.host.available_bytes.or(facts.host.memory_bytes)?;
            Some(free.saturating_sub(OUTSIDE_ON_HOST))
        }
        Provider::Cuda => {
            let gpu = facts.gpus.iter().find(|gpu| gpu.index == facts.device_id)?;
            let free = gpu.memory_bytes.saturating_sub(gpu.used_bytes.unwrap_or(0));
            Some(free.saturating_sub(OUTSIDE_ON_GPU))
        }
    }
}

/// Measures the memory of the bundle's graphs, unless a profile exists already, and plans for one object, for `objects`, and for
/// the largest number that fits in `budget` bytes. Each object has one prompt, all on the same frame of a long clip.
///
/// # Errors
/// A graph cannot be measured, or the memory policy is unknown.
pub fn fit(
    bundle: &Bundle,
    engine: &mut Engine,
    objects: usize,
    budget: u64,
) -> Result<MemoryFacts, TrackError> {
    let extent = Extent::new(&ModelSpec::of(bundle)?.policy, 1, usize::MAX);
    let sizes = Sizes::of(bundle.manifest());
    let costs = profile::measure(bundle, engine, true, extent, Some(budget))?;
    let total = |objects: usize, chunk: usize| {
        let groups = [Group {
            objects,
            first: 0,
            extent,
        }];
        plan(&costs, &sizes, &groups, chunk).total_bytes
    };
    Ok(MemoryFacts {
        budget_bytes: budget,
        one_object_bytes: total(1, 1),
        objects,
        total_bytes: total(objects, default_chunk(bundle.manifest(), engine.provider())),
        most_objects: max_objects(&costs, &sizes, extent, MAX_OBJECTS, budget),
    })
}
