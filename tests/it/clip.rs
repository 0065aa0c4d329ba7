//! The drawn clip of `snow-ort doctor`: followed for real, against graphs that are wrong in batches, and what is found of it.

use std::path::{Path, PathBuf};
use std::rc::Rc;

use snow_ort::bundle::{Bundle, Precision};
use snow_ort::doctor::clip::{self, FRAMES, Followed, Logits, OBJECTS};
use snow_ort::doctor::facts::{Facts, Failure, FailureKind, MasksFacts, NotCompared};
use snow_ort::doctor::masks::{self, Limit, limit};
use snow_ort::doctor::{Report, Severity, Verdict};
use snow_ort::runtime::{Backend, Graph, GraphError, Host, Runtime, RuntimeOptions, Tensor};
use snow_ort::tracker::{Graphs, ModelSpec};

use crate::doctor::doctor as without_gpu;
use crate::fake::{Desk, FakeBundle, Ran};
use crate::findings::{bundle, judged, names, only, with_gpu};

fn at(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Graphs that are right alone, while of a batch only the last object is: what was seen on a GPU.
struct LastOfBatch {
    inner: Box<dyn Graph>,
    backend: Rc<dyn Backend>,
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

fn backend() -> Option<Rc<dyn Backend>> {
    match Runtime::load(&RuntimeOptions::default()) {
        Ok(runtime) => Some(Rc::new(runtime)),
        Err(error) => {
            println!("skipped: {error}");
            None
        }
    }
}

/// The clip on the processor, with its memory attention spoilt in batches if asked.
fn follow(backend: &Rc<dyn Backend>, bundle: &Bundle, chunk: usize, spoilt: bool) -> Logits {
    let mut graphs = Graphs::load(bundle, backend.as_ref()).unwrap();
    if spoilt {
        graphs.memory_attention = Box::new(LastOfBatch {
            inner: graphs.memory_attention,
            backend: Rc::clone(backend),
        });
    }
    let spec = ModelSpec::of(bundle).unwrap();
    clip::follow(spec, Rc::clone(backend), graphs, FRAMES, chunk).unwrap()
}

/// An H100 with 1.26.0 on which the clip was followed so.
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
    let expected = follow(&backend, &bundle, 1, false);
    let seen = |logits: &Logits, object: usize, frame: usize| {
        let area = logits.side * logits.side;
        let from = (frame * OBJECTS + object) * area;
        let drawn = clip::drawn(object, frame, logits.side);
        let pairs = logits.values[from..from + area].iter().zip(drawn);
        let (mut both, mut either) = (0, 0);
        for (&logit, drawn) in pairs {
            both += u32::from(logit > 0.0 && drawn);
            either += u32::from(logit > 0.0 || drawn);
        }
        f64::from(both) / f64::from(either)
    };
    // Masks far from the edge of being seen: rounding cannot look like a mistake.
    for object in 0..OBJECTS {
        for frame in 0..FRAMES {
            let iou = seen(&expected, object, frame);
            println!("object {object}, frame {frame}: IoU {iou:.3} with what was drawn");
            assert!(iou > 0.7, "object {object}, frame {frame}: {iou}");
        }
    }

    let limit = limit(Precision::Fp16, false);
    let right = Followed {
        together: Some(follow(&backend, &bundle, OBJECTS, false)),
        alone: expected.clone(),
    };
    let made = masks::facts(&right, &expected, 0.0, limit).unwrap();
    println!("in a batch: {:?}", made.together);
    assert_eq!(made.seen, OBJECTS * FRAMES);
    assert_eq!(judged(h100(made)).verdict, Verdict::Fine);

    let wrong = Followed {
        together: Some(follow(&backend, &bundle, OBJECTS, true)),
        alone: follow(&backend, &bundle, 1, true),
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
    let expected = follow(&backend, &bundle, 1, false);
    let limit = limit(Precision::Fp16, true);
    let compared = |spoilt: bool| {
        let got = follow(&backend, &bundle, OBJECTS, spoilt);
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
        follow(&backend, &bundle, 1, false)
    });
    let followed = Followed {
        together: Some(got.clone()),
        alone: got,
    };
    let made = masks::facts(&followed, &expected, 0.0, limit(Precision::Fp16, false)).unwrap();
    let found = only(h100(made), Severity::Error, "masks-wrong");
    names(
        &found.what,
        &["mean IoU 0.5000", "one object at a time: mean IoU 0.5000 ("],
    );
    names(&found.fix, &["use --provider cpu, until", "1.31.1"]);
    assert!(!found.fix.contains("--chunk"), "{}", found.fix);
}

fn note<'r>(report: &'r Report, code: &str) -> Option<&'r snow_ort::doctor::Finding> {
    let mut all = report.findings.iter();
    all.find(|finding| finding.code == code)
}

#[test]
fn what_was_not_compared_is_said() {
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
    let unseen = judged(h100(masks));
    names(&note(&unseen, "not-compared").unwrap().what, &["no object"]);

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
        during: "following the objects of the drawn clip together".to_owned(),
        kind: FailureKind::Crash,
        reason: "the process was ended by SIGSEGV".to_owned(),
    });
    let found = only(facts.clone(), Severity::Warning, "clip-fails");
    names(&found.what, &["cuda", "together", "SIGSEGV"]);
    facts.required = Some("cuda".to_owned());
    only(facts, Severity::Error, "clip-fails");
}

#[test]
fn the_programs_own_trial_writes_the_logits_of_the_clip() {
    if backend().is_none() {
        return;
    }
    let desk = Desk::new();
    let mut command = desk.command();
    command.args(["doctor-trial", "--events", "events.jsonl"]);
    command.args(["--clip", "clip.safetensors", "--frames", "2", "--model"]);
    let ran: Ran = command.arg(&desk.bundle.dir).output().unwrap().into();
    ran.succeeds();
    let events = std::fs::read_to_string(desk.path("events.jsonl")).unwrap();
    assert!(events.contains("one at a time"), "{events}");
    assert!(
        events.trim_end().ends_with(r#"{"event":"done"}"#),
        "{events}"
    );
    let followed = clip::read(&desk.path("clip.safetensors")).unwrap();
    // The processor is what others are held against.
    assert_eq!(followed.together, None);
    assert_eq!(
        (followed.alone.frames, followed.alone.objects),
        (2, OBJECTS)
    );
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
