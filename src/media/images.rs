//! Image folders and single images, decoded as Pillow does: JPEG with libjpeg's own arithmetic, the
//! EXIF orientation applied, alpha dropped, 16-bit values cut to their high byte.

use std::io::{self, BufRead, BufReader, Read, Seek};
use std::os::unix::ffi::OsStrExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use image::codecs::png::PngDecoder;
use image::codecs::webp::WebPDecoder;
use image::metadata::Orientation;
use image::{
    AnimationDecoder, ColorType, DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits,
    RgbImage,
};

use super::input::{
    MAX_PIXELS, check_pixels, check_regular, metadata, open_regular, order_note, with_room,
};
use super::{Damage, Frame, FrameSource, MediaError, SourceInfo, SourceKind};

const EXTENSIONS: [&str; 8] = ["jpg", "jpeg", "png", "bmp", "tif", "tiff", "webp", "gif"];

/// Whether the name ends in the extension of an image, in upper or lower case.
pub fn has_image_extension(path: &Path) -> bool {
    EXTENSIONS
        .iter()
        .any(|extension| has_extension(path, extension))
}

pub(super) fn has_extension(path: &Path, extension: &str) -> bool {
    path.extension()
        .is_some_and(|found| found.as_bytes().eq_ignore_ascii_case(extension.as_bytes()))
}

/// Lists the images of a folder in the byte order of their names; a file is a list of one.
/// Hidden files, subfolders and files with other extensions are left out.
///
/// # Errors
/// The folder cannot be read or holds no images, or something named like an image is not a file.
pub fn list(path: &Path) -> Result<Vec<PathBuf>, MediaError> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let unreadable = |source| MediaError::Read {
        path: path.to_owned(),
        source,
    };
    let mut images = Vec::new();
    for entry in std::fs::read_dir(path).map_err(unreadable)? {
        let found = entry.map_err(unreadable)?.path();
        let hidden = found
            .file_name()
            .is_some_and(|name| name.as_bytes().starts_with(b"."));
        if hidden || !has_image_extension(&found) {
            continue;
        }
        let kind = metadata(&found)?.file_type();
        if !kind.is_dir() {
            check_regular(&found, kind)?;
            images.push(found);
        }
    }
    if images.is_empty() {
        return Err(MediaError::NoImages {
            path: path.to_owned(),
            extensions: EXTENSIONS.join(", "),
        });
    }
    images.sort_unstable_by(|a, b| a.as_os_str().as_bytes().cmp(b.as_os_str().as_bytes()));
    Ok(images)
}

/// The frames of an image folder, or of a single image.
pub struct ImageSource {
    info: SourceInfo,
    images: Vec<PathBuf>,
    next: usize,
}

impl ImageSource {
    /// Lists the images and reads the header of each, so that a folder of mixed sizes is refused
    /// before any work is done.
    ///
    /// # Errors
    /// No images, an image without a readable header or with too many pixels, images of different
    /// sizes, or a single animated image.
    pub fn open(path: &Path) -> Result<Self, MediaError> {
        let images = list(path)?;
        let mut size = (0, 0);
        for (i, image) in images.iter().enumerate() {
            let found = image_size(image)?;
            if i == 0 {
                size = found;
            }
            same_size(&images[0], size, image, found)?;
        }
        // In a folder every image is one frame, also an animated one.
        if images.as_slice() == [path] {
            check_still(path)?;
        }
        Ok(Self {
            info: SourceInfo {
                path: path.to_owned(),
                kind: SourceKind::Images,
                width: size.0,
                height: size.1,
                frame_rate: (24, 1),
                frames_hint: Some(images.len() as u64),
                notes: order_note(&images).into_iter().collect(),
            },
            images,
            next: 0,
        })
    }
}

fn same_size(
    first: &Path,
    first_size: (u32, u32),
    path: &Path,
    size: (u32, u32),
) -> Result<(), MediaError> {
    if size == first_size {
        return Ok(());
    }
    Err(MediaError::MixedSizes {
        first: first.to_owned(),
        first_size,
        path: path.to_owned(),
        size,
    })
}

impl FrameSource for ImageSource {
    fn info(&self) -> &SourceInfo {
        &self.info
    }

    fn next_frame(&mut self) -> Result<Option<Frame>, MediaError> {
        let Some(path) = self.images.get(self.next) else {
            return Ok(None);
        };
        let image = decode(path)?;
        // The file may have changed since its header was read.
        same_size(
            &self.images[0],
            (self.info.width, self.info.height),
            path,
            image.dimensions(),
        )?;
        let index = self.next;
        self.next += 1;
        Ok(Some(Frame {
            index,
            width: image.width(),
            height: image.height(),
            rgb: image.into_raw(),
            pts_s: None,
        }))
    }

    fn damage(&self) -> Damage {
        Damage::default()
    }
}

/// Decodes one image file: RGB, upright.
///
/// Reference: Pillow's `ImageOps.exif_transpose(Image.open(path)).convert("RGB")`, bit for bit for
/// JPEG.
///
/// # Errors
/// The file is missing, empty, damaged, truncated, too large, or has a format that is not supported.
pub fn decode(path: &Path) -> Result<RgbImage, MediaError> {
    let bytes = read(path)?;
    let ((width, height), orientation) = header(path, io::Cursor::new(&bytes), is_jpeg(&bytes))?;
    check_pixels(path, width, height)?;
    let pixels = if is_jpeg(&bytes) {
        decode_jpeg(&bytes)
    } else {
        decode_other(&bytes)
    }
    .map_err(|detail| image_error(path, detail))?;
    if orientation == Orientation::NoTransforms {
        return Ok(pixels);
    }
    let mut image = DynamicImage::ImageRgb8(pixels);
    image.apply_orientation(orientation);
    Ok(image.into_rgb8())
}

/// Width and height of an image, upright, from its header: the rest of the file is not read.
fn image_size(path: &Path) -> Result<(u32, u32), MediaError> {
    let mut file = BufReader::new(open_regular(path)?);
    let start = file.fill_buf().map_err(|source| MediaError::Read {
        path: path.to_owned(),
        source,
    })?;
    let jpeg = is_jpeg(start);
    let ((width, height), orientation) = header(path, file, jpeg)?;
    check_pixels(path, width, height)?;
    // EXIF counts the four orientations that swap the axes last.
    Ok(if orientation.to_exif() >= 5 {
        (height, width)
    } else {
        (width, height)
    })
}

/// Width and height as stored, and the turn that makes the image upright.
fn header(
    path: &Path,
    source: impl BufRead + Seek,
    jpeg: bool,
) -> Result<((u32, u32), Orientation), MediaError> {
    let read = || {
        if jpeg {
            return jpeg_header(source);
        }
        let mut decoder = decoder(source)?;
        let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
        Ok((decoder.dimensions(), orientation))
    };
    read().map_err(|detail| image_error(path, detail))
}

/// Refuses an animation, of which only the first picture would be read. GIFs are not checked, since
/// FFmpeg plays them. The size was checked before: this function decodes two frames.
fn check_still(path: &Path) -> Result<(), MediaError> {
    let frames = |source| -> image::ImageResult<_> {
        let reader = ImageReader::new(source).with_guessed_format()?;
        Ok(match reader.format() {
            Some(ImageFormat::WebP) => {
                let decoder = WebPDecoder::new(reader.into_inner())?;
                decoder
                    .has_animation()
                    .then(|| ("WebP", decoder.into_frames()))
            }
            Some(ImageFormat::Png) => {
                let decoder = PngDecoder::new(reader.into_inner())?;
                if decoder.is_apng()? {
                    Some(("PNG", decoder.apng()?.into_frames()))
                } else {
                    None
                }
            }
            _ => None,
        })
    };
    // An image that cannot be read is reported when it is decoded.
    if let Ok(Some((kind, frames))) = frames(BufReader::new(open_regular(path)?))
        && frames.take(2).count() == 2
    {
        return Err(MediaError::Animated {
            path: path.to_owned(),
            kind,
        });
    }
    Ok(())
}

fn image_error(path: &Path, detail: String) -> MediaError {
    MediaError::Image {
        path: path.to_owned(),
        detail,
    }
}

fn read(path: &Path) -> Result<Vec<u8>, MediaError> {
    let mut bytes = Vec::new();
    open_regular(path)?
        .read_to_end(&mut bytes)
        .map_err(|source| MediaError::Read {
            path: path.to_owned(),
            source,
        })?;
    Ok(bytes)
}

fn is_jpeg(bytes: &[u8]) -> bool {
    bytes.starts_with(&[0xff, 0xd8, 0xff])
}

// The contents decide, not the name: JPEGs are often named .png.
fn decoder<'a>(source: impl BufRead + Seek + 'a) -> Result<impl ImageDecoder + 'a, String> {
    let mut reader = ImageReader::new(source)
        .with_guessed_format()
        .map_err(|error| error.to_string())?;
    // Pixels of four 16-bit values, and half as much again for the decoder itself.
    let mut limits = Limits::default();
    limits.max_alloc = Some(MAX_PIXELS * 12);
    reader.limits(limits);
    if reader.format().is_none() {
        return Err("its contents are not an image in a known format".to_owned());
    }
    reader.into_decoder().map_err(|error| error.to_string())
}

fn decode_other(bytes: &[u8]) -> Result<RgbImage, String> {
    let decoder = decoder(io::Cursor::new(bytes))?;
    let (width, height) = decoder.dimensions();
    let colour = decoder.color_type();
    let bytes_per_pixel = usize::from(colour.bytes_per_pixel());
    let size = width as usize * height as usize * bytes_per_pixel;
    let mut values = with_room(size)?;
    values.resize(size, 0);
    decoder
        .read_image(&mut values)
        .map_err(|error| error.to_string())?;
    let high = |value: &[u8]| (u16::from_ne_bytes([value[0], value[1]]) >> 8) as u8;
    let deep = |pixel: &[u8]| [high(pixel), high(&pixel[2..]), high(&pixel[4..])];
    let rgb = match colour {
        ColorType::Rgb8 => values,
        ColorType::Rgba8 => to_rgb(&values, 4, |pixel| [pixel[0], pixel[1], pixel[2]])?,
        ColorType::L8 => to_rgb(&values, 1, |pixel| [pixel[0]; 3])?,
        ColorType::La8 => to_rgb(&values, 2, |pixel| [pixel[0]; 3])?,
        ColorType::L16 => to_rgb(&values, 2, |pixel| [high(pixel); 3])?,
        ColorType::La16 => to_rgb(&values, 4, |pixel| [high(pixel); 3])?,
        ColorType::Rgb16 => to_rgb(&values, 6, deep)?,
        ColorType::Rgba16 => to_rgb(&values, 8, deep)?,
        other => {
            return Err(format!(
                "its pixels are {other:?}, expected integers of 8 or 16 bits; convert it to PNG"
            ));
        }
    };
    RgbImage::from_raw(width, height, rgb).ok_or_else(|| "its pixels do not fit its size".into())
}

/// Converts pixels of `pixel_bytes` bytes each to RGB.
fn to_rgb(
    values: &[u8],
    pixel_bytes: usize,
    convert: impl Fn(&[u8]) -> [u8; 3],
) -> Result<Vec<u8>, String> {
    let mut rgb = with_room(values.len() / pixel_bytes * 3)?;
    for pixel in values.chunks_exact(pixel_bytes) {
        rgb.extend_from_slice(&convert(pixel));
    }
    Ok(rgb)
}

/// Reports the end of the data as an error: libjpeg would fill the missing part with grey.
struct EndIsError<'a>(&'a [u8]);

impl Read for EndIsError<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.0.read(into)
    }
}

impl BufRead for EndIsError<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.0.is_empty() {
            return Err(io::Error::other("the data ends early"));
        }
        Ok(self.0)
    }

    fn consume(&mut self, count: usize) {
        self.0 = &self.0[count.min(self.0.len())..];
    }
}

/// Runs libjpeg and turns its errors into text. They arrive as unwinding without a panic message.
fn catch_errors<T>(work: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|cause| {
            Err(cause
                .downcast_ref::<String>()
                .map(|text| text.trim_start_matches("libjpeg fatal error: ").to_owned())
                .or_else(|| cause.downcast_ref::<&str>().map(|text| (*text).to_owned()))
                .unwrap_or_else(|| "libjpeg gave up".to_owned()))
        })
        .map_err(|text| match text.as_str() {
            "Input file read error" => "the file is truncated".to_owned(),
            _ => text,
        })
}

fn open_jpeg<R: BufRead>(source: R) -> Result<(mozjpeg::Decompress<R>, Orientation), String> {
    let jpeg = mozjpeg::Decompress::with_markers(&[mozjpeg::Marker::APP(1)])
        .from_reader(source)
        .map_err(|error| error.to_string())?;
    let orientation = jpeg
        .markers()
        .find_map(|marker| marker.data.strip_prefix(b"Exif\0\0"))
        .and_then(Orientation::from_exif_chunk)
        .unwrap_or(Orientation::NoTransforms);
    Ok((jpeg, orientation))
}

fn jpeg_header(source: impl BufRead) -> Result<((u32, u32), Orientation), String> {
    catch_errors(|| {
        let (jpeg, orientation) = open_jpeg(source)?;
        Ok(((jpeg.width() as u32, jpeg.height() as u32), orientation))
    })
}

fn decode_jpeg(bytes: &[u8]) -> Result<RgbImage, String> {
    use mozjpeg::ColorSpace::{JCS_CMYK, JCS_GRAYSCALE, JCS_RGB, JCS_YCCK};
    let text = |error: io::Error| error.to_string();
    catch_errors(|| {
        let (mut jpeg, _) = open_jpeg(EndIsError(bytes))?;
        jpeg.dct_method(mozjpeg::DctMethod::IntegerSlow);
        jpeg.do_fancy_upsampling(true);
        let target = match jpeg.color_space() {
            JCS_GRAYSCALE => JCS_GRAYSCALE,
            JCS_CMYK | JCS_YCCK => JCS_CMYK,
            _ => JCS_RGB,
        };
        let mut jpeg = jpeg.to_colorspace(target).map_err(text)?;
        let (width, height) = (jpeg.width() as u32, jpeg.height() as u32);
        let values = jpeg.read_scanlines::<u8>().map_err(text)?;
        let rgb = match target {
            JCS_GRAYSCALE => to_rgb(&values, 1, |pixel| [pixel[0]; 3])?,
            JCS_CMYK => to_rgb(&values, 4, cmyk_to_rgb)?,
            _ => values,
        };
        RgbImage::from_raw(width, height, rgb)
            .ok_or_else(|| "its pixels do not fit its size".to_owned())
    })
}

/// Converts CMYK as Pillow does: the values of the file are inverted, as Adobe writes them, and the
/// white that the inks leave is scaled by the white that black leaves.
fn cmyk_to_rgb(pixel: &[u8]) -> [u8; 3] {
    let white = u32::from(pixel[3]);
    [0, 1, 2].map(|i| {
        let ink = 255 - u32::from(pixel[i]);
        let product = ink * white + 128;
        (white - ((product + (product >> 8)) >> 8).min(white)) as u8
    })
}
