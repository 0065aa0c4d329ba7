//! How alike the masks of two runs of one clip are.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::AbError;
use crate::media::mask::{rle_overlap, rle_runs};
use crate::session::report::{FrameTracks, Rle, TracksReader};

/// Below this a mask shows something else.
pub const LOST: f64 = 0.5;

/// How a run's masks agree with another's, all objects together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Agreement {
    /// Mean over objects of their mean IoU.
    pub iou: f64,
    /// The lowest IoU of an object on a frame.
    pub worst_iou: f64,
    /// Its frame.
    pub worst_frame: u64,
    /// Its object.
    pub worst_object: u32,
    /// The first frame on which an object's IoU is below 0.5; null if there is none.
    pub first_below: Option<u64>,
    /// Objects whose IoU is below 0.5 from some frame to the end.
    pub objects_lost: u64,
    /// Each object, by id.
    pub objects: Vec<ObjectAgreement>,
}

/// How one object's masks agree.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ObjectAgreement {
    /// The object's id in the baseline.
    pub object: u32,
    /// Mean IoU over the frames from its first prompt on; of an object that was found, over the frames on which either of
    /// the two runs shows it.
    pub iou: f64,
    /// The lowest.
    pub worst_iou: f64,
    /// Its frame.
    pub worst_frame: u64,
    /// The first frame with an IoU below 0.5; null if there is none.
    pub first_below: Option<u64>,
    /// The frame from which on the IoU stays below 0.5 to the end; null if it does not.
    pub lost_from: Option<u64>,
    /// Each of these frames.
    pub per_frame: Vec<FrameIou>,
}

/// One object on one frame.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct FrameIou {
    /// The frame.
    pub frame: u64,
    /// Intersection over union of the two masks, 0 to 1; 1 if both are empty.
    pub iou: f64,
}

/// The frame from which on a series stays below [`LOST`] to its end; `None` if its last value does not.
pub fn lost_from(series: impl DoubleEndedIterator<Item = (u64, f64)>) -> Option<u64> {
    let tail = series.rev().take_while(|(_, value)| *value < LOST);
    tail.last().map(|(frame, _)| frame)
}

/// Compares two runs' tracks.json frame by frame, with each object's whole mask, also where another object is in front.
///
/// # Errors
/// A file that cannot be read, masks that are none, or runs of different lengths.
pub fn compare(baseline: TracksReader, other: TracksReader) -> Result<Option<Agreement>, AbError> {
    let mut objects: Vec<ObjectAgreement> = Vec::new();
    side_by_side(baseline, other, |[expected, got]| {
        for track in &expected.objects {
            let counterpart = got.objects.iter().find(|o| o.object == track.object);
            let counterpart = counterpart
                .ok_or_else(|| format!("frame {} lacks object {}", got.frame, track.object))?;
            let iou = iou(&track.rle, &counterpart.rle)?;
            let place = objects
                .iter()
                .position(|known| known.object == track.object);
            let place = place.unwrap_or_else(|| {
                objects.push(ObjectAgreement::empty(track.object));
                objects.len() - 1
            });
            objects[place].per_frame.push(FrameIou {
                frame: expected.frame,
                iou,
            });
        }
        Ok(())
    })?;
    objects.sort_by_key(|object| object.object);
    Ok(Agreement::of(objects))
}

/// What is wrong with a run's results.
pub(super) fn bad<E: ToString>(path: &Path) -> impl Fn(E) -> AbError {
    move |detail| AbError::Results {
        path: path.to_owned(),
        detail: detail.to_string(),
    }
}

/// Goes through two runs frame by frame; what `look` has to say against a frame is said of the second run.
///
/// # Errors
/// A file that cannot be read, runs of different lengths, and what `look` says.
pub(super) fn side_by_side(
    baseline: TracksReader,
    other: TracksReader,
    mut look: impl FnMut([&FrameTracks; 2]) -> Result<(), String>,
) -> Result<(), AbError> {
    let (theirs, ours) = (baseline.path().to_owned(), other.path().to_owned());
    let (mut baseline, mut other) = (baseline, other);
    loop {
        match (baseline.next(), other.next()) {
            (None, None) => return Ok(()),
            (Some(expected), Some(got)) => {
                let (expected, got) = (expected.map_err(bad(&theirs))?, got.map_err(bad(&ours))?);
                look([&expected, &got]).map_err(bad(&ours))?;
            }
            _ => {
                return Err(bad(&ours)(format!(
                    "it has another number of frames than {}",
                    theirs.display()
                )));
            }
        }
    }
}

/// Intersection over union of two masks; 1 if both are empty.
pub(super) fn iou(one: &Rle, other: &Rle) -> Result<f64, String> {
    if one.size != other.size {
        return Err(format!(
            "masks of {:?} and {:?} pixels",
            one.size, other.size
        ));
    }
    let [height, width] = one.size;
    let runs = |rle: &Rle| rle_runs(&rle.counts, width, height).map_err(|error| error.to_string());
    let (both, either) = rle_overlap(&runs(one)?, &runs(other)?);
    Ok(match either {
        0 => 1.0,
        _ => both as f64 / either as f64,
    })
}

impl ObjectAgreement {
    pub(super) fn empty(object: u32) -> Self {
        Self {
            object,
            iou: 0.0,
            worst_iou: 0.0,
            worst_frame: 0,
            first_below: None,
            lost_from: None,
            per_frame: Vec::new(),
        }
    }

    /// The figures of `per_frame`, which has a frame.
    fn summed(mut self) -> Self {
        let series = &self.per_frame;
        let sum: f64 = series.iter().map(|frame| frame.iou).sum();
        self.iou = sum / series.len() as f64;
        // The first of equals: where it goes wrong is of more use than where it stays so.
        let worst = series.iter().min_by(|a, b| a.iou.total_cmp(&b.iou));
        if let Some(worst) = worst {
            (self.worst_iou, self.worst_frame) = (worst.iou, worst.frame);
        }
        let below = series.iter().find(|frame| frame.iou < LOST);
        self.first_below = below.map(|frame| frame.frame);
        self.lost_from = lost_from(series.iter().map(|frame| (frame.frame, frame.iou)));
        self
    }
}

impl Agreement {
    /// The figures of all objects; `None` without one.
    pub fn of(objects: Vec<ObjectAgreement>) -> Option<Self> {
        let objects: Vec<ObjectAgreement> = objects
            .into_iter()
            .filter(|object| !object.per_frame.is_empty())
            .map(ObjectAgreement::summed)
            .collect();
        let worst = objects
            .iter()
            .min_by(|a, b| a.worst_iou.total_cmp(&b.worst_iou))?;
        Some(Self {
            iou: objects.iter().map(|object| object.iou).sum::<f64>() / objects.len() as f64,
            worst_iou: worst.worst_iou,
            worst_frame: worst.worst_frame,
            worst_object: worst.object,
            first_below: objects.iter().filter_map(|object| object.first_below).min(),
            objects_lost: objects.iter().filter(|o| o.lost_from.is_some()).count() as u64,
            objects,
        })
    }

    /// The lowest IoU of an object on each frame.
    pub fn worst_per_frame(&self) -> std::collections::BTreeMap<u64, f64> {
        let mut worst = std::collections::BTreeMap::new();
        for frame in self.objects.iter().flat_map(|object| &object.per_frame) {
            let entry = worst.entry(frame.frame).or_insert(1.0_f64);
            *entry = entry.min(frame.iou);
        }
        worst
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::mask::{BinaryMask, rle_counts};

    fn object(id: u32, ious: &[f64]) -> ObjectAgreement {
        let frame = |(frame, iou): (usize, &f64)| FrameIou {
            frame: frame as u64 + 5,
            iou: *iou,
        };
        ObjectAgreement {
            per_frame: ious.iter().enumerate().map(frame).collect(),
            ..ObjectAgreement::empty(id)
        }
    }

    #[test]
    fn an_object_is_lost_when_it_stays_below_a_half() {
        let all = Agreement::of(vec![
            object(1, &[1.0, 0.4, 0.2, 0.8]),
            object(2, &[1.0, 0.5, 0.49, 0.0]),
            object(3, &[]),
        ])
        .unwrap();
        let [one, two] = all.objects.as_slice() else {
            panic!("{all:?}")
        };
        assert_eq!((one.worst_iou, one.worst_frame), (0.2, 7));
        assert_eq!((one.first_below, one.lost_from), (Some(6), None));
        assert_eq!((two.first_below, two.lost_from), (Some(7), Some(7)));
        assert!((one.iou - 0.6).abs() < 1e-12 && (two.iou - 0.4975).abs() < 1e-12);
        assert!((all.iou - 0.54875).abs() < 1e-12);
        assert_eq!(
            (all.worst_iou, all.worst_frame, all.worst_object),
            (0.0, 8, 2)
        );
        assert_eq!((all.first_below, all.objects_lost), (Some(6), 1));
        assert_eq!(
            all.worst_per_frame().into_values().collect::<Vec<_>>(),
            [1.0, 0.4, 0.2, 0.0]
        );
        assert_eq!(Agreement::of(Vec::new()), None);
    }

    #[test]
    fn masks_are_compared_by_their_runs() {
        let rle = |pixels: [u8; 12]| {
            let mask = BinaryMask {
                width: 4,
                height: 3,
                data: pixels.to_vec(),
            };
            Rle {
                size: [3, 4],
                counts: rle_counts(&mask),
            }
        };
        let empty = rle([0; 12]);
        let left = rle([1, 1, 0, 0, 1, 1, 0, 0, 1, 1, 0, 0]);
        let top = rle([1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(iou(&left, &left), Ok(1.0));
        assert_eq!(iou(&left, &top), Ok(2.0 / 8.0));
        assert_eq!(
            (iou(&left, &empty), iou(&empty, &empty)),
            (Ok(0.0), Ok(1.0))
        );
        let other = Rle {
            size: [4, 3],
            counts: empty.counts.clone(),
        };
        assert!(iou(&left, &other).unwrap_err().contains("[4, 3]"));
    }
}
