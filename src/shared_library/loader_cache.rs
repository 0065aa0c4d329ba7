//! The cache of the system's loader: the file that it takes for the name of a shared library.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

/// Reads the names and files of the 64-bit libraries that run on every processor of this architecture, from `ldconfig -p`;
/// `None` if `ldconfig` cannot be run.
pub fn read() -> Option<BTreeMap<String, PathBuf>> {
    let programs = ["ldconfig", "/sbin/ldconfig", "/usr/sbin/ldconfig"];
    let listed = programs.iter().find_map(|program| {
        let output = Command::new(program).arg("-p").output().ok()?;
        output.status.success().then_some(output.stdout)
    })?;
    Some(parse(&String::from_utf8_lossy(&listed)))
}

/// Parses lines such as `libc.so.6 (libc6,x86-64) => /lib/…/libc.so.6`.
fn parse(text: &str) -> BTreeMap<String, PathBuf> {
    let mut found = BTreeMap::new();
    let kind = match std::env::consts::ARCH {
        "aarch64" => "AArch64",
        _ => "x86-64",
    };
    for line in text.lines() {
        let Some((left, path)) = line.split_once(" => ") else {
            continue;
        };
        let Some((name, about)) = left.trim().split_once(' ') else {
            continue;
        };
        if about.contains(kind) && !about.contains("hwcap") {
            found
                .entry(name.to_owned())
                .or_insert_with(|| path.trim().into());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_for_other_processors_are_left_out() {
        let text = "2 libs found in cache `/etc/ld.so.cache'\n\
            \tlibz.so.1 (libc6,x86-64, hwcap: \"x86-64-v3\") => /fast/libz.so.1\n\
            \tlibz.so.1 (libc6,x86-64) => /lib/x86_64-linux-gnu/libz.so.1\n\
            \tlibz.so.1 (libc6,AArch64) => /lib/aarch64-linux-gnu/libz.so.1\n\
            \tlibz.so.1 (libc6) => /lib32/libz.so.1\n";
        let found = parse(text);
        assert_eq!(found.len(), 1);
        assert!(found["libz.so.1"].ends_with("libz.so.1"));
        assert!(!found["libz.so.1"].starts_with("/fast"));
        assert!(!found["libz.so.1"].starts_with("/lib32"));
    }
}
