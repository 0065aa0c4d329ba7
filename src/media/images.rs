//! Image folders and single images, decoded as Pillow does: JPEG with libjpeg's own arithmetic, the
//! EXIF orientation applied, alpha dropped, 16-bit values cut to their high byte.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek};
use std::os::unix::ffi::OsStrExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageReader, RgbImage};

use super::{Damage, Frame, FrameSource, MediaError, SourceInfo, SourceKind};

const EXTENSIONS: [&str; 8] = ["jpg", "jpeg", "png", "bmp", "tif", "tiff", "webp", "gif"];

/// Whether the name ends in an image's extension, in upper or lower case.
pub fn has_image_extension(path: &Path) -> bool {
    EXTENSIONS
        .iter()
        .any(|extension| has_extension(path, extension))
}

pub(super) fn has_extension(path: &Path, extension: &str) -> bool {
    path.extension()
        .is_some_and(|found| found.as_bytes().eq_ignore_ascii_case(extension.as_bytes()))
}

/// The images of a folder in the byte order of their names, or the one image that `path` is.
/// Hidden files, subfolders and other kinds of files are left out.
///
/// # Errors
/// The folder cannot be read or holds no images.
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
        if !hidden && has_image_extension(&found) && !found.is_dir() {
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
    /// No images, an image without a readable header, or images of different sizes.
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
        Ok(Self {
            info: SourceInfo {
                path: path.to_owned(),
                kind: SourceKind::Images,
                width: size.0,
                height: size.1,
                frame_rate: (24, 1),
                frames_hint: Some(images.len() as u64),
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
/// The file is missing, empty, damaged, truncated, or of a kind that is not read.
pub fn decode(path: &Path) -> Result<RgbImage, MediaError> {
    let bytes = read(path)?;
    let (pixels, orientation) = if is_jpeg(&bytes) {
        jpeg(&bytes).map_err(|detail| bad(path, detail))?
    } else {
        let mut decoder = decoder(io::Cursor::new(&bytes)).map_err(|detail| bad(path, detail))?;
        let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
        let image =
            DynamicImage::from_decoder(decoder).map_err(|error| bad(path, error.to_string()))?;
        (
            to_rgb(image).map_err(|detail| bad(path, detail))?,
            orientation,
        )
    };
    if orientation == Orientation::NoTransforms {
        return Ok(pixels);
    }
    let mut image = DynamicImage::ImageRgb8(pixels);
    image.apply_orientation(orientation);
    Ok(image.into_rgb8())
}

/// Width and height of an image, upright, from its header: the rest of the file is not read.
fn image_size(path: &Path) -> Result<(u32, u32), MediaError> {
    let unreadable = |source| MediaError::Read {
        path: path.to_owned(),
        source,
    };
    let mut file = BufReader::new(File::open(path).map_err(unreadable)?);
    let start = file.fill_buf().map_err(unreadable)?;
    if start.is_empty() {
        return Err(MediaError::Empty {
            path: path.to_owned(),
        });
    }
    let ((width, height), orientation) = if is_jpeg(start) {
        jpeg_header(file).map_err(|detail| bad(path, detail))?
    } else {
        let mut decoder = decoder(file).map_err(|detail| bad(path, detail))?;
        let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
        (decoder.dimensions(), orientation)
    };
    // EXIF counts the four orientations that swap the axes last.
    Ok(if orientation.to_exif() >= 5 {
        (height, width)
    } else {
        (width, height)
    })
}

fn bad(path: &Path, detail: String) -> MediaError {
    MediaError::Image {
        path: path.to_owned(),
        detail,
    }
}

fn read(path: &Path) -> Result<Vec<u8>, MediaError> {
    let bytes = std::fs::read(path).map_err(|source| MediaError::Read {
        path: path.to_owned(),
        source,
    })?;
    if bytes.is_empty() {
        return Err(MediaError::Empty {
            path: path.to_owned(),
        });
    }
    Ok(bytes)
}

fn is_jpeg(bytes: &[u8]) -> bool {
    bytes.starts_with(&[0xff, 0xd8, 0xff])
}

// The contents decide, not the name: many a .png is a JPEG.
fn decoder<'a>(source: impl BufRead + Seek + 'a) -> Result<impl ImageDecoder + 'a, String> {
    let reader = ImageReader::new(source)
        .with_guessed_format()
        .map_err(|error| error.to_string())?;
    if reader.format().is_none() {
        return Err("its contents are no image of a known kind".to_owned());
    }
    reader.into_decoder().map_err(|error| error.to_string())
}

fn to_rgb(image: DynamicImage) -> Result<RgbImage, String> {
    let (width, height) = (image.width(), image.height());
    let high = |value: u16| (value >> 8) as u8;
    let raw = match image {
        DynamicImage::ImageRgb8(rgb) => return Ok(rgb),
        DynamicImage::ImageRgba8(image) => drop_alpha(image.pixels().map(|p| p.0)),
        DynamicImage::ImageLuma8(image) => image.pixels().flat_map(|p| [p.0[0]; 3]).collect(),
        DynamicImage::ImageLumaA8(image) => image.pixels().flat_map(|p| [p.0[0]; 3]).collect(),
        DynamicImage::ImageLuma16(image) => {
            image.pixels().flat_map(|p| [high(p.0[0]); 3]).collect()
        }
        DynamicImage::ImageLumaA16(image) => {
            image.pixels().flat_map(|p| [high(p.0[0]); 3]).collect()
        }
        DynamicImage::ImageRgb16(image) => image.pixels().flat_map(|p| p.0.map(high)).collect(),
        DynamicImage::ImageRgba16(image) => drop_alpha(image.pixels().map(|p| p.0.map(high))),
        other => {
            return Err(format!(
                "its pixels are {:?}, expected whole numbers of 8 or 16 bits; convert it to PNG",
                other.color()
            ));
        }
    };
    RgbImage::from_raw(width, height, raw).ok_or_else(|| "its pixels do not fit its size".into())
}

fn drop_alpha(pixels: impl Iterator<Item = [u8; 4]>) -> Vec<u8> {
    pixels.flat_map(|[r, g, b, _]| [r, g, b]).collect()
}

/// Makes the end of the data an error: libjpeg would fill what is missing with grey.
struct Whole<'a>(&'a [u8]);

impl Read for Whole<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.0.read(into)
    }
}

impl BufRead for Whole<'_> {
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

/// libjpeg's errors arrive as unwinding, raised so that no panic message is printed.
fn caught<T>(work: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|cause| {
            Err(cause
                .downcast_ref::<String>()
                .map(|said| said.trim_start_matches("libjpeg fatal error: ").to_owned())
                .or_else(|| cause.downcast_ref::<&str>().map(|said| (*said).to_owned()))
                .unwrap_or_else(|| "libjpeg gave up".to_owned()))
        })
        .map_err(|said| match said.as_str() {
            "Input file read error" => "the file is truncated".to_owned(),
            _ => said,
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
    caught(|| {
        let (jpeg, orientation) = open_jpeg(source)?;
        Ok(((jpeg.width() as u32, jpeg.height() as u32), orientation))
    })
}

fn jpeg(bytes: &[u8]) -> Result<(RgbImage, Orientation), String> {
    use mozjpeg::ColorSpace::{JCS_CMYK, JCS_GRAYSCALE, JCS_RGB, JCS_YCCK};
    let text = |error: io::Error| error.to_string();
    caught(|| {
        let (mut jpeg, orientation) = open_jpeg(Whole(bytes))?;
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
            JCS_GRAYSCALE => values.iter().flat_map(|&value| [value; 3]).collect(),
            JCS_CMYK => values.chunks_exact(4).flat_map(cmyk_to_rgb).collect(),
            _ => values,
        };
        let pixels = RgbImage::from_raw(width, height, rgb)
            .ok_or_else(|| "its pixels do not fit its size".to_owned())?;
        Ok((pixels, orientation))
    })
}

/// As Pillow: the values in a file are taken to be inverted, as Adobe writes them, and what ink
/// leaves of white is scaled by what black leaves.
fn cmyk_to_rgb(pixel: &[u8]) -> [u8; 3] {
    let white = u32::from(pixel[3]);
    [0, 1, 2].map(|i| {
        let ink = 255 - u32::from(pixel[i]);
        let product = ink * white + 128;
        (white - ((product + (product >> 8)) >> 8).min(white)) as u8
    })
}
