//! Masks and logits at another size. Each function follows one reference to the last bit or says how near it comes;
//! frames are resized in `media`, in the integer arithmetic of their own references.

use std::borrow::Cow;

use ndarray::{Array2, ArrayView2};

use super::Mask;

/// A part of a plane, in its pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// The first column.
    pub left: usize,
    /// The first row.
    pub top: usize,
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
}

/// Where one output value of a bilinear interpolation comes from.
struct Tap {
    low: usize,
    high: usize,
    weight_low: f32,
    weight_high: f32,
}

/// In single precision and in this order, so that the values round as the reference's do.
fn taps(input: usize, output: usize) -> Vec<Tap> {
    let scale = input as f32 / output as f32;
    (0..output)
        .map(|i| {
            let position = (scale * (i as f32 + 0.5) - 0.5).max(0.0);
            let low = (position as usize).min(input - 1);
            let weight_high = (position - low as f32).clamp(0.0, 1.0);
            Tap {
                low,
                high: (low + 1).min(input - 1),
                weight_low: 1.0 - weight_high,
                weight_high,
            }
        })
        .collect()
}

/// A plane scaled to `height` rows of `width` values, bilinear without antialiasing. An empty plane gives zeros.
///
/// Reference: torch's `F.interpolate(mode="bilinear", align_corners=False)`, to within two roundings in single precision
/// (1e-5 for logits of usual size).
pub fn bilinear(plane: ArrayView2<'_, f32>, width: usize, height: usize) -> Array2<f32> {
    let whole = Part {
        left: 0,
        top: 0,
        width,
        height,
    };
    bilinear_part(plane, width, height, whole)
}

/// The `part` of what [`bilinear`] gives, of which nothing else is computed; it must lie within `width` x `height`.
pub fn bilinear_part(
    plane: ArrayView2<'_, f32>,
    width: usize,
    height: usize,
    part: Part,
) -> Array2<f32> {
    let shape = (part.height, part.width);
    if plane.is_empty() || part.width == 0 || part.height == 0 {
        return Array2::zeros(shape);
    }
    let columns = taps(plane.ncols(), width);
    let columns = &columns[part.left..][..part.width];
    let widen = |row: usize, into: &mut [f32]| {
        let row = plane.row(row);
        let source = row
            .to_slice()
            .map_or_else(|| Cow::Owned(row.to_vec()), Cow::Borrowed);
        for (value, tap) in into.iter_mut().zip(columns) {
            *value = source[tap.low] * tap.weight_low + source[tap.high] * tap.weight_high;
        }
    };
    // Many output rows lie between the same two input rows: each of those is widened once.
    let mut above = vec![0.0; part.width];
    let mut below = vec![0.0; part.width];
    let (mut above_row, mut below_row) = (usize::MAX, usize::MAX);
    let rows = taps(plane.nrows(), height);
    // Not zeros that are overwritten: for a frame of 1920x1080 that takes as long as the interpolation.
    let mut output = Vec::with_capacity(part.width * part.height);
    for tap in &rows[part.top..][..part.height] {
        if above_row != tap.low {
            if below_row == tap.low {
                std::mem::swap(&mut above, &mut below);
                std::mem::swap(&mut above_row, &mut below_row);
            } else {
                widen(tap.low, &mut above);
                above_row = tap.low;
            }
        }
        if below_row != tap.high {
            widen(tap.high, &mut below);
            below_row = tap.high;
        }
        let pairs = above.iter().zip(&below);
        output.extend(pairs.map(|(a, b)| a * tap.weight_low + b * tap.weight_high));
    }
    // As many values as the shape says.
    Array2::from_shape_vec(shape, output).unwrap_or_default()
}

/// Start and weights of the inputs of one output value.
struct Window {
    start: usize,
    weights: Vec<f32>,
}

/// Antialiased bilinear weights. The types of the steps are the reference's: a result that is one
/// rounding off would flip masks that lie exactly on the threshold.
fn windows(input: usize, output: usize) -> Vec<Window> {
    let scale = input as f32 / output as f32;
    let support = if scale >= 1.0 { scale } else { 1.0 };
    let inverse = if scale >= 1.0 { 1.0 / scale } else { 1.0 };
    (0..output)
        .map(|i| {
            let centre = (f64::from(scale) * (i as f64 + 0.5)) as f32;
            let start = (f64::from(centre - support) + 0.5).max(0.0) as usize;
            let end = ((f64::from(centre + support) + 0.5).max(0.0) as usize).min(input);
            let mut weights: Vec<f32> = (start..end)
                .map(|j| {
                    let distance =
                        ((f64::from(j as f32 - centre) + 0.5) * f64::from(inverse)) as f32;
                    (1.0 - distance.abs()).max(0.0)
                })
                .collect();
            let total: f32 = weights.iter().sum();
            if total != 0.0 {
                for weight in &mut weights {
                    *weight /= total;
                }
            }
            Window { start, weights }
        })
        .collect()
}

fn weigh(window: &Window, value: impl Fn(usize) -> f32) -> f32 {
    let mut sum = 0.0f32;
    for (k, &weight) in window.weights.iter().enumerate() {
        sum = if k == 0 {
            value(window.start) * weight
        } else {
            // The reference's kernel is compiled with fused multiply-add.
            value(window.start + k).mul_add(weight, sum)
        };
    }
    sum
}

/// A mask scaled to `height` rows of `width` values from 0 to 1, bilinear with antialiasing. An empty mask gives zeros.
///
/// Reference: torch's `F.interpolate(mask.float(), mode="bilinear", align_corners=False, antialias=True)` on a CPU with
/// fused multiply-add, bit for bit.
pub fn bilinear_antialiased(mask: &Mask, width: usize, height: usize) -> Array2<f32> {
    let mut output = Array2::zeros((height, width));
    let (columns, rows) = (mask.width() as usize, mask.height() as usize);
    if columns == 0 || rows == 0 || output.is_empty() {
        return output;
    }
    let share = |inside: bool| f32::from(u8::from(inside));
    // The reference skips an axis that keeps its length, which the weights would not do exactly.
    let mut narrow = Vec::with_capacity(rows * width);
    let across = windows(columns, width);
    for row in mask.rows() {
        if columns == width {
            narrow.extend(row.iter().map(|&inside| share(inside)));
        } else {
            let across = across.iter();
            narrow.extend(across.map(|window| weigh(window, |x| share(row[x]))));
        }
    }
    let lines = output.as_slice_mut().unwrap_or_default();
    if rows == height {
        lines.copy_from_slice(&narrow);
        return output;
    }
    for (window, line) in windows(rows, height)
        .iter()
        .zip(lines.chunks_exact_mut(width))
    {
        for (x, value) in line.iter_mut().enumerate() {
            *value = weigh(window, |y| narrow[y * width + x]);
        }
    }
    output
}

/// A plane of labels scaled to `height` rows of `width` labels, each the one under the middle of the new pixel. The plane
/// must not be empty.
pub fn nearest(plane: ArrayView2<'_, u16>, width: usize, height: usize) -> Array2<u16> {
    let source = |at: usize, from: usize, to: usize| (at * 2 + 1) * from / (to * 2);
    let columns: Vec<usize> = (0..width)
        .map(|x| source(x, plane.ncols(), width))
        .collect();
    Array2::from_shape_fn((height, width), |(y, x)| {
        plane[[source(y, plane.nrows(), height), columns[x]]]
    })
}

#[cfg(test)]
mod tests {
    use ndarray::{array, s};

    use super::*;

    #[test]
    fn logits_between_pixels_are_interpolated_and_edges_repeat() {
        let plane = array![[0.0, 4.0], [8.0, 12.0]];
        let row = bilinear(plane.view(), 4, 1);
        // The middle between the two rows, then a quarter and three quarters between the columns.
        assert_eq!(row, array![[4.0, 5.0, 7.0, 8.0]]);
        assert_eq!(bilinear(plane.view(), 2, 2), plane);
        assert!(bilinear(plane.view(), 0, 3).is_empty());
        let nothing = Array2::zeros((0, 3));
        assert_eq!(bilinear(nothing.view(), 1, 2), array![[0.0], [0.0]]);
    }

    #[test]
    fn a_part_is_that_part_of_the_whole() {
        let large = Array2::from_shape_fn((9, 11), |(y, x)| ((y * 37 + x * 101) % 17) as f32 - 8.3);
        // Of a part of a plane, whose rows do not follow each other in memory.
        let plane = large.slice(s![2..8, 3..10]);
        for (width, height) in [(23, 31), (5, 4), (7, 6), (1, 40)] {
            let whole = bilinear(plane, width, height);
            let copied = bilinear(plane.to_owned().view(), width, height);
            assert_eq!(whole, copied);
            let part = Part {
                left: width / 3,
                top: height / 4,
                width: width - width / 3,
                height: height / 2,
            };
            let expected = whole.slice(s![
                part.top..part.top + part.height,
                part.left..part.left + part.width
            ]);
            assert_eq!(bilinear_part(plane, width, height, part), expected);
        }
    }

    #[test]
    fn columns_that_lie_apart_in_memory_are_the_same() {
        let plane = Array2::from_shape_fn((4, 5), |(y, x)| (y * 5 + x) as f32);
        let turned = plane.t().as_standard_layout().into_owned();
        assert_eq!(bilinear(turned.t(), 9, 7), bilinear(plane.view(), 9, 7));
    }

    #[test]
    fn antialiasing_takes_all_pixels_under_a_new_one() {
        let half = Mask::from_fn(8, 8, |x, _| x < 4);
        let small = bilinear_antialiased(&half, 2, 8);
        assert_eq!(small.shape(), [8, 2]);
        // Of the weights 1 to 4 and 4 to 1 of a fourth of the row and its neighbours, what lies left of the middle.
        assert!(small.rows().into_iter().all(|row| row == small.row(0)));
        assert!((small[[0, 0]] + small[[0, 1]] - 1.0).abs() < 1e-6 && small[[0, 0]] > 0.8);
        let same = bilinear_antialiased(&half, 8, 8);
        assert!(
            same.iter()
                .zip(half.pixels())
                .all(|(a, b)| *a == f32::from(*b))
        );
        assert_eq!(
            bilinear_antialiased(&Mask::empty(0, 4), 1, 1),
            array![[0.0]]
        );
    }

    #[test]
    fn a_label_is_that_under_the_middle() {
        let plane = array![[1, 2, 3, 4, 5, 6]];
        assert_eq!(nearest(plane.view(), 2, 1), array![[2, 5]]);
        assert_eq!(nearest(plane.view(), 3, 2), array![[2, 4, 6], [2, 4, 6]]);
    }
}
