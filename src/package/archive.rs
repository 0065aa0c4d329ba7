//! Writes the archive. The same entries give the same bytes on every machine, for every user, at any time.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::error::PackageError;
use crate::bundle::hex;

/// The time of every entry, 1980-01-01: the earliest that all archivers accept.
pub const TIME: u64 = 315_532_800;

/// Where an entry's bytes are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// In memory.
    Bytes(Vec<u8>),
    /// In a file, for large ones.
    File(PathBuf),
}

impl Content {
    fn open(&self) -> io::Result<Box<dyn Read + '_>> {
        Ok(match self {
            Self::Bytes(bytes) => Box::new(bytes.as_slice()),
            Self::File(path) => Box::new(File::open(path)?),
        })
    }

    fn path(&self) -> &Path {
        match self {
            Self::Bytes(_) => Path::new("(memory)"),
            Self::File(path) => path,
        }
    }
}

/// A file of a package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its path in the package, with `/`.
    pub path: String,
    /// Whether it can be run.
    pub executable: bool,
    /// The part that it belongs to, such as `onnxruntime 1.31.1`.
    pub from: String,
    /// Its bytes.
    pub content: Content,
}

/// An entry's size and hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sum {
    /// Bytes.
    pub bytes: u64,
    /// SHA-256 in hexadecimal digits.
    pub sha256: String,
}

/// A reader that counts and hashes the bytes that pass through it.
struct Hashed<R> {
    inner: R,
    hasher: Sha256,
    bytes: u64,
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        self.bytes += count as u64;
        Ok(count)
    }
}

impl<R> Hashed<R> {
    fn new(inner: R) -> Self {
        Self {
            inner,
            hasher: Sha256::new(),
            bytes: 0,
        }
    }

    fn sum(self) -> Sum {
        Sum {
            bytes: self.bytes,
            sha256: hex(&self.hasher.finalize()),
        }
    }
}

impl Entry {
    /// Size and hash of the content.
    ///
    /// # Errors
    /// [`PackageError::Read`].
    pub fn sum(&self) -> Result<Sum, PackageError> {
        let read = PackageError::read(self.content.path());
        let sum = || {
            let mut hashed = Hashed::new(self.content.open()?);
            io::copy(&mut hashed, &mut io::sink())?;
            Ok(hashed.sum())
        };
        sum().map_err(read)
    }
}

/// Writes the entries below the folder `top`, sorted by path, and calls `done` with the number of bytes of each.
///
/// One thread compresses, so that the bytes do not depend on the machine.
///
/// # Errors
/// [`PackageError::Read`] and [`PackageError::Write`]; [`PackageError::Changed`] for a file that differs from its sum.
pub fn write(
    entries: &[(Entry, Sum)],
    top: &str,
    level: i32,
    out: &Path,
    mut done: impl FnMut(u64),
) -> Result<(), PackageError> {
    let written = |error| PackageError::Write {
        file: out.to_path_buf(),
        source: error,
    };
    let file = File::create(out).map_err(written)?;
    let encoder = zstd::Encoder::new(io::BufWriter::new(file), level).map_err(written)?;
    let mut archive = tar::Builder::new(encoder);
    let mut sorted: Vec<&(Entry, Sum)> = entries.iter().collect();
    sorted.sort_by(|a, b| a.0.path.cmp(&b.0.path));

    let mut folders = BTreeSet::new();
    for (entry, sum) in sorted {
        let path = format!("{top}/{}", entry.path);
        let parents: Vec<&Path> = Path::new(&path).ancestors().skip(1).collect();
        for parent in parents.into_iter().rev() {
            if !parent.as_os_str().is_empty() && folders.insert(parent.to_path_buf()) {
                let mut folder = header(0, 0o755);
                folder.set_entry_type(tar::EntryType::Directory);
                archive
                    .append_data(&mut folder, format!("{}/", parent.display()), io::empty())
                    .map_err(written)?;
            }
        }
        let mode = if entry.executable { 0o755 } else { 0o644 };
        let content = entry
            .content
            .open()
            .map_err(PackageError::read(entry.content.path()))?;
        // More bytes than the header says would shift all entries that follow.
        let mut content = Hashed::new(content.take(sum.bytes));
        archive
            .append_data(&mut header(sum.bytes, mode), &path, &mut content)
            .map_err(written)?;
        if content.sum() != *sum {
            return Err(PackageError::Changed {
                file: entry.content.path().to_path_buf(),
            });
        }
        done(sum.bytes);
    }
    let encoder = archive.into_inner().map_err(written)?;
    let mut file = encoder.finish().map_err(written)?;
    file.flush().map_err(written)?;
    file.get_ref().sync_all().map_err(written)
}

fn header(bytes: u64, mode: u32) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Regular);
    header.set_size(bytes);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(TIME);
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(path: &str, text: &str) -> (Entry, Sum) {
        let entry = Entry {
            path: path.to_owned(),
            executable: path == "program",
            from: "test".to_owned(),
            content: Content::Bytes(text.into()),
        };
        let sum = entry.sum().unwrap();
        (entry, sum)
    }

    #[test]
    fn the_same_entries_give_the_same_bytes_in_any_order() {
        let folder = tempfile::tempdir().unwrap();
        let mut entries = vec![
            entry("lib/b", "two"),
            entry("program", "one"),
            entry("lib/a", ""),
        ];
        let (first, second) = (folder.path().join("1"), folder.path().join("2"));
        write(&entries, "top", 3, &first, |_| {}).unwrap();
        entries.reverse();
        write(&entries, "top", 3, &second, |_| {}).unwrap();
        assert_eq!(
            std::fs::read(&first).unwrap(),
            std::fs::read(&second).unwrap()
        );

        let mut archive =
            tar::Archive::new(zstd::Decoder::new(File::open(&first).unwrap()).unwrap());
        let listed: Vec<_> = archive
            .entries()
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                let header = entry.header();
                assert_eq!((header.uid().unwrap(), header.mtime().unwrap()), (0, TIME));
                (
                    entry.path().unwrap().display().to_string(),
                    header.mode().unwrap(),
                )
            })
            .collect();
        let expected = [
            ("top/", 0o755),
            ("top/lib/", 0o755),
            ("top/lib/a", 0o644),
            ("top/lib/b", 0o644),
            ("top/program", 0o755),
        ];
        assert_eq!(listed, expected.map(|(path, mode)| (path.to_owned(), mode)));
    }

    #[test]
    fn a_file_that_changes_while_it_is_packed_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("source");
        std::fs::write(&source, "before").unwrap();
        let entry = Entry {
            path: "file".to_owned(),
            executable: false,
            from: String::new(),
            content: Content::File(source.clone()),
        };
        let sum = entry.sum().unwrap();
        for change in ["changed", "after!", "short"] {
            std::fs::write(&source, change).unwrap();
            let out = folder.path().join("out");
            let result = write(&[(entry.clone(), sum.clone())], "top", 3, &out, |_| {});
            assert!(
                matches!(result, Err(PackageError::Changed { .. })),
                "{change}: {result:?}"
            );
        }
    }
}
