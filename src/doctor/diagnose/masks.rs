//! Findings about the comparison of masks of the drawn clip with the processor's.

use super::super::facts::{Facts, Limit, MasksFacts, ObjectAgreement, ProviderFacts};
use super::super::finding::{Finding, Severity};
use super::super::masks::mean;
use super::super::packages;
use super::bundle::precision;
use super::rules::{chosen_gpu, finding, install, library_version, severity_of};

/// All findings of this subject.
pub(super) fn findings(facts: &Facts, findings: &mut Vec<Finding>) {
    if let Some(not) = &facts.not_compared {
        findings.push(finding(
            // A user who asked must not read a missing comparison as success.
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
            findings.extend(wrong(facts, tried, masks).or_else(|| all_empty(tried, masks)));
        }
    }
}

/// The finding if the clip could not be tracked on a provider.
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
            "cpu" => "give it more time with --timeout if time is the reason; otherwise use another version of ONNX Runtime",
            _ => "end other programs on that GPU if memory or time is the reason (--timeout gives more time); otherwise use \
                  --provider cpu, or another version of ONNX Runtime",
        }
        .to_owned(),
    ))
}

/// The note if all masks are empty: then equal masks prove nothing.
fn all_empty(tried: &ProviderFacts, masks: &MasksFacts) -> Option<Finding> {
    let proves_nothing = masks.seen == 0 && matches!(masks.limit, Limit::IouAtLeast(_));
    proves_nothing.then(|| {
        finding(
            Severity::Note,
            "not-compared",
            format!(
                "{}: with this bundle the processor's masks of the drawn clip hold no object, so equal masks prove nothing",
                tried.provider
            ),
            "compare the masks of another clip: `snow-ort ab CLIP --variant …,provider=cpu --variant …,provider=cuda`"
                .to_owned(),
        )
    })
}

/// The finding if masks differ. It is always an error, also on a provider that the user does not require.
fn wrong(facts: &Facts, tried: &ProviderFacts, masks: &MasksFacts) -> Option<Finding> {
    let [together, alone] = [&masks.together, &masks.alone].map(|objects| masks.limit.all(objects));
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
    let shown = |objects: &[ObjectAgreement], right: bool| match right {
        true => format!("{}, which is right", figure(masks.limit, objects)),
        false => {
            let figure = figure(masks.limit, objects);
            format!("{figure} ({})", each(masks.limit, objects))
        }
    };
    let what = format!(
        "{}: the masks of a drawn clip differ from the processor's (expected {} {} for each object in {kind})\n\
         {} objects at once, {} frames: {}\n\
         one object at a time: {}",
        with_versions(facts, &tried.provider),
        match masks.limit {
            Limit::IouAtLeast(_) => "a mean IoU of",
            Limit::L2AtMost(_) => "a relative L2 distance of logits of",
        },
        masks.limit,
        masks.together.len(),
        masks.frames,
        shown(&masks.together, together),
        shown(&masks.alone, alone),
    );
    let for_now = match alone {
        true => {
            "track one object at a time (`snow-ort run --chunk 1`), which is right here, or use --provider cpu"
        }
        false => "use --provider cpu",
    };
    Some(finding(
        Severity::Error,
        "masks-wrong",
        what,
        format!("{for_now}, until {}", replacement(facts)),
    ))
}

/// How to replace the library.
fn replacement(facts: &Facts) -> String {
    let gpu = chosen_gpu(facts);
    let wheel = gpu.and_then(|gpu| packages::wheel(gpu.compute));
    match wheel {
        Some(wheel) if facts.library.version.as_deref() != Some(wheel.version) => format!(
            "ONNX Runtime {} is replaced by another version: {}",
            library_version(facts),
            install(facts)
        ),
        _ => format!(
            "ONNX Runtime {} is replaced by another version; report it with `snow-ort doctor --json -`",
            library_version(facts)
        ),
    }
}

/// The provider with the versions of its parts: `cuda (ONNX Runtime 1.26.0, CUDA 12, cuDNN 9.10.2.21) on NVIDIA H100`.
fn with_versions(facts: &Facts, provider: &str) -> String {
    let mut parts = vec![format!("ONNX Runtime {}", library_version(facts))];
    if let Some(cuda) = &facts.library.cuda {
        parts.extend(cuda.cuda_major.map(|major| format!("CUDA {major}")));
        parts.extend(cuda.cudnn.as_ref().map(|cudnn| format!("cuDNN {cudnn}")));
    }
    let on = chosen_gpu(facts).map_or(String::new(), |gpu| format!(" on {}", gpu.name));
    format!("{provider} ({}){on}", parts.join(", "))
}

/// The average over objects, in words.
fn figure(limit: Limit, objects: &[ObjectAgreement]) -> String {
    let (iou, distance) = mean(objects);
    match (limit, distance) {
        (_, None) => "values that are not finite".to_owned(),
        (Limit::IouAtLeast(_), _) => format!("mean IoU {iou:.4}"),
        (Limit::L2AtMost(_), Some(distance)) => format!("relative L2 {distance:.1e}"),
    }
}

/// The figure of each object.
fn each(limit: Limit, objects: &[ObjectAgreement]) -> String {
    let one = |object: &ObjectAgreement| {
        let figure = match (limit, object.relative_l2) {
            (_, None) => "not finite".to_owned(),
            (Limit::IouAtLeast(_), _) => format!("{:.3}", object.mean_iou),
            (Limit::L2AtMost(_), Some(distance)) => format!("{distance:.1e}"),
        };
        format!("object {} {figure}", object.object)
    };
    objects.iter().map(one).collect::<Vec<_>>().join(", ")
}
