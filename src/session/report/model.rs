//! Which bundle ran.

use serde::{Deserialize, Serialize};

use crate::bundle::Bundle;

/// The bundle of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelReport {
    /// The bundle's folder.
    pub dir: String,
    /// The model's name.
    pub name: String,
    /// The model's family.
    pub family: String,
    /// Side of the model's input in pixels.
    pub resolution: u32,
    /// `fp32` or `fp16`.
    pub precision: String,
    /// SHA-256 of manifest.json, which holds the hash of every other file.
    pub manifest_sha256: String,
    /// True when the weights are random: the masks mean nothing.
    pub random_weights: bool,
}

impl ModelReport {
    /// Of a bundle.
    pub fn of(bundle: &Bundle) -> Self {
        let manifest = bundle.manifest();
        Self {
            dir: bundle.dir().display().to_string(),
            name: manifest.name.clone(),
            family: manifest.family.clone(),
            resolution: manifest.resolution,
            precision: manifest.precision.to_string(),
            manifest_sha256: bundle.manifest_sha256().to_owned(),
            random_weights: manifest.source.random_weights,
        }
    }
}
