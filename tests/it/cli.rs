//! The program as a user meets it: what a run leaves, and what happens when it cannot go on.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::process::Command;

use safetensors::SafeTensors;
use serde_json::Value;
use snow_ort::masks::{Mask, Rle};
use snow_ort::media::index_png::read_index_png;

use crate::fake::{Desk, LOW, Ran, names_in, read_json, write_bundle, write_images};
use crate::output::break_image;

const BOX: [&str; 2] = ["--box", "1,1,9,9"];

#[test]
fn help_and_version_are_there() {
    let desk = Desk::new();
    for args in [&["--help"][..], &["run", "--help"], &["--version"]] {
        let ran: Ran = desk.command().args(args).output().unwrap().into();
        ran.succeeds();
    }
    let ran: Ran = desk
        .command()
        .args(["run", "--help"])
        .output()
        .unwrap()
        .into();
    let help: String = ran.stdout.split_whitespace().collect::<Vec<_>>().join(" ");
    for word in [
        "--box",
        "--overwrite",
        "PNG with several ids is one object for each id",
        "a later prompt corrects it",
        "Ctrl-C",
        "docs/prompts-and-corrections.md",
    ] {
        assert!(help.contains(word), "{word:?} is not in {help}");
    }
}

#[test]
fn wrong_usage_exits_with_2() {
    let desk = Desk::new();
    let cases: [(&[&str], &str); 17] = [
        (&[], "Usage"),
        (&["jog"], "jog"),
        (&["run"], "INPUT"),
        (&["run", "in", "--sideways"], "--sideways"),
        (&["run", "in", "--threads", "0"], "number from 1 to"),
        (&["run", "in", "--threads", "100000"], "4 for each of the"),
        (&["run", "in", "--max-frames", "0"], "number, 1 or more"),
        (&["run", "in", "--max-frames", "-1"], "number, 1 or more"),
        (&["run", "in", "--device-id", "-1"], "-1 is not in 0"),
        (&["run", "in", "--chunk", "-1"], "number, 1 or more"),
        (&["run", "in", "--res", "-1"], "-1 is not in 0"),
        (&["run", "in", "--provider", "abacus"], "abacus"),
        (
            &["run", "in", "--cuda-option", "prefer_nhwc"],
            "expected NAME=VALUE",
        ),
        (&["detect"], "IMAGE"),
        (&["detect", "in", "--threshold", "2"], "from 0 to 1"),
        (&["detect", "in", "--res", "28", "--model", "m"], "--model"),
        (&["run", "in", "--res", "28", "--model", "m"], "--model"),
    ];
    for (args, word) in cases {
        let ran: Ran = desk.command().args(args).output().unwrap().into();
        assert_eq!(ran.code, Some(2), "{ran:?}");
        assert!(ran.stderr.contains(word), "{ran:?}");
    }
    desk.holds(&["in"]);
}

#[test]
fn a_run_leaves_masks_tracks_and_a_report() {
    let desk = Desk::new();
    let ran = desk.run(&[
        "in",
        "--box",
        "1,1,9,9",
        "--point",
        "30,20",
        "--out",
        "a/b",
        "--overlay",
        "a/o.mp4",
        "--dump-logits",
        "a/b/lg",
    ]);
    ran.succeeds();
    for word in [
        "3 frames",
        "2 objects",
        "frames/s",
        "peak memory",
        "a/b/masks",
        "a/b/tracks.json",
        "a/o.mp4",
        "a/b/lg",
    ] {
        assert!(
            ran.stdout.contains(word),
            "{word:?} is not in {}",
            ran.stdout
        );
    }
    assert!(
        ran.stderr.contains("3 frames"),
        "plain progress: {}",
        ran.stderr
    );
    assert!(!ran.stderr.contains('\r') && !ran.stderr.contains('\u{1b}'));
    assert_eq!(names_in(&desk.path("a")), ["b", "o.mp4"]);
    assert_eq!(
        names_in(&desk.path("a/b")),
        ["lg", "masks", "run.json", "tracks.json"]
    );
    assert_eq!(
        names_in(&desk.path("a/b/masks")),
        ["00000.png", "00001.png", "00002.png"]
    );

    // Objects overlap fully with equal logits: the first is in front.
    let mask = read_index_png(&desk.path("a/b/masks/00001.png")).unwrap();
    assert_eq!((mask.width, mask.height), (40, 30));
    for (index, id) in mask.ids.iter().enumerate() {
        let (x, y) = (index % 40, index / 40);
        assert_eq!(*id, u16::from(x < 20), "at {x},{y}");
    }

    let tracks = read_json(&desk.path("a/b/tracks.json"));
    assert_eq!(tracks["frames"].as_array().unwrap().len(), 3);
    for (index, frame) in tracks["frames"].as_array().unwrap().iter().enumerate() {
        assert_eq!(frame["frame"], index);
        for (object, track) in frame["objects"].as_array().unwrap().iter().enumerate() {
            assert_eq!(track["object"], object + 1);
            assert_eq!(track["rle"]["size"], serde_json::json!([30, 40]));
            assert_eq!(track["box"], serde_json::json!([0, 0, 20, 30]));
            assert_eq!(track["area"], 600);
            assert_eq!(track["score_logit"], 3.0);
            assert!((track["score"].as_f64().unwrap() - 0.952_574).abs() < 1e-5);
            assert_eq!(track["iou"], 0.5);
        }
    }
    let pixels = mask.ids.iter().map(|id| *id == 1).collect();
    let expected = Mask::new(40, 30, pixels).unwrap();
    assert_eq!(
        tracks["frames"][0]["objects"][1]["rle"]["counts"],
        Rle::of(&expected).counts
    );

    let bytes = std::fs::read(desk.path("a/b/lg/00002.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let side = LOW as usize;
    assert_eq!(
        tensors.tensor("low_res_masks").unwrap().shape(),
        [2, side, side]
    );
    assert_eq!(tensors.tensor("object_score").unwrap().shape(), [2]);
    let ids = tensors.tensor("object_ids").unwrap();
    assert_eq!(ids.dtype(), safetensors::Dtype::I64);
    assert_eq!(
        ids.data(),
        [1i64.to_le_bytes(), 2i64.to_le_bytes()].concat()
    );

    check_report(&desk, &read_json(&desk.path("a/b/run.json")));
}

fn check_report(desk: &Desk, run: &Value) {
    assert_eq!(run["status"], "done");
    assert_eq!(run["error"], Value::Null);
    assert_eq!(run["frames"], 3);
    assert_eq!(run["objects"], serde_json::json!([1, 2]));
    assert_eq!(
        run["sizes"],
        serde_json::json!([{"from_frame": 0, "width": 40, "height": 30}])
    );
    assert_eq!(run["input"]["kind"], "images");
    assert_eq!(run["model"]["name"], "fake");
    let manifest = std::fs::read(desk.bundle.dir.join("manifest.json")).unwrap();
    assert_eq!(
        run["model"]["manifest_sha256"],
        crate::fake::sha256(&manifest)
    );
    assert_eq!(run["runtime"]["provider"], "cpu");
    assert!(
        run["runtime"]["library"]
            .as_str()
            .unwrap()
            .contains("libonnxruntime")
    );
    assert!(run["peak_memory_bytes"].as_u64().unwrap() > 1 << 20);
    assert!(run["fps"].as_f64().unwrap() > 0.0);
    let stages: Vec<&str> = run["timings"]["stages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|s| s["stage"].as_str().unwrap())
        .collect();
    assert_eq!(
        stages,
        [
            "decode",
            "resize",
            "vision_encoder",
            "memory_attention",
            "mask_decoder",
            "memory_encoder",
            "upsample",
            "write",
            "overlay",
            "logits",
            "score",
            "contact_sheet"
        ]
    );
}

#[test]
fn quiet_is_quiet_and_random_weights_are_said() {
    let mut desk = Desk::new();
    let mut args = vec!["in", "--quiet", "--out", "o1"];
    args.extend(BOX);
    let ran = desk.run(&args);
    ran.succeeds();
    assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("", ""));
    desk.bundle
        .change(|m| m["source"]["random_weights"] = serde_json::json!(true));
    args[3] = "o2";
    let ran = desk.run(&args);
    ran.succeeds();
    assert!(
        ran.stderr.starts_with("warning: ") && ran.stderr.contains("random"),
        "{ran:?}"
    );
}

#[test]
fn the_default_folder_is_named_after_the_input() {
    let desk = Desk::new();
    std::fs::copy(desk.path("in/00000.png"), desk.path("my.photo.png")).unwrap();
    desk.run(&["my.photo.png", BOX[0], BOX[1]]).succeeds();
    desk.run(&["in", BOX[0], BOX[1]]).succeeds();
    assert_eq!(names_in(&desk.path("out")), ["in", "my.photo"]);
}

#[test]
fn odd_path_bytes_are_fine() {
    let desk = Desk::new();
    let name = OsStr::from_bytes(b"a b:\xff");
    std::fs::rename(desk.path("in"), desk.path(Path::new(name))).unwrap();
    let args = [
        name,
        OsStr::new("--out"),
        OsStr::from_bytes(b"o: \xfe"),
        OsStr::new("--point"),
        OsStr::new("3,3"),
    ];
    desk.run(&args).succeeds();
    assert!(
        desk.path(Path::new(OsStr::from_bytes(b"o: \xfe")))
            .join("run.json")
            .is_file()
    );
}

#[test]
fn inputs_that_are_no_video_are_named() {
    let desk = Desk::new();
    std::fs::write(desk.path("empty.mp4"), "").unwrap();
    std::fs::write(desk.path("text.mp4"), "this is not a video\n".repeat(50)).unwrap();
    std::fs::create_dir(desk.path("bare")).unwrap();
    write_images(&desk.path("mixed"), 1, 40, 30);
    write_images(&desk.path("other"), 1, 41, 30);
    std::fs::rename(desk.path("other/00000.png"), desk.path("mixed/00001.png")).unwrap();
    std::fs::remove_dir(desk.path("other")).unwrap();
    for (input, words) in [
        ("absent.mp4", &["absent.mp4", "no such file"][..]),
        ("empty.mp4", &["empty.mp4", "empty"]),
        ("text.mp4", &["text.mp4", "not a video"]),
        ("bare", &["bare", "no images"]),
        ("mixed", &["00001.png", "41x30", "40x30"]),
    ] {
        desk.run(&[input, BOX[0], BOX[1], "--out", "out"])
            .refuses(words);
    }
    desk.holds(&["bare", "empty.mp4", "in", "mixed", "text.mp4"]);
}

/// Makes a file with the ffmpeg command, which the tests of videos need anyway.
fn ffmpeg(arguments: &str, output: &Path) {
    let made = Command::new("ffmpeg")
        .args(["-v", "error", "-y"])
        .args(arguments.split_ascii_whitespace())
        .arg(output)
        .status();
    assert!(
        made.is_ok_and(|status| status.success()),
        "ffmpeg {arguments}"
    );
}

#[test]
fn videos_without_frames_are_named() {
    let desk = Desk::new();
    ffmpeg("-f lavfi -i sine=d=1", &desk.path("sound.m4a"));
    ffmpeg("-f lavfi -i testsrc=s=64x48:d=1", &desk.path("whole.mp4"));
    let content = std::fs::read(desk.path("whole.mp4")).unwrap();
    std::fs::write(desk.path("cut.mp4"), &content[..content.len() / 3]).unwrap();
    for (input, words) in [
        ("sound.m4a", &["sound.m4a", "no video"][..]),
        ("cut.mp4", &["cut.mp4"]),
    ] {
        desk.run(&[input, BOX[0], BOX[1], "--out", "out"])
            .refuses(words);
    }
    desk.holds(&["cut.mp4", "in", "sound.m4a", "whole.mp4"]);
}

#[test]
fn prompts_are_checked_against_the_frames_that_really_come() {
    // Six frames of 64x48, then six of 48x64.
    let desk = Desk::new();
    let mut joined = Vec::new();
    for size in ["64x48", "48x64"] {
        let part = desk.path("part.h264");
        ffmpeg(
            &format!("-f lavfi -i testsrc=s={size}:d=0.5:r=12 -pix_fmt yuv420p"),
            &part,
        );
        joined.extend(std::fs::read(&part).unwrap());
    }
    std::fs::remove_file(desk.path("part.h264")).unwrap();
    std::fs::write(desk.path("v.h264"), joined).unwrap();
    let run = |frame: u32, point: &str| {
        let text = format!(
            r#"[{{"frame": 0, "object": 1, "box": [1,1,50,40]}}, {{"frame": {frame}, "object": 1, "points": [{point}]}}]"#
        );
        std::fs::write(desk.path("p.json"), text).unwrap();
        desk.run(&["v.h264", "--prompts", "p.json", "--out", "out"])
    };
    run(8, "[60, 20]").refuses(&["entry 2 (frame 8, object 1)", "point 60,20", "48x64"]);
    run(3, "[20, 60]").refuses(&["entry 2 (frame 3, object 1)", "point 20,60", "64x48"]);
    run(12, "[20, 20]").refuses(&["entry 2 (frame 12, object 1)", "v.h264 has 12 frames"]);
    desk.holds(&["in", "p.json", "v.h264"]);

    run(8, "[20, 60]").succeeds();
    let report = read_json(&desk.path("out/run.json"));
    assert_eq!(
        report["sizes"],
        serde_json::json!([
            {"from_frame": 0, "width": 64, "height": 48},
            {"from_frame": 6, "width": 48, "height": 64}
        ])
    );
    let mask = read_index_png(&desk.path("out/masks/00011.png")).unwrap();
    assert_eq!((mask.width, mask.height), (48, 64));
    assert_eq!(
        read_json(&desk.path("out/tracks.json"))["frames"][11]["objects"][0]["rle"]["size"],
        serde_json::json!([64, 48])
    );
}

#[test]
fn a_bundle_is_chosen_by_resolution_or_by_default() {
    let desk = Desk::new();
    let run = |models: Option<&str>, more: &[&str]| -> Ran {
        let mut command = desk.command();
        command
            .args([
                "run",
                "in",
                "--box",
                "1,1,9,9",
                "--overwrite",
                "--out",
                "out",
            ])
            .args(more);
        if let Some(models) = models {
            command.env("SNOW_ORT_MODELS", models);
        }
        command.output().unwrap().into()
    };
    let resolution = || read_json(&desk.path("out/run.json"))["model"]["resolution"].clone();
    run(Some("none"), &[]).refuses(&["no bundle found in none", "--model", "snow-export"]);
    run(None, &["--models", "none"]).refuses(&["no bundle found in none"]);

    write_bundle(&desk.path("models/alpha-56-fp32"), 56);
    run(None, &["--models", "models"]).succeeds();
    assert_eq!(resolution(), 56);
    write_bundle(&desk.path("models/alpha-28-fp32"), 28);
    run(None, &[]).refuses(&[
        "several bundles",
        "--res",
        "models/alpha-28-fp32 (28 px, fp32)",
        "alpha-56",
    ]);
    run(None, &["--res", "28"]).succeeds();
    assert_eq!(resolution(), 28);
    run(None, &["--res", "512"]).refuses(&["no bundle of 512 pixels", "alpha-28", "alpha-56"]);
    run(None, &["--res", "510"]).refuses(&["510 is not a multiple of 14", "504 and 518"]);
    run(None, &["--res", "0"]).refuses(&["multiple of 14", "the lowest is 14"]);
    run(None, &["--res", "70"]).refuses(&["`snow-export --res 70`"]);
    run(Some("none"), &["--res", "510"]).refuses(&["have 510 pixels, and which are nearest"]);
    write_bundle(&desk.path("models/beta-28-fp32"), 28);
    run(None, &["--res", "28"]).refuses(&["several bundles of 28 pixels", "--model", "beta-28"]);
    write_bundle(&desk.path("models/snow/snow-84-fp32"), 84);
    write_bundle(&desk.path("models/snow/snow-56-fp32"), 56);
    run(Some("models"), &[]).succeeds();
    assert_eq!(resolution(), 56);

    std::fs::create_dir_all(desk.path("bad/one")).unwrap();
    std::fs::write(desk.path("bad/one/manifest.json"), "{}").unwrap();
    run(Some("bad"), &[]).refuses(&[
        "no bundle found in bad",
        "bad/one/manifest.json",
        "schema_version",
    ]);
}

#[test]
fn a_library_that_is_not_there_leaves_nothing() {
    let desk = Desk::new();
    desk.run(&[
        "in",
        BOX[0],
        BOX[1],
        "--out",
        "out",
        "--overlay",
        "o.mp4",
        "--ort-lib",
        "absent.so",
    ])
    .refuses(&["absent.so", "--ort-lib"]);
    std::fs::write(desk.path("text.so"), "no library").unwrap();
    desk.run(&["in", BOX[0], BOX[1], "--out", "out", "--ort-lib", "text.so"])
        .refuses(&["text.so"]);
    // It is looked for before any output is made.
    desk.run(&[
        "in",
        BOX[0],
        BOX[1],
        "--out",
        "/proc/x",
        "--ort-lib",
        "no.so",
    ])
    .refuses(&["no.so"]);
    desk.holds(&["in", "text.so"]);
}

#[test]
fn one_frame_is_one_frame() {
    let desk = Desk::with_images(1, 40, 30);
    let ran = desk.run(&["in", BOX[0], BOX[1], "--out", "out"]);
    assert!(ran.stderr.contains("1 frame, "), "{ran:?}");
}

#[test]
fn a_graph_that_does_not_load_leaves_nothing() {
    let mut desk = Desk::new();
    desk.bundle.replace_graph("mask_decoder", b"nonsense");
    desk.run(&["in", BOX[0], BOX[1], "--out", "out"])
        .refuses(&["mask_decoder"]);
    desk.holds(&["in"]);
}

#[test]
fn an_error_on_the_way_keeps_the_frames_before_it() {
    let desk = Desk::with_images(6, 40, 30);
    break_image(&desk.path("in/00004.png"));
    let ran = desk.run(&["in", BOX[0], BOX[1], "--out", "out", "--overlay", "o.mp4"]);
    ran.refuses(&["00004.png", "after 4 frames, kept in out"]);
    let error = ran
        .stderr
        .lines()
        .find(|line| line.starts_with("error:"))
        .unwrap();
    assert_eq!(
        error.matches("00004.png").count(),
        1,
        "each cause once: {error}"
    );
    let run = read_json(&desk.path("out/run.json"));
    assert_eq!(
        (&run["status"], &run["frames"]),
        (&"failed".into(), &4.into())
    );
    assert!(run["error"].as_str().unwrap().contains("00004.png"));
    assert_eq!(names_in(&desk.path("out/masks")).len(), 4);
    assert_eq!(
        read_json(&desk.path("out/tracks.json"))["frames"]
            .as_array()
            .unwrap()
            .len(),
        4
    );
    desk.holds(&["in", "o.mp4", "out"]);

    let desk = Desk::new();
    break_image(&desk.path("in/00000.png"));
    desk.run(&["in", BOX[0], BOX[1], "--out", "out"])
        .refuses(&["00000.png"]);
    desk.holds(&["in"]);
}

#[test]
fn a_model_that_fails_on_the_way_keeps_the_frames_before_it() {
    // The first frame has the prompt and needs no memory attention.
    let mut desk = Desk::new();
    desk.bundle.break_graph("memory_attention");
    desk.run(&["in", BOX[0], BOX[1], "--out", "out", "--dump-logits", "lg"])
        .refuses(&[
            "memory_attention",
            "frame 1",
            "after 1 frame,",
            "kept in out",
        ]);
    assert_eq!(read_json(&desk.path("out/run.json"))["status"], "failed");
    assert_eq!(names_in(&desk.path("out/masks")), ["00000.png"]);
    assert_eq!(names_in(&desk.path("lg")), ["00000.safetensors"]);
    desk.holds(&["in", "lg", "out"]);

    let mut desk = Desk::new();
    desk.bundle.break_graph("mask_decoder");
    desk.run(&["in", BOX[0], BOX[1], "--out", "out"])
        .refuses(&["mask_decoder", "frame 0"]);
    desk.holds(&["in"]);
}

#[test]
fn a_provider_that_cannot_serve_is_an_error() {
    let desk = Desk::new();
    let ran = desk.run(&[
        "in",
        BOX[0],
        BOX[1],
        "--out",
        "out",
        "--provider",
        "cuda",
        "--device-id",
        "4000",
    ]);
    ran.refuses(&["cuda"]);
    desk.holds(&["in"]);
}

#[test]
fn memory_does_not_grow_with_the_number_of_frames() {
    let desk = Desk::with_images(400, 320, 240);
    let (few, many) = (desk.peak_memory("40", &[]), desk.peak_memory("400", &[]));
    // 360 more frames would be 80 MiB as pixels alone.
    assert!(
        many < few + (24 << 20),
        "{few} bytes for 40 frames, {many} for 400"
    );
}
