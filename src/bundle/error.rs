//! Why a bundle cannot be used.

use std::path::PathBuf;

use super::manifest::{MANIFEST_FILE, Role};

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
        /// The parser's reason, with the field's name and its place in the file.
        reason: String,
    },
    /// The manifest's schema version is one that this program does not read.
    #[error("{file} has schema version {found}, but this program reads {accepted}; {remedy}")]
    SchemaVersion {
        /// The manifest.
        file: PathBuf,
        /// The version in the manifest.
        found: String,
        /// The versions that this program reads.
        accepted: String,
        /// How to get a bundle that can be read.
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
    /// A graph's weights are there, but the manifest does not list them, so that a change could not be detected.
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
    /// The manifest has no graph of a role that is needed.
    #[error(
        "{file} lists no graph with role {role}, which is needed; export the bundle again with `{remedy}`"
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
    /// A graph's input or output does not fit the manifest's sizes.
    #[error(transparent)]
    Tensor(Box<TensorMismatch>),
}

/// A graph's input or output does not fit the manifest's sizes.
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
    /// Dtype and shape in the manifest, or another problem.
    pub found: String,
    /// The export command.
    pub remedy: String,
}
