//! `snow-ort bench`: bundles, and other programs that speak the protocol, timed side by side.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, anyhow, bail};
use clap::Args;

use super::args::{BundleArgs, EngineArgs, PolicyArgs, one_or_more};
use super::progress::Progress;
use super::signals::Interrupt;
use super::text_args::TextArgs;
use super::worker::Job;
use super::{complain, say};
use crate::bench::BenchError;
use crate::bench::clip;
use crate::bench::machine::Machine;
use crate::bench::profile;
use crate::bench::report::{BENCH_VERSION, BenchReport, Case, Comparison, STAGES, VariantTiming};
use crate::bench::rounds::{self, Length};
use crate::bench::table;
use crate::bench::trial::{self, OnFailure, VariantCommand};
use crate::media;
use crate::output::{StagedFile, Unfinished, scratch};
use crate::prompts::Prompts;
use crate::session::Config;
use crate::session::config::{Objects, distinct};
use crate::table::Style;

const BENCH_HELP: &str = "\
Every variant is a separate process and tracks the same frames and prompts: --warm frames, until its memory bank is full, \
then --block frames in each of --rounds rounds, in alternating order. A time is that of the model: from the resized image to \
low-resolution masks and memories, without decoding and writing. The tables show medians with quartiles; a ratio is the \
median of the rounds' ratios with its 95% interval, and below 1 is faster. Bundles are compared with the programs of \
--against, or with the first bundle. Close other programs first.

With --text the table has the detector's stages, measured on frames with a detection. The time of the text encoder is for all \
texts, once, with loading.

`sh` runs a program of --against with --input, --prompts and --frames behind its arguments. It writes one line of JSON when \
its model is loaded, and one for each line that it reads. docs/compare.md";

/// Arguments of `snow-ort bench`.
#[derive(Debug, Args)]
#[command(after_help = BENCH_HELP)]
pub(super) struct BenchArgs {
    #[command(flatten)]
    pub bundles: BundleArgs,

    #[command(flatten)]
    pub text: TextArgs,

    /// Numbers of objects to track; each is measured separately
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
    pub engine: EngineArgs,

    /// No progress; the tables and errors only
    #[arg(long, short)]
    pub quiet: bool,
}

/// A variant of the benchmark.
struct Variant {
    name: String,
    program: Program,
}

/// What tracks the clip.
enum Program {
    /// This program with the bundle in this folder.
    Bundle(PathBuf),
    /// A command line for `sh`.
    Other(String),
}

/// What all variants of one measurement track.
struct Scene {
    objects: usize,
    texts: Vec<String>,
    input: PathBuf,
    /// The prompts file; `None` with texts.
    prompts: Option<PathBuf>,
}

/// Runs the command.
pub(super) fn run(args: &BenchArgs) -> Result<()> {
    let unfinished = Unfinished::default();
    // A signal ends this program at once; the variants' processes get it as well, or see the end of their input.
    let _interrupt = Interrupt::install(&unfinished)?;
    let variants = variants(args)?;
    let json = staged(args.json.as_deref(), args.overwrite, &unfinished)?;
    let markdown = staged(args.markdown.as_deref(), args.overwrite, &unfinished)?;
    let scratch_dir = scratch(&unfinished).context("cannot make a folder for the clip")?;
    let scenes = scenes(args, scratch_dir.path())?;
    let length = Length {
        warm: args.warm.get() - 1,
        rounds: args.rounds.get(),
        block: rounds::even_block(args.block.get(), [args.text.every().get()]).unwrap_or_else(
            |why| {
                complain(&format!("warning: {}", uneven(&why)));
                args.block.get()
            },
        ),
    };
    let total = scenes.len() * variants.len() * length.requests();
    let mut progress = Progress::start(Some(total as u64), args.quiet);
    let mut cases = Vec::with_capacity(scenes.len());
    for scene in &scenes {
        let profiles = match args.profile {
            true => Some(
                scratch_dir
                    .path()
                    .join(format!("profiles-{}", scene.objects)),
            ),
            false => None,
        };
        let on_frame = &mut || progress.frame();
        cases.push(case(
            args,
            &variants,
            scene,
            length,
            profiles.as_deref(),
            on_frame,
        )?);
    }
    progress.finish();
    let report = BenchReport {
        schema_version: BENCH_VERSION,
        snow_ort: env!("CARGO_PKG_VERSION").to_owned(),
        command: std::env::args().collect(),
        machine: Machine::here(),
        warm_frames: args.warm.get(),
        block_frames: length.block,
        cases,
    };
    say(table::render(&report, Style::Plain).trim_end());
    if let Some(file) = json {
        let mut text = serde_json::to_string_pretty(&report)?;
        text.push('\n');
        write(file, &text)?;
    }
    if let Some(file) = markdown {
        write(file, &table::render(&report, Style::Markdown))?;
    }
    Ok(())
}

/// The warning of blocks with different numbers of detections, with the flag that helps.
pub(super) fn uneven(error: &BenchError) -> String {
    match error {
        BenchError::UnevenBlocks { block } => format!("{error} (--block {block})"),
        _ => error.to_string(),
    }
}

fn staged(
    path: Option<&Path>,
    overwrite: bool,
    unfinished: &Unfinished,
) -> Result<Option<StagedFile>> {
    path.map(|path| Ok(StagedFile::create(path, overwrite, unfinished)?))
        .transpose()
}

fn write(file: StagedFile, text: &str) -> Result<()> {
    std::fs::write(file.path(), text)
        .with_context(|| format!("cannot write {}", file.path().display()))?;
    file.commit()?;
    Ok(())
}

/// The variants: bundles first, then other programs.
fn variants(args: &BenchArgs) -> Result<Vec<Variant>> {
    let mut variants = Vec::new();
    for dir in args.bundles.dirs()? {
        let name = dir.canonicalize().unwrap_or_else(|_| dir.clone());
        let name = name.file_name().unwrap_or(dir.as_os_str());
        variants.push(Variant {
            name: name.to_string_lossy().into_owned(),
            program: Program::Bundle(dir),
        });
    }
    for text in &args.against {
        let (name, line) = text
            .split_once('=')
            .filter(|(name, line)| !name.is_empty() && !line.trim().is_empty())
            .ok_or_else(|| anyhow!("--against: expected NAME=COMMAND, got {text:?}"))?;
        variants.push(Variant {
            name: name.to_owned(),
            program: Program::Other(line.to_owned()),
        });
    }
    for index in 1..variants.len() {
        let name = &variants[index].name;
        if variants[..index].iter().any(|other| other.name == *name) {
            bail!("two variants are called {name}; give folders with different names");
        }
    }
    Ok(variants)
}

fn scenes(args: &BenchArgs, scratch: &Path) -> Result<Vec<Scene>> {
    if let (Some(input), Some(prompts)) = (&args.input, &args.prompts) {
        let objects = Prompts::load(&[], Some(prompts))?.first_frames().len();
        return Ok(vec![Scene {
            objects,
            texts: Vec::new(),
            input: input.clone(),
            prompts: Some(prompts.clone()),
        }]);
    }
    let (input, size) = match &args.input {
        Some(input) => {
            let info = media::open(input)?.info().clone();
            (input.clone(), (info.width, info.height))
        }
        None => {
            let dir = scratch.join("clip");
            std::fs::create_dir(&dir).context("cannot make a folder for the clip")?;
            clip::draw(&dir)?;
            (dir, clip::SIZE)
        }
    };
    if !args.text.texts.is_empty() {
        return Ok(vec![Scene {
            objects: 0,
            texts: distinct(args.text.texts.iter().cloned()),
            input,
            prompts: None,
        }]);
    }
    args.objects
        .iter()
        .map(|objects| {
            let objects = objects.get();
            let prompts = scratch.join(format!("prompts-{objects}.json"));
            std::fs::write(&prompts, clip::boxes(objects, size).to_string())
                .context("cannot write the prompts")?;
            Ok(Scene {
                objects,
                texts: Vec::new(),
                input: input.clone(),
                prompts: Some(prompts),
            })
        })
        .collect()
}

impl Scene {
    /// The run of a bundle over this scene.
    fn config(&self, args: &BenchArgs, dir: &Path, length: Length) -> Result<Config> {
        let models = args.bundles.models.as_deref();
        let objects = match (args.text.config(dir, models)?, &self.prompts) {
            (Some(texts), _) => Objects::Texts(texts),
            (None, prompts) => Objects::Prompts(Prompts::load(&[], prompts.as_deref())?),
        };
        Ok(Config {
            num_frames: Some(length.requests()),
            engine: args.engine.config(),
            chunk: args.chunk,
            mem_limit: args.mem_limit,
            memory_selection: args.policy.config(),
            ..Config::new(&self.input, dir, objects)
        })
    }

    /// How the process of a variant is started; `profiles` is the folder for a bundle's profiles.
    fn command(
        &self,
        args: &BenchArgs,
        variant: &Variant,
        length: Length,
        profiles: Option<&Path>,
    ) -> Result<VariantCommand> {
        let name = variant.name.clone();
        let line = match &variant.program {
            Program::Bundle(dir) => {
                let mut config = self.config(args, dir, length)?;
                if let Some(profiles) = profiles {
                    let dir = profiles.join(&name);
                    std::fs::create_dir_all(&dir)
                        .context("cannot make a folder for the profiles")?;
                    config.engine.profile = Some(dir);
                }
                return Job::Bench(Box::new(config)).command(name);
            }
            Program::Other(line) => line,
        };
        let mut command = Command::new("sh");
        command
            .arg("-c")
            .arg(format!("exec {line} \"$@\""))
            .arg("sh");
        command.arg("--input").arg(&self.input);
        if let Some(prompts) = &self.prompts {
            command.arg("--prompts").arg(prompts);
        }
        command.arg("--frames").arg(length.requests().to_string());
        Ok(VariantCommand {
            name,
            command,
            first_line: None,
        })
    }
}

/// Measures the variants of one scene.
fn case(
    args: &BenchArgs,
    variants: &[Variant],
    scene: &Scene,
    length: Length,
    profiles: Option<&Path>,
    on_frame: &mut dyn FnMut(),
) -> Result<Case> {
    let commands = variants
        .iter()
        .map(|variant| scene.command(args, variant, length, profiles))
        .collect::<Result<Vec<_>>>()?;
    let ended = trial::run(commands, length, OnFailure::Stop, on_frame)?;
    let mut reports = ended
        .into_iter()
        .collect::<Result<Vec<VariantTiming>, _>>()?;
    for report in reports.iter_mut() {
        let Some(dir) = profiles.map(|dir| dir.join(&report.name)) else {
            continue;
        };
        if dir.is_dir() {
            report.profile = profile::read(&dir, &STAGES)?;
        }
    }
    let (bundles, others): (Vec<usize>, Vec<usize>) = (0..variants.len())
        .partition(|&index| matches!(variants[index].program, Program::Bundle(_)));
    let baselines = match (others.is_empty(), bundles.first()) {
        (true, Some(&first)) => vec![first],
        _ => others,
    };
    let mut ratios = Vec::new();
    for variant in bundles {
        for &baseline in baselines.iter().filter(|&&baseline| baseline != variant) {
            ratios.extend(Comparison::new(&reports[variant], &reports[baseline]));
        }
    }
    Ok(Case {
        objects: scene.objects,
        texts: scene.texts.clone(),
        variants: reports,
        ratios,
    })
}
