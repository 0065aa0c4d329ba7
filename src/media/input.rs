//! What is checked of an input file before any of it is read, or memory is taken for it.

use std::fs::{File, FileType, Metadata};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use super::MediaError;

/// Images and masks of more pixels are refused: as RGB this many take 768 MiB.
pub const MAX_PIXELS: u64 = 1 << 28;

/// What is at `path`, links followed.
///
/// # Errors
/// Nothing is there, or the operating system does not say.
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

/// Refuses everything that is no regular file, since opening or reading it may wait forever.
///
/// # Errors
/// What is there is of another kind.
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

/// Opens a file that has contents.
///
/// # Errors
/// It is missing, empty, no regular file, or may not be read.
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

/// To be asked as soon as the header is read: a few bytes of it can claim a picture of any size.
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

/// An empty vector with room for `count` values; without it an error, where `Vec::with_capacity`
/// would end the process.
///
/// # Errors
/// There is not that much memory.
pub(super) fn with_room<T>(count: usize) -> Result<Vec<T>, String> {
    let mut values = Vec::new();
    values.try_reserve_exact(count).map_err(|_| {
        let bytes = count.saturating_mul(size_of::<T>());
        format!("there is no memory for its {bytes} bytes of pixels")
    })?;
    Ok(values)
}

/// A sentence for the user if the byte order of the names, in which `images` come, is not the order
/// of the numbers that the names end in.
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
        "{}: images are read in the byte order of their names, so {} comes before {}; if the \
         numbers are meant, write all of them with the same count of digits (with leading zeros)",
        before.parent().unwrap_or(before).display(),
        name(before),
        name(after),
    ))
}

/// The name without its extension, split before its last digits, which come without leading zeros.
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
