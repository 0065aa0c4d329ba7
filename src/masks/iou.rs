//! Intersection over union, of masks ([`Iou`]) and of boxes ([`BoxIou`]).
//!
//! Two empty masks have no ratio, and what it should be depends on the question: two results that both show nothing agree
//! (1), two objects of which neither is seen are no match (0). So each call says it: `iou.or(1.0)`, `iou.or(0.0)`.

use super::Mask;

/// The intersection and union of two masks, in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Iou {
    /// Pixels that are in both masks.
    pub intersection: u64,
    /// Pixels that are in at least one of the masks.
    pub union: u64,
}

impl Iou {
    /// Of two masks of the same size.
    pub fn of(one: &Mask, other: &Mask) -> Self {
        let pairs = one.pixels().iter().zip(other.pixels());
        Self::of_pixels(pairs.map(|(one, other)| (*one, *other)))
    }

    /// Of two masks that are given pixel by pixel.
    pub fn of_pixels(pairs: impl Iterator<Item = (bool, bool)>) -> Self {
        let (mut intersection, mut union) = (0, 0);
        for (one, other) in pairs {
            intersection += u64::from(one && other);
            union += u64::from(one || other);
        }
        Self {
            intersection,
            union,
        }
    }

    /// Of masks of `one` and `other` pixels that share `intersection` pixels.
    pub fn of_areas(one: u64, other: u64, intersection: u64) -> Self {
        Self {
            intersection,
            union: one + other - intersection,
        }
    }

    /// Of two masks of the same size that are given as runs (see [`Rle::runs`](super::Rle::runs)).
    pub fn of_runs(one: &[usize], other: &[usize]) -> Self {
        let (mut intersection, mut union) = (0, 0);
        // Place in each list, and what is left of its run there.
        let mut sides = [one, other].map(|runs| (runs, 0, runs.first().copied().unwrap_or(0)));
        loop {
            for (runs, place, left) in &mut sides {
                while *left == 0 && *place + 1 < runs.len() {
                    *place += 1;
                    *left = runs[*place];
                }
            }
            let step = sides[0].2.min(sides[1].2);
            if step == 0 {
                return Self {
                    intersection,
                    union,
                };
            }
            let inside = sides.each_ref().map(|(_, place, _)| place % 2 == 1);
            if inside[0] && inside[1] {
                intersection += step as u64;
            }
            if inside[0] || inside[1] {
                union += step as u64;
            }
            for (_, _, left) in &mut sides {
                *left -= step;
            }
        }
    }

    /// The ratio, 0 to 1; `both_empty` if neither mask has a pixel.
    pub fn or(self, both_empty: f64) -> f64 {
        match self.union {
            0 => both_empty,
            union => self.intersection as f64 / union as f64,
        }
    }

    /// As [`Iou::or`], divided in single precision as the reference's text tracking does it.
    pub fn or_f32(self, both_empty: f32) -> f32 {
        match self.union {
            0 => both_empty,
            union => self.intersection as f32 / union as f32,
        }
    }
}

/// The intersection and union of two boxes, in square pixels.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BoxIou {
    /// The area that is in both boxes.
    pub intersection: f32,
    /// The area that is in at least one of the boxes.
    pub union: f32,
}

impl BoxIou {
    /// Of two boxes, x1, y1, x2, y2. A box with x2 below x1 or y2 below y1 has no area.
    pub fn of(one: &[f32; 4], other: &[f32; 4]) -> Self {
        let area = |b: &[f32; 4]| (b[2] - b[0]).max(0.0) * (b[3] - b[1]).max(0.0);
        let width = (one[2].min(other[2]) - one[0].max(other[0])).max(0.0);
        let height = (one[3].min(other[3]) - one[1].max(other[1])).max(0.0);
        let intersection = width * height;
        Self {
            intersection,
            union: area(one) + area(other) - intersection,
        }
    }

    /// The ratio, 0 to 1; `both_empty` if neither box has an area.
    pub fn or(self, both_empty: f32) -> f32 {
        if self.union > 0.0 {
            self.intersection / self.union
        } else {
            both_empty
        }
    }
}

/// A mask with one bit a pixel, for many IoUs of the same masks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackedMask {
    words: Vec<u64>,
    area: u32,
}

impl PackedMask {
    /// The pixels whose logit is above 0.
    pub fn of(logits: &[f32]) -> Self {
        let mut words = vec![0u64; logits.len().div_ceil(64)];
        for (index, _) in logits.iter().enumerate().filter(|(_, logit)| **logit > 0.0) {
            words[index / 64] |= 1 << (index % 64);
        }
        let area = words.iter().map(|word| word.count_ones()).sum();
        Self { words, area }
    }

    /// The number of pixels.
    pub fn area(&self) -> u32 {
        self.area
    }

    /// Intersection and union with a mask of the same size.
    pub fn iou(&self, other: &Self) -> Iou {
        let pairs = self.words.iter().zip(&other.words);
        let both: u32 = pairs.map(|(a, b)| (a & b).count_ones()).sum();
        Iou::of_areas(self.area.into(), other.area.into(), both.into())
    }
}

#[cfg(test)]
mod tests {
    use super::super::Rle;
    use super::*;

    fn mask(pixels: [u8; 12]) -> Mask {
        Mask::new(4, 3, pixels.map(|pixel| pixel == 1).to_vec()).unwrap()
    }

    fn packed(mask: &Mask) -> PackedMask {
        let logits = mask.pixels().iter();
        let logits: Vec<f32> = logits.map(|inside| f32::from(*inside) - 0.5).collect();
        PackedMask::of(&logits)
    }

    #[test]
    fn every_way_to_an_iou_counts_the_same_pixels() {
        let left = mask([1, 1, 0, 0, 1, 1, 0, 0, 1, 1, 0, 0]);
        let top = mask([1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
        let empty = mask([0; 12]);
        for (one, other, intersection, union) in [
            (&left, &left, 6, 6),
            (&left, &top, 2, 8),
            (&left, &empty, 0, 6),
            (&empty, &empty, 0, 0),
        ] {
            let expected = Iou {
                intersection,
                union,
            };
            assert_eq!(Iou::of(one, other), expected);
            assert_eq!(
                Iou::of_areas(one.area(), other.area(), intersection),
                expected
            );
            assert_eq!(packed(one).iou(&packed(other)), expected);
            let by_runs = Rle::of(one).iou(&Rle::of(other)).unwrap();
            assert_eq!(by_runs, expected);
        }
    }

    #[test]
    fn the_caller_says_what_two_empty_masks_have() {
        let empty = Iou::of_areas(0, 0, 0);
        assert_eq!((empty.or(0.0), empty.or(1.0)), (0.0, 1.0));
        assert_eq!((empty.or_f32(0.0), empty.or_f32(1.0)), (0.0, 1.0));
        // One that is empty and one that is not: 0, whatever is said.
        assert_eq!(Iou::of_areas(3, 0, 0).or(1.0), 0.0);
        assert_eq!(Iou::of_areas(2, 2, 1).or(0.0), 1.0 / 3.0);
        assert_eq!(Iou::of_areas(2, 2, 1).or_f32(0.0), 1.0_f32 / 3.0);
    }

    #[test]
    fn overlap_of_boxes() {
        let a = [0.0, 0.0, 4.0, 4.0];
        let iou = |b: [f32; 4]| BoxIou::of(&a, &b).or(0.0);
        assert_eq!(iou(a), 1.0);
        assert_eq!(iou([2.0, 0.0, 6.0, 4.0]), 8.0 / 24.0);
        assert_eq!(iou([4.0, 0.0, 8.0, 4.0]), 0.0);
        let empty = BoxIou::of(&[1.0; 4], &[1.0; 4]);
        assert_eq!((empty.or(0.0), empty.or(1.0)), (0.0, 1.0));
        // A box of which an edge is no number has no area either.
        assert_eq!(iou([f32::NAN; 4]), 0.0);
    }
}
