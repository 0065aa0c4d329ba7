//! Decoding and resizing, tracking, and writing, each on a thread of its own, with short queues between them: no frame
//! is kept beyond those, and no stage can wait for one that has ended.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::ScopedJoinHandle;
use std::time::Instant;

use anyhow::{Context as _, Error, Result, anyhow};

use super::signals::Interrupt;
use super::sink::{Sink, SinkStats, TrackedFrame};
use crate::media::resize::resize_frame;
use crate::media::{Damage, FrameSource};
use crate::tracker::{FrameResult, Prompt, Tracker};

/// Frames that may wait between two stages.
const QUEUE: usize = 2;

/// One frame through the model.
pub trait Step {
    /// As [`Tracker::step`].
    ///
    /// # Errors
    ///
    /// The model cannot go on.
    fn step(
        &mut self,
        frame: usize,
        image: Vec<u8>,
        size: (u32, u32),
        prompts: &[Prompt],
    ) -> Result<FrameResult>;
}

impl Step for Tracker {
    fn step(
        &mut self,
        frame: usize,
        image: Vec<u8>,
        size: (u32, u32),
        prompts: &[Prompt],
    ) -> Result<FrameResult> {
        Ok(Tracker::step(self, frame, image, size, prompts)?)
    }
}

/// What a run is to do.
pub struct Job<'a> {
    /// Where frames come from.
    pub source: Box<dyn FrameSource>,
    /// Side of the model's input in pixels.
    pub resolution: u32,
    /// Frames after which to end.
    pub max_frames: Option<usize>,
    /// Whether the sink needs the source frames.
    pub keep_rgb: bool,
    /// The prompts per frame.
    pub prompts: BTreeMap<usize, Vec<Prompt>>,
    /// Where results go.
    pub sink: Sink,
    /// Tells whether the user asked for the end.
    pub interrupt: Interrupt,
    /// Called after each tracked frame.
    pub on_frame: &'a mut dyn FnMut(),
}

/// How a run ended. Whatever ended it, the sink's files are complete unless `sink` is an error.
pub struct Outcome {
    /// What was written, or why it could not be.
    pub sink: Result<SinkStats>,
    /// Why decoding or tracking ended early.
    pub error: Option<Error>,
    /// Whether the user ended the run.
    pub interrupted: bool,
    /// Prompts whose frame did not come, although the source came to its end.
    pub unused: Vec<Prompt>,
    /// Frames that came from the source.
    pub decode: DecodeStats,
}

/// What the first stage saw.
#[derive(Debug, Clone, Default)]
pub struct DecodeStats {
    /// Seconds spent on decoding.
    pub decode_s: f64,
    /// Seconds spent on resizing.
    pub resize_s: f64,
    /// Damaged packets and frames.
    pub damage: Damage,
}

struct DecodedFrame {
    index: usize,
    width: u32,
    height: u32,
    image: Vec<u8>,
    rgb: Option<Vec<u8>>,
    pts_s: Option<f64>,
}

/// How the tracking stage ended.
struct TrackingEnd {
    error: Option<Error>,
    interrupted: bool,
    unused: Vec<Prompt>,
}

/// Runs all stages to the end of the source, to an error of one of them, or to the user's Ctrl-C.
pub fn run(job: Job<'_>, tracker: &mut dyn Step) -> Outcome {
    let Job {
        source,
        resolution,
        max_frames,
        keep_rgb,
        prompts,
        sink,
        interrupt,
        on_frame,
    } = job;
    let (decoded_to, decoded) = sync_channel(QUEUE);
    let (tracked_to, tracked) = sync_channel(QUEUE);
    std::thread::scope(|scope| {
        let decoder =
            scope.spawn(move || decode(source, resolution, max_frames, keep_rgb, &decoded_to));
        let writer = scope.spawn(move || write(sink, &tracked));

        // Both ends of the queues that the tracker holds go when it returns, which ends the other two stages.
        let end = track(decoded, tracked_to, prompts, &interrupt, on_frame, tracker);

        let (decode, decode_error) = match join(decoder, "decoding") {
            Ok(end) => end,
            Err(error) => (DecodeStats::default(), Some(error)),
        };
        let error = end.error.or(decode_error);
        Outcome {
            sink: join(writer, "writing").and_then(|written| written),
            interrupted: end.interrupted,
            unused: if error.is_none() && !end.interrupted {
                end.unused
            } else {
                Vec::new()
            },
            error,
            decode,
        }
    })
}

fn join<T>(thread: ScopedJoinHandle<'_, T>, name: &str) -> Result<T> {
    thread
        .join()
        .map_err(|_| anyhow!("the {name} thread ended unexpectedly; this is a bug"))
}

fn decode(
    mut source: Box<dyn FrameSource>,
    resolution: u32,
    max_frames: Option<usize>,
    keep_rgb: bool,
    to: &SyncSender<DecodedFrame>,
) -> (DecodeStats, Option<Error>) {
    let mut stats = DecodeStats::default();
    let mut error = None;
    let mut count = 0;
    while max_frames.is_none_or(|most| count < most) {
        let start = Instant::now();
        let next = source.next_frame();
        stats.decode_s += start.elapsed().as_secs_f64();
        let frame = match next {
            Ok(Some(frame)) => frame,
            Ok(None) => break,
            Err(cause) => {
                error = Some(Error::new(cause).context(format!("cannot read frame {count}")));
                break;
            }
        };
        let start = Instant::now();
        let image = resize_frame(&frame, resolution);
        stats.resize_s += start.elapsed().as_secs_f64();
        let image = match image {
            Ok(image) => image,
            Err(cause) => {
                error = Some(Error::new(cause).context(format!("cannot resize frame {count}")));
                break;
            }
        };
        let decoded = DecodedFrame {
            index: count,
            width: frame.width,
            height: frame.height,
            image,
            rgb: keep_rgb.then_some(frame.rgb),
            pts_s: frame.pts_s,
        };
        if to.send(decoded).is_err() {
            break;
        }
        count += 1;
    }
    stats.damage = source.damage();
    (stats, error)
}

fn track(
    from: Receiver<DecodedFrame>,
    to: SyncSender<TrackedFrame>,
    mut prompts: BTreeMap<usize, Vec<Prompt>>,
    interrupt: &Interrupt,
    on_frame: &mut dyn FnMut(),
    tracker: &mut dyn Step,
) -> TrackingEnd {
    let mut end = TrackingEnd {
        error: None,
        interrupted: false,
        unused: Vec::new(),
    };
    for frame in from {
        if interrupt.asked() {
            end.interrupted = true;
            return end;
        }
        let due = prompts.remove(&frame.index).unwrap_or_default();
        let size = (frame.width, frame.height);
        let result = match tracker
            .step(frame.index, frame.image, size, &due)
            .with_context(|| format!("cannot track frame {}", frame.index))
        {
            Ok(result) => result,
            Err(error) => {
                end.error = Some(error);
                return end;
            }
        };
        let tracked = TrackedFrame {
            result,
            width: frame.width,
            height: frame.height,
            rgb: frame.rgb,
            pts_s: frame.pts_s,
        };
        // The writer only goes before its time when it has an error of its own to report.
        if to.send(tracked).is_err() {
            return end;
        }
        on_frame();
    }
    end.unused = prompts.into_values().flatten().collect();
    end
}

fn write(mut sink: Sink, from: &Receiver<TrackedFrame>) -> Result<SinkStats> {
    for frame in from {
        sink.write(frame)?;
    }
    sink.finish()
}
