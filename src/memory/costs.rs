//! What a plan is computed from: what graphs and tensors take, and what objects recall.

use serde::{Deserialize, Serialize};

use super::DetectorNeeds;
use crate::bundle::{Dim, Manifest, Role};
use crate::tracker::memory_policy::Parameters;

/// The most that an object recalls on a frame.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extent {
    /// Memory entries.
    pub entries: usize,
    /// Object pointers of conditioning frames.
    pub conditioning_pointers: usize,
    /// Object pointers of tracked frames.
    pub pointers: usize,
}

impl Extent {
    /// For an object with prompts on `prompted` frames in a clip of `num_frames` frames.
    pub fn new(policy: &Parameters, prompted: usize, num_frames: usize) -> Self {
        let before = num_frames.saturating_sub(1);
        let recent = policy.num_maskmem.saturating_sub(1).min(before);
        Self {
            entries: recent + prompted.min(policy.max_cond_frames),
            conditioning_pointers: prompted,
            pointers: policy.max_object_pointers.saturating_sub(1).min(before),
        }
    }

    /// The larger of two in every respect.
    pub fn max(self, other: Self) -> Self {
        Self {
            entries: self.entries.max(other.entries),
            conditioning_pointers: self.conditioning_pointers.max(other.conditioning_pointers),
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

/// When the graph that proposes objects is loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Presence {
    /// Once, before the bundle's graphs are loaded, and dropped again.
    Before,
    /// Loaded for each frame that it looks at, while no graph of the bundle runs, and dropped again.
    InTurn,
    /// All the time. It runs while no other graph does.
    Loaded,
}

/// What the graph that proposes objects takes of the arena.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProposalCost {
    /// Weights, and working memory of one frame.
    pub cost: StageCost,
    /// When it is loaded.
    pub presence: Presence,
}

/// What the graphs of a bundle take of the arena.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Costs {
    /// Whether the arena holds the weights, in the layout of the kernels. Otherwise they stay mapped from their files.
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
    /// Frames to proposals, by a graph that is not in the bundle; `None` in a run without proposals.
    #[serde(skip)]
    pub proposals: Option<ProposalCost>,
    /// The detector, in a run that tracks texts.
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
    /// One memory entry of one object.
    pub memory: u64,
    /// One frame's pointers of one object.
    pub pointers: u64,
    /// Whether each object selects the frames that it recalls (`policy.memory_selection` of the manifest): its entries may be
    /// kept apart from those of others, with one frame more than it recalls.
    pub selected: bool,
}

impl Sizes {
    /// The sizes in a bundle.
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
    /// Number of objects.
    pub objects: usize,
    /// Their first frame. Groups that share it are tracked together until the first prompt that they do not share.
    pub first: usize,
    /// What each recalls at most.
    pub extent: Extent,
}
