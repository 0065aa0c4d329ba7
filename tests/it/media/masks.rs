//! Resizing frames, against torchvision: stored references first, then many cases with the real one where there is one.
//! Index PNGs.

use std::fs;

use snow_ort::media::resize::resize_frame;
use snow_ort::media::{Frame, index_png};
use tempfile::tempdir;

use super::{Noise, claim_size, fixture, python, within_seconds};

fn frame(width: u32, height: u32, rgb: Vec<u8>) -> Frame {
    Frame {
        index: 0,
        width,
        height,
        rgb,
        pts_s: None,
    }
}

/// Share of values within 1 of the reference.
fn close(got: &[u8], expected: &[u8]) -> f64 {
    assert_eq!(got.len(), expected.len());
    let near = got
        .iter()
        .zip(expected)
        .filter(|(a, b)| a.abs_diff(**b) <= 1);
    near.count() as f64 / got.len() as f64
}

#[test]
fn resize_equals_the_stored_reference() {
    for (width, height, res) in [(37, 23, 14), (37, 23, 56), (90, 40, 28)] {
        let rgb = Noise(u64::from(width * 1000 + height)).bytes((width * height * 3) as usize);
        let got = resize_frame(&frame(width, height, rgb), res).unwrap();
        let expected = fs::read(fixture(&format!("resize_{width}x{height}_{res}.bin"))).unwrap();
        assert!(got == expected, "{width}x{height} to {res}");
    }
    let same = Noise(1).bytes(5 * 5 * 3);
    assert_eq!(resize_frame(&frame(5, 5, same.clone()), 5).unwrap(), same);
    assert!(resize_frame(&frame(5, 5, vec![0; 74]), 5).is_err());
    assert!(resize_frame(&frame(5, 5, same), 0).is_err());
}

#[test]
fn resize_equals_torchvision() {
    let folder = tempdir().unwrap();
    let script = r#"
import sys, numpy as np, torch
from torchvision.transforms.v2 import functional as tv
out = sys.argv[1]
rng = np.random.default_rng(5)
for i, (w, h, res) in enumerate([(640, 360, 336), (1920, 1080, 672), (200, 150, 504), (331, 777, 112),
                                 (64, 64, 1008), (1, 1, 14), (1280, 720, 1008), (504, 300, 504)]):
    image = rng.integers(0, 256, (h, w, 3), dtype=np.uint8)
    if i % 2:
        y, x = np.mgrid[:h, :w]
        image = np.stack([x * 255 // w, y * 255 // h, (x * 3 + y) % 256], -1).astype(np.uint8)
    t = torch.from_numpy(image).permute(2, 0, 1).contiguous()
    r = tv.resize(t, [res, res], interpolation=tv.InterpolationMode.BILINEAR, antialias=True)
    image.tofile(f"{out}/{i}.in"); r.permute(1, 2, 0).contiguous().numpy().tofile(f"{out}/{i}.out")
    print(w, h, res)
"#;
    let Some(cases) = python(script, &[folder.path().as_os_str()]) else {
        return;
    };
    for (i, line) in cases.lines().enumerate() {
        let sizes: Vec<u32> = line.split(' ').map(|n| n.parse().unwrap()).collect();
        let rgb = fs::read(folder.path().join(format!("{i}.in"))).unwrap();
        let got = resize_frame(&frame(sizes[0], sizes[1], rgb), sizes[2]).unwrap();
        let expected = fs::read(folder.path().join(format!("{i}.out"))).unwrap();
        let share = close(&got, &expected);
        let same = got.iter().zip(&expected).filter(|(a, b)| a == b).count();
        eprintln!(
            "{line}: within 1 {share}, equal {}",
            same as f64 / got.len() as f64
        );
        assert!(share >= 0.999, "{line}: {share}");
    }
}

#[test]
fn index_pngs_keep_their_ids() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("00000.png");
    let narrow: Vec<u16> = (0..12).map(|i| i * 23).collect();
    let wide: Vec<u16> = (0..12).map(|i| i * 5000).collect();
    for ids in [narrow, wide] {
        index_png::write_index_png(&path, 4, 3, &ids).unwrap();
        let read = index_png::read_index_png(&path).unwrap();
        assert_eq!((read.width, read.height), (4, 3));
        assert_eq!(read.ids, ids);
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    assert!(index_png::write_index_png(&path, 4, 3, &[0; 11]).is_err());
    let error = index_png::write_index_png(&folder.path().join("no/x.png"), 1, 1, &[0]);
    assert!(error.unwrap_err().to_string().contains("x.png"));
}

#[test]
fn index_pngs_of_others_are_read() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("m.png");
    let write = |colour: png::ColorType, depth: png::BitDepth, bytes: &[u8]| {
        let mut encoder = png::Encoder::new(fs::File::create(&path).unwrap(), 5, 2);
        encoder.set_color(colour);
        encoder.set_depth(depth);
        if colour == png::ColorType::Indexed {
            encoder.set_palette(vec![7; 48]);
            encoder.set_trns(vec![0; 16]);
        }
        let mut writer = encoder.write_header().unwrap();
        writer.write_image_data(bytes).unwrap();
        writer.finish().unwrap();
        index_png::read_index_png(&path)
    };
    use png::{BitDepth, ColorType};
    let ids = |read: Result<index_png::IndexImage, _>| read.unwrap().ids;
    assert_eq!(
        ids(write(
            ColorType::Indexed,
            BitDepth::Four,
            &[0x12, 0x34, 0x50, 0x67, 0x89, 0xa0]
        )),
        [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]
    );
    assert_eq!(
        ids(write(
            ColorType::Indexed,
            BitDepth::One,
            &[0b1010_1000, 0b0110_0000]
        )),
        [1, 0, 1, 0, 1, 0, 1, 1, 0, 0]
    );
    assert_eq!(
        ids(write(
            ColorType::Grayscale,
            BitDepth::Two,
            &[0b0001_1011, 0x40, 0, 0xc0]
        )),
        [0, 1, 2, 3, 1, 0, 0, 0, 0, 3]
    );
    let grey: Vec<u8> = (0..10).collect();
    assert_eq!(
        ids(write(ColorType::Grayscale, BitDepth::Eight, &grey)),
        (0..10).collect::<Vec<u16>>()
    );
    let alpha: Vec<u8> = (0..10).flat_map(|i| [0, i, 0, 0]).collect();
    assert_eq!(
        ids(write(ColorType::GrayscaleAlpha, BitDepth::Sixteen, &alpha)),
        (0..10).collect::<Vec<u16>>()
    );
    let error = write(ColorType::Rgb, BitDepth::Eight, &[9; 30]).unwrap_err();
    assert!(error.to_string().contains("RGB"), "{error}");
    fs::write(&path, "").unwrap();
    let error = index_png::read_index_png(&path).unwrap_err().to_string();
    assert!(error.contains("empty"), "{error}");
    fs::write(&path, "text").unwrap();
    let error = index_png::read_index_png(&path).unwrap_err().to_string();
    assert!(error.contains("m.png"), "{error}");
    let error = index_png::read_index_png(&folder.path().join("none.png")).unwrap_err();
    assert!(error.to_string().contains("no such file"), "{error}");
}

#[test]
fn masks_that_no_memory_holds_and_masks_that_are_no_file_are_refused() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("large.png");
    index_png::write_index_png(&path, 4, 3, &[1; 12]).unwrap();
    let mut bytes = fs::read(&path).unwrap();
    claim_size(&mut bytes, 60_000);
    fs::write(&path, bytes).unwrap();
    let text = index_png::read_index_png(&path).unwrap_err().to_string();
    for part in ["large.png", "60000x60000", "268435456"] {
        assert!(text.contains(part), "{text}");
    }

    let fifo = folder.path().join("pipe.png");
    let made = std::process::Command::new("mkfifo").arg(&fifo).status();
    assert!(made.unwrap().success());
    for (path, what) in [(fifo, "FIFO"), (folder.path().to_owned(), "a folder")] {
        let name = path.file_name().unwrap().to_owned();
        let read = within_seconds(10, move || index_png::read_index_png(&path));
        let text = read.unwrap_err().to_string();
        assert!(text.contains(&*name.to_string_lossy()), "{text}");
        assert!(text.contains(what), "{text}");
    }
}
