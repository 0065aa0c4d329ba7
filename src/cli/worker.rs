//! `snow-ort bench-worker`: a bundle as an arm of a measurement (see [`crate::bench::protocol`]).

use std::collections::BTreeMap;
use std::io::{BufRead as _, Write as _};
use std::time::Instant;

use anyhow::{Context as _, Result};

use super::args::WorkerArgs;
use super::budget::{self, Proposed};
use crate::bench::protocol::{Answer, Frame, Ready, walk};
use crate::bundle::Bundle;
use crate::graph::{Provider, Runtime, RuntimeOptions};
use crate::media::{self, resize::resize_frame};
use crate::prompts::{FlagPrompt, Prompts};
use crate::report;
use crate::tracker::{StageTimes, Tracker, TrackerOptions};

/// Frames of the clip that are kept.
const MOST_FRAMES: usize = 64;

/// Runs the command.
pub(super) fn run(args: &WorkerArgs, flags: &[FlagPrompt]) -> Result<()> {
    let bundle = Bundle::open(&args.model)?;
    let manifest = bundle.manifest();
    let prompts = Prompts::load(flags, args.prompting.prompts.as_deref())?.into_frames();
    let options = RuntimeOptions {
        profile: args.profile.clone(),
        ..args.runtime.options(args.mem_limit)
    };
    let mut runtime = Runtime::load(&options)?;
    let (plan, chunk) = budget::settle(
        &bundle,
        &prompts,
        args.frames,
        args.chunk,
        args.mem_limit,
        &Proposed::default(),
        &mut runtime,
    )?;
    let ready = Ready {
        what: format!(
            "snow-ort {}, ONNX Runtime {}, {}",
            env!("CARGO_PKG_VERSION"),
            runtime.version(),
            runtime.device_text()
        ),
        resolution: manifest.resolution,
        precision: manifest.precision.to_string(),
        threads: runtime.threads(),
    };
    let options = TrackerOptions {
        num_frames: args.frames,
        chunk,
    };
    let mut tracker = Tracker::new(&bundle, runtime, options)?;
    if let Some(plan) = &plan {
        tracker.reserve(plan.total_bytes)?;
    }
    answer(&Answer::Ready(ready))?;

    let mut source = media::open(&args.input)?;
    let mut images = Vec::new();
    let mut read = |images: &mut Vec<(Vec<u8>, (u32, u32))>| -> Result<bool> {
        let Some(frame) = source.next_frame()? else {
            return Ok(false);
        };
        let image = resize_frame(&frame, manifest.resolution)?;
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
        let before = tracker.times();
        let image = image.clone();
        let start = Instant::now();
        tracker.step(index, image, *size, prompted)?;
        let seconds = start.elapsed().as_secs_f64();
        answer(&Answer::Frame(Frame {
            seconds,
            stages: stages(&before, &tracker.times()),
            peak_resident_bytes: report::peak_memory_bytes(),
            arena_peak_bytes: tracker.arena_stats()?.map(|stats| stats.peak_held),
            // Asking takes longer than a frame may: once, when the memory is that of all frames.
            device_bytes: match args.runtime.provider {
                Provider::Cuda if index + 1 == args.frames => report::device_memory_bytes(),
                _ => None,
            },
            bank_bytes: Some(tracker.bank_bytes() as u64),
        }))?;
    }
    Ok(())
}

fn stages(before: &StageTimes, after: &StageTimes) -> BTreeMap<String, f64> {
    let stage = |name: &str, of: fn(&StageTimes) -> f64| (name.to_owned(), of(after) - of(before));
    BTreeMap::from([
        stage("vision_encoder", |times| times.vision_encoder_s),
        stage("memory_attention", |times| times.memory_attention_s),
        stage("mask_decoder", |times| times.mask_decoder_s),
        stage("memory_encoder", |times| times.memory_encoder_s),
    ])
}

/// A line to whoever asked. With nobody there, there is nothing left to do: the error ends the process.
fn answer(answer: &Answer) -> Result<()> {
    let line = serde_json::to_string(answer)?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")
        .and_then(|()| out.flush())
        .context("cannot answer")
}
