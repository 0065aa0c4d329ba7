//! `snow-ort bench-worker`: a bundle as an arm of a measurement (see [`crate::bench::protocol`]).

use std::collections::BTreeMap;
use std::io::{BufRead as _, Write as _};
use std::time::Instant;

use anyhow::{Context as _, Result};

use super::args::WorkerArgs;
use super::budget::{self, Looking};
use super::discovery::Discovery;
use super::model::Model;
use super::pipeline::{DecodedFrame, Images, look_and_track};
use super::propose::Proposer;
use super::texts::{self, Coming};
use crate::bench::protocol::{Answer, Frame, Ready, walk};
use crate::bundle::Bundle;
use crate::detector::{DetectorTimes, described};
use crate::media::{self, resize::resize_frame};
use crate::prompts::{FlagPrompt, PromptError, Prompts};
use crate::runtime::{Provider, Runtime, RuntimeOptions};
use crate::session::report;
use crate::text_tracking::{Follower, follows};
use crate::tracker::{StageTimes, Tracker, TrackerOptions};

/// The stage in which a graph proposes objects.
const PROPOSALS: &str = "proposals";

/// Frames of the clip that are kept.
const MOST_FRAMES: usize = 64;

/// Runs the command.
pub(super) fn run(args: &WorkerArgs, flags: &[FlagPrompt]) -> Result<()> {
    let mut bundle = Bundle::open(&args.model)?;
    args.policy.apply(&mut bundle);
    let manifest = bundle.manifest();
    let texts = texts::distinct(&args.text.texts);
    let prompts = match Prompts::load(flags, args.prompting.prompts.as_deref()) {
        Err(PromptError::None) if !texts.is_empty() || args.proposals.graph.proposals.is_some() => {
            Prompts::none()
        }
        other => other?,
    };
    let mut discovery = Discovery::begin(
        &args.proposals,
        Proposer::digest(&args.proposals.graph)?,
        (&args.input, &args.runtime, args.mem_limit),
        &prompts,
        &bundle,
    )?;
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
            &discovery
                .as_ref()
                .map(Discovery::proposed)
                .unwrap_or_default(),
            &mut runtime,
        )?;
        if let Some(discovery) = &mut discovery {
            discovery.keep_within(args.mem_limit, plan.as_ref(), &mut runtime);
        }
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
    let looks = discovery.as_ref();
    let once = match &model {
        Model::Tracker(_) => looks
            .map(|looks| (PROPOSALS.to_owned(), looks.seconds()))
            .into_iter()
            .collect(),
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
    let mut frames: Vec<DecodedFrame> = Vec::new();
    let looks_again = discovery.as_ref().is_some_and(|d| d.every().is_some());
    let detail = detecting.as_ref().map(|other| other.manifest().resolution);
    let mut read = |frames: &mut Vec<DecodedFrame>| -> Result<bool> {
        let Some(frame) = source.next_frame()? else {
            return Ok(false);
        };
        let at = |side| resize_frame(&frame, side);
        let images = Images {
            model: at(manifest.resolution)?,
            detector: detail.map(at).transpose()?,
        };
        frames.push(DecodedFrame {
            index: frames.len(),
            width: frame.width,
            height: frame.height,
            images,
            rgb: looks_again.then_some(frame.rgb),
            pts_s: frame.pts_s,
        });
        Ok(true)
    };
    let mut ended = false;
    for (index, line) in std::io::stdin().lock().lines().enumerate() {
        line.context("cannot read what to do")?;
        // The first mask must not wait for frames that come later.
        while !ended && frames.len() <= index && frames.len() < MOST_FRAMES {
            ended = !read(&mut frames)?;
        }
        let frame = frames
            .get(walk(index, frames.len()))
            .context("the clip has no frames")?;
        let mut frame = DecodedFrame {
            index,
            ..frame.clone()
        };
        let prompted = prompts.get(&index).map_or(&[][..], Vec::as_slice);
        let before = times(&model, discovery.as_ref());
        let start = Instant::now();
        look_and_track(discovery.as_mut(), &mut frame, prompted, model.step())?;
        let seconds = start.elapsed().as_secs_f64();
        answer(&Answer::Frame(Frame {
            seconds,
            stages: stages(&before, &times(&model, discovery.as_ref())),
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
struct Times {
    tracker: StageTimes,
    detector: DetectorTimes,
    proposals: f64,
}

fn times(model: &Model, discovery: Option<&Discovery>) -> Times {
    let detector = match model {
        Model::Tracker(_) => DetectorTimes::default(),
        Model::Follower(follower) => follower.detector_times(),
    };
    Times {
        tracker: model.tracker().times(),
        detector,
        proposals: discovery.map_or(0.0, Discovery::seconds),
    }
}

fn stages(before: &Times, after: &Times) -> BTreeMap<String, f64> {
    let stage = |name: &str, of: fn(&StageTimes) -> f64| {
        (name.to_owned(), of(&after.tracker) - of(&before.tracker))
    };
    let tracker = [
        stage("vision_encoder", |times| times.vision_encoder_s),
        stage("memory_attention", |times| times.memory_attention_s),
        stage("mask_decoder", |times| times.mask_decoder_s),
        stage("memory_encoder", |times| times.memory_encoder_s),
    ];
    let look = |name: &str, of: fn(&DetectorTimes) -> f64| {
        (name.to_owned(), of(&after.detector) - of(&before.detector))
    };
    let detector = [
        look("detector_vision_encoder", |times| times.backbone_s),
        look("detector_features", |times| times.features_s),
        look("detector", |times| times.search_s),
        look("detector_masks", |times| times.masks_s),
    ];
    let proposals = (PROPOSALS.to_owned(), after.proposals - before.proposals);
    let looks = detector.into_iter().chain([proposals]);
    // A frame without a look has none of these.
    let looks = looks.filter(|(_, seconds)| *seconds > 0.0);
    tracker.into_iter().chain(looks).collect()
}

/// A line to whoever asked. With nobody there, there is nothing left to do: the error ends the process.
fn answer(answer: &Answer) -> Result<()> {
    let line = serde_json::to_string(answer)?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")
        .and_then(|()| out.flush())
        .context("cannot answer")
}
