//! A bundle: a folder with a manifest and the ONNX graphs of one model at one resolution and precision.
//!
//! [`Bundle::open`] is the only way to get one, so that whoever holds a [`Bundle`] knows that its files are there,
//! are the ones that were exported, and have the tensors that the tracker feeds and takes.

mod interface;
mod interface_detector;
mod manifest;
mod verify;

use std::path::{Path, PathBuf};

use serde::Deserialize;

pub use manifest::{
    DType, DataFile, Detector, Dim, Follow, GoldenFile, GraphFile, Manifest, Masks, Memory, Policy,
    Precision, Preprocess, Role, SCHEMA_VERSION, Source, TensorSpec, Versions, accepted_versions,
};
pub(crate) use verify::{hash_file, hex, hex_digest};

/// Name of the manifest inside of a bundle's folder.
pub const MANIFEST_FILE: &str = "manifest.json";

/// Name of the checkpoint's licence inside of a bundle's folder.
const LICENCE_FILE: &str = "LICENSE";

/// The memory policies that this program carries out.
const POLICIES: [&str; 1] = ["sam2_memory_bank"];

/// The model families whose graphs this program knows how to feed.
const FAMILIES: [&str; 1] = ["sam3_tracker_video"];

/// Why a folder is not a bundle that can be run.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// The folder or its manifest does not exist.
    #[error(
        "{dir} is not a bundle: {reason}; give the folder that snow-export wrote, which holds manifest.json"
    )]
    NotABundle {
        /// The folder as given.
        dir: PathBuf,
        /// What is missing.
        reason: &'static str,
    },
    /// A file of the bundle cannot be read.
    #[error("cannot read {file}")]
    Read {
        /// The file.
        file: PathBuf,
        /// The system's reason.
        #[source]
        source: std::io::Error,
    },
    /// The manifest is not JSON, or a required field is missing or of another type.
    #[error(
        "{file} is not a valid manifest: {reason}; export the bundle again with snow-export, or copy it again"
    )]
    Manifest {
        /// The manifest.
        file: PathBuf,
        /// What is wrong, with the field's name and the place in the file.
        reason: String,
    },
    /// The manifest's layout is one that this program does not read.
    #[error("{file} has schema version {found}, but this program reads {accepted}; {remedy}")]
    SchemaVersion {
        /// The manifest.
        file: PathBuf,
        /// The version in the manifest.
        found: String,
        /// The versions that are read.
        accepted: String,
        /// What to do.
        remedy: String,
    },
    /// A manifest's field has a value that this program cannot work with.
    #[error(
        "{file}: field {field} is {found}, expected {expected}; export the bundle again with snow-export"
    )]
    Field {
        /// The manifest.
        file: PathBuf,
        /// The field, e.g. `preprocess.filter`.
        field: String,
        /// Its value.
        found: String,
        /// The values that work.
        expected: String,
    },
    /// A path of the manifest does not stay inside of the bundle's folder.
    #[error(
        "{file}: field {field} is {path:?}, which {reason}; a bundle's files must lie inside of its folder"
    )]
    Path {
        /// The manifest.
        file: PathBuf,
        /// The field, e.g. `graphs[vision_encoder].file`.
        field: String,
        /// The path as written.
        path: String,
        /// How it leaves the folder.
        reason: &'static str,
    },
    /// A file that the manifest lists does not exist.
    #[error(
        "{file} is missing, expected {bytes} bytes as {MANIFEST_FILE} lists it; copy the bundle again or export it with `{remedy}`"
    )]
    Missing {
        /// The file.
        file: PathBuf,
        /// The size in the manifest.
        bytes: u64,
        /// The export command.
        remedy: String,
    },
    /// A graph's weights are there, but the manifest does not list them, so that nobody could tell if they changed.
    #[error(
        "{file} is not listed in {MANIFEST_FILE} (graphs[{role}].data is null), so it cannot be checked; copy the bundle again or export it with `{remedy}`"
    )]
    Unlisted {
        /// The file.
        file: PathBuf,
        /// The graph.
        role: Role,
        /// The export command.
        remedy: String,
    },
    /// A file has another size than the manifest says.
    #[error(
        "{file} is {found} bytes long, expected {expected} ({}); copy the bundle again or export it with `{remedy}`",
        if .found < .expected { "it is truncated" } else { "it was changed" }
    )]
    Size {
        /// The file.
        file: PathBuf,
        /// The size in the manifest.
        expected: u64,
        /// The size on disk.
        found: u64,
        /// The export command.
        remedy: String,
    },
    /// A file's content is not the one that was exported.
    #[error(
        "{file} was changed: its sha256 is {found}, expected {expected}; copy the bundle again or export it with `{remedy}`"
    )]
    Hash {
        /// The file.
        file: PathBuf,
        /// The hash in the manifest.
        expected: String,
        /// The hash of the content.
        found: String,
        /// The export command.
        remedy: String,
    },
    /// A graph without which nothing can be tracked is not in the manifest.
    #[error(
        "{file} lists no graph with role {role}, and tracking needs one; export the bundle again with `{remedy}`"
    )]
    MissingRole {
        /// The manifest.
        file: PathBuf,
        /// The role.
        role: Role,
        /// The export command.
        remedy: String,
    },
    /// Two graphs have the same role.
    #[error("{file} lists two graphs with role {role}, expected one")]
    DuplicateRole {
        /// The manifest.
        file: PathBuf,
        /// The role.
        role: Role,
    },
    /// A graph's input or output is not what the manifest's sizes ask for.
    #[error(transparent)]
    Tensor(Box<TensorMismatch>),
}

/// A graph's input or output is not what the manifest's sizes ask for.
#[derive(Debug, thiserror::Error)]
#[error(
    "{file}: graph {graph}, {side} {tensor}: expected {expected}, got {found}; export the bundle again with `{remedy}`"
)]
pub struct TensorMismatch {
    /// The manifest.
    pub file: PathBuf,
    /// The graph's role.
    pub graph: Role,
    /// `input` or `output`.
    pub side: &'static str,
    /// The tensor's name.
    pub tensor: String,
    /// Dtype and shape as expected.
    pub expected: String,
    /// Dtype and shape as listed, or what else is wrong.
    pub found: String,
    /// The export command.
    pub remedy: String,
}

/// A checked bundle.
#[derive(Debug, Clone)]
pub struct Bundle {
    dir: PathBuf,
    manifest: Manifest,
    manifest_sha256: String,
}

/// Just enough of a manifest to say which version it has, whatever else that version's layout is.
#[derive(Deserialize)]
struct VersionOnly {
    schema_version: serde_json::Value,
    source: Option<SourceId>,
}

#[derive(Deserialize)]
struct SourceId {
    id: Option<String>,
}

impl Bundle {
    /// Opens and checks the bundle in `dir`: schema version, fields, paths, each file's presence, size and sha256,
    /// and the graphs' inputs and outputs against the manifest's sizes.
    ///
    /// # Errors
    ///
    /// Names the file, graph and tensor, what was expected, what was found, and what to do.
    pub fn open(dir: &Path) -> Result<Self, BundleError> {
        let manifest_path = dir.join(MANIFEST_FILE);
        let bytes = read_manifest(dir)?;
        let manifest = parse_manifest(&manifest_path, &bytes)?;
        check_values(&manifest_path, &manifest)?;
        check_roles(&manifest_path, &manifest)?;
        interface::check(&manifest_path, &manifest)?;
        verify::files(dir, &manifest)?;
        Ok(Self {
            dir: dir.to_path_buf(),
            manifest,
            manifest_sha256: hex_digest(&bytes),
        })
    }

    /// Reads only the manifest of the bundle in `dir`, without a look at the files: enough to choose among bundles.
    ///
    /// # Errors
    ///
    /// As [`Bundle::open`] for a missing or unreadable manifest.
    pub fn peek(dir: &Path) -> Result<Manifest, BundleError> {
        parse_manifest(&dir.join(MANIFEST_FILE), &read_manifest(dir)?)
    }

    /// The manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Has only tracked frames with a memory score above `threshold` recalled, or all of them, whatever the manifest says.
    pub fn select_memories(&mut self, threshold: Option<f64>) {
        self.manifest.policy.memory_selection = threshold;
    }

    /// SHA-256 of manifest.json, in hexadecimal digits: it stands for the whole bundle, as the manifest holds the
    /// hash of every other file.
    pub fn manifest_sha256(&self) -> &str {
        &self.manifest_sha256
    }

    /// The bundle's folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Paths of all files that belong to the bundle, inside of its folder: the manifest, the licence if there is one, and
    /// what the manifest lists.
    pub fn files(&self) -> Vec<String> {
        let mut files = vec![MANIFEST_FILE.to_owned()];
        files.extend(verify::names(&self.manifest));
        if self.dir.join(LICENCE_FILE).is_file() {
            files.push(LICENCE_FILE.to_owned());
        }
        files.sort();
        files.dedup();
        files
    }

    /// Path of the graph with `role`; None when the bundle has no such graph (never for [`Role::REQUIRED`]).
    pub fn graph_path(&self, role: Role) -> Option<PathBuf> {
        self.manifest
            .graph(role)
            .map(|graph| self.dir.join(&graph.file))
    }
}

/// The JSON Schema of manifest.json, as committed at `models/schema/manifest.schema.json`.
pub fn schema() -> String {
    let schema = schemars::schema_for!(Manifest);
    let mut text = format!("{:#}", schema.as_value());
    text.push('\n');
    text
}

fn read_manifest(dir: &Path) -> Result<Vec<u8>, BundleError> {
    let reason = if !dir.exists() {
        Some("there is no such folder")
    } else if !dir.is_dir() {
        Some("it is not a folder")
    } else if !dir.join(MANIFEST_FILE).exists() {
        Some("it has no manifest.json")
    } else {
        None
    };
    if let Some(reason) = reason {
        return Err(BundleError::NotABundle {
            dir: dir.to_path_buf(),
            reason,
        });
    }
    let file = dir.join(MANIFEST_FILE);
    std::fs::read(&file).map_err(|source| BundleError::Read { file, source })
}

fn parse_manifest(file: &Path, bytes: &[u8]) -> Result<Manifest, BundleError> {
    let invalid = |error: serde_json::Error| BundleError::Manifest {
        file: file.to_path_buf(),
        reason: error.to_string(),
    };
    let version: VersionOnly = serde_json::from_slice(bytes).map_err(invalid)?;
    let accepted = accepted_versions();
    let number = version
        .schema_version
        .as_u64()
        .and_then(|number| u32::try_from(number).ok());
    match number {
        Some(number) if accepted.contains(&number) => {}
        _ => {
            let id = version
                .source
                .and_then(|source| source.id)
                .unwrap_or_else(|| "<checkpoint>".to_owned());
            let again = format!("export the bundle again with `snow-export {id}` of this version");
            let remedy = match number {
                Some(number) if number > *accepted.end() => {
                    format!("update snow-ort, or {again}")
                }
                _ => again,
            };
            return Err(BundleError::SchemaVersion {
                file: file.to_path_buf(),
                found: version.schema_version.to_string(),
                accepted: if accepted.start() == accepted.end() {
                    format!("version {}", accepted.end())
                } else {
                    format!("versions {} to {}", accepted.start(), accepted.end())
                },
                remedy,
            });
        }
    }
    serde_json::from_slice(bytes).map_err(invalid)
}

fn check_values(file: &Path, manifest: &Manifest) -> Result<(), BundleError> {
    let wrong = |field: &str, found: String, expected: String| BundleError::Field {
        file: file.to_path_buf(),
        field: field.to_owned(),
        found,
        expected,
    };

    let preprocess = &manifest.preprocess;
    let texts = [
        ("preprocess.filter", &preprocess.filter, "bilinear"),
        ("preprocess.rounding", &preprocess.rounding, "uint8"),
        ("preprocess.layout", &preprocess.layout, "nhwc"),
        ("preprocess.channels", &preprocess.channels, "rgb"),
    ];
    for (field, found, expected) in texts {
        if found != expected {
            return Err(wrong(field, format!("{found:?}"), format!("{expected:?}")));
        }
    }
    let flags = [
        ("preprocess.antialias", preprocess.antialias),
        ("preprocess.in_graph", preprocess.in_graph),
    ];
    for (field, found) in flags {
        if !found {
            return Err(wrong(field, "false".into(), "true".into()));
        }
    }

    if !FAMILIES.contains(&manifest.family.as_str()) {
        return Err(wrong(
            "family",
            format!("{:?}", manifest.family),
            format!("one of {FAMILIES:?}"),
        ));
    }

    if !POLICIES.contains(&manifest.policy.name.as_str()) {
        return Err(wrong(
            "policy.name",
            format!("{:?}", manifest.policy.name),
            format!("one of {POLICIES:?}"),
        ));
    }

    let positive = [
        ("resolution", manifest.resolution),
        ("grid", manifest.grid),
        ("policy.num_maskmem", manifest.policy.num_maskmem),
        ("policy.max_cond_frames", manifest.policy.max_cond_frames),
        (
            "policy.max_object_pointers",
            manifest.policy.max_object_pointers,
        ),
        ("policy.pointer_tokens", manifest.policy.pointer_tokens),
        ("masks.low_res", manifest.masks.low_res),
        ("masks.prompt_size", manifest.masks.prompt_size),
        ("memory.channels", manifest.memory.channels),
    ];
    // Far above any real model, and small enough that products of two of them cannot overflow.
    const MOST: u32 = 1 << 20;
    for (field, found) in positive {
        if found == 0 || found > MOST {
            return Err(wrong(field, found.to_string(), format!("1 to {MOST}")));
        }
    }

    if !manifest.resolution.is_multiple_of(manifest.grid) {
        return Err(wrong(
            "grid",
            manifest.grid.to_string(),
            format!("a divisor of the resolution {}", manifest.resolution),
        ));
    }
    let tokens = u64::from(manifest.grid) * u64::from(manifest.grid);
    if u64::from(manifest.memory.tokens) != tokens {
        return Err(wrong(
            "memory.tokens",
            manifest.memory.tokens.to_string(),
            format!("grid * grid = {tokens}"),
        ));
    }
    Ok(())
}

fn check_roles(file: &Path, manifest: &Manifest) -> Result<(), BundleError> {
    for (index, graph) in manifest.graphs.iter().enumerate() {
        if manifest.graphs[..index]
            .iter()
            .any(|other| other.role == graph.role)
        {
            return Err(BundleError::DuplicateRole {
                file: file.to_path_buf(),
                role: graph.role,
            });
        }
    }
    let detector = manifest.detector.iter().flat_map(|_| Role::DETECTOR);
    for role in Role::REQUIRED.into_iter().chain(detector) {
        if manifest.graph(role).is_none() {
            return Err(BundleError::MissingRole {
                file: file.to_path_buf(),
                role,
                remedy: manifest.export_command(),
            });
        }
    }
    Ok(())
}
