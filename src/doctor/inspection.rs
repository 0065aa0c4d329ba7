//! What a bundle contains, as JSON and as text, and whether it is as it was exported.

use std::error::Error;
use std::path::Path;

use serde::Serialize;

use crate::bundle::{Bundle, BundleError, GraphFile, Manifest, TensorSpec};
use crate::size;

/// Version of the layout of `snow-ort inspect --json`.
const INSPECT_VERSION: u32 = 1;

/// The document that `snow-ort inspect --json` prints.
#[derive(Debug, Serialize)]
pub struct Inspection {
    /// Version of this layout.
    pub schema_version: u32,
    /// The bundle's folder.
    pub dir: String,
    /// Bytes of all files that the manifest lists.
    pub bytes: u64,
    /// Number of these files.
    pub files: usize,
    /// Why the bundle cannot be run; null if every file is as it was exported.
    pub damage: Option<String>,
    /// The manifest.
    pub manifest: Manifest,
}

impl Inspection {
    /// Reads the bundle in `dir` and checks its files.
    ///
    /// # Errors
    /// The manifest cannot be read. Problems of other files are [`Inspection::damage`].
    pub fn of(dir: &Path) -> Result<Self, BundleError> {
        let manifest = Bundle::peek(dir)?;
        let damage = Bundle::open(dir).err().map(|error| with_causes(&error));
        Ok(Self {
            schema_version: INSPECT_VERSION,
            dir: dir.display().to_string(),
            bytes: manifest.bytes(),
            files: manifest.files(),
            damage,
            manifest,
        })
    }

    /// The bundle's properties, a line for each.
    pub fn lines(&self) -> Vec<String> {
        let manifest = &self.manifest;
        let mut lines = vec![row("bundle", &self.dir)];
        lines.extend(model(manifest));
        lines.extend(policy(manifest));
        for graph in &manifest.graphs {
            lines.extend(graph_lines(graph));
        }
        lines.extend(origin(manifest));
        lines.push(row(
            "files",
            &format!(
                "{}, {}: {}",
                self.files,
                size::show(self.bytes),
                self.damage.as_deref().unwrap_or("all as exported")
            ),
        ));
        lines
    }
}

/// An error with its causes in one line. A cause that the text contains already is left out.
pub(super) fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let words = error.to_string();
        if !text.contains(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        cause = error.source();
    }
    text
}

/// A line with a name in a column of fixed width, then the text.
fn row(name: &str, text: &str) -> String {
    format!("{name:<12} {text}")
}

/// The model: its name, image, preprocessing, source and licence.
fn model(manifest: &Manifest) -> Vec<String> {
    let Manifest {
        source, preprocess, ..
    } = manifest;
    let grid = manifest.grid;
    vec![
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
    ]
}

/// The memory policy, memory entries, masks and the detector.
fn policy(manifest: &Manifest) -> Vec<String> {
    let Manifest {
        policy,
        masks,
        memory,
        ..
    } = manifest;
    let mut lines = vec![
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
    lines
}

/// The graphs with golden vectors, the versions and the command that made the bundle.
fn origin(manifest: &Manifest) -> Vec<String> {
    let versions = &manifest.versions;
    let mut lines = Vec::new();
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
    lines
}

/// A graph's role and sizes, then its inputs and outputs.
fn graph_lines(graph: &GraphFile) -> Vec<String> {
    let weights = graph.data.as_ref().map_or(0, |data| data.bytes);
    let mut lines = vec![row(
        "graph",
        &format!(
            "{}: {} {}, weights {}",
            graph.role,
            graph.file,
            size::show(graph.bytes),
            size::show(weights)
        ),
    )];
    for (side, specs) in [("in", &graph.inputs), ("out", &graph.outputs)] {
        for (names, spec) in grouped(specs) {
            lines.push(format!(
                "    {side:<3} {names:<24} {} {}",
                spec.dtype,
                spec.shape_text()
            ));
        }
    }
    lines
}

/// Names of tensors in order, each with its properties. Three or more numbered tensors of a kind are one row: `memory_0 …
/// memory_9`.
fn grouped(specs: &[TensorSpec]) -> Vec<(String, &TensorSpec)> {
    let stem = |name: &str| -> Option<String> {
        let (stem, number) = name.rsplit_once('_')?;
        number.parse::<u32>().ok().map(|_| stem.to_owned())
    };
    // Their shapes differ only in the names of dynamic axes.
    let same_kind = |first: &TensorSpec, next: &TensorSpec| {
        let names = stem(&first.name).zip(stem(&next.name));
        names.is_some_and(|(first, next)| first == next)
            && first.dtype == next.dtype
            && first.shape.len() == next.shape.len()
    };
    let mut rows: Vec<(String, &TensorSpec)> = Vec::new();
    let mut index = 0;
    while let Some(first) = specs.get(index) {
        let rest = &specs[index + 1..];
        let more = rest
            .iter()
            .take_while(|next| same_kind(first, next))
            .count();
        let name = match more {
            0 | 1 => first.name.clone(),
            more => format!("{} … {}", first.name, rest[more - 1].name),
        };
        rows.push((name, first));
        index += if more > 1 { more + 1 } else { 1 };
    }
    rows
}
