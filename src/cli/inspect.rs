//! `snow-ort inspect`: what a bundle is.

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args;
use serde::Serialize;

use super::{chain, say};
use crate::bundle::{Bundle, GraphFile, Manifest, TensorSpec};
use crate::size;

/// Version of the layout of `--json`.
const INSPECT_VERSION: u32 = 1;

/// Arguments of `snow-ort inspect`.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit codes: 0 done, and the bundle is as it was exported; 1 done, but it is not: the text says what is \
                  wrong; 2 could not do it."
)]
pub(super) struct InspectArgs {
    /// The bundle: a folder that snow-export wrote
    #[arg(value_name = "DIR")]
    pub model: PathBuf,

    /// Print JSON instead of text
    #[arg(long)]
    pub json: bool,
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Inspection<'a> {
    schema_version: u32,
    dir: String,
    /// Bytes of all files that the manifest lists.
    bytes: u64,
    files: usize,
    /// Why it cannot be run; null if every file is as it was exported.
    damage: Option<&'a str>,
    manifest: &'a Manifest,
}

/// Runs the command; returns whether the bundle is as it was exported.
pub(super) fn run(args: &InspectArgs) -> Result<bool> {
    let manifest = Bundle::peek(&args.model)?;
    let damage = Bundle::open(&args.model)
        .err()
        .map(|error| chain(&error.into()));
    if args.json {
        say(&serde_json::to_string_pretty(&Inspection {
            schema_version: INSPECT_VERSION,
            dir: args.model.display().to_string(),
            bytes: manifest.bytes(),
            files: manifest.files(),
            damage: damage.as_deref(),
            manifest: &manifest,
        })?);
    } else {
        for line in lines(&args.model, &manifest, damage.as_deref()) {
            say(&line);
        }
    }
    Ok(damage.is_none())
}

fn row(name: &str, text: &str) -> String {
    format!("{name:<12} {text}")
}

fn lines(dir: &Path, manifest: &Manifest, damage: Option<&str>) -> Vec<String> {
    let Manifest {
        policy,
        masks,
        memory,
        source,
        preprocess,
        versions,
        ..
    } = manifest;
    let grid = manifest.grid;
    let mut lines = vec![
        row("bundle", &dir.display().to_string()),
        row("name", &manifest.name),
        row("family", &manifest.family),
        row(
            "image",
            &format!(
                "{0} x {0} px, a grid of {grid} x {grid} tokens, {1}",
                manifest.resolution, manifest.precision
            ),
        ),
        row(
            "preprocess",
            &format!(
                "{}{} to {} {} {}; mean {:?}, std {:?}, {}",
                preprocess.filter,
                if preprocess.antialias {
                    ", antialiased,"
                } else {
                    ""
                },
                preprocess.rounding,
                preprocess.layout,
                preprocess.channels,
                preprocess.mean,
                preprocess.std,
                match preprocess.in_graph {
                    true => "in the graph",
                    false => "outside of the graph",
                }
            ),
        ),
        row(
            "source",
            &format!(
                "{} ({}), sha256 {}{}",
                source.id,
                source.model_type,
                source.sha256,
                match source.random_weights {
                    true => ", random weights: the masks mean nothing",
                    false => "",
                }
            ),
        ),
        row("licence", &source.licence),
        row(
            "policy",
            &format!(
                "{}: {} memories, up to {} conditioning frames, pointers of {} frames, {} tokens each{}",
                policy.name,
                policy.num_maskmem,
                policy.max_cond_frames,
                policy.max_object_pointers,
                policy.pointer_tokens,
                policy.memory_selection.map_or(String::new(), |threshold| {
                    format!(", of tracked frames with a memory score above {threshold}")
                })
            ),
        ),
        row(
            "memory",
            &format!(
                "{} tokens x {} channels, {} rounded to {}: {} an entry",
                memory.tokens,
                memory.channels,
                memory.dtype,
                memory.rounding,
                size::show(
                    u64::from(memory.tokens) * u64::from(memory.channels) * memory.dtype.bytes()
                )
            ),
        ),
        row(
            "masks",
            &format!(
                "{0} x {0} logits, above {1} is the object; a mask prompt is {2} x {2}, from {3} on is the object",
                masks.low_res, masks.threshold, masks.prompt_size, masks.prompt_threshold
            ),
        ),
    ];
    if let Some(detector) = &manifest.detector {
        lines.push(row(
            "detector",
            &format!(
                "{} candidates, texts of up to {} tokens",
                detector.queries, detector.max_text_tokens
            ),
        ));
    }
    for graph in &manifest.graphs {
        describe(graph, &mut lines);
    }
    let golden = manifest.golden.iter().map(|file| file.kind.as_str());
    let golden: Vec<&str> = golden.filter(|&kind| kind != "input").collect();
    lines.push(row(
        "golden",
        &match golden.as_slice() {
            [] => "none: exported with --golden-frames 0".to_owned(),
            kinds => kinds.join(", "),
        },
    ));
    lines.push(row(
        "made by",
        &format!(
            "snow-export {}, torch {}, transformers {}, onnx {}, onnxscript {}, opset {}; checked with onnxruntime {}",
            versions.snow_export,
            versions.torch,
            versions.transformers,
            versions.onnx,
            versions.onnxscript,
            versions.opset,
            versions.onnxruntime
        ),
    ));
    lines.push(row("made with", &manifest.export_command()));
    lines.push(row(
        "files",
        &format!(
            "{}, {}: {}",
            manifest.files(),
            size::show(manifest.bytes()),
            damage.unwrap_or("all as exported")
        ),
    ));
    lines
}

fn describe(graph: &GraphFile, lines: &mut Vec<String>) {
    let weights = graph.data.as_ref().map_or(0, |data| data.bytes);
    lines.push(row(
        "graph",
        &format!(
            "{}: {} {}, weights {}",
            graph.role,
            graph.file,
            size::show(graph.bytes),
            size::show(weights)
        ),
    ));
    for (side, specs) in [("in", &graph.inputs), ("out", &graph.outputs)] {
        for (names, spec) in alike(specs) {
            lines.push(format!(
                "    {side:<3} {names:<24} {} {}",
                spec.dtype,
                spec.shape_text()
            ));
        }
    }
}

/// Tensors in order, those of a numbered row as one: `memory_0 … memory_9`.
fn alike(specs: &[TensorSpec]) -> Vec<(String, &TensorSpec)> {
    let stem = |name: &str| -> Option<String> {
        let (stem, number) = name.rsplit_once('_')?;
        number.parse::<u32>().ok().map(|_| stem.to_owned())
    };
    // Shapes of such a row differ in the names of their dynamic axes only.
    let follows = |first: &TensorSpec, next: &TensorSpec| {
        let names = stem(&first.name).zip(stem(&next.name));
        names.is_some_and(|(first, next)| first == next)
            && first.dtype == next.dtype
            && first.shape.len() == next.shape.len()
    };
    let mut rows: Vec<(String, &TensorSpec)> = Vec::new();
    let mut index = 0;
    while let Some(first) = specs.get(index) {
        let rest = &specs[index + 1..];
        let more = rest.iter().take_while(|next| follows(first, next)).count();
        let name = match more {
            0 | 1 => first.name.clone(),
            more => format!("{} … {}", first.name, rest[more - 1].name),
        };
        rows.push((name, first));
        index += if more > 1 { more + 1 } else { 1 };
    }
    rows
}
