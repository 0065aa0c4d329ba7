//! `snow-ort ab` where variants find their objects: what a graph proposes, and how often and at which resolution texts are looked
//! for.
//!
//! The fake bundle's masks are the frame's left half, those of the narrow one its left quarter. The graph proposes the left half
//! and the right half, the fake detector finds the left half.

use snow_ort::compare::report::{AbReport, VariantReport};

use crate::fake::{Desk, FakeBundle, Ran, names_in, read_json, write_mask};
use crate::fake_detector::{give_detector, two_resolutions};
use crate::proposals::{FILE, write_graph};

/// `snow-ort ab in` with few frames.
fn ab(desk: &Desk, variants: &[String], more: &[&str]) -> Ran {
    let mut command = desk.command();
    command.args(["ab", "in", "--out", "r", "--overwrite"]);
    command.args(["--warm", "2", "--rounds", "2", "--block", "2"]);
    command.args(variants).args(more).output().unwrap().into()
}

/// A variant of the desk's bundle, with options.
fn variant(desk: &Desk, name: &str, options: &str) -> String {
    format!("--variant={name}={}{options}", desk.bundle.dir.display())
}

fn report(desk: &Desk) -> AbReport {
    serde_json::from_value(read_json(&desk.path("r/report.json"))).unwrap()
}

fn stages(variant: &VariantReport) -> Vec<&str> {
    let stages = &variant.timing.as_ref().unwrap().stages_s;
    stages.iter().map(|(name, _)| name.as_str()).collect()
}

/// Found, missed and extra objects, and frames that differ.
fn finds(variant: &VariantReport) -> [u64; 4] {
    let comparison = variant.found_objects.as_ref().unwrap();
    [
        comparison.found,
        comparison.missed,
        comparison.extra,
        comparison.differing_frames,
    ]
}

#[test]
fn what_a_graph_proposes_is_matched_by_masks() {
    let desk = Desk::new();
    write_graph(&desk.path(FILE));
    let mut narrow = FakeBundle::new();
    narrow.narrow_masks();
    std::fs::create_dir(desk.path("gt")).unwrap();
    for frame in 0..3 {
        let path = desk.path(format!("gt/0000{frame}.png"));
        write_mask(&path, 40, 30, |x, _| if x < 10 { 7 } else { 0 });
    }
    let variants = [
        variant(&desk, "a", ""),
        format!("--variant=b={}", narrow.dir.display()),
        variant(&desk, "often", ",discover-every=1"),
    ];
    let gates = "b.missed<=0 b.jf>=0.99 b.gt_missed<=0 often.extra<=1";
    let asked = ["--proposals", FILE, "--gt", "gt", "--require", gates];
    let ran = ab(&desk, &variants, &asked);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    for words in [
        "proposals of graph.onnx",
        "discover every",
        "objects",
        "b.missed<=0: met",
        "b.jf>=0.99: met",
        "often.extra<=1: NOT MET, found 2.0000",
    ] {
        assert!(ran.stdout.contains(words), "{words}: {ran:?}");
    }
    let found = report(&desk);
    assert_eq!(found.proposals.as_deref(), Some(FILE));
    assert_eq!((found.objects, found.texts.len()), (2, 0));
    let [a, b, often] = found.variants.as_slice() else {
        panic!("{found:?}")
    };
    // All were shown the same objects on frame 0; a quarter is half of a half.
    let of_a = &a.run.as_ref().unwrap().texts;
    assert_eq!((of_a.len(), &of_a[0].text), (1, &None));
    let scores: Vec<f32> = of_a[0].objects.iter().map(|o| o.score).collect();
    assert!((scores[0] - 0.9).abs() < 1e-6 && (scores[1] - 0.8).abs() < 1e-6);
    assert_eq!(finds(b), [2, 0, 0, 0]);
    assert_eq!(b.agreement.as_ref().unwrap().iou, 0.5);
    // Every object's mask is the left half, so the right one is new again on frames 1 and 2.
    assert_eq!(finds(often), [2, 0, 2, 2]);
    let looks = often.run.as_ref().unwrap().proposals.as_ref().unwrap();
    assert_eq!((looks.discover_every, looks.looks), (Some(1), 3));
    // What was timed looks as well.
    assert!(stages(often).contains(&"proposals") && !stages(a).contains(&"proposals"));
    let scores = |v: &VariantReport| v.run.as_ref().unwrap().scores.clone().unwrap();
    assert_eq!(scores(a).objects_by, "overlap");
    assert_eq!((a.means().unwrap().j, b.means().unwrap().j), (0.5, 1.0));
    let page = std::fs::read_to_string(desk.path("r/index.html")).unwrap();
    for words in ["What was found", "Proposals of graph.onnx", "<b>extra</b>"] {
        assert!(page.contains(words), "{words} is not in the page");
    }
    assert!(!page.contains("within a text"));

    // Another way to choose among proposals is another run; what has not changed is there.
    let again = ab(&desk, &variants, &["--proposals", FILE, "--gt", "gt"]);
    again.succeeds();
    assert!(
        again.stderr.contains("often: its run is there"),
        "{again:?}"
    );
    let fewer = ab(&desk, &variants, &["--proposals", FILE, "--max-det", "1"]);
    fewer.succeeds();
    assert!(!fewer.stderr.contains("is there already"), "{fewer:?}");
    assert_eq!(report(&desk).objects, 1);
}

#[test]
fn looks_have_their_share_in_every_block() {
    let desk = Desk::new();
    write_graph(&desk.path(FILE));
    let variants = [
        variant(&desk, "a", ",discover-every=1"),
        variant(&desk, "b", ",discover-every=3"),
    ];
    let asked = ["--proposals", FILE, "--max-objects", "4"];
    let ran = ab(&desk, &variants, &asked);
    ran.succeeds();
    assert!(ran.stdout.contains("2 blocks of 3 frames"), "{ran:?}");
    let found = report(&desk);
    for (variant, looks) in found.variants.iter().zip([3, 1]) {
        let timing = variant.timing.as_ref().unwrap();
        for block in &timing.rounds {
            let looked =
                |frame: &&snow_ort::bench::protocol::Frame| frame.stages.contains_key("proposals");
            assert_eq!(block.iter().filter(looked).count(), looks);
        }
    }
    // Blocks of thousands of frames are not what anybody asked for.
    let rare = [
        variants[0].clone(),
        variant(&desk, "c", ",discover-every=999"),
    ];
    let ran = ab(&desk, &rare, &asked);
    ran.succeeds();
    for words in [
        "blocks have different numbers of detections",
        "blocks of 999 frames",
        "(--block 999)",
    ] {
        assert!(ran.stdout.contains(words), "{words}: {ran:?}");
    }
    assert_eq!(report(&desk).protocol.block_frames, 2);
}

#[test]
fn how_often_texts_are_looked_for_can_be_compared() {
    let mut desk = Desk::new();
    give_detector(&mut desk);
    let variants = [
        variant(&desk, "each", ""),
        variant(&desk, "third", ",detect-every=3,follow=recondition_every=0"),
    ];
    let gates = ["--require", "third.missed<=0 third.differ<=0 third.iou>=1"];
    let asked = [&["--text", "bear"], &gates[..]].concat();
    let ran = ab(&desk, &variants, &asked);
    ran.succeeds();
    assert!(ran.stdout.contains("detect every"), "{ran:?}");
    assert!(ran.stdout.contains("2 blocks of 3 frames"), "{ran:?}");
    let found = report(&desk);
    let [each, third] = found.variants.as_slice() else {
        panic!("{found:?}")
    };
    let looks = |v: &VariantReport| {
        let detector = v.run.as_ref().unwrap().detector.clone().unwrap();
        (detector.every, detector.looks)
    };
    assert_eq!((looks(each), looks(third)), ((1, 3), (3, 1)));
    assert_eq!(finds(third), [1, 0, 0, 0]);
    assert_eq!(
        third.what(),
        "fake 28 px fp32 on cpu, detector on one frame in 3"
    );
    assert_eq!(each.what(), "fake 28 px fp32 on cpu");
    let timing = third.timing.as_ref().unwrap();
    // The time of a frame is between that of one with a look and one without.
    for (block, seconds) in timing.rounds.iter().zip(timing.round_seconds()) {
        let mut all: Vec<f64> = block.iter().map(|frame| frame.seconds).collect();
        all.sort_by(f64::total_cmp);
        let looked = block
            .iter()
            .find(|frame| frame.stages.contains_key("detector"));
        let looked = looked.unwrap().seconds;
        let others = block
            .iter()
            .filter(|frame| !frame.stages.contains_key("detector"));
        let others: f64 = others.map(|frame| frame.seconds).sum();
        assert!((seconds - (looked + others) / 3.0).abs() < 1e-12);
    }
    let share = timing.share_s("detector", 3.0);
    assert!((share - 1.0).abs() < 1e-12, "{share}");

    // What holds for all changes all runs.
    let asked = ["--text", "bear", "--detect-every", "2"];
    let ran = ab(&desk, &variants, &asked);
    ran.succeeds();
    assert!(!ran.stderr.contains("each: its run is there"), "{ran:?}");
    assert!(ran.stderr.contains("third: its run is there"), "{ran:?}");
    let found = report(&desk);
    assert_eq!(looks(&found.variants[0]), (2, 2));
    assert_eq!(found.protocol.block_frames, 6);
}

#[test]
fn a_detector_of_another_resolution_can_be_compared() {
    let (desk, other, _) = two_resolutions(true, true);
    let variants = [
        variant(&desk, "a", ""),
        variant(&desk, "b", ",det-res=56,memory-selection=0.5"),
    ];
    let ran = ab(&desk, &variants, &["--text", "bear"]);
    ran.succeeds();
    assert!(ran.stdout.contains("det px"), "{ran:?}");
    let found = report(&desk);
    let run = found.variants[1].run.as_ref().unwrap();
    let detector = run.detector.as_ref().unwrap().model.as_ref().unwrap();
    assert_eq!((detector.resolution, run.model.resolution), (56, 28));
    assert_eq!(run.runtime.memory_selection, Some(0.5));
    let run = found.variants[0].run.as_ref().unwrap();
    assert_eq!(run.runtime.memory_selection, None);
    assert!(stages(&found.variants[1]).contains(&"detector_vision_encoder"));
    // Another detector is another run, although the tracker's bundle is the same.
    let manifest = other.join("manifest.json");
    let text = std::fs::read_to_string(&manifest).unwrap();
    std::fs::write(&manifest, text + "\n").unwrap();
    let again = ab(&desk, &variants, &["--text", "bear"]);
    assert!(again.stderr.contains("a: its run is there"), "{again:?}");
    assert!(!again.stderr.contains("b: its run is there"), "{again:?}");
}

#[test]
fn what_cannot_be_looked_for_is_refused_before_anything_runs() {
    let mut desk = Desk::new();
    give_detector(&mut desk);
    write_graph(&desk.path(FILE));
    let with = |options: &str, more: &[&str], words: &[&str]| {
        let variants = [variant(&desk, "a", ""), variant(&desk, "b", options)];
        let ran = ab(&desk, &variants, more);
        ran.refuses(words);
    };
    let prompts = ["--box", "1,1,9,9"];
    let text = ["--text", "bear"];
    let proposed = ["--proposals", FILE];
    for key in ["detect-every=2", "det-res=56", "follow=x=1"] {
        let (name, _) = key.split_once('=').unwrap();
        let about = format!("{name} is about objects that texts mean: give --text");
        with(&format!(",{key}"), &prompts, &["--variant b=", &about]);
        with(&format!(",{key}"), &proposed, &[&about]);
    }
    let about = "discover-every is about objects that a graph proposes: give --proposals";
    with(",discover-every=2", &text, &["--variant b=", about]);
    let both = [text, proposed].concat();
    with("", &both, &["--proposals cannot be used with --text"]);
    let both = [prompts, proposed].concat();
    with("", &both, &["give either --proposals or prompts"]);
    with("", &["--proposals", "none.onnx"], &["none.onnx"]);
    let names = ["--variant b=", "x: no such parameter", "hotstart_delay"];
    with(",follow=x=1", &text, &names);
    let missing = ["--variant b=", "no bundle of fake at 84 pixels"];
    with(",det-res=84", &text, &missing);
    with(",detect-every=0", &text, &["detect-every=0"]);
    let all = [&text[..], &["--follow", "max_objects=many"]].concat();
    with("", &all, &["max_objects=a number"]);
    with(
        "",
        &[&proposed[..], &["--require", "b.gt_missed<=0"]].concat(),
        &["--gt"],
    );
    for (more, word) in [
        (["--detect-every", "0"], "1 or more"),
        (["--det-res", "big"], "--det-res"),
        (["--memory-selection", "3"], "from 0 to less than 1"),
    ] {
        let variants = [variant(&desk, "a", ""), variant(&desk, "b", "")];
        let ran = ab(&desk, &variants, &[&text[..], &more].concat());
        assert_eq!(ran.code, Some(2), "{ran:?}");
        assert!(ran.stderr.contains(word), "{ran:?}");
    }
    assert_eq!(names_in(&desk.path(".")), [FILE, "in"]);
}
