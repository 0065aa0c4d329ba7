//! Measures what each graph takes of the arena, and keeps the result.
//!
//! No formula can tell: the library fuses operators, reuses buffers in place, and its kernels take room of their own that
//! depends on the provider and the number of threads. So each graph runs alone, on zeros, with all that an object can
//! recall, for one object and for two. The result is kept in the user's cache folder, by everything it depends on.

use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Costs, DetectorCosts, Extent, GPU_GAPS_PERCENT, StageCost};
use crate::bundle::{Bundle, Dim, GraphFile, Manifest, Role, hex_digest};
use crate::runtime::{Blank, GraphError, IsFull, Provider, Runtime, Sounding};
use crate::tracker::{TrackError, VALUE_PADDING, element_of, padding_width};

/// Raised when what is measured, or how, changes.
const CACHE_VERSION: u32 = 4;

/// Points of the prompt that the mask decoder is measured with: a box and a point beside it.
const POINTS: usize = 3;

/// What the graphs of a bundle take of the arena, from the cache or by running each once for one object and once for
/// two.
///
/// The runs are bounded by `limit`, except that they are repeated without one if they do not fit: who asks then wants to
/// know how much it would be.
///
/// # Errors
/// A graph that cannot be loaded or run, and a process that already has graphs.
pub fn sound(
    bundle: &Bundle,
    runtime: &mut Runtime,
    packed: bool,
    extent: Extent,
    limit: Option<u64>,
) -> Result<Costs, TrackError> {
    let what = format!("{} {packed} {extent:?}", bundle.manifest_sha256());
    let cache = cache_file(runtime, &what);
    if let Some(costs) = known(cache.as_deref()) {
        return Ok(costs);
    }
    runtime.set_pack_weights(packed);
    let stage = |role: Role| -> Result<StageCost, TrackError> {
        let (Some(graph), Some(path)) = (bundle.manifest().graph(role), bundle.graph_path(role))
        else {
            return Ok(StageCost::default());
        };
        let outputs: Vec<&str> = graph.outputs.iter().map(|o| o.name.as_str()).collect();
        let counts: &[usize] = match role {
            Role::VisionEncoder => &[1],
            _ => &[1, 2],
        };
        let manifest = bundle.manifest();
        let padding = padding_width(runtime, manifest.value_gap());
        let runs: Vec<Vec<Blank>> = counts
            .iter()
            .map(|&objects| tracked(manifest, graph, objects, extent, padding))
            .collect();
        let run = |limit| runtime.sound(role.as_str(), &path, &runs, &outputs, limit);
        let sounding = within_or_not(limit, run).map_err(TrackError::Load)?;
        Ok(cost_of(&sounding))
    };
    let costs = Costs {
        packed,
        gaps_percent: match runtime.provider() {
            Provider::Cpu => 0,
            Provider::Cuda => GPU_GAPS_PERCENT,
        },
        vision_encoder: stage(Role::VisionEncoder)?,
        memory_attention: stage(Role::MemoryAttention)?,
        mask_decoder: stage(Role::MaskDecoder)?,
        memory_encoder: stage(Role::MemoryEncoder)?,
        proposals: None,
        detector: None,
    };
    if let Some(file) = cache {
        keep(&file, &costs);
    }
    Ok(costs)
}

/// What the graphs of a bundle's detector take, as [`sound`] does it: the text encoder and the detector with the longest
/// text, masks for one candidate and for two. The vision encoder is among them where the detector looks at images of its own.
///
/// # Errors
/// As [`sound`].
pub fn sound_detector(
    bundle: &Bundle,
    runtime: &mut Runtime,
    packed: bool,
    own_images: bool,
    limit: Option<u64>,
) -> Result<DetectorCosts, TrackError> {
    let what = format!(
        "detector {} {packed} {own_images}",
        bundle.manifest_sha256()
    );
    let cache = cache_file(runtime, &what);
    if let Some(costs) = known(cache.as_deref()) {
        return Ok(costs);
    }
    runtime.set_pack_weights(packed);
    let tokens = bundle.manifest().detector.as_ref();
    let tokens = tokens.map_or(1, |detector| detector.max_text_tokens as usize);
    let stage = |role: Role| -> Result<StageCost, TrackError> {
        let (Some(graph), Some(path)) = (bundle.manifest().graph(role), bundle.graph_path(role))
        else {
            return Ok(StageCost::default());
        };
        // A run asks for what it needs; of the vision encoder the detector needs the tokens alone.
        let outputs = graph.outputs.iter().map(|output| output.name.as_str());
        let outputs: Vec<&str> = match role {
            Role::VisionEncoder => vec!["backbone_nlc"],
            _ => outputs.collect(),
        };
        let counts: &[usize] = match role {
            Role::DetectorMasks => &[1, 2],
            _ => &[1],
        };
        let runs: Vec<Vec<Blank>> = counts
            .iter()
            .map(|&found| {
                blanks(graph, |input, _| match input {
                    "queries_qc" => found,
                    _ => tokens,
                })
            })
            .collect();
        let run = |limit| runtime.sound(role.as_str(), &path, &runs, &outputs, limit);
        let sounding = within_or_not(limit, run).map_err(TrackError::Load)?;
        Ok(cost_of(&sounding))
    };
    let costs = DetectorCosts {
        text_encoder: stage(Role::TextEncoder)?,
        vision_encoder: match own_images {
            true => stage(Role::VisionEncoder)?,
            false => StageCost::default(),
        },
        features: stage(Role::DetectorFeatures)?,
        search: stage(Role::Detector)?,
        masks: stage(Role::DetectorMasks)?,
    };
    if let Some(file) = cache {
        keep(&file, &costs);
    }
    Ok(costs)
}

/// The line through one or two measurements.
fn cost_of(sounding: &Sounding) -> StageCost {
    match *sounding.peaks.as_slice() {
        [one, two] => StageCost::through(sounding.weights, one, two),
        [one] => StageCost::through(sounding.weights, one, one),
        _ => StageCost::default(),
    }
}

/// What a graph that is no part of a bundle takes, as [`sound`] does it: `digest` is the SHA-256 of the file at `path`, and
/// `blank` its only input, as large as it ever is.
///
/// # Errors
/// A graph that cannot be loaded or run, and a process that already has graphs.
pub fn sound_file(
    runtime: &mut Runtime,
    role: &str,
    (path, digest): (&Path, &str),
    blank: &Blank,
    outputs: &[&str],
    limit: Option<u64>,
) -> Result<StageCost, GraphError> {
    let cache = cache_file(runtime, &format!("{digest} {:?}", blank.shape));
    if let Some(cost) = known(cache.as_deref()) {
        return Ok(cost);
    }
    runtime.set_pack_weights(true);
    let runs = [vec![blank.clone()]];
    let run = |limit| runtime.sound(role, path, &runs, outputs, limit);
    let sounding = within_or_not(limit, run)?;
    let peak = sounding.peaks.first().copied().unwrap_or(0);
    let cost = StageCost::through(sounding.weights, peak, peak);
    if let Some(file) = cache {
        keep(&file, &cost);
    }
    Ok(cost)
}

/// What comes of a run within a limit, or without one where it does not fit: who asks wants to know how much it would be.
pub(crate) fn within_or_not<T, E: IsFull>(
    limit: Option<u64>,
    mut run: impl FnMut(Option<u64>) -> Result<T, E>,
) -> Result<T, E> {
    match run(limit) {
        Err(error) if limit.is_some() && error.is_full() => run(None),
        other => other,
    }
}

/// The inputs of a graph with `objects` objects that recall as much as `extent` says, with values padded by so many channels.
fn tracked(
    manifest: &Manifest,
    graph: &GraphFile,
    objects: usize,
    extent: Extent,
    value_padding: usize,
) -> Vec<Blank> {
    let tokens = manifest.memory.tokens as usize;
    let pointer_tokens = manifest.policy.pointer_tokens as usize;
    let numbered = |name: &str, prefix: &str| {
        name.strip_prefix(prefix)
            .and_then(|rest| rest.parse::<usize>().ok())
    };
    let dynamic = |input: &str, axis: usize| -> usize {
        match input {
            VALUE_PADDING => value_padding,
            _ if axis == 0 => objects,
            "memory_time" => extent.memories,
            "pointer_time" => extent.cond_pointers + extent.pointers,
            "pointers_cond" => extent.cond_pointers * pointer_tokens,
            _ => {
                if let Some(slot) = numbered(input, "memory_") {
                    return if slot < extent.memories { tokens } else { 0 };
                }
                if let Some(distance) = numbered(input, "pointers_") {
                    return if distance <= extent.pointers {
                        pointer_tokens
                    } else {
                        0
                    };
                }
                POINTS
            }
        }
    };
    blanks(graph, dynamic)
}

/// The inputs of a graph; `dynamic` says how long an input's axis is that has no length of its own.
fn blanks(graph: &GraphFile, dynamic: impl Fn(&str, usize) -> usize) -> Vec<Blank> {
    let shape = |name: &str, dims: &[Dim]| {
        dims.iter()
            .enumerate()
            .map(|(axis, dim)| match dim {
                Dim::Fixed(length) => *length as usize,
                Dim::Symbol(_) => dynamic(name, axis),
            })
            .collect()
    };
    graph
        .inputs
        .iter()
        .map(|input| Blank {
            name: input.name.clone(),
            element: element_of(input.dtype),
            shape: shape(&input.name, &input.shape),
        })
        .collect()
}

/// Where the result is kept, by all that it depends on beside `what` is measured; `None` without a cache folder.
fn cache_file(runtime: &Runtime, what: &str) -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let folder = match set("XDG_CACHE_HOME") {
        Some(folder) => PathBuf::from(folder),
        None => PathBuf::from(set("HOME")?).join(".cache"),
    };
    let key = format!(
        "{CACHE_VERSION} {what} {} {} {} {}",
        runtime.version(),
        runtime.device_text(),
        runtime.threads(),
        std::env::consts::ARCH,
    );
    let name = format!("{}.json", hex_digest(key.as_bytes()));
    Some(folder.join("snow-ort/soundings").join(name))
}

/// What the cache's file holds, if it is one.
fn known<T: DeserializeOwned>(file: Option<&Path>) -> Option<T> {
    let bytes = std::fs::read(file?).ok()?;
    serde_json::from_slice(&bytes).ok()
}

/// Writes the cache's file. It saves time next time; that it cannot be written is no reason to fail.
fn keep(file: &Path, costs: &impl Serialize) {
    let Some(folder) = file.parent() else {
        return;
    };
    let unfinished = file.with_extension(format!("{}.tmp", std::process::id()));
    let written = std::fs::create_dir_all(folder)
        .and_then(|()| std::fs::write(&unfinished, serde_json::to_vec(costs)?))
        .and_then(|()| std::fs::rename(&unfinished, file));
    if written.is_err() {
        let _ = std::fs::remove_file(&unfinished);
    }
}
