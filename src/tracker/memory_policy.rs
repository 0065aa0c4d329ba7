//! Pure memory decisions of the tracker: which frames an object recalls, and which it may still need.
//!
//! No tensors here. The rules are those of `Sam3TrackerVideoModel` in transformers
//! (`_select_closest_cond_frames`, `_gather_memory_frame_outputs`, `_get_object_pointers`, `_use_multimask`), for
//! tracking forward in time; the golden files under `tests/fixtures/policy` were recorded from it.

use std::collections::BTreeSet;

pub use super::memory_selection::{Selection, memory_score};

/// Parameters of the memory policy, from a bundle's manifest.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Parameters {
    /// Length of the temporal table: one row for conditioning frames, the others for the frames before.
    pub num_maskmem: usize,
    /// At most this many conditioning frames are attended to.
    pub max_cond_frames: usize,
    /// Object pointers of tracked frames reach back fewer than this many frames.
    pub max_object_pointers: usize,
    /// Whether the mask decoder may choose among several masks at all.
    pub multimask_output_in_sam: bool,
    /// Whether it may on frames that are no initial conditioning frames.
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
    pub cond: Vec<usize>,
    /// Tracked frames; the tracker forgets those that no later frame can recall.
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

/// What an object recalls on a frame, in the reference's order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recall {
    /// Conditioning frames first, then the frames before, oldest first.
    pub memories: Vec<MemoryRef>,
    /// Pointers of all conditioning frames that are not in the future.
    pub cond_pointers: Vec<PointerRef>,
    /// Pointers of tracked frames, nearest first.
    pub pointers: Vec<PointerRef>,
}

/// How many pointer distances count in a clip of `num_frames` frames.
///
/// The reference divides distances by this number less one, so that the length of a short clip shows in its results.
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
        select_cond_frames(&history.cond, frame, parameters.max_cond_frames);
    let mut memories: Vec<MemoryRef> = selected
        .iter()
        .map(|&frame| MemoryRef {
            frame,
            time_row: parameters.num_maskmem - 1,
        })
        .collect();
    let cond_pointers = history
        .cond
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
        cond_pointers,
        pointers,
    }
}

/// Memories and pointers of the frames just before, whatever their masks are like.
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

/// Splits conditioning frames into those attended to and the rest: the closest before, the closest at or after, then
/// the closest of the others, ties in prompting order.
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

/// Whether a memory entry or a pointer that `frame` left can still be recalled on `next` or later, when prompts only
/// come for frames that were not reached yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reachable {
    /// Its memory entry.
    pub memory: bool,
    /// Its object pointer.
    pub pointer: bool,
}

/// See [`Reachable`].
pub fn reachable(
    parameters: &Parameters,
    history: &History,
    frame: usize,
    next: usize,
) -> Reachable {
    let recent = frame + parameters.num_maskmem > next;
    if history.cond.contains(&frame) {
        let nearer = history.cond.iter().filter(|&&other| other > frame).count();
        return Reachable {
            memory: recent || nearer < parameters.max_cond_frames,
            pointer: true,
        };
    }
    if parameters.memory_selection.is_some() {
        let (memory, pointer) =
            super::memory_selection::reachable(parameters, history, frame, next);
        return Reachable { memory, pointer };
    }
    Reachable {
        memory: recent,
        pointer: frame + parameters.max_object_pointers > next,
    }
}

/// Whether the mask decoder's best of several masks is taken for a prompt of `num_points` points (a box counts two, a
/// tracked frame has none).
pub fn use_multimask(parameters: &Parameters, is_conditioning: bool, num_points: usize) -> bool {
    parameters.multimask_output_in_sam
        && (is_conditioning || parameters.multimask_output_for_tracking)
        && (parameters.multimask_min_points..=parameters.multimask_max_points).contains(&num_points)
}
