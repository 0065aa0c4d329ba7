//! Finds every object that texts mean, on every frame of a clip, and follows each.
//!
//! One frame after another goes through the backbone once; the detector looks for each text, the tracker predicts what
//! it knows, and [`Following`] decides what is new, what is mistaken and what is remembered. Follows
//! `Sam3VideoModel._det_track_one_frame` of transformers and `Sam3VideoProcessor.postprocess_outputs`.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Instant;

pub mod association;
mod detection;

use self::detection::{Candidate, Eyes};
use crate::bundle::{Bundle, Follow};
use crate::detector::{DetectError, DetectorTimes, encode_texts, encode_texts_alone};
use crate::media::mask::{BinaryMask, sigmoid, soft_mask_prompt};
use crate::runtime::{ArenaStats, Backend, GraphError, Runtime, Tensor};
use crate::text_tracking::association::{
    FollowParameters, Following, Found, Pixels, Predicted, fill_and_clean, shrunk,
};
use crate::tracker::{
    FrameResult, Memory, ModelSpec, ObjectMask, Rank, StageTimes, TrackError, Tracker,
    TrackerOptions, check_precision,
};

/// Logits of a mask that was suppressed.
const SUPPRESSED: f32 = -10.0;
/// A mask that keeps less than this share where only the highest logit counts is not remembered.
const SHRUNK: f32 = 0.3;
/// Mask logit of a found object from which a pixel belongs to it when it becomes a prompt.
const PROMPT_LOGIT: f32 = 0.5;

/// Why a clip cannot be followed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FollowError {
    /// The detector.
    #[error(transparent)]
    Detect(#[from] DetectError),
    /// The tracker.
    #[error(transparent)]
    Track(#[from] TrackError),
    /// The detector's graphs, on a frame.
    #[error("frame {frame}: {source}")]
    Graph {
        /// The frame.
        frame: usize,
        /// The cause.
        source: GraphError,
    },
}

/// The parameters that a manifest states.
pub fn parameters_of(follow: &Follow) -> FollowParameters {
    FollowParameters {
        score_threshold: follow.score_threshold as f32,
        nms_iou: follow.nms_iou as f32,
        match_iou: follow.match_iou as f32,
        track_match_iou: follow.track_match_iou as f32,
        new_object_score: follow.new_object_score as f32,
        recondition_on_track_masks: follow.recondition_on_track_masks,
        recondition_every: follow.recondition_every as usize,
        recondition_score: follow.recondition_score as f32,
        recondition_iou: follow.recondition_iou as f32,
        hotstart_delay: follow.hotstart_delay as usize,
        hotstart_unmatched: follow.hotstart_unmatched as usize,
        hotstart_duplicate: follow.hotstart_duplicate as usize,
        suppress_unmatched_only_within_hotstart: follow.suppress_unmatched_only_within_hotstart,
        keep_alive_init: follow.keep_alive_init,
        keep_alive_max: follow.keep_alive_max,
        keep_alive_min: follow.keep_alive_min,
        keep_alive_falls_when_empty: follow.keep_alive_falls_when_empty,
        occlusion_iou: follow.occlusion_iou as f32,
        max_objects: follow.max_objects as usize,
    }
}

/// How to follow.
#[derive(Debug, Clone, Copy)]
pub struct FollowOptions {
    /// The loop's parameters.
    pub parameters: FollowParameters,
    /// Holes and specks of up to so many pixels of the low-resolution masks are filled and removed.
    pub fill_hole_area: usize,
    /// Objects are looked for on frame 0 and on every so many after it, 1 or more; in between they are only followed, as
    /// [`Following::propagate`] has it.
    pub detect_every: usize,
    /// Most frames that come, where that is known: the detector's graphs go with the last look.
    pub most_frames: Option<usize>,
    /// As for the tracker.
    pub tracker: TrackerOptions,
}

impl FollowOptions {
    /// The same with a tracker's options, and with at most so many objects at once.
    pub fn with(mut self, tracker: TrackerOptions, most_objects: usize) -> Self {
        let parameters = &mut self.parameters;
        parameters.max_objects = parameters.max_objects.min(most_objects);
        self.tracker = tracker;
        self
    }
}

/// Refuses a bundle whose tracker cannot remember what a detector found.
///
/// # Errors
/// [`DetectError::NoDirect`], or a manifest that this program does not understand.
pub fn follows(bundle: &Bundle) -> Result<(), FollowError> {
    if ModelSpec::of(bundle)?.has_direct {
        return Ok(());
    }
    Err(FollowError::Detect(DetectError::NoDirect {
        bundle: bundle.dir().display().to_string(),
        remedy: bundle.manifest().export_command(),
    }))
}

/// Follows the objects of one clip. An object's id is the reference's number plus 1, as 0 is no object in an index mask.
pub struct Follower {
    tracker: Tracker,
    /// Gone with the last look.
    eyes: Option<Eyes>,
    following: Following,
    options: FollowOptions,
    looks: usize,
    last_look: Option<usize>,
    times: DetectorTimes,
    text_encoder_s: f64,
    /// What the text encoder's own arena held.
    text_arena: Option<ArenaStats>,
}

impl Follower {
    /// Reads the texts and loads the graphs of a bundle, or with `detecting` the detector's of that, for images of another
    /// resolution.
    ///
    /// # Errors
    /// A bundle without a detector, or whose memory encoder lacks the input `direct`; a precision that the provider has no
    /// kernels for; a text that cannot be used; or a graph that cannot be loaded.
    pub fn new(
        bundle: &Bundle,
        detecting: Option<&Bundle>,
        runtime: Runtime,
        texts: &[&str],
        options: FollowOptions,
    ) -> Result<Self, FollowError> {
        for bundle in [bundle].into_iter().chain(detecting) {
            check_precision(bundle, runtime.provider())?;
        }
        follows(bundle)?;
        let start = Instant::now();
        let (texts, arena) = encode_texts_alone(detecting.unwrap_or(bundle), &runtime, texts)?;
        let text_encoder_s = start.elapsed().as_secs_f64();
        let follower = Self::seeing(bundle, detecting, Rc::new(runtime), texts, options)?;
        Ok(Self {
            text_encoder_s,
            text_arena: Some(arena),
            ..follower
        })
    }

    /// As [`Follower::new`], on any backend.
    ///
    /// # Errors
    /// As [`Follower::new`].
    pub fn on(
        bundle: &Bundle,
        detecting: Option<&Bundle>,
        backend: Rc<dyn Backend>,
        texts: &[&str],
        options: FollowOptions,
    ) -> Result<Self, FollowError> {
        follows(bundle)?;
        // Before the others: the text encoder is large, and gone when they are loaded.
        let texts = encode_texts(detecting.unwrap_or(bundle), backend.as_ref(), texts)?;
        Self::seeing(bundle, detecting, backend, texts, options)
    }

    fn seeing(
        bundle: &Bundle,
        detecting: Option<&Bundle>,
        backend: Rc<dyn Backend>,
        texts: Vec<Tensor>,
        options: FollowOptions,
    ) -> Result<Self, FollowError> {
        let looking = detecting.unwrap_or(bundle);
        let tracker = Tracker::sharing(bundle, Rc::clone(&backend), options.tracker)?;
        let eyes = Eyes::load(looking, detecting.is_some(), backend, texts)?;
        Ok(Self {
            tracker,
            eyes: Some(eyes),
            last_look: None,
            times: DetectorTimes::default(),
            text_encoder_s: 0.0,
            text_arena: None,
            following: Following::new(options.parameters),
            options: FollowOptions {
                detect_every: options.detect_every.max(1),
                ..options
            },
            looks: 0,
        })
    }

    /// The tracker, for what it says of memory and time.
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

    /// What the arena holds, with what the text encoder took before; `None` for a backend without one.
    ///
    /// # Errors
    /// A library that does not say.
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

    /// Has the arena take `bytes` bytes in all, as [`Tracker::reserve`].
    ///
    /// # Errors
    /// [`GraphError::ArenaFull`].
    pub fn reserve(&mut self, bytes: u64) -> Result<(), GraphError> {
        self.tracker.reserve(bytes)
    }

    /// Frames on which objects were looked for so far.
    pub fn looks(&self) -> usize {
        self.looks
    }

    /// Most objects that are followed at once.
    pub fn most_objects(&self) -> usize {
        self.options.parameters.max_objects
    }

    /// The frame of the last look, with which the detector's graphs went; `None` while they are there.
    pub fn last_look(&self) -> Option<usize> {
        self.last_look
    }

    /// How many results wait before the first of them is final: objects that turn out to be mistaken meanwhile are left
    /// out of it.
    pub fn held_back(&self) -> usize {
        self.options.parameters.hotstart_delay
    }

    /// Ids of the objects that were removed so far: their results on frames that are still held back are not shown.
    pub fn removed(&self) -> BTreeSet<u32> {
        self.following
            .removed()
            .iter()
            .map(|object| object + 1)
            .collect()
    }

    /// Which text an object was found for, by its id, and with which score.
    pub fn origin(&self, id: u32) -> (usize, f32) {
        let object = id.saturating_sub(1);
        (
            self.following.text_of(object),
            self.following.score_of(object),
        )
    }

    /// The objects on the next frame. `image` is `[resolution, resolution, 3]` RGB, `detail` the same at the resolution of a
    /// detector that has its own, on frames on which it looks. No graph runs on a frame without objects on which none are
    /// looked for.
    ///
    /// # Errors
    /// A graph or the device fails.
    pub fn step(
        &mut self,
        frame: usize,
        image: Vec<u8>,
        detail: Option<Vec<u8>>,
    ) -> Result<FrameResult, FollowError> {
        let graph_error = |source| FollowError::Graph { frame, source };
        let side = self.tracker.low_size();
        let due = frame.is_multiple_of(self.options.detect_every);
        let looks = due && self.eyes.is_some();
        let own = looks && self.eyes.as_ref().is_some_and(Eyes::own_images);
        // Before the tracker's features are there, so that the two need no memory together.
        let mut candidates = match own {
            true => self.look(frame, None, detail).map_err(graph_error)?,
            false => Vec::new(),
        };
        let nothing = self.following.objects().is_empty() && candidates.is_empty();
        if nothing && (own || !looks) {
            return Ok(FrameResult {
                frame,
                low_size: side,
                objects: Vec::new(),
            });
        }
        let view = self.tracker.view(frame, image, looks && !own)?;
        if looks && !own {
            let found = self.look(frame, view.backbone(), None);
            candidates = found.map_err(graph_error)?;
        }
        let (mut masks, predictions) = self.tracker.predict(&view)?;
        for mask in &mut masks {
            fill_and_clean(&mut mask.low_res, side, self.options.fill_hole_area);
        }
        let predicted: Vec<Predicted> = masks
            .iter()
            .map(|mask| Predicted {
                pixels: Pixels::of(&mask.low_res),
                score: mask.score,
            })
            .collect();
        let found: Vec<Found> = candidates.iter().map(|c| c.found.clone()).collect();
        let before = self.following.objects().to_vec();
        let verdict = match looks {
            true => self.following.judge(frame, &found, &predicted),
            false => self.following.propagate(frame, &predicted),
        };

        for (mask, suppressed) in masks.iter_mut().zip(&verdict.suppressed) {
            if *suppressed {
                mask.low_res.fill(SUPPRESSED);
            }
        }
        if !self.options.parameters.recondition_on_track_masks {
            for (mask, object) in masks.iter_mut().zip(&before) {
                if let Some(&place) = verdict.reconditioned.get(object) {
                    let logits = candidates[place].logits.iter();
                    mask.low_res = logits
                        .map(|logit| f32::from(u8::from(*logit >= PROMPT_LOGIT)))
                        .collect();
                }
            }
        }
        let memories = self.memories(
            &before,
            &masks,
            &verdict.reconditioned,
            !verdict.born.is_empty(),
        );
        self.tracker.commit(&view, predictions, &memories)?;
        let resolution = self.tracker.resolution() as u32;
        let born = verdict.born.iter().map(|&(place, object)| {
            let mask = BinaryMask {
                width: side as u32,
                height: side as u32,
                data: candidates[place]
                    .logits
                    .iter()
                    .map(|logit| u8::from(*logit >= PROMPT_LOGIT))
                    .collect(),
            };
            (object + 1, soft_mask_prompt(&mask, resolution))
        });
        self.tracker.begin(&view, born.collect())?;
        let removed = verdict.removed.iter().map(|object| object + 1);
        self.tracker.end(removed).map_err(graph_error)?;
        Ok(self.shown(frame, masks, &candidates, &verdict))
    }

    /// What is found on a frame, from the tracker's own tokens or in an image for the detector. Where no later look can come,
    /// the detector's graphs are gone afterwards.
    fn look(
        &mut self,
        frame: usize,
        backbone: Option<&Tensor>,
        detail: Option<Vec<u8>>,
    ) -> Result<Vec<Candidate>, GraphError> {
        let side = self.tracker.low_size();
        let Some(eyes) = &mut self.eyes else {
            return Ok(Vec::new());
        };
        let parameters = &self.options.parameters;
        let found = match eyes.own_images() {
            true => eyes.find_in(detail, parameters, side)?,
            false => eyes.find(backbone, parameters, side)?,
        };
        self.looks += 1;
        self.times = eyes.times();
        let next = frame.saturating_add(self.options.detect_every);
        if self.options.most_frames.is_some_and(|most| next >= most) {
            self.eyes = None;
            self.last_look = Some(frame);
        }
        Ok(found)
    }

    /// What each object remembers of the frame, by its id.
    fn memories(
        &self,
        objects: &[u32],
        masks: &[ObjectMask],
        reconditioned: &BTreeMap<u32, usize>,
        anything_born: bool,
    ) -> BTreeMap<u32, Memory> {
        let mut by_text: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (place, &object) in objects.iter().enumerate() {
            let text = self.following.text_of(object);
            by_text.entry(text).or_default().push(place);
        }
        let mut memories = BTreeMap::new();
        for places in by_text.into_values() {
            let group: Vec<&[f32]> = places
                .iter()
                .map(|&place| masks[place].low_res.as_slice())
                .collect();
            for (&place, shrunk) in places.iter().zip(shrunk(&group, SHRUNK)) {
                let object = objects[place];
                let conditioning = reconditioned.contains_key(&object);
                // With a new object the reference runs its tracker again, and what it predicts then is remembered as
                // if all of it came from prompts.
                if anything_born && !conditioning {
                    memories.insert(object + 1, Memory::Predicted);
                    continue;
                }
                let mut logits = masks[place].low_res.clone();
                if shrunk {
                    for logit in &mut logits {
                        *logit = logit.min(SUPPRESSED);
                    }
                }
                memories.insert(
                    object + 1,
                    Memory::Decided {
                        logits,
                        conditioning,
                    },
                );
            }
        }
        memories
    }

    fn shown(
        &self,
        frame: usize,
        masks: Vec<ObjectMask>,
        candidates: &[Candidate],
        verdict: &crate::text_tracking::association::Verdict,
    ) -> FrameResult {
        let side = self.tracker.low_size();
        // Masks and scores are those of the objects before this frame, and the reference pairs them with the objects
        // after it: where one was removed, those behind it get their neighbour's on this one frame.
        let mut shown: BTreeMap<u32, (Vec<f32>, f32)> = BTreeMap::new();
        let mut shares: BTreeMap<u32, f32> = BTreeMap::new();
        for &(place, object) in &verdict.born {
            shares.insert(object, candidates[place].found.score);
        }
        for (mask, &object) in masks.into_iter().zip(self.following.objects()) {
            shares.insert(object, sigmoid(mask.score));
            shown.insert(object, (mask.low_res, mask.score));
        }
        for &(place, object) in &verdict.born {
            let candidate = &candidates[place];
            let mut logits = candidate.logits.clone();
            fill_and_clean(&mut logits, side, self.options.fill_hole_area);
            let score = candidate.found.score.clamp(1e-6, 1.0 - 1e-6);
            shown.insert(object, (logits, (score / (1.0 - score)).ln()));
        }
        for (object, &place) in &verdict.reconditioned {
            if let Some((logits, _)) = shown.get_mut(object) {
                logits.clone_from(&candidates[place].logits);
            }
        }
        let objects = shown
            .into_iter()
            .filter(|(object, _)| !verdict.hidden.contains(object))
            .map(|(object, (low_res, score))| ObjectMask {
                object: object + 1,
                low_res,
                score,
                iou: None,
                rank: Some(Rank {
                    group: self.following.text_of(object),
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
