//! `snow-ort doctor`, `inspect`, `completions` and `man`, run as a user runs them.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::fake::{Desk, Ran, names_in, read_json};

/// A bundle with golden vectors: random weights, fp16.
fn golden_bundle() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/snow-random-112-fp16")
}

/// `snow-ort doctor` with an empty cache and an `nvidia-smi` that lists no GPU.
pub fn doctor(desk: &Desk) -> Command {
    let bin = desk.path("tools");
    std::fs::create_dir_all(&bin).unwrap();
    let smi = bin.join("nvidia-smi");
    if !smi.exists() {
        nvidia_smi(desk, "echo 'No devices were found'; exit 6");
    }
    let mut command = desk.command();
    command.env("XDG_CACHE_HOME", desk.path("cache"));
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{}:{path}", bin.display()));
    command.arg("doctor");
    command
}

/// Replaces nvidia-smi by a script.
pub fn nvidia_smi(desk: &Desk, script: &str) {
    let smi = desk.path("tools/nvidia-smi");
    std::fs::create_dir_all(smi.parent().unwrap()).unwrap();
    std::fs::write(&smi, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(&smi, std::fs::Permissions::from_mode(0o755)).unwrap();
}

pub fn json(command: &mut Command) -> (Ran, Value) {
    let ran: Ran = command.args(["--json", "-"]).output().unwrap().into();
    let report = serde_json::from_str(&ran.stdout).unwrap_or_else(|e| panic!("{e}: {ran:?}"));
    (ran, report)
}

fn has_library() -> bool {
    match snow_ort::runtime::library::find(None) {
        Ok(_) => true,
        Err(error) => {
            println!("skipped: {error}");
            false
        }
    }
}

/// The finding with a code.
#[track_caller]
pub fn finding<'r>(report: &'r Value, code: &str) -> &'r Value {
    let findings = report["findings"].as_array().unwrap();
    let found = findings.iter().find(|finding| finding["code"] == code);
    found.unwrap_or_else(|| panic!("no {code} in {findings:#?}"))
}

#[test]
fn without_a_library_and_a_bundle_it_says_so_and_exits_with_2() {
    let desk = Desk::new();
    let nowhere = ["--ort-lib", "nowhere.so"];
    let (ran, report) = json(doctor(&desk).args(nowhere).args(["--models", "none"]));
    assert_eq!(ran.code, Some(2), "{ran:?}");
    assert_eq!(report["schema_version"], 1);
    assert_eq!(report["verdict"], "fails");
    let missing = finding(&report, "library-missing");
    assert!(missing["what"].as_str().unwrap().contains("nowhere.so"));
    assert!(
        missing["fix"]
            .as_str()
            .unwrap()
            .contains("pip install onnxruntime")
    );
    assert_eq!(finding(&report, "no-bundle")["severity"], "note");
    assert_eq!(report["facts"]["providers"], serde_json::json!([]));

    let ran: Ran = doctor(&desk).args(nowhere).output().unwrap().into();
    assert_eq!(ran.code, Some(2), "{ran:?}");
    for word in [
        "system",
        "processor",
        "library    none",
        "fix:",
        "it does not work: 1 error",
    ] {
        assert!(
            ran.stdout.contains(word),
            "{word:?} is not in {}",
            ran.stdout
        );
    }
}

#[test]
fn golden_vectors_run_and_everything_is_fine() {
    if !has_library() {
        return;
    }
    let desk = Desk::new();
    let (ran, report) = json(doctor(&desk).arg("--model").arg(golden_bundle()));
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert_eq!(report["verdict"], "fine");
    let cpu = &report["facts"]["providers"][0];
    assert_eq!(cpu["provider"], "cpu");
    assert_eq!(cpu["serves"], true);
    let graphs = cpu["graphs"].as_array().unwrap();
    assert_eq!(graphs.len(), 4);
    for graph in graphs {
        let distance = graph["golden"]["relative_l2"].as_f64().unwrap();
        assert!(distance > 0.0 && distance < 5e-2, "{graph}");
        let placed = graph["placement"].as_array().unwrap();
        assert!(!placed.is_empty());
        assert!(
            placed
                .iter()
                .all(|node| node["provider"] == "CPUExecutionProvider"),
            "{graph}"
        );
    }
    let attention = graphs
        .iter()
        .find(|graph| graph["role"] == "memory_attention")
        .unwrap();
    let operators = attention["placement"].as_array().unwrap().iter();
    assert!(
        operators
            .clone()
            .any(|node| node["operator"] == "MultiHeadAttention"),
        "{attention}"
    );
    let memory = &cpu["memory"];
    assert!(memory["most_objects"].as_u64().unwrap() >= 1, "{memory}");
    assert!(
        memory["one_object_bytes"].as_u64().unwrap() > 1 << 20,
        "{memory}"
    );
    let codes: Vec<&Value> = report["findings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|f| &f["code"])
        .collect();
    assert!(codes.iter().all(|code| *code != "no-golden"), "{codes:?}");
}

#[test]
fn a_graph_that_computes_something_else_is_wrong() {
    if !has_library() {
        return;
    }
    // The fake bundle's graphs return constants; golden vectors that say otherwise expose them.
    let mut desk = Desk::new();
    let tensors: Vec<(&str, Vec<usize>, f32)> = vec![
        ("in.features_nlc", vec![1, 4, 8], 0.5),
        ("in.low_res_masks", vec![1, 8, 8], 0.5),
        ("in.mask_prompt", vec![1, 28, 28], 0.0),
        ("in.object_score", vec![1], 1.0),
        ("out.memory_nlc", vec![1, 4, 4], 1.0),
    ];
    let data: Vec<Vec<u8>> = tensors
        .iter()
        .map(|(_, shape, value)| value.to_le_bytes().repeat(shape.iter().product()))
        .collect();
    use safetensors::tensor::{Dtype, TensorView};
    let mut views: Vec<(String, TensorView<'_>)> = tensors
        .iter()
        .zip(&data)
        .map(|((name, shape, _), data)| {
            let view = TensorView::new(Dtype::F32, shape.clone(), data).unwrap();
            ((*name).to_owned(), view)
        })
        .collect();
    let no = [0_u8];
    for name in ["in.has_mask_prompt", "in.from_prompt"] {
        views.push((
            name.to_owned(),
            TensorView::new(Dtype::BOOL, vec![1], &no).unwrap(),
        ));
    }
    let file = safetensors::serialize(views, None).unwrap();
    let name = "golden/memory_encoder.safetensors";
    std::fs::write(desk.bundle.dir.join(name), &file).unwrap();
    desk.bundle.change(|manifest| {
        manifest["golden"].as_array_mut().unwrap().push(serde_json::json!({
            "file": name, "sha256": crate::fake::sha256(&file), "bytes": file.len(), "kind": "memory_encoder"
        }));
    });
    let (ran, report) = json(doctor(&desk).arg("--model").arg(&desk.bundle.dir));
    assert_eq!(ran.code, Some(2), "{ran:?}");
    let wrong = finding(&report, "golden-wrong");
    let what = wrong["what"].as_str().unwrap();
    for word in ["cpu", "memory_encoder", "memory_nlc", "1.0e0"] {
        assert!(what.contains(word), "{word:?} is not in {what}");
    }
}

#[test]
fn a_graph_that_cannot_run_and_missing_golden_vectors_are_findings() {
    if !has_library() {
        return;
    }
    let mut desk = Desk::new();
    let (ran, report) = json(doctor(&desk).arg("--model").arg(&desk.bundle.dir));
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert_eq!(finding(&report, "no-golden")["severity"], "note");

    desk.bundle
        .replace_graph("mask_decoder", b"no graph at all");
    let (ran, report) = json(doctor(&desk).arg("--model").arg(&desk.bundle.dir));
    assert_eq!(ran.code, Some(2), "{ran:?}");
    let what = finding(&report, "graph-fails")["what"].as_str().unwrap();
    assert!(what.contains("mask_decoder"), "{what}");
}

#[test]
fn a_tampered_bundle_is_reported_and_not_run() {
    let desk = Desk::new();
    let graph = desk.bundle.dir.join("mask_decoder.onnx");
    let mut bytes = std::fs::read(&graph).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&graph, bytes).unwrap();
    let (ran, report) = json(doctor(&desk).arg("--model").arg(&desk.bundle.dir));
    assert_eq!(ran.code, Some(2), "{ran:?}");
    let damaged = finding(&report, "bundle-damaged");
    assert!(
        damaged["what"]
            .as_str()
            .unwrap()
            .contains("mask_decoder.onnx"),
        "{damaged}"
    );
    assert!(
        damaged["fix"]
            .as_str()
            .unwrap()
            .contains("copy the bundle again"),
        "{damaged}"
    );
    for tried in report["facts"]["providers"].as_array().unwrap() {
        assert_eq!(tried["graphs"], serde_json::json!([]));
    }
}

#[test]
fn a_gpu_with_a_library_for_processors_is_a_finding() {
    if !has_library() {
        return;
    }
    let desk = Desk::new();
    nvidia_smi(
        &desk,
        "echo '0, Tesla V100-SXM2-32GB, 7.0, 32768, 550.54.15, 3'",
    );
    let none = ["--models", "none"];
    let (ran, report) = json(doctor(&desk).args(none));
    let gpu = &report["facts"]["gpus"][0];
    assert_eq!(gpu["compute"], serde_json::json!({"major": 7, "minor": 0}));
    if report["facts"]["library"]["cuda"].is_null() {
        assert_eq!(ran.code, Some(1), "{ran:?}");
        let fix = finding(&report, "cpu-only-library")["fix"]
            .as_str()
            .unwrap();
        for word in [
            "onnxruntime-gpu==1.26.0",
            "CUDA 12.8",
            "nvidia-cudnn-cu12<9.11",
        ] {
            assert!(fix.contains(word), "{word:?} is not in {fix}");
        }
        // Asked for, the GPU has to serve.
        let (ran, report) = json(doctor(&desk).args(none).args(["--provider", "cuda"]));
        assert_eq!(ran.code, Some(2), "{ran:?}");
        assert_eq!(finding(&report, "cpu-only-library")["severity"], "error");
        assert_eq!(report["facts"]["providers"][1]["serves"], false);
    }
}

#[test]
fn a_library_that_kills_its_process_is_a_finding() {
    let desk = Desk::new();
    let source = desk.path("crash.c");
    std::fs::write(
        &source,
        "#include <stdio.h>\n#include <stdlib.h>\n\
         const void* OrtGetApiBase(void) { puts(\"last words\"); fflush(stdout); abort(); }\n",
    )
    .unwrap();
    let library = desk.path("libcrash.so");
    let built = Command::new("cc")
        .args(["-shared", "-fPIC", "-o"])
        .arg(&library)
        .arg(&source)
        .status();
    assert!(built.unwrap().success());
    let (ran, report) = json(
        doctor(&desk)
            .args(["--models", "none", "--ort-lib"])
            .arg(&library),
    );
    assert_eq!(ran.code, Some(2), "{ran:?}");
    let what = finding(&report, "library-crashes")["what"]
        .as_str()
        .unwrap();
    for word in ["loading the library", "SIGABRT", "last words"] {
        assert!(what.contains(word), "{word:?} is not in {what}");
    }
}

#[test]
fn json_goes_to_a_file_and_text_to_stdout_and_no_file_is_replaced() {
    let desk = Desk::new();
    let run = |more: &[&str]| -> Ran {
        let mut command = doctor(&desk);
        command.args([
            "--ort-lib",
            "nowhere.so",
            "--models",
            "none",
            "--json",
            "report.json",
        ]);
        command.args(more).output().unwrap().into()
    };
    let ran = run(&[]);
    assert_eq!(ran.code, Some(2));
    assert!(ran.stdout.contains("it does not work"), "{ran:?}");
    assert_eq!(read_json(&desk.path("report.json"))["schema_version"], 1);
    run(&[]).refuses(&["report.json", "--overwrite"]);
    assert!(run(&["--overwrite"]).stdout.contains("it does not work"));
    desk.holds(&["in", "report.json", "tools"]);
}

#[test]
fn inspect_shows_a_bundle() {
    let desk = Desk::new();
    let inspect = |dir: &Path, more: &[&str]| -> Ran {
        let mut command = desk.command();
        command
            .arg("inspect")
            .arg(dir)
            .args(more)
            .output()
            .unwrap()
            .into()
    };
    let ran = inspect(&golden_bundle(), &[]);
    ran.succeeds();
    for word in [
        "112 x 112 px",
        "fp16",
        "sam2_memory_bank",
        "CC0-1.0",
        "random weights",
        "memory_0 … memory_9",
        "float16 [objects,memory_tokens_0,64]",
        "onnxruntime 1.31.1",
        "all as exported",
    ] {
        assert!(
            ran.stdout.contains(word),
            "{word:?} is not in {}",
            ran.stdout
        );
    }
    let ran = inspect(&desk.bundle.dir, &["--json"]);
    ran.succeeds();
    let seen: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(seen["schema_version"], 1);
    assert_eq!(seen["damage"], Value::Null);
    assert_eq!(seen["manifest"]["graphs"].as_array().unwrap().len(), 4);
    assert_eq!(seen["files"], 6);

    // A bundle that was changed is shown, and said to be.
    std::fs::write(desk.bundle.dir.join("vision_encoder.onnx.data"), b"weight!").unwrap();
    let ran = inspect(&desk.bundle.dir, &[]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(
        ran.stdout.contains("vision_encoder.onnx.data was changed"),
        "{ran:?}"
    );
    inspect(&desk.path("in"), &[]).refuses(&["in is not a bundle", "manifest.json"]);
}

#[test]
fn completions_and_pages_know_the_arguments() {
    let desk = Desk::new();
    for shell in ["bash", "zsh", "fish"] {
        let ran: Ran = desk
            .command()
            .args(["completions", shell])
            .output()
            .unwrap()
            .into();
        ran.succeeds();
        // fish writes an option's name without its dashes.
        for word in ["doctor", "mem-limit", "contact-sheet"] {
            assert!(ran.stdout.contains(word), "{shell}: {word}");
        }
    }
    let script: Ran = desk
        .command()
        .args(["completions", "bash"])
        .output()
        .unwrap()
        .into();
    std::fs::write(desk.path("complete"), script.stdout).unwrap();
    let read = Command::new("bash")
        .arg("-n")
        .arg(desk.path("complete"))
        .status();
    assert!(read.unwrap().success());
    let ran: Ran = desk
        .command()
        .args(["completions", "cobol"])
        .output()
        .unwrap()
        .into();
    assert_eq!(ran.code, Some(2));

    let page: Ran = desk.command().arg("man").output().unwrap().into();
    page.succeeds();
    assert!(page.stdout.contains(".TH snow-ort 1"), "{}", page.stdout);
    let ran: Ran = desk
        .command()
        .args(["man", "--out", "pages"])
        .output()
        .unwrap()
        .into();
    ran.succeeds();
    let pages = names_in(&desk.path("pages"));
    for name in ["snow-ort.1", "snow-ort-run.1", "snow-ort-doctor.1"] {
        assert!(pages.contains(&name.to_owned()), "{pages:?}");
    }
    let run = std::fs::read_to_string(desk.path("pages/snow-ort-run.1")).unwrap();
    assert!(run.contains("mem\\-limit"), "{run}");
    assert!(
        !pages.iter().any(|name| name.contains("trial")),
        "{pages:?}"
    );
}
