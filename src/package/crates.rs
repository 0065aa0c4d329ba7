//! The Rust crates that are linked into the program, and their licences. build.rs collects them.

use std::fmt::Write as _;

use super::error::PackageError;

/// A crate.
#[derive(Debug, Clone, Copy)]
pub(super) struct Crate {
    /// Its name.
    pub name: &'static str,
    /// Its version.
    pub version: &'static str,
    /// Its licence as its manifest states it: an SPDX expression, in older crates with `/` for `OR`.
    pub licence: &'static str,
    /// Indices of its licence texts.
    texts: &'static [usize],
}

/// The crates that build.rs found.
struct Crates {
    /// In name order.
    crates: &'static [Crate],
    /// The licence texts of all crates, each once.
    texts: &'static [&'static str],
    /// Why the list is not complete.
    problem: Option<&'static str>,
}

const CRATES: Crates = include!(concat!(env!("OUT_DIR"), "/crates.rs"));

/// Beginning of the names of the crates that only a program with video has.
const VIDEO: &str = "ffmpeg";

/// The crates in a program of this version, with or without video.
///
/// # Errors
/// [`PackageError::CrateLicences`] if the build of this program could not collect them, or if a program with video is asked
/// for and this one has none.
pub(super) fn linked(video: bool) -> Result<Vec<Crate>, PackageError> {
    checked(&CRATES, video)
}

fn checked(crates: &Crates, video: bool) -> Result<Vec<Crate>, PackageError> {
    let failed = |reason: &str| PackageError::CrateLicences {
        reason: reason.to_owned(),
    };
    if let Some(problem) = crates.problem {
        return Err(failed(problem));
    }
    let is_video = |one: &Crate| one.name.starts_with(VIDEO);
    if video && !crates.crates.iter().any(is_video) {
        return Err(failed(
            "the program to pack has video, but the program that packs it has none",
        ));
    }
    let all = crates.crates.iter().copied();
    Ok(all.filter(|one| video || !is_video(one)).collect())
}

/// The licences of `crates` in one text, each with the crates that it belongs to.
pub(super) fn licences(crates: &[Crate]) -> String {
    let mut text = String::from("Licences of the Rust crates that are linked into snow-ort.\n");
    for one in crates {
        let _ = write!(text, "\n{} {}: {}", one.name, one.version, one.licence);
    }
    text.push('\n');
    for (number, licence) in CRATES.texts.iter().enumerate() {
        let of: Vec<String> = crates
            .iter()
            .filter(|one| one.texts.contains(&number))
            .map(|one| format!("{} {}", one.name, one.version))
            .collect();
        if of.is_empty() {
            continue;
        }
        let line = "-".repeat(78);
        let _ = write!(text, "\n{line}\n{}\n\n{licence}\n", of.join(", "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Crates whose sources have no licence text. Their manifests state the licence.
    const WITHOUT_TEXT: [&str; 2] = ["ffmpeg-sys-next", "object-rewrite"];

    fn video() -> bool {
        cfg!(feature = "video")
    }

    #[test]
    fn every_linked_crate_is_in_the_lock_and_has_a_licence() {
        let linked = linked(video()).unwrap();
        let lock = include_str!("../../Cargo.lock");
        assert!(linked.len() > 50, "{}", linked.len());
        for one in &linked {
            let locked = format!("name = \"{}\"\nversion = \"{}\"\n", one.name, one.version);
            assert!(lock.contains(&locked), "{} {}", one.name, one.version);
            let licence = crate::package::bom::expression(one.licence);
            assert!(licence.is_some(), "{}: {:?}", one.name, one.licence);
            let has_text = !one.texts.is_empty();
            assert_eq!(has_text, !WITHOUT_TEXT.contains(&one.name), "{}", one.name);
        }
        let text = licences(&linked);
        assert!(text.contains("Permission is hereby granted") && text.contains("anyhow 1."));
    }

    #[test]
    fn every_dependency_in_the_manifest_is_linked() {
        let linked = linked(video()).unwrap();
        let manifest = include_str!("../../Cargo.toml");
        let (_, dependencies) = manifest.split_once("[dependencies]\n").unwrap();
        let (dependencies, _) = dependencies.split_once("\n[").unwrap();
        for line in dependencies.lines().filter(|line| !line.starts_with('#')) {
            let name = line.split_whitespace().next().unwrap_or("");
            let optional = line.contains("optional = true") && !video();
            let listed = linked.iter().any(|one| one.name == name);
            assert!(listed || optional || name.is_empty(), "{name}");
        }
    }

    #[test]
    fn a_list_that_is_not_complete_is_an_error() {
        let incomplete = Crates {
            problem: Some("the sources of a-1.0.0 are not in /registry"),
            ..CRATES
        };
        let error = checked(&incomplete, false).unwrap_err().to_string();
        assert!(error.contains("a-1.0.0"), "{error}");
        let images = Crates {
            crates: &[],
            problem: None,
            ..CRATES
        };
        assert!(checked(&images, true).is_err());
        assert_eq!(checked(&images, false).unwrap().len(), 0);
    }
}
