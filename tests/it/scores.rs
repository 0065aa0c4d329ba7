//! `--gt`: J and F with values that were worked out by hand, and ground truth that cannot be used.
//!
//! The fake bundle's masks are always the frame's left half. With two objects the first covers the second. Frames are
//! 40x30: the diagonal is 50, so outlines may be apart by ceil(0.008 * 50) = 1 pixel.

use std::path::Path;

use serde_json::{Value, json};
use snow_ort::scoring::{Score, score_frame};

use crate::fake::{Desk, Ran, read_json, write_mask};
use crate::interrupt::start_long;

const BOX: [&str; 4] = ["in", "--box", "1,1,9,9", "--out"];

fn score(desk: &Desk, more: &[&str]) -> Ran {
    let mut args = BOX.to_vec();
    args.extend(["out", "--overwrite"]);
    args.extend(more);
    desk.run(&args)
}

fn scores(desk: &Desk) -> Value {
    read_json(&desk.path("out/run.json"))["scores"].clone()
}

/// Ground truth of a frame: the object's id where `inside` is true.
fn annotate(desk: &Desk, name: &str, id: u16, inside: impl Fn(u32, u32) -> bool) {
    let path = desk.path(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    write_mask(&path, 40, 30, |x, y| if inside(x, y) { id } else { 0 });
}

fn of_object(expected: &[u16], got: &[u16], width: u32) -> Score {
    score_frame(expected, got, width, expected.len() as u32 / width, &[1]).unwrap()[0]
}

#[track_caller]
fn near(value: &Value, expected: f64) {
    let value = value.as_f64().unwrap();
    assert!(
        (value - expected).abs() < 1e-12,
        "{value}, expected {expected}"
    );
}

#[test]
fn masks_are_compared_pixel_by_pixel() {
    // A map of 4x2: two pixels are in both masks, five in one of them.
    let expected = [1, 1, 1, 0, 0, 1, 0, 0];
    let got = [0, 1, 1, 0, 0, 0, 1, 0];
    assert_eq!(of_object(&expected, &got, 4).j, 2.0 / 5.0);
    // Neither shows the object: nothing is wrong.
    let empty = of_object(&[0, 2, 0, 0], &[2, 0, 0, 0], 2);
    assert_eq!((empty.j, empty.f), (1.0, 1.0));
    // One alone shows it.
    for (expected, got) in [([1, 0, 0, 0], [0; 4]), ([0; 4], [1, 0, 0, 0])] {
        let alone = of_object(&expected, &got, 2);
        assert_eq!((alone.j, alone.f), (0.0, 0.0));
    }
    // A mask that fills the frame has no outline: with another such mask F is 1, with any other one 0.
    assert_eq!(of_object(&[1; 4], &[1; 4], 2).f, 1.0);
    let full = of_object(&[1; 4], &[1, 0, 0, 0], 2);
    assert_eq!((full.j, full.f), (0.25, 0.0));
}

#[test]
fn ignored_pixels_are_in_neither_mask() {
    // Wrong only where the ground truth does not judge.
    let right = of_object(&[1, 255, 0, 0], &[1, 1, 0, 0], 2);
    assert_eq!((right.j, right.f), (1.0, 1.0));
    let nothing = of_object(&[255; 4], &[1; 4], 2);
    assert_eq!((nothing.j, nothing.f), (1.0, 1.0));
    let size = score_frame(&[0; 4], &[0; 5], 2, 2, &[1]);
    let message = size.err().unwrap().to_string();
    assert!(message.contains("2x2: expected 4 labels in each, got 4") && message.contains("5 of"));
}

#[test]
fn a_run_is_scored_frame_by_frame() {
    let desk = Desk::with_images(8, 40, 30);
    // The prompt's frame does not count, however wrong it is.
    annotate(&desk, "gt/00000.png", 1, |x, _| x > 30);
    annotate(&desk, "gt/00001.png", 1, |x, _| x < 20);
    // 600 of 630 pixels; every outline pixel is 1 away.
    annotate(&desk, "gt/00002.png", 1, |x, _| x < 21);
    // 600 of 900 pixels; the outlines are 10 apart.
    annotate(&desk, "gt/00003.png", 1, |x, _| x < 30);
    // 300 of 600 pixels. The mask's outline is column 19, 30 pixels, of which rows 0 to 14 lie on and row 15 lies beside
    // the other's: 16. That one has 15 pixels in column 19 and 19 more in row 14, of which 15 and 1 match.
    // P = 16/30, R = 16/34, F = 32/64.
    annotate(&desk, "gt/00004.png", 1, |x, y| x < 20 && y < 15);
    annotate(&desk, "gt/00005.png", 1, |_, _| false);
    // Frame 6 is not annotated. On frame 7 all that is wrong is ignored.
    write_mask(&desk.path("gt/00007.png"), 40, 30, |x, _| {
        if x < 10 { 1 } else { 255 }
    });
    std::fs::write(desk.path("gt/notes.txt"), "not a mask").unwrap();

    let ran = score(&desk, &["--gt", "gt", "--overlay", "o.mp4"]);
    ran.succeeds();
    let scores = scores(&desk);
    let wanted = [
        (1, 1.0, 1.0),
        (2, 20.0 / 21.0, 1.0),
        (3, 2.0 / 3.0, 0.0),
        (4, 0.5, 0.5),
        (5, 0.0, 0.0),
        (7, 1.0, 1.0),
    ];
    let frames = scores["objects"][0]["per_frame"].as_array().unwrap();
    assert_eq!(frames.len(), wanted.len());
    for (frame, (number, j, f)) in frames.iter().zip(wanted) {
        assert_eq!(frame["frame"], number);
        near(&frame["j"], j);
        near(&frame["f"], f);
    }
    let j = wanted.iter().map(|(_, j, _)| j).sum::<f64>() / 6.0;
    let f = 3.5 / 6.0;
    for mean in [&scores["objects"][0]["mean"], &scores["overall"]] {
        near(&mean["j"], j);
        near(&mean["f"], f);
        near(&mean["j_and_f"], (j + f) / 2.0);
        // Half is not above a half.
        near(&mean["j_recall"], 4.0 / 6.0);
        near(&mean["f_recall"], 3.0 / 6.0);
    }
    assert_eq!(scores["objects"].as_array().unwrap().len(), 1);
    assert_eq!(scores["objects"][0]["frames"], 6);
    assert_eq!(scores["annotated_frames"], 7);
    assert_eq!(scores["matched_by"], "name");
    assert_eq!(scores["ground_truth"], "gt");
    let table = "\
scores   gt, 7 annotated frames
 object       J      F    J&F  frames
 1        0.687  0.583  0.635       6
 overall  0.687  0.583  0.635
";
    assert!(ran.stdout.ends_with(table), "{}", ran.stdout);
    assert!(!ran.stderr.contains("warning"), "{ran:?}");

    score(&desk, &[]).succeeds();
    assert_eq!(read_json(&desk.path("out/run.json"))["scores"], Value::Null);
}

#[test]
fn objects_that_only_one_side_knows_are_named() {
    let desk = Desk::with_images(6, 40, 30);
    let prompts = json!([
        {"frame": 0, "object": 1, "box": [1, 1, 9, 9]},
        {"frame": 2, "object": 3, "box": [1, 1, 9, 9]},
        {"frame": 0, "object": 7, "box": [1, 1, 9, 9]},
        {"frame": 5, "object": 4, "box": [1, 1, 9, 9]}
    ]);
    std::fs::write(desk.path("p.json"), prompts.to_string()).unwrap();
    for frame in 0..6 {
        // Object 2 comes on frame 3; the last frame is the first that shows object 4.
        write_mask(
            &desk.path(format!("in/gt-{frame}.png")),
            40,
            30,
            |x, y| match (x, y) {
                (0..20, _) => 1,
                (30.., 0..5) => 3,
                (30.., 5..9) if frame >= 3 => 2,
                (30.., 9..12) if frame == 5 => 4,
                _ => 0,
            },
        );
    }
    std::fs::create_dir(desk.path("gt")).unwrap();
    for frame in 0..6 {
        let (from, to) = (format!("in/gt-{frame}.png"), format!("gt/{frame:05}.png"));
        std::fs::rename(desk.path(from), desk.path(to)).unwrap();
    }
    let ran = desk.run(&["in", "--prompts", "p.json", "--out", "out", "--gt", "gt"]);
    ran.succeeds();
    for line in [
        "warning: the ground truth gt shows object 2, for which there is no prompt: scored as empty masks",
        "warning: the ground truth gt never shows object 7: not scored",
        "warning: the ground truth gt has no frame after the first prompt of object 4: not scored",
    ] {
        assert!(
            ran.stderr.contains(line),
            "{line:?} is not in {}",
            ran.stderr
        );
    }
    let scores = scores(&desk);
    assert_eq!(scores["not_scored"], json!([7]));
    let seen: Vec<Value> = scores["objects"]
        .as_array()
        .unwrap()
        .iter()
        .map(|object| {
            let frames = object["per_frame"].as_array().unwrap();
            let first = frames
                .first()
                .map_or(Value::Null, |frame| frame["frame"].clone());
            json!([object["object"], object["tracked"], object["frames"], first])
        })
        .collect();
    let expected = json!([
        [1, true, 5, 1],
        [2, false, 3, 3],
        [3, true, 3, 3],
        [4, true, 0, null]
    ]);
    assert_eq!(json!(seen), expected);
    assert_eq!(scores["objects"][3]["mean"], Value::Null);
    // Object 3 is hidden behind object 1. Object 4 has no weight.
    near(&scores["overall"]["j"], 1.0 / 3.0);
    let rows: Vec<Vec<&str>> = ran
        .stdout
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    for row in [
        &["2", "0.000", "0.000", "0.000", "3", "not", "tracked"][..],
        &["4", "-", "-", "-", "0"],
    ] {
        assert!(rows.iter().any(|line| line == row), "{}", ran.stdout);
    }
}

#[test]
fn files_are_matched_by_name_or_by_number() {
    let desk = Desk::new();
    for (old, new) in [("00000", "10"), ("00001", "11"), ("00002", "12")] {
        let path = |name: &str| desk.path(format!("in/{name}.png"));
        std::fs::rename(path(old), path(new)).unwrap();
    }
    let matched = |files: &[&str]| {
        let _ = std::fs::remove_dir_all(desk.path("gt"));
        for file in files {
            annotate(&desk, &format!("gt/{file}"), 1, |x, _| x < 20);
        }
        score(&desk, &["--gt", "gt"]).succeeds();
        let scores = scores(&desk);
        let frames = scores["objects"][0]["per_frame"].as_array().unwrap();
        let frames: Vec<u64> = frames
            .iter()
            .map(|f| f["frame"].as_u64().unwrap())
            .collect();
        (scores["matched_by"].as_str().unwrap().to_owned(), frames)
    };
    assert_eq!(matched(&["10.png", "12.PNG"]), ("name".to_owned(), vec![2]));
    assert_eq!(
        matched(&["0.png", "00001.png"]),
        ("number".to_owned(), vec![1])
    );
    // The masks of a run are ground truth for the next.
    std::fs::rename(desk.path("out/masks"), desk.path("masks")).unwrap();
    score(&desk, &["--gt", "masks"]).succeeds();
    near(&scores(&desk)["overall"]["j_and_f"], 1.0);
}

#[test]
fn black_and_white_masks_show_one_object() {
    let desk = Desk::new();
    std::fs::create_dir(desk.path("gt")).unwrap();
    let grey = |file: &str, value: u8| {
        let mask =
            image::GrayImage::from_fn(40, 30, |x, _| [if x < 20 { value } else { 0 }].into());
        mask.save(desk.path(file)).unwrap();
    };
    grey("gt/00000.png", 255);
    // Some programs add an alpha channel to some of a clip's masks.
    let mask =
        image::GrayAlphaImage::from_fn(40, 30, |x, _| [if x < 30 { 255 } else { 0 }, 255].into());
    mask.save(desk.path("gt/00001.png")).unwrap();
    grey("gt/00002.png", 255);
    score(&desk, &["--gt", "gt"]).succeeds();
    let frames = scores(&desk)["objects"][0]["per_frame"].clone();
    near(&frames[0]["j"], 2.0 / 3.0);
    near(&frames[1]["j"], 1.0);

    // With any other value, they are ids, and 255 is not judged.
    grey("gt/00002.png", 1);
    score(&desk, &["--gt", "gt"]).succeeds();
    let frames = scores(&desk)["objects"][0]["per_frame"].clone();
    near(&frames[0]["j"], 1.0);
    near(&frames[1]["j"], 1.0);
}

#[test]
fn frames_that_are_not_tracked_need_no_ground_truth() {
    let desk = Desk::with_images(5, 40, 30);
    for frame in [1, 4] {
        annotate(&desk, &format!("gt/{frame:05}.png"), 1, |x, _| x < 20);
    }
    score(&desk, &["--gt", "gt", "--max-frames", "3"]).succeeds();
    assert_eq!(scores(&desk)["annotated_frames"], 1);
    score(&desk, &["--gt", "gt", "--max-frames", "1"]).refuses(&["gt", "--max-frames"]);
}

#[test]
fn an_early_end_keeps_its_scores() {
    let desk = Desk::with_images(6, 40, 30);
    for frame in 0..6 {
        annotate(&desk, &format!("gt/{frame:05}.png"), 1, |x, _| x < 20);
    }
    crate::output::break_image(&desk.path("in/00004.png"));
    score(&desk, &["--gt", "gt"]).refuses(&["00004.png", "kept in out"]);
    assert_eq!(scores(&desk)["objects"][0]["frames"], 3);
}

#[test]
fn ground_truth_that_cannot_be_used_is_refused_before_tracking() {
    let desk = Desk::new();
    let refused = |prepare: &dyn Fn(&Path), words: &[&str]| {
        let dir = desk.path("gt");
        annotate(&desk, "gt/00001.png", 1, |x, _| x < 20);
        prepare(&dir);
        score(&desk, &["--gt", "gt"]).refuses(words);
        let _ = std::fs::remove_dir_all(&dir);
        let _ = std::fs::remove_file(&dir);
        desk.holds(&["in"]);
    };
    let empty = |dir: &Path| {
        std::fs::remove_dir_all(dir).unwrap();
        std::fs::create_dir(dir).unwrap();
    };
    refused(
        &|dir| std::fs::remove_dir_all(dir).unwrap(),
        &["the ground truth gt", "no such folder"],
    );
    refused(&empty, &["the ground truth gt", "no PNG", "00000.png"]);
    refused(
        &|dir| {
            empty(dir);
            std::fs::create_dir(dir.join("masks")).unwrap();
            write_mask(&dir.join("masks/00001.png"), 40, 30, |_, _| 1);
        },
        &["no PNG", "did you mean gt/masks?"],
    );
    refused(
        &|dir| write_mask(&dir.join("00003.png"), 40, 30, |_, _| 1),
        &[
            "gt/00003.png",
            "no frame 3",
            "in has 3 frames",
            "count from 0",
        ],
    );
    refused(
        &|dir| write_mask(&dir.join("bear.png"), 40, 30, |_, _| 1),
        &[
            "gt/bear.png",
            "matches no frame",
            "such as 00000.png",
            "rename",
        ],
    );
    refused(
        &|dir| write_mask(&dir.join("1.png"), 40, 30, |_, _| 1),
        &["gt/00001.png and gt/1.png", "frame 1"],
    );
    refused(
        &|dir| write_mask(&dir.join("00002.png"), 30, 40, |_, _| 1),
        &[
            "gt/00002.png",
            "is 30x40",
            "frame 2 is 40x30",
            "scale labels",
        ],
    );
    refused(
        &|dir| {
            let colours = image_of_colours();
            std::fs::write(dir.join("00002.png"), colours).unwrap();
        },
        &["gt/00002.png", "RGB", "object ids"],
    );
    refused(
        &|dir| std::fs::write(dir.join("00002.png"), "no PNG").unwrap(),
        &["gt/00002.png", "no readable PNG"],
    );
    refused(
        &|dir| crate::output::break_image(&dir.join("00001.png")),
        &["gt/00001.png", "no readable PNG"],
    );
    refused(
        &|dir| {
            write_mask(
                &dir.join("00001.png"),
                40,
                30,
                |x, _| if x < 20 { 255 } else { 0 },
            )
        },
        &[
            "the ground truth gt",
            "no PNG shows an object",
            "255 (ignored)",
        ],
    );
    refused(
        &|dir| {
            empty(dir);
            write_mask(&dir.join("00000.png"), 40, 30, |_, _| 1);
        },
        &[
            "the ground truth gt",
            "nothing can be scored",
            "annotate later frames",
        ],
    );
}

fn image_of_colours() -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, 40, 30);
    encoder.set_color(png::ColorType::Rgb);
    let mut writer = encoder.write_header().unwrap();
    writer.write_image_data(&[9; 3600]).unwrap();
    writer.finish().unwrap();
    bytes
}

#[test]
fn ground_truth_is_never_replaced() {
    let desk = Desk::new();
    score(&desk, &[]).succeeds();
    score(&desk, &["--gt", "out/masks"]).refuses(&["the ground truth out/masks", "would be lost"]);
    score(&desk, &["--gt", "in", "--contact-sheet", "in/s.png"]).refuses(&["lies in in"]);
    annotate(&desk, "gt/00001.png", 1, |x, _| x < 20);
    score(&desk, &["--gt", "gt", "--contact-sheet", "gt/00001.png"]).refuses(&[
        "the contact sheet gt/00001.png lies in gt, the ground truth",
        "another path",
    ]);
}

#[test]
fn ground_truth_that_changes_meanwhile_costs_the_scores_alone() {
    let desk = Desk::with_images(300, 40, 30);
    annotate(&desk, "gt/00001.png", 1, |x, _| x < 20);
    annotate(&desk, "gt/00299.png", 1, |x, _| x < 20);
    let child = start_long(&desk, &["--gt", "gt"]);
    write_mask(&desk.path("gt/00299.png"), 30, 40, |_, _| 1);
    let ran: Ran = child.wait_with_output().unwrap().into();
    ran.refuses(&[
        "ground truth changed",
        "gt/00299.png",
        "is 30x40",
        "complete, in out",
    ]);
    let run = read_json(&desk.path("out/run.json"));
    assert_eq!(
        (&run["status"], &run["frames"]),
        (&json!("done"), &json!(300))
    );
    assert_eq!(run["scores"], Value::Null);
}

#[test]
fn videos_are_matched_by_number_and_every_size_is_checked() {
    let desk = Desk::new();
    let mut joined = Vec::new();
    // Six frames of 64x48, then six of 48x64.
    for size in ["64x48", "48x64"] {
        let part = desk.path("part.h264");
        let source = format!("testsrc=s={size}:d=0.5:r=12");
        let made = std::process::Command::new("ffmpeg")
            .args(["-v", "error", "-y", "-f", "lavfi", "-i", &source])
            .args(["-pix_fmt", "yuv420p"])
            .arg(&part)
            .status();
        assert!(made.is_ok_and(|status| status.success()));
        joined.extend(std::fs::read(&part).unwrap());
    }
    std::fs::write(desk.path("v.h264"), joined).unwrap();
    std::fs::create_dir(desk.path("gt")).unwrap();
    let run = |frame: u32, (width, height): (u32, u32)| {
        let path = desk.path(format!("gt/{frame}.png"));
        write_mask(&path, width, height, |x, _| u16::from(x < width / 2));
        let args = ["v.h264", "--box", "1,1,9,9", "--out", "out", "--gt", "gt"];
        let ran = desk.run(&args);
        std::fs::remove_file(&path).unwrap();
        ran
    };
    run(8, (64, 48)).refuses(&["gt/8.png", "is 64x48", "frame 8 is 48x64"]);
    run(3, (48, 64)).refuses(&["gt/3.png", "is 48x64", "frame 3 is 64x48"]);
    run(12, (48, 64)).refuses(&["gt/12.png", "no frame 12", "v.h264 has 12 frames"]);
    assert!(!desk.path("out").exists());
    run(8, (48, 64)).succeeds();
    let scores = scores(&desk);
    assert_eq!(scores["matched_by"], "number");
    assert_eq!(scores["objects"][0]["per_frame"][0]["frame"], 8);
    near(&scores["overall"]["j_and_f"], 1.0);
}
