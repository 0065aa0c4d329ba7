//! A report as text.

use std::collections::BTreeMap;

use super::facts::{
    Compute, CudaFacts, Facts, GraphFacts, Limit, MAX_OBJECTS, MasksFacts, ProviderFacts,
};
use super::finding::Severity;
use super::masks::mean;
use super::report::{Report, Verdict};
use crate::size;
use crate::words::counted;

/// The lines of a report: the machine, the library, the bundle, each provider's results, findings, the verdict.
pub fn lines(report: &Report) -> Vec<String> {
    let mut lines = vec![format!("snow-ort {}", report.snow_ort)];
    machine(&report.facts, &mut lines);
    library(&report.facts, &mut lines);
    bundle(&report.facts, &mut lines);
    for tried in &report.facts.providers {
        provider(tried, &mut lines);
    }
    if !report.findings.is_empty() {
        lines.push(String::new());
    }
    for finding in &report.findings {
        let mut what = finding.what.lines();
        let first = what.next().unwrap_or_default();
        lines.push(format!("{} ({}): {first}", finding.severity, finding.code));
        lines.extend(what.map(|line| format!("    {line}")));
        lines.push(format!("    fix: {}", finding.fix));
    }
    lines.push(String::new());
    let count = |severity: Severity| {
        let all = report.findings.iter();
        all.filter(|finding| finding.severity == severity).count() as u64
    };
    lines.push(match report.verdict {
        Verdict::Fine => "all fine".to_owned(),
        Verdict::Findings => format!(
            "it works, with {}",
            counted(count(Severity::Warning), "warning")
        ),
        Verdict::Fails => format!(
            "it does not work: {}",
            counted(count(Severity::Error), "error")
        ),
    });
    lines
}

/// A line with a name in a column of its own width, then the text.
fn row(name: &str, text: &str) -> String {
    format!("{name:<10} {text}").trim_end().to_owned()
}

/// Adds the lines of the system, processor, memory and GPUs.
fn machine(facts: &Facts, lines: &mut Vec<String>) {
    let host = &facts.host;
    let parts = [
        host.system.clone(),
        host.kernel.clone(),
        Some(host.architecture.clone()),
        host.glibc
            .as_ref()
            .map(|version| format!("glibc {version}")),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    lines.push(row("system", &parts.join(", ")));
    let name = host.processor.as_deref().unwrap_or("of unknown name");
    lines.push(row(
        "processor",
        &format!(
            "{name}, {}: {}",
            counted(host.cores as u64, "core"),
            host.features.join(" ")
        ),
    ));
    if let Some(bytes) = host.memory_bytes {
        let free = host
            .available_bytes
            .map_or(String::new(), |free| format!(", {} free", size::show(free)));
        lines.push(row("memory", &format!("{}{free}", size::show(bytes))));
    }
    for gpu in &facts.gpus {
        let used = gpu.used_bytes.map_or(String::new(), |used| {
            format!(" ({} in use)", size::show(used))
        });
        lines.push(row(
            &format!("gpu {}", gpu.index),
            &format!(
                "{}, {}, {}{used}, driver {}",
                gpu.name,
                gpu.compute,
                size::show(gpu.memory_bytes),
                gpu.driver
            ),
        ));
    }
    if facts.gpus.is_empty() {
        let why = facts.driver.smi_failure.as_deref().unwrap_or_default();
        lines.push(row("gpu", &format!("none ({why})")));
    }
}

/// Adds the lines of ONNX Runtime's library.
fn library(facts: &Facts, lines: &mut Vec<String>) {
    let library = &facts.library;
    let Some(path) = &library.path else {
        lines.push(row("library", "none"));
        return;
    };
    lines.push(row(
        "library",
        &format!(
            "{} ({})",
            path.display(),
            library.origin.as_deref().unwrap_or_default()
        ),
    ));
    let mut parts = vec![format!(
        "ONNX Runtime {}",
        library.version.as_deref().unwrap_or("of unknown version")
    )];
    if !library.providers.is_empty() {
        parts.push(library.providers.join(" "));
    }
    if let Some(glibc) = &library.needs_glibc {
        parts.push(format!("needs glibc {glibc}"));
    }
    lines.push(row("", &parts.join(", ")));
    if let Some(cuda) = &library.cuda {
        lines.push(row("", &for_gpus(cuda)));
    }
}

/// The library's part for GPUs, in words.
fn for_gpus(cuda: &CudaFacts) -> String {
    let names = |list: &[Compute]| {
        let names: Vec<String> = list.iter().map(ToString::to_string).collect();
        names.join(" ")
    };
    let mut parts = vec![match cuda.cuda_major {
        Some(major) => format!("for CUDA {major}"),
        None => "for CUDA".to_owned(),
    }];
    if !cuda.kernels.is_empty() {
        parts.push(format!("kernels for {}", names(&cuda.kernels)));
    }
    if !cuda.portable.is_empty() {
        parts.push(format!("portable from {}", names(&cuda.portable)));
    }
    let found = cuda.needs.iter().filter(|needed| needed.found.is_some());
    parts.push(format!(
        "{} of {} CUDA libraries found",
        found.count(),
        cuda.needs.len()
    ));
    if let Some(version) = &cuda.cudnn {
        parts.push(format!("cuDNN {version}"));
    }
    parts.join(", ")
}

/// Adds the line of the bundle.
fn bundle(facts: &Facts, lines: &mut Vec<String>) {
    let Some(bundle) = &facts.bundle else {
        lines.push(row("bundle", "none"));
        return;
    };
    let mut text = bundle.dir.display().to_string();
    if let (Some(px), Some(precision)) = (bundle.resolution, &bundle.precision) {
        text.push_str(&format!(" ({px} px, {precision})"));
    }
    let state = match &bundle.failure {
        Some(_) => "cannot be used".to_owned(),
        None => format!(
            "{} as exported, golden vectors for {}",
            counted(bundle.files as u64, "file"),
            counted(bundle.golden_graphs as u64, "graph")
        ),
    };
    lines.push(row("bundle", &format!("{text}: {state}")));
}

/// Adds the lines of a provider's results.
fn provider(tried: &ProviderFacts, lines: &mut Vec<String>) {
    let state = match (&tried.failure, tried.serves) {
        (None, _) => "works".to_owned(),
        (Some(failure), true) => format!("works, but {}: {}", failure.during, failure.reason),
        (Some(failure), false) => format!("does not work: {}: {}", failure.during, failure.reason),
    };
    lines.push(row(&tried.provider, &state));
    for graph in &tried.graphs {
        lines.push(format!("  {:<18} {}", graph.role, graph_text(graph)));
    }
    if let Some(memory) = &tried.memory {
        let fit = match memory.most_objects {
            MAX_OBJECTS => format!("{MAX_OBJECTS} or more objects fit"),
            max => format!("{} fit", counted(max as u64, "object")),
        };
        lines.push(format!(
            "  {:<18} one object takes {}; {fit} in --mem-limit {}MiB",
            "memory",
            size::show(memory.one_object_bytes),
            memory.budget_bytes >> 20
        ));
    }
    if let Some(masks) = &tried.masks {
        lines.push(format!("  {:<18} {}", "masks", masks_text(masks)));
    }
    if let Some(failure) = &tried.clip_failure {
        lines.push(format!(
            "  {:<18} not compared: {}: {}",
            "masks", failure.during, failure.reason
        ));
    }
}

/// Agreement of the masks of the drawn clip with the processor's, in one line.
fn masks_text(masks: &MasksFacts) -> String {
    let runs = [
        (&masks.together, "at once"),
        (&masks.alone, "one at a time"),
    ];
    let right = runs.iter().all(|(objects, _)| masks.limit.all(objects));
    let figures: Vec<String> = runs
        .iter()
        .map(|(objects, how)| {
            let figure = match (mean(objects), masks.limit) {
                ((_, None), _) => "not finite".to_owned(),
                ((iou, _), Limit::IouAtLeast(_)) => format!("mean IoU {iou:.4}"),
                ((_, Some(distance)), Limit::L2AtMost(_)) => format!("relative L2 {distance:.1e}"),
            };
            format!("{figure} {how}")
        })
        .collect();
    format!(
        "{} masks as the processor: {} over {}, {}",
        if right { "same" } else { "NOT the same" },
        figures.join(" and "),
        counted(masks.together.len() as u64, "object"),
        counted(masks.frames as u64, "frame"),
    )
}

/// The results of one graph, in words.
fn graph_text(graph: &GraphFacts) -> String {
    if let Some(why) = &graph.failure {
        return format!("fails: {why}");
    }
    let mut parts = vec![match &graph.golden {
        None => "loads; no golden vectors".to_owned(),
        Some(golden) => match golden.relative_l2 {
            Some(distance) => format!("{distance:.1e} from the reference ({})", golden.output),
            None => format!("not finite ({})", golden.output),
        },
    }];
    let mut nodes: BTreeMap<&str, u64> = BTreeMap::new();
    for placed in &graph.placement {
        *nodes.entry(placed.provider.as_str()).or_default() += placed.nodes as u64;
    }
    for (provider, count) in nodes {
        let name = provider.trim_end_matches("ExecutionProvider");
        parts.push(format!("{} on {name}", counted(count, "node")));
    }
    for kernel in &graph.attention {
        parts.push(format!(
            "{} {} in {} ({})",
            kernel.nodes, kernel.operator, kernel.kernel, kernel.dtype
        ));
    }
    parts.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::facts::{LibraryFacts, ObjectAgreement};

    fn agreement(ious: [f64; 4]) -> Vec<ObjectAgreement> {
        let objects = (1..).zip(ious);
        objects
            .map(|(object, mean_iou)| ObjectAgreement {
                object,
                mean_iou,
                relative_l2: Some(1.0 - mean_iou),
            })
            .collect()
    }

    /// A report on a GPU with these mean IoUs of objects in a batch.
    fn report(together: [f64; 4]) -> Report {
        Report::new(Facts {
            library: LibraryFacts {
                path: Some("libonnxruntime.so".into()),
                version: Some("1.26.0".to_owned()),
                ..LibraryFacts::default()
            },
            providers: vec![ProviderFacts {
                provider: "cuda".to_owned(),
                serves: true,
                masks: Some(MasksFacts {
                    frames: 6,
                    seen: 24,
                    limit: Limit::IouAtLeast(0.97),
                    together: agreement(together),
                    alone: agreement([0.999; 4]),
                }),
                ..ProviderFacts::default()
            }],
            ..Facts::default()
        })
    }

    #[track_caller]
    fn contains(report: &Report, expected: &[&str]) {
        let text = lines(report).join("\n");
        for words in expected {
            assert!(text.contains(words), "{words:?} is not in\n{text}");
        }
    }

    #[test]
    fn masks_that_agree_are_one_line() {
        contains(
            &report([0.999; 4]),
            &[
                "  masks              same masks as the processor: mean IoU 0.9990 at once and mean IoU 0.9990 one at a time over \
                 4 objects, 6 frames",
                "all fine",
            ],
        );
    }

    #[test]
    fn masks_that_differ_name_the_objects_and_the_fix() {
        contains(
            &report([0.0, 0.677, 0.66, 0.941]),
            &[
                "masks              NOT the same masks as the processor: mean IoU 0.5695 at once",
                "error (masks-wrong): cuda (ONNX Runtime 1.26.0)",
                "    4 objects at once, 6 frames: mean IoU 0.5695 (object 1 0.000, object 2 0.677, object 3 0.660, object 4 0.941)",
                "    one object at a time: mean IoU 0.9990, which is right",
                "    fix: track one object at a time (`snow-ort run --chunk 1`)",
                "it does not work: 1 error",
            ],
        );
    }
}
