//! ONNX Runtime's library, from its files alone: nothing is loaded.

use std::path::Path;

use super::elf;
use super::facts::{CudaFacts, LibraryFacts};
use super::links::{self, Links};
use crate::runtime::library;

/// The file with the part for NVIDIA GPUs, beside the library.
const CUDA_PART: &str = "libonnxruntime_providers_cuda.so";

/// Finds the library as a run does, and reads what its files tell.
pub fn look(flag: Option<&Path>, links: &Links) -> LibraryFacts {
    let library = match library::find(flag) {
        Ok(library) => library,
        Err(error) => {
            return LibraryFacts {
                missing: Some(error.to_string()),
                ..LibraryFacts::default()
            };
        }
    };
    // A file that cannot be read as one fails when it is loaded, with a better message.
    let elf = elf::read(&library.path).unwrap_or_default();
    let name = library.path.file_name().unwrap_or_default();
    let name = name.to_string_lossy();
    let version = name.split_once(".so.").map(|(_, version)| version);
    let part = library.path.with_file_name(CUDA_PART);
    LibraryFacts {
        version: version
            .filter(|version| version.contains('.'))
            .map(str::to_owned),
        origin: Some(library.origin),
        needs_glibc: elf.glibc,
        cuda: part.is_file().then(|| cuda(&part, links)),
        path: Some(library.path),
        ..LibraryFacts::default()
    }
}

fn cuda(part: &Path, links: &Links) -> CudaFacts {
    let elf = elf::read(part).unwrap_or_default();
    let kernels = elf::kernels(part, &elf).unwrap_or_default();
    let cuda_major = elf.needed.iter().find_map(|name| {
        let version = name.strip_prefix("libcudart.so.")?;
        version.split('.').next()?.parse::<u32>().ok()
    });
    // What it opens by itself while it runs, in the versions that it knows.
    let mut opened = vec!["libcudnn.so.9".to_owned()];
    opened.extend(cuda_major.map(|major| format!("libnvrtc.so.{major}")));
    opened.retain(|name| !elf.needed.contains(name));
    let mut needs = links.resolve(part, &elf, &opened);
    needs.retain(|needed| is_nvidias(&needed.name));
    let cudnn = needs
        .iter()
        .find(|needed| needed.name.starts_with("libcudnn.so"))
        .and_then(|needed| needed.found.as_ref().or(needed.elsewhere.as_ref()))
        .and_then(|path| links::cudnn_version(path));
    CudaFacts {
        path: part.to_path_buf(),
        cuda_major,
        kernels: kernels.native,
        portable: kernels.portable,
        needs,
        cudnn,
    }
}

/// Whether a library comes with the driver, CUDA or cuDNN; every system has the others.
fn is_nvidias(name: &str) -> bool {
    ["libcu", "libnv"]
        .iter()
        .any(|start| name.starts_with(start))
        && !name.starts_with("libcurl")
}
