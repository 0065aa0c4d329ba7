//! Binary masks and mask logits, and everything that is computed from them alone: resampling, run lengths, intersection
//! over union, outlines, non-maximum suppression. This module uses nothing else of the project.

pub mod crop;
pub mod iou;
pub mod nms;
pub mod outline;
pub mod prompt;
pub mod resample;
pub mod rle;

use ndarray::{Array2, ArrayView2};

pub use self::crop::CroppedMask;
pub use self::iou::{BoxIou, Iou, PackedMask};
pub use self::rle::{Rle, RleError};

/// Values that do not fill a mask's size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a mask of {width}x{height}: expected {} values, got {values}",
    u64::from(*width) * u64::from(*height)
)]
pub struct ShapeError {
    /// Columns.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// The number of values that were given.
    pub values: usize,
}

/// `values` as `[height, width]`, row-major.
fn shaped<T>(width: u32, height: u32, values: Vec<T>) -> Result<Array2<T>, ShapeError> {
    let count = values.len();
    Array2::from_shape_vec((height as usize, width as usize), values).map_err(|_| ShapeError {
        width,
        height,
        values: count,
    })
}

/// A binary mask: for each pixel whether it belongs to an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mask {
    /// `[height, width]`, always row-major without gaps, so that it has a slice.
    pixels: Array2<bool>,
}

impl Mask {
    /// A mask of `width * height` pixels, row-major.
    ///
    /// # Errors
    /// Another number of pixels.
    pub fn new(width: u32, height: u32, pixels: Vec<bool>) -> Result<Self, ShapeError> {
        let pixels = shaped(width, height, pixels)?;
        Ok(Self { pixels })
    }

    /// A mask without a pixel.
    pub fn empty(width: u32, height: u32) -> Self {
        Self::filled(width, height, false)
    }

    /// As [`Mask::empty`]; `None` if there is not enough memory, where others end the process.
    pub fn try_empty(width: u32, height: u32) -> Option<Self> {
        let count = (width as usize).checked_mul(height as usize)?;
        let mut pixels = Vec::new();
        pixels.try_reserve_exact(count).ok()?;
        pixels.resize(count, false);
        Self::new(width, height, pixels).ok()
    }

    /// A mask of which all pixels are `inside`.
    pub fn filled(width: u32, height: u32, inside: bool) -> Self {
        Self {
            pixels: Array2::from_elem((height as usize, width as usize), inside),
        }
    }

    /// A mask of the pixels for which `inside` is true; it is called with column and row.
    pub fn from_fn(width: u32, height: u32, mut inside: impl FnMut(u32, u32) -> bool) -> Self {
        let shape = (height as usize, width as usize);
        Self {
            pixels: Array2::from_shape_fn(shape, |(y, x)| inside(x as u32, y as u32)),
        }
    }

    /// Columns.
    pub fn width(&self) -> u32 {
        self.pixels.ncols() as u32
    }

    /// Rows.
    pub fn height(&self) -> u32 {
        self.pixels.nrows() as u32
    }

    /// The pixels, row-major.
    pub fn pixels(&self) -> &[bool] {
        self.pixels.as_slice().unwrap_or_default()
    }

    /// The pixels, row-major, to be changed.
    pub fn pixels_mut(&mut self) -> &mut [bool] {
        self.pixels.as_slice_mut().unwrap_or_default()
    }

    /// The rows from the top, each of [`Mask::width`] pixels; none if the mask has no columns.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = &[bool]> {
        self.pixels().chunks_exact(self.pixels.ncols().max(1))
    }

    /// The pixels as `[height, width]`.
    pub fn view(&self) -> ArrayView2<'_, bool> {
        self.pixels.view()
    }

    /// The number of pixels that belong to the object.
    pub fn area(&self) -> u64 {
        self.pixels().iter().map(|inside| u64::from(*inside)).sum()
    }

    /// Whether no pixel belongs to the object.
    pub fn is_empty(&self) -> bool {
        // Without an early end within a chunk, a chunk is a few instructions.
        let any = |chunk: &[bool]| chunk.iter().fold(false, |any, inside| any | inside);
        !self.pixels().chunks(256).any(any)
    }

    /// Adds the pixels of a mask of the same size.
    pub fn add(&mut self, other: &Self) {
        let pixels = self.pixels_mut().iter_mut().zip(other.pixels());
        pixels.for_each(|(pixel, inside)| *pixel |= inside);
    }

    /// The smallest box around the mask, `[x1, y1, x2, y2]` in pixels with `x2` and `y2` one past the last; `None` if the
    /// mask is empty.
    pub fn bounding_box(&self) -> Option<[u32; 4]> {
        let mut bounds: Option<[usize; 4]> = None;
        for (y, row) in self.rows().enumerate() {
            let Some(first) = row.iter().position(|inside| *inside) else {
                continue;
            };
            let last = row.iter().rposition(|inside| *inside).unwrap_or(first);
            bounds = Some(match bounds {
                None => [first, y, last + 1, y + 1],
                Some([x1, y1, x2, _]) => [x1.min(first), y1, x2.max(last + 1), y + 1],
            });
        }
        bounds.map(|edges| edges.map(|edge| edge as u32))
    }
}

/// The logits of a mask: a pixel whose logit is above a threshold (0 for most models) belongs to the object.
#[derive(Debug, Clone, PartialEq)]
pub struct Logits {
    /// `[height, width]`, always row-major without gaps, so that it has a slice.
    values: Array2<f32>,
}

impl Logits {
    /// Logits of `width * height` pixels, row-major.
    ///
    /// # Errors
    /// Another number of values.
    pub fn new(width: u32, height: u32, values: Vec<f32>) -> Result<Self, ShapeError> {
        let values = shaped(width, height, values)?;
        Ok(Self { values })
    }

    /// Logits of a square of `side` pixels, row-major.
    ///
    /// # Errors
    /// Another number of values.
    pub fn square(side: usize, values: Vec<f32>) -> Result<Self, ShapeError> {
        Self::new(side as u32, side as u32, values)
    }

    /// The logits of several squares, `[masks, side, side]`, row-major; values after the last whole square are left out.
    pub fn squares(side: usize, values: &[f32]) -> Vec<Self> {
        let squares = values.chunks_exact((side * side).max(1));
        let squares = squares.map(|square| Self::square(side, square.to_vec()));
        squares.flatten().collect()
    }

    /// Columns.
    pub fn width(&self) -> u32 {
        self.values.ncols() as u32
    }

    /// Rows.
    pub fn height(&self) -> u32 {
        self.values.nrows() as u32
    }

    /// The logits, row-major.
    pub fn values(&self) -> &[f32] {
        self.values.as_slice().unwrap_or_default()
    }

    /// The logits, row-major, to be changed.
    pub fn values_mut(&mut self) -> &mut [f32] {
        self.values.as_slice_mut().unwrap_or_default()
    }

    /// The logits as `[height, width]`.
    pub fn view(&self) -> ArrayView2<'_, f32> {
        self.values.view()
    }

    /// The values after `change`, such as [`sigmoid`].
    pub fn map(&self, change: impl FnMut(f32) -> f32) -> Self {
        Self {
            values: self.values.mapv(change),
        }
    }

    /// The logits at another size, by [`resample::bilinear`].
    pub fn resized(&self, width: u32, height: u32) -> Self {
        Self {
            values: resample::bilinear(self.view(), width as usize, height as usize),
        }
    }

    /// The mask of the pixels whose logit is above `threshold`; NaN is never above.
    pub fn above(&self, threshold: f32) -> Mask {
        self.mask_where(|logit| logit > threshold)
    }

    /// The mask of the pixels for whose logit `inside` is true.
    pub fn mask_where(&self, inside: impl FnMut(f32) -> bool) -> Mask {
        Mask {
            pixels: self.values.mapv(inside),
        }
    }
}

impl From<Array2<f32>> for Logits {
    /// Copies the values if they are not row-major.
    fn from(values: Array2<f32>) -> Self {
        let values = match values.is_standard_layout() {
            true => values,
            false => values.as_standard_layout().into_owned(),
        };
        Self { values }
    }
}

/// A logit as a probability, 0 to 1.
pub fn sigmoid(logit: f32) -> f32 {
    1.0 / (1.0 + (-logit).exp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_that_do_not_fit_are_refused() {
        let error = Mask::new(3, 2, vec![true; 5]).unwrap_err();
        assert_eq!(error.to_string(), "a mask of 3x2: expected 6 values, got 5");
        assert!(Logits::square(7, vec![0.0; 36]).is_err());
        assert_eq!(Logits::new(2, 1, vec![1.0; 2]).unwrap().height(), 1);
    }

    #[test]
    fn logits_of_several_masks_are_told_apart() {
        let squares = Logits::squares(2, &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0]);
        let values: Vec<&[f32]> = squares.iter().map(Logits::values).collect();
        assert_eq!(values, [[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]]);
        assert!(Logits::squares(0, &[1.0]).is_empty());
    }

    #[test]
    fn logits_that_are_not_row_major_are_put_in_order() {
        let transposed = Array2::from_shape_fn((2, 3), |(y, x)| (y * 3 + x) as f32).reversed_axes();
        let logits = Logits::from(transposed);
        assert_eq!((logits.width(), logits.height()), (2, 3));
        assert_eq!(logits.values(), [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]);
    }

    #[test]
    fn masks_are_added_pixel_by_pixel() {
        let mut mask = Mask::from_fn(3, 2, |x, y| (x, y) == (2, 0));
        assert_eq!(mask.pixels(), [false, false, true, false, false, false]);
        assert!(!mask.is_empty() && Mask::empty(3, 2).is_empty());
        mask.add(&Mask::from_fn(3, 2, |_, y| y == 1));
        assert_eq!(mask.area(), 4);
        assert_eq!(mask.rows().len(), 2);
        assert_eq!(Mask::empty(0, 2).rows().len(), 0);
    }
}
