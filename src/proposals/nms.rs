//! Non-maximum suppression.

use super::decode::Candidate;

/// Most candidates that are looked at, the best ones, as in Ultralytics.
const MOST: usize = 30_000;

/// Intersection over union of two boxes, x1, y1, x2, y2; 0 where neither has an area.
pub fn iou(a: &[f32; 4], b: &[f32; 4]) -> f32 {
    let area = |b: &[f32; 4]| (b[2] - b[0]).max(0.0) * (b[3] - b[1]).max(0.0);
    let width = (a[2].min(b[2]) - a[0].max(b[0])).max(0.0);
    let height = (a[3].min(b[3]) - a[1].max(b[1])).max(0.0);
    let both = width * height;
    let union = area(a) + area(b) - both;
    if union > 0.0 { both / union } else { 0.0 }
}

/// The candidates from the best score down that no better one of their class overlaps by more than `most_iou`, at most
/// `most`; of any class where `agnostic`. Of equal scores the earlier one is better.
///
/// Reference: torchvision's `nms`, class by class. Ultralytics shifts the boxes of each class apart instead, which is the
/// same but for the last bits of coordinates.
pub fn suppress(
    mut candidates: Vec<Candidate>,
    most_iou: f32,
    most: usize,
    agnostic: bool,
) -> Vec<Candidate> {
    candidates.sort_by(|a, b| b.score.total_cmp(&a.score));
    candidates.truncate(MOST);
    let mut kept: Vec<Candidate> = Vec::new();
    for candidate in candidates {
        if kept.len() >= most {
            break;
        }
        let hidden = kept.iter().any(|better| {
            (agnostic || better.class == candidate.class)
                && iou(&better.bbox, &candidate.bbox) > most_iou
        });
        if !hidden {
            kept.push(candidate);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(bbox: [f32; 4], score: f32, class: u32) -> Candidate {
        Candidate {
            bbox,
            score,
            class,
            coefficients: Vec::new(),
        }
    }

    fn scores(kept: &[Candidate]) -> Vec<f32> {
        kept.iter().map(|candidate| candidate.score).collect()
    }

    #[test]
    fn overlap_of_boxes() {
        let a = [0.0, 0.0, 4.0, 4.0];
        assert_eq!(iou(&a, &a), 1.0);
        assert_eq!(iou(&a, &[2.0, 0.0, 6.0, 4.0]), 8.0 / 24.0);
        assert_eq!(iou(&a, &[4.0, 0.0, 8.0, 4.0]), 0.0);
        assert_eq!(iou(&[1.0; 4], &[1.0; 4]), 0.0);
    }

    #[test]
    fn the_better_of_two_that_overlap_stays_and_only_what_stays_hides() {
        // 0.8 hides 0.7, which alone would hide 0.6.
        let boxes = || {
            vec![
                candidate([4.0, 0.0, 14.0, 10.0], 0.6, 0),
                candidate([0.0, 0.0, 10.0, 10.0], 0.8, 0),
                candidate([2.0, 0.0, 12.0, 10.0], 0.7, 0),
            ]
        };
        assert_eq!(scores(&suppress(boxes(), 0.5, 9, false)), [0.8, 0.6]);
        // An overlap equal to the most is allowed: 8 of 12 columns are shared.
        let exactly = iou(&[0.0, 0.0, 10.0, 10.0], &[2.0, 0.0, 12.0, 10.0]);
        let kept = suppress(boxes(), exactly, 9, false);
        assert_eq!(scores(&kept), [0.8, 0.7, 0.6]);
        assert_eq!(scores(&suppress(boxes(), 0.5, 1, false)), [0.8]);
    }

    #[test]
    fn classes_do_not_hide_each_other_unless_asked() {
        let boxes = || {
            vec![
                candidate([0.0, 0.0, 10.0, 10.0], 0.8, 0),
                candidate([0.0, 0.0, 10.0, 10.0], 0.9, 3),
            ]
        };
        assert_eq!(scores(&suppress(boxes(), 0.5, 9, false)), [0.9, 0.8]);
        assert_eq!(scores(&suppress(boxes(), 0.5, 9, true)), [0.9]);
    }
}
