//! Inputs that give no frames: the error names the file, the fault and the way out.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use snow_ort::media::{self, MediaError};
use tempfile::tempdir;

use super::make;

/// The error of opening `path`, which must name it; counting must fail alike.
fn refusal(path: &Path) -> (MediaError, String) {
    let Err(error) = media::open(path) else {
        panic!("{} opened", path.display());
    };
    let text = error.to_string();
    let name = path.file_name().unwrap_or(OsStr::new(""));
    assert!(text.contains(&*name.to_string_lossy()), "{text}");
    assert!(media::count_frames_up_to(path, 16).is_err(), "{text}");
    (error, text)
}

#[test]
fn missing_path() {
    let (error, text) = refusal(Path::new("/no/such/clip.mp4"));
    assert!(matches!(error, MediaError::Missing { .. }), "{text}");
    let folder = tempdir().unwrap();
    let dangling = folder.path().join("dangling.mp4");
    symlink("/no/such/clip.mp4", &dangling).unwrap();
    let (error, text) = refusal(&dangling);
    assert!(matches!(error, MediaError::Missing { .. }), "{text}");
}

#[test]
fn empty_file() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("empty.mp4");
    fs::write(&path, "").unwrap();
    let (error, text) = refusal(&path);
    assert!(matches!(error, MediaError::Empty { .. }), "{text}");
}

#[test]
fn text_and_noise() {
    let folder = tempdir().unwrap();
    let text = "Meeting notes\n\nWe talked about video, and wrote none.\n".repeat(50);
    let binary: Vec<u8> = super::Noise(7).bytes(20_000);
    for name in [
        "notes.txt",
        "notes.mp4",
        "notes",
        "notes.nfo",
        "notes.json",
        "notes.md",
    ] {
        let path = folder.path().join(name);
        fs::write(&path, &text).unwrap();
        let (error, said) = refusal(&path);
        assert!(
            matches!(error, MediaError::NotVideo { .. }),
            "{name}: {said}"
        );
    }
    let path = folder.path().join("noise.mp4");
    fs::write(&path, binary).unwrap();
    refusal(&path);
    let path = folder.path().join("short.mp4");
    fs::write(&path, "x").unwrap();
    refusal(&path);
}

#[test]
fn subtitles_are_no_video() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("speech.srt");
    fs::write(&path, "1\n00:00:00,000 --> 00:00:01,000\nHello\n\n").unwrap();
    let (error, text) = refusal(&path);
    assert!(matches!(error, MediaError::NoVideoStream { .. }), "{text}");
    assert!(text.contains("subtitles"), "{text}");
}

#[test]
fn audio_only_with_and_without_a_cover() {
    let folder = tempdir().unwrap();
    let plain = folder.path().join("tone.m4a");
    make("-f lavfi -i sine=d=1", &plain);
    let (error, text) = refusal(&plain);
    assert!(matches!(error, MediaError::NoVideoStream { .. }), "{text}");
    assert!(text.contains("only audio"), "{text}");
    let cover = folder.path().join("cover.mp3");
    make(
        "-f lavfi -i sine=d=1 -f lavfi -i testsrc=s=64x64:r=1:d=1 -map 0 -map 1 -frames:v 1 \
         -c:v mjpeg -disposition:v attached_pic",
        &cover,
    );
    let (_, text) = refusal(&cover);
    assert!(text.contains("a cover picture"), "{text}");
}

#[test]
fn truncated_before_the_first_frame() {
    let folder = tempdir().unwrap();
    let whole = folder.path().join("whole.mp4");
    make(
        "-f lavfi -i testsrc2=s=320x240:r=25:d=2 -pix_fmt yuv420p",
        &whole,
    );
    let bytes = fs::read(&whole).unwrap();
    let path = folder.path().join("index at the end.mp4");
    fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    let (error, text) = refusal(&path);
    assert!(matches!(error, MediaError::NotVideo { .. }), "{text}");
    assert!(text.contains("moov atom not found"), "{text}");

    make(
        "-f lavfi -i testsrc2=s=320x240:r=25:d=2 -pix_fmt yuv420p -movflags +faststart",
        &whole,
    );
    let bytes = fs::read(&whole).unwrap();
    let data = bytes.windows(4).position(|four| four == b"mdat").unwrap();
    let path = folder.path().join("index only.mp4");
    fs::write(&path, &bytes[..data + 8]).unwrap();
    let (error, text) = refusal(&path);
    assert!(matches!(error, MediaError::NoFrame { .. }), "{text}");
    assert!(text.contains("truncated"), "{text}");
}

#[test]
fn unknown_codec() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("odd.mp4");
    make(
        "-f lavfi -i testsrc2=s=64x48:r=5:d=1 -pix_fmt yuv420p",
        &path,
    );
    let mut bytes = fs::read(&path).unwrap();
    let tag = bytes.windows(4).rposition(|four| four == b"avc1").unwrap();
    bytes[tag..tag + 4].copy_from_slice(b"zzq1");
    fs::write(&path, bytes).unwrap();
    let (error, text) = refusal(&path);
    assert!(matches!(error, MediaError::NoDecoder { .. }), "{text}");
    assert!(
        text.contains("zzq1") && text.contains("ffmpeg -i"),
        "{text}"
    );
}

#[test]
fn unreadable_file_and_things_that_are_no_file() {
    refusal(Path::new("/dev/null"));
}
