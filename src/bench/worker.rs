//! A bundle as a variant of a measurement, in a separate process: speaks [`protocol`](super::protocol).

use std::collections::BTreeMap;
use std::io::{BufRead, Write};
use std::time::Instant;

use super::protocol::{Answer, Frame, Ready, walk};
use crate::media::resize::resize_frame;
use crate::runtime::Provider;
use crate::session::pipeline::{DecodedFrame, Images, propose_and_track};
use crate::session::report::{device_memory_bytes, peak_memory_bytes};
use crate::session::{self, Config, Session, SessionError, StepTimes};

/// Frames of the clip that are kept in memory.
const MAX_FRAMES: usize = 64;

/// Why a worker ends early.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum WorkerError {
    /// The session cannot be opened or stepped.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// The requests cannot be read.
    #[error("cannot read what to do")]
    Read(#[source] std::io::Error),
    /// The answers cannot be written.
    #[error("cannot answer")]
    Answer(#[source] std::io::Error),
    /// The clip is empty.
    #[error("the clip has no frames")]
    NoFrames,
}

/// Opens the run of `config`, which states how many frames are asked for at most ([`Config::num_frames`]), and tracks a
/// frame for each line of `requests`. Writes an answer for each to `answers`.
///
/// # Errors
/// [`WorkerError`].
pub(crate) fn run(
    config: Config,
    requests: impl BufRead,
    mut answers: impl Write,
) -> Result<(), WorkerError> {
    let max_frames = config.num_frames;
    let on_gpu = config.engine.provider == Provider::Cuda;
    let mut session = session::open(config)?;
    answer(&mut answers, &Answer::Ready(ready(&session)))?;
    let mut clip = Clip {
        frames: Vec::new(),
        ended: false,
    };
    for (index, line) in requests.lines().enumerate() {
        line.map_err(WorkerError::Read)?;
        // The first mask must not wait for frames that come later.
        while clip.frames.len() <= index && clip.frames.len() < MAX_FRAMES && !clip.ended {
            clip.read(&mut session)?;
        }
        let frame = clip.frames.get(walk(index, clip.frames.len()));
        let mut frame = DecodedFrame {
            index,
            ..frame.ok_or(WorkerError::NoFrames)?.clone()
        };
        let before = session.step_times();
        let start = Instant::now();
        let due = session.prompts.get(&index).map_or(&[][..], Vec::as_slice);
        propose_and_track(
            session.discovery.as_mut(),
            &mut frame,
            due,
            session.model.step(),
        )?;
        let seconds = start.elapsed().as_secs_f64();
        let arena = session.model.arena_stats().map_err(SessionError::from)?;
        let stages = stages_between(&before, &session.step_times());
        answer(
            &mut answers,
            &Answer::Frame(Frame {
                seconds,
                stages,
                peak_resident_bytes: peak_memory_bytes(),
                arena_peak_bytes: arena.map(|stats| stats.peak_held),
                // Querying device memory is slow, so do it once, after the last frame.
                device_bytes: match on_gpu && Some(index + 1) == max_frames {
                    true => device_memory_bytes(),
                    false => None,
                },
                bank_bytes: Some(session.model.tracker().bank_bytes() as u64),
            }),
        )?;
    }
    Ok(())
}

/// The first frames of a clip, resized.
struct Clip {
    frames: Vec<DecodedFrame>,
    ended: bool,
}

impl Clip {
    /// Reads one frame more, or notes the end.
    fn read(&mut self, session: &mut Session) -> Result<(), SessionError> {
        let Some(frame) = session.source.next_frame()? else {
            self.ended = true;
            return Ok(());
        };
        let keeps_rgb = session
            .discovery
            .as_ref()
            .is_some_and(|discovery| discovery.every().is_some());
        let detector = session.detector_bundle.as_ref();
        let detector = detector.map(|bundle| bundle.manifest().resolution);
        let at = |side| resize_frame(&frame, side);
        let images = Images {
            model: at(session.bundle.manifest().resolution)?,
            detector: detector.map(at).transpose()?,
        };
        self.frames.push(DecodedFrame {
            index: self.frames.len(),
            width: frame.width,
            height: frame.height,
            images,
            rgb: keeps_rgb.then_some(frame.rgb),
            pts_s: frame.pts_s,
        });
        Ok(())
    }
}

/// What the variant says of itself before its first frame.
fn ready(session: &Session) -> Ready {
    let manifest = session.bundle.manifest();
    let library = &session.library;
    Ready {
        what: format!(
            "snow-ort {}, ONNX Runtime {}, {}",
            env!("CARGO_PKG_VERSION"),
            library.version,
            library.device
        ),
        resolution: manifest.resolution,
        precision: manifest.precision.to_string(),
        threads: library.threads,
        once: session.once(),
    }
}

/// Seconds of each stage between two times.
fn stages_between(before: &StepTimes, after: &StepTimes) -> BTreeMap<String, f64> {
    let (tracker, since) = (&after.tracker, &before.tracker);
    let always = [
        (
            "vision_encoder",
            tracker.vision_encoder_s - since.vision_encoder_s,
        ),
        (
            "memory_attention",
            tracker.memory_attention_s - since.memory_attention_s,
        ),
        (
            "mask_decoder",
            tracker.mask_decoder_s - since.mask_decoder_s,
        ),
        (
            "memory_encoder",
            tracker.memory_encoder_s - since.memory_encoder_s,
        ),
    ];
    let (detector, since) = (&after.detector, &before.detector);
    let sometimes = [
        (
            "detector_vision_encoder",
            detector.backbone_s - since.backbone_s,
        ),
        ("detector_features", detector.features_s - since.features_s),
        ("detector", detector.detect_s - since.detect_s),
        ("detector_masks", detector.masks_s - since.masks_s),
        ("proposals", after.proposals_s - before.proposals_s),
    ];
    // A frame without a detection has none of these.
    let sometimes = sometimes.into_iter().filter(|(_, seconds)| *seconds > 0.0);
    let stages = always.into_iter().chain(sometimes);
    stages
        .map(|(name, seconds)| (name.to_owned(), seconds))
        .collect()
}

/// Writes one line.
fn answer(to: &mut impl Write, answer: &Answer) -> Result<(), WorkerError> {
    let line = serde_json::to_string(answer).map_err(|error| WorkerError::Answer(error.into()))?;
    writeln!(to, "{line}")
        .and_then(|()| to.flush())
        .map_err(WorkerError::Answer)
}
