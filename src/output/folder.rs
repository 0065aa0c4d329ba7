//! A folder whose parts appear all at once or not at all.
//!
//! The process that holds the lock on the staging folder's `pid` file writes there. The kernel releases the lock when
//! the process ends, however it ends. A run that is killed during its commit leaves one of two states: while `old/`
//! exists, the earlier run's parts are being moved into it; once that is renamed to `replaced/`, the new run's parts
//! are being moved out of `new/`. The next run finishes either.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::{
    KEPT, OutputError, Unfinished, create_parents, io_error, move_without_replacing, remove_created,
};

const NEW: &str = "new";
const OLD: &str = "old";
const REPLACED: &str = "replaced";
const PID: &str = "pid";
/// The smallest number of digits of a frame's number in a file name.
const MIN_DIGITS: usize = 5;

/// The kind of an output folder: it decides which names in it belong to a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// `masks/`, `tracks.json` and `run.json`.
    Run,
    /// `00000.safetensors`, …
    Logits,
    /// `masks/`, `overlays/` and `detections.json`.
    Detections,
}

/// Folders of numbered PNGs among the parts.
const PICTURES: [&str; 2] = ["masks", "overlays"];

impl Content {
    fn owns(self, name: &OsStr) -> bool {
        let Some(name) = name.to_str() else {
            return false;
        };
        match self {
            Self::Run => ["masks", "tracks.json", "run.json"].contains(&name),
            Self::Logits => is_numbered(name, ".safetensors"),
            Self::Detections => PICTURES.contains(&name) || name == "detections.json",
        }
    }

    /// The first file or folder that a commit would delete although no run writes such a one.
    fn foreign_in(self, dir: &Path) -> Result<Option<PathBuf>, OutputError> {
        let read = |path: &Path| {
            self.found_in(path)
                .map_err(io_error("read the folder", path))
        };
        for name in read(dir)? {
            let path = dir.join(&name);
            if self == Self::Logits || !PICTURES.iter().any(|pictures| name == *pictures) {
                if path.is_dir() {
                    return Ok(Some(path));
                }
                continue;
            }
            if !path.is_dir() {
                return Ok(Some(path));
            }
            let mut names = Vec::new();
            for entry in fs::read_dir(&path).map_err(io_error("read the folder", &path))? {
                let entry = entry.map_err(io_error("read the folder", &path))?;
                let ours = is_numbered(&entry.file_name().to_string_lossy(), ".png")
                    && !entry.path().is_dir();
                if !ours {
                    names.push(entry.path());
                }
            }
            names.sort();
            if let Some(first) = names.into_iter().next() {
                return Ok(Some(first));
            }
        }
        Ok(None)
    }

    fn staging_name(self) -> &'static str {
        match self {
            Self::Run => ".snow-ort-run.partial",
            Self::Logits => ".snow-ort-logits.partial",
            Self::Detections => ".snow-ort-detections.partial",
        }
    }

    /// Names of a run's parts in `dir`, in name order.
    fn found_in(self, dir: &Path) -> io::Result<Vec<OsString>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(dir)? {
            let name = entry?.file_name();
            if self.owns(&name) {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }
}

fn is_numbered(name: &str, ending: &str) -> bool {
    name.strip_suffix(ending).is_some_and(|stem| {
        stem.len() >= MIN_DIGITS && stem.bytes().all(|byte| byte.is_ascii_digit())
    })
}

/// Whether `path` is or lies in a staging folder, which goes away at the end of its run.
pub fn holds_staging(path: &Path) -> bool {
    path.components().any(|part| {
        [Content::Run, Content::Logits, Content::Detections]
            .iter()
            .any(|content| part.as_os_str() == content.staging_name())
    })
}

/// An output folder under construction.
#[derive(Debug)]
pub struct StagedDir {
    dir: PathBuf,
    staging: PathBuf,
    content: Content,
    replaces: bool,
    created: Vec<PathBuf>,
    unfinished: Unfinished,
    committed: bool,
    /// Held until the staging folder is gone.
    lock: Option<File>,
}

impl StagedDir {
    /// Creates `dir` if it does not exist, and the staging folder inside it.
    ///
    /// # Errors
    ///
    /// `dir` holds a run and `overwrite` is false; another run is writing to it; it cannot be written to.
    pub fn create(
        dir: &Path,
        content: Content,
        overwrite: bool,
        unfinished: &Unfinished,
    ) -> Result<Self, OutputError> {
        let mut staged = Self {
            dir: dir.to_path_buf(),
            staging: dir.join(content.staging_name()),
            content,
            replaces: false,
            created: Vec::new(),
            unfinished: unfinished.clone(),
            committed: false,
            lock: None,
        };
        // From here on an early return drops `staged`, which removes the folders made so far.
        create_parents(dir, &mut staged.created, unfinished)?;
        match staged.claim() {
            Ok(lock) => staged.lock = Some(lock),
            Err(error) => {
                staged.staging = PathBuf::new();
                return Err(error);
            }
        }
        staged.recover()?;
        let new = staged.path();
        fs::create_dir(&new).map_err(io_error("create the folder", &new))?;

        let found = content
            .found_in(dir)
            .map_err(io_error("read the folder", dir))?;
        if !found.is_empty() && !overwrite {
            let names: Vec<_> = found
                .iter()
                .take(3)
                .map(|name| name.to_string_lossy())
                .collect();
            return Err(OutputError::Exists {
                dir: dir.to_path_buf(),
                found: names.join(", "),
            });
        }
        if let Some(path) = content.foreign_in(dir)? {
            return Err(OutputError::Foreign { path });
        }
        staged.replaces = !found.is_empty();
        Ok(staged)
    }

    /// The folder to write to until the commit.
    pub fn path(&self) -> PathBuf {
        self.staging.join(NEW)
    }

    /// The final folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Whether the folder holds an earlier run that a commit replaces.
    pub fn replaces(&self) -> bool {
        self.replaces
    }

    /// Moves everything to its final name, in place of an earlier run.
    ///
    /// # Errors
    ///
    /// Something cannot be moved; the earlier run is then back in its place. Or something has got a final name since
    /// [`StagedDir::create`]; the results are then in the subfolder `kept`.
    pub fn commit(mut self) -> Result<PathBuf, OutputError> {
        if let Some(path) = self.appeared()? {
            return Err(OutputError::Appeared {
                path,
                kept: self.commit_beside(KEPT)?,
            });
        }
        let unfinished = self.unfinished.clone();
        let mut registered = unfinished.lock();
        let old = self.staging.join(OLD);
        if let Err(error) = fs::create_dir(&old) {
            drop(registered);
            return Err(io_error("create the folder", &old)(error));
        }
        let replaced = match move_content(self.content, &self.dir, &old) {
            Ok(replaced) => replaced,
            Err((moved, error)) => {
                put_back(&moved, &old, &self.dir);
                // `self` is dropped on return and needs the lock for that.
                drop(registered);
                return Err(error);
            }
        };
        let aside = self.staging.join(REPLACED);
        if let Err(error) = fs::rename(&old, &aside) {
            put_back(&replaced, &old, &self.dir);
            drop(registered);
            return Err(io_error("move the earlier run to", &aside)(error));
        }
        if let Err((moved, error)) = move_content(self.content, &self.path(), &self.dir) {
            put_back(&moved, &self.dir, &self.path());
            put_back(&replaced, &aside, &self.dir);
            drop(registered);
            return Err(error);
        }
        registered.retain(|path| *path != self.staging && !self.created.contains(path));
        self.committed = true;
        Ok(self.dir.clone())
    }

    /// The subfolder that [`StagedDir::commit_beside`] moves to: the first of `label`, `label-2`, … that does not exist.
    pub fn beside(&self, label: &str) -> PathBuf {
        let mut target = self.dir.join(label);
        let mut number = 2;
        while target.symlink_metadata().is_ok() {
            target = self.dir.join(format!("{label}-{number}"));
            number += 1;
        }
        target
    }

    /// Moves everything to a new subfolder of the final folder, next to an earlier run.
    ///
    /// # Errors
    ///
    /// The folder cannot be created or something cannot be moved.
    pub fn commit_beside(mut self, label: &str) -> Result<PathBuf, OutputError> {
        let target = self.beside(label);
        let unfinished = self.unfinished.clone();
        let mut registered = unfinished.lock();
        if let Err(error) = move_without_replacing(&self.path(), &target) {
            drop(registered);
            return Err(io_error("move the results to", &target)(error));
        }
        registered.retain(|path| *path != self.staging && !self.created.contains(path));
        self.committed = true;
        Ok(target)
    }

    /// The first file or folder at a final name that this run may not replace.
    fn appeared(&self) -> Result<Option<PathBuf>, OutputError> {
        if self.replaces {
            return self.content.foreign_in(&self.dir);
        }
        let found = self
            .content
            .found_in(&self.dir)
            .map_err(io_error("read the folder", &self.dir))?;
        Ok(found.first().map(|name| self.dir.join(name)))
    }

    /// Takes the staging folder and returns the lock on it.
    fn claim(&self) -> Result<File, OutputError> {
        let path = self.staging.join(PID);
        let mut pid = String::new();
        // Another run may remove its folder between two of these steps; then they start again.
        for _ in 0..10 {
            match fs::create_dir(&self.staging) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(io_error("write to the folder", &self.dir)(error));
                }
                _ => {}
            }
            let file = File::options()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .open(&path);
            let mut file = match file {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(io_error("write", &path)(error)),
            };
            pid = fs::read_to_string(&path).unwrap_or_default();
            let taken = match file.try_lock() {
                Ok(()) => false,
                Err(TryLockError::WouldBlock) => true,
                // A file system without locks: the folder is taken while the process lives.
                Err(TryLockError::Error(_)) => {
                    pid != std::process::id().to_string()
                        && pid.parse::<u32>().is_ok()
                        && Path::new("/proc").join(&pid).exists()
                }
            };
            if taken {
                break;
            }
            let same = match (file.metadata(), path.metadata()) {
                (Ok(ours), Ok(there)) => ours.ino() == there.ino(),
                _ => false,
            };
            if !same {
                continue;
            }
            self.unfinished.add(&self.staging);
            file.set_len(0)
                .and_then(|()| file.write_all(std::process::id().to_string().as_bytes()))
                .map_err(io_error("write", &path))?;
            return Ok(file);
        }
        Err(OutputError::Busy {
            dir: self.dir.clone(),
            staging: self.staging.clone(),
            pid: if pid.is_empty() {
                "unknown".into()
            } else {
                pid
            },
        })
    }

    /// Finishes the commit of a run that was killed, if it had begun one, and removes the run's other files.
    fn recover(&mut self) -> Result<(), OutputError> {
        let (new, old, aside) = (
            self.path(),
            self.staging.join(OLD),
            self.staging.join(REPLACED),
        );
        let finished = self.finish_commit(&new, &old, &aside);
        if let Err(error) = finished {
            // The killed run's results are still in there.
            self.unfinished.lock().retain(|path| *path != self.staging);
            self.staging = PathBuf::new();
            return Err(error);
        }
        for dir in [new, old, aside] {
            match fs::remove_dir_all(&dir) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(io_error("remove the killed run's", &dir)(error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn finish_commit(&self, new: &Path, old: &Path, aside: &Path) -> Result<(), OutputError> {
        if old.exists() && new.exists() {
            if let Some(path) = self.content.foreign_in(&self.dir)? {
                return Err(OutputError::Foreign { path });
            }
            let names = self
                .content
                .found_in(&self.dir)
                .map_err(io_error("read the folder", &self.dir))?;
            for name in names {
                // All parts of the killed run are in `new/` until the first of them is moved out: a part that is not
                // there has been moved already.
                if self.content == Content::Run && !new.join(&name).exists() {
                    continue;
                }
                let target = old.join(&name);
                fs::rename(self.dir.join(&name), &target)
                    .map_err(io_error("move the earlier run to", &target))?;
            }
            fs::rename(old, aside).map_err(io_error("move the earlier run to", aside))?;
        }
        if aside.exists() && new.exists() {
            move_content(self.content, new, &self.dir).map_err(|(_, error)| error)?;
        }
        Ok(())
    }
}

impl Drop for StagedDir {
    fn drop(&mut self) {
        let mut registered = self.unfinished.lock();
        if !self.staging.as_os_str().is_empty() {
            let _ = fs::remove_dir_all(&self.staging);
        }
        registered.retain(|path| *path != self.staging);
        drop(registered);
        if !self.committed {
            remove_created(&self.created, &self.unfinished);
        }
    }
}

/// Moves a run's parts from one folder to another and returns their names; an error comes with the names of the parts
/// that were moved before it.
fn move_content(
    content: Content,
    from: &Path,
    to: &Path,
) -> Result<Vec<OsString>, (Vec<OsString>, OutputError)> {
    let mut moved = Vec::new();
    let mut names = match content.found_in(from) {
        Ok(names) => names,
        Err(error) => return Err((moved, io_error("read the folder", from)(error))),
    };
    // run.json last: where it exists, the other parts exist too.
    names.sort_by_key(|name| name == "run.json");
    for name in names {
        let target = to.join(&name);
        if let Err(error) = move_without_replacing(&from.join(&name), &target) {
            return Err((moved, io_error("move the results to", &target)(error)));
        }
        moved.push(name);
    }
    Ok(moved)
}

fn put_back(names: &[OsString], from: &Path, to: &Path) {
    for name in names.iter().rev() {
        let _ = fs::rename(from.join(name), to.join(name));
    }
}
