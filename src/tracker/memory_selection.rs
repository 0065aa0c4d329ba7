//! Memory selection: only tracked frames with a good mask are recalled.
//!
//! The rule is that of `use_memory_selection` in `Sam3TrackerBase` of facebookresearch/sam3 (`cal_mem_score`,
//! `frame_filter`), which transformers does not have. A frame's memory score says how sure the tracker was of the object and of
//! its mask. Going back from the current frame, frames with a score above the threshold are eligible, up to the number of frames
//! that object pointers reach back; the frame just before is always eligible. Positions in time are places among the eligible
//! frames, not distances in frames. Frame 0 is eligible only as the frame just before. As in the original, the oldest eligible frame
//! gives no object pointer, and a conditioning frame takes a place only as the frame just before.
//!
//! The original takes the mean score of the objects that began together. Here each object has a score, so that what it recalls
//! depends neither on other objects nor on the size of a batch. Conditioning frames are recalled as without a selection.

use std::fmt;
use std::str::FromStr;

use super::memory_policy::{History, MemoryRef, Parameters, PointerRef, Reachable};

/// Which tracked frames may be recalled: those with a [`memory_score`] above a threshold, or all. Written as a number or `all`.
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

/// The memory score of an object on a tracked frame, 0 to 1 (`cal_mem_score`): the certainty that the object is visible, which is 0
/// at a logit of 0 or less, times the estimated IoU of its mask.
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
    let max_frames = horizon.saturating_sub(1).max(1);
    let strong = history.tracked.range(1..frame).rev().copied();
    let strong = strong.filter(|before| !history.weak.contains(before));
    let mut frames: Vec<usize> = strong.take(max_frames).collect();
    frames.reverse();
    if frames.last() != Some(&last) {
        frames.push(last);
    }
    frames
}

/// Memory entries and object pointers of tracked frames, in the order of [`Recall`](super::memory_policy::Recall). `unselected` are
/// conditioning frames that are not recalled as such.
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

/// What a tracked frame left that can be recalled on `next` or later.
pub(super) fn reachable(
    parameters: &Parameters,
    history: &History,
    frame: usize,
    next: usize,
) -> Reachable {
    let both = |reachable| Reachable {
        memory: reachable,
        pointer: reachable,
    };
    if frame + 1 >= next {
        return both(true);
    }
    if frame == 0 || history.weak.contains(&frame) {
        return both(false);
    }
    let newer = history.tracked.range(frame + 1..);
    let newer = newer.filter(|other| !history.weak.contains(other)).count();
    Reachable {
        memory: newer + 1 < parameters.num_maskmem,
        pointer: newer + 1 < parameters.max_object_pointers,
    }
}
