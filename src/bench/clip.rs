//! The clip and the prompts of a trial for which the user gives none.

use std::path::Path;

use serde_json::{Value, json};

use super::BenchError;

/// Frames that are drawn; variants go through them forwards and backwards.
pub const FRAMES: usize = 16;
/// Width and height of the frames in pixels.
pub const SIZE: (u32, u32) = (854, 480);

/// Draws [`FRAMES`] frames of slowly moving texture into `dir`, as PNGs in name order.
///
/// Time and memory of the networks do not depend on what a picture shows, so any picture will do.
///
/// # Errors
/// [`BenchError::Clip`].
pub fn draw(dir: &Path) -> Result<(), BenchError> {
    let (width, height) = SIZE;
    for frame in 0..FRAMES {
        let shift = frame as f32 * 3.0;
        let image = image::RgbImage::from_fn(width, height, |x, y| {
            let (x, y) = (x as f32 + shift, y as f32 + shift / 2.0);
            let wave = |a: f32, b: f32, phase: f32| ((x / a + phase).sin() * (y / b).cos()) * 60.0;
            let coarse = wave(47.0, 31.0, 0.0);
            let colour = [
                wave(11.0, 17.0, 1.0),
                wave(13.0, 7.0, 2.0),
                wave(5.0, 23.0, 3.0),
            ];
            image::Rgb(colour.map(|fine| (128.0 + coarse + fine).clamp(0.0, 255.0) as u8))
        });
        let path = dir.join(format!("{frame:05}.png"));
        image.save(&path).map_err(|error| BenchError::Clip {
            path,
            detail: error.to_string(),
        })?;
    }
    Ok(())
}

/// The content of a prompts file: `objects` boxes on frame 0, spread over a frame of `size` (width, height).
pub fn boxes(objects: usize, size: (u32, u32)) -> Value {
    let (width, height) = (f64::from(size.0), f64::from(size.1));
    let columns = (objects as f64).sqrt().ceil().max(1.0);
    let rows = (objects as f64 / columns).ceil().max(1.0);
    let (wide, high) = (width / columns, height / rows);
    let entry = |index: usize| {
        let (column, row) = (index as f64 % columns, (index as f64 / columns).floor());
        let (left, top) = (column * wide, row * high);
        let corners = [
            left + 0.1 * wide,
            top + 0.1 * high,
            left + 0.9 * wide,
            top + 0.9 * high,
        ];
        let corners = corners.map(|value| (value * 10.0).round() / 10.0);
        json!({"frame": 0, "object": index + 1, "box": corners})
    };
    Value::Array((0..objects).map(entry).collect())
}
