//! The part of run.json with the scores against ground truth.

use serde::{Deserialize, Serialize};

use crate::scoring::Means;

/// [`ScoresReport::objects_by`] of objects that had prompts.
pub const OBJECTS_BY_ID: &str = "id";
/// [`ScoresReport::objects_by`] of objects that were found.
pub const OBJECTS_BY_OVERLAP: &str = "overlap";

fn by_id() -> String {
    OBJECTS_BY_ID.to_owned()
}

/// J and F of a run against ground truth, 0 to 1, as in DAVIS 2017.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScoresReport {
    /// The folder of index PNGs.
    pub ground_truth: String,
    /// How PNGs were matched with frames: `name` (of the input's images) or `number`.
    pub matched_by: String,
    /// How objects of the run were matched with those of the ground truth: `id`, or `overlap` where the run found them
    /// (see [`crate::scoring::matching`]).
    #[serde(default = "by_id")]
    pub objects_by: String,
    /// Tracked frames that are annotated.
    pub annotated_frames: u64,
    /// Means over the objects, each with the same weight; null when none has a frame that counts.
    pub overall: Option<MeanScores>,
    /// The objects that the ground truth shows, by id.
    pub objects: Vec<ObjectScores>,
    /// Tracked objects that the ground truth never shows; of those that were found, the ones that were matched with none.
    pub not_scored: Vec<u32>,
}

/// The scores of one object.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ObjectScores {
    /// The object's id in the ground truth.
    pub object: u32,
    /// False when it had no prompt, or was not found; its masks then count as empty.
    pub tracked: bool,
    /// The run's id of the object, where the run found it; null where ids are the same, and when it was not found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub matched: Option<u32>,
    /// Frames that count: the annotated ones after the object's first prompt, or, when it had none, from the first that
    /// shows it on.
    pub frames: u64,
    /// Means over these frames; null when there are none.
    pub mean: Option<MeanScores>,
    /// Each of these frames.
    pub per_frame: Vec<FrameScore>,
}

/// Means of J and F.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct MeanScores {
    /// Region: mean intersection over union.
    pub j: f64,
    /// Share of the frames with J above 0.5.
    pub j_recall: f64,
    /// Boundary: mean F-measure.
    pub f: f64,
    /// Share of the frames with F above 0.5.
    pub f_recall: f64,
    /// The mean of J and F.
    pub j_and_f: f64,
}

impl From<Means> for MeanScores {
    fn from(means: Means) -> Self {
        Self {
            j: means.j,
            j_recall: means.j_recall,
            f: means.f,
            f_recall: means.f_recall,
            j_and_f: means.j_and_f(),
        }
    }
}

/// One object on one frame.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct FrameScore {
    /// The frame.
    pub frame: u64,
    /// Intersection over union.
    pub j: f64,
    /// F-measure of the outlines.
    pub f: f64,
}
