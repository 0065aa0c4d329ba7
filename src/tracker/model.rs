//! What the tracker takes from a bundle: numbers of the manifest, and the four graphs.

use std::path::PathBuf;

use super::TrackError;
use crate::bundle::{Bundle, DType, Dim, Role, TensorSpec};
use crate::runtime::{Backend, Element, Graph, Port};
use crate::tracker::memory_bank::Slots;
use crate::tracker::memory_policy::Parameters;

/// What the tracker needs to know of a model, from a bundle's manifest.
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
    /// Whether the memory encoder has the input `direct`, which text tracking uses.
    pub has_direct: bool,
    /// [`Manifest::value_gap`](crate::bundle::Manifest::value_gap).
    pub value_gap: usize,
}

/// The tracker's four graphs.
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
    /// Loads the graphs of a bundle.
    ///
    /// # Errors
    /// A graph that is missing, or that the backend refuses.
    pub fn load(bundle: &Bundle, backend: &dyn Backend) -> Result<Self, TrackError> {
        let load = |role| load_graph(bundle, backend, role);
        Ok(Self {
            vision_encoder: load(Role::VisionEncoder)?,
            memory_attention: load(Role::MemoryAttention)?,
            mask_decoder: load(Role::MaskDecoder)?,
            memory_encoder: load(Role::MemoryEncoder)?,
        })
    }
}

/// Loads one graph of a bundle.
///
/// # Errors
/// It is missing, the backend refuses it, or it is not what the manifest says.
pub(crate) fn load_graph(
    bundle: &Bundle,
    backend: &dyn Backend,
    role: Role,
) -> Result<Box<dyn Graph>, TrackError> {
    let path = graph_file(bundle, role)?;
    let graph = backend.load(role.as_str(), &path);
    let graph = graph.map_err(TrackError::Load)?;
    check_signature(bundle, role, graph.as_ref())?;
    Ok(graph)
}

/// The file of a graph.
///
/// # Errors
/// [`TrackError::Unsupported`] if the bundle has no graph of this role.
pub(crate) fn graph_file(bundle: &Bundle, role: Role) -> Result<PathBuf, TrackError> {
    bundle
        .graph_path(role)
        .ok_or_else(|| TrackError::Unsupported {
            field: role.as_str(),
            got: "absent".to_owned(),
            expected: "a graph of this role",
        })
}

/// Compares what a loaded graph says of itself with what the manifest says of it.
///
/// # Errors
/// They differ.
pub(crate) fn check_signature(
    bundle: &Bundle,
    role: Role,
    graph: &dyn Graph,
) -> Result<(), TrackError> {
    let listed = bundle
        .manifest()
        .graphs
        .iter()
        .find(|graph| graph.role == role);
    if let (Some(signature), Some(listed)) = (graph.signature(), listed) {
        check_ports(&listed.file, "input", &signature.inputs, &listed.inputs)?;
        check_ports(&listed.file, "output", &signature.outputs, &listed.outputs)?;
    }
    Ok(())
}

/// Compares what a graph file says with what the manifest says of it.
fn check_ports(
    file: &str,
    kind: &'static str,
    ports: &[Port],
    specs: &[TensorSpec],
) -> Result<(), TrackError> {
    let mismatch = |tensor: &str, expected: String, got: String| TrackError::Signature {
        file: file.to_owned(),
        kind,
        tensor: tensor.to_owned(),
        expected,
        got,
    };
    for spec in specs {
        let expected = format!("{} {}", spec.dtype, spec.shape_text());
        let Some(port) = ports.iter().find(|port| port.name == spec.name) else {
            return Err(mismatch(
                &spec.name,
                expected,
                "missing from the file".to_owned(),
            ));
        };
        let lengths = || {
            spec.shape
                .iter()
                .zip(&port.shape)
                .all(|(dim, length)| match (dim, length) {
                    (Dim::Fixed(dim), Some(length)) => *dim == *length as u64,
                    (Dim::Symbol(_), None) => true,
                    _ => false,
                })
        };
        let same_element = port.element == Some(element_of(spec.dtype));
        if !same_element || port.shape.len() != spec.shape.len() || !lengths() {
            let shape: Vec<String> = port
                .shape
                .iter()
                .map(|length| length.map_or("?".to_owned(), |l| l.to_string()))
                .collect();
            let element = port
                .element
                .map_or("unknown".to_owned(), |element| format!("{element:?}"));
            return Err(mismatch(
                &spec.name,
                expected,
                format!("{} [{}]", element.to_lowercase(), shape.join(",")),
            ));
        }
    }
    match ports
        .iter()
        .find(|port| specs.iter().all(|spec| spec.name != port.name))
    {
        Some(port) => Err(mismatch(
            &port.name,
            "nothing".to_owned(),
            "in the file".to_owned(),
        )),
        None => Ok(()),
    }
}

/// The element type of a dtype.
pub(crate) fn element_of(dtype: DType) -> Element {
    match dtype {
        DType::Uint8 => Element::U8,
        DType::Int64 => Element::I64,
        DType::Bool => Element::Bool,
        DType::Float32 => Element::F32,
        DType::Float16 => Element::F16,
        DType::Bfloat16 => Element::Bf16,
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
        let selection = policy.memory_selection;
        if let Some(threshold) = selection.filter(|threshold| !(0.0..1.0).contains(threshold)) {
            return Err(TrackError::Unsupported {
                field: "policy.memory_selection",
                got: threshold.to_string(),
                expected: "a threshold from 0 to less than 1",
            });
        }
        let element = |field, dtype: &DType| match dtype {
            DType::Float32 | DType::Float16 | DType::Bfloat16 => Ok(element_of(*dtype)),
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
            has_direct: manifest
                .graph(Role::MemoryEncoder)
                .is_some_and(|graph| graph.inputs.iter().any(|input| input.name == "direct")),
            value_gap: manifest.value_gap(),
            policy: Parameters {
                num_maskmem: policy.num_maskmem as usize,
                max_cond_frames: policy.max_cond_frames as usize,
                max_object_pointers: policy.max_object_pointers as usize,
                multimask_output_in_sam: policy.multimask_output_in_sam,
                multimask_output_for_tracking: policy.multimask_output_for_tracking,
                multimask_min_points: policy.multimask_min_points as usize,
                multimask_max_points: policy.multimask_max_points as usize,
                memory_selection: selection.map(|threshold| threshold as f32),
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
