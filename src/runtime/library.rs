//! Finds the ONNX Runtime library: a given path, `ORT_DYLIB_PATH`, next to the executable, or in the project's `.venv`.

use std::env;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use super::GraphError;
#[cfg(target_os = "linux")]
use crate::shared_library::elf::{self, ElfError};

/// A library file and how it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Library {
    /// The file.
    pub path: PathBuf,
    /// The flag, the variable or the place, as text.
    pub origin: String,
}

/// Finds the library. A path that was given, by `flag` or by the variable, must hold one; otherwise the first place that holds one
/// is taken.
///
/// # Errors
/// [`GraphError::LibraryMissing`] for a given path without a library, [`GraphError::NoLibrary`] with all places otherwise.
pub fn find(flag: Option<&Path>) -> Result<Library, GraphError> {
    if let Some(path) = flag {
        return named(path, "--ort-lib");
    }
    let mut looked = vec!["--ort-lib: not given".to_owned()];
    match env::var_os("ORT_DYLIB_PATH") {
        Some(value) if !value.is_empty() => return named(Path::new(&value), "ORT_DYLIB_PATH"),
        _ => looked.push("ORT_DYLIB_PATH: not set".to_owned()),
    }
    let executable = env::current_exe()
        .ok()
        .and_then(|path| path.canonicalize().ok());
    if let Some(folder) = executable.as_deref().and_then(Path::parent) {
        for place in [folder.to_path_buf(), folder.join("lib")] {
            if let Some(path) = in_folder(&place) {
                return Ok(Library {
                    path,
                    origin: "next to the executable".to_owned(),
                });
            }
            looked.push(format!("next to the executable: {}", place.display()));
        }
    }
    let starts = [
        env::current_dir().ok(),
        executable.and_then(|path| path.parent().map(Path::to_path_buf)),
    ];
    let mut seen = Vec::new();
    for start in starts.into_iter().flatten() {
        for ancestor in start.ancestors() {
            let venv = ancestor.join(".venv");
            if seen.contains(&venv) {
                continue;
            }
            if venv.is_dir() {
                if let Some(path) = in_venv(&venv) {
                    return Ok(Library {
                        path,
                        origin: "the project's .venv".to_owned(),
                    });
                }
                looked.push(format!(
                    "virtual environment without onnxruntime: {}",
                    venv.display()
                ));
            }
            seen.push(venv);
        }
        looked.push(format!(
            ".venv in {} and the folders above",
            start.display()
        ));
    }
    Err(GraphError::NoLibrary { looked })
}

fn named(path: &Path, origin: &str) -> Result<Library, GraphError> {
    let missing = |reason: &str| GraphError::LibraryMissing {
        path: path.to_path_buf(),
        origin: origin.to_owned(),
        reason: reason.to_owned(),
    };
    let found = if path.is_dir() {
        in_folder(path)
            .or_else(|| in_folder(&path.join("onnxruntime/capi")))
            .or_else(|| in_folder(&path.join("lib")))
            .or_else(|| in_venv(path))
            .ok_or_else(|| missing("the folder holds no libonnxruntime.so"))?
    } else if path.is_file() {
        path.to_path_buf()
    } else {
        return Err(missing("no such file or folder"));
    };
    // A bare file name would be searched on the loader's path instead of here.
    let path = found
        .canonicalize()
        .map_err(|error| missing(&error.to_string()))?;
    Ok(Library {
        path,
        origin: origin.to_owned(),
    })
}

/// Refuses a file that the loader would map and then crash on: a truncated library raises SIGBUS, not an error.
///
/// # Errors
/// [`GraphError::LibraryLoad`] for a file that is not a shared library, or is shorter than its headers say.
#[cfg(target_os = "linux")]
pub(super) fn check(library: &Library) -> Result<(), GraphError> {
    let failed = |reason: String| GraphError::LibraryLoad {
        path: library.path.clone(),
        origin: library.origin.clone(),
        reason,
    };
    let size = std::fs::metadata(&library.path)
        .map_err(|error| failed(error.to_string()))?
        .len();
    let end = elf::length_by_header(&library.path).map_err(|error| {
        failed(match error {
            ElfError::Read(error) => error.to_string(),
            ElfError::Format(_) => "it is not a 64-bit shared library".to_owned(),
        })
    })?;
    if end > size {
        return Err(failed(format!(
            "it is truncated: {size} bytes, expected at least {end}; install it again"
        )));
    }
    Ok(())
}

/// Loaders of other systems return an error.
#[cfg(not(target_os = "linux"))]
pub(super) fn check(_: &Library) -> Result<(), GraphError> {
    Ok(())
}

/// `libonnxruntime.so` or the highest `libonnxruntime.so.*` of a folder.
fn in_folder(folder: &Path) -> Option<PathBuf> {
    let mut found: Vec<PathBuf> = std::fs::read_dir(folder)
        .ok()?
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.is_file() && path.file_name().is_some_and(is_library))
        .collect();
    found.sort();
    found.pop()
}

fn is_library(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    name == "libonnxruntime.so"
        || name.starts_with("libonnxruntime.so.")
        || (name.starts_with("libonnxruntime.") && name.ends_with(".dylib"))
        || name == "onnxruntime.dll"
}

fn in_venv(venv: &Path) -> Option<PathBuf> {
    let mut pythons: Vec<PathBuf> = std::fs::read_dir(venv.join("lib"))
        .ok()?
        .flatten()
        .map(|entry| entry.path())
        .collect();
    pythons.sort();
    pythons
        .iter()
        .rev()
        .find_map(|python| in_folder(&python.join("site-packages/onnxruntime/capi")))
}
