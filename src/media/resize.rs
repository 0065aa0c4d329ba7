//! Resizing of a frame to the square that the vision encoder takes.
//!
//! Resize libraries agree with the reference to within 1/255, but on an upscaled frame a quarter of
//! the values differs by that one, which shows in the logits. So this module uses the reference's
//! integer arithmetic: 16-bit weights, columns first, rounded to bytes, then rows.

use super::{Frame, MediaError};

/// The inputs of one output value.
struct Window {
    start: usize,
    weights: Vec<i32>,
}

/// The weights of one axis, times two to the power of `precision`.
struct Axis {
    windows: Vec<Window>,
    precision: u32,
}

fn axis(input: usize, output: usize) -> Axis {
    let scale = input as f64 / output as f64;
    let support = scale.max(1.0);
    let inverse = 1.0 / support;
    let windows: Vec<(usize, Vec<f64>)> = (0..output)
        .map(|i| {
            let centre = scale * (i as f64 + 0.5);
            let start = (centre - support + 0.5).max(0.0) as usize;
            let end = ((centre + support + 0.5) as usize).min(input);
            let mut weights: Vec<f64> = (start..end)
                .map(|j| (1.0 - ((j as f64 - centre + 0.5) * inverse).abs()).max(0.0))
                .collect();
            let total: f64 = weights.iter().sum();
            weights.iter_mut().for_each(|weight| *weight /= total);
            (start, weights)
        })
        .collect();
    let largest = windows
        .iter()
        .flat_map(|(_, weights)| weights)
        .fold(0.0f64, |largest, weight| largest.max(*weight));
    // The most bits with which the largest weight fits a signed 16-bit number.
    let mut precision = 0;
    while precision < 22 && (0.5 + largest * f64::from(1u32 << (precision + 1))) < 32768.0 {
        precision += 1;
    }
    let one = f64::from(1u32 << precision);
    Axis {
        windows: windows
            .into_iter()
            .map(|(start, weights)| Window {
                start,
                weights: weights.iter().map(|w| (w * one + 0.5) as i32).collect(),
            })
            .collect(),
        precision,
    }
}

impl Axis {
    fn half(&self) -> i32 {
        (1 << self.precision) >> 1
    }

    fn byte(&self, sum: i32) -> u8 {
        (sum >> self.precision).clamp(0, 255) as u8
    }

    /// Resizes each row of `width` pixels to one pixel per window.
    fn columns(&self, rgb: &[u8], width: usize) -> Vec<u8> {
        let mut output = Vec::with_capacity(rgb.len() / width * self.windows.len());
        for row in rgb.chunks_exact(width * 3) {
            for window in &self.windows {
                let pixels = row[window.start * 3..].chunks_exact(3);
                let mut sums = [self.half(); 3];
                for (pixel, weight) in pixels.zip(&window.weights) {
                    sums[0] += i32::from(pixel[0]) * weight;
                    sums[1] += i32::from(pixel[1]) * weight;
                    sums[2] += i32::from(pixel[2]) * weight;
                }
                output.extend(sums.map(|sum| self.byte(sum)));
            }
        }
        output
    }

    /// Resizes rows of `width` pixels to one row per window.
    fn rows(&self, rgb: &[u8], width: usize) -> Vec<u8> {
        let row_bytes = width * 3;
        let mut output = Vec::with_capacity(row_bytes * self.windows.len());
        let mut sums = vec![0i32; row_bytes];
        for window in &self.windows {
            sums.fill(self.half());
            let rows = rgb[window.start * row_bytes..].chunks_exact(row_bytes);
            for (row, weight) in rows.zip(&window.weights) {
                for (sum, value) in sums.iter_mut().zip(row) {
                    *sum += i32::from(*value) * weight;
                }
            }
            output.extend(sums.iter().map(|sum| self.byte(*sum)));
        }
        output
    }
}

/// Resizes the frame to `res` x `res`, without keeping its aspect ratio: `[res, res, 3]` bytes, RGB,
/// row-major. A frame that has that size already is returned unchanged.
///
/// Reference: torchvision's `resize` of uint8 tensors on a CPU with AVX2, bilinear with
/// antialiasing; equal to it bit for bit.
///
/// # Errors
/// `res` is 0, or the frame's bytes do not fit its size.
pub fn resize_frame(frame: &Frame, res: u32) -> Result<Vec<u8>, MediaError> {
    let (width, height, side) = (frame.width as usize, frame.height as usize, res as usize);
    let expected = width * height * 3;
    if frame.rgb.len() != expected || expected == 0 || res == 0 {
        return Err(MediaError::Size {
            what: "resizing a frame",
            expected: format!("{expected} bytes of a {width}x{height} frame and sizes above 0"),
            got: format!("{} bytes, to {res}x{res}", frame.rgb.len()),
        });
    }
    // An axis that keeps its length is not touched, as in the reference.
    let narrow = if width == side {
        frame.rgb.clone()
    } else {
        axis(width, side).columns(&frame.rgb, width)
    };
    if height == side {
        return Ok(narrow);
    }
    Ok(axis(height, side).rows(&narrow, side))
}
