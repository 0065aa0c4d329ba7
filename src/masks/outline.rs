//! Outlines: of a mask for the F measure, and of label maps for pictures.

use super::Mask;

/// The outline of a mask: a pixel is on it if it differs from its neighbour to the right, below, or below to the right. The
/// last column looks down only, the last row right only, and the last pixel is never on it.
///
/// Reference: `seg2bmap` of davis2017-evaluation at the mask's own size.
pub fn outline(mask: &Mask) -> Mask {
    let width = mask.width() as usize;
    let mut outline = Mask::empty(mask.width(), mask.height());
    let mut rows = mask.rows().peekable();
    for into in outline.pixels_mut().chunks_exact_mut(width.max(1)) {
        let Some(row) = rows.next() else { break };
        let beside = row.iter().zip(&row[1..]);
        let Some(below) = rows.peek() else {
            for (on, (here, right)) in into.iter_mut().zip(beside) {
                *on = here != right;
            }
            break;
        };
        let below_it = below.iter().zip(&below[1..]);
        for (on, ((here, right), (down, across))) in into.iter_mut().zip(beside.zip(below_it)) {
            *on = (here != right) | (here != down) | (here != across);
        }
        into[width - 1] = row[width - 1] != below[width - 1];
    }
    outline
}

/// All pixels within `radius` of a pixel of the mask: the disk of `skimage.morphology.disk`, x² + y² ≤ radius².
///
/// A pixel's nearest one in its own column decides how far the disk reaches along the row. The work is thus the same
/// for every radius and every number of pixels.
pub fn dilate(mask: &Mask, radius: usize) -> Mask {
    let (width, height) = (mask.width() as usize, mask.height() as usize);
    let mut near = Mask::empty(mask.width(), mask.height());
    if width == 0 || height == 0 {
        return near;
    }
    let far = radius + 1;
    let reach: Vec<Option<usize>> = (0..=far)
        .map(|distance| Some((radius * radius).checked_sub(distance * distance)?.isqrt()))
        .collect();
    let inside = mask.pixels();
    let mut vertical = vec![far as u32; inside.len()];
    let mut pass = |rows: &mut dyn Iterator<Item = usize>| {
        let mut nearest = vec![far as u32; width];
        for row in rows {
            let cells = row * width..(row + 1) * width;
            let columns = inside[cells.clone()].iter().zip(&mut vertical[cells]);
            for (nearest, (on, vertical)) in nearest.iter_mut().zip(columns) {
                *nearest = if *on {
                    0
                } else {
                    (*nearest + 1).min(far as u32)
                };
                *vertical = (*vertical).min(*nearest);
            }
        }
    };
    pass(&mut (0..height));
    pass(&mut (0..height).rev());

    let rows = vertical
        .chunks_exact(width)
        .zip(near.pixels_mut().chunks_exact_mut(width));
    for (vertical, near) in rows {
        if vertical.iter().all(|distance| *distance == far as u32) {
            continue;
        }
        let mut end = 0;
        for x in 0..width {
            if let Some(reach) = reach[vertical[x] as usize] {
                end = end.max(x + reach + 1);
            }
            near[x] = x < end;
        }
        let mut start = width;
        for x in (0..width).rev() {
            if let Some(reach) = reach[vertical[x] as usize] {
                start = start.min(x.saturating_sub(reach));
            }
            near[x] |= x >= start;
        }
    }
    near
}

/// A label map that is drawn: the object of each pixel, 0 for background.
#[derive(Debug, Clone, Copy)]
pub struct LabelMap<'a> {
    /// `[height, width]`, row-major.
    pub labels: &'a [u16],
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
}

impl LabelMap<'_> {
    /// Whether the pixel in column `x` of row `y` is drawn as outline, two pixels wide: another label is within two steps
    /// along its row or column. The border of the map is no outline.
    #[inline]
    pub fn is_outline(&self, x: usize, y: usize) -> bool {
        let (width, height) = (self.width, self.height);
        let at = y * width + x;
        let label = self.labels[at];
        let other = |index: usize| self.labels[index] != label;
        (x > 0 && other(at - 1))
            || (x + 1 < width && other(at + 1))
            || (y > 0 && other(at - width))
            || (y + 1 < height && other(at + width))
            || (x > 1 && other(at - 2))
            || (x + 2 < width && other(at + 2))
            || (y > 1 && other(at - 2 * width))
            || (y + 2 < height && other(at + 2 * width))
    }

    /// As [`LabelMap::is_outline`], also where another label is one step away diagonally: corners look rounder.
    #[inline]
    pub fn is_round_outline(&self, x: usize, y: usize) -> bool {
        let (width, height) = (self.width, self.height);
        let at = y * width + x;
        let label = self.labels[at];
        let other = |index: usize| self.labels[index] != label;
        self.is_outline(x, y)
            || (x > 0 && y > 0 && other(at - width - 1))
            || (x + 1 < width && y > 0 && other(at - width + 1))
            || (x > 0 && y + 1 < height && other(at + width - 1))
            || (x + 1 < width && y + 1 < height && other(at + width + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(rows: &[&str]) -> Mask {
        let pixels = rows.iter().flat_map(|row| row.bytes());
        let (width, height) = (rows[0].len() as u32, rows.len() as u32);
        Mask::new(width, height, pixels.map(|byte| byte == b'#').collect()).unwrap()
    }

    #[test]
    fn an_outline_follows_the_border_rules() {
        // The two masks touch all that have rules of their own: last column, last row, last pixel.
        let mask = drawn(&["....", ".#..", "..##", "..##"]);
        let expected = drawn(&["##..", "####", ".#..", ".#.."]);
        assert_eq!(outline(&mask), expected);
        assert_eq!(outline(&drawn(&["#"])).pixels(), [false]);
        assert_eq!(outline(&drawn(&["#."])).pixels(), [true, false]);
        assert_eq!(outline(&drawn(&["#", "."])).pixels(), [true, false]);
        assert!(outline(&Mask::filled(4, 3, true)).is_empty());
        assert!(outline(&Mask::empty(0, 3)).is_empty());
    }

    #[test]
    fn a_dilation_is_a_disk() {
        let one = Mask::from_fn(11, 11, |x, y| (x, y) == (5, 5));
        for radius in 0..=7 {
            let near = dilate(&one, radius);
            for (at, near) in near.pixels().iter().enumerate() {
                let (x, y) = ((at % 11).abs_diff(5), (at / 11).abs_diff(5));
                assert_eq!(*near, x * x + y * y <= radius * radius, "{x},{y}, {radius}");
            }
        }
    }

    #[test]
    fn a_dilation_is_that_of_every_pixel() {
        let (width, height) = (37, 23);
        let mut state = 7u32;
        let mut outline = Mask::empty(width as u32, height as u32);
        for on in outline.pixels_mut() {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            *on = state >> 24 < 5;
        }
        for radius in [0, 1, 2, 5, 9, 60] {
            let near = dilate(&outline, radius);
            for (at, near) in near.pixels().iter().enumerate() {
                let within = |other: usize| {
                    let x = (at % width).abs_diff(other % width);
                    let y = (at / width).abs_diff(other / width);
                    x * x + y * y <= radius * radius
                };
                let mut others = 0..outline.pixels().len();
                let any = others.any(|other| outline.pixels()[other] && within(other));
                assert_eq!(*near, any, "pixel {at}, radius {radius}");
            }
        }
    }

    #[test]
    fn a_drawn_outline_is_two_pixels_wide_and_may_be_rounder() {
        // The lower right part of a 6x6 map has label 3, all but a corner of 3x3.
        let labels: Vec<u16> = (0..36)
            .map(|at| if at % 6 < 3 && at / 6 < 3 { 0 } else { 3 })
            .collect();
        let map = LabelMap {
            labels: &labels,
            width: 6,
            height: 6,
        };
        assert!(map.is_outline(3, 0) && map.is_outline(4, 0) && !map.is_outline(5, 0));
        assert!(map.is_outline(2, 3) && map.is_outline(2, 4) && !map.is_outline(2, 5));
        // Diagonally one step away from the corner, and straight more than two.
        assert!(!map.is_outline(3, 3) && map.is_round_outline(3, 3));
        assert!(!map.is_round_outline(4, 4));
    }
}
