//! What a package is made from.

use std::path::PathBuf;

use super::runtime::RuntimeSet;

/// What a package is made from.
#[derive(Debug, Clone)]
pub struct Recipe {
    /// The program's file.
    pub program: PathBuf,
    /// The set of ONNX Runtime's libraries.
    pub runtime: RuntimeSet,
    /// Folders with installed Python distributions, such as site-packages. The first folder with a distribution is used.
    pub distributions: Vec<PathBuf>,
    /// Whether the package holds CUDA's libraries.
    pub cuda: bool,
    /// A folder with FFmpeg's libraries that scripts/build-ffmpeg made; the system's libraries if absent.
    pub ffmpeg: Option<PathBuf>,
    /// Folders of bundles.
    pub bundles: Vec<PathBuf>,
}
