//! Outputs that appear whole or not at all.
//!
//! A folder is written in a hidden staging folder inside of itself (so on the same file system) and its parts are
//! moved to their final names at the end. A file is written beside its final name. Whatever is dropped before
//! [`StagedDir::commit`] or [`StagedFile::commit`] leaves nothing behind, and with `overwrite` the old run stays in
//! place until the new one is complete.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

/// Why an output cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// The folder already holds a run, and nobody allowed to replace it.
    #[error(
        "{} already holds {found} of an earlier run; give another folder, or --overwrite to replace it",
        dir.display()
    )]
    Exists {
        /// The folder.
        dir: PathBuf,
        /// What was found there.
        found: String,
    },
    /// A file already exists, and nobody allowed to replace it.
    #[error("{} already exists; give another name, or --overwrite to replace it", file.display())]
    FileExists {
        /// The file.
        file: PathBuf,
    },
    /// Another run writes to the folder now.
    #[error(
        "another run (process {pid}) is writing to {}; wait for it or give another folder (if no such run exists, remove {})",
        dir.display(), staging.display()
    )]
    Busy {
        /// The folder.
        dir: PathBuf,
        /// The other run's staging folder.
        staging: PathBuf,
        /// The other process.
        pid: String,
    },
    /// The path is taken by something that is not a folder.
    #[error("{} is not a folder; give another name for the output", path.display())]
    NotAFolder {
        /// The path.
        path: PathBuf,
    },
    /// The system refused to create, write or move something.
    #[error("cannot {action} {}{}", path.display(), hint(source))]
    Io {
        /// What was tried, e.g. `create the folder`.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            " (free some space or give a folder on another disk)"
        }
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            " (give a folder that you may write to)"
        }
        _ => "",
    }
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> OutputError {
    let path = path.to_path_buf();
    move |source| OutputError::Io {
        action,
        path,
        source,
    }
}

/// What must be removed if the program has to leave at once. The lock is held while outputs are moved into place, so
/// that a sudden end comes before or after a commit, never in its middle.
#[derive(Debug, Clone, Default)]
pub struct Unfinished(Arc<Mutex<Vec<PathBuf>>>);

impl Unfinished {
    fn lock(&self) -> MutexGuard<'_, Vec<PathBuf>> {
        self.0
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn add(&self, path: &Path) {
        self.lock().push(path.to_path_buf());
    }

    /// Removes everything that is not finished, while other threads may still be writing to it; nothing can be
    /// committed afterwards, as the lock is never given back.
    pub fn remove_all_and_keep_locked(&self) {
        let mut paths = self.lock();
        for path in paths.drain(..).rev() {
            remove_under_writers(&path);
        }
        std::mem::forget(paths);
    }
}

/// Removes a staging folder or file, or a folder that was created for the output if it is empty.
fn remove_under_writers(path: &Path) {
    let staged = path.file_name().is_some_and(|name| {
        name.as_encoded_bytes()
            .starts_with(STAGING_PREFIX.as_bytes())
    });
    if !staged {
        // Only a folder made for this run is listed without the prefix: it goes if nothing else is in it.
        let _ = fs::remove_dir(path);
        return;
    }
    if path.is_dir() {
        // Renamed first, so that a writer's next file finds no folder to go to.
        let mut gone = path.as_os_str().to_owned();
        gone.push(".gone");
        let gone = PathBuf::from(gone);
        let path = if fs::rename(path, &gone).is_ok() {
            gone
        } else {
            path.to_path_buf()
        };
        let _ = fs::remove_dir_all(path);
    } else {
        let _ = fs::remove_file(path);
    }
}

const STAGING_PREFIX: &str = ".snow-ort-";
const NEW: &str = "new";
const OLD: &str = "old";
const PID: &str = "pid";

/// What a folder is for: which names in it belong to a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// `masks/`, `tracks.json` and `run.json`.
    Run,
    /// `00000.safetensors`, …
    Logits,
}

impl Content {
    fn owns(self, name: &OsStr) -> bool {
        let Some(name) = name.to_str() else {
            return false;
        };
        match self {
            Self::Run => ["masks", "tracks.json", "run.json"].contains(&name),
            Self::Logits => name.strip_suffix(".safetensors").is_some_and(|stem| {
                !stem.is_empty() && stem.bytes().all(|byte| byte.is_ascii_digit())
            }),
        }
    }

    fn staging_name(self) -> &'static str {
        match self {
            Self::Run => ".snow-ort-run.partial",
            Self::Logits => ".snow-ort-logits.partial",
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
}

impl StagedDir {
    /// Creates `dir` if it does not exist, and the staging folder inside of it.
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
        };
        // From here on an early return drops `staged`, which removes the folders made so far.
        create_parents(dir, &mut staged.created, unfinished)?;
        if let Err(error) = staged.claim() {
            staged.staging = PathBuf::new();
            return Err(error);
        }
        let pid = staged.staging.join(PID);
        fs::write(&pid, std::process::id().to_string()).map_err(io_error("write", &pid))?;
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
    /// Something cannot be moved; the earlier run is then back in its place.
    pub fn commit(mut self) -> Result<PathBuf, OutputError> {
        let unfinished = self.unfinished.clone();
        let mut registered = unfinished.lock();
        let old = self.staging.join(OLD);
        fs::create_dir(&old).map_err(io_error("create the folder", &old))?;
        let replaced = match move_content(self.content, &self.dir, &old) {
            Ok(replaced) => replaced,
            Err((moved, error)) => {
                put_back(&moved, &old, &self.dir);
                return Err(error);
            }
        };
        if let Err((moved, error)) = move_content(self.content, &self.path(), &self.dir) {
            put_back(&moved, &self.dir, &self.path());
            put_back(&replaced, &old, &self.dir);
            return Err(error);
        }
        registered.retain(|path| *path != self.staging && !self.created.contains(path));
        self.committed = true;
        Ok(self.dir.clone())
    }

    /// The folder that [`StagedDir::commit_beside`] moves to: the first of `label`, `label-2`, … that is free.
    pub fn beside(&self, label: &str) -> PathBuf {
        let mut target = self.dir.join(label);
        let mut number = 2;
        while target.symlink_metadata().is_ok() {
            target = self.dir.join(format!("{label}-{number}"));
            number += 1;
        }
        target
    }

    /// Moves everything to a new folder inside of the final one, beside an earlier run.
    ///
    /// # Errors
    ///
    /// The folder cannot be created or something cannot be moved.
    pub fn commit_beside(mut self, label: &str) -> Result<PathBuf, OutputError> {
        let target = self.beside(label);
        let unfinished = self.unfinished.clone();
        let mut registered = unfinished.lock();
        fs::rename(self.path(), &target).map_err(io_error("move the results to", &target))?;
        registered.retain(|path| *path != self.staging && !self.created.contains(path));
        self.committed = true;
        Ok(target)
    }

    /// Takes the staging folder, clearing up after a run that was killed.
    fn claim(&self) -> Result<(), OutputError> {
        for attempt in 0..2 {
            match fs::create_dir(&self.staging) {
                Ok(()) => {
                    self.unfinished.add(&self.staging);
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    let pid = fs::read_to_string(self.staging.join(PID)).unwrap_or_default();
                    let alive = pid.is_empty() || Path::new("/proc").join(&pid).exists();
                    if alive || attempt > 0 {
                        return Err(OutputError::Busy {
                            dir: self.dir.clone(),
                            staging: self.staging.clone(),
                            pid: if pid.is_empty() {
                                "unknown".into()
                            } else {
                                pid
                            },
                        });
                    }
                    // Killed in the middle of a commit: the new run was complete, so finish what was begun.
                    if self.staging.join(OLD).exists() {
                        move_content(self.content, &self.staging.join(NEW), &self.dir)
                            .map_err(|(_, error)| error)?;
                    }
                    fs::remove_dir_all(&self.staging)
                        .map_err(io_error("remove the killed run's", &self.staging))?;
                }
                Err(error) => {
                    return Err(io_error("write to the folder", &self.dir)(error));
                }
            }
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

/// Removes the folders that were made for an output, innermost first, if nothing else is in them.
fn remove_created(created: &[PathBuf], unfinished: &Unfinished) {
    for dir in created.iter().rev() {
        let _ = fs::remove_dir(dir);
    }
    unfinished.lock().retain(|path| !created.contains(path));
}

/// Creates `dir` and the folders above it, and notes which of them are new.
fn create_parents(
    dir: &Path,
    created: &mut Vec<PathBuf>,
    unfinished: &Unfinished,
) -> Result<(), OutputError> {
    let missing: Vec<&Path> = dir
        .ancestors()
        .take_while(|path| !path.as_os_str().is_empty() && path.symlink_metadata().is_err())
        .collect();
    for path in missing.into_iter().rev() {
        match fs::create_dir(path) {
            Ok(()) => {
                created.push(path.to_path_buf());
                unfinished.add(path);
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
                return Err(OutputError::NotAFolder {
                    path: path.parent().unwrap_or(path).to_path_buf(),
                });
            }
            Err(error) => return Err(io_error("create the folder", path)(error)),
        }
    }
    if dir.as_os_str().is_empty() || dir.is_dir() {
        Ok(())
    } else {
        Err(OutputError::NotAFolder {
            path: dir.to_path_buf(),
        })
    }
}

/// Moves a run's parts from one folder to another; on an error, says which were moved before it.
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
    // run.json last: where it stands, the rest stands too.
    names.sort_by_key(|name| name == "run.json");
    for name in names {
        let target = to.join(&name);
        if let Err(error) = fs::rename(from.join(&name), &target) {
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

/// An output file under construction, written beside its final name with the same ending.
#[derive(Debug)]
pub struct StagedFile {
    file: PathBuf,
    staging: PathBuf,
    replaces: bool,
    created: Vec<PathBuf>,
    unfinished: Unfinished,
    committed: bool,
}

impl StagedFile {
    /// Prepares to write `file`; creates its folder if need be.
    ///
    /// # Errors
    ///
    /// The file exists and `overwrite` is false; its folder cannot be written to.
    pub fn create(
        file: &Path,
        overwrite: bool,
        unfinished: &Unfinished,
    ) -> Result<Self, OutputError> {
        let exists = file.symlink_metadata().is_ok();
        if exists && !overwrite {
            return Err(OutputError::FileExists {
                file: file.to_path_buf(),
            });
        }
        let Some(name) = file.file_name().filter(|_| !file.is_dir()) else {
            return Err(OutputError::Io {
                action: "write the file",
                path: file.to_path_buf(),
                source: io::ErrorKind::IsADirectory.into(),
            });
        };
        let mut hidden = OsString::from(format!("{STAGING_PREFIX}{}-", std::process::id()));
        hidden.push(name);
        let staging = file.with_file_name(hidden);
        let mut staged = Self {
            file: file.to_path_buf(),
            staging,
            replaces: exists,
            created: Vec::new(),
            unfinished: unfinished.clone(),
            committed: false,
        };
        let parent = file.parent().unwrap_or(Path::new(""));
        create_parents(parent, &mut staged.created, unfinished)?;
        // An unwritable folder is found now rather than when the first frame is done.
        fs::write(&staged.staging, b"").map_err(io_error("write the file", file))?;
        unfinished.add(&staged.staging);
        unfinished.add(&staged.partial());
        Ok(staged)
    }

    /// The path to write to until the commit.
    pub fn path(&self) -> &Path {
        &self.staging
    }

    /// The final path.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Whether a commit replaces an earlier file.
    pub fn replaces(&self) -> bool {
        self.replaces
    }

    /// Moves the file to its final name, in place of an earlier one.
    ///
    /// # Errors
    ///
    /// The file cannot be moved; the earlier one is then still there.
    pub fn commit(self) -> Result<PathBuf, OutputError> {
        let target = self.file.clone();
        self.move_to(target)
    }

    /// The file that [`StagedFile::commit_beside`] moves to: the first of `NAME.label.ENDING`,
    /// `NAME.label-2.ENDING`, … that is free.
    pub fn beside(&self, label: &str) -> PathBuf {
        let stem = self.file.file_stem().unwrap_or_default().to_owned();
        let named = |suffix: String| {
            let mut name = stem.clone();
            name.push(format!(".{suffix}"));
            if let Some(ending) = self.file.extension() {
                name.push(".");
                name.push(ending);
            }
            self.file.with_file_name(name)
        };
        let mut target = named(label.to_owned());
        let mut number = 2;
        while target.symlink_metadata().is_ok() {
            target = named(format!("{label}-{number}"));
            number += 1;
        }
        target
    }

    /// Moves the file beside its final name.
    ///
    /// # Errors
    ///
    /// The file cannot be moved.
    pub fn commit_beside(self, label: &str) -> Result<PathBuf, OutputError> {
        let target = self.beside(label);
        self.move_to(target)
    }

    fn move_to(mut self, target: PathBuf) -> Result<PathBuf, OutputError> {
        let unfinished = self.unfinished.clone();
        let mut registered = unfinished.lock();
        if let Err(error) = fs::rename(&self.staging, &target) {
            // `self` is dropped on return and needs the lock for that.
            drop(registered);
            return Err(io_error("move the results to", &target)(error));
        }
        let partial = self.partial();
        registered.retain(|path| {
            *path != self.staging && *path != partial && !self.created.contains(path)
        });
        drop(registered);
        self.committed = true;
        Ok(target)
    }

    /// Where a writer that renames at its own end writes until then.
    fn partial(&self) -> PathBuf {
        let mut name = self.staging.as_os_str().to_owned();
        name.push(".partial");
        PathBuf::from(name)
    }
}

impl Drop for StagedFile {
    fn drop(&mut self) {
        if self.committed {
            return;
        }
        let partial = self.partial();
        let mut registered = self.unfinished.lock();
        let _ = fs::remove_file(&self.staging);
        let _ = fs::remove_file(&partial);
        registered.retain(|path| *path != self.staging && *path != partial);
        drop(registered);
        remove_created(&self.created, &self.unfinished);
    }
}
