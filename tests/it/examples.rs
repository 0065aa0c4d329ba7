//! The programs in `examples/`, with the demo clips and snow-tiny.

use std::path::{Path, PathBuf};
use std::process::Command;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const BUNDLE: &str = "models/snow-tiny/snow-tiny-336-fp16";

/// A built example; cargo builds all of them with the tests.
fn example(name: &str) -> Command {
    let program = Path::new(env!("CARGO_BIN_EXE_snow-ort"));
    let folder: PathBuf = program.parent().unwrap().join("examples");
    let mut command = Command::new(folder.join(name));
    command.current_dir(ROOT);
    command
}

fn output_of(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn track_prints_each_object_on_each_frame() {
    // A box in the middle of a few frames, so that the test is quick.
    let folder = tempfile::tempdir().unwrap();
    let frames = folder.path().join("frames");
    std::fs::create_dir(&frames).unwrap();
    for index in 0..3u32 {
        let frame = image::RgbImage::from_fn(160, 120, |x, y| {
            let inside = (40 + 4 * index..90 + 4 * index).contains(&x) && (30..90).contains(&y);
            image::Rgb(if inside { [220, 60, 40] } else { [60, 70, 80] })
        });
        frame.save(frames.join(format!("{index}.png"))).unwrap();
    }
    let prompts = folder.path().join("prompts.json");
    let text = r#"[{"frame": 0, "object": 3, "box": [40, 30, 90, 90]}]"#;
    std::fs::write(&prompts, text).unwrap();
    let printed = output_of(example("track").arg(&frames).arg(BUNDLE).arg(&prompts));
    let lines: Vec<&str> = printed.lines().collect();
    assert_eq!(lines.len(), 4, "{printed}");
    for (frame, line) in lines.iter().take(3).enumerate() {
        let start = format!("frame {frame} object 3: ");
        assert!(line.starts_with(&start), "{printed}");
        assert!(line.contains(" pixels in "), "{printed}");
    }
    assert_eq!(lines[3], "3 frames");
}

#[test]
fn wrong_arguments_end_with_an_error() {
    for name in ["track", "text"] {
        let output = example(name).output().unwrap();
        assert!(!output.status.success());
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(errors.contains("usage: "), "{errors}");
    }
}

#[test]
fn text_lists_the_objects_of_each_text() {
    let out = tempfile::tempdir().unwrap();
    let (frames, folder) = (out.path().join("frames"), out.path().join("star"));
    std::fs::create_dir(&frames).unwrap();
    // The first frames only, so that the test is quick.
    let mut ffmpeg = Command::new("ffmpeg");
    ffmpeg.args(["-v", "error", "-i", "demo/text/clip.mp4", "-frames:v", "4"]);
    ffmpeg.arg(frames.join("%d.png")).current_dir(ROOT);
    output_of(&mut ffmpeg);
    let printed = output_of(
        example("text")
            .arg(&frames)
            .arg(BUNDLE)
            .arg(&folder)
            .args(["blue star", "green pot"]),
    );
    let lines: Vec<&str> = printed.lines().collect();
    assert_eq!(lines.len(), 3, "{printed}");
    assert!(
        lines[0].starts_with("\"blue star\": objects [1"),
        "{printed}"
    );
    assert!(
        lines[1].starts_with("\"green pot\": objects ["),
        "{printed}"
    );
    assert_eq!(std::fs::read_dir(folder.join("masks")).unwrap().count(), 4);
}
