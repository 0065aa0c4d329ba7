//! `snow-ort bench`: the order of turns, the numbers made of them, and the program with variants of both kinds.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};
use snow_ort::bench::BenchError;
use snow_ort::bench::clip::boxes;
use snow_ort::bench::process::Startup;
use snow_ort::bench::profile::summarise;
use snow_ort::bench::protocol::{Frame, Ready, walk};
use snow_ort::bench::report::{BenchReport, Comparison, VariantTiming};
use snow_ort::bench::rounds::{Length, Timed, even_block, measure};
use snow_ort::bench::stats::{Ratio, Spread, median};

use crate::fake::{Desk, Ran, names_in, read_json};

/// A variant that notes when it had its turn.
struct Noted<'a> {
    name: char,
    log: &'a std::cell::RefCell<String>,
}

impl Timed for Noted<'_> {
    fn frame(&mut self) -> Result<Frame, BenchError> {
        self.log.borrow_mut().push(self.name);
        Ok(Frame {
            seconds: self.log.borrow().len() as f64,
            stages: BTreeMap::new(),
            peak_resident_bytes: None,
            arena_peak_bytes: None,
            device_bytes: None,
            bank_bytes: None,
        })
    }
}

#[test]
fn rounds_go_forwards_and_backwards_and_nothing_drifts_into_a_ratio() {
    let log = std::cell::RefCell::default();
    let mut variants = ['a', 'b', 'c'].map(|name| Noted { name, log: &log });
    let length = Length {
        warm: 1,
        rounds: 2,
        block: 2,
    };
    let mut frames = 0;
    let mut fails = |_, error| Err(error);
    let blocks = measure(&mut variants, length, &mut || frames += 1, &mut fails).unwrap();
    assert_eq!(*log.borrow(), "abcaabbccccbbaa");
    assert_eq!(frames, 3 * length.frames());
    // The clock goes steadily: over two rounds every variant has the same mean.
    let means: Vec<f64> = blocks
        .iter()
        .map(|rounds| rounds.iter().flatten().map(|f| f.seconds).sum::<f64>() / 4.0)
        .collect();
    assert_eq!(means, [9.5, 9.5, 9.5]);
}

/// A variant that fails when it is asked for a frame more than it has.
struct Mortal {
    left: usize,
}

impl Timed for Mortal {
    fn frame(&mut self) -> Result<Frame, BenchError> {
        self.left = self.left.checked_sub(1).ok_or(BenchError::Nothing {
            variant: "mortal".to_owned(),
        })?;
        let log = std::cell::RefCell::default();
        Noted {
            name: 'm',
            log: &log,
        }
        .frame()
    }
}

#[test]
fn a_variant_that_fails_has_no_further_turn() {
    let mut variants = [9, 3, 0].map(|left| Mortal { left });
    let length = Length {
        warm: 1,
        rounds: 2,
        block: 2,
    };
    let (mut frames, mut failed) = (0, Vec::new());
    let mut fails = |variant, _| {
        failed.push(variant);
        Ok(())
    };
    let blocks = measure(&mut variants, length, &mut || frames += 1, &mut fails).unwrap();
    let sizes: Vec<Vec<usize>> = blocks
        .iter()
        .map(|rounds| rounds.iter().map(Vec::len).collect())
        .collect();
    assert_eq!(sizes, [vec![2, 2], vec![2], vec![]]);
    assert_eq!((frames, failed), (8, vec![2, 1]));
    // Where nothing may fail, the first failure is the end.
    let mut variants = [9, 0, 9].map(|left| Mortal { left });
    let ended = measure(&mut variants, length, &mut || (), &mut |_, error| {
        Err(error)
    });
    assert!(ended.is_err());
    assert_eq!(variants[2].left, 9);
}

#[test]
fn medians_quartiles_and_ratios() {
    assert_eq!(Spread::of(&[]), None);
    let spread = Spread::of(&[5.0, 1.0, 2.0, 4.0, 3.0]).unwrap();
    assert_eq!((spread.low, spread.median, spread.high), (2.0, 3.0, 4.0));
    let spread = Spread::of(&[1.0, 2.0]).unwrap();
    assert_eq!((spread.low, spread.median, spread.high), (1.25, 1.5, 1.75));

    let ratio = Ratio::of(&[1.0, 2.0, 9.0], &[2.0, 4.0, 3.0]).unwrap();
    assert_eq!(ratio.rounds, [0.5, 0.5, 3.0]);
    assert_eq!(ratio.median, 0.5);
    assert_eq!((ratio.low, ratio.high), (0.5, 3.0));
    assert!(ratio.is_noise());
    let clear = Ratio::of(&[1.0, 1.1, 0.9, 1.0], &[2.0; 4]).unwrap();
    assert!(!clear.is_noise());
    assert!((0.45..=0.5).contains(&clear.low) && (0.5..=0.55).contains(&clear.high));
}

#[test]
fn all_blocks_have_the_same_number_of_detections() {
    for (asked, periods, block) in [
        (4, &[][..], 4),
        (4, &[1, 1], 4),
        (4, &[1, 4], 4),
        (4, &[4, 6], 12),
        (5, &[1, 2], 6),
        (100, &[30], 120),
        (999, &[999], 999),
        (2000, &[1000], 2000),
    ] {
        let found = even_block(asked, periods.iter().copied());
        match block <= asked.max(64) {
            true => assert_eq!(found.unwrap(), block, "{asked} {periods:?}"),
            false => assert!(uneven(found).contains("blocks of 30 frames")),
        }
    }
    for (periods, words) in [
        ([7, 11], "blocks of 77 frames"),
        ([1, 1000], "blocks of 1000 frames"),
        ([usize::MAX, usize::MAX - 1], "blocks of "),
    ] {
        let why = uneven(even_block(4, periods));
        assert!(why.contains(words), "{why}");
    }
}

fn uneven(block: Result<usize, BenchError>) -> String {
    let error = block.unwrap_err();
    assert!(matches!(error, BenchError::UnevenBlocks { .. }), "{error}");
    error.to_string()
}

/// A frame of some seconds, with a detection or without.
fn looked(seconds: f64, look: bool) -> Frame {
    let stages = match look {
        true => BTreeMap::from([("detector".to_owned(), seconds / 2.0)]),
        false => BTreeMap::new(),
    };
    Frame {
        seconds,
        stages,
        peak_resident_bytes: None,
        arena_peak_bytes: None,
        device_bytes: None,
        bank_bytes: None,
    }
}

#[test]
fn a_detection_on_some_frames_has_its_share_in_the_time_of_a_frame() {
    let startup = Startup {
        ready: Ready {
            what: "a double".to_owned(),
            resolution: 28,
            precision: "fp32".to_owned(),
            threads: 1,
            once: BTreeMap::new(),
        },
        load_s: 1.0,
        cold_s: 2.0,
    };
    let variant = |rounds: &[&[Frame]]| {
        let rounds = rounds.iter().map(|block| block.to_vec()).collect();
        VariantTiming::new("variant", startup.clone(), rounds).unwrap()
    };
    // The median of all frames is 1; the detections make it (1 + 1 + 1 + 9) / 4. What disturbs one frame of a kind counts little.
    let block = [
        looked(1.0, false),
        looked(9.0, true),
        looked(1.0, false),
        looked(70.0, false),
    ];
    let mixed = variant(&[&block, &block]);
    assert_eq!(mixed.round_seconds(), [3.0, 3.0]);
    assert_eq!(mixed.frame_s.median, 3.0);
    assert_eq!(mixed.stages_s[0].1.median, 4.5);
    assert_eq!(mixed.share_s("detector", 4.5), 4.5 / 4.0);
    // Where all frames are alike it is their median, as ever.
    let even = variant(&[&[looked(1.0, true), looked(2.0, true), looked(9.0, true)]]);
    assert_eq!(
        (even.round_seconds(), even.frame_s.median),
        (vec![2.0], 2.0)
    );
    assert_eq!(even.frame_s.high, 5.5);
    let ratio = Comparison::new(&even, &mixed).unwrap();
    assert_eq!(ratio.frame.rounds, [2.0 / 3.0]);
}

#[test]
fn a_clip_is_walked_forwards_and_backwards() {
    let walked: Vec<usize> = (0..9).map(|n| walk(n, 4)).collect();
    assert_eq!(walked, [0, 1, 2, 3, 2, 1, 0, 1, 2]);
    assert_eq!(walk(7, 1), 0);
}

#[test]
fn boxes_are_inside_of_the_frame_and_apart() {
    for count in [1, 2, 7, 64] {
        let boxes = boxes(count, (200, 100));
        let boxes: Vec<Vec<f64>> = boxes
            .as_array()
            .unwrap()
            .iter()
            .map(|entry| serde_json::from_value(entry["box"].clone()).unwrap())
            .collect();
        assert_eq!(boxes.len(), count);
        for (i, a) in boxes.iter().enumerate() {
            assert!(0.0 <= a[0] && a[0] < a[2] && a[2] <= 200.0);
            assert!(0.0 <= a[1] && a[1] < a[3] && a[3] <= 100.0);
            for b in &boxes[..i] {
                assert!(a[2] <= b[0] || b[2] <= a[0] || a[3] <= b[1] || b[3] <= a[1]);
            }
        }
    }
}

/// `snow-ort bench` of the fake bundle with few frames.
fn bench(desk: &Desk, args: &[&str]) -> Ran {
    let mut command = desk.command();
    command.args(["bench", "--warm", "2", "--rounds", "2", "--block", "3"]);
    command.arg("--model").arg(&desk.bundle.dir).args(args);
    command.output().unwrap().into()
}

/// A program that says of every frame that it took 2000 seconds.
fn slow(desk: &Desk) -> String {
    let script = desk.path("slow");
    let frame = r#"{"frame":{"seconds":2000,"stages":{"vision_encoder":500},"peak_resident_bytes":null,"arena_peak_bytes":null,"device_bytes":null,"bank_bytes":null}}"#;
    let ready = r#"{"ready":{"what":"a shell","resolution":28,"precision":"fp32","threads":1}}"#;
    let text =
        format!("echo '{ready}'\necho chatter >&2\nwhile read -r line; do echo '{frame}'; done\n");
    std::fs::write(&script, text).unwrap();
    format!("slow=sh '{}'", script.display())
}

#[test]
fn bundles_and_other_programs_in_one_report() {
    let desk = Desk::with_images(1, 8, 8);
    let against = slow(&desk);
    let ran = bench(
        &desk,
        &[
            "--objects",
            "1,3",
            "--against",
            &against,
            "--json",
            "b.json",
            "--markdown",
            "b.md",
        ],
    );
    ran.succeeds();
    let report: BenchReport = serde_json::from_value(read_json(&desk.path("b.json"))).unwrap();
    let objects: Vec<usize> = report.cases.iter().map(|case| case.objects).collect();
    assert_eq!(objects, [1, 3]);
    for case in &report.cases {
        let [ours, other] = case.variants.as_slice() else {
            panic!("two variants: {case:?}")
        };
        assert_eq!((ours.name.as_str(), other.name.as_str()), ("fake", "slow"));
        assert_eq!(ours.ready.resolution, 28);
        assert!(ours.rounds.len() == 2 && ours.rounds.iter().all(|block| block.len() == 3));
        let stages: Vec<&str> = ours
            .stages_s
            .iter()
            .map(|(name, _)| name.as_str())
            .collect();
        assert_eq!(
            stages,
            [
                "vision_encoder",
                "memory_attention",
                "mask_decoder",
                "memory_encoder"
            ]
        );
        for frame in ours.rounds.iter().flatten() {
            let sum: f64 = frame.stages.values().sum();
            assert!(0.0 < sum && sum <= frame.seconds && frame.seconds < 100.0);
        }
        assert!(ours.peak_resident_bytes.unwrap() > 1 << 20);
        assert_eq!(other.frame_s.median, 2000.0);
        assert!(ours.cold_s > 0.0 && ours.cold_s < 100.0);
        let [ratio] = case.ratios.as_slice() else {
            panic!("one ratio: {case:?}")
        };
        assert_eq!(
            (ratio.variant.as_str(), ratio.baseline.as_str()),
            ("fake", "slow")
        );
        assert!(ratio.frame.median < 0.05 && !ratio.frame.is_noise());
        let rest = ratio.tracker.as_ref().unwrap();
        let of_round: Vec<f64> = ours.rounds[0].iter().map(rest_s).collect();
        let expected = median(&of_round).unwrap() / 1500.0;
        assert!((rest.rounds[0] - expected).abs() < 1e-12);
    }
    let bank = |case: usize| report.cases[case].variants[0].bank_bytes.unwrap();
    assert_eq!(bank(1), 3 * bank(0));
    for text in [
        &ran.stdout,
        &std::fs::read_to_string(desk.path("b.md")).unwrap(),
    ] {
        for word in [
            "fake / slow",
            "2000 s",
            "1 object",
            "3 objects",
            "2 blocks of 3 frames",
        ] {
            assert!(text.contains(word), "{word}: {text}");
        }
    }

    // The same names again: nothing is replaced unasked.
    let again = bench(&desk, &["--json", "b.json"]);
    again.refuses(&["b.json", "already exists", "--overwrite"]);
    bench(&desk, &["--json", "b.json", "--overwrite", "--quiet"]).succeeds();
    let report: Value = read_json(&desk.path("b.json"));
    assert_eq!(report["cases"].as_array().unwrap().len(), 1);
    assert_eq!(report["cases"][0]["ratios"].as_array().unwrap().len(), 0);
}

fn rest_s(frame: &Frame) -> f64 {
    frame.seconds - frame.stages["vision_encoder"]
}

#[test]
fn a_clip_and_prompts_of_ones_own() {
    let desk = Desk::with_images(3, 40, 30);
    let prompts = r#"[{"frame": 0, "object": 4, "box": [1, 1, 20, 20]}, {"frame": 2, "object": 9, "points": [[5, 5]]}]"#;
    std::fs::write(desk.path("p.json"), prompts).unwrap();
    let ran = bench(
        &desk,
        &["--input", "in", "--prompts", "p.json", "--json", "b.json"],
    );
    ran.succeeds();
    assert_eq!(read_json(&desk.path("b.json"))["cases"][0]["objects"], 2);
}

#[test]
fn operators_are_added_up_over_the_runs_of_a_graph() {
    let node = |op: &str, provider: &str, dur: u32, bytes: &str| {
        json!({"cat": "Node", "name": format!("x_{op}_kernel_time"), "dur": dur,
               "args": {"op_name": op, "provider": provider, "output_size": bytes}})
    };
    let events = [
        json!({"cat": "Session", "name": "model_run", "dur": 900}),
        node("Gemm", "CUDAExecutionProvider", 100, "64"),
        node("Gemm", "CUDAExecutionProvider", 300, "64"),
        node("Gemm", "CPUExecutionProvider", 500, "8"),
        json!({"cat": "Session", "name": "model_run", "dur": 900}),
        node("Gemm", "CUDAExecutionProvider", 200, "64"),
        json!({"cat": "Node", "name": "x_fence_before", "dur": 7, "args": {"op_name": "Gemm"}}),
        node("MemcpyToHost", "CUDAExecutionProvider", 40, "1000"),
    ];
    let profile = summarise("mask_decoder", &events);
    let seen: Vec<(&str, &str, f64, f64, f64)> = profile
        .operators
        .iter()
        .map(|op| {
            let microseconds = (op.seconds * 1e6).round();
            (
                op.name.as_str(),
                op.provider.as_str(),
                op.nodes,
                microseconds,
                op.output_bytes,
            )
        })
        .collect();
    assert_eq!((profile.role.as_str(), profile.runs), ("mask_decoder", 2));
    assert_eq!(
        seen,
        [
            ("Gemm", "CUDAExecutionProvider", 1.5, 300.0, 96.0),
            ("Gemm", "CPUExecutionProvider", 0.5, 250.0, 4.0),
            ("MemcpyToHost", "CUDAExecutionProvider", 0.5, 20.0, 500.0),
        ]
    );
}

#[test]
fn a_profile_names_the_operators_of_every_graph_and_where_they_ran() {
    let desk = Desk::with_images(1, 8, 8);
    let real = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/fixtures/snow-random-112-fp16"
    );
    let ran = bench(&desk, &["--profile", "--json", "b.json", "--model", real]);
    ran.succeeds();
    let report: BenchReport = serde_json::from_value(read_json(&desk.path("b.json"))).unwrap();
    let profile = &report.cases[0].variants[1].profile;
    let roles: Vec<&str> = profile.iter().map(|graph| graph.role.as_str()).collect();
    assert_eq!(
        roles,
        [
            "vision_encoder",
            "memory_attention",
            "mask_decoder",
            "memory_encoder"
        ]
    );
    for graph in profile {
        assert!(graph.runs >= 7 && !graph.operators.is_empty(), "{graph:?}");
        for operator in &graph.operators {
            assert_eq!(operator.provider, "CPUExecutionProvider");
            assert!(
                operator.nodes > 0.0 && operator.seconds >= 0.0,
                "{operator:?}"
            );
        }
        assert!(
            ran.stdout
                .contains(&format!("snow-random-112-fp16: {}, one run", graph.role))
        );
    }
}

#[test]
fn the_error_of_a_failed_variant_reaches_the_user_and_nothing_is_left() {
    let desk = Desk::with_images(1, 8, 8);
    let before = names_in(Path::new(&desk.path(".")));
    let bad = |what: &str, words: &[&str]| {
        let ran = bench(&desk, &["--against", what, "--json", "b.json"]);
        ran.refuses(words);
        assert_eq!(names_in(Path::new(&desk.path("."))), before);
    };
    bad(
        "torch=sh -c 'echo no such weights >&2; exit 3'",
        &["torch", "no such weights", "3"],
    );
    bad("torch=echo hello", &["torch", "hello", "JSON"]);
    bad("torch", &["--against", "NAME=COMMAND", "torch"]);
    bad("fake=true", &["two variants", "fake"]);
    let ran = bench(&desk, &["--mem-limit", "1KiB"]);
    ran.refuses(&["fake", "1.00 KiB", "--mem-limit"]);
    let ran = bench(&desk, &["--prompts", "p.json"]);
    assert_eq!(ran.code, Some(2));
}
