//! Why a package cannot be made.

use std::io;
use std::path::{Path, PathBuf};

use crate::shared_library::ElfError;

/// Why a package cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum PackageError {
    /// A file cannot be read.
    #[error("cannot read {}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// A file cannot be written.
    #[error("cannot write {}", file.display())]
    Write {
        /// The file.
        file: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// A program cannot be run.
    #[error("cannot run {}", file.display())]
    Run {
        /// The program.
        file: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// A file is not a program or library that can be packed.
    #[error(
        "{} cannot go into a package: {source}; expected a 64-bit ELF program or library",
        file.display()
    )]
    Elf {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        source: ElfError,
    },
    /// The program would not find its libraries in a package.
    #[error(
        "{} does not search for libraries in the folder lib beside it, but in [{search}]; build it with this project's build.rs",
        file.display()
    )]
    Search {
        /// The program.
        file: PathBuf,
        /// Where it searches.
        search: String,
    },
    /// A program to pack is of another version, so that its crates and their licences are unknown.
    #[error(
        "{} says {found:?} for its version, expected {expected:?}; build it from this version",
        file.display()
    )]
    Version {
        /// The program.
        file: PathBuf,
        /// What it printed.
        found: String,
        /// The version of the program that packs it.
        expected: String,
    },
    /// A library cannot be found.
    #[error(
        "cannot find {name} (needed by {by}) on the loader's search path; install it, or give a folder that holds it"
    )]
    NoLibrary {
        /// The library.
        name: String,
        /// The file that needs it.
        by: String,
    },
    /// No folder with Python packages was found.
    #[error("no .venv in {} or a folder above has Python packages", folder.display())]
    NoVenv {
        /// The folder where the search started.
        folder: PathBuf,
        /// The wheel that is needed, as pip takes it.
        requirement: String,
    },
    /// ONNX Runtime's wheel was not found.
    #[error("the set {set} takes {requirement}, {found}")]
    NoWheel {
        /// Name of the set.
        set: &'static str,
        /// The wheel, as pip takes it.
        requirement: String,
        /// What was found instead.
        found: String,
    },
    /// NVIDIA's wheels were not found, or are too new.
    #[error("CUDA's libraries cannot go into a package: {problems}")]
    NoCudaWheels {
        /// The wheels that are missing or too new.
        problems: String,
        /// The wheels to install, as pip takes them.
        install: String,
    },
    /// A file is not a wheel, or a wheel is damaged.
    #[error("{}: {reason}", place.display())]
    Wheel {
        /// The wheel, or a file of it.
        place: PathBuf,
        /// What is wrong and what to do.
        reason: String,
    },
    /// The wheel lacks a library that the set needs.
    #[error("{wheel} has no {library}; install it again, or another build of it")]
    NotInWheel {
        /// The wheel.
        wheel: String,
        /// The library.
        library: String,
    },
    /// The licence of a library is unknown.
    #[error(
        "no installed Debian package owns {}, so its licence is unknown and it cannot go into a package; use the library of the distribution",
        file.display()
    )]
    NoLicence {
        /// The library.
        file: PathBuf,
    },
    /// The licences of the crates in the program are unknown.
    #[error(
        "the licences of the crates in this program are unknown: {reason}; build it where Cargo has the sources of all crates (`cargo fetch --locked`)"
    )]
    CrateLicences {
        /// What build.rs could not read.
        reason: String,
    },
    /// pip failed.
    #[error("pip cannot fetch {requirement}: {reason}")]
    Pip {
        /// The wheel, as pip takes it.
        requirement: String,
        /// The last line that pip printed.
        reason: String,
    },
    /// A program that is needed cannot be run.
    #[error("{tool} is missing: it {purpose}")]
    Tool {
        /// The program.
        tool: &'static str,
        /// What it is for.
        purpose: &'static str,
    },
    /// A file changed while it was packed.
    #[error("{} changed while it was packed; run the command again", file.display())]
    Changed {
        /// The file.
        file: PathBuf,
    },
    /// Two bundles have the same name.
    #[error("two bundles are called {name}: {} and {}; rename a folder", first.display(), second.display())]
    SameName {
        /// The name.
        name: String,
        /// The first folder.
        first: PathBuf,
        /// The second folder.
        second: PathBuf,
    },
    /// A bundle cannot be run.
    #[error(transparent)]
    Bundle(#[from] crate::bundle::BundleError),
}

impl PackageError {
    /// For `map_err` after a file was read.
    pub(super) fn read(file: &Path) -> impl FnOnce(io::Error) -> Self {
        let file = file.to_path_buf();
        move |source| Self::Read { file, source }
    }

    /// For `map_err` after a file was written.
    pub(super) fn written(file: &Path) -> impl FnOnce(io::Error) -> Self {
        let file = file.to_path_buf();
        move |source| Self::Write { file, source }
    }

    /// For `map_err` after the ELF headers of a file were read or changed.
    pub(super) fn elf(file: &Path) -> impl FnOnce(ElfError) -> Self {
        let file = file.to_path_buf();
        move |source| Self::Elf { file, source }
    }
}
