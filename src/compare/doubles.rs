//! Made-up variants for tests.

use std::collections::BTreeMap;

use super::report::{
    Agreement, FoundComparison, FrameIou, ObjectAgreement, VariantReport, VariantRun,
};
use crate::bench::process::Startup;
use crate::bench::protocol::{Frame, Ready};
use crate::bench::report::VariantTiming;
use crate::session::report::{MeanScores, ModelReport, OBJECTS_BY_ID, RuntimeReport, ScoresReport};

/// A variant whose rounds of one frame took `seconds`.
pub(crate) fn timed(name: &str, seconds: &[f64]) -> VariantReport {
    let frame = |seconds: &f64| {
        vec![Frame {
            seconds: *seconds,
            stages: BTreeMap::from([("vision_encoder".to_owned(), seconds / 2.0)]),
            peak_resident_bytes: Some(100 << 20),
            arena_peak_bytes: Some(50 << 20),
            device_bytes: None,
            bank_bytes: Some(1 << 20),
        }]
    };
    let ready = Ready {
        what: "a double".to_owned(),
        resolution: 336,
        precision: "fp32".to_owned(),
        threads: 2,
        once: BTreeMap::new(),
    };
    let startup = Startup {
        ready,
        load_s: 1.0,
        cold_s: 2.0,
    };
    let model = ModelReport {
        dir: format!("models/{name}"),
        name: "tiny".to_owned(),
        family: "sam3".to_owned(),
        resolution: 336,
        precision: "fp32".to_owned(),
        manifest_sha256: String::new(),
        random_weights: false,
    };
    let runtime = RuntimeReport {
        snow_ort: "0".to_owned(),
        onnxruntime: "0".to_owned(),
        library: String::new(),
        provider: "cpu".to_owned(),
        threads: None,
        chunk: 8,
        memory_selection: None,
    };
    VariantReport {
        name: name.to_owned(),
        dir: format!("models/{name}"),
        provider: "cpu".to_owned(),
        error: None,
        run: Some(VariantRun {
            folder: name.to_owned(),
            model,
            runtime,
            fps: 1.0,
            peak_memory_bytes: None,
            detector: None,
            proposals: None,
            texts: Vec::new(),
            scores: None,
            lost: Vec::new(),
        }),
        agreement: None,
        found_objects: None,
        timing: VariantTiming::new(name, startup, seconds.iter().map(frame).collect()),
        speedup: None,
    }
}

/// With a constant IoU with the baseline, on two frames.
pub(crate) fn agreeing(mut variant: VariantReport, iou: f64) -> VariantReport {
    let per_frame = [0, 1].map(|frame| FrameIou { frame, iou }).to_vec();
    let object = ObjectAgreement {
        object: 1,
        iou,
        worst_iou: iou,
        worst_frame: 0,
        first_below: None,
        lost_from: None,
        per_frame,
    };
    variant.agreement = Agreement::of(vec![object]);
    variant
}

pub(crate) fn scored(mut variant: VariantReport, j_and_f: f64) -> VariantReport {
    let overall = MeanScores {
        j: j_and_f,
        j_recall: 1.0,
        f: j_and_f,
        f_recall: 1.0,
        j_and_f,
    };
    variant.run.as_mut().unwrap().scores = Some(ScoresReport {
        ground_truth: "gt".to_owned(),
        matched_by: "number".to_owned(),
        objects_by: OBJECTS_BY_ID.to_owned(),
        annotated_frames: 2,
        overall: Some(overall),
        objects: Vec::new(),
        not_scored: Vec::new(),
    });
    variant
}

/// With the speedups that follow from the times.
pub(crate) fn report(mut variants: Vec<VariantReport>) -> Vec<VariantReport> {
    let baseline = variants[0].clone();
    for variant in &mut variants[1..] {
        variant.speedup = baseline.time_ratio(variant);
    }
    variants
}

/// With what it found of the baseline's objects.
pub(crate) fn finding(
    mut variant: VariantReport,
    [found, missed, extra]: [u64; 3],
) -> VariantReport {
    variant.found_objects = Some(FoundComparison {
        found,
        missed,
        extra,
        differing_frames: missed + extra,
        texts: Vec::new(),
    });
    variant
}
