//! A package in a few lines of text.

use std::path::Path;

use super::files::Package;
use crate::size;
use crate::words::counted;

/// Bytes of all files of a package.
pub fn unpacked_bytes(package: &Package) -> u64 {
    package.entries.iter().map(|(_, sum)| sum.bytes).sum()
}

/// What the package in `archive`, which has `packed` bytes, holds and needs.
pub fn lines(package: &Package, archive: &Path, packed: u64) -> Vec<String> {
    let manifest = &package.manifest;
    let input = match manifest.video {
        true => "videos and folders of images",
        false => "folders of images only",
    };
    let mut lines = vec![
        format!(
            "done: {}, {}, {} unpacked",
            counted(package.entries.len() as u64, "file"),
            size::show(packed),
            size::show(unpacked_bytes(package))
        ),
        format!("package  {}", archive.display()),
        format!("folder   {}", manifest.name),
        format!("runtime  {}", manifest.onnxruntime),
        format!("input    {input}"),
    ];
    let bundles = manifest.bundles.iter();
    lines.extend(bundles.map(|bundle| format!("model    {}", bundle.path)));
    let needs = &manifest.needs;
    lines.push(format!("needs    glibc {} or later", needs.glibc));
    if let (Some(driver), Some(capability)) = (&needs.nvidia_driver, &needs.compute_capability) {
        lines.push(format!(
            "         for a GPU: driver {driver}, compute capability {capability}, or later"
        ));
        if !manifest.cuda_libs {
            lines.push(
                "         for a GPU: CUDA's libraries and cuDNN, which are not inside".to_owned(),
            );
        }
    }
    lines
}
