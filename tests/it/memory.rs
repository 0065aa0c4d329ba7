//! A limit on memory: what is predicted, what is taken, what is refused, and that nothing grows.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use snow_ort::bundle::{Bundle, Dim, Role};
use snow_ort::runtime::{Element, Engine, EngineOptions, MemoryProfile, ZeroInput};
use snow_ort::tracker::{FrameResult, Prompt, Tracker, TrackerOptions};

use crate::fake::{Desk, Ran, names_in, read_json, write_images};

/// A bundle with random weights: real graphs, small.
fn bundle() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/snow-random-112-fp16")
}

/// A folder with images and a cache of its own.
struct Bench(Desk);

impl Bench {
    fn new(frames: usize) -> Self {
        let desk = Desk::with_images(1, 8, 8);
        write_images(&desk.path("clip"), frames, 160, 120);
        Self(desk)
    }

    fn command(&self, name: &str) -> Command {
        let mut command = self.0.command();
        command.env("XDG_CACHE_HOME", self.0.path("cache"));
        command.arg(name);
        command
    }

    /// `snow-ort plan` of that bundle: its only entry.
    fn plan(&self, args: &[&str]) -> (Ran, Value) {
        let mut command = self.command("plan");
        command
            .arg("--model")
            .arg(bundle())
            .arg("--json")
            .args(args);
        let ran: Ran = command.output().unwrap().into();
        let all: Value =
            serde_json::from_str(&ran.stdout).unwrap_or_else(|e| panic!("{e}: {ran:?}"));
        assert_eq!(all.as_array().unwrap().len(), 1);
        let plan = all[0].clone();
        (ran, plan)
    }

    /// `snow-ort run` of the demo's bundle with boxes on frame 0.
    fn run(&self, objects: usize, args: &[&str]) -> Ran {
        let boxes: Vec<Value> = (0..objects)
            .map(|i| {
                let (x, y) = ((i * 7) % 100, (i * 11) % 80);
                json!({"frame": 0, "object": i + 1, "box": [x, y, x + 40, y + 30]})
            })
            .collect();
        let file = self.0.path("prompts.json");
        std::fs::write(&file, json!(boxes).to_string()).unwrap();
        let mut command = self.command("run");
        command.arg("clip").arg("--model").arg(bundle());
        command.arg("--prompts").arg(file).args(args);
        command.output().unwrap().into()
    }

    fn report(&self, out: &str) -> Value {
        read_json(&self.0.path(out).join("run.json"))
    }
}

#[test]
fn the_prediction_holds_for_1_to_200_objects() {
    // Long enough for a full bank: memories after 7 frames, pointers after 16.
    let bench = Bench::new(19);
    for objects in [1, 8, 40, 200] {
        let (ran, plan) = bench.plan(&["--objects", &objects.to_string()]);
        ran.succeeds();
        let predicted = plan["in_use_bytes"].as_u64().unwrap();
        let total = plan["total_bytes"].as_u64().unwrap();

        let out = format!("free-{objects}");
        bench.run(objects, &["--out", &out]).succeeds();
        let used = bench.report(&out)["arena"]["in_use_bytes"]
            .as_u64()
            .unwrap();
        assert!(
            used <= predicted,
            "{objects} objects: {used} in use, {predicted} predicted"
        );
        assert!(
            predicted <= used + used / 4,
            "{objects} objects: {used} in use, {predicted} predicted"
        );

        let out = format!("bound-{objects}");
        bench
            .run(objects, &["--out", &out, "--mem-limit", &total.to_string()])
            .succeeds();
        let report = bench.report(&out);
        assert_eq!(report["runtime"]["chunk"], 8);
        let arena = &report["arena"];
        assert_eq!(arena["predicted_bytes"].as_u64(), Some(total));
        assert_eq!(arena["limit_bytes"].as_u64(), Some(total));
        let peak = arena["peak_bytes"].as_u64().unwrap();
        assert!(
            peak <= total,
            "{objects} objects: the arena took {peak} of {total}"
        );
        let used = arena["in_use_bytes"].as_u64().unwrap();
        assert!(
            total <= used + used / 4,
            "{objects} objects: {used} of {total}"
        );
    }
}

/// Objects that part at a later prompt, and one that comes late: the cohorts of the first frames are not those of the
/// last, and what is remembered moves.
#[test]
fn a_run_that_was_accepted_is_finished() {
    let bench = Bench::new(14);
    let at = |i: usize| json!([10 * i, 8 * i, 10 * i + 50, 8 * i + 40]);
    let prompts: Vec<Value> = (0..6)
        .map(|i| json!({"frame": 0, "object": i + 1, "box": at(i)}))
        .chain([
            json!({"frame": 5, "object": 7, "box": at(6)}),
            json!({"frame": 6, "object": 2, "points": [[30, 30, 1]]}),
            json!({"frame": 9, "object": 4, "points": [[60, 50, 1]]}),
        ])
        .collect();
    let file = bench.0.path("prompts.json");
    std::fs::write(&file, json!(prompts).to_string()).unwrap();
    let run = |out: &str, limit: u64, chunk: &str| -> Ran {
        let mut command = bench.command("run");
        command.args(["clip", "--out", out, "--chunk", chunk]);
        command.arg("--model").arg(bundle());
        command.args(["--mem-limit", &limit.to_string()]);
        command.arg("--prompts").arg(&file);
        command.output().unwrap().into()
    };
    for chunk in ["1", "3", "8"] {
        run(chunk, 1 << 30, chunk).succeeds();
        let arena = bench.report(chunk)["arena"].clone();
        let predicted = arena["predicted_bytes"].as_u64().unwrap();
        assert!(
            arena["in_use_bytes"].as_u64().unwrap() <= predicted,
            "{arena}"
        );
        // The least that is accepted.
        let out = format!("least-{chunk}");
        run(&out, predicted, chunk).succeeds();
        let arena = bench.report(&out)["arena"].clone();
        assert!(
            arena["peak_bytes"].as_u64().unwrap() <= predicted,
            "{arena}"
        );
    }
}

#[test]
fn a_smaller_limit_gives_a_smaller_chunk_and_the_same_masks() {
    let bench = Bench::new(10);
    let mut runs = Vec::new();
    for chunk in ["1", "3", "7"] {
        let ran = bench.run(7, &["--out", chunk, "--chunk", chunk]);
        ran.succeeds();
        runs.push(chunk.to_owned());
    }
    let (_, plan) = bench.plan(&["--objects", "7", "--chunk", "2"]);
    let limit = plan["total_bytes"].as_u64().unwrap().to_string();
    let ran = bench.run(7, &["--out", "bound", "--mem-limit", &limit]);
    ran.succeeds();
    assert!(ran.stdout.contains("arena"), "{ran:?}");
    assert_eq!(bench.report("bound")["runtime"]["chunk"], 2);
    runs.push("bound".to_owned());
    for frame in 0..10 {
        let mask = |run: &String| {
            std::fs::read(bench.0.path(run).join(format!("masks/{frame:05}.png"))).unwrap()
        };
        for run in &runs[1..] {
            assert_eq!(mask(&runs[0]), mask(run), "frame {frame}, {run}");
        }
    }
}

#[test]
fn weights_stay_in_their_files_when_the_limit_asks_for_it() {
    let bench = Bench::new(3);
    let (_, packed) = bench.plan(&["--objects", "1"]);
    assert_eq!(packed["packed_weights"], true);
    let limit = packed["total_bytes"].as_u64().unwrap() - 1;
    let (ran, mapped) = bench.plan(&["--objects", "1", "--mem-limit", &limit.to_string()]);
    ran.succeeds();
    assert_eq!(mapped["packed_weights"], false);
    assert!(mapped["weights_bytes"].as_u64() < packed["weights_bytes"].as_u64());
}

#[test]
fn a_run_that_does_not_fit_ends_before_its_first_frame_and_says_what_would() {
    let bench = Bench::new(20);
    let (ran, plan) = bench.plan(&["--objects", "60", "--mem-limit", "4MiB"]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert_eq!(plan["fits"], false);
    let ran = bench.run(60, &["--out", "out", "--mem-limit", "4MiB"]);
    ran.refuses(&[
        "60 objects and 1 at once needs",
        "the limit is 4.00 MiB",
        "the largest part is",
        "objects at once",
        "--mem-limit",
    ]);
    assert!(
        !bench.0.path("out").exists(),
        "{:?}",
        names_in(&bench.0.path("out"))
    );
    // Its advice can be followed.
    let advised = ran.stderr.split("--mem-limit ").last().unwrap();
    let advised = advised.split(' ').next().unwrap();
    bench
        .run(
            60,
            &["--out", "out", "--max-frames", "8", "--mem-limit", advised],
        )
        .succeeds();
}

#[test]
fn nothing_grows_from_frame_50_to_frame_300() {
    let bench = Bench::new(300);
    for limit in [&[][..], &["--mem-limit", "64MiB"]] {
        let peak = |frames: &str| {
            let args = [
                &["--out", frames, "--overwrite", "--max-frames", frames],
                limit,
            ]
            .concat();
            bench.run(2, &args).succeeds();
            let arena = bench.report(frames)["arena"].clone();
            ["in_use_bytes", "peak_bytes"].map(|name| arena[name].as_u64().unwrap())
        };
        // An entry kept of each frame would be 4 MB.
        let ([used, _], [used_later, held_later]) = (peak("50"), peak("300"));
        assert!(
            used_later <= used + used / 20,
            "{used}, then {used_later}; {limit:?}"
        );
        // How much is held beside it depends on where free pages lie, within what the allocator allows itself.
        let most = used_later + used_later / 2 + (16 << 20);
        assert!(held_later <= most, "{held_later}; {limit:?}");
    }
}

#[test]
fn a_limit_that_is_no_size_is_refused() {
    let bench = Bench::new(1);
    for wrong in ["0", "3 parsecs", "-1", "GiB"] {
        let ran = bench.run(1, &["--mem-limit", wrong]);
        assert_eq!(ran.code, Some(2), "{ran:?}");
        assert!(
            ran.stderr.contains("expected a size such as 512MiB"),
            "{ran:?}"
        );
    }
}

/// The mask decoder for one object and for two.
fn measure(engine: &Engine, bundle: &Bundle) -> MemoryProfile {
    let graph = bundle.manifest().graph(Role::MaskDecoder).unwrap();
    let run = |objects: usize| -> Vec<ZeroInput> {
        let inputs = graph.inputs.iter();
        let inputs = inputs.map(|input| ZeroInput {
            name: input.name.clone(),
            element: match input.dtype.to_string().as_str() {
                "int64" => Element::I64,
                "bool" => Element::Bool,
                "float16" => Element::F16,
                _ => Element::F32,
            },
            shape: input
                .shape
                .iter()
                .enumerate()
                .map(|(axis, dim)| match dim {
                    Dim::Fixed(length) => *length as usize,
                    Dim::Symbol(_) if axis == 0 => objects,
                    Dim::Symbol(_) => 1,
                })
                .collect(),
        });
        inputs.collect()
    };
    let path = bundle.graph_path(Role::MaskDecoder).unwrap();
    let outputs: Vec<&str> = graph.outputs.iter().map(|out| out.name.as_str()).collect();
    engine
        .measure("mask_decoder", &path, &[run(1), run(2)], &outputs, None)
        .unwrap()
}

#[test]
fn a_graph_is_measured_while_a_tracker_tracks() {
    let options = EngineOptions::default();
    let engine = match Engine::load(&options) {
        Ok(engine) => engine,
        Err(error) => return println!("skipped: {error}"),
    };
    let bundle = Bundle::open(&bundle()).unwrap();
    let alone = measure(&engine, &bundle);
    let tracker = || {
        let options = TrackerOptions {
            num_frames: 6,
            chunk: 2,
        };
        Tracker::new(&bundle, engine.clone(), options).unwrap()
    };
    let side = bundle.manifest().resolution as usize;
    let step = |tracker: &mut Tracker, frame: usize| -> FrameResult {
        let pixel = |i: usize| ((i / 3 + 5 * frame) * 7 % 251) as u8;
        let image = (0..side * side * 3).map(pixel).collect();
        let prompt = |object: u32| Prompt {
            frame,
            object,
            bbox: Some([10.0, 10.0 * object as f32, 60.0, 80.0]),
            ..Prompt::default()
        };
        let prompts = match frame {
            0 => vec![prompt(1), prompt(2), prompt(3)],
            _ => Vec::new(),
        };
        tracker.step(frame, image, (112, 112), &prompts).unwrap()
    };
    let mut undisturbed = tracker();
    let expected: Vec<FrameResult> = (0..6).map(|frame| step(&mut undisturbed, frame)).collect();
    let mut disturbed = tracker();
    for (frame, expected) in expected.iter().enumerate() {
        assert_eq!(&step(&mut disturbed, frame), expected, "frame {frame}");
        if frame % 2 == 0 {
            assert_eq!(measure(&engine, &bundle), alone, "after frame {frame}");
        }
    }
    // Graphs that are loaded after that are in the engine's arena again.
    let before = disturbed.arena_stats().unwrap().unwrap();
    let third = tracker();
    let after = third.arena_stats().unwrap().unwrap();
    assert!(after.in_use > before.in_use, "{before:?}, {after:?}");
}
