//! Prompts from flags and files: what they mean, and every way in which one cannot be used.

use std::path::{Path, PathBuf};

use snow_ort::masks::Mask;
use snow_ort::prompts::{FlagPrompt, PromptError, Prompts};
use snow_ort::tracker::Prompt;

use crate::fake::{Desk, read_json, write_mask};

fn merged(prompts: Prompts) -> Vec<Prompt> {
    prompts.into_frames().into_values().flatten().collect()
}

fn flags(texts: &[(&str, &str)]) -> Vec<FlagPrompt> {
    texts
        .iter()
        .map(|(kind, text)| match *kind {
            "box" => FlagPrompt::Box((*text).to_owned()),
            "point" => FlagPrompt::Point((*text).to_owned()),
            _ => FlagPrompt::Mask(PathBuf::from(text)),
        })
        .collect()
}

fn file(dir: &Path, text: &str) -> PathBuf {
    let path = dir.join("prompts.json");
    std::fs::write(&path, text).unwrap();
    path
}

#[test]
fn flags_are_objects_in_their_order() {
    let flags = flags(&[
        ("point", "3,4"),
        ("box", "1, 2,30.5,40"),
        ("point", "5,6,0"),
    ]);
    let prompts = Prompts::load(&flags, None).unwrap();
    prompts.check(0, 40, 40).unwrap();
    let prompts = merged(prompts);
    let objects: Vec<u32> = prompts.iter().map(|p| p.object).collect();
    assert_eq!(objects, [1, 2, 3]);
    assert!(prompts.iter().all(|p| p.frame == 0));
    assert_eq!(prompts[0].points, [[3.0, 4.0, 1.0]]);
    assert_eq!(prompts[1].bbox, Some([1.0, 2.0, 30.5, 40.0]));
    assert_eq!(prompts[2].points, [[5.0, 6.0, 0.0]]);
}

#[test]
fn the_program_keeps_the_order_of_flags_across_kinds() {
    let desk = Desk::new();
    write_mask(&desk.path("m.png"), 40, 30, |x, _| u16::from(x < 9));
    desk.run(&[
        "in",
        "--point",
        "3,4",
        "--box",
        "1,2,30,20",
        "--mask",
        "m.png",
        "--point",
        "5,6,0",
        "--out",
        "out",
    ])
    .succeeds();
    let run = read_json(&desk.path("out/run.json"));
    let shown: Vec<(u64, bool, usize, bool)> = run["prompts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|p| {
            let points = p["points"].as_array().unwrap().len();
            (
                p["object"].as_u64().unwrap(),
                p["box"].is_array(),
                points,
                p["mask_area"].is_u64(),
            )
        })
        .collect();
    assert_eq!(
        shown,
        [
            (1, false, 1, false),
            (2, true, 0, false),
            (3, false, 0, true),
            (4, false, 1, false)
        ]
    );
}

#[test]
fn an_index_mask_keeps_its_ids_only_when_it_stands_alone() {
    let dir = tempfile::tempdir().unwrap();
    let many = dir.path().join("many.png");
    write_mask(&many, 8, 8, |x, _| [0, 5, 9, 0][x as usize % 4]);
    let single = dir.path().join("single.png");
    write_mask(&single, 8, 8, |x, _| if x < 4 { 255 } else { 0 });
    let load = |flags: &[FlagPrompt]| {
        let prompts = merged(Prompts::load(flags, None).unwrap());
        prompts.iter().map(|p| p.object).collect::<Vec<_>>()
    };
    let many = FlagPrompt::Mask(many);
    let single = FlagPrompt::Mask(single);
    let point = FlagPrompt::Point("1,1".into());
    assert_eq!(load(std::slice::from_ref(&many)), [5, 9]);
    assert_eq!(load(&[point.clone(), many.clone(), point]), [1, 2, 3, 4]);
    assert_eq!(load(std::slice::from_ref(&single)), [1]);
    assert_eq!(load(&[many, single]), [1, 2, 3]);
}

#[test]
fn entries_of_a_file_are_merged_by_frame_and_object() {
    let dir = tempfile::tempdir().unwrap();
    write_mask(&dir.path().join("m.png"), 8, 6, |x, y| {
        if y == 0 { 3 } else { u16::from(x == 0) * 4 }
    });
    write_mask(&dir.path().join("plain.png"), 8, 6, |x, _| {
        u16::from(x < 2) * 255
    });
    let path = file(
        dir.path(),
        r#"[{"frame": 0, "object": 2, "box": [1, 1, 5, 5], "points": [[2, 2]]},
            {"frame": 4, "object": 3, "mask": "m.png"},
            {"frame": 4, "object": 7, "mask": "plain.png"},
            {"frame": 0, "object": 2, "points": [[3, 3, 0], [4, 4, 1]]},
            {"frame": 4, "object": 2, "points": [[1, 1, 1]]}]"#,
    );
    let prompts = Prompts::load(&[], Some(&path)).unwrap();
    assert_eq!(prompts.frames().into_iter().collect::<Vec<_>>(), [0, 4]);
    assert_eq!(prompts.last_frame(), 4);
    for frame in [0, 4] {
        prompts.check(frame, 8, 6).unwrap();
    }
    let prompts = merged(prompts);
    let places: Vec<(usize, u32)> = prompts.iter().map(|p| (p.frame, p.object)).collect();
    assert_eq!(places, [(0, 2), (4, 3), (4, 7), (4, 2)]);
    assert_eq!(prompts[0].bbox, Some([1.0, 1.0, 5.0, 5.0]));
    assert_eq!(
        prompts[0].points,
        [[2.0, 2.0, 1.0], [3.0, 3.0, 0.0], [4.0, 4.0, 1.0]]
    );
    let area = |p: &Prompt| p.mask.as_ref().unwrap().area();
    assert_eq!(area(&prompts[1]), 8, "only the pixels of object 3");
    assert_eq!(area(&prompts[2]), 12, "all pixels that are not 0");
}

#[test]
fn flags_and_a_file_refine_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let path = file(
        dir.path(),
        r#"[{"frame": 0, "object": 1, "points": [[2, 2, 0]]}]"#,
    );
    let prompts = merged(Prompts::load(&flags(&[("box", "1,1,5,5")]), Some(&path)).unwrap());
    assert_eq!(prompts.len(), 1);
    assert!(prompts[0].bbox.is_some() && prompts[0].points.len() == 1);
}

#[test]
fn prompts_survive_json() {
    let dir = tempfile::tempdir().unwrap();
    write_mask(&dir.path().join("m.png"), 9, 6, |x, y| {
        u16::from(x * y % 3 == 1) * 3
    });
    let path = file(
        dir.path(),
        r#"[{"frame": 0, "object": 2, "box": [1.1, 1, 5.3, 5], "points": [[0.1, 2.7, 0]]},
            {"frame": 4, "object": 3, "mask": "m.png"}]"#,
    );
    let prompts = Prompts::load(&flags(&[("point", "3.3,4")]), Some(&path)).unwrap();
    let json = serde_json::to_string(&prompts).unwrap();
    std::fs::remove_file(dir.path().join("m.png")).unwrap();
    let read: Prompts = serde_json::from_str(&json).unwrap();
    assert_eq!(read, prompts);
    let origins: Vec<&str> = read.mask_files().map(|(origin, _)| origin).collect();
    assert!(origins[0].ends_with("prompts.json: entry 2 (frame 4, object 3)"));
    assert_eq!(merged(read), merged(prompts));
    let none: Prompts =
        serde_json::from_str(&serde_json::to_string(&Prompts::none()).unwrap()).unwrap();
    assert!(none.frames().is_empty());
    for (good, bad, words) in [
        ("\"object\":1", "\"object\":0", "object is 0"),
        ("\"frame\":4", "\"frame\":0", ""),
        ("\"object\":3", "\"object\":70000", "expected 1 to 65535"),
        ("5.3", "0.3", "inverted"),
        ("\"size\":[6,9]", "\"size\":[6,8]", "run"),
    ] {
        assert!(json.contains(good), "{json}");
        let changed = serde_json::from_str::<Prompts>(&json.replace(good, bad));
        match (words, changed) {
            ("", read) => assert_eq!(read.unwrap().last_frame(), 0),
            (words, read) => {
                let error = read.unwrap_err().to_string();
                assert!(error.contains(words), "{error}");
            }
        }
    }
}

#[test]
fn a_program_gives_prompts() {
    let prompt = |frame, object| Prompt {
        frame,
        object,
        ..Prompt::default()
    };
    let mask = |values: &[u8]| {
        let pixels = values.iter().map(|value| *value == 1).collect();
        Mask::new(3, 2, pixels)
    };
    let given = vec![
        Prompt {
            bbox: Some([1.0, 1.0, 5.0, 5.0]),
            points: vec![[2.0, 2.0, 0.0]],
            ..prompt(0, 4)
        },
        Prompt {
            mask: mask(&[0, 1, 1, 0, 0, 1]).ok(),
            ..prompt(2, 1)
        },
    ];
    let prompts = Prompts::from_prompts(given.clone()).unwrap();
    assert_eq!(prompts.mask_files().count(), 0);
    assert_eq!(merged(prompts), given);

    let refused = |prompts: Vec<Prompt>, words: &str| {
        let error = Prompts::from_prompts(prompts).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    };
    assert!(matches!(
        Prompts::from_prompts(Vec::new()),
        Err(PromptError::None)
    ));
    refused(vec![prompt(0, 1)], "prompt 1 (frame 0, object 1)");
    refused(vec![prompt(0, 1)], "box, points or mask");
    let boxed = |bbox| Prompt {
        bbox: Some(bbox),
        ..prompt(3, 2)
    };
    let good = boxed([1.0, 1.0, 2.0, 2.0]);
    refused(vec![boxed([f32::NAN, 1.0, 2.0, 2.0])], "not a finite");
    refused(vec![boxed([3.0, 1.0, 2.0, 2.0])], "inverted");
    refused(
        vec![good.clone(), good.clone()],
        "object 2 on frame 3 has a second box, expected at most one; the first is prompt 1",
    );
    refused(vec![prompt(0, 0)], "none of box");
    refused(
        vec![Prompt {
            object: 0,
            ..good.clone()
        }],
        "object is 0",
    );
    let pointed = |point| Prompt {
        points: vec![point],
        ..prompt(0, 1)
    };
    refused(vec![pointed([1.0, 1.0, 7.0])], "label 7");
    refused(vec![pointed([1.0, f32::INFINITY, 1.0])], "not a finite");
    let masked = |values: &[u8]| Prompt {
        mask: Some(mask(values).unwrap()),
        ..prompt(0, 1)
    };
    refused(vec![masked(&[0; 6])], "every pixel is 0");
    let error = mask(&[1; 5]).unwrap_err().to_string();
    assert!(error.contains("3x2: expected 6 values, got 5"), "{error}");
    refused(
        vec![Prompt {
            bbox: good.bbox,
            ..masked(&[1; 6])
        }],
        "a mask and a box or points",
    );
}

#[track_caller]
fn run_refuses(args: &[&str], words: &[&str]) {
    let desk = Desk::new();
    write_mask(&desk.path("small.png"), 20, 30, |_, _| 1);
    write_mask(&desk.path("empty.png"), 40, 30, |_, _| 0);
    let mut all = vec!["in", "--out", "out/deep"];
    all.extend(args);
    desk.run(&all).refuses(words);
    desk.holds(&["empty.png", "in", "small.png"]);
}

#[test]
fn wrong_flags_are_refused() {
    run_refuses(
        &[],
        &["no prompts", "--box", "--point", "--mask", "--prompts"],
    );
    let cases: [(&[&str], &[&str]); 17] = [
        (
            &["--box", "1,1,41,20"],
            &["--box 1,1,41,20", "outside of the frame", "40x30"],
        ),
        (
            &["--box", "-1,1,4,20"],
            &["--box -1,1,4,20", "outside of the frame", "40x30"],
        ),
        (
            &["--box", "50,50,60,60"],
            &["--box 50,50,60,60", "outside of the frame"],
        ),
        (
            &["--box", "20,1,10,20"],
            &["--box 20,1,10,20", "inverted", "x1 < x2"],
        ),
        (&["--box", "1,20,10,2"], &["inverted"]),
        (&["--box", "5,1,5,20"], &["--box 5,1,5,20", "empty"]),
        (
            &["--box", "nan,1,5,20"],
            &["--box nan,1,5,20", "\"nan\"", "not a finite number"],
        ),
        (
            &["--box", "1,1,inf,20"],
            &["\"inf\"", "not a finite number"],
        ),
        (
            &["--box", "1,1,5"],
            &["--box 1,1,5", "expected x1,y1,x2,y2", "3 numbers"],
        ),
        (&["--box", "1,1,five,6"], &["\"five\"", "not a number"]),
        (
            &["--point", "40,3"],
            &["--point 40,3", "outside of the frame", "40x30"],
        ),
        (
            &["--point", "3,-0.5"],
            &["--point 3,-0.5", "outside of the frame"],
        ),
        (
            &["--point", "3,4,2"],
            &["--point 3,4,2", "label 2", "expected 1"],
        ),
        (&["--point", "3"], &["--point 3", "expected x,y"]),
        (
            &["--mask", "small.png"],
            &["--mask small.png", "20x30", "40x30"],
        ),
        (&["--mask", "empty.png"], &["--mask empty.png", "empty"]),
        (
            &["--mask", "absent.png"],
            &["--mask absent.png", "absent.png"],
        ),
    ];
    for (args, words) in cases {
        run_refuses(args, words);
    }
}

#[track_caller]
fn file_refuses(text: &str, words: &[&str]) {
    let desk = Desk::new();
    write_mask(&desk.path("small.png"), 20, 30, |_, _| 1);
    write_mask(&desk.path("empty.png"), 40, 30, |_, _| 0);
    write_mask(&desk.path("many.png"), 40, 30, |x, _| {
        [5, 9][x as usize % 2]
    });
    file(&desk.path(""), text);
    let mut all = vec!["prompts.json"];
    all.extend(words);
    desk.run(&["in", "--prompts", "prompts.json", "--out", "out"])
        .refuses(&all);
    desk.holds(&["empty.png", "in", "many.png", "prompts.json", "small.png"]);
}

#[test]
fn wrong_files_are_refused() {
    let cases: [(&str, &[&str]); 31] = [
        ("{}", &["expected a JSON list", "got an object"]),
        ("3", &["expected a JSON list", "got a number"]),
        ("\u{feff}[]", &["the list is empty"]),
        (
            "[3]",
            &["entry 1: got a number, expected an object such as"],
        ),
        (
            r#"[{"frame": 0, "object": 1, "box": [1,1,5,5]}, {"frame": 1, "object": 1, "box": [-Infinity,1,2,5]}]"#,
            &["entry 2", "Infinity is not a number"],
        ),
        (
            r#"[{"frame": 0, "object": 1, "box": {"x": 1}}]"#,
            &["entry 1", "box is an object, expected 4 numbers"],
        ),
        (
            r#"[{"frame": 0, "object": 1, "points": [10, 20]}]"#,
            &["entry 1", "points holds 10, expected a list of points"],
        ),
        (
            r#"[{"frame": 1.5, "object": 1, "box": [1,1,5,5]}]"#,
            &["entry 1", "frame is 1.5, expected a whole number"],
        ),
        (
            r#"[{"frame": 0, "object": "cat", "box": [1,1,5,5]}]"#,
            &["entry 1", "object is a text, expected a whole number"],
        ),
        (
            r#"[{"frame": 0, "object": 1, "mask": 3}]"#,
            &["entry 1", "mask is 3, expected the name of a PNG"],
        ),
        (
            r#"[{"frame": 0, "object": 1, "box": [1,1,5,5], "box": [2,2,6,6]}]"#,
            &["entry 1", "field `box` is given twice"],
        ),
        ("[", &["line 1"]),
        ("[]", &["the list is empty"]),
        (
            r#"[{"frame": 0, "object": 1}]"#,
            &["entry 1 (frame 0, object 1)", "box, points or mask"],
        ),
        (
            r#"[{"object": 1, "box": [1,1,5,5]}]"#,
            &["entry 1 (frame ?, object 1)", "missing field `frame`"],
        ),
        (
            r#"[{"frame": 0, "object": 1, "bocks": [1,1,5,5]}]"#,
            &["entry 1", "unknown field `bocks`"],
        ),
        (
            r#"[{"frame": 0, "object": 1, "box": [1,1,5,5]}, {"frame": 1, "object": 2, "box": [1,1,5,50]}]"#,
            &[
                "entry 2 (frame 1, object 2)",
                "box 1,1,5,50",
                "outside of the frame",
                "40x30",
            ],
        ),
        (
            r#"[{"frame": 0, "object": 1, "box": [1,1,null,5]}]"#,
            &["entry 1", "null", "NaN"],
        ),
        (
            r#"[{"frame": 0, "object": 1, "box": [1,1,1e39,5]}]"#,
            &["entry 1", "box holds"],
        ),
        (
            r#"[{"frame": 0, "object": 1, "box": [NaN,1,2,5]}]"#,
            &["entry 1", "NaN is not a number", "line 1"],
        ),
        (
            r#"[{"frame": 0, "object": 1, "box": [1,1,5]}]"#,
            &["entry 1", "3 numbers, expected 4"],
        ),
        (
            r#"[{"frame": 0, "object": 1, "box": [9,1,5,5]}]"#,
            &["entry 1", "inverted"],
        ),
        (
            r#"[{"frame": 0, "object": 1, "points": [[1,1,7]]}]"#,
            &["entry 1", "label 7"],
        ),
        (
            r#"[{"frame": 0, "object": 1, "points": [[1]]}]"#,
            &["entry 1", "1 number,"],
        ),
        (
            r#"[{"frame": 0, "object": 1, "points": [[1,30,1]]}]"#,
            &["entry 1", "point 1,30", "outside"],
        ),
        (
            r#"[{"frame": -1, "object": 1, "points": [[1,1]]}]"#,
            &["frame is -1"],
        ),
        (
            r#"[{"frame": 0, "object": 0, "points": [[1,1]]}]"#,
            &["object is 0", "expected 1 to 65535"],
        ),
        (
            r#"[{"frame": 0, "object": 65536, "points": [[1,1]]}]"#,
            &["object is 65536"],
        ),
        (
            r#"[{"frame": 0, "object": 1, "mask": "small.png"}]"#,
            &["entry 1", "small.png", "20x30", "40x30"],
        ),
        (
            r#"[{"frame": 0, "object": 1, "mask": "empty.png"}]"#,
            &["entry 1", "empty.png", "empty"],
        ),
        (
            r#"[{"frame": 0, "object": 4, "mask": "many.png"}]"#,
            &["entry 1", "many.png", "object 4", "5, 9"],
        ),
    ];
    for (text, words) in cases {
        file_refuses(text, words);
    }
}

#[test]
fn what_cannot_be_merged_is_refused() {
    let a_box = r#""frame": 0, "object": 1, "box": [1,1,5,5]"#;
    file_refuses(
        &format!("[{{{a_box}}}, {{{a_box}}}]"),
        &["entry 2", "object 1 on frame 0", "second box", "entry 1"],
    );
    let mask = r#"{"frame": 0, "object": 5, "mask": "many.png"}"#;
    file_refuses(&format!("[{mask}, {mask}]"), &["entry 2", "second mask"]);
    file_refuses(
        &format!(r#"[{mask}, {{"frame": 0, "object": 5, "points": [[1,1]]}}]"#),
        &["entry 2", "object 5 on frame 0", "mask and a box or points"],
    );
    file_refuses(
        r#"[{"frame": 0, "object": 5, "mask": "many.png", "box": [1,1,5,5]}]"#,
        &["entry 1", "mask and a box or points"],
    );
}

#[test]
fn a_prompt_past_the_end_is_refused_before_tracking() {
    file_refuses(
        r#"[{"frame": 0, "object": 1, "box": [1,1,5,5]}, {"frame": 3, "object": 2, "box": [1,1,5,5]}]"#,
        &[
            "entry 2 (frame 3, object 2)",
            "no frame 3",
            "in has 3 frames",
            "count from 0",
        ],
    );
    let desk = Desk::new();
    file(
        &desk.path(""),
        r#"[{"frame": 2, "object": 1, "box": [1,1,5,5]}]"#,
    );
    let run = desk.run(&[
        "in",
        "--prompts",
        "prompts.json",
        "--out",
        "out",
        "--max-frames",
        "2",
    ]);
    run.refuses(&[
        "entry 1 (frame 2, object 1)",
        "no frame 2",
        "the run ends after 2 frames",
        "raise --max-frames",
    ]);
    desk.holds(&["in", "prompts.json"]);
    desk.run(&["in", "--prompts", "prompts.json", "--out", "out"])
        .succeeds();
    let tracks = read_json(&desk.path("out/tracks.json"));
    let objects = |frame: usize| tracks["frames"][frame]["objects"].as_array().unwrap().len();
    assert_eq!(
        [objects(0), objects(1), objects(2)],
        [0, 0, 1],
        "an object does not exist before its prompt"
    );
}

#[test]
fn a_missing_prompts_file_is_named() {
    run_refuses(
        &["--prompts", "absent.json"],
        &["absent.json", "No such file"],
    );
}

/// A grey PNG, with an alpha channel or without.
fn write_grey(path: &Path, alpha: bool, value: impl Fn(u32) -> u8) {
    let file = std::fs::File::create(path).unwrap();
    let mut encoder = png::Encoder::new(file, 40, 30);
    encoder.set_color(if alpha {
        png::ColorType::GrayscaleAlpha
    } else {
        png::ColorType::Grayscale
    });
    let pixels = (0..40 * 30).flat_map(|at| [value(at % 40), 255]);
    let bytes: Vec<u8> = pixels.step_by(if alpha { 1 } else { 2 }).collect();
    let mut writer = encoder.write_header().unwrap();
    writer.write_image_data(&bytes).unwrap();
}

#[test]
fn grey_masks_are_plain_ones() {
    let desk = Desk::new();
    let run = |mask: &str| desk.run(&["in", "--mask", mask, "--out", "out", "--overwrite"]);
    write_grey(&desk.path("soft.png"), false, |x| (x * 6) as u8);
    run("soft.png").refuses(&["--mask soft.png", "39 different values", "threshold it"]);
    write_grey(&desk.path("clear.png"), true, |_| 0);
    run("clear.png").refuses(&["every pixel is 0", "transparency is ignored"]);
    desk.holds(&["clear.png", "in", "soft.png"]);
    write_grey(&desk.path("hard.png"), false, |x| u8::from(x < 20) * 255);
    let ran = run("hard.png");
    ran.succeeds();
    assert!(!ran.stderr.contains("warning"), "{ran:?}");
}

#[test]
fn a_mask_that_the_model_cannot_see_is_said() {
    let desk = Desk::with_images(1, 400, 300);
    write_mask(&desk.path("dot.png"), 400, 300, |x, y| {
        u16::from(x == 9 && y == 9)
    });
    let ran = desk.run(&["in", "--mask", "dot.png", "--out", "out"]);
    ran.succeeds();
    let warning = "warning: --mask dot.png: the mask of object 1 has 1 pixel, and none is left";
    assert!(ran.stderr.contains(warning), "{ran:?}");
}
