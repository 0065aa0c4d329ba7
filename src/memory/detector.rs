//! What the detector needs of the arena.

use serde::{Deserialize, Serialize};

use super::{StageCost, rounded};
use crate::bundle::{Dim, Manifest, Role};

/// What the detector's graphs take of the arena.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DetectorCosts {
    /// Texts to tokens. It runs once, before the others are loaded, and is dropped.
    pub text_encoder: StageCost,
    /// Image to backbone tokens, where detector and tracker have different bundles; 0 where the tracker's graph is used.
    pub vision_encoder: StageCost,
    /// Backbone tokens to features.
    pub features: StageCost,
    /// Features and a text to candidates.
    pub search: StageCost,
    /// Candidates to masks; `per_object` is for each mask.
    pub masks: StageCost,
}

/// Bytes of the tensors that live between the detector's graphs, and how many masks there may be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DetectorSizes {
    /// The longest text.
    pub text: u64,
    /// Backbone tokens, where detector and tracker have different bundles; 0 where they are among the tracker's features.
    pub backbone: u64,
    /// The features of an image.
    pub levels: u64,
    /// The detector's outputs for one text.
    pub candidates: u64,
    /// Most masks that are made at once: one for each of the detector's queries.
    pub max_detections: usize,
}

impl DetectorSizes {
    /// The sizes in a bundle; all 0 if it has no detector. `own_images` if it is not the tracker's bundle.
    pub fn of(manifest: &Manifest, own_images: bool) -> Self {
        let Some(detector) = &manifest.detector else {
            return Self::default();
        };
        let outputs = |role: Role, one: Option<&str>| -> u64 {
            let graph = manifest.graph(role);
            let outputs = graph.map(|graph| graph.outputs.as_slice()).unwrap_or(&[]);
            let listed = outputs
                .iter()
                .filter(|output| one.is_none_or(|name| output.name == name));
            let bytes = listed.map(|output| {
                let lengths = output.shape.iter().map(|dim| match dim {
                    Dim::Fixed(length) => *length,
                    // The only dynamic axis of these outputs is that of a text's tokens.
                    Dim::Symbol(_) => detector.max_text_tokens.into(),
                });
                rounded(lengths.product::<u64>() * output.dtype.bytes())
            });
            bytes.sum()
        };
        Self {
            text: outputs(Role::TextEncoder, None),
            backbone: match own_images {
                true => outputs(Role::VisionEncoder, Some("backbone_nlc")),
                false => 0,
            },
            levels: outputs(Role::DetectorFeatures, None),
            candidates: outputs(Role::Detector, None),
            max_detections: detector.queries as usize,
        }
    }
}

/// What a detector takes for some texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DetectorNeeds {
    /// What its graphs take.
    pub costs: DetectorCosts,
    /// What the tensors between them take.
    pub sizes: DetectorSizes,
    /// Number of texts.
    pub texts: usize,
}

/// Working memory of the detector's graphs, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DetectorWorkspace {
    /// Image to backbone tokens; 0 where the tracker's graph is used.
    pub vision_encoder: u64,
    /// Backbone tokens to features.
    pub features: u64,
    /// Features and a text to candidates.
    pub search: u64,
    /// All candidates of one text to masks.
    pub masks: u64,
}

/// The detector's part of a plan, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DetectorPlan {
    /// Number of texts.
    pub texts: usize,
    /// The text encoder with its weights, its working memory and all texts, before the other graphs are loaded.
    pub text_encoder_bytes: u64,
    /// Weights of the other graphs, which stay loaded.
    pub weights_bytes: u64,
    /// Working memory of each graph. They run while no graph of the tracker does.
    pub workspace_bytes: DetectorWorkspace,
}

impl DetectorNeeds {
    /// The detector's part of a plan.
    pub(super) fn plan(&self) -> DetectorPlan {
        let costs = &self.costs;
        DetectorPlan {
            texts: self.texts,
            text_encoder_bytes: costs.text_encoder.weights
                + costs.text_encoder.workspace(1)
                + self.texts(),
            weights_bytes: costs.vision_encoder.weights
                + costs.features.weights
                + costs.search.weights
                + costs.masks.weights,
            workspace_bytes: DetectorWorkspace {
                vision_encoder: costs.vision_encoder.workspace(1),
                features: costs.features.workspace(1),
                search: costs.search.workspace(1),
                masks: costs.masks.workspace(self.sizes.max_detections),
            },
        }
    }

    /// The encoded texts, which stay.
    pub(super) fn texts(&self) -> u64 {
        self.texts as u64 * self.sizes.text
    }

    /// Bytes of the detector that live while each of its graphs runs, with the working memory of that graph.
    pub(super) fn moments(&self) -> [u64; 4] {
        let (sizes, work) = (&self.sizes, self.plan().workspace_bytes);
        let image = sizes.backbone;
        [
            work.vision_encoder,
            image + work.features,
            image + sizes.levels + work.search,
            // The chosen candidates are copied out of all of them.
            image + sizes.levels + 2 * sizes.candidates + work.masks,
        ]
    }
}
