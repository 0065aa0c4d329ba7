//! Masks drawn over frames, and the video that shows them.

pub use super::encode::OverlayWriter;
use super::mask::{BinaryMask, bounding_box};

/// Colours that stay apart from each other, and from most scenes, when half transparent.
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

/// Share of the object's colour in a blended pixel, of 256.
const ALPHA: u32 = 118;

/// Rows of the digits 0 to 9, three pixels each, the highest bit on the left.
const DIGITS: [[u8; 5]; 10] = [
    [0b111, 0b101, 0b101, 0b101, 0b111],
    [0b010, 0b110, 0b010, 0b010, 0b111],
    [0b111, 0b001, 0b111, 0b100, 0b111],
    [0b111, 0b001, 0b111, 0b001, 0b111],
    [0b101, 0b101, 0b111, 0b001, 0b001],
    [0b111, 0b100, 0b111, 0b001, 0b111],
    [0b111, 0b100, 0b111, 0b101, 0b111],
    [0b111, 0b001, 0b010, 0b010, 0b010],
    [0b111, 0b101, 0b111, 0b101, 0b111],
    [0b111, 0b101, 0b111, 0b001, 0b111],
];

/// The colour of an object in overlays: 16 chosen ones, then hues a golden ratio apart.
pub fn object_colour(id: u32) -> [u8; 3] {
    let index = id.wrapping_sub(1) as usize;
    if let Some(colour) = PALETTE.get(index) {
        return *colour;
    }
    let hue = (f64::from(id) * 0.618_033_988_749_895).fract() * 6.0;
    // Every other round is darker: neighbours in the hue circle then differ in lightness too.
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

/// Blends each object's colour over the frame, with a contour of two pixels and the object's
/// number at the mask's top; in place.
///
/// `rgb` is `[height, width, 3]`; a mask of another size than the frame is left out, and so is
/// everything if `rgb` does not have that many bytes. Later objects cover earlier ones; the numbers
/// come last.
pub fn draw(rgb: &mut [u8], width: u32, height: u32, objects: &[(u32, &BinaryMask)]) {
    let (columns, rows) = (width as usize, height as usize);
    let pixels = columns * rows;
    if pixels == 0 || rgb.len() != pixels * 3 {
        return;
    }
    let mut labels = Vec::new();
    for (id, mask) in objects {
        if (mask.width, mask.height) != (width, height) || mask.data.len() != pixels {
            continue;
        }
        let Some(bounds) = bounding_box(mask) else {
            continue;
        };
        let colour = object_colour(*id);
        paint(rgb, mask, bounds.map(|edge| edge as usize), colour);
        let top = bounds[1] as usize;
        let row = &mask.data[top * columns..][..columns];
        let first = row.iter().position(|&value| value != 0).unwrap_or(0);
        let run = row[first..].iter().take_while(|&&value| value != 0).count();
        labels.push((*id, first + run / 2, top, colour));
    }
    let mut canvas = Canvas {
        rgb,
        width: columns,
        height: rows,
    };
    for (id, x, top, colour) in labels {
        canvas.label(id, x, top, colour);
    }
}

fn paint(rgb: &mut [u8], mask: &BinaryMask, bounds: [usize; 4], colour: [u8; 3]) {
    let (width, height) = (mask.width as usize, mask.height as usize);
    let contour = contour_colour(colour);
    let added = colour.map(|value| u32::from(value) * ALPHA);
    let [x1, y1, x2, y2] = bounds;
    // The neighbours within two steps. The frame's border is no contour.
    let near_edge = |x: usize, y: usize| {
        let at = y * width + x;
        let empty = |index: usize| mask.data[index] == 0;
        (x > 0 && empty(at - 1))
            || (x + 1 < width && empty(at + 1))
            || (y > 0 && empty(at - width))
            || (y + 1 < height && empty(at + width))
            || (x > 1 && empty(at - 2))
            || (x + 2 < width && empty(at + 2))
            || (y > 1 && empty(at - 2 * width))
            || (y + 2 < height && empty(at + 2 * width))
            || (x > 0 && y > 0 && empty(at - width - 1))
            || (x + 1 < width && y > 0 && empty(at - width + 1))
            || (x > 0 && y + 1 < height && empty(at + width - 1))
            || (x + 1 < width && y + 1 < height && empty(at + width + 1))
    };
    for y in y1..y2 {
        for x in x1..x2 {
            let at = y * width + x;
            if mask.data[at] == 0 {
                continue;
            }
            let pixel = &mut rgb[at * 3..at * 3 + 3];
            if near_edge(x, y) {
                pixel.copy_from_slice(&contour);
            } else {
                for (value, added) in pixel.iter_mut().zip(added) {
                    *value = ((u32::from(*value) * (256 - ALPHA) + added) >> 8) as u8;
                }
            }
        }
    }
}

struct Canvas<'a> {
    rgb: &'a mut [u8],
    width: usize,
    height: usize,
}

impl Canvas<'_> {
    /// The number on a plate of the object's colour, above the mask's top where there is room.
    fn label(&mut self, id: u32, x: usize, top: usize, colour: [u8; 3]) {
        let scale = (self.width.min(self.height) / 180).max(1);
        let digits: Vec<usize> = id
            .to_string()
            .bytes()
            .map(|byte| usize::from(byte - b'0'))
            .collect();
        let (wide, high) = (scale * (digits.len() * 4 + 1), scale * 7);
        let left = x
            .saturating_sub(wide / 2)
            .min(self.width.saturating_sub(wide));
        let upper = top
            .saturating_sub(high)
            .min(self.height.saturating_sub(high));
        let ink = if luminance(colour) > 110 {
            [0; 3]
        } else {
            [255; 3]
        };
        self.fill(left, upper, wide, high, colour);
        for (i, digit) in digits.into_iter().enumerate() {
            for (y, row) in DIGITS[digit].iter().enumerate() {
                for x in 0..3 {
                    if (row >> (2 - x)) & 1 == 1 {
                        let cell_x = left + scale * (1 + i * 4 + x);
                        self.fill(cell_x, upper + scale * (1 + y), scale, scale, ink);
                    }
                }
            }
        }
    }

    fn fill(&mut self, left: usize, top: usize, wide: usize, high: usize, colour: [u8; 3]) {
        let right = (left + wide).min(self.width);
        for y in top..(top + high).min(self.height) {
            for x in left..right {
                let at = (y * self.width + x) * 3;
                self.rgb[at..at + 3].copy_from_slice(&colour);
            }
        }
    }
}
