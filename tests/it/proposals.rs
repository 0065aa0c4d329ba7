//! `--proposals`: what becomes of proposals, on the first frame and later ones, and files that propose nothing.
//!
//! The fake bundle's masks are always the frame's left half. The graph here proposes the left half (score 0.9), the
//! right half (0.8), and the left half once more (0.3), on every frame.

use std::path::Path;

use serde_json::{Value, json};

use crate::fake::{Desk, Ran, read_json, write_mask};
use crate::onnx::Graph;

pub const FILE: &str = "graph.onnx";

/// Side of the graph's image; a frame of 40x30 is 32x24 in it.
const SIDE: u64 = 32;

/// Writes a graph with two classes and two prototypes, of which the second is 0.
pub fn write_graph(path: &Path) {
    let quarter = SIDE / 4;
    #[rustfmt::skip]
    let rows = [
        8.0, 24.0, 8.0, // x
        16.0, 16.0, 16.0, // y
        16.0, 16.0, 16.0, // width
        24.0, 24.0, 24.0, // height
        0.9, 0.1, 0.3, // class 0
        0.2, 0.8, 0.1, // class 1
        1.0, 1.0, 1.0, // prototype 0
        5.0, 5.0, 5.0, // prototype 1
    ];
    let area = (quarter * quarter) as usize;
    let prototypes = [vec![2.0; area], vec![0.0; area]].concat();
    let mut graph = Graph::default();
    let shape = |dims: &[u64]| dims.iter().map(|dim| json!(dim)).collect::<Vec<Value>>();
    graph.declare(true, "images", "float32", &shape(&[1, 3, SIDE, SIDE]));
    for (name, dims, values) in [
        ("output0", &[1, 8, 3][..], &rows[..]),
        ("output1", &[1, 2, quarter, quarter], &prototypes),
    ] {
        graph.declare(false, name, "float32", &shape(dims));
        let constant = format!("{name}_value");
        graph.floats(&constant, dims, values);
        graph.node("Identity", &[&constant], name, None);
    }
    std::fs::write(path, graph.finish()).unwrap();
}

/// Three frames of 40x30 pixels and the graph.
fn desk() -> Desk {
    let desk = Desk::new();
    write_graph(&desk.path(FILE));
    desk
}

fn run(desk: &Desk, args: &[&str]) -> Ran {
    desk.run(&[&["in", "--proposals", FILE, "--out", "out"], args].concat())
}

fn report(desk: &Desk) -> Value {
    read_json(&desk.path("out/run.json"))
}

/// Frame and object of each prompt.
fn prompts(desk: &Desk) -> Vec<(u64, u64)> {
    let report = report(desk);
    let prompts = report["prompts"].as_array().unwrap();
    let number = |prompt: &Value, name: &str| prompt[name].as_u64().unwrap();
    prompts
        .iter()
        .map(|prompt| (number(prompt, "frame"), number(prompt, "object")))
        .collect()
}

#[test]
fn proposed_objects_are_scored_by_their_masks() {
    let desk = desk();
    // The left half, where object 1 is, and something in a corner of the right that nobody proposes.
    std::fs::create_dir(desk.path("gt")).unwrap();
    for frame in [0, 2] {
        write_mask(
            &desk.path(format!("gt/0000{frame}.png")),
            40,
            30,
            |x, y| match (x, y) {
                (0..20, _) => 7,
                (36.., 0..3) => 9,
                _ => 0,
            },
        );
    }
    let ran = run(&desk, &["--gt", "gt"]);
    ran.succeeds();
    for words in ["found as object 1", "not found"] {
        assert!(ran.stdout.contains(words), "{words}: {ran:?}");
    }
    let scores = &report(&desk)["scores"];
    assert_eq!(scores["objects_by"], "overlap");
    assert_eq!(scores["annotated_frames"], 2);
    let [seven, nine] = scores["objects"].as_array().unwrap().as_slice() else {
        panic!("{scores}")
    };
    assert_eq!(
        (&seven["object"], &seven["matched"]),
        (&json!(7), &json!(1))
    );
    assert_eq!(seven["mean"]["j_and_f"], 1.0);
    // Nothing gave it away on the first frame: that counts too.
    assert_eq!(seven["frames"], 2);
    assert_eq!(
        (&nine["tracked"], &nine["mean"]["j"]),
        (&json!(false), &json!(0.0))
    );
    assert!(nine.get("matched").is_none(), "{nine}");
}

#[test]
fn proposals_of_the_first_frame_become_objects() {
    let desk = desk();
    let ran = run(&desk, &[]);
    ran.succeeds();
    assert!(
        ran.stdout
            .contains("found    2 objects in 2 proposals on 1 frame"),
        "{ran:?}"
    );
    let report = report(&desk);
    assert_eq!(report["objects"], json!([1, 2]));
    let first = &report["prompts"][0];
    // The grey above the frame, 4 rows, is not in the box.
    assert_eq!(first["box"], json!([0.0, 0.0, 20.0, 30.0]));
    assert_eq!(first["proposal"]["class"], 0);
    assert!((first["proposal"]["score"].as_f64().unwrap() - 0.9).abs() < 1e-6);
    assert_eq!(report["prompts"][1]["box"], json!([20.0, 0.0, 40.0, 30.0]));
    assert_eq!(report["prompts"][1]["proposal"]["class"], 1);
    let looks = &report["proposals"];
    assert_eq!((&looks["looks"], &looks["loads"]), (&json!(1), &json!(1)));
    let stages = report["timings"]["stages"].as_array().unwrap();
    assert!(stages.iter().any(|stage| stage["stage"] == "proposals"));

    let tracks = read_json(&desk.path("out/tracks.json"));
    let seen = tracks["frames"][0]["proposals"].as_array().unwrap();
    let objects: Vec<&Value> = seen.iter().map(|one| &one["object"]).collect();
    assert_eq!(objects, [1, 2]);
    assert_eq!(seen[1]["area"], 600);
    assert!(tracks["frames"][1].get("proposals").is_none());
}

#[test]
fn what_no_object_covers_becomes_a_new_one() {
    let desk = desk();
    run(&desk, &["--discover-every", "1"]).succeeds();
    // Every object's mask is the left half: the right one is new each time.
    assert_eq!(prompts(&desk), [(0, 1), (0, 2), (1, 3), (2, 4)]);
    let tracks = read_json(&desk.path("out/tracks.json"));
    let seen = &tracks["frames"][1]["proposals"];
    assert_eq!(
        (&seen[0]["covered"], &seen[0]["object"]),
        (&json!(1.0), &Value::Null)
    );
    assert_eq!(
        (&seen[1]["covered"], &seen[1]["object"]),
        (&json!(0.0), &json!(3))
    );
    // An object is there from the frame on that it was found on.
    let counts: Vec<usize> = (0..3)
        .map(|frame| tracks["frames"][frame]["objects"].as_array().unwrap().len())
        .collect();
    assert_eq!(counts, [2, 3, 4]);
    // The first look is alone; then the graph stays, as there is no limit.
    assert_eq!(report(&desk)["proposals"]["loads"], 2);

    run(&desk, &["--discover-every", "2", "--overwrite"]).succeeds();
    assert_eq!(prompts(&desk), [(0, 1), (0, 2), (2, 3)]);
    // Nothing is covered by more than all of it.
    run(
        &desk,
        &["--discover-every", "2", "--covered", "1", "--overwrite"],
    )
    .succeeds();
    assert_eq!(prompts(&desk), [(0, 1), (0, 2), (2, 3), (2, 4)]);
}

#[test]
fn no_more_objects_than_asked_for_and_one_warning() {
    let desk = desk();
    let ran = run(&desk, &["--discover-every", "1", "--max-objects", "2"]);
    ran.succeeds();
    assert_eq!(prompts(&desk), [(0, 1), (0, 2)]);
    let warning = "the run may track 2 objects: from frame 1 on, 2 proposals that no object covered were left out";
    assert_eq!(ran.stderr.matches("--max-objects").count(), 1, "{ran:?}");
    assert!(ran.stderr.contains(warning), "{ran:?}");
    let ran = run(
        &desk,
        &["--max-det", "1", "--discover-every", "1", "--overwrite"],
    );
    ran.succeeds();
    assert_eq!(prompts(&desk), [(0, 1)]);
}

#[test]
fn prompts_of_the_user_come_first() {
    let desk = desk();
    // The left half is covered by the object that the user names; object 7 comes later, and its id is taken.
    let later = json!([{"frame": 2, "object": 7, "box": [1, 1, 9, 9]}]);
    std::fs::write(desk.path("p.json"), later.to_string()).unwrap();
    let args = ["--box", "1,1,9,9", "--prompts", "p.json"];
    run(
        &desk,
        &[&args[..], &["--proposal-prompts", "mask"]].concat(),
    )
    .succeeds();
    assert_eq!(prompts(&desk), [(0, 1), (2, 7), (0, 8)]);
    let found = &report(&desk)["prompts"][2];
    assert_eq!(
        (&found["box"], &found["mask_area"]),
        (&Value::Null, &json!(600))
    );
    let given = &report(&desk)["prompts"][0];
    assert_eq!(given["proposal"], Value::Null);
}

#[test]
fn a_graph_that_proposes_nothing_is_said() {
    let desk = desk();
    let ran = run(&desk, &["--conf", "0.95"]);
    ran.succeeds();
    assert!(
        ran.stderr
            .contains("a score above 0.95; give a lower --conf"),
        "{ran:?}"
    );
    assert_eq!(report(&desk)["objects"], json!([]));
}

#[test]
fn a_limit_counts_what_is_found() {
    let desk = desk();
    let args = ["--discover-every", "1", "--mem-limit"];
    let run = |limit: &str, more: &[&str]| -> Ran {
        let mut command = desk.run_command(
            &[
                &["in", "--proposals", FILE, "--out", "out"],
                &args[..],
                &[limit],
                more,
            ]
            .concat(),
        );
        command.env("XDG_CACHE_HOME", desk.path("cache"));
        command.output().unwrap().into()
    };
    run("64MiB", &[]).succeeds();
    let plan = |report: Value| report["arena"]["predicted_bytes"].as_u64().unwrap();
    let many = plan(report(&desk));
    run("64MiB", &["--overwrite", "--max-objects", "4"]).succeeds();
    assert!(plan(report(&desk)) < many);
    // As many objects as --max-det are planned for by default; what is enough for 4 is not for them.
    let few = plan(report(&desk));
    run(&few.to_string(), &["--overwrite", "--max-objects", "4"]).succeeds();
    let ran = run(&few.to_string(), &["--overwrite"]);
    ran.refuses(&["32 objects", "(--max-objects "]);
}

#[test]
fn files_that_propose_nothing_are_refused() {
    let desk = desk();
    std::fs::write(desk.path("text.onnx"), "no graph").unwrap();
    let given = |file: &str| desk.run(&["in", "--out", "out", "--proposals", file]);
    given("none.onnx").refuses(&[
        "proposal graph none.onnx",
        "cannot be read",
        "give an ONNX file",
    ]);
    given("in").refuses(&["proposal graph in", "cannot be read"]);
    given("text.onnx").refuses(&[
        "proposal graph text.onnx",
        "no ONNX graph",
        "export the model",
    ]);
    let other = desk.bundle.dir.join("vision_encoder.onnx");
    given(other.to_str().unwrap()).refuses(&[
        "not a graph that proposes objects",
        "Its inputs: image u8 [1,28,28,3]",
        "Its outputs: features_nlc f32 [1,4,8]",
        "[1,4+classes+32,anchors]",
    ]);
    run(&desk, &["--proposal-size", "64"]).refuses(&["images of 32x32 only"]);
    run(&desk, &["--gt", "in", "--box", "1,1,9,9"])
        .refuses(&["ground truth cannot be used with both proposals and prompts"]);
    desk.holds(&[FILE, "in", "text.onnx"]);

    // It is not replaced by what comes of it.
    run(&desk, &[]).succeeds();
    std::fs::copy(desk.path(FILE), desk.path("out/masks/g.onnx")).unwrap();
    let ran = desk.run(&[
        "in",
        "--out",
        "out",
        "--overwrite",
        "--proposals",
        "out/masks/g.onnx",
    ]);
    ran.refuses(&[
        "the graph of proposals out/masks/g.onnx",
        "it would be lost",
    ]);
}

#[test]
fn options_out_of_range_are_refused() {
    let desk = desk();
    let alone = desk.run(&["in", "--box", "1,1,9,9", "--discover-every", "2"]);
    assert_eq!(alone.code, Some(2), "{alone:?}");
    assert!(
        alone.stderr.contains("--proposals <FILE.onnx>"),
        "{alone:?}"
    );
    for (args, word) in [
        (["--conf", "1.5"], "from 0 to 1"),
        (["--conf", "nan"], "from 0 to 1"),
        (["--iou", "-0.1"], "from 0 to 1"),
        (["--covered", "half"], "from 0 to 1"),
        (["--max-det", "0"], "1 or more"),
        (["--max-objects", "-3"], "1 or more"),
        (["--discover-every", "0"], "1 or more"),
        (["--proposal-prompts", "point"], "box"),
    ] {
        let ran = run(&desk, &args);
        assert_eq!(ran.code, Some(2), "{ran:?}");
        assert!(
            ran.stderr.contains(args[0]) && ran.stderr.contains(word),
            "{ran:?}"
        );
    }
    desk.holds(&[FILE, "in"]);
}
