//! The tracker on a recorded backend: what each graph is given, without any library.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use snow_ort::masks::Mask;
use snow_ort::runtime::recorded::{Behaviour, Call, Recorded, Value};
use snow_ort::runtime::{Backend, Element};
use snow_ort::tracker::memory_bank::Slots;
use snow_ort::tracker::memory_policy::Parameters;
use snow_ort::tracker::{
    FrameResult, Graphs, ModelSpec, Prompt, TrackError, Tracker, TrackerOptions,
};

const SIDE: usize = 4;
const TOKENS: usize = 4;
const CHANNELS: usize = 2;
const POINTER_TOKENS: usize = 2;
const LOW: usize = 2;
/// By how much keys are wider than values.
const GAP: usize = 3;

fn floats(shape: &[usize], value: impl Fn(usize) -> f32) -> Value {
    let count = shape.iter().product();
    Value {
        element: Element::F32,
        shape: shape.to_vec(),
        data: (0..count).map(value).collect(),
    }
}

fn spec() -> ModelSpec {
    ModelSpec {
        has_direct: false,
        value_gap: GAP,
        resolution: SIDE,
        low_size: LOW,
        policy: Parameters {
            num_maskmem: 3,
            max_cond_frames: 2,
            max_object_pointers: 4,
            multimask_output_in_sam: true,
            multimask_output_for_tracking: true,
            multimask_min_points: 0,
            multimask_max_points: 1,
            memory_selection: None,
        },
        slots: Slots {
            memories: 4,
            pointers: 3,
            channels: CHANNELS,
            memory_element: Element::F32,
            pointer_element: Element::F32,
        },
    }
}

/// Graphs that pass on the first byte of the image, so that a test sees which frame a tensor came from.
fn backend() -> Recorded {
    let vision: Behaviour = Arc::new(|inputs| {
        let mark = inputs["image"].data[0];
        BTreeMap::from([
            ("features_nlc".to_owned(), floats(&[1, TOKENS, 3], |_| mark)),
            (
                "features_no_memory_nlc".to_owned(),
                floats(&[1, TOKENS, 3], |_| mark + 0.5),
            ),
            (
                "high_res_0_nchw".to_owned(),
                floats(&[1, 1, 2, 2], |_| mark),
            ),
            (
                "high_res_1_nchw".to_owned(),
                floats(&[1, 1, 1, 1], |_| mark),
            ),
        ])
    });
    let attention: Behaviour = Arc::new(|inputs| {
        let objects = inputs["memory_time"].shape[0];
        BTreeMap::from([(
            "conditioned_nlc".to_owned(),
            floats(&[objects, TOKENS, 3], |i| i as f32),
        )])
    });
    let decoder: Behaviour = Arc::new(|inputs| {
        let objects = inputs["point_labels"].shape[0];
        let mark = inputs["high_res_1_nchw"].data[0];
        let row = POINTER_TOKENS * CHANNELS;
        BTreeMap::from([
            (
                "low_res_masks".to_owned(),
                floats(&[objects, LOW, LOW], |i| mark + (i / (LOW * LOW)) as f32),
            ),
            ("object_score".to_owned(), floats(&[objects], |_| 1.0)),
            ("iou".to_owned(), floats(&[objects], |_| 0.5)),
            (
                "pointers".to_owned(),
                floats(&[objects, POINTER_TOKENS, CHANNELS], |i| {
                    mark + (i / row) as f32 / 10.0
                }),
            ),
        ])
    });
    let encoder: Behaviour = Arc::new(|inputs| {
        let objects = inputs["object_score"].shape[0];
        let mark = inputs["features_nlc"].data[0];
        let row = TOKENS * CHANNELS;
        let memory = floats(&[objects, TOKENS, CHANNELS], |i| {
            mark + (i / row) as f32 / 10.0
        });
        BTreeMap::from([("memory_nlc".to_owned(), memory)])
    });
    Recorded::default()
        .with("vision_encoder", vision)
        .with("memory_attention", attention)
        .with("mask_decoder", decoder)
        .with("memory_encoder", encoder)
}

struct Bench {
    tracker: Tracker,
    recorded: Recorded,
}

impl Bench {
    fn new(chunk: usize, num_frames: usize) -> Self {
        Self::on(backend(), chunk, num_frames)
    }

    fn on(recorded: Recorded, chunk: usize, num_frames: usize) -> Self {
        let load = |role: &str| recorded.load(role, Path::new("none")).unwrap();
        let graphs = Graphs {
            vision_encoder: load("vision_encoder"),
            memory_attention: load("memory_attention"),
            mask_decoder: load("mask_decoder"),
            memory_encoder: load("memory_encoder"),
        };
        let options = TrackerOptions { num_frames, chunk };
        let tracker =
            Tracker::from_parts(spec(), Arc::new(recorded.clone()), graphs, options).unwrap();
        Self { tracker, recorded }
    }

    fn step(&mut self, frame: usize, prompts: &[Prompt]) -> FrameResult {
        let image = vec![frame as u8; SIDE * SIDE * 3];
        self.tracker.step(frame, image, (8, 8), prompts).unwrap()
    }

    /// Runs of one graph since `from` calls.
    fn runs(&self, role: &str, from: usize) -> Vec<BTreeMap<String, Value>> {
        let calls: Vec<Call> = self.recorded.calls();
        calls
            .into_iter()
            .skip(from)
            .filter(|(name, _)| name == role)
            .map(|(_, inputs)| inputs)
            .collect()
    }

    fn calls(&self) -> usize {
        self.recorded.calls().len()
    }
}

fn boxed(frame: usize, object: u32) -> Prompt {
    Prompt {
        frame,
        object,
        bbox: Some([1.0, 2.0, 5.0, 6.0]),
        ..Prompt::default()
    }
}

fn ids(result: &FrameResult) -> Vec<u32> {
    result.objects.iter().map(|object| object.object).collect()
}

#[test]
fn nothing_runs_before_the_first_prompt_and_objects_start_with_theirs() {
    let mut bench = Bench::new(8, 10);
    assert!(bench.step(0, &[]).objects.is_empty());
    assert_eq!(bench.calls(), 0);
    assert_eq!(ids(&bench.step(1, &[boxed(1, 7)])), [7]);
    assert_eq!(ids(&bench.step(2, &[])), [7]);
    assert_eq!(ids(&bench.step(3, &[boxed(3, 4)])), [7, 4]);
    assert_eq!(ids(&bench.step(4, &[])), [7, 4]);
}

/// The image is encoded once, whoever is seen first, and the object has the history of one that was prompted.
#[test]
fn an_object_that_comes_once_the_others_are_known_is_as_one_that_was_prompted() {
    let mut late = Bench::new(8, 10);
    let mut known = Bench::new(8, 10);
    let mut step = |frame: usize, prompts: &[Prompt], more: &[Prompt]| {
        let image = vec![frame as u8; SIDE * SIDE * 3];
        let mut seen = Vec::new();
        let result = late
            .tracker
            .step_then(frame, image, (8, 8), prompts, &mut |masks| {
                seen.push(masks.iter().map(|mask| mask.object).collect::<Vec<_>>());
                more.to_vec()
            });
        let all = [prompts, more].concat();
        assert_eq!(result.unwrap(), known.step(frame, &all));
        seen
    };
    // Without an object and without a new one, nothing runs.
    assert_eq!(step(0, &[], &[]), [[0; 0]]);
    assert_eq!(step(1, &[], &[boxed(1, 1)]), [[0; 0]]);
    assert_eq!(step(2, &[boxed(2, 5)], &[boxed(2, 3)]), [[1, 5]]);
    assert_eq!(step(3, &[], &[]), [[1, 5, 3]]);
    assert_eq!(late.runs("vision_encoder", 0).len(), 3);

    let image = vec![4; SIDE * SIDE * 3];
    let wrong = late
        .tracker
        .step_then(4, image, (8, 8), &[], &mut |_| vec![boxed(3, 9)]);
    assert!(wrong.unwrap_err().to_string().contains("for frame 3"));
}

#[test]
fn prompts_are_scaled_to_the_models_image() {
    let mut bench = Bench::new(8, 10);
    let both = Prompt {
        points: vec![[4.0, 4.0, 1.0], [0.0, 2.0, 0.0]],
        ..boxed(0, 1)
    };
    bench.step(0, &[both]);
    let decoder = &bench.runs("mask_decoder", 0)[0];
    // 8x8 source pixels to 4x4: half of everything; the box's corners stand first.
    assert_eq!(
        decoder["point_coords"].data,
        [0.5, 1.0, 2.5, 3.0, 2.0, 2.0, 0.0, 1.0]
    );
    assert_eq!(decoder["point_labels"].data, [2.0, 3.0, 1.0, 0.0]);
    assert_eq!(
        decoder["multimask"].data,
        [0.0],
        "four points ask for one mask"
    );
    assert_eq!(decoder["embeddings_nlc"].data[0], 0.5, "without memory");
    assert_eq!(
        bench.runs("memory_encoder", 0)[0]["from_prompt"].data,
        [1.0]
    );
}

#[test]
fn a_mask_prompt_takes_the_plain_features_and_stands_for_the_logits() {
    let mut bench = Bench::new(8, 10);
    let mask = Mask::from_fn(4, 4, |x, _| x == 0);
    bench.step(
        0,
        &[Prompt {
            frame: 0,
            object: 1,
            mask: Some(mask),
            ..Prompt::default()
        }],
    );
    let decoder = &bench.runs("mask_decoder", 0)[0];
    assert_eq!(decoder["embeddings_nlc"].data[0], 0.0);
    assert_eq!(decoder["has_mask_prompt"].data, [1.0]);
    assert_eq!(decoder["multimask"].data, [1.0]);
    assert_eq!(decoder["mask_prompt"].data, [1.0, 0.0, 0.0, 0.0].repeat(4));
    let encoder = &bench.runs("memory_encoder", 0)[0];
    assert_eq!(encoder["has_mask_prompt"].data, [1.0]);
    assert_eq!(encoder["mask_prompt"].data, [1.0, 0.0, 0.0, 0.0].repeat(4));
}

#[test]
fn a_tracked_frame_recalls_the_right_rows_of_the_right_frames() {
    let mut bench = Bench::new(8, 10);
    bench.step(0, &[boxed(0, 1), boxed(0, 2)]);
    for frame in 1..6 {
        bench.step(frame, &[]);
    }
    let from = bench.calls();
    bench.step(6, &[]);
    let runs = bench.runs("memory_attention", from);
    assert_eq!(runs.len(), 1, "objects with one history are one batch");
    let run = &runs[0];
    // Conditioning frame 0, then frames 4 and 5.
    let first = |name: &str| run[name].data.first().copied();
    assert_eq!(
        [first("memory_0"), first("memory_1"), first("memory_2")],
        [Some(0.0), Some(4.0), Some(5.0)]
    );
    assert_eq!(run["memory_3"].shape, [2, 0, CHANNELS]);
    assert_eq!(run["memory_time"].data, [2.0, 1.0, 0.0, 2.0, 1.0, 0.0]);
    // Pointers of frame 0 (six frames ago), 5, 4, 3, divided by four less one.
    let pointers = ["pointers_cond", "pointers_1", "pointers_2", "pointers_3"].map(first);
    assert_eq!(pointers, [Some(0.0), Some(5.0), Some(4.0), Some(3.0)]);
    let times: Vec<f32> = [6.0, 1.0, 2.0, 3.0]
        .iter()
        .map(|distance: &f32| distance / 3.0)
        .collect();
    assert_eq!(run["pointer_time"].data, times.repeat(2));
    assert_eq!(
        run["features_nlc"].data[0], 6.0,
        "the current frame's features"
    );
    let encoder = &bench.runs("memory_encoder", from)[0];
    assert_eq!(encoder["from_prompt"].data, [0.0, 0.0]);
}

#[test]
fn values_are_padded_where_attention_wants_them_as_wide_as_keys() {
    for (backend, width) in [(backend(), 0), (backend().with_equal_widths(), GAP)] {
        let mut bench = Bench::on(backend, 8, 3);
        bench.step(0, &[boxed(0, 1)]);
        bench.step(1, &[]);
        let padding = &bench.runs("memory_attention", 0)[0]["value_padding"];
        assert_eq!(padding.shape, [1, 1, width]);
        assert_eq!(padding.data, vec![0.0; width]);
    }
}

#[test]
fn short_clips_divide_by_their_own_length() {
    let mut bench = Bench::new(8, 3);
    bench.step(0, &[boxed(0, 1)]);
    bench.step(1, &[]);
    assert_eq!(
        bench.runs("memory_attention", 0)[0]["pointer_time"].data,
        [0.5]
    );
}

#[test]
fn chunks_bound_a_batch_and_change_nothing_else() {
    let prompts: Vec<Prompt> = (1..=5).map(|object| boxed(0, object)).collect();
    let sizes = |chunk: usize| {
        let mut bench = Bench::new(chunk, 10);
        bench.step(0, &prompts);
        let from = bench.calls();
        assert_eq!(ids(&bench.step(1, &[])), [1, 2, 3, 4, 5]);
        bench
            .runs("memory_attention", from)
            .iter()
            .map(|run| run["memory_time"].shape[0])
            .collect::<Vec<_>>()
    };
    assert_eq!(sizes(8), [5]);
    assert_eq!(sizes(2), [2, 2, 1]);
    assert_eq!(sizes(1), [1; 5]);
}

#[test]
fn a_refined_object_leaves_its_batch_and_keeps_its_memory() {
    let mut bench = Bench::new(8, 10);
    bench.step(0, &[boxed(0, 1), boxed(0, 2), boxed(0, 3)]);
    bench.step(1, &[]);
    let from = bench.calls();
    assert_eq!(ids(&bench.step(2, &[boxed(2, 2)])), [1, 2, 3]);
    let tracked = bench.runs("memory_attention", from);
    assert_eq!(tracked.len(), 1);
    assert_eq!(tracked[0]["memory_time"].shape[0], 2, "objects 1 and 3");
    let from = bench.calls();
    bench.step(3, &[]);
    let runs = bench.runs("memory_attention", from);
    assert_eq!(runs.len(), 2);
    let refined = runs
        .iter()
        .find(|run| run["memory_time"].shape[0] == 1)
        .unwrap();
    // Conditioning frames 0 and 2, and frame 1 between them; row 1 of the batch of three was object 2's.
    assert_eq!(refined["memory_0"].data[0], 0.0);
    assert_eq!(refined["memory_1"].data[0], 2.0);
    assert_eq!(refined["memory_2"].data[0], 1.1);
    assert_eq!(refined["memory_time"].data, [2.0, 2.0, 1.0]);
    assert_eq!(
        refined["pointers_cond"].shape,
        [1, 2 * POINTER_TOKENS, CHANNELS]
    );
}

#[test]
fn the_bank_does_not_grow_with_the_frames() {
    let mut bench = Bench::new(8, 4);
    bench.step(0, &[boxed(0, 1), boxed(0, 2)]);
    let mut sizes = Vec::new();
    for frame in 1..200 {
        let prompts = if frame % 40 == 0 {
            vec![boxed(frame, 1)]
        } else {
            Vec::new()
        };
        bench.step(frame, &prompts);
        sizes.push(bench.tracker.bank_bytes());
    }
    let (early, late) = (
        sizes[10..39].iter().max().unwrap(),
        sizes[165..].iter().max().unwrap(),
    );
    // One more conditioning memory, and one pointer for each conditioning frame, is all that may remain.
    let pointer = POINTER_TOKENS * CHANNELS * 4;
    assert!(
        late - early <= 4 * pointer + TOKENS * CHANNELS * 4,
        "{early} bytes early, {late} late"
    );
}

#[test]
fn a_prompt_of_another_frame_is_refused() {
    let mut bench = Bench::new(8, 10);
    let error = bench
        .tracker
        .step(1, vec![0; SIDE * SIDE * 3], (8, 8), &[boxed(0, 3)])
        .unwrap_err();
    assert!(
        matches!(
            error,
            TrackError::WrongFrame {
                frame: 1,
                object: 3,
                meant: 0
            }
        ),
        "{error}"
    );
}
