//! The outline of a mask, and how well two outlines agree.

use super::IGNORED;

/// The share of the frame's diagonal by which outlines may be apart.
const TOLERANCE: f64 = 0.008;

/// How many pixels two outlines may be apart and still match: 0.008 of the frame's diagonal, rounded up.
pub fn tolerance(width: u32, height: u32) -> usize {
    let (width, height) = (f64::from(width), f64::from(height));
    // Not `hypot`: the benchmark's norm rounds like this, and the next whole number may hang on it.
    (TOLERANCE * (width * width + height * height).sqrt()).ceil() as usize
}

/// The part of a frame in which all outline pixels of two masks lie. x2 and y2 are exclusive.
pub(super) struct Crop {
    x1: usize,
    y1: usize,
    x2: usize,
    y2: usize,
    frame_width: usize,
}

impl Crop {
    /// One pixel wider than `bounds`, within the frame: an outline lies up to one pixel left of and above its mask, and
    /// with an empty row and column below and to the right the frame's border rules hold for the crop's border as well.
    pub fn around([x1, y1, x2, y2]: [usize; 4], (width, height): (usize, usize)) -> Self {
        Self {
            x1: x1.saturating_sub(1),
            y1: y1.saturating_sub(1),
            x2: (x2 + 1).min(width),
            y2: (y2 + 1).min(height),
            frame_width: width,
        }
    }

    /// Columns.
    pub fn width(&self) -> usize {
        self.x2 - self.x1
    }

    /// The outline of `object` in the label map `map` where `judge` does not say that pixels are ignored; row-major.
    pub fn outline(&self, map: &[u16], judge: &[u16], object: u16) -> Vec<bool> {
        let width = self.width();
        let mut mask = Vec::with_capacity(width * (self.y2 - self.y1));
        for y in self.y1..self.y2 {
            let row = y * self.frame_width + self.x1..y * self.frame_width + self.x2;
            let labels = map[row.clone()].iter().zip(&judge[row]);
            mask.extend(labels.map(|(label, judge)| (*label == object) & (*judge != IGNORED)));
        }
        outline(&mask, width)
    }
}

/// A pixel is on the outline if it differs from its neighbour to the right, below, or below to the right. The last
/// column looks down only, the last row right only, and the last pixel is never on it.
fn outline(mask: &[bool], width: usize) -> Vec<bool> {
    let mut outline = vec![false; mask.len()];
    let mut rows = mask.chunks_exact(width).peekable();
    for into in outline.chunks_exact_mut(width) {
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

/// The F-measure of two outlines, of which each pixel matches that has a pixel of the other within `radius`.
pub(super) fn f_measure(expected: &[bool], got: &[bool], width: usize, radius: usize) -> f64 {
    let count = |outline: &[bool]| outline.iter().filter(|on| **on).count();
    let (wanted, found) = (count(expected), count(got));
    match (wanted, found) {
        (0, 0) => return 1.0,
        (0, _) | (_, 0) => return 0.0,
        _ => {}
    }
    let matched = |outline: &[bool], other: &[bool]| {
        let near = dilate(other, width, radius);
        let both = outline
            .iter()
            .zip(&near)
            .filter(|(on, near)| **on && **near);
        both.count()
    };
    let precision = matched(got, expected) as f64 / found as f64;
    let recall = matched(expected, got) as f64 / wanted as f64;
    if precision + recall == 0.0 {
        0.0
    } else {
        2.0 * precision * recall / (precision + recall)
    }
}

/// All pixels within `radius` of one that is on: the disk of `skimage.morphology.disk`, x² + y² ≤ radius².
///
/// A pixel's nearest one in its own column decides how far the disk reaches along the row. The work is thus the same
/// for every radius and every number of pixels.
fn dilate(outline: &[bool], width: usize, radius: usize) -> Vec<bool> {
    let far = radius + 1;
    let reach: Vec<Option<usize>> = (0..=far)
        .map(|distance| Some((radius * radius).checked_sub(distance * distance)?.isqrt()))
        .collect();
    let rows = outline.len() / width.max(1);
    let mut vertical = vec![far as u32; outline.len()];
    let mut pass = |rows: &mut dyn Iterator<Item = usize>| {
        let mut nearest = vec![far as u32; width];
        for row in rows {
            let cells = row * width..(row + 1) * width;
            let columns = outline[cells.clone()].iter().zip(&mut vertical[cells]);
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
    pass(&mut (0..rows));
    pass(&mut (0..rows).rev());

    let mut near = vec![false; outline.len()];
    let rows = vertical
        .chunks_exact(width)
        .zip(near.chunks_exact_mut(width));
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

#[cfg(test)]
mod tests {
    use super::*;

    fn bits(rows: &[&str]) -> Vec<bool> {
        rows.iter()
            .flat_map(|row| row.bytes().map(|byte| byte == b'#'))
            .collect()
    }

    #[test]
    fn an_outline_follows_the_border_rules() {
        // The two masks touch all that have rules of their own: last column, last row, last pixel.
        let mask = bits(&["....", ".#..", "..##", "..##"]);
        let expected = bits(&["##..", "####", ".#..", ".#.."]);
        assert_eq!(outline(&mask, 4), expected);
        assert_eq!(outline(&bits(&["#"]), 1), [false]);
        assert_eq!(outline(&bits(&["#."]), 2), [true, false]);
        assert_eq!(outline(&bits(&["#", "."]), 1), [true, false]);
        assert_eq!(outline(&[true; 12], 4), [false; 12]);
    }

    #[test]
    fn a_dilation_is_a_disk() {
        let mut one = vec![false; 11 * 11];
        one[5 * 11 + 5] = true;
        for radius in 0..=7 {
            let near = dilate(&one, 11, radius);
            for (at, near) in near.iter().enumerate() {
                let (x, y) = ((at % 11).abs_diff(5), (at / 11).abs_diff(5));
                assert_eq!(*near, x * x + y * y <= radius * radius, "{x},{y}, {radius}");
            }
        }
    }

    #[test]
    fn a_dilation_is_that_of_every_pixel() {
        let (width, height) = (37, 23);
        let mut state = 7u32;
        let mut outline = vec![false; width * height];
        for on in &mut outline {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            *on = state >> 24 < 5;
        }
        for radius in [0, 1, 2, 5, 9, 60] {
            let near = dilate(&outline, width, radius);
            for (at, near) in near.iter().enumerate() {
                let within = |other: usize| {
                    let x = (at % width).abs_diff(other % width);
                    let y = (at / width).abs_diff(other / width);
                    x * x + y * y <= radius * radius
                };
                let any = (0..outline.len()).any(|other| outline[other] && within(other));
                assert_eq!(*near, any, "pixel {at}, radius {radius}");
            }
        }
    }

    #[test]
    fn the_tolerance_grows_with_the_diagonal() {
        // 0.008 * 5 = 0.04; 0.008 * 500 = 4 exactly; 0.008 * 2202.9 = 17.6.
        assert_eq!(tolerance(4, 3), 1);
        assert_eq!(tolerance(400, 300), 4);
        assert_eq!(tolerance(1920, 1080), 18);
    }
}
