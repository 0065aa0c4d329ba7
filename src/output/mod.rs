//! Outputs that appear whole or not at all.
//!
//! A folder is written in a hidden staging folder inside it (so on the same file system), and its parts are moved to
//! their final names at the end. A file is written next to its final name. A [`StagedDir`] or [`StagedFile`] that is
//! dropped before its commit leaves nothing behind. With `overwrite` the old run stays in place until the new one is
//! complete.

mod file;
mod folder;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

pub use file::StagedFile;
pub use folder::{Content, StagedDir, holds_staging};

/// Why an output cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// The folder already holds a run, and replacing it was not allowed.
    #[error(
        "{} already holds {found} of an earlier run; give another folder, or --overwrite to replace it",
        dir.display()
    )]
    Exists {
        /// The folder.
        dir: PathBuf,
        /// Names of the run's files.
        found: String,
    },
    /// The file already exists, and replacing it was not allowed.
    #[error("{} already exists; give another name, or --overwrite to replace it", file.display())]
    FileExists {
        /// The file.
        file: PathBuf,
    },
    /// Another run is writing to the folder.
    #[error(
        "another run (process {pid}) is writing to {}; wait for it or give another folder (if no such run exists, remove {})",
        dir.display(), staging.display()
    )]
    Busy {
        /// The folder.
        dir: PathBuf,
        /// The other run's staging folder.
        staging: PathBuf,
        /// The other run's process id, or `unknown`.
        pid: String,
    },
    /// There is a folder at the path of the output file.
    #[error("{} is a folder, expected a file; give a file name inside it, or another name", path.display())]
    IsAFolder {
        /// The path.
        path: PathBuf,
    },
    /// A folder of the earlier run holds a file that no run writes.
    #[error(
        "{} was not written by a run, and replacing the earlier run would delete it; move it away, or give another folder",
        path.display()
    )]
    Foreign {
        /// The first such file.
        path: PathBuf,
    },
    /// A file or folder got the output's final name during the run.
    #[error(
        "{} appeared during the run and is left as it is; the results are in {}",
        path.display(), kept.display()
    )]
    Appeared {
        /// The file or folder in the way.
        path: PathBuf,
        /// Where the results are instead.
        kept: PathBuf,
    },
    /// There is something other than a folder at the path of the output folder.
    #[error("{} is not a folder; give another name for the output", path.display())]
    NotAFolder {
        /// The path.
        path: PathBuf,
    },
    /// The operating system refused to create, write or move something.
    #[error("cannot {action} {}{}", path.display(), hint(source))]
    Io {
        /// The action, e.g. `create the folder`.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The operating system's reason.
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
        io::ErrorKind::FileTooLarge => {
            " (the limit on a file's size, `ulimit -f`, is too low, or the file system allows no file this large)"
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

/// Label of results whose final name was taken during the run.
const KEPT: &str = "kept";
const STAGING_PREFIX: &str = ".snow-ort-";

/// The files and folders to remove if the program has to end at once. The lock is held while outputs are moved into
/// place, so that the end comes before or after a commit, never in its middle.
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

    /// Removes everything that is not finished, while other threads may still be writing to it. Nothing can be
    /// committed afterwards, since the lock is never released.
    pub fn remove_all_and_keep_locked(&self) {
        let mut paths = self.lock();
        for path in paths.drain(..).rev() {
            remove_under_writers(&path);
        }
        std::mem::forget(paths);
    }
}

/// A folder for temporary files. It is removed with the returned value, or when a signal ends the run.
///
/// # Errors
/// The system's folder for temporary files cannot be written to.
pub fn scratch(unfinished: &Unfinished) -> io::Result<tempfile::TempDir> {
    let dir = tempfile::Builder::new().prefix(STAGING_PREFIX).tempdir()?;
    unfinished.add(dir.path());
    Ok(dir)
}

/// Removes a staging folder or file, or, if it is empty, a folder that was created for the output.
fn remove_under_writers(path: &Path) {
    let staged = path.file_name().is_some_and(|name| {
        name.as_encoded_bytes()
            .starts_with(STAGING_PREFIX.as_bytes())
    });
    if !staged {
        // Only folders that this run created are listed without the prefix; one with other files stays.
        let _ = fs::remove_dir(path);
        return;
    }
    if path.is_dir() {
        // Renamed first, so that writers find no folder for their next file.
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

/// Removes the folders that were created for an output, innermost first, if they are empty.
fn remove_created(created: &[PathBuf], unfinished: &Unfinished) {
    for dir in created.iter().rev() {
        let _ = fs::remove_dir(dir);
    }
    unfinished.lock().retain(|path| !created.contains(path));
}

/// Creates `dir` and the folders above it, and adds the new ones to `created`.
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

/// Gives `from` the name `to`.
///
/// # Errors
/// Something has that name already, or the system refuses the move.
fn move_without_replacing(from: &Path, to: &Path) -> io::Result<()> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // Some network file systems do not know the flag; a look before the move is the best that they allow.
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) if to.symlink_metadata().is_err() => {
            fs::rename(from, to)
        }
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {
            Err(io::ErrorKind::AlreadyExists.into())
        }
        moved => Ok(moved?),
    }
}
