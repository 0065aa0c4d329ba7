//! `snow-ort detect`: arguments to what is detected in which images, and what is printed of it.

use std::path::PathBuf;

use anyhow::{Result, anyhow, bail};
use clap::Args;

use super::args::{EngineArgs, share};
use super::progress::Terminal;
use super::say;
use super::signals::Interrupt;
use crate::bundle::locate;
use crate::coco::CocoAnnotation;
use crate::media::images;
use crate::output::Unfinished;
use crate::prompts::parse_exemplar;
use crate::session::detection::{DetectionConfig, Detections, ExampleBox, detect};
use crate::size;
use crate::words::counted;

const DETECT_HELP: &str = "\
Output (--out DIR):
  masks/00000.png …    index PNG for each image, in the order given; 1 is the object with the highest score, and lies in front
  overlays/00000.png … the image with its masks drawn over it
  detections.json      COCO: images, categories (the texts) and annotations with box, score and run-length mask

Each text is detected on its own. Boxes without a text detect what looks like their contents. The box of a negative \
example ends in ,0.

Exit codes: 0: finished; 2: could not finish.";

/// Arguments of `snow-ort detect`.
#[derive(Debug, Args)]
#[command(after_help = DETECT_HELP)]
pub(super) struct DetectArgs {
    /// Images, or folders of images
    #[arg(required = true, value_name = "IMAGE")]
    pub inputs: Vec<PathBuf>,

    /// What to detect, such as "bear" (repeatable)
    #[arg(long = "text", id = "texts", value_name = "TEXT")]
    pub texts: Vec<String>,

    /// A box in pixels around an example, or around something else if the label is 0 (repeatable; one image only)
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

    /// Use the bundle of this resolution, as `run` does
    #[arg(long, value_name = "PIXELS", allow_negative_numbers = true)]
    pub res: Option<u32>,

    /// Folder to search for bundles
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
    pub engine: EngineArgs,
}

impl DetectArgs {
    /// The detection that these arguments ask for.
    fn config(&self) -> Result<DetectionConfig> {
        let images = self.images()?;
        let examples = self.boxes.iter().map(|text| {
            let (corners, positive) =
                parse_exemplar(text).map_err(|reason| anyhow!("--box {text}: {reason}"))?;
            Ok(ExampleBox { corners, positive })
        });
        let examples = examples.collect::<Result<Vec<_>>>()?;
        if self.texts.is_empty() && examples.is_empty() {
            bail!("nothing to detect: give --text WORDS, or an example with --box");
        }
        Ok(DetectionConfig {
            images,
            bundle: locate::choose(self.model.as_deref(), self.res, self.models.as_deref())?,
            texts: self.texts.clone(),
            examples,
            threshold: self.threshold,
            engine: self.engine.config(),
            mem_limit: self.mem_limit,
            out: self.out.clone(),
            logits: self.dump_logits.clone(),
            overwrite: self.overwrite,
        })
    }

    fn images(&self) -> Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        for input in &self.inputs {
            if !input.exists() {
                bail!("{}: no such file or folder", input.display());
            }
            found.append(&mut images::list(input)?);
        }
        Ok(found)
    }
}

/// Runs the command.
pub(super) fn run(args: &DetectArgs) -> Result<()> {
    let unfinished = Unfinished::default();
    // Nothing is kept of a run that is ended early.
    let _interrupt = Interrupt::install(&unfinished)?;
    let mut terminal = Terminal::new(args.quiet);
    let detections = detect(&args.config()?, &unfinished, &mut terminal)?;
    if !args.quiet {
        summarise(&detections);
    }
    Ok(())
}

fn summarise(detections: &Detections) {
    let file = &detections.file;
    let images = file.images.len() as u64;
    let memory = detections.arena_peak.map_or(String::new(), |bytes| {
        format!(", arena {}", size::show(bytes))
    });
    say(&format!(
        "done: {}, {}, {:.2} s an image after {:.2} s{memory}",
        counted(images, "image"),
        counted(file.annotations.len() as u64, "object"),
        detections.images_s / images.max(1) as f64,
        detections.load_s,
    ));
    for category in &file.categories {
        let of_it = |found: &&CocoAnnotation| found.category_id == category.id;
        let found: Vec<_> = file.annotations.iter().filter(of_it).collect();
        let best = found.iter().map(|found| found.score).fold(0.0, f32::max);
        let best = match found.is_empty() {
            true => String::new(),
            false => format!(", the best {best:.2}"),
        };
        say(&format!(
            "{:?}: {}{best}",
            category.name,
            counted(found.len() as u64, "object")
        ));
    }
    say(&format!("results  {}", detections.out.display()));
    if let Some(logits) = &detections.logits {
        say(&format!("logits   {}", logits.display()));
    }
}
