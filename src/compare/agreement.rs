//! How well the masks of two runs of one clip agree.

use super::error::{AbError, results};
use super::report::{Agreement, FrameIou, ObjectAgreement};
use crate::masks::Rle;
use crate::session::report::{FrameTracks, TracksReader};

/// Below this IoU a mask shows something else.
pub const LOST: f64 = 0.5;

/// The frame from which on a series of frames and values stays below [`LOST`]; `None` if its last value does not.
pub fn lost_from(series: impl DoubleEndedIterator<Item = (u64, f64)>) -> Option<u64> {
    let tail = series.rev().take_while(|(_, value)| *value < LOST);
    tail.last().map(|(frame, _)| frame)
}

/// Compares two tracks.json frame by frame, object by object. Masks are whole, also behind other objects. `None` without
/// an object.
///
/// # Errors
/// [`AbError::Results`] for a file or a mask that cannot be read, and for runs of different lengths.
pub fn compare(baseline: TracksReader, other: TracksReader) -> Result<Option<Agreement>, AbError> {
    let mut objects: Vec<ObjectAgreement> = Vec::new();
    frame_by_frame(baseline, other, |[expected, got]| {
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

/// Calls `visit` with each frame of two runs. Its error text is reported for the second run.
///
/// # Errors
/// [`AbError::Results`] for a file that cannot be read, for runs of different lengths, and for an error of `visit`.
pub(super) fn frame_by_frame(
    baseline: TracksReader,
    other: TracksReader,
    mut visit: impl FnMut([&FrameTracks; 2]) -> Result<(), String>,
) -> Result<(), AbError> {
    let (theirs, ours) = (baseline.path().to_owned(), other.path().to_owned());
    let (mut baseline, mut other) = (baseline, other);
    loop {
        match (baseline.next(), other.next()) {
            (None, None) => return Ok(()),
            (Some(expected), Some(got)) => {
                let (expected, got) = (
                    expected.map_err(results(&theirs))?,
                    got.map_err(results(&ours))?,
                );
                visit([&expected, &got]).map_err(results(&ours))?;
            }
            _ => {
                return Err(results(&ours)(format!(
                    "it has another number of frames than {}",
                    theirs.display()
                )));
            }
        }
    }
}

/// Intersection over union of two masks; 1 if both are empty.
pub(super) fn iou(one: &Rle, other: &Rle) -> Result<f64, String> {
    let iou = one.iou(other).map_err(|error| error.to_string())?;
    Ok(iou.or(1.0))
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

    /// Fills in the figures of `per_frame`, which must not be empty.
    fn summed(mut self) -> Self {
        let series = &self.per_frame;
        let sum: f64 = series.iter().map(|frame| frame.iou).sum();
        self.iou = sum / series.len() as f64;
        // The first of equal ones: it shows where the masks begin to differ.
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
    /// Computes the figures of all objects from their `per_frame`; `None` without an object.
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
    use crate::masks::Mask;

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
            let pixels = pixels.map(|pixel| pixel == 1).to_vec();
            Rle::of(&Mask::new(4, 3, pixels).unwrap())
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
