//! Masks: logits to source size, binary masks, COCO run lengths, and masks as prompts.

use super::MediaError;
use super::input::{MAX_PIXELS, with_room};

/// A binary mask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BinaryMask {
    /// Columns.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// 0 or 1, row-major, `width * height` values.
    pub data: Vec<u8>,
}

/// Where one output value of a bilinear interpolation comes from.
pub(crate) struct Tap {
    pub low: usize,
    pub high: usize,
    pub weight_low: f32,
    pub weight_high: f32,
}

/// In single precision and in this order, so that the values round as the reference's do.
pub(crate) fn taps(input: usize, output: usize) -> Vec<Tap> {
    let scale = input as f32 / output as f32;
    (0..output)
        .map(|i| {
            let position = (scale * (i as f32 + 0.5) - 0.5).max(0.0);
            let low = (position as usize).min(input - 1);
            let weight_high = (position - low as f32).clamp(0.0, 1.0);
            Tap {
                low,
                high: (low + 1).min(input - 1),
                weight_low: 1.0 - weight_high,
                weight_high,
            }
        })
        .collect()
}

/// Square logits `[low_size, low_size]` scaled to `[height, width]`, row-major.
///
/// Reference: torch's `F.interpolate(mode="bilinear", align_corners=False)`, to within two roundings
/// in single precision (1e-5 for logits of usual size). An input shorter than `low_size * low_size`, or any size of 0, gives an empty result.
pub fn upsample_logits(low_res: &[f32], low_size: usize, width: u32, height: u32) -> Vec<f32> {
    let (width, height) = (width as usize, height as usize);
    if low_size == 0 || width == 0 || height == 0 || low_res.len() < low_size * low_size {
        return Vec::new();
    }
    let columns = taps(low_size, width);
    let widen = |row: usize, into: &mut [f32]| {
        let source = &low_res[row * low_size..][..low_size];
        for (value, tap) in into.iter_mut().zip(&columns) {
            *value = source[tap.low] * tap.weight_low + source[tap.high] * tap.weight_high;
        }
    };
    let mut output = Vec::with_capacity(width * height);
    // Many output rows lie between the same two input rows: each of those is widened once.
    let mut above = vec![0.0; width];
    let mut below = vec![0.0; width];
    let (mut above_row, mut below_row) = (usize::MAX, usize::MAX);
    for tap in taps(low_size, height) {
        if above_row != tap.low {
            if below_row == tap.low {
                std::mem::swap(&mut above, &mut below);
                std::mem::swap(&mut above_row, &mut below_row);
            } else {
                widen(tap.low, &mut above);
                above_row = tap.low;
            }
        }
        if below_row != tap.high {
            widen(tap.high, &mut below);
            below_row = tap.high;
        }
        let rows = above.iter().zip(&below);
        output.extend(rows.map(|(a, b)| a * tap.weight_low + b * tap.weight_high));
    }
    output
}

/// A logit as a share, 0 to 1.
pub fn sigmoid(logit: f32) -> f32 {
    1.0 / (1.0 + (-logit).exp())
}

/// 1 where a logit is greater than `threshold`. Logits missing at the end count as 0 in the mask.
pub fn binarise(logits: &[f32], width: u32, height: u32, threshold: f32) -> BinaryMask {
    let mut data: Vec<u8> = logits
        .iter()
        .map(|&logit| u8::from(logit > threshold))
        .collect();
    data.resize(width as usize * height as usize, 0);
    BinaryMask {
        width,
        height,
        data,
    }
}

/// COCO's compressed run lengths of the mask, column by column, as pycocotools writes `counts`.
pub fn rle_counts(mask: &BinaryMask) -> String {
    let mut text = String::new();
    let runs = column_runs(mask);
    for (i, &run) in runs.iter().enumerate() {
        // From the fourth on, a count is stored as its difference to the one before the last.
        let mut value = run as i64 - if i > 2 { runs[i - 2] as i64 } else { 0 };
        loop {
            let mut digit = (value & 0x1f) as u8;
            value >>= 5;
            // Bit 5 of the digit is the sign: it must agree with what is left.
            let more = if digit & 0x10 != 0 {
                value != -1
            } else {
                value != 0
            };
            if more {
                digit |= 0x20;
            }
            text.push(char::from(digit + 48));
            if !more {
                break;
            }
        }
    }
    text
}

/// Lengths of runs in column-major order, starting with a (maybe empty) run of zeros.
fn column_runs(mask: &BinaryMask) -> Vec<usize> {
    let (width, height) = (mask.width as usize, mask.height as usize);
    if width == 0 || height == 0 || mask.data.len() < width * height {
        return vec![0];
    }
    // A walk down the columns of a wide mask misses the cache at every pixel. So: find where each
    // column changes in one pass along the rows, and only then order the changes by column.
    let mut changes: Vec<Vec<u32>> = vec![Vec::new(); width];
    let rows: Vec<&[u8]> = mask.data.chunks_exact(width).take(height).collect();
    for y in 1..height {
        if rows[y] == rows[y - 1] {
            continue;
        }
        for (x, (now, before)) in rows[y].iter().zip(rows[y - 1]).enumerate() {
            if now != before {
                changes[x].push(y as u32);
            }
        }
    }
    let mut runs = Vec::new();
    let mut start = 0;
    let mut last = 0u8;
    for (x, changes) in changes.iter().enumerate() {
        let column = x * height;
        if rows[0][x] != last {
            runs.push(column - start);
            start = column;
            last = rows[0][x];
        }
        for &y in changes {
            runs.push(column + y as usize - start);
            start = column + y as usize;
            last ^= 1;
        }
    }
    runs.push(width * height - start);
    runs
}

/// The mask of `counts`, a compressed run-length string as [`rle_counts`] writes it.
///
/// # Errors
/// The mask has more than [`MAX_PIXELS`](super::MAX_PIXELS), or the string has a character that does
/// not belong, ends within a number, has a negative run, or its runs do not add up to
/// `width * height`.
pub fn rle_decode(counts: &str, width: u32, height: u32) -> Result<BinaryMask, MediaError> {
    let runs = rle_runs(counts, width, height)?;
    let pixels = width as usize * height as usize;
    let mut data = with_room(pixels).map_err(|detail| MediaError::Rle {
        width,
        height,
        detail,
    })?;
    data.resize(pixels, 0);
    let (columns, rows) = (width as usize, height as usize);
    let mut at = 0usize;
    for (i, &run) in runs.iter().enumerate() {
        let end = at + run;
        if i % 2 == 1 {
            for pixel in at..end {
                data[pixel % rows * columns + pixel / rows] = 1;
            }
        }
        at = end;
    }
    Ok(BinaryMask {
        width,
        height,
        data,
    })
}

/// Lengths of the runs of `counts`, a compressed run-length string, column by column, of zeros and of ones in turn.
///
/// # Errors
/// As [`rle_decode`].
pub fn rle_runs(counts: &str, width: u32, height: u32) -> Result<Vec<usize>, MediaError> {
    let bad = |detail: String| MediaError::Rle {
        width,
        height,
        detail,
    };
    let pixels = width as usize * height as usize;
    if pixels as u64 > MAX_PIXELS {
        return Err(bad(format!(
            "it has {pixels} pixels, expected at most {MAX_PIXELS}; check the size"
        )));
    }
    let mut runs: Vec<i64> = Vec::new();
    let (mut value, mut shift) = (0i64, 0u32);
    for (at, byte) in counts.bytes().enumerate() {
        let digit = byte
            .checked_sub(48)
            .filter(|digit| *digit < 64)
            .ok_or_else(|| bad(format!("byte {byte} at {at} is no digit of the encoding")))?;
        if shift > 45 {
            return Err(bad(format!("the number that ends at {at} is too long")));
        }
        value |= i64::from(digit & 0x1f) << shift;
        shift += 5;
        if digit & 0x20 != 0 {
            continue;
        }
        if digit & 0x10 != 0 {
            value |= -1i64 << shift;
        }
        if runs.len() > 2 {
            value += runs[runs.len() - 2];
        }
        if value < 0 || value > pixels as i64 {
            return Err(bad(format!("run {} has the length {value}", runs.len())));
        }
        runs.push(value);
        (value, shift) = (0, 0);
    }
    if shift != 0 {
        return Err(bad("the string ends within a number".to_owned()));
    }
    let total: i64 = runs.iter().sum();
    if total != pixels as i64 {
        return Err(bad(format!("the runs add up to {total}, not {pixels}")));
    }
    Ok(runs.into_iter().map(|run| run as usize).collect())
}

/// How many pixels are in both of two masks, and how many in at least one, from their [`rle_runs`].
pub fn rle_overlap(one: &[usize], other: &[usize]) -> (u64, u64) {
    let (mut both, mut either) = (0, 0);
    // Place in each list, and what is left of its run there.
    let mut sides = [one, other].map(|runs| (runs, 0, runs.first().copied().unwrap_or(0)));
    loop {
        for (runs, place, left) in &mut sides {
            while *left == 0 && *place + 1 < runs.len() {
                *place += 1;
                *left = runs[*place];
            }
        }
        let step = sides[0].2.min(sides[1].2);
        if step == 0 {
            return (both, either);
        }
        let inside = sides.each_ref().map(|(_, place, _)| place % 2 == 1);
        if inside[0] && inside[1] {
            both += step as u64;
        }
        if inside[0] || inside[1] {
            either += step as u64;
        }
        for (_, _, left) in &mut sides {
            *left -= step;
        }
    }
}

/// The smallest box around the mask's ones, `[x1, y1, x2, y2]` in pixels with `x2` and `y2` one past
/// the last; `None` if there are no ones.
pub fn bounding_box(mask: &BinaryMask) -> Option<[u32; 4]> {
    let width = mask.width as usize;
    if width == 0 {
        return None;
    }
    let mut bounds: Option<[usize; 4]> = None;
    for (y, row) in mask.data.chunks_exact(width).enumerate() {
        let Some(first) = row.iter().position(|&value| value != 0) else {
            continue;
        };
        let last = row.iter().rposition(|&value| value != 0).unwrap_or(first);
        bounds = Some(match bounds {
            None => [first, y, last + 1, y + 1],
            Some([x1, y1, x2, _]) => [x1.min(first), y1, x2.max(last + 1), y + 1],
        });
    }
    bounds.map(|edges| edges.map(|edge| edge as u32))
}

/// Start and weights of the inputs of one output value.
struct Window {
    start: usize,
    weights: Vec<f32>,
}

/// Antialiased bilinear weights. The types of the steps are the reference's: a result that is one
/// rounding off would flip masks that lie exactly on the threshold.
fn windows(input: usize, output: usize) -> Vec<Window> {
    let scale = input as f32 / output as f32;
    let support = if scale >= 1.0 { scale } else { 1.0 };
    let inverse = if scale >= 1.0 { 1.0 / scale } else { 1.0 };
    (0..output)
        .map(|i| {
            let centre = (f64::from(scale) * (i as f64 + 0.5)) as f32;
            let start = (f64::from(centre - support) + 0.5).max(0.0) as usize;
            let end = ((f64::from(centre + support) + 0.5).max(0.0) as usize).min(input);
            let mut weights: Vec<f32> = (start..end)
                .map(|j| {
                    let distance =
                        ((f64::from(j as f32 - centre) + 0.5) * f64::from(inverse)) as f32;
                    (1.0 - distance.abs()).max(0.0)
                })
                .collect();
            let total: f32 = weights.iter().sum();
            if total != 0.0 {
                for weight in &mut weights {
                    *weight /= total;
                }
            }
            Window { start, weights }
        })
        .collect()
}

fn weigh(window: &Window, value: impl Fn(usize) -> f32) -> f32 {
    let mut sum = 0.0f32;
    for (k, &weight) in window.weights.iter().enumerate() {
        sum = if k == 0 {
            value(window.start) * weight
        } else {
            // The reference's kernel is compiled with fused multiply-add.
            value(window.start + k).mul_add(weight, sum)
        };
    }
    sum
}

/// The mask as a prompt: `[res, res]`, row-major, 0.0 or 1.0.
///
/// Reference: the tracker's `F.interpolate(mask.float(), (res, res), mode="bilinear",
/// align_corners=False, antialias=True) >= 0.5`; a mask of that size already is taken as it is.
pub fn mask_prompt(mask: &BinaryMask, res: u32) -> Vec<f32> {
    let soft = soft_mask_prompt(mask, res).into_iter();
    soft.map(|value| f32::from(u8::from(value >= 0.5)))
        .collect()
}

/// As [`mask_prompt`] without the threshold: 0 to 1.
pub fn soft_mask_prompt(mask: &BinaryMask, res: u32) -> Vec<f32> {
    let (width, height, res) = (mask.width as usize, mask.height as usize, res as usize);
    if (width, height) == (res, res) {
        return mask
            .data
            .iter()
            .map(|&v| f32::from(u8::from(v != 0)))
            .collect();
    }
    if width == 0 || height == 0 || mask.data.len() < width * height {
        return vec![0.0; res * res];
    }
    // The reference skips an axis that keeps its length, which the weights would not do exactly.
    let columns = windows(width, res);
    let mut narrow = Vec::with_capacity(height * res);
    for row in mask.data.chunks_exact(width).take(height) {
        if width == res {
            narrow.extend(row.iter().map(|&v| f32::from(u8::from(v != 0))));
        } else {
            narrow.extend(
                columns
                    .iter()
                    .map(|window| weigh(window, |x| f32::from(u8::from(row[x] != 0)))),
            );
        }
    }
    if height == res {
        return narrow;
    }
    let rows = windows(height, res);
    let mut output = Vec::with_capacity(res * res);
    for window in &rows {
        for x in 0..res {
            output.push(weigh(window, |y| narrow[y * res + x]));
        }
    }
    output
}
