//! The machine on which times were measured.

use std::process::Command;

use serde::{Deserialize, Serialize};

use crate::words::counted;

/// The parts of a machine on which times depend.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// The processor's name; null if the system does not tell it.
    pub processor: Option<String>,
    /// Cores that this process may use.
    pub cores: usize,
    /// Memory in bytes; null if the system does not tell it.
    pub memory_bytes: Option<u64>,
    /// The GPUs, as `nvidia-smi` names them.
    pub gpus: Vec<String>,
}

impl Machine {
    /// This machine.
    pub fn here() -> Self {
        let value = |path: &str, name: &str| {
            let text = std::fs::read_to_string(path).ok()?;
            let line = text.lines().find(|line| line.starts_with(name))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        };
        let memory = value("/proc/meminfo", "MemTotal").and_then(|text| {
            let kib: u64 = text.strip_suffix("kB")?.trim().parse().ok()?;
            Some(kib * 1024)
        });
        let gpus = Command::new("nvidia-smi")
            .args(["--query-gpu=name,memory.total", "--format=csv,noheader"])
            .output();
        let gpus = match gpus {
            Ok(output) if output.status.success() => String::from_utf8_lossy(&output.stdout)
                .lines()
                .map(|line| line.trim().to_owned())
                .collect(),
            _ => Vec::new(),
        };
        Self {
            processor: value("/proc/cpuinfo", "model name"),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_bytes: memory,
            gpus,
        }
    }

    /// In one line.
    pub fn text(&self) -> String {
        let mut text = counted(self.cores as u64, "core");
        if let Some(name) = &self.processor {
            text.push_str(&format!(" ({name})"));
        }
        if let Some(bytes) = self.memory_bytes {
            text.push_str(&format!(", {} of memory", crate::size::show(bytes)));
        }
        for gpu in &self.gpus {
            text.push_str(&format!(", {gpu}"));
        }
        text
    }
}
