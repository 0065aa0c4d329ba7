//! The machine and its system.

use std::process::Command;

use super::facts::Host;
use crate::bench::machine::Machine;

/// Facts of this machine.
pub fn facts() -> Host {
    let machine = Machine::here();
    let limit = control_group_limit();
    let at_most = |bytes: Option<u64>, max: Option<u64>| match (bytes, max) {
        (Some(bytes), Some(max)) => Some(bytes.min(max)),
        (bytes, max) => bytes.or(max),
    };
    Host {
        system: system(),
        kernel: kernel(),
        architecture: std::env::consts::ARCH.to_owned(),
        glibc: glibc(),
        processor: machine.processor,
        cores: machine.cores,
        features: features(),
        memory_bytes: at_most(machine.memory_bytes, limit.map(|(limit, _)| limit)),
        available_bytes: at_most(
            meminfo("MemAvailable:"),
            limit.map(|(limit, used)| limit.saturating_sub(used)),
        ),
    }
}

fn system() -> Option<String> {
    let text = std::fs::read_to_string("/etc/os-release").ok()?;
    let name = text
        .lines()
        .find_map(|line| line.strip_prefix("PRETTY_NAME="))?;
    Some(name.trim_matches('"').to_owned())
}

fn kernel() -> Option<String> {
    let output = Command::new("uname").arg("-sr").output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}

/// Version of glibc; `None` on systems with another C library.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn glibc() -> Option<String> {
    // SAFETY: the function takes nothing and returns a string that lives as long as the process.
    let version = unsafe { std::ffi::CStr::from_ptr(libc::gnu_get_libc_version()) };
    version.to_str().ok().map(str::to_owned)
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn glibc() -> Option<String> {
    None
}

fn meminfo(name: &str) -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// Limit and use of memory of the container's control group, in bytes; `None` without a limit.
fn control_group_limit() -> Option<(u64, u64)> {
    let number = |path: &str| -> Option<u64> {
        let text = std::fs::read_to_string(path).ok()?;
        text.trim().parse().ok()
    };
    number("/sys/fs/cgroup/memory.max")
        .zip(number("/sys/fs/cgroup/memory.current"))
        .or_else(|| {
            let limit = number("/sys/fs/cgroup/memory/memory.limit_in_bytes")?;
            let used = number("/sys/fs/cgroup/memory/memory.usage_in_bytes")?;
            Some((limit, used))
        })
}

#[cfg(target_arch = "x86_64")]
fn features() -> Vec<String> {
    let known = [
        ("sse4.1", is_x86_feature_detected!("sse4.1")),
        ("avx", is_x86_feature_detected!("avx")),
        ("avx2", is_x86_feature_detected!("avx2")),
        ("fma", is_x86_feature_detected!("fma")),
        ("f16c", is_x86_feature_detected!("f16c")),
        ("avx512f", is_x86_feature_detected!("avx512f")),
        ("avx512vnni", is_x86_feature_detected!("avx512vnni")),
        ("avx512bf16", is_x86_feature_detected!("avx512bf16")),
        ("avxvnni", is_x86_feature_detected!("avxvnni")),
    ];
    known
        .into_iter()
        .filter(|(_, there)| *there)
        .map(|(name, _)| name.to_owned())
        .collect()
}

#[cfg(target_arch = "aarch64")]
fn features() -> Vec<String> {
    use std::arch::is_aarch64_feature_detected as detected;
    let known = [
        ("neon", detected!("neon")),
        ("fp16", detected!("fp16")),
        ("dotprod", detected!("dotprod")),
        ("i8mm", detected!("i8mm")),
        ("bf16", detected!("bf16")),
        ("sve", detected!("sve")),
    ];
    known
        .into_iter()
        .filter(|(_, there)| *there)
        .map(|(name, _)| name.to_owned())
        .collect()
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn features() -> Vec<String> {
    Vec::new()
}
