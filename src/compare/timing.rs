//! timing.json: the result of a trial, for a later call of the same comparison.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::error::{AbError, unwritable};
use super::keys::Key;
use crate::bench::report::VariantTiming;
use crate::bench::rounds::Length;
use crate::output::{StagedFile, Unfinished};
use crate::session::SessionError;

const TIMING_FILE: &str = "timing.json";

#[derive(Debug, Serialize, Deserialize)]
struct KeptTiming {
    key: String,
    #[serde(rename = "arms")]
    variants: Vec<VariantTiming>,
}

/// The key of a trial of variants, each with its name and the key of its run.
pub(super) fn key<'a>(
    variants: impl Iterator<Item = (&'a str, &'a str)>,
    length: Length,
) -> String {
    let mut key = Key::default();
    for (name, run) in variants {
        key.add(name, run);
    }
    key.add(
        "length",
        &format!("{} {} {}", length.warm, length.rounds, length.block),
    );
    key.text()
}

/// Reads the timing in the folder `out`; `None` unless it has this key.
pub(super) fn read(out: &Path, key: &str) -> Option<Vec<VariantTiming>> {
    let text = std::fs::read(out.join(TIMING_FILE)).ok()?;
    let kept: KeptTiming = serde_json::from_slice(&text).ok()?;
    (kept.key == key).then_some(kept.variants)
}

/// Writes the timing into the folder `out`.
///
/// # Errors
/// [`AbError::Unwritable`], and errors of the staged file.
pub(super) fn write(
    out: &Path,
    key: String,
    variants: Vec<VariantTiming>,
    unfinished: &Unfinished,
) -> Result<(), AbError> {
    let path = out.join(TIMING_FILE);
    let file = StagedFile::create(&path, true, unfinished).map_err(SessionError::from)?;
    serde_json::to_vec(&KeptTiming { key, variants })
        .map_err(std::io::Error::from)
        .and_then(|text| std::fs::write(file.path(), text))
        .map_err(unwritable(&path))?;
    file.commit().map_err(SessionError::from)?;
    Ok(())
}
