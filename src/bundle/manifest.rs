//! The types of `manifest.json`, the one contract between `snow-export` (Python) and this program.
//!
//! The JSON Schema at `models/schema/manifest.schema.json` is generated from these types
//! (`snow-ort schema`), so the doc comments here are the schema's descriptions.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Name of the manifest inside of a bundle's folder.
pub const MANIFEST_FILE: &str = "manifest.json";

/// The schema version of this program's own types.
pub const SCHEMA_VERSION: u32 = 1;

/// The schema versions that this program reads: its own and the one before, if there is one.
pub fn accepted_versions() -> std::ops::RangeInclusive<u32> {
    SCHEMA_VERSION.saturating_sub(1).max(1)..=SCHEMA_VERSION
}

/// The content of a bundle: one model at one resolution and one precision, as ONNX graphs, with everything that a
/// program needs to run them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Manifest {
    /// Version of this layout. A reader accepts its own version and the one before.
    pub schema_version: u32,
    /// Name of the model, as given to `snow-export --name`.
    pub name: String,
    /// Model family, e.g. `sam3_tracker_video`.
    pub family: String,
    /// Side of the square image that goes into the vision encoder, in pixels.
    #[schemars(range(min = 1))]
    pub resolution: u32,
    /// Side of the vision encoder's token grid; there are `grid * grid` tokens.
    #[schemars(range(min = 1))]
    pub grid: u32,
    /// Number format of weights and activations.
    pub precision: Precision,
    /// How a source frame becomes the vision encoder's input.
    pub preprocess: Preprocess,
    /// The ONNX graphs, one per role.
    pub graphs: Vec<GraphFile>,
    /// The memory policy: which frames are stored and recalled.
    pub policy: Policy,
    /// Sizes and thresholds of mask logits and mask prompts.
    pub masks: Masks,
    /// Layout of one stored memory entry.
    pub memory: Memory,
    /// The detector; absent in a bundle that can only track.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detector: Option<DetectorSpec>,
    /// The checkpoint that was exported.
    pub source: Source,
    /// Files of golden vectors from the unpatched reference.
    #[serde(default)]
    pub golden: Vec<GoldenFile>,
    /// Versions of the programs that made the bundle.
    pub versions: Versions,
}

impl Manifest {
    /// The graph with `role`, if the bundle has one.
    pub fn graph(&self, role: Role) -> Option<&GraphFile> {
        self.graphs.iter().find(|graph| graph.role == role)
    }

    /// Channels by which the keys of the memory attention are wider than its values, which are the stored memories.
    pub fn value_gap(&self) -> usize {
        let attention = self.graph(Role::MemoryAttention);
        let features = attention.and_then(|graph| {
            let mut inputs = graph.inputs.iter();
            inputs.find(|input| input.name == "features_nlc")
        });
        match features.and_then(|features| features.shape.last()) {
            Some(Dim::Fixed(keys)) => {
                (*keys as usize).saturating_sub(self.memory.channels as usize)
            }
            _ => 0,
        }
    }

    /// Number of files that the manifest lists.
    pub fn files(&self) -> usize {
        self.file_bytes().count()
    }

    /// Size in bytes of all files that the manifest lists.
    pub fn bytes(&self) -> u64 {
        self.file_bytes().sum()
    }

    fn file_bytes(&self) -> impl Iterator<Item = u64> + '_ {
        let graphs = self.graphs.iter().flat_map(|graph| {
            let data = graph.data.as_ref().map(|data| data.bytes);
            std::iter::once(graph.bytes).chain(data)
        });
        let tokenizer = self
            .detector
            .iter()
            .map(|detector| detector.tokenizer.bytes);
        let golden = self.golden.iter().map(|golden| golden.bytes);
        graphs.chain(tokenizer).chain(golden)
    }

    /// The command that writes this bundle again.
    pub fn export_command(&self) -> String {
        let parts = if self.detector.is_some() {
            " --parts tracker,detector"
        } else {
            ""
        };
        self.export_command_at(self.resolution) + parts
    }

    /// The command that writes the tracker's bundle of the same checkpoint and precision at a resolution.
    pub fn export_command_at(&self, resolution: u32) -> String {
        format!(
            "snow-export {} --res {resolution} --precision {}",
            self.source.id, self.precision
        )
    }
}

/// Number format of a bundle's weights and activations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// 32-bit floating point throughout.
    Fp32,
    /// 16-bit floating point; some parts stay in 32-bit where the export says so.
    Fp16,
    /// 32-bit floating point with linear layers in 8-bit integers; for CPUs.
    Int8,
}

impl std::fmt::Display for Precision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Fp32 => "fp32",
            Self::Fp16 => "fp16",
            Self::Int8 => "int8",
        })
    }
}

/// How a source frame becomes the vision encoder's input. Resizing happens outside of the graphs, normalisation
/// inside of them when `in_graph` is true.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Preprocess {
    /// Resampling filter, e.g. `bilinear`.
    pub filter: String,
    /// Whether the filter is widened when shrinking.
    pub antialias: bool,
    /// Number format that the resized image is rounded to, e.g. `uint8`.
    pub rounding: String,
    /// Order of the image's axes, e.g. `nhwc`.
    pub layout: String,
    /// Order of the colour channels, e.g. `rgb`.
    pub channels: String,
    /// Factor that the 8-bit values are multiplied by before the mean is subtracted.
    pub scale: f64,
    /// Mean per channel, after scaling.
    pub mean: [f64; 3],
    /// Standard deviation per channel, after scaling.
    pub std: [f64; 3],
    /// Whether scale, mean and std are applied inside of the vision encoder's graph.
    pub in_graph: bool,
}

/// The task of a graph.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Computes the features of an image.
    VisionEncoder,
    /// Computes features that are conditioned on the entries of the memory bank.
    MemoryAttention,
    /// Computes mask logits, scores and object pointers from features and prompts.
    MaskDecoder,
    /// Computes a memory entry from features and masks.
    MemoryEncoder,
    /// Computes the features of a text.
    TextEncoder,
    /// Computes the detector's features of an image from the backbone's tokens.
    DetectorFeatures,
    /// Computes tokens of example boxes, which are appended to those of a text.
    GeometryEncoder,
    /// Computes candidates, which are boxes with scores, from image features and a text.
    Detector,
    /// Computes the masks of some candidates.
    DetectorMasks,
}

impl Role {
    /// The roles that every bundle has, because tracking needs them.
    pub const REQUIRED: [Role; 4] = [
        Role::VisionEncoder,
        Role::MemoryAttention,
        Role::MaskDecoder,
        Role::MemoryEncoder,
    ];

    /// The additional roles of a bundle with a detector.
    pub const DETECTOR: [Role; 5] = [
        Role::TextEncoder,
        Role::DetectorFeatures,
        Role::GeometryEncoder,
        Role::Detector,
        Role::DetectorMasks,
    ];

    /// The role's name in the manifest.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::VisionEncoder => "vision_encoder",
            Self::MemoryAttention => "memory_attention",
            Self::MaskDecoder => "mask_decoder",
            Self::MemoryEncoder => "memory_encoder",
            Self::TextEncoder => "text_encoder",
            Self::DetectorFeatures => "detector_features",
            Self::GeometryEncoder => "geometry_encoder",
            Self::Detector => "detector",
            Self::DetectorMasks => "detector_masks",
        }
    }
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One ONNX graph of the bundle.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct GraphFile {
    /// The graph's task.
    pub role: Role,
    /// Path of the `.onnx` file, relative to the bundle's folder.
    pub file: String,
    /// SHA-256 of the file, 64 hexadecimal digits.
    pub sha256: String,
    /// Size of the file in bytes.
    pub bytes: u64,
    /// The external-data file that holds the graph's weights; null when the graph has none.
    pub data: Option<DataFile>,
    /// Inputs, read back from the written file.
    pub inputs: Vec<TensorSpec>,
    /// Outputs, read back from the written file.
    pub outputs: Vec<TensorSpec>,
}

/// A graph's external-data file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DataFile {
    /// Path of the file, relative to the bundle's folder.
    pub file: String,
    /// SHA-256 of the file, 64 hexadecimal digits.
    pub sha256: String,
    /// Size of the file in bytes.
    pub bytes: u64,
}

/// Name, number format and shape of a graph's input or output.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TensorSpec {
    /// The tensor's name in the graph.
    pub name: String,
    /// Number format of the elements.
    pub dtype: DType,
    /// One item per axis: a fixed size, or the name of a dynamic size.
    pub shape: Vec<Dim>,
}

impl TensorSpec {
    /// The shape as `[1,672,672,3]` or `[objects,2304,256]`.
    pub fn shape_text(&self) -> String {
        let dims: Vec<String> = self.shape.iter().map(Dim::to_string).collect();
        format!("[{}]", dims.join(","))
    }
}

/// One axis of a shape.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Dim {
    /// A fixed size.
    Fixed(u64),
    /// The name of a size that is known only when the graph runs, e.g. `objects`.
    Symbol(String),
}

impl std::fmt::Display for Dim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Fixed(size) => write!(f, "{size}"),
            Self::Symbol(name) => f.write_str(name),
        }
    }
}

/// Number format of a tensor's elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum DType {
    /// 8-bit unsigned integer.
    Uint8,
    /// 64-bit signed integer.
    Int64,
    /// Truth value.
    Bool,
    /// 32-bit floating point.
    Float32,
    /// 16-bit floating point (IEEE 754 half).
    Float16,
    /// 16-bit floating point with 8 exponent bits.
    Bfloat16,
}

impl DType {
    /// Bytes of one element.
    pub fn bytes(self) -> u64 {
        match self {
            Self::Uint8 | Self::Bool => 1,
            Self::Float16 | Self::Bfloat16 => 2,
            Self::Float32 => 4,
            Self::Int64 => 8,
        }
    }
}

impl std::fmt::Display for DType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Uint8 => "uint8",
            Self::Int64 => "int64",
            Self::Bool => "bool",
            Self::Float32 => "float32",
            Self::Float16 => "float16",
            Self::Bfloat16 => "bfloat16",
        })
    }
}

/// The memory policy and its parameters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Policy {
    /// Name of the policy, e.g. `sam2_memory_bank`.
    pub name: String,
    /// Number of temporal positions of memory entries: one for conditioning frames, the others for recent frames.
    #[schemars(range(min = 1))]
    pub num_maskmem: u32,
    /// Most conditioning frames recalled for one frame, closest first.
    #[schemars(range(min = 1))]
    pub max_cond_frames: u32,
    /// Most frames whose object pointers are recalled for one frame.
    #[schemars(range(min = 1))]
    pub max_object_pointers: u32,
    /// Number of tokens that one object pointer is split into.
    #[schemars(range(min = 1))]
    pub pointer_tokens: u32,
    /// Whether several masks are predicted, and the best chosen, on a frame with prompts.
    pub multimask_output_in_sam: bool,
    /// Whether several masks are predicted, and the best chosen, on a frame without prompts.
    pub multimask_output_for_tracking: bool,
    /// Fewest points of a prompt for which several masks are predicted (a box counts as two points).
    pub multimask_min_points: u32,
    /// Most points of a prompt for which several masks are predicted (a box counts as two points).
    pub multimask_max_points: u32,
    /// Recalls only tracked frames with a memory score (probability of the object times estimated IoU, 0 to 1) above this;
    /// absent to recall all.
    #[schemars(range(min = 0, max = 1))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_selection: Option<f64>,
}

/// Sizes and thresholds of mask logits and mask prompts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Masks {
    /// Side of the square mask logits that the mask decoder returns.
    #[schemars(range(min = 1))]
    pub low_res: u32,
    /// Side of the square mask that a mask prompt is resized to.
    #[schemars(range(min = 1))]
    pub prompt_size: u32,
    /// A pixel of a resized mask prompt belongs to the object from this value on.
    pub prompt_threshold: f64,
    /// A pixel belongs to the object if its logit is above this.
    pub threshold: f64,
    /// The logit of every pixel of an object that is not visible.
    pub no_object_logit: f64,
}

/// Layout of one stored memory entry.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Memory {
    /// Number of tokens of one object's entry.
    #[schemars(range(min = 1))]
    pub tokens: u32,
    /// Number of channels of a token.
    #[schemars(range(min = 1))]
    pub channels: u32,
    /// Number format in which the reference stores an entry.
    pub dtype: DType,
    /// Number format that the stored values are rounded to.
    pub rounding: String,
}

/// The detector of a bundle: it detects objects from text and example boxes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DetectorSpec {
    /// The tokenizer, in the format of Hugging Face's `tokenizers`.
    pub tokenizer: DataFile,
    /// Number of candidates for each text.
    #[schemars(range(min = 1))]
    pub queries: u32,
    /// Most tokens of a text, start and end tokens included.
    #[schemars(range(min = 3))]
    pub max_text_tokens: u32,
    /// Number of channels of the detector's features.
    #[schemars(range(min = 1))]
    pub hidden: u32,
    /// The text that is used where only example boxes are given.
    pub boxes_only_text: String,
    /// Parameters of text tracking.
    #[serde(rename = "loop")]
    pub text_tracking: TextTrackingSpec,
}

/// Parameters of text tracking, which detects objects in a video and tracks them, from the reference's configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TextTrackingSpec {
    /// A candidate with a score above this is a detection.
    pub score_threshold: f64,
    /// Mask NMS: of two detections whose masks have a greater IoU than this, the one with the lower score is dropped; 0
    /// drops none.
    pub nms_iou: f64,
    /// A detection matches a track if the IoU of their masks is at least this.
    pub match_iou: f64,
    /// A detection confirms a track if the IoU of their masks is at least this.
    pub track_match_iou: f64,
    /// Lowest score of a detection without a match that begins a track.
    pub new_object_score: f64,
    /// Whether reconditioning stores the mask of the track; otherwise it stores the mask of the detection.
    pub recondition_on_track_masks: bool,
    /// Every so many frames, confirmed tracks are reconditioned: the frame is stored as a conditioning frame, as if it had
    /// a prompt; 0 for never.
    pub recondition_every: u32,
    /// Lowest score of the detection and of the track for reconditioning.
    pub recondition_score: f64,
    /// Lowest IoU of the detection and the track for reconditioning.
    pub recondition_iou: f64,
    /// Number of frames for which results are held back, so that a track that is removed meanwhile is left out of them.
    pub hotstart_delay: u32,
    /// A new track is removed after this many frames without a detection that confirms it.
    pub hotstart_unmatched: u32,
    /// A new track is removed after this many frames as a duplicate of an older track.
    pub hotstart_duplicate: u32,
    /// Whether tracks that no detection confirms are suppressed only while they are new.
    pub suppress_unmatched_only_within_hotstart: bool,
    /// First value of a track's keep-alive counter.
    pub keep_alive_init: i32,
    /// Greatest value of the keep-alive counter.
    pub keep_alive_max: i32,
    /// Lowest value of the keep-alive counter.
    pub keep_alive_min: i32,
    /// Whether an empty mask lowers the keep-alive counter.
    pub keep_alive_falls_when_empty: bool,
    /// Of two tracks whose masks have at least this IoU, the one that was hidden more recently is suppressed; 0 suppresses
    /// none.
    pub occlusion_iou: f64,
    /// Holes of up to this many pixels of the low-resolution mask are filled, and specks of this size removed; 0 for none.
    pub fill_hole_area: u32,
    /// Most objects that are tracked at once.
    pub max_objects: u32,
}

/// The checkpoint that a bundle was made from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Source {
    /// Hugging Face id or folder of the checkpoint.
    pub id: String,
    /// `model_type` of the checkpoint's config.json.
    pub model_type: String,
    /// SHA-256 over the checkpoint's weights, 64 hexadecimal digits.
    pub sha256: String,
    /// Licence of the checkpoint.
    pub licence: String,
    /// Whether the weights are random, so that the masks are meaningless.
    pub random_weights: bool,
}

/// A file of golden vectors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct GoldenFile {
    /// Path of the safetensors file, relative to the bundle's folder.
    pub file: String,
    /// SHA-256 of the file, 64 hexadecimal digits.
    pub sha256: String,
    /// Size of the file in bytes.
    pub bytes: u64,
    /// The part of the model that the vectors cover, e.g. `rollout`.
    pub kind: String,
}

/// Versions of the programs that made a bundle.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Versions {
    /// Version of `snow-export`.
    pub snow_export: String,
    /// Version of PyTorch.
    pub torch: String,
    /// Version of transformers.
    pub transformers: String,
    /// Version of onnx.
    pub onnx: String,
    /// Version of onnxscript.
    pub onnxscript: String,
    /// Version of the ONNX Runtime that the bundle was checked with.
    pub onnxruntime: String,
    /// ONNX operator sets of the graphs.
    pub opset: String,
}
