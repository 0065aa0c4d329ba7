//! Decoding: byte for byte what the ffmpeg command gives.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use snow_ort::media::{self, SourceKind};
use tempfile::{TempDir, tempdir};

use super::{make, mostly_as_command, same_as_command, tool};

fn clip(folder: &TempDir, name: &str, arguments: &str) -> PathBuf {
    let path = folder.path().join(name);
    make(arguments, &path);
    path
}

fn same_size_each(path: &Path, width: u32, height: u32) -> usize {
    let (frames, damage) = same_as_command(path);
    assert_eq!(damage.first_error, None, "{}", path.display());
    for frame in &frames {
        assert_eq!((frame.width, frame.height), (width, height));
    }
    frames.len()
}

#[test]
fn colour_matrices_ranges_and_depths() {
    let folder = tempdir().unwrap();
    let cases = [
        (
            "601.mp4",
            "-f lavfi -i testsrc2=s=160x120:r=10:d=1 -vf scale=out_color_matrix=bt601 \
             -pix_fmt yuv420p -colorspace smpte170m -color_primaries smpte170m -color_trc smpte170m",
        ),
        (
            "709.mp4",
            "-f lavfi -i testsrc2=s=320x180:r=10:d=1 -vf scale=out_color_matrix=bt709 \
             -pix_fmt yuv420p -colorspace bt709 -color_primaries bt709 -color_trc bt709",
        ),
        (
            "2020.mp4",
            "-f lavfi -i testsrc2=s=320x180:r=10:d=1 -vf scale=out_color_matrix=bt2020 \
             -pix_fmt yuv420p10le -colorspace bt2020nc -color_primaries bt2020 \
             -color_trc smpte2084",
        ),
        (
            "full.mp4",
            "-f lavfi -i testsrc2=s=160x120:r=10:d=1 -vf scale=out_range=pc:out_color_matrix=bt709 \
             -pix_fmt yuv420p -color_range pc -colorspace bt709",
        ),
        (
            "j.avi",
            "-f lavfi -i testsrc2=s=160x120:r=10:d=1 -c:v mjpeg -q:v 3",
        ),
        (
            "ten.mkv",
            "-f lavfi -i testsrc2=s=160x120:r=10:d=1 -pix_fmt yuv420p10le -c:v libx264",
        ),
        (
            "422.mov",
            "-f lavfi -i testsrc2=s=160x120:r=10:d=0.5 -pix_fmt yuv422p10le -c:v prores_ks",
        ),
        (
            "grey.mkv",
            "-f lavfi -i testsrc2=s=160x120:r=10:d=0.5 -pix_fmt gray -c:v ffv1",
        ),
        (
            "rgb.mkv",
            "-f lavfi -i testsrc2=s=160x120:r=10:d=0.5 -pix_fmt bgr0 -c:v ffv1",
        ),
        (
            "alpha.mov",
            "-f lavfi -i testsrc2=s=160x120:r=10:d=0.5 -vf format=rgba,geq=r='r(X,Y)':a='X' \
             -c:v qtrle",
        ),
        ("anim.gif", "-f lavfi -i testsrc2=s=80x60:r=10:d=1"),
        (
            "fields.ts",
            "-f lavfi -i testsrc2=s=160x128:r=25:d=1 -c:v mpeg2video -flags +ildct+ilme -bf 2",
        ),
        (
            "vp9.webm",
            "-f lavfi -i testsrc2=s=160x120:r=10:d=1 -c:v libvpx-vp9 -cpu-used 8 -b:v 200k",
        ),
    ];
    for (name, arguments) in cases {
        let path = clip(&folder, name, arguments);
        let (frames, damage) = same_as_command(&path);
        assert!(frames.len() >= 5, "{name}: {} frames", frames.len());
        assert_eq!(damage.packets + damage.frames, 0, "{name}: {damage:?}");
    }
}

#[test]
fn odd_sizes() {
    let folder = tempdir().unwrap();
    let sizes = [(161, 121), (97, 64), (64, 33), (3, 5), (1, 1)];
    for (width, height) in sizes {
        for (codec, ending) in [
            ("-pix_fmt yuv420p -c:v ffv1", "mkv"),
            ("-pix_fmt yuv444p -c:v libx264", "mp4"),
            ("-pix_fmt yuv420p -c:v libvpx -b:v 1M", "webm"),
        ] {
            let source = format!("-f lavfi -i testsrc=s={width}x{height}:r=5:d=1 {codec}");
            let path = clip(&folder, &format!("{width}x{height}.{ending}"), &source);
            assert_eq!(same_size_each(&path, width, height), 5);
        }
    }
}

#[test]
fn rotation_in_the_container() {
    let folder = tempdir().unwrap();
    let plain = clip(
        &folder,
        "plain.mp4",
        "-f lavfi -i testsrc2=s=160x96:r=10:d=1 -pix_fmt yuv420p -bf 2",
    );
    for (angle, width, height) in [
        (0, 160, 96),
        (90, 96, 160),
        (180, 160, 96),
        (270, 96, 160),
        (45, 160, 96),
    ] {
        let path = folder.path().join(format!("{angle}.mp4"));
        let arguments = format!(
            "-i {} -c copy -metadata:s:v rotate={angle}",
            plain.display()
        );
        make(&arguments, &path);
        assert_eq!(same_size_each(&path, width, height), 10);
        let source = media::open(&path).unwrap();
        assert_eq!((source.info().width, source.info().height), (width, height));
    }
}

/// A flip of frames that need no conversion comes out of its filter with rows from the last to the first.
#[test]
fn rotation_of_frames_that_are_rgb_already() {
    let folder = tempdir().unwrap();
    let plain = clip(
        &folder,
        "plain.mov",
        "-f lavfi -i testsrc2=s=34x22:r=10:d=1 -c:v qtrle -pix_fmt rgb24",
    );
    for (angle, width, height) in [(90, 22, 34), (180, 34, 22), (270, 22, 34)] {
        let path = folder.path().join(format!("{angle}.mov"));
        let arguments = format!(
            "-i {} -c copy -metadata:s:v rotate={angle}",
            plain.display()
        );
        make(&arguments, &path);
        assert_eq!(same_size_each(&path, width, height), 10);
    }
}

#[test]
fn rotation_and_flips_in_the_frames() {
    let folder = tempdir().unwrap();
    let plain = clip(
        &folder,
        "plain.h264",
        "-f lavfi -i testsrc2=s=160x96:r=10:d=1 -pix_fmt yuv420p -g 1",
    );
    for angle in [0, 90, 180, 270] {
        for flip in ["", ":flip=horizontal", ":flip=vertical"] {
            let path = folder.path().join("turned.h264");
            let arguments = format!(
                "-i {} -c copy \
                 -bsf:v h264_metadata=display_orientation=insert:rotate={angle}{flip}",
                plain.display()
            );
            make(&arguments, &path);
            let size = if angle % 180 == 0 {
                (160, 96)
            } else {
                (96, 160)
            };
            let (frames, _) = same_as_command(&path);
            assert_eq!(frames.len(), 10);
            // (The command falls back to the stream's orientation for a frame that brings none.)
            assert_eq!((frames[0].width, frames[0].height), size, "{angle}{flip}");
        }
    }
}

fn probed_times(path: &Path) -> Vec<f64> {
    let mut arguments: Vec<OsString> = "-v quiet -select_streams v:0 -show_entries \
         frame=best_effort_timestamp_time -of csv=p=0"
        .split_ascii_whitespace()
        .map(OsString::from)
        .collect();
    arguments.push(path.into());
    let probed = tool("ffprobe", &arguments).stdout;
    String::from_utf8_lossy(&probed)
        .split(['\n', ','])
        .filter(|field| !field.is_empty())
        .map(|field| field.parse().unwrap())
        .collect()
}

#[test]
fn variable_rate_gives_each_frame_once_at_its_time() {
    let folder = tempdir().unwrap();
    for ending in ["mp4", "mkv", "ts"] {
        let path = clip(
            &folder,
            &format!("vfr.{ending}"),
            "-f lavfi -i testsrc2=s=160x120:r=30:d=3 \
             -vf select='not(mod(n\\,7))+lt(n\\,20)+gt(mod(n\\,11)\\,8)' -fps_mode vfr \
             -pix_fmt yuv420p -c:v libx264 -bf 3",
        );
        let (frames, _) = same_as_command(&path);
        let times = probed_times(&path);
        assert_eq!(frames.len(), times.len());
        for (frame, time) in frames.iter().zip(&times) {
            assert!(
                (frame.pts_s.unwrap() - time).abs() < 1e-5,
                "{ending} {time}"
            );
        }
        let gaps: Vec<f64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(gaps.iter().any(|gap| *gap > 0.1) && gaps.iter().any(|gap| *gap < 0.05));
    }
}

#[test]
fn goes_on_after_a_change_of_size_or_format() {
    let folder = tempdir().unwrap();
    for ending in ["h264", "ts"] {
        let parts = [
            ("160x120", "yuv420p"),
            ("97x65", "yuv444p"),
            ("160x120", "yuv420p10le"),
        ];
        let mut joined = Vec::new();
        for (i, (size, format)) in parts.iter().enumerate() {
            let part = clip(
                &folder,
                &format!("{i}.{ending}"),
                &format!(
                    "-f lavfi -i testsrc=s={size}:r=10:d=1 -pix_fmt {format} -c:v libx264 -bf 2"
                ),
            );
            joined.extend(std::fs::read(part).unwrap());
        }
        let path = folder.path().join(format!("joined.{ending}"));
        std::fs::write(&path, joined).unwrap();
        let (frames, _) = same_as_command(&path);
        let sizes: Vec<(u32, u32)> = frames.iter().map(|f| (f.width, f.height)).collect();
        assert_eq!(sizes.len(), 30, "{ending}");
        assert_eq!(sizes[9], (160, 120));
        assert_eq!(sizes[10], (97, 65));
        assert_eq!(sizes[20], (160, 120));
    }
}

#[test]
fn goes_on_past_damaged_packets() {
    let folder = tempdir().unwrap();
    for ending in ["mp4", "ts", "mkv", "avi"] {
        let codec = if ending == "avi" { "mpeg4" } else { "libx264" };
        let path = clip(
            &folder,
            &format!("whole.{ending}"),
            &format!(
                "-f lavfi -i testsrc2=s=320x240:r=25:d=4 -pix_fmt yuv420p -c:v {codec} -g 20 -b:v 1M"
            ),
        );
        let mut bytes = std::fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        for (i, byte) in bytes[middle..middle + 6000].iter_mut().enumerate() {
            *byte ^= (i * 37 + 11) as u8;
        }
        let path = folder.path().join(format!("damaged.{ending}"));
        std::fs::write(&path, bytes).unwrap();
        let (frames, damage) = mostly_as_command(&path, 0.6);
        assert!(frames.len() > 60, "{ending}: {} frames", frames.len());
        assert!(damage.packets + damage.frames > 0, "{ending}: {damage:?}");
        assert!(damage.first_error.is_some_and(|text| !text.is_empty()));
    }
}

#[test]
fn gives_the_frames_of_a_truncated_file() {
    let folder = tempdir().unwrap();
    for (ending, extra) in [("ts", ""), ("mkv", ""), ("mp4", "-movflags +faststart")] {
        let path = clip(
            &folder,
            &format!("whole.{ending}"),
            &format!("-f lavfi -i testsrc2=s=320x240:r=25:d=4 -pix_fmt yuv420p -g 20 {extra}"),
        );
        let bytes = std::fs::read(&path).unwrap();
        let path = folder.path().join(format!("cut.{ending}"));
        std::fs::write(&path, &bytes[..bytes.len() * 3 / 5]).unwrap();
        let (frames, damage) = mostly_as_command(&path, 0.9);
        assert!((20..100).contains(&frames.len()), "{ending}");
        assert!(damage.packets + damage.frames > 0, "{ending}: {damage:?}");
    }
}

#[test]
fn starts_between_key_frames() {
    let folder = tempdir().unwrap();
    let path = clip(
        &folder,
        "whole.ts",
        "-f lavfi -i testsrc2=s=320x240:r=25:d=4 -pix_fmt yuv420p -g 50 -c:v libx264",
    );
    let bytes = std::fs::read(&path).unwrap();
    let path = folder.path().join("late.ts");
    std::fs::write(&path, &bytes[188 * (bytes.len() / 188 / 3)..]).unwrap();
    mostly_as_command(&path, 0.6);
}

#[test]
fn edit_lists_with_b_frames() {
    let folder = tempdir().unwrap();
    let whole = clip(
        &folder,
        "whole.mp4",
        "-f lavfi -i testsrc2=s=160x120:r=25:d=4 -pix_fmt yuv420p -c:v libx264 -bf 3 -g 30",
    );
    for start in ["0.5", "1.9"] {
        let path = folder.path().join(format!("from{start}.mp4"));
        make(
            &format!("-ss {start} -i {} -c copy", whole.display()),
            &path,
        );
        let (frames, _) = same_as_command(&path);
        let times = probed_times(&path);
        assert_eq!(frames.len(), times.len());
        assert!((frames[0].pts_s.unwrap() - times[0]).abs() < 1e-5);
    }
}

#[test]
fn picks_the_stream_that_the_command_picks() {
    let folder = tempdir().unwrap();
    let path = clip(
        &folder,
        "many.mkv",
        "-f lavfi -i sine=d=1 -f lavfi -i testsrc2=s=64x48:r=10:d=1 \
         -f lavfi -i testsrc=s=160x120:r=10:d=1 -map 0 -map 1 -map 2 -pix_fmt yuv420p \
         -disposition:v:0 0 -disposition:v:1 0",
    );
    assert_eq!(same_size_each(&path, 160, 120), 10);
}

#[test]
fn paths_with_blanks_colons_and_bytes_that_are_no_text() {
    let folder = tempdir().unwrap();
    let plain = clip(
        &folder,
        "plain.mp4",
        "-f lavfi -i testsrc2=s=64x48:r=10:d=1 -pix_fmt yuv420p",
    );
    let names: [&[u8]; 5] = [
        b"with blanks and 'quotes'.mp4",
        b"http:colon.mp4",
        b"\xff\xfe\x80 not text.mp4",
        b"%03d#?&.mp4",
        b"no ending",
    ];
    for name in names {
        let path = folder.path().join(OsStr::from_bytes(name));
        std::fs::copy(&plain, &path).unwrap();
        assert_eq!(same_size_each(&path, 64, 48), 10);
    }
}

#[test]
fn says_what_it_opened_and_counts() {
    let folder = tempdir().unwrap();
    let path = clip(
        &folder,
        "a.mp4",
        "-f lavfi -i testsrc2=s=64x48:r=30000/1001:d=1 -pix_fmt yuv420p",
    );
    let source = media::open(&path).unwrap();
    let info = source.info();
    assert_eq!(info.kind, SourceKind::Video);
    assert_eq!(info.frame_rate, (30000, 1001));
    assert_eq!(info.frames_hint, Some(30));
    assert_eq!(info.path, path);
    assert_eq!(media::count_frames_up_to(&path, 1000).unwrap(), 30);
    assert_eq!(media::count_frames_up_to(&path, 16).unwrap(), 16);
    let path = clip(
        &folder,
        "a.mkv",
        "-f lavfi -i testsrc2=s=64x48:r=10:d=2 -pix_fmt yuv420p",
    );
    assert_eq!(media::open(&path).unwrap().info().frames_hint, Some(20));
}
