//! The parts of run.json about texts: their objects, and how these were detected.

use serde::{Deserialize, Serialize};

use super::ModelReport;

/// The objects of a text.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TextReport {
    /// The text.
    pub text: String,
    /// The objects that are shown on some frame.
    pub objects: Vec<FoundReport>,
}

/// How objects were detected for texts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DetectorReport {
    /// Frames from one detection to the next, from frame 0 on.
    pub every: u64,
    /// Frames on which the detector ran.
    pub looks: u64,
    /// Most objects that are tracked at once: by the parameters of text tracking, or as many as fit in the memory limit.
    pub most_objects: u64,
    /// The frame of the last detection, after which the detector's graphs were dropped; null if they stayed to the end
    /// because the length of the clip was not known.
    pub dropped_after: Option<u64>,
    /// The bundle of `--det-res`; null where the detector is the model's own.
    pub model: Option<ModelReport>,
}

/// An object that a text means.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct FoundReport {
    /// The object.
    pub object: u32,
    /// The score of its first detection, 0 to 1.
    pub score: f32,
}
