//! COCO's compressed run-length encoding of masks, as pycocotools writes and reads it: lengths of runs of zeros and of
//! ones, alternating, column by column, starting with a (maybe empty) run of zeros.

use serde::{Deserialize, Serialize};

use super::{Iou, Mask};

/// The largest mask that is decoded, in pixels: a few bytes of a file can claim any size. As for pictures in `media`.
pub const MAX_PIXELS: u64 = 1 << 28;

/// A mask in COCO's compressed run-length encoding.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rle {
    /// Height and width in pixels.
    pub size: [u32; 2],
    /// The compressed counts.
    pub counts: String,
}

/// Why run lengths cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RleError {
    /// The counts do not describe a mask of the stated size.
    #[error("run-length counts of a {width}x{height} mask: {reason}")]
    Counts {
        /// Columns.
        width: u32,
        /// Rows.
        height: u32,
        /// What is wrong.
        reason: CountsError,
    },
    /// Two masks that are compared have different sizes.
    #[error("masks of {one:?} and {other:?} pixels")]
    Sizes {
        /// Height and width of the first.
        one: [u32; 2],
        /// Height and width of the second.
        other: [u32; 2],
    },
}

/// What is wrong with a counts string.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CountsError {
    /// The stated size is above [`MAX_PIXELS`].
    #[error("it has {pixels} pixels, expected at most {MAX_PIXELS}; check the size")]
    TooLarge {
        /// Width times height.
        pixels: u64,
    },
    /// The machine has no room for the mask.
    #[error("there is no memory for its {bytes} bytes of pixels")]
    NoMemory {
        /// What was asked for.
        bytes: usize,
    },
    /// A byte outside of the encoding's 64 digits.
    #[error("byte {byte} at {at} is no digit of the encoding")]
    NoDigit {
        /// The byte.
        byte: u8,
        /// Its place in the string.
        at: usize,
    },
    /// A number of too many digits.
    #[error("the number that ends at {at} is too long")]
    TooLong {
        /// Its last byte's place in the string.
        at: usize,
    },
    /// A run that is negative or longer than the mask.
    #[error("run {run} has the length {length}")]
    Length {
        /// The run's place, from 0.
        run: usize,
        /// Its length.
        length: i64,
    },
    /// The last number lacks its end.
    #[error("the string ends within a number")]
    Cut,
    /// The runs are not as long as the mask.
    #[error("the runs add up to {total}, not {pixels}")]
    Total {
        /// The sum of the runs.
        total: i64,
        /// Width times height.
        pixels: u64,
    },
}

impl Rle {
    /// Encodes a mask.
    pub fn of(mask: &Mask) -> Self {
        Self {
            size: [mask.height(), mask.width()],
            counts: compressed(&column_runs(mask)),
        }
    }

    /// Decodes the mask.
    ///
    /// # Errors
    /// The mask has more than [`MAX_PIXELS`], or the counts have a character that does not belong, end within a number,
    /// have a negative run, or do not add up to the mask's size.
    pub fn decode(&self) -> Result<Mask, RleError> {
        let [height, width] = self.size;
        let runs = self.runs()?;
        let mut mask = Mask::try_empty(width, height).ok_or_else(|| {
            self.wrong(CountsError::NoMemory {
                bytes: width as usize * height as usize,
            })
        })?;
        let pixels = mask.pixels_mut();
        let (columns, rows) = (width as usize, height as usize);
        let mut at = 0;
        for (i, &run) in runs.iter().enumerate() {
            let end = at + run;
            if i % 2 == 1 {
                for pixel in at..end {
                    pixels[pixel % rows * columns + pixel / rows] = true;
                }
            }
            at = end;
        }
        Ok(mask)
    }

    /// The lengths of the runs, of zeros and of ones, alternating, column by column.
    ///
    /// # Errors
    /// As [`Rle::decode`].
    pub fn runs(&self) -> Result<Vec<usize>, RleError> {
        let [height, width] = self.size;
        let pixels = u64::from(width) * u64::from(height);
        uncompressed(&self.counts, pixels).map_err(|reason| self.wrong(reason))
    }

    /// Intersection and union with another mask, without decoding either.
    ///
    /// # Errors
    /// As [`Rle::decode`], and masks of different sizes.
    pub fn iou(&self, other: &Self) -> Result<Iou, RleError> {
        if self.size != other.size {
            return Err(RleError::Sizes {
                one: self.size,
                other: other.size,
            });
        }
        Ok(Iou::of_runs(&self.runs()?, &other.runs()?))
    }

    fn wrong(&self, reason: CountsError) -> RleError {
        let [height, width] = self.size;
        RleError::Counts {
            width,
            height,
            reason,
        }
    }
}

fn compressed(runs: &[usize]) -> String {
    let mut text = String::new();
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

fn uncompressed(counts: &str, pixels: u64) -> Result<Vec<usize>, CountsError> {
    if pixels > MAX_PIXELS {
        return Err(CountsError::TooLarge { pixels });
    }
    let mut runs: Vec<i64> = Vec::new();
    let (mut value, mut shift) = (0i64, 0u32);
    for (at, byte) in counts.bytes().enumerate() {
        let digit = byte
            .checked_sub(48)
            .filter(|digit| *digit < 64)
            .ok_or(CountsError::NoDigit { byte, at })?;
        if shift > 45 {
            return Err(CountsError::TooLong { at });
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
            return Err(CountsError::Length {
                run: runs.len(),
                length: value,
            });
        }
        runs.push(value);
        (value, shift) = (0, 0);
    }
    if shift != 0 {
        return Err(CountsError::Cut);
    }
    let total: i64 = runs.iter().sum();
    if total != pixels as i64 {
        return Err(CountsError::Total { total, pixels });
    }
    Ok(runs.into_iter().map(|run| run as usize).collect())
}

/// Lengths of runs in column-major order, starting with a (maybe empty) run of zeros.
fn column_runs(mask: &Mask) -> Vec<usize> {
    let (width, height) = (mask.width() as usize, mask.height() as usize);
    if width == 0 || height == 0 {
        return vec![0];
    }
    // A walk down the columns of a wide mask misses the cache at every pixel. So: find where each
    // column changes in one pass along the rows, and only then order the changes by column.
    let mut changes: Vec<Vec<u32>> = vec![Vec::new(); width];
    let rows: Vec<&[bool]> = mask.rows().collect();
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
    let mut last = false;
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
            last = !last;
        }
    }
    runs.push(width * height - start);
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_of_different_sizes_have_no_iou() {
        let one = Rle::of(&Mask::empty(4, 3));
        let other = Rle::of(&Mask::empty(3, 4));
        assert_eq!(
            one.iou(&other).unwrap_err().to_string(),
            "masks of [3, 4] and [4, 3] pixels"
        );
    }

    #[test]
    fn a_mask_without_pixels_has_one_empty_run() {
        let nothing = Rle::of(&Mask::empty(0, 3));
        assert_eq!((nothing.size, nothing.counts.as_str()), ([3, 0], "0"));
        assert_eq!(nothing.decode().unwrap(), Mask::empty(0, 3));
    }
}
