//! What a run needs of the arena, computed before it starts, and the chunk that a limit allows.
//!
//! Weights and the working memory of each graph are measured ([`sounding`]); the rest is arithmetic on the manifest and
//! the memory policy. A graph's working memory is linear in the objects that go through it at once, so that two
//! measurements give it for any number.

mod detector;
pub mod profile;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use self::detector::{
    DetectorCosts, DetectorNeeds, DetectorPlan, DetectorSizes, DetectorWorkspace,
};
use crate::bundle::{Dim, Manifest, Role};
use crate::runtime::Provider;
use crate::tracker::memory_policy::Parameters;

/// Most objects that go through a graph at once when nothing else is said: more gain no speed on the processor.
const MOST_AT_ONCE: usize = 8;

/// Tokens of all objects that go through a graph at once when nothing else is said. Large images fill the processor with
/// few objects, and each takes working memory: at 1008 px, four objects of SAM3 have half a GiB in the memory attention.
const TOKENS_AT_ONCE: u32 = 24_000;

/// The same on a GPU, at any size of the image, where a limit leaves room: 16 objects of SAM3 at 1008 px take an H100 75 ms a
/// frame at once and 103 ms in fours (with values of 64 channels), and the process 3.65 GiB on the device instead of 2.64.
const MOST_AT_ONCE_ON_GPU: usize = 16;

/// Objects that go through the graphs of a bundle at once when nothing else is said.
pub fn default_chunk(manifest: &Manifest, provider: Provider) -> usize {
    if provider == Provider::Cuda {
        return MOST_AT_ONCE_ON_GPU;
    }
    let fit = TOKENS_AT_ONCE / manifest.memory.tokens.max(1);
    usize::try_from(fit).map_or(MOST_AT_ONCE, |fit| fit.clamp(1, MOST_AT_ONCE))
}

/// What the arena rounds a tensor up to: small ones, and those from [`LARGE`] on.
const UNITS: [u64; 2] = [
    256,
    if cfg!(target_arch = "x86_64") {
        4096
    } else {
        64 << 10
    },
];
const LARGE: u64 = 64 << 10;

/// The worst moment divided by this stands for what is not counted one by one: tensors of a few bytes, each rounded up,
/// and an order of nodes that differs from one session to the next. The vision encoder was seen to take 11% more in one
/// session than in another.
const UNCOUNTED: u64 = 8;

/// What a GPU's arena loses to gaps between tensors that come and go, in percent of them.
///
/// It cannot move a tensor, so that a large one may find gaps only: the memory attention alone, in an empty region, ran
/// with 1.2 to 1.4 times what it had in use (on the processor, with the same arena). What the bank keeps lies side by
/// side (`Tracker::remember`). The processor's own blocks leave no gaps.
pub const GPU_GAPS_PERCENT: u64 = 40;

/// How much an object recalls at most.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extent {
    /// Memories of frames.
    pub memories: usize,
    /// Pointers of frames with a prompt.
    pub cond_pointers: usize,
    /// Pointers of tracked frames.
    pub pointers: usize,
}

impl Extent {
    /// That of an object with prompts on `prompted` frames in a clip of `num_frames` frames.
    pub fn new(policy: &Parameters, prompted: usize, num_frames: usize) -> Self {
        let before = num_frames.saturating_sub(1);
        let recent = policy.num_maskmem.saturating_sub(1).min(before);
        Self {
            memories: recent + prompted.min(policy.max_cond_frames),
            cond_pointers: prompted,
            pointers: policy.max_object_pointers.saturating_sub(1).min(before),
        }
    }

    /// The larger of two in every respect.
    pub fn max(self, other: Self) -> Self {
        Self {
            memories: self.memories.max(other.memories),
            cond_pointers: self.cond_pointers.max(other.cond_pointers),
            pointers: self.pointers.max(other.pointers),
        }
    }
}

/// What one graph takes of the arena, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageCost {
    /// Weights; 0 where they stay mapped from their file.
    pub weights: u64,
    /// Working memory without any object.
    pub fixed: u64,
    /// Working memory of each object that goes through at once.
    pub per_object: u64,
}

impl StageCost {
    /// The line through the working memory at one object and at two.
    pub fn through(weights: u64, one: u64, two: u64) -> Self {
        let per_object = two.saturating_sub(one);
        Self {
            weights,
            fixed: one.saturating_sub(per_object),
            per_object,
        }
    }

    /// Working memory for `objects` at once.
    pub fn workspace(&self, objects: usize) -> u64 {
        self.fixed + self.per_object * objects as u64
    }
}

/// When the graph that proposes objects is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Presence {
    /// Once, before the bundle's graphs are loaded.
    Before,
    /// Loaded for each look, in turn with the work of the bundle's graphs, and dropped.
    InTurn,
    /// Loaded all the time; its work is in turn with that of the others.
    Loaded,
}

/// What the graph that proposes objects takes of the arena.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProposalCost {
    /// Weights and working memory of a look.
    pub cost: StageCost,
    /// When it is there.
    pub presence: Presence,
}

/// What the graphs of a bundle take of the arena.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Costs {
    /// Whether weights are laid out anew, in the arena; they stay mapped from their files otherwise.
    pub packed: bool,
    /// What the arena loses to gaps, in percent of the tensors that come and go.
    pub gaps_percent: u64,
    /// Image to features.
    pub vision_encoder: StageCost,
    /// Features conditioned on memory.
    pub memory_attention: StageCost,
    /// Masks, scores and pointers.
    pub mask_decoder: StageCost,
    /// Masks to memory.
    pub memory_encoder: StageCost,
    /// Frames to proposals, which is no graph of the bundle; absent where nobody looks for objects.
    #[serde(skip)]
    pub proposals: Option<ProposalCost>,
    /// Finding objects for texts, where somebody does.
    #[serde(skip)]
    pub detector: Option<DetectorNeeds>,
}

/// Bytes of the tensors that live between graphs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sizes {
    /// What all objects of a frame share.
    pub features: u64,
    /// Conditioned features of one object.
    pub conditioned: u64,
    /// Logits, score and pointers of one object.
    pub decoded: u64,
    /// One memory of one object.
    pub memory: u64,
    /// One frame's pointers of one object.
    pub pointers: u64,
    /// Whether objects recall frames of their own choice: each may be remembered apart, with one frame more than it recalls.
    pub selected: bool,
}

impl Sizes {
    /// Those of a bundle.
    pub fn of(manifest: &Manifest) -> Self {
        let outputs = |role: Role, one: Option<&str>| -> u64 {
            let graph = manifest.graph(role);
            let outputs = graph.map(|graph| graph.outputs.as_slice()).unwrap_or(&[]);
            outputs
                .iter()
                .filter(|output| one.is_none_or(|name| output.name == name))
                .map(|output| {
                    let elements: u64 = output
                        .shape
                        .iter()
                        .map(|dim| match dim {
                            Dim::Fixed(length) => *length,
                            // The only dynamic axis of an output is that of the objects.
                            Dim::Symbol(_) => 1,
                        })
                        .product();
                    elements * output.dtype.bytes()
                })
                .sum()
        };
        Self {
            features: outputs(Role::VisionEncoder, None),
            conditioned: outputs(Role::MemoryAttention, None),
            decoded: outputs(Role::MaskDecoder, None),
            memory: outputs(Role::MemoryEncoder, None),
            pointers: outputs(Role::MaskDecoder, Some("pointers")),
            selected: manifest.policy.memory_selection.is_some(),
        }
    }
}

/// Objects with prompts on the same frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Group {
    /// How many.
    pub objects: usize,
    /// Their first frame. Groups that share it are tracked together until the first prompt that they do not share.
    pub first: usize,
    /// What each recalls at most.
    pub extent: Extent,
}

/// Working memory of each graph for the largest batch, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Workspace {
    /// Image to features.
    pub vision_encoder: u64,
    /// Features conditioned on memory.
    pub memory_attention: u64,
    /// Masks, scores and pointers.
    pub mask_decoder: u64,
    /// Masks to memory.
    pub memory_encoder: u64,
}

/// The part of the graph that proposes objects, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProposalPlan {
    /// Its weights.
    pub weights_bytes: u64,
    /// Its working memory.
    pub workspace_bytes: u64,
    /// When it is there.
    pub presence: Presence,
}

/// What a run needs of the arena, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Objects that are followed.
    pub objects: usize,
    /// Most objects that go through a graph at once.
    pub chunk: usize,
    /// Whether the arena holds weights, laid out anew; they stay mapped from their files otherwise.
    pub packed_weights: bool,
    /// Weights of the bundle's graphs in the arena.
    pub weights_bytes: u64,
    /// The graph that proposes objects; absent where nobody looks for objects.
    pub proposals: Option<ProposalPlan>,
    /// The detector; absent where no text is looked for.
    pub detector: Option<DetectorPlan>,
    /// Working memory of each graph. They run in turn: the total has the largest of them only.
    pub workspace_bytes: Workspace,
    /// What all objects of a frame share.
    pub shared_features_bytes: u64,
    /// What is remembered of all objects.
    pub bank_bytes: u64,
    /// What is remembered of one object, the mean.
    pub bank_bytes_per_object: u64,
    /// Weights and tensors at the moment that needs most.
    pub in_use_bytes: u64,
    /// For gaps between tensors.
    pub headroom_bytes: u64,
    /// What the arena has to hold: `in_use_bytes` and `headroom_bytes`.
    pub total_bytes: u64,
}

impl Plan {
    /// The largest part: its name and its bytes.
    pub fn largest(&self) -> (&'static str, u64) {
        let workspace = &self.workspace_bytes;
        let detector = |of: fn(&DetectorPlan) -> u64| self.detector.as_ref().map_or(0, of);
        let parts = [
            ("the text encoder", detector(|part| part.text_encoder_bytes)),
            (
                "the detector's weights",
                detector(|part| part.weights_bytes),
            ),
            (
                "the detector's vision encoder",
                detector(|part| part.workspace_bytes.vision_encoder),
            ),
            (
                "the detector's features",
                detector(|part| part.workspace_bytes.features),
            ),
            (
                "the detector's work",
                detector(|part| part.workspace_bytes.search),
            ),
            (
                "the detector's masks",
                detector(|part| part.workspace_bytes.masks),
            ),
            ("the weights", self.weights_bytes),
            ("the bank of memories", self.bank_bytes),
            ("the vision encoder's work", workspace.vision_encoder),
            ("the memory attention's work", workspace.memory_attention),
            ("the mask decoder's work", workspace.mask_decoder),
            ("the memory encoder's work", workspace.memory_encoder),
            (
                "the graph that proposes objects",
                self.proposals
                    .map_or(0, |part| part.weights_bytes + part.workspace_bytes),
            ),
        ];
        parts
            .into_iter()
            .max_by_key(|(_, bytes)| *bytes)
            .unwrap_or(parts[0])
    }
}

fn rounded(bytes: u64) -> u64 {
    bytes.next_multiple_of(UNITS[usize::from(bytes >= LARGE)])
}

/// What `groups` need when at most `chunk` objects go through a graph at once.
pub fn plan(costs: &Costs, sizes: &Sizes, groups: &[Group], chunk: usize) -> Plan {
    let chunk = chunk.max(1);
    let bank_of = |objects: usize, extent: Extent| {
        let objects = objects as u64;
        extent.memories as u64 * rounded(sizes.memory * objects)
            + (extent.pointers + extent.cond_pointers) as u64 * rounded(sizes.pointers * objects)
    };
    let mut bank = 0;
    let mut together: BTreeMap<usize, (usize, Extent)> = BTreeMap::new();
    for group in groups {
        if sizes.selected {
            let one = bank_of(1, group.extent) + rounded(sizes.memory) + rounded(sizes.pointers);
            bank += group.objects as u64 * one;
        } else {
            let (whole, rest) = (group.objects / chunk, group.objects % chunk);
            bank += whole as u64 * bank_of(chunk, group.extent) + bank_of(rest, group.extent);
        }
        let (objects, extent) = together.entry(group.first).or_default();
        *objects += group.objects;
        *extent = extent.max(group.extent);
    }
    let mut largest_bank = 0;
    let mut batch = 0;
    for (objects, extent) in together.into_values() {
        let cohort = objects.min(chunk);
        largest_bank = largest_bank.max(bank_of(cohort, extent));
        batch = batch.max(cohort);
    }
    let objects: usize = groups.iter().map(|group| group.objects).sum();
    let workspace = Workspace {
        vision_encoder: costs.vision_encoder.workspace(1),
        memory_attention: costs.memory_attention.workspace(batch),
        mask_decoder: costs.mask_decoder.workspace(batch),
        memory_encoder: costs.memory_encoder.workspace(batch),
    };
    let at_once = |bytes: u64| rounded(bytes * batch as u64);
    let (mut alone, mut in_turn, mut stays) = (0, 0, 0);
    if let Some(ProposalCost { cost, presence }) = costs.proposals {
        let work = cost.workspace(1);
        match presence {
            Presence::Before => alone = cost.weights + work,
            Presence::InTurn => in_turn = cost.weights + work,
            Presence::Loaded => (in_turn, stays) = (work, cost.weights),
        }
    }
    // Objects that are found decide together, once all are decoded; those that are not go one batch after the other.
    let decoded = match costs.detector {
        Some(_) => rounded(sizes.decoded) * objects as u64,
        None => 0,
    };
    let finding = costs.detector.map(|needs| needs.moments());
    // What lives while each graph runs; then an object that leaves its batch: the bank of that batch twice; last, a look.
    let moments = [
        // With a limit the features have places of their own before the encoder runs.
        sizes.features + workspace.vision_encoder,
        sizes.features + decoded + workspace.memory_attention,
        sizes.features + decoded + at_once(sizes.conditioned) + workspace.mask_decoder,
        sizes.features + decoded.max(at_once(sizes.decoded)) + workspace.memory_encoder,
        sizes.features + largest_bank,
        sizes.features + in_turn,
    ];
    let finding = finding.into_iter().flatten();
    let finding = finding.map(|bytes| sizes.features + bytes);
    let worst = moments.into_iter().chain(finding).max().unwrap_or(0);
    let uncounted = |bytes: u64| rounded(bytes / UNCOUNTED);
    let working = worst + uncounted(worst);
    let weights = costs.vision_encoder.weights
        + costs.memory_attention.weights
        + costs.mask_decoder.weights
        + costs.memory_encoder.weights;
    let gaps = |bytes: u64| bytes * costs.gaps_percent / 100;
    let detector = costs.detector.map(|needs| needs.plan());
    if let (Some(needs), Some(part)) = (&costs.detector, &detector) {
        stays += part.weights_bytes + needs.texts();
        alone = alone.max(part.text_encoder_bytes);
    }
    let tracking = (weights + stays + bank + working, gaps(working));
    let alone = alone + uncounted(alone);
    let before = (alone, gaps(alone));
    // They are never there together.
    let total = |part: &(u64, u64)| part.0 + part.1;
    let (in_use, headroom) = [tracking, before]
        .into_iter()
        .max_by_key(total)
        .unwrap_or(tracking);
    Plan {
        objects,
        chunk,
        packed_weights: costs.packed,
        weights_bytes: weights,
        proposals: costs
            .proposals
            .map(|ProposalCost { cost, presence }| ProposalPlan {
                weights_bytes: cost.weights,
                workspace_bytes: cost.workspace(1),
                presence,
            }),
        detector,
        workspace_bytes: workspace,
        shared_features_bytes: sizes.features,
        bank_bytes: bank,
        bank_bytes_per_object: bank.checked_div(objects as u64).unwrap_or(0),
        in_use_bytes: in_use,
        headroom_bytes: headroom,
        total_bytes: in_use + headroom,
    }
}

/// The largest chunk up to `most` whose plan fits in `limit`, or the plan of a single object at once, which does not.
///
/// # Errors
/// The smallest plan there is.
pub fn within(
    costs: &Costs,
    sizes: &Sizes,
    groups: &[Group],
    most: usize,
    limit: u64,
) -> Result<Plan, Box<Plan>> {
    let mut plans = (1..=most.max(1))
        .rev()
        .map(|chunk| plan(costs, sizes, groups, chunk));
    plans
        .find(|plan| plan.total_bytes <= limit)
        .ok_or_else(|| Box::new(plan(costs, sizes, groups, 1)))
}

/// How many objects with `extent` that are found one by one fit in `limit` when `chunk` at a time go through a graph; at
/// most `most`.
pub fn most_found(
    costs: &Costs,
    sizes: &Sizes,
    extent: Extent,
    (most, chunk): (usize, usize),
    limit: u64,
) -> usize {
    most_that(most, |objects| {
        plan(costs, sizes, &one_by_one(objects, extent), chunk).total_bytes <= limit
    })
}

/// Objects that come at any time: tracked together and remembered one by one, which takes most.
pub fn one_by_one(objects: usize, extent: Extent) -> Vec<Group> {
    let group = Group {
        objects: 1,
        first: 0,
        extent,
    };
    vec![group; objects]
}

/// How many objects with `extent` fit in `limit` when one at a time goes through a graph; at most `most`.
pub fn most_objects(
    costs: &Costs,
    sizes: &Sizes,
    extent: Extent,
    most: usize,
    limit: u64,
) -> usize {
    most_that(most, |objects| {
        let groups = [Group {
            objects,
            first: 0,
            extent,
        }];
        plan(costs, sizes, &groups, 1).total_bytes <= limit
    })
}

/// The greatest number up to `most` that fits, if all smaller ones do.
fn most_that(most: usize, fits: impl Fn(usize) -> bool) -> usize {
    let (mut fit, mut beyond) = (0, most + 1);
    while beyond - fit > 1 {
        let middle = fit + (beyond - fit) / 2;
        if fits(middle) {
            fit = middle;
        } else {
            beyond = middle;
        }
    }
    fit
}

#[cfg(test)]
mod tests;
