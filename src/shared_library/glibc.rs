//! The oldest glibc that a file runs with, from the versions of the symbols that it needs.

use std::fmt;

use super::elf::Elf;

/// Libraries of glibc itself. They must fit the system's loader, so a package never holds them.
const LIBRARIES: [&str; 14] = [
    "libBrokenLocale.so",
    "libanl.so",
    "libc.so",
    "libc_malloc_debug.so",
    "libdl.so",
    "libm.so",
    "libmvec.so",
    "libnsl.so",
    "libnss_files.so",
    "libpthread.so",
    "libresolv.so",
    "librt.so",
    "libthread_db.so",
    "libutil.so",
];

/// Names among the symbol versions that stand for a feature of the loader, each with the release that introduced it.
const PROPERTIES: [(&str, Glibc); 1] = [("GLIBC_ABI_DT_RELR", Glibc(2, 36))];

/// A release of glibc: major and minor number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Glibc(pub u32, pub u32);

impl fmt::Display for Glibc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

impl Glibc {
    /// The release of a symbol version such as `GLIBC_2.34`; `None` for a version that belongs to no release.
    pub fn of_version(version: &str) -> Option<Self> {
        if let Some((_, release)) = PROPERTIES.iter().find(|(name, _)| *name == version) {
            return Some(*release);
        }
        let mut parts = version.strip_prefix("GLIBC_")?.split('.');
        let major = parts.next()?.parse().ok()?;
        let minor = parts.next()?.parse().ok()?;
        Some(Self(major, minor))
    }

    /// The oldest release that a file runs with; `None` for a file that needs no symbol of glibc.
    pub fn needed_by(elf: &Elf) -> Option<Self> {
        elf.versions
            .iter()
            .filter(|(library, _)| is_glibc(library))
            .filter_map(|(_, version)| Self::of_version(version))
            .max()
    }
}

/// Whether a library of this name belongs to glibc.
pub fn is_glibc(name: &str) -> bool {
    name.starts_with("ld-linux")
        || name.starts_with("linux-vdso")
        || LIBRARIES.iter().any(|library| {
            name.strip_prefix(library)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        let version = |text| Glibc::of_version(text);
        assert_eq!(version("GLIBC_2.34"), Some(Glibc(2, 34)));
        assert_eq!(version("GLIBC_2.2.5"), Some(Glibc(2, 2)));
        assert!(version("GLIBC_2.4") < version("GLIBC_2.28"));
        assert_eq!(version("GLIBC_ABI_DT_RELR"), Some(Glibc(2, 36)));
        for other in ["GLIBC_PRIVATE", "GLIBCXX_3.4.30", "LIBAVCODEC_59", ""] {
            assert_eq!(version(other), None, "{other}");
        }
    }

    #[test]
    fn symbols_of_other_libraries_do_not_count() {
        let pair = |library: &str, version: &str| (library.to_owned(), version.to_owned());
        let mut elf = Elf::default();
        assert_eq!(Glibc::needed_by(&elf), None);
        elf.versions = [
            pair("libc.so.6", "GLIBC_2.17"),
            pair("libm.so.6", "GLIBC_2.29"),
            pair("libother.so.1", "GLIBC_2.99"),
            pair("libstdc++.so.6", "GLIBCXX_3.4.30"),
        ]
        .into();
        assert_eq!(Glibc::needed_by(&elf), Some(Glibc(2, 29)));
    }

    #[test]
    fn names_of_glibc_are_whole_names() {
        for name in [
            "libc.so.6",
            "libm.so.6",
            "ld-linux-x86-64.so.2",
            "libdl.so.2",
        ] {
            assert!(is_glibc(name), "{name}");
        }
        for name in [
            "libcap.so.2",
            "libmp3lame.so.0",
            "libc++.so.1",
            "libstdc++.so.6",
            "libdlib.so",
        ] {
            assert!(!is_glibc(name), "{name}");
        }
    }
}
