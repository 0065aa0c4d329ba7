//! The libraries that a program needs, directly or through others, by the names in their ELF headers, and their files.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Path, PathBuf};

use super::error::PackageError;
use crate::shared_library::glibc::is_glibc;
use crate::shared_library::{Elf, loader_cache};

/// Prefixes of the names of libraries that belong to NVIDIA's toolkit or to cuDNN.
const CUDA: [&str; 12] = [
    "libcublas",
    "libcublasLt",
    "libcudart",
    "libcudnn",
    "libcufft",
    "libcurand",
    "libcusolver",
    "libcusparse",
    "libnvJitLink",
    "libnvblas",
    "libnvrtc",
    "libnvToolsExt",
];

/// Prefixes of the names of libraries that belong to the driver.
const DRIVER: [&str; 2] = ["libcuda.so", "libnvidia-ml.so"];

/// Whether a library belongs to the NVIDIA driver, and so is never packed.
pub(super) fn is_driver(name: &str) -> bool {
    DRIVER.iter().any(|prefix| name.starts_with(prefix))
}

/// Whether a library belongs to CUDA or cuDNN.
pub(super) fn is_cuda(name: &str) -> bool {
    CUDA.iter().any(|prefix| name.starts_with(prefix))
}

/// Names of all libraries that the files of `start` need, directly or through others.
///
/// `needs` gets the name of a library and of the first file that needs it. It returns the names of the libraries that it needs,
/// or `None` if the library is not packed.
///
/// # Errors
/// Those of `needs`.
pub(super) fn close<E>(
    start: &BTreeMap<String, Vec<String>>,
    mut needs: impl FnMut(&str, &str) -> Result<Option<Vec<String>>, E>,
) -> Result<Closure, E> {
    let mut closure = Closure::default();
    let mut queue: VecDeque<(String, String)> = start
        .iter()
        .flat_map(|(by, names)| names.iter().map(|name| (name.clone(), by.clone())))
        .collect();
    while let Some((name, by)) = queue.pop_front() {
        let known = closure.inside.contains(&name) || closure.outside.contains(&name);
        if known || start.contains_key(&name) {
            continue;
        }
        match needs(&name, &by)? {
            Some(further) => {
                queue.extend(further.into_iter().map(|next| (next, name.clone())));
                closure.inside.insert(name);
            }
            None => {
                closure.outside.insert(name);
            }
        }
    }
    Ok(closure)
}

/// The result of [`close`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Closure {
    /// Libraries to pack.
    pub inside: BTreeSet<String>,
    /// Libraries that the system must have.
    pub outside: BTreeSet<String>,
}

/// The places where libraries are searched for.
#[derive(Debug, Default)]
pub(super) struct Places {
    first: Vec<PathBuf>,
    system: BTreeMap<String, PathBuf>,
}

impl Places {
    /// The system's libraries, with folders that are searched first.
    ///
    /// # Errors
    /// [`PackageError::Tool`] without `ldconfig`.
    pub(super) fn new(first: Vec<PathBuf>) -> Result<Self, PackageError> {
        let system = loader_cache::read().ok_or(PackageError::Tool {
            tool: "ldconfig",
            purpose: "lists the system's libraries",
        })?;
        Ok(Self { first, system })
    }

    /// The file of the library `name`.
    pub(super) fn find(&self, name: &str) -> Option<PathBuf> {
        let first = self.first.iter().map(|folder| folder.join(name));
        first
            .chain(self.system.get(name).cloned())
            .find(|path| path.is_file())
    }

    /// Adds the folders of a library's own search path.
    pub(super) fn learn(&mut self, elf: &Elf, file: &Path) {
        let Some(folder) = file
            .canonicalize()
            .ok()
            .and_then(|file| Some(file.parent()?.to_path_buf()))
        else {
            return;
        };
        for entry in &elf.search {
            let place = PathBuf::from(entry.replace("$ORIGIN", &folder.to_string_lossy()));
            if place.is_absolute() && !self.first.contains(&place) {
                self.first.push(place);
            }
        }
    }
}

/// Whether a library is not packed: glibc, the driver, and without `with_cuda` CUDA's libraries.
pub(super) fn left_to_the_system(name: &str, with_cuda: bool) -> bool {
    is_glibc(name) || is_driver(name) || (!with_cuda && is_cuda(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(list: &[&str]) -> Vec<String> {
        list.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn every_library_is_read_once() {
        let start = BTreeMap::from([("program".to_owned(), names(&["a.so", "libc.so.6", "b.so"]))]);
        let mut asked = Vec::new();
        let closure = close(&start, |name, by| {
            asked.push(format!("{name} for {by}"));
            Ok::<_, ()>(match name {
                "a.so" => Some(names(&["b.so", "d.so", "libc.so.6"])),
                "b.so" => Some(names(&["a.so"])),
                "d.so" => Some(Vec::new()),
                _ => None,
            })
        })
        .unwrap();
        assert_eq!(
            closure.inside,
            names(&["a.so", "b.so", "d.so"]).into_iter().collect()
        );
        assert_eq!(closure.outside.iter().collect::<Vec<_>>(), ["libc.so.6"]);
        assert_eq!(
            asked,
            [
                "a.so for program",
                "libc.so.6 for program",
                "b.so for program",
                "d.so for a.so"
            ]
        );
    }

    #[test]
    fn a_missing_library_is_an_error_that_names_the_file_that_needs_it() {
        let start = BTreeMap::from([("program".to_owned(), names(&["a.so"]))]);
        let closure = close(&start, |name, by| match name {
            "a.so" => Ok(Some(names(&["gone.so"]))),
            _ => Err(format!("{name} for {by}")),
        });
        assert_eq!(closure, Err("gone.so for a.so".to_owned()));
    }

    #[test]
    fn cuda_and_driver_are_told_apart() {
        assert!(is_driver("libcuda.so.1") && !is_cuda("libcuda.so.1"));
        assert!(is_cuda("libcudart.so.13") && !is_driver("libcudart.so.13"));
        assert!(left_to_the_system("libcublasLt.so.12", false));
        assert!(!left_to_the_system("libcublasLt.so.12", true));
        assert!(left_to_the_system("libcuda.so.1", true));
        assert!(!left_to_the_system("libz.so.1", false));
    }
}
