//! Findings about the bundle and the results of its graphs on each provider.

use super::super::attention::MATERIALISING;
use super::super::facts::{BundleFacts, Facts, GraphFacts, ProviderFacts};
use super::super::finding::{Finding, Severity};
use super::super::golden::{Tolerance, tolerance};
use super::rules::{ended_early, finding, severity_of, trial_of};
use crate::bundle::Precision;
use crate::size;

/// Operators that take most of a model's time, and so belong on a GPU.
const HEAVY: [&str; 13] = [
    "Attention",
    "Conv",
    "ConvTranspose",
    "DynamicQuantizeMatMul",
    "FusedConv",
    "FusedMatMul",
    "Gemm",
    "GroupQueryAttention",
    "LayerNormalization",
    "MatMul",
    "MatMulIntegerToFloat",
    "MultiHeadAttention",
    "RotaryEmbedding",
];

/// Graphs with so many tokens that a matrix of attention scores takes much memory.
const MANY_TOKENS: [&str; 3] = ["vision_encoder", "memory_attention", "detector"];

/// All findings of this subject.
pub(super) fn findings(facts: &Facts, findings: &mut Vec<Finding>) {
    let Some(bundle) = &facts.bundle else {
        let why = facts.no_bundle.as_deref().unwrap_or("none was named");
        findings.push(finding(
            Severity::Note,
            "no-bundle",
            format!("no bundle was checked: {why}"),
            "give one with --model DIR, or make one with `snow-export`".to_owned(),
        ));
        return;
    };
    if let Some(failure) = &bundle.failure {
        let (what, fix) = what_and_fix(failure);
        findings.push(finding(Severity::Error, "bundle-damaged", what, fix));
        return;
    }
    properties(facts, bundle, findings);
    for provider in facts.providers.iter().filter(|tried| tried.serves) {
        results(facts, bundle, provider, findings);
    }
}

/// Splits an error of the bundle's reader into what is wrong and what to do, which follows after its last semicolon.
fn what_and_fix(message: &str) -> (String, String) {
    match message.rsplit_once("; ") {
        Some((what, fix)) => (what.to_owned(), fix.to_owned()),
        None => (
            message.to_owned(),
            "copy the bundle again, or export it again with snow-export".to_owned(),
        ),
    }
}

/// The bundle's precision; `None` if unknown.
pub(super) fn precision(bundle: &BundleFacts) -> Option<Precision> {
    let known = [Precision::Fp32, Precision::Fp16, Precision::Int8];
    let name = bundle.precision.as_deref()?;
    known.into_iter().find(|known| known.to_string() == name)
}

/// Findings about the bundle alone.
fn properties(facts: &Facts, bundle: &BundleFacts, findings: &mut Vec<Finding>) {
    let dir = bundle.dir.display();
    if bundle.golden_graphs == 0 {
        findings.push(finding(
            Severity::Note,
            "no-golden",
            format!(
                "{dir} has no golden vectors, so its graphs cannot be checked against the reference here"
            ),
            "export it without `--golden-frames 0` for a check on this machine".to_owned(),
        ));
    }
    if bundle.random_weights {
        findings.push(finding(
            Severity::Note,
            "random-weights",
            format!("{dir} has random weights: it runs, but its masks mean nothing"),
            "use a bundle of a trained checkpoint for anything but tests".to_owned(),
        ));
    }
    let on_gpu = trial_of(facts, "cuda").is_some_and(|tried| tried.serves);
    if precision(bundle) == Some(Precision::Fp16) && !on_gpu {
        findings.push(finding(
            Severity::Note,
            "fp16-on-processor",
            format!("{dir} is fp16, which saves memory on a processor, but no time"),
            "export it with --precision fp32, or with --precision int8 for half the time"
                .to_owned(),
        ));
    }
}

/// Findings about the trial of a provider that works.
fn results(
    facts: &Facts,
    bundle: &BundleFacts,
    tried: &ProviderFacts,
    findings: &mut Vec<Finding>,
) {
    let provider = tried.provider.as_str();
    let severity = severity_of(provider, facts);
    if let Some(failure) = &tried.failure {
        findings.push(ended_early(provider, failure, severity));
    }
    for graph in &tried.graphs {
        if let Some(failure) = &graph.failure {
            findings.push(finding(
                severity,
                "graph-fails",
                format!("{provider}: {failure}"),
                match provider {
                    "cpu" => "export the bundle again with this version of snow-export, or use another version of ONNX \
                              Runtime"
                        .to_owned(),
                    _ => "use --provider cpu, or another version of ONNX Runtime; where memory is short, a bundle of a \
                          lower resolution"
                        .to_owned(),
                },
            ));
        }
        findings.extend(precision(bundle).and_then(|precision| golden(provider, graph, precision)));
        if provider != "cpu" {
            findings.extend(on_processor(provider, graph, precision(bundle)));
            findings.extend(materialised(provider, graph));
        }
    }
    findings.extend(memory(provider, tried, severity));
}

/// The finding if an output's distance from its golden vectors is more than rounding. Wrong values are always an error, also on a
/// provider that the user does not require.
fn golden(provider: &str, graph: &GraphFacts, precision: Precision) -> Option<Finding> {
    let golden = graph.golden.as_ref()?;
    let Tolerance {
        rounding,
        wrong_above,
    } = tolerance(precision);
    let place = format!("{provider}, graph {}, output {}", graph.role, golden.output);
    let fix = || {
        match provider {
        "cpu" => "export the bundle again with this version of snow-export; if that does not help, use the version of ONNX \
                  Runtime that `snow-ort inspect` says it was checked with"
            .to_owned(),
        _ => "use --provider cpu until it is fixed; try another version of ONNX Runtime, and report it with \
              `snow-ort doctor --json -`"
            .to_owned(),
    }
    };
    match golden.relative_l2 {
        None => Some(finding(
            Severity::Error,
            "golden-wrong",
            format!("{place}: values are not finite, but the reference's are"),
            match precision {
                Precision::Fp16 => format!("{}; an fp32 bundle does not overflow there", fix()),
                _ => fix(),
            },
        )),
        Some(distance) if distance > wrong_above => Some(finding(
            Severity::Error,
            "golden-wrong",
            format!(
                "{place}: {distance:.1e} (relative L2) from the reference, expected at most {rounding:.0e} in {precision}"
            ),
            fix(),
        )),
        Some(distance) if distance > rounding => Some(finding(
            Severity::Warning,
            "golden-doubtful",
            format!(
                "{place}: {distance:.1e} (relative L2) from the reference, expected at most {rounding:.0e} in {precision}"
            ),
            "compare the masks of a clip with those of an fp32 bundle (`snow-ort run --dump-logits`) before you trust them"
                .to_owned(),
        )),
        Some(_) => None,
    }
}

/// The finding if heavy nodes run on the processor instead of the GPU.
fn on_processor(
    provider: &str,
    graph: &GraphFacts,
    precision: Option<Precision>,
) -> Option<Finding> {
    let heavy: Vec<String> = graph
        .placement
        .iter()
        .filter(|placed| placed.provider == "CPUExecutionProvider")
        .filter(|placed| HEAVY.contains(&placed.operator.as_str()))
        .map(|placed| format!("{} {}", placed.nodes, placed.operator))
        .collect();
    if heavy.is_empty() {
        return None;
    }
    Some(finding(
        Severity::Warning,
        "nodes-on-processor",
        format!(
            "{provider}, graph {}: {} run on the processor, and their tensors are copied there and back",
            graph.role,
            heavy.join(", ")
        ),
        match precision {
            Some(Precision::Int8) => "int8 is for processors: export the bundle with --precision fp16".to_owned(),
            _ => "export the bundle again with this version of snow-export; if that does not help, use another version of \
                  ONNX Runtime"
                .to_owned(),
        },
    ))
}

/// The finding if attention over many tokens ran in the kernel that holds all scores.
fn materialised(provider: &str, graph: &GraphFacts) -> Option<Finding> {
    if !MANY_TOKENS.contains(&graph.role.as_str()) {
        return None;
    }
    let kernel = graph
        .attention
        .iter()
        .find(|kernel| kernel.kernel == MATERIALISING)?;
    Some(finding(
        Severity::Warning,
        "attention-unfused",
        format!(
            "{provider}, graph {}: {} {} in {} ran in kernel {}, which holds the whole matrix of scores",
            graph.role, kernel.nodes, kernel.operator, kernel.dtype, kernel.kernel
        ),
        "export the bundle with --precision fp16 and this version of snow-export, for which fused kernels exist from sm_50 \
         on; until then track fewer objects at a lower resolution (`snow-ort plan` shows the memory needed)"
            .to_owned(),
    ))
}

/// The finding if the objects do not fit in memory.
fn memory(provider: &str, tried: &ProviderFacts, severity: Severity) -> Option<Finding> {
    let memory = tried.memory.as_ref()?;
    if memory.objects <= memory.most_objects {
        return None;
    }
    let (severity, fix) = match memory.most_objects {
        0 => (
            severity,
            match provider {
                "cpu" => "end other programs, or use a bundle of a lower resolution or in int8".to_owned(),
                _ => "end other programs on that GPU, or use a bundle of a lower resolution or in fp16".to_owned(),
            },
        ),
        max => (
            Severity::Warning,
            format!("track {max} at once, or use a bundle of a lower resolution"),
        ),
    };
    let objects = match memory.objects {
        1 => "one object".to_owned(),
        n => format!("{n} objects"),
    };
    Some(finding(
        severity,
        "memory-too-small",
        format!(
            "{provider}: tracking {objects} takes {}, but {} are free for graphs",
            size::show(match memory.objects {
                1 => memory.one_object_bytes,
                _ => memory.total_bytes,
            }),
            size::show(memory.budget_bytes)
        ),
        fix,
    ))
}
