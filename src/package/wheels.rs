//! Python wheels as a source of libraries: installed in a folder, or as the files that a registry serves. Nothing of
//! Python is run for it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::PackageError;
use super::archive::{Content, Entry};
use crate::bundle::hex;

/// An installed distribution.
#[derive(Debug, Clone)]
pub struct Distribution {
    /// Its name in the registry's spelling.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its licence as it states it.
    pub licence: String,
    /// Distributions that it requires, each with the extra that brings it.
    pub requires: Vec<(String, Option<String>)>,
    /// The same as it states them, with versions.
    pub requirements: Vec<String>,
    root: PathBuf,
    /// Its files, with their SHA-256 in hexadecimal digits.
    files: BTreeMap<String, Option<String>>,
}

/// A name as registries compare it.
pub fn normalized(name: &str) -> String {
    name.to_lowercase().replace(['_', '.'], "-")
}

/// The distributions in a folder such as site-packages, by name.
///
/// # Errors
/// [`PackageError::Read`].
pub fn installed(root: &Path) -> Result<BTreeMap<String, Distribution>, PackageError> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(root).map_err(PackageError::read(root))? {
        let folder = entry.map_err(PackageError::read(root))?.path();
        let metadata = folder.join("METADATA");
        let is_info = folder
            .extension()
            .is_some_and(|ending| ending == "dist-info");
        if !is_info || !metadata.is_file() {
            continue;
        }
        let text = fs::read(&metadata).map_err(PackageError::read(&metadata))?;
        let record = folder.join("RECORD");
        let record = fs::read_to_string(&record).unwrap_or_default();
        let distribution = parse(root, &String::from_utf8_lossy(&text), &record);
        found.insert(normalized(&distribution.name), distribution);
    }
    Ok(found)
}

/// The name in a requirement such as `nvidia-cufft~=12.0; extra == "cuda"`.
pub fn required_name(requirement: &str) -> String {
    let end = requirement
        .find(|c: char| !(c.is_ascii_alphanumeric() || "-_.".contains(c)))
        .unwrap_or(requirement.len());
    normalized(&requirement[..end])
}

fn parse(root: &Path, metadata: &str, record: &str) -> Distribution {
    // The description follows after an empty line and may hold anything.
    let fields = || {
        metadata
            .lines()
            .take_while(|line| !line.is_empty())
            .filter_map(|line| line.split_once(": "))
    };
    let field = |name: &str| {
        let found = fields().find(|(key, _)| *key == name);
        found.map_or(String::new(), |(_, value)| value.trim().to_owned())
    };
    let licence = [field("License-Expression"), field("License")]
        .into_iter()
        .find(|licence| !licence.is_empty())
        .unwrap_or_default();
    let stated = || {
        fields()
            .filter(|(key, _)| *key == "Requires-Dist")
            .map(|(_, value)| value)
    };
    let requires = stated()
        .map(|value| {
            let extra = value
                .split_once("extra ==")
                .map(|(_, extra)| extra.trim().trim_matches(['"', '\'']).to_owned());
            (required_name(value), extra)
        })
        .collect();
    let requirements = stated()
        .map(|value| value.split(';').next().unwrap_or(value).trim().to_owned())
        .collect();
    let files = record
        .lines()
        .filter_map(|line| {
            let mut parts = line.rsplitn(3, ',');
            let (_, hash, path) = (parts.next()?, parts.next()?, parts.next()?);
            let hash = hash
                .strip_prefix("sha256=")
                .and_then(|hash| URL_SAFE_NO_PAD.decode(hash).ok())
                .map(|hash| hex(&hash));
            Some((path.trim_matches('"').to_owned(), hash))
        })
        .collect();
    Distribution {
        name: field("Name"),
        version: field("Version"),
        licence,
        requires,
        requirements,
        root: root.to_path_buf(),
        files,
    }
}

impl Distribution {
    /// Name and version in words.
    pub fn title(&self) -> String {
        format!("{} {}", self.name, self.version)
    }

    /// Whether it is one of NVIDIA's.
    pub fn is_nvidia(&self) -> bool {
        normalized(&self.name).starts_with("nvidia-")
    }

    /// The shared libraries that it has, by file name.
    pub fn libraries(&self) -> BTreeMap<String, PathBuf> {
        let mut libraries = BTreeMap::new();
        for path in self.files.keys() {
            let name = path.rsplit('/').next().unwrap_or(path);
            // NVIDIA's second builds of a library, under names that nobody asks for.
            if name.contains(".alt.so") {
                continue;
            }
            let is_library =
                name.starts_with("lib") && (name.ends_with(".so") || name.contains(".so."));
            if is_library {
                libraries.insert(name.to_owned(), self.root.join(path));
            }
        }
        libraries
    }

    /// Its licences and notices, to be put into `folder`.
    pub fn licences(&self, folder: &str) -> Vec<Entry> {
        let mut entries = Vec::new();
        for path in self.files.keys() {
            let name = path.rsplit('/').next().unwrap_or(path);
            let upper = name.to_uppercase();
            let is_text = ["LICEN", "COPYING", "NOTICE", "THIRDPARTY", "THIRD_PARTY"]
                .iter()
                .any(|start| upper.starts_with(start))
                && !upper.ends_with(".PY")
                && !upper.ends_with(".PYC");
            // Deeper folders hold the licences of examples and tests.
            let shallow = path.split('/').count() <= 2 || path.contains(".dist-info/");
            let file = self.root.join(path);
            if is_text && shallow && file.is_file() {
                entries.push(Entry {
                    path: format!("{folder}/{}/{name}", normalized(&self.name)),
                    executable: false,
                    from: self.title(),
                    content: Content::File(file),
                });
            }
        }
        // A notice may stand at two places of a wheel.
        entries.dedup_by(|a, b| a.path == b.path);
        entries
    }

    /// Whether a file is still the one that was installed.
    ///
    /// # Errors
    /// [`PackageError::Wheel`] for one that was changed, [`PackageError::Read`].
    pub fn check(&self, file: &Path, sha256: &str) -> Result<(), PackageError> {
        let path = file.strip_prefix(&self.root).unwrap_or(file);
        match self.files.get(&*path.to_string_lossy()) {
            Some(Some(expected)) if expected != sha256 => Err(PackageError::Wheel {
                place: file.to_path_buf(),
                reason: format!(
                    "its sha256 is {sha256}, expected {expected} as {} lists it; install it again",
                    self.title()
                ),
            }),
            _ => Ok(()),
        }
    }
}

/// Unpacks a wheel file into `folder`, without running anything.
///
/// # Errors
/// [`PackageError::Wheel`] for a file that is no wheel.
pub fn unpack(wheel: &Path, folder: &Path) -> Result<(), PackageError> {
    let failed = |reason: String| PackageError::Wheel {
        place: wheel.to_path_buf(),
        reason,
    };
    let file = File::open(wheel).map_err(PackageError::read(wheel))?;
    zip::ZipArchive::new(file)
        .and_then(|mut archive| archive.extract(folder))
        .map_err(|error| {
            failed(format!(
                "it is no wheel that can be unpacked ({error}); download it again"
            ))
        })
}

/// The distributions that `start` brings with the given extras, and what those bring, as far as `available` has them;
/// the others are named in the second list.
pub fn required(
    start: &Distribution,
    extras: &[&str],
    available: &BTreeMap<String, Distribution>,
) -> (Vec<Distribution>, BTreeSet<String>) {
    let mut queue: Vec<String> = start
        .requires
        .iter()
        .filter(|(_, extra)| {
            extra
                .as_deref()
                .is_some_and(|extra| extras.contains(&extra))
        })
        .map(|(name, _)| name.clone())
        .collect();
    let (mut found, mut missing) = (BTreeMap::new(), BTreeSet::new());
    while let Some(name) = queue.pop() {
        if found.contains_key(&name) {
            continue;
        }
        match available.get(&name) {
            Some(distribution) => {
                let further = distribution.requires.iter();
                queue.extend(
                    further
                        .filter(|(_, extra)| extra.is_none())
                        .map(|(name, _)| name.clone()),
                );
                found.insert(name, distribution.clone());
            }
            None => {
                missing.insert(name);
            }
        }
    }
    (found.into_values().collect(), missing)
}

#[cfg(test)]
mod tests {
    use super::*;

    const METADATA: &str = "Metadata-Version: 2.1\nName: onnxruntime-gpu\nVersion: 1.26.0\nLicense: MIT License\n\
        Requires-Dist: numpy>=1.21.6\nRequires-Dist: nvidia-cufft-cu12~=11.0; extra == \"cuda\"\n\
        Requires-Dist: nvidia_cudnn_cu12~=9.0; extra == 'cudnn'\n\nName: not a field\n";

    #[test]
    fn metadata_and_record_are_read() {
        let record = "onnxruntime/capi/libonnxruntime.so.1.26.0,sha256=LCa0a2j_xo_5m0U8HTBBNBNCLXBkg7-g-YpeiGJm564,3\n\
            \"a, b/libx.so\",,\nonnxruntime/LICENSE,sha256=xx,1\n";
        let read = parse(Path::new("/site"), METADATA, record);
        assert_eq!(read.title(), "onnxruntime-gpu 1.26.0");
        assert_eq!(read.licence, "MIT License");
        assert_eq!(read.requires.len(), 3);
        assert_eq!(
            read.requires[2],
            ("nvidia-cudnn-cu12".to_owned(), Some("cudnn".to_owned()))
        );
        let libraries: Vec<String> = read.libraries().into_keys().collect();
        assert_eq!(libraries, ["libonnxruntime.so.1.26.0", "libx.so"]);

        // "foo" has the hash that the record lists.
        let file = Path::new("/site/onnxruntime/capi/libonnxruntime.so.1.26.0");
        let foo = "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae";
        read.check(file, foo).unwrap();
        let error = read.check(file, &foo.replace('2', "3")).unwrap_err();
        assert!(error.to_string().contains("install it again"), "{error}");
    }

    #[test]
    fn extras_bring_what_they_require_in_turn() {
        let gpu = parse(Path::new("/site"), METADATA, "");
        let cudnn = "Name: nvidia-cudnn-cu12\nVersion: 9.10.2\nRequires-Dist: nvidia-cublas-cu12\n";
        let cublas = "Name: nvidia-cublas-cu12\nVersion: 12.8\n";
        let available = [cudnn, cublas]
            .map(|metadata| parse(Path::new("/site"), metadata, ""))
            .map(|distribution| (distribution.name.clone(), distribution))
            .into();
        let (found, missing) = required(&gpu, &["cuda", "cudnn"], &available);
        let found: Vec<&str> = found.iter().map(|d| d.name.as_str()).collect();
        assert_eq!(found, ["nvidia-cublas-cu12", "nvidia-cudnn-cu12"]);
        assert_eq!(
            missing.into_iter().collect::<Vec<_>>(),
            ["nvidia-cufft-cu12"]
        );
    }
}
