//! Masks against torch and pycocotools: stored references first, then many cases with the real torch where there is one.

use std::fs;

use serde_json::Value;
use snow_ort::masks::prompt::mask_prompt;
use snow_ort::masks::{Logits, Mask, Rle};
use tempfile::tempdir;

use crate::media::{Noise, fixture, python};

/// The mask of rectangles that tests/fixtures/media/generate.py makes.
fn blobs(width: u32, height: u32, seed: u64) -> Mask {
    let mut noise = Noise(seed);
    let (columns, rows) = (u64::from(width), u64::from(height));
    let mut mask = Mask::empty(width, height);
    for _ in 0..6 {
        let (x, y) = (noise.next() % columns, noise.next() % rows);
        let (w, h) = (noise.next() % columns + 1, noise.next() % rows + 1);
        for row in y..(y + h / 2 + 1).min(rows) {
            for column in x..(x + w / 2 + 1).min(columns) {
                mask.pixels_mut()[(row * columns + column) as usize] ^= true;
            }
        }
    }
    mask
}

fn golden() -> Value {
    serde_json::from_slice(&fs::read(fixture("masks.json")).unwrap()).unwrap()
}

fn number(value: &Value, key: &str) -> u32 {
    value[key].as_u64().unwrap() as u32
}

fn rle(counts: &str, width: u32, height: u32) -> Rle {
    Rle {
        size: [height, width],
        counts: counts.to_owned(),
    }
}

/// The mask as 0.0 and 1.0.
fn values(mask: &Mask) -> Vec<f32> {
    mask.pixels()
        .iter()
        .map(|inside| f32::from(*inside))
        .collect()
}

#[test]
fn upsampling_equals_the_stored_reference() {
    let bytes = Noise(9).bytes(36);
    let values = bytes.iter().map(|byte| f32::from(*byte) / 8.0 - 16.0);
    let values: Vec<f32> = values.collect();
    assert!(Logits::square(7, values.clone()).is_err());
    let low = Logits::square(6, values).unwrap();
    for case in golden()["upsampled"].as_array().unwrap() {
        let got = low.resized(number(case, "width"), number(case, "height"));
        let expected = case["values"].as_array().unwrap();
        assert_eq!(got.values().len(), expected.len());
        for (a, b) in got.values().iter().zip(expected) {
            assert!((f64::from(*a) - b.as_f64().unwrap()).abs() < 1e-5);
        }
    }
    assert!(low.resized(0, 3).values().is_empty());
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
        let low = Logits::square(sizes[0] as usize, floats(format!("{i}.in"))).unwrap();
        let got = low.resized(sizes[1], sizes[2]);
        let got = got.values();
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
    let logits = Logits::square(2, vec![-1.0, 0.0, 1e-9, f32::NAN]).unwrap();
    assert_eq!(logits.above(0.0).pixels(), [false, false, true, false]);
    assert!(Logits::new(2, 1, vec![1.0]).is_err());
}

#[test]
fn run_lengths_equal_those_of_pycocotools() {
    for case in golden()["runs"].as_array().unwrap() {
        let (width, height) = (number(case, "width"), number(case, "height"));
        let mask = match case["fill"].as_u64() {
            Some(value) => Mask::filled(width, height, value == 1),
            None => blobs(width, height, case["seed"].as_u64().unwrap()),
        };
        let counts = case["counts"].as_str().unwrap();
        assert_eq!(Rle::of(&mask), rle(counts, width, height));
        assert_eq!(rle(counts, width, height).decode().unwrap(), mask);
    }
}

#[test]
fn run_lengths_survive_a_round_trip() {
    let mut noise = Noise(11);
    for round in 0..200u64 {
        let (width, height) = (noise.next() as u32 % 40 + 1, noise.next() as u32 % 40 + 1);
        let mut mask = blobs(width, height, round);
        if round % 3 == 0 {
            for inside in mask.pixels_mut() {
                *inside ^= noise.next() % 2 == 1;
            }
        }
        assert_eq!(Rle::of(&mask).decode().unwrap(), mask);
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
        let error = rle(text, 3, 2).decode().unwrap_err().to_string();
        assert!(
            error.contains(part) && error.contains("3x2"),
            "{text}: {error}"
        );
    }
}

#[test]
fn boxes_are_tight() {
    let mut mask = Mask::empty(9, 7);
    assert_eq!(mask.bounding_box(), None);
    mask.pixels_mut()[2 * 9 + 4] = true;
    assert_eq!(mask.bounding_box(), Some([4, 2, 5, 3]));
    mask.pixels_mut()[6 * 9 + 1] = true;
    assert_eq!(mask.bounding_box(), Some([1, 2, 5, 7]));
    mask.pixels_mut().fill(true);
    assert_eq!(mask.bounding_box(), Some([0, 0, 9, 7]));
    assert_eq!(Mask::empty(0, 7).bounding_box(), None);
}

#[test]
fn mask_prompts_equal_the_stored_reference() {
    for case in golden()["prompts"].as_array().unwrap() {
        let (width, height) = (number(case, "width"), number(case, "height"));
        let res = number(case, "res");
        let mask = blobs(width, height, case["seed"].as_u64().unwrap());
        let expected = rle(case["counts"].as_str().unwrap(), res, res);
        let expected = values(&expected.decode().unwrap());
        assert_eq!(mask_prompt(&mask, res), expected);
    }
    let mask = blobs(14, 14, 4);
    assert_eq!(mask_prompt(&mask, 14), values(&mask));
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
        let bytes = fs::read(folder.path().join(format!("{i}.in"))).unwrap();
        let pixels = bytes.iter().map(|byte| *byte == 1).collect();
        let mask = Mask::new(sizes[0], sizes[1], pixels).unwrap();
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
fn run_lengths_of_masks_that_no_memory_holds_are_refused() {
    // As many pixels as of a picture.
    assert_eq!(
        snow_ort::masks::rle::MAX_PIXELS,
        snow_ort::media::MAX_PIXELS
    );
    // 3,600,000,000 zeros as one run.
    let mut value = 3_600_000_000u64;
    let mut counts = String::new();
    while value > 0 {
        let more = if value > 31 { 32 } else { 0 };
        counts.push(char::from((value & 31) as u8 + more + 48));
        value >>= 5;
    }
    let text = rle(&counts, 60_000, 60_000)
        .decode()
        .unwrap_err()
        .to_string();
    assert!(
        text.contains("60000x60000") && text.contains("268435456"),
        "{text}"
    );
}
