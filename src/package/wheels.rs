//! Reads shared libraries and licences from Python wheels: installed in a folder, or as wheel files. Python is not run.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::archive::{Content, Entry};
use super::error::PackageError;
use crate::bundle::hex;

/// An installed distribution.
#[derive(Debug, Clone)]
pub struct Distribution {
    /// Its name as its metadata spells it.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its licence as its metadata states it: an SPDX expression or any text.
    pub licence: String,
    /// Normalized names of the distributions that it requires, each with the extra that adds it.
    pub requires: Vec<(String, Option<String>)>,
    /// The same requirements as the metadata states them, with versions.
    pub requirements: Vec<String>,
    root: PathBuf,
    /// Its files, with their SHA-256 in hexadecimal digits.
    files: BTreeMap<String, Option<String>>,
}

/// The normalized form of a distribution's name, in which registries compare names.
pub fn normalized(name: &str) -> String {
    name.to_lowercase().replace(['_', '.'], "-")
}

/// The distributions in a folder such as site-packages, by normalized name.
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

/// Parses a distribution's METADATA and RECORD files.
fn parse(root: &Path, metadata: &str, record: &str) -> Distribution {
    // The description follows after an empty line. It may contain lines that have the form of fields.
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

    /// Whether it is from NVIDIA.
    pub fn is_nvidia(&self) -> bool {
        normalized(&self.name).starts_with("nvidia-")
    }

    /// Paths of its shared libraries, by file name.
    pub fn libraries(&self) -> BTreeMap<String, PathBuf> {
        let mut libraries = BTreeMap::new();
        for path in self.files.keys() {
            let name = path.rsplit('/').next().unwrap_or(path);
            // Second builds of NVIDIA's libraries. No library needs these names.
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

    /// Its licences and notices, as entries below `folder`.
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
        // A wheel may contain a notice twice.
        entries.dedup_by(|a, b| a.path == b.path);
        entries
    }

    /// Checks that a file with this hash is the one that was installed.
    ///
    /// # Errors
    /// [`PackageError::Wheel`] if it was changed.
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

/// Unpacks a wheel file into `folder`. None of its code is run.
///
/// # Errors
/// [`PackageError::Wheel`] for a file that is not a wheel.
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
                "it is not a wheel that can be unpacked ({error}); download it again"
            ))
        })
}

/// The distributions that `start` requires with the given extras, directly or through others. Returns those that `available`
/// has, and the names of the others.
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
    fn extras_add_their_distributions_and_what_these_require() {
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
