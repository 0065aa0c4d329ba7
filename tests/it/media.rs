//! Frame sources, resizing, masks and overlays, against the programs and libraries they must equal:
//! the `ffmpeg` command (required), and torchvision and Pillow where `.venv` has them.

mod images;
mod masks;
mod overlay;
mod video;
mod video_errors;

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use snow_ort::media::{self, Damage, Frame};

/// Runs ffmpeg or ffprobe, which these tests cannot do without.
fn tool(name: &str, arguments: &[OsString]) -> Output {
    Command::new(name)
        .args(arguments)
        .output()
        .unwrap_or_else(|error| {
            panic!("{name} is needed for these tests and does not run: {error}")
        })
}

/// `ffmpeg -y ARGUMENTS OUTPUT`, arguments separated by blanks.
fn make(arguments: &str, output: &Path) {
    let mut all: Vec<OsString> = vec!["-v".into(), "error".into(), "-y".into()];
    all.extend(arguments.split_ascii_whitespace().map(OsString::from));
    all.push(url(output));
    let made = tool("ffmpeg", &all);
    assert!(
        made.status.success(),
        "ffmpeg {arguments}: {}",
        String::from_utf8_lossy(&made.stderr)
    );
}

fn url(path: &Path) -> OsString {
    let mut url = OsString::from("file:");
    url.push(path);
    url
}

/// The bytes that the ffmpeg command writes for `path`.
fn command_frames(path: &Path) -> Vec<u8> {
    let mut all: Vec<OsString> = vec!["-v".into(), "quiet".into(), "-i".into(), url(path)];
    all.extend(
        "-fps_mode passthrough -autoscale 0 -f rawvideo -pix_fmt rgb24 -"
            .split(' ')
            .map(OsString::from),
    );
    tool("ffmpeg", &all).stdout
}

fn frames(path: &Path) -> (Vec<Frame>, Damage) {
    let mut source = media::open(path).unwrap_or_else(|error| panic!("{error}"));
    let mut frames = Vec::new();
    while let Some(frame) = source
        .next_frame()
        .unwrap_or_else(|error| panic!("{error}"))
    {
        assert_eq!(frame.index, frames.len());
        assert_eq!(frame.rgb.len(), (frame.width * frame.height * 3) as usize);
        frames.push(frame);
    }
    assert_eq!(source.info().width, frames[0].width);
    assert_eq!(source.info().height, frames[0].height);
    (frames, source.damage())
}

/// Asserts that the frames of `path` are those of the ffmpeg command and returns them.
fn same_as_command(path: &Path) -> (Vec<Frame>, Damage) {
    mostly_as_command(path, 1.0)
}

/// As many frames as the command's, of the same sizes, and at least this share of them equal. (What
/// FFmpeg's threads conceal in damaged frames differs from run to run of the command itself.)
fn mostly_as_command(path: &Path, share: f64) -> (Vec<Frame>, Damage) {
    let expected = command_frames(path);
    let (got, damage) = frames(path);
    let total: usize = got.iter().map(|frame| frame.rgb.len()).sum();
    assert_eq!(total, expected.len(), "bytes of {}", path.display());
    let mut differ = Vec::new();
    let mut at = 0;
    for frame in &got {
        let size = frame.rgb.len();
        if frame.rgb != expected[at..at + size] {
            differ.push(frame.index);
        }
        at += size;
    }
    assert!(
        differ.len() as f64 <= got.len() as f64 * (1.0 - share),
        "frames {differ:?} of {} differ from the ffmpeg command's",
        path.display()
    );
    (got, damage)
}

/// Runs a script with the project's Python; `None`, with a note, where there is none.
fn python(script: &str, arguments: &[&OsStr]) -> Option<String> {
    let program = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(".venv/bin/python");
    let ready = Command::new(&program)
        .args(["-c", "import torch, torchvision, PIL, numpy"])
        .output();
    if !ready.is_ok_and(|ready| ready.status.success()) {
        eprintln!("skipped: .venv has no Python with torch, torchvision, pillow and numpy");
        return None;
    }
    let run = Command::new(&program)
        .arg("-c")
        .arg(script)
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("{}: {error}", program.display()));
    assert!(
        run.status.success(),
        "{}",
        String::from_utf8_lossy(&run.stderr)
    );
    Some(String::from_utf8_lossy(&run.stdout).into_owned())
}

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/media")
        .join(name)
}

/// Numbers that look random, the same in every run.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.next() as u8).collect()
    }
}
