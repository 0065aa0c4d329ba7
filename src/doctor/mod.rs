//! Why a machine does not run a bundle, or runs it slowly or wrongly, and what to do about it.
//!
//! Three parts: what is looked at becomes plain [`facts`]; [`diagnose`] turns facts into findings, each with a fix, and
//! looks at nothing; [`Report`] is both together, as `--json` writes them. Each provider is tried in a process of its own
//! ([`trial`]), so that a crash is a fact like any other. A provider that is not the processor also follows a short drawn clip
//! ([`clip`]), and its masks are held against the processor's ([`masks`]).

pub mod attention;
pub mod clip;
pub mod diagnose;
pub mod elf;
pub mod facts;
pub mod golden;
pub mod gpu;
pub mod host;
pub mod library;
pub mod links;
pub mod masks;
pub mod memory;
pub mod packages;
pub mod trial;

use serde::{Deserialize, Serialize};

use self::facts::Facts;

/// Version of the layout of `snow-ort doctor --json`.
pub const DOCTOR_VERSION: u32 = 1;

/// No more objects than this are looked for in a budget of memory.
pub const MOST_OBJECTS: usize = 256;

/// How much a finding matters, the least first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Good to know; everything works.
    Note,
    /// It works, but not as well as it could, or its results are in doubt.
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

/// Something that was found, and what to do about it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// How much it matters.
    pub severity: Severity,
    /// A name for programs, such as `no-kernels`; it stays the same between versions.
    pub code: String,
    /// What was found: where, and what was expected.
    pub what: String,
    /// What to do.
    pub fix: String,
}

/// How it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Everything that was looked at works; exit code 0.
    Fine,
    /// It works, with findings that matter; exit code 1.
    Findings,
    /// It does not work; exit code 2.
    Fails,
}

/// What `snow-ort doctor --json` writes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Version of this layout, [`DOCTOR_VERSION`].
    pub schema_version: u32,
    /// Version of this program.
    pub snow_ort: String,
    /// How it stands.
    pub verdict: Verdict,
    /// What was found, what matters most first.
    pub findings: Vec<Finding>,
    /// What it was found in.
    pub facts: Facts,
}

impl Report {
    /// Judges what is known.
    pub fn new(facts: Facts) -> Self {
        let mut findings = diagnose::findings(&facts);
        findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
        Self {
            schema_version: DOCTOR_VERSION,
            snow_ort: env!("CARGO_PKG_VERSION").to_owned(),
            verdict: verdict(&findings),
            findings,
            facts,
        }
    }
}

/// How it stands with these findings.
pub fn verdict(findings: &[Finding]) -> Verdict {
    match findings.iter().map(|finding| finding.severity).max() {
        Some(Severity::Error) => Verdict::Fails,
        Some(Severity::Warning) => Verdict::Findings,
        Some(Severity::Note) | None => Verdict::Fine,
    }
}
