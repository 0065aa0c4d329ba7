//! The description of one run, as data: input, bundle, what to track, engine, limits and outputs.
//!
//! A [`Config`] can be written as JSON and read back without loss, so that a run can be started by another process
//! (`bench`, `ab` and `doctor` do). It names files and folders as they are: nothing is searched by name.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::prompts::Prompts;
use crate::proposals::ProposalOptions;
use crate::runtime::{EngineOptions, Provider};

/// One run.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// A video file, an image, or a folder of images in name order.
    pub input: PathBuf,
    /// The folder of the bundle.
    pub bundle: PathBuf,
    /// What to track.
    pub objects: Objects,
    /// Ends the run after this many frames; all frames without.
    #[serde(default)]
    pub max_frames: Option<NonZeroUsize>,
    /// Frames that the tracker is told to expect, for a program that steps through a clip by itself, such as a benchmark;
    /// the clip's frames are counted without.
    #[serde(default)]
    pub num_frames: Option<usize>,
    /// The library and the device.
    #[serde(default)]
    pub engine: EngineConfig,
    /// Most objects in one run of a graph; results do not depend on it. Chosen by the size of the image, the device and
    /// the memory limit without.
    #[serde(default)]
    pub chunk: Option<NonZeroUsize>,
    /// Most bytes of the arena that all graphs share; no limit without.
    #[serde(default)]
    pub mem_limit: Option<u64>,
    /// Which tracked frames may be recalled; as the bundle says without.
    #[serde(default)]
    pub memory_selection: Option<MemorySelection>,
    /// A folder of index PNGs to score the masks against.
    #[serde(default)]
    pub ground_truth: Option<PathBuf>,
    /// Files to write; nothing is written without.
    #[serde(default)]
    pub outputs: Option<OutputConfig>,
    /// Further files that the outputs must not replace, such as the file that prompts were read from.
    #[serde(default)]
    pub protect: Vec<PathBuf>,
}

impl Config {
    /// A run over `input` with the bundle in the folder `bundle`, with default settings, that writes nothing.
    pub fn new(input: impl Into<PathBuf>, bundle: impl Into<PathBuf>, objects: Objects) -> Self {
        Self {
            input: input.into(),
            bundle: bundle.into(),
            objects,
            max_frames: None,
            num_frames: None,
            engine: EngineConfig::default(),
            chunk: None,
            mem_limit: None,
            memory_selection: None,
            ground_truth: None,
            outputs: None,
            protect: Vec::new(),
        }
    }

    /// The prompts of the user; none for texts.
    pub(crate) fn prompts(&self) -> Option<&Prompts> {
        match &self.objects {
            Objects::Prompts(prompts) => Some(prompts),
            Objects::Texts(_) => None,
            Objects::Proposals(proposals) => Some(&proposals.prompts),
        }
    }

    /// The engine's options, with the memory limit of this run.
    pub(crate) fn engine_options(&self) -> EngineOptions {
        self.engine.options(self.mem_limit)
    }

    /// Frames from one detection or proposal to the next; 1 where objects have prompts alone.
    pub(crate) fn detect_every(&self) -> usize {
        match &self.objects {
            Objects::Prompts(_) => 1,
            Objects::Texts(texts) => texts.detect_every.get(),
            Objects::Proposals(proposals) => {
                proposals.graph.detect_every.map_or(1, NonZeroUsize::get)
            }
        }
    }
}

/// What a run tracks.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Objects {
    /// Objects with prompts.
    Prompts(Prompts),
    /// Every object that a text means.
    Texts(TextConfig),
    /// Objects that a graph proposes, and objects with prompts.
    Proposals(ProposalConfig),
}

/// Texts, and how the objects that they mean are detected and tracked.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TextConfig {
    /// The texts, each once; at least one.
    pub texts: Vec<String>,
    /// Changes to the parameters that the bundle states for text tracking; the last change of a name counts.
    #[serde(default)]
    pub parameters: Vec<Parameter>,
    /// Frames from one detection to the next, from frame 0 on.
    #[serde(default = "one")]
    pub detect_every: NonZeroUsize,
    /// The folder of a bundle whose detector is used, at its own resolution; the tracker's bundle without.
    #[serde(default)]
    pub detector_bundle: Option<PathBuf>,
}

fn one() -> NonZeroUsize {
    NonZeroUsize::MIN
}

impl TextConfig {
    /// Every object that one of `texts` means, detected on every frame with the bundle's parameters.
    pub fn new<T: Into<String>>(texts: impl IntoIterator<Item = T>) -> Self {
        Self {
            texts: distinct(texts),
            parameters: Vec::new(),
            detect_every: one(),
            detector_bundle: None,
        }
    }
}

/// The texts in their order, each once.
pub(crate) fn distinct<T: Into<String>>(texts: impl IntoIterator<Item = T>) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    for text in texts.into_iter().map(Into::into) {
        if !all.contains(&text) {
            all.push(text);
        }
    }
    all
}

/// A changed parameter of text tracking.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parameter {
    /// Its name in the bundle's manifest.
    pub name: String,
    /// Its value as JSON: a number, `true` or `false`.
    pub value: String,
}

/// A graph that proposes objects.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProposalGraph {
    /// The ONNX file: FastSAM or a YOLO segmentation model, as Ultralytics exports it.
    pub file: PathBuf,
    /// Longer side in pixels of the image of a graph that takes any size; what the file says without, else 640.
    #[serde(default)]
    pub image_size: Option<u32>,
    /// Frames from one run of the graph to the next; frame 0 alone without.
    #[serde(default)]
    pub detect_every: Option<NonZeroUsize>,
}

/// Proposals, and which of them become objects.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProposalConfig {
    /// The graph.
    pub graph: ProposalGraph,
    /// What of a proposal becomes the prompt.
    #[serde(default)]
    pub prompt: ProposalPrompt,
    /// Only proposals with a score above this, 0 to 1.
    #[serde(default = "min_score")]
    pub min_score: f32,
    /// Of two boxes of one class whose IoU is above this, 0 to 1, only the one with the higher score.
    #[serde(default = "max_iou")]
    pub max_iou: f32,
    /// Most proposals on a frame; the best ones.
    #[serde(default = "max_proposals")]
    pub max_proposals: NonZeroUsize,
    /// Whether boxes of different classes are compared for `max_iou` too.
    #[serde(default)]
    pub class_agnostic: bool,
    /// A proposal is not new if more than this share of its mask, 0 to 1, lies under the masks of objects.
    #[serde(default = "max_covered")]
    pub max_covered: f32,
    /// Most objects in all; without, those with prompts and `max_proposals` more.
    #[serde(default)]
    pub max_objects: Option<NonZeroUsize>,
    /// Prompts of the user, which come before proposals; may be empty.
    #[serde(default = "Prompts::none")]
    pub prompts: Prompts,
}

fn min_score() -> f32 {
    0.4
}

fn max_iou() -> f32 {
    0.7
}

fn max_proposals() -> NonZeroUsize {
    NonZeroUsize::MIN.saturating_add(31)
}

fn max_covered() -> f32 {
    0.5
}

impl ProposalConfig {
    /// Every proposal of the graph in `file` on frame 0, with its box as the prompt.
    pub fn new(file: impl Into<PathBuf>) -> Self {
        Self {
            graph: ProposalGraph {
                file: file.into(),
                image_size: None,
                detect_every: None,
            },
            prompt: ProposalPrompt::default(),
            min_score: min_score(),
            max_iou: max_iou(),
            max_proposals: max_proposals(),
            class_agnostic: false,
            max_covered: max_covered(),
            max_objects: None,
            prompts: Prompts::none(),
        }
    }

    /// Which candidates become proposals.
    pub(crate) fn options(&self) -> ProposalOptions {
        ProposalOptions {
            min_score: self.min_score,
            max_iou: self.max_iou,
            max_proposals: self.max_proposals.get(),
            class_agnostic: self.class_agnostic,
        }
    }
}

/// What of a proposal becomes the prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProposalPrompt {
    /// Its box.
    #[default]
    Box,
    /// Its mask.
    Mask,
}

impl ProposalPrompt {
    /// `box` or `mask`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Box => "box",
            Self::Mask => "mask",
        }
    }
}

/// Which tracked frames may be recalled.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MemorySelection {
    /// All.
    All,
    /// Those with a memory score above this, 0 to less than 1.
    Above(f64),
}

/// The library and the device.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EngineConfig {
    /// Where graphs run.
    pub provider: Provider,
    /// Which GPU.
    pub device_id: i32,
    /// The ONNX Engine library's file or folder; found as [`crate::runtime::library::find`] says without.
    pub library: Option<PathBuf>,
    /// Threads of one operator; one per core without.
    pub threads: Option<NonZeroUsize>,
    /// Options of the library's CUDA provider, by their names there.
    pub cuda_options: Vec<(String, String)>,
    /// A folder to which the library writes a profile of each graph.
    pub profile: Option<PathBuf>,
}

impl EngineConfig {
    /// The engine's options, with a limit on its arena in bytes.
    pub(crate) fn options(&self, mem_limit: Option<u64>) -> EngineOptions {
        EngineOptions {
            provider: self.provider,
            library: self.library.clone(),
            threads: self.threads.map(Into::into),
            device_id: self.device_id,
            mem_limit,
            cuda_options: self.cuda_options.clone(),
            profile: self.profile.clone(),
            ..EngineOptions::default()
        }
    }
}

/// The files that a run writes.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutputConfig {
    /// The folder of `masks/`, `tracks.json` and `run.json`.
    pub dir: PathBuf,
    /// A video with the masks drawn over the frames: `.mp4`, `.mov` or `.mkv`.
    #[serde(default)]
    pub overlay: Option<PathBuf>,
    /// A PNG with up to 12 frames of the overlay.
    #[serde(default)]
    pub contact_sheet: Option<PathBuf>,
    /// A folder of raw logits, a safetensors file for each frame.
    #[serde(default)]
    pub logits: Option<PathBuf>,
    /// Whether an earlier run's files may be replaced.
    #[serde(default)]
    pub overwrite: bool,
}

impl OutputConfig {
    /// Masks, tracks and the report in the folder `dir`, which must not hold a run.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            overlay: None,
            contact_sheet: None,
            logits: None,
            overwrite: false,
        }
    }
}
