//! bench.json: everything that was measured.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::arm::First;
use super::machine::Machine;
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
    /// What measured.
    pub snow_ort: String,
    /// The command line.
    pub command: Vec<String>,
    /// Where it was measured.
    pub machine: Machine,
    /// Frames of each arm before those that count.
    pub warm_frames: usize,
    /// Frames of a block.
    pub block_frames: usize,
    /// One measurement each.
    pub cases: Vec<Case>,
}

/// Arms on the same frames with the same prompts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Case {
    /// Objects that are followed; 0 where they are found for texts.
    pub objects: usize,
    /// Texts that objects are found for; empty where they are prompted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub texts: Vec<String>,
    /// What was measured.
    pub arms: Vec<ArmReport>,
    /// Each arm but the baseline against it.
    pub ratios: Vec<Comparison>,
}

/// One arm of a case.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ArmReport {
    /// Its name.
    pub name: String,
    /// What it says of itself.
    pub ready: Ready,
    /// Seconds from the start of its process until its model was loaded, with the other arms' processes waiting.
    pub load_s: f64,
    /// Seconds from the start of its process to the first frame's masks, with the other arms' processes waiting.
    pub cold_s: f64,
    /// Greatest resident memory of its process, in bytes.
    pub peak_resident_bytes: Option<u64>,
    /// Greatest size of its arena, in bytes.
    pub arena_peak_bytes: Option<u64>,
    /// Memory of its process on the GPU, in bytes.
    pub device_bytes: Option<u64>,
    /// What its memory bank held at the end, in bytes.
    pub bank_bytes: Option<u64>,
    /// Seconds of a frame. Where frames are not all alike, since something is looked for on some only, this is the spread of
    /// the rounds, each with the looks' share in a frame.
    pub frame_s: Spread,
    /// Seconds of a stage in a frame that has it, in the order in which stages run.
    pub stages_s: Vec<(String, Spread)>,
    /// The counted frames, `[round][frame]`.
    pub rounds: Vec<Vec<Frame>>,
    /// Its graphs' operators; empty unless they were asked for.
    pub profile: Vec<GraphProfile>,
}

/// An arm's time divided by the baseline's: below 1 is faster.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// The arm.
    pub arm: String,
    /// What it is compared with.
    pub baseline: String,
    /// A whole frame.
    pub frame: Ratio,
    /// The vision encoder alone; null if an arm does not tell its time.
    pub vision_encoder: Option<Ratio>,
    /// All but the vision encoder.
    pub tracker: Option<Ratio>,
}

/// All stages of a bundle with a detector, in the order in which they run; others follow.
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

/// Stages of a tracker, in the order in which they run; others follow.
pub const ORDER: [&str; 4] = [VISION, "memory_attention", "mask_decoder", "memory_encoder"];

impl ArmReport {
    /// An arm's figures; `None` without a counted frame.
    pub fn new(name: &str, first: First, rounds: Vec<Vec<Frame>>) -> Option<Self> {
        let frames = || rounds.iter().flatten();
        let last = frames().last()?.clone();
        let alike = frames().all(|frame| frame.stages.keys().eq(last.stages.keys()));
        let seconds: Vec<f64> = match alike {
            true => frames().map(|frame| frame.seconds).collect(),
            // Among all frames the median would be that of a frame without a look.
            false => per_round(&rounds, |frame| Some(frame.seconds))?,
        };
        // Not every frame has all: a detector may look at some only.
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
            ready: first.ready,
            load_s: first.load_s,
            cold_s: first.cold_s,
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

    /// The seconds of a frame in each round: the median of each kind of frame, in the share that the kind has.
    pub fn round_seconds(&self) -> Vec<f64> {
        per_round(&self.rounds, |frame| Some(frame.seconds)).unwrap_or_default()
    }

    /// What a stage adds to a frame, in seconds: its median in frames that have it, in their share.
    pub fn share_s(&self, stage: &str, median: f64) -> f64 {
        let frames = || self.rounds.iter().flatten();
        let with = frames().filter(|frame| frame.stages.contains_key(stage));
        median * with.count() as f64 / frames().count().max(1) as f64
    }
}

/// Frames of a block by the stages that they have: a frame with a look is of another kind than one without.
fn kinds(block: &[Frame]) -> BTreeMap<Vec<&String>, Vec<&Frame>> {
    let mut kinds: BTreeMap<Vec<&String>, Vec<&Frame>> = BTreeMap::new();
    for frame in block {
        let stages = frame.stages.keys().collect();
        kinds.entry(stages).or_default().push(frame);
    }
    kinds
}

/// For each round what `time` says of a frame: the median of each kind of frame, in the share that the kind has. `None` if it
/// does not say.
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
    /// Compares two arms round by round; `None` without rounds.
    pub fn new(arm: &ArmReport, baseline: &ArmReport) -> Option<Self> {
        let ratio = |time: &dyn Fn(&Frame) -> Option<f64>| {
            Ratio::of(
                &per_round(&arm.rounds, time)?,
                &per_round(&baseline.rounds, time)?,
            )
        };
        Some(Self {
            arm: arm.name.clone(),
            baseline: baseline.name.clone(),
            frame: ratio(&|frame| Some(frame.seconds))?,
            vision_encoder: ratio(&|frame| frame.stages.get(VISION).copied()),
            tracker: ratio(&|frame| Some(frame.seconds - frame.stages.get(VISION)?)),
        })
    }
}
