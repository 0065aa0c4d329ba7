//! Decoding and resizing, tracking, and writing, each on a thread of its own, with short queues between them: no frame
//! is kept beyond those, and no stage can wait for one that has ended.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::ScopedJoinHandle;
use std::time::Instant;

use super::discovery::{Discovery, JudgedProposal};
use super::writer::{TrackedFrame, Writer, WriterStats};
use super::{Observer, SessionError, Stop};
use crate::media::resize::resize_frame;
use crate::media::{Damage, Frame, FrameSource, MediaError};
use crate::tracker::{FrameResult, ObjectMask, Prompt};

/// Frames that may wait between two stages.
const QUEUE: usize = 2;

/// A frame as graphs take it, RGB.
#[derive(Debug, Clone)]
pub(crate) struct Images {
    /// `[resolution, resolution, 3]` of the model.
    pub model: Vec<u8>,
    /// The same at the detector's resolution, on frames on which it takes a separate image.
    pub detector: Option<Vec<u8>>,
}

/// Images for a detector with another resolution than the model's.
#[derive(Debug, Clone, Copy)]
pub(super) struct DetectorImages {
    /// Side in pixels.
    pub resolution: u32,
    /// Frames from one to the next, from frame 0 on.
    pub every: usize,
}

/// One frame through the model.
pub(crate) trait Step {
    /// As [`Tracker::step_then`](crate::tracker::Tracker::step_then).
    ///
    /// # Errors
    ///
    /// The model cannot go on.
    fn step(
        &mut self,
        frame: usize,
        images: Images,
        size: (u32, u32),
        prompts: &[Prompt],
        more: &mut dyn FnMut(&[ObjectMask]) -> Vec<Prompt>,
    ) -> Result<FrameResult, SessionError>;

    /// How many results wait before the first of them is final; 0 if each is at once.
    fn held_back(&self) -> usize {
        0
    }

    /// Objects that were removed again: they are left out of results that still wait.
    fn removed(&self) -> BTreeSet<u32> {
        BTreeSet::new()
    }
}

/// The parts of a run.
pub(super) struct Job<'a> {
    /// Where frames come from.
    pub source: Box<dyn FrameSource>,
    /// Side of the model's input in pixels.
    pub resolution: u32,
    /// What a detector with an image of its own takes.
    pub detector: Option<DetectorImages>,
    /// Frames after which to end.
    pub max_frames: Option<usize>,
    /// Whether the writer needs the source frames.
    pub keep_rgb: bool,
    /// The prompts per frame.
    pub prompts: BTreeMap<usize, Vec<Prompt>>,
    /// Proposes objects without a prompt.
    pub discovery: Option<Discovery>,
    /// Where results go.
    pub writer: Option<Writer>,
    /// Ends the run once it is requested.
    pub stop: Stop,
    /// Is told of each tracked frame.
    pub observer: &'a mut dyn Observer,
}

/// How a run ended. The written files are complete unless `written` is an error.
pub(super) struct Outcome {
    /// What was written, or why it could not be.
    pub written: Result<WriterStats, SessionError>,
    /// Why decoding or tracking ended early.
    pub error: Option<SessionError>,
    /// Whether the user ended the run.
    pub interrupted: bool,
    /// Prompts whose frame did not come, although the source came to its end.
    pub unused: Vec<Prompt>,
    /// Frames that came from the source.
    pub decode: DecodeStats,
    /// As it was given, with what it found.
    pub discovery: Option<Discovery>,
}

/// What the first stage saw.
#[derive(Debug, Clone, Default)]
pub(super) struct DecodeStats {
    /// Seconds spent on decoding.
    pub decode_s: f64,
    /// Seconds spent on resizing.
    pub resize_s: f64,
    /// Damaged packets and frames.
    pub damage: Damage,
}

/// A frame before it is tracked.
#[derive(Clone)]
pub(crate) struct DecodedFrame {
    pub index: usize,
    pub width: u32,
    pub height: u32,
    pub images: Images,
    /// The frame itself, where it is needed beyond resizing.
    pub rgb: Option<Vec<u8>>,
    pub pts_s: Option<f64>,
}

/// Which source frames are needed beyond resizing.
#[derive(Clone, Copy)]
struct Keep {
    /// All, for the sink.
    all: bool,
    /// Every n-th, to propose objects; the proposals on frame 0 are known.
    every: Option<usize>,
}

impl Keep {
    fn needs(self, frame: usize) -> bool {
        self.all || (frame > 0 && self.every.is_some_and(|every| frame.is_multiple_of(every)))
    }
}

/// What the tracking stage needs to propose objects.
struct Proposing<'a> {
    discovery: Option<&'a mut Discovery>,
    keep: Keep,
}

/// How the tracking stage ended.
struct TrackingEnd {
    error: Option<SessionError>,
    interrupted: bool,
    unused: Vec<Prompt>,
}

/// Runs all stages to the end of the source, to an error of one of them, or to the user's Ctrl-C.
pub(super) fn run(job: Job<'_>, tracker: &mut dyn Step) -> Outcome {
    let Job {
        source,
        resolution,
        detector,
        max_frames,
        keep_rgb,
        prompts,
        mut discovery,
        writer,
        stop,
        observer,
    } = job;
    let keep = Keep {
        all: keep_rgb,
        every: discovery.as_ref().and_then(Discovery::every),
    };
    let (decoded_to, decoded) = sync_channel(QUEUE);
    let (tracked_to, tracked) = sync_channel(QUEUE);
    let outcome = std::thread::scope(|scope| {
        let resize = move |frame: &Frame, index: usize| {
            let at = |side| resize_frame(frame, side);
            let detector = detector.filter(|detector| index.is_multiple_of(detector.every.max(1)));
            Ok(Images {
                model: at(resolution)?,
                detector: detector
                    .map(|detector| at(detector.resolution))
                    .transpose()?,
            })
        };
        let decoder = scope.spawn(move || decode(source, resize, max_frames, keep, &decoded_to));
        let writing = scope.spawn(move || write(writer, &tracked));

        // Both ends of the queues that the tracker holds go when it returns, which ends the other two stages.
        let proposing = Proposing {
            discovery: discovery.as_mut(),
            keep,
        };
        let end = track(
            decoded, tracked_to, prompts, proposing, &stop, observer, tracker,
        );

        let (decode, decode_error) = match join(decoder, "decoding") {
            Ok(end) => end,
            Err(error) => (DecodeStats::default(), Some(error)),
        };
        let error = end.error.or(decode_error);
        Outcome {
            written: join(writing, "writing").and_then(|written| written),
            interrupted: end.interrupted,
            unused: if error.is_none() && !end.interrupted {
                end.unused
            } else {
                Vec::new()
            },
            error,
            decode,
            discovery: None,
        }
    });
    Outcome {
        discovery,
        ..outcome
    }
}

fn join<T>(handle: ScopedJoinHandle<'_, T>, thread: &'static str) -> Result<T, SessionError> {
    handle.join().map_err(|_| SessionError::Thread { thread })
}

fn decode(
    mut source: Box<dyn FrameSource>,
    resize: impl Fn(&Frame, usize) -> Result<Images, MediaError>,
    max_frames: Option<usize>,
    keep: Keep,
    to: &SyncSender<DecodedFrame>,
) -> (DecodeStats, Option<SessionError>) {
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
                error = Some(SessionError::from(cause).on_frame("read", count));
                break;
            }
        };
        let start = Instant::now();
        let images = resize(&frame, count);
        stats.resize_s += start.elapsed().as_secs_f64();
        let images = match images {
            Ok(images) => images,
            Err(cause) => {
                error = Some(SessionError::from(cause).on_frame("resize", count));
                break;
            }
        };
        let decoded = DecodedFrame {
            index: count,
            width: frame.width,
            height: frame.height,
            images,
            rgb: keep.needs(count).then_some(frame.rgb),
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
    mut proposing: Proposing<'_>,
    stop: &Stop,
    observer: &mut dyn Observer,
    tracker: &mut dyn Step,
) -> TrackingEnd {
    let mut waiting = VecDeque::new();
    let end = track_into(
        &mut waiting,
        from,
        &to,
        &mut prompts,
        &mut proposing,
        stop,
        observer,
        tracker,
    );
    // Whatever ended it: what is complete is kept.
    let removed = tracker.removed();
    for frame in waiting {
        if to.send(without(frame, &removed)).is_err() {
            break;
        }
    }
    TrackingEnd {
        unused: prompts.into_values().flatten().collect(),
        ..end
    }
}

/// A frame whose result is final.
fn without(mut frame: TrackedFrame, removed: &BTreeSet<u32>) -> TrackedFrame {
    let objects = &mut frame.result.objects;
    objects.retain(|object| !removed.contains(&object.object));
    frame
}

#[expect(clippy::too_many_arguments, reason = "the parts of one loop")]
fn track_into(
    waiting: &mut VecDeque<TrackedFrame>,
    from: Receiver<DecodedFrame>,
    to: &SyncSender<TrackedFrame>,
    prompts: &mut BTreeMap<usize, Vec<Prompt>>,
    proposing: &mut Proposing<'_>,
    stop: &Stop,
    observer: &mut dyn Observer,
    tracker: &mut dyn Step,
) -> TrackingEnd {
    let mut end = TrackingEnd {
        error: None,
        interrupted: false,
        unused: Vec::new(),
    };
    for mut frame in from {
        if stop.requested() {
            end.interrupted = true;
            return end;
        }
        let due = prompts.remove(&frame.index).unwrap_or_default();
        let discovery = proposing.discovery.as_deref_mut();
        let result = match propose_and_track(discovery, &mut frame, &due, tracker) {
            Ok(result) => result,
            Err(error) => {
                end.error = Some(error);
                return end;
            }
        };
        let (result, proposals) = result;
        let tracked = TrackedFrame {
            result,
            width: frame.width,
            height: frame.height,
            rgb: frame.rgb.filter(|_| proposing.keep.all),
            pts_s: frame.pts_s,
            proposals,
        };
        observer.frame(&tracked.result);
        waiting.push_back(tracked);
        if waiting.len() < tracker.held_back() {
            continue;
        }
        if let Some(first) = waiting.pop_front() {
            // The writer only goes before its time when it has an error of its own to report.
            if to.send(without(first, &tracker.removed())).is_err() {
                return end;
            }
        }
    }
    end
}

/// Proposes objects if it is time, then tracks. The graph of proposals is unloaded, or does not run, while the tracker runs.
///
/// # Errors
/// One of the two cannot go on.
pub(crate) fn propose_and_track(
    discovery: Option<&mut Discovery>,
    frame: &mut DecodedFrame,
    due: &[Prompt],
    tracker: &mut dyn Step,
) -> Result<(FrameResult, Option<Vec<JudgedProposal>>), SessionError> {
    let index = frame.index;
    let size = (frame.width, frame.height);
    let mut discovery = discovery.filter(|discovery| discovery.due(index));
    let mut proposals = None;
    if let Some(discovery) = &mut discovery {
        let whole = frame.rgb.take().map(|rgb| Frame {
            index,
            width: frame.width,
            height: frame.height,
            rgb,
            pts_s: frame.pts_s,
        });
        let found = discovery
            .propose(whole.as_ref())
            .map_err(|error| SessionError::from(error).on_frame("propose objects on", index));
        frame.rgb = whole.map(|whole| whole.rgb);
        proposals = Some(found?);
    }
    let mut judged = None;
    let mut more = |masks: &[ObjectMask]| match (&mut discovery, proposals.take()) {
        (Some(discovery), Some(proposals)) => {
            let (prompts, all) = discovery.judge(index, size, proposals, masks);
            judged = Some(all);
            prompts
        }
        _ => Vec::new(),
    };
    let images = Images {
        model: std::mem::take(&mut frame.images.model),
        detector: frame.images.detector.take(),
    };
    let result = tracker
        .step(index, images, size, due, &mut more)
        .map_err(|error| error.on_frame("track", index))?;
    Ok((result, judged))
}

fn write(
    writer: Option<Writer>,
    from: &Receiver<TrackedFrame>,
) -> Result<WriterStats, SessionError> {
    let Some(mut writer) = writer else {
        let mut stats = WriterStats::default();
        for frame in from {
            stats.note(&frame);
            stats.frames += 1;
        }
        return Ok(stats);
    };
    for frame in from {
        writer.write(frame)?;
    }
    writer.finish()
}
