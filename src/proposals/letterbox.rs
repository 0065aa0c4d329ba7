//! The image of a proposal graph from a frame, and coordinates back.
//!
//! Follows `LetterBox` of Ultralytics (8.4) with its defaults: the frame is scaled up or down to fit, keeping its aspect
//! ratio; each side is rounded, half to even; the rest of the image is grey, half of it on each side, an odd pixel at the
//! right and at the bottom.

use crate::media::Frame;

/// Value of the grey around the frame, 0 to 255.
const GREY: u8 = 114;

/// Bits of a weight in [`scale`].
const WEIGHT_BITS: u32 = 11;

/// The place of a frame in a graph's image. All lengths are in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Letterbox {
    /// Width and height of the frame.
    pub frame: (u32, u32),
    /// Width and height of the graph's image.
    pub image: (u32, u32),
    /// Width and height of the frame in the image.
    pub scaled: (u32, u32),
    /// Columns of grey left of the frame.
    pub left: u32,
    /// Rows of grey above the frame.
    pub top: u32,
}

/// The frame's size in an image that it fits in, at least one pixel.
fn fitted(frame: (u32, u32), image: (u32, u32)) -> (u32, u32) {
    let ratio = |image: u32, frame: u32| f64::from(image) / f64::from(frame.max(1));
    let gain = ratio(image.0, frame.0).min(ratio(image.1, frame.1));
    let side = |length: u32| ((f64::from(length) * gain).round_ties_even() as u32).max(1);
    (side(frame.0), side(frame.1))
}

/// Pixels before a part in the middle that leaves `room` pixels.
fn before(room: u32) -> u32 {
    // An odd pixel goes to the far side.
    room / 2
}

impl Letterbox {
    /// The place of a frame in an image of a given size.
    pub fn fixed(frame: (u32, u32), image: (u32, u32)) -> Self {
        let scaled = fitted(frame, image);
        Self {
            frame,
            image,
            scaled,
            left: before(image.0.saturating_sub(scaled.0)),
            top: before(image.1.saturating_sub(scaled.1)),
        }
    }

    /// The place of a frame in the smallest image for a graph that accepts any size: the longer side is `side`, which is a
    /// multiple of `stride`, and the other side is a multiple of `stride`, too.
    pub fn tight(frame: (u32, u32), side: u32, stride: u32) -> Self {
        let scaled = fitted(frame, (side, side));
        let stride = stride.max(1);
        let image = (
            scaled.0.next_multiple_of(stride),
            scaled.1.next_multiple_of(stride),
        );
        Self {
            frame,
            image,
            scaled,
            left: before(image.0 - scaled.0),
            top: before(image.1 - scaled.1),
        }
    }

    /// The graph's image of a frame: `[3, height, width]`, RGB, 0 to 1. The frame must have the size [`Letterbox::frame`].
    pub fn apply(&self, frame: &Frame) -> Vec<f32> {
        let (width, height) = (self.image.0 as usize, self.image.1 as usize);
        let (columns, rows) = (self.scaled.0 as usize, self.scaled.1 as usize);
        let (left, top) = (self.left as usize, self.top as usize);
        let scaled = scale(
            &frame.rgb,
            (self.frame.0 as usize, self.frame.1 as usize),
            (columns, rows),
        );
        let value: Vec<f32> = (0..=u8::MAX).map(|byte| f32::from(byte) / 255.0).collect();
        let area = width * height;
        let mut image = vec![value[usize::from(GREY)]; 3 * area];
        for (y, row) in scaled.chunks_exact(columns * 3).enumerate().take(rows) {
            let start = (top + y) * width + left;
            for (x, pixel) in row.chunks_exact(3).enumerate() {
                for (channel, byte) in pixel.iter().enumerate() {
                    image[channel * area + start + x] = value[usize::from(*byte)];
                }
            }
        }
        image
    }

    /// Converts a box x1, y1, x2, y2 from pixels of the image to pixels of the frame, and clamps it to the frame.
    ///
    /// Reference: `scale_boxes`; each axis has the ratio of its rounded side.
    pub fn to_frame(&self, bbox: [f32; 4]) -> [f32; 4] {
        let ratio = |scaled: u32, frame: u32| (f64::from(scaled) / f64::from(frame.max(1))) as f32;
        let x_ratio = ratio(self.scaled.0, self.frame.0);
        let y_ratio = ratio(self.scaled.1, self.frame.1);
        let x = |x: f32| ((x - self.left as f32) / x_ratio).clamp(0.0, self.frame.0 as f32);
        let y = |y: f32| ((y - self.top as f32) / y_ratio).clamp(0.0, self.frame.1 as f32);
        [x(bbox[0]), y(bbox[1]), x(bbox[2]), y(bbox[3])]
    }
}

/// The two inputs of an output value, and their weights of 2 to the power of [`WEIGHT_BITS`].
struct Pair {
    near: usize,
    far: usize,
    weights: [i32; 2],
}

fn pairs(input: usize, output: usize) -> Vec<Pair> {
    let step = 1.0 / (output as f64 / input as f64);
    let one = (1 << WEIGHT_BITS) as f32;
    let last = input.saturating_sub(1);
    (0..output)
        .map(|i| {
            let position = ((i as f64 + 0.5) * step - 0.5) as f32;
            let near = position.floor();
            let (near, rest) = if near < 0.0 {
                (0, 0.0)
            } else if near as usize >= last {
                (last, 0.0)
            } else {
                (near as usize, position - near)
            };
            let weight = |share: f32| (share * one).round_ties_even() as i32;
            Pair {
                near,
                far: (near + 1).min(last),
                weights: [weight(1.0 - rest), weight(rest)],
            }
        })
        .collect()
}

/// RGB bytes scaled from one size (width, height) to another: bilinear, pixel centres at halves, no antialiasing.
///
/// Reference: OpenCV's `resize` with `INTER_LINEAR`, which these models are trained and run with, in its integer
/// arithmetic. Fewer than 1 of 100 values differ, by one, where OpenCV uses another method for the size.
fn scale(rgb: &[u8], from: (usize, usize), to: (usize, usize)) -> Vec<u8> {
    if from == to {
        return rgb.to_vec();
    }
    let columns = pairs(from.0, to.0);
    let widen = |row: usize| -> Vec<i32> {
        let row = &rgb[row * from.0 * 3..][..from.0 * 3];
        let mut wide = Vec::with_capacity(to.0 * 3);
        for pair in &columns {
            for channel in 0..3 {
                wide.push(
                    i32::from(row[pair.near * 3 + channel]) * pair.weights[0]
                        + i32::from(row[pair.far * 3 + channel]) * pair.weights[1],
                );
            }
        }
        wide
    };
    let mut output = Vec::with_capacity(to.0 * to.1 * 3);
    // Many output rows lie between the same two input rows.
    let mut upper = (usize::MAX, Vec::new());
    let mut lower = (usize::MAX, Vec::new());
    for pair in pairs(from.1, to.1) {
        if upper.0 != pair.near {
            if lower.0 == pair.near {
                std::mem::swap(&mut upper, &mut lower);
            } else {
                upper = (pair.near, widen(pair.near));
            }
        }
        if lower.0 != pair.far {
            lower = (pair.far, widen(pair.far));
        }
        let part = |value: i32, weight: i32| (weight * (value >> 4)) >> 16;
        output.extend(upper.1.iter().zip(&lower.1).map(|(above, below)| {
            let sum = part(*above, pair.weights[0]) + part(*below, pair.weights[1]);
            ((sum + 2) >> 2).clamp(0, 255) as u8
        }));
    }
    output
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(width: u32, height: u32, rgb: Vec<u8>) -> Frame {
        Frame {
            index: 0,
            width,
            height,
            rgb,
            pts_s: None,
        }
    }

    #[test]
    fn a_wide_frame_lies_in_the_middle_and_the_odd_row_is_below() {
        let place = Letterbox::fixed((100, 35), (50, 33));
        // 17.5 rows are 18, half to even; of the 15 that are left 7 lie above.
        assert_eq!(place.scaled, (50, 18));
        assert_eq!((place.left, place.top), (0, 7));
        // Each axis has its own ratio: 50 of 100 columns, 18 of 35 rows.
        let b = place.to_frame([5.0, 7.0, 60.0, 16.0]);
        assert_eq!(b[..3], [10.0, 0.0, 100.0]);
        assert!((b[3] - 17.5).abs() < 1e-5, "{b:?}");
    }

    #[test]
    fn a_tight_image_is_padded_to_the_stride_only() {
        let place = Letterbox::tight((1280, 720), 640, 32);
        assert_eq!((place.scaled, place.image), ((640, 360), (640, 384)));
        assert_eq!((place.left, place.top), (0, 12));
        let tall = Letterbox::tight((10, 4000), 64, 32);
        assert_eq!((tall.scaled, tall.image), ((1, 64), (32, 64)));
    }

    #[test]
    fn the_image_has_planes_of_rgb_from_0_to_1_and_grey_around() {
        let rgb = vec![255, 0, 51, 255, 0, 51];
        let image = Letterbox::fixed((2, 1), (2, 3)).apply(&frame(2, 1, rgb));
        let grey = 114.0 / 255.0;
        let plane = |value: f32| vec![grey, grey, value, value, grey, grey];
        assert_eq!(image, [plane(1.0), plane(0.0), plane(0.2)].concat());
    }

    #[test]
    fn scaling_has_pixel_centres_at_halves_and_no_antialiasing() {
        let grey = |values: &[u8]| -> Vec<u8> { values.iter().flat_map(|v| [*v; 3]).collect() };
        // Up: a quarter and three quarters between two pixels.
        assert_eq!(
            scale(&grey(&[0, 100]), (2, 1), (4, 1)),
            grey(&[0, 25, 75, 100])
        );
        // Down by 4: of each four pixels the two in the middle.
        let row = grey(&[200, 10, 20, 200, 0, 60, 60, 0]);
        assert_eq!(scale(&row, (8, 1), (2, 1)), grey(&[15, 60]));
        // The same along columns.
        assert_eq!(scale(&row, (1, 8), (1, 2)), grey(&[15, 60]));
    }
}
