//! Decodes the outputs of a proposal graph to boxes with scores, and these to masks.
//!
//! Follows Ultralytics (8.4) with `retina_masks=True`, FastSAM's own default: masks at the frame's size
//! (`process_mask_native`). Ultralytics can also make masks at the size of the graph's image, which are coarser.

use ndarray::{Array2, s};

use super::ProposalError;
use super::letterbox::Letterbox;
use crate::masks::resample::{Part, bilinear, bilinear_part};
use crate::masks::{CroppedMask, Logits};

/// Prototypes are a quarter of the image's size.
const PROTOTYPE_SCALE: u32 = 4;

/// Values of a row of an end-to-end output before its mask coefficients: box, score, class.
pub(super) const HEAD: usize = 6;

/// Values of a row of any other output before its scores: the box.
pub(super) const BOX: usize = 4;

/// One row of the graph's first output, in pixels of the graph's image.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    /// x1, y1, x2, y2.
    pub bbox: [f32; 4],
    /// 0 to 1.
    pub score: f32,
    /// The class, from 0.
    pub class: u32,
    /// One weight for each prototype.
    pub coefficients: Vec<f32>,
}

/// The layout of the graph's first output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// `[1, 4 + classes + prototypes, anchors]`: centre and size of the box, a score for each class, coefficients. Several
    /// anchors can show the same object.
    Anchors {
        /// Number of classes.
        classes: usize,
        /// Number of anchors.
        anchors: usize,
    },
    /// `[1, detections, 6 + prototypes]`: corners of the box, score, class, coefficients. Each object has one row.
    EndToEnd {
        /// Number of rows, including unused ones.
        detections: usize,
    },
}

impl Layout {
    /// The layout of an output with this shape, whose mask coefficients are as many as the prototypes; `None` for another
    /// shape. The two cannot be confused: the number of anchors is a multiple of 21, unlike the values of an end-to-end row.
    pub fn of(shape: &[usize], prototypes: usize) -> Option<Self> {
        match *shape {
            [1, detections, values] if values == HEAD + prototypes => {
                Some(Self::EndToEnd { detections })
            }
            [1, values, anchors] if values > BOX + prototypes => Some(Self::Anchors {
                classes: values - BOX - prototypes,
                anchors,
            }),
            _ => None,
        }
    }
}

/// The candidates with a score above `min_score`, in the output's order. `rows` is the whole output, row-major.
///
/// An anchor has the class with the highest score, the first of equal ones. NaN scores are ignored.
pub fn candidates(
    rows: &[f32],
    layout: Layout,
    prototypes: usize,
    min_score: f32,
) -> Vec<Candidate> {
    match layout {
        Layout::Anchors { classes, anchors } => {
            let value = |row: usize, anchor: usize| rows[row * anchors + anchor];
            let best = |anchor: usize| {
                let mut best = (0, value(BOX, anchor));
                for class in 1..classes {
                    let score = value(BOX + class, anchor);
                    // Comparisons with NaN are false, so a NaN of the first class has to be replaced.
                    if score > best.1 || best.1.is_nan() {
                        best = (class, score);
                    }
                }
                best
            };
            (0..anchors)
                .filter_map(|anchor| {
                    let (class, score) = best(anchor);
                    let [x, y, width, height] = [0, 1, 2, 3].map(|row| value(row, anchor));
                    let (w, h) = (width / 2.0, height / 2.0);
                    candidate(
                        [x - w, y - h, x + w, y + h],
                        score,
                        class,
                        min_score,
                        || {
                            let first = BOX + classes;
                            (first..first + prototypes)
                                .map(|row| value(row, anchor))
                                .collect()
                        },
                    )
                })
                .collect()
        }
        Layout::EndToEnd { .. } => rows
            .chunks_exact(HEAD + prototypes)
            .filter_map(|row| {
                let class = row[5].max(0.0) as usize;
                candidate(
                    [row[0], row[1], row[2], row[3]],
                    row[4],
                    class,
                    min_score,
                    || row[HEAD..].to_vec(),
                )
            })
            .collect(),
    }
}

fn candidate(
    bbox: [f32; 4],
    score: f32,
    class: usize,
    min_score: f32,
    coefficients: impl FnOnce() -> Vec<f32>,
) -> Option<Candidate> {
    if !(score > min_score && score.is_finite() && bbox.iter().all(|edge| edge.is_finite())) {
        return None;
    }
    Some(Candidate {
        bbox,
        score,
        class: u32::try_from(class).unwrap_or(u32::MAX),
        coefficients: coefficients(),
    })
}

/// The graph's second output: `[1, prototypes, height, width]`, row-major.
#[derive(Debug, Clone)]
pub struct Prototypes {
    count: usize,
    width: usize,
    height: usize,
    data: Vec<f32>,
}

impl Prototypes {
    /// Prototypes of the graph's second output, with its shape.
    ///
    /// # Errors
    /// [`ProposalError::Output`] for another shape, or data that does not fill it.
    pub fn new(shape: &[usize], data: Vec<f32>) -> Result<Self, ProposalError> {
        match *shape {
            [1, count, height, width]
                if count * height * width == data.len() && !data.is_empty() =>
            {
                Ok(Self {
                    count,
                    width,
                    height,
                    data,
                })
            }
            _ => Err(ProposalError::Output {
                expected: "prototypes [1,32,H/4,W/4]".to_owned(),
                got: format!("{shape:?}"),
            }),
        }
    }

    /// Number of prototypes.
    pub fn count(&self) -> usize {
        self.count
    }

    /// The logits of a candidate's mask at the prototypes' size.
    fn logits(&self, coefficients: &[f32]) -> Array2<f32> {
        let mut logits = Array2::zeros((self.height, self.width));
        let sums = logits.as_slice_mut().unwrap_or_default();
        let planes = self.data.chunks_exact(self.width * self.height);
        for (plane, weight) in planes.zip(coefficients) {
            for (logit, value) in sums.iter_mut().zip(plane) {
                *logit += weight * value;
            }
        }
        logits
    }

    /// The mask of a candidate within its box `bbox`, which is in pixels of the frame; `None` if it is empty.
    ///
    /// The logits are scaled up until the grey around the frame is whole pixels (at most to the image's size), cut to
    /// the frame and scaled to its size, bilinear without antialiasing both times. A pixel of the frame belongs to the mask
    /// where its logit is above 0 and its index is in the box, from x1 on and below x2.
    pub fn mask(
        &self,
        coefficients: &[f32],
        bbox: &[f32; 4],
        place: &Letterbox,
    ) -> Option<CroppedMask> {
        let (width, height) = place.frame;
        // The first pixels from each edge on.
        let [x1, y1, x2, y2] = bbox.map(|edge| edge.max(0.0).ceil() as u32);
        let (x2, y2) = (x2.min(width), y2.min(height));
        if x1 >= x2 || y1 >= y2 {
            return None;
        }
        let logits = self.logits(coefficients);
        let up = self.upscaling(place.frame);
        let (wide, high) = (self.width * up, self.height * up);
        let logits = if up == 1 {
            logits
        } else {
            bilinear(logits.view(), wide, high)
        };
        let (columns, rows) = fitted_within(place.frame, (wide, high));
        let before = |room: usize, used: usize| {
            ((room.saturating_sub(used)) as f64 / 2.0 - 0.1)
                .round_ties_even()
                .max(0.0) as usize
        };
        let (left, top) = (before(wide, columns), before(high, rows));
        let cut = logits.slice(s![
            top..(top + rows).min(high),
            left..(left + columns).min(wide)
        ]);
        let within = Part {
            left: x1 as usize,
            top: y1 as usize,
            width: (x2 - x1) as usize,
            height: (y2 - y1) as usize,
        };
        let logits = bilinear_part(cut, width as usize, height as usize, within);
        let mask = Logits::from(logits).above(0.0);
        (!mask.is_empty()).then_some(CroppedMask {
            left: x1,
            top: y1,
            mask,
        })
    }

    /// The scale, 1, 2 or 4, at which the grey around the frame covers whole pixels of the prototypes.
    fn upscaling(&self, frame: (u32, u32)) -> usize {
        let scale = PROTOTYPE_SCALE as usize;
        let image = (self.width * scale, self.height * scale);
        let (columns, rows) = fitted_within(frame, image);
        // Half of the grey lies on each side.
        let whole = |step: usize| {
            [image.0.abs_diff(columns), image.1.abs_diff(rows)]
                .iter()
                .all(|grey| grey.is_multiple_of(step) && (grey / 2).is_multiple_of(step))
        };
        match (whole(4), whole(2)) {
            (true, _) => 1,
            (_, true) => 2,
            _ => 4,
        }
    }
}

/// The size of a frame in a plane that it fits in, each side rounded, half to even.
fn fitted_within(frame: (u32, u32), plane: (usize, usize)) -> (usize, usize) {
    let ratio = |plane: usize, frame: u32| plane as f64 / f64::from(frame.max(1));
    let gain = ratio(plane.0, frame.0).min(ratio(plane.1, frame.1));
    let side = |length: u32| ((f64::from(length) * gain).round_ties_even() as usize).max(1);
    (side(frame.0), side(frame.1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layout_follows_from_the_shape() {
        let anchors = |classes, anchors| Some(Layout::Anchors { classes, anchors });
        assert_eq!(Layout::of(&[1, 37, 8400], 32), anchors(1, 8400));
        assert_eq!(Layout::of(&[1, 116, 21], 32), anchors(80, 21));
        assert_eq!(
            Layout::of(&[1, 300, 38], 32),
            Some(Layout::EndToEnd { detections: 300 })
        );
        for other in [&[1, 36, 8400][..], &[2, 37, 8400], &[1, 84]] {
            assert_eq!(Layout::of(other, 32), None, "{other:?}");
        }
    }

    #[test]
    fn anchors_have_their_best_class_and_corners() {
        // Two classes, one coefficient, four anchors; a column each.
        #[rustfmt::skip]
        let rows = [
            10.0, 20.0, 30.0, 40.0, // x
            11.0, 21.0, 31.0, 41.0, // y
            4.0, 2.0, 2.0, f32::INFINITY, // width
            6.0, 2.0, 2.0, 2.0, // height
            0.2, 0.9, 0.5, 0.9, // class 0
            0.7, f32::NAN, 0.5, 0.1, // class 1
            -1.0, 2.0, 3.0, 4.0, // coefficient
        ];
        let layout = Layout::of(&[1, 7, 4], 1).unwrap();
        let found = candidates(&rows, layout, 1, 0.5);
        // 0.5 is not above 0.5, and a box must be finite.
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].bbox, [8.0, 8.0, 12.0, 14.0]);
        assert_eq!((found[0].class, found[0].score), (1, 0.7));
        assert_eq!(found[0].coefficients, [-1.0]);
        assert_eq!((found[1].class, found[1].score), (0, 0.9));
    }

    #[test]
    fn an_end_to_end_row_says_its_class() {
        let rows = [
            1.0, 2.0, 3.0, 4.0, 0.9, 7.0, 0.5, // kept
            1.0, 2.0, 3.0, 4.0, 0.1, 2.0, 0.5, // below
            0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, // unused
        ];
        let layout = Layout::of(&[1, 3, 7], 1).unwrap();
        let found = candidates(&rows, layout, 1, 0.25);
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].class, found[0].score), (7, 0.9));
        assert_eq!(found[0].bbox, [1.0, 2.0, 3.0, 4.0]);
    }

    #[test]
    fn a_mask_is_a_sum_of_prototypes_cut_to_its_box() {
        // The left half of one prototype, the upper half of the other; the frame is four times as large.
        let left = [1.0, -1.0, 1.0, -1.0];
        let upper = [1.0, 1.0, -1.0, -1.0];
        let prototypes = Prototypes::new(&[1, 2, 2, 2], [left, upper].concat()).unwrap();
        let place = Letterbox::fixed((8, 8), (8, 8));
        let mask =
            |coefficients: &[f32], bbox: [f32; 4]| prototypes.mask(coefficients, &bbox, &place);
        let all = [0.0, 0.0, 8.0, 8.0];
        let left = mask(&[1.0, 0.0], all).unwrap();
        let left = left.mask;
        assert_eq!((left.width(), left.height(), left.area()), (8, 8, 32));
        let row = [1, 1, 1, 1, 0, 0, 0, 0].map(|pixel| pixel == 1);
        assert!(left.rows().all(|pixels| pixels == row));
        // Pixel 2 is not from 2.5 on, pixel 6 not below 6.
        let part = mask(&[0.0, 1.0], [2.5, 1.0, 6.0, 7.5]).unwrap();
        assert_eq!((part.left, part.top), (3, 1));
        assert_eq!((part.mask.width(), part.mask.height()), (3, 7));
        assert_eq!(part.mask.area(), 9);
        // Nothing left: outside of the mask, and a box without a pixel.
        assert_eq!(mask(&[1.0, 0.0], [5.0, 0.0, 8.0, 8.0]), None);
        assert_eq!(mask(&[1.0, 0.0], [1.1, 0.0, 1.9, 8.0]), None);
    }

    #[test]
    fn the_grey_around_the_frame_is_cut_off() {
        // A frame of 8x4 in an image of 8x8: of two rows of prototypes, half a row above and below is grey.
        let rows = vec![5.0, 5.0, -9.0, -9.0];
        let prototypes = Prototypes::new(&[1, 1, 2, 2], rows).unwrap();
        assert_eq!(prototypes.upscaling((8, 4)), 2);
        let place = Letterbox::fixed((8, 4), (8, 8));
        let mask = prototypes.mask(&[1.0], &[0.0, 0.0, 8.0, 4.0], &place);
        // At twice the size the rows are 5, 1.5, -5.5, -9; the frame has the two in the middle, and of these 1.5, -0.25,
        // -3.75, -5.5.
        let mask = mask.unwrap().mask;
        assert_eq!((mask.area(), &mask.pixels()[..8]), (8, &[true; 8][..]));
        // Grey of 8 pixels is one of the prototypes' on each side; that of 4 is half of one.
        let wide = Prototypes::new(&[1, 1, 16, 16], vec![0.0; 256]).unwrap();
        assert_eq!(wide.upscaling((64, 56)), 1);
        assert_eq!(wide.upscaling((64, 60)), 2);
        assert_eq!(wide.upscaling((64, 62)), 4);
    }
}
