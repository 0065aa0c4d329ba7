//! The arithmetic of a plan, and what fits in a limit.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::{
    Costs, DetectorPlan, Extent, Group, Presence, ProposalCost, Sizes, UNCOUNTED, rounded,
};

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
    /// When it is loaded.
    pub presence: Presence,
}

/// What a run needs of the arena, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Objects that are tracked.
    pub objects: usize,
    /// Most objects that go through a graph at once.
    pub chunk: usize,
    /// Whether the arena holds the weights, in the layout of the kernels. Otherwise they stay mapped from their files.
    pub packed_weights: bool,
    /// Weights of the bundle's graphs in the arena.
    pub weights_bytes: u64,
    /// The graph that proposes objects; `None` in a run without proposals.
    pub proposals: Option<ProposalPlan>,
    /// The detector; `None` in a run without texts.
    pub detector: Option<DetectorPlan>,
    /// Working memory of each graph. One graph runs at a time, so the total has the largest of them only.
    pub workspace_bytes: Workspace,
    /// What all objects of a frame share.
    pub shared_features_bytes: u64,
    /// The memory bank of all objects.
    pub bank_bytes: u64,
    /// The memory bank of one object, the mean.
    pub bank_bytes_per_object: u64,
    /// Weights and tensors at the moment that needs most.
    pub in_use_bytes: u64,
    /// For gaps between tensors.
    pub headroom_bytes: u64,
    /// What the arena has to hold: `in_use_bytes` and `headroom_bytes`.
    pub total_bytes: u64,
}

/// A part of a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// The text encoder, with its weights.
    TextEncoder,
    /// Weights of the detector's graphs.
    DetectorWeights,
    /// Working memory of the vision encoder, for images of the detector.
    DetectorVisionEncoder,
    /// Working memory of the detector's features.
    DetectorFeatures,
    /// Working memory of the detector.
    Detector,
    /// Working memory of the detector's masks.
    DetectorMasks,
    /// Weights of the tracker's graphs.
    Weights,
    /// The memory bank.
    MemoryBank,
    /// Working memory of the vision encoder.
    VisionEncoder,
    /// Working memory of the memory attention.
    MemoryAttention,
    /// Working memory of the mask decoder.
    MaskDecoder,
    /// Working memory of the memory encoder.
    MemoryEncoder,
    /// The graph that proposes objects, with its weights.
    Proposals,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TextEncoder => "the text encoder",
            Self::DetectorWeights => "the detector's weights",
            Self::DetectorVisionEncoder => "the detector's vision encoder",
            Self::DetectorFeatures => "the detector's features",
            Self::Detector => "the detector's working memory",
            Self::DetectorMasks => "the detector's masks",
            Self::Weights => "the weights",
            Self::MemoryBank => "the memory bank",
            Self::VisionEncoder => "the vision encoder's working memory",
            Self::MemoryAttention => "the memory attention's working memory",
            Self::MaskDecoder => "the mask decoder's working memory",
            Self::MemoryEncoder => "the memory encoder's working memory",
            Self::Proposals => "the graph that proposes objects",
        })
    }
}

impl Plan {
    /// The part that needs most, and its bytes.
    pub fn largest(&self) -> (Part, u64) {
        let workspace = &self.workspace_bytes;
        let detector = |of: fn(&DetectorPlan) -> u64| self.detector.as_ref().map_or(0, of);
        let proposals = |part: ProposalPlan| part.weights_bytes + part.workspace_bytes;
        let parts = [
            (Part::TextEncoder, detector(|part| part.text_encoder_bytes)),
            (Part::DetectorWeights, detector(|part| part.weights_bytes)),
            (
                Part::DetectorVisionEncoder,
                detector(|part| part.workspace_bytes.vision_encoder),
            ),
            (
                Part::DetectorFeatures,
                detector(|part| part.workspace_bytes.features),
            ),
            (Part::Detector, detector(|part| part.workspace_bytes.search)),
            (
                Part::DetectorMasks,
                detector(|part| part.workspace_bytes.masks),
            ),
            (Part::Weights, self.weights_bytes),
            (Part::MemoryBank, self.bank_bytes),
            (Part::VisionEncoder, workspace.vision_encoder),
            (Part::MemoryAttention, workspace.memory_attention),
            (Part::MaskDecoder, workspace.mask_decoder),
            (Part::MemoryEncoder, workspace.memory_encoder),
            (Part::Proposals, self.proposals.map_or(0, proposals)),
        ];
        parts
            .into_iter()
            .max_by_key(|(_, bytes)| *bytes)
            .unwrap_or(parts[0])
    }
}

/// What objects leave and need, for all groups together.
#[derive(Default)]
struct Tracked {
    objects: usize,
    /// Bytes of the memory bank.
    bank: u64,
    /// Bytes of the largest cohort's memory bank.
    largest_bank: u64,
    /// Objects of the largest cohort, which go through a graph at once.
    batch: usize,
}

impl Tracked {
    fn of(sizes: &Sizes, groups: &[Group], chunk: usize) -> Self {
        let bank_of = |objects: usize, extent: Extent| {
            let objects = objects as u64;
            let pointers = (extent.pointers + extent.conditioning_pointers) as u64;
            extent.entries as u64 * rounded(sizes.memory * objects)
                + pointers * rounded(sizes.pointers * objects)
        };
        let mut tracked = Self::default();
        let mut together: BTreeMap<usize, (usize, Extent)> = BTreeMap::new();
        for group in groups {
            tracked.objects += group.objects;
            tracked.bank += if sizes.selected {
                let one =
                    bank_of(1, group.extent) + rounded(sizes.memory) + rounded(sizes.pointers);
                group.objects as u64 * one
            } else {
                let (whole, rest) = (group.objects / chunk, group.objects % chunk);
                whole as u64 * bank_of(chunk, group.extent) + bank_of(rest, group.extent)
            };
            let (objects, extent) = together.entry(group.first).or_default();
            *objects += group.objects;
            *extent = extent.max(group.extent);
        }
        for (objects, extent) in together.into_values() {
            let cohort = objects.min(chunk);
            tracked.largest_bank = tracked.largest_bank.max(bank_of(cohort, extent));
            tracked.batch = tracked.batch.max(cohort);
        }
        tracked
    }
}

/// The graph that proposes objects, by when it is loaded, in bytes. At most one is not 0.
#[derive(Default)]
struct Proposing {
    /// Weights and working memory before the tracker's graphs are loaded.
    before: u64,
    /// What it takes while it runs, between the other graphs.
    running: u64,
    /// Weights that stay loaded.
    stays: u64,
}

impl Proposing {
    fn of(costs: &Costs) -> Self {
        let mut proposing = Self::default();
        if let Some(ProposalCost { cost, presence }) = costs.proposals {
            let work = cost.workspace(1);
            match presence {
                Presence::Before => proposing.before = cost.weights + work,
                Presence::InTurn => proposing.running = cost.weights + work,
                Presence::Loaded => (proposing.running, proposing.stays) = (work, cost.weights),
            }
        }
        proposing
    }
}

/// The most bytes that live at once while tracking, beside the weights and the memory bank.
fn worst_moment(
    costs: &Costs,
    sizes: &Sizes,
    tracked: &Tracked,
    workspace: &Workspace,
    proposing: u64,
) -> u64 {
    let at_once = |bytes: u64| rounded(bytes * tracked.batch as u64);
    // The objects of a detector decide together, once all are decoded; others go one batch after the other.
    let decoded = match costs.detector {
        Some(_) => rounded(sizes.decoded) * tracked.objects as u64,
        None => 0,
    };
    // What lives while each graph runs; then an object that leaves its batch: the bank of that batch twice; last, proposals.
    let moments = [
        // With a limit the features have a place before the encoder runs.
        workspace.vision_encoder,
        decoded + workspace.memory_attention,
        decoded + at_once(sizes.conditioned) + workspace.mask_decoder,
        decoded.max(at_once(sizes.decoded)) + workspace.memory_encoder,
        tracked.largest_bank,
        proposing,
    ];
    let detector = costs.detector.iter().flat_map(|needs| needs.moments());
    sizes.features + moments.into_iter().chain(detector).max().unwrap_or(0)
}

/// What `groups` need when at most `chunk` objects go through a graph at once.
pub fn plan(costs: &Costs, sizes: &Sizes, groups: &[Group], chunk: usize) -> Plan {
    let chunk = chunk.max(1);
    let tracked = Tracked::of(sizes, groups, chunk);
    let workspace = Workspace {
        vision_encoder: costs.vision_encoder.workspace(1),
        memory_attention: costs.memory_attention.workspace(tracked.batch),
        mask_decoder: costs.mask_decoder.workspace(tracked.batch),
        memory_encoder: costs.memory_encoder.workspace(tracked.batch),
    };
    let Proposing {
        mut before,
        running,
        mut stays,
    } = Proposing::of(costs);
    let worst = worst_moment(costs, sizes, &tracked, &workspace, running);
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
        before = before.max(part.text_encoder_bytes);
    }
    let tracking = (weights + stays + tracked.bank + working, gaps(working));
    let before = before + uncounted(before);
    let before = (before, gaps(before));
    // They are never loaded together.
    let total = |part: &(u64, u64)| part.0 + part.1;
    let (in_use, headroom) = [tracking, before]
        .into_iter()
        .max_by_key(total)
        .unwrap_or(tracking);
    Plan {
        objects: tracked.objects,
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
        bank_bytes: tracked.bank,
        bank_bytes_per_object: tracked
            .bank
            .checked_div(tracked.objects as u64)
            .unwrap_or(0),
        in_use_bytes: in_use,
        headroom_bytes: headroom,
        total_bytes: in_use + headroom,
    }
}

/// The plan with the largest chunk up to `max_chunk` that fits in `limit` bytes.
///
/// # Errors
/// The plan with a chunk of 1, if that does not fit.
pub fn largest_chunk(
    costs: &Costs,
    sizes: &Sizes,
    groups: &[Group],
    max_chunk: usize,
    limit: u64,
) -> Result<Plan, Box<Plan>> {
    let mut plans = (1..=max_chunk.max(1))
        .rev()
        .map(|chunk| plan(costs, sizes, groups, chunk));
    plans
        .find(|plan| plan.total_bytes <= limit)
        .ok_or_else(|| Box::new(plan(costs, sizes, groups, 1)))
}

/// How many objects with `extent` fit in `limit` bytes when one at a time goes through a graph; at most `max`.
pub fn max_objects(costs: &Costs, sizes: &Sizes, extent: Extent, max: usize, limit: u64) -> usize {
    largest_that(max, |objects| {
        let groups = [Group {
            objects,
            first: 0,
            extent,
        }];
        plan(costs, sizes, &groups, 1).total_bytes <= limit
    })
}

/// How many objects that come [`one_by_one`] fit in `limit` bytes when `chunk` at a time go through a graph; at most `max`.
pub fn max_objects_one_by_one(
    costs: &Costs,
    sizes: &Sizes,
    extent: Extent,
    max: usize,
    chunk: usize,
    limit: u64,
) -> usize {
    largest_that(max, |objects| {
        plan(costs, sizes, &one_by_one(objects, extent), chunk).total_bytes <= limit
    })
}

/// Objects that come on any frame. The plan has them tracked together and remembered one by one, which takes most.
pub fn one_by_one(objects: usize, extent: Extent) -> Vec<Group> {
    let group = Group {
        objects: 1,
        first: 0,
        extent,
    };
    vec![group; objects]
}

/// The largest number up to `max` that fits, if all smaller ones do; 0 if none does.
fn largest_that(max: usize, fits: impl Fn(usize) -> bool) -> usize {
    let (mut fit, mut beyond) = (0, max + 1);
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
