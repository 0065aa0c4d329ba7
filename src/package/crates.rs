//! The Rust crates that are linked into the program, and their licences. `scripts/crate-licences` writes the list.

use std::fmt::Write as _;

use serde::Deserialize;

/// A crate.
#[derive(Debug, Clone, Deserialize)]
pub struct Crate {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its licence as an SPDX expression, or nearly.
    pub licence: String,
    texts: Vec<usize>,
}

/// All of them, with the texts of their licences.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Crates {
    /// In the order of names.
    pub crates: Vec<Crate>,
    texts: Vec<String>,
}

impl Crates {
    /// What was linked into this version of the program.
    pub fn linked() -> Self {
        // A test reads the same text.
        serde_json::from_str(include_str!("crates.json")).unwrap_or_default()
    }

    /// All licences in one text, each with the crates that it is for.
    pub fn licences(&self) -> String {
        let mut text = String::from("Licences of the Rust crates that are linked into snow-ort.\n");
        for one in &self.crates {
            let _ = write!(text, "\n{} {}: {}", one.name, one.version, one.licence);
        }
        text.push('\n');
        for (number, licence) in self.texts.iter().enumerate() {
            let of: Vec<String> = self
                .crates
                .iter()
                .filter(|one| one.texts.contains(&number))
                .map(|one| format!("{} {}", one.name, one.version))
                .collect();
            let _ = write!(
                text,
                "\n{}\n{}\n\n{licence}\n",
                "-".repeat(78),
                of.join(", ")
            );
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_crate_of_the_list_is_in_the_lock_and_has_a_licence() {
        let linked = Crates::linked();
        let lock = include_str!("../../Cargo.lock");
        assert!(linked.crates.len() > 50, "{}", linked.crates.len());
        for one in &linked.crates {
            let locked = format!("name = \"{}\"\nversion = \"{}\"\n", one.name, one.version);
            assert!(
                lock.contains(&locked),
                "{} {}: run scripts/crate-licences",
                one.name,
                one.version
            );
            assert!(!one.licence.is_empty(), "{}", one.name);
        }
        // What Cargo.toml names itself.
        let manifest = include_str!("../../Cargo.toml");
        let (_, dependencies) = manifest.split_once("[dependencies]\n").unwrap();
        let (dependencies, _) = dependencies.split_once("\n[").unwrap();
        for line in dependencies.lines().filter(|line| !line.starts_with('#')) {
            let name = line.split_whitespace().next().unwrap_or("");
            let listed = linked.crates.iter().any(|one| one.name == name);
            assert!(
                listed || name.is_empty() || name == "thiserror-impl",
                "{name}: run scripts/crate-licences"
            );
        }
        let text = linked.licences();
        assert!(text.contains("Permission is hereby granted") && text.contains("anyhow 1."));
    }
}
