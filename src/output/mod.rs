//! Outputs that appear whole or not at all.
//!
//! A folder is written in a hidden staging folder inside of itself (so on the same file system) and its parts are
//! moved to their final names at the end. A file is written beside its final name. Whatever is dropped before
//! [`StagedDir::commit`] or [`StagedFile::commit`] leaves nothing behind, and with `overwrite` the old run stays in
//! place until the new one is complete.

mod file;
mod folder;

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

pub use file::StagedFile;
pub use folder::{Content, StagedDir, holds_staging};

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
    /// A file's path is taken by a folder.
    #[error("{} is a folder, expected a file's name; give a name inside of it, or another one", path.display())]
    IsAFolder {
        /// The path.
        path: PathBuf,
    },
    /// What would be replaced is not what a run writes.
    #[error(
        "{} is not a file that a run writes, and replacing the earlier run would delete it; move it away, or give another folder",
        path.display()
    )]
    Foreign {
        /// The first such file.
        path: PathBuf,
    },
    /// Something was put at a final name while the run went on.
    #[error(
        "{} appeared while the run was going on and is left as it is; the results are in {}",
        path.display(), kept.display()
    )]
    Appeared {
        /// What stands in the way.
        path: PathBuf,
        /// Where the results are instead.
        kept: PathBuf,
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
        io::ErrorKind::FileTooLarge => {
            " (the limit on a file's size, `ulimit -f`, is too low, or the disk takes no file this large)"
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

/// What results are called that cannot go to their final name because something appeared there.
const KEPT: &str = "kept";
const STAGING_PREFIX: &str = ".snow-ort-";

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

/// A folder for files that nobody keeps; it goes with the value, and with a run that a signal ends.
///
/// # Errors
/// The system's folder for temporary files cannot be written to.
pub fn scratch(unfinished: &Unfinished) -> io::Result<tempfile::TempDir> {
    let dir = tempfile::Builder::new().prefix(STAGING_PREFIX).tempdir()?;
    unfinished.add(dir.path());
    Ok(dir)
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

/// Gives `from` the name `to`, which nothing may have.
fn move_without_replacing(from: &Path, to: &Path) -> io::Result<()> {
    let text = |path: &Path| CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other);
    let (source, target) = (text(from)?, text(to)?);
    // SAFETY: both are strings that end in a zero byte and outlive the call.
    let moved = unsafe {
        libc::renameat2(
            libc::AT_FDCWD,
            source.as_ptr(),
            libc::AT_FDCWD,
            target.as_ptr(),
            libc::RENAME_NOREPLACE,
        )
    };
    if moved == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    // Some network file systems do not know the flag; a look before the move is the best that they allow.
    match error.raw_os_error() {
        Some(libc::EINVAL | libc::ENOSYS | libc::ENOTSUP) if to.symlink_metadata().is_err() => {
            fs::rename(from, to)
        }
        Some(libc::EINVAL | libc::ENOSYS | libc::ENOTSUP) => {
            Err(io::ErrorKind::AlreadyExists.into())
        }
        _ => Err(error),
    }
}
