//! The findings of `snow-ort doctor` for the facts of many machines. No machine is needed.

use std::path::PathBuf;

use snow_ort::doctor::facts::{
    AttentionKernel, BundleFacts, Compute, CudaFacts, Driver, Facts, Failure, FailureKind,
    GoldenFacts, Gpu, GraphFacts, Host, LibraryFacts, MemoryFacts, Needed, Placement,
    ProviderFacts,
};
use snow_ort::doctor::packages::{LATER, OLDER};
use snow_ort::doctor::{Finding, Report, Severity, Verdict};

fn compute(major: u32, minor: u32) -> Compute {
    Compute { major, minor }
}

/// Linux without a GPU, a library for processors, no bundle: nothing is wrong.
fn plain() -> Facts {
    Facts {
        host: Host {
            architecture: "x86_64".to_owned(),
            glibc: Some("2.36".to_owned()),
            cores: 2,
            features: vec!["avx2".to_owned()],
            memory_bytes: Some(16 << 30),
            available_bytes: Some(12 << 30),
            ..Host::default()
        },
        driver: Driver {
            pci_devices: Some(0),
            smi_failure: Some("there is no nvidia-smi".to_owned()),
            libcuda: None,
        },
        library: LibraryFacts {
            path: Some(PathBuf::from("/lib/libonnxruntime.so.1.31.1")),
            origin: Some("--ort-lib".to_owned()),
            version: Some("1.31.1".to_owned()),
            needs_glibc: Some("2.28".to_owned()),
            ..LibraryFacts::default()
        },
        providers: vec![serving("cpu")],
        ..Facts::default()
    }
}

fn serving(provider: &str) -> ProviderFacts {
    ProviderFacts {
        provider: provider.to_owned(),
        serves: true,
        ..ProviderFacts::default()
    }
}

fn failing(provider: &str, kind: FailureKind, reason: &str) -> ProviderFacts {
    ProviderFacts {
        provider: provider.to_owned(),
        failure: Some(Failure {
            during: "making a session".to_owned(),
            kind,
            reason: reason.to_owned(),
        }),
        ..ProviderFacts::default()
    }
}

/// Version and GPU part of a wheel, with all libraries that it needs.
fn wheel(version: &str) -> (String, CudaFacts) {
    let (major, kernels, cudnn) = match version {
        "1.26.0" => (
            12,
            [(6, 0), (7, 0), (7, 5), (8, 0), (8, 6), (9, 0)],
            "9.10.2.21",
        ),
        _ => (
            13,
            [(7, 5), (8, 0), (8, 6), (8, 9), (9, 0), (12, 0)],
            "9.28.1.4",
        ),
    };
    let names = [
        format!("libcudart.so.{major}"),
        format!("libcublas.so.{major}"),
        "libcudnn.so.9".to_owned(),
    ];
    let cuda = CudaFacts {
        path: PathBuf::from("/lib/libonnxruntime_providers_cuda.so"),
        cuda_major: Some(major),
        kernels: kernels.map(|(a, b)| compute(a, b)).to_vec(),
        portable: Vec::new(),
        needs: names
            .into_iter()
            .map(|name| Needed {
                found: Some(PathBuf::from("/cuda").join(&name)),
                name,
                elsewhere: None,
            })
            .collect(),
        cudnn: Some(cudnn.to_owned()),
    };
    (version.to_owned(), cuda)
}

/// A GPU with a recent driver and this wheel; CUDA works.
pub fn with_gpu(name: &str, (major, minor): (u32, u32), version: &str) -> Facts {
    let mut facts = plain();
    facts.driver = Driver {
        pci_devices: Some(1),
        smi_failure: None,
        libcuda: Some(PathBuf::from("/lib/libcuda.so.1")),
    };
    facts.gpus = vec![Gpu {
        index: 0,
        name: name.to_owned(),
        compute: compute(major, minor),
        memory_bytes: 32 << 30,
        used_bytes: Some(0),
        driver: "580.95".to_owned(),
    }];
    let (version, cuda) = wheel(version);
    facts.library.version = Some(version);
    facts.library.cuda = Some(cuda);
    facts.providers.push(serving("cuda"));
    facts
}

fn v100(version: &str) -> Facts {
    let mut facts = with_gpu("Tesla V100-SXM2-32GB", (7, 0), version);
    if version != "1.26.0" {
        let why = "no kernel image is available for execution on the device";
        facts.providers[1] = failing("cuda", FailureKind::Error, why);
    }
    facts
}

pub fn bundle(precision: &str) -> BundleFacts {
    BundleFacts {
        dir: PathBuf::from("models/m"),
        precision: Some(precision.to_owned()),
        resolution: Some(672),
        files: 9,
        golden_graphs: 4,
        ..BundleFacts::default()
    }
}

pub fn judged(facts: Facts) -> Report {
    let report = Report::new(facts);
    for finding in &report.findings {
        assert!(!finding.what.trim().is_empty(), "{finding:?}");
        assert!(!finding.fix.trim().is_empty(), "{finding:?}");
    }
    report
}

/// The only finding above a note. Its code must be `code`.
#[track_caller]
pub fn only(facts: Facts, severity: Severity, code: &str) -> Finding {
    let report = judged(facts);
    let matter: Vec<&Finding> = report
        .findings
        .iter()
        .filter(|finding| finding.severity > Severity::Note)
        .collect();
    let [finding] = matter.as_slice() else {
        panic!("expected {code} alone, got {matter:#?}");
    };
    assert_eq!((finding.code.as_str(), finding.severity), (code, severity));
    let verdict = match severity {
        Severity::Error => Verdict::Fails,
        Severity::Warning => Verdict::Findings,
        Severity::Note => Verdict::Fine,
    };
    assert_eq!(report.verdict, verdict);
    (*finding).clone()
}

#[track_caller]
pub fn names(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "{word:?} is not in {text:?}");
    }
}

#[test]
fn machines_that_work_are_fine() {
    for facts in [
        plain(),
        v100("1.26.0"),
        with_gpu("Tesla T4", (7, 5), "1.31.1"),
        with_gpu("NVIDIA H100", (9, 0), "1.31.1"),
    ] {
        let report = judged(facts);
        assert_eq!(report.verdict, Verdict::Fine, "{:#?}", report.findings);
    }
}

#[test]
fn the_fix_for_a_v100_names_exact_packages() {
    let exact = ["1.26.0", "CUDA 12.8", "nvidia-cudnn-cu12<9.11", "--cuda 12"];
    let found = only(v100("1.31.1"), Severity::Warning, "no-kernels");
    names(&found.what, &["V100", "sm_70", "1.31.1", "sm_75"]);
    names(&found.fix, &exact);

    // The file does not list its kernels; the version shows them.
    let mut silent = v100("1.27.0");
    silent.library.cuda.as_mut().unwrap().kernels.clear();
    let found = only(silent, Severity::Warning, "no-kernels");
    names(&found.fix, &exact);

    // If the user requires the GPU, it is an error.
    let mut asked = v100("1.31.1");
    asked.required = Some("cuda".to_owned());
    only(asked, Severity::Error, "no-kernels");

    // If the user requires the processor, nothing is wrong.
    let mut not_wanted = v100("1.31.1");
    not_wanted.required = Some("cpu".to_owned());
    not_wanted.providers.pop();
    assert_eq!(judged(not_wanted).verdict, Verdict::Fine);

    // The right wheel with a cuDNN that is too new.
    let mut new_cudnn = v100("1.26.0");
    new_cudnn.library.cuda.as_mut().unwrap().cudnn = Some("9.11.0.98".to_owned());
    new_cudnn.providers[1] = failing("cuda", FailureKind::Error, "CUDNN_STATUS_ARCH_MISMATCH");
    let found = only(new_cudnn, Severity::Warning, "cudnn-too-new");
    names(&found.what, &["9.11.0.98", "sm_70"]);
    names(&found.fix, &exact[..3]);

    // A library for processors: the fix names the same packages, not the newest.
    let mut idle = v100("1.26.0");
    idle.library.cuda = None;
    idle.providers.pop();
    let found = only(idle, Severity::Warning, "cpu-only-library");
    names(&found.what, &["V100", "idle"]);
    names(&found.fix, &exact);

    // No library: the same.
    let mut none = v100("1.26.0");
    none.library = LibraryFacts {
        missing: Some(
            "no ONNX Runtime library found; looked for:\n  - here\ninstall one".to_owned(),
        ),
        ..LibraryFacts::default()
    };
    none.providers.clear();
    let found = only(none, Severity::Error, "library-missing");
    names(&found.what, &["looked for", "- here"]);
    names(&found.fix, &exact);
}

#[test]
fn the_fix_for_another_gpu_names_its_packages() {
    let mut t4 = with_gpu("Tesla T4", (7, 5), "1.31.1");
    t4.library.cuda = None;
    t4.providers.pop();
    let found = only(t4, Severity::Warning, "cpu-only-library");
    names(&found.fix, &["onnxruntime-gpu==1.31.1", "--cuda 13"]);

    let mut maxwell = with_gpu("GeForce GTX 980", (5, 2), "1.26.0");
    maxwell.providers[1] = failing("cuda", FailureKind::Error, "no kernel image");
    let found = only(maxwell, Severity::Warning, "no-kernels");
    names(&found.fix, &["--provider cpu", "built"]);
}

#[test]
fn a_driver_that_is_missing_or_old_is_named() {
    let mut none = with_gpu("NVIDIA H100", (9, 0), "1.31.1");
    none.gpus.clear();
    none.driver.libcuda = None;
    none.driver.smi_failure = Some("there is no nvidia-smi".to_owned());
    none.providers.pop();
    let found = only(none.clone(), Severity::Warning, "no-driver");
    names(&found.what, &["PCI bus", "no nvidia-smi", "libcuda.so.1"]);
    names(&found.fix, &["580", "--gpus all"]);

    // Without an NVIDIA device, a library for GPUs is only a note, unless the user requires a GPU.
    none.driver.pci_devices = Some(0);
    let report = judged(none.clone());
    assert_eq!(report.verdict, Verdict::Fine);
    assert!(
        report
            .findings
            .iter()
            .any(|finding| finding.code == "no-gpu")
    );
    none.required = Some("cuda".to_owned());
    none.providers.push(failing(
        "cuda",
        FailureKind::Error,
        "libcuda.so.1: cannot open",
    ));
    only(none, Severity::Error, "no-driver");

    let mut old = with_gpu("NVIDIA A100", (8, 0), "1.31.1");
    old.gpus[0].driver = "550.54.15".to_owned();
    old.providers[1] = failing("cuda", FailureKind::Error, "driver version is insufficient");
    let found = only(old, Severity::Warning, "driver-too-old");
    names(&found.what, &["550.54.15", "CUDA 13", "580"]);
    names(&found.fix, &["580", "onnxruntime-gpu 1.26.0"]);
}

#[test]
fn missing_libraries_are_named_with_their_packages() {
    let mut facts = with_gpu("NVIDIA H100", (9, 0), "1.31.1");
    facts.providers[1] = failing("cuda", FailureKind::Error, "libcudnn.so.9: cannot open");
    let cuda = facts.library.cuda.as_mut().unwrap();
    cuda.needs[2].found = None;
    let found = only(facts.clone(), Severity::Warning, "libraries-missing");
    names(
        &found.what,
        &["libcudnn.so.9", "libonnxruntime_providers_cuda.so"],
    );
    names(&found.fix, &["nvidia-cudnn-cu13", "--cuda 13"]);

    // Installed by pip in a folder that the loader does not search.
    let cuda = facts.library.cuda.as_mut().unwrap();
    cuda.needs[2].elsewhere = Some(PathBuf::from("/v/nvidia/cudnn/lib/libcudnn.so.9"));
    let found = only(facts.clone(), Severity::Warning, "libraries-off-path");
    names(&found.fix, &["export LD_LIBRARY_PATH=/v/nvidia/cudnn/lib"]);

    // If the provider works, problems of files do not matter.
    facts.providers[1] = serving("cuda");
    assert_eq!(judged(facts).verdict, Verdict::Fine);
}

#[test]
fn an_unknown_failure_of_cuda_shows_the_librarys_reason() {
    let mut facts = with_gpu("NVIDIA H100", (9, 0), "1.31.1");
    facts.providers[1] = failing(
        "cuda",
        FailureKind::Crash,
        "the process was ended by SIGSEGV",
    );
    let found = only(facts.clone(), Severity::Warning, "cuda-fails");
    names(&found.what, &["making a session", "SIGSEGV"]);
    facts.device_id = 3;
    let found = only(facts, Severity::Warning, "no-such-gpu");
    names(&found.what, &["--device-id 3"]);
}

#[test]
fn libraries_that_do_not_work_have_different_codes() {
    let cases = [
        (
            FailureKind::TooOld,
            "is version 1.20.1, expected 1.24 or later",
            "library-too-old",
        ),
        (
            FailureKind::Error,
            "cannot be loaded: it is truncated",
            "library-broken",
        ),
        (
            FailureKind::Crash,
            "the process was ended by SIGILL",
            "library-crashes",
        ),
    ];
    for (kind, reason, code) in cases {
        let mut facts = plain();
        facts.providers = vec![failing("cpu", kind, reason)];
        let found = only(facts, Severity::Error, code);
        names(&found.what, &[reason]);
        names(&found.fix, &["pip install onnxruntime", "1.24"]);
    }
    let mut facts = plain();
    facts.host.glibc = Some("2.17".to_owned());
    facts.providers = vec![failing(
        "cpu",
        FailureKind::Error,
        "version `GLIBC_2.28' not found",
    )];
    let found = only(facts, Severity::Error, "glibc-too-old");
    names(&found.what, &["2.28", "2.17"]);
    // 2.9 comes before 2.28 as a version, though not as text.
    let mut facts = plain();
    facts.host.glibc = Some("2.9".to_owned());
    only(facts, Severity::Error, "glibc-too-old");

    let mut facts = plain();
    facts.host.features.clear();
    only(facts, Severity::Warning, "no-avx2");
}

#[test]
fn a_bundle_that_is_damaged_is_an_error_with_its_remedy() {
    let mut facts = plain();
    facts.bundle = Some(BundleFacts {
        failure: Some(
            "m/mask_decoder.onnx is 3 bytes long, expected 9 (it is truncated); copy the bundle again".to_owned(),
        ),
        ..bundle("fp32")
    });
    let found = only(facts, Severity::Error, "bundle-damaged");
    names(&found.what, &["truncated"]);
    assert_eq!(found.fix, "copy the bundle again");
}

#[test]
fn golden_vectors_are_judged_by_the_ladder_of_their_precision() {
    let cases = [
        ("fp32", Some(9e-3), None),
        (
            "fp32",
            Some(2e-2),
            Some((Severity::Warning, "golden-doubtful")),
        ),
        ("fp32", Some(6e-2), Some((Severity::Error, "golden-wrong"))),
        ("fp16", Some(4e-2), None),
        (
            "fp16",
            Some(1e-1),
            Some((Severity::Warning, "golden-doubtful")),
        ),
        ("fp16", Some(3e-1), Some((Severity::Error, "golden-wrong"))),
        ("int8", Some(9e-2), None),
        (
            "int8",
            Some(2e-1),
            Some((Severity::Warning, "golden-doubtful")),
        ),
        ("int8", Some(4e-1), Some((Severity::Error, "golden-wrong"))),
        ("fp16", None, Some((Severity::Error, "golden-wrong"))),
    ];
    for (precision, relative_l2, expected) in cases {
        // On a GPU: a provider may fail, but must not compute wrong values.
        let mut facts = with_gpu("NVIDIA H100", (9, 0), "1.31.1");
        facts.bundle = Some(bundle(precision));
        facts.providers[1].graphs = vec![GraphFacts {
            role: "mask_decoder".to_owned(),
            golden: Some(GoldenFacts {
                output: "low_res_masks".to_owned(),
                relative_l2,
            }),
            ..GraphFacts::default()
        }];
        match expected {
            None => assert_eq!(
                judged(facts).verdict,
                Verdict::Fine,
                "{precision} {relative_l2:?}"
            ),
            Some((severity, code)) => {
                let found = only(facts, severity, code);
                names(&found.what, &["cuda", "mask_decoder", "low_res_masks"]);
            }
        }
    }
}

#[test]
fn nodes_and_kernels_in_the_wrong_place_are_found() {
    let graph = |placement: Vec<Placement>, kernel: &str| GraphFacts {
        role: "memory_attention".to_owned(),
        placement,
        attention: vec![AttentionKernel {
            operator: "MultiHeadAttention".to_owned(),
            dtype: "fp16".to_owned(),
            kernel: kernel.to_owned(),
            nodes: 8,
        }],
        ..GraphFacts::default()
    };
    let placed = |provider: &str, operator: &str| Placement {
        provider: provider.to_owned(),
        operator: operator.to_owned(),
        nodes: 4,
    };
    let facts = |precision: &str, graph: GraphFacts| {
        let mut facts = with_gpu("NVIDIA H100", (9, 0), "1.31.1");
        facts.bundle = Some(bundle(precision));
        facts.providers[1].graphs = vec![graph];
        facts
    };
    // Shapes are computed on the processor, which takes no time.
    let (cpu, cuda) = ("CPUExecutionProvider", "CUDAExecutionProvider");
    let good = vec![placed(cpu, "Gather"), placed(cuda, "MatMul")];
    let report = judged(facts("fp16", graph(good, "FLASH_ATTENTION")));
    assert_eq!(report.verdict, Verdict::Fine, "{:#?}", report.findings);

    let left = vec![placed(cpu, "DynamicQuantizeMatMul")];
    let found = only(
        facts("int8", graph(left, "FLASH_ATTENTION")),
        Severity::Warning,
        "nodes-on-processor",
    );
    names(&found.what, &["4 DynamicQuantizeMatMul"]);
    names(&found.fix, &["fp16"]);

    let found = only(
        facts("fp16", graph(Vec::new(), "MATH")),
        Severity::Warning,
        "attention-unfused",
    );
    names(
        &found.what,
        &["memory_attention", "8 MultiHeadAttention", "MATH"],
    );
}

#[test]
fn a_crash_and_little_memory_are_found() {
    let with_memory = |objects: usize, most_objects: usize| {
        let mut facts = plain();
        facts.bundle = Some(bundle("fp32"));
        facts.providers[0].memory = Some(MemoryFacts {
            budget_bytes: 1 << 30,
            one_object_bytes: 2 << 30,
            objects,
            total_bytes: 3 << 30,
            most_objects,
        });
        facts
    };
    assert_eq!(judged(with_memory(2, 2)).verdict, Verdict::Fine);
    let found = only(with_memory(1, 0), Severity::Error, "memory-too-small");
    names(&found.what, &["one object", "2.00 GiB", "1.00 GiB"]);
    let found = only(with_memory(9, 4), Severity::Warning, "memory-too-small");
    names(&found.what, &["9 objects", "3.00 GiB"]);
    names(&found.fix, &["4 at once"]);

    let mut crashed = with_memory(1, 1);
    crashed.providers[0].failure = Some(Failure {
        during: "running graph mask_decoder".to_owned(),
        kind: FailureKind::Crash,
        reason: "the process was ended by SIGSEGV".to_owned(),
    });
    let found = only(crashed, Severity::Error, "provider-crashed");
    names(&found.what, &["cpu", "mask_decoder", "SIGSEGV"]);
}

/// The packages in the fixes are those that `scripts/setup --cuda` installs.
#[test]
fn the_scripts_install_what_the_fixes_name() {
    for wheel in [LATER, OLDER] {
        let path = format!(
            "{}/scripts/cuda-{}.txt",
            env!("CARGO_MANIFEST_DIR"),
            wheel.setup
        );
        let text = std::fs::read_to_string(&path).unwrap();
        let listed: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        let mut named = vec![format!("onnxruntime-gpu=={}", wheel.version)];
        named.extend(wheel.with.iter().map(|&name| name.to_owned()));
        assert_eq!(listed, named, "{path}");
    }
}
