//! `snow-ort run`: arguments to the description of a run, and what is printed of it.

use std::ffi::OsString;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use clap::Args;

use super::args::{EngineArgs, PolicyArgs, PromptArgs, one_or_more};
use super::progress::Terminal;
use super::proposal_args::ProposalArgs;
use super::signals::Interrupt;
use super::summary;
use super::text_args::TextArgs;
use crate::bundle::locate;
use crate::output::Unfinished;
use crate::prompts::{FlagPrompt, PromptError, Prompts};
use crate::session::config::{Objects, OutputConfig};
use crate::session::report::Status;
use crate::session::{self, Config, Observer};
use crate::words::counted;

// One line for each paragraph: clap wraps them to the terminal.
const GUIDE: &str = "\
Prompts:
  Coordinates are pixels of the source frame. --box, --point and --mask stand on frame 0; they are objects 1, 2, … in their order on the command line. A --mask PNG with several ids is one object for each id.

  --prompts FILE is a JSON list, for any frames:
    [{\"frame\": 0, \"object\": 1, \"box\": [120, 80, 410, 460]},
     {\"frame\": 0, \"object\": 2, \"points\": [[300, 200, 1], [350, 210, 0]]},
     {\"frame\": 7, \"object\": 3, \"mask\": \"third.png\"}]
  Label 1 is on the object, 0 is not. A prompt takes effect before its frame is tracked. An object exists from its first prompt on; a later prompt corrects it. docs/prompts-and-corrections.md

Texts (--text WORDS) and proposals (--proposals FILE.onnx):
  The detector, or the graph, finds the objects; each is tracked. docs/texts.md, docs/proposals.md

Output (--out DIR):
  masks/00000.png …  index PNG for each frame: palette index = object id
  tracks.json        for each frame and object: COCO RLE, box, area, scores
  run.json           status, input, prompts, versions, times, peak memory, scores

  Results appear when the run ends. Ctrl-C ends it after the current frame and keeps the complete frames; a second Ctrl-C removes everything. With --overwrite an earlier run stays until the new one is complete; a run that ends early is put into DIR/interrupted or DIR/failed. docs/output-files.md

Scores (--gt DIR):
  DIR holds index PNGs of some frames, in the frames' size: palette index = object id, 0 = background, 255 = ignored. J and F are those of DAVIS 2017. docs/output-files.md

Exit codes: 0: finished; 1: finished, but a requirement was not met; 2: could not finish.";

/// Arguments of `snow-ort run`.
#[derive(Debug, Args)]
#[command(after_long_help = GUIDE, after_help = "`snow-ort run --help` explains prompts and output.")]
pub(super) struct RunArgs {
    /// A video file, an image, or a folder of images in name order
    pub input: PathBuf,

    /// The bundle: a folder that snow-export wrote
    #[arg(long, value_name = "DIR", conflicts_with = "res")]
    pub model: Option<PathBuf>,

    /// Use the bundle of this resolution
    ///
    /// Bundles are searched in --models DIR, else in $SNOW_ORT_MODELS, else in ./models, in models/ next to the executable,
    /// and in models/ of up to three folders above it. Without --model and --res: the only bundle, or the one of the lowest
    /// resolution whose name starts with "snow-".
    #[arg(long, value_name = "PIXELS", allow_negative_numbers = true)]
    pub res: Option<u32>,

    /// Folder to search for bundles
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
    pub engine: EngineArgs,

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
}

impl RunArgs {
    /// The run that these arguments ask for. `flags` are the prompt flags in their order on the command line.
    fn config(&self, flags: &[FlagPrompt]) -> Result<Config> {
        let bundle = locate::choose(self.model.as_deref(), self.res, self.models.as_deref())?;
        let arguments = ObjectArgs {
            prompts: &self.prompting,
            texts: &self.text,
            proposals: &self.proposals,
            models: self.models.as_deref(),
        };
        let objects = arguments.objects(flags, &bundle)?;
        let out = self.out.clone();
        Ok(Config {
            max_frames: self.max_frames,
            engine: self.engine.config(),
            chunk: self.chunk,
            mem_limit: self.mem_limit,
            memory_selection: self.policy.config(),
            ground_truth: self.gt.clone(),
            outputs: Some(OutputConfig {
                dir: out.unwrap_or_else(|| default_out(&self.input, "")),
                overlay: self.overlay.clone(),
                contact_sheet: self.contact_sheet.clone(),
                logits: self.dump_logits.clone(),
                overwrite: self.overwrite,
            }),
            protect: self.prompting.prompts.iter().cloned().collect(),
            ..Config::new(&self.input, bundle, objects)
        })
    }
}

/// The arguments that say what to track.
pub(super) struct ObjectArgs<'a> {
    pub prompts: &'a PromptArgs,
    pub texts: &'a TextArgs,
    pub proposals: &'a ProposalArgs,
    /// The folder to search for a detector's bundle.
    pub models: Option<&'a Path>,
}

impl ObjectArgs<'_> {
    /// What to track with the bundle in the folder `bundle`. Prompts, texts and proposals exclude each other, but for
    /// proposals with prompts.
    pub(super) fn objects(&self, flags: &[FlagPrompt], bundle: &Path) -> Result<Objects> {
        let has_texts = !self.texts.texts.is_empty();
        let has_proposals = self.proposals.graph.proposals.is_some();
        let prompts = match Prompts::load(flags, self.prompts.prompts.as_deref()) {
            Err(PromptError::None) if has_texts || has_proposals => Prompts::none(),
            other => other?,
        };
        if has_texts && !prompts.frames().is_empty() {
            bail!(
                "--text detects its objects itself, and cannot be combined with --box, --point, --mask or --prompts; leave out one of them"
            );
        }
        if has_texts && has_proposals {
            bail!("--proposals cannot be used with --text: leave out one of them");
        }
        if let Some(texts) = self.texts.config(bundle, self.models)? {
            return Ok(Objects::Texts(texts));
        }
        Ok(match self.proposals.config(prompts.clone()) {
            Some(proposals) => Objects::Proposals(proposals),
            None => Objects::Prompts(prompts),
        })
    }
}

/// Where results go by default: in `out/`, under the input's name behind a `prefix`.
pub(super) fn default_out(input: &Path, prefix: &str) -> PathBuf {
    // `.` and `..` have no name of their own.
    let full = input.canonicalize().unwrap_or_else(|_| input.to_path_buf());
    let stem = if full.is_dir() {
        full.file_name()
    } else {
        full.file_stem()
    };
    let mut name = OsString::from(prefix);
    name.push(stem.unwrap_or("run".as_ref()));
    Path::new("out").join(name)
}

/// Runs the command; prints progress, warnings and the summary.
pub(super) fn run(args: &RunArgs, flags: &[FlagPrompt]) -> Result<()> {
    let unfinished = Unfinished::default();
    // Before anything that may take long: hashing a bundle, or decoding up to a late prompt.
    let interrupt = Interrupt::install(&unfinished)?;
    let config = args.config(flags)?;
    let mut terminal = Terminal::new(args.quiet);
    let finished = finish(config, &unfinished, &interrupt, &mut terminal)?;
    if let (false, Some(placed)) = (args.quiet, &finished.placed) {
        summary::show(&finished.report, placed);
    }
    Ok(())
}

/// Opens and runs a session.
///
/// # Errors
/// The session's, one for a run that was interrupted, and one for missing scores.
pub(super) fn finish(
    config: Config,
    unfinished: &Unfinished,
    interrupt: &Interrupt,
    observer: &mut dyn Observer,
) -> Result<session::Finished> {
    let session = session::open_with(config, unfinished)?;
    for note in session.notes() {
        observer.note(note);
    }
    interrupt.tracking();
    let finished = session.run(interrupt.stop(), observer)?;
    let Some(placed) = &finished.placed else {
        return Ok(finished);
    };
    if finished.report.status == Status::Interrupted {
        bail!(
            "interrupted after {}, kept in {}",
            counted(finished.report.frames, "frame"),
            placed.run.display()
        );
    }
    if let Some(why) = &finished.unscored {
        bail!(
            "{why}; the run is complete, in {}, but has no scores",
            placed.run.display()
        );
    }
    Ok(finished)
}
