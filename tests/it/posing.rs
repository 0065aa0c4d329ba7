//! `snow-ort doctor` with a GPU that computes wrongly, and `ab` with a GPU, on a machine without one: ONNX Runtime's library behind a
//! table of functions in which the CUDA provider is the processor (`posing.c`).

use std::mem::{offset_of, size_of};
use std::path::{Path, PathBuf};
use std::process::Command;

use ort::sys::OrtApi;
use serde_json::{Value, json};

use crate::doctor::{doctor, finding, json as told, nvidia_smi};
use crate::fake::{Desk, FakeBundle, Ran, read_json};

/// Builds the library and an empty part for GPUs in its folder; `None` without ONNX Runtime's library.
fn posing(desk: &Desk) -> Option<(PathBuf, PathBuf)> {
    let real = match snow_ort::runtime::library::find(None) {
        Ok(library) => library.path,
        Err(error) => {
            println!("skipped: {error}");
            return None;
        }
    };
    let built = |name: &str, more: &[String]| {
        let library = desk.path(name);
        let mut command = Command::new("cc");
        command.args(["-shared", "-fPIC", "-o"]).arg(&library);
        assert!(command.args(more).status().unwrap().success());
        library
    };
    macro_rules! at {
        ($name:literal, $field:ident) => {
            format!(
                "-D{}={}",
                $name,
                offset_of!(OrtApi, $field) / size_of::<fn()>()
            )
        };
    }
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/posing.c");
    let more = [
        at!("CREATE_OPTIONS", CreateCUDAProviderOptions),
        at!("UPDATE_OPTIONS", UpdateCUDAProviderOptions),
        at!("RELEASE_OPTIONS", ReleaseCUDAProviderOptions),
        at!("APPEND", SessionOptionsAppendExecutionProvider_CUDA_V2),
        at!("MEMORY_INFO", CreateMemoryInfo),
        at!("REGISTER", CreateAndRegisterAllocator),
        at!("REGISTER_V2", CreateAndRegisterAllocatorV2),
        at!("SESSION", CreateSession),
        format!("-DENTRIES={}", size_of::<OrtApi>() / size_of::<fn()>()),
        source.display().to_string(),
        "-ldl".to_owned(),
    ];
    let library = built("libonnxruntime.so.1.26.0", &more);
    std::fs::write(desk.path("empty.c"), "").unwrap();
    let empty = desk.path("empty.c").display().to_string();
    built("libonnxruntime_providers_cuda.so", &[empty]);
    nvidia_smi(
        desk,
        "echo '0, NVIDIA H100 80GB HBM3, 9.0, 81559, 580.95.05, 3'",
    );
    Some((library, real))
}

#[test]
fn a_gpu_with_other_masks_is_an_error_and_one_with_the_same_is_fine() {
    let desk = Desk::new();
    let Some((library, real)) = posing(&desk) else {
        return;
    };
    let command = |wrong: Option<&Path>, more: &[&str]| {
        let mut command = doctor(&desk);
        command.env("POSING_AS", &real);
        if let Some(decoder) = wrong {
            command.env("POSING_DECODER", decoder);
        }
        command.arg("--ort-lib").arg(&library);
        command.arg("--model").arg(&desk.bundle.dir).args(more);
        command
    };
    let says = |ran: &Ran, code: i32, expected: &[&str]| {
        assert_eq!(ran.code, Some(code), "{ran:?}");
        for words in expected {
            assert!(
                ran.stdout.contains(words),
                "{words:?} is not in {}",
                ran.stdout
            );
        }
    };
    let ran: Ran = command(None, &[]).output().unwrap().into();
    println!("{}", ran.stdout);
    says(
        &ran,
        0,
        &[
            "same masks as the processor: mean IoU 1.0000 at once and mean IoU 1.0000 one at a time over 4 objects, 6 frames",
            "all fine",
        ],
    );

    let mut tampered = FakeBundle::new();
    tampered.narrow_masks();
    let decoder = tampered.dir.join("mask_decoder.onnx");
    let ran: Ran = command(Some(&decoder), &[]).output().unwrap().into();
    println!("{}", ran.stdout);
    says(
        &ran,
        2,
        &[
            "NOT the same masks as the processor: mean IoU 0.5000 at once",
            "error (masks-wrong): cuda (ONNX Runtime 1.26.0",
            "on NVIDIA H100 80GB HBM3: the masks of a drawn clip differ from the processor's (expected a mean IoU of at least 0.98 \
             for each object in fp32)",
            "fix: use --provider cpu, until ONNX Runtime 1.26.0 is replaced by another version: install onnxruntime-gpu 1.31.1",
            "it does not work: 1 error",
        ],
    );
    let (ran, report) = told(&mut command(Some(&decoder), &["--compare"]));
    assert_eq!(ran.code, Some(2), "{ran:?}");
    assert_eq!(finding(&report, "masks-wrong")["severity"], "error");
    let masks = &report["facts"]["providers"][1]["masks"];
    assert_eq!(masks["limit"], json!({"iou_at_least": 0.98}));
    for way in ["together", "alone"] {
        assert_eq!(masks[way].as_array().unwrap().len(), 4, "{masks}");
        assert_eq!(masks[way][3]["object"], 4);
        assert_eq!(masks[way][3]["mean_iou"], 0.5);
    }

    // Without the comparison there is no finding.
    let ran: Ran = command(Some(&decoder), &["--no-compare"])
        .output()
        .unwrap()
        .into();
    says(&ran, 0, &["all fine"]);
    assert!(!ran.stdout.contains("masks  "), "{}", ran.stdout);
}

#[test]
fn memory_on_a_gpu_is_in_the_table_on_the_page_and_in_the_report() {
    let desk = Desk::new();
    let Some((library, real)) = posing(&desk) else {
        return;
    };
    // The process that asks is the one whose memory it is.
    let script = "case \"$*\" in *query-compute-apps=pid,used_memory*) echo \"1, 7\"; echo \"$PPID, 300\";; esac";
    nvidia_smi(&desk, script);
    let dir = desk.bundle.dir.display();
    let options = format!("provider=cuda,ort-lib={}", library.display());
    let mut command = desk.command();
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{}:{path}", desk.path("tools").display()));
    command
        .env("POSING_AS", &real)
        .args(["ab", "in", "--out", "r"]);
    command.args(["--box", "1,1,9,9", "--warm", "1", "--rounds", "2"]);
    command.args(["--require", "gpu.device<=300MiB gpu.iou>=1"]);
    command.arg(format!("--variant=cpu={dir}"));
    command.arg(format!("--variant=gpu={dir},{options}"));
    let ran: Ran = command.output().unwrap().into();
    ran.succeeds();
    for words in [
        "device",
        "300 MiB",
        "gpu.device<=300MiB: met, found 300 MiB",
    ] {
        assert!(ran.stdout.contains(words), "{words}: {ran:?}");
    }
    let report = read_json(&desk.path("r/report.json"));
    let of = |place: usize| &report["variants"][place]["timing"]["device_bytes"];
    assert_eq!((of(0), of(1)), (&Value::Null, &json!(300 << 20)));
    assert_eq!(report["variants"][1]["provider"], "cuda");
    let page = std::fs::read_to_string(desk.path("r/index.html")).unwrap();
    assert!(page.contains("<h3>Memory on the GPU</h3>") && page.contains("300 MiB"));
}
