//! The program and the shared libraries of a package: where each is from, and the glibc that they need.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::closure::{self, Places};
use super::debian::{self, Installed};
use super::error::PackageError;
use super::manifest::{Needs, PartNeeds};
use super::recipe::Recipe;
use super::wheels::{self, Distribution};
use crate::shared_library::{Elf, Glibc};

/// The folder where the program searches for its libraries (see build.rs).
const LIB: &str = "$ORIGIN/lib";
/// The file with FFmpeg's version that scripts/build-ffmpeg writes.
const FFMPEG_VERSION: &str = "VERSION";
/// The program's name.
pub(super) const PROGRAM: &str = "snow-ort";

/// A library to pack.
pub(super) struct Library {
    /// Its file.
    pub path: PathBuf,
    /// Its headers.
    pub elf: Elf,
    /// Where it is from.
    pub origin: Origin,
}

/// Where a library is from.
pub(super) enum Origin {
    /// A Python wheel.
    Wheel(Distribution),
    /// The FFmpeg of this version that scripts/build-ffmpeg built.
    Ffmpeg(String),
    /// A Debian package.
    System,
}

/// The libraries of a package.
pub(super) struct Libraries {
    /// Those to pack, by name.
    pub inside: BTreeMap<String, Library>,
    /// Names of those that the machine must have.
    pub outside: Vec<String>,
    /// The Debian package of each file that is from the system.
    pub owners: BTreeMap<PathBuf, Installed>,
}

impl Libraries {
    /// The package, wheel or build that a library belongs to, in words.
    pub(super) fn part(&self, library: &Library) -> String {
        match &library.origin {
            Origin::Wheel(distribution) => distribution.title(),
            Origin::Ffmpeg(version) => format!("ffmpeg {version}"),
            Origin::System => self
                .owners
                .get(&library.path)
                .map(Installed::title)
                .unwrap_or_default(),
        }
    }

    /// Whether FFmpeg is among them.
    pub(super) fn have_video(&self) -> bool {
        let mut names = self.inside.keys();
        names.any(|name| name.starts_with("libavcodec."))
    }

    /// Version of the FFmpeg that scripts/build-ffmpeg built; `None` if it is the system's.
    pub(super) fn ffmpeg(&self) -> Option<&str> {
        let mut all = self.inside.values();
        all.find_map(|library| match &library.origin {
            Origin::Ffmpeg(version) => Some(version.as_str()),
            _ => None,
        })
    }
}

/// The program's file.
pub(super) struct Program {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Its headers.
    pub elf: Elf,
}

/// Reads the program and checks that it finds its libraries in a package.
pub(super) fn program(path: &Path) -> Result<Program, PackageError> {
    let elf = Elf::read(path).map_err(PackageError::elf(path))?;
    if elf.search.first().is_none_or(|first| first != LIB) {
        return Err(PackageError::Search {
            file: path.to_path_buf(),
            search: elf.search.join(":"),
        });
    }
    let bytes = fs::read(path).map_err(PackageError::read(path))?;
    Ok(Program { bytes, elf })
}

/// The Python distributions in all folders, by name.
pub(super) fn available(
    folders: &[PathBuf],
) -> Result<BTreeMap<String, Distribution>, PackageError> {
    let mut available = BTreeMap::new();
    for folder in folders {
        for (name, distribution) in wheels::installed(folder)? {
            available.entry(name).or_insert(distribution);
        }
    }
    Ok(available)
}

/// Finds all libraries that the program and the wheels need.
///
/// # Errors
/// A library is missing, damaged, or from the system and of no Debian package.
pub(super) fn libraries(
    recipe: &Recipe,
    program: &Program,
    runtime: &Distribution,
    cuda: &[Distribution],
) -> Result<Libraries, PackageError> {
    let mut inside = of_wheels(recipe, runtime, cuda)?;
    let needed = |(name, library): (&String, &Library)| (name.clone(), library.elf.needed.clone());
    let mut start: BTreeMap<String, Vec<String>> = inside.iter().map(needed).collect();
    start.insert(PROGRAM.to_owned(), program.elf.needed.clone());

    let ffmpeg = recipe.ffmpeg.as_deref().map(Ffmpeg::new).transpose()?;
    let first = ffmpeg.iter().map(|own| own.lib.clone()).collect();
    let mut places = Places::new(first)?;
    let closure = closure::close::<PackageError>(&start, |name, by| {
        if closure::left_to_the_system(name, !cuda.is_empty()) {
            return Ok(None);
        }
        let path = places.find(name).ok_or_else(|| PackageError::NoLibrary {
            name: name.to_owned(),
            by: by.to_owned(),
        })?;
        let elf = Elf::read(&path).map_err(PackageError::elf(&path))?;
        places.learn(&elf, &path);
        let needed = elf.needed.clone();
        let origin = match &ffmpeg {
            Some(own) if path.starts_with(&own.lib) => Origin::Ffmpeg(own.version.clone()),
            _ => Origin::System,
        };
        inside.insert(name.to_owned(), Library { path, elf, origin });
        Ok(Some(needed))
    })?;
    let system = inside
        .values()
        .filter(|library| matches!(library.origin, Origin::System));
    let owners = debian::owners(&system.map(|library| library.path.clone()).collect())?;
    Ok(Libraries {
        inside,
        outside: closure.outside.into_iter().collect(),
        owners,
    })
}

/// The libraries of the wheels, by name.
fn of_wheels(
    recipe: &Recipe,
    runtime: &Distribution,
    cuda: &[Distribution],
) -> Result<BTreeMap<String, Library>, PackageError> {
    let mut libraries = BTreeMap::new();
    for distribution in [runtime].into_iter().chain(cuda) {
        let is_runtime = distribution.name == runtime.name;
        for (name, path) in distribution.libraries() {
            if is_runtime && !recipe.runtime.takes(&name) {
                continue;
            }
            let elf = Elf::read(&path).map_err(PackageError::elf(&path))?;
            let origin = Origin::Wheel(distribution.clone());
            libraries.insert(name, Library { path, elf, origin });
        }
    }
    let mut required = vec!["libonnxruntime.so."];
    if recipe.runtime.is_cuda() {
        required.push("libonnxruntime_providers_cuda.so");
    }
    for library in required {
        if !libraries.keys().any(|name| name.starts_with(library)) {
            return Err(PackageError::NotInWheel {
                wheel: runtime.title(),
                library: library.trim_end_matches('.').to_owned(),
            });
        }
    }
    Ok(libraries)
}

/// The folder that scripts/build-ffmpeg made.
struct Ffmpeg {
    lib: PathBuf,
    version: String,
}

impl Ffmpeg {
    fn new(dir: &Path) -> Result<Self, PackageError> {
        let file = dir.join(FFMPEG_VERSION);
        let version = fs::read_to_string(&file).map_err(PackageError::read(&file))?;
        Ok(Self {
            lib: dir.join("lib"),
            version: version.trim().to_owned(),
        })
    }
}

/// What the machine must have for a package.
pub(super) fn needs(
    recipe: &Recipe,
    program: &Program,
    libraries: &Libraries,
    version: &str,
) -> Needs {
    let mut parts: BTreeMap<String, Glibc> = BTreeMap::new();
    for library in libraries.inside.values() {
        if let Some(glibc) = Glibc::needed_by(&library.elf) {
            let known = parts.entry(libraries.part(library)).or_insert(glibc);
            *known = glibc.max(*known);
        }
    }
    let own = Glibc::needed_by(&program.elf);
    let entry = |(part, glibc): (String, Glibc)| PartNeeds {
        part,
        glibc: glibc.to_string(),
    };
    let newest = parts.values().copied().chain(own).max();
    let own = own.map(|glibc| (format!("{PROGRAM} {version}"), glibc));
    let gpu = recipe.runtime.gpu();
    Needs {
        glibc: newest.unwrap_or(Glibc(2, 0)).to_string(),
        glibc_by_part: own.into_iter().chain(parts).map(entry).collect(),
        libraries: libraries.outside.clone(),
        nvidia_driver: gpu.map(|(driver, _)| driver.to_owned()),
        compute_capability: gpu.map(|(_, capability)| capability.to_owned()),
    }
}
