//! The GPUs that a shared library has code for, from the containers (fatbins) that NVIDIA's compiler puts into it.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use super::facts::Compute;
use crate::shared_library::Elf;

/// Architectures that a library has code for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GpuCode {
    /// Architectures with machine code, ascending.
    pub native: Vec<Compute>,
    /// Architectures with code that the driver translates for them and for later ones, ascending.
    pub portable: Vec<Compute>,
}

/// Whether a GPU can run code for these architectures: machine code runs on GPUs of the same generation from its own
/// variant on, translated code on every later architecture.
pub fn runs_on(native: &[Compute], portable: &[Compute], gpu: Compute) -> bool {
    let runs = |code: &Compute| code.major == gpu.major && code.minor <= gpu.minor;
    native.iter().any(runs) || portable.iter().any(|&code| code <= gpu)
}

/// First word of a container.
const MAGIC: u32 = 0xba55_ed50;
/// Length in bytes of a container's header. The header states its own length at byte 6 and the content's at byte 8.
const CONTAINER_HEADER: u64 = 16;
/// Bytes of an entry's header that are read: kind (at byte 0), header's length (4), content's length (8), architecture (28).
const ENTRY_HEADER: u64 = 32;
/// Kind of an entry with code that the driver translates (PTX); 2 is machine code.
const PORTABLE: u16 = 1;

/// Reads the headers of the code for GPUs in the library at `path`; empty if there is none in a known format. Reads a few
/// hundred kilobytes, whatever the library's size.
///
/// # Errors
/// The file cannot be read.
pub fn read(path: &Path, elf: &Elf) -> io::Result<GpuCode> {
    match elf.gpu_code {
        None => Ok(GpuCode::default()),
        Some((start, length)) => parse(&mut File::open(path)?, start, length),
    }
}

fn parse(file: &mut (impl Read + Seek), start: u64, length: u64) -> io::Result<GpuCode> {
    let end = start.saturating_add(length);
    let mut code = GpuCode::default();
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
                PORTABLE => &mut code.portable,
                _ => &mut code.native,
            };
            if let Err(place) = list.binary_search(&compute) {
                list.insert(place, compute);
            }
            let content = u64::from(word(&header, 8)) | u64::from(word(&header, 12)) << 32;
            let whole = u64::from(word(&header, 4)).saturating_add(content);
            entry = entry.saturating_add(whole.max(ENTRY_HEADER));
        }
    }
    Ok(code)
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
        let code = parse(&mut io::Cursor::new(file), 24, length).unwrap();
        assert_eq!(code.native, [compute(7, 5), compute(12, 0)]);
        assert_eq!(code.portable, [compute(9, 0)]);
    }

    #[test]
    fn bytes_in_another_format_hold_no_code() {
        let noise = vec![0x50; 4096];
        let code = parse(&mut io::Cursor::new(noise), 0, 4096).unwrap();
        assert_eq!(code, GpuCode::default());
    }

    #[test]
    fn machine_code_runs_on_its_generation_and_portable_code_on_later_ones() {
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
            let portable = [compute(9, 0)];
            assert_eq!(runs_on(&older, &portable, gpu), by_older, "{gpu}");
            assert_eq!(runs_on(&later, &[], gpu), by_later, "{gpu}");
        }
    }
}
