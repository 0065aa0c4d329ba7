//! `--text` and its options.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args;

use super::args::one_or_more;
use crate::bundle::{Manifest, locate};
use crate::session::config::{Parameter, TextConfig};

/// The heading of these options in the help.
const HEADING: &str = "Text";

/// Texts to track.
#[derive(Debug, Clone, Args)]
pub(super) struct TextArgs {
    /// Detect and track every object that the text means, instead of prompts (repeatable)
    #[arg(long = "text", id = "texts", help_heading = HEADING, value_name = "TEXT")]
    pub texts: Vec<String>,

    /// Set a parameter of text tracking, such as hotstart_delay=0 (repeatable); a wrong name lists all names
    #[arg(long = "follow", id = "follow", help_heading = HEADING, value_name = "NAME=VALUE", requires = "texts")]
    pub parameters: Vec<String>,

    /// Detect on frame 0 and on every N-th frame; on other frames objects are only tracked [default: 1]
    #[arg(long, help_heading = HEADING, value_name = "N", requires = "texts", allow_negative_numbers = true, value_parser = one_or_more)]
    pub detect_every: Option<NonZeroUsize>,

    /// Detect at this resolution, with the detector of another bundle of the same model
    ///
    /// That bundle is in the same folder, or where --res searches, and comes from the same checkpoint.
    #[arg(long, help_heading = HEADING, value_name = "PIXELS", requires = "texts", allow_negative_numbers = true)]
    pub det_res: Option<u32>,
}

impl TextArgs {
    /// Frames from one detection to the next.
    pub(super) fn every(&self) -> NonZeroUsize {
        self.detect_every.unwrap_or(NonZeroUsize::MIN)
    }

    /// The same as the library takes it; `None` without a text. `tracker` is the folder of the tracker's bundle, `models`
    /// the folder to search for the detector's.
    pub(super) fn config(
        &self,
        tracker: &Path,
        models: Option<&Path>,
    ) -> Result<Option<TextConfig>> {
        if self.texts.is_empty() {
            return Ok(None);
        }
        Ok(Some(TextConfig {
            parameters: self.parameters.iter().map(|text| parameter(text)).collect(),
            detect_every: self.every(),
            detector_bundle: self.detector_bundle(tracker, models)?,
            ..TextConfig::new(self.texts.iter().cloned())
        }))
    }

    /// The folder of the bundle of --det-res; `None` where the tracker's bundle has that resolution.
    fn detector_bundle(&self, tracker: &Path, models: Option<&Path>) -> Result<Option<PathBuf>> {
        let Some(resolution) = self.det_res else {
            return Ok(None);
        };
        let manifest = crate::bundle::Bundle::peek(tracker)?;
        detector_bundle(resolution, tracker, &manifest, models)
    }
}

/// The folder of the bundle of the same model at `resolution` pixels; `None` if that is the tracker's own.
pub(super) fn detector_bundle(
    resolution: u32,
    tracker: &Path,
    manifest: &Manifest,
    models: Option<&Path>,
) -> Result<Option<PathBuf>> {
    if resolution == manifest.resolution {
        return Ok(None);
    }
    Ok(Some(locate::sibling(
        tracker, manifest, resolution, models,
    )?))
}

/// `NAME=VALUE`, or a name alone, which the library refuses with the names that there are.
pub(super) fn parameter(text: &str) -> Parameter {
    let (name, value) = text.split_once('=').unwrap_or((text, ""));
    Parameter {
        name: name.to_owned(),
        value: value.to_owned(),
    }
}
