//! A bundle: a folder with a manifest and the ONNX graphs of one model at one resolution and precision.
//!
//! [`Bundle::open`] is the only way to get a [`Bundle`]. So each of its files exists, has the content that was exported,
//! and each graph has the inputs and outputs that the engine uses.

mod check;
mod detector_tensors;
mod error;
mod expected;
mod interface;
pub(crate) mod locate;
mod manifest;
mod tracker_tensors;
mod verify;

use std::path::{Path, PathBuf};

pub use self::error::{BundleError, TensorMismatch};
pub use self::manifest::{
    DType, DataFile, DetectorSpec, Dim, GoldenFile, GraphFile, MANIFEST_FILE, Manifest, Masks,
    Memory, Policy, Precision, Preprocess, Role, SCHEMA_VERSION, Source, TensorSpec,
    TextTrackingSpec, Versions, accepted_versions,
};
pub(crate) use self::verify::{hash_file, hex, hex_digest};

/// Name of the checkpoint's licence inside of a bundle's folder.
const LICENCE_FILE: &str = "LICENSE";

/// A checked bundle.
#[derive(Debug, Clone)]
pub struct Bundle {
    dir: PathBuf,
    manifest: Manifest,
    manifest_sha256: String,
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
        let manifest = check::parse(&manifest_path, &bytes)?;
        check::values(&manifest_path, &manifest)?;
        check::roles(&manifest_path, &manifest)?;
        interface::check(&manifest_path, &manifest)?;
        verify::files(dir, &manifest)?;
        Ok(Self {
            dir: dir.to_path_buf(),
            manifest,
            manifest_sha256: hex_digest(&bytes),
        })
    }

    /// Reads only the manifest of the bundle in `dir`, not the files: enough to choose among bundles.
    ///
    /// # Errors
    ///
    /// As [`Bundle::open`] for a missing or unreadable manifest.
    pub fn peek(dir: &Path) -> Result<Manifest, BundleError> {
        check::parse(&dir.join(MANIFEST_FILE), &read_manifest(dir)?)
    }

    /// The manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Replaces the manifest's memory selection: only tracked frames with a memory score above `threshold` are recalled, or
    /// all for `None`.
    pub fn select_memories(&mut self, threshold: Option<f64>) {
        self.manifest.policy.memory_selection = threshold;
    }

    /// SHA-256 of manifest.json, in hexadecimal digits. It identifies the whole bundle, because the manifest has the hash of
    /// every other file.
    pub fn manifest_sha256(&self) -> &str {
        &self.manifest_sha256
    }

    /// The bundle's folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Paths of all files of the bundle, relative to its folder: the manifest, the licence if there is one, and the files
    /// that the manifest lists.
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
