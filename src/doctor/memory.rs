//! How many objects fit in the memory that is there.

use super::MOST_OBJECTS;
use super::facts::{Facts, MemoryFacts};
use crate::bundle::Bundle;
use crate::memory::{Extent, Group, Sizes, default_chunk, most_objects, plan, profile};
use crate::runtime::{Provider, Runtime};
use crate::tracker::{ModelSpec, TrackError};

/// Bytes beside the arena on a GPU: CUDA's context, cuDNN's and cuBLAS's own memory. 0.65 GiB were seen on an H100.
pub const BESIDE_ON_GPU: u64 = 700 << 20;

/// Bytes beside the arena in the process: the library, decoded frames, masks. 165 MiB were seen at 336 px; a video of 4K
/// takes more.
pub const BESIDE_ON_HOST: u64 = 512 << 20;

/// Bytes that graphs may take on `provider`; `None` where nobody knows.
pub fn budget(facts: &Facts, provider: Provider) -> Option<u64> {
    match provider {
        Provider::Cpu => {
            let free = facts.host.available_bytes.or(facts.host.memory_bytes)?;
            Some(free.saturating_sub(BESIDE_ON_HOST))
        }
        Provider::Cuda => {
            let gpu = facts.gpus.iter().find(|gpu| gpu.index == facts.device_id)?;
            let free = gpu.memory_bytes.saturating_sub(gpu.used_bytes.unwrap_or(0));
            Some(free.saturating_sub(BESIDE_ON_GPU))
        }
    }
}

/// Measures what the bundle's graphs take, unless that is known already, and plans for one object, for `objects`, and for
/// as many as fit in `budget` bytes. Objects have one prompt each, on the same frame of a long clip.
///
/// # Errors
/// A graph that cannot be measured, or a policy that is not known.
pub fn fit(
    bundle: &Bundle,
    runtime: &mut Runtime,
    objects: usize,
    budget: u64,
) -> Result<MemoryFacts, TrackError> {
    let extent = Extent::new(&ModelSpec::of(bundle)?.policy, 1, usize::MAX);
    let sizes = Sizes::of(bundle.manifest());
    let costs = profile::sound(bundle, runtime, true, extent, Some(budget))?;
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
        total_bytes: total(
            objects,
            default_chunk(bundle.manifest(), runtime.provider()),
        ),
        most_objects: most_objects(&costs, &sizes, extent, MOST_OBJECTS, budget),
    })
}
