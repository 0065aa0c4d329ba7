//! The Debian package and the licence of each library that is from the system.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::archive::{Content, Entry};
use super::error::PackageError;

/// The folder with the full texts of licences to which copyright files refer.
const COMMON: &str = "/usr/share/common-licenses/";

/// An installed Debian package.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Installed {
    /// Its name, without the architecture.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The source package.
    pub source: String,
    /// The source package's version.
    pub source_version: String,
}

impl Installed {
    /// Name and version in words.
    pub(super) fn title(&self) -> String {
        format!("{} {}", self.name, self.version)
    }

    fn copyright(&self) -> PathBuf {
        Path::new("/usr/share/doc")
            .join(&self.name)
            .join("copyright")
    }
}

/// The package of each file, by its path as given.
///
/// # Errors
/// [`PackageError::Tool`] where there is no dpkg, [`PackageError::NoLicence`] for a file that no package owns.
pub(super) fn owners(
    files: &BTreeSet<PathBuf>,
) -> Result<BTreeMap<PathBuf, Installed>, PackageError> {
    if files.is_empty() {
        return Ok(BTreeMap::new());
    }
    let dpkg = |arguments: &[String]| {
        Command::new("dpkg-query")
            .args(arguments)
            .env("LC_ALL", "C")
            .output()
            .map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
            .map_err(|_| PackageError::Tool {
                tool: "dpkg-query",
                purpose: "names the package of a library, and so its licence",
            })
    };
    // One of /lib and /usr/lib is a link to the other, and dpkg may list a library in either.
    let tail = |file: &Path| {
        let real = file.canonicalize().unwrap_or_else(|_| file.to_path_buf());
        let text = real.to_string_lossy().into_owned();
        text.strip_prefix("/usr").map(str::to_owned).unwrap_or(text)
    };
    let mut arguments = vec!["--search".to_owned()];
    arguments.extend(files.iter().map(|file| format!("*{}", tail(file))));
    let by_path = parse_search(&dpkg(&arguments)?);

    let names: BTreeSet<&String> = by_path.values().collect();
    let mut arguments = vec![
        "--show".to_owned(),
        "--showformat=${Package}\t${Version}\t${source:Package}\t${source:Version}\n".to_owned(),
    ];
    arguments.extend(names.into_iter().cloned());
    let installed: BTreeMap<String, Installed> = parse_show(&dpkg(&arguments)?);

    let mut owners = BTreeMap::new();
    for file in files {
        let tail = tail(file);
        let owner = [tail.clone(), format!("/usr{tail}")]
            .iter()
            .find_map(|path| by_path.get(path))
            .and_then(|name| installed.get(name.split(':').next().unwrap_or(name)));
        let owner = owner.ok_or_else(|| PackageError::NoLicence { file: file.clone() })?;
        owners.insert(file.clone(), owner.clone());
    }
    Ok(owners)
}

/// Parses the output of `dpkg-query --search`: the package of each path.
fn parse_search(text: &str) -> BTreeMap<String, String> {
    text.lines()
        .filter(|line| !line.starts_with("diversion "))
        .filter_map(|line| line.split_once(": "))
        .filter_map(|(packages, path)| {
            let package = packages.split(", ").next()?;
            Some((path.to_owned(), package.to_owned()))
        })
        .collect()
}

/// Parses the output of `dpkg-query --show`: the packages by name.
fn parse_show(text: &str) -> BTreeMap<String, Installed> {
    text.lines()
        .filter_map(|line| {
            let mut fields = line.split('\t').map(str::to_owned);
            let installed = Installed {
                name: fields.next()?,
                version: fields.next()?,
                source: fields.next()?,
                source_version: fields.next()?,
            };
            Some((installed.name.clone(), installed))
        })
        .collect()
}

/// The copyright files of packages, and the licence texts to which they refer.
///
/// # Errors
/// [`PackageError::Read`] if a package has no copyright file: a library with an unknown licence must not be packed.
pub(super) fn licences(
    packages: &BTreeSet<Installed>,
    folder: &str,
) -> Result<Vec<Entry>, PackageError> {
    let mut entries = Vec::new();
    let mut common = BTreeSet::new();
    for package in packages {
        let file = package.copyright();
        let text = std::fs::read(&file).map_err(PackageError::read(&file))?;
        common.extend(referred(&String::from_utf8_lossy(&text)));
        entries.push(Entry {
            path: format!("{folder}/debian/{}", package.name),
            executable: false,
            from: package.title(),
            content: Content::Bytes(text),
        });
    }
    for name in common {
        let file = Path::new(COMMON).join(&name);
        if let Ok(text) = std::fs::read(&file) {
            entries.push(Entry {
                path: format!("{folder}/common/{name}"),
                executable: false,
                from: "licence texts".to_owned(),
                content: Content::Bytes(text),
            });
        }
    }
    Ok(entries)
}

/// Names of the licence texts to which a copyright file refers.
fn referred(text: &str) -> BTreeSet<String> {
    text.split(COMMON)
        .skip(1)
        .filter_map(|rest| {
            let end = rest
                .find(|c: char| !(c.is_ascii_alphanumeric() || "-.+".contains(c)))
                .unwrap_or(rest.len());
            let name = rest[..end].trim_end_matches(['.', '-']);
            (!name.is_empty()).then(|| name.to_owned())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_output_of_dpkg_is_parsed() {
        let found = parse_search(
            "zlib1g:amd64: /lib/x86_64-linux-gnu/libz.so.1.2.13\n\
             diversion by x from: /lib/y\nlibgcc-s1:amd64, other: /lib/x86_64-linux-gnu/libgcc_s.so.1\n",
        );
        assert_eq!(
            found["/lib/x86_64-linux-gnu/libz.so.1.2.13"],
            "zlib1g:amd64"
        );
        assert_eq!(
            found["/lib/x86_64-linux-gnu/libgcc_s.so.1"],
            "libgcc-s1:amd64"
        );
        assert_eq!(found.len(), 2);
        let shown = parse_show("zlib1g\t1:1.2.13.dfsg-1\tzlib\t1:1.2.13.dfsg-1\n\nbroken\n");
        assert_eq!(shown["zlib1g"].source, "zlib");
        assert_eq!(shown.len(), 1);
    }

    #[test]
    fn licences_are_found_in_sentences() {
        let text = "see /usr/share/common-licenses/GPL-2. Or `/usr/share/common-licenses/LGPL-2.1',\n\
            /usr/share/common-licenses/Apache-2.0\n/usr/share/common-licenses/";
        let names: Vec<String> = referred(text).into_iter().collect();
        assert_eq!(names, ["Apache-2.0", "GPL-2", "LGPL-2.1"]);
    }
}
