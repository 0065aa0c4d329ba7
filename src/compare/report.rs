//! The layout of report.json, the result of a comparison.

use serde::{Deserialize, Serialize};

use crate::bench::machine::Machine;
use crate::bench::report::VariantTiming;
use crate::bench::stats::Ratio;
use crate::session::report::{
    DetectorReport, MeanScores, ModelReport, OBJECTS_BY_OVERLAP, PromptReport, ProposalsReport,
    RuntimeReport, ScoresReport,
};

/// Version of the layout of report.json.
pub const AB_VERSION: u32 = 1;

/// report.json.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AbReport {
    /// Version of this layout.
    pub schema_version: u32,
    /// Version of the program that compared.
    pub snow_ort: String,
    /// The command line.
    pub command: Vec<String>,
    /// The machine on which times were measured.
    pub machine: Machine,
    /// The clip.
    pub clip: ClipReport,
    /// The prompts, merged by frame and object.
    pub prompts: Vec<PromptReport>,
    /// The texts whose objects were tracked; empty if there were none.
    #[serde(default)]
    pub texts: Vec<String>,
    /// The graph that proposed objects; null if there was none.
    #[serde(default)]
    pub proposals: Option<String>,
    /// Number of objects: those with prompts, or those that the baseline found.
    pub objects: u64,
    /// The folder of ground truth; null without one.
    pub ground_truth: Option<String>,
    /// How times were measured.
    pub protocol: Protocol,
    /// The variants in the order in which they were given; the first is the baseline.
    pub variants: Vec<VariantReport>,
    /// Which variant to run.
    pub verdict: Verdict,
    /// The requirements and their values; empty if there were none.
    pub requirements: Vec<RequirementReport>,
    /// The frames that the page shows: first those on which variants agree least with the baseline.
    pub shown: Vec<ShownFrame>,
}

/// The clip that all variants tracked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClipReport {
    /// Path as given; bytes that are not UTF-8 are replaced.
    pub path: String,
    /// SHA-256 of the file, or of the names and content of a folder's images.
    pub sha256: String,
    /// Frames that were tracked.
    pub frames: u64,
    /// Columns of the first frame.
    pub width: u32,
    /// Rows of the first frame.
    pub height: u32,
}

/// How times were measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Protocol {
    /// Frames of each variant before those that are measured.
    pub warm_frames: usize,
    /// Rounds through all variants; every second one goes backwards.
    pub rounds: usize,
    /// Frames of a variant in a round.
    pub block_frames: usize,
}

/// One variant.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VariantReport {
    /// Its name.
    pub name: String,
    /// The bundle's folder as given.
    pub dir: String,
    /// The provider that was asked for: `cpu` or `cuda`.
    pub provider: String,
    /// Why it could not be run or measured; null if it could.
    pub error: Option<String>,
    /// Its run over the whole clip; null if that failed.
    pub run: Option<VariantRun>,
    /// How well its masks agree with the baseline's; null for the baseline itself, if either failed, and if they have no
    /// object in common.
    pub agreement: Option<Agreement>,
    /// Its objects compared with those of the baseline; null for the baseline itself, if either failed, and if objects have
    /// prompts.
    #[serde(rename = "finds", default)]
    pub found_objects: Option<FoundComparison>,
    /// Its times and memory when warm, with all samples; null if it could not be measured.
    pub timing: Option<VariantTiming>,
    /// The baseline's time of a frame divided by this one's, round by round: above 1 is faster. Null for the baseline itself,
    /// and if either was not measured.
    pub speedup: Option<Ratio>,
}

/// How well the masks of a run agree with the baseline's, over all objects.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Agreement {
    /// Mean over objects of their mean IoU.
    pub iou: f64,
    /// The lowest IoU of an object on a frame.
    pub worst_iou: f64,
    /// The frame of that IoU.
    pub worst_frame: u64,
    /// The object of that IoU.
    pub worst_object: u32,
    /// The first frame on which an object's IoU is below 0.5; null if there is none.
    pub first_below: Option<u64>,
    /// Objects whose IoU is below 0.5 from some frame to the end.
    pub objects_lost: u64,
    /// Each object, by id.
    pub objects: Vec<ObjectAgreement>,
}

/// How well the masks of one object agree.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ObjectAgreement {
    /// The object's id in the baseline.
    pub object: u32,
    /// Mean IoU over the frames from its first prompt on. For an object that the runs found by themselves, over the frames
    /// on which either of them shows it.
    pub iou: f64,
    /// Its lowest IoU.
    pub worst_iou: f64,
    /// The frame of that IoU.
    pub worst_frame: u64,
    /// The first frame with an IoU below 0.5; null if there is none.
    pub first_below: Option<u64>,
    /// The frame from which on the IoU stays below 0.5 to the end; null if it does not.
    pub lost_from: Option<u64>,
    /// The IoU on each of these frames.
    pub per_frame: Vec<FrameIou>,
}

/// The IoU of one object on one frame.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct FrameIou {
    /// The frame.
    pub frame: u64,
    /// Intersection over union of the two masks, 0 to 1; 1 if both are empty.
    pub iou: f64,
}

/// The objects that a run found for one text, or the proposed ones.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TextObjects {
    /// The text; null for proposals.
    pub text: Option<String>,
    /// The objects with a mask on some frame, by id.
    pub objects: Vec<FoundObject>,
}

/// An object that a run found by itself.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct FoundObject {
    /// Its id in this run.
    pub object: u32,
    /// The score of its first detection or proposal, 0 to 1.
    pub score: f32,
    /// The first frame on which it has a mask.
    pub first_frame: u64,
    /// Number of frames on which it has a mask.
    pub frames: u64,
}

/// The objects that a variant found, compared with those of the baseline.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FoundComparison {
    /// Objects of the baseline that the variant found too.
    pub found: u64,
    /// Objects of the baseline that the variant did not find.
    pub missed: u64,
    /// Objects of the variant that the baseline did not find.
    pub extra: u64,
    /// Frames on which one of the two shows an object that the other does not show.
    pub differing_frames: u64,
    /// The comparison for each text.
    pub texts: Vec<TextComparison>,
}

/// The objects that a variant found for one text, or the proposed ones, compared with those of the baseline.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TextComparison {
    /// The text; null for proposals.
    pub text: Option<String>,
    /// Objects of the baseline that the variant found too.
    pub found: u64,
    /// Objects of the baseline that the variant did not find.
    pub missed: u64,
    /// Objects of the variant that the baseline did not find.
    pub extra: u64,
    /// Mean over the objects that both found of their mean IoU; null if there is none.
    pub iou: Option<f64>,
    /// The lowest IoU of such an object on a frame; null if there is none.
    pub worst_iou: Option<f64>,
    /// The objects of the baseline by id, then those that only the variant found.
    pub objects: Vec<ObjectComparison>,
}

/// An object that the baseline, the variant or both found.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ObjectComparison {
    /// Its id in the baseline; null if the baseline did not find it.
    pub object: Option<u32>,
    /// Its id in the variant; null if the variant did not find it.
    pub variant_object: Option<u32>,
    /// The first frame on which the baseline shows it.
    pub first_frame: Option<u64>,
    /// The first frame on which the variant shows it.
    pub variant_first_frame: Option<u64>,
    /// Frames on which only one of the two shows it.
    pub differing_frames: u64,
    /// Mean IoU over the frames on which either shows it, 0 on those that only one shows; null unless both found it.
    pub iou: Option<f64>,
    /// The lowest IoU on such a frame; null unless both found it.
    pub worst_iou: Option<f64>,
}

/// The results of a run over the whole clip.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VariantRun {
    /// The folder with masks/, tracks.json and run.json, relative to that of report.json.
    pub folder: String,
    /// The bundle.
    pub model: ModelReport,
    /// How it was run.
    pub runtime: RuntimeReport,
    /// Frames per second with decoding and writing, without loading. Variants ran at different times, so compare `timing`
    /// and not this.
    pub fps: f64,
    /// Greatest resident memory of its process in bytes.
    pub peak_memory_bytes: Option<u64>,
    /// The detector; null without texts.
    #[serde(default)]
    pub detector: Option<DetectorReport>,
    /// The graph that proposes objects; null without one.
    #[serde(default)]
    pub proposals: Option<ProposalsReport>,
    /// The objects of each text, or the proposed objects as the only entry; empty if objects have prompts.
    #[serde(default)]
    pub texts: Vec<TextObjects>,
    /// Its scores against ground truth; null without ground truth.
    pub scores: Option<ScoresReport>,
    /// Objects that it loses: their J is below 0.5 from some frame to the end.
    pub lost: Vec<LostObject>,
}

/// An object that a variant loses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LostObject {
    /// The object's id.
    pub object: u32,
    /// The first frame from which on its J stays below 0.5.
    pub from_frame: u64,
}

/// Which variant to run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// The name of the variant; null if none could be run.
    pub run: Option<String>,
    /// The verdict in one sentence.
    pub sentence: String,
    /// A variant that is even faster, but with worse masks, in one sentence; null if there is none.
    pub also: Option<String>,
    /// What makes the verdict less certain, one sentence each.
    pub warnings: Vec<String>,
}

/// A requirement and its value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RequirementReport {
    /// As given, such as `b.iou>=0.97`.
    pub text: String,
    /// The value of its metric; null if it is not known.
    pub value: Option<f64>,
    /// Whether it is met; an unknown value does not meet it.
    pub met: bool,
    /// The unit of `value`; not part of the file.
    #[serde(skip)]
    pub unit: Unit,
}

/// The unit of a metric.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Unit {
    /// A plain number.
    #[default]
    Number,
    /// Bytes.
    Bytes,
}

/// A frame that the page shows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ShownFrame {
    /// The frame.
    pub frame: u64,
    /// The object that agrees least with the baseline; null without a comparison.
    pub worst: Option<Worst>,
    /// Whether the page shows it because of that object. Other frames show the clip evenly.
    pub among_worst: bool,
}

/// The object that agrees least with the baseline on a frame.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Worst {
    /// The variant.
    pub variant: String,
    /// Its id in the baseline, or in the variant if the baseline did not find it.
    pub object: u32,
    /// Whether the id is that of the variant.
    #[serde(default)]
    pub of_variant: bool,
    /// The IoU of its mask with the baseline's; 0 if only one of them shows it.
    pub iou: f64,
}

impl AbReport {
    /// Whether the variants find their objects by themselves, with texts or proposals.
    pub fn finds_objects(&self) -> bool {
        !self.texts.is_empty() || self.proposals.is_some()
    }
}

impl VariantRun {
    /// How it detects objects, such as `, detector at 336 px on one frame in 4`; empty if it does so on every frame at the
    /// resolution of the tracker.
    fn detection_text(&self) -> String {
        let proposals = self.proposals.as_ref().and_then(|p| p.discover_every);
        let every = |every: u64| match every {
            1 => "every frame".to_owned(),
            every => format!("one frame in {every}"),
        };
        let detector = self.detector.as_ref().map(|detector| {
            let side = detector.model.as_ref().map(|model| model.resolution);
            let side = side.map_or(String::new(), |side| format!(" at {side} px"));
            match (side.is_empty(), detector.every) {
                (true, 1) => String::new(),
                _ => format!(", detector{side} on {}", every(detector.every)),
            }
        });
        let proposals = proposals.map(|n| format!(", proposals on {}", every(n as u64)));
        detector.or(proposals).unwrap_or_default()
    }
}

impl VariantReport {
    /// Its mean scores against ground truth, if it has any.
    pub fn means(&self) -> Option<&MeanScores> {
        self.run.as_ref()?.scores.as_ref()?.overall.as_ref()
    }

    /// Number of objects that it found by itself; `None` if objects have prompts, and if it failed.
    pub fn found_count(&self) -> Option<u64> {
        let texts = &self.run.as_ref()?.texts;
        let objects = texts.iter().map(|text| text.objects.len() as u64);
        (!texts.is_empty()).then(|| objects.sum())
    }

    /// Number of objects of the ground truth that it did not find; `None` unless it found its objects by itself.
    pub fn truth_missed(&self) -> Option<u64> {
        let objects = &self.scores_by_overlap()?.objects;
        Some(objects.iter().filter(|object| !object.tracked).count() as u64)
    }

    /// Number of its objects that the ground truth does not show; `None` unless it found its objects by itself.
    pub fn truth_extra(&self) -> Option<u64> {
        Some(self.scores_by_overlap()?.not_scored.len() as u64)
    }

    fn scores_by_overlap(&self) -> Option<&ScoresReport> {
        let scores = self.run.as_ref()?.scores.as_ref()?;
        (scores.objects_by == OBJECTS_BY_OVERLAP).then_some(scores)
    }

    /// The time of a frame divided by that of `other`, round by round; `None` if either was not measured.
    pub fn time_ratio(&self, other: &Self) -> Option<Ratio> {
        let rounds = |variant: &Self| Some(variant.timing.as_ref()?.round_seconds());
        Ratio::of(&rounds(self)?, &rounds(other)?)
    }

    /// The model and how it is run, such as `snow-tiny 336 px fp16 on cpu`.
    pub fn what(&self) -> String {
        match (&self.run, &self.timing) {
            (Some(run), _) => format!(
                "{} {} px {} on {}{}",
                run.model.name,
                run.model.resolution,
                run.model.precision,
                self.provider,
                run.detection_text()
            ),
            (None, Some(timing)) => format!(
                "{} {} px {} on {}",
                self.dir, timing.ready.resolution, timing.ready.precision, self.provider
            ),
            (None, None) => format!("{} on {}", self.dir, self.provider),
        }
    }

    /// Peak resident memory in bytes: of the process that was measured, which writes no files, or else of its run.
    pub fn resident_bytes(&self) -> Option<u64> {
        let timed = self.timing.as_ref().and_then(|t| t.peak_resident_bytes);
        timed.or(self.run.as_ref().and_then(|run| run.peak_memory_bytes))
    }
}
