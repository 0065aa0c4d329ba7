//! `--contact-sheet`: what is on it, and that it appears whole or not at all.

use std::path::Path;

use crate::fake::{Desk, Ran, names_in, read_json};
use crate::interrupt::start_long;
use crate::output::{Mount, break_image};

fn run(desk: &Desk, more: &[&str]) -> Ran {
    let mut args = vec!["in", "--box", "1,1,9,9", "--out", "out"];
    args.extend(more);
    desk.run(&args)
}

/// Width, height and RGB.
fn read(path: &Path) -> (u32, u32, Vec<u8>) {
    let file = std::io::BufReader::new(std::fs::File::open(path).unwrap());
    let mut reader = png::Decoder::new(file).read_info().unwrap();
    let mut rgb = vec![0; reader.output_buffer_size().unwrap()];
    let info = reader.next_frame(&mut rgb).unwrap();
    assert_eq!(info.color_type, png::ColorType::Rgb);
    (info.width, info.height, rgb)
}

#[test]
fn a_sheet_shows_frames_with_masks_and_numbers() {
    let desk = Desk::with_images(30, 40, 30);
    let ran = run(&desk, &["--contact-sheet", "a/s.png"]);
    ran.succeeds();
    assert!(ran.stdout.contains("sheet    a/s.png"), "{}", ran.stdout);
    assert_eq!(names_in(&desk.path("a")), ["s.png"]);
    assert_eq!(
        read_json(&desk.path("out/run.json"))["contact_sheet"],
        "a/s.png"
    );
    // Pictures of 396x297, four in a row, with 4 pixels between them.
    let (width, height, rgb) = read(&desk.path("a/s.png"));
    assert_eq!((width, height), (4 * 400 + 4, 3 * 301 + 4));
    let pixel = |x: u32, y: u32| {
        let at = ((y * width + x) * 3) as usize;
        [rgb[at], rgb[at + 1], rgb[at + 2]]
    };
    for (column, row) in [(0, 0), (3, 0), (3, 2)] {
        let (left, top) = (4 + column * 400, 4 + row * 301);
        // The left half has the first object's colour, which is red; the frame itself is nearly black.
        let [inside, outside] = [pixel(left + 50, top + 150), pixel(left + 350, top + 150)];
        assert!(inside[0] > outside[0] + 60, "{inside:?} {outside:?}");
        // The number's plate is in the lower left corner.
        assert_eq!(pixel(left, top + 296), [0; 3]);
        assert_eq!(pixel(left - 1, top + 150), [24; 3]);
    }
    // Frame 0 and frame 29: the digits' first dots.
    let dots = |column: u32, row: u32| {
        let (left, top) = (4 + column * 400 + 3, 4 + row * 301 + 297 - 18);
        let dot = |i: u32| pixel(left + i % 3 * 3, top + i / 3 * 3) == [255; 3];
        (0..15)
            .map(|i| if dot(i) { '#' } else { '.' })
            .collect::<String>()
    };
    assert_eq!(dots(0, 0), "####.##.##.####");
    assert_eq!(dots(3, 2), "###..#####..###");

    // The same with an overlay, which draws the masks first.
    let both = [
        "--overwrite",
        "--overlay",
        "o.mp4",
        "--contact-sheet",
        "b.png",
    ];
    run(&desk, &both).succeeds();
    assert_eq!(read(&desk.path("b.png")).2, rgb);
}

#[test]
fn a_sheet_is_replaced_only_with_overwrite_and_only_when_done() {
    let desk = Desk::new();
    let sheet = ["--contact-sheet", "s.png"];
    std::fs::write(desk.path("s.png"), "mine").unwrap();
    run(&desk, &sheet).refuses(&["s.png already exists", "--overwrite"]);
    desk.holds(&["in", "s.png"]);
    let again = ["--contact-sheet", "s.png", "--overwrite"];
    run(&desk, &again).succeeds();
    let first = read(&desk.path("s.png"));
    assert_eq!(first.0, 3 * 400 + 4);
    break_image(&desk.path("in/00002.png"));
    run(&desk, &again).refuses(&["00002.png", "out/failed"]);
    assert_eq!(read(&desk.path("s.png")), first);
    assert_eq!(read(&desk.path("s.failed.png")).0, 2 * 400 + 4);
    let report = read_json(&desk.path("out/failed/run.json"));
    assert_eq!(report["contact_sheet"], "s.failed.png");
    desk.holds(&["in", "out", "s.failed.png", "s.png"]);

    break_image(&desk.path("in/00000.png"));
    let args = [
        "in",
        "--box",
        "1,1,9,9",
        "--out",
        "o2",
        "--contact-sheet",
        "t.png",
    ];
    desk.run(&args).refuses(&["00000.png"]);
    assert!(!desk.path("t.png").exists());
}

#[test]
fn a_sheet_in_the_way_is_refused() {
    let desk = Desk::new();
    std::fs::create_dir(desk.path("d.png")).unwrap();
    for (path, word) in [
        (
            "s.jpg",
            "s.jpg: the contact sheet must end in .png, not .jpg",
        ),
        ("s", "no ending at all"),
        ("out/masks/s.png", "which the run itself writes"),
        ("out/.snow-ort-run.partial/s.png", "unfinished"),
        ("in/00001.png", "lies in in, the input"),
        ("d.png", "d.png is a folder"),
        ("/proc/s.png", "/proc/s.png"),
    ] {
        run(&desk, &["--contact-sheet", path, "--overwrite"]).refuses(&[word]);
        desk.holds(&["d.png", "in"]);
    }
    let bundle = desk.bundle.dir.join("s.png");
    std::fs::write(&bundle, "").unwrap();
    run(
        &desk,
        &["--contact-sheet", bundle.to_str().unwrap(), "--overwrite"],
    )
    .refuses(&["a part of the bundle"]);
}

#[test]
fn an_interrupted_run_keeps_its_sheet() {
    let desk = Desk::with_images(2000, 320, 240);
    let child = start_long(&desk, &["--contact-sheet", "s.png"]);
    let status = std::process::Command::new("kill")
        .args(["-s", "INT", &child.id().to_string()])
        .status();
    assert!(status.is_ok_and(|status| status.success()));
    let ran: Ran = child.wait_with_output().unwrap().into();
    ran.refuses(&["interrupted after"]);
    assert!(read(&desk.path("s.png")).0 > 400);
    desk.holds(&["in", "out", "s.png"]);
}

#[test]
fn a_full_disk_leaves_nothing() {
    let desk = Desk::new();
    let Some(mount) = Mount::new(&desk.path("full"), 4) else {
        eprintln!("skipped: a small file system cannot be mounted here (needs root)");
        return;
    };
    run(&desk, &["--contact-sheet", "full/s.png"]).refuses(&[
        "full/s.png: cannot be written",
        "No space left on device",
        "nothing was kept",
    ]);
    assert!(names_in(&mount.0).is_empty(), "{:?}", names_in(&mount.0));
    drop(mount);
    desk.holds(&["in"]);
}

#[test]
fn a_sheet_needs_no_more_memory_for_more_frames() {
    let desk = Desk::with_images(300, 320, 240);
    let peak = |frames: &str| desk.peak_memory(frames, &["--contact-sheet", "s.png"]);
    let (few, many) = (peak("70"), peak("300"));
    assert!(
        many < few + (24 << 20),
        "{few} bytes for 70, {many} for 300"
    );
}
