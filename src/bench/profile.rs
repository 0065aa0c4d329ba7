//! The time that each operator of a graph takes, read from the profiles that ONNX Runtime writes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::BenchError;

/// All nodes of one operator on one provider, in all runs of a graph.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Operator {
    /// The operator, such as `Gemm`. `MemcpyToHost` and `MemcpyFromHost` are copies between a GPU and the host.
    pub name: String,
    /// The execution provider on which it ran, as ONNX Runtime names it.
    pub provider: String,
    /// Nodes that ran in one run.
    pub nodes: f64,
    /// Seconds of one run.
    pub seconds: f64,
    /// Bytes of their outputs in one run.
    pub output_bytes: f64,
}

/// The profile of one graph.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GraphProfile {
    /// The graph's role.
    pub role: String,
    /// Runs that were profiled, warm-up included.
    pub runs: usize,
    /// Its operators, the longest first.
    pub operators: Vec<Operator>,
}

/// Reads the profiles in a folder. Each file's name begins with the role of its graph; roles without a file are left out.
///
/// # Errors
/// [`BenchError::Profile`] for a file that cannot be read as a profile.
pub fn read(dir: &Path, roles: &[&str]) -> Result<Vec<GraphProfile>, BenchError> {
    let failed = |path: &Path, detail: String| BenchError::Profile {
        path: path.to_owned(),
        detail,
    };
    let entries = std::fs::read_dir(dir).map_err(|error| failed(dir, error.to_string()))?;
    let files: Vec<PathBuf> = entries
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .collect();
    let mut profiles = Vec::new();
    for &role in roles {
        let file = files.iter().find(|file| {
            let name = file.file_name().unwrap_or_default().to_string_lossy();
            // A date follows: `detector` must not match `detector_masks`.
            let rest = name.strip_prefix(role).unwrap_or("");
            rest.trim_start_matches('_')
                .starts_with(|c: char| c.is_ascii_digit())
        });
        let Some(file) = file else {
            continue;
        };
        let bytes = std::fs::read(file).map_err(|error| failed(file, error.to_string()))?;
        let events: Vec<Value> =
            serde_json::from_slice(&bytes).map_err(|error| failed(file, error.to_string()))?;
        profiles.push(summarise(role, &events));
    }
    Ok(profiles)
}

/// Adds up the events of one graph.
pub fn summarise(role: &str, events: &[Value]) -> GraphProfile {
    let runs = events
        .iter()
        .filter(|event| event["name"] == "model_run")
        .count();
    let mut sums: BTreeMap<(String, String), (u64, f64, f64)> = BTreeMap::new();
    for event in events {
        let name = event["name"].as_str().unwrap_or_default();
        if event["cat"] != "Node" || !name.ends_with("_kernel_time") {
            continue;
        }
        let text = |key: &str| {
            let value = event["args"][key].as_str();
            value.unwrap_or_default().to_owned()
        };
        // ONNX Runtime writes these numbers as text.
        let bytes = text("output_size").parse::<f64>().unwrap_or(0.0);
        let sum = sums.entry((text("op_name"), text("provider"))).or_default();
        sum.0 += 1;
        sum.1 += event["dur"].as_f64().unwrap_or(0.0) / 1e6;
        sum.2 += bytes;
    }
    let each = runs.max(1) as f64;
    let mut operators: Vec<Operator> = sums
        .into_iter()
        .map(|((name, provider), (nodes, seconds, bytes))| Operator {
            name,
            provider,
            nodes: nodes as f64 / each,
            seconds: seconds / each,
            output_bytes: bytes / each,
        })
        .collect();
    operators.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
    GraphProfile {
        role: role.to_owned(),
        runs,
        operators,
    }
}
