//! The pictures of the page, scaled down: frames as JPEGs, masks as PNGs with a transparent background.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use image::RgbImage;
use image::imageops::FilterType;
use ndarray::ArrayView2;

use super::error::AbError;
use super::numbers::Numbers;
use super::report::{ShownFrame, VariantReport};
use crate::masks::outline::LabelMap;
use crate::masks::resample::nearest;
use crate::media::index_png::read_index_png;
use crate::media::overlay::object_colour;
use crate::media::{self, Frame};
use crate::scoring::IGNORED;
use crate::scoring::ground_truth::GroundTruth;
use crate::session::SessionError;

/// The name under which the page shows the ground truth; no variant can have it.
pub const GROUND_TRUTH: &str = "ground truth";

/// The pictures of a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    /// The frame as JPEG.
    pub jpeg: Vec<u8>,
    /// Masks as PNGs, by the name of the variant, or [`GROUND_TRUTH`]; those without an object are left out.
    pub masks: BTreeMap<String, Vec<u8>>,
}

/// The largest width of a picture in pixels: two fit side by side on a wide screen, and one alone still shows detail.
const MAX_WIDTH: u32 = 480;
/// The quality of the JPEGs, 0 to 100: enough to see what a mask covers, as a page has dozens of them.
const QUALITY: f32 = 55.0;
/// Opacity of a mask's inside and of its outline, of 255.
const ALPHA: [u8; 2] = [105, 255];

/// The size, as width and height in pixels, at which a frame of that size is shown.
pub fn reduced(width: u32, height: u32) -> (u32, u32) {
    if width <= MAX_WIDTH {
        return (width, height);
    }
    let rows = u64::from(height) * u64::from(MAX_WIDTH) / u64::from(width);
    (MAX_WIDTH, (rows as u32).max(1))
}

/// A frame as JPEG, scaled down.
///
/// # Errors
/// [`AbError::Picture`].
pub fn jpeg(frame: &Frame) -> Result<Vec<u8>, AbError> {
    let failed = |detail: String| AbError::Picture {
        frame: frame.index as u64,
        detail,
    };
    let (width, height) = reduced(frame.width, frame.height);
    let whole = RgbImage::from_raw(frame.width, frame.height, frame.rgb.clone());
    let mut picture = whole.ok_or_else(|| failed("its bytes do not fit its size".to_owned()))?;
    if (width, height) != picture.dimensions() {
        picture = image::imageops::resize(&picture, width, height, FilterType::Triangle);
    }
    let encode = || {
        let mut jpeg = mozjpeg::Compress::new(mozjpeg::ColorSpace::JCS_RGB);
        jpeg.set_size(width as usize, height as usize);
        jpeg.set_quality(QUALITY);
        jpeg.set_progressive_mode();
        let mut started = jpeg.start_compress(Vec::new())?;
        started.write_scanlines(picture.as_raw())?;
        started.finish()
    };
    // mozjpeg reports errors by unwinding.
    let written = catch_unwind(AssertUnwindSafe(encode));
    written
        .map_err(|_| failed("it cannot be written as JPEG".to_owned()))?
        .map_err(|error| failed(error.to_string()))
}

/// The masks of a label map `[height, width]` as a PNG, scaled down: objects in their colours, half transparent with an
/// opaque outline; everything else is transparent. `None` if no object has a pixel.
///
/// # Errors
/// [`AbError::Picture`] of `frame`.
pub fn masks(frame: u64, ids: &[u16], width: u32, height: u32) -> Result<Option<Vec<u8>>, AbError> {
    let failed = |detail: String| AbError::Picture { frame, detail };
    if ids.len() != width as usize * height as usize {
        return Err(failed(format!(
            "{} ids for {width}x{height} pixels",
            ids.len()
        )));
    }
    let (columns, rows) = reduced(width, height);
    let (wide, high) = (columns as usize, rows as usize);
    let whole = ArrayView2::from_shape((height as usize, width as usize), ids);
    let whole = whole.map_err(|error| failed(error.to_string()))?;
    let (small, _) = nearest(whole, wide, high).into_raw_vec_and_offset();
    let mut objects: Vec<u16> = small.iter().copied().filter(|id| *id != 0).collect();
    objects.sort_unstable();
    objects.dedup();
    if objects.is_empty() {
        return Ok(None);
    }
    // An object takes two of 256 entries; objects beyond the 127th share the last two.
    objects.truncate(127);
    let mut palette = vec![0; 3];
    let mut alpha = vec![0];
    for object in &objects {
        for opacity in ALPHA {
            palette.extend(object_colour(u32::from(*object)));
            alpha.push(opacity);
        }
    }
    // Two pixels of outline: one is lost when the page is scaled.
    let map = LabelMap {
        labels: &small,
        width: wide,
        height: high,
    };
    let index = |at: usize| {
        let id = small[at];
        if id == 0 {
            return 0;
        }
        let edge = map.is_outline(at % wide, at / wide);
        let place = objects.binary_search(&id).unwrap_or(objects.len() - 1);
        (1 + place * 2 + usize::from(edge)) as u8
    };
    let pixels: Vec<u8> = (0..small.len()).map(index).collect();
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, columns, rows);
    encoder.set_color(png::ColorType::Indexed);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_palette(palette);
    encoder.set_trns(alpha);
    encoder.set_compression(png::Compression::High);
    let written = encoder.write_header().and_then(|mut writer| {
        writer.write_image_data(&pixels)?;
        writer.finish()
    });
    written.map_err(|error| failed(error.to_string()))?;
    Ok(Some(bytes))
}

/// The pictures of the shown frames of the clip `input`, with the masks of each variant from its run in the folder `out`.
///
/// # Errors
/// A frame or a mask that cannot be read, and [`AbError::Picture`].
pub(super) fn of_frames(
    input: &Path,
    shown: &[ShownFrame],
    variants: &[VariantReport],
    truth: Option<&GroundTruth>,
    out: &Path,
) -> Result<Vec<Picture>, AbError> {
    let Some(last) = shown.iter().map(|shown| shown.frame).max() else {
        return Ok(Vec::new());
    };
    let numbers = Numbers::of(variants);
    let mut pictures: BTreeMap<u64, Picture> = BTreeMap::new();
    let mut source = media::open(input).map_err(SessionError::from)?;
    for number in 0..=last {
        let Some(frame) = source.next_frame().map_err(SessionError::from)? else {
            break;
        };
        if shown.iter().any(|shown| shown.frame == number) {
            let masks = masks_of(&frame, variants, truth, numbers.as_ref(), out)?;
            let jpeg = jpeg(&frame)?;
            pictures.insert(number, Picture { jpeg, masks });
        }
    }
    // All of them were tracked, so none is missing.
    Ok(shown
        .iter()
        .filter_map(|shown| pictures.remove(&shown.frame))
        .collect())
}

fn masks_of(
    frame: &Frame,
    variants: &[VariantReport],
    truth: Option<&GroundTruth>,
    numbers: Option<&Numbers>,
    out: &Path,
) -> Result<BTreeMap<String, Vec<u8>>, AbError> {
    let number = frame.index as u64;
    let mut all = BTreeMap::new();
    for variant in variants {
        let Some(run) = &variant.run else { continue };
        let file = out
            .join(&run.folder)
            .join("masks")
            .join(format!("{number:05}.png"));
        let mut image = read_index_png(&file).map_err(SessionError::from)?;
        if let Some(numbers) = numbers {
            renumber(&mut image.ids, |id| numbers.of_run(&variant.name, id));
        }
        if let Some(png) = masks(number, &image.ids, image.width, image.height)? {
            all.insert(variant.name.clone(), png);
        }
    }
    let labels = match truth {
        Some(truth) => truth
            .read(frame.index, frame.width, frame.height)
            .map_err(SessionError::from)?,
        None => None,
    };
    if let Some(mut labels) = labels {
        for id in &mut labels.ids {
            if *id == IGNORED {
                *id = 0;
            }
        }
        if let Some(numbers) = numbers {
            renumber(&mut labels.ids, |id| numbers.of_truth(id));
        }
        if let Some(png) = masks(number, &labels.ids, labels.width, labels.height)? {
            all.insert(GROUND_TRUTH.to_owned(), png);
        }
    }
    Ok(all)
}

fn renumber(ids: &mut [u16], number: impl Fn(u32) -> u32) {
    let mut known: BTreeMap<u16, u16> = BTreeMap::from([(0, 0)]);
    for id in ids {
        // The number gives the colour alone, so one that is too large may repeat a colour.
        *id = *known
            .entry(*id)
            .or_insert_with(|| number(u32::from(*id)) as u16);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_keep_their_shape_and_are_no_larger_than_needed() {
        assert_eq!(reduced(320, 240), (320, 240));
        assert_eq!(reduced(1920, 1080), (480, 270));
        assert_eq!(reduced(10_000, 1), (480, 1));
        let frame = Frame {
            index: 0,
            width: 960,
            height: 20,
            rgb: vec![200; 960 * 20 * 3],
            pts_s: None,
        };
        let decoded = image::load_from_memory(&jpeg(&frame).unwrap()).unwrap();
        assert_eq!((decoded.width(), decoded.height()), (480, 10));
    }

    #[test]
    fn masks_are_seen_where_objects_are_and_nowhere_else() {
        // 12x8: object 300 fills columns 2 to 9.
        let ids: Vec<u16> = (0..96)
            .map(|at| if (2..10).contains(&(at % 12)) { 300 } else { 0 })
            .collect();
        let bytes = masks(0, &ids, 12, 8).unwrap().unwrap();
        let decoded = image::load_from_memory(&bytes).unwrap().to_rgba8();
        let alpha: Vec<u8> = (0..12).map(|x| decoded.get_pixel(x, 4)[3]).collect();
        assert_eq!(alpha, [0, 0, 255, 255, 105, 105, 105, 105, 255, 255, 0, 0]);
        assert_eq!(decoded.get_pixel(5, 4).0[..3], object_colour(300));
        assert_eq!(masks(0, &[0; 96], 12, 8).unwrap(), None);
        let error = masks(7, &[0; 95], 12, 8).unwrap_err().to_string();
        assert!(
            error.contains("frame 7") && error.contains("95 ids for 12x8"),
            "{error}"
        );
    }
}
