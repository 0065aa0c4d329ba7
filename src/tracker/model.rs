//! What the tracker takes from a bundle: numbers of the manifest, and the four graphs.

use super::TrackError;
use crate::bank::Slots;
use crate::bundle::{Bundle, DType, Role};
use crate::graph::{Backend, Element, Graph};
use crate::policy::Parameters;

/// What the tracker needs to know of a model; all of it comes from a manifest.
#[derive(Debug, Clone)]
pub struct ModelSpec {
    /// Side of the model's image in pixels.
    pub resolution: usize,
    /// Side of the low-resolution masks.
    pub low_size: usize,
    /// Memory policy.
    pub policy: Parameters,
    /// Slots of the memory attention graph.
    pub slots: Slots,
}

/// The four graphs.
pub struct Graphs {
    /// Image to features.
    pub vision_encoder: Box<dyn Graph>,
    /// Features conditioned on memory.
    pub memory_attention: Box<dyn Graph>,
    /// Masks, scores and pointers.
    pub mask_decoder: Box<dyn Graph>,
    /// Masks to memory.
    pub memory_encoder: Box<dyn Graph>,
}

impl Graphs {
    /// Prepares the graphs of a bundle.
    ///
    /// # Errors
    /// A graph that is missing, or that the backend refuses.
    pub fn load(bundle: &Bundle, backend: &dyn Backend) -> Result<Self, TrackError> {
        let load = |role: Role, name: &'static str| {
            let path = bundle
                .graph_path(role)
                .ok_or_else(|| TrackError::Unsupported {
                    field: name,
                    got: "absent".to_owned(),
                    expected: "a graph of this role",
                })?;
            backend.load(name, &path).map_err(TrackError::Load)
        };
        Ok(Self {
            vision_encoder: load(Role::VisionEncoder, "vision_encoder")?,
            memory_attention: load(Role::MemoryAttention, "memory_attention")?,
            mask_decoder: load(Role::MaskDecoder, "mask_decoder")?,
            memory_encoder: load(Role::MemoryEncoder, "memory_encoder")?,
        })
    }
}

impl ModelSpec {
    /// Reads what the tracker needs from a bundle.
    ///
    /// # Errors
    /// [`TrackError::Unsupported`] for a memory policy or a memory dtype that this program does not know.
    pub fn of(bundle: &Bundle) -> Result<Self, TrackError> {
        let manifest = bundle.manifest();
        let policy = &manifest.policy;
        if policy.name != "sam2_memory_bank" {
            return Err(TrackError::Unsupported {
                field: "policy.name",
                got: policy.name.clone(),
                expected: "sam2_memory_bank",
            });
        }
        let element = |field, dtype: &DType| match dtype {
            DType::Float32 => Ok(Element::F32),
            DType::Float16 => Ok(Element::F16),
            DType::Bfloat16 => Ok(Element::Bf16),
            other => Err(TrackError::Unsupported {
                field,
                got: format!("{other:?}"),
                expected: "a floating-point dtype",
            }),
        };
        let pointers = manifest
            .graphs
            .iter()
            .filter(|graph| graph.role == Role::MaskDecoder)
            .flat_map(|graph| &graph.outputs)
            .find(|output| output.name == "pointers");
        let pointer_element = match pointers {
            Some(output) => element("mask_decoder.pointers", &output.dtype)?,
            None => {
                return Err(TrackError::Unsupported {
                    field: "mask_decoder",
                    got: "without output pointers".to_owned(),
                    expected: "an output pointers",
                });
            }
        };
        Ok(Self {
            resolution: manifest.resolution as usize,
            low_size: manifest.masks.low_res as usize,
            policy: Parameters {
                num_maskmem: policy.num_maskmem as usize,
                max_cond_frames: policy.max_cond_frames as usize,
                max_object_pointers: policy.max_object_pointers as usize,
                multimask_output_in_sam: policy.multimask_output_in_sam,
                multimask_output_for_tracking: policy.multimask_output_for_tracking,
                multimask_min_points: policy.multimask_min_points as usize,
                multimask_max_points: policy.multimask_max_points as usize,
            },
            slots: Slots {
                memories: (policy.max_cond_frames + policy.num_maskmem) as usize - 1,
                pointers: policy.max_object_pointers as usize - 1,
                channels: manifest.memory.channels as usize,
                memory_element: element("memory.dtype", &manifest.memory.dtype)?,
                pointer_element,
            },
        })
    }
}
