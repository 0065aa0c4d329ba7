//! A mask as a prompt: at the size of the model's image.

use super::{Mask, resample};

/// The mask at `side` x `side` pixels, row-major, 0.0 or 1.0.
///
/// Reference: the tracker's `F.interpolate(mask.float(), (side, side), mode="bilinear", align_corners=False,
/// antialias=True) >= 0.5`; a mask of that size already is taken as it is.
pub fn mask_prompt(mask: &Mask, side: u32) -> Vec<f32> {
    let soft = soft_mask_prompt(mask, side).into_iter();
    soft.map(|value| f32::from(u8::from(value >= 0.5)))
        .collect()
}

/// As [`mask_prompt`] without the threshold: 0 to 1.
pub fn soft_mask_prompt(mask: &Mask, side: u32) -> Vec<f32> {
    let side = side as usize;
    resample::bilinear_antialiased(mask, side, side)
        .into_raw_vec_and_offset()
        .0
}
