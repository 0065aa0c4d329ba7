//! Overlays: what is drawn, and videos that other programs read back.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::Path;

use snow_ort::media;
use snow_ort::media::overlay::{OverlayWriter, draw, object_colour};

use tempfile::tempdir;

use super::{frames, tool};

fn square(width: u32, height: u32, from: u32, to: u32, id: u16) -> Vec<u16> {
    let inside = |x: u32, y: u32| (from..to).contains(&x) && (from..to).contains(&y);
    (0..height)
        .flat_map(|y| (0..width).map(move |x| if inside(x, y) { id } else { 0 }))
        .collect()
}

fn flat(width: u32, height: u32, colour: [u8; 3]) -> Vec<u8> {
    colour.repeat((width * height) as usize)
}

#[test]
fn colours_differ() {
    for a in 1..=60u32 {
        for b in a + 1..=60 {
            let (x, y) = (object_colour(a), object_colour(b));
            let distance: u32 = (0..3).map(|i| u32::from(x[i].abs_diff(y[i]))).sum();
            let least = if b <= 16 { 60 } else { 6 };
            assert!(distance >= least, "{a} {x:?} and {b} {y:?}");
        }
    }
}

#[test]
fn drawing_touches_the_mask_and_its_label_only() {
    let ids = square(100, 80, 20, 60, 1);
    let mut rgb = flat(100, 80, [90, 90, 90]);
    draw(&mut rgb, 100, 80, &ids);
    let pixel = |x: usize, y: usize| &rgb[(y * 100 + x) * 3..][..3];
    assert_eq!(pixel(5, 5), [90, 90, 90]);
    assert_eq!(pixel(70, 70), [90, 90, 90]);
    let inner = pixel(40, 40).to_vec();
    assert_ne!(inner, [90, 90, 90]);
    // Two pixels of contour, then the blend.
    assert_eq!(pixel(20, 45), pixel(21, 45));
    assert_ne!(pixel(21, 45), pixel(22, 45));
    assert_eq!(pixel(22, 45), inner);
    // The label's plate is right above the mask, in the object's colour.
    let plate = object_colour(1);
    let found = (13..20).flat_map(|y| (30..50).map(move |x| (x, y)));
    assert!(found.into_iter().any(|(x, y)| pixel(x, y) == plate));
}

#[test]
fn drawing_shows_each_pixel_as_the_object_that_the_ids_give_it_to() {
    // Object 2 lies on object 1 and object 300 on both, the last by its id but not on top.
    let mut ids = square(160, 120, 10, 80, 1);
    for (over, from, to) in [(300, 60, 115), (2, 40, 100)] {
        for (id, new) in ids.iter_mut().zip(square(160, 120, from, to, over)) {
            *id = if new == 0 { *id } else { new };
        }
    }
    let mut rgb = flat(160, 120, [90, 90, 90]);
    draw(&mut rgb, 160, 120, &ids);
    let pixel = |x: usize, y: usize| &rgb[(y * 160 + x) * 3..][..3];
    let alone = |id: u16, (x, y): (usize, usize)| {
        let mut rgb = flat(160, 120, [90, 90, 90]);
        draw(&mut rgb, 160, 120, &square(160, 120, 0, 120, id));
        rgb[(y * 160 + x) * 3..][..3].to_vec()
    };
    let inner = (100, 100);
    assert_eq!(pixel(30, 60), alone(1, inner));
    assert_eq!(pixel(70, 70), alone(2, inner), "1 and 300 lie under 2");
    assert_eq!(pixel(108, 108), alone(300, inner));
    // A contour on both sides of the border between two objects.
    assert_ne!(pixel(39, 60), pixel(30, 60));
    assert_ne!(pixel(40, 60), pixel(70, 70));
    assert_ne!(pixel(39, 60), pixel(40, 60));
    // Every object has its number's plate.
    for id in [1, 2, 300] {
        let plate = object_colour(id);
        assert!(rgb.chunks_exact(3).any(|pixel| pixel == plate), "{id}");
    }
}

#[test]
fn drawing_survives_every_size() {
    for (width, height) in [(1, 1), (2, 3), (5, 1), (640, 2), (33, 47)] {
        let mut ids = square(width, height, 0, 1000, u16::MAX);
        ids[0] = 2;
        let mut rgb = flat(width, height, [1, 2, 3]);
        draw(&mut rgb, width, height, &ids);
        assert_eq!(rgb.len(), (width * height * 3) as usize);
    }
    let ids = square(4, 4, 0, 4, 1);
    let mut rgb = flat(5, 4, [1, 2, 3]);
    let before = rgb.clone();
    draw(&mut rgb, 5, 4, &ids);
    assert_eq!(rgb, before, "ids of another size are left out");
}

fn probe(path: &Path, entries: &str) -> String {
    let mut arguments: Vec<OsString> = ["-v", "error", "-select_streams", "v:0"]
        .map(OsString::from)
        .to_vec();
    arguments.extend(["-show_entries", entries, "-of", "csv=p=0"].map(OsString::from));
    arguments.push(super::url(path));
    let probed = tool("ffprobe", &arguments);
    assert!(
        probed.stderr.is_empty(),
        "{:?}",
        String::from_utf8(probed.stderr)
    );
    String::from_utf8(probed.stdout).unwrap()
}

fn times(path: &Path) -> Vec<f64> {
    probe(path, "frame=best_effort_timestamp_time")
        .split(['\n', ','])
        .filter(|field| !field.is_empty())
        .map(|field| field.parse().unwrap())
        .collect()
}

#[test]
fn any_size_and_container_is_read_back() {
    let folder = tempdir().unwrap();
    let sizes = [
        (1, 1),
        (2, 2),
        (3, 1),
        (1, 50),
        (15, 17),
        (64, 48),
        (161, 121),
        (640, 361),
    ];
    for (i, (width, height)) in sizes.into_iter().enumerate() {
        let ending = ["mp4", "mkv", "mov", "MP4"][i % 4];
        let path = folder.path().join(format!("{width}x{height}.{ending}"));
        let mut writer = OverlayWriter::create(&path, width, height, (25, 1)).unwrap();
        for shade in 0..12u8 {
            let rgb = flat(width, height, [200, shade * 20, 40]);
            writer.write(&rgb, width, height, None).unwrap();
        }
        assert!(!path.exists(), "only complete files get the name");
        writer.finish().unwrap();
        let (got, damage) = frames(&path);
        assert_eq!(damage.first_error, None);
        assert_eq!(got.len(), 12);
        assert_eq!(
            (got[0].width, got[0].height),
            (width + width % 2, height + height % 2)
        );
        for (shade, frame) in got.iter().enumerate() {
            let middle = (frame.height / 2 * frame.width + frame.width / 2) as usize * 3;
            let expected = [200, shade as u8 * 20, 40];
            for (value, wanted) in frame.rgb[middle..middle + 3].iter().zip(expected) {
                assert!(
                    value.abs_diff(wanted) <= 6,
                    "{width}x{height} frame {shade}"
                );
            }
        }
        let tags = probe(
            &path,
            "stream=codec_name,pix_fmt,color_range,color_space,color_transfer,color_primaries",
        );
        assert_eq!(tags.trim(), "h264,yuv420p,tv,bt709,bt709,bt709");
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), sizes.len());
}

#[test]
fn times_are_kept() {
    let folder = tempdir().unwrap();
    for ending in ["mp4", "mkv", "mov"] {
        let path = folder.path().join(format!("constant.{ending}"));
        let mut writer = OverlayWriter::create(&path, 64, 48, (30000, 1001)).unwrap();
        for i in 0..60 {
            writer
                .write(&flat(64, 48, [i * 4, 9, 9]), 64, 48, None)
                .unwrap();
        }
        writer.finish().unwrap();
        // Matroska stores milliseconds.
        let least = if ending == "mkv" { 1e-3 } else { 1e-5 };
        let got = times(&path);
        assert_eq!(got.len(), 60);
        for (i, time) in got.iter().enumerate() {
            assert!((time - i as f64 * 1001.0 / 30000.0).abs() < least);
        }
        if ending != "mkv" {
            assert_eq!(
                probe(&path, "stream=r_frame_rate,nb_frames").trim(),
                "30000/1001,60"
            );
            let bytes = fs::read(&path).unwrap();
            let at = |name: &[u8]| bytes.windows(4).position(|four| four == name);
            assert!(at(b"moov") < at(b"mdat"), "the index comes first");
        }

        let path = folder.path().join(format!("variable.{ending}"));
        let mut writer = OverlayWriter::create(&path, 64, 48, (25, 1)).unwrap();
        let mut wanted = Vec::new();
        let mut time = 1.4;
        for i in 0..40u8 {
            wanted.push(time - 1.4);
            writer
                .write(&flat(64, 48, [i * 6, 9, 9]), 64, 48, Some(time))
                .unwrap();
            time += if i % 5 == 0 { 0.3 } else { 1.0 / 30.0 };
        }
        writer.finish().unwrap();
        let got = times(&path);
        assert_eq!(got.len(), 40);
        for (time, wanted) in got.iter().zip(&wanted) {
            assert!(
                (time - wanted).abs() < least,
                "{ending}: {time} for {wanted}"
            );
        }
    }
}

/// The overlay of a clip, made as the program makes it.
fn copied(clip: &Path, to: &Path) -> Vec<f64> {
    let mut source = media::open(clip).unwrap();
    let info = source.info().clone();
    let mut writer = OverlayWriter::create(to, info.width, info.height, info.frame_rate).unwrap();
    let mut wanted = Vec::new();
    while let Some(frame) = source.next_frame().unwrap() {
        wanted.push(frame.pts_s.unwrap());
        writer
            .write(&frame.rgb, frame.width, frame.height, frame.pts_s)
            .unwrap();
    }
    writer.finish().unwrap();
    wanted
}

#[test]
fn a_constant_rate_that_is_counted_in_milliseconds_stays_constant() {
    let folder = tempdir().unwrap();
    for (rate, expected) in [
        ("30", "30/1"),
        ("30000/1001", "30000/1001"),
        ("24000/1001", "24000/1001"),
        ("60", "60/1"),
    ] {
        for (from, to) in [("mkv", "mp4"), ("mkv", "mkv"), ("ts", "mov")] {
            let clip = folder.path().join(format!("clip.{from}"));
            super::make(
                &format!(
                    "-f lavfi -i testsrc2=s=64x48:r={rate}:d=3 -pix_fmt yuv420p -preset ultrafast"
                ),
                &clip,
            );
            let path = folder.path().join(format!("overlay.{to}"));
            let wanted = copied(&clip, &path);
            let rates = probe(&path, "stream=avg_frame_rate,r_frame_rate");
            assert_eq!(
                rates.trim(),
                format!("{expected},{expected}"),
                "{from} to {to}"
            );
            assert_eq!(times(&path).len(), wanted.len());
        }
    }
}

#[test]
fn a_variable_rate_that_is_counted_in_milliseconds_stays_variable() {
    let folder = tempdir().unwrap();
    let clip = folder.path().join("clip.mkv");
    super::make(
        "-f lavfi -i testsrc2=s=64x48:r=50:d=4 -vf setpts=PTS+0.013*mod(N\\,7)/TB \
         -fps_mode vfr -enc_time_base 1/1000 -pix_fmt yuv420p",
        &clip,
    );
    let path = folder.path().join("overlay.mp4");
    let wanted = copied(&clip, &path);
    let got = times(&path);
    assert_eq!(got.len(), wanted.len());
    let mut steps = Vec::new();
    for (i, (time, wanted_time)) in got.iter().zip(&wanted).enumerate() {
        assert!((time - (wanted_time - wanted[0])).abs() < 1.1e-3);
        if i > 0 {
            steps.push((time - got[i - 1]) * 1000.0);
        }
    }
    let least = steps.iter().copied().fold(f64::MAX, f64::min);
    let most = steps.iter().copied().fold(0.0, f64::max);
    assert!(most - least > 10.0, "{least} to {most} ms");
}

#[test]
fn a_clock_that_jumps_back_loses_no_frame() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("back.mp4");
    let mut writer = OverlayWriter::create(&path, 16, 16, (10, 1)).unwrap();
    for time in [
        None,
        Some(5.0),
        Some(5.1),
        Some(0.0),
        Some(0.2),
        Some(0.2),
        Some(f64::NAN),
    ] {
        writer.write(&flat(16, 16, [9; 3]), 16, 16, time).unwrap();
    }
    writer.finish().unwrap();
    let got = times(&path);
    let wanted = [0.0, 0.1, 0.2, 0.3, 0.5, 0.6, 0.7];
    assert_eq!(got.len(), wanted.len());
    for (time, wanted) in got.iter().zip(wanted) {
        assert!((time - wanted).abs() < 1e-4, "{got:?}");
    }
}

#[test]
fn frames_of_another_size_are_scaled_to_the_first() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("sizes.mp4");
    let mut writer = OverlayWriter::create(&path, 65, 49, (10, 1)).unwrap();
    for (width, height) in [(65, 49), (120, 31), (1, 1), (65, 49)] {
        let rgb = flat(width, height, [10, 200, 90]);
        writer.write(&rgb, width, height, None).unwrap();
    }
    assert!(writer.write(&[0; 5], 3, 3, None).is_err());
    writer.finish().unwrap();
    let (got, _) = frames(&path);
    assert_eq!(got.len(), 4);
    for frame in got {
        assert_eq!((frame.width, frame.height), (66, 50));
        let middle = &frame.rgb[(25 * 66 + 33) * 3..][..3];
        assert!(middle[1].abs_diff(200) < 6, "{middle:?}");
    }
}

#[test]
fn names_with_colons_blanks_and_bytes_that_are_no_text() {
    let folder = tempdir().unwrap();
    for name in [
        &b"a b: c.mp4"[..],
        b"pipe:1.mkv",
        b"\xff\xfe.mov",
        b"%d.mp4",
    ] {
        let path = folder.path().join(OsStr::from_bytes(name));
        let mut writer = OverlayWriter::create(&path, 16, 16, (10, 1)).unwrap();
        writer.write(&flat(16, 16, [9; 3]), 16, 16, None).unwrap();
        writer.finish().unwrap();
        assert_eq!(frames(&path).0.len(), 1);
    }
}

#[test]
fn what_cannot_be_written_is_said_and_removed() {
    let folder = tempdir().unwrap();
    for (name, part) in [("a.avi", ".avi"), ("a", "no ending")] {
        let error = OverlayWriter::create(&folder.path().join(name), 8, 8, (1, 1)).err();
        let text = error.unwrap().to_string();
        assert!(
            text.contains(part) && text.contains(".mp4, .mov or .mkv"),
            "{text}"
        );
    }
    let path = folder.path().join("none/a.mp4");
    let text = OverlayWriter::create(&path, 8, 8, (1, 1))
        .err()
        .unwrap()
        .to_string();
    assert!(
        text.contains("none/a.mp4") && text.contains("No such"),
        "{text}"
    );
    let path = folder.path().join("a.mp4");
    assert!(OverlayWriter::create(&path, 0, 8, (1, 1)).is_err());
    assert!(OverlayWriter::create(&path, 8, 8, (0, 1)).is_err());

    let mut dropped = OverlayWriter::create(&path, 8, 8, (1, 1)).unwrap();
    dropped.write(&flat(8, 8, [9; 3]), 8, 8, None).unwrap();
    assert!(folder.path().join("a.mp4.partial").exists());
    drop(dropped);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn a_full_disk_is_said_and_removed() {
    let folder = tempdir().unwrap();
    for ending in ["mp4", "mkv"] {
        let path = folder.path().join(format!("full.{ending}"));
        let partial = folder.path().join(format!("full.{ending}.partial"));
        symlink("/dev/full", &partial).unwrap();
        let outcome = OverlayWriter::create(&path, 320, 240, (25, 1)).and_then(|mut writer| {
            let mut noise = super::Noise(3);
            for _ in 0..30 {
                writer.write(&noise.bytes(320 * 240 * 3), 320, 240, None)?;
            }
            writer.finish()
        });
        let text = outcome.unwrap_err().to_string();
        assert!(
            text.contains("No space left") && text.contains("full."),
            "{text}"
        );
        assert!(!path.exists() && partial.symlink_metadata().is_err());
    }
}
