//! Pure decisions of the loop that finds objects in a video and follows them: which found object is new, which track is
//! mistaken, which is hidden.
//!
//! No tensors here. The rules are those of `Sam3VideoModel` in transformers (`_associate_det_trk`, `_process_hotstart`,
//! `_prepare_recondition_masks`, `_suppress_overlapping_based_on_recent_occlusion`, `nms_masks`), for a clip that is
//! known as a whole and goes forward. Objects have the reference's numbers here, which begin at 0.
//!
//! The reference looks for objects on every frame. Where somebody looks on some frames only, the others go through
//! [`Following::propagate`]: no object is born or removed, none is remembered anew as if it had been prompted, and the
//! counts of frames without confirmation, as a duplicate, and of keep-alive stay as they are, an empty mask included. What
//! was hidden for want of confirmation stays hidden until a look confirms it. What needs tracks only goes on: of tracks that
//! overlap, the one that was hidden more recently is suppressed. So `hotstart_unmatched`, `hotstart_duplicate` and the
//! keep-alive parameters count looks, while `hotstart_delay` stays a number of frames: an object is new, and can be removed,
//! for so many frames after its first, however few looks are among them. Tracks are remembered anew on frames that are both
//! looked at and a multiple of `recondition_every`.

use std::collections::{BTreeMap, BTreeSet};

/// Parameters of the loop, from a bundle's manifest; see its `Follow`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FollowParameters {
    /// A candidate with a score above this is found.
    pub score_threshold: f32,
    /// Greatest IoU of two found objects; 0 for any.
    pub nms_iou: f32,
    /// From this IoU on, a found object is one that is tracked.
    pub match_iou: f32,
    /// From this IoU on, a track is confirmed.
    pub track_match_iou: f32,
    /// Least score of a new object.
    pub new_object_score: f32,
    /// Whether a confirmed track's own mask is remembered anew, instead of the found one.
    pub recondition_on_track_masks: bool,
    /// Frames between two times of that; 0 for never.
    pub recondition_every: usize,
    /// Least score for it: of the found object, and of the track's logit.
    pub recondition_score: f32,
    /// Least IoU for it.
    pub recondition_iou: f32,
    /// Frames for which results are held back.
    pub hotstart_delay: usize,
    /// Frames without confirmation after which a new object is removed.
    pub hotstart_unmatched: usize,
    /// Frames as a duplicate after which a new object is removed.
    pub hotstart_duplicate: usize,
    /// Whether only new objects are suppressed for want of confirmation.
    pub suppress_unmatched_only_within_hotstart: bool,
    /// Counter of a new object.
    pub keep_alive_init: i32,
    /// Greatest counter.
    pub keep_alive_max: i32,
    /// Least counter.
    pub keep_alive_min: i32,
    /// Whether an empty mask lowers the counter.
    pub keep_alive_falls_when_empty: bool,
    /// Least IoU of tracks of which one is suppressed; 0 for none.
    pub occlusion_iou: f32,
    /// Most objects at once.
    pub max_objects: usize,
}

/// The positive pixels of a mask, as a set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pixels {
    words: Vec<u64>,
    area: u32,
}

impl Pixels {
    /// Pixels whose logit is above 0.
    pub fn of(logits: &[f32]) -> Self {
        let mut words = vec![0u64; logits.len().div_ceil(64)];
        for (index, _) in logits.iter().enumerate().filter(|(_, logit)| **logit > 0.0) {
            words[index / 64] |= 1 << (index % 64);
        }
        let area = words.iter().map(|word| word.count_ones()).sum();
        Self { words, area }
    }

    /// How many there are.
    pub fn area(&self) -> u32 {
        self.area
    }

    /// Intersection over union; of two empty sets 0.
    pub fn iou(&self, other: &Self) -> f32 {
        let pairs = self.words.iter().zip(&other.words);
        let both: u32 = pairs.map(|(a, b)| (a & b).count_ones()).sum();
        let union = self.area + other.area - both;
        both as f32 / union.max(1) as f32
    }
}

/// Which of the found objects stay when those that overlap one with a better score by more than `iou` go; `true` for
/// each that stays. `iou` 0 keeps all.
pub fn suppress_overlaps(scores: &[f32], masks: &[Pixels], iou: f32) -> Vec<bool> {
    let mut stays = vec![true; scores.len()];
    if iou <= 0.0 {
        return stays;
    }
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
    for (place, &better) in order.iter().enumerate() {
        if !stays[better] {
            continue;
        }
        for &worse in &order[place + 1..] {
            if stays[worse] && masks[better].iou(&masks[worse]) > iou {
                stays[worse] = false;
            }
        }
    }
    stays
}

/// An object that the detector found on a frame.
#[derive(Debug, Clone)]
pub struct Found {
    /// Which text it was found for.
    pub text: usize,
    /// 0 to 1.
    pub score: f32,
    /// Its mask.
    pub pixels: Pixels,
}

/// A track's prediction on a frame.
#[derive(Debug, Clone)]
pub struct Predicted {
    /// Its mask.
    pub pixels: Pixels,
    /// Logit of being there.
    pub score: f32,
}

/// What is decided on a frame.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Verdict {
    /// Found objects that become tracks: their place among the found, and their number.
    pub born: Vec<(usize, u32)>,
    /// Tracks that end.
    pub removed: BTreeSet<u32>,
    /// Tracks that are remembered as if they had been prompted, with the found object that confirms each.
    pub reconditioned: BTreeMap<u32, usize>,
    /// For each track, in their order before this frame: whether its mask is taken for empty.
    pub suppressed: Vec<bool>,
    /// Tracks that are not shown on this frame.
    pub hidden: BTreeSet<u32>,
}

/// What is known of the tracks so far.
#[derive(Debug, Clone)]
pub struct Following {
    parameters: FollowParameters,
    objects: Vec<u32>,
    text_of: BTreeMap<u32, usize>,
    score_of: BTreeMap<u32, f32>,
    first_frame: BTreeMap<u32, usize>,
    unmatched: BTreeMap<u32, usize>,
    keep_alive: BTreeMap<u32, i32>,
    duplicates: BTreeMap<(u32, u32), usize>,
    removed: BTreeSet<u32>,
    last_hidden: BTreeMap<u32, i64>,
    next: u32,
}

/// Of what a track never was, and of one that was removed.
const NEVER_HIDDEN: i64 = -1;
const ALWAYS_HIDDEN: i64 = 100_000;

/// How found objects and tracks belong together.
struct Matches {
    born: Vec<usize>,
    unmatched: Vec<u32>,
    empty: Vec<u32>,
    /// For each found object the tracks that it is.
    tracks_of: Vec<Vec<u32>>,
    /// Tracks that a found object confirms well.
    confirmed: BTreeMap<u32, usize>,
}

impl Following {
    /// Nothing is tracked yet.
    pub fn new(parameters: FollowParameters) -> Self {
        Self {
            parameters,
            objects: Vec::new(),
            text_of: BTreeMap::new(),
            score_of: BTreeMap::new(),
            first_frame: BTreeMap::new(),
            unmatched: BTreeMap::new(),
            keep_alive: BTreeMap::new(),
            duplicates: BTreeMap::new(),
            removed: BTreeSet::new(),
            last_hidden: BTreeMap::new(),
            next: 0,
        }
    }

    /// The tracks, in the order in which they began.
    pub fn objects(&self) -> &[u32] {
        &self.objects
    }

    /// Which text an object was found for.
    pub fn text_of(&self, object: u32) -> usize {
        self.text_of.get(&object).copied().unwrap_or(0)
    }

    /// The score with which an object was found.
    pub fn score_of(&self, object: u32) -> f32 {
        self.score_of.get(&object).copied().unwrap_or(0.0)
    }

    /// All objects that were removed so far.
    pub fn removed(&self) -> &BTreeSet<u32> {
        &self.removed
    }

    /// Decides what a frame means. `tracks` are those of [`Following::objects`], in that order.
    pub fn judge(&mut self, frame: usize, found: &[Found], tracks: &[Predicted]) -> Verdict {
        let matches = self.associate(found, tracks);
        let mut born = matches.born.clone();
        let room = self
            .parameters
            .max_objects
            .saturating_sub(self.objects.len());
        if born.len() > room {
            born.sort_by(|&a, &b| found[b].score.total_cmp(&found[a].score));
            born.truncate(room);
        }
        let born: Vec<(usize, u32)> = born.into_iter().zip(self.next..).collect();
        for &(place, object) in &born {
            self.text_of.insert(object, found[place].text);
        }
        let (removed, hidden) = self.hotstart(frame, &matches, &born);
        let reconditioned = self.recondition(frame, &matches, tracks);
        let suppressed = self.suppress(frame, tracks, &removed);

        self.next += born.len() as u32;
        for &(place, object) in &born {
            self.objects.push(object);
            self.score_of.insert(object, found[place].score);
        }
        self.objects.retain(|object| !removed.contains(object));
        for object in &removed {
            self.last_hidden.remove(object);
        }
        Verdict {
            born,
            removed,
            reconditioned,
            suppressed,
            hidden,
        }
    }

    /// What a frame means that nobody looked at (see the module). `tracks` are those of [`Following::objects`], in that
    /// order; the verdict only suppresses and hides.
    pub fn propagate(&mut self, frame: usize, tracks: &[Predicted]) -> Verdict {
        let nothing = BTreeSet::new();
        Verdict {
            suppressed: self.suppress(frame, tracks, &nothing),
            hidden: self.unconfirmed(&nothing),
            ..Verdict::default()
        }
    }

    fn associate(&self, found: &[Found], tracks: &[Predicted]) -> Matches {
        let p = &self.parameters;
        let mut matches = Matches {
            born: Vec::new(),
            unmatched: Vec::new(),
            empty: Vec::new(),
            tracks_of: Vec::new(),
            confirmed: BTreeMap::new(),
        };
        if tracks.is_empty() {
            // The reference does not ask for the score of a new object here.
            matches.born = (0..found.len()).collect();
            return matches;
        }
        let ious: Vec<Vec<f32>> = found
            .iter()
            .map(|found| {
                let pairs = tracks.iter().zip(&self.objects);
                pairs
                    .map(
                        |(track, &object)| match self.text_of(object) == found.text {
                            true => found.pixels.iou(&track.pixels),
                            false => 0.0,
                        },
                    )
                    .collect()
            })
            .collect();
        for (place, (track, &object)) in tracks.iter().zip(&self.objects).enumerate() {
            if track.pixels.area() == 0 {
                matches.empty.push(object);
            } else if !ious.iter().any(|row| row[place] >= p.track_match_iou) {
                matches.unmatched.push(object);
            }
        }
        for (index, (found, row)) in found.iter().zip(&ious).enumerate() {
            let is_new =
                found.score >= p.new_object_score && !row.iter().any(|&iou| iou >= p.match_iou);
            if is_new {
                matches.born.push(index);
            }
            let own = self.objects.iter().zip(row);
            let own = own.filter(|(_, iou)| **iou >= p.match_iou);
            matches
                .tracks_of
                .push(own.map(|(object, _)| *object).collect());
            // The first of equal ones.
            let (best, most) =
                row.iter()
                    .enumerate()
                    .fold((0, f32::NEG_INFINITY), |best, (place, &iou)| {
                        if iou > best.1 { (place, iou) } else { best }
                    });
            if found.score >= p.recondition_score && !is_new && most >= p.recondition_iou {
                matches.confirmed.insert(self.objects[best], index);
            }
        }
        matches
    }

    /// Objects that are removed, and those that are not shown on this frame.
    fn hotstart(
        &mut self,
        frame: usize,
        matches: &Matches,
        born: &[(usize, u32)],
    ) -> (BTreeSet<u32>, BTreeSet<u32>) {
        let p = self.parameters;
        for &(_, object) in born {
            self.first_frame.entry(object).or_insert(frame);
            self.keep_alive.insert(object, p.keep_alive_init);
        }
        let matched: BTreeSet<u32> = matches.tracks_of.iter().flatten().copied().collect();
        for object in matched {
            let counter = self.keep_alive.entry(object).or_default();
            *counter = (*counter + 1).min(p.keep_alive_max);
        }
        let fall = |counter: &mut i32| *counter = (*counter - 1).max(p.keep_alive_min);
        for &object in &matches.unmatched {
            *self.unmatched.entry(object).or_default() += 1;
            fall(self.keep_alive.entry(object).or_default());
        }
        if p.keep_alive_falls_when_empty {
            for &object in &matches.empty {
                fall(self.keep_alive.entry(object).or_default());
            }
        }

        // Objects that began on a later frame than this are new.
        let since = frame.checked_sub(p.hotstart_delay);
        let first_frame = &self.first_frame;
        let is_new = |object: u32| {
            let first = first_frame.get(&object).copied().unwrap_or(0);
            since.is_none_or(|since| first > since)
        };
        let mut gone = BTreeSet::new();
        for (&object, &frames) in &self.unmatched {
            let over = self.removed.contains(&object);
            if !over && frames >= p.hotstart_unmatched && is_new(object) {
                gone.insert(object);
            }
        }
        let hidden = self.unconfirmed(&gone);
        for tracks in matches.tracks_of.iter().filter(|tracks| tracks.len() >= 2) {
            let first = tracks
                .iter()
                .copied()
                .min_by_key(|object| first_frame.get(object).copied().unwrap_or(0));
            let Some(first) = first else { continue };
            for &object in tracks.iter().filter(|&&object| object != first) {
                *self.duplicates.entry((first, object)).or_default() += 1;
            }
        }
        for (&(_, object), &frames) in &self.duplicates {
            let over = self.removed.contains(&object) || gone.contains(&object);
            if !over && is_new(object) && frames >= p.hotstart_duplicate {
                gone.insert(object);
            }
        }
        self.removed.extend(&gone);
        (gone, hidden)
    }

    /// Tracks that are not shown for want of confirmation; `gone` are removed on this frame.
    fn unconfirmed(&self, gone: &BTreeSet<u32>) -> BTreeSet<u32> {
        if self.parameters.suppress_unmatched_only_within_hotstart {
            return BTreeSet::new();
        }
        let unmatched = self.unmatched.keys().copied();
        unmatched
            .filter(|object| !self.removed.contains(object) && !gone.contains(object))
            .filter(|object| self.keep_alive.get(object).copied().unwrap_or(0) <= 0)
            .collect()
    }

    fn recondition(
        &self,
        frame: usize,
        matches: &Matches,
        tracks: &[Predicted],
    ) -> BTreeMap<u32, usize> {
        let every = self.parameters.recondition_every;
        if every == 0 || !frame.is_multiple_of(every) {
            return BTreeMap::new();
        }
        let confirmed = matches.confirmed.iter().filter(|(object, _)| {
            let place = self.objects.iter().position(|other| other == *object);
            // A logit against a score: the reference compares them so.
            place.is_some_and(|place| tracks[place].score > self.parameters.recondition_score)
        });
        confirmed.map(|(object, index)| (*object, *index)).collect()
    }

    fn suppress(
        &mut self,
        frame: usize,
        tracks: &[Predicted],
        removed: &BTreeSet<u32>,
    ) -> Vec<bool> {
        let threshold = self.parameters.occlusion_iou;
        let mut suppressed = vec![false; tracks.len()];
        if threshold <= 0.0 || tracks.is_empty() {
            self.last_hidden.clear();
            return suppressed;
        }
        let last: Vec<i64> = self
            .objects
            .iter()
            .map(|object| match self.last_hidden.get(object) {
                Some(&frame) => frame,
                None if removed.contains(object) => ALWAYS_HIDDEN,
                None => NEVER_HIDDEN,
            })
            .collect();
        let texts: Vec<usize> = self
            .objects
            .iter()
            .map(|&object| self.text_of(object))
            .collect();
        for i in 0..tracks.len() {
            for j in i + 1..tracks.len() {
                if texts[i] != texts[j] || tracks[i].pixels.iou(&tracks[j].pixels) < threshold {
                    continue;
                }
                // The one that was hidden more recently goes, if the other was ever hidden.
                suppressed[i] |= last[i] > last[j] && last[j] > NEVER_HIDDEN;
                suppressed[j] |= last[j] > last[i] && last[i] > NEVER_HIDDEN;
            }
        }
        let states = self
            .objects
            .iter()
            .zip(tracks)
            .zip(suppressed.iter().zip(&last));
        self.last_hidden = states
            .map(|((&object, track), (&suppressed, &last))| {
                let hidden = suppressed || track.pixels.area() == 0;
                (object, if hidden { frame as i64 } else { last })
            })
            .collect();
        suppressed
    }
}

/// Which of several masks of one text lose most of themselves where only the highest logit counts: those that keep less
/// than `share` of their pixels. `true` for each that does.
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

/// Fills holes and removes specks of up to `most` pixels in a square of mask logits of `side` pixels; in place.
///
/// Reference: `fill_holes_in_mask_scores`, with neighbours in eight directions as its `cc_torch` has them. Pixels that
/// are filled get the logit 0.1, those that are removed -0.1. A speck goes only if it is at most half of the mask.
pub fn fill_and_clean(logits: &mut [f32], side: usize, most: usize) {
    if most == 0 || side == 0 || logits.len() != side * side {
        return;
    }
    for pixel in small_parts(logits, side, most, |logit| logit <= 0.0) {
        logits[pixel] = 0.1;
    }
    let total = logits.iter().filter(|logit| **logit > 0.0).count();
    for pixel in small_parts(logits, side, most.min(total / 2), |logit| logit > 0.0) {
        logits[pixel] = -0.1;
    }
}

/// Pixels of connected parts of up to `most` pixels.
fn small_parts(
    logits: &[f32],
    side: usize,
    most: usize,
    inside: impl Fn(f32) -> bool,
) -> Vec<usize> {
    let mut seen = vec![false; logits.len()];
    let mut small = Vec::new();
    let mut part = Vec::new();
    for start in 0..logits.len() {
        if seen[start] || !inside(logits[start]) {
            continue;
        }
        part.clear();
        part.push(start);
        seen[start] = true;
        let mut next = 0;
        while next < part.len() {
            let (y, x) = (part[next] / side, part[next] % side);
            next += 1;
            for ny in y.saturating_sub(1)..(y + 2).min(side) {
                for nx in x.saturating_sub(1)..(x + 2).min(side) {
                    let pixel = ny * side + nx;
                    if !seen[pixel] && inside(logits[pixel]) {
                        seen[pixel] = true;
                        part.push(pixel);
                    }
                }
            }
        }
        if part.len() <= most {
            small.extend_from_slice(&part);
        }
    }
    small
}
