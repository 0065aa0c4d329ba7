//! A mask that is held as far as it reaches, and its place in the frame.

use super::Mask;

/// A mask of a part of a frame. A frame with hundreds of proposals would not fit in memory as whole masks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CroppedMask {
    /// The frame's column of the mask's first column.
    pub left: u32,
    /// The frame's row of the mask's first row.
    pub top: u32,
    /// The part of the frame.
    pub mask: Mask,
}

impl CroppedMask {
    /// The number of its pixels that are in `whole`, a mask of the frame's size.
    pub fn shared(&self, whole: &Mask) -> u64 {
        let others = whole.rows().skip(self.top as usize);
        let rows = self.mask.rows().zip(others);
        rows.flat_map(|(row, other)| row.iter().zip(other.iter().skip(self.left as usize)))
            .map(|(a, b)| u64::from(a & b))
            .sum()
    }

    /// The mask in a frame of `width` x `height` pixels. What lies outside of the frame is left out.
    pub fn in_frame(&self, width: u32, height: u32) -> Mask {
        let mut whole = Mask::empty(width, height);
        let lines = whole.pixels_mut().chunks_exact_mut(width.max(1) as usize);
        for (line, row) in lines.skip(self.top as usize).zip(self.mask.rows()) {
            let line = line.iter_mut().skip(self.left as usize);
            line.zip(row).for_each(|(pixel, inside)| *pixel = *inside);
        }
        whole
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cropped_mask_goes_to_its_place_and_is_compared_there() {
        let cropped = CroppedMask {
            left: 2,
            top: 1,
            mask: Mask::new(2, 2, vec![true, false, true, true]).unwrap(),
        };
        let whole = cropped.in_frame(5, 4);
        #[rustfmt::skip]
        let expected = [
            0, 0, 0, 0, 0,
            0, 0, 1, 0, 0,
            0, 0, 1, 1, 0,
            0, 0, 0, 0, 0,
        ];
        assert_eq!(whole.pixels(), expected.map(|pixel| pixel == 1));
        assert_eq!((cropped.mask.area(), cropped.shared(&whole)), (3, 3));
        let column = Mask::from_fn(5, 4, |x, _| x == 2);
        assert_eq!(cropped.shared(&column), 2);
    }
}
