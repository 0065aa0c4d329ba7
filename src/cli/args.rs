//! The arguments, as clap reads them.

use std::ffi::OsString;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::{ArgMatches, Args, Parser, Subcommand};

use super::ab::args::AbArgs;
use super::doctor::{DoctorArgs, TrialArgs};
use super::inspect::InspectArgs;
use super::package::PackageArgs;
use super::plan::PlanArgs;
use super::propose::ProposalArgs;
use super::shell::{CompletionsArgs, ManArgs};
use super::texts::TextArgs;
use crate::bundle::Bundle;
use crate::prompts::FlagPrompt;
use crate::runtime::{Provider, RuntimeOptions};
use crate::tracker::memory_policy::Selection;

/// Tracks objects in video with SAM3 as ONNX graphs, without Python.
#[derive(Debug, Parser)]
#[command(
    name = "snow-ort",
    version,
    arg_required_else_help = true,
    after_help = "Exit codes: 0 done; 1 done, but outside of a tolerance that was asked for; 2 could not do it."
)]
pub(super) struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Track objects in a video or in a folder of images
    Run(Box<RunArgs>),
    /// Find objects in images from text and example boxes
    Detect(Box<DetectArgs>),
    /// Say what a run would need of memory, and what fits in a limit
    Plan(PlanArgs),
    /// Time bundles, and other programs beside them, frame by frame
    Bench(BenchArgs),
    /// Compare variants of a model on a clip: masks, time, memory, and which to run
    Ab(Box<AbArgs>),
    /// Track frames as they are asked for on standard input; what `bench` starts
    #[command(hide = true)]
    BenchWorker(WorkerArgs),
    /// Say why a bundle does not run here, or runs slowly or wrongly, and what to do
    Doctor(DoctorArgs),
    /// Try a provider; what `doctor` starts
    #[command(hide = true)]
    DoctorTrial(TrialArgs),
    /// Say what a bundle is: graphs, shapes, sizes, policy, source, versions, licence
    Inspect(InspectArgs),
    /// Pack the program with its libraries and bundles into one archive
    Package(PackageArgs),
    /// Print the JSON Schema of a bundle's manifest.json
    Schema,
    /// Print a completion script for a shell
    Completions(CompletionsArgs),
    /// Print the manual page, or write those of all commands
    Man(ManArgs),
}

// One line a paragraph: clap wraps them to the terminal.
const PROMPT_HELP: &str = "\
Prompts:
  Coordinates are pixels of the source frame.

  --box, --point and --mask stand on frame 0 and are objects 1, 2, … in the order in which they stand on the \
command line, across the three kinds. A --mask whose PNG has several ids gives one object per id: with the \
PNG's own ids when it is the only such flag, else with the next free ones.

  --prompts FILE is a JSON list, on any frames:
    [{\"frame\": 0, \"object\": 1, \"box\": [120, 80, 410, 460]},
     {\"frame\": 0, \"object\": 2, \"points\": [[300, 200, 1], [350, 210, 0]]},
     {\"frame\": 7, \"object\": 3, \"mask\": \"third.png\"}]
  A label is 1 (on the object, the default) or 0 (not on it). A mask's path is relative to the JSON file; in an \
index PNG the pixels with the object's id count, in one with a single value all pixels that are not 0. Entries of \
the same frame and object are merged: one box and any number of points, or one mask alone. Flags and a file may be \
combined.

  A prompt takes effect when its frame is reached, before that frame is tracked. The frame becomes a conditioning \
frame of that object. An object does not exist before its first prompt; a prompt on a later frame refines it.

Proposals (--proposals FILE.onnx):
  The graph looks at frame 0, and with --discover-every N at every N-th frame. A proposal of which more than --covered lies under the masks of objects is not new; any other becomes an object, with the next free id, prompted with its box or its mask (--proposal-prompts) on that frame. Prompts of the user come first. run.json has these prompts, with score and class; tracks.json has everything that was proposed.

  Boxes and masks are those of Ultralytics with retina_masks=True. Both of its forms of output are known, with any number of classes: one row for each anchor, of which the best of those that overlap are taken here, and end-to-end exports.

  With --mem-limit the graph is loaded for each look and dropped, unless the limit leaves room for it all the time; without a limit it stays. Without --discover-every it is gone before the model is loaded.

Output (--out DIR):
  masks/00000.png …  index PNG per frame: palette index = object id, the higher logit is in front
  tracks.json        per frame and object: COCO RLE, box, area, scores
  run.json           status, input, prompts, versions, timings per stage, peak memory, scores

  Everything is written to a hidden folder inside of DIR and moved into place at the end. Ctrl-C finishes the frame \
at hand, keeps what is complete, says \"interrupted\" in run.json and exits with 2; a second Ctrl-C removes everything \
and leaves at once. With --overwrite an earlier run stays until the new one is done; a new one that ends early is \
kept beside it, in DIR/interrupted or DIR/failed.

Scores (--gt DIR):
  DIR holds index PNGs (palette index = object id, 0 = background, 255 = ignored: not judged, as void in DAVIS), or black and white masks of one object (white = object 1), in the frames' size, not necessarily for every frame. For a folder of images they bear the images' names; else, and for a video, the frame's number: 00012.png is frame 12, counted from 0, as in masks/.

  J is the intersection over union of the written mask and the ground truth, F the F-measure of their outlines, as in DAVIS 2017. An object counts on the annotated frames after that of its first prompt; the last frame counts, which DAVIS's own script leaves out. J, F and J&F of an object are means over its frames, the overall ones means over objects. An object of the ground truth without a prompt counts as empty masks, from the first frame that shows it on; one that the ground truth never shows does not count. The table at the end and \"scores\" in run.json say the same; run.json also has every frame.

Exit codes: 0 done; 1 done, but outside of a tolerance that was asked for; 2 could not do it.";

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

/// Arguments of `snow-ort run`.
#[derive(Debug, Args)]
#[command(after_long_help = PROMPT_HELP, after_help = "`snow-ort run --help` says how prompts and output work.")]
pub(super) struct RunArgs {
    /// A video file, an image, or a folder of images in name order
    pub input: PathBuf,

    /// The bundle: a folder that snow-export wrote
    #[arg(long, value_name = "DIR", conflicts_with = "res")]
    pub model: Option<PathBuf>,

    /// Choose the bundle of this resolution among those found
    ///
    /// Bundles are looked for in --models DIR, else in $SNOW_ORT_MODELS, else in ./models, models/ beside the
    /// executable, and models/ in up to three folders above it. With neither --model nor --res: the only bundle, or the one of the
    /// lowest resolution among those whose name starts with "snow-".
    #[arg(long, value_name = "PIXELS", allow_negative_numbers = true)]
    pub res: Option<u32>,

    /// Folder in which bundles are looked for
    #[arg(long, value_name = "DIR", conflicts_with = "model")]
    pub models: Option<PathBuf>,

    #[command(flatten)]
    pub prompting: PromptArgs,

    #[command(flatten)]
    pub text: TextArgs,

    #[command(flatten)]
    pub proposals: ProposalArgs,

    /// Output folder [default: out/<name of the input without its ending>]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,

    /// Also write a video with the masks drawn over the frames (H.264; .mp4, .mov or .mkv)
    #[arg(long, value_name = "FILE")]
    pub overlay: Option<PathBuf>,

    /// Also write a picture with up to 12 frames of the overlay, from the first to the last (.png)
    #[arg(long, value_name = "FILE")]
    pub contact_sheet: Option<PathBuf>,

    /// Score the masks against ground truth: a folder of index PNGs, one for each annotated frame
    #[arg(long, value_name = "DIR")]
    pub gt: Option<PathBuf>,

    /// Also write each frame's raw logits: DIR/00000.safetensors with low_res_masks, object_score, object_ids
    #[arg(long, value_name = "DIR")]
    pub dump_logits: Option<PathBuf>,

    /// Replace an earlier run in the output folder, once the new one is done
    #[arg(long)]
    pub overwrite: bool,

    /// Track only the first N frames
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = one_or_more)]
    pub max_frames: Option<NonZeroUsize>,

    #[command(flatten)]
    pub policy: PolicyArgs,

    #[command(flatten)]
    pub runtime: RuntimeArgs,

    /// Most objects that go through a graph at once; results do not depend on it [default: up to 8 by the image's size, on a GPU 16; fewer where --mem-limit asks for it]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = one_or_more)]
    pub chunk: Option<NonZeroUsize>,

    /// Most memory that graphs may take, such as 512MiB or 3GiB: a run that needs more ends before its first frame
    ///
    /// It bounds the arena that all graphs share, with weights, working memory and what is remembered of each object; on
    /// a GPU that is nearly everything, on the processor frames and masks come on top.
    #[arg(long, value_name = "SIZE", allow_negative_numbers = true, value_parser = crate::size::parse)]
    pub mem_limit: Option<u64>,

    /// No progress and no summary; warnings and errors only
    #[arg(long, short)]
    pub quiet: bool,

    /// A line on standard output for each frame instead of progress and summary; what `ab` counts
    #[arg(long, hide = true)]
    pub tell_frames: bool,
}

/// What to follow.
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
    pub fn flag_prompts(&self, matches: &ArgMatches) -> Vec<FlagPrompt> {
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

    /// Choose the bundle of this resolution among those found, as `run` does
    #[arg(long, value_name = "PIXELS", allow_negative_numbers = true)]
    pub res: Option<u32>,

    /// Folder in which bundles are looked for
    #[arg(long, value_name = "DIR")]
    pub models: Option<PathBuf>,
}

/// Where graphs run, and with what.
#[derive(Debug, Clone, Args)]
pub(super) struct RuntimeArgs {
    /// Where to run: cpu or cuda; one that cannot serve is an error
    #[arg(long, value_name = "cpu|cuda", default_value = "cpu")]
    pub provider: Provider,

    /// The GPU, for --provider cuda
    #[arg(long, value_name = "N", default_value_t = 0, allow_negative_numbers = true, value_parser = clap::value_parser!(i32).range(0..))]
    pub device_id: i32,

    /// The ONNX Runtime library [default: $ORT_DYLIB_PATH, else beside the executable, else in the project's .venv]
    #[arg(long, value_name = "PATH")]
    pub ort_lib: Option<PathBuf>,

    /// CPU threads [default: one per core]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = thread_count)]
    pub threads: Option<NonZeroUsize>,

    /// An option of ONNX Runtime's CUDA provider, such as prefer_nhwc=1 (repeatable)
    #[arg(long = "cuda-option", id = "cuda_options", value_name = "NAME=VALUE", value_parser = name_and_value)]
    pub cuda_options: Vec<(String, String)>,
}

/// Which frames are recalled.
#[derive(Debug, Clone, Copy, Default, Args)]
pub(super) struct PolicyArgs {
    /// Recall only tracked frames whose memory score (certainty of the object times estimated IoU of its mask) is above this, such as 0.01; `all` for every frame [default: as the bundle says, usually all]
    #[arg(long, value_name = "SCORE|all", allow_negative_numbers = true)]
    pub memory_selection: Option<Selection>,
}

impl PolicyArgs {
    /// Has a bundle recall as these say.
    pub fn apply(&self, bundle: &mut Bundle) {
        if let Some(Selection(least)) = self.memory_selection {
            bundle.select_memories(least);
        }
    }

    /// The same as arguments of another process.
    pub fn arguments(&self) -> Vec<String> {
        let word = self.memory_selection;
        word.map(|word| format!("--memory-selection={word}"))
            .into_iter()
            .collect()
    }
}

fn name_and_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("expected NAME=VALUE".to_owned()),
    }
}

impl RuntimeArgs {
    /// As the runtime takes them, with a limit on its arena.
    pub fn options(&self, mem_limit: Option<u64>) -> RuntimeOptions {
        RuntimeOptions {
            provider: self.provider,
            library: self.ort_lib.clone(),
            threads: self.threads.map(Into::into),
            device_id: self.device_id,
            mem_limit,
            cuda_options: self.cuda_options.clone(),
            ..RuntimeOptions::default()
        }
    }

    /// The same as arguments of another process, with the chunk and the limit on memory.
    pub fn arguments(&self, chunk: Option<NonZeroUsize>, mem_limit: Option<u64>) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = vec![
            "--provider".into(),
            self.provider.to_string().into(),
            "--device-id".into(),
            self.device_id.to_string().into(),
        ];
        let mut add = |name: &str, value: Option<OsString>| {
            if let Some(value) = value {
                arguments.extend([name.into(), value]);
            }
        };
        add("--ort-lib", self.ort_lib.clone().map(Into::into));
        add("--threads", self.threads.map(|n| n.to_string().into()));
        add("--chunk", chunk.map(|n| n.to_string().into()));
        let bytes = mem_limit.map(|bytes| bytes.to_string().into());
        add("--mem-limit", bytes);
        for (name, value) in &self.cuda_options {
            add("--cuda-option", Some(format!("{name}={value}").into()));
        }
        arguments
    }
}

const DETECT_HELP: &str = "\
Output (--out DIR):
  masks/00000.png …    index PNG for each image, in the order given; 1 is the object with the highest score, and lies in front
  overlays/00000.png … the image with its masks drawn over it
  detections.json      COCO: images, categories (the texts) and annotations with box, score and run-length mask

Each text is looked for on its own. With boxes and no text, what is like their contents is found. The box of a negative \
example ends in ,0.

Exit codes: 0 done; 2 could not do it.";

/// Arguments of `snow-ort detect`.
#[derive(Debug, Args)]
#[command(after_help = DETECT_HELP)]
pub(super) struct DetectArgs {
    /// Images, or folders of images
    #[arg(required = true, value_name = "IMAGE")]
    pub inputs: Vec<PathBuf>,

    /// What to find, such as "bear" (repeatable)
    #[arg(long = "text", id = "texts", value_name = "TEXT")]
    pub texts: Vec<String>,

    /// A box in pixels around an example, or around what is not meant if the label is 0 (repeatable; one image only)
    #[arg(
        long = "box",
        id = "boxes",
        value_name = "x1,y1,x2,y2[,label]",
        allow_hyphen_values = true
    )]
    pub boxes: Vec<String>,

    /// The bundle: a folder that snow-export wrote with --parts tracker,detector
    #[arg(long, value_name = "DIR", conflicts_with = "res")]
    pub model: Option<PathBuf>,

    /// Choose the bundle of this resolution among those found, as `run` does
    #[arg(long, value_name = "PIXELS", allow_negative_numbers = true)]
    pub res: Option<u32>,

    /// Folder in which bundles are looked for
    #[arg(long, value_name = "DIR", conflicts_with = "model")]
    pub models: Option<PathBuf>,

    /// Least score, 0 to 1 [default: the model's, usually 0.5]
    #[arg(long, value_name = "SCORE", allow_negative_numbers = true, value_parser = share)]
    pub threshold: Option<f32>,

    /// Output folder
    #[arg(long, value_name = "DIR", default_value = "out/detections")]
    pub out: PathBuf,

    /// Replace what an earlier run left in the output folder
    #[arg(long)]
    pub overwrite: bool,

    /// Also write raw scores, boxes and mask logits: 00000.safetensors for each image and text
    #[arg(long, value_name = "DIR")]
    pub dump_logits: Option<PathBuf>,

    /// Most memory for graphs and tensors, such as 512MiB or 3GiB
    #[arg(long, value_name = "SIZE", allow_negative_numbers = true, value_parser = crate::size::parse)]
    pub mem_limit: Option<u64>,

    /// No progress and no summary; errors only
    #[arg(long, short)]
    pub quiet: bool,

    #[command(flatten)]
    pub runtime: RuntimeArgs,
}

pub(super) fn share(text: &str) -> Result<f32, String> {
    match text.parse::<f32>() {
        Ok(value) if (0.0..=1.0).contains(&value) => Ok(value),
        _ => Err("expected a number from 0 to 1".to_owned()),
    }
}

const BENCH_HELP: &str = "\
Every arm is a process of its own on the same frames and prompts. It tracks --warm frames, until its memory bank is full, and \
then --block frames in each of --rounds rounds, which go through the arms forwards and backwards in turn. A time is that of \
the model: from the resized image to all objects' low-resolution masks and memories, without decoding and writing. Shown are \
medians with quartiles; a ratio is the median of the rounds' ratios with its 95% interval, below 1 is faster. With --against \
bundles are compared with those programs, without it with the first bundle. Close other programs first: what they take is \
measured too.

With --text the objects are found, and the table has the detector's stages: their times are those of frames with a look, that of \
the text encoder is for all texts, once, with loading it.

A program for --against is run by `sh` with --input, --prompts and --frames added to its arguments. It writes one line of \
JSON when its model is loaded, and one for each line that it reads; docs of the module `bench::protocol` say which.";

/// Arguments of `snow-ort bench`.
#[derive(Debug, Args)]
#[command(after_help = BENCH_HELP)]
pub(super) struct BenchArgs {
    #[command(flatten)]
    pub bundles: BundleArgs,

    #[command(flatten)]
    pub text: TextArgs,

    /// Numbers of objects to follow, each a measurement of its own
    #[arg(long, value_name = "N,N,…", conflicts_with = "texts", value_delimiter = ',', default_value = "1", allow_negative_numbers = true, value_parser = one_or_more)]
    pub objects: Vec<NonZeroUsize>,

    /// A video file or a folder of images, of which up to 64 frames are used [default: drawn frames]
    #[arg(long, value_name = "CLIP")]
    pub input: Option<PathBuf>,

    /// A JSON list of prompts, as for `run` [default: a box for each object]
    #[arg(
        long,
        value_name = "FILE.json",
        requires = "input",
        conflicts_with_all = ["objects", "texts"]
    )]
    pub prompts: Option<PathBuf>,

    /// Frames of each arm that do not count
    #[arg(long, value_name = "N", default_value = "8", allow_negative_numbers = true, value_parser = one_or_more)]
    pub warm: NonZeroUsize,

    /// Rounds through all arms
    #[arg(long, value_name = "N", default_value = "4", allow_negative_numbers = true, value_parser = one_or_more)]
    pub rounds: NonZeroUsize,

    /// Frames of an arm in a round
    #[arg(long, value_name = "N", default_value = "4", allow_negative_numbers = true, value_parser = one_or_more)]
    pub block: NonZeroUsize,

    /// Also say which operators of each bundle's graphs take how long, where; this makes all times longer
    #[arg(long)]
    pub profile: bool,

    /// Another program to compare with (repeatable)
    #[arg(long, value_name = "NAME=COMMAND", conflicts_with = "texts")]
    pub against: Vec<String>,

    /// Also write everything that was measured
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,

    /// Also write the tables in Markdown
    #[arg(long, value_name = "FILE")]
    pub markdown: Option<PathBuf>,

    /// Replace files of an earlier measurement
    #[arg(long)]
    pub overwrite: bool,

    /// Most objects that go through a graph at once [default: up to 8 by the image's size, on a GPU 16; fewer where --mem-limit asks for it]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = one_or_more)]
    pub chunk: Option<NonZeroUsize>,

    /// Most memory that graphs may take, such as 512MiB or 3GiB
    #[arg(long, value_name = "SIZE", allow_negative_numbers = true, value_parser = crate::size::parse)]
    pub mem_limit: Option<u64>,

    #[command(flatten)]
    pub policy: PolicyArgs,

    #[command(flatten)]
    pub runtime: RuntimeArgs,

    /// No progress; the tables and errors only
    #[arg(long, short)]
    pub quiet: bool,
}

/// Arguments of `snow-ort bench-worker`.
#[derive(Debug, Args)]
pub(super) struct WorkerArgs {
    /// The bundle
    #[arg(long, value_name = "DIR")]
    pub model: PathBuf,

    /// A video file or a folder of images
    #[arg(long, value_name = "CLIP")]
    pub input: PathBuf,

    #[command(flatten)]
    pub prompting: PromptArgs,

    #[command(flatten)]
    pub text: TextArgs,

    #[command(flatten)]
    pub proposals: ProposalArgs,

    /// Frames that will be asked for at most
    #[arg(long, value_name = "N")]
    pub frames: usize,

    /// Folder to which the library writes profiles of the graphs
    #[arg(long, value_name = "DIR")]
    pub profile: Option<PathBuf>,

    /// As for `run`
    #[arg(long, value_name = "N", value_parser = one_or_more)]
    pub chunk: Option<NonZeroUsize>,

    /// As for `run`
    #[arg(long, value_name = "SIZE", value_parser = crate::size::parse)]
    pub mem_limit: Option<u64>,

    #[command(flatten)]
    pub policy: PolicyArgs,

    #[command(flatten)]
    pub runtime: RuntimeArgs,
}
