//! The pictures of the page: a frame as JPEG, masks as PNGs that are transparent beside them, both reduced.

use std::panic::{AssertUnwindSafe, catch_unwind};

use image::RgbImage;
use image::imageops::FilterType;

use super::AbError;
use crate::media::Frame;
use crate::media::overlay::object_colour;

/// Columns of a picture at most: two beside each other on a wide screen, and still some detail on one alone.
const MOST_COLUMNS: u32 = 480;
/// Enough to see what a mask covers; a page has dozens of these.
const QUALITY: f32 = 55.0;
/// Opacity of a mask's inside and of its outline, of 255.
const ALPHA: [u8; 2] = [105, 255];

/// Width and height at which a frame is shown.
pub fn reduced(width: u32, height: u32) -> (u32, u32) {
    if width <= MOST_COLUMNS {
        return (width, height);
    }
    let rows = u64::from(height) * u64::from(MOST_COLUMNS) / u64::from(width);
    (MOST_COLUMNS, (rows as u32).max(1))
}

/// A frame, reduced, as JPEG.
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
    // The library's errors arrive as unwinding.
    let written = catch_unwind(AssertUnwindSafe(encode));
    written
        .map_err(|_| failed("no JPEG can be made of it".to_owned()))?
        .map_err(|error| failed(error.to_string()))
}

/// The masks of a label map `[height, width]`, reduced, as a PNG: inside an object its colour half transparent, its outline in
/// full, nothing elsewhere. `None` if no object is seen.
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
    let source = |to: u32, from: u32, at: u32| {
        ((u64::from(at) * 2 + 1) * u64::from(from) / (u64::from(to) * 2)) as usize
    };
    let small: Vec<u16> = (0..rows)
        .flat_map(|y| (0..columns).map(move |x| (x, y)))
        .map(|(x, y)| ids[source(rows, height, y) * width as usize + source(columns, width, x)])
        .collect();
    let mut objects: Vec<u16> = small.iter().copied().filter(|id| *id != 0).collect();
    objects.sort_unstable();
    objects.dedup();
    if objects.is_empty() {
        return Ok(None);
    }
    // Two entries an object; more objects than a palette has room for share the last.
    objects.truncate(127);
    let mut palette = vec![0; 3];
    let mut alpha = vec![0];
    for object in &objects {
        for opacity in ALPHA {
            palette.extend(object_colour(u32::from(*object)));
            alpha.push(opacity);
        }
    }
    let (wide, high) = (columns as usize, rows as usize);
    let index = |at: usize| {
        let id = small[at];
        if id == 0 {
            return 0;
        }
        let (x, y) = (at % wide, at / wide);
        // Two pixels of outline: one is lost when the page is scaled.
        let other = |dx: isize, dy: isize| {
            let (x, y) = (x as isize + dx, y as isize + dy);
            let inside = x >= 0 && y >= 0 && (x as usize) < wide && (y as usize) < high;
            inside && small[y as usize * wide + x as usize] != id
        };
        let edge = (1..=2).any(|d| other(d, 0) || other(-d, 0) || other(0, d) || other(0, -d));
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
