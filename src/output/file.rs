//! A file that appears whole or not at all.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{
    KEPT, OutputError, STAGING_PREFIX, Unfinished, create_parents, io_error,
    move_without_replacing, remove_created,
};

/// An output file under construction, written next to its final name with the same ending.
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
    /// Prepares to write `file`; creates its folder if it does not exist.
    ///
    /// # Errors
    ///
    /// The file exists and `overwrite` is false; its folder cannot be written to.
    pub fn create(
        file: &Path,
        overwrite: bool,
        unfinished: &Unfinished,
    ) -> Result<Self, OutputError> {
        let name = match file.file_name() {
            Some(name) if !file.is_dir() => name,
            _ => {
                return Err(OutputError::IsAFolder {
                    path: file.to_path_buf(),
                });
            }
        };
        let exists = file.symlink_metadata().is_ok();
        if exists && !overwrite {
            return Err(OutputError::FileExists {
                file: file.to_path_buf(),
            });
        }
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
        remove_orphans(parent, name);
        // A folder that cannot be written is found now rather than after the first frame.
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
    /// The file cannot be moved; the earlier one is then still there. Or something has got the final name since
    /// [`StagedFile::create`]; the file is then next to it, labelled `kept`.
    pub fn commit(self) -> Result<PathBuf, OutputError> {
        let target = self.file.clone();
        if self.replaces {
            return self.move_to(&target, |from, to| fs::rename(from, to));
        }
        // Checked here so that the results are kept; the move itself replaces nothing in any case.
        if target.symlink_metadata().is_ok() {
            return Err(OutputError::Appeared {
                path: target,
                kept: self.commit_beside(KEPT)?,
            });
        }
        self.move_to(&target, move_without_replacing)
    }

    /// The path that [`StagedFile::commit_beside`] moves to: the first of `NAME.label.ENDING`,
    /// `NAME.label-2.ENDING`, … that does not exist.
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

    /// Moves the file to a labelled name next to its final name.
    ///
    /// # Errors
    ///
    /// The file cannot be moved.
    pub fn commit_beside(self, label: &str) -> Result<PathBuf, OutputError> {
        let target = self.beside(label);
        self.move_to(&target, move_without_replacing)
    }

    fn move_to(
        mut self,
        target: &Path,
        rename: impl FnOnce(&Path, &Path) -> io::Result<()>,
    ) -> Result<PathBuf, OutputError> {
        let unfinished = self.unfinished.clone();
        let mut registered = unfinished.lock();
        if let Err(error) = rename(&self.staging, target) {
            // `self` is dropped on return and needs the lock for that.
            drop(registered);
            return Err(io_error("move the results to", target)(error));
        }
        let partial = self.partial();
        registered.retain(|path| {
            *path != self.staging && *path != partial && !self.created.contains(path)
        });
        drop(registered);
        self.committed = true;
        Ok(target.to_path_buf())
    }

    /// Where a writer that renames the file itself, at its end, writes until then.
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

/// Removes the unfinished files called `name` that killed runs left in `dir`. One that cannot be removed does no harm.
fn remove_orphans(dir: &Path, name: &OsStr) {
    let dir = if dir.as_os_str().is_empty() {
        Path::new(".")
    } else {
        dir
    };
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let found = entry.file_name();
        let writer = found
            .as_encoded_bytes()
            .strip_prefix(STAGING_PREFIX.as_bytes())
            .map(|rest| rest.strip_suffix(b".partial").unwrap_or(rest))
            .and_then(|rest| rest.strip_suffix(name.as_encoded_bytes()))
            .and_then(|rest| rest.strip_suffix(b"-"))
            .and_then(|pid| std::str::from_utf8(pid).ok())
            .and_then(|pid| pid.parse::<u32>().ok());
        let Some(pid) = writer else { continue };
        if !Path::new("/proc").join(pid.to_string()).exists() {
            let _ = fs::remove_file(entry.path());
        }
    }
}
