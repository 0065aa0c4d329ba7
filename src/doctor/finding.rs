//! A finding: what is wrong or worth knowing, and what to do.

use serde::{Deserialize, Serialize};

/// How much a finding matters, in ascending order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Good to know; everything works.
    Note,
    /// It works, but slower than possible, or its results are in doubt.
    Warning,
    /// It does not work.
    Error,
}

impl std::fmt::Display for Severity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Error => "error",
        })
    }
}

/// One thing that is wrong or worth knowing, with what to do about it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// How much it matters.
    pub severity: Severity,
    /// A name for programs, such as `no-kernels`. It stays the same between versions.
    pub code: String,
    /// What is wrong: where, the value, and what was expected.
    pub what: String,
    /// What to do.
    pub fix: String,
}
