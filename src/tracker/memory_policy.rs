//! Which frames an object recalls, and which it may still need. Pure functions, without tensors.
//!
//! The rules are those of `Sam3TrackerVideoModel` in transformers
//! (`_select_closest_cond_frames`, `_gather_memory_frame_outputs`, `_get_object_pointers`, `_use_multimask`), for
//! tracking forward in time; the golden files under `tests/fixtures/policy` were recorded from it.

use std::collections::BTreeSet;

pub use super::memory_selection::{Selection, memory_score};

/// Parameters of the memory policy, from a bundle's manifest.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Parameters {
    /// Length of the temporal table: one row for conditioning frames, the others for the frames before.
    pub num_maskmem: usize,
    /// Most conditioning frames whose memory features are recalled.
    pub max_cond_frames: usize,
    /// Object pointers of tracked frames are recalled from fewer than this many frames back.
    pub max_object_pointers: usize,
    /// Whether the mask decoder may choose among several masks at all.
    pub multimask_output_in_sam: bool,
    /// Whether it may on frames that are not initial conditioning frames.
    pub multimask_output_for_tracking: bool,
    /// Fewest points for which it chooses.
    pub multimask_min_points: usize,
    /// Most points for which it chooses.
    pub multimask_max_points: usize,
    /// Only tracked frames with a [`memory_score`] above this are recalled; `None` for all.
    pub memory_selection: Option<f32>,
}

/// The frames that left something in an object's memory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History {
    /// Conditioning frames (those with a prompt), in the order in which they were prompted.
    pub conditioning: Vec<usize>,
    /// Tracked frames, without those that no later frame can recall.
    pub tracked: BTreeSet<usize>,
    /// Those of the tracked frames whose [`memory_score`] is not above [`Parameters::memory_selection`].
    pub weak: BTreeSet<usize>,
}

/// One memory entry to attend to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryRef {
    /// The frame that left it.
    pub frame: usize,
    /// Row of the temporal table.
    pub time_row: usize,
}

/// One object pointer to attend to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PointerRef {
    /// The frame that left it.
    pub frame: usize,
    /// How many frames before the current one; with [`Parameters::memory_selection`], how many of those that may be recalled.
    pub distance: usize,
}

/// What an object recalls on a frame, in the order of transformers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recall {
    /// Conditioning frames first, then the frames before, oldest first.
    pub memories: Vec<MemoryRef>,
    /// Object pointers of all conditioning frames that are not in the future.
    pub conditioning_pointers: Vec<PointerRef>,
    /// Object pointers of tracked frames, nearest first.
    pub pointers: Vec<PointerRef>,
}

/// How many pointer distances count in a clip of `num_frames` frames.
///
/// transformers divides distances by this number less one, so the results of a short clip depend on its length.
pub fn pointer_horizon(parameters: &Parameters, num_frames: usize) -> usize {
    num_frames.min(parameters.max_object_pointers)
}

/// What an object with `history` recalls on `frame` of a clip of `num_frames` frames (only up to
/// `max_object_pointers` matters).
pub fn recall(
    parameters: &Parameters,
    history: &History,
    frame: usize,
    num_frames: usize,
) -> Recall {
    let (selected, unselected) =
        select_cond_frames(&history.conditioning, frame, parameters.max_cond_frames);
    let mut memories: Vec<MemoryRef> = selected
        .iter()
        .map(|&frame| MemoryRef {
            frame,
            time_row: parameters.num_maskmem - 1,
        })
        .collect();
    let conditioning_pointers = history
        .conditioning
        .iter()
        .filter_map(|&cond| {
            frame.checked_sub(cond).map(|distance| PointerRef {
                frame: cond,
                distance,
            })
        })
        .collect();
    let horizon = pointer_horizon(parameters, num_frames);
    let (recent, pointers) = match parameters.memory_selection {
        None => last_frames(parameters, history, frame, horizon, &unselected),
        Some(_) => {
            super::memory_selection::recall(parameters, history, frame, horizon, &unselected)
        }
    };
    memories.extend(recent);
    Recall {
        memories,
        conditioning_pointers,
        pointers,
    }
}

/// Memory entries and object pointers of the frames just before, without a selection.
fn last_frames(
    parameters: &Parameters,
    history: &History,
    frame: usize,
    horizon: usize,
    unselected: &[usize],
) -> (Vec<MemoryRef>, Vec<PointerRef>) {
    let memories = (1..parameters.num_maskmem).rev().filter_map(|distance| {
        let before = frame.checked_sub(distance)?;
        let there = history.tracked.contains(&before) || unselected.contains(&before);
        there.then_some(MemoryRef {
            frame: before,
            time_row: distance - 1,
        })
    });
    let pointers = (1..horizon).filter_map(|distance| {
        let before = frame.checked_sub(distance)?;
        history.tracked.contains(&before).then_some(PointerRef {
            frame: before,
            distance,
        })
    });
    (memories.collect(), pointers.collect())
}

/// Splits conditioning frames into the `limit` that are recalled as such and the rest. Recalled are the closest before `frame`, the
/// closest at or after it, then the closest of the others, ties in the order in which they were prompted
/// (`_select_closest_cond_frames`).
fn select_cond_frames(cond: &[usize], frame: usize, limit: usize) -> (Vec<usize>, Vec<usize>) {
    if cond.len() <= limit {
        return (cond.to_vec(), Vec::new());
    }
    let mut selected = Vec::with_capacity(limit);
    selected.extend(cond.iter().copied().filter(|&other| other < frame).max());
    selected.extend(cond.iter().copied().filter(|&other| other >= frame).min());
    let mut others: Vec<usize> = cond
        .iter()
        .copied()
        .filter(|other| !selected.contains(other))
        .collect();
    others.sort_by_key(|&other| other.abs_diff(frame));
    others.truncate(limit.saturating_sub(selected.len()));
    selected.extend(others);
    let unselected = cond
        .iter()
        .copied()
        .filter(|other| !selected.contains(other))
        .collect();
    (selected, unselected)
}

/// Which parts of a frame's memory entry a later frame can recall.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reachable {
    /// The memory features.
    pub memory: bool,
    /// The object pointer.
    pub pointer: bool,
}

/// What `frame` left that can still be recalled on `next` or later. Prompts come only for frames that were not reached yet.
pub fn reachable(
    parameters: &Parameters,
    history: &History,
    frame: usize,
    next: usize,
) -> Reachable {
    let recent = frame + parameters.num_maskmem > next;
    if history.conditioning.contains(&frame) {
        let nearer = history
            .conditioning
            .iter()
            .filter(|&&other| other > frame)
            .count();
        return Reachable {
            memory: recent || nearer < parameters.max_cond_frames,
            pointer: true,
        };
    }
    if parameters.memory_selection.is_some() {
        return super::memory_selection::reachable(parameters, history, frame, next);
    }
    Reachable {
        memory: recent,
        pointer: frame + parameters.max_object_pointers > next,
    }
}

/// Whether the mask decoder chooses the best of several masks, for a prompt of `num_points` points. A box counts as two; a tracked
/// frame has none.
pub fn use_multimask(parameters: &Parameters, is_conditioning: bool, num_points: usize) -> bool {
    parameters.multimask_output_in_sam
        && (is_conditioning || parameters.multimask_output_for_tracking)
        && (parameters.multimask_min_points..=parameters.multimask_max_points).contains(&num_points)
}
