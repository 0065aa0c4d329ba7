//! Where the ONNX Runtime library comes from, and libraries and graphs that cannot serve.

use std::path::{Path, PathBuf};
use std::process::Command;

use snow_ort::bundle::{Bundle, Role};
use snow_ort::runtime::{Backend as _, Engine, EngineOptions, GraphError, Provider};

use crate::fake::{Desk, Ran, graph};

const BOX: [&str; 2] = ["--box", "5,5,20,20"];

/// The library that the tests themselves use, or `None` (then a test says that it was skipped).
fn real_library() -> Option<PathBuf> {
    let options = snow_ort::runtime::EngineOptions::default();
    let found = snow_ort::runtime::library::find(options.library.as_deref());
    match found {
        Ok(library) => Some(library.path),
        Err(error) => {
            println!("skipped: {error}");
            None
        }
    }
}

/// The program copied to a folder that has no `.venv` above it, as an installed one would be.
fn installed(desk: &Desk) -> Command {
    let folder = desk.path("bin");
    std::fs::create_dir_all(&folder).unwrap();
    let program = folder.join("snow-ort");
    if !program.exists() {
        // Not a copy, if that is possible: a process that another test starts meanwhile holds it open for writing, and
        // what is written to cannot be run.
        let built = env!("CARGO_BIN_EXE_snow-ort");
        if std::fs::hard_link(built, &program).is_err() {
            std::fs::copy(built, &program).unwrap();
        }
    }
    let mut command = Command::new(program);
    command
        .current_dir(desk.path(""))
        .env_remove("ORT_DYLIB_PATH")
        .env_remove("SNOW_ORT_MODELS");
    command.args([
        "run",
        "in",
        BOX[0],
        BOX[1],
        "--out",
        "out",
        "--overwrite",
        "--model",
    ]);
    command.arg(&desk.bundle.dir);
    command
}

fn ran(command: &mut Command) -> Ran {
    command.output().unwrap().into()
}

fn used(desk: &Desk) -> PathBuf {
    let run: serde_json::Value =
        serde_json::from_slice(&std::fs::read(desk.path("out/run.json")).unwrap()).unwrap();
    Path::new(run["runtime"]["library"].as_str().unwrap())
        .canonicalize()
        .unwrap()
}

/// A shared library whose only function states a version.
fn old_library(desk: &Desk) -> PathBuf {
    let source = desk.path("old.c");
    std::fs::write(
        &source,
        "static const char* version(void) { return \"1.20.1\"; }\n\
         static const void* api(unsigned v) { (void)v; return 0; }\n\
         static const struct { const void* (*api)(unsigned); const char* (*version)(void); } base = { api, version };\n\
         const void* OrtGetApiBase(void) { return &base; }\n",
    )
    .unwrap();
    let library = desk.path("libold.so");
    let status = Command::new("cc")
        .args(["-shared", "-fPIC", "-o"])
        .arg(&library)
        .arg(&source)
        .status()
        .unwrap();
    assert!(status.success());
    library
}

#[test]
fn the_flag_wins_over_the_variable_over_the_executables_folder_over_the_venv() {
    let Some(library) = real_library() else {
        return;
    };
    let desk = Desk::new();
    let place = |folder: &str, name: &str| {
        std::fs::create_dir_all(desk.path(folder)).unwrap();
        let copy = desk.path(folder).join(name);
        std::fs::copy(&library, &copy).unwrap();
        copy.canonicalize().unwrap()
    };
    let refused = ran(&mut installed(&desk));
    assert_eq!(refused.code, Some(2));
    for place in [
        "looked for",
        "--ort-lib",
        "ORT_DYLIB_PATH",
        "next to the executable",
        ".venv",
    ] {
        assert!(
            refused.stderr.contains(place),
            "{place} is not in {}",
            refused.stderr
        );
    }

    let in_venv = place(
        ".venv/lib/python3.11/site-packages/onnxruntime/capi",
        "libonnxruntime.so.1.31.1",
    );
    ran(&mut installed(&desk)).succeeds();
    assert_eq!(used(&desk), in_venv);

    let beside = place("bin", "libonnxruntime.so");
    ran(&mut installed(&desk)).succeeds();
    assert_eq!(used(&desk), beside);

    let variable = place("variable", "libonnxruntime.so");
    ran(installed(&desk).env("ORT_DYLIB_PATH", &variable)).succeeds();
    assert_eq!(used(&desk), variable);

    let flag = place("flag", "libonnxruntime.so.1");
    let mut command = installed(&desk);
    ran(command
        .env("ORT_DYLIB_PATH", &variable)
        .arg("--ort-lib")
        .arg("flag"))
    .succeeds();
    assert_eq!(used(&desk), flag);

    let absent = desk.path("absent.so");
    ran(installed(&desk).env("ORT_DYLIB_PATH", &absent)).refuses(&["absent.so", "ORT_DYLIB_PATH"]);
}

#[test]
fn a_library_that_is_too_old_says_which_is_needed() {
    let desk = Desk::new();
    let library = old_library(&desk);
    let mut command = desk.run_command(&["in", BOX[0], BOX[1], "--out", "out"]);
    ran(command.arg("--ort-lib").arg(library)).refuses(&[
        "libold.so",
        "1.20.1",
        "1.24",
        "--ort-lib",
    ]);
    desk.holds(&["in", "libold.so", "old.c"]);
}

#[test]
fn a_truncated_library_is_an_error_and_no_crash() {
    let desk = Desk::new();
    let whole = std::fs::read(old_library(&desk)).unwrap();
    std::fs::write(desk.path("short.so"), &whole[..whole.len() - 64]).unwrap();
    let mut command = desk.run_command(&["in", BOX[0], BOX[1], "--out", "out"]);
    ran(command.args(["--ort-lib", "short.so"])).refuses(&["short.so", "truncated"]);
}

#[test]
fn a_graph_file_that_the_manifest_describes_wrongly_is_named() {
    if real_library().is_none() {
        return;
    }
    let mut desk = Desk::new();
    let decoder = std::fs::read(desk.bundle.dir.join("mask_decoder.onnx")).unwrap();
    desk.bundle.replace_graph("memory_encoder", &decoder);
    desk.run(&["in", BOX[0], BOX[1], "--out", "out"]).refuses(&[
        "memory_encoder.onnx",
        "features_nlc",
        "manifest",
    ]);
    desk.holds(&["in"]);
    assert_eq!(
        graph(&mut desk.bundle.manifest, "memory_encoder")["role"],
        "memory_encoder"
    );
}

/// Runs an ignored test of this file in another process: engines of tests beside it would be in its way.
fn in_own_process(name: &str) {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--ignored", "--nocapture", name])
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn an_engine_can_follow_one_that_was_dropped() {
    in_own_process("library::engines_one_after_the_other");
}

#[test]
#[ignore = "needs a process without other engines"]
fn engines_one_after_the_other() {
    if real_library().is_none() {
        return;
    }
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/snow-random-112-fp16");
    let path = Bundle::open(&dir)
        .unwrap()
        .graph_path(Role::MaskDecoder)
        .unwrap();
    let engine = |mem_limit, provider| {
        Engine::load(&EngineOptions {
            provider,
            mem_limit,
            ..EngineOptions::default()
        })
        .unwrap()
    };
    let load = |engine: &Engine| engine.load("mask_decoder", &path);
    let limit = |engine: &Engine| engine.arena_stats().unwrap().map(|stats| stats.limit);

    let first = engine(Some(256 << 20), Provider::Cpu);
    assert_eq!(limit(&first), None, "no arena before the first graph");
    let graph = load(&first).unwrap();
    assert_eq!(limit(&first), Some(Some(256 << 20)));
    // What is asked for alike is shared, and clones share in any case.
    let alike = engine(Some(256 << 20), Provider::Cpu);
    let beside = load(&alike).unwrap();
    let clone = first.clone();
    assert_eq!(first.arena_stats().unwrap(), alike.arena_stats().unwrap());
    assert_eq!(first.arena_stats().unwrap(), clone.arena_stats().unwrap());

    let other = engine(Some(64 << 20), Provider::Cpu);
    match load(&other).err() {
        Some(GraphError::OtherArena {
            device,
            limit,
            requested_device,
            requested_limit,
        }) => {
            assert_eq!((device.as_str(), requested_device.as_str()), ("cpu", "cpu"));
            assert_eq!((limit, requested_limit), (Some(256 << 20), Some(64 << 20)));
        }
        unexpected => panic!("{unexpected:?}"),
    }
    let gpu = engine(Some(256 << 20), Provider::Cuda);
    assert!(matches!(
        load(&gpu).err(),
        Some(GraphError::OtherArena { requested_device, .. }) if requested_device == "cuda:0"
    ));
    let threads = EngineOptions {
        threads: Some(first.threads() + 1),
        ..EngineOptions::default()
    };
    match Engine::load(&threads).err() {
        Some(GraphError::OtherEnvironment {
            loaded,
            loaded_threads,
            requested,
            requested_threads,
        }) => {
            assert_eq!(loaded, requested);
            assert_eq!((loaded_threads, requested_threads), (None, threads.threads));
        }
        unexpected => panic!("{unexpected:?}"),
    }

    // A graph alone holds the arena.
    drop((first, alike, clone, beside));
    assert!(matches!(
        load(&other).err(),
        Some(GraphError::OtherArena { .. })
    ));
    drop(graph);
    let next = load(&other).unwrap();
    assert_eq!(limit(&other), Some(Some(64 << 20)));
    drop((other, next));
    // Another device: with a library for the CPU it is the provider that says no.
    let Some(refused) = load(&gpu).err() else {
        return;
    };
    assert!(
        matches!(refused, GraphError::Provider { .. }),
        "{refused:?}"
    );
    let unlimited = engine(None, Provider::Cpu);
    load(&unlimited).unwrap();
    assert_eq!(limit(&unlimited), Some(None));
}
