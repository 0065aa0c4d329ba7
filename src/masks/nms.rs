//! Non-maximum suppression (NMS): of detections that overlap, the one with the better score is kept.

use super::{BoxIou, PackedMask};

/// Most boxes that are compared: those with the best scores, as in Ultralytics.
const MAX_CANDIDATES: usize = 30_000;

/// Indices from the best score down; of equal scores the earlier one comes first.
fn best_first(scores: &[f32]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
    order
}

/// Greedy NMS: goes through `order` and returns at most `max` indices that no index kept before them suppresses.
/// `suppresses(better, worse)` is asked for kept ones only: one that is dropped suppresses nothing.
fn greedy(order: &[usize], max: usize, suppresses: impl Fn(usize, usize) -> bool) -> Vec<usize> {
    let mut kept: Vec<usize> = Vec::new();
    for &candidate in order {
        if kept.len() >= max {
            break;
        }
        if !kept.iter().any(|&better| suppresses(better, candidate)) {
            kept.push(candidate);
        }
    }
    kept
}

/// Mask NMS: returns `keep[i]`; a detection is dropped if its IoU with a higher-scoring kept one exceeds `max_iou`. With
/// `max_iou` 0 all are kept. Empty masks suppress nothing.
///
/// Reference: `nms_masks` of `Sam3VideoModel` in transformers.
pub fn keep_masks(scores: &[f32], masks: &[PackedMask], max_iou: f32) -> Vec<bool> {
    if max_iou <= 0.0 {
        return vec![true; scores.len()];
    }
    let kept = greedy(&best_first(scores), scores.len(), |better, worse| {
        masks[better].iou(&masks[worse]).or_f32(0.0) > max_iou
    });
    let mut keep = vec![false; scores.len()];
    for index in kept {
        keep[index] = true;
    }
    keep
}

/// What [`keep_boxes`] keeps.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BoxLimits {
    /// A box is dropped if its IoU with a better one exceeds this, 0 to 1.
    pub max_iou: f32,
    /// Most boxes that are kept.
    pub max_boxes: usize,
    /// Whether boxes of different classes suppress each other.
    pub class_agnostic: bool,
}

/// A box for [`keep_boxes`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ScoredBox {
    /// x1, y1, x2, y2.
    pub bbox: [f32; 4],
    /// 0 to 1.
    pub score: f32,
    /// The class, from 0.
    pub class: u32,
}

/// Box NMS: returns the indices of the boxes that are kept, from the best score down.
///
/// Reference: torchvision's `nms`, class by class. Ultralytics shifts the boxes of each class apart instead, which is the
/// same but for the last bits of coordinates.
pub fn keep_boxes(boxes: &[ScoredBox], limits: BoxLimits) -> Vec<usize> {
    let scores: Vec<f32> = boxes.iter().map(|candidate| candidate.score).collect();
    let mut order = best_first(&scores);
    order.truncate(MAX_CANDIDATES);
    greedy(&order, limits.max_boxes, |better, worse| {
        let (better, worse) = (&boxes[better], &boxes[worse]);
        (limits.class_agnostic || better.class == worse.class)
            && BoxIou::of(&better.bbox, &worse.bbox).or(0.0) > limits.max_iou
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scored(bbox: [f32; 4], score: f32, class: u32) -> ScoredBox {
        ScoredBox { bbox, score, class }
    }

    fn kept(boxes: &[ScoredBox], max_iou: f32, max_boxes: usize, class_agnostic: bool) -> Vec<f32> {
        let limits = BoxLimits {
            max_iou,
            max_boxes,
            class_agnostic,
        };
        let kept = keep_boxes(boxes, limits).into_iter();
        kept.map(|index| boxes[index].score).collect()
    }

    #[test]
    fn the_better_of_two_that_overlap_stays_and_only_what_stays_suppresses() {
        // 0.8 suppresses 0.7, which alone would suppress 0.6.
        let boxes = [
            scored([4.0, 0.0, 14.0, 10.0], 0.6, 0),
            scored([0.0, 0.0, 10.0, 10.0], 0.8, 0),
            scored([2.0, 0.0, 12.0, 10.0], 0.7, 0),
        ];
        assert_eq!(kept(&boxes, 0.5, 9, false), [0.8, 0.6]);
        // An overlap equal to the most is allowed: 8 of 12 columns are shared.
        let exactly = BoxIou::of(&boxes[1].bbox, &boxes[2].bbox).or(0.0);
        assert_eq!(kept(&boxes, exactly, 9, false), [0.8, 0.7, 0.6]);
        assert_eq!(kept(&boxes, 0.5, 1, false), [0.8]);
    }

    #[test]
    fn classes_do_not_suppress_each_other_unless_asked() {
        let boxes = [
            scored([0.0, 0.0, 10.0, 10.0], 0.8, 0),
            scored([0.0, 0.0, 10.0, 10.0], 0.9, 3),
        ];
        assert_eq!(kept(&boxes, 0.5, 9, false), [0.9, 0.8]);
        assert_eq!(kept(&boxes, 0.5, 9, true), [0.9]);
    }

    #[test]
    fn of_equal_scores_the_earlier_one_is_better() {
        let boxes = [
            scored([0.0, 0.0, 10.0, 10.0], 0.8, 1),
            scored([0.0, 0.0, 10.0, 10.0], 0.8, 2),
        ];
        let limits = BoxLimits {
            max_iou: 0.5,
            max_boxes: 9,
            class_agnostic: true,
        };
        assert_eq!(keep_boxes(&boxes, limits), [0]);
    }

    #[test]
    fn empty_masks_suppress_nothing() {
        let empty = PackedMask::of(&[-1.0; 4]);
        let masks = [empty.clone(), empty, PackedMask::of(&[1.0; 4])];
        assert_eq!(keep_masks(&[0.9, 0.8, 0.7], &masks, 0.1), [true; 3]);
    }
}
