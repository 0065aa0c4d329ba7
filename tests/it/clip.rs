//! The drawn clip of `snow-ort doctor`: tracked with real graphs and with graphs that are wrong in batches, and the findings.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use snow_ort::bundle::{Bundle, Precision};
use snow_ort::doctor::clip::{self, ClipLogits, FRAMES, Logits, OBJECTS};
use snow_ort::doctor::facts::{Facts, Failure, FailureKind, Limit, MasksFacts, NotCompared};
use snow_ort::doctor::masks::{self, limit};
use snow_ort::doctor::trial::{ClipConfig, TrialConfig};
use snow_ort::doctor::{Finding, Report, Severity, Verdict};
use snow_ort::masks::Iou;
use snow_ort::runtime::{
    Backend, Engine, EngineOptions, Graph, GraphError, Host, Provider, Tensor,
};
use snow_ort::tracker::{Graphs, ModelSpec};

use crate::doctor::doctor as without_gpu;
use crate::fake::{Desk, FakeBundle, Ran};
use crate::findings::{bundle, judged, names, only, with_gpu};

fn at(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// A graph that is right with one object, while in a batch only the last object is right. A GPU did this.
struct LastOfBatch {
    inner: Box<dyn Graph>,
    backend: Arc<dyn Backend>,
}

impl Graph for LastOfBatch {
    fn run(
        &mut self,
        inputs: &[(&str, &Tensor)],
        outputs: &[&str],
    ) -> Result<Vec<Tensor>, GraphError> {
        let mut results = self.inner.run(inputs, outputs)?;
        for result in results.iter_mut().filter(|result| result.rows() > 1) {
            let mut values = self.backend.download(result)?;
            let row = values.len() / result.rows();
            let kept = values.len() - row;
            values[..kept].fill(0.0);
            let narrow = values.into_iter().map(half::f16::from_f32).collect();
            let data = match result.element() {
                snow_ort::runtime::Element::F16 => Host::F16(narrow),
                _ => Host::F32(narrow.into_iter().map(f32::from).collect()),
            };
            *result = self.backend.upload(result.shape(), data)?;
        }
        Ok(results)
    }
}

fn backend() -> Option<Arc<dyn Backend>> {
    match Engine::load(&EngineOptions::default()) {
        Ok(engine) => Some(Arc::new(engine)),
        Err(error) => {
            println!("skipped: {error}");
            None
        }
    }
}

/// Logits of the clip on the processor; with `spoilt`, memory attention is wrong in batches.
fn track(backend: &Arc<dyn Backend>, bundle: &Bundle, chunk: usize, spoilt: bool) -> Logits {
    let mut graphs = Graphs::load(bundle, backend.as_ref()).unwrap();
    if spoilt {
        graphs.memory_attention = Box::new(LastOfBatch {
            inner: graphs.memory_attention,
            backend: Arc::clone(backend),
        });
    }
    let spec = ModelSpec::of(bundle).unwrap();
    clip::track(spec, Arc::clone(backend), graphs, FRAMES, chunk).unwrap()
}

/// An H100 with ONNX Runtime 1.26.0 and these masks.
fn h100(masks: MasksFacts) -> Facts {
    let mut facts = with_gpu("NVIDIA H100", (9, 0), "1.26.0");
    facts.bundle = Some(bundle("fp16"));
    facts.providers[1].masks = Some(masks);
    facts
}

#[test]
fn a_batch_that_is_wrong_but_for_its_last_object_is_found_and_one_at_a_time_is_offered() {
    let Some(backend) = backend() else { return };
    let bundle = Bundle::open(&at("models/snow-tiny/snow-tiny-336-fp16")).unwrap();
    let expected = track(&backend, &bundle, 1, false);
    let iou_with_drawn = |logits: &Logits, object: usize, frame: usize| {
        let area = logits.side * logits.side;
        let from = (frame * OBJECTS + object) * area;
        let drawn = clip::drawn(object, frame, logits.side);
        let pairs = logits.values[from..from + area].iter().zip(drawn);
        Iou::of_pixels(pairs.map(|(logit, drawn)| (*logit > 0.0, drawn))).or(0.0)
    };
    // The masks are clear, so that rounding cannot look like an error.
    for object in 0..OBJECTS {
        for frame in 0..FRAMES {
            let iou = iou_with_drawn(&expected, object, frame);
            println!("object {object}, frame {frame}: IoU {iou:.3} with what was drawn");
            assert!(iou > 0.7, "object {object}, frame {frame}: {iou}");
        }
    }

    let limit = limit(Precision::Fp16, false);
    let right = ClipLogits {
        together: Some(track(&backend, &bundle, OBJECTS, false)),
        alone: expected.clone(),
    };
    let made = masks::facts(&right, &expected, 0.0, limit).unwrap();
    println!("in a batch: {:?}", made.together);
    assert_eq!(made.seen, OBJECTS * FRAMES);
    assert_eq!(judged(h100(made)).verdict, Verdict::Fine);

    let wrong = ClipLogits {
        together: Some(track(&backend, &bundle, OBJECTS, true)),
        alone: track(&backend, &bundle, 1, true),
    };
    let made = masks::facts(&wrong, &expected, 0.0, limit).unwrap();
    println!("in a spoilt batch: {:?}", made.together);
    assert!(limit.holds(&made.together[OBJECTS - 1]));
    assert!(!limit.holds(&made.together[0]));
    assert!(limit.all(&made.alone));
    let found = only(h100(made), Severity::Error, "masks-wrong");
    println!("{}\nfix: {}", found.what, found.fix);
    names(
        &found.what,
        &[
            "cuda (ONNX Runtime 1.26.0, CUDA 12, cuDNN 9.10.2.21) on NVIDIA H100",
            "at least 0.97",
            "fp16",
            "4 objects at once, 6 frames: mean IoU",
            "object 4 1.000",
            "one object at a time: mean IoU 1.0000, which is right",
        ],
    );
    names(&found.fix, &["`snow-ort run --chunk 1`", "1.31.1"]);
}

#[test]
fn random_weights_in_batches_are_within_the_ladder_and_spoilt_ones_are_not() {
    let Some(backend) = backend() else { return };
    let bundle = Bundle::open(&at("tests/fixtures/snow-random-112-fp16")).unwrap();
    let expected = track(&backend, &bundle, 1, false);
    let limit = limit(Precision::Fp16, true);
    let compared = |spoilt: bool| {
        let got = track(&backend, &bundle, OBJECTS, spoilt);
        let compared = masks::compare(&got, &expected, 0.0).unwrap();
        println!("spoilt {spoilt}: {compared:?}");
        compared
    };
    assert!(limit.all(&compared(false)));
    assert!(!limit.all(&compared(true)));
}

#[test]
fn another_bundle_in_its_place_is_wrong_in_both_ways() {
    let Some(backend) = backend() else { return };
    let intact = FakeBundle::new();
    let mut tampered = FakeBundle::new();
    tampered.narrow_masks();
    let [expected, got] = [&intact, &tampered].map(|bundle| {
        let bundle = Bundle::open(&bundle.dir).unwrap();
        track(&backend, &bundle, 1, false)
    });
    let clip = ClipLogits {
        together: Some(got.clone()),
        alone: got,
    };
    let made = masks::facts(&clip, &expected, 0.0, limit(Precision::Fp16, false)).unwrap();
    let found = only(h100(made), Severity::Error, "masks-wrong");
    names(
        &found.what,
        &["mean IoU 0.5000", "one object at a time: mean IoU 0.5000 ("],
    );
    names(&found.fix, &["use --provider cpu, until", "1.31.1"]);
    assert!(!found.fix.contains("--chunk"), "{}", found.fix);
}

fn note<'r>(report: &'r Report, code: &str) -> Option<&'r Finding> {
    let mut all = report.findings.iter();
    all.find(|finding| finding.code == code)
}

#[test]
fn a_missing_comparison_is_reported() {
    let mut facts = with_gpu("NVIDIA H100", (9, 0), "1.26.0");
    facts.bundle = Some(bundle("fp16"));
    assert_eq!(judged(facts.clone()).verdict, Verdict::Fine);

    let masks = MasksFacts {
        frames: FRAMES,
        seen: 0,
        limit: Limit::IouAtLeast(0.97),
        together: Vec::new(),
        alone: Vec::new(),
    };
    let all_empty = judged(h100(masks));
    names(
        &note(&all_empty, "not-compared").unwrap().what,
        &["no object"],
    );

    facts.not_compared = Some(NotCompared {
        asked: true,
        why: "no provider but the processor runs it".to_owned(),
        fix: "run it elsewhere".to_owned(),
    });
    only(facts.clone(), Severity::Warning, "not-compared");
    facts.not_compared.as_mut().unwrap().asked = false;
    assert_eq!(judged(facts.clone()).verdict, Verdict::Fine);

    facts.not_compared = None;
    facts.providers[1].clip_failure = Some(Failure {
        during: "tracking the objects of the drawn clip together".to_owned(),
        kind: FailureKind::Crash,
        reason: "the process was ended by SIGSEGV".to_owned(),
    });
    let found = only(facts.clone(), Severity::Warning, "clip-fails");
    names(&found.what, &["cuda", "together", "SIGSEGV"]);
    facts.required = Some("cuda".to_owned());
    only(facts, Severity::Error, "clip-fails");
}

#[test]
fn the_worker_writes_the_logits_of_the_clip() {
    if backend().is_none() {
        return;
    }
    let desk = Desk::new();
    let config = TrialConfig {
        events: desk.path("events.jsonl"),
        provider: Provider::Cpu,
        device_id: 0,
        library: snow_ort::runtime::library::find(None).unwrap().path,
        threads: None,
        bundle: Some(desk.bundle.dir.clone()),
        objects: 1,
        budget_bytes: None,
        clip: Some(ClipConfig {
            file: desk.path("clip.safetensors"),
            frames: 2,
        }),
    };
    let mut command = desk.command();
    command.arg("doctor-worker").stdin(Stdio::piped());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let input = child.stdin.take().unwrap();
    serde_json::to_writer(input, &config).unwrap();
    let ran: Ran = child.wait_with_output().unwrap().into();
    ran.succeeds();
    let events = std::fs::read_to_string(desk.path("events.jsonl")).unwrap();
    assert!(events.contains("one at a time"), "{events}");
    assert!(
        events.trim_end().ends_with(r#"{"event":"done"}"#),
        "{events}"
    );
    let logits = clip::read(&desk.path("clip.safetensors")).unwrap();
    // The processor is the reference, which tracks one object at a time.
    assert_eq!(logits.together, None);
    assert_eq!((logits.alone.frames, logits.alone.objects), (2, OBJECTS));
}

#[test]
fn a_configuration_that_is_not_one_is_refused() {
    let desk = Desk::new();
    let mut command = desk.command();
    let ran: Ran = command.arg("doctor-worker").output().unwrap().into();
    ran.refuses(&["configuration", "standard input"]);
}

#[test]
fn the_processor_is_not_compared_with_itself() {
    let desk = Desk::new();
    let doctor = |more: &[&str]| -> Ran {
        let mut command = without_gpu(&desk);
        command.arg("--model").arg(&desk.bundle.dir).args(more);
        command.output().unwrap().into()
    };
    let ran = doctor(&["--compare", "--provider", "cpu"]);
    assert_eq!(ran.code, Some(2), "{ran:?}");
    ran.refuses(&["--compare", "itself"]);
    let ran = doctor(&["--compare", "--no-compare"]);
    assert_eq!(ran.code, Some(2), "{ran:?}");
    if backend().is_none() {
        return;
    }
    let ran = doctor(&["--compare"]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    for words in [
        "warning (not-compared): masks were not compared with the processor's",
        "not compared with itself",
        "it works, with 1 warning",
    ] {
        assert!(
            ran.stdout.contains(words),
            "{words:?} is not in {}",
            ran.stdout
        );
    }
    let ran = doctor(&[]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(!ran.stdout.contains("compared"), "{}", ran.stdout);
}
