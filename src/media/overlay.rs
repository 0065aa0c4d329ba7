//! Masks drawn over frames, and the video that shows them.

use std::collections::BTreeMap;

use super::canvas::{Canvas, plate_size};
#[cfg(feature = "video")]
pub use super::overlay_writer::OverlayWriter;
#[cfg(not(feature = "video"))]
pub use super::without_video::OverlayWriter;
use crate::masks::outline::LabelMap;

/// Colours that are easy to tell from each other, and from most scenes, when half transparent.
const PALETTE: [[u8; 3]; 16] = [
    [230, 38, 70],
    [40, 120, 235],
    [60, 190, 75],
    [255, 205, 20],
    [155, 60, 210],
    [255, 125, 30],
    [40, 210, 220],
    [240, 70, 200],
    [175, 225, 50],
    [130, 85, 45],
    [10, 130, 125],
    [250, 165, 185],
    [90, 100, 180],
    [150, 240, 190],
    [150, 25, 60],
    [200, 175, 250],
];

/// Share of the object's colour in a blended pixel, in 256ths.
const ALPHA: u32 = 118;

/// The colour of an object in overlays: ids 1 to 16 have chosen colours, others hues that are a
/// golden ratio apart.
pub fn object_colour(id: u32) -> [u8; 3] {
    let index = id.wrapping_sub(1) as usize;
    if let Some(colour) = PALETTE.get(index) {
        return *colour;
    }
    let hue = (f64::from(id) * 0.618_033_988_749_895).fract() * 6.0;
    // Every second id is darker, so that neighbours in the hue circle differ in lightness too.
    let value = if id.is_multiple_of(2) { 235.0 } else { 165.0 };
    [5.0, 3.0, 1.0].map(|offset: f64| {
        let k = (offset + hue).rem_euclid(6.0);
        let share = k.min(4.0 - k).clamp(0.0, 1.0);
        (value * (1.0 - 0.8 * share)) as u8
    })
}

fn luminance([r, g, b]: [u8; 3]) -> u32 {
    (u32::from(r) * 54 + u32::from(g) * 183 + u32::from(b) * 19) >> 8
}

fn contour_colour(colour: [u8; 3]) -> [u8; 3] {
    if luminance(colour) > 110 {
        colour.map(|value| (u32::from(value) * 2 / 5) as u8)
    } else {
        colour.map(|value| (255 - (255 - u32::from(value)) * 2 / 5) as u8)
    }
}

/// How one object is drawn.
struct Style {
    colour: [u8; 3],
    contour: [u8; 3],
    /// The colour times its share, added to the rest of a blended pixel.
    added: [u32; 3],
    /// Column and row of the middle of the first run of the object's pixels.
    label: (usize, usize),
}

/// Draws the objects over the frame: each object's colour blended over its pixels, a contour of two
/// pixels, and the object's number above its topmost pixels. Numbers are drawn last.
///
/// `rgb` is `[height, width, 3]` and is changed in place; `ids` is `[height, width]`, 0 for
/// background, as [`write_index_png`](super::index_png::write_index_png) takes it. Nothing is drawn
/// if one of them has another length.
pub fn draw(rgb: &mut [u8], width: u32, height: u32, ids: &[u16]) {
    let (columns, rows) = (width as usize, height as usize);
    let pixels = columns * rows;
    if pixels == 0 || rgb.len() != pixels * 3 || ids.len() != pixels {
        return;
    }
    let map = LabelMap {
        labels: ids,
        width: columns,
        height: rows,
    };
    let mut styles: BTreeMap<u16, Style> = BTreeMap::new();
    for y in 0..rows {
        let mut x = 0;
        // Runs of one id, so that an object's style is fetched once for many pixels.
        for run in ids[y * columns..][..columns].chunk_by(|a, b| a == b) {
            let start = x;
            x += run.len();
            if run[0] == 0 {
                continue;
            }
            let style = styles
                .entry(run[0])
                .or_insert_with(|| Style::new(run[0], (start + run.len() / 2, y)));
            for x in start..x {
                let at = y * columns + x;
                let pixel = &mut rgb[at * 3..at * 3 + 3];
                if map.is_round_outline(x, y) {
                    pixel.copy_from_slice(&style.contour);
                } else {
                    for (value, added) in pixel.iter_mut().zip(style.added) {
                        *value = ((u32::from(*value) * (256 - ALPHA) + added) >> 8) as u8;
                    }
                }
            }
        }
    }
    let mut canvas = Canvas {
        rgb,
        width: columns,
        height: rows,
    };
    for (id, style) in styles {
        label(&mut canvas, id, &style);
    }
}

impl Style {
    fn new(id: u16, label: (usize, usize)) -> Self {
        let colour = object_colour(u32::from(id));
        Self {
            colour,
            contour: contour_colour(colour),
            added: colour.map(|value| u32::from(value) * ALPHA),
            label,
        }
    }
}

/// Draws the number on a plate of the object's colour, above the mask's top if there is room.
fn label(canvas: &mut Canvas<'_>, id: u16, style: &Style) {
    let ((x, top), colour) = (style.label, style.colour);
    let scale = (canvas.width.min(canvas.height) / 180).max(1);
    let (wide, high) = plate_size(u64::from(id), scale);
    let left = x
        .saturating_sub(wide / 2)
        .min(canvas.width.saturating_sub(wide));
    let upper = top
        .saturating_sub(high)
        .min(canvas.height.saturating_sub(high));
    let ink = if luminance(colour) > 110 {
        [0; 3]
    } else {
        [255; 3]
    };
    canvas.number(u64::from(id), left, upper, scale, colour, ink);
}
