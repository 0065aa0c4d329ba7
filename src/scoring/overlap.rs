//! How much of each label of one map lies under each label of another.

use std::collections::BTreeMap;

use super::{IGNORED, SizeError};
use crate::masks::Iou;

/// Pixels of the labels of two maps, and of each pair of labels that meet. Background (0) is no label.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overlaps {
    /// Pixels of each label of the ground truth.
    pub expected: BTreeMap<u16, u64>,
    /// Pixels of each label of the result.
    pub got: BTreeMap<u16, u64>,
    /// Pixels that have one label in the ground truth and the other in the result.
    pub both: BTreeMap<(u16, u16), u64>,
}

impl Overlaps {
    /// Of two label maps of `width * height` pixels; those that the ground truth marks with [`IGNORED`] count for nothing.
    ///
    /// # Errors
    /// A map has another length.
    pub fn of(expected: &[u16], got: &[u16], width: u32, height: u32) -> Result<Self, SizeError> {
        SizeError::check(expected, got, width, height)?;
        let mut pairs: BTreeMap<(u16, u16), u64> = BTreeMap::new();
        let mut rest = expected.iter().zip(got).peekable();
        // Whole runs of one pair, so that it is looked up once for many pixels.
        while let Some((expected, got)) = rest.next() {
            let mut count = 1;
            while rest.next_if_eq(&(expected, got)).is_some() {
                count += 1;
            }
            *pairs.entry((*expected, *got)).or_default() += count;
        }
        let mut overlaps = Self::default();
        for ((expected, got), count) in pairs {
            if expected == IGNORED {
                continue;
            }
            if expected != 0 {
                *overlaps.expected.entry(expected).or_default() += count;
            }
            if got != 0 {
                *overlaps.got.entry(got).or_default() += count;
            }
            if expected != 0 && got != 0 {
                overlaps.both.insert((expected, got), count);
            }
        }
        Ok(overlaps)
    }

    /// Intersection over union of a label of the ground truth and one of the result, 0 to 1; 0 if no pixel has either.
    pub fn iou(&self, expected: u16, got: u16) -> f64 {
        let pixels = |map: &BTreeMap<u16, u64>, label| map.get(&label).copied().unwrap_or(0);
        let both = self.both.get(&(expected, got)).copied().unwrap_or(0);
        let areas = (pixels(&self.expected, expected), pixels(&self.got, got));
        Iou::of_areas(areas.0, areas.1, both).or(0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_that_meet_are_counted_but_for_ignored_pixels() {
        let expected = [1, 1, 1, 2, 0, 0, IGNORED, 2];
        let got = [7, 7, 0, 7, 8, 0, 7, 0];
        let overlaps = Overlaps::of(&expected, &got, 4, 2).unwrap();
        assert_eq!(overlaps.expected, BTreeMap::from([(1, 3), (2, 2)]));
        assert_eq!(overlaps.got, BTreeMap::from([(7, 3), (8, 1)]));
        assert_eq!(overlaps.both, BTreeMap::from([((1, 7), 2), ((2, 7), 1)]));
        assert_eq!(overlaps.iou(1, 7), 0.5);
        assert_eq!(overlaps.iou(2, 7), 0.25);
        assert_eq!(overlaps.iou(2, 8), 0.0);
        // Labels that no pixel has.
        assert_eq!(overlaps.iou(5, 9), 0.0);
        assert!(Overlaps::of(&expected, &got[1..], 4, 2).is_err());
    }
}
