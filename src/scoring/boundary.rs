//! How well the outlines of two masks agree.

use super::IGNORED;
use crate::masks::Mask;
use crate::masks::outline::{dilate, outline};

/// The share of the frame's diagonal by which outlines may be apart.
const TOLERANCE: f64 = 0.008;

/// How many pixels two outlines may be apart and still match: 0.008 of the frame's diagonal, rounded up.
pub fn tolerance(width: u32, height: u32) -> usize {
    let (width, height) = (f64::from(width), f64::from(height));
    // Not `hypot`: the benchmark's norm rounds like this, and the next whole number may hang on it.
    (TOLERANCE * (width * width + height * height).sqrt()).ceil() as usize
}

/// The part of a frame in which all outline pixels of two masks lie. x2 and y2 are exclusive.
pub(super) struct Crop {
    x1: usize,
    y1: usize,
    x2: usize,
    y2: usize,
    frame_width: usize,
}

impl Crop {
    /// One pixel wider than `bounds`, within the frame: an outline lies up to one pixel left of and above its mask, and
    /// with an empty row and column below and to the right the frame's border rules hold for the crop's border as well.
    pub(super) fn around([x1, y1, x2, y2]: [usize; 4], (width, height): (usize, usize)) -> Self {
        Self {
            x1: x1.saturating_sub(1),
            y1: y1.saturating_sub(1),
            x2: (x2 + 1).min(width),
            y2: (y2 + 1).min(height),
            frame_width: width,
        }
    }

    /// The outline of `object` in the label map `map` where `judge` does not say that pixels are ignored.
    pub(super) fn outline(&self, map: &[u16], judge: &[u16], object: u16) -> Mask {
        let (width, height) = (self.x2 - self.x1, self.y2 - self.y1);
        let mut mask = Mask::empty(width as u32, height as u32);
        let rows = mask.pixels_mut().chunks_exact_mut(width.max(1));
        for (y, row) in (self.y1..self.y2).zip(rows) {
            let part = y * self.frame_width + self.x1..y * self.frame_width + self.x2;
            let labels = map[part.clone()].iter().zip(&judge[part]);
            for (inside, (label, judge)) in row.iter_mut().zip(labels) {
                *inside = (*label == object) & (*judge != IGNORED);
            }
        }
        outline(&mask)
    }
}

/// The F-measure of two outlines, of which each pixel matches that has a pixel of the other within `radius`.
pub(super) fn f_measure(expected: &Mask, got: &Mask, radius: usize) -> f64 {
    let (wanted, found) = (expected.area(), got.area());
    match (wanted, found) {
        (0, 0) => return 1.0,
        (0, _) | (_, 0) => return 0.0,
        _ => {}
    }
    let matched = |outline: &Mask, other: &Mask| {
        let near = dilate(other, radius);
        let pairs = outline.pixels().iter().zip(near.pixels());
        pairs.filter(|(on, near)| **on && **near).count()
    };
    let precision = matched(got, expected) as f64 / found as f64;
    let recall = matched(expected, got) as f64 / wanted as f64;
    if precision + recall == 0.0 {
        0.0
    } else {
        2.0 * precision * recall / (precision + recall)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tolerance_grows_with_the_diagonal() {
        // 0.008 * 5 = 0.04; 0.008 * 500 = 4 exactly; 0.008 * 2202.9 = 17.6.
        assert_eq!(tolerance(4, 3), 1);
        assert_eq!(tolerance(400, 300), 4);
        assert_eq!(tolerance(1920, 1080), 18);
    }
    #[test]
    fn two_masks_without_an_outline_agree_and_one_alone_does_not() {
        let empty = Mask::empty(4, 3);
        let edge = Mask::from_fn(4, 3, |x, _| x == 1);
        assert_eq!(f_measure(&empty, &empty, 1), 1.0);
        assert_eq!(f_measure(&empty, &edge, 1), 0.0);
        assert_eq!(f_measure(&edge, &empty, 1), 0.0);
        assert_eq!(f_measure(&edge, &edge, 0), 1.0);
    }
}
