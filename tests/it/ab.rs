//! `snow-ort ab`: the program with bundles whose masks are known, variants that fail, and comparisons that go on.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use snow_ort::compare::report::AbReport;

use crate::fake::{Desk, FakeBundle, Ran, names_in, read_json, write_bundle, write_mask};

const BOX: [&str; 2] = ["--box", "1,1,9,9"];

/// `snow-ort ab in` with a box and few frames; variants come in `more`.
fn command(desk: &Desk, more: &[&str]) -> Command {
    let mut command = desk.command();
    command.args(["ab", "in", BOX[0], BOX[1], "--out", "r"]);
    command.args(["--warm", "2", "--rounds", "2", "--block", "2"]);
    command.args(more);
    command
}

fn ab(desk: &Desk, more: &[&str]) -> Ran {
    command(desk, more).output().unwrap().into()
}

/// A bundle whose masks are the frame's left quarter, and the two as variants: `a` with the left half, and `b`.
fn pair(desk: &Desk) -> (FakeBundle, Vec<String>) {
    let mut narrow = FakeBundle::new();
    narrow.narrow_masks();
    let variants = [("a", &desk.bundle.dir), ("b", &narrow.dir)];
    let flags = variants.map(|(name, dir)| format!("--variant={name}={}", dir.display()));
    (narrow, flags.to_vec())
}

fn report(desk: &Desk) -> AbReport {
    serde_json::from_value(read_json(&desk.path("r/report.json"))).unwrap()
}

/// The folders of a variant's runs.
fn runs(desk: &Desk, name: &str) -> Vec<String> {
    names_in(&desk.path("r/variants").join(name))
}

#[test]
fn a_comparison_leaves_a_report_a_page_and_a_table_and_is_used_again() {
    let desk = Desk::new();
    let (_narrow, variants) = pair(&desk);
    // The truth is the left quarter: `b` is right.
    for frame in 0..3 {
        let path = desk.path(format!("gt/0000{frame}.png"));
        std::fs::create_dir_all(desk.path("gt")).unwrap();
        write_mask(&path, 40, 30, |x, _| u16::from(x < 10));
    }
    let mut args: Vec<&str> = variants.iter().map(String::as_str).collect();
    args.extend([
        "--gt",
        "gt",
        "--require",
        "b.iou>=0.4 b.jf>=0.99, b.lost<=0",
    ]);
    let ran = ab(&desk, &args);
    ran.succeeds();
    for word in [
        "variant",
        "J&F",
        "IoU",
        "0.500",
        "Run b (fake 28 px fp32 on cpu)",
        "r/index.html",
        "b.jf>=0.99: met",
    ] {
        assert!(ran.stdout.contains(word), "{word}: {ran:?}");
    }
    assert!(
        !ran.stderr.contains('\r') && ran.stderr.contains("timing: 12 frames"),
        "{ran:?}"
    );
    assert_eq!(
        names_in(&desk.path("r")),
        ["index.html", "report.json", "timing.json", "variants"]
    );

    let report = report(&desk);
    assert_eq!(
        (report.schema_version, report.clip.frames, report.objects),
        (1, 3, 1)
    );
    let [a, b] = report.variants.as_slice() else {
        panic!("{report:?}")
    };
    assert!(a.agreement.is_none() && a.speedup.is_none() && a.error.is_none());
    let alike = b.agreement.as_ref().unwrap();
    assert_eq!(
        (alike.iou, alike.worst_iou, alike.objects_lost),
        (0.5, 0.5, 0)
    );
    assert_eq!(alike.objects[0].per_frame.len(), 3);
    assert_eq!(b.means().unwrap().j, 1.0);
    assert_eq!(a.means().unwrap().j, 0.5);
    for variant in [a, b] {
        let timing = variant.timing.as_ref().unwrap();
        assert!(timing.rounds.len() == 2 && timing.rounds.iter().all(|block| block.len() == 2));
        assert!(0.0 < timing.load_s && timing.load_s < timing.cold_s);
        assert!(timing.bank_bytes.unwrap() > 0 && timing.arena_peak_bytes.unwrap() > 0);
        let run = desk.path("r").join(&variant.run.as_ref().unwrap().folder);
        assert_eq!(names_in(&run), ["masks", "run.json", "tracks.json"]);
    }
    let speedup = b.speedup.as_ref().unwrap();
    let seconds =
        |v: &snow_ort::compare::report::VariantReport| v.timing.as_ref().unwrap().round_seconds();
    assert_eq!(speedup.rounds[1], seconds(a)[1] / seconds(b)[1]);
    let shown: Vec<u64> = report.shown.iter().map(|shown| shown.frame).collect();
    assert_eq!(shown, [0, 1, 2]);
    assert_eq!(report.shown[0].worst.as_ref().unwrap().variant, "b");

    let page = std::fs::read_to_string(desk.path("r/index.html")).unwrap();
    for word in [
        &report.verdict.sentence.replace('&', "&#38;"),
        "data:image/jpeg;base64,",
        "ground truth",
        "J&amp;F against ground truth",
    ] {
        assert!(page.contains(word), "{word} is not in the page");
    }
    assert!(!page.contains("{{"));
    for outside in ["http:", "https:", "src=\"/", "@import", "url("] {
        assert!(!page.contains(outside), "{outside} is in the page");
    }

    // Nothing is replaced unasked, and nothing is measured twice.
    let first_run = runs(&desk, "a");
    ab(&desk, &args).refuses(&["r/index.html", "--overwrite"]);
    args.push("--overwrite");
    let again = ab(&desk, &args);
    again.succeeds();
    for word in [
        "a: its run is there",
        "b: its run is there",
        "timing: it is there",
    ] {
        assert!(again.stderr.contains(word), "{word}: {again:?}");
    }
    assert_eq!(self::report(&desk).variants, report.variants);

    // What depends on something that has changed is made again, and takes the place of the old.
    write_mask(&desk.path("gt/00002.png"), 40, 30, |x, _| u16::from(x < 20));
    let changed = ab(&desk, &args);
    assert_eq!(changed.code, Some(1), "{changed:?}");
    assert!(!changed.stderr.contains("is there"), "{changed:?}");
    assert!(
        changed.stdout.contains("b.jf>=0.99: NOT MET, found 0.6"),
        "{changed:?}"
    );
    assert_eq!(runs(&desk, "a").len(), 1);
    assert_ne!(runs(&desk, "a"), first_run);
    args.push("--fresh");
    let fresh = ab(&desk, &args);
    assert!(!fresh.stderr.contains("is there"), "{fresh:?}");
}

#[test]
fn a_requirement_that_is_not_met_is_exit_code_1() {
    let desk = Desk::new();
    let (_narrow, variants) = pair(&desk);
    let mut args: Vec<&str> = variants.iter().map(String::as_str).collect();
    args.extend(["--require", "b.iou>=0.97", "--page-frames", "0"]);
    let ran = ab(&desk, &args);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(
        ran.stdout
            .contains("required b.iou>=0.97: NOT MET, found 0.5000"),
        "{ran:?}"
    );
    let report = report(&desk);
    assert!(!report.requirements[0].met && report.shown.is_empty());
    assert!(
        report.verdict.sentence.starts_with("Stay with a"),
        "{report:?}"
    );
    assert!(
        std::fs::read_to_string(desk.path("r/index.html"))
            .unwrap()
            .contains("✗ not met")
    );
}

#[test]
fn a_variant_that_fails_is_a_row_that_says_why_and_the_others_finish() {
    let desk = Desk::new();
    let mut broken = FakeBundle::new();
    broken.break_graph("memory_encoder");
    let dir = desk.bundle.dir.display();
    let variants = [
        format!("--variant=a={dir}"),
        format!("--variant=small={dir},mem-limit=1KiB"),
        format!("--variant=broken={}", broken.dir.display()),
        format!("--variant=no-library={dir},ort-lib=nowhere.so"),
        format!("--variant=gpu={dir},provider=cuda"),
        format!("--variant=b={dir},chunk=1"),
    ];
    let mut args: Vec<&str> = variants.iter().map(String::as_str).collect();
    let ran = ab(&desk, &args);
    ran.refuses(&[
        "small, broken, no-library, gpu failed",
        "the report in r",
        "--overwrite",
    ]);
    let found = report(&desk);
    let error = |name: &str| {
        let variant = found
            .variants
            .iter()
            .find(|variant| variant.name == name)
            .unwrap();
        assert!(
            variant.error.is_none() || variant.timing.is_none(),
            "{variant:?}"
        );
        variant.error.clone()
    };
    assert_eq!((error("a"), error("b")), (None, None));
    assert!(found.variants[5].speedup.is_some() && found.variants[5].agreement.is_some());
    for (name, word) in [
        ("small", "1.00 KiB"),
        ("broken", "memory_encoder"),
        ("no-library", "nowhere.so"),
        ("gpu", "CUDA"),
    ] {
        let why = error(name).unwrap();
        assert!(why.contains(word), "{name}: {why}");
        assert!(ran.stdout.contains(&format!("{name} failed: ")), "{ran:?}");
        assert!(
            std::fs::read_to_string(desk.path("r/index.html"))
                .unwrap()
                .contains(word)
        );
    }
    // A gate does not pass because what it is about did not run.
    args.extend(["--require", "small.speedup>=1", "--overwrite"]);
    let gate = ab(&desk, &args);
    assert_eq!(gate.code, Some(1), "{gate:?}");
    assert!(
        gate.stdout.contains("small.speedup>=1: NOT MET, not known"),
        "{gate:?}"
    );
}

#[test]
fn an_interrupted_comparison_says_what_is_missing_and_goes_on() {
    let desk = Desk::with_images(300, 320, 240);
    let dir = desk.bundle.dir.display();
    let variants = [
        format!("--variant=a={dir}"),
        format!("--variant=b={dir},chunk=1"),
    ];
    let args: Vec<&str> = variants.iter().map(String::as_str).collect();
    let child = command(&desk, &args)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let begun = |name: &str, part: &str| {
        let runs = std::fs::read_dir(desk.path("r/variants").join(name));
        runs.into_iter()
            .flatten()
            .flatten()
            .any(|run| run.path().join(part).exists())
    };
    let start = Instant::now();
    while !begun("b", ".snow-ort-run.partial/new/masks/00000.png") {
        assert!(
            start.elapsed() < Duration::from_secs(120),
            "the second run does not start"
        );
        std::thread::sleep(Duration::from_millis(2));
    }
    let signalled = Command::new("kill")
        .arg(child.id().to_string())
        .status()
        .unwrap();
    assert!(signalled.success());
    let ran: Ran = child.wait_with_output().unwrap().into();
    assert_eq!(ran.code, Some(2), "{ran:?}");
    let missing =
        "still missing: the run of b, the timing, the report; what is complete is kept in r";
    assert!(ran.stderr.contains(missing), "{ran:?}");
    assert_eq!(names_in(&desk.path("r")), ["variants"]);
    // The run's process ends with the comparison's.
    let start = Instant::now();
    while begun("b", ".snow-ort-run.partial") {
        assert!(
            start.elapsed() < Duration::from_secs(60),
            "the second run does not end"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
    let again = ab(&desk, &args);
    again.succeeds();
    assert!(
        again.stderr.contains("a: its run is there already"),
        "{again:?}"
    );
    assert!(!again.stderr.contains("b: its run is there"), "{again:?}");
    assert_eq!(
        report(&desk).variants[1].agreement.as_ref().unwrap().iou,
        1.0
    );
}

/// What texts find is compared in tests/parity/test_found.py, with bundles that have a detector.
#[test]
fn texts_need_a_detector_and_no_prompts() {
    let desk = Desk::new();
    let (_narrow, variants) = pair(&desk);
    let flags: Vec<&str> = variants.iter().map(String::as_str).collect();
    let ask = |more: &[&str]| -> Ran {
        let mut command = desk.command();
        command.args(["ab", "in", "--out", "r"]).args(&flags);
        command.args(more).output().unwrap().into()
    };
    ask(&["--text", "bear", "--box", "1,1,9,9"]).refuses(&["--text", "--box", "leave out"]);
    ask(&["--box", "1,1,9,9", "--require", "b.missed<=0"]).refuses(&["missed", "--text"]);
    ask(&["--text", "bear", "--require", "b.gt_missed<=0"]).refuses(&["gt_missed", "--gt"]);
    ask(&["--box", "1,1,9,9", "--follow", "x=1"]).refuses(&["required arguments"]);
    desk.holds(&["in"]);

    let ran = ask(&["--text", "bear", "--text=-5 dogs"]);
    ran.refuses(&["a, b failed", "the report in r"]);
    let report = report(&desk);
    assert_eq!(report.texts, ["bear", "-5 dogs"]);
    assert_eq!((report.objects, report.verdict.run), (0, None));
    for variant in &report.variants {
        let error = variant.error.as_deref().unwrap();
        assert!(error.contains("fake has no detector"), "{error}");
        assert!(error.contains("--parts tracker,detector"), "{error}");
        assert!(variant.run.is_none() && variant.found_objects.is_none());
    }
    assert!(ran.stdout.contains("\"bear\", \"-5 dogs\""), "{ran:?}");
    let page = std::fs::read_to_string(desk.path("r/index.html")).unwrap();
    assert!(page.contains("has no detector") && !page.contains("What was found"));
}

#[test]
fn wrong_input_is_refused_before_anything_runs() {
    let desk = Desk::new();
    let dir = desk.bundle.dir.display().to_string();
    let (a, b) = (format!("--variant=a={dir}"), format!("--variant=b={dir}"));
    let with = |more: &[&str], words: &[&str]| {
        let mut args = vec![a.as_str()];
        args.extend(more);
        ab(&desk, &args).refuses(words);
    };
    with(&[], &["two variants or more, got 1"]);
    with(&[&a], &["two variants are called a"]);
    with(
        &["--variant", "b=nowhere"],
        &["--variant b=nowhere", "manifest.json"],
    );
    with(
        &[&format!("{b},speed=9")],
        &["unknown key \"speed\"", "provider"],
    );
    with(&["--variant", "b"], &["NAME=DIR"]);
    with(
        &[&b, "--require", "c.iou>=1"],
        &["no variant is called \"c\"; there are a, b"],
    );
    with(
        &[&b, "--require", "b.beauty>=1"],
        &["unknown metric \"beauty\""],
    );
    with(&[&b, "--require", "b.jf>=1"], &["--gt"]);
    with(&[&b, "--gt", "nowhere"], &["the ground truth nowhere"]);
    with(&[&b, "--box", "1,1,900,9"], &["--box 1,1,900,9", "40x30"]);
    with(&[&b, "--prompts", "late.json"], &["late.json"]);
    desk.holds(&["in"]);

    write_bundle(&desk.path("r"), 28);
    with(&[&b], &["the output folder r is a bundle", "--out"]);
    std::fs::remove_dir_all(desk.path("r")).unwrap();
    std::fs::create_dir_all(desk.path("r/variants")).unwrap();
    std::fs::rename(desk.path("in"), desk.path("r/variants/in")).unwrap();
    std::os::unix::fs::symlink(Path::new("r/variants/in"), desk.path("in")).unwrap();
    with(&[&b], &["the input in lies in r/variants"]);
    let help: Ran = desk
        .command()
        .args(["ab", "--help"])
        .output()
        .unwrap()
        .into();
    help.succeeds();
    for word in [
        "worst_iou",
        "speedup_low",
        "gt_lost",
        "gt_missed",
        "differ",
        "b.iou>=0.97",
        "Exit codes",
    ] {
        assert!(help.stdout.contains(word), "{word}: {}", help.stdout);
    }
}
