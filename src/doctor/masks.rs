//! Masks of the drawn clip ([`super::clip`]) on a provider, against the processor's.
//!
//! # What is right
//!
//! Trained weights: each object's IoU with the processor's mask, averaged over the frames, is at least 0.98 in fp32, 0.97
//! in fp16 and 0.95 in int8. The whole clip counts, not the distance of logits: what rounding changes far from the outline is
//! of no interest, and an object that is not visible has one large logit everywhere, which would outweigh all others.
//!
//! Random weights: the outline of a mask is noise around the threshold, where rounding moves pixels at will. There each object's
//! relative L2 distance of logits, averaged over the frames, is at most the second step of the golden vectors' ladder
//! ([`ladder`]): 5e-2 in fp32, 2e-1 in fp16, 3e-1 in int8. The first step is for one graph; over frames it adds up.
//!
//! On an H100 with ONNX Runtime 1.31.1, fp16 against fp32, `snow-tiny` had a mean IoU of 0.9989, and random weights at full size a
//! distance of 4.7e-3. With a graph that is spoilt in batches, trained weights were at 0.41 and less, random ones at 0.36.
//!
//! One object that is off is enough: others in the same batch may be right. A value that is not finite is never right.

use serde::{Deserialize, Serialize};

use super::clip::{Followed, Logits};
use super::facts::{MasksFacts, ObjectAgreement};
use super::golden::{ladder, relative_l2};
use crate::bundle::Precision;

/// What an object's masks have to keep.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Limit {
    /// The mean IoU with the processor's masks, at least; 0 to 1.
    IouAtLeast(f64),
    /// The mean relative L2 distance from the processor's logits, at most.
    L2AtMost(f64),
}

impl std::fmt::Display for Limit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::IouAtLeast(least) => write!(f, "at least {least}"),
            Self::L2AtMost(most) => write!(f, "at most {most:.0e}"),
        }
    }
}

/// What is right for such a bundle (see the [module](self)).
pub fn limit(precision: Precision, random_weights: bool) -> Limit {
    if random_weights {
        return Limit::L2AtMost(ladder(precision).doubtful);
    }
    Limit::IouAtLeast(match precision {
        Precision::Fp32 => 0.98,
        Precision::Fp16 => 0.97,
        Precision::Int8 => 0.95,
    })
}

impl Limit {
    /// Whether one object keeps it.
    pub fn holds(self, object: &ObjectAgreement) -> bool {
        // No distance: a value was not finite.
        let Some(distance) = object.relative_l2 else {
            return false;
        };
        match self {
            Self::IouAtLeast(least) => object.mean_iou >= least,
            Self::L2AtMost(most) => distance <= most,
        }
    }

    /// Whether all do; true for none.
    pub fn all(self, objects: &[ObjectAgreement]) -> bool {
        objects.iter().all(|object| self.holds(object))
    }
}

/// Object by object, how `got` agrees with `expected`; a logit above `threshold` belongs to the object. Objects count from 1.
///
/// # Errors
/// Logits of other shapes, or fewer values than their shape says, in words.
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

/// Averages over objects: the mean IoU, and the relative L2 distance (`None` if a value is not finite). (1, 0) of none.
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
    let (mut both, mut either) = (0_u64, 0_u64);
    for (&got, &expected) in got.iter().zip(expected) {
        let (got, expected) = (got > threshold, expected > threshold);
        both += u64::from(got && expected);
        either += u64::from(got || expected);
    }
    match either {
        0 => 1.0,
        _ => both as f64 / either as f64,
    }
}

/// What a provider made of the clip against what the processor made of it, one object at a time: its plainest way.
///
/// # Errors
/// As [`compare`], and a provider that did not follow all objects together.
pub fn facts(
    got: &Followed,
    expected: &Logits,
    threshold: f32,
    limit: Limit,
) -> Result<MasksFacts, String> {
    let together = got.together.as_ref();
    let together = together.ok_or("the objects were not followed together")?;
    let area = (expected.side * expected.side).max(1);
    let seen = expected
        .values
        .chunks(area)
        .filter(|mask| mask.iter().any(|&logit| logit > threshold));
    Ok(MasksFacts {
        frames: expected.frames,
        seen: seen.count(),
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
    fn the_same_logits_are_right_in_every_precision() {
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
    fn a_mask_where_none_should_be_is_wrong_and_rounding_is_not() {
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
    fn what_is_not_finite_is_never_right() {
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
        let followed = Followed {
            together: Some(logits(EXPECTED)),
            alone: logits(EXPECTED),
        };
        let limit = limit(Precision::Fp16, false);
        let made = facts(&followed, &logits(EXPECTED), 0.0, limit).unwrap();
        assert_eq!((made.frames, made.seen), (2, 3));
        let without = Followed {
            together: None,
            ..followed
        };
        assert!(facts(&without, &logits(EXPECTED), 0.0, limit).is_err());
    }
}
