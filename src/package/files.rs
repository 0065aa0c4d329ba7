//! The files of a package while it is collected: the program, libraries, bundles, licences, and the lists of all of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use super::archive::{Content, Entry, Sum};
use super::bom::{self, Material};
use super::crates::{self, Crate};
use super::debian::{self, Installed};
use super::error::PackageError;
use super::libraries::{Library, Origin, PROGRAM, Program};
use super::manifest::{BundleEntry, FileEntry, MANIFEST, Manifest};
use super::recipe::Recipe;
use super::wheels::Distribution;
use crate::bundle::{Bundle, hex_digest};
use crate::shared_library::elf;

/// The folder of licences in a package.
pub(super) const LICENCES: &str = "licences";

/// All files of a package.
#[derive(Debug)]
pub struct Package {
    /// The files, with their sizes and hashes.
    pub entries: Vec<(Entry, Sum)>,
    /// The package's manifest.
    pub manifest: Manifest,
}

/// The files of a package, while it is collected.
#[derive(Default)]
pub(super) struct Files {
    /// By path in the package.
    entries: BTreeMap<String, Entry>,
    /// SHA-256 of the files from which changed entries were made, by path in the package.
    originals: BTreeMap<String, String>,
}

impl Files {
    /// Adds a file.
    pub(super) fn add(&mut self, entry: Entry) {
        self.entries.insert(entry.path.clone(), entry);
    }

    fn bytes(&mut self, path: &str, executable: bool, from: &str, bytes: Vec<u8>) {
        self.add(Entry {
            path: path.to_owned(),
            executable,
            from: from.to_owned(),
            content: Content::Bytes(bytes),
        });
    }

    /// Adds a text that this program wrote.
    pub(super) fn text(&mut self, path: &str, text: String) {
        let from = format!("{PROGRAM} {}", env!("CARGO_PKG_VERSION"));
        self.bytes(path, false, &from, text.into_bytes());
    }

    /// Adds the program, without its debug information.
    ///
    /// # Errors
    /// [`PackageError::Elf`].
    pub(super) fn program(&mut self, program: &Program, file: &Path) -> Result<(), PackageError> {
        let from = format!("{PROGRAM} {}", env!("CARGO_PKG_VERSION"));
        let stripped = elf::stripped(&program.bytes).map_err(PackageError::elf(file))?;
        self.bytes(PROGRAM, true, &from, stripped);
        let original = hex_digest(&program.bytes);
        self.originals.insert(PROGRAM.to_owned(), original);
        Ok(())
    }

    /// Adds a library, with its own folder as RPATH. NVIDIA's licences require unchanged files, so theirs stay as they are if they
    /// find their folder already. A RUNPATH becomes an RPATH, which comes before LD_LIBRARY_PATH.
    ///
    /// # Errors
    /// The file cannot be read or changed, or is not the one that its wheel lists.
    pub(super) fn library(
        &mut self,
        name: &str,
        library: &Library,
        from: String,
    ) -> Result<(), PackageError> {
        let mut entry = Entry {
            path: format!("lib/{name}"),
            executable: false,
            from,
            content: Content::File(library.path.clone()),
        };
        let original = entry.sum()?.sha256;
        let mut unchanged = false;
        if let Origin::Wheel(distribution) = &library.origin {
            distribution.check(&library.path, &original)?;
            unchanged = distribution.is_nvidia() && library.elf.finds_its_folder();
        }
        if !unchanged {
            let bytes = fs::read(&library.path).map_err(PackageError::read(&library.path))?;
            let changed =
                elf::with_own_folder_as_rpath(&bytes).map_err(PackageError::elf(&library.path))?;
            entry.content = Content::Bytes(changed);
            self.originals.insert(entry.path.clone(), original);
        }
        self.add(entry);
        Ok(())
    }

    /// Adds the files of bundles. `step` gets the path of each bundle.
    ///
    /// # Errors
    /// A bundle is damaged, or two folders have the same name.
    pub(super) fn bundles(
        &mut self,
        dirs: &[PathBuf],
        step: &mut impl FnMut(&str),
    ) -> Result<Vec<BundleEntry>, PackageError> {
        let mut bundles: Vec<BundleEntry> = Vec::new();
        let mut known: BTreeMap<String, PathBuf> = BTreeMap::new();
        for dir in dirs {
            let real = dir.canonicalize().map_err(PackageError::read(dir))?;
            let name = real
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            step(&format!("models/{name}"));
            if let Some(first) = known.insert(name.clone(), dir.clone()) {
                return Err(PackageError::SameName {
                    name,
                    first,
                    second: dir.clone(),
                });
            }
            let bundle = Bundle::open(dir)?;
            let path = format!("models/{name}");
            for file in bundle.files() {
                self.add(Entry {
                    path: format!("{path}/{file}"),
                    executable: false,
                    from: format!("bundle {name}"),
                    content: Content::File(dir.join(file)),
                });
            }
            bundles.push(BundleEntry {
                path,
                manifest_sha256: bundle.manifest_sha256().to_owned(),
                licence: bundle.manifest().source.licence.clone(),
            });
        }
        bundles.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(bundles)
    }

    /// Adds the licences of all parts.
    ///
    /// # Errors
    /// A licence cannot be read.
    pub(super) fn licences(
        &mut self,
        recipe: &Recipe,
        crates: &[Crate],
        wheels: &[&Distribution],
        debian: &BTreeSet<Installed>,
    ) -> Result<(), PackageError> {
        self.text(
            &format!("{LICENCES}/LICENSE-MIT"),
            include_str!("../../LICENSE-MIT").to_owned(),
        );
        self.text(
            &format!("{LICENCES}/LICENSE-APACHE"),
            include_str!("../../LICENSE-APACHE").to_owned(),
        );
        self.text(
            &format!("{LICENCES}/rust-crates.txt"),
            crates::licences(crates),
        );
        for distribution in wheels {
            for entry in distribution.licences(LICENCES) {
                self.add(entry);
            }
        }
        for entry in debian::licences(debian, LICENCES)? {
            self.add(entry);
        }
        if let Some(dir) = &recipe.ffmpeg {
            let dir = dir.join(LICENCES);
            for entry in fs::read_dir(&dir).map_err(PackageError::read(&dir))? {
                let file = entry.map_err(PackageError::read(&dir))?;
                let name = file.file_name().to_string_lossy().into_owned();
                let bytes = fs::read(file.path()).map_err(PackageError::read(&file.path()))?;
                self.bytes(&format!("{LICENCES}/ffmpeg/{name}"), false, "ffmpeg", bytes);
            }
        }
        Ok(())
    }

    /// Adds the files that list the others: the manifest, the bill of materials and the checksums.
    ///
    /// # Errors
    /// A file cannot be read.
    pub(super) fn finish(
        mut self,
        mut manifest: Manifest,
        materials: &[Material],
    ) -> Result<Package, PackageError> {
        let mut summed = Vec::with_capacity(self.entries.len() + 3);
        for (path, entry) in std::mem::take(&mut self.entries) {
            let sum = entry.sum()?;
            manifest.files.push(FileEntry {
                original_sha256: self.originals.remove(&path),
                path,
                bytes: sum.bytes,
                sha256: sum.sha256.clone(),
                from: entry.from.clone(),
            });
            summed.push((entry, sum));
        }
        let digest = hex_digest(checksums(&summed).as_bytes());
        let bom = bom::document(&manifest.name, &manifest.version, &digest, materials);
        let pretty = |value: &serde_json::Value| format!("{value:#}\n");
        self.text("bom.spdx.json", pretty(&bom));
        self.text(MANIFEST, pretty(&serde_json::json!(manifest)));
        for (_, entry) in std::mem::take(&mut self.entries) {
            let sum = entry.sum()?;
            summed.push((entry, sum));
        }
        summed.sort_by(|a, b| a.0.path.cmp(&b.0.path));
        self.text("SHA256SUMS", checksums(&summed));
        for (_, entry) in self.entries {
            let sum = entry.sum()?;
            summed.push((entry, sum));
        }
        Ok(Package {
            entries: summed,
            manifest,
        })
    }
}

/// A line for each file, as `sha256sum --check` reads it.
fn checksums(entries: &[(Entry, Sum)]) -> String {
    entries
        .iter()
        .map(|(entry, sum)| format!("{}  {}\n", sum.sha256, entry.path))
        .collect()
}
