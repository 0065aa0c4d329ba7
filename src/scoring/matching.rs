//! Which object of one result is which of another, where ids say nothing: by how alike their masks are over a clip.

use std::collections::BTreeMap;

/// Below this on the frames that show both, two objects are not the same.
pub const SAME: f64 = 0.5;

/// Collects, frame by frame, how alike the masks of objects of two sides are.
#[derive(Debug, Clone, Default)]
pub struct Matcher {
    /// Frames on which an object is seen, by side and id.
    shown: [BTreeMap<u32, u64>; 2],
    /// Sum of IoUs, and frames that show both, by pair.
    pairs: BTreeMap<(u32, u32), (f64, u64)>,
}

/// An object of the first side and its counterpart on the second.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Matched {
    /// The id on the first side.
    pub first: u32,
    /// The id on the second side.
    pub second: u32,
    /// Mean IoU, 0 to 1, over the frames that show either; 0 on those that show one alone.
    pub iou: f64,
}

impl Matcher {
    /// An object of the first (0) or second (1) side is seen on a frame.
    pub fn shows(&mut self, side: usize, id: u32) {
        *self.shown[side].entry(id).or_default() += 1;
    }

    /// Two objects that may be the same are both seen on a frame, with masks of this IoU, 0 to 1; to be told also where
    /// it is 0.
    pub fn pair(&mut self, first: u32, second: u32, iou: f64) {
        let (sum, frames) = self.pairs.entry((first, second)).or_default();
        *sum += iou;
        *frames += 1;
    }

    /// Ids of a side (0 or 1), with the number of frames that show each.
    pub fn side(&self, side: usize) -> &BTreeMap<u32, u64> {
        &self.shown[side]
    }

    /// The pairs, each object in one at most: greedily, the highest mean IoU over the frames that show either first. Of
    /// two objects whose IoU on the frames that show both is below [`SAME`] on average, neither is the other. In the
    /// order of the first side's ids.
    pub fn matches(&self) -> Vec<Matched> {
        let frames = |side: usize, id: &u32| self.shown[side].get(id).copied().unwrap_or(0);
        let mut candidates: Vec<Matched> = self
            .pairs
            .iter()
            .filter(|(_, (sum, both))| *sum / *both as f64 >= SAME)
            .map(|((first, second), (sum, both))| {
                let either = frames(0, first) + frames(1, second) - both;
                Matched {
                    first: *first,
                    second: *second,
                    iou: sum / either.max(1) as f64,
                }
            })
            .collect();
        // Stable: of equals the lower ids stay in front.
        candidates.sort_by(|a, b| b.iou.total_cmp(&a.iou));
        let mut matches: Vec<Matched> = Vec::new();
        for candidate in candidates {
            let free = |known: &Matched| {
                known.first != candidate.first && known.second != candidate.second
            };
            if matches.iter().all(free) {
                matches.push(candidate);
            }
        }
        matches.sort_by_key(|matched| matched.first);
        matches
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matcher(frames: &[&[(u32, u32, f64)]], alone: &[(usize, u32, u64)]) -> Matcher {
        let mut matcher = Matcher::default();
        for frame in frames {
            for side in 0..2 {
                let mut ids: Vec<u32> = frame
                    .iter()
                    .map(|(first, second, _)| [*first, *second][side])
                    .collect();
                ids.sort_unstable();
                ids.dedup();
                ids.iter().for_each(|id| matcher.shows(side, *id));
            }
            for (first, second, iou) in *frame {
                matcher.pair(*first, *second, *iou);
            }
        }
        for (side, id, frames) in alone {
            (0..*frames).for_each(|_| matcher.shows(*side, *id));
        }
        matcher
    }

    fn ids(matcher: &Matcher) -> Vec<(u32, u32)> {
        let pair = |matched: &Matched| (matched.first, matched.second);
        matcher.matches().iter().map(pair).collect()
    }

    #[test]
    fn the_most_alike_come_together_and_each_once() {
        let frame: &[(u32, u32, f64)] = &[(1, 7, 0.6), (1, 8, 0.9), (2, 7, 0.1), (2, 8, 0.8)];
        assert_eq!(ids(&matcher(&[frame, frame], &[])), [(1, 8)]);
        let frame: &[(u32, u32, f64)] = &[(1, 7, 0.6), (1, 8, 0.7), (2, 7, 0.1), (2, 8, 0.8)];
        assert_eq!(ids(&matcher(&[frame], &[])), [(1, 7), (2, 8)]);
        assert!(matcher(&[], &[(0, 1, 3)]).matches().is_empty());
    }

    #[test]
    fn frames_that_show_one_alone_count_as_nothing_in_common() {
        let found = matcher(&[&[(1, 7, 0.8)]], &[(0, 1, 2), (1, 7, 1)]);
        assert_eq!(found.side(0)[&1], 3);
        assert_eq!(
            found.matches(),
            [Matched {
                first: 1,
                second: 7,
                iou: 0.2
            }]
        );
        // One that is seen for longer with the same mask is preferred.
        let found = matcher(&[&[(1, 7, 0.9), (1, 8, 0.8)], &[(1, 8, 0.8)]], &[(0, 1, 0)]);
        assert_eq!(ids(&found), [(1, 8)]);
    }

    #[test]
    fn other_things_are_not_matched() {
        assert!(matcher(&[&[(1, 7, 0.49)]], &[]).matches().is_empty());
        assert_eq!(ids(&matcher(&[&[(1, 7, 0.5)]], &[])), [(1, 7)]);
    }
}
