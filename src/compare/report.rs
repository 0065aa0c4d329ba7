//! report.json: everything that a comparison found.

use serde::{Deserialize, Serialize};

use super::agreement::Agreement;
use super::finds::{Finds, TextFound};
use super::verdict::Verdict;
use crate::bench::machine::Machine;
use crate::bench::report::ArmReport;
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
    /// Where times were taken.
    pub machine: Machine,
    /// The clip.
    pub clip: ClipReport,
    /// The prompts, merged by frame and object.
    pub prompts: Vec<PromptReport>,
    /// What was looked for; empty where prompts said which objects to follow.
    #[serde(default)]
    pub texts: Vec<String>,
    /// The graph that proposed objects; null where prompts or texts said which to follow.
    #[serde(default)]
    pub proposals: Option<String>,
    /// Objects that are followed: those with prompts, or those that the baseline found.
    pub objects: u64,
    /// The folder of ground truth; null without one.
    pub ground_truth: Option<String>,
    /// How times were taken.
    pub protocol: Protocol,
    /// The variants in the order in which they were given; the first is the baseline.
    pub variants: Vec<VariantReport>,
    /// Which to run.
    pub verdict: Verdict,
    /// What was required, with what was found; empty without `--require`.
    pub requirements: Vec<RequirementReport>,
    /// The frames that the page shows, the worst first.
    pub shown: Vec<ShownFrame>,
}

/// The clip that all variants saw.
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

/// How times were taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Protocol {
    /// Frames of each variant before those that count.
    pub warm_frames: usize,
    /// Rounds through all variants, forwards and backwards in turn.
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
    /// Where it was to run: `cpu` or `cuda`.
    pub provider: String,
    /// Why it could not be run or timed; null if it could.
    pub error: Option<String>,
    /// Its run over the whole clip; null if that failed.
    pub run: Option<VariantRun>,
    /// Its agreement with the baseline; null for the baseline itself, if either failed, and if they found no object in
    /// common.
    pub agreement: Option<Agreement>,
    /// What it found, beside what the baseline found; null where prompts say which objects there are, for the baseline itself,
    /// and if either failed.
    #[serde(default)]
    pub finds: Option<Finds>,
    /// Its times and memory, warm, with raw samples; null if it could not be timed.
    pub timing: Option<ArmReport>,
    /// The baseline's time of a frame divided by this one's, round by round: above 1 is faster. Null for the baseline itself,
    /// and if either was not timed.
    pub speedup: Option<Ratio>,
}

/// What a run over the whole clip says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VariantRun {
    /// The folder with masks/, tracks.json and run.json, relative to that of report.json.
    pub folder: String,
    /// The bundle.
    pub model: ModelReport,
    /// How it was run.
    pub runtime: RuntimeReport,
    /// Frames per second with decoding and writing, loading not counted. Other variants did not run beside it, but at other
    /// moments: a comparison of times is made from `timing`.
    pub fps: f64,
    /// Greatest resident memory of its process in bytes.
    pub peak_memory_bytes: Option<u64>,
    /// How it looked for what texts mean; null without texts.
    #[serde(default)]
    pub detector: Option<DetectorReport>,
    /// What came of the graph that proposes objects; null without one.
    #[serde(default)]
    pub proposals: Option<ProposalsReport>,
    /// What it found for each text, or of what a graph proposed; empty where prompts say which objects there are.
    #[serde(default)]
    pub texts: Vec<TextFound>,
    /// Its scores against ground truth; null without that.
    pub scores: Option<ScoresReport>,
    /// Objects that are lost to the ground truth: J below 0.5 from some frame to the end.
    pub lost: Vec<LostObject>,
}

/// An object that is not found again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LostObject {
    /// The object's id.
    pub object: u32,
    /// The first of the frames without it.
    pub from_frame: u64,
}

/// One requirement.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RequirementReport {
    /// As given, such as `b.iou>=0.97`.
    pub text: String,
    /// What was found; null where nothing was.
    pub value: Option<f64>,
    /// Whether it holds.
    pub met: bool,
}

/// A frame that the page shows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ShownFrame {
    /// The frame.
    pub frame: u64,
    /// The object and the variant that agree least with the baseline; null if there is nothing to compare.
    pub worst: Option<Worst>,
    /// Whether it is shown for that, and not only to show the clip evenly.
    pub among_worst: bool,
}

/// Where a variant agrees least with the baseline on a frame.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Worst {
    /// The variant.
    pub variant: String,
    /// The object's id: the baseline's, or the variant's own for one that the baseline did not find.
    pub object: u32,
    /// Whether the id is the variant's own, as the baseline did not find the object.
    #[serde(default)]
    pub of_variant: bool,
    /// The IoU of its mask with the baseline's; 0 where one of them does not show it.
    pub iou: f64,
}

impl AbReport {
    /// Whether each variant finds its objects itself.
    pub fn finds(&self) -> bool {
        !self.texts.is_empty() || self.proposals.is_some()
    }
}

impl VariantRun {
    /// How it looks for objects where that is not on each frame at the tracker's resolution: `, detector at 336 px on one
    /// frame in 4`.
    fn looking(&self) -> String {
        let proposals = self.proposals.as_ref().and_then(|look| look.discover_every);
        let every = |every: u64| match every {
            1 => "every frame".to_owned(),
            every => format!("one frame in {every}"),
        };
        let detector = self.detector.as_ref().map(|look| {
            let side = look.model.as_ref().map(|model| model.resolution);
            let side = side.map_or(String::new(), |side| format!(" at {side} px"));
            match (side.is_empty(), look.every) {
                (true, 1) => String::new(),
                _ => format!(", detector{side} on {}", every(look.every)),
            }
        });
        let proposals = proposals.map(|n| format!(", proposals on {}", every(n as u64)));
        detector.or(proposals).unwrap_or_default()
    }
}

impl VariantReport {
    /// Its means against ground truth, if it has them.
    pub fn means(&self) -> Option<&MeanScores> {
        self.run.as_ref()?.scores.as_ref()?.overall.as_ref()
    }

    /// Objects that it found; `None` where prompts say which there are, and if it failed.
    pub fn found(&self) -> Option<u64> {
        let texts = &self.run.as_ref()?.texts;
        let objects = texts.iter().map(|text| text.objects.len() as u64);
        (!texts.is_empty()).then(|| objects.sum())
    }

    /// Against ground truth: its objects that the run did not find, and the run's that it does not show. `None` unless
    /// the run found its objects itself.
    pub fn missed_and_extra(&self) -> Option<[u64; 2]> {
        let scores = self.run.as_ref()?.scores.as_ref()?;
        let missed = scores.objects.iter().filter(|object| !object.tracked);
        (scores.objects_by == OBJECTS_BY_OVERLAP)
            .then(|| [missed.count() as u64, scores.not_scored.len() as u64])
    }

    /// What is run, for people: `snow-tiny 336 px fp16 on cpu`, and how it looks for objects where that is not the usual way.
    pub fn what(&self) -> String {
        match (&self.run, &self.timing) {
            (Some(run), _) => format!(
                "{} {} px {} on {}{}",
                run.model.name,
                run.model.resolution,
                run.model.precision,
                self.provider,
                run.looking()
            ),
            (None, Some(timing)) => format!(
                "{} {} px {} on {}",
                self.dir, timing.ready.resolution, timing.ready.precision, self.provider
            ),
            (None, None) => format!("{} on {}", self.dir, self.provider),
        }
    }

    /// Greatest resident memory of a process of it, in bytes; that which timed it where it was timed, as that writes no
    /// files.
    pub fn resident_bytes(&self) -> Option<u64> {
        let timed = self.timing.as_ref().and_then(|t| t.peak_resident_bytes);
        timed.or(self.run.as_ref().and_then(|run| run.peak_memory_bytes))
    }
}
