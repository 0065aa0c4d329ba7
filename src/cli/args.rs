//! Arguments that several commands share, and their conversion to what the library takes.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use anyhow::Result;
use clap::{ArgMatches, Args};

use crate::bundle::locate;
use crate::prompts::FlagPrompt;
use crate::runtime::Provider;
use crate::session::config::{EngineConfig, MemorySelection};
use crate::tracker::memory_policy::Selection;

/// More threads than this many per core only take turns, and each takes memory.
const THREADS_PER_CORE: usize = 4;

pub(super) fn one_or_more(text: &str) -> Result<NonZeroUsize, String> {
    text.parse()
        .map_err(|_| "expected a whole number, 1 or more".to_owned())
}

pub(super) fn thread_count(text: &str) -> Result<NonZeroUsize, String> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let most = cores.saturating_mul(THREADS_PER_CORE);
    match text.parse::<NonZeroUsize>() {
        Ok(threads) if threads.get() <= most => Ok(threads),
        _ => Err(format!(
            "expected a whole number from 1 to {most}, {THREADS_PER_CORE} for each of the {cores} cores here"
        )),
    }
}

pub(super) fn share(text: &str) -> Result<f32, String> {
    match text.parse::<f32>() {
        Ok(value) if (0.0..=1.0).contains(&value) => Ok(value),
        _ => Err("expected a number from 0 to 1".to_owned()),
    }
}

/// Objects with prompts.
#[derive(Debug, Clone, Args)]
pub(super) struct PromptArgs {
    /// A box on frame 0 (repeatable)
    #[arg(
        long = "box",
        id = "boxes",
        value_name = "x1,y1,x2,y2",
        allow_hyphen_values = true
    )]
    pub boxes: Vec<String>,

    /// A point on frame 0; label 1 (default) is on the object, 0 is not (repeatable)
    #[arg(
        long = "point",
        id = "points",
        value_name = "x,y[,label]",
        allow_hyphen_values = true
    )]
    pub points: Vec<String>,

    /// An index PNG of frame 0's size (repeatable)
    #[arg(long = "mask", id = "masks", value_name = "index.png")]
    pub masks: Vec<PathBuf>,

    /// A JSON list of prompts on any frames
    #[arg(long, value_name = "FILE.json")]
    pub prompts: Option<PathBuf>,
}

impl PromptArgs {
    /// The prompt flags in the order in which they stand on the command line, across their kinds.
    pub(super) fn flag_prompts(&self, matches: &ArgMatches) -> Vec<FlagPrompt> {
        let positions = |id: &str| matches.indices_of(id).into_iter().flatten();
        let boxes = self.boxes.iter().cloned().map(FlagPrompt::Box);
        let points = self.points.iter().cloned().map(FlagPrompt::Point);
        let masks = self.masks.iter().cloned().map(FlagPrompt::Mask);
        let mut flags: Vec<(usize, FlagPrompt)> = positions("boxes")
            .zip(boxes)
            .chain(positions("points").zip(points))
            .chain(positions("masks").zip(masks))
            .collect();
        flags.sort_by_key(|(position, _)| *position);
        flags.into_iter().map(|(_, flag)| flag).collect()
    }
}

/// Bundles to compare.
#[derive(Debug, Args)]
pub(super) struct BundleArgs {
    /// A bundle, or a folder of bundles (repeatable)
    #[arg(long, value_name = "DIR", conflicts_with_all = ["res", "models"])]
    pub model: Vec<PathBuf>,

    /// Use the bundle of this resolution, as `run` does
    #[arg(long, value_name = "PIXELS", allow_negative_numbers = true)]
    pub res: Option<u32>,

    /// Folder to search for bundles
    #[arg(long, value_name = "DIR")]
    pub models: Option<PathBuf>,
}

impl BundleArgs {
    /// The folders of the bundles that were named, or the one that `run` would take.
    pub(super) fn dirs(&self) -> Result<Vec<PathBuf>> {
        if self.model.is_empty() {
            let dir = locate::choose(None, self.res, self.models.as_deref())?;
            return Ok(vec![dir]);
        }
        Ok(locate::all(&self.model)?)
    }
}

/// The library and the device.
#[derive(Debug, Clone, Args)]
pub(super) struct EngineArgs {
    /// Where to run: cpu or cuda; one that cannot serve is an error
    #[arg(long, value_name = "cpu|cuda", default_value = "cpu")]
    pub provider: Provider,

    /// The GPU, for --provider cuda
    #[arg(long, value_name = "N", default_value_t = 0, allow_negative_numbers = true, value_parser = clap::value_parser!(i32).range(0..))]
    pub device_id: i32,

    /// The ONNX Runtime library [default: $ORT_DYLIB_PATH, else next to the executable, else in the project's .venv]
    #[arg(long, value_name = "PATH")]
    pub ort_lib: Option<PathBuf>,

    /// CPU threads [default: one per core]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = thread_count)]
    pub threads: Option<NonZeroUsize>,

    /// An option of ONNX Runtime's CUDA provider, such as prefer_nhwc=1 (repeatable)
    #[arg(long = "cuda-option", id = "cuda_options", value_name = "NAME=VALUE", value_parser = name_and_value)]
    pub cuda_options: Vec<(String, String)>,
}

impl EngineArgs {
    /// The same as the library takes it.
    pub(super) fn config(&self) -> EngineConfig {
        EngineConfig {
            provider: self.provider,
            device_id: self.device_id,
            library: self.ort_lib.clone(),
            threads: self.threads,
            cuda_options: self.cuda_options.clone(),
            profile: None,
        }
    }
}

/// Which frames are recalled.
#[derive(Debug, Clone, Copy, Default, Args)]
pub(super) struct PolicyArgs {
    /// Recall only tracked frames whose memory score (certainty of the object times estimated IoU of its mask) is above this, such as 0.01; `all` for every frame [default: as the bundle says, usually all]
    #[arg(long, value_name = "SCORE|all", allow_negative_numbers = true)]
    pub memory_selection: Option<Selection>,
}

impl PolicyArgs {
    /// The same as the library takes it.
    pub(super) fn config(&self) -> Option<MemorySelection> {
        self.memory_selection.map(|Selection(above)| match above {
            None => MemorySelection::All,
            Some(score) => MemorySelection::Above(score),
        })
    }
}

fn name_and_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("expected NAME=VALUE".to_owned()),
    }
}
