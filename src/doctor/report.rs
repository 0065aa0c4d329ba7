//! The report of `snow-ort doctor`: facts, findings and a verdict.

use serde::{Deserialize, Serialize};

use super::diagnose;
use super::facts::Facts;
use super::finding::{Finding, Severity};

/// Version of the layout of `snow-ort doctor --json`.
pub const DOCTOR_VERSION: u32 = 1;

/// The overall result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Everything that was checked works; exit code 0.
    Fine,
    /// It works, with warnings; exit code 1.
    Findings,
    /// It does not work; exit code 2.
    Fails,
}

/// The document that `snow-ort doctor --json` writes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Version of this layout, [`DOCTOR_VERSION`].
    pub schema_version: u32,
    /// Version of this program.
    pub snow_ort: String,
    /// The overall result.
    pub verdict: Verdict,
    /// Findings, the most severe first.
    pub findings: Vec<Finding>,
    /// The facts that they are made from.
    pub facts: Facts,
}

impl Report {
    /// Makes findings and a verdict from facts.
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

/// The verdict that follows from the most severe finding.
fn verdict(findings: &[Finding]) -> Verdict {
    match findings.iter().map(|finding| finding.severity).max() {
        Some(Severity::Error) => Verdict::Fails,
        Some(Severity::Warning) => Verdict::Findings,
        Some(Severity::Note) | None => Verdict::Fine,
    }
}
