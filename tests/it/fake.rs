//! A fake bundle that runs in ONNX Runtime (its masks are always the frame's left half), small inputs, and the
//! real program.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use snow_ort::media::index_png::write_index_png;

use crate::onnx::Graph;

pub const GRID: u64 = 2;
pub const TOKENS: u64 = GRID * GRID;
pub const CHANNELS: u64 = 8;
const MEMORY: u64 = 4;
const POINTER_TOKENS: u64 = 2;
/// Side of the fake mask logits.
pub const LOW: u64 = 4 * GRID;

/// What a graph is like.
#[derive(Clone, Copy, PartialEq)]
pub enum Kind {
    Usual,
    /// It loads but cannot run.
    Broken,
    /// Its masks are the frame's left quarter.
    Narrow,
}

/// A bundle on disk, in a folder that is removed with it.
pub struct FakeBundle {
    _root: tempfile::TempDir,
    pub dir: PathBuf,
    pub manifest: Value,
}

impl FakeBundle {
    /// Writes the bundle.
    pub fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("fake");
        let manifest = write_bundle(&dir, 28);
        Self {
            _root: root,
            dir,
            manifest,
        }
    }

    /// Puts other content in a graph's file, with the manifest to match.
    pub fn replace_graph(&mut self, role: &str, content: &[u8]) {
        std::fs::write(self.dir.join(format!("{role}.onnx")), content).unwrap();
        self.change(|m| {
            let graph = graph(m, role);
            graph["bytes"] = json!(content.len());
            graph["sha256"] = json!(sha256(content));
        });
    }

    /// Makes a graph one that loads but cannot run.
    pub fn break_graph(&mut self, role: &str) {
        let spec = graph(&mut self.manifest, role);
        let content = onnx_file(role, &spec["inputs"], &spec["outputs"], Kind::Broken);
        self.replace_graph(role, &content);
    }

    /// Has its masks cover the frame's left quarter instead of the left half.
    pub fn narrow_masks(&mut self) {
        let spec = graph(&mut self.manifest, "mask_decoder");
        let content = onnx_file(
            "mask_decoder",
            &spec["inputs"],
            &spec["outputs"],
            Kind::Narrow,
        );
        self.replace_graph("mask_decoder", &content);
    }

    /// Writes the manifest again after a change.
    pub fn change(&mut self, change: impl FnOnce(&mut Value)) {
        change(&mut self.manifest);
        save(&self.dir, &self.manifest);
    }
}

/// The manifest's graph of a role.
pub fn graph<'a>(manifest: &'a mut Value, role: &str) -> &'a mut Value {
    let graphs = manifest["graphs"].as_array_mut().unwrap();
    graphs.iter_mut().find(|g| g["role"] == role).unwrap()
}

/// The manifest's input or output of a graph.
pub fn tensor<'a>(manifest: &'a mut Value, role: &str, side: &str, name: &str) -> &'a mut Value {
    let tensors = graph(manifest, role)[side].as_array_mut().unwrap();
    tensors.iter_mut().find(|t| t["name"] == name).unwrap()
}

/// Writes a fake bundle to `dir` and returns its manifest.
pub fn write_bundle(dir: &Path, resolution: u64) -> Value {
    std::fs::create_dir_all(dir).unwrap();
    let mut graphs = Vec::new();
    for (role, inputs, outputs) in interface(resolution) {
        let file = format!("{role}.onnx");
        let content = onnx_file(role, &inputs, &outputs, Kind::Usual);
        std::fs::write(dir.join(&file), &content).unwrap();
        graphs.push(json!({
            "role": role, "file": file, "sha256": sha256(&content), "bytes": content.len(), "data": null,
            "inputs": inputs, "outputs": outputs
        }));
    }
    // External data, as big graphs have it; the fake graph does not refer to it.
    std::fs::write(dir.join("vision_encoder.onnx.data"), b"weights").unwrap();
    graphs[0]["data"] = json!({
        "file": "vision_encoder.onnx.data", "sha256": sha256(b"weights"), "bytes": 7
    });
    std::fs::create_dir_all(dir.join("golden")).unwrap();
    std::fs::write(dir.join("golden/rollout.safetensors"), b"golden").unwrap();
    let manifest = json!({
        "schema_version": 1, "name": "fake", "family": "sam3_tracker_video", "resolution": resolution, "grid": GRID,
        "precision": "fp32",
        "preprocess": {
            "filter": "bilinear", "antialias": true, "rounding": "uint8", "layout": "nhwc", "channels": "rgb",
            "scale": 1.0 / 255.0, "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "in_graph": true
        },
        "graphs": graphs,
        "policy": {
            "name": "sam2_memory_bank", "num_maskmem": 2, "max_cond_frames": 1, "max_object_pointers": 2,
            "pointer_tokens": POINTER_TOKENS, "multimask_output_in_sam": true, "multimask_output_for_tracking": true,
            "multimask_min_points": 0, "multimask_max_points": 1
        },
        "masks": {
            "low_res": LOW, "prompt_size": resolution, "prompt_threshold": 0.5, "threshold": 0.0,
            "no_object_logit": -1024.0
        },
        "memory": {"tokens": TOKENS, "channels": MEMORY, "dtype": "float32", "rounding": "float32"},
        "source": {
            "id": "some/checkpoint", "model_type": "sam3_tracker_video", "sha256": "00", "licence": "CC0-1.0",
            "random_weights": false
        },
        "golden": [{
            "file": "golden/rollout.safetensors", "sha256": sha256(b"golden"), "bytes": 6, "kind": "rollout"
        }],
        "versions": {
            "snow_export": "0", "torch": "0", "transformers": "0", "onnx": "0", "onnxscript": "0", "onnxruntime": "0",
            "opset": "17"
        }
    });
    save(dir, &manifest);
    manifest
}

pub fn save(dir: &Path, manifest: &Value) {
    let text = serde_json::to_string_pretty(manifest).unwrap();
    std::fs::write(dir.join("manifest.json"), text).unwrap();
}

pub fn onnx_file(role: &str, inputs: &Value, outputs: &Value, kind: Kind) -> Vec<u8> {
    let mut graph = Graph::default();
    for (is_input, specs) in [(true, inputs), (false, outputs)] {
        for spec in specs.as_array().unwrap() {
            let shape = spec["shape"].as_array().unwrap();
            let (name, dtype) = (&spec["name"], &spec["dtype"]);
            graph.declare(
                is_input,
                name.as_str().unwrap(),
                dtype.as_str().unwrap(),
                shape,
            );
        }
    }
    fill(role, &mut graph, kind);
    graph.finish()
}

/// SHA-256 in hexadecimal digits.
pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect()
}

fn interface(resolution: u64) -> Vec<(&'static str, Value, Value)> {
    let f = |name: &str, shape: Value| json!({"name": name, "dtype": "float32", "shape": shape});
    let t = |name: &str, dtype: &str, shape: Value| json!({"name": name, "dtype": dtype, "shape": shape});
    let features = json!([1, TOKENS, CHANNELS]);
    let high = [
        f("high_res_0_nchw", json!([1, 1, LOW, LOW])),
        f("high_res_1_nchw", json!([1, 2, LOW / 2, LOW / 2])),
    ];
    let prompt = json!([1, resolution, resolution]);
    vec![
        (
            "vision_encoder",
            json!([t("image", "uint8", json!([1, resolution, resolution, 3]))]),
            json!([
                f("features_nlc", features.clone()),
                f("features_no_memory_nlc", features.clone()),
                high[0],
                high[1]
            ]),
        ),
        (
            "memory_attention",
            json!([
                f("features_nlc", features.clone()),
                f("memory_0", json!(["objects", "memory_tokens_0", MEMORY])),
                f("memory_1", json!(["objects", "memory_tokens_1", MEMORY])),
                f(
                    "pointers_cond",
                    json!(["objects", "pointer_tokens_cond", MEMORY])
                ),
                f("pointers_1", json!(["objects", "pointer_tokens_1", MEMORY])),
                t("memory_time", "int64", json!(["objects", "entries"])),
                f("pointer_time", json!(["objects", "pointers"])),
                f("value_padding", json!([1, 1, "value_padding"]))
            ]),
            json!([f("conditioned_nlc", json!(["objects", TOKENS, CHANNELS]))]),
        ),
        (
            "mask_decoder",
            json!([
                f("embeddings_nlc", json!(["objects", TOKENS, CHANNELS])),
                high[0],
                high[1],
                f("point_coords", json!(["objects", "points", 2])),
                t("point_labels", "int64", json!(["objects", "points"])),
                f("mask_prompt", prompt.clone()),
                t("has_mask_prompt", "bool", json!([1])),
                t("multimask", "bool", json!([1]))
            ]),
            json!([
                f("low_res_masks", json!(["objects", LOW, LOW])),
                f("object_score", json!(["objects"])),
                f("iou", json!(["objects"])),
                f("pointers", json!(["objects", POINTER_TOKENS, MEMORY]))
            ]),
        ),
        (
            "memory_encoder",
            json!([
                f("features_nlc", features),
                f("low_res_masks", json!(["objects", LOW, LOW])),
                f("mask_prompt", prompt),
                t("has_mask_prompt", "bool", json!([1])),
                f("object_score", json!(["objects"])),
                t("from_prompt", "bool", json!(["objects"]))
            ]),
            json!([f("memory_nlc", json!(["objects", TOKENS, MEMORY]))]),
        ),
    ]
}

/// Constants, repeated for as many objects as an input has.
fn fill(role: &str, graph: &mut Graph, kind: Kind) {
    let zeros = |shape: &[u64]| vec![0.0; shape.iter().product::<u64>() as usize];
    let per_object = |graph: &mut Graph, output: &str, shape: &[u64], values: &[f32]| {
        let (constant, tail, whole) = (
            format!("{output}_value"),
            format!("{output}_tail"),
            format!("{output}_shape"),
        );
        let one: Vec<u64> = std::iter::once(1).chain(shape.iter().copied()).collect();
        graph.floats(&constant, &one, values);
        let tail_values: Vec<i64> = shape
            .iter()
            .map(|s| *s as i64 + i64::from(kind == Kind::Broken))
            .collect();
        if tail_values.is_empty() {
            graph.node("Identity", &["objects_count"], &whole, None);
        } else {
            graph.ints(&tail, &tail_values);
            graph.node("Concat", &["objects_count", &tail], &whole, Some(0));
        }
        graph.node("Expand", &[&constant, &whole], output, None);
    };
    let count = |graph: &mut Graph, input: &str| {
        graph.node("Shape", &[input], "input_shape", None);
        graph.ints("zero_index", &[0]);
        graph.node(
            "Gather",
            &["input_shape", "zero_index"],
            "objects_count",
            Some(0),
        );
    };
    match role {
        "vision_encoder" => {
            for (name, shape) in [
                ("features_nlc", vec![1, TOKENS, CHANNELS]),
                ("features_no_memory_nlc", vec![1, TOKENS, CHANNELS]),
                ("high_res_0_nchw", vec![1, 1, LOW, LOW]),
                ("high_res_1_nchw", vec![1, 2, LOW / 2, LOW / 2]),
                // Of a bundle with a detector; others do not declare it.
                ("backbone_nlc", vec![1, TOKENS, CHANNELS]),
            ] {
                let constant = format!("{name}_value");
                graph.floats(&constant, &shape, &zeros(&shape));
                graph.node("Identity", &[&constant], name, None);
            }
        }
        "memory_attention" => {
            count(graph, "memory_time");
            let shape = [TOKENS, CHANNELS];
            per_object(graph, "conditioned_nlc", &shape, &zeros(&shape));
        }
        "mask_decoder" => {
            count(graph, "embeddings_nlc");
            let side = LOW as usize;
            let wide = if kind == Kind::Narrow {
                side / 4
            } else {
                side / 2
            };
            let left: Vec<f32> = (0..side * side)
                .map(|i| if i % side < wide { 5.0 } else { -5.0 })
                .collect();
            per_object(graph, "low_res_masks", &[LOW, LOW], &left);
            per_object(graph, "object_score", &[], &[3.0]);
            per_object(graph, "iou", &[], &[0.5]);
            let shape = [POINTER_TOKENS, MEMORY];
            per_object(graph, "pointers", &shape, &zeros(&shape));
        }
        "memory_encoder" => {
            count(graph, "object_score");
            let shape = [TOKENS, MEMORY];
            per_object(graph, "memory_nlc", &shape, &zeros(&shape));
        }
        other => panic!("no fake graph for {other}"),
    }
}

/// Writes a folder of `count` images of one size; they are one file with many names.
pub fn write_images(dir: &Path, count: usize, width: u32, height: u32) {
    std::fs::create_dir_all(dir).unwrap();
    let ids: Vec<u16> = (0..width * height).map(|i| (i % 7) as u16).collect();
    let first = dir.join("00000.png");
    write_index_png(&first, width, height, &ids).unwrap();
    for index in 1..count {
        std::fs::hard_link(&first, dir.join(format!("{index:05}.png"))).unwrap();
    }
}

/// Writes an index PNG whose pixels are given by a function of x and y.
pub fn write_mask(path: &Path, width: u32, height: u32, id: impl Fn(u32, u32) -> u16) {
    let ids: Vec<u16> = (0..height)
        .flat_map(|y| (0..width).map(move |x| (x, y)))
        .map(|(x, y)| id(x, y))
        .collect();
    write_index_png(path, width, height, &ids).unwrap();
}

/// A folder with `in/` (images) and a bundle elsewhere, for one test.
pub struct Desk {
    root: tempfile::TempDir,
    pub bundle: FakeBundle,
}

/// What the program did.
#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Ran {
    /// Asserts exit code 2 and that the message names each of `words`, in one `error:` line.
    #[track_caller]
    pub fn refuses(&self, words: &[&str]) {
        assert_eq!(self.code, Some(2), "{self:?}");
        let error = self.stderr.lines().find(|line| line.starts_with("error: "));
        let error = error.unwrap_or_else(|| panic!("no error line: {self:?}"));
        for word in words {
            assert!(error.contains(word), "{word:?} is not in {error:?}");
        }
        assert!(!self.stderr.contains("panicked"), "{self:?}");
    }

    /// Asserts exit code 0.
    #[track_caller]
    pub fn succeeds(&self) {
        assert_eq!(self.code, Some(0), "{self:?}");
    }
}

impl Desk {
    /// A bundle, and `in/` with three images of 40x30 pixels.
    pub fn new() -> Self {
        Self::with_images(3, 40, 30)
    }

    /// A bundle, and `in/` with images.
    pub fn with_images(count: usize, width: u32, height: u32) -> Self {
        let root = tempfile::tempdir().unwrap();
        write_images(&root.path().join("in"), count, width, height);
        Self {
            root,
            bundle: FakeBundle::new(),
        }
    }

    /// A path in this folder.
    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.root.path().join(name)
    }

    /// The program in this folder, with ONNX Runtime from the project's virtual environment unless the environment
    /// names another.
    pub fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_snow-ort"));
        command.current_dir(self.root.path());
        command.env_remove("SNOW_ORT_MODELS");
        command
    }

    /// `snow-ort run` with `--model` of the fake bundle.
    pub fn run_command<S: AsRef<OsStr>>(&self, args: &[S]) -> Command {
        let mut command = self.command();
        command.arg("run").args(args);
        command.arg("--model").arg(&self.bundle.dir);
        command
    }

    /// Runs `snow-ort run` with `--model` of the fake bundle.
    pub fn run<S: AsRef<OsStr>>(&self, args: &[S]) -> Ran {
        self.run_command(args).output().unwrap().into()
    }

    /// Greatest resident memory in bytes of a run of `in` to `out` over its first `frames` frames, as run.json says.
    #[track_caller]
    pub fn peak_memory(&self, frames: &str, more: &[&str]) -> u64 {
        let mut args = vec!["in", "--box", "1,1,9,9", "--out", "out", "--overwrite"];
        args.extend(["--max-frames", frames]);
        args.extend(more);
        self.run(&args).succeeds();
        let report = read_json(&self.path("out/run.json"));
        report["peak_memory_bytes"].as_u64().unwrap()
    }

    /// Asserts that the desk holds only these names: nothing half-written, nothing hidden.
    #[track_caller]
    pub fn holds(&self, names: &[&str]) {
        assert_eq!(names_in(self.root.path()), names);
    }
}

/// Names in a folder, hidden ones too, in order.
pub fn names_in(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// A JSON file.
#[track_caller]
pub fn read_json(path: &Path) -> Value {
    let text = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_slice(&text).unwrap()
}
