//! Findings about ONNX Runtime's library and the processor.

use super::super::facts::{Facts, FailureKind};
use super::super::finding::{Finding, Severity};
use super::rules::{finding, install, is_before, trial_of};

/// The library: missing, too old for the system, or one that cannot be loaded.
pub(super) fn library(facts: &Facts, findings: &mut Vec<Finding>) {
    let library = &facts.library;
    let Some(path) = &library.path else {
        let why = library.missing.as_deref().unwrap_or("none was found");
        // The advice in the message does not consider the GPU; the fix does.
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
        && is_before(found, needed)
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
    let Some(trial) = trial_of(facts, "cpu") else {
        return;
    };
    // If the library works, a later failure belongs to the bundle.
    let Some(failure) = trial.failure.as_ref().filter(|_| !trial.serves) else {
        return;
    };
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

/// The processor: features without which ONNX Runtime is slow.
pub(super) fn processor(facts: &Facts, findings: &mut Vec<Finding>) {
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
