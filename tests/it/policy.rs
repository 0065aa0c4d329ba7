//! The memory policy against recordings of the reference (`tests/parity/record_policy.py`).

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use snow_ort::policy::{
    History, MemoryRef, Parameters, PointerRef, pointer_horizon, reachable, recall, use_multimask,
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
                cond: one.cond.clone(),
                tracked: one.tracked.clone(),
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
            assert_eq!(got.cond_pointers, pointers(&one.cond_pointers), "{place}");
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
                history.cond.push(frame);
            } else {
                let wanted = recall(&parameters, &history, frame, frames as usize);
                assert!(
                    wanted
                        .memories
                        .iter()
                        .all(|memory| memories.contains(&memory.frame)),
                    "{prompts:b} {frame}"
                );
                let mut used = wanted.pointers.iter().chain(&wanted.cond_pointers);
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
