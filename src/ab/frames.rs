//! Which frames of a clip are worth looking at.

use std::collections::BTreeMap;

use super::report::ShownFrame;

/// Chooses at most `most` of the frames `0..frames`: half of them where variants agree least with the baseline, apart from
/// each other, the rest spread evenly over the clip. `worst` has the lowest IoU of each frame; empty without a
/// comparison. The worst come first, then the others, in the order of the clip.
pub fn choose(frames: u64, worst: &BTreeMap<u64, f64>, most: usize) -> Vec<ShownFrame> {
    let most = (most as u64).min(frames);
    let shown = |frame: u64, among_worst: bool| ShownFrame {
        frame,
        worst_iou: worst.get(&frame).copied(),
        among_worst,
    };
    let mut ranked: Vec<(u64, f64)> = worst.iter().map(|(frame, iou)| (*frame, *iou)).collect();
    ranked.retain(|(frame, iou)| *frame < frames && *iou < 1.0);
    ranked.sort_by(|a, b| a.1.total_cmp(&b.1).then(a.0.cmp(&b.0)));
    // Neighbours look alike: one of them says what both would.
    let apart = (frames / (2 * most).max(1)).max(1);
    let mut chosen: Vec<ShownFrame> = Vec::new();
    for (frame, _) in ranked {
        if chosen.len() as u64 >= most.div_ceil(2) {
            break;
        }
        if chosen
            .iter()
            .all(|other| other.frame.abs_diff(frame) >= apart)
        {
            chosen.push(shown(frame, true));
        }
    }
    let free = most - chosen.len() as u64;
    let mut rest: Vec<u64> = (0..free)
        .map(|place| match free {
            1 => 0,
            _ => place * (frames - 1) / (free - 1),
        })
        .filter(|frame| chosen.iter().all(|other| other.frame != *frame))
        .collect();
    rest.dedup();
    chosen.extend(rest.into_iter().map(|frame| shown(frame, false)));
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_come_first_and_the_rest_is_spread() {
        let mut worst: BTreeMap<u64, f64> = (0..100).map(|frame| (frame, 1.0)).collect();
        worst.extend([(50, 0.1), (51, 0.2), (80, 0.3), (81, 0.05), (20, 0.9)]);
        let chosen = choose(100, &worst, 8);
        let frames: Vec<u64> = chosen.iter().map(|shown| shown.frame).collect();
        assert_eq!(frames, [81, 50, 20, 0, 24, 49, 74, 99]);
        assert_eq!(chosen[0].worst_iou, Some(0.05));
        assert!(chosen[2].among_worst && !chosen[3].among_worst);
    }

    #[test]
    fn short_clips_and_clips_without_a_comparison() {
        let frames = |frames: u64, worst: &BTreeMap<u64, f64>, most: usize| -> Vec<u64> {
            choose(frames, worst, most)
                .iter()
                .map(|shown| shown.frame)
                .collect()
        };
        let none = BTreeMap::new();
        assert_eq!(frames(3, &none, 24), [0, 1, 2]);
        assert_eq!(frames(1, &none, 24), [0]);
        assert_eq!(frames(0, &none, 24), [0; 0]);
        assert_eq!(frames(100, &none, 1), [0]);
        assert_eq!(frames(2, &BTreeMap::from([(1, 0.4), (0, 0.2)]), 1), [0]);
        assert_eq!(frames(3, &BTreeMap::from([(1, 0.4)]), 3), [1, 0, 2]);
    }
}
