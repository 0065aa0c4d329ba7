//! What is known of a machine, as plain values: whoever judges them needs no machine.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::masks::Limit;

/// Everything that a judgement rests on.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Facts {
    /// The machine and its system.
    pub host: Host,
    /// NVIDIA's driver.
    pub driver: Driver,
    /// The GPUs that the driver shows.
    pub gpus: Vec<Gpu>,
    /// The GPU that graphs would run on, as `--device-id` names it: its index among those.
    pub device_id: i32,
    /// ONNX Runtime's library.
    pub library: LibraryFacts,
    /// What came of each provider that was tried, in the order in which they were.
    pub providers: Vec<ProviderFacts>,
    /// The bundle; null when none was named and none was found.
    pub bundle: Option<BundleFacts>,
    /// Why no bundle was looked at; null with one.
    pub no_bundle: Option<String>,
    /// The provider that was asked for and has to serve; null when any will do.
    pub required: Option<String>,
    /// Why no provider's masks were compared with the processor's; null if they were, or if there was nothing to say of it.
    pub not_compared: Option<NotCompared>,
}

/// Why masks were not compared.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct NotCompared {
    /// Whether it was asked for.
    pub asked: bool,
    /// Why not.
    pub why: String,
    /// What to do to have it done.
    pub fix: String,
}

/// The machine and its system.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Host {
    /// The distribution, such as `Debian GNU/Linux 12 (bookworm)`; null where the system does not tell.
    pub system: Option<String>,
    /// The kernel, such as `Linux 6.1.0`.
    pub kernel: Option<String>,
    /// The processor's architecture, such as `x86_64`.
    pub architecture: String,
    /// Version of glibc, such as `2.36`; null with another C library.
    pub glibc: Option<String>,
    /// The processor's name.
    pub processor: Option<String>,
    /// Cores that this process may use.
    pub cores: usize,
    /// Those of its features that ONNX Runtime's kernels choose by.
    pub features: Vec<String>,
    /// Memory in bytes, or what a control group allows of it.
    pub memory_bytes: Option<u64>,
    /// Memory in bytes that is not in use.
    pub available_bytes: Option<u64>,
}

/// NVIDIA's driver.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Driver {
    /// NVIDIA devices on the PCI bus, with or without a driver; null where the system does not tell.
    pub pci_devices: Option<usize>,
    /// Why `nvidia-smi` shows no GPU; null if it shows some.
    pub smi_failure: Option<String>,
    /// The driver's library, `libcuda.so.1`; null if the loader would not find it.
    pub libcuda: Option<PathBuf>,
}

/// A GPU.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Gpu {
    /// Its number, as `--device-id` takes it.
    pub index: i32,
    /// Its name.
    pub name: String,
    /// Its architecture.
    pub compute: Compute,
    /// Its memory in bytes.
    pub memory_bytes: u64,
    /// Memory in bytes that other processes hold; null where `nvidia-smi` does not tell.
    pub used_bytes: Option<u64>,
    /// Version of the driver.
    pub driver: String,
}

/// A GPU's architecture: 7.0 is sm_70.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Compute {
    /// The generation.
    pub major: u32,
    /// The variant.
    pub minor: u32,
}

impl std::fmt::Display for Compute {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "sm_{}{}", self.major, self.minor)
    }
}

impl std::str::FromStr for Compute {
    type Err = String;

    /// Reads `7.0`, as `nvidia-smi` writes it.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let numbers = text.trim().split_once('.').and_then(|(major, minor)| {
            Some(Self {
                major: major.parse().ok()?,
                minor: minor.parse().ok()?,
            })
        });
        numbers.ok_or_else(|| format!("expected an architecture such as 7.0, got {text:?}"))
    }
}

/// ONNX Runtime's library, as its files show it, and as it says of itself once it is loaded.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct LibraryFacts {
    /// The file; null if there is none.
    pub path: Option<PathBuf>,
    /// Which rule found it.
    pub origin: Option<String>,
    /// Why there is none, in the program's own words; null with one.
    pub missing: Option<String>,
    /// Its version, from the file's name or from itself; null if neither says.
    pub version: Option<String>,
    /// Its build, as it says itself.
    pub build: Option<String>,
    /// The providers that it names.
    pub providers: Vec<String>,
    /// The glibc that it needs at least, such as `2.28`.
    pub needs_glibc: Option<String>,
    /// The part for NVIDIA GPUs; null in a library for the processor.
    pub cuda: Option<CudaFacts>,
}

/// The library's part for NVIDIA GPUs.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct CudaFacts {
    /// The file.
    pub path: PathBuf,
    /// The CUDA that it was built for: 12 or 13.
    pub cuda_major: Option<u32>,
    /// The architectures that it has machine code for, ascending; empty if the file does not tell.
    pub kernels: Vec<Compute>,
    /// The architectures that it has code for which the driver can translate for later GPUs.
    pub portable: Vec<Compute>,
    /// What it needs of CUDA and cuDNN.
    pub needs: Vec<Needed>,
    /// Version of the cuDNN that the loader would take; null if nothing tells.
    pub cudnn: Option<String>,
}

/// A shared library that another one needs.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Needed {
    /// Its name, such as `libcublas.so.13`.
    pub name: String,
    /// Where the loader would find it.
    pub found: Option<PathBuf>,
    /// Where it lies all the same, if the loader would not find it.
    pub elsewhere: Option<PathBuf>,
}

/// What came of one provider, tried in a process of its own.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ProviderFacts {
    /// `cpu` or `cuda`.
    pub provider: String,
    /// Whether a session was made and computed what it should.
    pub serves: bool,
    /// What ended the trial early; null if nothing did.
    pub failure: Option<Failure>,
    /// The memory that it has and the bundle needs; null without a bundle.
    pub memory: Option<MemoryFacts>,
    /// The bundle's graphs, as they ran.
    pub graphs: Vec<GraphFacts>,
    /// How its masks of the drawn clip agree with the processor's; null for the processor, and where it was not compared.
    pub masks: Option<MasksFacts>,
    /// Why the drawn clip could not be followed on it; null if it could, or was not tried.
    pub clip_failure: Option<Failure>,
}

/// A provider's masks of the drawn clip, against the processor's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MasksFacts {
    /// Frames that were followed.
    pub frames: usize,
    /// Masks of the processor, of all objects on all frames, that are not empty.
    pub seen: usize,
    /// What each object has to keep.
    pub limit: Limit,
    /// Each object, all of them followed in one batch.
    pub together: Vec<ObjectAgreement>,
    /// Each object, followed one at a time (`--chunk 1`).
    pub alone: Vec<ObjectAgreement>,
}

/// How an object's masks agree with the processor's.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ObjectAgreement {
    /// The object, from 1.
    pub object: u32,
    /// IoU of the masks at the resolution of the logits, averaged over the frames; 0 to 1.
    pub mean_iou: f64,
    /// Relative L2 distance of the logits, averaged over the frames; null if a value is not finite.
    pub relative_l2: Option<f64>,
}

/// What ended a trial.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Failure {
    /// What was being done.
    pub during: String,
    /// How it ended.
    pub kind: FailureKind,
    /// The reason, in the library's or the system's words.
    pub reason: String,
}

/// How a trial ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// The library is older than this program needs.
    TooOld,
    /// An error was returned.
    Error,
    /// The process crashed.
    Crash,
    /// It took too long, and was ended.
    Timeout,
}

/// What a bundle needs of a provider's memory.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct MemoryFacts {
    /// Bytes that graphs may take: what is free, less what is taken beside the arena.
    pub budget_bytes: u64,
    /// Bytes that following one object takes.
    pub one_object_bytes: u64,
    /// Objects that the plan was made for.
    pub objects: usize,
    /// Bytes that following so many takes.
    pub total_bytes: u64,
    /// The most objects that fit in the budget, up to [`super::MOST_OBJECTS`].
    pub most_objects: usize,
}

/// One of the bundle's graphs, as it ran.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct GraphFacts {
    /// The graph's role.
    pub role: String,
    /// Why it could not be loaded or run; null if it could.
    pub failure: Option<String>,
    /// The golden vectors' verdict; null if the bundle has none for it.
    pub golden: Option<GoldenFacts>,
    /// Its nodes, by provider and operator.
    pub placement: Vec<Placement>,
    /// The kernels that its attention ran in, as the library told.
    pub attention: Vec<AttentionKernel>,
}

/// How far a graph's outputs are from the unpatched reference.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct GoldenFacts {
    /// The output that is furthest.
    pub output: String,
    /// Its relative L2 distance; null if a value is not finite.
    pub relative_l2: Option<f64>,
}

/// Nodes of one operator on one provider.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Placement {
    /// The provider, in the library's words, such as `CUDAExecutionProvider`.
    pub provider: String,
    /// The operator.
    pub operator: String,
    /// How many nodes.
    pub nodes: usize,
}

/// Attention nodes that ran in one kernel.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct AttentionKernel {
    /// The operator.
    pub operator: String,
    /// The number format.
    pub dtype: String,
    /// The kernel, such as `FLASH_ATTENTION`.
    pub kernel: String,
    /// How many nodes.
    pub nodes: usize,
}

/// The bundle.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct BundleFacts {
    /// Its folder.
    pub dir: PathBuf,
    /// Why it cannot be used; null if every file is the one that was exported.
    pub failure: Option<String>,
    /// The model's name.
    pub name: Option<String>,
    /// Side of the image, in pixels.
    pub resolution: Option<u32>,
    /// `fp32`, `fp16` or `int8`.
    pub precision: Option<String>,
    /// Files that were checked.
    pub files: usize,
    /// Graphs that have golden vectors.
    pub golden_graphs: usize,
    /// Whether the weights are random.
    pub random_weights: bool,
}
