//! Turns facts into findings. Nothing here reads from the machine: the same facts give the same findings.

mod bundle;
mod cuda;
mod host;
mod masks;
mod rules;

use super::facts::Facts;
use super::finding::Finding;

/// All findings, by subject: the library, the processor, the GPU, the bundle and its results, masks.
pub fn findings(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    host::library(facts, &mut findings);
    host::processor(facts, &mut findings);
    cuda::findings(facts, &mut findings);
    bundle::findings(facts, &mut findings);
    masks::findings(facts, &mut findings);
    findings
}
