//! Sets where the program searches for FFmpeg's libraries, and collects the licences of the crates that are linked into it.
//!
//! `snow-ort package` puts these licences into packages. They are read from the crates' sources, which a build needs anyway:
//! nothing is downloaded, and if a source is missing the build goes on and the command reports it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs, io};

/// Beginnings of the names of files with licences, in upper case.
const LICENCE_FILES: [&str; 5] = ["LICEN", "COPYING", "NOTICE", "COPYRIGHT", "UNLICENSE"];

/// Folders of a crate with C and C++ code that it builds, which has its own licences.
const FOREIGN_CODE: [&str; 2] = ["vendor", "zstd"];

/// A linked crate.
struct Crate {
    name: String,
    version: String,
    /// As its manifest states it.
    licence: String,
}

fn main() -> io::Result<()> {
    for file in ["build.rs", "Cargo.toml", "Cargo.lock"] {
        println!("cargo::rerun-if-changed={file}");
    }
    if env::var("CARGO_CFG_TARGET_OS").is_ok_and(|system| system == "linux") {
        println!("cargo::rustc-link-arg-bins=-Wl,-rpath,$ORIGIN/lib");
        // RPATH instead of RUNPATH: it comes before LD_LIBRARY_PATH, so that the program never takes another FFmpeg from
        // there, and it holds for the libraries that libraries need.
        println!("cargo::rustc-link-arg-bins=-Wl,--disable-new-dtags");
    }
    let table = match linked_crates() {
        Ok(crates) => table(&crates)?,
        Err(reason) => source(&[], &[], Some(&reason)),
    };
    let out = env::var_os("OUT_DIR").unwrap_or_default();
    fs::write(Path::new(&out).join("crates.rs"), table)
}

/// The crates that are linked into the program: no build dependencies, and no macros.
fn linked_crates() -> Result<Vec<Crate>, String> {
    let variable = |name: &str| env::var(name).unwrap_or_default();
    let features = env::vars()
        .filter_map(|(name, _)| Some(name.strip_prefix("CARGO_FEATURE_")?.to_lowercase()))
        .filter(|feature| feature != "default")
        .collect::<Vec<_>>()
        .join(",");
    let output = Command::new(variable("CARGO"))
        .current_dir(variable("CARGO_MANIFEST_DIR"))
        .args(["tree", "--offline", "--locked", "--prefix", "none"])
        .args(["--edges", "normal,no-proc-macro"])
        .args(["--format", "{p}\t{l}", "--target", &variable("TARGET")])
        .args(["--no-default-features", "--features", &features])
        .output()
        .map_err(|error| format!("`cargo tree` cannot be run: {error}"))?;
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        return Err(format!("`cargo tree` failed: {}", errors.trim()));
    }
    let mut crates = BTreeMap::new();
    // The first line is the program itself. Lines are `name v1.2.3<tab>licence`; repeated ones end in ` (*)`.
    for line in String::from_utf8_lossy(&output.stdout).lines().skip(1) {
        let line = line.trim_end_matches(" (*)");
        let (package, licence) = line.split_once('\t').unwrap_or((line, ""));
        let mut words = package.split(' ');
        let (Some(name), Some(version)) = (words.next(), words.next()) else {
            return Err(format!("`cargo tree` printed an unexpected line: {line:?}"));
        };
        let (name, version) = (name.to_owned(), version.trim_start_matches('v').to_owned());
        crates.insert((name, version), licence.to_owned());
    }
    let crates = crates.into_iter();
    Ok(crates
        .map(|((name, version), licence)| Crate {
            name,
            version,
            licence,
        })
        .collect())
}

/// Rust source of a `Crates` value with the crates and their licence texts, each text once.
fn table(crates: &[Crate]) -> io::Result<String> {
    let roots = source_roots();
    let mut texts: Vec<String> = Vec::new();
    let mut listed = Vec::new();
    let mut missing = Vec::new();
    for one in crates {
        let title = format!("{}-{}", one.name, one.version);
        let folders = roots.iter().map(|root| root.join(&title));
        let Some(folder) = folders.into_iter().find(|folder| folder.is_dir()) else {
            missing.push(title);
            continue;
        };
        let mut numbers = Vec::new();
        for text in licence_texts(&folder)? {
            let known = texts.iter().position(|known| *known == text);
            let number = known.unwrap_or(texts.len());
            if known.is_none() {
                texts.push(text);
            }
            if !numbers.contains(&number) {
                numbers.push(number);
            }
        }
        numbers.sort_unstable();
        let licence = match one.licence.as_str() {
            "" => "NOASSERTION",
            licence => licence,
        };
        listed.push(format!(
            "Crate {{ name: {:?}, version: {:?}, licence: {licence:?}, texts: &{numbers:?} }}",
            one.name, one.version
        ));
    }
    let problem = (!missing.is_empty()).then(|| {
        let roots: Vec<String> = roots
            .iter()
            .map(|root| root.display().to_string())
            .collect();
        let (missing, roots) = (missing.join(", "), roots.join(", "));
        format!("the sources of {missing} are not in {roots}")
    });
    Ok(source(&listed, &texts, problem.as_deref()))
}

/// Rust source of a `Crates` value.
fn source(crates: &[String], texts: &[String], problem: Option<&str>) -> String {
    if let Some(problem) = problem {
        let first = problem.lines().next().unwrap_or_default();
        println!(
            "cargo::warning=`snow-ort package` will not work, as licences of crates are unknown: {first}"
        );
        // No such file: the next build tries again.
        println!("cargo::rerun-if-changed=licences-of-crates-are-unknown");
    }
    let crates = crates.join(",\n");
    format!("Crates {{ crates: &[{crates}], texts: &{texts:?}, problem: {problem:?} }}\n")
}

/// Folders with the sources of crates: those of Cargo's registries, and `vendor` for a checkout with `cargo vendor`.
fn source_roots() -> Vec<PathBuf> {
    let home = env::var_os("CARGO_HOME").map(PathBuf::from).or_else(|| {
        let user = env::var_os("HOME")?;
        Some(Path::new(&user).join(".cargo"))
    });
    let registries = home.map(|home| home.join("registry/src"));
    let registries = registries.and_then(|dir| fs::read_dir(dir).ok());
    let mut roots: Vec<PathBuf> = registries
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .collect();
    roots.sort();
    roots.push(Path::new(&env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default()).join("vendor"));
    roots
}

/// The licence texts of a crate, its own first.
fn licence_texts(folder: &Path) -> io::Result<Vec<String>> {
    let is_licence = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let name = name.to_uppercase();
        LICENCE_FILES.iter().any(|start| name.starts_with(start))
    };
    let is_folder_of_licences = |path: &&PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.to_uppercase().starts_with("LICENSES")
    };
    let (own, folders) = entries(folder)?;
    let mut files: Vec<PathBuf> = own.into_iter().filter(is_licence).collect();
    for inner in folders.iter().filter(is_folder_of_licences) {
        files.extend(entries(inner)?.0);
    }
    for name in FOREIGN_CODE {
        let inner = folder.join(name);
        if inner.is_dir() {
            files.extend(entries(&inner)?.0.into_iter().filter(is_licence));
        }
    }
    let text = |path: PathBuf| -> io::Result<String> {
        let bytes = fs::read(path)?;
        let text = String::from_utf8_lossy(&bytes).replace("\r\n", "\n");
        Ok(text.trim().to_owned())
    };
    files.into_iter().map(text).collect()
}

/// Files and folders in a folder, each in name order.
fn entries(folder: &Path) -> io::Result<(Vec<PathBuf>, Vec<PathBuf>)> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder)? {
        paths.push(entry?.path());
    }
    paths.sort();
    Ok(paths.into_iter().partition(|path| path.is_file()))
}
