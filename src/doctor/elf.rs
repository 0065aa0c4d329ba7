//! What a shared library says of itself without being loaded: the libraries that it needs, the C library's version, and
//! the GPUs that it has machine code for.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use object::elf::{DT_NEEDED, DT_RPATH, DT_RUNPATH, FileHeader64};
use object::read::elf::{Dyn as _, FileHeader as _, SectionHeader as _};
use object::{Endianness, ReadCache, ReadRef, StringTable};

use super::facts::Compute;

/// What is read of a shared library.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Elf {
    /// Names of the libraries that the loader loads with it.
    pub needed: Vec<String>,
    /// Folders in which it looks for them, as written (`$ORIGIN` is its own).
    pub runpath: Vec<String>,
    /// The glibc that it needs at least, such as `2.28`.
    pub glibc: Option<String>,
    /// The section with code for GPUs: its place and length in the file.
    pub fatbin: Option<(u64, u64)>,
}

/// Reads the headers of a 64-bit shared library.
///
/// # Errors
/// A file that cannot be read or is not such a library.
pub fn read(path: &Path) -> io::Result<Elf> {
    let cache = ReadCache::new(File::open(path)?);
    parse(&cache).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))
}

fn parse<'data, R: ReadRef<'data>>(data: R) -> object::read::Result<Elf> {
    let header = FileHeader64::<Endianness>::parse(data)?;
    let endian = header.endian()?;
    let sections = header.sections(endian, data)?;
    let mut elf = Elf::default();
    if let Some((entries, strings)) = sections.dynamic(endian, data)? {
        let strings = sections.strings(endian, data, strings)?;
        for entry in entries {
            let tag = entry.d_tag(endian);
            if ![DT_NEEDED, DT_RPATH, DT_RUNPATH].contains(&(tag as u32)) {
                continue;
            }
            let text = text(&strings, entry.d_val(endian) as u32);
            match tag as u32 {
                DT_NEEDED => elf.needed.push(text),
                _ => elf.runpath.extend(text.split(':').map(str::to_owned)),
            }
        }
    }
    if let Some((mut needs, strings)) = sections.gnu_verneed(endian, data)? {
        let strings = sections.strings(endian, data, strings)?;
        let mut versions = Vec::new();
        while let Some((_, mut each)) = needs.next()? {
            while let Some(version) = each.next()? {
                let name = text(&strings, version.vna_name.get(endian));
                versions.extend(name.strip_prefix("GLIBC_").and_then(numbers));
            }
        }
        elf.glibc = versions.into_iter().max().map(|numbers| {
            let numbers: Vec<String> = numbers.iter().map(u32::to_string).collect();
            numbers.join(".")
        });
    }
    if let Some((_, section)) = sections.section_by_name(endian, b".nv_fatbin") {
        elf.fatbin = section.file_range(endian);
    }
    Ok(elf)
}

fn text<'data, R: ReadRef<'data>>(strings: &StringTable<'data, R>, offset: u32) -> String {
    let bytes = strings.get(offset).unwrap_or_default();
    String::from_utf8_lossy(bytes).into_owned()
}

/// A version as numbers, so that 2.9 is before 2.28; `None` for anything else.
pub fn numbers(version: &str) -> Option<Vec<u32>> {
    version.split('.').map(|part| part.parse().ok()).collect()
}

/// Architectures that a library has code for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Kernels {
    /// Machine code, ascending.
    pub native: Vec<Compute>,
    /// Code that the driver translates, for these architectures and later ones, ascending.
    pub portable: Vec<Compute>,
}

impl Kernels {
    /// Whether a GPU can run any of the code: machine code serves its own generation from its variant on, translated code
    /// every later architecture.
    pub fn serve(native: &[Compute], portable: &[Compute], gpu: Compute) -> bool {
        let runs = |code: &&Compute| code.major == gpu.major && code.minor <= gpu.minor;
        native.iter().any(|code| runs(&code)) || portable.iter().any(|&code| code <= gpu)
    }
}

/// First word of a container with code for GPUs.
const MAGIC: u32 = 0xba55_ed50;
/// Length of its header, which states its own length from byte 6 on, and the content's from byte 8 on.
const CONTAINER_HEADER: u64 = 16;
/// The part of an entry's header that is read: kind (0), header's length (4), content's length (8), architecture (28).
const ENTRY_HEADER: u64 = 32;
/// Kind of an entry with code that the driver translates; 2 is machine code.
const PORTABLE: u16 = 1;

/// Reads the headers of the code for GPUs; empty if there is none, or none of a form that is known. A few hundred
/// kilobytes are read, whatever the library's size.
///
/// # Errors
/// A file that cannot be read.
pub fn kernels(path: &Path, elf: &Elf) -> io::Result<Kernels> {
    match elf.fatbin {
        None => Ok(Kernels::default()),
        Some((start, length)) => kernels_in(&mut File::open(path)?, start, length),
    }
}

fn kernels_in(file: &mut (impl Read + Seek), start: u64, length: u64) -> io::Result<Kernels> {
    let end = start.saturating_add(length);
    let mut kernels = Kernels::default();
    let mut at = start;
    while at + CONTAINER_HEADER <= end {
        let header: [u8; CONTAINER_HEADER as usize] = read_at(file, at)?;
        if word(&header, 0) != MAGIC {
            // Containers are aligned to 8 bytes.
            at += 8;
            continue;
        }
        let content = u64::from(word(&header, 8)) | u64::from(word(&header, 12)) << 32;
        let mut entry = at + u64::from(short(&header, 6));
        at = entry.saturating_add(content).max(at + 8);
        while entry + ENTRY_HEADER <= at.min(end) {
            let header: [u8; ENTRY_HEADER as usize] = read_at(file, entry)?;
            let architecture = word(&header, 28);
            let compute = Compute {
                major: architecture / 10,
                minor: architecture % 10,
            };
            let list = match short(&header, 0) {
                PORTABLE => &mut kernels.portable,
                _ => &mut kernels.native,
            };
            if let Err(place) = list.binary_search(&compute) {
                list.insert(place, compute);
            }
            let content = u64::from(word(&header, 8)) | u64::from(word(&header, 12)) << 32;
            let whole = u64::from(word(&header, 4)).saturating_add(content);
            entry = entry.saturating_add(whole.max(ENTRY_HEADER));
        }
    }
    Ok(kernels)
}

fn read_at<const N: usize>(file: &mut (impl Read + Seek), at: u64) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    file.seek(SeekFrom::Start(at))?;
    file.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn short(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from(short(bytes, at)) | u32::from(short(bytes, at + 2)) << 16
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compute(major: u32, minor: u32) -> Compute {
        Compute { major, minor }
    }

    /// An entry of `content` bytes for an architecture.
    fn entry(kind: u16, architecture: u32, content: u64) -> Vec<u8> {
        let mut bytes = vec![0; 64];
        bytes[0..2].copy_from_slice(&kind.to_le_bytes());
        bytes[4..8].copy_from_slice(&64_u32.to_le_bytes());
        bytes[8..16].copy_from_slice(&content.to_le_bytes());
        bytes[28..32].copy_from_slice(&architecture.to_le_bytes());
        bytes.resize(64 + content as usize, 0xff);
        bytes
    }

    fn container(entries: &[Vec<u8>]) -> Vec<u8> {
        let content = entries.concat();
        let mut bytes = MAGIC.to_le_bytes().to_vec();
        bytes.extend(1_u16.to_le_bytes());
        bytes.extend((CONTAINER_HEADER as u16).to_le_bytes());
        bytes.extend((content.len() as u64).to_le_bytes());
        bytes.extend(content);
        bytes
    }

    #[test]
    fn code_for_gpus_is_found_in_all_containers() {
        let mut file = vec![7; 24];
        file.extend(container(&[entry(2, 75, 40), entry(2, 120, 8)]));
        file.extend([0; 16]);
        file.extend(container(&[entry(2, 75, 16), entry(1, 90, 0)]));
        let length = file.len() as u64 - 24;
        let kernels = kernels_in(&mut io::Cursor::new(file), 24, length).unwrap();
        assert_eq!(kernels.native, [compute(7, 5), compute(12, 0)]);
        assert_eq!(kernels.portable, [compute(9, 0)]);
    }

    #[test]
    fn what_is_no_code_for_gpus_has_none() {
        let noise = vec![0x50; 4096];
        let kernels = kernels_in(&mut io::Cursor::new(noise), 0, 4096).unwrap();
        assert_eq!(kernels, Kernels::default());
    }

    #[test]
    fn code_serves_its_generation_and_the_driver_translates_for_later_ones() {
        // The wheels of onnxruntime-gpu 1.26.0 and 1.31.1, as read from their files.
        let older = [(6, 0), (7, 0), (7, 5), (8, 0), (8, 6), (9, 0)].map(|(a, b)| compute(a, b));
        let later = [(7, 5), (8, 0), (8, 6), (8, 9), (9, 0), (12, 0)].map(|(a, b)| compute(a, b));
        let cases = [
            ((7, 0), true, false),
            ((7, 2), true, false),
            ((6, 1), true, false),
            ((5, 2), false, false),
            ((7, 5), true, true),
            ((8, 9), true, true),
            ((9, 0), true, true),
            ((10, 0), true, false),
            ((12, 1), true, true),
        ];
        for ((major, minor), by_older, by_later) in cases {
            let gpu = compute(major, minor);
            assert_eq!(
                Kernels::serve(&older, &[compute(9, 0)], gpu),
                by_older,
                "{gpu}"
            );
            assert_eq!(Kernels::serve(&later, &[], gpu), by_later, "{gpu}");
        }
    }

    #[test]
    fn this_program_says_what_it_needs() {
        let elf = read(&std::env::current_exe().unwrap()).unwrap();
        assert!(
            elf.needed.iter().any(|name| name.starts_with("libc.so")),
            "{elf:?}"
        );
        let glibc = numbers(&elf.glibc.unwrap()).unwrap();
        assert!(glibc >= vec![2, 2], "{glibc:?}");
        assert_eq!(elf.fatbin, None);
    }
}
