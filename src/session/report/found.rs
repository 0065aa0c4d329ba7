//! The parts of run.json that say what was found for texts, and how.

use serde::{Deserialize, Serialize};

use super::ModelReport;

/// What was found for a text.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TextReport {
    /// The text.
    pub text: String,
    /// The objects that are shown on some frame.
    pub objects: Vec<FoundReport>,
}

/// How objects were found for texts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DetectorReport {
    /// Frames from one look to the next, from frame 0 on.
    pub every: u64,
    /// Frames that were looked at.
    pub looks: u64,
    /// Most objects that are followed at once: as the loop's parameters have it, or as many as fit in `--mem-limit`.
    pub most_objects: u64,
    /// The frame of the last look, after which the detector's graphs were dropped; null where they stayed to the end, since
    /// nobody knew that the look was the last.
    pub dropped_after: Option<u64>,
    /// The bundle of `--det-res`; null where the detector is the model's own.
    pub model: Option<ModelReport>,
}

/// An object that was found for a text.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct FoundReport {
    /// The object.
    pub object: u32,
    /// The score with which it was found, 0 to 1.
    pub score: f32,
}
