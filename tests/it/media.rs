//! Frame sources, resizing, masks and overlays, against the programs and libraries they must equal:
//! the `ffmpeg` command (required), and torchvision and Pillow where `.venv` has them.

mod images;
mod masks;
#[cfg(feature = "video")]
mod overlay;
mod video;
mod video_errors;

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::mpsc;
use std::time::Duration;

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
pub(crate) fn python(script: &str, arguments: &[&OsStr]) -> Option<String> {
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

/// What `work` gives; a panic if that takes longer, since a test that waits forever says nothing.
fn within_seconds<T: Send + 'static>(seconds: u64, work: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || sender.send(work()));
    receiver
        .recv_timeout(Duration::from_secs(seconds))
        .unwrap_or_else(|error| panic!("no answer in {seconds} s: {error}"))
}

/// Changes the header of a PNG, JPEG, BMP or GIF to say `side` x `side` pixels.
fn claim_size(bytes: &mut [u8], side: u32) {
    let (big, little) = (side.to_be_bytes(), side.to_le_bytes());
    let (at, value) = match bytes[..2] {
        [0x89, b'P'] => (16, [big, big].concat()),
        [0xff, 0xd8] => {
            let frame = bytes.windows(2).position(|two| two == [0xff, 0xc0]);
            (frame.unwrap() + 5, [&big[2..], &big[2..]].concat())
        }
        [b'B', b'M'] => (18, [little, little].concat()),
        _ => (6, [&little[..2], &little[..2]].concat()),
    };
    bytes[at..at + value.len()].copy_from_slice(&value);
    if bytes[0] == 0x89 {
        // A PNG's chunk ends in the checksum of its name and contents.
        let mut sum = u32::MAX;
        for byte in &bytes[12..29] {
            sum ^= u32::from(*byte);
            for _ in 0..8 {
                sum = (sum >> 1) ^ (0xedb8_8320 * (sum & 1));
            }
        }
        bytes[29..33].copy_from_slice(&(!sum).to_be_bytes());
    }
}

pub(crate) fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/media")
        .join(name)
}

/// Numbers that look random, the same in every run.
pub(crate) struct Noise(pub(crate) u64);

impl Noise {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }

    pub(crate) fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.next() as u8).collect()
    }
}
