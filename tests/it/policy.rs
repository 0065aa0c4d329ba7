//! The memory policy against recordings of the reference (`tests/parity/record_policy.py`).

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use snow_ort::tracker::memory_policy::{
    History, MemoryRef, Parameters, PointerRef, memory_score, pointer_horizon, reachable, recall,
    use_multimask,
};

#[derive(Deserialize)]
struct Golden {
    parameters: GoldenParameters,
    num_frames: usize,
    recalls: Vec<GoldenRecall>,
}

#[derive(Deserialize)]
struct GoldenParameters {
    num_maskmem: usize,
    max_cond_frames: usize,
    max_object_pointers: usize,
}

#[derive(Deserialize)]
struct GoldenRecall {
    object: usize,
    frame: usize,
    cond: Vec<usize>,
    tracked: BTreeSet<usize>,
    memories: Vec<(usize, usize)>,
    cond_pointers: Vec<(usize, usize)>,
    pointers: Vec<(usize, usize)>,
    horizon: Option<usize>,
}

impl GoldenParameters {
    fn parameters(&self) -> Parameters {
        Parameters {
            num_maskmem: self.num_maskmem,
            max_cond_frames: self.max_cond_frames,
            max_object_pointers: self.max_object_pointers,
            multimask_output_in_sam: true,
            multimask_output_for_tracking: true,
            multimask_min_points: 0,
            multimask_max_points: 1,
            memory_selection: None,
        }
    }
}

fn goldens() -> Vec<(PathBuf, Golden)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/policy");
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    let read = |path: PathBuf| {
        let golden = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        (path, golden)
    };
    paths.into_iter().map(read).collect()
}

fn pointers(golden: &[(usize, usize)]) -> Vec<PointerRef> {
    golden
        .iter()
        .map(|&(frame, distance)| PointerRef { frame, distance })
        .collect()
}

#[test]
fn recalls_what_the_reference_recalls() {
    let mut compared = 0;
    for (path, golden) in goldens() {
        let parameters = golden.parameters.parameters();
        for one in &golden.recalls {
            let history = History {
                conditioning: one.cond.clone(),
                tracked: one.tracked.clone(),
                ..History::default()
            };
            let got = recall(&parameters, &history, one.frame, golden.num_frames);
            let place = format!(
                "{}, object {}, frame {}",
                path.display(),
                one.object,
                one.frame
            );
            let memories: Vec<MemoryRef> = one
                .memories
                .iter()
                .map(|&(frame, time_row)| MemoryRef { frame, time_row })
                .collect();
            assert_eq!(got.memories, memories, "{place}");
            assert_eq!(
                got.conditioning_pointers,
                pointers(&one.cond_pointers),
                "{place}"
            );
            assert_eq!(got.pointers, pointers(&one.pointers), "{place}");
            if let Some(horizon) = one.horizon {
                assert_eq!(
                    pointer_horizon(&parameters, golden.num_frames),
                    horizon,
                    "{place}"
                );
            }
            compared += 1;
        }
    }
    assert!(compared > 100, "only {compared} recalls compared");
}

/// Everything that any later frame recalls, whatever prompts come on frames not reached yet, must have been kept.
#[test]
fn nothing_is_forgotten_too_early() {
    let parameters = GoldenParameters {
        num_maskmem: 4,
        max_cond_frames: 2,
        max_object_pointers: 6,
    }
    .parameters();
    let frames = 11_u32;
    for prompts in (0..1_u32 << frames).filter(|bits| bits & 1 == 1) {
        let mut history = History::default();
        let mut memories = BTreeSet::new();
        let mut kept_pointers = BTreeSet::new();
        for frame in 0..frames as usize {
            if prompts >> frame & 1 == 1 {
                history.conditioning.push(frame);
            } else {
                let wanted = recall(&parameters, &history, frame, frames as usize);
                assert!(
                    wanted
                        .memories
                        .iter()
                        .all(|memory| memories.contains(&memory.frame)),
                    "{prompts:b} {frame}"
                );
                let mut used = wanted.pointers.iter().chain(&wanted.conditioning_pointers);
                assert!(
                    used.all(|pointer| kept_pointers.contains(&pointer.frame)),
                    "{prompts:b} {frame}"
                );
                history.tracked.insert(frame);
            }
            memories.insert(frame);
            kept_pointers.insert(frame);
            let keep = |kept: &usize| reachable(&parameters, &history, *kept, frame + 1);
            memories.retain(|kept| keep(kept).memory);
            kept_pointers.retain(|kept| keep(kept).pointer);
            let tracked_memories = parameters.num_maskmem - 1 + parameters.max_cond_frames;
            assert!(
                memories.len() <= tracked_memories,
                "{} memories are kept",
                memories.len()
            );
        }
    }
}

#[test]
fn several_masks_are_for_few_points_only() {
    let parameters = GoldenParameters {
        num_maskmem: 7,
        max_cond_frames: 4,
        max_object_pointers: 16,
    }
    .parameters();
    assert!(use_multimask(&parameters, true, 1));
    assert!(use_multimask(&parameters, false, 0));
    assert!(
        !use_multimask(&parameters, true, 2),
        "a box counts two points"
    );
    let frugal = Parameters {
        multimask_output_for_tracking: false,
        ..parameters
    };
    assert!(!use_multimask(&frugal, false, 0));
    assert!(use_multimask(&frugal, true, 1));
    let none = Parameters {
        multimask_output_in_sam: false,
        ..parameters
    };
    assert!(!use_multimask(&none, true, 1));
}

/// Parameters of a small bank that recalls good frames only.
fn selecting() -> Parameters {
    let parameters = GoldenParameters {
        num_maskmem: 4,
        max_cond_frames: 2,
        max_object_pointers: 6,
    };
    Parameters {
        memory_selection: Some(0.01),
        ..parameters.parameters()
    }
}

/// Memories of tracked frames as (frame, row of the table), and pointers as (frame, distance).
type Selected = (Vec<(usize, usize)>, Vec<(usize, usize)>);

fn selected(history: &History, frame: usize, num_frames: usize) -> Selected {
    let recalled = recall(&selecting(), history, frame, num_frames);
    let memories = recalled.memories.iter();
    let memories = memories.filter(|memory| !history.conditioning.contains(&memory.frame));
    let pointers = recalled.pointers.iter();
    (
        memories
            .map(|memory| (memory.frame, memory.time_row))
            .collect(),
        pointers
            .map(|pointer| (pointer.frame, pointer.distance))
            .collect(),
    )
}

fn tracked(cond: &[usize], frames: std::ops::RangeInclusive<usize>, weak: &[usize]) -> History {
    History {
        conditioning: cond.to_vec(),
        tracked: frames.collect(),
        weak: weak.iter().copied().collect(),
    }
}

#[test]
fn a_memory_score_is_certainty_times_iou() {
    assert_eq!(memory_score(-3.0, 0.9), 0.0);
    assert_eq!(memory_score(0.0, 0.9), 0.0);
    // A logit of ln 3 is a share of 3/4: half of the way from 1/2 to 1.
    assert!((memory_score(3f32.ln(), 0.8) - 0.4).abs() < 1e-6);
    assert!((memory_score(30.0, 0.8) - 0.8).abs() < 1e-6);
}

#[test]
fn only_good_frames_are_recalled_by_their_place_among_them() {
    // 9, 7, 4, 3 and 2 are the nearest five good ones; the oldest of them gives no pointer.
    let history = tracked(&[0], 1..=9, &[5, 6, 8]);
    let memories = vec![(4, 2), (7, 1), (9, 0)];
    let pointers = vec![(9, 1), (7, 2), (4, 3), (3, 4)];
    assert_eq!(selected(&history, 10, 100), (memories, pointers));
    let cond = &recall(&selecting(), &history, 10, 100).memories[0];
    assert_eq!((cond.frame, cond.time_row), (0, 3));

    // The frame just before is recalled whatever it is like, as a sixth.
    let history = tracked(&[0], 1..=9, &[9]);
    let memories = vec![(7, 2), (8, 1), (9, 0)];
    let pointers = vec![(9, 1), (8, 2), (7, 3), (6, 4), (5, 5)];
    assert_eq!(selected(&history, 10, 100), (memories, pointers));

    // Alone it gives no pointer.
    let history = tracked(&[0], 1..=9, &[1, 2, 3, 4, 5, 6, 7, 8, 9]);
    assert_eq!(selected(&history, 10, 100), (vec![(9, 0)], vec![]));

    // A good frame is recalled however long ago it was.
    let weak: Vec<usize> = (3..=99).collect();
    let history = tracked(&[0], 1..=99, &weak);
    let memories = vec![(1, 2), (2, 1), (99, 0)];
    assert_eq!(
        selected(&history, 100, 200),
        (memories, vec![(99, 1), (2, 2)])
    );
}

#[test]
fn the_first_frames_and_prompts_among_tracked_frames() {
    let prompted = History {
        conditioning: vec![0],
        ..History::default()
    };
    assert_eq!(selected(&prompted, 1, 100), (vec![], vec![]));
    assert_eq!(
        selected(&tracked(&[0], 1..=1, &[]), 2, 100),
        (vec![(1, 0)], vec![])
    );
    // A prompt takes the place of the frame just before, and nothing there.
    let history = tracked(&[0, 9], 1..=8, &[]);
    let pointers = vec![(8, 2), (7, 3), (6, 4), (5, 5)];
    assert_eq!(
        selected(&history, 10, 100),
        (vec![(7, 2), (8, 1)], pointers)
    );
    // Later it takes none.
    let mut history = history;
    history.tracked.insert(10);
    assert_eq!(selected(&history, 11, 100).0, [(7, 2), (8, 1), (10, 0)]);
    // The length of a short clip bounds how many are looked for: 9 and 7 are the nearest two.
    let history = tracked(&[0], 1..=9, &[8]);
    let (memories, pointers) = selected(&history, 10, 3);
    assert_eq!((memories, pointers), (vec![(7, 1), (9, 0)], vec![(9, 1)]));
    // Without a selection, a weak frame is like any other.
    let all = Parameters {
        memory_selection: None,
        ..selecting()
    };
    let plain = tracked(&[0], 1..=9, &[]);
    assert_eq!(
        recall(&all, &history, 10, 100),
        recall(&all, &plain, 10, 100)
    );
}

/// As `nothing_is_forgotten_too_early`, and what is forgotten makes no difference to what is recalled.
#[test]
fn no_good_frame_is_forgotten_too_early() {
    let parameters = selecting();
    let frames = 10_u32;
    for bits in 0..1_u32 << (2 * (frames - 1)) {
        // A prompt on every fourth combination only: there are many.
        let (weak, prompts) = (bits << 1, (bits >> (frames - 1)) << 1 | 1);
        if prompts.count_ones() > 3 {
            continue;
        }
        let (mut whole, mut held) = (History::default(), History::default());
        let mut memories = BTreeSet::new();
        let mut pointers = BTreeSet::new();
        for frame in 0..frames as usize {
            let wanted = recall(&parameters, &whole, frame, frames as usize);
            let place = format!("{prompts:b} {weak:b} {frame}");
            assert_eq!(
                recall(&parameters, &held, frame, frames as usize),
                wanted,
                "{place}"
            );
            assert!(
                wanted.memories.iter().all(|m| memories.contains(&m.frame)),
                "{place}"
            );
            let mut used = wanted.pointers.iter().chain(&wanted.conditioning_pointers);
            assert!(used.all(|p| pointers.contains(&p.frame)), "{place}");
            for history in [&mut whole, &mut held] {
                if prompts >> frame & 1 == 1 {
                    history.conditioning.push(frame);
                } else {
                    history.tracked.insert(frame);
                    if weak >> frame & 1 == 1 {
                        history.weak.insert(frame);
                    }
                }
            }
            memories.insert(frame);
            pointers.insert(frame);
            let kept = held.clone();
            let keep = |frame_: &usize| reachable(&parameters, &kept, *frame_, frame + 1);
            memories.retain(|frame| keep(frame).memory);
            pointers.retain(|frame| keep(frame).pointer);
            held.tracked
                .retain(|frame| memories.contains(frame) || pointers.contains(frame));
            held.weak.retain(|frame| held.tracked.contains(frame));
            // One more than without a selection: the frame just before.
            let most = parameters.num_maskmem + parameters.max_cond_frames;
            assert!(
                memories.len() <= most,
                "{place}: {} memories",
                memories.len()
            );
        }
    }
}
