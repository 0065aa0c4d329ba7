//! What the doctor measured on a machine, as plain values. Findings are made from these alone.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The doctor plans for at most this number of objects when it says how many fit in memory.
pub const MAX_OBJECTS: usize = 256;

/// Everything that findings are made from.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Facts {
    /// The machine and its system.
    pub host: Host,
    /// NVIDIA's driver.
    pub driver: Driver,
    /// The GPUs that the driver shows.
    pub gpus: Vec<Gpu>,
    /// Index of the GPU that graphs would run on, as `--device-id` takes it.
    pub device_id: i32,
    /// ONNX Runtime's library.
    pub library: LibraryFacts,
    /// The result of each provider that was tried, in the order of the trials.
    pub providers: Vec<ProviderFacts>,
    /// The bundle; null if none was named and none was found.
    pub bundle: Option<BundleFacts>,
    /// Why no bundle was checked; null if one was.
    pub no_bundle: Option<String>,
    /// The provider that the user requires; null if any provider will do.
    pub required: Option<String>,
    /// Why no provider's masks were compared with the processor's; null if they were, or if no reason needs to be given.
    pub not_compared: Option<NotCompared>,
}

/// Why masks were not compared.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct NotCompared {
    /// Whether the user asked for the comparison.
    pub asked: bool,
    /// The reason.
    pub why: String,
    /// What to do so that masks are compared.
    pub fix: String,
}

/// The machine and its system.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Host {
    /// The distribution, such as `Debian GNU/Linux 12 (bookworm)`; null if unknown.
    pub system: Option<String>,
    /// The kernel, such as `Linux 6.1.0`.
    pub kernel: Option<String>,
    /// The processor's architecture, such as `x86_64`.
    pub architecture: String,
    /// Version of glibc, such as `2.36`; null on systems with another C library.
    pub glibc: Option<String>,
    /// The processor's name.
    pub processor: Option<String>,
    /// Cores that this process may use.
    pub cores: usize,
    /// The processor's features on which ONNX Runtime's choice of kernels depends.
    pub features: Vec<String>,
    /// Memory in bytes, or the limit of the control group if that is lower.
    pub memory_bytes: Option<u64>,
    /// Memory in bytes that is not in use.
    pub available_bytes: Option<u64>,
}

/// NVIDIA's driver.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Driver {
    /// Number of NVIDIA devices on the PCI bus, with or without a driver; null if unknown.
    pub pci_devices: Option<usize>,
    /// Why `nvidia-smi` lists no GPU; null if it lists one.
    pub smi_failure: Option<String>,
    /// Path of the driver's library `libcuda.so.1`; null if the loader does not find it.
    pub libcuda: Option<PathBuf>,
}

/// A GPU.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Gpu {
    /// Its index, as `--device-id` takes it.
    pub index: i32,
    /// Its name.
    pub name: String,
    /// Its architecture.
    pub compute: Compute,
    /// Its memory in bytes.
    pub memory_bytes: u64,
    /// Memory in bytes that other processes hold; null if `nvidia-smi` does not say.
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

/// ONNX Runtime's library: facts from its files, and what it reports once it is loaded.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct LibraryFacts {
    /// The file; null if none was found.
    pub path: Option<PathBuf>,
    /// The rule that found it, such as `--ort-lib`.
    pub origin: Option<String>,
    /// The error of the search; null if a library was found.
    pub missing: Option<String>,
    /// Its version, from the file's name or as the library reports it; null if unknown.
    pub version: Option<String>,
    /// Its build information, as the library reports it.
    pub build: Option<String>,
    /// The providers that it lists.
    pub providers: Vec<String>,
    /// The oldest glibc that it runs with, such as `2.28`.
    pub needs_glibc: Option<String>,
    /// The part for NVIDIA GPUs; null in a library for processors only.
    pub cuda: Option<CudaFacts>,
}

/// The library's part for NVIDIA GPUs.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct CudaFacts {
    /// The file.
    pub path: PathBuf,
    /// The CUDA that it was built for: 12 or 13.
    pub cuda_major: Option<u32>,
    /// The architectures that it has machine code for, ascending; empty if unknown.
    pub kernels: Vec<Compute>,
    /// The architectures that it has code for which the driver can translate for later GPUs.
    pub portable: Vec<Compute>,
    /// The libraries of CUDA and cuDNN that it needs.
    pub needs: Vec<Needed>,
    /// Version of the cuDNN that the loader takes; null if unknown.
    pub cudnn: Option<String>,
}

/// A shared library that another one needs.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Needed {
    /// Its name, such as `libcublas.so.13`.
    pub name: String,
    /// The file that the loader takes; null if it finds none.
    pub found: Option<PathBuf>,
    /// A file of this name in a folder that the loader does not search; null if `found` is set.
    pub elsewhere: Option<PathBuf>,
}

/// The result of trying one provider in a separate process.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ProviderFacts {
    /// `cpu` or `cuda`.
    pub provider: String,
    /// Whether a session was created and computed the right values.
    pub serves: bool,
    /// What ended the trial early; null if the trial was completed.
    pub failure: Option<Failure>,
    /// The memory that is available and that the bundle needs; null without a bundle.
    pub memory: Option<MemoryFacts>,
    /// Results of the bundle's graphs.
    pub graphs: Vec<GraphFacts>,
    /// Agreement of its masks of the drawn clip with the processor's; null for the processor, and if not compared.
    pub masks: Option<MasksFacts>,
    /// Why the drawn clip could not be tracked on it; null if it was tracked, or not tried.
    pub clip_failure: Option<Failure>,
}

/// What each object's masks must satisfy to count as the same as the processor's.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Limit {
    /// Lower limit of the mean IoU with the processor's masks; 0 to 1.
    IouAtLeast(f64),
    /// Upper limit of the mean relative L2 distance from the processor's logits.
    L2AtMost(f64),
}

impl std::fmt::Display for Limit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::IouAtLeast(min) => write!(f, "at least {min}"),
            Self::L2AtMost(max) => write!(f, "at most {max:.0e}"),
        }
    }
}

impl Limit {
    /// Whether one object satisfies it. A value that is not finite never does.
    pub fn holds(self, object: &ObjectAgreement) -> bool {
        let Some(distance) = object.relative_l2 else {
            return false;
        };
        match self {
            Self::IouAtLeast(min) => object.mean_iou >= min,
            Self::L2AtMost(max) => distance <= max,
        }
    }

    /// Whether all objects satisfy it; true for an empty list.
    pub fn all(self, objects: &[ObjectAgreement]) -> bool {
        objects.iter().all(|object| self.holds(object))
    }
}

/// Agreement of a provider's masks of the drawn clip with the processor's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MasksFacts {
    /// Number of frames.
    pub frames: usize,
    /// Number of the processor's masks (all objects, all frames) that are not empty.
    pub seen: usize,
    /// What each object must satisfy.
    pub limit: Limit,
    /// Each object, with all objects tracked in one batch.
    pub together: Vec<ObjectAgreement>,
    /// Each object, with objects tracked one at a time (`--chunk 1`).
    pub alone: Vec<ObjectAgreement>,
}

/// Agreement of one object's masks with the processor's.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ObjectAgreement {
    /// Number of the object, from 1.
    pub object: u32,
    /// IoU of the masks at the resolution of the logits, averaged over the frames; 0 to 1.
    pub mean_iou: f64,
    /// Relative L2 distance of the logits, averaged over the frames; null if a value is not finite.
    pub relative_l2: Option<f64>,
}

/// What ended a trial.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Failure {
    /// The step that failed, in words.
    pub during: String,
    /// How the trial ended.
    pub kind: FailureKind,
    /// The reason, as the library or the system reports it.
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
    /// The time limit passed, and the process was ended.
    Timeout,
}

/// The memory that a provider has and that a bundle needs.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct MemoryFacts {
    /// Bytes that graphs may take: the free memory, less what the program needs outside of the arena.
    pub budget_bytes: u64,
    /// Bytes needed to track one object.
    pub one_object_bytes: u64,
    /// Number of objects that the plan is for.
    pub objects: usize,
    /// Bytes needed to track that number of objects.
    pub total_bytes: u64,
    /// The largest number of objects that fit in the budget, up to [`MAX_OBJECTS`].
    pub most_objects: usize,
}

/// The result of running one of the bundle's graphs.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct GraphFacts {
    /// The graph's role.
    pub role: String,
    /// Why it could not be loaded or run; null if it ran.
    pub failure: Option<String>,
    /// The comparison with its golden vectors; null if the bundle has none for it.
    pub golden: Option<GoldenFacts>,
    /// Its nodes, by provider and operator.
    pub placement: Vec<Placement>,
    /// The kernels that its attention nodes ran in, as the library reports them.
    pub attention: Vec<AttentionKernel>,
}

/// The distance of a graph's outputs from the unpatched reference.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct GoldenFacts {
    /// The output with the largest distance.
    pub output: String,
    /// Its relative L2 distance; null if a value is not finite.
    pub relative_l2: Option<f64>,
}

/// Nodes of one operator on one provider.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Placement {
    /// The provider by the library's name for it, such as `CUDAExecutionProvider`.
    pub provider: String,
    /// The operator.
    pub operator: String,
    /// Number of nodes.
    pub nodes: usize,
}

/// Attention nodes of a graph that ran in the same kernel.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct AttentionKernel {
    /// The operator.
    pub operator: String,
    /// The number format.
    pub dtype: String,
    /// The kernel, such as `FLASH_ATTENTION`.
    pub kernel: String,
    /// Number of nodes.
    pub nodes: usize,
}

/// The bundle.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct BundleFacts {
    /// Its folder.
    pub dir: PathBuf,
    /// Why it cannot be used; null if every file is as it was exported.
    pub failure: Option<String>,
    /// The model's name.
    pub name: Option<String>,
    /// Side of the image, in pixels.
    pub resolution: Option<u32>,
    /// `fp32`, `fp16` or `int8`.
    pub precision: Option<String>,
    /// Number of files that were checked.
    pub files: usize,
    /// Number of graphs that have golden vectors.
    pub golden_graphs: usize,
    /// Whether the weights are random.
    pub random_weights: bool,
}
