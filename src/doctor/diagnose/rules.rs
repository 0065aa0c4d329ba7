//! What the rules for findings share.

use super::super::facts::{Facts, Failure, FailureKind, Gpu, ProviderFacts};
use super::super::finding::{Finding, Severity};
use super::super::packages;

/// A finding of these parts.
pub(super) fn finding(severity: Severity, code: &str, what: String, fix: String) -> Finding {
    Finding {
        severity,
        code: code.to_owned(),
        what,
        fix,
    }
}

/// The severity if a provider does not work. The processor must always work. A GPU must work if the user requires it, and does
/// not matter if the user requires the processor.
pub(super) fn severity_of(provider: &str, facts: &Facts) -> Severity {
    match facts.required.as_deref() {
        _ if provider == "cpu" => Severity::Error,
        Some(required) if required == provider => Severity::Error,
        Some(_) => Severity::Note,
        None => Severity::Warning,
    }
}

/// The trial of a provider; `None` if it was not tried.
pub(super) fn trial_of<'f>(facts: &'f Facts, provider: &str) -> Option<&'f ProviderFacts> {
    let mut all = facts.providers.iter();
    all.find(|tried| tried.provider == provider)
}

/// The GPU that graphs would run on.
pub(super) fn chosen_gpu(facts: &Facts) -> Option<&Gpu> {
    facts.gpus.iter().find(|gpu| gpu.index == facts.device_id)
}

/// The version of ONNX Runtime, in words.
pub(super) fn library_version(facts: &Facts) -> &str {
    let version = facts.library.version.as_deref();
    version.unwrap_or("of unknown version")
}

/// What to install for this machine's GPU, or for its processor.
pub(super) fn install(facts: &Facts) -> String {
    let gpu = chosen_gpu(facts);
    match gpu.and_then(|gpu| packages::wheel(gpu.compute)) {
        Some(wheel) => format!("install {}: {}", wheel.words(), wheel.command()),
        None => "install one with `scripts/setup` in a checkout, or `pip install onnxruntime` into .venv (1.24 or later), \
                 or name one with --ort-lib PATH"
            .to_owned(),
    }
}

/// The numbers of a version, so that 2.9 comes before 2.28; `None` if a part is not a number.
pub(super) fn numbers(version: &str) -> Option<Vec<u32>> {
    version.split('.').map(|part| part.parse().ok()).collect()
}

/// Whether version `found` comes before version `needed`; false if one of them is not made of numbers.
pub(super) fn is_before(found: &str, needed: &str) -> bool {
    match (numbers(found), numbers(needed)) {
        (Some(found), Some(needed)) => found < needed,
        _ => false,
    }
}

/// The finding for a trial that ended early although the provider works.
pub(super) fn ended_early(provider: &str, failure: &Failure, severity: Severity) -> Finding {
    let (code, fix) = match failure.kind {
        FailureKind::Crash => (
            "provider-crashed",
            format!(
                "run `snow-ort doctor` once more; if it crashes again, use {}, and report it with `snow-ort doctor --json -`",
                match provider {
                    "cpu" => "another version of ONNX Runtime",
                    _ => "--provider cpu or another version of ONNX Runtime",
                }
            ),
        ),
        FailureKind::Timeout => (
            "provider-slow",
            "give it more time with --timeout, or a bundle of a lower resolution".to_owned(),
        ),
        FailureKind::TooOld | FailureKind::Error => (
            "trial-failed",
            "see the reason; `snow-ort run` ends with the same".to_owned(),
        ),
    };
    finding(
        severity,
        code,
        format!("{provider}, {}: {}", failure.during, failure.reason),
        fix,
    )
}
