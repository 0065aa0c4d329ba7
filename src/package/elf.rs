//! What a program or a library says of itself in its ELF headers, and the two changes that a package makes to it.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::Path;

use object::elf::{
    DT_NEEDED, DT_RPATH, DT_RUNPATH, DT_SONAME, FileHeader64, PT_GNU_STACK, PT_NULL,
};
use object::read::elf::{Dyn as _, FileHeader as _, ProgramHeader as _};
use object::{Endianness, ReadCache, ReadRef, U16, U64};

use super::PackageError;

/// The path entry of every library of a package: its own folder.
const ORIGIN: &str = "$ORIGIN";

/// What the dynamic loader reads of a file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Elf {
    /// The name under which others ask for it.
    pub soname: Option<String>,
    /// The libraries that it asks for, in the file's order.
    pub needed: Vec<String>,
    /// Where it has them looked for (RPATH or RUNPATH).
    pub search: Vec<String>,
    /// Symbol versions that it expects, each with the library it expects them of.
    pub versions: BTreeSet<(String, String)>,
}

impl Elf {
    /// Reads a file's headers; large files are not read whole.
    ///
    /// # Errors
    /// [`PackageError::Read`], or [`PackageError::Elf`] for a file that is no 64-bit ELF file.
    pub fn read(path: &Path) -> Result<Self, PackageError> {
        let file = File::open(path).map_err(PackageError::read(path))?;
        parse(&ReadCache::new(file)).map_err(|reason| PackageError::Elf {
            file: path.to_path_buf(),
            reason,
        })
    }

    /// Whether libraries in its own folder are found without a change, once a library that has it as RPATH loads this one:
    /// an RPATH holds for what is loaded by its file too, unless that names places itself.
    pub fn finds_its_folder(&self) -> bool {
        self.search.is_empty() || self.search.iter().any(|place| place == ORIGIN)
    }
}

fn parse<'data, R: ReadRef<'data>>(data: R) -> Result<Elf, String> {
    let said = |error: object::Error| error.to_string();
    let broken = || "a name in it lies outside of its table of names".to_owned();
    let header = FileHeader64::<Endianness>::parse(data).map_err(said)?;
    let endian = header.endian().map_err(said)?;
    let sections = header.sections(endian, data).map_err(said)?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let mut elf = Elf::default();
    if let Some((entries, strings)) = sections.dynamic(endian, data).map_err(said)? {
        let strings = sections.strings(endian, data, strings).map_err(said)?;
        let string = |at: Option<u32>| {
            let found = at.and_then(|at| strings.get(at).ok());
            found.map(text).ok_or_else(broken)
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
                    elf.search.extend(
                        path.split(':')
                            .filter(|part| !part.is_empty())
                            .map(str::to_owned),
                    );
                }
                _ => {}
            }
        }
    }
    if let Some((mut files, strings)) = sections.gnu_verneed(endian, data).map_err(said)? {
        let strings = sections.strings(endian, data, strings).map_err(said)?;
        while let Some((file, mut versions)) = files.next().map_err(said)? {
            let of = text(file.file(endian, strings).map_err(said)?);
            while let Some(version) = versions.next().map_err(said)? {
                let version = text(version.name(endian, strings).map_err(said)?);
                elf.versions.insert((of.clone(), version));
            }
        }
    }
    Ok(elf)
}

/// A library's bytes, made to look for others in its own folder.
///
/// # Errors
/// [`PackageError::Elf`] for a file that cannot be laid out anew.
pub fn beside_itself(bytes: &[u8], path: &Path) -> Result<Vec<u8>, PackageError> {
    let rewrite = || {
        let mut library = object_rewrite::Rewriter::read(bytes)?;
        library.elf_set_runpath(ORIGIN.into())?;
        // Comes before LD_LIBRARY_PATH, see build.rs.
        library.elf_use_rpath()?;
        let mut written = Vec::with_capacity(bytes.len() + (1 << 16));
        library.write(&mut written)?;
        Ok::<_, object_rewrite::Error>(written)
    };
    rewrite().map_err(|error| PackageError::Elf {
        file: path.to_path_buf(),
        reason: error.to_string(),
    })
}

/// A program's bytes up to the last that is loaded: without debugger's tables, which are most of it.
///
/// # Errors
/// [`PackageError::Elf`] for a file that is no 64-bit ELF file.
pub fn stripped(bytes: &[u8], path: &Path) -> Result<Vec<u8>, PackageError> {
    let failed = |reason: String| PackageError::Elf {
        file: path.to_path_buf(),
        reason,
    };
    let end = || {
        let header = FileHeader64::<Endianness>::parse(bytes)?;
        let endian = header.endian()?;
        let loaded = header
            .program_headers(endian, bytes)?
            .iter()
            .filter(|part| ![PT_NULL, PT_GNU_STACK].contains(&part.p_type(endian)))
            .map(|part| part.p_offset(endian).saturating_add(part.p_filesz(endian)))
            .max();
        Ok::<_, object::Error>((endian, loaded.unwrap_or(0)))
    };
    let (endian, end) = end().map_err(|error| failed(error.to_string()))?;
    let end = usize::try_from(end).unwrap_or(usize::MAX);
    let kept = bytes
        .get(..end)
        .ok_or_else(|| failed("it is truncated".to_owned()))?;
    let mut kept = kept.to_vec();
    let (header, _) = object::from_bytes_mut::<FileHeader64<Endianness>>(&mut kept)
        .map_err(|()| failed("it is truncated".to_owned()))?;
    // The table of sections went with what it lists.
    header.e_shoff = U64::new(endian, 0);
    header.e_shnum = U16::new(endian, 0);
    header.e_shstrndx = U16::new(endian, 0);
    Ok(kept)
}
