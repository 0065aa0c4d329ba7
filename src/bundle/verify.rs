//! Checks that a bundle's files are the ones that were exported: paths, sizes and hashes.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use sha2::{Digest, Sha256};

use super::error::BundleError;
use super::manifest::{MANIFEST_FILE, Manifest};

/// One file that the manifest lists.
struct Listed<'a> {
    field: String,
    file: &'a str,
    sha256: &'a str,
    bytes: u64,
}

/// Checks every file that the manifest lists: its path stays inside of `dir`, it exists, and it has the listed size
/// and sha256. The cheap checks of all files come before the first hash.
///
/// # Errors
/// The first problem in the manifest's order.
pub(super) fn files(dir: &Path, manifest: &Manifest) -> Result<(), BundleError> {
    let listed = list(manifest);
    let remedy = manifest.export_command();
    let root = dir.canonicalize().map_err(|source| BundleError::Read {
        file: dir.to_path_buf(),
        source,
    })?;

    let mut paths = Vec::with_capacity(listed.len());
    for entry in &listed {
        paths.push(check_presence(dir, &root, entry, &remedy)?);
    }
    for graph in manifest.graphs.iter().filter(|graph| graph.data.is_none()) {
        let file = dir.join(format!("{}.data", graph.file));
        if file.exists() {
            return Err(BundleError::Unlisted {
                file,
                role: graph.role,
                remedy,
            });
        }
    }
    hash_all(&listed, &paths, &remedy)
}

/// SHA-256 of `bytes` in hexadecimal digits.
pub(crate) fn hex_digest(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// Hexadecimal digits of `bytes`.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Paths of the files that the manifest lists.
pub(super) fn names(manifest: &Manifest) -> Vec<String> {
    let listed = list(manifest);
    listed.iter().map(|entry| entry.file.to_owned()).collect()
}

fn list(manifest: &Manifest) -> Vec<Listed<'_>> {
    let mut listed = Vec::new();
    for graph in &manifest.graphs {
        listed.push(Listed {
            field: format!("graphs[{}].file", graph.role),
            file: &graph.file,
            sha256: &graph.sha256,
            bytes: graph.bytes,
        });
        if let Some(data) = &graph.data {
            listed.push(Listed {
                field: format!("graphs[{}].data.file", graph.role),
                file: &data.file,
                sha256: &data.sha256,
                bytes: data.bytes,
            });
        }
    }
    if let Some(detector) = &manifest.detector {
        listed.push(Listed {
            field: "detector.tokenizer.file".to_owned(),
            file: &detector.tokenizer.file,
            sha256: &detector.tokenizer.sha256,
            bytes: detector.tokenizer.bytes,
        });
    }
    for (index, golden) in manifest.golden.iter().enumerate() {
        listed.push(Listed {
            field: format!("golden[{index}].file"),
            file: &golden.file,
            sha256: &golden.sha256,
            bytes: golden.bytes,
        });
    }
    listed
}

fn check_presence(
    dir: &Path,
    root: &Path,
    entry: &Listed<'_>,
    remedy: &str,
) -> Result<PathBuf, BundleError> {
    let leaves = |reason| BundleError::Path {
        file: dir.join(MANIFEST_FILE),
        field: entry.field.clone(),
        path: entry.file.to_owned(),
        reason,
    };
    if entry.file.is_empty() {
        return Err(leaves("is empty"));
    }
    for component in Path::new(entry.file).components() {
        match component {
            Component::Normal(_) | Component::CurDir => {}
            Component::ParentDir => return Err(leaves("leaves the folder through `..`")),
            Component::RootDir | Component::Prefix(_) => return Err(leaves("is absolute")),
        }
    }

    let file = dir.join(entry.file);
    let real = match file.canonicalize() {
        Ok(real) => real,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(BundleError::Missing {
                file,
                bytes: entry.bytes,
                remedy: remedy.to_owned(),
            });
        }
        Err(source) => return Err(BundleError::Read { file, source }),
    };
    if !real.starts_with(root) {
        return Err(leaves("leaves the folder through a symbolic link"));
    }
    let metadata = match real.metadata() {
        Ok(metadata) => metadata,
        Err(source) => return Err(BundleError::Read { file, source }),
    };
    if !metadata.is_file() {
        return Err(leaves("is not a file"));
    }
    if metadata.len() != entry.bytes {
        return Err(BundleError::Size {
            file,
            expected: entry.bytes,
            found: metadata.len(),
            remedy: remedy.to_owned(),
        });
    }
    Ok(file)
}

/// Hashes the files on as many threads as there are cores; the first error in the manifest's order is returned.
fn hash_all(listed: &[Listed<'_>], paths: &[PathBuf], remedy: &str) -> Result<(), BundleError> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let next = AtomicUsize::new(0);
    let first: Mutex<Option<(usize, BundleError)>> = Mutex::new(None);
    let check_all = || {
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let (Some(entry), Some(path)) = (listed.get(index), paths.get(index)) else {
                return;
            };
            let Err(error) = check_hash(entry, path, remedy) else {
                continue;
            };
            let mut first = first.lock().unwrap_or_else(|e| e.into_inner());
            if first.as_ref().is_none_or(|(known, _)| index < *known) {
                *first = Some((index, error));
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..cores.min(listed.len()) {
            scope.spawn(check_all);
        }
    });
    match first.into_inner().unwrap_or_else(|e| e.into_inner()) {
        Some((_, error)) => Err(error),
        None => Ok(()),
    }
}

fn check_hash(entry: &Listed<'_>, path: &Path, remedy: &str) -> Result<(), BundleError> {
    let found = hash_file(path).map_err(|source| BundleError::Read {
        file: path.to_path_buf(),
        source,
    })?;
    if found.eq_ignore_ascii_case(entry.sha256) {
        return Ok(());
    }
    Err(BundleError::Hash {
        file: path.to_path_buf(),
        expected: entry.sha256.to_owned(),
        found,
        remedy: remedy.to_owned(),
    })
}

/// SHA-256 of a file in hexadecimal digits.
pub(crate) fn hash_file(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0u8; 1 << 20];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(hex(&hasher.finalize())),
            Ok(count) => hasher.update(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
