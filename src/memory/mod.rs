//! What a run needs of memory, computed before it starts, and what fits in a limit.
//!
//! [`profile`] measures each graph's weights and working memory. The rest is arithmetic on the manifest and the memory policy
//! ([`plan`]). A graph's working memory is linear in the objects that go through it at once, so two measurements give it for any
//! number. [`OverLimit`] says what would fit where a plan does not.

pub(crate) mod budget;
mod costs;
mod detector;
pub(crate) mod over_limit;
mod plan;
pub mod profile;

pub use self::costs::{Costs, Extent, Group, Presence, ProposalCost, Sizes, StageCost};
pub use self::detector::{
    DetectorCosts, DetectorNeeds, DetectorPlan, DetectorSizes, DetectorWorkspace,
};
pub use self::over_limit::{Fit, ObjectOrigin, OverLimit};
pub use self::plan::{
    Part, Plan, ProposalPlan, Workspace, largest_chunk, max_objects, max_objects_one_by_one,
    one_by_one, plan,
};
use crate::bundle::Manifest;
use crate::runtime::Provider;

/// Objects that go through a graph at once on the CPU by default, at most: more are not faster.
const MAX_CHUNK: usize = 8;

/// Tokens of all objects that go through a graph at once on the CPU by default. Few objects of large images keep the CPU busy, and
/// each takes working memory: at 1008 px, the memory attention takes half a GiB for four objects of SAM3.
const CHUNK_TOKENS: u32 = 24_000;

/// Objects that go through a graph at once on a GPU by default, at any resolution, where a limit leaves room: 16 objects of SAM3 at
/// 1008 px take an H100 75 ms a frame at once and 103 ms in fours (with values of 64 channels), and the process 3.65 GiB on the
/// device instead of 2.64.
const GPU_CHUNK: usize = 16;

/// Objects that go through the graphs of a bundle at once by default.
pub fn default_chunk(manifest: &Manifest, provider: Provider) -> usize {
    if provider == Provider::Cuda {
        return GPU_CHUNK;
    }
    let fit = CHUNK_TOKENS / manifest.memory.tokens.max(1);
    usize::try_from(fit).map_or(MAX_CHUNK, |fit| fit.clamp(1, MAX_CHUNK))
}

/// What the arena rounds a tensor's bytes up to: small ones, and those from [`LARGE`] on.
const UNITS: [u64; 2] = [
    256,
    if cfg!(target_arch = "x86_64") {
        4096
    } else {
        64 << 10
    },
];
const LARGE: u64 = 64 << 10;

fn rounded(bytes: u64) -> u64 {
    bytes.next_multiple_of(UNITS[usize::from(bytes >= LARGE)])
}

/// The worst moment divided by this stands for what is not counted tensor by tensor: tensors of a few bytes, each rounded up, and
/// an order of nodes that differs between sessions. The vision encoder took 11% more in one session than in another.
const UNCOUNTED: u64 = 8;

/// What a GPU's arena loses to gaps between tensors that come and go, in percent of them.
///
/// It cannot move a tensor, so a large one may find gaps only: the memory attention alone, in an empty region, ran with 1.2 to 1.4
/// times what it had in use (measured on the CPU, with the same arena). What the memory bank keeps lies side by side
/// (`Tracker::remember`). The CPU's blocks leave no gaps.
pub const GPU_GAPS_PERCENT: u64 = 40;

#[cfg(test)]
mod tests;
