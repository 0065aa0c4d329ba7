//! Finds what a package is made from: the program, and folders with Python wheels, which pip may fetch.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::error::PackageError;
use super::runtime::RuntimeSet;
use super::wheels;
use crate::shared_library::Elf;

/// Where the wheels are taken from. If all are empty, a `.venv` is used.
#[derive(Debug, Clone, Default)]
pub struct WheelSources {
    /// Wheel files.
    pub files: Vec<PathBuf>,
    /// Folders with installed wheels: of `pip install --target`, or virtual environments.
    pub folders: Vec<PathBuf>,
    /// Whether pip fetches the wheels.
    pub download: bool,
}

/// The program to pack: this one, or another one of the same version, so that its crates and their licences are known.
///
/// # Errors
/// The other program cannot be run or is of another version.
pub fn program(other: Option<&Path>) -> Result<PathBuf, PackageError> {
    let Some(program) = other else {
        return std::env::current_exe().map_err(PackageError::read(Path::new("/proc/self/exe")));
    };
    Elf::read(program).map_err(PackageError::elf(program))?;
    let path = program
        .canonicalize()
        .map_err(PackageError::read(program))?;
    let output = Command::new(&path)
        .arg("--version")
        .output()
        .map_err(|source| PackageError::Run {
            file: program.to_path_buf(),
            source,
        })?;
    let found = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let expected = format!("snow-ort {}", env!("CARGO_PKG_VERSION"));
    if found != expected {
        return Err(PackageError::Version {
            file: program.to_path_buf(),
            found,
            expected,
        });
    }
    Ok(path)
}

/// Folders with the distributions that a package of `set` may need. Wheel files are unpacked below `scratch`. `tell` gets each
/// step in words.
///
/// # Errors
/// A wheel cannot be unpacked or fetched, or there is no `.venv` and no other source.
pub fn distributions(
    sources: &WheelSources,
    set: RuntimeSet,
    with_cuda: bool,
    scratch: &Path,
    tell: &dyn Fn(&str),
) -> Result<Vec<PathBuf>, PackageError> {
    let mut folders = Vec::new();
    for (number, wheel) in sources.files.iter().enumerate() {
        let folder = scratch.join(format!("wheel-{number}"));
        wheels::unpack(wheel, &folder)?;
        folders.push(folder);
    }
    for dir in &sources.folders {
        folders.push(site_packages(dir).unwrap_or_else(|| dir.clone()));
    }
    if sources.download {
        let pip = Pip {
            wheels: scratch.join("wheels"),
            unpacked: scratch.join("unpacked"),
            tell,
        };
        pip.fetch_set(set, with_cuda)?;
        folders.push(pip.unpacked);
    }
    if folders.is_empty() {
        let here = Path::new(".");
        let here = here.canonicalize().map_err(PackageError::read(here))?;
        let venv = here
            .ancestors()
            .map(|folder| folder.join(".venv"))
            .find_map(|venv| site_packages(&venv));
        folders.push(venv.ok_or_else(|| PackageError::NoVenv {
            folder: here.clone(),
            requirement: set.requirement(),
        })?);
    }
    Ok(folders)
}

/// The folder with the packages of a virtual environment; `None` if it has none.
fn site_packages(venv: &Path) -> Option<PathBuf> {
    let pythons = std::fs::read_dir(venv.join("lib")).ok()?.flatten();
    let mut found: Vec<PathBuf> = pythons
        .map(|entry| entry.path().join("site-packages"))
        .filter(|path| path.is_dir())
        .collect();
    found.sort();
    found.pop()
}

/// Fetches wheels with pip and unpacks them.
struct Pip<'t> {
    /// The folder for wheel files.
    wheels: PathBuf,
    /// The folder into which they are unpacked.
    unpacked: PathBuf,
    /// Gets each step in words.
    tell: &'t dyn Fn(&str),
}

impl Pip<'_> {
    /// Fetches the wheels of a set.
    fn fetch_set(&self, set: RuntimeSet, with_cuda: bool) -> Result<(), PackageError> {
        self.fetch(&set.requirement(), &[])?;
        if !with_cuda {
            return Ok(());
        }
        let bounds: Vec<String> = set
            .bounds()
            .iter()
            .map(|(name, below)| format!("{name}<{}.{}", below.0, below.1))
            .collect();
        // The wheel names the wheels of NVIDIA that it needs. Its other requirements are Python packages.
        loop {
            let available = wheels::installed(&self.unpacked)?;
            let runtime = set.find(&available, &[])?;
            let (_, missing) = wheels::required(&runtime, &["cuda", "cudnn"], &available);
            let Some(name) = missing.into_iter().next() else {
                return Ok(());
            };
            let mut stated = available.values().flat_map(|one| &one.requirements);
            let requirement = stated.find(|text| wheels::required_name(text) == name);
            self.fetch(requirement.unwrap_or(&name), &bounds)?;
        }
    }

    /// Fetches and unpacks one wheel, with `bounds` on the versions of wheels.
    fn fetch(&self, requirement: &str, bounds: &[String]) -> Result<(), PackageError> {
        (self.tell)(&format!("fetching {requirement} with pip"));
        let folder = &self.wheels;
        std::fs::create_dir_all(folder).map_err(PackageError::written(folder))?;
        let before = wheel_files(folder)?;
        let constraints = folder.join("constraints.txt");
        std::fs::write(&constraints, bounds.join("\n"))
            .map_err(PackageError::written(&constraints))?;
        let arguments: [&OsStr; 11] = [
            "-m".as_ref(),
            "pip".as_ref(),
            "download".as_ref(),
            "--quiet".as_ref(),
            "--no-deps".as_ref(),
            "--only-binary=:all:".as_ref(),
            "--constraint".as_ref(),
            constraints.as_os_str(),
            "--dest".as_ref(),
            folder.as_os_str(),
            requirement.as_ref(),
        ];
        let has_pip = |python: &&str| {
            let version = ["-m", "pip", "--version"];
            let ran = Command::new(python).args(version).output();
            ran.is_ok_and(|ran| ran.status.success())
        };
        let pythons = [".venv/bin/python", "python3", "python"];
        let missing = || PackageError::Tool {
            tool: "Python's pip",
            purpose: "fetches wheels",
        };
        let python = pythons.into_iter().find(has_pip).ok_or_else(missing)?;
        let ran = Command::new(python).args(arguments).output();
        let failed = |reason: String| PackageError::Pip {
            requirement: requirement.to_owned(),
            reason,
        };
        let output = ran.map_err(|error| failed(error.to_string()))?;
        if !output.status.success() {
            let errors = String::from_utf8_lossy(&output.stderr);
            let last = errors.trim().lines().last();
            return Err(failed(last.unwrap_or("it gave no reason").to_owned()));
        }
        let wheels = wheel_files(folder)?;
        for wheel in wheels.iter().filter(|wheel| !before.contains(wheel)) {
            wheels::unpack(wheel, &self.unpacked)?;
        }
        Ok(())
    }
}

/// The wheel files in a folder, in name order.
fn wheel_files(folder: &Path) -> Result<Vec<PathBuf>, PackageError> {
    let entries = std::fs::read_dir(folder).map_err(PackageError::read(folder))?;
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    files.retain(|file| file.extension().is_some_and(|ending| ending == "whl"));
    files.sort();
    Ok(files)
}
