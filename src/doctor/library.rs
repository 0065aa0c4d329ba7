//! Facts of ONNX Runtime's library from its files alone. Nothing is loaded.

use std::path::Path;

use super::facts::{CudaFacts, LibraryFacts};
use super::gpu_code;
use super::links::{self, Links};
use crate::runtime::library;
use crate::shared_library::{Elf, Glibc};

/// The file with the CUDA provider, in the library's folder.
const CUDA_PART: &str = "libonnxruntime_providers_cuda.so";

/// Finds the library as a run does, and reads its files. `path` is the library or the folder that the user named.
pub fn facts(path: Option<&Path>, links: &Links) -> LibraryFacts {
    let library = match library::find(path) {
        Ok(library) => library,
        Err(error) => {
            return LibraryFacts {
                missing: Some(error.to_string()),
                ..LibraryFacts::default()
            };
        }
    };
    // A file without valid headers fails when it is loaded, with a better message.
    let elf = Elf::read(&library.path).unwrap_or_default();
    let name = library.path.file_name().unwrap_or_default();
    let name = name.to_string_lossy();
    let version = name.split_once(".so.").map(|(_, version)| version);
    let part = library.path.with_file_name(CUDA_PART);
    LibraryFacts {
        version: version
            .filter(|version| version.contains('.'))
            .map(str::to_owned),
        origin: Some(library.origin),
        needs_glibc: Glibc::needed_by(&elf).map(|glibc| glibc.to_string()),
        cuda: part.is_file().then(|| cuda(&part, links)),
        path: Some(library.path),
        ..LibraryFacts::default()
    }
}

fn cuda(part: &Path, links: &Links) -> CudaFacts {
    let elf = Elf::read(part).unwrap_or_default();
    let code = gpu_code::read(part, &elf).unwrap_or_default();
    let cuda_major = elf.needed.iter().find_map(|name| {
        let version = name.strip_prefix("libcudart.so.")?;
        version.split('.').next()?.parse::<u32>().ok()
    });
    // Libraries that it opens while it runs, so that they are not in its headers.
    let mut opened = vec!["libcudnn.so.9".to_owned()];
    opened.extend(cuda_major.map(|major| format!("libnvrtc.so.{major}")));
    opened.retain(|name| !elf.needed.contains(name));
    let mut needs = links.resolve(part, &elf, &opened);
    needs.retain(|needed| is_from_nvidia(&needed.name));
    let cudnn = needs
        .iter()
        .find(|needed| needed.name.starts_with("libcudnn.so"))
        .and_then(|needed| needed.found.as_ref().or(needed.elsewhere.as_ref()))
        .and_then(|path| links::cudnn_version(path));
    CudaFacts {
        path: part.to_path_buf(),
        cuda_major,
        kernels: code.native,
        portable: code.portable,
        needs,
        cudnn,
    }
}

/// Whether a library belongs to the driver, CUDA or cuDNN. Every system has the others.
fn is_from_nvidia(name: &str) -> bool {
    ["libcu", "libnv"]
        .iter()
        .any(|start| name.starts_with(start))
        && !name.starts_with("libcurl")
}
