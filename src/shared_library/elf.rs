//! The ELF headers of a program or a shared library, and the two changes that a package makes to such a file.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::path::Path;

use object::elf::{
    DT_NEEDED, DT_RPATH, DT_RUNPATH, DT_SONAME, FileHeader64, PT_GNU_STACK, PT_NULL,
};
use object::read::elf::{Dyn as _, FileHeader as _, ProgramHeader as _, SectionHeader as _};
use object::{Endianness, ReadCache, ReadRef, U16, U64};

/// The search path of every library of a package: its own folder.
const ORIGIN: &str = "$ORIGIN";

/// The section in which NVIDIA's compiler puts code for GPUs.
const GPU_SECTION: &[u8] = b".nv_fatbin";

/// Why the headers of a file cannot be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum ElfError {
    /// The file cannot be read.
    #[error("cannot be read: {0}")]
    Read(#[from] io::Error),
    /// The file is not a complete 64-bit ELF file.
    #[error("{0}")]
    Format(String),
}

impl From<object::Error> for ElfError {
    fn from(error: object::Error) -> Self {
        Self::Format(error.to_string())
    }
}

/// What the dynamic loader reads of a file, and where the file has code for GPUs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Elf {
    /// The name under which other files need it.
    pub soname: Option<String>,
    /// Names of the libraries that it needs, in the file's order.
    pub needed: Vec<String>,
    /// Folders in which the loader looks for them, as written (RPATH or RUNPATH; `$ORIGIN` is the file's own folder).
    pub search: Vec<String>,
    /// Symbol versions that it needs: pairs of the library that has the symbol and the version.
    pub versions: BTreeSet<(String, String)>,
    /// The section with code for GPUs: its offset and length in the file, in bytes.
    pub gpu_code: Option<(u64, u64)>,
}

impl Elf {
    /// Reads the headers of a 64-bit ELF file. Large files are not read whole.
    ///
    /// # Errors
    /// [`ElfError::Read`]; [`ElfError::Format`] for any other file, and for one that is truncated.
    pub fn read(path: &Path) -> Result<Self, ElfError> {
        parse(&ReadCache::new(File::open(path)?))
    }

    /// Whether the loader looks in the file's own folder without a change to it, once a library with that RPATH loads it:
    /// an RPATH also holds for what its file loads, unless that file has a search path.
    pub fn finds_its_folder(&self) -> bool {
        self.search.is_empty() || self.search.iter().any(|place| place == ORIGIN)
    }
}

fn parse<'data, R: ReadRef<'data>>(data: R) -> Result<Elf, ElfError> {
    let header = FileHeader64::<Endianness>::parse(data)?;
    let endian = header.endian()?;
    let sections = header.sections(endian, data)?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let mut elf = Elf::default();
    if let Some((entries, strings)) = sections.dynamic(endian, data)? {
        let strings = sections.strings(endian, data, strings)?;
        let string = |at: Option<u32>| {
            let name = at.and_then(|at| strings.get(at).ok()).map(text);
            name.ok_or_else(|| ElfError::Format("a name lies outside of its string table".into()))
        };
        for entry in entries {
            let (Some(tag), at) = (entry.tag32(endian), entry.val32(endian)) else {
                continue;
            };
            match tag {
                DT_NEEDED => elf.needed.push(string(at)?),
                DT_SONAME => elf.soname = Some(string(at)?),
                DT_RPATH | DT_RUNPATH => {
                    let path = string(at)?;
                    let folders = path.split(':').filter(|folder| !folder.is_empty());
                    elf.search.extend(folders.map(str::to_owned));
                }
                _ => {}
            }
        }
    }
    if let Some((mut files, strings)) = sections.gnu_verneed(endian, data)? {
        let strings = sections.strings(endian, data, strings)?;
        while let Some((file, mut versions)) = files.next()? {
            let library = text(file.file(endian, strings)?);
            while let Some(version) = versions.next()? {
                let version = text(version.name(endian, strings)?);
                elf.versions.insert((library.clone(), version));
            }
        }
    }
    if let Some((_, section)) = sections.section_by_name(endian, GPU_SECTION) {
        elf.gpu_code = section.file_range(endian);
    }
    Ok(elf)
}

/// The length in bytes that a file must have at least by its header: the section table stands at the end of a library.
///
/// # Errors
/// [`ElfError::Read`]; [`ElfError::Format`] for a file that does not begin with the header of a 64-bit ELF file.
pub fn length_by_header(path: &Path) -> Result<u64, ElfError> {
    let cache = ReadCache::new(File::open(path)?);
    let header = FileHeader64::<Endianness>::parse(&cache)?;
    let endian = header.endian()?;
    let table = u64::from(header.e_shentsize(endian)) * u64::from(header.e_shnum(endian));
    Ok(header.e_shoff(endian).saturating_add(table))
}

/// Returns the bytes of a library with its own folder as RPATH, whatever search path it had.
///
/// # Errors
/// [`ElfError::Format`] for a file that cannot be rewritten.
pub fn with_own_folder_as_rpath(bytes: &[u8]) -> Result<Vec<u8>, ElfError> {
    let rewrite = || {
        let mut library = object_rewrite::Rewriter::read(bytes)?;
        library.elf_set_runpath(ORIGIN.into())?;
        // Comes before LD_LIBRARY_PATH, see build.rs.
        library.elf_use_rpath()?;
        let mut written = Vec::with_capacity(bytes.len() + (1 << 16));
        library.write(&mut written)?;
        Ok::<_, object_rewrite::Error>(written)
    };
    rewrite().map_err(|error| ElfError::Format(error.to_string()))
}

/// Returns the bytes of a program up to the last byte that is loaded: without the debug information, which is most of it.
///
/// # Errors
/// [`ElfError::Format`] for a file that is not a complete 64-bit ELF file.
pub fn stripped(bytes: &[u8]) -> Result<Vec<u8>, ElfError> {
    let truncated = || ElfError::Format("it is truncated".to_owned());
    let header = FileHeader64::<Endianness>::parse(bytes)?;
    let endian = header.endian()?;
    let end = header
        .program_headers(endian, bytes)?
        .iter()
        .filter(|part| ![PT_NULL, PT_GNU_STACK].contains(&part.p_type(endian)))
        .map(|part| part.p_offset(endian).saturating_add(part.p_filesz(endian)))
        .max();
    let end = usize::try_from(end.unwrap_or(0)).unwrap_or(usize::MAX);
    let mut kept = bytes.get(..end).ok_or_else(truncated)?.to_vec();
    let (header, _) =
        object::from_bytes_mut::<FileHeader64<Endianness>>(&mut kept).map_err(|()| truncated())?;
    // The section table is cut off with the sections that it lists.
    header.e_shoff = U64::new(endian, 0);
    header.e_shnum = U16::new(endian, 0);
    header.e_shstrndx = U16::new(endian, 0);
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shared_library::Glibc;

    #[test]
    fn the_headers_of_this_program_are_read() {
        let program = std::env::current_exe().unwrap();
        let elf = Elf::read(&program).unwrap();
        assert!(
            elf.needed.iter().any(|name| name.starts_with("libc.so")),
            "{elf:?}"
        );
        assert!(Glibc::needed_by(&elf).unwrap() >= Glibc(2, 2), "{elf:?}");
        assert_eq!(elf.gpu_code, None);
        let length = std::fs::metadata(&program).unwrap().len();
        assert!(length_by_header(&program).unwrap() <= length);
    }

    #[test]
    fn other_files_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        for bytes in [b"".as_slice(), b"\x7fELF", &[0; 64]] {
            std::fs::write(&file, bytes).unwrap();
            for result in [
                Elf::read(&file).map(drop),
                length_by_header(&file).map(drop),
            ] {
                assert!(matches!(result, Err(ElfError::Format(_))), "{result:?}");
            }
        }
        let missing = Elf::read(&folder.path().join("missing"));
        assert!(matches!(missing, Err(ElfError::Read(_))), "{missing:?}");
    }
}
