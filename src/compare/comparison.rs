//! A comparison from its description to its report.
//!
//! Each variant tracks the whole clip in a process of its own, one after the other: that gives masks and scores. Then one
//! trial measures all of them side by side. Results are kept in the output folder under a key of everything that they depend
//! on, so that an interrupted comparison goes on where it ended, and what has changed is made again.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use super::error::{AbError, results, unwritable};
use super::found::{self, FoundRun};
use super::keys::{self, Key};
use super::report::{
    AB_VERSION, AbReport, ClipReport, LostObject, Protocol, VariantReport, VariantRun,
};
use super::requirement::Requirement;
use super::{agreement, frames, page, picture, timing, verdict};
use crate::bench::machine::Machine;
use crate::bench::report::VariantTiming;
use crate::bench::rounds::Length;
use crate::bench::trial::{self, OnFailure, VariantCommand};
use crate::bundle::{Bundle, MANIFEST_FILE};
use crate::media::{self, SourceInfo};
use crate::output::{StagedFile, Unfinished};
use crate::prompts::Prompts;
use crate::proposals::form;
use crate::scoring::ground_truth::GroundTruth;
use crate::scoring::scorer::Scorer;
use crate::session::config::{Objects, OutputConfig};
use crate::session::report::{PromptReport, RunReport, ScoresReport, Status, TracksReader};
use crate::session::{Config, SessionError, count_frames, reports_of};

/// The folder with the runs of all variants.
const VARIANTS: &str = "variants";

/// The file with the tracks of a run.
const TRACKS_FILE: &str = "tracks.json";

/// What is compared, and how.
#[derive(Debug, Clone)]
pub struct ComparisonConfig {
    /// The variants; the first is the baseline. Their runs have the same input, prompts, texts and ground truth.
    pub variants: Vec<VariantConfig>,
    /// The folder for the report, the page and all runs.
    pub out: PathBuf,
    /// What variants have to reach.
    pub requirements: Vec<Requirement>,
    /// Frames of each variant, after the last prompt, that are not measured.
    pub warm_frames: NonZeroUsize,
    /// Rounds of the trial.
    pub rounds: usize,
    /// Frames of a variant in a round.
    pub block_frames: usize,
    /// The largest number of frames on the page.
    pub page_frames: usize,
    /// Whether an earlier report may be replaced.
    pub overwrite: bool,
    /// Whether results of an earlier comparison are made again.
    pub fresh: bool,
    /// The file of the program that runs the variants: other results come from another program.
    pub program: PathBuf,
    /// The command line, for the report.
    pub command: Vec<String>,
    /// Further warnings for the verdict.
    pub warnings: Vec<String>,
}

/// A variant of a comparison.
#[derive(Debug, Clone)]
pub struct VariantConfig {
    /// Its name.
    pub name: String,
    /// Its run over the clip, without outputs.
    pub run: Config,
}

/// Something that happens during a comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event<'a> {
    /// The run of this variant is there from an earlier comparison.
    RunKept(&'a str),
    /// A variant failed.
    RunFailed {
        /// The variant.
        variant: &'a str,
        /// Why.
        error: &'a str,
    },
    /// The run of this variant has ended.
    RunDone(&'a str),
    /// The timing is there from an earlier comparison.
    TrialKept,
    /// The trial begins.
    TrialStarted {
        /// Frames of all variants together.
        frames: u64,
    },
    /// A frame of the trial is tracked.
    TrialFrame,
    /// The trial has ended.
    TrialDone,
    /// The report and the page are written.
    Reported,
}

/// The program around a comparison: it starts processes, and is told what happens.
pub trait Host {
    /// Runs `config` in a process of its own and waits for its end. `frames` is the number of frames, if it is known.
    ///
    /// # Errors
    /// The error message of the process.
    fn run(&mut self, variant: &str, config: Config, frames: Option<u64>) -> Result<(), String>;

    /// How to start the process of a variant for the trial.
    ///
    /// # Errors
    /// Why it cannot be started.
    fn trial_command(&mut self, variant: &str, config: Config) -> Result<VariantCommand, String>;

    /// Hears what happens.
    fn event(&mut self, event: Event<'_>);
}

/// A comparison that has been checked and can be run.
#[derive(Debug)]
pub struct Comparison {
    config: ComparisonConfig,
    variants: Vec<Prepared>,
    info: SourceInfo,
    clip_sha256: String,
    prompts: Vec<PromptReport>,
    /// Number of objects with prompts.
    objects: u64,
    truth: Option<GroundTruth>,
    length: Length,
    notes: Vec<String>,
}

/// What is known of a variant before its run.
#[derive(Debug)]
struct Prepared {
    /// The key of its run.
    key: String,
    /// The folder of its run, relative to the output folder.
    folder: PathBuf,
}

/// A variant, what is known of it, and its run, or why it failed.
type Ran<'a> = (&'a VariantConfig, &'a Prepared, Result<RunReport, String>);

impl Comparison {
    /// Checks everything that can be checked before a variant runs.
    ///
    /// # Errors
    /// An input that cannot be read, prompts or ground truth that do not fit it, or an output folder that cannot be used.
    pub fn prepare(config: ComparisonConfig) -> Result<Self, AbError> {
        let run = match config.variants.as_slice() {
            [first, _, ..] => &first.run,
            few => return Err(AbError::TooFewVariants { count: few.len() }),
        };
        check_out(run, &config.out)?;
        let info = media::open(&run.input).map_err(SessionError::from)?;
        let info = info.info().clone();
        let prompts = prompts_of(&run.objects);
        let max_frames = run.max_frames.map(Into::into);
        let truth = run.ground_truth.as_ref();
        let truth = truth.map(|dir| GroundTruth::open(dir, &info, max_frames));
        let truth = truth.transpose().map_err(SessionError::from)?;
        let mut pointers = 0;
        for variant in &config.variants {
            let manifest = Bundle::peek(&variant.run.bundle).map_err(SessionError::from)?;
            pointers = pointers.max(manifest.policy.max_object_pointers as usize);
        }
        count_frames(
            &run.input,
            max_frames,
            &info,
            &prompts,
            truth.as_ref(),
            pointers,
        )?;
        let first_frames = prompts.first_frames();
        let mut notes = Vec::new();
        if let (Some(truth), Objects::Prompts(_)) = (&truth, &run.objects) {
            let scorer = Scorer::plan(truth.clone(), &first_frames).map_err(SessionError::from)?;
            notes.extend(scorer.notes());
        }
        notes.extend(info.notes.iter().cloned());
        let length = Length {
            // Before the last prompt, some objects take neither time nor memory.
            warm: prompts.last_frame() + config.warm_frames.get() - 1,
            rounds: config.rounds,
            block: config.block_frames,
        };
        let clip_sha256 = keys::of_clip(&info)?;
        let variants = prepared(&config, run, &prompts, &clip_sha256)?;
        Ok(Self {
            variants,
            info,
            clip_sha256,
            prompts: reports_of(&prompts.into_frames()),
            objects: first_frames.len() as u64,
            truth,
            length,
            notes,
            config,
        })
    }

    /// What the user should know before the comparison runs, one sentence each.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The names of all variants, the baseline first.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.config.variants.iter().map(|v| v.name.as_str())
    }

    /// Runs and measures all variants, and writes the report and the page. A variant that fails is part of the report.
    ///
    /// # Errors
    /// A file that cannot be written, and a run whose files cannot be read.
    pub fn run(&self, host: &mut dyn Host, unfinished: &Unfinished) -> Result<AbReport, AbError> {
        let stage = |name: &str| {
            let path = self.config.out.join(name);
            StagedFile::create(&path, self.config.overwrite, unfinished).map_err(SessionError::from)
        };
        let (page, json) = (stage("index.html")?, stage("report.json")?);
        let ran = self.run_all(host);
        let timings = self.measure(&ran, host, unfinished)?;
        let mut report = self.report(ran, timings)?;
        let pictures = picture::of_frames(
            self.input(),
            &report.shown,
            &report.variants,
            self.truth.as_ref(),
            &self.config.out,
        )?;
        report.shown.truncate(pictures.len());
        let mut text = serde_json::to_string_pretty(&report)
            .map_err(std::io::Error::from)
            .map_err(unwritable(json.file()))?;
        text.push('\n');
        for (file, text) in [(json, text), (page, page::render(&report, &pictures)?)] {
            std::fs::write(file.path(), text).map_err(unwritable(file.file()))?;
            file.commit().map_err(SessionError::from)?;
        }
        host.event(Event::Reported);
        self.remove_outdated();
        Ok(report)
    }

    fn input(&self) -> &Path {
        &self.config.variants[0].run.input
    }

    /// The run of each variant.
    fn run_all(&self, host: &mut dyn Host) -> Vec<Ran<'_>> {
        let max = self.config.variants[0].run.max_frames;
        let max = max.map(|max| max.get() as u64);
        let frames = match (self.info.frames_hint, max) {
            (Some(hint), Some(max)) => Some(hint.min(max)),
            (hint, _) => hint,
        };
        let variants = self.config.variants.iter().zip(&self.variants);
        let runs = variants.map(|(variant, prepared)| {
            let run = self.run_one(variant, prepared, frames, host);
            if let Err(error) = &run {
                let variant = &variant.name;
                host.event(Event::RunFailed { variant, error });
            }
            host.event(Event::RunDone(&variant.name));
            (variant, prepared, run)
        });
        runs.collect()
    }

    fn run_one(
        &self,
        variant: &VariantConfig,
        prepared: &Prepared,
        frames: Option<u64>,
        host: &mut dyn Host,
    ) -> Result<RunReport, String> {
        let dir = self.config.out.join(&prepared.folder);
        if let (Some(run), false) = (complete_run(&dir), self.config.fresh) {
            host.event(Event::RunKept(&variant.name));
            return Ok(run);
        }
        let outputs = OutputConfig {
            overwrite: true,
            ..OutputConfig::new(&dir)
        };
        let config = Config {
            outputs: Some(outputs),
            ..variant.run.clone()
        };
        host.run(&variant.name, config, frames)?;
        complete_run(&dir).ok_or_else(|| format!("it left no complete run in {}", dir.display()))
    }

    /// The timing of each variant that has a run, in their order.
    fn measure(
        &self,
        ran: &[Ran<'_>],
        host: &mut dyn Host,
        unfinished: &Unfinished,
    ) -> Result<Vec<Result<VariantTiming, String>>, AbError> {
        let able = || ran.iter().filter(|(_, _, run)| run.is_ok());
        if able().next().is_none() {
            return Ok(Vec::new());
        }
        let keys =
            able().map(|(variant, prepared, _)| (variant.name.as_str(), prepared.key.as_str()));
        let key = timing::key(keys, self.length);
        if let (Some(kept), false) = (timing::read(&self.config.out, &key), self.config.fresh) {
            host.event(Event::TrialKept);
            host.event(Event::TrialDone);
            return Ok(kept.into_iter().map(Ok).collect());
        }
        let mut commands = Vec::new();
        for (variant, _, _) in able() {
            let config = Config {
                num_frames: Some(self.length.requests()),
                ground_truth: None,
                max_frames: None,
                ..variant.run.clone()
            };
            let command = host.trial_command(&variant.name, config);
            commands.push(command.map_err(|detail| AbError::Program { detail })?);
        }
        let frames = (commands.len() * self.length.requests()) as u64;
        host.event(Event::TrialStarted { frames });
        let ended = trial::run(commands, self.length, OnFailure::Continue, &mut || {
            host.event(Event::TrialFrame);
        })?;
        host.event(Event::TrialDone);
        let failed = |error: crate::bench::BenchError| error.to_string();
        let timings: Vec<_> = ended.into_iter().map(|one| one.map_err(failed)).collect();
        if let Ok(complete) = timings.iter().cloned().collect() {
            timing::write(&self.config.out, key, complete, unfinished)?;
        }
        Ok(timings)
    }

    fn report(
        &self,
        ran: Vec<Ran<'_>>,
        timings: Vec<Result<VariantTiming, String>>,
    ) -> Result<AbReport, AbError> {
        let config = &self.config;
        let run = &config.variants[0].run;
        let frames = ran
            .iter()
            .filter_map(|(_, _, run)| Some(run.as_ref().ok()?.frames));
        let frames = frames.max().unwrap_or(0);
        let mut variants = self.variant_reports(ran, timings)?;
        self.compare_with_baseline(&mut variants)?;
        let mut verdict = verdict::verdict(&variants);
        verdict.warnings.extend(config.warnings.iter().cloned());
        let requirements = config.requirements.iter();
        Ok(AbReport {
            schema_version: AB_VERSION,
            snow_ort: env!("CARGO_PKG_VERSION").to_owned(),
            command: config.command.clone(),
            machine: Machine::here(),
            clip: ClipReport {
                path: run.input.display().to_string(),
                sha256: self.clip_sha256.clone(),
                frames,
                width: self.info.width,
                height: self.info.height,
            },
            prompts: self.prompts.clone(),
            texts: match &run.objects {
                Objects::Texts(texts) => texts.texts.clone(),
                _ => Vec::new(),
            },
            proposals: proposal_graph(&run.objects).map(|file| file.display().to_string()),
            objects: variants[0].found_count().unwrap_or(self.objects),
            ground_truth: run
                .ground_truth
                .as_ref()
                .map(|dir| dir.display().to_string()),
            protocol: Protocol {
                warm_frames: self.length.warm + 1,
                rounds: self.length.rounds,
                block_frames: self.length.block,
            },
            verdict,
            requirements: requirements.map(|one| one.check(&variants)).collect(),
            shown: match variants.iter().any(|variant| variant.run.is_some()) {
                true => {
                    let worst = frames::worst_per_frame(&variants);
                    frames::choose(frames, &worst, config.page_frames)
                }
                false => Vec::new(),
            },
            variants,
        })
    }

    /// The variants with their runs and timings, not yet compared with each other.
    fn variant_reports(
        &self,
        ran: Vec<Ran<'_>>,
        timings: Vec<Result<VariantTiming, String>>,
    ) -> Result<Vec<VariantReport>, AbError> {
        let mut timings = timings.into_iter();
        let mut reports = Vec::with_capacity(ran.len());
        for (variant, prepared, run) in ran {
            let mut report = VariantReport {
                name: variant.name.clone(),
                dir: variant.run.bundle.display().to_string(),
                provider: variant.run.engine.provider.to_string(),
                error: None,
                run: None,
                agreement: None,
                found_objects: None,
                timing: None,
                speedup: None,
            };
            match run {
                Err(error) => report.error = Some(error),
                Ok(run) => {
                    report.run = Some(self.summary(run, &prepared.folder)?);
                    match timings.next() {
                        Some(Ok(timing)) => report.timing = Some(timing),
                        Some(Err(error)) => report.error = Some(error),
                        None => {}
                    }
                }
            }
            reports.push(report);
        }
        Ok(reports)
    }

    /// What the report keeps of a run.
    fn summary(&self, run: RunReport, folder: &Path) -> Result<VariantRun, AbError> {
        let tracks = self.config.out.join(folder).join(TRACKS_FILE);
        Ok(VariantRun {
            folder: folder.display().to_string(),
            texts: found::objects_of_run(&run, &tracks)?,
            lost: run.scores.as_ref().map_or_else(Vec::new, lost_objects),
            model: run.model,
            runtime: run.runtime,
            fps: run.fps,
            peak_memory_bytes: run.peak_memory_bytes,
            detector: run.detector,
            proposals: run.proposals,
            scores: run.scores,
        })
    }

    /// Compares times and masks of all other variants with those of the baseline.
    fn compare_with_baseline(&self, variants: &mut [VariantReport]) -> Result<(), AbError> {
        let Some((baseline, others)) = variants.split_first_mut() else {
            return Ok(());
        };
        let prompted = matches!(self.config.variants[0].run.objects, Objects::Prompts(_));
        let tracks = |run: &VariantRun| self.config.out.join(&run.folder).join(TRACKS_FILE);
        let open = |path: &Path| TracksReader::open(path).map_err(results(path));
        for variant in others {
            variant.speedup = baseline.time_ratio(variant);
            let (Some(expected), Some(got)) = (&baseline.run, &variant.run) else {
                continue;
            };
            let (theirs, ours) = (tracks(expected), tracks(got));
            if prompted {
                variant.agreement = agreement::compare(open(&theirs)?, open(&ours)?)?;
                continue;
            }
            let run = |tracks, texts| FoundRun { tracks, texts };
            let (expected, got) = (run(&theirs, &expected.texts), run(&ours, &got.texts));
            let (found, agreement) = found::compare(expected, got)?;
            (variant.found_objects, variant.agreement) = (Some(found), agreement);
        }
        Ok(())
    }

    /// Removes runs of these variants with another key. One that cannot be removed does no harm.
    fn remove_outdated(&self) {
        for (name, prepared) in self.names().zip(&self.variants) {
            let dir = self.config.out.join(VARIANTS).join(name);
            for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
                let name = entry.file_name().to_string_lossy().into_owned();
                if keys::is_key(&name) && name != prepared.key {
                    let _ = std::fs::remove_dir_all(entry.path());
                }
            }
        }
    }
}

/// The prompts of a run; none if it finds its objects by itself.
fn prompts_of(objects: &Objects) -> Prompts {
    match objects {
        Objects::Prompts(prompts) => prompts.clone(),
        Objects::Proposals(proposals) => proposals.prompts.clone(),
        Objects::Texts(_) => Prompts::none(),
    }
}

fn proposal_graph(objects: &Objects) -> Option<&Path> {
    match objects {
        Objects::Proposals(proposals) => Some(&proposals.graph.file),
        _ => None,
    }
}

/// The keys and folders of all runs. `run` is that of the first variant.
fn prepared(
    config: &ComparisonConfig,
    run: &Config,
    prompts: &Prompts,
    clip_sha256: &str,
) -> Result<Vec<Prepared>, AbError> {
    let mut common = Key::default();
    common.add("program", env!("CARGO_PKG_VERSION"));
    common.add("program's file", &keys::of_file(&config.program)?);
    common.add("clip", clip_sha256);
    keys::add_prompts(
        &mut common,
        prompts.clone().into_frames().values().flatten(),
    );
    if let Some(file) = proposal_graph(&run.objects) {
        let digest = form::digest(file).map_err(SessionError::from)?;
        common.add("proposals", &digest);
    }
    if let Some(dir) = &run.ground_truth {
        common.add("ground truth", &keys::of_folder(dir)?);
    }
    let prepared = |variant: &VariantConfig| {
        let mut key = common.clone();
        keys::add_variant(&mut key, &variant.run)?;
        let key = key.text();
        let folder = Path::new(VARIANTS).join(&variant.name).join(&key);
        Ok(Prepared { key, folder })
    };
    config.variants.iter().map(prepared).collect()
}

/// Refuses an output folder that is a bundle, or whose runs hold a file that the comparison reads: runs may be removed.
fn check_out(run: &Config, out: &Path) -> Result<(), AbError> {
    if out.join(MANIFEST_FILE).exists() {
        return Err(AbError::OutIsBundle { out: out.into() });
    }
    let runs = out.join(VARIANTS);
    let Ok(taken) = runs.canonicalize() else {
        return Ok(());
    };
    let read = [("the input", Some(run.input.as_path()))];
    let read = read.into_iter().chain([
        ("the ground truth", run.ground_truth.as_deref()),
        ("the graph of proposals", proposal_graph(&run.objects)),
    ]);
    let prompts = run.protect.iter();
    let read = read.chain(prompts.map(|file| ("the prompts file", Some(file.as_path()))));
    for (what, path) in read {
        let inside = path.and_then(|path| path.canonicalize().ok());
        if let (Some(path), true) = (path, inside.is_some_and(|real| real.starts_with(&taken))) {
            return Err(AbError::InputInRuns {
                what,
                path: path.to_owned(),
                runs,
            });
        }
    }
    Ok(())
}

/// The report of a run in a folder; `None` unless the run is complete.
fn complete_run(dir: &Path) -> Option<RunReport> {
    let text = std::fs::read(dir.join("run.json")).ok()?;
    let report: RunReport = serde_json::from_slice(&text).ok()?;
    let complete = report.status == Status::Done && dir.join(TRACKS_FILE).is_file();
    complete.then_some(report)
}

fn lost_objects(scores: &ScoresReport) -> Vec<LostObject> {
    let objects = scores.objects.iter().filter_map(|object| {
        let series = object.per_frame.iter().map(|frame| (frame.frame, frame.j));
        Some(LostObject {
            object: object.object,
            from_frame: agreement::lost_from(series)?,
        })
    });
    objects.collect()
}
