//! Resizing and masks, against torch, torchvision and pycocotools: stored references first, then
//! many cases with the real torch where there is one.

use std::fs;

use serde_json::Value;
use snow_ort::media::mask::{
    BinaryMask, binarise, bounding_box, mask_prompt, rle_counts, rle_decode, upsample_logits,
};
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

/// The mask of rectangles that tests/fixtures/media/generate.py makes.
fn blobs(width: u32, height: u32, seed: u64) -> BinaryMask {
    let mut noise = Noise(seed);
    let (columns, rows) = (u64::from(width), u64::from(height));
    let mut data = vec![0; (width * height) as usize];
    for _ in 0..6 {
        let (x, y) = (noise.next() % columns, noise.next() % rows);
        let (w, h) = (noise.next() % columns + 1, noise.next() % rows + 1);
        for row in y..(y + h / 2 + 1).min(rows) {
            for column in x..(x + w / 2 + 1).min(columns) {
                data[(row * columns + column) as usize] ^= 1;
            }
        }
    }
    BinaryMask {
        width,
        height,
        data,
    }
}

fn golden() -> Value {
    serde_json::from_slice(&fs::read(fixture("masks.json")).unwrap()).unwrap()
}

fn number(value: &Value, key: &str) -> u32 {
    value[key].as_u64().unwrap() as u32
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
fn upsampling_equals_the_stored_reference() {
    let low: Vec<f32> = Noise(9)
        .bytes(36)
        .iter()
        .map(|byte| f32::from(*byte) / 8.0 - 16.0)
        .collect();
    for case in golden()["upsampled"].as_array().unwrap() {
        let got = upsample_logits(&low, 6, number(case, "width"), number(case, "height"));
        let expected = case["values"].as_array().unwrap();
        assert_eq!(got.len(), expected.len());
        for (a, b) in got.iter().zip(expected) {
            assert!((f64::from(*a) - b.as_f64().unwrap()).abs() < 1e-5);
        }
    }
    assert!(upsample_logits(&low, 7, 3, 3).is_empty());
    assert!(upsample_logits(&low, 6, 0, 3).is_empty());
}

#[test]
fn upsampling_equals_torch() {
    let folder = tempdir().unwrap();
    let script = r#"
import sys, torch, torch.nn.functional as F
out = sys.argv[1]
torch.manual_seed(0)
for i, (low, w, h) in enumerate([(144, 640, 360), (192, 1920, 1080), (96, 97, 61), (288, 100, 50), (48, 48, 48), (16, 1, 7)]):
    x = torch.randn(1, 1, low, low) * 12
    y = F.interpolate(x, size=(h, w), mode="bilinear", align_corners=False)
    x.numpy().tofile(f"{out}/{i}.in"); y.numpy().tofile(f"{out}/{i}.out")
    print(low, w, h)
"#;
    let Some(cases) = python(script, &[folder.path().as_os_str()]) else {
        return;
    };
    let floats = |name: String| -> Vec<f32> {
        let bytes = fs::read(folder.path().join(name)).unwrap();
        bytes
            .chunks_exact(4)
            .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
            .collect()
    };
    for (i, line) in cases.lines().enumerate() {
        let sizes: Vec<u32> = line.split(' ').map(|n| n.parse().unwrap()).collect();
        let got = upsample_logits(
            &floats(format!("{i}.in")),
            sizes[0] as usize,
            sizes[1],
            sizes[2],
        );
        let expected = floats(format!("{i}.out"));
        assert_eq!(got.len(), expected.len());
        let worst = got
            .iter()
            .zip(&expected)
            .map(|(a, b)| (a - b).abs())
            .fold(0.0, f32::max);
        let flips = got
            .iter()
            .zip(&expected)
            .filter(|(a, b)| (**a > 0.0) != (**b > 0.0))
            .count();
        eprintln!("{line}: largest difference {worst:e}, signs that differ {flips}");
        assert!(worst <= 1e-5, "{line}: {worst}");
    }
}

#[test]
fn binarising_is_strict() {
    let mask = binarise(&[-1.0, 0.0, 1e-9, f32::NAN], 2, 2, 0.0);
    assert_eq!(mask.data, [0, 0, 1, 0]);
    assert_eq!(binarise(&[1.0], 2, 1, 0.0).data, [1, 0]);
}

#[test]
fn run_lengths_equal_those_of_pycocotools() {
    for case in golden()["runs"].as_array().unwrap() {
        let (width, height) = (number(case, "width"), number(case, "height"));
        let mask = match case["fill"].as_u64() {
            Some(value) => BinaryMask {
                width,
                height,
                data: vec![value as u8; (width * height) as usize],
            },
            None => blobs(width, height, case["seed"].as_u64().unwrap()),
        };
        let counts = case["counts"].as_str().unwrap();
        assert_eq!(rle_counts(&mask), counts);
        assert_eq!(rle_decode(counts, width, height).unwrap(), mask);
    }
}

#[test]
fn run_lengths_survive_a_round_trip() {
    let mut noise = Noise(11);
    for round in 0..200u64 {
        let (width, height) = (noise.next() as u32 % 40 + 1, noise.next() as u32 % 40 + 1);
        let mut mask = blobs(width, height, round);
        if round % 3 == 0 {
            for value in &mut mask.data {
                *value ^= (noise.next() % 2) as u8;
            }
        }
        let text = rle_counts(&mask);
        assert_eq!(rle_decode(&text, width, height).unwrap(), mask);
    }
}

#[test]
fn bad_run_lengths_are_refused() {
    for (text, part) in [
        ("", "add up to 0"),
        ("4", "add up to 4"),
        ("\u{7f}", "no digit"),
        ("é", "no digit"),
        ("P", "within a number"),
        ("O", "length -1"),
        ("oooooooooooo0", "too long"),
    ] {
        let error = rle_decode(text, 3, 2).unwrap_err().to_string();
        assert!(
            error.contains(part) && error.contains("3x2"),
            "{text}: {error}"
        );
    }
}

#[test]
fn boxes_are_tight() {
    let mut mask = blobs(9, 7, 1);
    mask.data.fill(0);
    assert_eq!(bounding_box(&mask), None);
    mask.data[2 * 9 + 4] = 1;
    assert_eq!(bounding_box(&mask), Some([4, 2, 5, 3]));
    mask.data[6 * 9 + 1] = 1;
    assert_eq!(bounding_box(&mask), Some([1, 2, 5, 7]));
    mask.data.fill(1);
    assert_eq!(bounding_box(&mask), Some([0, 0, 9, 7]));
}

#[test]
fn mask_prompts_equal_the_stored_reference() {
    for case in golden()["prompts"].as_array().unwrap() {
        let (width, height) = (number(case, "width"), number(case, "height"));
        let res = number(case, "res");
        let mask = blobs(width, height, case["seed"].as_u64().unwrap());
        let expected = rle_decode(case["counts"].as_str().unwrap(), res, res).unwrap();
        let expected: Vec<f32> = expected.data.iter().map(|v| f32::from(*v)).collect();
        assert_eq!(mask_prompt(&mask, res), expected);
    }
    let mask = blobs(14, 14, 4);
    let same: Vec<f32> = mask.data.iter().map(|v| f32::from(*v)).collect();
    assert_eq!(mask_prompt(&mask, 14), same);
}

#[test]
fn mask_prompts_equal_torch() {
    let folder = tempdir().unwrap();
    let script = r#"
import sys, numpy as np, torch, torch.nn.functional as F
out = sys.argv[1]
rng = np.random.default_rng(2)
sizes = [(640, 360, 336), (1280, 720, 504), (1920, 1080, 672), (100, 80, 336), (37, 53, 112), (336, 200, 336),
         (200, 336, 336), (672, 672, 336), (168, 168, 336), (320, 240, 672), (1, 1, 14), (5, 3, 28)]
sizes += [(int(rng.integers(1, 900)), int(rng.integers(1, 900)), int(rng.integers(1, 40)) * 14) for _ in range(40)]
for i, (w, h, res) in enumerate(sizes):
    if i % 3 == 0:
        m = (rng.random((h, w)) < 0.5).astype(np.uint8)
    else:
        m = np.zeros((h, w), np.uint8)
        for _ in range(9):
            x, y = rng.integers(0, w), rng.integers(0, h)
            m[y:y + rng.integers(1, h + 1), x:x + rng.integers(1, w + 1)] ^= 1
    t = torch.from_numpy(m).bool()[None, None].float()
    r = t if (w, h) == (res, res) else (F.interpolate(t, size=(res, res), mode="bilinear", align_corners=False, antialias=True) >= 0.5)
    m.tofile(f"{out}/{i}.in"); r.numpy().astype(np.uint8).tofile(f"{out}/{i}.out")
    print(w, h, res)
"#;
    let Some(cases) = python(script, &[folder.path().as_os_str()]) else {
        return;
    };
    let (mut wrong, mut all) = (0, 0);
    for (i, line) in cases.lines().enumerate() {
        let sizes: Vec<u32> = line.split(' ').map(|n| n.parse().unwrap()).collect();
        let mask = BinaryMask {
            width: sizes[0],
            height: sizes[1],
            data: fs::read(folder.path().join(format!("{i}.in"))).unwrap(),
        };
        let expected = fs::read(folder.path().join(format!("{i}.out"))).unwrap();
        let got = mask_prompt(&mask, sizes[2]);
        assert_eq!(got.len(), expected.len());
        let differ = got
            .iter()
            .zip(&expected)
            .filter(|(a, b)| **a != f32::from(**b))
            .count();
        if differ > 0 {
            eprintln!("{line}: {differ} of {} differ", got.len());
        }
        wrong += differ;
        all += got.len();
    }
    eprintln!("mask prompts: {wrong} of {all} values differ");
    assert_eq!(wrong, 0);
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

    // 3,600,000,000 zeros as one run.
    let mut value = 3_600_000_000u64;
    let mut counts = String::new();
    while value > 0 {
        let more = if value > 31 { 32 } else { 0 };
        counts.push(char::from((value & 31) as u8 + more + 48));
        value >>= 5;
    }
    let text = rle_decode(&counts, 60_000, 60_000).unwrap_err().to_string();
    assert!(
        text.contains("60000x60000") && text.contains("268435456"),
        "{text}"
    );

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
