//! `snow-ort bench`: bundles, and whatever else speaks the protocol, timed in turn.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, anyhow, bail};

use super::args::BenchArgs;
use super::progress::Progress;
use super::signals::Interrupt;
use super::{complain, models, say, texts};
use crate::bench::clip;
use crate::bench::machine::Machine;
use crate::bench::profile;
use crate::bench::race::{Entry, OnFailure, race};
use crate::bench::report::{ArmReport, BENCH_VERSION, BenchReport, Case, Comparison, STAGES};
use crate::bench::rounds::{self, Length};
use crate::bench::table::{self, Style};
use crate::media;
use crate::output::{StagedFile, Unfinished, scratch};
use crate::prompts::Prompts;

/// What is started for an arm.
struct Launch {
    name: String,
    /// A bundle, or another program.
    bundle: bool,
    command: Box<dyn Fn() -> Command>,
}

/// What all arms of a case see.
struct Scene {
    objects: usize,
    texts: Vec<String>,
    input: PathBuf,
    /// None where objects are found.
    prompts: Option<PathBuf>,
}

/// Runs the command.
pub(super) fn run(args: &BenchArgs) -> Result<()> {
    let unfinished = Unfinished::default();
    // A signal ends this program at once; the arms' processes get it as well, or see the end of their input.
    let _interrupt = Interrupt::install(&unfinished)?;
    let launches = launches(args)?;
    let json = staged(args.json.as_deref(), args.overwrite, &unfinished)?;
    let markdown = staged(args.markdown.as_deref(), args.overwrite, &unfinished)?;
    let desk = scratch(&unfinished).context("cannot make a folder for the clip")?;
    let scenes = scenes(args, desk.path())?;
    let length = Length {
        warm: args.warm.get() - 1,
        rounds: args.rounds.get(),
        block: rounds::even_block(args.block.get(), [args.text.every()]).unwrap_or_else(|why| {
            complain(&format!("warning: {why}"));
            args.block.get()
        }),
    };
    let total = scenes.len() * launches.len() * length.asked();
    let mut progress = Progress::start(Some(total as u64), args.quiet);
    let mut cases = Vec::with_capacity(scenes.len());
    for scene in &scenes {
        let profiles = match args.profile {
            true => Some(desk.path().join(format!("profiles-{}", scene.objects))),
            false => None,
        };
        let on_frame = &mut || progress.frame();
        cases.push(case(
            &launches,
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

/// The arms: bundles first, then other commands.
fn launches(args: &BenchArgs) -> Result<Vec<Launch>> {
    let dirs = models::all(&args.bundles)?;
    let program = std::env::current_exe().context("cannot find this program's own file")?;
    let mut launches: Vec<Launch> = Vec::new();
    for dir in dirs {
        let name = dir.canonicalize().unwrap_or_else(|_| dir.clone());
        let name = name.file_name().unwrap_or(dir.as_os_str());
        let (program, options) = (
            program.clone(),
            args.runtime.arguments(args.chunk, args.mem_limit),
        );
        let mut texts = args.text.arguments();
        texts.extend(args.policy.arguments());
        launches.push(Launch {
            name: name.to_string_lossy().into_owned(),
            bundle: true,
            command: Box::new(move || {
                let mut command = Command::new(&program);
                command.arg("bench-worker").arg("--model").arg(&dir);
                command.args(&options).args(&texts);
                command
            }),
        });
    }
    for text in &args.against {
        let (name, line) = text
            .split_once('=')
            .filter(|(name, line)| !name.is_empty() && !line.trim().is_empty())
            .ok_or_else(|| anyhow!("--against: expected NAME=COMMAND, got {text:?}"))?;
        let line = line.to_owned();
        launches.push(Launch {
            name: name.to_owned(),
            bundle: false,
            command: Box::new(move || {
                let mut command = Command::new("sh");
                command
                    .arg("-c")
                    .arg(format!("exec {line} \"$@\""))
                    .arg("sh");
                command
            }),
        });
    }
    for index in 1..launches.len() {
        let name = launches[index].name.clone();
        if launches[..index].iter().any(|other| other.name == name) {
            bail!("two arms are called {name}; give folders with different names");
        }
    }
    Ok(launches)
}

fn scenes(args: &BenchArgs, desk: &Path) -> Result<Vec<Scene>> {
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
            let dir = desk.join("clip");
            std::fs::create_dir(&dir).context("cannot make a folder for the clip")?;
            clip::draw(&dir)?;
            (dir, clip::SIZE)
        }
    };
    if !args.text.texts.is_empty() {
        let texts = texts::distinct(&args.text.texts);
        return Ok(vec![Scene {
            objects: 0,
            texts: texts.into_iter().map(str::to_owned).collect(),
            input,
            prompts: None,
        }]);
    }
    args.objects
        .iter()
        .map(|objects| {
            let objects = objects.get();
            let prompts = desk.join(format!("prompts-{objects}.json"));
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

/// Measures the arms of one case.
fn case(
    launches: &[Launch],
    scene: &Scene,
    length: Length,
    profiles: Option<&Path>,
    on_frame: &mut dyn FnMut(),
) -> Result<Case> {
    let mut entries = Vec::with_capacity(launches.len());
    for launch in launches {
        let mut command = (launch.command)();
        command.arg("--input").arg(&scene.input);
        if let Some(prompts) = &scene.prompts {
            command.arg("--prompts").arg(prompts);
        }
        command.arg("--frames").arg(length.asked().to_string());
        if let Some(dir) = profiles.filter(|_| launch.bundle) {
            let dir = dir.join(&launch.name);
            std::fs::create_dir_all(&dir).context("cannot make a folder for the profiles")?;
            command.arg("--profile").arg(dir);
        }
        entries.push(Entry {
            name: launch.name.clone(),
            command,
        });
    }
    let ended = race(entries, length, OnFailure::End, on_frame)?;
    let mut reports = ended.into_iter().collect::<Result<Vec<ArmReport>, _>>()?;
    for report in reports.iter_mut() {
        let Some(dir) = profiles.map(|dir| dir.join(&report.name)) else {
            continue;
        };
        if dir.is_dir() {
            report.profile = profile::read(&dir, &STAGES)?;
        }
    }
    let (bundles, others): (Vec<usize>, Vec<usize>) =
        (0..launches.len()).partition(|&index| launches[index].bundle);
    let baselines = match (others.is_empty(), bundles.first()) {
        (true, Some(&first)) => vec![first],
        _ => others,
    };
    let mut ratios = Vec::new();
    for arm in bundles {
        for &baseline in baselines.iter().filter(|&&baseline| baseline != arm) {
            ratios.extend(Comparison::new(&reports[arm], &reports[baseline]));
        }
    }
    Ok(Case {
        objects: scene.objects,
        texts: scene.texts.clone(),
        arms: reports,
        ratios,
    })
}
