//! What a run reads must not be what it replaces.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use super::args::RunArgs;
use crate::media::MediaError;
use crate::output::holds_staging;
use crate::prompts::Prompts;

/// What a commit replaces in the output folder.
const PARTS: [&str; 3] = ["masks", "tracks.json", "run.json"];

/// A path with what it is, in words.
struct Named {
    what: String,
    path: PathBuf,
}

/// Checks where the outputs of a run go, before any of them is created.
///
/// # Errors
///
/// Something that the run reads is, or lies in, something that it would replace; two outputs are in each other's way;
/// an output is none that can be written.
pub(super) fn check_outputs(
    args: &RunArgs,
    out: &Path,
    prompts: &Prompts,
    bundle: &Path,
) -> Result<()> {
    let run = resolved(out);
    let logits = args.dump_logits.as_deref().map(resolved);
    let overlay = args.overlay.as_deref().map(resolved);
    let sheet = args.contact_sheet.as_deref().map(resolved);

    if let Some(file) = args.overlay.as_deref() {
        if cfg!(not(feature = "video")) {
            bail!(
                "--overlay {}: this program was built without video; leave it out, or take a build with the feature `video` (--contact-sheet works without)",
                file.display()
            );
        }
        check_overlay_name(file)?;
    }
    if let (Some(file), Some(real)) = (args.contact_sheet.as_deref(), &sheet) {
        check_sheet(args, file, real)?;
    }
    let outputs = [
        ("--out", Some(out), Some(&run)),
        (
            "--dump-logits",
            args.dump_logits.as_deref(),
            logits.as_ref(),
        ),
        ("--overlay", args.overlay.as_deref(), overlay.as_ref()),
        (
            "--contact-sheet",
            args.contact_sheet.as_deref(),
            sheet.as_ref(),
        ),
    ];
    for (flag, given, real) in outputs {
        let (Some(given), Some(real)) = (given, real) else {
            continue;
        };
        if holds_staging(real) {
            bail!(
                "{flag} {} lies in the folder of an unfinished run, which is removed when it ends; give another path",
                given.display()
            );
        }
        let part = PARTS
            .iter()
            .map(|name| out.join(name))
            .find(|part| real.starts_with(resolved(part)));
        if let (Some(part), false) = (part, flag == "--out") {
            bail!(
                "{flag} {} is or lies in {}, which the run itself writes; give another path",
                given.display(),
                part.display()
            );
        }
        // Results among the files of a bundle would make it another one.
        let model = resolved(bundle);
        let taken = match flag {
            "--out" => *real == model,
            "--dump-logits" => real.starts_with(&model),
            _ => real.starts_with(&model) && real.exists(),
        };
        if taken {
            bail!(
                "{flag} {} is a part of the bundle {}; give another path",
                given.display(),
                bundle.display()
            );
        }
    }

    let mut replaced: Vec<Named> = PARTS
        .iter()
        .map(|name| named("what the run would replace", &out.join(name)))
        .collect();
    replaced.extend(
        args.dump_logits
            .iter()
            .map(|dir| named("the logits folder", dir)),
    );
    replaced.extend(args.overlay.iter().map(|file| named("the overlay", file)));
    let sheet = args.contact_sheet.iter();
    replaced.extend(sheet.map(|file| named("the contact sheet", file)));
    for read in what_is_read(args, prompts, bundle) {
        // What cannot be resolved does not exist, and is reported by whoever reads it.
        let Ok(real) = read.path.canonicalize() else {
            continue;
        };
        if let Some(target) = replaced
            .iter()
            .find(|target| real.starts_with(resolved(&target.path)))
        {
            bail!(
                "{} {} is or lies in {}, {}: it would be lost; give other output paths, or copy it elsewhere first",
                read.what,
                read.path.display(),
                target.path.display(),
                target.what
            );
        }
    }
    Ok(())
}

fn check_overlay_name(file: &Path) -> Result<()> {
    let ending = file
        .extension()
        .map(|ending| ending.to_string_lossy().to_lowercase());
    match ending.as_deref() {
        Some("mp4" | "mov" | "mkv") => Ok(()),
        other => Err(MediaError::OverlayFormat {
            path: file.to_path_buf(),
            ending: other.map_or("no ending at all".to_owned(), |ending| format!(".{ending}")),
        }
        .into()),
    }
}

/// A PNG among PNGs that are read would be one of them the next time, or replace one.
fn check_sheet(args: &RunArgs, file: &Path, real: &Path) -> Result<()> {
    let ending = file
        .extension()
        .map(|ending| ending.to_string_lossy().to_lowercase());
    if ending.as_deref() != Some("png") {
        return Err(MediaError::SheetFormat {
            path: file.to_path_buf(),
            ending: ending.map_or("no ending at all".to_owned(), |ending| format!(".{ending}")),
        }
        .into());
    }
    let read = [("the input", Some(&args.input)), ("--gt", args.gt.as_ref())];
    for (what, dir) in read {
        let Some(dir) = dir.filter(|dir| dir.is_dir()) else {
            continue;
        };
        if real.parent() == Some(&resolved(dir)) {
            bail!(
                "--contact-sheet {} lies in {}, {what}, whose PNGs are read; give another path",
                file.display(),
                dir.display()
            );
        }
    }
    Ok(())
}

fn named(what: &str, path: &Path) -> Named {
    Named {
        what: what.to_owned(),
        path: path.to_path_buf(),
    }
}

fn what_is_read(args: &RunArgs, prompts: &Prompts, bundle: &Path) -> Vec<Named> {
    let mut read = vec![named("the input", &args.input), named("the bundle", bundle)];
    read.extend(args.gt.iter().map(|dir| named("the ground truth", dir)));
    // A folder of links reads what the links lead to.
    let folders = [
        ("the image", Some(&args.input)),
        ("the ground truth", args.gt.as_ref()),
    ];
    for (what, dir) in folders {
        let entries = dir.into_iter().flat_map(std::fs::read_dir).flatten();
        for entry in entries.flatten() {
            if entry.path().is_symlink() {
                read.push(named(what, &entry.path()));
            }
        }
    }
    read.extend(
        args.prompting
            .prompts
            .iter()
            .map(|file| named("the prompts file", file)),
    );
    read.extend(
        args.proposals
            .graph
            .proposals
            .iter()
            .map(|file| named("the graph of --proposals", file)),
    );
    read.extend(
        args.runtime
            .ort_lib
            .iter()
            .map(|file| named("the library", file)),
    );
    for (origin, file) in prompts.mask_files() {
        read.push(named(&format!("{origin}: the mask"), file));
    }
    read
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
