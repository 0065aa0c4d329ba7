//! Facts to findings. Nothing here looks at the machine: the same facts give the same findings.

mod bundle;
mod cuda;
mod masks;

use super::elf::numbers;
use super::facts::{Facts, Failure, FailureKind, ProviderFacts};
use super::packages;
use super::{Finding, Severity};

/// Everything that is wrong or worth knowing, by subject: the library, the processor, the GPU, the bundle and how it ran.
pub fn findings(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    library(facts, &mut findings);
    processor(facts, &mut findings);
    cuda::findings(facts, &mut findings);
    bundle::findings(facts, &mut findings);
    masks::findings(facts, &mut findings);
    findings
}

fn finding(severity: Severity, code: &str, what: String, fix: String) -> Finding {
    Finding {
        severity,
        code: code.to_owned(),
        what,
        fix,
    }
}

/// How much it matters that a provider cannot serve: the processor always has to; a GPU if it was asked for, and not at all
/// if the processor was.
fn severity_of(provider: &str, facts: &Facts) -> Severity {
    match facts.required.as_deref() {
        _ if provider == "cpu" => Severity::Error,
        Some(required) if required == provider => Severity::Error,
        Some(_) => Severity::Note,
        None => Severity::Warning,
    }
}

fn tried<'f>(facts: &'f Facts, provider: &str) -> Option<&'f ProviderFacts> {
    facts
        .providers
        .iter()
        .find(|tried| tried.provider == provider)
}

/// What to install for this machine's GPU, or for its processor.
fn install(facts: &Facts) -> String {
    let gpu = cuda::chosen(facts);
    match gpu.and_then(|gpu| packages::wheel(gpu.compute)) {
        Some(wheel) => format!("install {}: {}", wheel.words(), wheel.command()),
        None => "install one with `scripts/setup` in a checkout, or `pip install onnxruntime` into .venv (1.24 or later), \
                 or name one with --ort-lib PATH"
            .to_owned(),
    }
}

/// Whether `found` is an earlier version than `needed`; false for what are no versions.
fn earlier(found: &str, needed: &str) -> bool {
    match (numbers(found), numbers(needed)) {
        (Some(found), Some(needed)) => found < needed,
        _ => false,
    }
}

fn library(facts: &Facts, findings: &mut Vec<Finding>) {
    let library = &facts.library;
    let Some(path) = &library.path else {
        let why = library.missing.as_deref().unwrap_or("none was found");
        // The message's own advice does not know of the GPU.
        let what = why.split("\ninstall one").next().unwrap_or(why).to_owned();
        findings.push(finding(
            Severity::Error,
            "library-missing",
            what,
            install(facts),
        ));
        return;
    };
    let path = path.display();
    if let (Some(needed), Some(found)) = (&library.needs_glibc, &facts.host.glibc)
        && earlier(found, needed)
    {
        findings.push(finding(
            Severity::Error,
            "glibc-too-old",
            format!("ONNX Runtime's library {path} needs glibc {needed}, but this system has {found}"),
            format!(
                "run on a system with glibc {needed} or later, or in a container of one (Debian 12 and Ubuntu 22.04 are \
                 late enough)"
            ),
        ));
        return;
    }
    let Some(failure) = tried(facts, "cpu").and_then(|tried| tried.failure.as_ref()) else {
        return;
    };
    if tried(facts, "cpu").is_some_and(|tried| tried.serves) {
        // The library is in order; what came later is said of the bundle.
        return;
    }
    let (code, fix) = match failure.kind {
        FailureKind::TooOld => ("library-too-old", install(facts)),
        FailureKind::Error => (
            "library-broken",
            format!("install it again, or another one: {}", install(facts)),
        ),
        FailureKind::Crash | FailureKind::Timeout => (
            "library-crashes",
            format!(
                "install it again: {}; if that does not help, another version of it",
                install(facts)
            ),
        ),
    };
    findings.push(finding(
        Severity::Error,
        code,
        format!("{}: {}", failure.during, failure.reason),
        fix,
    ));
}

fn processor(facts: &Facts, findings: &mut Vec<Finding>) {
    let host = &facts.host;
    let has = |name: &str| host.features.iter().any(|feature| feature == name);
    if host.architecture == "x86_64" && !has("avx2") {
        findings.push(finding(
            Severity::Warning,
            "no-avx2",
            format!(
                "the processor ({}) has no AVX2, which ONNX Runtime's fast kernels need: expect several times the time",
                host.processor.as_deref().unwrap_or("of unknown name")
            ),
            "run on a processor of 2013 or later, or have the virtual machine pass its features on (for QEMU: -cpu host)"
                .to_owned(),
        ));
    }
}

/// A trial that ended early although the provider serves.
fn ended_early(provider: &str, failure: &Failure, severity: Severity) -> Finding {
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
