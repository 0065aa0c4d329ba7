//! Masks of prompts from PNG files: index masks, and plain masks with one value.

use std::collections::BTreeSet;
use std::path::Path;

use super::{PromptError, PromptProblem};
use crate::masks::Mask;
use crate::media::index_png::{IndexImage, read_index_png};

/// Most different values of an 8-bit grey image that can be object ids; a soft edge has more.
const MAX_GREYS: usize = 16;
/// As [`MAX_GREYS`] for 16 bits, in which this program writes ids above 255.
const MAX_DEEP_GREYS: usize = 256;

/// Reads the ids of a mask file.
///
/// # Errors
/// [`PromptError::Mask`] for a file that cannot be read, [`PromptProblem::MaskSoft`] for a grey image with too many values.
pub(super) fn read_mask(origin: &str, file: &Path) -> Result<IndexImage, PromptError> {
    let image = read_index_png(file).map_err(|source| PromptError::Mask {
        origin: origin.to_owned(),
        source,
    })?;
    let max_values = match image.grey_bits {
        Some(16) => MAX_DEEP_GREYS,
        Some(_) => MAX_GREYS,
        None => return Ok(image),
    };
    let values = ids_of(&image).len();
    if values > max_values {
        let problem = PromptProblem::MaskSoft {
            file: file.to_path_buf(),
            values,
            max_values,
        };
        return Err(problem.at(origin));
    }
    Ok(image)
}

/// The problem of a mask file in which every pixel is 0.
pub(super) fn empty_mask(image: &IndexImage) -> PromptProblem {
    PromptProblem::MaskEmpty { alpha: image.alpha }
}

/// The ids of the image without 0, ascending.
pub(super) fn ids_of(image: &IndexImage) -> Vec<u16> {
    let ids: BTreeSet<u16> = image.ids.iter().copied().filter(|id| *id != 0).collect();
    ids.into_iter().collect()
}

/// The mask of the pixels whose id `keep` accepts.
pub(super) fn select(image: &IndexImage, keep: impl Fn(u16) -> bool) -> Mask {
    let mut mask = Mask::empty(image.width, image.height);
    for (inside, id) in mask.pixels_mut().iter_mut().zip(&image.ids) {
        *inside = keep(*id);
    }
    mask
}

/// The mask of `object`. A file with a single id is a plain mask, whatever its value; one with several is an index mask.
///
/// # Errors
/// A file without a pixel above 0, or an index mask without one of `object`.
pub(super) fn mask_of_object(image: &IndexImage, object: u32) -> Result<Mask, PromptProblem> {
    let ids = ids_of(image);
    match ids.as_slice() {
        [] => Err(empty_mask(image)),
        [_] => Ok(select(image, |id| id != 0)),
        _ if ids.iter().any(|id| u32::from(*id) == object) => {
            Ok(select(image, |id| u32::from(id) == object))
        }
        _ => Err(PromptProblem::MaskOfOthers { object, ids }),
    }
}
