//! `package.json`: the files of a package, and what it needs on the machine that runs it.

use serde::{Deserialize, Serialize};

/// The file's name in a package.
pub const MANIFEST: &str = "package.json";

/// The layout of the file that this program writes.
pub(super) const SCHEMA_VERSION: u32 = 1;

/// The contents of package.json.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of this layout.
    pub schema_version: u32,
    /// The folder that contains all files.
    pub name: String,
    /// The program's version.
    pub version: String,
    /// Kernel and architecture, such as `linux-x86_64`.
    pub system: String,
    /// The set of ONNX Runtime's libraries: cpu, cuda13 or cuda12-sm70.
    pub runtime: String,
    /// The wheel from which these were taken.
    pub onnxruntime: String,
    /// Whether the program reads video files.
    pub video: bool,
    /// Whether the package holds CUDA's libraries.
    pub cuda_libs: bool,
    /// What the machine must have.
    pub needs: Needs,
    /// Bundles in `models/`.
    pub bundles: Vec<BundleEntry>,
    /// All other files, in the order of their paths.
    pub files: Vec<FileEntry>,
}

/// What the machine must have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Needs {
    /// The oldest glibc that has all symbols that the files need.
    pub glibc: String,
    /// The same for each part of the package, the program first.
    pub glibc_by_part: Vec<PartNeeds>,
    /// Libraries that the package does not hold and the loader must find.
    pub libraries: Vec<String>,
    /// The oldest NVIDIA driver that works; null in a package for processors.
    pub nvidia_driver: Option<String>,
    /// The lowest compute capability of a GPU; null in a package for processors.
    pub compute_capability: Option<String>,
}

/// The glibc that one part of a package needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartNeeds {
    /// The part, such as `snow-ort 0.1.0`.
    pub part: String,
    /// The oldest glibc that it runs with.
    pub glibc: String,
}

/// A bundle of a package.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BundleEntry {
    /// Its folder.
    pub path: String,
    /// SHA-256 of its manifest.json.
    pub manifest_sha256: String,
    /// The checkpoint's licence.
    pub licence: String,
}

/// A file of a package.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// Its path.
    pub path: String,
    /// Its size.
    pub bytes: u64,
    /// SHA-256 of its content.
    pub sha256: String,
    /// The part that it belongs to, such as `libx264-164 2:0.164.3095`.
    pub from: String,
    /// SHA-256 of the original file, if its RPATH was set or its debug information removed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub original_sha256: Option<String>,
}
