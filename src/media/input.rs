//! Checks of an input file before it is read, and before memory is allocated for it.

use std::fs::{File, FileType, Metadata};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use super::MediaError;

/// Images and masks with more pixels are refused: as RGB this many take 768 MiB.
pub const MAX_PIXELS: u64 = 1 << 28;

/// Metadata of the file or folder at `path`; links are followed.
///
/// # Errors
/// The path does not exist, or the operating system refuses to read it.
pub(super) fn metadata(path: &Path) -> Result<Metadata, MediaError> {
    std::fs::metadata(path).map_err(|source| match source.kind() {
        std::io::ErrorKind::NotFound => MediaError::Missing {
            path: path.to_owned(),
        },
        _ => MediaError::Read {
            path: path.to_owned(),
            source,
        },
    })
}

/// Refuses everything but a regular file, since opening or reading it may wait forever.
///
/// # Errors
/// `kind` is not a regular file.
pub(super) fn check_regular(path: &Path, kind: FileType) -> Result<(), MediaError> {
    if kind.is_file() {
        return Ok(());
    }
    let found = if kind.is_dir() {
        "a folder"
    } else if kind.is_fifo() {
        "a named pipe (FIFO)"
    } else if kind.is_socket() {
        "a socket"
    } else if kind.is_char_device() || kind.is_block_device() {
        "a device"
    } else {
        "of an unknown kind"
    };
    Err(MediaError::NotRegular {
        path: path.to_owned(),
        found,
    })
}

/// Opens a regular file that is not empty.
///
/// # Errors
/// The file is missing, empty, not a regular file, or must not be read.
pub(super) fn open_regular(path: &Path) -> Result<File, MediaError> {
    let meta = metadata(path)?;
    check_regular(path, meta.file_type())?;
    if meta.len() == 0 {
        return Err(MediaError::Empty {
            path: path.to_owned(),
        });
    }
    File::open(path).map_err(|source| MediaError::Read {
        path: path.to_owned(),
        source,
    })
}

/// Refuses a picture that is too large. Call it as soon as the header is read: a few bytes can claim
/// a picture of any size.
///
/// # Errors
/// The picture has more than [`MAX_PIXELS`].
pub(super) fn check_pixels(path: &Path, width: u32, height: u32) -> Result<(), MediaError> {
    if u64::from(width) * u64::from(height) <= MAX_PIXELS {
        return Ok(());
    }
    Err(MediaError::TooLarge {
        path: path.to_owned(),
        width,
        height,
        limit: MAX_PIXELS,
    })
}

/// An empty vector with room for `count` values. `Vec::with_capacity` would end the process if there
/// is too little memory.
///
/// # Errors
/// There is too little memory.
pub(super) fn with_room<T>(count: usize) -> Result<Vec<T>, String> {
    let mut values = Vec::new();
    values.try_reserve_exact(count).map_err(|_| {
        let bytes = count.saturating_mul(size_of::<T>());
        format!("there is not enough memory for its {bytes} bytes of pixels")
    })?;
    Ok(values)
}

/// A sentence for the user if the names of `images`, which are in byte order, end in numbers that are
/// not in order.
pub(super) fn order_note(images: &[PathBuf]) -> Option<String> {
    let (before, after) =
        images
            .windows(2)
            .map(|pair| (&pair[0], &pair[1]))
            .find(|(a, b)| match (numbered(a), numbered(b)) {
                (Some((a, first)), Some((b, second))) => {
                    a == b && (first.len(), first) > (second.len(), second)
                }
                _ => false,
            })?;
    let name = |path: &Path| path.file_name().unwrap_or_default().display().to_string();
    Some(format!(
        "{}: images are read in the byte order of their names, so {} comes before {}; to read them \
         by number, give all numbers the same count of digits (with leading zeros)",
        before.parent().unwrap_or(before).display(),
        name(before),
        name(after),
    ))
}

/// The name without its extension, split before its last digits. The digits have no leading zeros.
fn numbered(path: &Path) -> Option<(&[u8], &[u8])> {
    let name = path.file_stem()?.as_encoded_bytes();
    let digits = name
        .iter()
        .rev()
        .take_while(|byte| byte.is_ascii_digit())
        .count();
    let (prefix, number) = name.split_at(name.len() - digits);
    let zeros = number.iter().take_while(|byte| **byte == b'0').count();
    (digits > 0).then(|| (prefix, &number[zeros..]))
}
