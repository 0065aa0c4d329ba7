//! Masks of the drawn clip on a provider, against the processor's.

use super::super::facts::{Facts, MasksFacts, ObjectAgreement, ProviderFacts};
use super::super::masks::{Limit, mean};
use super::super::packages;
use super::super::{Finding, Severity};
use super::bundle::precision;
use super::{cuda, finding, install, severity_of};

pub(super) fn findings(facts: &Facts, findings: &mut Vec<Finding>) {
    if let Some(not) = &facts.not_compared {
        findings.push(finding(
            // Whoever asked must not take silence for the same masks.
            match not.asked {
                true => Severity::Warning,
                false => Severity::Note,
            },
            "not-compared",
            format!("masks were not compared with the processor's: {}", not.why),
            not.fix.clone(),
        ));
    }
    for tried in &facts.providers {
        findings.extend(failed(facts, tried));
        if let Some(masks) = &tried.masks {
            findings.extend(wrong(facts, tried, masks).or_else(|| unseen(tried, masks)));
        }
    }
}

fn failed(facts: &Facts, tried: &ProviderFacts) -> Option<Finding> {
    let failure = tried.clip_failure.as_ref()?;
    let provider = tried.provider.as_str();
    Some(finding(
        severity_of(provider, facts),
        "clip-fails",
        format!(
            "{provider}, {}: {}; its masks were not compared with the processor's",
            failure.during, failure.reason
        ),
        match provider {
            "cpu" => "give it more time with --timeout where that is the reason; otherwise use another version of ONNX Runtime",
            _ => "end other programs on that GPU where memory or time is the reason (--timeout gives more); otherwise use \
                  --provider cpu, or another version of ONNX Runtime",
        }
        .to_owned(),
    ))
}

/// Equal masks that are all empty say nothing.
fn unseen(tried: &ProviderFacts, masks: &MasksFacts) -> Option<Finding> {
    let says_nothing = masks.seen == 0 && matches!(masks.limit, Limit::IouAtLeast(_));
    says_nothing.then(|| {
        finding(
            Severity::Note,
            "not-compared",
            format!(
                "{}: the processor sees no object of the drawn clip with this bundle: equal masks say nothing",
                tried.provider
            ),
            "compare the masks of a clip of yours: `snow-ort ab CLIP --variant …,provider=cpu --variant …,provider=cuda`"
                .to_owned(),
        )
    })
}

/// A provider that computes wrongly in silence is never only a warning.
fn wrong(facts: &Facts, tried: &ProviderFacts, masks: &MasksFacts) -> Option<Finding> {
    let [together, alone] = [&masks.together, &masks.alone].map(|way| masks.limit.all(way));
    if together && alone {
        return None;
    }
    let precision = facts.bundle.as_ref().and_then(precision);
    let kind = match (masks.limit, precision) {
        (Limit::L2AtMost(_), Some(precision)) => format!("{precision} with random weights"),
        (Limit::L2AtMost(_), None) => "random weights".to_owned(),
        (_, Some(precision)) => precision.to_string(),
        (_, None) => "this precision".to_owned(),
    };
    let said = |way: &[ObjectAgreement], right: bool| match right {
        true => format!("{}, which is right", figure(masks.limit, way)),
        false => format!("{} ({})", figure(masks.limit, way), each(masks.limit, way)),
    };
    let what = format!(
        "{}: the masks of a drawn clip are not the processor's (expected {} {} for each object in {kind})\n\
         {} objects at once, {} frames: {}\n\
         one object at a time: {}",
        with(facts, &tried.provider),
        match masks.limit {
            Limit::IouAtLeast(_) => "a mean IoU of",
            Limit::L2AtMost(_) => "a relative L2 distance of logits of",
        },
        masks.limit,
        masks.together.len(),
        masks.frames,
        said(&masks.together, together),
        said(&masks.alone, alone),
    );
    let for_now = match alone {
        true => {
            "follow one object at a time (`snow-ort run --chunk 1`), which is right here, or use --provider cpu"
        }
        false => "use --provider cpu",
    };
    Some(finding(
        Severity::Error,
        "masks-wrong",
        what,
        format!("{for_now}, until {}", another(facts)),
    ))
}

/// What is to be replaced by what.
fn another(facts: &Facts) -> String {
    let gpu = cuda::chosen(facts);
    let wheel = gpu.and_then(|gpu| packages::wheel(gpu.compute));
    match wheel {
        Some(wheel) if facts.library.version.as_deref() != Some(wheel.version) => format!(
            "ONNX Runtime {} is replaced by another version: {}",
            version(facts),
            install(facts)
        ),
        _ => format!(
            "ONNX Runtime {} is replaced by another version; report it with `snow-ort doctor --json -`",
            version(facts)
        ),
    }
}

fn version(facts: &Facts) -> &str {
    let version = facts.library.version.as_deref();
    version.unwrap_or("of unknown version")
}

/// The provider with the versions that it has: `cuda (ONNX Runtime 1.26.0, CUDA 12, cuDNN 9.10.2.21) on NVIDIA H100`.
fn with(facts: &Facts, provider: &str) -> String {
    let mut parts = vec![format!("ONNX Runtime {}", version(facts))];
    if let Some(cuda) = &facts.library.cuda {
        parts.extend(cuda.cuda_major.map(|major| format!("CUDA {major}")));
        parts.extend(cuda.cudnn.as_ref().map(|cudnn| format!("cuDNN {cudnn}")));
    }
    let on = cuda::chosen(facts).map_or(String::new(), |gpu| format!(" on {}", gpu.name));
    format!("{provider} ({}){on}", parts.join(", "))
}

fn figure(limit: Limit, way: &[ObjectAgreement]) -> String {
    let (iou, distance) = mean(way);
    match (limit, distance) {
        (_, None) => "values that are not finite".to_owned(),
        (Limit::IouAtLeast(_), _) => format!("mean IoU {iou:.4}"),
        (Limit::L2AtMost(_), Some(distance)) => format!("relative L2 {distance:.1e}"),
    }
}

fn each(limit: Limit, way: &[ObjectAgreement]) -> String {
    let one = |object: &ObjectAgreement| {
        let figure = match (limit, object.relative_l2) {
            (_, None) => "not finite".to_owned(),
            (Limit::IouAtLeast(_), _) => format!("{:.3}", object.mean_iou),
            (Limit::L2AtMost(_), Some(distance)) => format!("{distance:.1e}"),
        };
        format!("object {} {figure}", object.object)
    };
    way.iter().map(one).collect::<Vec<_>>().join(", ")
}
