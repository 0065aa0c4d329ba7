//! Finds shared libraries as the system's loader does, and those that lie in folders that it does not search.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::facts::Needed;
use crate::shared_library::{Elf, loader_cache};

/// Where the loader searches, after the folders that a library names itself.
#[derive(Debug, Clone, Default)]
pub struct Links {
    /// `LD_LIBRARY_PATH`.
    named: Vec<PathBuf>,
    /// The loader's cache: names and files.
    cache: BTreeMap<String, PathBuf>,
    /// The system's own folders.
    system: Vec<PathBuf>,
}

impl Links {
    /// The search path of this process.
    pub fn here() -> Self {
        let named = std::env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
        let architecture = std::env::consts::ARCH;
        Self {
            named: std::env::split_paths(&named)
                .filter(|dir| !dir.as_os_str().is_empty())
                .collect(),
            cache: loader_cache::read().unwrap_or_default(),
            system: [
                format!("/lib/{architecture}-linux-gnu"),
                format!("/usr/lib/{architecture}-linux-gnu"),
                "/lib64".to_owned(),
                "/usr/lib64".to_owned(),
                "/lib".to_owned(),
                "/usr/lib".to_owned(),
            ]
            .map(PathBuf::from)
            .to_vec(),
        }
    }

    /// A loader that searches these folders only.
    pub fn only(dirs: &[PathBuf]) -> Self {
        Self {
            named: dirs.to_vec(),
            ..Self::default()
        }
    }

    /// The file that the loader takes for the library `name`.
    pub fn find(&self, name: &str) -> Option<PathBuf> {
        in_dirs(&self.named, name)
            .or_else(|| self.cache.get(name).cloned())
            .or_else(|| in_dirs(&self.system, name))
    }

    /// The libraries that the library at `path` needs, and those named in `more`, with the files that the loader takes for
    /// them.
    pub fn resolve(&self, path: &Path, elf: &Elf, more: &[String]) -> Vec<Needed> {
        let origin = path.parent().unwrap_or(Path::new("."));
        let own: Vec<PathBuf> = elf
            .search
            .iter()
            .map(|dir| {
                let dir = dir.replace("${ORIGIN}", "$ORIGIN");
                match dir.strip_prefix("$ORIGIN") {
                    Some(rest) => origin.join(rest.trim_start_matches('/')),
                    None => PathBuf::from(dir),
                }
            })
            .collect();
        let outside = folders_outside_of_the_path(origin);
        let names = elf.needed.iter().chain(more);
        names
            .map(|name| {
                let found = in_dirs(&own, name).or_else(|| self.find(name));
                let elsewhere = match found {
                    Some(_) => None,
                    None => in_dirs(&outside, name),
                };
                Needed {
                    name: name.clone(),
                    found,
                    elsewhere,
                }
            })
            .collect()
    }
}

fn in_dirs(dirs: &[PathBuf], name: &str) -> Option<PathBuf> {
    dirs.iter()
        .map(|dir| dir.join(name))
        .find(|file| file.is_file())
}

/// Folders with CUDA's libraries that the loader does not search by default: those of Python packages, for a library that
/// lies in `onnxruntime/capi` among them, and those of NVIDIA's installer.
fn folders_outside_of_the_path(origin: &Path) -> Vec<PathBuf> {
    let mut dirs = vec![origin.to_path_buf()];
    if let Some(packages) = origin.ancestors().nth(2) {
        dirs.extend(subfolders(&packages.join("nvidia"), "lib"));
    }
    let installed = subfolders(Path::new("/usr/local"), "lib64");
    dirs.extend(installed.into_iter().filter(|dir| {
        let name = dir.parent().and_then(Path::file_name).unwrap_or_default();
        name.to_string_lossy().starts_with("cuda")
    }));
    dirs
}

/// The folder `inner` of each folder in `dir` that has one, in name order.
fn subfolders(dir: &Path, inner: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = entries
        .map(|entry| entry.path().join(inner))
        .filter(|path| path.is_dir())
        .collect();
    found.sort();
    found
}

/// The version of the cuDNN at `path`: from the file that it links to (`libcudnn.so.9.10.2`), or from the Python package
/// that contains it.
pub fn cudnn_version(path: &Path) -> Option<String> {
    let real = path.canonicalize().ok()?;
    let name = real.file_name()?.to_string_lossy().into_owned();
    if let Some((_, version)) = name.split_once(".so.")
        && version.contains('.')
    {
        return Some(version.to_owned());
    }
    // site-packages/nvidia/cudnn/lib/libcudnn.so.9
    let packages = real.ancestors().nth(4)?;
    let entries = std::fs::read_dir(packages).ok()?;
    entries.flatten().find_map(|entry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        let rest = name.strip_prefix("nvidia_cudnn_cu")?;
        let (_, version) = rest.strip_suffix(".dist-info")?.split_once('-')?;
        Some(version.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn touch(path: &Path) {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, b"").unwrap();
    }

    #[test]
    fn a_library_is_found_by_its_search_path_the_loaders_or_outside_of_both() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        for file in [
            "site/onnxruntime/capi/libshared.so",
            "site/nvidia/cu13/lib/libcublas.so.13",
            "path/libcudart.so.13",
        ] {
            touch(&at(file));
        }
        let elf = Elf {
            needed: ["libshared.so", "libcublas.so.13", "libcudart.so.13"]
                .map(str::to_owned)
                .to_vec(),
            search: vec!["$ORIGIN".to_owned()],
            ..Elf::default()
        };
        let links = Links::only(&[at("path")]);
        let provider = at("site/onnxruntime/capi/libprovider.so");
        let needs = links.resolve(&provider, &elf, &["libcudnn.so.9".to_owned()]);
        let found: Vec<_> = needs.iter().map(|needed| needed.found.clone()).collect();
        let shared = Some(at("site/onnxruntime/capi/libshared.so"));
        assert_eq!(
            found,
            [shared, None, Some(at("path/libcudart.so.13")), None]
        );
        let elsewhere: Vec<_> = needs.into_iter().map(|needed| needed.elsewhere).collect();
        let cublas = Some(at("site/nvidia/cu13/lib/libcublas.so.13"));
        assert_eq!(elsewhere, [None, cublas, None, None]);
    }

    #[test]
    fn cudnns_version_comes_from_its_link_or_its_package() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        touch(&at("usr/libcudnn.so.9.10.2"));
        std::os::unix::fs::symlink("libcudnn.so.9.10.2", at("usr/libcudnn.so.9")).unwrap();
        assert_eq!(cudnn_version(&at("usr/libcudnn.so.9")).unwrap(), "9.10.2");
        touch(&at("site/nvidia/cudnn/lib/libcudnn.so.9"));
        touch(&at("site/nvidia_cudnn_cu12-9.13.0.50.dist-info/METADATA"));
        let packaged = at("site/nvidia/cudnn/lib/libcudnn.so.9");
        assert_eq!(cudnn_version(&packaged).unwrap(), "9.13.0.50");
        touch(&at("other/a/b/lib/libcudnn.so.9"));
        assert_eq!(cudnn_version(&at("other/a/b/lib/libcudnn.so.9")), None);
    }

    #[test]
    fn the_systems_loader_finds_the_c_library() {
        assert!(Links::here().find("libc.so.6").is_some());
    }
}
