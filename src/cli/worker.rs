//! `snow-ort bench-worker`: a bundle as an arm of a measurement (see [`crate::bench::protocol`]).

use std::collections::BTreeMap;
use std::io::{BufRead as _, Write as _};
use std::time::Instant;

use anyhow::{Context as _, Result};

use super::args::WorkerArgs;
use super::budget::{self, Looking, Proposed};
use super::model::Model;
use super::pipeline::Images;
use super::texts::{self, Coming};
use crate::bench::protocol::{Answer, Frame, Ready, walk};
use crate::bundle::Bundle;
use crate::detector::{DetectorTimes, described};
use crate::follower::{Follower, follows};
use crate::graph::{Provider, Runtime, RuntimeOptions};
use crate::media::{self, resize::resize_frame};
use crate::prompts::{FlagPrompt, PromptError, Prompts};
use crate::report;
use crate::tracker::{StageTimes, Tracker, TrackerOptions};

/// Frames of the clip that are kept.
const MOST_FRAMES: usize = 64;

/// Runs the command.
pub(super) fn run(args: &WorkerArgs, flags: &[FlagPrompt]) -> Result<()> {
    let mut bundle = Bundle::open(&args.model)?;
    args.policy.apply(&mut bundle);
    let manifest = bundle.manifest();
    let texts = texts::distinct(&args.text.texts);
    let prompts = match Prompts::load(flags, args.prompting.prompts.as_deref()) {
        Err(PromptError::None) if !texts.is_empty() => Prompts::none(),
        other => other?,
    };
    let prompts = prompts.into_frames();
    let detecting = texts::detecting(args.text.det_res, None, &bundle)?;
    let options = RuntimeOptions {
        profile: args.profile.clone(),
        ..args.runtime.options(args.mem_limit)
    };
    let mut runtime = Runtime::load(&options)?;
    let (what, threads) = (
        format!(
            "snow-ort {}, ONNX Runtime {}, {}",
            env!("CARGO_PKG_VERSION"),
            runtime.version(),
            runtime.device_text()
        ),
        runtime.threads(),
    );
    let mut model = if texts.is_empty() {
        let (plan, chunk) = budget::settle(
            &bundle,
            &prompts,
            args.frames,
            args.chunk,
            args.mem_limit,
            &Proposed::default(),
            &mut runtime,
        )?;
        let options = TrackerOptions {
            num_frames: args.frames,
            chunk,
        };
        let tracker = Tracker::new(&bundle, runtime, options)?;
        let mut model = Model::Tracker(Box::new(tracker));
        if let Some(plan) = &plan {
            model.reserve(plan.total_bytes)?;
        }
        model
    } else {
        finding(args, &bundle, detecting.as_ref(), &texts, runtime)?
    };
    let once = match &model {
        Model::Tracker(_) => BTreeMap::new(),
        Model::Follower(follower) => {
            let seconds = follower.detector_times().text_encoder_s;
            BTreeMap::from([("text_encoder".to_owned(), seconds)])
        }
    };
    let ready = Ready {
        what,
        resolution: manifest.resolution,
        precision: manifest.precision.to_string(),
        threads,
        once,
    };
    answer(&Answer::Ready(ready))?;

    let mut source = media::open(&args.input)?;
    let mut images = Vec::new();
    let detail = detecting.as_ref().map(|other| other.manifest().resolution);
    let mut read = |images: &mut Vec<(Images, (u32, u32))>| -> Result<bool> {
        let Some(frame) = source.next_frame()? else {
            return Ok(false);
        };
        let at = |side| resize_frame(&frame, side);
        let image = Images {
            model: at(manifest.resolution)?,
            detector: detail.map(at).transpose()?,
        };
        images.push((image, (frame.width, frame.height)));
        Ok(true)
    };
    let mut ended = false;
    for (index, line) in std::io::stdin().lock().lines().enumerate() {
        line.context("cannot read what to do")?;
        // The first mask must not wait for frames that come later.
        while !ended && images.len() <= index && images.len() < MOST_FRAMES {
            ended = !read(&mut images)?;
        }
        let (image, size) = images
            .get(walk(index, images.len()))
            .context("the clip has no frames")?;
        let prompted = prompts.get(&index).map_or(&[][..], Vec::as_slice);
        let before = times(&model);
        let image = image.clone();
        let start = Instant::now();
        model
            .step()
            .step(index, image, *size, prompted, &mut |_| Vec::new())?;
        let seconds = start.elapsed().as_secs_f64();
        answer(&Answer::Frame(Frame {
            seconds,
            stages: stages(&before, &times(&model)),
            peak_resident_bytes: report::peak_memory_bytes(),
            arena_peak_bytes: model.arena_stats()?.map(|stats| stats.peak_held),
            // Asking takes longer than a frame may: once, when the memory is that of all frames.
            device_bytes: match args.runtime.provider {
                Provider::Cuda if index + 1 == args.frames => report::device_memory_bytes(),
                _ => None,
            },
            bank_bytes: Some(model.tracker().bank_bytes() as u64),
        }))?;
    }
    Ok(())
}

/// A bundle that finds its objects.
fn finding(
    args: &WorkerArgs,
    bundle: &Bundle,
    detecting: Option<&Bundle>,
    texts: &[&str],
    mut runtime: Runtime,
) -> Result<Model> {
    described(detecting.unwrap_or(bundle))?;
    follows(bundle)?;
    let coming = Coming {
        num_frames: args.frames,
        most: None,
        likely: Some(args.frames),
    };
    let (options, plan) = texts::settle(
        &args.text,
        bundle,
        Looking::with(bundle, detecting, texts.len()),
        coming,
        args.chunk,
        args.mem_limit,
        &mut runtime,
    )?;
    let mut follower = Follower::new(bundle, detecting, runtime, texts, options)?;
    if let Some(plan) = &plan {
        follower.reserve(plan.total_bytes)?;
    }
    Ok(Model::Follower(Box::new(follower)))
}

/// Seconds of the stages so far.
fn times(model: &Model) -> (StageTimes, DetectorTimes) {
    let detector = match model {
        Model::Tracker(_) => DetectorTimes::default(),
        Model::Follower(follower) => follower.detector_times(),
    };
    (model.tracker().times(), detector)
}

fn stages(
    (before, looked_before): &(StageTimes, DetectorTimes),
    (after, looked): &(StageTimes, DetectorTimes),
) -> BTreeMap<String, f64> {
    let stage = |name: &str, of: fn(&StageTimes) -> f64| (name.to_owned(), of(after) - of(before));
    let tracker = [
        stage("vision_encoder", |times| times.vision_encoder_s),
        stage("memory_attention", |times| times.memory_attention_s),
        stage("mask_decoder", |times| times.mask_decoder_s),
        stage("memory_encoder", |times| times.memory_encoder_s),
    ];
    let look = |name: &str, of: fn(&DetectorTimes) -> f64| {
        (name.to_owned(), of(looked) - of(looked_before))
    };
    let detector = [
        look("detector_vision_encoder", |times| times.backbone_s),
        look("detector_features", |times| times.features_s),
        look("detector", |times| times.search_s),
        look("detector_masks", |times| times.masks_s),
    ];
    // A frame without a look has none of these.
    let detector = detector.into_iter().filter(|(_, seconds)| *seconds > 0.0);
    tracker.into_iter().chain(detector).collect()
}

/// A line to whoever asked. With nobody there, there is nothing left to do: the error ends the process.
fn answer(answer: &Answer) -> Result<()> {
    let line = serde_json::to_string(answer)?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")
        .and_then(|()| out.flush())
        .context("cannot answer")
}
