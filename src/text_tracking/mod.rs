//! Text tracking: detects every object that texts mean, and tracks each through a clip.
//!
//! Each frame goes through the backbone once. The detector runs for each text, the tracker predicts its objects, and
//! [`TextTracks`] decides which detections begin tracks, which tracks are removed, and which are stored as conditioning
//! frames. Follows `Sam3VideoModel._det_track_one_frame` of transformers and `Sam3VideoProcessor.postprocess_outputs`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

pub mod association;
mod detection;

use self::detection::{DetectedMask, DetectorInput, FrameDetector};
use crate::bundle::{Bundle, TextTrackingSpec};
use crate::detector::{DetectError, DetectorTimes, encode_texts, encode_texts_alone};
use crate::masks::prompt::soft_mask_prompt;
use crate::masks::{Logits, PackedMask, sigmoid};
use crate::runtime::{ArenaStats, Backend, Engine, GraphError, Tensor};
use crate::text_tracking::association::{
    Decision, Detection, Prediction, TextTrackingParameters, TextTracks, fill_and_clean, shrunk,
};
use crate::tracker::{
    FrameResult, Memory, ModelSpec, ObjectMask, Rank, StageTimes, TrackError, Tracker,
    TrackerOptions, check_precision,
};

/// Logit of every pixel of a suppressed mask.
const SUPPRESSED: f32 = -10.0;
/// Memory stores no mask that keeps less than this share of its pixels where only the highest logit counts.
const MIN_KEPT_SHARE: f32 = 0.3;
/// A detection's mask logit from which a pixel belongs to the object when the mask becomes a prompt.
const PROMPT_LOGIT: f32 = 0.5;

/// Why a clip cannot be tracked by texts.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TextTrackingError {
    /// The detector or the texts cannot be used.
    #[error(transparent)]
    Detect(#[from] DetectError),
    /// The tracker fails.
    #[error(transparent)]
    Track(#[from] TrackError),
    /// A graph of the detector, or the device, fails on a frame.
    #[error("frame {frame}: {source}")]
    Graph {
        /// The frame, from 0.
        frame: usize,
        /// The cause.
        source: GraphError,
    },
}

/// The parameters that a manifest states.
pub fn parameters_of(spec: &TextTrackingSpec) -> TextTrackingParameters {
    TextTrackingParameters {
        score_threshold: spec.score_threshold as f32,
        nms_iou: spec.nms_iou as f32,
        match_iou: spec.match_iou as f32,
        track_match_iou: spec.track_match_iou as f32,
        new_object_score: spec.new_object_score as f32,
        recondition_on_track_masks: spec.recondition_on_track_masks,
        recondition_every: spec.recondition_every as usize,
        recondition_score: spec.recondition_score as f32,
        recondition_iou: spec.recondition_iou as f32,
        hotstart_delay: spec.hotstart_delay as usize,
        hotstart_unmatched: spec.hotstart_unmatched as usize,
        hotstart_duplicate: spec.hotstart_duplicate as usize,
        suppress_unmatched_only_within_hotstart: spec.suppress_unmatched_only_within_hotstart,
        keep_alive_init: spec.keep_alive_init,
        keep_alive_max: spec.keep_alive_max,
        keep_alive_min: spec.keep_alive_min,
        keep_alive_falls_when_empty: spec.keep_alive_falls_when_empty,
        occlusion_iou: spec.occlusion_iou as f32,
        max_objects: spec.max_objects as usize,
    }
}

/// How a clip is tracked by texts.
#[derive(Debug, Clone, Copy)]
pub struct TextTrackingOptions {
    /// Thresholds and counts of detection and association.
    pub parameters: TextTrackingParameters,
    /// Holes of up to this many pixels of the low-resolution masks are filled, and specks of this size removed.
    pub fill_hole_area: usize,
    /// The detector runs on frame 0 and on every frame that is a multiple of this, 1 or more. The other frames are only
    /// tracked, as [`TextTracks::propagate`] describes.
    pub detect_every: usize,
    /// Most frames that the clip can have, where that is known: the detector's graphs are freed after its last run.
    pub max_frames: Option<usize>,
    /// Options of the tracker.
    pub tracker: TrackerOptions,
}

impl TextTrackingOptions {
    /// The same options with those of the tracker, and with at most `max_objects` objects at once.
    pub fn with(mut self, tracker: TrackerOptions, max_objects: usize) -> Self {
        let parameters = &mut self.parameters;
        parameters.max_objects = parameters.max_objects.min(max_objects);
        self.tracker = tracker;
        self
    }
}

/// Checks that the tracker of a bundle can store the masks of detections in its memory.
///
/// # Errors
/// [`DetectError::NoDirect`], or a manifest that this program does not understand.
pub fn check_text_tracking(bundle: &Bundle) -> Result<(), TextTrackingError> {
    if ModelSpec::of(bundle)?.has_direct {
        return Ok(());
    }
    Err(TextTrackingError::Detect(DetectError::NoDirect {
        bundle: bundle.dir().display().to_string(),
        remedy: bundle.manifest().export_command(),
    }))
}

/// Tracks the objects of one clip that texts mean. An object's id is the reference's id plus 1, because 0 is the background
/// of an index mask.
pub struct TextTracker {
    tracker: Tracker,
    /// Absent after the detector's last run.
    detector: Option<FrameDetector>,
    tracks: TextTracks,
    options: TextTrackingOptions,
    detection_frames: usize,
    last_detection: Option<usize>,
    times: DetectorTimes,
    text_encoder_s: f64,
    /// What the arena held that the text encoder had alone.
    text_arena: Option<ArenaStats>,
}

impl TextTracker {
    /// Encodes the texts and loads the graphs of a bundle. With `detecting` the detector is that bundle's, for images of
    /// its resolution.
    ///
    /// # Errors
    /// A bundle without a detector, or whose memory encoder lacks the input `direct`; a precision that the provider has no
    /// kernels for; a text that cannot be used; or a graph that cannot be loaded.
    pub fn new(
        bundle: &Bundle,
        detecting: Option<&Bundle>,
        engine: Engine,
        texts: &[&str],
        options: TextTrackingOptions,
    ) -> Result<Self, TextTrackingError> {
        for bundle in [bundle].into_iter().chain(detecting) {
            check_precision(bundle, engine.provider())?;
        }
        check_text_tracking(bundle)?;
        let start = Instant::now();
        let (texts, arena) = encode_texts_alone(detecting.unwrap_or(bundle), &engine, texts)?;
        let text_encoder_s = start.elapsed().as_secs_f64();
        let tracker = Self::load(bundle, detecting, Arc::new(engine), texts, options)?;
        Ok(Self {
            text_encoder_s,
            text_arena: Some(arena),
            ..tracker
        })
    }

    /// As [`TextTracker::new`], on any backend.
    ///
    /// # Errors
    /// As [`TextTracker::new`].
    pub fn on(
        bundle: &Bundle,
        detecting: Option<&Bundle>,
        backend: Arc<dyn Backend>,
        texts: &[&str],
        options: TextTrackingOptions,
    ) -> Result<Self, TextTrackingError> {
        check_text_tracking(bundle)?;
        // Before the other graphs: the text encoder is large, and freed when they are loaded.
        let texts = encode_texts(detecting.unwrap_or(bundle), backend.as_ref(), texts)?;
        Self::load(bundle, detecting, backend, texts, options)
    }

    fn load(
        bundle: &Bundle,
        detecting: Option<&Bundle>,
        backend: Arc<dyn Backend>,
        texts: Vec<Tensor>,
        options: TextTrackingOptions,
    ) -> Result<Self, TextTrackingError> {
        let own_images = detecting.is_some();
        let detecting = detecting.unwrap_or(bundle);
        let tracker = Tracker::sharing(bundle, Arc::clone(&backend), options.tracker)?;
        let detector = FrameDetector::load(detecting, own_images, backend, texts)?;
        Ok(Self {
            tracker,
            detector: Some(detector),
            tracks: TextTracks::new(options.parameters),
            options: TextTrackingOptions {
                detect_every: options.detect_every.max(1),
                ..options
            },
            detection_frames: 0,
            last_detection: None,
            times: DetectorTimes::default(),
            text_encoder_s: 0.0,
            text_arena: None,
        })
    }

    /// The tracker, for its memory and times.
    pub fn tracker(&self) -> &Tracker {
        &self.tracker
    }

    /// Seconds of the tracker's stages.
    pub fn times(&self) -> StageTimes {
        self.tracker.times()
    }

    /// Seconds of the detector's stages.
    pub fn detector_times(&self) -> DetectorTimes {
        DetectorTimes {
            text_encoder_s: self.text_encoder_s,
            ..self.times
        }
    }

    /// What the arena holds, with the text encoder's peak before; `None` for a backend without an arena.
    ///
    /// # Errors
    /// A library that does not report it.
    pub fn arena_stats(&self) -> Result<Option<ArenaStats>, GraphError> {
        let stats = self.tracker.arena_stats()?;
        Ok(stats.map(|stats| match self.text_arena {
            None => stats,
            Some(before) => ArenaStats {
                peak_in_use: stats.peak_in_use.max(before.peak_in_use),
                peak_held: stats.peak_held.max(before.peak_held),
                ..stats
            },
        }))
    }

    /// Makes the arena hold `bytes` bytes in all, as [`Tracker::reserve`].
    ///
    /// # Errors
    /// [`GraphError::ArenaFull`].
    pub fn reserve(&mut self, bytes: u64) -> Result<(), GraphError> {
        self.tracker.reserve(bytes)
    }

    /// Number of frames on which the detector ran so far.
    pub fn detection_frames(&self) -> usize {
        self.detection_frames
    }

    /// Most objects that are tracked at once.
    pub fn max_objects(&self) -> usize {
        self.options.parameters.max_objects
    }

    /// The frame of the detector's last run, after which its graphs were freed; `None` while they are loaded.
    pub fn last_detection(&self) -> Option<usize> {
        self.last_detection
    }

    /// How many results have to wait before the first of them is final: objects that are removed meanwhile are left out of
    /// it.
    pub fn held_back(&self) -> usize {
        self.options.parameters.hotstart_delay
    }

    /// Ids of the objects that were removed so far: their results on frames that are still held back are left out.
    pub fn removed(&self) -> BTreeSet<u32> {
        self.tracks.removed().map(|object| object + 1).collect()
    }

    /// For an object's id, the index of the text that it was detected for and the score of that detection.
    pub fn origin(&self, id: u32) -> (usize, f32) {
        let object = id.saturating_sub(1);
        (self.tracks.text_of(object), self.tracks.score_of(object))
    }

    /// Tracks the next frame. `image` is `[resolution, resolution, 3]` RGB; `detector_image` is the same at the resolution
    /// of a detector with a bundle of its own, on frames on which it runs. No graph runs on a frame without objects on
    /// which the detector does not run.
    ///
    /// # Errors
    /// A graph or the device fails.
    pub fn step(
        &mut self,
        frame: usize,
        image: Vec<u8>,
        detector_image: Option<Vec<u8>>,
    ) -> Result<FrameResult, TextTrackingError> {
        let graph_error = |source| TextTrackingError::Graph { frame, source };
        let due = frame.is_multiple_of(self.options.detect_every);
        let detects = due && self.detector.is_some();
        let own_image = detects
            && self
                .detector
                .as_ref()
                .is_some_and(FrameDetector::own_images);
        // Before the tracker's features are made, so that the memory of both is not needed at once.
        let mut detected = match own_image {
            true => self
                .detect(frame, DetectorInput::Image(detector_image))
                .map_err(graph_error)?,
            false => Vec::new(),
        };
        let nothing = self.tracks.objects().is_empty() && detected.is_empty();
        if nothing && (own_image || !detects) {
            return Ok(FrameResult {
                frame,
                low_size: self.tracker.low_size(),
                objects: Vec::new(),
            });
        }
        let view = self.tracker.view(frame, image, detects && !own_image)?;
        if detects && !own_image {
            let tokens = DetectorInput::Tokens(view.backbone());
            detected = self.detect(frame, tokens).map_err(graph_error)?;
        }
        let (mut masks, predictions) = self.tracker.predict(&view)?;
        let before = self.tracks.objects().to_vec();
        let decision = self.decide(frame, detects, &detected, &mut masks);
        self.apply(&decision, &before, &detected, &mut masks);

        let memories = self.memories(&before, &masks, &decision);
        self.tracker.commit(&view, predictions, &memories)?;
        let prompts = self.prompts(&decision, &detected);
        self.tracker.begin(&view, prompts)?;
        let removed = decision.removed.iter().map(|object| object + 1);
        self.tracker.end(removed).map_err(graph_error)?;
        Ok(self.frame_result(frame, masks, &detected, &decision))
    }

    /// The detections of a frame. Frees the detector's graphs if no later frame can need them.
    fn detect(
        &mut self,
        frame: usize,
        input: DetectorInput<'_>,
    ) -> Result<Vec<DetectedMask>, GraphError> {
        let side = self.tracker.low_size();
        let Some(detector) = &mut self.detector else {
            return Ok(Vec::new());
        };
        let detected = detector.detect(input, &self.options.parameters, side)?;
        self.detection_frames += 1;
        self.times = detector.times();
        let next = frame.saturating_add(self.options.detect_every);
        if self.options.max_frames.is_some_and(|max| next >= max) {
            self.detector = None;
            self.last_detection = Some(frame);
        }
        Ok(detected)
    }

    /// Cleans the predicted masks and decides what the frame means.
    fn decide(
        &mut self,
        frame: usize,
        detects: bool,
        detected: &[DetectedMask],
        masks: &mut [ObjectMask],
    ) -> Decision {
        let side = self.tracker.low_size();
        let mut predicted = Vec::with_capacity(masks.len());
        for mask in masks {
            fill_and_clean(mask.low_res.values_mut(), side, self.options.fill_hole_area);
            predicted.push(Prediction {
                pixels: PackedMask::of(mask.low_res.values()),
                score: mask.score,
            });
        }
        if !detects {
            return self.tracks.propagate(frame, &predicted);
        }
        let detections: Vec<Detection> = detected
            .iter()
            .map(|detected| detected.detection.clone())
            .collect();
        self.tracks.decide(frame, &detections, &predicted)
    }

    /// Changes the masks of the objects `before` this frame as decided.
    fn apply(
        &self,
        decision: &Decision,
        before: &[u32],
        detected: &[DetectedMask],
        masks: &mut [ObjectMask],
    ) {
        for (mask, suppressed) in masks.iter_mut().zip(&decision.suppressed) {
            if *suppressed {
                mask.low_res.values_mut().fill(SUPPRESSED);
            }
        }
        if self.options.parameters.recondition_on_track_masks {
            return;
        }
        for (mask, object) in masks.iter_mut().zip(before) {
            if let Some(&index) = decision.reconditioned.get(object) {
                let logits = &detected[index].logits;
                mask.low_res = logits.map(|logit| f32::from(logit >= PROMPT_LOGIT));
            }
        }
    }

    /// The memory of the frame that each object stores, by its id.
    fn memories(
        &self,
        objects: &[u32],
        masks: &[ObjectMask],
        decision: &Decision,
    ) -> BTreeMap<u32, Memory> {
        let mut by_text: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (place, &object) in objects.iter().enumerate() {
            let text = self.tracks.text_of(object);
            by_text.entry(text).or_default().push(place);
        }
        let mut memories = BTreeMap::new();
        for places in by_text.into_values() {
            let group: Vec<&[f32]> = places
                .iter()
                .map(|&place| masks[place].low_res.values())
                .collect();
            for (&place, shrunk) in places.iter().zip(shrunk(&group, MIN_KEPT_SHARE)) {
                let object = objects[place];
                let conditioning = decision.reconditioned.contains_key(&object);
                // With a new object the reference runs its tracker again, and stores what that run predicts as if all of it
                // came from prompts.
                if !decision.new_objects.is_empty() && !conditioning {
                    memories.insert(object + 1, Memory::Predicted);
                    continue;
                }
                let mut logits = masks[place].low_res.clone();
                if shrunk {
                    for logit in logits.values_mut() {
                        *logit = logit.min(SUPPRESSED);
                    }
                }
                let memory = Memory::Decided {
                    logits,
                    conditioning,
                };
                memories.insert(object + 1, memory);
            }
        }
        memories
    }

    /// The mask prompts of new objects, `[resolution, resolution]` each, with their ids.
    fn prompts(&self, decision: &Decision, detected: &[DetectedMask]) -> Vec<(u32, Vec<f32>)> {
        let resolution = self.tracker.resolution() as u32;
        let prompts = decision.new_objects.iter().map(|new| {
            let logits = &detected[new.detection].logits;
            let mask = logits.mask_where(|logit| logit >= PROMPT_LOGIT);
            (new.id + 1, soft_mask_prompt(&mask, resolution))
        });
        prompts.collect()
    }

    fn frame_result(
        &self,
        frame: usize,
        masks: Vec<ObjectMask>,
        detected: &[DetectedMask],
        decision: &Decision,
    ) -> FrameResult {
        let side = self.tracker.low_size();
        // Masks and scores are those of the objects before this frame, and the reference pairs them with the objects
        // after it: where one was removed, those behind it get their neighbour's on this one frame.
        let mut shown: BTreeMap<u32, (Logits, f32)> = BTreeMap::new();
        let mut shares: BTreeMap<u32, f32> = BTreeMap::new();
        for new in &decision.new_objects {
            shares.insert(new.id, detected[new.detection].detection.score);
        }
        for (mask, &object) in masks.into_iter().zip(self.tracks.objects()) {
            shares.insert(object, sigmoid(mask.score));
            shown.insert(object, (mask.low_res, mask.score));
        }
        for new in &decision.new_objects {
            let detected = &detected[new.detection];
            let mut logits = detected.logits.clone();
            fill_and_clean(logits.values_mut(), side, self.options.fill_hole_area);
            let score = detected.detection.score.clamp(1e-6, 1.0 - 1e-6);
            shown.insert(new.id, (logits, (score / (1.0 - score)).ln()));
        }
        for (object, &index) in &decision.reconditioned {
            if let Some((logits, _)) = shown.get_mut(object) {
                logits.clone_from(&detected[index].logits);
            }
        }
        let objects = shown
            .into_iter()
            .filter(|(object, _)| !decision.hidden.contains(object))
            .map(|(object, (low_res, score))| ObjectMask {
                object: object + 1,
                low_res,
                score,
                iou: None,
                rank: Some(Rank {
                    group: self.tracks.text_of(object),
                    share: shares.get(&object).copied().unwrap_or(0.0),
                }),
            })
            .collect();
        FrameResult {
            frame,
            low_size: side,
            objects,
        }
    }
}
