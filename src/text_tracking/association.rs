//! Association of detections with tracks, as pure decisions: which detection begins a track, which track is removed,
//! suppressed, hidden, or stored as a conditioning frame.
//!
//! No tensors here. The rules are those of `Sam3VideoModel` in transformers (`_associate_det_trk`, `_process_hotstart`,
//! `_prepare_recondition_masks`, `_suppress_overlapping_based_on_recent_occlusion`), for a clip that is
//! known as a whole and goes forward. Objects have the reference's ids here, which begin at 0.
//!
//! The reference runs the detector on every frame. Where it runs on some frames only, the others go through
//! [`TextTracks::propagate`]: no track begins, is removed, or becomes a conditioning frame, and the counters (frames
//! without a match, frames as a duplicate, keep-alive) do not change, also for an empty mask. A track that is hidden
//! because no detection matched it stays hidden until one does. Only the rule for overlapping tracks applies: the one
//! that was hidden more recently is suppressed. So `hotstart_unmatched`, `hotstart_duplicate` and the keep-alive
//! parameters count frames with detections, while `hotstart_delay` counts all frames. A track is reconditioned on frames
//! that have detections and are a multiple of `recondition_every`.

use std::collections::{BTreeMap, BTreeSet};

use crate::masks::PackedMask;

/// Parameters of text tracking, from a bundle's manifest; see its `TextTrackingSpec`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TextTrackingParameters {
    /// A candidate with a score above this is a detection.
    pub score_threshold: f32,
    /// Greatest IoU of two detections of one text, by their masks; 0 for any.
    pub nms_iou: f32,
    /// A detection matches a track from this IoU on.
    pub match_iou: f32,
    /// A track is confirmed by a detection from this IoU on.
    pub track_match_iou: f32,
    /// Lowest score of a detection that begins a track.
    pub new_object_score: f32,
    /// Whether reconditioning stores the track's own mask instead of the detection's.
    pub recondition_on_track_masks: bool,
    /// Confirmed tracks are reconditioned every so many frames; 0 for never.
    pub recondition_every: usize,
    /// Lowest score for reconditioning: of the detection, and of the track's logit.
    pub recondition_score: f32,
    /// Lowest IoU for reconditioning.
    pub recondition_iou: f32,
    /// Frames for which results are held back, and for which a track counts as new.
    pub hotstart_delay: usize,
    /// A new track is removed after this many frames without a match.
    pub hotstart_unmatched: usize,
    /// A new track is removed after this many frames as a duplicate of another.
    pub hotstart_duplicate: usize,
    /// Whether a track without a match is never hidden once it is no longer new.
    pub suppress_unmatched_only_within_hotstart: bool,
    /// First value of a track's keep-alive counter.
    pub keep_alive_init: i32,
    /// Greatest value of the counter.
    pub keep_alive_max: i32,
    /// Lowest value of the counter.
    pub keep_alive_min: i32,
    /// Whether an empty mask lowers the counter.
    pub keep_alive_falls_when_empty: bool,
    /// Lowest IoU of two tracks of which one is suppressed; 0 suppresses none.
    pub occlusion_iou: f32,
    /// Most objects at once.
    pub max_objects: usize,
}

/// An object that the detector reports on a frame.
#[derive(Debug, Clone)]
pub struct Detection {
    /// Index of its text.
    pub text: usize,
    /// 0 to 1.
    pub score: f32,
    /// Its mask.
    pub pixels: PackedMask,
}

/// What the tracker predicts for a track on a frame.
#[derive(Debug, Clone)]
pub struct Prediction {
    /// The mask.
    pub pixels: PackedMask,
    /// Logit of the object being visible.
    pub score: f32,
}

/// A detection that begins a track.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewObject {
    /// Index of the detection on this frame.
    pub detection: usize,
    /// The id of the new track.
    pub id: u32,
}

/// What is decided on a frame.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Decision {
    /// Detections that begin tracks, by ascending id.
    pub new_objects: Vec<NewObject>,
    /// Tracks that end.
    pub removed: BTreeSet<u32>,
    /// Tracks whose memory of this frame is stored as a conditioning frame, each with the index of the detection that
    /// confirms it.
    pub reconditioned: BTreeMap<u32, usize>,
    /// For each track, in their order before this frame: whether its mask is treated as empty.
    pub suppressed: Vec<bool>,
    /// Tracks that are left out of this frame's results.
    pub hidden: BTreeSet<u32>,
}

/// An object and its counters; kept after its removal, because its origin may still be asked for.
#[derive(Debug, Clone)]
struct TrackedObject {
    /// Its index among all objects.
    id: u32,
    /// Index of the text that it was detected for.
    text: usize,
    /// Score of the detection that began it.
    score: f32,
    /// The frame on which it began.
    first_frame: usize,
    /// Frames with detections of which none confirmed it.
    unmatched: usize,
    /// Rises with each frame on which a detection matches it, falls with each on which none does.
    keep_alive: i32,
    /// For each earlier object: frames on which one detection matched both.
    duplicate_of: BTreeMap<u32, usize>,
    /// Whether it went through the rule for overlapping tracks.
    compared: bool,
    /// The last frame on which that rule found it suppressed or empty.
    last_hidden: Option<usize>,
    /// Whether it was removed.
    removed: bool,
}

impl TrackedObject {
    fn adjust_keep_alive(&mut self, change: i32, parameters: &TextTrackingParameters) {
        let value = self.keep_alive + change;
        self.keep_alive = match change {
            ..0 => value.max(parameters.keep_alive_min),
            0.. => value.min(parameters.keep_alive_max),
        };
    }

    /// Whether it began less than `hotstart_delay` frames before `frame`.
    fn is_new(&self, frame: usize, parameters: &TextTrackingParameters) -> bool {
        let since = frame.checked_sub(parameters.hotstart_delay);
        since.is_none_or(|since| self.first_frame > since)
    }
}

/// All tracks and their state after the frames so far.
#[derive(Debug, Clone)]
pub struct TextTracks {
    parameters: TextTrackingParameters,
    /// All objects, by id.
    objects: Vec<TrackedObject>,
    /// Ids of those that were not removed, ascending.
    active: Vec<u32>,
}

/// The frame that the reference takes for the last hidden one of a track that is removed before it was compared.
const REMOVED_HIDDEN: usize = 100_000;

/// How the detections and tracks of a frame match.
#[derive(Default)]
struct Matches {
    /// Indices of detections that may begin tracks.
    new: Vec<usize>,
    /// Tracks with a mask that no detection confirms.
    unmatched: Vec<u32>,
    /// Tracks with an empty mask.
    empty: Vec<u32>,
    /// Tracks matched to each detection.
    tracks_of: Vec<Vec<u32>>,
    /// Tracks that may be reconditioned, each with the detection that overlaps them most.
    confirmed: BTreeMap<u32, usize>,
}

impl TextTracks {
    /// No tracks yet.
    pub fn new(parameters: TextTrackingParameters) -> Self {
        Self {
            parameters,
            objects: Vec::new(),
            active: Vec::new(),
        }
    }

    /// Ids of the tracks, in the order in which they began.
    pub fn objects(&self) -> &[u32] {
        &self.active
    }

    /// Index of the text that an object was detected for; 0 for an unknown id.
    pub fn text_of(&self, object: u32) -> usize {
        self.object(object).map_or(0, |object| object.text)
    }

    /// Score of the detection that began an object; 0 for an unknown id.
    pub fn score_of(&self, object: u32) -> f32 {
        self.object(object).map_or(0.0, |object| object.score)
    }

    /// Ids of all objects that were removed so far.
    pub fn removed(&self) -> impl Iterator<Item = u32> + '_ {
        let removed = self.objects.iter().filter(|object| object.removed);
        removed.map(|object| object.id)
    }

    fn object(&self, id: u32) -> Option<&TrackedObject> {
        self.objects.get(id as usize)
    }

    fn active(&self) -> impl Iterator<Item = &TrackedObject> {
        self.active.iter().filter_map(|&id| self.object(id))
    }

    /// Decides what a frame with detections means. `tracks` are the predictions of [`TextTracks::objects`], in that order.
    pub fn decide(
        &mut self,
        frame: usize,
        detections: &[Detection],
        tracks: &[Prediction],
    ) -> Decision {
        let matches = self.associate(detections, tracks);
        let new_objects = self.begin(frame, &matches.new, detections);
        self.count(&matches);
        let unmatched = self.over_limit(frame, |object, p| {
            // A limit of 0 does not remove an object that was always matched.
            object.unmatched >= p.hotstart_unmatched.max(1)
        });
        let hidden = self.unconfirmed(&unmatched);
        self.count_duplicates(&matches);
        let duplicates = self.over_limit(frame, |object, p| {
            let mut counts = object.duplicate_of.values();
            counts.any(|&frames| frames >= p.hotstart_duplicate)
        });
        let removed: BTreeSet<u32> = unmatched.union(&duplicates).copied().collect();
        let reconditioned = self.recondition(frame, &matches, tracks);
        let suppressed = self.suppress(frame, tracks, &removed);

        for object in &mut self.objects {
            object.removed |= removed.contains(&object.id);
        }
        self.active.extend(new_objects.iter().map(|new| new.id));
        self.active.retain(|object| !removed.contains(object));
        Decision {
            new_objects,
            removed,
            reconditioned,
            suppressed,
            hidden,
        }
    }

    /// Decides what a frame without a run of the detector means (see the module). `tracks` are the predictions of
    /// [`TextTracks::objects`], in that order; the decision only suppresses and hides.
    pub fn propagate(&mut self, frame: usize, tracks: &[Prediction]) -> Decision {
        let nothing = BTreeSet::new();
        Decision {
            suppressed: self.suppress(frame, tracks, &nothing),
            hidden: self.unconfirmed(&nothing),
            ..Decision::default()
        }
    }

    fn associate(&self, detections: &[Detection], tracks: &[Prediction]) -> Matches {
        let p = &self.parameters;
        let mut matches = Matches::default();
        if tracks.is_empty() {
            // The reference does not ask for the score of a new object here.
            matches.new = (0..detections.len()).collect();
            return matches;
        }
        let ious: Vec<Vec<f32>> = detections
            .iter()
            .map(|detection| self.ious(detection, tracks))
            .collect();
        for (place, (track, &object)) in tracks.iter().zip(&self.active).enumerate() {
            if track.pixels.area() == 0 {
                matches.empty.push(object);
            } else if !ious.iter().any(|row| row[place] >= p.track_match_iou) {
                matches.unmatched.push(object);
            }
        }
        for (index, (detection, row)) in detections.iter().zip(&ious).enumerate() {
            let matched: Vec<u32> = self
                .active
                .iter()
                .zip(row)
                .filter(|(_, iou)| **iou >= p.match_iou)
                .map(|(object, _)| *object)
                .collect();
            let is_new = detection.score >= p.new_object_score && matched.is_empty();
            if is_new {
                matches.new.push(index);
            }
            matches.tracks_of.push(matched);
            let (best, iou) = first_greatest(row);
            if detection.score >= p.recondition_score && !is_new && iou >= p.recondition_iou {
                matches.confirmed.insert(self.active[best], index);
            }
        }
        matches
    }

    /// IoU of a detection with each track; 0 with those of other texts.
    fn ious(&self, detection: &Detection, tracks: &[Prediction]) -> Vec<f32> {
        let pairs = tracks.iter().zip(self.active());
        pairs
            .map(|(track, object)| match object.text == detection.text {
                true => detection.pixels.iou(&track.pixels).or_f32(0.0),
                false => 0.0,
            })
            .collect()
    }

    /// Makes objects of the detections `new`, of the best where there is not room for all.
    fn begin(&mut self, frame: usize, new: &[usize], detections: &[Detection]) -> Vec<NewObject> {
        let room = self
            .parameters
            .max_objects
            .saturating_sub(self.active.len());
        let mut new = new.to_vec();
        if new.len() > room {
            new.sort_by(|&a, &b| detections[b].score.total_cmp(&detections[a].score));
            new.truncate(room);
        }
        let mut begun = Vec::with_capacity(new.len());
        for detection in new {
            let id = self.objects.len() as u32;
            self.objects.push(TrackedObject {
                id,
                text: detections[detection].text,
                score: detections[detection].score,
                first_frame: frame,
                unmatched: 0,
                keep_alive: self.parameters.keep_alive_init,
                duplicate_of: BTreeMap::new(),
                compared: false,
                last_hidden: None,
                removed: false,
            });
            begun.push(NewObject { detection, id });
        }
        begun
    }

    /// Counts matched and unmatched frames.
    fn count(&mut self, matches: &Matches) {
        let p = &self.parameters;
        let matched: BTreeSet<u32> = matches.tracks_of.iter().flatten().copied().collect();
        for id in matched {
            self.objects[id as usize].adjust_keep_alive(1, p);
        }
        for &id in &matches.unmatched {
            let object = &mut self.objects[id as usize];
            object.unmatched += 1;
            object.adjust_keep_alive(-1, p);
        }
        if p.keep_alive_falls_when_empty {
            for &id in &matches.empty {
                self.objects[id as usize].adjust_keep_alive(-1, p);
            }
        }
    }

    /// Where one detection matches several tracks, counts a frame for all but the one that began first.
    fn count_duplicates(&mut self, matches: &Matches) {
        for tracks in matches.tracks_of.iter().filter(|tracks| tracks.len() >= 2) {
            let began = |id: &u32| self.objects[*id as usize].first_frame;
            let Some(first) = tracks.iter().copied().min_by_key(began) else {
                continue;
            };
            for &id in tracks.iter().filter(|&&id| id != first) {
                let counts = &mut self.objects[id as usize].duplicate_of;
                *counts.entry(first).or_default() += 1;
            }
        }
    }

    /// New objects whose counters are over a limit.
    fn over_limit(
        &self,
        frame: usize,
        is_over: impl Fn(&TrackedObject, &TextTrackingParameters) -> bool,
    ) -> BTreeSet<u32> {
        let p = &self.parameters;
        let present = self.objects.iter().filter(|object| !object.removed);
        present
            .filter(|object| object.is_new(frame, p) && is_over(object, p))
            .map(|object| object.id)
            .collect()
    }

    /// Tracks that are hidden because too few detections matched them; without `removed`, which end on this frame.
    fn unconfirmed(&self, removed: &BTreeSet<u32>) -> BTreeSet<u32> {
        if self.parameters.suppress_unmatched_only_within_hotstart {
            return BTreeSet::new();
        }
        let present = self.objects.iter().filter(|object| !object.removed);
        present
            .filter(|object| object.unmatched > 0 && object.keep_alive <= 0)
            .map(|object| object.id)
            .filter(|id| !removed.contains(id))
            .collect()
    }

    fn recondition(
        &self,
        frame: usize,
        matches: &Matches,
        tracks: &[Prediction],
    ) -> BTreeMap<u32, usize> {
        let every = self.parameters.recondition_every;
        if every == 0 || !frame.is_multiple_of(every) {
            return BTreeMap::new();
        }
        let confirmed = matches.confirmed.iter().filter(|(id, _)| {
            let place = self.active.iter().position(|other| other == *id);
            // The reference compares a logit with a score, too.
            place.is_some_and(|place| tracks[place].score > self.parameters.recondition_score)
        });
        confirmed.map(|(id, index)| (*id, *index)).collect()
    }

    /// Of overlapping tracks of one text suppresses the one that was hidden more recently, if the other was ever hidden.
    fn suppress(
        &mut self,
        frame: usize,
        tracks: &[Prediction],
        removed: &BTreeSet<u32>,
    ) -> Vec<bool> {
        let threshold = self.parameters.occlusion_iou;
        let mut suppressed = vec![false; tracks.len()];
        if threshold <= 0.0 || tracks.is_empty() {
            for object in &mut self.objects {
                (object.compared, object.last_hidden) = (false, None);
            }
            return suppressed;
        }
        let last_hidden = |object: &TrackedObject| {
            let begins = !object.compared && removed.contains(&object.id);
            object.last_hidden.or(begins.then_some(REMOVED_HIDDEN))
        };
        let states: Vec<(usize, Option<usize>)> = self
            .active()
            .map(|object| (object.text, last_hidden(object)))
            .collect();
        for i in 0..tracks.len() {
            for j in i + 1..tracks.len() {
                let ((text_i, last_i), (text_j, last_j)) = (states[i], states[j]);
                let overlap = || tracks[i].pixels.iou(&tracks[j].pixels).or_f32(0.0);
                if text_i != text_j || overlap() < threshold {
                    continue;
                }
                suppressed[i] |= last_i > last_j && last_j.is_some();
                suppressed[j] |= last_j > last_i && last_i.is_some();
            }
        }
        for (place, track) in tracks.iter().enumerate() {
            let object = &mut self.objects[self.active[place] as usize];
            let hidden = suppressed[place] || track.pixels.area() == 0;
            object.compared = true;
            object.last_hidden = if hidden { Some(frame) } else { states[place].1 };
        }
        suppressed
    }
}

/// Place and value of the greatest number, of the first among equal ones.
fn first_greatest(values: &[f32]) -> (usize, f32) {
    let mut best = (0, f32::NEG_INFINITY);
    for (place, &value) in values.iter().enumerate() {
        if value > best.1 {
            best = (place, value);
        }
    }
    best
}

/// Whether each of several masks of one text keeps less than `share` of its pixels when each pixel goes to the mask with
/// the highest logit.
///
/// Reference: `_suppress_object_pw_area_shrinkage`.
pub fn shrunk(masks: &[&[f32]], share: f32) -> Vec<bool> {
    let Some(pixels) = masks.first().map(|mask| mask.len()) else {
        return Vec::new();
    };
    if masks.len() == 1 {
        return vec![false];
    }
    let (mut before, mut after) = (vec![0u32; masks.len()], vec![0u32; masks.len()]);
    for pixel in 0..pixels {
        let (mut best, mut most) = (0, f32::NEG_INFINITY);
        for (index, mask) in masks.iter().enumerate() {
            before[index] += u32::from(mask[pixel] > 0.0);
            if mask[pixel] > most {
                (best, most) = (index, mask[pixel]);
            }
        }
        after[best] += u32::from(most > 0.0);
    }
    let pairs = before.iter().zip(&after);
    pairs
        .map(|(&before, &after)| (after as f32 / before.max(1) as f32) < share)
        .collect()
}

/// Fills holes and removes specks of up to `max_pixels` pixels in a square of mask logits of `side` pixels, in place.
///
/// Reference: `fill_holes_in_mask_scores`, with neighbours in eight directions as its `cc_torch` has them. Pixels that
/// are filled get the logit 0.1, those that are removed -0.1. A speck is removed only if it is at most half of the mask.
pub fn fill_and_clean(logits: &mut [f32], side: usize, max_pixels: usize) {
    if max_pixels == 0 || side == 0 || logits.len() != side * side {
        return;
    }
    for pixel in small_parts(logits, side, max_pixels, |logit| logit <= 0.0) {
        logits[pixel] = 0.1;
    }
    let total = logits.iter().filter(|logit| **logit > 0.0).count();
    let max_pixels = max_pixels.min(total / 2);
    for pixel in small_parts(logits, side, max_pixels, |logit| logit > 0.0) {
        logits[pixel] = -0.1;
    }
}

/// Pixels of connected parts of up to `max_pixels` pixels.
fn small_parts(
    logits: &[f32],
    side: usize,
    max_pixels: usize,
    inside: impl Fn(f32) -> bool,
) -> Vec<usize> {
    let mut visited = vec![false; logits.len()];
    let mut small = Vec::new();
    let mut part = Vec::new();
    for start in 0..logits.len() {
        if visited[start] || !inside(logits[start]) {
            continue;
        }
        part.clear();
        part.push(start);
        visited[start] = true;
        let mut next = 0;
        while next < part.len() {
            for pixel in around(part[next], side) {
                if !visited[pixel] && inside(logits[pixel]) {
                    visited[pixel] = true;
                    part.push(pixel);
                }
            }
            next += 1;
        }
        if part.len() <= max_pixels {
            small.extend_from_slice(&part);
        }
    }
    small
}

/// A pixel of a square and its neighbours in eight directions.
fn around(pixel: usize, side: usize) -> impl Iterator<Item = usize> {
    let (y, x) = (pixel / side, pixel % side);
    let rows = y.saturating_sub(1)..(y + 2).min(side);
    let columns = x.saturating_sub(1)..(x + 2).min(side);
    rows.flat_map(move |y| columns.clone().map(move |x| y * side + x))
}
