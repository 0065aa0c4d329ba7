//! A detector for the fake bundle: it detects the frame's left half for every text, with a score of 0.9.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::fake::{
    CHANNELS, Desk, GRID, Kind, LOW, TOKENS, graph, onnx_file, save, sha256, write_bundle,
};
use crate::onnx::Graph;

const HIDDEN: u64 = 4;
const QUERIES: u64 = 3;

/// A bundle with a detector in place of the desk's own.
pub fn give_detector(desk: &mut Desk) {
    add_detector(&desk.bundle.dir, &mut desk.bundle.manifest);
}

/// Adds a detector to the fake bundle in `dir`.
pub fn add_detector(dir: &Path, manifest: &mut Value) {
    let tensor = |name: &str, dtype: &str, shape: Value| json!({"name": name, "dtype": dtype, "shape": shape});
    let backbone = tensor("backbone_nlc", "float32", json!([1, TOKENS, CHANNELS]));
    let direct = tensor("direct", "bool", json!([1]));
    for (role, side, added) in [
        ("vision_encoder", "outputs", backbone),
        ("memory_encoder", "inputs", direct),
    ] {
        let spec = graph(manifest, role);
        spec[side].as_array_mut().unwrap().push(added);
        let content = onnx_file(role, &spec["inputs"], &spec["outputs"], Kind::Usual);
        put(dir, spec, role, &content);
    }
    for role in [
        "text_encoder",
        "detector_features",
        "geometry_encoder",
        "detector",
        "detector_masks",
    ] {
        let (inputs, outputs, content) = detector_graph(role);
        let mut spec = json!({"role": role, "data": null, "inputs": inputs, "outputs": outputs});
        put(dir, &mut spec, role, &content);
        manifest["graphs"].as_array_mut().unwrap().push(spec);
    }
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": {"type": "Whitespace"}, "post_processor": null, "decoder": null,
        "model": {"type": "WordLevel", "vocab": {"[UNK]": 0, "bear": 1}, "unk_token": "[UNK]"}
    })
    .to_string();
    std::fs::write(dir.join("tokenizer.json"), &tokenizer).unwrap();
    manifest["detector"] = json!({
        "tokenizer": {
            "file": "tokenizer.json", "sha256": sha256(tokenizer.as_bytes()), "bytes": tokenizer.len()
        },
        "queries": QUERIES, "max_text_tokens": 8, "hidden": HIDDEN, "boxes_only_text": "visual",
        "loop": {
            "score_threshold": 0.5, "nms_iou": 0.1, "match_iou": 0.1, "track_match_iou": 0.5, "new_object_score": 0.7,
            "recondition_on_track_masks": true, "recondition_every": 16, "recondition_score": 0.8,
            "recondition_iou": 0.8, "hotstart_delay": 0, "hotstart_unmatched": 8, "hotstart_duplicate": 8,
            "suppress_unmatched_only_within_hotstart": true, "keep_alive_init": 30, "keep_alive_max": 30,
            "keep_alive_min": -1, "keep_alive_falls_when_empty": false, "occlusion_iou": 0.7, "fill_hole_area": 0,
            "max_objects": 10000
        }
    });
    save(dir, manifest);
}

/// A desk whose bundle has 28 px, with one of 56 px beside it.
pub fn two_resolutions(here: bool, there: bool) -> (Desk, PathBuf, Value) {
    let mut desk = Desk::new();
    if here {
        give_detector(&mut desk);
    }
    let other = desk.bundle.dir.with_file_name("fake-56");
    let mut manifest = write_bundle(&other, 56);
    if there {
        add_detector(&other, &mut manifest);
    }
    (desk, other, manifest)
}

fn put(dir: &Path, spec: &mut Value, role: &str, content: &[u8]) {
    let file = format!("{role}.onnx");
    std::fs::write(dir.join(&file), content).unwrap();
    spec["file"] = json!(file);
    spec["sha256"] = json!(sha256(content));
    spec["bytes"] = json!(content.len());
}

/// Inputs, outputs and file of a graph with constant outputs.
fn detector_graph(role: &str) -> (Value, Value, Vec<u8>) {
    let tensor = |name: &str, dtype: &str, shape: Value| json!({"name": name, "dtype": dtype, "shape": shape});
    let float = |name: &str, shape: Value| tensor(name, "float32", shape);
    let level = |index: u32| {
        let side = GRID << (2 - index);
        float(
            &format!("level_{index}_nchw"),
            json!([1, HIDDEN, side, side]),
        )
    };
    let encoded = float("encoded_nlc", json!([1, TOKENS, HIDDEN]));
    let prompt = float("prompt_nlc", json!([1, "tokens", HIDDEN]));
    let (inputs, outputs) = match role {
        "text_encoder" => (
            json!([tensor("token_ids", "int64", json!([1, "tokens"]))]),
            json!([float("text_nlc", json!([1, "tokens", HIDDEN]))]),
        ),
        "detector_features" => (
            json!([float("backbone_nlc", json!([1, TOKENS, CHANNELS]))]),
            json!([level(0), level(1), level(2)]),
        ),
        "geometry_encoder" => (
            json!([
                level(2),
                float("boxes", json!([1, "boxes", 4])),
                tensor("box_labels", "int64", json!([1, "boxes"]))
            ]),
            json!([float("geometry_nlc", json!([1, "tokens", HIDDEN]))]),
        ),
        "detector" => (
            json!([level(2), prompt]),
            json!([
                float("boxes", json!([QUERIES, 4])),
                float("scores", json!([QUERIES])),
                float("queries_qc", json!([QUERIES, HIDDEN])),
                encoded
            ]),
        ),
        _ => (
            json!([
                level(0),
                level(1),
                encoded,
                prompt,
                float("queries_qc", json!(["found", HIDDEN]))
            ]),
            json!([float("mask_logits", json!(["found", LOW, LOW]))]),
        ),
    };
    let mut graph = Graph::default();
    for (is_input, specs) in [(true, &inputs), (false, &outputs)] {
        for spec in specs.as_array().unwrap() {
            let text = |key: &str| spec[key].as_str().unwrap();
            let shape = spec["shape"].as_array().unwrap();
            graph.declare(is_input, text("name"), text("dtype"), shape);
        }
    }
    for spec in outputs.as_array().unwrap() {
        let name = spec["name"].as_str().unwrap();
        let shape: Vec<u64> = spec["shape"]
            .as_array()
            .unwrap()
            .iter()
            // Repeated below.
            .map(|dim| dim.as_u64().unwrap_or(1))
            .collect();
        let values: Vec<f32> = match name {
            "scores" => vec![0.2, 0.9, 0.1],
            "mask_logits" => (0..LOW * LOW)
                .map(|i| if i % LOW < LOW / 2 { 5.0 } else { -5.0 })
                .collect(),
            _ => vec![0.0; shape.iter().product::<u64>() as usize],
        };
        let constant = format!("{name}_value");
        graph.floats(&constant, &shape, &values);
        // As often as an input says, so that the library does not take the length for fixed.
        let (source, axes, tail): (_, &[i64], &[i64]) = match name {
            "text_nlc" => ("token_ids", &[0, 1], &[HIDDEN as i64]),
            "geometry_nlc" => ("boxes", &[0, 1], &[HIDDEN as i64]),
            "mask_logits" => ("queries_qc", &[0], &[LOW as i64, LOW as i64]),
            _ => {
                graph.node("Identity", &[&constant], name, None);
                continue;
            }
        };
        graph.node("Shape", &[source], "source_shape", None);
        graph.ints("axes", axes);
        graph.node("Gather", &["source_shape", "axes"], "head", Some(0));
        graph.ints("tail", tail);
        graph.node("Concat", &["head", "tail"], "whole", Some(0));
        graph.node("Expand", &[&constant, "whole"], name, None);
    }
    (inputs, outputs, graph.finish())
}
