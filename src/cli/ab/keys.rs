//! What results depend on, as a hash: one that was kept is used again only while nothing of it has changed.

use std::io;
use std::path::Path;

use anyhow::{Context as _, Result};
use sha2::{Digest as _, Sha256};

use super::args::Manner;
use crate::bundle::{MANIFEST_FILE, hash_file, hex, hex_digest};
use crate::media::{SourceInfo, SourceKind, images};
use crate::runtime::library;
use crate::tracker::Prompt;

/// Digits of a key: as many as tell the results of one folder apart.
const DIGITS: usize = 16;

/// Collects what a result depends on.
#[derive(Clone, Default)]
pub(super) struct Key(Sha256);

impl Key {
    /// Adds a value under a name.
    pub fn add(&mut self, name: &str, value: &str) {
        // Lengths, so that no value can pass for two.
        self.0.update(format!("{name} {} {value}\n", value.len()));
    }

    /// The key so far, as hexadecimal digits.
    pub fn text(&self) -> String {
        let mut text = hex(&self.0.clone().finalize());
        text.truncate(DIGITS);
        text
    }
}

/// Whether a folder's name is a key.
pub(super) fn is_key(name: &str) -> bool {
    name.len() == DIGITS && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// SHA-256 of a file.
pub(super) fn of_file(path: &Path) -> Result<String> {
    hash_file(path).with_context(|| format!("cannot read {}", path.display()))
}

/// SHA-256 of a video, or of names and content of a folder's images.
pub(super) fn of_clip(info: &SourceInfo) -> Result<String> {
    match info.kind {
        SourceKind::Video => of_file(&info.path),
        SourceKind::Images => of_files(&images::list(&info.path)?),
    }
}

fn of_files(files: &[std::path::PathBuf]) -> Result<String> {
    let mut key = Key::default();
    for file in files {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        key.add(&name, &of_file(file)?);
    }
    Ok(hex(&key.0.finalize()))
}

/// SHA-256 of names and content of a folder's files; hidden ones and folders count for nothing.
pub(super) fn of_folder(dir: &Path) -> Result<String> {
    let entries = std::fs::read_dir(dir).and_then(|entries| {
        let paths = entries.map(|entry| entry.map(|entry| entry.path()));
        paths.collect::<io::Result<Vec<_>>>()
    });
    let mut files = entries.with_context(|| format!("cannot read the folder {}", dir.display()))?;
    files.retain(|path| {
        let hidden = path
            .file_name()
            .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        !hidden && path.is_file()
    });
    files.sort();
    of_files(&files)
}

/// Adds prompts with their masks' pixels.
pub(super) fn add_prompts<'a>(key: &mut Key, prompts: impl Iterator<Item = &'a Prompt>) {
    for prompt in prompts {
        let Prompt {
            frame,
            object,
            bbox,
            points,
            mask,
        } = prompt;
        key.add("prompt", &format!("{frame} {object} {bbox:?} {points:?}"));
        if let Some(mask) = mask {
            let hash = hex_digest(&mask.data);
            key.add("mask", &format!("{} {} {hash}", mask.width, mask.height));
        }
    }
}

/// Adds what is this variant's own: its bundle, and that of its detector if it is another, whose manifests have the hash of every
/// other file, and how it is run.
pub(super) fn add_variant(
    key: &mut Key,
    model: &Path,
    detecting: Option<&Path>,
    manner: &Manner,
) -> Result<()> {
    key.add("manifest", &of_file(&model.join(MANIFEST_FILE))?);
    if let Some(dir) = detecting {
        key.add("detector's manifest", &of_file(&dir.join(MANIFEST_FILE))?);
    }
    let runtime = &manner.runtime;
    key.add(
        "manner",
        &format!(
            "{} {} {:?} {:?} {:?} {:?}",
            runtime.provider,
            runtime.device_id,
            runtime.threads,
            manner.chunk,
            manner.mem_limit,
            runtime.cuda_options
        ),
    );
    for argument in manner.policy.arguments() {
        key.add("policy", &argument);
    }
    for argument in manner.finding() {
        key.add("finding", &argument.to_string_lossy());
    }
    // One that is not found is an error of the run.
    if let Ok(found) = library::find(runtime.ort_lib.as_deref()) {
        let path = found.path.canonicalize().unwrap_or(found.path);
        let meta = path.metadata().ok();
        let modified = meta.as_ref().and_then(|meta| meta.modified().ok());
        let length = meta.map(|meta| meta.len());
        key.add(
            "library",
            &format!("{} {length:?} {modified:?}", path.display()),
        );
    }
    Ok(())
}
