//! `snow-ort run`: everything that can be checked is checked before the model is loaded; then the pipeline runs; then
//! the results are moved into place.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};

use super::args::RunArgs;
use super::budget::{self, Looking};
use super::discovery::Discovery;
use super::model::Model;
use super::outputs::{Outputs, default_out};
use super::pipeline::{self, DetectorImages, Job, Outcome};
use super::progress::Progress;
use super::propose::Proposer;
use super::score::Scorer;
use super::signals::Interrupt;
use super::sink::{Sink, SinkOptions, SinkStats};
use super::survey::survey;
use super::texts::Coming;
use super::{chain, complain, counted, guard, models, summary, texts};
use crate::bundle::Bundle;
use crate::detector::{DetectorTimes, described};
use crate::media::overlay::OverlayWriter;
use crate::media::{self, SourceInfo, SourceKind};
use crate::output::{StagedDir, Unfinished};
use crate::prompts::{FlagPrompt, PromptError, Prompts};
use crate::runtime::{ArenaStats, Copies, Provider, Runtime};
use crate::scoring::ground_truth::GroundTruth;
use crate::session::report::{
    self, ArenaReport, CopiesReport, DetectorReport, InputReport, ModelReport, PromptReport,
    REPORT_VERSION, RunReport, RuntimeReport, StageReport, Status, TextReport, Timings,
};
use crate::text_tracking::{Follower, follows};
use crate::tracker::{Prompt, StageTimes, Tracker, TrackerOptions};

/// Everything about a run that is known before its first frame.
struct Setup<'a> {
    args: &'a RunArgs,
    bundle: &'a Bundle,
    info: SourceInfo,
    runtime: RuntimeReport,
    prompts: Vec<PromptReport>,
    start: Instant,
    load_s: f64,
}

/// What tracking took.
struct Seen {
    texts: Vec<TextReport>,
    detector: Option<(DetectorReport, DetectorTimes)>,
    times: StageTimes,
    tracking_s: f64,
    arena: Option<ArenaStats>,
    copies: Copies,
    predicted: Option<u64>,
}

/// Runs the command; prints progress, warnings and the summary.
pub(super) fn run(args: &RunArgs, flags: &[FlagPrompt]) -> Result<()> {
    let start = Instant::now();
    // Before anything that may take long: hashing a bundle, or decoding up to a late prompt.
    let unfinished = Unfinished::default();
    let interrupt = Interrupt::install(&unfinished)?;
    let prompts = match Prompts::load(flags, args.prompting.prompts.as_deref()) {
        Err(PromptError::None)
            if args.proposals.graph.proposals.is_some() || !args.text.texts.is_empty() =>
        {
            Prompts::none()
        }
        other => other?,
    };
    texts::check(args, !prompts.frames().is_empty())?;
    let proposes = args.proposals.graph.proposals.is_some();
    if args.gt.is_some() && proposes && !prompts.frames().is_empty() {
        bail!(
            "--gt cannot be used with --proposals and prompts: objects of prompts are scored by their ids, proposed ones by their masks; leave out one of the three"
        );
    }
    let digest = Proposer::digest(&args.proposals.graph)?;
    let source = media::open(&args.input)?;
    let info = source.info().clone();
    let dir = models::choose(args.model.as_deref(), args.res, args.models.as_deref())?;
    let out = match &args.out {
        Some(out) => out.clone(),
        None => default_out(&args.input, ""),
    };
    guard::check_outputs(args, &out, &prompts, &dir)?;
    let most = args.max_frames.map(Into::into);
    let truth = match &args.gt {
        Some(dir) => Some(GroundTruth::open(dir, &info, most)?),
        None => None,
    };
    let mut bundle = Bundle::open(&dir)?;
    args.policy.apply(&mut bundle);
    let manifest = bundle.manifest();
    let detecting = texts::detecting(args.text.det_res, args.models.as_deref(), &bundle)?;
    if !args.text.texts.is_empty() {
        described(detecting.as_ref().unwrap_or(&bundle))?;
        follows(&bundle)?;
    }
    let num_frames = survey(
        &args.input,
        most,
        &info,
        &prompts,
        truth.as_ref(),
        manifest.policy.max_object_pointers as usize,
    )?;
    let scorer = match truth {
        Some(truth) if proposes || !args.text.texts.is_empty() => Some(Scorer::matching(truth)?),
        Some(truth) => Some(Scorer::plan(truth, &prompts.first_frames())?),
        None => None,
    };

    for note in &info.notes {
        complain(&format!("warning: {note}"));
    }
    if manifest.source.random_weights {
        complain(&format!(
            "warning: the weights of {} are random: the masks mean nothing",
            dir.display()
        ));
    }

    let side = manifest.masks.prompt_size;
    for (origin, object, pixels) in prompts.vanishing(side) {
        complain(&format!(
            "warning: {origin}: the mask of object {object} has {}, and none is left at the {side}x{side} that the model sees; give a larger mask, or a box",
            counted(pixels as u64, "pixel")
        ));
    }
    for note in scorer.iter().flat_map(Scorer::notes) {
        complain(&format!("warning: {note}"));
    }

    let mut runtime = Runtime::load(&args.runtime.options(args.mem_limit))?;
    let mut discovery = Discovery::begin(
        &args.proposals,
        digest,
        (&args.input, &args.runtime, args.mem_limit),
        &prompts,
        &bundle,
    )?;
    let prompts = prompts.into_frames();
    let distinct = texts::distinct(&args.text.texts);
    let (follow, plan, chunk) = if distinct.is_empty() {
        let proposed = discovery
            .as_ref()
            .map(Discovery::proposed)
            .unwrap_or_default();
        let (plan, chunk) = budget::settle(
            &bundle,
            &prompts,
            num_frames,
            args.chunk,
            args.mem_limit,
            &proposed,
            &mut runtime,
        )?;
        (None, plan, chunk)
    } else {
        // A survey that ended before it had to has seen the whole clip.
        let whole = num_frames < manifest.policy.max_object_pointers as usize;
        let images = info.frames_hint.filter(|_| info.kind == SourceKind::Images);
        let images = images.map(|count| count as usize);
        let bounds = [most, whole.then_some(num_frames), images];
        let most_frames = bounds.into_iter().flatten().min();
        let coming = Coming {
            num_frames,
            most: most_frames,
            likely: most_frames.or(info.frames_hint.map(|count| count as usize)),
        };
        let (follow, plan) = texts::settle(
            &args.text,
            &bundle,
            Looking::with(&bundle, detecting.as_ref(), distinct.len()),
            coming,
            args.chunk,
            args.mem_limit,
            &mut runtime,
        )?;
        (Some(follow), plan, follow.tracker.chunk)
    };
    let detecting = detecting.as_ref();
    if let Some(discovery) = &mut discovery {
        discovery.keep_within(args.mem_limit, plan.as_ref(), &mut runtime);
    }
    let outputs = Outputs::create(args, &out, &unfinished)?;
    let overlay = match &outputs.overlay {
        Some(file) => Some(OverlayWriter::create(
            file.path(),
            info.width,
            info.height,
            info.frame_rate,
        )?),
        None => None,
    };
    let runtime_report = RuntimeReport {
        snow_ort: env!("CARGO_PKG_VERSION").to_owned(),
        onnxruntime: runtime.version().to_owned(),
        library: runtime.library().display().to_string(),
        provider: args.runtime.provider.to_string(),
        threads: args.runtime.threads.map(Into::into),
        chunk,
        memory_selection: manifest.policy.memory_selection,
    };
    let texts = distinct;
    let mut model = match follow {
        Some(options) => {
            let follower = Follower::new(&bundle, detecting, runtime, &texts, options)?;
            Model::Follower(Box::new(follower))
        }
        None => {
            let options = TrackerOptions { num_frames, chunk };
            Model::Tracker(Box::new(Tracker::new(&bundle, runtime, options)?))
        }
    };
    if let Some(plan) = &plan {
        model.reserve(plan.total_bytes)?;
    }
    let setup = Setup {
        args,
        bundle: &bundle,
        info,
        runtime: runtime_report,
        prompts: describe(&prompts),
        start,
        load_s: start.elapsed().as_secs_f64(),
    };

    let sink = Sink::create(SinkOptions {
        dir: outputs.run.path(),
        logits: outputs.logits.as_ref().map(StagedDir::path),
        overlay,
        sheet: outputs.sheet.as_ref().map(|file| file.path().to_path_buf()),
        scorer,
        threshold: manifest.masks.threshold as f32,
    })?;
    let mut progress = match args.tell_frames {
        true => Progress::told(),
        false => Progress::start(total(args, &setup.info), args.quiet),
    };
    let tracking = Instant::now();
    interrupt.tracking();
    let outcome = pipeline::run(
        Job {
            source,
            resolution: manifest.resolution,
            detector: detecting.map(|bundle| DetectorImages {
                resolution: bundle.manifest().resolution,
                every: args.text.every(),
            }),
            max_frames: most,
            keep_rgb: outputs.overlay.is_some() || outputs.sheet.is_some(),
            prompts,
            discovery,
            sink,
            interrupt,
            on_frame: &mut || progress.frame(),
        },
        model.step(),
    );
    let tracking_s = tracking.elapsed().as_secs_f64();
    progress.finish();
    let tracker = model.tracker();
    let seen = Seen {
        texts: match (&model, &outcome.sink) {
            (Model::Follower(follower), Ok(stats)) => {
                texts::report(&texts, &stats.objects, |object| follower.origin(object))
            }
            _ => Vec::new(),
        },
        detector: match &model {
            Model::Follower(follower) => Some(looked(args, detecting, follower)),
            Model::Tracker(_) => None,
        },
        times: tracker.times(),
        tracking_s,
        arena: model.arena_stats()?,
        copies: tracker.copies(),
        predicted: plan.map(|plan| plan.total_bytes),
    };
    conclude(&setup, outcome, outputs, &seen)
}

fn total(args: &RunArgs, info: &SourceInfo) -> Option<u64> {
    let most = args.max_frames.map(|most| most.get() as u64);
    match (info.frames_hint, most) {
        (Some(hint), Some(most)) => Some(hint.min(most)),
        (hint, _) => hint,
    }
}

/// What looking for objects came to.
fn looked(
    args: &RunArgs,
    bundle: Option<&Bundle>,
    follower: &Follower,
) -> (DetectorReport, DetectorTimes) {
    let report = DetectorReport {
        every: args.text.every() as u64,
        looks: follower.looks() as u64,
        most_objects: follower.most_objects() as u64,
        dropped_after: follower.last_look().map(|frame| frame as u64),
        model: bundle.map(ModelReport::of),
    };
    (report, follower.detector_times())
}

pub(super) fn describe(prompts: &BTreeMap<usize, Vec<Prompt>>) -> Vec<PromptReport> {
    prompts.values().flatten().map(PromptReport::of).collect()
}

fn conclude(setup: &Setup<'_>, outcome: Outcome, outputs: Outputs, seen: &Seen) -> Result<()> {
    let damage = &outcome.decode.damage;
    if damage.packets > 0 || damage.frames > 0 {
        let first = damage.first_error.as_deref().unwrap_or("no details");
        complain(&format!(
            "warning: {} is damaged: {}, {} ({first})",
            setup.args.input.display(),
            counted(damage.packets, "damaged packet"),
            counted(damage.frames, "damaged frame")
        ));
    }
    let looks = outcome.discovery.as_ref();
    for note in looks.iter().flat_map(|discovery| discovery.notes()) {
        complain(&format!("warning: {note}"));
    }
    // A disk that is full or gone: there is no use in keeping a part, and perhaps no room for it.
    let stats = match &outcome.sink {
        Ok(stats) => stats.clone(),
        Err(error) => {
            let message = outputs.in_final_names(&chain(error));
            let advice = if message.contains("No space left") {
                ": free some space, or write to another disk"
            } else if message.contains("File too large") {
                ": raise the limit on a file's size (`ulimit -f`), or write to another disk"
            } else {
                ""
            };
            bail!("{message}; nothing was kept{advice}");
        }
    };
    if let Some(prompt) = outcome.unused.first() {
        bail!(
            "the prompt of object {} on frame {} was never reached: {} ended after {}; nothing was kept",
            prompt.object,
            prompt.frame,
            setup.args.input.display(),
            counted(stats.frames, "frame")
        );
    }
    let status = match (&outcome.error, outcome.interrupted) {
        (Some(_), _) => Status::Failed,
        (None, true) => Status::Interrupted,
        (None, false) => Status::Done,
    };
    if stats.frames == 0 {
        return match outcome.error {
            Some(error) => Err(error),
            None => bail!("no frame was tracked; nothing was kept"),
        };
    }

    let mut report = compose(setup, &outcome, &stats, status, seen);
    let targets = outputs.targets(status);
    let shown = |path: Option<PathBuf>| path.map(|path| path.display().to_string());
    report.overlay = shown(targets.overlay);
    report.logits = shown(targets.logits);
    report.contact_sheet = shown(targets.sheet);
    report::write_run(&outputs.run.path().join("run.json"), &report).with_context(|| {
        let path = outputs.run.dir().join("run.json");
        format!("nothing was kept: cannot write {}", path.display())
    })?;
    let placed = outputs
        .place(status)
        .context("cannot put the results in place")?;
    match outcome.error {
        Some(error) => Err(error.context(format!(
            "the run failed after {}, kept in {}",
            counted(stats.frames, "frame"),
            placed.run.display()
        ))),
        None if status == Status::Interrupted => bail!(
            "interrupted after {}, kept in {}",
            counted(stats.frames, "frame"),
            placed.run.display()
        ),
        None => {
            if let Some(why) = &stats.unscored {
                bail!(
                    "{why}; the run is complete, in {}, but has no scores",
                    placed.run.display()
                );
            }
            if !setup.args.quiet && !setup.args.tell_frames {
                summary::show(&report, &placed);
            }
            Ok(())
        }
    }
}

fn compose(
    setup: &Setup<'_>,
    outcome: &Outcome,
    stats: &SinkStats,
    status: Status,
    seen: &Seen,
) -> RunReport {
    let (times, tracking_s) = (&seen.times, seen.tracking_s);
    let frames = stats.frames;
    let stage = |name, seconds| StageReport::new(name, seconds, frames);
    let looks = outcome.discovery.as_ref().map(Discovery::report);
    let mut prompts = setup.prompts.clone();
    prompts.extend(looks.iter().flat_map(|(_, found)| found.iter().cloned()));
    let looks = looks.map(|(report, _)| report);
    let before = outcome.discovery.as_ref().and_then(Discovery::peak);
    let (held_before, used_before) = before.unwrap_or_default();
    let detecting = seen.detector.iter().flat_map(|(_, times)| {
        let backbone = seen
            .detector
            .iter()
            .filter(|(report, _)| report.model.is_some());
        let backbone = backbone.map(|_| stage("detector_vision_encoder", times.backbone_s));
        let texts = [stage("text_encoder", times.text_encoder_s)];
        texts.into_iter().chain(backbone).chain([
            stage("detector_features", times.features_s),
            stage("detector", times.search_s),
            stage("detector_masks", times.masks_s),
        ])
    });
    let looking = looks
        .iter()
        .map(|looks| stage("proposals", looks.load_s + looks.look_s));
    let stages = [
        stage("decode", outcome.decode.decode_s),
        stage("resize", outcome.decode.resize_s),
    ]
    .into_iter()
    .chain(looking)
    .chain([stage("vision_encoder", times.vision_encoder_s)])
    .chain(detecting)
    .chain([
        stage("memory_attention", times.memory_attention_s),
        stage("mask_decoder", times.mask_decoder_s),
        stage("memory_encoder", times.memory_encoder_s),
        stage("upsample", stats.upsample_s),
        stage("write", stats.write_s),
        stage("overlay", stats.overlay_s),
        stage("logits", stats.logits_s),
        stage("score", stats.score_s),
        stage("contact_sheet", stats.sheet_s),
    ])
    .collect();
    RunReport {
        schema_version: REPORT_VERSION,
        status,
        error: outcome.error.as_ref().map(chain),
        input: InputReport {
            path: setup.args.input.display().to_string(),
            kind: match setup.info.kind {
                SourceKind::Video => "video",
                SourceKind::Images => "images",
            }
            .to_owned(),
            frame_rate: setup.info.frame_rate,
            frames_hint: setup.info.frames_hint,
            damaged_packets: outcome.decode.damage.packets,
            damaged_frames: outcome.decode.damage.frames,
            first_damage: outcome.decode.damage.first_error.clone(),
        },
        frames,
        sizes: stats.sizes.clone(),
        texts: seen.texts.clone(),
        detector: seen.detector.as_ref().map(|(report, _)| report.clone()),
        objects: stats.objects.clone(),
        prompts,
        proposals: looks,
        model: ModelReport::of(setup.bundle),
        runtime: setup.runtime.clone(),
        timings: Timings {
            total_s: setup.start.elapsed().as_secs_f64(),
            load_s: setup.load_s,
            tracking_s,
            stages,
        },
        fps: frames as f64 / tracking_s.max(1e-9),
        peak_memory_bytes: report::peak_memory_bytes(),
        arena: seen.arena.map(|stats| ArenaReport {
            peak_bytes: stats.peak_held.max(held_before),
            in_use_bytes: stats.peak_in_use.max(used_before),
            limit_bytes: setup.args.mem_limit,
            predicted_bytes: seen.predicted,
        }),
        device_memory_bytes: match setup.args.runtime.provider {
            Provider::Cpu => None,
            Provider::Cuda => report::device_memory_bytes(),
        },
        copies: match setup.args.runtime.provider {
            Provider::Cpu => None,
            Provider::Cuda => Some(CopiesReport {
                to_device_bytes: seen.copies.to_device,
                to_host_bytes: seen.copies.to_host,
            }),
        },
        overlay: None,
        logits: None,
        contact_sheet: None,
        scores: stats.scores.clone(),
    }
}
