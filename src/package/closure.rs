//! All that a program and its libraries need, by the names in their ELF headers, and where a system has it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Path, PathBuf};

use super::PackageError;
use super::elf::Elf;
use super::glibc::is_glibc;
use crate::loader_cache;

/// What NVIDIA's toolkit and cuDNN have: the prefixes of their libraries' names.
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

/// What comes with the driver and must fit it.
const DRIVER: [&str; 2] = ["libcuda.so", "libnvidia-ml.so"];

/// Whether a library belongs to the NVIDIA driver, which a package never has.
pub fn is_driver(name: &str) -> bool {
    DRIVER.iter().any(|prefix| name.starts_with(prefix))
}

/// Whether a library is CUDA's or cuDNN's.
pub fn is_cuda(name: &str) -> bool {
    CUDA.iter().any(|prefix| name.starts_with(prefix))
}

/// Names of all libraries that `start` needs, directly or through others.
///
/// `needs` says what a library needs in turn, given its name, or nothing for one that is left to the system.
///
/// # Errors
/// Those of `needs`, which also gets to know who asked first.
pub fn close<E>(
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

/// What [`close`] found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Closure {
    /// Libraries that go along.
    pub inside: BTreeSet<String>,
    /// Libraries that the system must have.
    pub outside: BTreeSet<String>,
}

/// Where libraries are looked for.
#[derive(Debug, Default)]
pub struct Places {
    first: Vec<PathBuf>,
    system: BTreeMap<String, PathBuf>,
}

impl Places {
    /// Folders that come before the system's own.
    ///
    /// # Errors
    /// [`PackageError::Tool`] without `ldconfig`.
    pub fn new(first: Vec<PathBuf>) -> Result<Self, PackageError> {
        let system = loader_cache::read().ok_or(PackageError::Tool {
            tool: "ldconfig",
            purpose: "says where the system's libraries are",
        })?;
        Ok(Self { first, system })
    }

    /// The file of a library.
    pub fn find(&self, name: &str) -> Option<PathBuf> {
        let beside = self.first.iter().map(|folder| folder.join(name));
        beside
            .chain(self.system.get(name).cloned())
            .find(|path| path.is_file())
    }

    /// Adds the folders that a library names itself.
    pub fn learn(&mut self, elf: &Elf, file: &Path) {
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

/// Whether a library stays out of a package: glibc, the driver, and CUDA's where they do not go along.
pub fn left_to_the_system(name: &str, with_cuda: bool) -> bool {
    is_glibc(name) || is_driver(name) || (!with_cuda && is_cuda(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(list: &[&str]) -> Vec<String> {
        list.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn the_closure_follows_every_library_once() {
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
    fn a_library_that_is_nowhere_is_an_error_with_who_asked() {
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
