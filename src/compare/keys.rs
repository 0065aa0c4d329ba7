//! Keys: hashes of everything that a result depends on. A kept result is used again if its key is still the same.

use std::io;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::error::{AbError, unreadable};
use crate::bundle::{MANIFEST_FILE, hash_file, hex, hex_digest};
use crate::media::{SourceInfo, SourceKind, images};
use crate::prompts::Prompts;
use crate::runtime::library;
use crate::session::config::Objects;
use crate::session::{Config, SessionError};
use crate::tracker::Prompt;

/// Hexadecimal digits of a key: enough to tell the results in one folder apart.
const DIGITS: usize = 16;

/// Collects what a result depends on.
#[derive(Clone, Default)]
pub(super) struct Key(Sha256);

impl Key {
    /// Adds a value under a name.
    pub(super) fn add(&mut self, name: &str, value: &str) {
        // With its length, so that one value cannot look like two.
        self.0.update(format!("{name} {} {value}\n", value.len()));
    }

    /// The key so far, as hexadecimal digits.
    pub(super) fn text(&self) -> String {
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
pub(super) fn of_file(path: &Path) -> Result<String, AbError> {
    hash_file(path).map_err(unreadable(path))
}

/// SHA-256 of a video, or of names and content of a folder's images.
pub(super) fn of_clip(info: &SourceInfo) -> Result<String, AbError> {
    match info.kind {
        SourceKind::Video => of_file(&info.path),
        SourceKind::Images => of_files(&images::list(&info.path).map_err(SessionError::from)?),
    }
}

fn of_files(files: &[PathBuf]) -> Result<String, AbError> {
    let mut key = Key::default();
    for file in files {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        key.add(&name, &of_file(file)?);
    }
    Ok(hex(&key.0.finalize()))
}

/// SHA-256 of names and content of the files in a folder; hidden files and folders do not count.
pub(super) fn of_folder(dir: &Path) -> Result<String, AbError> {
    let entries = std::fs::read_dir(dir).and_then(|entries| {
        let paths = entries.map(|entry| entry.map(|entry| entry.path()));
        paths.collect::<io::Result<Vec<_>>>()
    });
    let mut files = entries.map_err(unreadable(dir))?;
    files.retain(|path| {
        let hidden = path
            .file_name()
            .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        !hidden && path.is_file()
    });
    files.sort();
    of_files(&files)
}

/// Adds prompts, with the pixels of their masks.
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
            let pixels = mask.pixels().iter().map(|inside| u8::from(*inside));
            let hash = hex_digest(&pixels.collect::<Vec<u8>>());
            key.add(
                "mask",
                &format!("{} {} {hash}", mask.width(), mask.height()),
            );
        }
    }
}

/// Adds the bundle of a variant, the bundle of its detector if that is another one, and all settings of its run. The manifest
/// of a bundle has the hash of each of its files. Prompts are added by [`add_prompts`], other files by their content.
///
/// # Errors
/// [`AbError::Unreadable`].
pub(super) fn add_variant(key: &mut Key, config: &Config) -> Result<(), AbError> {
    key.add("manifest", &of_file(&config.bundle.join(MANIFEST_FILE))?);
    let mut settings = Config {
        input: PathBuf::new(),
        bundle: PathBuf::new(),
        ground_truth: None,
        protect: Vec::new(),
        ..config.clone()
    };
    settings.engine.library = None;
    match &mut settings.objects {
        Objects::Prompts(prompts) => *prompts = Prompts::none(),
        Objects::Texts(texts) => {
            if let Some(dir) = texts.detector_bundle.take() {
                key.add("detector's manifest", &of_file(&dir.join(MANIFEST_FILE))?);
            }
        }
        Objects::Proposals(proposals) => {
            proposals.prompts = Prompts::none();
            proposals.graph.file = PathBuf::new();
        }
    }
    key.add(
        "settings",
        &serde_json::to_string(&settings).unwrap_or_default(),
    );
    // A library that is not found is an error of the run.
    if let Ok(found) = library::find(config.engine.library.as_deref()) {
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
