//! ARCHITECTURE.md lists which module may use which; the code's own paths must keep to it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// The block between "```may-use" and "```": `module: modules it may use`.
fn allowed() -> BTreeMap<String, BTreeSet<String>> {
    let text = std::fs::read_to_string(Path::new(ROOT).join("ARCHITECTURE.md")).unwrap();
    let block = text.split("```may-use\n").nth(1).expect("a may-use block");
    let block = block.split("```").next().unwrap();
    let lines = block.lines().filter(|line| !line.trim().is_empty());
    lines
        .map(|line| {
            let (module, used) = line.split_once(':').expect("`module: modules`");
            let used = used.split_whitespace().map(str::to_owned).collect();
            (module.trim().to_owned(), used)
        })
        .collect()
}

fn rust_files(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            files.push(path);
        }
    }
    files
}

/// The modules that a line of code names as `crate::module` or in `crate::{module, …}`.
fn named(line: &str) -> Vec<String> {
    let word = |text: &str| -> String {
        let end = text.find(|c: char| !(c.is_alphanumeric() || c == '_'));
        text[..end.unwrap_or(text.len())].to_owned()
    };
    let mut found = Vec::new();
    for (at, _) in line.match_indices("crate::") {
        let rest = &line[at + "crate::".len()..];
        match rest.strip_prefix('{') {
            Some(list) => found.extend(list.split(',').map(|part| word(part.trim()))),
            None => found.push(word(rest)),
        }
    }
    found
}

#[test]
fn modules_use_only_what_the_architecture_allows() {
    let allowed = allowed();
    let source = Path::new(ROOT).join("src");
    let mut wrong = BTreeSet::new();
    let mut seen = BTreeSet::new();
    for file in rust_files(&source) {
        let inner = file.strip_prefix(&source).unwrap();
        let first = inner.components().next().unwrap().as_os_str();
        let module = first.to_string_lossy().trim_end_matches(".rs").to_owned();
        if ["lib", "main"].contains(&module.as_str()) {
            continue;
        }
        let Some(may_use) = allowed.get(&module) else {
            wrong.insert(format!("{module} is not in the list"));
            continue;
        };
        seen.insert(module.clone());
        let text = std::fs::read_to_string(&file).unwrap();
        for line in text
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"))
        {
            for used in named(line) {
                let known = allowed.contains_key(&used);
                if known && used != module && !may_use.contains(&used) {
                    wrong.insert(format!("{} uses {used}", inner.display()));
                }
            }
        }
    }
    for module in allowed.keys().filter(|module| !seen.contains(*module)) {
        wrong.insert(format!("{module} is in the list, but not in src/"));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_list_has_no_circle() {
    let mut left = allowed();
    while !left.is_empty() {
        let free: Vec<String> = left
            .iter()
            .filter(|(module, used)| used.iter().all(|u| u == *module || !left.contains_key(u)))
            .map(|(module, _)| module.clone())
            .collect();
        assert!(!free.is_empty(), "these use each other: {:?}", left.keys());
        for module in free {
            left.remove(&module);
        }
    }
}
