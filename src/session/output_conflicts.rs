//! Checks, before any output is made, that a run replaces nothing that it reads and that its outputs do not collide.

use std::path::{Path, PathBuf};

use super::SessionError;
use super::config::{Config, Objects, OutputConfig};
use crate::media::MediaError;
use crate::output::holds_staging;
use crate::prompts::Prompts;

/// What a finished run replaces in its output folder.
const PARTS: [&str; 3] = ["masks", "tracks.json", "run.json"];

/// The names of the two outputs that are folders.
const OUTPUT_FOLDER: &str = "the output folder";
const LOGITS_FOLDER: &str = "the logits folder";

/// Why the outputs of a run would do damage. Each `what` is a thing in words, such as `the overlay`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OutputConflict {
    /// The program cannot write videos.
    #[error(
        "the overlay {}: this program was built without video; leave it out, or use a build with the feature `video` (a contact sheet works without)",
        path.display()
    )]
    NoVideo {
        /// The overlay.
        path: PathBuf,
    },
    /// An output lies in the hidden folder of an unfinished run.
    #[error(
        "{what} {} lies in the folder of an unfinished run, which is removed when it ends; give another path",
        path.display()
    )]
    Unfinished {
        /// The output.
        what: &'static str,
        /// Its path.
        path: PathBuf,
    },
    /// An output is, or lies in, another one.
    #[error(
        "{what} {} is or lies in {}, which the run itself writes; give another path",
        path.display(), part.display()
    )]
    Collision {
        /// The output.
        what: &'static str,
        /// Its path.
        path: PathBuf,
        /// The other output.
        part: PathBuf,
    },
    /// An output would become a part of the bundle.
    #[error("{what} {} is a part of the bundle {}; give another path", path.display(), bundle.display())]
    InBundle {
        /// The output.
        what: &'static str,
        /// Its path.
        path: PathBuf,
        /// The bundle's folder.
        bundle: PathBuf,
    },
    /// The contact sheet would lie among PNGs that the run reads.
    #[error(
        "the contact sheet {} lies in {}, {what}, whose PNGs are read; give another path",
        path.display(), dir.display()
    )]
    AmongInputs {
        /// The contact sheet.
        path: PathBuf,
        /// The folder of PNGs.
        dir: PathBuf,
        /// What the folder is.
        what: &'static str,
    },
    /// An output would replace what the run reads.
    #[error(
        "{what} {} is or lies in {}, {target}: it would be lost; give other output paths, or copy it elsewhere first",
        path.display(), place.display()
    )]
    Replaces {
        /// What is read.
        what: String,
        /// Its path.
        path: PathBuf,
        /// The output's path.
        place: PathBuf,
        /// The output.
        target: &'static str,
    },
}

/// A file or folder that the run reads, with what it is in words.
struct Read {
    what: String,
    path: PathBuf,
}

/// Outputs of a run with their names in words.
fn outputs_of(outputs: &OutputConfig) -> Vec<(&'static str, &Path)> {
    let dir = Some((OUTPUT_FOLDER, outputs.dir.as_path()));
    let optional = [
        (LOGITS_FOLDER, outputs.logits.as_deref()),
        ("the overlay", outputs.overlay.as_deref()),
        ("the contact sheet", outputs.contact_sheet.as_deref()),
    ];
    let optional = optional
        .into_iter()
        .filter_map(|(what, path)| Some((what, path?)));
    dir.into_iter().chain(optional).collect()
}

/// Checks where the outputs of a run go, before any of them is created.
///
/// # Errors
/// [`OutputConflict`], or an overlay or a contact sheet with an ending that is not supported.
pub(super) fn check(config: &Config, outputs: &OutputConfig) -> Result<(), SessionError> {
    if let Some(file) = &outputs.overlay {
        check_overlay(file)?;
    }
    if let Some(file) = &outputs.contact_sheet {
        check_contact_sheet(config, file)?;
    }
    let all = outputs_of(outputs);
    for &(what, path) in &all {
        check_place(what, path, outputs, &config.bundle)?;
    }

    let mut replaced: Vec<(&'static str, PathBuf)> = PARTS
        .iter()
        .map(|name| ("what the run would replace", outputs.dir.join(name)))
        .collect();
    let others = all.iter().skip(1);
    replaced.extend(others.map(|&(what, path)| (what, path.to_path_buf())));
    for read in reads_of(config) {
        // A path that does not exist is reported by the code that reads it.
        let Ok(real) = read.path.canonicalize() else {
            continue;
        };
        let lost = replaced
            .iter()
            .find(|(_, path)| real.starts_with(resolved(path)));
        if let Some((target, place)) = lost {
            return Err(OutputConflict::Replaces {
                what: read.what,
                path: read.path,
                place: place.clone(),
                target,
            }
            .into());
        }
    }
    Ok(())
}

fn check_place(
    what: &'static str,
    path: &Path,
    outputs: &OutputConfig,
    bundle: &Path,
) -> Result<(), OutputConflict> {
    let real = resolved(path);
    if holds_staging(&real) {
        return Err(OutputConflict::Unfinished {
            what,
            path: path.to_path_buf(),
        });
    }
    let is_dir = what == OUTPUT_FOLDER;
    let part = PARTS
        .iter()
        .map(|name| outputs.dir.join(name))
        .find(|part| real.starts_with(resolved(part)));
    if let (Some(part), false) = (part, is_dir) {
        return Err(OutputConflict::Collision {
            what,
            path: path.to_path_buf(),
            part,
        });
    }
    // Results among the files of a bundle would make it another one.
    let model = resolved(bundle);
    let taken = match what {
        OUTPUT_FOLDER => real == model,
        LOGITS_FOLDER => real.starts_with(&model),
        _ => real.starts_with(&model) && real.exists(),
    };
    if taken {
        return Err(OutputConflict::InBundle {
            what,
            path: path.to_path_buf(),
            bundle: bundle.to_path_buf(),
        });
    }
    Ok(())
}

/// The ending of a file name in lower case, with its dot; `no ending at all` without one.
fn ending_of(file: &Path) -> String {
    let ending = file.extension();
    ending.map_or("no ending at all".to_owned(), |ending| {
        format!(".{}", ending.to_string_lossy().to_lowercase())
    })
}

fn check_overlay(file: &Path) -> Result<(), SessionError> {
    if cfg!(not(feature = "video")) {
        return Err(OutputConflict::NoVideo {
            path: file.to_path_buf(),
        }
        .into());
    }
    match ending_of(file) {
        ending if [".mp4", ".mov", ".mkv"].contains(&ending.as_str()) => Ok(()),
        ending => Err(MediaError::OverlayFormat {
            path: file.to_path_buf(),
            ending,
        }
        .into()),
    }
}

/// A PNG among PNGs that are read would be one of them in the next run, or replace one.
fn check_contact_sheet(config: &Config, file: &Path) -> Result<(), SessionError> {
    let ending = ending_of(file);
    if ending != ".png" {
        return Err(MediaError::SheetFormat {
            path: file.to_path_buf(),
            ending,
        }
        .into());
    }
    let read = [
        ("the input", Some(&config.input)),
        ("the ground truth", config.ground_truth.as_ref()),
    ];
    for (what, dir) in read {
        let Some(dir) = dir.filter(|dir| dir.is_dir()) else {
            continue;
        };
        if resolved(file).parent() == Some(&resolved(dir)) {
            return Err(OutputConflict::AmongInputs {
                path: file.to_path_buf(),
                dir: dir.clone(),
                what,
            }
            .into());
        }
    }
    Ok(())
}

fn read(what: impl Into<String>, path: &Path) -> Read {
    Read {
        what: what.into(),
        path: path.to_path_buf(),
    }
}

/// Every file and folder that the run reads.
fn reads_of(config: &Config) -> Vec<Read> {
    let mut reads = vec![
        read("the input", &config.input),
        read("the bundle", &config.bundle),
    ];
    let truth = config.ground_truth.as_deref();
    reads.extend(truth.map(|dir| read("the ground truth", dir)));
    // A folder of links reads the files that the links lead to.
    let folders = [
        ("the image", Some(config.input.as_path())),
        ("the ground truth", truth),
    ];
    for (what, dir) in folders {
        let entries = dir.into_iter().flat_map(std::fs::read_dir).flatten();
        for entry in entries.flatten() {
            if entry.path().is_symlink() {
                reads.push(read(what, &entry.path()));
            }
        }
    }
    reads.extend(config.protect.iter().map(|file| read("the file", file)));
    match &config.objects {
        Objects::Prompts(_) => {}
        Objects::Texts(texts) => {
            let bundle = texts.detector_bundle.as_deref();
            reads.extend(bundle.map(|dir| read("the detector's bundle", dir)));
        }
        Objects::Proposals(proposals) => {
            reads.push(read("the graph of proposals", &proposals.graph.file));
        }
    }
    let library = config.engine.library.as_deref();
    reads.extend(library.map(|file| read("the library", file)));
    let masks = config.prompts().into_iter().flat_map(Prompts::mask_files);
    reads.extend(masks.map(|(origin, file)| read(format!("{origin}: the mask"), file)));
    reads
}

/// The path without links, as far as it exists.
fn resolved(path: &Path) -> PathBuf {
    if let Ok(real) = path.canonicalize() {
        return real;
    }
    // A link that leads nowhere is itself what stands there.
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => {
            let parent = if parent.as_os_str().is_empty() {
                Path::new(".")
            } else {
                parent
            };
            resolved(parent).join(name)
        }
        _ => path.to_path_buf(),
    }
}
