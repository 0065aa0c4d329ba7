//! The graphs that text tracking keeps open, on a backend that records them.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value as Json;
use snow_ort::bundle::Bundle;
use snow_ort::runtime::Element;
use snow_ort::runtime::recorded::{Recorded, Value};
use snow_ort::text_tracking::{TextTracker, TextTrackingOptions, parameters_of};
use snow_ort::tracker::TrackerOptions;

use crate::fake::{Desk, Ran, read_json, write_bundle};
use crate::fake_detector::{add_detector, give_detector};

const TRACKER: [&str; 4] = [
    "vision_encoder",
    "memory_attention",
    "mask_decoder",
    "memory_encoder",
];
const DETECTOR: [&str; 3] = ["detector_features", "detector", "detector_masks"];

/// A backend whose graphs give ones of the shapes that a manifest states.
fn backend(manifest: &Json) -> Recorded {
    let mut backend = Recorded::default();
    for graph in manifest["graphs"].as_array().unwrap() {
        let spec = graph.clone();
        let behave = move |inputs: &BTreeMap<String, Value>| {
            let mut lengths = BTreeMap::new();
            for input in spec["inputs"].as_array().unwrap() {
                let value = &inputs[input["name"].as_str().unwrap()];
                for (dim, length) in input["shape"].as_array().unwrap().iter().zip(&value.shape) {
                    if let Some(symbol) = dim.as_str() {
                        lengths.insert(symbol.to_owned(), *length);
                    }
                }
            }
            let output = |output: &Json| {
                let length = |dim: &Json| match dim.as_u64() {
                    Some(length) => length as usize,
                    None => lengths[dim.as_str().unwrap()],
                };
                let shape: Vec<usize> = output["shape"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(length)
                    .collect();
                let data = vec![1.0; shape.iter().product()];
                let value = Value {
                    element: Element::F32,
                    shape,
                    data,
                };
                (output["name"].as_str().unwrap().to_owned(), value)
            };
            spec["outputs"]
                .as_array()
                .unwrap()
                .iter()
                .map(output)
                .collect()
        };
        backend = backend.with(graph["role"].as_str().unwrap(), Arc::new(behave));
    }
    backend
}

fn options(bundle: &Bundle, detect_every: usize, max_frames: Option<usize>) -> TextTrackingOptions {
    let spec = &bundle.manifest().detector.as_ref().unwrap().text_tracking;
    TextTrackingOptions {
        parameters: parameters_of(spec),
        fill_hole_area: 0,
        detect_every,
        max_frames,
        tracker: TrackerOptions {
            num_frames: 9,
            chunk: 4,
        },
    }
}

fn sorted(roles: &[&str]) -> Vec<String> {
    let mut roles: Vec<String> = roles.iter().map(|role| (*role).to_owned()).collect();
    roles.sort();
    roles
}

fn open(backend: &Recorded) -> Vec<String> {
    let mut open = backend.open();
    open.sort();
    open
}

#[test]
fn graphs_are_open_while_they_are_needed() {
    let mut desk = Desk::new();
    give_detector(&mut desk);
    let bundle = Bundle::open(&desk.bundle.dir).unwrap();
    let recorded = backend(&desk.bundle.manifest);
    let shared: Arc<dyn snow_ort::runtime::Backend> = Arc::new(recorded.clone());
    let image = || vec![0; 28 * 28 * 3];
    let every = [TRACKER.as_slice(), &DETECTOR].concat();

    // The length of the clip is not known.
    let options_of = |most| options(&bundle, 4, most);
    let mut tracker = TextTracker::on(
        &bundle,
        None,
        Arc::clone(&shared),
        &["bear"],
        options_of(None),
    )
    .unwrap();
    assert_eq!(recorded.loaded()[0], "text_encoder");
    assert!(!recorded.loaded().contains(&"geometry_encoder".to_owned()));
    assert_eq!(open(&recorded), sorted(&every));
    for frame in 0..9 {
        tracker.step(frame, image(), None).unwrap();
    }
    assert_eq!(
        (tracker.detection_frames(), tracker.last_detection()),
        (3, None)
    );
    assert_eq!(open(&recorded), sorted(&every));
    drop(tracker);
    assert!(recorded.open().is_empty());

    // Frame 4 is the last of eight on which the detector runs.
    let mut tracker =
        TextTracker::on(&bundle, None, shared, &["bear"], options_of(Some(8))).unwrap();
    for frame in 0..8 {
        let expected = if frame <= 4 {
            every.clone()
        } else {
            TRACKER.to_vec()
        };
        assert_eq!(open(&recorded), sorted(&expected), "frame {frame}");
        let result = tracker.step(frame, image(), None).unwrap();
        assert!(!result.objects.is_empty());
    }
    assert_eq!(
        (tracker.detection_frames(), tracker.last_detection()),
        (2, Some(4))
    );
    assert_eq!(open(&recorded), sorted(&TRACKER));
}

#[test]
fn the_detectors_own_vision_encoder_is_freed_with_it() {
    let mut desk = Desk::new();
    give_detector(&mut desk);
    let other = desk.bundle.dir.with_file_name("fake-56");
    let mut manifest = write_bundle(&other, 56);
    add_detector(&other, &mut manifest);
    let (bundle, detecting) = (
        Bundle::open(&desk.bundle.dir).unwrap(),
        Bundle::open(&other).unwrap(),
    );
    let recorded = backend(&desk.bundle.manifest);
    let mut tracker = TextTracker::on(
        &bundle,
        Some(&detecting),
        Arc::new(recorded.clone()),
        &["bear"],
        options(&detecting, 100, Some(3)),
    )
    .unwrap();
    let count = |roles: Vec<String>| {
        roles
            .iter()
            .filter(|role| *role == "vision_encoder")
            .count()
    };
    assert_eq!(count(recorded.open()), 2);
    let detail = Some(vec![0; 56 * 56 * 3]);
    tracker.step(0, vec![0; 28 * 28 * 3], detail).unwrap();
    assert_eq!(open(&recorded), sorted(&TRACKER));
    let sizes: Vec<usize> = recorded
        .calls()
        .iter()
        .filter(|(role, _)| role == "vision_encoder")
        .map(|(_, inputs)| inputs["image"].shape[1])
        .collect();
    assert_eq!(sizes, [56, 28]);
}

/// Makes graphs unusable, so that a command that loads them fails.
fn spoil(desk: &mut Desk, roles: &[&str]) {
    for role in roles {
        desk.bundle.replace_graph(role, b"no graph");
    }
}

#[test]
fn nothing_is_loaded_that_a_command_does_not_need() {
    let mut desk = Desk::with_images(3, 40, 30);
    give_detector(&mut desk);
    spoil(&mut desk, &["geometry_encoder"]);
    desk.run(&[
        "in",
        "--text",
        "bear",
        "--detect-every",
        "2",
        "--out",
        "out",
    ])
    .succeeds();
    let report = read_json(&desk.path("out/run.json"));
    assert_eq!(report["detector"]["dropped_after"], 2);

    spoil(
        &mut desk,
        &["memory_attention", "mask_decoder", "memory_encoder"],
    );
    let mut command = desk.command();
    command.args([
        "detect", "in", "--text", "bear", "--out", "found", "--model",
    ]);
    let ran: Ran = command.arg(&desk.bundle.dir).output().unwrap().into();
    ran.succeeds();
    assert!(desk.path("found/detections.json").exists());
}

/// `snow-ort COMMAND` with the desk's bundle and a cache of its own.
fn ran(desk: &Desk, args: &[&str]) -> Ran {
    let mut command = desk.command();
    command.env("XDG_CACHE_HOME", desk.path("cache"));
    command.args(args).arg("--model").arg(&desk.bundle.dir);
    command.output().unwrap().into()
}

#[test]
fn memory_is_planned_for_a_detector() {
    let mut desk = Desk::new();
    ran(&desk, &["plan", "--objects", "3", "--texts", "2"])
        .refuses(&["`direct`", "--parts tracker,detector"]);
    give_detector(&mut desk);
    let mut totals = Vec::new();
    for texts in [&[][..], &["--texts", "2"]] {
        let args = [&["plan", "--objects", "3", "--json"][..], texts].concat();
        let ran = ran(&desk, &args);
        ran.succeeds();
        let plans: Json = serde_json::from_str(&ran.stdout).unwrap();
        assert_eq!(plans[0]["detector"].is_null(), texts.is_empty());
        totals.push(plans[0]["total_bytes"].as_u64().unwrap());
        if !texts.is_empty() {
            assert_eq!(plans[0]["detector"]["texts"], 2);
            let work = &plans[0]["detector"]["workspace_bytes"];
            assert!(
                work["search"].as_u64() > Some(0) && work["masks"].as_u64() > Some(0),
                "{work}"
            );
            assert_eq!(work["vision_encoder"], 0);
        }
    }
    assert!(totals[1] > totals[0], "{totals:?}");

    let run = |limit: u64, more: &[&str]| {
        let limit = limit.to_string();
        let args = [
            "run",
            "in",
            "--text",
            "bear",
            "--out",
            "out",
            "--overwrite",
            "--mem-limit",
            &limit,
        ];
        ran(&desk, &[&args, more].concat())
    };
    run(1 << 30, &["--follow", "max_objects=3"]).succeeds();
    let report = read_json(&desk.path("out/run.json"));
    let predicted = report["arena"]["predicted_bytes"].as_u64().unwrap();
    assert!(report["arena"]["peak_bytes"].as_u64().unwrap() <= predicted);
    assert_eq!(report["detector"]["most_objects"], 3);
    run(predicted, &["--follow", "max_objects=3"]).succeeds();

    // Fewer than are planned for without a word, and as many as the limit holds.
    let ran = run(predicted, &[]);
    ran.succeeds();
    let report = read_json(&desk.path("out/run.json"));
    let most = report["detector"]["most_objects"].as_u64().unwrap();
    assert!((3..16).contains(&most), "{most}");
    assert!(
        ran.stderr
            .contains(&format!("holds {most} objects at once")),
        "{ran:?}"
    );

    std::fs::remove_dir_all(desk.path("out")).unwrap();
    let refused = run(predicted, &["--follow", "max_objects=500"]);
    refused.refuses(&["with 500 objects", "--follow max_objects=", "--mem-limit"]);
    run(2000, &[]).refuses(&["but the limit is", "--mem-limit"]);
    assert!(!desk.path("out").exists());
}

#[test]
fn a_detectors_stages_are_timed() {
    let mut desk = Desk::with_images(3, 40, 30);
    give_detector(&mut desk);
    let short = ["--warm", "2", "--rounds", "1", "--block", "4", "--quiet"];
    let args = [
        "bench",
        "--text",
        "bear",
        "--detect-every",
        "4",
        "--json",
        "bench.json",
    ];
    let bench = ran(&desk, &[&args[..], &short].concat());
    bench.succeeds();
    for words in [
        "objects of the texts \"bear\"",
        "detector_features",
        "text_encoder, once",
    ] {
        assert!(bench.stdout.contains(words), "{bench:?}");
    }
    let report = read_json(&desk.path("bench.json"));
    let case = &report["cases"][0];
    assert_eq!(case["texts"], serde_json::json!(["bear"]));
    let arm = &case["arms"][0];
    assert!(arm["ready"]["once"]["text_encoder"].as_f64().unwrap() > 0.0);
    // Of frames 2 to 5, the detector runs on the fourth.
    let detects: Vec<bool> = arm["rounds"][0]
        .as_array()
        .unwrap()
        .iter()
        .map(|frame| frame["stages"].get("detector").is_some())
        .collect();
    assert_eq!(detects, [false, false, true, false]);

    let both = ran(&desk, &["bench", "--text", "bear", "--objects", "2"]);
    assert_eq!(both.code, Some(2), "{both:?}");
    let without = Desk::new();
    ran(
        &without,
        &[&["bench", "--text", "bear"][..], &short].concat(),
    )
    .refuses(&["has no detector"]);
}
