//! The layout of bench.json.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::machine::Machine;
use super::process::Startup;
use super::profile::GraphProfile;
use super::protocol::{Frame, Ready};
use super::stats::{Ratio, Spread, median};

/// Version of the layout of bench.json.
pub const BENCH_VERSION: u32 = 1;

/// The stage that does not depend on the objects.
const VISION: &str = "vision_encoder";

/// bench.json.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BenchReport {
    /// Version of this layout.
    pub schema_version: u32,
    /// Version of the program that measured.
    pub snow_ort: String,
    /// The command line.
    pub command: Vec<String>,
    /// The machine on which it was measured.
    pub machine: Machine,
    /// Frames of each variant before those that are measured.
    pub warm_frames: usize,
    /// Frames of a block.
    pub block_frames: usize,
    /// The trials.
    pub cases: Vec<Case>,
}

/// One trial: variants on the same frames with the same prompts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Case {
    /// Objects that are tracked; 0 if texts say what to track.
    pub objects: usize,
    /// The texts whose objects are tracked; empty if objects have prompts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub texts: Vec<String>,
    /// What was measured.
    #[serde(rename = "arms")]
    pub variants: Vec<VariantTiming>,
    /// Each variant compared with the baseline.
    pub ratios: Vec<Comparison>,
}

/// Times and memory of one variant.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VariantTiming {
    /// Its name.
    pub name: String,
    /// The first line that its process wrote.
    pub ready: Ready,
    /// Seconds from the start of its process until its model was loaded, while the other processes wait.
    pub load_s: f64,
    /// Seconds from the start of its process to the first frame's masks, while the other processes wait.
    pub cold_s: f64,
    /// Greatest resident memory of its process, in bytes.
    pub peak_resident_bytes: Option<u64>,
    /// Greatest size of its arena, in bytes.
    pub arena_peak_bytes: Option<u64>,
    /// Memory of its process on the GPU, in bytes.
    pub device_bytes: Option<u64>,
    /// Size of its memory bank at the end, in bytes.
    pub bank_bytes: Option<u64>,
    /// Seconds of a frame. If only some frames have a detection, this is the spread over the rounds, in which a detection
    /// counts with its share in a frame.
    pub frame_s: Spread,
    /// Seconds of each stage over the frames that have it, in the order in which stages run.
    pub stages_s: Vec<(String, Spread)>,
    /// The measured frames, `[round][frame]`.
    pub rounds: Vec<Vec<Frame>>,
    /// Times of the operators of its graphs; empty unless they were asked for.
    pub profile: Vec<GraphProfile>,
}

/// A variant's time divided by the baseline's: below 1 is faster.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// The variant.
    #[serde(rename = "arm")]
    pub variant: String,
    /// The variant that it is compared with.
    pub baseline: String,
    /// A whole frame.
    pub frame: Ratio,
    /// The vision encoder alone; null if a variant does not report its time.
    pub vision_encoder: Option<Ratio>,
    /// Everything but the vision encoder; null if a variant does not report its time.
    pub tracker: Option<Ratio>,
}

/// Stages of a bundle with a detector, in the order in which they run; other stages follow.
pub const STAGES: [&str; 8] = [
    VISION,
    "detector_vision_encoder",
    "detector_features",
    "detector",
    "detector_masks",
    "memory_attention",
    "mask_decoder",
    "memory_encoder",
];

/// Stages of a tracker, in the order in which they run; other stages follow.
pub const TRACKER_STAGES: [&str; 4] =
    [VISION, "memory_attention", "mask_decoder", "memory_encoder"];

impl VariantTiming {
    /// Computes a variant's figures; `None` without a measured frame.
    pub fn new(name: &str, startup: Startup, rounds: Vec<Vec<Frame>>) -> Option<Self> {
        let frames = || rounds.iter().flatten();
        let last = frames().last()?.clone();
        let alike = frames().all(|frame| frame.stages.keys().eq(last.stages.keys()));
        let seconds: Vec<f64> = match alike {
            true => frames().map(|frame| frame.seconds).collect(),
            // The median over all frames would be that of a frame without a detection.
            false => per_round(&rounds, |frame| Some(frame.seconds))?,
        };
        // A detector may run on some frames only.
        let names: BTreeSet<&String> = frames().flat_map(|frame| frame.stages.keys()).collect();
        let mut names: Vec<&String> = names.into_iter().collect();
        names.sort_by_key(|name| {
            STAGES
                .iter()
                .position(|known| known == name)
                .unwrap_or(STAGES.len())
        });
        let stages_s = names
            .into_iter()
            .filter_map(|name| {
                let seconds: Vec<f64> = frames()
                    .filter_map(|frame| frame.stages.get(name).copied())
                    .collect();
                Some((name.clone(), Spread::of(&seconds)?))
            })
            .collect();
        Some(Self {
            name: name.to_owned(),
            ready: startup.ready,
            load_s: startup.load_s,
            cold_s: startup.cold_s,
            peak_resident_bytes: last.peak_resident_bytes,
            arena_peak_bytes: last.arena_peak_bytes,
            device_bytes: last.device_bytes,
            bank_bytes: last.bank_bytes,
            frame_s: Spread::of(&seconds)?,
            stages_s,
            rounds,
            profile: Vec::new(),
        })
    }

    /// Seconds of a frame in each round: the medians of the kinds of frames, weighted by their numbers.
    pub fn round_seconds(&self) -> Vec<f64> {
        per_round(&self.rounds, |frame| Some(frame.seconds)).unwrap_or_default()
    }

    /// Seconds that a stage adds to an average frame: its median over the frames that have it, times their share.
    pub fn share_s(&self, stage: &str, median: f64) -> f64 {
        let frames = || self.rounds.iter().flatten();
        let with = frames().filter(|frame| frame.stages.contains_key(stage));
        median * with.count() as f64 / frames().count().max(1) as f64
    }
}

/// The frames of a block by the stages that they have: a frame with a detection is of another kind than one without.
fn kinds(block: &[Frame]) -> BTreeMap<Vec<&String>, Vec<&Frame>> {
    let mut kinds: BTreeMap<Vec<&String>, Vec<&Frame>> = BTreeMap::new();
    for frame in block {
        let stages = frame.stages.keys().collect();
        kinds.entry(stages).or_default().push(frame);
    }
    kinds
}

/// For each round the average `time` of a frame: the medians of the kinds of frames, weighted by their numbers. `None` if a
/// frame does not have that time.
fn per_round(rounds: &[Vec<Frame>], time: impl Fn(&Frame) -> Option<f64>) -> Option<Vec<f64>> {
    let of_block = |block: &Vec<Frame>| {
        let parts = kinds(block).into_values().map(|frames| {
            let seconds: Option<Vec<f64>> = frames.iter().map(|frame| time(frame)).collect();
            Some(median(&seconds?)? * frames.len() as f64)
        });
        let sum: f64 = parts.sum::<Option<f64>>()?;
        (!block.is_empty()).then(|| sum / block.len() as f64)
    };
    rounds.iter().map(of_block).collect()
}

impl Comparison {
    /// Compares two variants round by round; `None` without rounds.
    pub fn new(variant: &VariantTiming, baseline: &VariantTiming) -> Option<Self> {
        let ratio = |time: &dyn Fn(&Frame) -> Option<f64>| {
            Ratio::of(
                &per_round(&variant.rounds, time)?,
                &per_round(&baseline.rounds, time)?,
            )
        };
        Some(Self {
            variant: variant.name.clone(),
            baseline: baseline.name.clone(),
            frame: ratio(&|frame| Some(frame.seconds))?,
            vision_encoder: ratio(&|frame| frame.stages.get(VISION).copied()),
            tracker: ratio(&|frame| Some(frame.seconds - frame.stages.get(VISION)?)),
        })
    }
}
