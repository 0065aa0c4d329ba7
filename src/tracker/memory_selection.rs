//! Which tracked frames an object may recall where only those with a good mask count.
//!
//! The rule is that of `use_memory_selection` in `Sam3TrackerBase` of facebookresearch/sam3 (`cal_mem_score`,
//! `frame_filter`), which transformers does not have. A frame's memory score says how sure the tracker was of the object and of
//! its mask. Going back from the frame at hand, as many frames as pointers reach are eligible if their score is above the
//! threshold; the frame just before is in any case. Positions in time are places among the eligible frames, not distances in
//! frames. Frame 0 is only eligible as the frame just before. Kept are two habits of the original: the oldest eligible frame
//! gives no pointer, and a frame with a prompt takes a place only as the frame just before.
//!
//! The original takes the mean score of the objects that began together. Here each object has its own, so that what it recalls
//! depends neither on the others nor on the size of a batch. Conditioning frames are recalled as without a selection.

use std::fmt;
use std::str::FromStr;

use super::memory_policy::{History, MemoryRef, Parameters, PointerRef};

/// Which tracked frames a user wants to be recalled: those with a [`memory_score`] above a number, or all.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Selection(pub Option<f64>);

impl FromStr for Selection {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse::<f64>() {
            _ if text == "all" => Ok(Self(None)),
            Ok(score) if (0.0..1.0).contains(&score) => Ok(Self(Some(score))),
            _ => Err("expected a number from 0 to less than 1, or all".to_owned()),
        }
    }
}

impl fmt::Display for Selection {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(score) => score.fmt(to),
            None => to.write_str("all"),
        }
    }
}

/// How much a tracked frame is worth recalling, 0 to 1: the certainty that the object is there, from 0 at a logit of 0 or less
/// to 1, times the estimated IoU of its mask.
pub fn memory_score(object_logit: f32, iou: f32) -> f32 {
    if object_logit <= 0.0 {
        return 0.0;
    }
    let share = 1.0 / (1.0 + (-object_logit).exp());
    (2.0 * share - 1.0) * iou
}

/// Eligible frames, oldest first; `horizon` is [`pointer_horizon`](super::memory_policy::pointer_horizon).
fn eligible(history: &History, frame: usize, horizon: usize) -> Vec<usize> {
    let Some(last) = frame.checked_sub(1) else {
        return Vec::new();
    };
    let most = horizon.saturating_sub(1).max(1);
    let strong = history.tracked.range(1..frame).rev().copied();
    let strong = strong.filter(|before| !history.weak.contains(before));
    let mut frames: Vec<usize> = strong.take(most).collect();
    frames.reverse();
    if frames.last() != Some(&last) {
        frames.push(last);
    }
    frames
}

/// Memories and pointers of tracked frames, in the order of [`Recall`](super::memory_policy::Recall); `unselected` are conditioning frames that
/// are not attended to as such.
pub(super) fn recall(
    parameters: &Parameters,
    history: &History,
    frame: usize,
    horizon: usize,
    unselected: &[usize],
) -> (Vec<MemoryRef>, Vec<PointerRef>) {
    let frames = eligible(history, frame, horizon);
    let back = |places: usize| frames.len().checked_sub(places).map(|place| frames[place]);
    let memories = (1..parameters.num_maskmem).rev().filter_map(|places| {
        let frame = back(places)?;
        let there = history.tracked.contains(&frame) || unselected.contains(&frame);
        there.then_some(MemoryRef {
            frame,
            time_row: places - 1,
        })
    });
    let pointers = (1..horizon.min(frames.len())).filter_map(|distance| {
        let frame = back(distance)?;
        let there = history.tracked.contains(&frame);
        there.then_some(PointerRef { frame, distance })
    });
    (memories.collect(), pointers.collect())
}

/// Whether a tracked frame's memory and pointer can be recalled on `next` or later.
pub(super) fn reachable(
    parameters: &Parameters,
    history: &History,
    frame: usize,
    next: usize,
) -> (bool, bool) {
    if frame + 1 >= next {
        return (true, true);
    }
    if frame == 0 || history.weak.contains(&frame) {
        return (false, false);
    }
    let newer = history.tracked.range(frame + 1..);
    let newer = newer.filter(|other| !history.weak.contains(other)).count();
    (
        newer + 1 < parameters.num_maskmem,
        newer + 1 < parameters.max_object_pointers,
    )
}
