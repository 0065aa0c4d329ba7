//! Compares a provider's masks of the drawn clip ([`super::clip`]) with the processor's.
//!
//! # Limits
//!
//! Trained weights: the mean IoU of each object's masks with the processor's over all frames must be at least 0.98 in fp32, 0.97
//! in fp16 and 0.95 in int8. Masks are compared and not logits, because rounding far from the outline does not matter, and an
//! object that is not visible has one large logit everywhere, which would outweigh all other frames.
//!
//! Random weights: the outline of a mask is noise around the threshold, so rounding moves many pixels. There the mean relative L2
//! distance of each object's logits over all frames must be at most the upper limit of the golden vectors ([`tolerance`]): 5e-2 in
//! fp32, 2e-1 in fp16, 3e-1 in int8. The lower limit is for one graph; errors add up over frames.
//!
//! On an H100 with ONNX Runtime 1.31.1, fp16 against fp32, `snow-tiny` had a mean IoU of 0.9989, and random weights at full size a
//! distance of 4.7e-3. With a graph that computes wrongly in batches, trained weights were at 0.41 and less, random ones at 0.36.
//!
//! A single object outside of its limit is a failure: others in the same batch may be right. A value that is not finite always
//! is one.

use super::clip::{ClipLogits, Logits};
use super::facts::{Limit, MasksFacts, ObjectAgreement};
use super::golden::{relative_l2, tolerance};
use crate::bundle::Precision;
use crate::masks::Iou;

/// The limit for a bundle (see the [module](self)).
pub fn limit(precision: Precision, random_weights: bool) -> Limit {
    if random_weights {
        return Limit::L2AtMost(tolerance(precision).wrong_above);
    }
    Limit::IouAtLeast(match precision {
        Precision::Fp32 => 0.98,
        Precision::Fp16 => 0.97,
        Precision::Int8 => 0.95,
    })
}

/// Agreement of `got` with `expected` for each object. A pixel belongs to the object if its logit is above `threshold`.
///
/// # Errors
/// The shapes differ, or the number of values is not that of the shape. The text says which.
pub fn compare(
    got: &Logits,
    expected: &Logits,
    threshold: f32,
) -> Result<Vec<ObjectAgreement>, String> {
    let shape = |logits: &Logits| {
        let Logits {
            frames,
            objects,
            side,
            ..
        } = logits;
        [*frames, *objects, *side, *side]
    };
    if shape(got) != shape(expected) {
        return Err(format!(
            "expected logits of shape {:?}, got {:?}",
            shape(expected),
            shape(got)
        ));
    }
    for logits in [got, expected] {
        let count: usize = shape(logits).iter().product();
        if logits.values.len() != count || count == 0 {
            return Err(format!(
                "expected {count} logits (shape {:?}, none of them 0), got {}",
                shape(logits),
                logits.values.len()
            ));
        }
    }
    let area = got.side * got.side;
    let frames = got.frames as f64;
    let object = |object: usize| {
        let (mut iou, mut distance) = (0.0, Some(0.0));
        for frame in 0..got.frames {
            let from = (frame * got.objects + object) * area;
            let got = &got.values[from..from + area];
            let expected = &expected.values[from..from + area];
            iou += overlap(got, expected, threshold);
            distance = distance
                .zip(relative_l2(got, expected))
                .map(|(sum, next)| sum + next);
        }
        ObjectAgreement {
            object: object as u32 + 1,
            mean_iou: iou / frames,
            relative_l2: distance.map(|sum| sum / frames),
        }
    };
    Ok((0..got.objects).map(object).collect())
}

/// Averages over objects: the mean IoU, and the relative L2 distance (`None` if a value is not finite). (1, 0) for no
/// objects.
pub fn mean(objects: &[ObjectAgreement]) -> (f64, Option<f64>) {
    if objects.is_empty() {
        return (1.0, Some(0.0));
    }
    let count = objects.len() as f64;
    let iou: f64 = objects.iter().map(|object| object.mean_iou).sum();
    let distance: Option<f64> = objects.iter().map(|object| object.relative_l2).sum();
    (iou / count, distance.map(|sum| sum / count))
}

/// IoU of two masks; 1 where both are empty.
fn overlap(got: &[f32], expected: &[f32], threshold: f32) -> f64 {
    let pairs = got.iter().zip(expected);
    Iou::of_pixels(pairs.map(|(got, expected)| (*got > threshold, *expected > threshold))).or(1.0)
}

/// Compares a provider's logits of the clip with the processor's, which tracked one object at a time.
///
/// # Errors
/// As [`compare`], and logits that lack those of all objects in one batch.
pub fn facts(
    got: &ClipLogits,
    expected: &Logits,
    threshold: f32,
    limit: Limit,
) -> Result<MasksFacts, String> {
    let together = got.together.as_ref();
    let together = together.ok_or("the objects were not tracked in one batch")?;
    let area = (expected.side * expected.side).max(1);
    let not_empty = expected
        .values
        .chunks(area)
        .filter(|mask| mask.iter().any(|&logit| logit > threshold));
    Ok(MasksFacts {
        frames: expected.frames,
        seen: not_empty.count(),
        limit,
        together: compare(together, expected, threshold)?,
        alone: compare(&got.alone, expected, threshold)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two frames, two objects, 2 x 2 pixels.
    fn logits(values: [f32; 16]) -> Logits {
        Logits {
            frames: 2,
            objects: 2,
            side: 2,
            values: values.to_vec(),
        }
    }

    const EXPECTED: [f32; 16] = [
        4.0, 4.0, -4.0, -4.0, /* object 2 */ 4.0, -4.0, -4.0, -4.0, //
        4.0, 4.0, -4.0, -4.0, /* object 2 */ -9.0, -9.0, -9.0, -9.0,
    ];

    #[test]
    fn equal_logits_are_within_every_limit() {
        let same = compare(&logits(EXPECTED), &logits(EXPECTED), 0.0).unwrap();
        for (at, object) in same.iter().enumerate() {
            assert_eq!(object.object as usize, at + 1);
            assert_eq!((object.mean_iou, object.relative_l2), (1.0, Some(0.0)));
        }
        for precision in [Precision::Fp32, Precision::Fp16, Precision::Int8] {
            assert!(limit(precision, false).all(&same));
            assert!(limit(precision, true).all(&same));
        }
    }

    #[test]
    fn objects_and_frames_are_told_apart() {
        // Object 1 loses one of two pixels on the second frame; object 2 stays.
        let mut values = EXPECTED;
        values[9] = -4.0;
        let found = compare(&logits(values), &logits(EXPECTED), 0.0).unwrap();
        assert_eq!(found[0].mean_iou, 0.75);
        // |8| of |8|, on one frame of two.
        assert_eq!(found[0].relative_l2, Some(0.5));
        assert_eq!(found[1].mean_iou, 1.0);
        assert!(!Limit::IouAtLeast(0.97).all(&found));
        assert!(Limit::IouAtLeast(0.97).holds(&found[1]));
        assert!(!Limit::L2AtMost(0.2).all(&found));
    }

    #[test]
    fn a_mask_that_should_be_empty_is_wrong_and_rounding_is_not() {
        let mut values = EXPECTED;
        values[12] = 0.1;
        let found = compare(&logits(values), &logits(EXPECTED), 0.0).unwrap();
        assert_eq!(found[1].mean_iou, 0.5);
        let rounded = EXPECTED.map(|logit| logit * 1.01);
        let found = compare(&logits(rounded), &logits(EXPECTED), 0.0).unwrap();
        assert!(limit(Precision::Fp16, false).all(&found));
        assert!(limit(Precision::Fp32, true).all(&found));
        // Another threshold, other masks.
        let found = compare(&logits(rounded), &logits(EXPECTED), 4.02).unwrap();
        assert_eq!(found[0].mean_iou, 0.0);
    }

    #[test]
    fn noise_around_the_threshold_is_judged_by_its_distance() {
        // Random weights: every second pixel changes sides, by next to nothing.
        let expected = [0.001, -5.0, 0.001, 5.0].repeat(4);
        let got = [-0.001, -5.0, -0.001, 5.0].repeat(4);
        let logits = |values: Vec<f32>| logits(values.try_into().unwrap());
        let found = compare(&logits(got), &logits(expected), 0.0).unwrap();
        assert!(!limit(Precision::Fp16, false).all(&found));
        assert!(limit(Precision::Fp32, true).all(&found));
    }

    #[test]
    fn values_that_are_not_finite_are_never_within_a_limit() {
        for value in [f32::NAN, f32::INFINITY] {
            let mut values = EXPECTED;
            values[0] = value;
            let found = compare(&logits(values), &logits(EXPECTED), 0.0).unwrap();
            assert_eq!(found[0].relative_l2, None);
            assert!(!limit(Precision::Fp16, false).all(&found));
            assert!(!limit(Precision::Fp16, true).all(&found));
        }
    }

    #[test]
    fn other_shapes_are_refused() {
        let mut short = logits(EXPECTED);
        short.values.pop();
        let error = compare(&short, &logits(EXPECTED), 0.0).unwrap_err();
        assert!(error.contains("16") && error.contains("15"), "{error}");
        let mut other = logits(EXPECTED);
        other.frames = 1;
        let error = compare(&other, &logits(EXPECTED), 0.0).unwrap_err();
        assert!(error.contains("[1, 2, 2, 2]"), "{error}");
        let empty = Logits {
            frames: 0,
            values: Vec::new(),
            ..logits(EXPECTED)
        };
        assert!(compare(&empty, &empty, 0.0).is_err());
    }

    #[test]
    fn the_processors_empty_masks_are_counted() {
        let clip = ClipLogits {
            together: Some(logits(EXPECTED)),
            alone: logits(EXPECTED),
        };
        let limit = limit(Precision::Fp16, false);
        let made = facts(&clip, &logits(EXPECTED), 0.0, limit).unwrap();
        assert_eq!((made.frames, made.seen), (2, 3));
        let without = ClipLogits {
            together: None,
            ..clip
        };
        assert!(facts(&without, &logits(EXPECTED), 0.0, limit).is_err());
    }
}
