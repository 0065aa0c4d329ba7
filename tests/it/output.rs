//! Outputs appear whole or not at all, and an earlier run is never lost.

use std::path::{Path, PathBuf};
use std::process::Command;

use snow_ort::output::{Content, OutputError, StagedDir, StagedFile, Unfinished};

use crate::fake::{Desk, names_in, read_json, write_images};

fn write_run(dir: &Path, text: &str) {
    std::fs::create_dir_all(dir.join("masks")).unwrap();
    for name in ["masks/00000.png", "tracks.json", "run.json"] {
        std::fs::write(dir.join(name), text).unwrap();
    }
}

fn stage(dir: &Path, overwrite: bool) -> Result<StagedDir, OutputError> {
    StagedDir::create(dir, Content::Run, overwrite, &Unfinished::default())
}

fn text(path: PathBuf) -> String {
    std::fs::read_to_string(path).unwrap()
}

#[test]
fn a_folder_that_is_dropped_leaves_nothing() {
    let root = tempfile::tempdir().unwrap();
    let staged = stage(&root.path().join("a/b/c"), false).unwrap();
    write_run(&staged.path(), "new");
    assert_eq!(
        names_in(&root.path().join("a/b/c")),
        [".snow-ort-run.partial"]
    );
    drop(staged);
    assert!(names_in(root.path()).is_empty());
}

#[test]
fn a_folder_that_was_there_stays() {
    let root = tempfile::tempdir().unwrap();
    std::fs::write(root.path().join("notes.txt"), "mine").unwrap();
    drop(stage(root.path(), false).unwrap());
    assert_eq!(names_in(root.path()), ["notes.txt"]);
    let staged = stage(root.path(), false).unwrap();
    write_run(&staged.path(), "new");
    staged.commit().unwrap();
    assert_eq!(
        names_in(root.path()),
        ["masks", "notes.txt", "run.json", "tracks.json"]
    );
}

#[test]
fn an_earlier_run_is_refused_or_replaced_as_a_whole() {
    for part in ["run.json", "tracks.json", "masks"] {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join(part)).unwrap();
        let error = stage(root.path(), false).err().unwrap().to_string();
        assert!(
            error.contains(part) && error.contains("--overwrite"),
            "{error}"
        );
        assert_eq!(names_in(root.path()), [part]);
    }
    let root = tempfile::tempdir().unwrap();
    write_run(root.path(), "old");
    std::fs::write(root.path().join("masks/99999.png"), "old").unwrap();
    let staged = stage(root.path(), true).unwrap();
    assert!(staged.replaces());
    write_run(&staged.path(), "new");
    assert_eq!(text(root.path().join("run.json")), "old");
    staged.commit().unwrap();
    assert_eq!(names_in(root.path()), ["masks", "run.json", "tracks.json"]);
    assert_eq!(names_in(&root.path().join("masks")), ["00000.png"]);
    assert_eq!(text(root.path().join("run.json")), "new");
}

#[test]
fn an_earlier_run_survives_a_dropped_one_and_one_beside_it() {
    let root = tempfile::tempdir().unwrap();
    write_run(root.path(), "old");
    drop(stage(root.path(), true).unwrap());
    for name in ["interrupted", "interrupted-2"] {
        let staged = stage(root.path(), true).unwrap();
        write_run(&staged.path(), "new");
        assert_eq!(
            staged.commit_beside("interrupted").unwrap(),
            root.path().join(name)
        );
    }
    assert_eq!(
        names_in(root.path()),
        [
            "interrupted",
            "interrupted-2",
            "masks",
            "run.json",
            "tracks.json"
        ]
    );
    assert_eq!(text(root.path().join("masks/00000.png")), "old");
    assert_eq!(text(root.path().join("interrupted/masks/00000.png")), "new");
}

#[test]
fn two_runs_cannot_write_to_one_folder() {
    let root = tempfile::tempdir().unwrap();
    let first = stage(root.path(), false).unwrap();
    let error = stage(root.path(), false).err().unwrap().to_string();
    assert!(
        error.contains(&format!("process {}", std::process::id())),
        "{error}"
    );
    assert!(error.contains(".snow-ort-run.partial"), "{error}");
    write_run(&first.path(), "first");
    first.commit().unwrap();
    assert_eq!(text(root.path().join("run.json")), "first");
}

#[test]
fn what_a_killed_run_left_is_cleared_or_finished() {
    let mut gone = Command::new("true").spawn().unwrap();
    let pid = gone.id().to_string();
    gone.wait().unwrap();

    let root = tempfile::tempdir().unwrap();
    let staging = root.path().join(".snow-ort-run.partial");
    write_run(&staging.join("new"), "killed");
    std::fs::write(staging.join("pid"), &pid).unwrap();
    drop(stage(root.path(), false).unwrap());
    assert!(names_in(root.path()).is_empty());

    // Killed while its complete results were moved: the rest is moved now.
    write_run(&staging.join("new"), "killed");
    std::fs::rename(staging.join("new/masks"), root.path().join("masks")).unwrap();
    std::fs::create_dir(staging.join("old")).unwrap();
    std::fs::write(staging.join("pid"), &pid).unwrap();
    assert!(matches!(
        stage(root.path(), false),
        Err(OutputError::Exists { .. })
    ));
    assert_eq!(names_in(root.path()), ["masks", "run.json", "tracks.json"]);
}

#[test]
fn logits_own_their_numbered_files_only() {
    let root = tempfile::tempdir().unwrap();
    std::fs::write(root.path().join("model.safetensors"), "mine").unwrap();
    let logits = |overwrite| {
        StagedDir::create(
            root.path(),
            Content::Logits,
            overwrite,
            &Unfinished::default(),
        )
    };
    let staged = logits(false).unwrap();
    std::fs::write(staged.path().join("00000.safetensors"), "new").unwrap();
    staged.commit().unwrap();
    assert!(matches!(logits(false), Err(OutputError::Exists { .. })));
    logits(true).unwrap().commit().unwrap();
    assert_eq!(names_in(root.path()), ["model.safetensors"]);
}

#[test]
fn a_file_is_staged_beside_its_name() {
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("new/o.mp4");
    let create = |overwrite| StagedFile::create(&file, overwrite, &Unfinished::default());
    drop(create(false).unwrap());
    assert!(names_in(root.path()).is_empty());

    let staged = create(false).unwrap();
    assert_eq!(staged.path().extension().unwrap(), "mp4");
    std::fs::write(staged.path(), "first").unwrap();
    staged.commit().unwrap();
    let error = create(false).err().unwrap().to_string();
    assert!(
        error.contains("o.mp4") && error.contains("--overwrite"),
        "{error}"
    );

    let staged = create(true).unwrap();
    std::fs::write(staged.path(), "second").unwrap();
    assert_eq!(
        staged.commit_beside("failed").unwrap(),
        root.path().join("new/o.failed.mp4")
    );
    assert_eq!(text(file.clone()), "first");
    assert_eq!(
        names_in(&root.path().join("new")),
        ["o.failed.mp4", "o.mp4"]
    );
}

#[test]
fn a_sudden_end_removes_what_is_not_finished() {
    let root = tempfile::tempdir().unwrap();
    let unfinished = Unfinished::default();
    let out = root.path().join("x/out");
    let run = StagedDir::create(&out, Content::Run, false, &unfinished).unwrap();
    let logits =
        StagedDir::create(&out.join("logits"), Content::Logits, false, &unfinished).unwrap();
    let overlay = StagedFile::create(&out.join("o.mp4"), false, &unfinished).unwrap();
    write_run(&run.path(), "new");
    std::fs::write(overlay.path().with_extension("mp4.partial"), "half").unwrap();
    unfinished.remove_all_and_keep_locked();
    assert!(names_in(root.path()).is_empty());
    // The program leaves with `_exit` at this point: nothing is dropped, and nothing can be committed.
    std::mem::forget((run, logits, overlay));
}

#[test]
fn the_program_refuses_a_folder_that_holds_a_run() {
    let desk = Desk::new();
    let args = [
        "in",
        "--box",
        "1,1,9,9",
        "--out",
        "out",
        "--overlay",
        "o.mp4",
        "--dump-logits",
        "lg",
    ];
    desk.run(&args).succeeds();
    let before = text(desk.path("out/run.json"));
    desk.run(&args)
        .refuses(&["out already holds", "--overwrite"]);
    desk.run(&[
        "in",
        "--box",
        "1,1,9,9",
        "--out",
        "out2",
        "--overlay",
        "o.mp4",
    ])
    .refuses(&["o.mp4 already exists", "--overwrite"]);
    desk.run(&[
        "in",
        "--box",
        "1,1,9,9",
        "--out",
        "out2",
        "--dump-logits",
        "lg",
    ])
    .refuses(&["lg already holds 00000.safetensors", "--overwrite"]);
    assert_eq!(text(desk.path("out/run.json")), before);
    desk.holds(&["in", "lg", "o.mp4", "out"]);

    let mut again = args.to_vec();
    again.extend(["--overwrite", "--max-frames", "2"]);
    desk.run(&again).succeeds();
    assert_eq!(
        names_in(&desk.path("out/masks")),
        ["00000.png", "00001.png"]
    );
    assert_eq!(
        names_in(&desk.path("lg")),
        ["00000.safetensors", "00001.safetensors"]
    );
    assert_eq!(
        names_in(&desk.path("out")),
        ["masks", "run.json", "tracks.json"]
    );
    desk.holds(&["in", "lg", "o.mp4", "out"]);
}

#[test]
fn an_overwriting_run_that_fails_loses_nothing() {
    let desk = Desk::new();
    desk.run(&[
        "in",
        "--box",
        "1,1,9,9",
        "--out",
        "out",
        "--overlay",
        "o.mp4",
    ])
    .succeeds();
    let before = text(desk.path("out/run.json"));
    break_image(&desk.path("in/00002.png"));
    let args = [
        "in",
        "--box",
        "1,1,9,9",
        "--out",
        "out",
        "--overlay",
        "o.mp4",
        "--overwrite",
    ];
    desk.run(&args)
        .refuses(&["00002.png", "2 frames", "out/failed"]);
    assert_eq!(text(desk.path("out/run.json")), before);
    assert_eq!(names_in(&desk.path("out/masks")).len(), 3);
    assert_eq!(
        names_in(&desk.path("out/failed/masks")),
        ["00000.png", "00001.png"]
    );
    desk.holds(&["in", "o.failed.mp4", "o.mp4", "out"]);
    let report = read_json(&desk.path("out/failed/run.json"));
    assert_eq!(
        (&report["status"], &report["overlay"]),
        (&"failed".into(), &"o.failed.mp4".into())
    );
}

/// Keeps the header, so that the size is right, and drops the end of the pixels.
pub fn break_image(path: &Path) {
    let content = std::fs::read(path).unwrap();
    std::fs::remove_file(path).unwrap();
    let idat = content
        .windows(4)
        .position(|bytes| bytes == b"IDAT")
        .unwrap();
    std::fs::write(path, &content[..idat + 8]).unwrap();
}

#[test]
fn an_unwritable_folder_is_named() {
    let desk = Desk::new();
    std::fs::write(desk.path("file"), "mine").unwrap();
    let run = |out: &str, more: &[&str]| {
        let mut args = vec!["in", "--box", "1,1,9,9", "--out", out];
        args.extend(more);
        desk.run(&args)
    };
    run("file", &[]).refuses(&["file", "not a folder"]);
    run("file/below", &[]).refuses(&["file", "not a folder"]);
    // Nobody may create a folder there, not even root.
    run("/proc/nowhere", &[]).refuses(&["/proc/nowhere", "cannot create the folder"]);
    run("out", &["--overlay", "/proc/o.mp4"]).refuses(&["/proc/o.mp4", "cannot write"]);
    run("out", &["--dump-logits", "/proc/lg"]).refuses(&["/proc/lg", "cannot create the folder"]);
    run("out", &["--overlay", "o.avi"]).refuses(&["o.avi", ".mp4"]);
    desk.holds(&["file", "in"]);
}

#[test]
fn the_input_is_never_overwritten() {
    let desk = Desk::new();
    write_images(&desk.path("run/masks"), 2, 40, 30);
    desk.run(&[
        "run/masks",
        "--box",
        "1,1,9,9",
        "--out",
        "run",
        "--overwrite",
    ])
    .refuses(&["run/masks", "is or lies in run/masks", "would be lost"]);
    assert_eq!(names_in(&desk.path("run")), ["masks"]);
    desk.holds(&["in", "run"]);
}

/// A small file system, unmounted at the end.
pub struct Mount(pub PathBuf);

impl Mount {
    pub fn new(dir: &Path, kib: u32) -> Option<Self> {
        std::fs::create_dir(dir).unwrap();
        let options = format!("size={kib}k");
        let status = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "tmpfs"])
            .arg(dir)
            .status();
        status
            .is_ok_and(|status| status.success())
            .then(|| Self(dir.to_path_buf()))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
        let _ = std::fs::remove_dir(&self.0);
    }
}

#[test]
fn a_full_disk_leaves_nothing() {
    let desk = Desk::with_images(200, 64, 48);
    let cases: [(u32, &str, &[&str]); 3] = [
        (64, "full/out/masks/00", &["--out", "full/out"]),
        (
            64,
            "full/lg/00",
            &["--out", "out", "--dump-logits", "full/lg"],
        ),
        (
            8,
            "full/o.mp4",
            &["--out", "out", "--overlay", "full/o.mp4"],
        ),
    ];
    for (kib, name, more) in cases {
        let Some(mount) = Mount::new(&desk.path("full"), kib) else {
            eprintln!("skipped: a small file system cannot be mounted here (needs root)");
            return;
        };
        let mut args = vec!["in", "--box", "1,1,9,9"];
        args.extend(more);
        let run = desk.run(&args);
        run.refuses(&[
            name,
            "No space left on device",
            "nothing was kept",
            "another disk",
        ]);
        assert!(names_in(&mount.0).is_empty(), "{:?}", names_in(&mount.0));
        drop(mount);
        desk.holds(&["in"]);
    }
    // An earlier run on a disk that fills up stays.
    let mount = Mount::new(&desk.path("full"), 64).unwrap();
    let args = [
        "in",
        "--box",
        "1,1,9,9",
        "--out",
        "full",
        "--max-frames",
        "2",
    ];
    desk.run(&args).succeeds();
    desk.run(&["in", "--box", "1,1,9,9", "--out", "full", "--overwrite"])
        .refuses(&["No space left on device"]);
    assert_eq!(names_in(&mount.0), ["masks", "run.json", "tracks.json"]);
    assert_eq!(read_json(&mount.0.join("run.json"))["frames"], 2);
}

#[test]
fn nothing_that_is_read_is_replaced() {
    let desk = Desk::new();
    write_images(&desk.path("o/z/masks"), 1, 40, 30);
    write_images(&desk.path("o/z/masks/deep"), 1, 40, 30);
    for name in ["o/z/masks/mine.png", "o/z/run.json"] {
        crate::fake::write_mask(&desk.path(name), 40, 30, |_, _| 1);
    }
    let prompts = r#"[{"frame": 0, "object": 1, "box": [1,1,9,9]}]"#;
    std::fs::write(desk.path("o/z/tracks.json"), prompts).unwrap();
    let named = prompts.replace(r#""box": [1,1,9,9]"#, r#""mask": "o/z/masks/mine.png""#);
    std::fs::write(desk.path("p.json"), named).unwrap();
    std::fs::create_dir(desk.path("links")).unwrap();
    std::os::unix::fs::symlink("../o/z/masks/00000.png", desk.path("links/a.png")).unwrap();
    std::fs::rename(desk.path("o/z/run.json"), desk.path("o/z/other.png")).unwrap();
    let a_box = ["--box", "1,1,9,9"];
    let cases: [(&[&str], &[&str], &str); 8] = [
        (&["o/z/masks/00000.png"], &a_box, "the input"),
        (&["o/z/masks/deep"], &a_box, "the input"),
        (&["links"], &a_box, "the image links/a.png"),
        (&["in"], &["--mask", "o/z/masks/mine.png"], "--mask"),
        (
            &["in"],
            &["--prompts", "o/z/tracks.json"],
            "the file o/z/tracks.json",
        ),
        (&["in"], &["--prompts", "p.json"], "entry 1"),
        (&["in", "--dump-logits", "in"], &a_box, "the logits folder"),
        (
            &["in", "--ort-lib", "o/z/masks/mine.png"],
            &a_box,
            "the library",
        ),
    ];
    for (input, more, word) in cases {
        let mut args = input.to_vec();
        args.extend(more);
        args.extend(["--out", "o/z", "--overwrite"]);
        desk.run(&args).refuses(&["it would be lost", word]);
    }
    let bundle = desk.bundle.dir.to_str().unwrap();
    desk.run(&["in", "--box", "1,1,9,9", "--out", bundle])
        .refuses(&["the output folder", "a part of the bundle"]);
    // What no run wrote is not deleted with the earlier run.
    desk.run(&["in", "--box", "1,1,9,9", "--out", "o/z", "--overwrite"])
        .refuses(&["o/z/masks/deep", "was not written by a run"]);
    assert_eq!(
        names_in(&desk.path("o/z/masks")),
        ["00000.png", "deep", "mine.png"]
    );
    assert_eq!(
        names_in(&desk.path("o/z")),
        ["masks", "other.png", "tracks.json"]
    );
    desk.holds(&["in", "links", "o", "p.json"]);
}

#[test]
fn outputs_in_each_others_way_are_refused() {
    let desk = Desk::new();
    for (flag, path, word) in [
        ("--overlay", "o/z/masks/o.mp4", "o/z/masks"),
        ("--dump-logits", "o/z/masks", "o/z/masks"),
        ("--dump-logits", "o/z/masks/lg", "o/z/masks"),
        ("--dump-logits", "o/z/run.json", "o/z/run.json"),
        ("--overlay", "o/z/.snow-ort-run.partial/o.mp4", "unfinished"),
        ("--overlay", "o/x.avi", "o/x.avi: the overlay video must"),
        ("--overlay", "in", "in: the overlay video must"),
    ] {
        desk.run(&["in", "--box", "1,1,9,9", "--out", "o/z", flag, path])
            .refuses(&[word]);
        desk.holds(&["in"]);
    }
    std::fs::create_dir(desk.path("d.mp4")).unwrap();
    let ran = desk.run(&["in", "--box", "1,1,9,9", "--out", "o", "--overlay", "d.mp4"]);
    ran.refuses(&["d.mp4 is a folder"]);
    assert!(!ran.stderr.contains("--overwrite"), "{ran:?}");
    desk.holds(&["d.mp4", "in"]);
}

#[test]
fn what_appears_during_a_run_is_not_replaced() {
    let root = tempfile::tempdir().unwrap();
    let staged = stage(root.path(), false).unwrap();
    write_run(&staged.path(), "new");
    write_run(root.path(), "mine");
    let error = staged.commit().err().unwrap().to_string();
    assert!(
        error.contains("appeared") && error.contains("kept"),
        "{error}"
    );
    assert_eq!(text(root.path().join("masks/00000.png")), "mine");
    assert_eq!(text(root.path().join("kept/masks/00000.png")), "new");

    let staged = stage(root.path(), true).unwrap();
    write_run(&staged.path(), "newer");
    std::fs::write(root.path().join("masks/notes.txt"), "mine").unwrap();
    let error = staged.commit().err().unwrap().to_string();
    assert!(error.contains("notes.txt"), "{error}");
    assert_eq!(text(root.path().join("masks/notes.txt")), "mine");

    let file = root.path().join("o.mp4");
    let create = || StagedFile::create(&file, false, &Unfinished::default()).unwrap();
    let slow = create();
    std::fs::write(slow.path(), "slow").unwrap();
    std::fs::write(&file, "fast").unwrap();
    let error = slow.commit().err().unwrap().to_string();
    assert!(error.contains("o.kept.mp4"), "{error}");
    assert_eq!(text(file), "fast");
    assert_eq!(text(root.path().join("o.kept.mp4")), "slow");
}

#[test]
fn a_lock_ends_with_its_holder() {
    // The process of a killed run, this very process (its number was given again), or none yet.
    for pid in ["4194305", &std::process::id().to_string(), ""] {
        let root = tempfile::tempdir().unwrap();
        let staging = root.path().join(".snow-ort-run.partial");
        write_run(root.path(), "old");
        write_run(&staging.join("new"), "killed");
        std::fs::create_dir(staging.join("old")).unwrap();
        std::fs::write(staging.join("pid"), pid).unwrap();
        // Killed before the first part of the earlier run was moved: its results are complete.
        let staged = stage(root.path(), true).unwrap();
        assert_eq!(text(root.path().join("masks/00000.png")), "killed");
        assert_eq!(names_in(&staging), ["new", "pid"]);
        drop(staged);
        assert_eq!(names_in(root.path()), ["masks", "run.json", "tracks.json"]);
    }
}

#[test]
fn hidden_files_of_killed_runs_are_removed() {
    let root = tempfile::tempdir().unwrap();
    let live = format!(".snow-ort-{}-o.mp4", std::os::unix::process::parent_id());
    for name in [
        ".snow-ort-4194305-o.mp4",
        ".snow-ort-4194305-o.mp4.partial",
        ".snow-ort-4194305-other.mp4",
        &live,
    ] {
        std::fs::write(root.path().join(name), "").unwrap();
    }
    let file = root.path().join("o.mp4");
    drop(StagedFile::create(&file, false, &Unfinished::default()).unwrap());
    let mut left = vec![".snow-ort-4194305-other.mp4", &live];
    left.sort_unstable();
    assert_eq!(names_in(root.path()), left);
}

#[test]
fn a_limit_on_file_sizes_is_a_normal_error() {
    let desk = Desk::with_images(60, 64, 48);
    let run = desk.run_command(&["in", "--box", "1,1,9,9", "--out", "out"]);
    let ran: crate::fake::Ran = Command::new("sh")
        .args(["-c", "ulimit -f 4; exec \"$0\" \"$@\""])
        .arg(run.get_program())
        .args(run.get_args())
        .current_dir(desk.path(""))
        .output()
        .unwrap()
        .into();
    ran.refuses(&["File too large", "ulimit -f", "nothing was kept"]);
    desk.holds(&["in"]);
}
