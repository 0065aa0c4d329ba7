//! The outputs of a run: made together, moved to their names together.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::Result;

use super::args::RunArgs;
use crate::output::{Content, StagedDir, StagedFile, Unfinished};
use crate::session::report::Status;

/// Where results go by default: in `out/`, under the input's name behind a `prefix`.
pub(super) fn default_out(input: &Path, prefix: &str) -> PathBuf {
    // `.` and `..` have no name of their own.
    let full = input.canonicalize().unwrap_or_else(|_| input.to_path_buf());
    let stem = if full.is_dir() {
        full.file_name()
    } else {
        full.file_stem()
    };
    let mut name = OsString::from(prefix);
    name.push(stem.unwrap_or("run".as_ref()));
    Path::new("out").join(name)
}

/// The outputs of a run, not yet under their final names. Fields are dropped in this order, innermost folders first.
pub(super) struct Outputs {
    pub overlay: Option<StagedFile>,
    pub sheet: Option<StagedFile>,
    pub logits: Option<StagedDir>,
    pub run: StagedDir,
}

/// Where a run's results ended up.
pub(super) struct Placed {
    pub run: PathBuf,
    pub logits: Option<PathBuf>,
    pub overlay: Option<PathBuf>,
    pub sheet: Option<PathBuf>,
}

impl Outputs {
    /// Prepares everything that was asked for.
    ///
    /// # Errors
    ///
    /// Something exists and may not be replaced, or cannot be written to.
    pub fn create(args: &RunArgs, out: &Path, unfinished: &Unfinished) -> Result<Self> {
        let run = StagedDir::create(out, Content::Run, args.overwrite, unfinished)?;
        let logits = match &args.dump_logits {
            Some(dir) => Some(StagedDir::create(
                dir,
                Content::Logits,
                args.overwrite,
                unfinished,
            )?),
            None => None,
        };
        let file = |file: &Option<PathBuf>| match file {
            Some(file) => StagedFile::create(file, args.overwrite, unfinished).map(Some),
            None => Ok(None),
        };
        let overlay = file(&args.overlay)?;
        let sheet = file(&args.contact_sheet)?;
        Ok(Self {
            overlay,
            sheet,
            logits,
            run,
        })
    }

    /// Whether results that are not whole have to stay beside an earlier run's.
    fn beside(&self, status: Status) -> bool {
        let replaces = self.run.replaces()
            || self.logits.as_ref().is_some_and(StagedDir::replaces)
            || self.overlay.as_ref().is_some_and(StagedFile::replaces)
            || self.sheet.as_ref().is_some_and(StagedFile::replaces);
        status != Status::Done && replaces
    }

    /// Where everything will be after [`Outputs::place`].
    pub fn targets(&self, status: Status) -> Placed {
        let beside = self.beside(status).then_some(status.as_str());
        let dir = |staged: &StagedDir| match beside {
            Some(label) => staged.beside(label),
            None => staged.dir().to_path_buf(),
        };
        let file = |staged: &StagedFile| match beside {
            Some(label) => staged.beside(label),
            None => staged.file().to_path_buf(),
        };
        Placed {
            run: dir(&self.run),
            logits: self.logits.as_ref().map(dir),
            overlay: self.overlay.as_ref().map(file),
            sheet: self.sheet.as_ref().map(file),
        }
    }

    /// Moves everything to its final name. A run that ended early does not replace an earlier one.
    ///
    /// # Errors
    ///
    /// Something cannot be moved; the rest is in its place then.
    pub fn place(self, status: Status) -> Result<Placed> {
        let beside = self.beside(status);
        let label = status.as_str();
        // One that cannot be placed is no reason to lose the others: all are tried before the first error is returned.
        let place_file = |file: StagedFile| {
            if beside {
                file.commit_beside(label)
            } else {
                file.commit()
            }
        };
        let overlay = self.overlay.map(place_file);
        let sheet = self.sheet.map(place_file);
        let place = |dir: StagedDir| {
            if beside {
                dir.commit_beside(label)
            } else {
                dir.commit()
            }
        };
        let logits = self.logits.map(place);
        let run = place(self.run);
        let (overlay, sheet) = (overlay.transpose()?, sheet.transpose()?);
        let (logits, run) = (logits.transpose()?, run?);
        Ok(Placed {
            run,
            logits,
            overlay,
            sheet,
        })
    }

    /// A message about staged files in terms of the names that the user gave.
    pub fn in_final_names(&self, message: &str) -> String {
        let mut names = vec![(self.run.path(), self.run.dir())];
        if let Some(dir) = &self.logits {
            names.push((dir.path(), dir.dir()));
        }
        for file in self.overlay.iter().chain(&self.sheet) {
            names.push((file.path().to_path_buf(), file.file()));
        }
        names
            .iter()
            .fold(message.to_owned(), |message, (staged, name)| {
                message.replace(&*staged.to_string_lossy(), &name.to_string_lossy())
            })
    }
}
