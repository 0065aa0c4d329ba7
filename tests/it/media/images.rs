//! Image folders: Pillow's pixels, name order, sizes, orientation, and clear refusals.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;

use snow_ort::media::images::decode;
use snow_ort::media::{self, MediaError, SourceKind};
use tempfile::tempdir;

use super::{claim_size, frames, make, python, within_seconds};

fn picture(path: &Path, size: &str) {
    make(
        &format!("-f lavfi -i testsrc=s={size}:d=1 -frames:v 1 -update 1"),
        path,
    );
}

#[test]
fn frames_come_in_the_byte_order_of_the_names() {
    let folder = tempdir().unwrap();
    let names: [&[u8]; 6] = [
        b"10.png",
        b"2.PNG",
        b"B.png",
        b"a.png",
        b"z\xff.png",
        b"\xc3\xa9.png",
    ];
    let mut sorted = names.to_vec();
    sorted.sort();
    for (i, name) in sorted.iter().enumerate() {
        let image = image::RgbImage::from_pixel(8, 6, image::Rgb([i as u8 * 40, 1, 2]));
        let path = folder.path().join(OsStr::from_bytes(name));
        image
            .save_with_format(path, image::ImageFormat::Png)
            .unwrap();
    }
    fs::write(folder.path().join(".hidden.png"), "no image").unwrap();
    fs::write(folder.path().join("notes.txt"), "no image").unwrap();
    fs::create_dir(folder.path().join("sub.png")).unwrap();
    let (got, damage) = frames(folder.path());
    assert_eq!(damage, media::Damage::default());
    let reds: Vec<u8> = got.iter().map(|frame| frame.rgb[0]).collect();
    assert_eq!(reds, [0, 40, 80, 120, 160, 200]);
    let source = media::open(folder.path()).unwrap();
    assert_eq!(source.info().kind, SourceKind::Images);
    assert_eq!(source.info().frame_rate, (24, 1));
    assert_eq!(source.info().frames_hint, Some(6));
    assert_eq!(got[3].pts_s, None);
    assert_eq!(media::count_frames_up_to(folder.path(), 4).unwrap(), 4);
    assert_eq!(media::count_frames_up_to(folder.path(), 40).unwrap(), 6);
}

#[test]
fn one_image_is_one_frame() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("one %d: x.jpg");
    picture(&folder.path().join("a.jpg"), "33x21");
    fs::rename(folder.path().join("a.jpg"), &path).unwrap();
    let (got, _) = frames(&path);
    assert_eq!((got.len(), got[0].width, got[0].height), (1, 33, 21));
}

#[test]
fn pixels_are_those_of_pillow() {
    let folder = tempdir().unwrap();
    let script = r#"
import sys, os, numpy as np
from PIL import Image, ImageOps
out = sys.argv[1]
rng = np.random.default_rng(3)
def scene(h, w):
    y, x = np.mgrid[:h, :w]
    base = np.stack([x * 255 // w, y * 255 // h, (x * y) % 256], -1).astype(np.uint8)
    return np.clip(base.astype(int) + rng.integers(-40, 40, base.shape), 0, 255).astype(np.uint8)
n = 0
def save(image, ending, **options):
    global n
    image.save(os.path.join(out, f"{n:03}.{ending}"), **options); n += 1
for h, w in [(48, 64), (37, 53), (1, 1), (9, 130)]:
    rgb = Image.fromarray(scene(h, w))
    for sampling in (0, 1, 2):
        for quality in (40, 95):
            save(rgb, "jpg", quality=quality, subsampling=sampling)
            save(rgb, "jpg", quality=quality, subsampling=sampling, progressive=True)
    save(rgb.convert("L"), "jpg")
    save(rgb.convert("CMYK"), "jpg")
    for orientation in range(1, 9):
        exif = Image.Exif(); exif[274] = orientation
        save(rgb, "jpg", exif=exif)
        save(rgb, "png", exif=exif)
    save(rgb, "png"); save(rgb, "bmp"); save(rgb, "tiff"); save(rgb, "webp", lossless=True)
    save(rgb.convert("L"), "png"); save(rgb.convert("P"), "png"); save(rgb.convert("1"), "png")
    save(rgb.quantize(7), "png"); save(rgb.convert("P"), "gif")
    rgba = rgb.convert("RGBA"); rgba.putalpha(rgb.convert("L"))
    save(rgba, "png"); save(rgba.convert("LA"), "png"); save(rgba, "webp", lossless=True)
for name in sorted(os.listdir(out)):
    image = ImageOps.exif_transpose(Image.open(os.path.join(out, name))).convert("RGB")
    with open(os.path.join(out, name + ".raw"), "wb") as f:
        f.write(np.array(image.size, dtype="<u4").tobytes() + image.tobytes())
print(n)
"#;
    let Some(count) = python(script, &[folder.path().as_os_str()]) else {
        return;
    };
    let mut seen = 0;
    for entry in fs::read_dir(folder.path()).unwrap() {
        let raw = entry.unwrap().path();
        if raw.extension() != Some(OsStr::new("raw")) {
            continue;
        }
        let expected = fs::read(&raw).unwrap();
        let path = raw.with_extension("");
        let image = decode(&path).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(
            image.width().to_le_bytes(),
            expected[..4],
            "{}",
            path.display()
        );
        assert_eq!(image.height().to_le_bytes(), expected[4..8]);
        assert!(*image.as_raw() == expected[8..], "{}", path.display());
        // The header's size is the upright image's too.
        let source = media::open(&path);
        if path.extension() != Some(OsStr::new("gif")) {
            assert_eq!(source.unwrap().info().width, image.width());
        }
        seen += 1;
    }
    assert_eq!(seen.to_string(), count.trim());
}

#[test]
fn sixteen_bits_keep_their_high_byte() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("deep.png");
    let image = image::ImageBuffer::from_pixel(4, 3, image::Rgb([0x12ff_u16, 0x8001, 0xffff]));
    image.save(&path).unwrap();
    assert_eq!(decode(&path).unwrap().as_raw()[..3], [0x12, 0x80, 0xff]);
    let image = image::ImageBuffer::from_pixel(4, 3, image::Luma([0x34ff_u16]));
    image.save(&path).unwrap();
    assert_eq!(decode(&path).unwrap().as_raw()[..3], [0x34; 3]);
}

fn refusal(path: &Path) -> String {
    match media::open(path) {
        Err(error) => error.to_string(),
        Ok(mut source) => loop {
            match source.next_frame() {
                Ok(Some(_)) => {}
                Ok(None) => panic!("{} was read", path.display()),
                Err(error) => break error.to_string(),
            }
        },
    }
}

#[test]
fn folders_that_are_refused() {
    let folder = tempdir().unwrap();
    let text = refusal(folder.path());
    assert!(
        text.contains("holds no images") && text.contains("png"),
        "{text}"
    );
    fs::write(folder.path().join("readme.txt"), "x").unwrap();
    assert!(refusal(folder.path()).contains("holds no images"));
    assert!(media::count_frames_up_to(folder.path(), 3).is_err());

    picture(&folder.path().join("1.png"), "32x24");
    picture(&folder.path().join("2.jpg"), "32x24");
    picture(&folder.path().join("3.png"), "24x32");
    let error = media::open(folder.path()).err().unwrap();
    assert!(matches!(error, MediaError::MixedSizes { .. }));
    let text = error.to_string();
    for part in ["1.png", "32x24", "3.png", "24x32"] {
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn images_that_are_refused() {
    let folder = tempdir().unwrap();
    for name in ["a.jpg", "a.png", "a.bmp", "a.webp", "a.tif"] {
        let path = folder.path().join(name);
        fs::write(&path, "").unwrap();
        assert!(refusal(&path).contains("empty"));
        fs::write(&path, "this is text").unwrap();
        let text = refusal(&path);
        assert!(
            text.contains(name) && text.contains("cannot be read"),
            "{text}"
        );
    }
    for name in ["b.jpg", "b.png", "b.bmp", "b.tif"] {
        let path = folder.path().join(name);
        picture(&path, "320x240");
        let bytes = fs::read(&path).unwrap();
        for keep in [3, 40, bytes.len() / 2, bytes.len() - 40] {
            fs::write(&path, &bytes[..keep]).unwrap();
            let text = refusal(&path);
            assert!(text.contains(name), "{text}");
        }
    }
    let path = folder.path().join("c.jpg");
    picture(&path, "320x240");
    let mut bytes = fs::read(&path).unwrap();
    let half = bytes.len() / 2;
    bytes.truncate(half);
    fs::write(&path, &bytes).unwrap();
    assert!(refusal(&path).contains("truncated"));
}

#[test]
fn sizes_that_no_memory_holds_are_refused_before_any_is_taken() {
    let folder = tempdir().unwrap();
    for name in ["a.png", "a.jpg", "a.bmp", "a.gif"] {
        let path = folder.path().join(name);
        picture(&path, "32x24");
        let mut bytes = fs::read(&path).unwrap();
        claim_size(&mut bytes, 60_000);
        fs::write(&path, bytes).unwrap();
        let mut errors = vec![decode(&path).unwrap_err()];
        if name != "a.gif" {
            errors.push(media::open(&path).err().unwrap());
        }
        for error in errors {
            let text = error.to_string();
            for part in [name, "60000x60000", "268435456"] {
                assert!(text.contains(part), "{text}");
            }
        }
    }
    // As large as is read: refused for its missing pixels only, when those are asked for.
    let path = folder.path().join("b.png");
    picture(&path, "32x24");
    let mut bytes = fs::read(&path).unwrap();
    claim_size(&mut bytes, 16_384);
    fs::write(&path, bytes).unwrap();
    assert_eq!(media::open(&path).unwrap().info().width, 16_384);
}

#[test]
fn what_is_no_regular_file_is_refused_at_once() {
    let folder = tempdir().unwrap();
    let fifo = folder.path().join("x.jpg");
    assert!(
        Command::new("mkfifo")
            .arg(&fifo)
            .status()
            .unwrap()
            .success()
    );
    let link = folder.path().join("link.png");
    symlink(&fifo, &link).unwrap();
    let socket = folder.path().join("s.png");
    let _listener = UnixListener::bind(&socket).unwrap();
    let inside = tempdir().unwrap();
    symlink(&fifo, inside.path().join("y.jpg")).unwrap();
    for (path, name, what) in [
        (fifo.as_path(), "x.jpg", "FIFO"),
        (&link, "link.png", "FIFO"),
        (&socket, "s.png", "socket"),
        (Path::new("/dev/zero"), "/dev/zero", "device"),
        (inside.path(), "y.jpg", "FIFO"),
    ] {
        let path = path.to_owned();
        let texts = within_seconds(10, move || {
            let counted = media::count_frames_up_to(&path, 9);
            [media::open(&path).err().unwrap(), counted.unwrap_err()].map(|e| e.to_string())
        });
        for text in texts {
            assert!(text.contains(name) && text.contains(what), "{text}");
            assert!(text.contains("expected a regular file"), "{text}");
        }
    }
}

#[test]
fn animated_images_are_refused_rather_than_cut_to_one_frame() {
    let folder = tempdir().unwrap();
    let source = "-f lavfi -i testsrc2=s=32x24:r=5:d=1 -loop 0";
    for (name, encoder, kind) in [
        ("a.webp", "-c:v libwebp_anim", "WebP"),
        ("a.png", "-f apng -c:v apng", "PNG"),
    ] {
        let path = folder.path().join(name);
        make(&format!("{source} {encoder}"), &path);
        let text = refusal(&path);
        assert!(text.contains(name) && text.contains(kind), "{text}");
        assert!(
            text.contains("animated") && text.contains("convert"),
            "{text}"
        );
    }
    // One frame is no animation, whatever the file calls itself; an animated GIF is a video.
    let path = folder.path().join("one.png");
    make(&format!("{source} -frames:v 1 -f apng -c:v apng"), &path);
    assert_eq!(frames(&path).0.len(), 1);
    let path = folder.path().join("one.webp");
    make(&format!("{source} -frames:v 1 -c:v libwebp"), &path);
    assert_eq!(frames(&path).0.len(), 1);
    let path = folder.path().join("a.gif");
    make(source, &path);
    assert_eq!(frames(&path).0.len(), 5);
}

#[test]
fn an_order_that_is_not_the_numbers_is_noted() {
    let notes = |names: &[&str]| {
        let folder = tempdir().unwrap();
        let image = image::RgbImage::new(2, 2);
        for name in names {
            image.save(folder.path().join(name)).unwrap();
        }
        let source = media::open(folder.path()).unwrap();
        source.info().notes.clone()
    };
    for names in [
        &["1.png", "2.png", "10.png"][..],
        &["frame_9.png", "frame_11.png", "frame_10.png"],
        &[
            "a.png",
            "99999999999999999999999999999999999999999.png",
            "100000000000000000000000000000000000000000.png",
        ],
    ] {
        let found = notes(names);
        assert_eq!(found.len(), 1, "{names:?}");
        assert!(found[0].contains("byte order"), "{found:?}");
    }
    let found = notes(&["1.png", "2.png", "10.png"]);
    assert!(found[0].contains("10.png comes before 2.png"), "{found:?}");
    for names in [
        &["1.png", "2.png", "9.png"][..],
        &["00001.png", "00002.png", "00010.png"],
        &["a10.png", "b2.png"],
        &["8.png", "9.png", "x.png", "y.png"],
        &["one.png"],
    ] {
        assert!(notes(names).is_empty(), "{names:?}");
    }
}
