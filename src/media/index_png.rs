//! Index PNGs: one object id per pixel, as in the DAVIS data set.
//!
//! The `image` crate expands palettes to colours and loses the ids, hence `png`.

use std::fs::File;
use std::io::{BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use png::{BitDepth, ColorType};

use super::MediaError;
use super::input::{check_pixels, open_regular, with_room};

/// Object ids of one frame; 0 is background.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexImage {
    /// Columns.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// Row-major, `width * height` ids.
    pub ids: Vec<u16>,
    /// Bits per value of a grey image; None for an image with a palette.
    pub grey_bits: Option<u8>,
    /// Whether the file has transparency, which is ignored.
    pub alpha: bool,
}

/// The DAVIS and Pascal VOC palette: the bits of the index, dealt out to red, green and blue from
/// the highest bit down.
pub fn palette_colour(index: u8) -> [u8; 3] {
    let mut colour = [0u8; 3];
    for bit in 0..8 {
        colour[bit % 3] |= ((index >> bit) & 1) << (7 - bit / 3);
    }
    colour
}

/// Path of the file that is written before it gets its final name.
pub(super) fn partial_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".partial");
    PathBuf::from(name)
}

/// Writes object ids as a PNG: an 8-bit palette image with the DAVIS colours if all ids are at most
/// 255 (the palette index is the id), else 16-bit grey. The file appears under its name only when
/// it is complete.
///
/// # Errors
/// `ids` has not `width * height` entries, or the file cannot be written.
pub fn write_index_png(
    path: &Path,
    width: u32,
    height: u32,
    ids: &[u16],
) -> Result<(), MediaError> {
    if ids.len() != width as usize * height as usize || ids.is_empty() {
        return Err(MediaError::Size {
            what: "writing an index PNG",
            expected: format!("{width}x{height} ids, at least one"),
            got: format!("{} ids", ids.len()),
        });
    }
    let partial = partial_path(path);
    let written = encode(&partial, width, height, ids)
        .and_then(|()| std::fs::rename(&partial, path).map_err(|error| error.to_string()));
    written.map_err(|detail| {
        // What matters is the first error; the partial file may not even exist.
        let _ = std::fs::remove_file(&partial);
        MediaError::Write {
            path: path.to_owned(),
            detail,
        }
    })
}

fn encode(path: &Path, width: u32, height: u32, ids: &[u16]) -> Result<(), String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let file = File::create(path).map_err(|error| text(&error))?;
    let mut output = BufWriter::new(file);
    let mut encoder = png::Encoder::new(&mut output, width, height);
    let narrow: Option<Vec<u8>> = ids.iter().map(|&id| u8::try_from(id).ok()).collect();
    let bytes = match narrow {
        Some(bytes) => {
            encoder.set_color(ColorType::Indexed);
            encoder.set_depth(BitDepth::Eight);
            encoder.set_palette((0..=255).flat_map(palette_colour).collect::<Vec<u8>>());
            bytes
        }
        None => {
            encoder.set_color(ColorType::Grayscale);
            encoder.set_depth(BitDepth::Sixteen);
            ids.iter().flat_map(|id| id.to_be_bytes()).collect()
        }
    };
    let mut writer = encoder.write_header().map_err(|error| text(&error))?;
    writer
        .write_image_data(&bytes)
        .map_err(|error| text(&error))?;
    writer.finish().map_err(|error| text(&error))?;
    output.flush().map_err(|error| text(&error))
}

/// Reads object ids from a palette PNG (the palette's index is the id) or a grey PNG of up to 16
/// bits (the value is the id). Alpha is ignored.
///
/// # Errors
/// The file is missing, empty, no regular file, no PNG, damaged, too large, or has colours instead
/// of indices.
pub fn read_index_png(path: &Path) -> Result<IndexImage, MediaError> {
    let bad = |detail: String| MediaError::IndexPng {
        path: path.to_owned(),
        detail,
    };
    let damaged = |error: png::DecodingError| bad(format!("no readable PNG ({error})"));
    let file = open_regular(path)?;
    let mut decoder = png::Decoder::new(BufReader::new(file));
    decoder.set_transformations(png::Transformations::IDENTITY);
    let mut reader = decoder.read_info().map_err(damaged)?;
    let (width, height) = reader.info().size();
    check_pixels(path, width, height)?;
    let (colour, depth) = reader.output_color_type();
    let channels = match colour {
        ColorType::Indexed | ColorType::Grayscale => 1,
        ColorType::GrayscaleAlpha => 2,
        ColorType::Rgb | ColorType::Rgba => {
            return Err(bad(
                "it has RGB colours, expected a palette or grey PNG whose values are object ids; \
                 save it as an indexed or 8-bit grey image"
                    .to_owned(),
            ));
        }
    };
    let grey_bits = (colour != ColorType::Indexed).then_some(depth as u8);
    let alpha = colour == ColorType::GrayscaleAlpha || reader.info().trns.is_some();
    let size = reader
        .output_buffer_size()
        .ok_or_else(|| bad(format!("{width}x{height} is too large")))?;
    let mut bytes = with_room(size).map_err(bad)?;
    bytes.resize(size, 0);
    let info = reader.next_frame(&mut bytes).map_err(damaged)?;
    let row_values = width as usize * channels;
    let mut ids = with_room(width as usize * height as usize).map_err(bad)?;
    for row in bytes.chunks_exact(info.line_size).take(height as usize) {
        match depth {
            BitDepth::Sixteen => ids.extend(
                row.chunks_exact(2 * channels)
                    .map(|value| u16::from_be_bytes([value[0], value[1]])),
            ),
            BitDepth::Eight => ids.extend(row.chunks_exact(channels).map(|v| u16::from(v[0]))),
            // Below 8 bits there is one channel, and the first pixel has the highest bits.
            BitDepth::One | BitDepth::Two | BitDepth::Four => {
                let bits = depth as usize;
                ids.extend((0..row_values).map(|x| {
                    let shift = 8 - bits - (x * bits) % 8;
                    u16::from(row[x * bits / 8] >> shift) & ((1 << bits) - 1)
                }));
            }
        }
    }
    Ok(IndexImage {
        width,
        height,
        ids,
        grey_bits,
        alpha,
    })
}
