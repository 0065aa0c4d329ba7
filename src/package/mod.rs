//! Packages: the program with all that it needs except glibc, in one archive that is the same for the same inputs.
//!
//! [`collect`] decides what goes in, [`archive::write`] writes it. Nothing is fetched here.

pub mod archive;
mod bom;
mod closure;
mod crates;
mod debian;
pub mod elf;
pub mod glibc;
mod manifest;
mod notes;
mod parts;
mod runtime;
pub mod wheels;

use std::io;
use std::path::{Path, PathBuf};

pub use manifest::{MANIFEST, Manifest};
pub use parts::collect;
pub use runtime::RuntimeSet;

/// What a package is made of.
#[derive(Debug, Clone)]
pub struct Recipe {
    /// The program.
    pub program: PathBuf,
    /// The set of ONNX Runtime's libraries.
    pub runtime: RuntimeSet,
    /// Folders of Python distributions, such as site-packages; the first that has a distribution is taken.
    pub distributions: Vec<PathBuf>,
    /// Whether CUDA's libraries go along.
    pub cuda: bool,
    /// FFmpeg's libraries in a folder of their own: what scripts/build-ffmpeg made.
    pub ffmpeg: Option<PathBuf>,
    /// Bundles.
    pub bundles: Vec<PathBuf>,
}

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
    /// The archive cannot be written.
    #[error("cannot write {}", file.display())]
    Write {
        /// The archive.
        file: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// A program or library is not one.
    #[error(
        "{} cannot go into a package: {reason}; expected a 64-bit ELF program or library",
        file.display()
    )]
    Elf {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The program would not find its libraries in a package.
    #[error(
        "{} does not look for libraries in lib/ beside itself, but in [{search}]; build it with this project's build.rs",
        file.display()
    )]
    Search {
        /// The program.
        file: PathBuf,
        /// Where it looks.
        search: String,
    },
    /// A library is nowhere.
    #[error(
        "{name}, which {by} needs, is on this system in no place that the loader looks at; install it, or give a folder that has it"
    )]
    NoLibrary {
        /// The library.
        name: String,
        /// Who needs it.
        by: String,
    },
    /// ONNX Runtime's wheel is not at hand.
    #[error(
        "the set {set} takes {requirement}, {found}; install it in a folder with `pip install --no-deps --target DIR {requirement}` and give --runtime-dir DIR, give its wheel with --wheel, or let pip fetch it with --download"
    )]
    NoWheel {
        /// The set.
        set: RuntimeSet,
        /// The wheel, as pip takes it.
        requirement: String,
        /// What was found instead.
        found: String,
    },
    /// NVIDIA's wheels are not at hand.
    #[error(
        "--with-cuda-libs: {problems}; install them in a folder with `pip install --target DIR {install}` and give --runtime-dir DIR, or let pip fetch them with --download"
    )]
    NoCudaWheels {
        /// What is missing or does not fit.
        problems: String,
        /// What to install.
        install: String,
    },
    /// A wheel is damaged or not one.
    #[error("{}: {reason}", place.display())]
    Wheel {
        /// The wheel, or a file of it.
        place: PathBuf,
        /// What is wrong and what to do.
        reason: String,
    },
    /// The wheel lacks what the set needs of it.
    #[error("{wheel} has no {library}; install it again, or another build of it")]
    NotInWheel {
        /// The wheel.
        wheel: String,
        /// The library.
        library: String,
    },
    /// A library whose licence nobody knows.
    #[error(
        "no installed Debian package owns {}, so its licence is not known and it cannot go into a package; take the library of the distribution (for FFmpeg: scripts/build-ffmpeg and --ffmpeg-dir)",
        file.display()
    )]
    NoLicence {
        /// The library.
        file: PathBuf,
    },
    /// A program that is needed is not there.
    #[error("{tool} is missing: it {purpose}")]
    Tool {
        /// The program.
        tool: &'static str,
        /// What it is for.
        purpose: &'static str,
    },
    /// A file was changed while it was packed.
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
        /// One.
        first: PathBuf,
        /// The other.
        second: PathBuf,
    },
    /// A bundle cannot be run.
    #[error(transparent)]
    Bundle(#[from] crate::bundle::BundleError),
}

impl PackageError {
    /// For `map_err` where `file` is read.
    fn read(file: &Path) -> impl FnOnce(io::Error) -> Self {
        let file = file.to_path_buf();
        move |source| Self::Read { file, source }
    }
}
