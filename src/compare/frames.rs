//! Chooses the frames of a clip that the page shows.

use std::collections::BTreeMap;

use super::report::{ShownFrame, VariantReport, Worst};

/// The object that agrees least with the baseline on each frame. An object that only one run found counts on the first
/// frame that shows it, with an IoU of 0.
pub fn worst_per_frame(variants: &[VariantReport]) -> BTreeMap<u64, Worst> {
    let mut worst: BTreeMap<u64, Worst> = BTreeMap::new();
    for variant in variants {
        let texts = variant.found_objects.iter().flat_map(|found| &found.texts);
        for object in texts.flat_map(|text| &text.objects) {
            // Objects that both found follow below, frame by frame.
            let alone = match (object.object, object.variant_object) {
                (Some(id), None) => object.first_frame.map(|frame| (id, frame, false)),
                (None, Some(id)) => object.variant_first_frame.map(|frame| (id, frame, true)),
                _ => None,
            };
            if let Some((object, frame, of_variant)) = alone {
                let nothing = Worst {
                    variant: variant.name.clone(),
                    object,
                    of_variant,
                    iou: 0.0,
                };
                worst.insert(frame, nothing);
            }
        }
        let objects = variant
            .agreement
            .iter()
            .flat_map(|agreement| &agreement.objects);
        for object in objects {
            for frame in &object.per_frame {
                let here = || Worst {
                    variant: variant.name.clone(),
                    object: object.object,
                    of_variant: false,
                    iou: frame.iou,
                };
                let known = worst.entry(frame.frame).or_insert_with(here);
                if frame.iou < known.iou {
                    *known = here();
                }
            }
        }
    }
    worst
}

/// Chooses at most `max` of the frames `0..frames`. Half of them are those on which variants agree least with the baseline,
/// at a distance from each other; the others are spread evenly over the clip. The first half comes first, by its IoU; the
/// others follow in the order of the clip. `worst` comes from [`worst_per_frame`] and is empty without a comparison.
pub fn choose(frames: u64, worst: &BTreeMap<u64, Worst>, max: usize) -> Vec<ShownFrame> {
    let max = (max as u64).min(frames);
    let shown = |frame: u64, among_worst: bool| ShownFrame {
        frame,
        worst: worst.get(&frame).cloned(),
        among_worst,
    };
    let mut ranked: Vec<(u64, f64)> = worst
        .iter()
        .map(|(frame, worst)| (*frame, worst.iou))
        .collect();
    ranked.retain(|(frame, iou)| *frame < frames && *iou < 1.0);
    ranked.sort_by(|a, b| a.1.total_cmp(&b.1).then(a.0.cmp(&b.0)));
    // Neighbouring frames look alike: one of them is enough.
    let apart = (frames / (2 * max).max(1)).max(1);
    let mut chosen: Vec<ShownFrame> = Vec::new();
    for (frame, _) in ranked {
        if chosen.len() as u64 >= max.div_ceil(2) {
            break;
        }
        if chosen
            .iter()
            .all(|other| other.frame.abs_diff(frame) >= apart)
        {
            chosen.push(shown(frame, true));
        }
    }
    let others: Vec<u64> = (0..frames)
        .filter(|frame| chosen.iter().all(|other| other.frame != *frame))
        .collect();
    let free = max as usize - chosen.len();
    let rest = (0..free).map(|place| match free {
        1 => others[0],
        _ => others[place * (others.len() - 1) / (free - 1)],
    });
    let rest: Vec<ShownFrame> = rest.map(|frame| shown(frame, false)).collect();
    chosen.extend(rest);
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::doubles::{agreeing, timed};

    fn at(ious: impl IntoIterator<Item = (u64, f64)>) -> BTreeMap<u64, Worst> {
        let worst = |iou| Worst {
            variant: "b".to_owned(),
            object: 1,
            of_variant: false,
            iou,
        };
        ious.into_iter()
            .map(|(frame, iou)| (frame, worst(iou)))
            .collect()
    }

    #[test]
    fn the_worst_come_first_and_the_rest_is_spread() {
        let mut worst = at((0..100).map(|frame| (frame, 1.0)));
        worst.extend(at([(50, 0.1), (51, 0.2), (80, 0.3), (81, 0.05), (20, 0.9)]));
        let chosen = choose(100, &worst, 8);
        let frames: Vec<u64> = chosen.iter().map(|shown| shown.frame).collect();
        assert_eq!(frames, [81, 50, 20, 0, 25, 49, 74, 99]);
        assert_eq!(chosen[0].worst.as_ref().unwrap().iou, 0.05);
        assert!(chosen[2].among_worst && !chosen[3].among_worst);
    }

    #[test]
    fn short_clips_and_clips_without_a_comparison() {
        let frames = |frames: u64, worst: &BTreeMap<u64, Worst>, max: usize| -> Vec<u64> {
            choose(frames, worst, max)
                .iter()
                .map(|shown| shown.frame)
                .collect()
        };
        let none = BTreeMap::new();
        assert_eq!(frames(3, &none, 24), [0, 1, 2]);
        assert_eq!(frames(1, &none, 24), [0]);
        assert_eq!(frames(0, &none, 24), [0; 0]);
        assert_eq!(frames(100, &none, 1), [0]);
        assert_eq!(frames(2, &at([(1, 0.4), (0, 0.2)]), 1), [0]);
        assert_eq!(frames(3, &at([(1, 0.4)]), 3), [1, 0, 2]);
        assert_eq!(
            frames(3, &at([(0, 0.5), (1, 0.5), (2, 0.5)]), 24),
            [0, 1, 2]
        );
    }

    #[test]
    fn the_worst_of_a_frame_names_its_variant() {
        let of = |name: &str, iou: f64| agreeing(timed(name, &[1.0]), iou);
        let worst =
            worst_per_frame(&[timed("a", &[1.0]), of("b", 0.7), of("c", 0.6), of("d", 0.9)]);
        assert_eq!(worst.len(), 2);
        assert_eq!((worst[&1].variant.as_str(), worst[&1].iou), ("c", 0.6));
        assert!(worst_per_frame(&[timed("a", &[1.0])]).is_empty());
    }
}
