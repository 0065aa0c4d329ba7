//! Batches of objects that recall frames of their own choice, on a backend that records runs; and the option of the program.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use snow_ort::runtime::recorded::{Behaviour, Recorded, Value};
use snow_ort::runtime::{Backend as _, Element};
use snow_ort::tracker::memory_bank::Slots;
use snow_ort::tracker::memory_policy::Parameters;
use snow_ort::tracker::{FrameResult, Graphs, ModelSpec, Prompt, Tracker, TrackerOptions};

use crate::fake::{Desk, read_json};

const SIDE: usize = 4;

fn floats(shape: &[usize], data: Vec<f32>) -> Value {
    assert_eq!(data.len(), shape.iter().product::<usize>());
    Value {
        element: Element::F32,
        shape: shape.to_vec(),
        data,
    }
}

/// Graphs that hand on who an object is: what its box said goes into its pointer, and from there into its features. The second
/// object is not seen on frame 3.
fn backend() -> Recorded {
    let vision: Behaviour = Arc::new(|inputs| {
        let mark = inputs["image"].data[0];
        let names = [
            "features_nlc",
            "features_no_memory_nlc",
            "high_res_0_nchw",
            "high_res_1_nchw",
        ];
        let one = |name: &str| (name.to_owned(), floats(&[1, 1, 1], vec![mark]));
        names.into_iter().map(one).collect()
    });
    let attention: Behaviour = Arc::new(|inputs| {
        let objects = inputs["memory_time"].shape[0];
        let whose = &inputs["pointers_cond"].data;
        let first = (0..objects).map(|row| whose[row * whose.len() / objects]);
        BTreeMap::from([(
            "conditioned_nlc".to_owned(),
            floats(&[objects, 1, 1], first.collect()),
        )])
    });
    let decoder: Behaviour = Arc::new(|inputs| {
        let objects = inputs["point_labels"].shape[0];
        let frame = inputs["high_res_1_nchw"].data[0];
        let prompted = inputs["point_labels"].data[0] > 0.0;
        let whose: Vec<f32> = match prompted {
            true => vec![inputs["point_coords"].data[0]],
            false => inputs["embeddings_nlc"].data.clone(),
        };
        let lost = |who: &f32| frame == 3.0 && *who > 2.0;
        let score = whose
            .iter()
            .map(|who| if lost(who) { -1.0 } else { 2.0 })
            .collect();
        BTreeMap::from([
            (
                "low_res_masks".to_owned(),
                floats(&[objects, 1, 1], whose.clone()),
            ),
            ("object_score".to_owned(), floats(&[objects], score)),
            ("iou".to_owned(), floats(&[objects], vec![0.5; objects])),
            ("pointers".to_owned(), floats(&[objects, 1, 1], whose)),
        ])
    });
    let encoder: Behaviour = Arc::new(|inputs| {
        let objects = inputs["object_score"].shape[0];
        let frame = inputs["features_nlc"].data[0];
        BTreeMap::from([(
            "memory_nlc".to_owned(),
            floats(&[objects, 1, 1], vec![frame; objects]),
        )])
    });
    Recorded::default()
        .with("vision_encoder", vision)
        .with("memory_attention", attention)
        .with("mask_decoder", decoder)
        .with("memory_encoder", encoder)
}

/// A frame's results, and for each run of the memory attention how many objects it had and of which frames memories.
type Seen = (FrameResult, Vec<(usize, Vec<usize>)>);

/// Two objects with a prompt on frame 0, for nine frames.
fn track(chunk: usize, memory_selection: Option<f32>) -> Vec<Seen> {
    let recorded = backend();
    let load = |role: &str| recorded.load(role, Path::new("none")).unwrap();
    let graphs = Graphs {
        vision_encoder: load("vision_encoder"),
        memory_attention: load("memory_attention"),
        mask_decoder: load("mask_decoder"),
        memory_encoder: load("memory_encoder"),
    };
    let spec = ModelSpec {
        has_direct: false,
        value_gap: 0,
        resolution: SIDE,
        low_size: 1,
        policy: Parameters {
            num_maskmem: 3,
            max_cond_frames: 1,
            max_object_pointers: 4,
            multimask_output_in_sam: true,
            multimask_output_for_tracking: true,
            multimask_min_points: 0,
            multimask_max_points: 1,
            memory_selection,
        },
        slots: Slots {
            memories: 3,
            pointers: 3,
            channels: 1,
            memory_element: Element::F32,
            pointer_element: Element::F32,
        },
    };
    let options = TrackerOptions {
        num_frames: 9,
        chunk,
    };
    let mut tracker =
        Tracker::from_parts(spec, Arc::new(recorded.clone()), graphs, options).unwrap();
    let prompts: Vec<Prompt> = [(1, 1.0), (2, 3.0)]
        .into_iter()
        .map(|(object, left)| Prompt {
            object,
            bbox: Some([left, 0.0, 4.0, 4.0]),
            ..Prompt::default()
        })
        .collect();
    (0..9)
        .map(|frame| {
            let before = recorded.calls().len();
            let due = if frame == 0 { &prompts[..] } else { &[] };
            let image = vec![frame as u8; SIDE * SIDE * 3];
            let seen = tracker.step(frame, image, (4, 4), due).unwrap();
            let calls = recorded.calls();
            let attended = calls[before..]
                .iter()
                .filter(|(role, _)| role == "memory_attention");
            let attended = attended.map(|(_, inputs)| {
                let slots = (0..3).map(|slot| &inputs[&format!("memory_{slot}")]);
                let frames = slots.filter_map(|slot| slot.data.first().map(|mark| *mark as usize));
                (inputs["memory_time"].shape[0], frames.collect())
            });
            (seen, attended.collect())
        })
        .collect()
}

#[test]
fn objects_that_recall_other_frames_go_apart_and_together_again() {
    let seen = track(8, Some(0.01));
    let attended: Vec<_> = seen.iter().map(|(_, attended)| attended.clone()).collect();
    assert_eq!(attended[3], [(2, vec![0, 1, 2])]);
    // The frame just before is recalled in any case, and from then on not by the object that was lost on it.
    assert_eq!(attended[4], [(1, vec![0, 2, 3]), (1, vec![0, 2, 3])]);
    assert_eq!(attended[5], [(1, vec![0, 3, 4]), (1, vec![0, 2, 4])]);
    assert_eq!(attended[6], [(1, vec![0, 4, 5]), (1, vec![0, 4, 5])]);
    // Nothing of what they differ in can be recalled any more.
    assert_eq!(attended[7], [(2, vec![0, 5, 6])]);

    let all = track(8, None);
    assert_eq!(all[5].1, [(2, vec![0, 3, 4])]);
    let one_by_one = track(1, Some(0.01));
    let results = |seen: &[Seen]| {
        seen.iter()
            .map(|(result, _)| result.clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(results(&one_by_one), results(&seen));
}

#[test]
fn a_selection_is_asked_for_or_the_bundles_own() {
    let mut desk = Desk::new();
    let run = |desk: &Desk, more: &[&str]| {
        let args = [
            &["in", "--box", "1,1,9,9", "--out", "out", "--overwrite"][..],
            more,
        ]
        .concat();
        desk.run(&args).succeeds();
        read_json(&desk.path("out/run.json"))["runtime"]["memory_selection"].as_f64()
    };
    assert_eq!(run(&desk, &[]), None);
    assert_eq!(run(&desk, &["--memory-selection", "0.01"]), Some(0.01));
    assert_eq!(
        run(
            &desk,
            &["--memory-selection", "0.01", "--mem-limit", "64MiB"]
        ),
        Some(0.01)
    );
    desk.bundle
        .change(|m| m["policy"]["memory_selection"] = 0.02.into());
    assert_eq!(run(&desk, &[]), Some(0.02));
    assert_eq!(run(&desk, &["--memory-selection", "all"]), None);
    for wrong in ["1", "-0.1", "some", "NaN"] {
        let ran = desk.run(&["in", "--box", "1,1,9,9", "--memory-selection", wrong]);
        ran.refuses(&["--memory-selection", "from 0 to less than 1, or all"]);
    }
    desk.bundle
        .change(|m| m["policy"]["memory_selection"] = 3.into());
    desk.run(&["in", "--box", "1,1,9,9"])
        .refuses(&["memory_selection", "3", "less than 1"]);
}
