//! A contact sheet: frames of a run, evenly spaced from the first to the last, in one picture.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;

use image::imageops::{self, FilterType};
use image::{Rgb, RgbImage};

use super::MediaError;
use super::canvas::{Canvas, plate_size};
use super::overlay;

/// The largest number of pictures on a sheet.
const MAX_PICTURES: usize = 12;
const COLUMNS: usize = 4;
/// A picture fits into this many pixels; its size is that of the first frame.
const CELL: (u32, u32) = (396, 792);
const GAP: usize = 4;
/// The largest number of thumbnails in memory. With more of them the pictures are spaced more evenly.
const MAX_KEPT: usize = 64;
const BACKGROUND: [u8; 3] = [24; 3];
/// Pixels per dot of a frame's number.
const DOT: usize = 3;

/// A frame for the sheet.
#[derive(Debug, Clone)]
pub struct SheetFrame {
    /// The frame's number, drawn into its picture.
    pub number: u64,
    /// Columns.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// `[height, width, 3]` bytes.
    pub rgb: Vec<u8>,
    /// `[height, width]` object ids to draw over the frame; `None` if `rgb` shows them already.
    pub ids: Option<Vec<u16>>,
}

struct Thumbnail {
    number: u64,
    picture: RgbImage,
}

/// Collects thumbnails of a run of any length in bounded memory.
///
/// It keeps the last frame and a thumbnail of every `stride`-th frame. When there are too many
/// thumbnails, it drops every second one and doubles the stride.
pub struct ContactSheet {
    kept: Vec<Thumbnail>,
    count: u64,
    stride: u64,
    last: Option<SheetFrame>,
}

impl Default for ContactSheet {
    fn default() -> Self {
        Self {
            kept: Vec::new(),
            count: 0,
            stride: 1,
            last: None,
        }
    }
}

impl ContactSheet {
    /// Adds the next frame.
    ///
    /// # Errors
    ///
    /// The bytes or ids do not fit the size.
    pub fn add(&mut self, frame: SheetFrame) -> Result<(), MediaError> {
        let pixels = frame.width as usize * frame.height as usize;
        let ids = frame.ids.as_ref().map_or(pixels, Vec::len);
        if frame.rgb.len() != pixels * 3 || ids != pixels || pixels == 0 {
            return Err(MediaError::Size {
                what: "adding a frame to a contact sheet",
                expected: format!("{}x{}, at least one pixel", frame.width, frame.height),
                got: format!("{} bytes and {ids} ids", frame.rgb.len()),
            });
        }
        // The last frame is on the sheet in any case; only now is it known that the one before is not the last.
        if let Some(last) = self.last.take()
            && (self.count - 1).is_multiple_of(self.stride)
        {
            self.keep(last);
        }
        self.last = Some(frame);
        self.count += 1;
        Ok(())
    }

    fn keep(&mut self, frame: SheetFrame) {
        if self.kept.len() == MAX_KEPT {
            let mut index = 0;
            self.kept.retain(|_| {
                index += 1;
                index % 2 == 1
            });
            self.stride *= 2;
            if !(self.count - 1).is_multiple_of(self.stride) {
                return;
            }
        }
        self.kept.extend(thumbnail(frame));
    }

    /// Writes the sheet as a PNG and returns true; without frames it writes nothing and returns false.
    ///
    /// # Errors
    ///
    /// The file cannot be written.
    pub fn write(mut self, path: &Path) -> Result<bool, MediaError> {
        self.kept.extend(self.last.take().and_then(thumbnail));
        let chosen = evenly_spaced(self.kept.iter().map(|kept| kept.number).collect());
        let mut pictures = self.kept;
        pictures.retain(|kept| chosen.contains(&kept.number));
        let Some(sheet) = arrange(&pictures) else {
            return Ok(false);
        };
        encode(path, &sheet).map_err(|detail| MediaError::Write {
            path: path.to_owned(),
            detail,
        })?;
        Ok(true)
    }
}

/// At most [`MAX_PICTURES`] of the rising numbers, spaced as evenly as possible from the first to the
/// last.
fn evenly_spaced(numbers: Vec<u64>) -> Vec<u64> {
    let (Some(first), Some(last)) = (numbers.first(), numbers.last()) else {
        return numbers;
    };
    if numbers.len() <= MAX_PICTURES {
        return numbers;
    }
    let step = (last - first) as f64 / (MAX_PICTURES - 1) as f64;
    let mut chosen = Vec::with_capacity(MAX_PICTURES);
    let mut left = numbers.as_slice();
    for point in 0..MAX_PICTURES {
        let wanted = *first as f64 + step * point as f64;
        // The points that follow need a number each.
        let limit = left.len() - (MAX_PICTURES - 1 - point);
        let distance = |number: u64| (number as f64 - wanted).abs();
        let mut best = 0;
        while best + 1 < limit && distance(left[best + 1]) < distance(left[best]) {
            best += 1;
        }
        chosen.push(left[best]);
        left = &left[best + 1..];
    }
    chosen
}

/// The frame with its masks, scaled to fit a cell.
fn thumbnail(mut frame: SheetFrame) -> Option<Thumbnail> {
    if let Some(ids) = &frame.ids {
        overlay::draw(&mut frame.rgb, frame.width, frame.height, ids);
    }
    let (width, height) = fitted((frame.width, frame.height), CELL);
    let picture = RgbImage::from_raw(frame.width, frame.height, frame.rgb)?;
    Some(Thumbnail {
        number: frame.number,
        picture: imageops::resize(&picture, width, height, FilterType::Triangle),
    })
}

fn fitted(size: (u32, u32), room: (u32, u32)) -> (u32, u32) {
    let scale = (f64::from(room.0) / f64::from(size.0)).min(f64::from(room.1) / f64::from(size.1));
    let side = |side: u32, room: u32| ((f64::from(side) * scale).round() as u32).clamp(1, room);
    (side(size.0, room.0), side(size.1, room.1))
}

fn arrange(pictures: &[Thumbnail]) -> Option<RgbImage> {
    let cell = pictures.first()?.picture.dimensions();
    // The number needs its height in a low picture too.
    let cell = (cell.0 as usize, (cell.1 as usize).max(DOT * 7));
    let columns = pictures.len().min(COLUMNS);
    let rows = pictures.len().div_ceil(COLUMNS);
    let (width, height) = (columns * (cell.0 + GAP) + GAP, rows * (cell.1 + GAP) + GAP);
    let mut sheet = RgbImage::from_pixel(width as u32, height as u32, Rgb(BACKGROUND));
    for (index, thumbnail) in pictures.iter().enumerate() {
        let left = GAP + index % columns * (cell.0 + GAP);
        let top = GAP + index / columns * (cell.1 + GAP);
        let picture = &thumbnail.picture;
        // Frames of another size than the first keep their shape.
        let (wide, high) = fitted(picture.dimensions(), (cell.0 as u32, cell.1 as u32));
        let scaled;
        let picture = if (wide, high) == picture.dimensions() {
            picture
        } else {
            scaled = imageops::resize(picture, wide, high, FilterType::Triangle);
            &scaled
        };
        let x = left + (cell.0 - wide as usize) / 2;
        let y = top + (cell.1 - high as usize) / 2;
        imageops::replace(&mut sheet, picture, x as i64, y as i64);
        let (_, plate) = plate_size(thumbnail.number, DOT);
        let mut canvas = Canvas {
            rgb: &mut sheet,
            width,
            height,
        };
        let upper = top + cell.1 - plate;
        canvas.number(thumbnail.number, left, upper, DOT, [0; 3], [255; 3]);
    }
    Some(sheet)
}

fn encode(path: &Path, sheet: &RgbImage) -> Result<(), String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let file = File::create(path).map_err(|error| text(&error))?;
    let mut output = BufWriter::new(file);
    let mut encoder = png::Encoder::new(&mut output, sheet.width(), sheet.height());
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    let mut writer = encoder.write_header().map_err(|error| text(&error))?;
    writer
        .write_image_data(sheet)
        .map_err(|error| text(&error))?;
    writer.finish().map_err(|error| text(&error))?;
    output.flush().map_err(|error| text(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sheet_of(frames: u64, size: (u32, u32)) -> ContactSheet {
        let mut sheet = ContactSheet::default();
        for number in 0..frames {
            let rgb = vec![128; size.0 as usize * size.1 as usize * 3];
            let frame = SheetFrame {
                number,
                width: size.0,
                height: size.1,
                rgb,
                ids: None,
            };
            assert!(sheet.add(frame).is_ok());
            assert!(sheet.kept.len() <= MAX_KEPT);
        }
        sheet
    }

    fn chosen(frames: u64) -> Vec<u64> {
        let mut sheet = sheet_of(frames, (396, 1));
        let last = sheet.last.take();
        sheet.kept.extend(last.and_then(thumbnail));
        evenly_spaced(sheet.kept.iter().map(|kept| kept.number).collect())
    }

    #[test]
    fn frames_are_spread_from_the_first_to_the_last() {
        assert_eq!(chosen(0), [0u64; 0]);
        assert_eq!(chosen(1), [0]);
        assert_eq!(chosen(5), [0, 1, 2, 3, 4]);
        assert_eq!(chosen(12), (0..12).collect::<Vec<_>>());
        assert_eq!(chosen(23), (0..12).map(|i| i * 2).collect::<Vec<_>>());
        for frames in [13, 48, 64, 65, 66, 127, 128, 129, 130, 1000, 5001] {
            let chosen = chosen(frames);
            assert_eq!(chosen.len(), MAX_PICTURES, "{frames}");
            assert_eq!((chosen[0], chosen[MAX_PICTURES - 1]), (0, frames - 1));
            let even = (frames - 1) as f64 / (MAX_PICTURES - 1) as f64;
            for pair in chosen.windows(2) {
                let step = (pair[1] - pair[0]) as f64;
                assert!(
                    (step - even).abs() <= even / 2.0 + 1.0,
                    "{frames}: {chosen:?}"
                );
            }
        }
    }

    #[test]
    fn a_sheet_is_about_1600_pixels_wide() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("sheet.png");
        for (size, frames, expected) in [
            ((64, 36), 30, (1604, 3 * (223 + 4) + 4)),
            ((36, 64), 5, (1604, 2 * (704 + 4) + 4)),
            ((64, 36), 1, (404, 231)),
            // Neither wider than its cell nor so low that the number has no room.
            ((1000, 1), 4, (1604, 21 + 8)),
            ((1, 100), 4, (4 * (8 + 4) + 4, 800)),
        ] {
            assert!(sheet_of(frames, size).write(&path).unwrap());
            assert_eq!(
                image::image_dimensions(&path).unwrap(),
                expected,
                "{size:?}"
            );
        }
        assert!(!sheet_of(0, (4, 4)).write(&path.join("none")).unwrap());
    }

    #[test]
    fn frames_that_do_not_fit_their_size_are_refused() {
        let frame = SheetFrame {
            number: 0,
            width: 2,
            height: 2,
            rgb: vec![0; 12],
            ids: Some(vec![0; 3]),
        };
        assert!(ContactSheet::default().add(frame).is_err());
    }
}
