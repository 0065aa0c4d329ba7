//! The outputs of a run: made together, moved to their names together.

use std::path::PathBuf;

use super::config::OutputConfig;
use super::report::Status;
use crate::output::{Content, OutputError, StagedDir, StagedFile, Unfinished};

/// The outputs of a run, not yet under their final names. Fields are dropped in this order, innermost folders first.
pub(super) struct Outputs {
    pub overlay: Option<StagedFile>,
    pub sheet: Option<StagedFile>,
    pub logits: Option<StagedDir>,
    pub run: StagedDir,
}

/// Where a run's results are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    /// The folder of `masks/`, `tracks.json` and `run.json`.
    pub run: PathBuf,
    /// The folder of raw logits.
    pub logits: Option<PathBuf>,
    /// The overlay video.
    pub overlay: Option<PathBuf>,
    /// The contact sheet.
    pub contact_sheet: Option<PathBuf>,
}

impl Outputs {
    /// Prepares everything that was asked for.
    ///
    /// # Errors
    ///
    /// Something exists and may not be replaced, or cannot be written to.
    pub(super) fn create(
        config: &OutputConfig,
        unfinished: &Unfinished,
    ) -> Result<Self, OutputError> {
        let run = StagedDir::create(&config.dir, Content::Run, config.overwrite, unfinished)?;
        let logits = match &config.logits {
            Some(dir) => Some(StagedDir::create(
                dir,
                Content::Logits,
                config.overwrite,
                unfinished,
            )?),
            None => None,
        };
        let file = |file: &Option<PathBuf>| match file {
            Some(file) => StagedFile::create(file, config.overwrite, unfinished).map(Some),
            None => Ok(None),
        };
        let overlay = file(&config.overlay)?;
        let sheet = file(&config.contact_sheet)?;
        Ok(Self {
            overlay,
            sheet,
            logits,
            run,
        })
    }

    /// Whether incomplete results go into a folder of their own, because there is an earlier run.
    fn kept_apart(&self, status: Status) -> bool {
        let replaces = self.run.replaces()
            || self.logits.as_ref().is_some_and(StagedDir::replaces)
            || self.overlay.as_ref().is_some_and(StagedFile::replaces)
            || self.sheet.as_ref().is_some_and(StagedFile::replaces);
        status != Status::Done && replaces
    }

    /// Where everything will be after [`Outputs::place`].
    pub(super) fn targets(&self, status: Status) -> Placed {
        let beside = self.kept_apart(status).then_some(status.as_str());
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
            contact_sheet: self.sheet.as_ref().map(file),
        }
    }

    /// Moves everything to its final name. A run that ended early does not replace an earlier one.
    ///
    /// # Errors
    ///
    /// Something cannot be moved; the rest is in its place then.
    pub(super) fn place(self, status: Status) -> Result<Placed, OutputError> {
        let beside = self.kept_apart(status);
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
            contact_sheet: sheet,
        })
    }

    /// A message about staged files in terms of the names that the user gave.
    pub(super) fn in_final_names(&self, message: &str) -> String {
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
