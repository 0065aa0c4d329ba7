//! Ctrl-C: the first ends a run in order, the second at once.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use snow_ort::media::index_png::read_index_png;

use crate::fake::{Desk, Ran, names_in, read_json};

/// Starts a long run and waits until it has written some frames.
pub fn start_long(desk: &Desk, args: &[&str]) -> Child {
    let mut all = vec!["in", "--box", "1,1,9,9", "--out", "out"];
    all.extend(args);
    let mut command = desk.run_command(&all);
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let masks = desk.path("out/.snow-ort-run.partial/new/masks");
    let start = Instant::now();
    while std::fs::read_dir(&masks).map_or(0, Iterator::count) < 3 {
        assert!(
            start.elapsed() < Duration::from_secs(120),
            "the run does not start"
        );
        assert!(
            child.try_wait().unwrap().is_none(),
            "the run ended too early"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
    child
}

fn signal(child: &Child, name: &str) {
    let status = Command::new("kill")
        .args(["-s", name, &child.id().to_string()])
        .status()
        .unwrap();
    assert!(status.success());
}

#[test]
fn ctrl_c_keeps_complete_frames() {
    for name in ["INT", "TERM"] {
        let desk = Desk::with_images(2000, 320, 240);
        let child = start_long(&desk, &["--overlay", "o.mp4"]);
        signal(&child, name);
        let ran: Ran = child.wait_with_output().unwrap().into();
        ran.refuses(&["interrupted after", "frames, kept in out"]);
        let run = read_json(&desk.path("out/run.json"));
        assert_eq!(run["status"], "interrupted");
        let frames = run["frames"].as_u64().unwrap() as usize;
        assert!((3..2000).contains(&frames), "{frames}");
        let masks = names_in(&desk.path("out/masks"));
        assert_eq!(masks.len(), frames);
        for mask in &masks {
            read_index_png(&desk.path("out/masks").join(mask)).unwrap();
        }
        let tracks = read_json(&desk.path("out/tracks.json"));
        assert_eq!(tracks["frames"].as_array().unwrap().len(), frames);
        assert_eq!(
            names_in(&desk.path("out")),
            ["masks", "run.json", "tracks.json"]
        );
        desk.holds(&["in", "o.mp4", "out"]);
    }
}

#[test]
fn a_second_ctrl_c_leaves_at_once_and_nothing_behind() {
    // Frames so large that the queues take longer to drain than the second signal takes to come.
    let desk = Desk::with_images(40, 2400, 1800);
    let child = start_long(&desk, &["--overlay", "o.mp4", "--dump-logits", "out/lg"]);
    signal(&child, "INT");
    std::thread::sleep(Duration::from_millis(50));
    signal(&child, "INT");
    let ran: Ran = child.wait_with_output().unwrap().into();
    assert_eq!(ran.code, Some(2), "{ran:?}");
    assert!(ran.stderr.contains("nothing was kept"), "{ran:?}");
    desk.holds(&["in"]);
}

#[test]
fn ctrl_c_before_tracking_leaves_nothing() {
    // The prompts come through a pipe that nobody writes to, so that the run waits where it is.
    let desk = Desk::new();
    let pipe = desk.path("p.json");
    let made = Command::new("mkfifo").arg(&pipe).status().unwrap();
    assert!(made.success());
    let child = desk
        .run_command(&["in", "--prompts", "p.json", "--out", "out"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Returns when the run opens the other end.
    let writer = std::fs::File::options().write(true).open(&pipe).unwrap();
    signal(&child, "INT");
    let ran: Ran = child.wait_with_output().unwrap().into();
    drop(writer);
    assert_eq!(ran.code, Some(2), "{ran:?}");
    assert!(ran.stderr.contains("nothing was kept"), "{ran:?}");
    desk.holds(&["in", "p.json"]);
}

#[test]
fn a_name_that_was_taken_meanwhile_costs_no_results() {
    let desk = Desk::with_images(2000, 320, 240);
    let child = start_long(&desk, &["--overlay", "o.mp4"]);
    std::fs::write(desk.path("o.mp4"), "another run's").unwrap();
    signal(&child, "INT");
    let ran: Ran = child.wait_with_output().unwrap().into();
    ran.refuses(&["o.mp4 appeared", "o.kept.mp4"]);
    assert_eq!(std::fs::read(desk.path("o.mp4")).unwrap(), b"another run's");
    assert_eq!(
        names_in(&desk.path("out")),
        ["masks", "run.json", "tracks.json"]
    );
    desk.holds(&["in", "o.kept.mp4", "o.mp4", "out"]);
}
