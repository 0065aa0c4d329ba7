//! Measures what each graph takes of memory, and caches the result.
//!
//! There is no formula: the library fuses operators, reuses buffers in place, and its kernels take working memory that depends on
//! the provider and the number of threads. So each graph runs alone, on zeros, with the most that an object can recall, for one
//! object and for two. The result is cached in the user's cache folder, by everything that it depends on.

use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Costs, DetectorCosts, Extent, GPU_GAPS_PERCENT, StageCost};
use crate::bundle::{Bundle, Dim, GraphFile, Manifest, Role, hex_digest};
use crate::runtime::{Engine, GraphError, IsFull, MemoryProfile, Provider, ZeroInput};
use crate::tracker::{TrackError, VALUE_PADDING, element_of, padding_width};

/// Raised when what is measured, or how, changes.
const CACHE_VERSION: u32 = 4;

/// Points of the prompt that the mask decoder is measured with: the two corners of a box, and a point.
const POINTS: usize = 3;

/// What the tracker's graphs of a bundle take of memory, from the cache or by running each for one object and for two.
///
/// The runs are bounded by `limit` bytes, but are repeated without a limit if they do not fit: the caller then wants to know how
/// much is needed. `packed` is [`EngineOptions::pack_weights`](crate::runtime::EngineOptions::pack_weights). Other graphs may be
/// loaded already.
///
/// # Errors
/// A graph that cannot be loaded or run.
pub fn measure(
    bundle: &Bundle,
    engine: &Engine,
    packed: bool,
    extent: Extent,
    limit: Option<u64>,
) -> Result<Costs, TrackError> {
    let what = format!("{} {packed} {extent:?}", bundle.manifest_sha256());
    cached(engine, &what, || {
        let meter = Meter::new(bundle, engine, packed, limit);
        let manifest = bundle.manifest();
        let padding = padding_width(engine, manifest.value_gap());
        let stage = |role: Role, counts: &[usize]| {
            let inputs = |graph: &GraphFile, objects: usize| {
                tracker_inputs(manifest, graph, objects, extent, padding)
            };
            meter.stage(role, counts, None, inputs)
        };
        Ok(Costs {
            packed,
            gaps_percent: match engine.provider() {
                Provider::Cpu => 0,
                Provider::Cuda => GPU_GAPS_PERCENT,
            },
            vision_encoder: stage(Role::VisionEncoder, &[1])?,
            memory_attention: stage(Role::MemoryAttention, &[1, 2])?,
            mask_decoder: stage(Role::MaskDecoder, &[1, 2])?,
            memory_encoder: stage(Role::MemoryEncoder, &[1, 2])?,
            proposals: None,
            detector: None,
        })
    })
}

/// What the detector's graphs of a bundle take, as [`measure`] does it: the text encoder and the detector with the longest text,
/// masks for one detection and for two. The vision encoder is among them with `own_images`, where the detector's bundle is not the
/// tracker's.
///
/// # Errors
/// As [`measure`].
pub fn measure_detector(
    bundle: &Bundle,
    engine: &Engine,
    packed: bool,
    own_images: bool,
    limit: Option<u64>,
) -> Result<DetectorCosts, TrackError> {
    let what = format!(
        "detector {} {packed} {own_images}",
        bundle.manifest_sha256()
    );
    cached(engine, &what, || {
        let meter = Meter::new(bundle, engine, packed, limit);
        let tokens = bundle.manifest().detector.as_ref();
        let tokens = tokens.map_or(1, |detector| detector.max_text_tokens as usize);
        let inputs = |graph: &GraphFile, detections: usize| {
            zero_inputs(graph, |input, _| match input {
                "queries_qc" => detections,
                _ => tokens,
            })
        };
        // Of the vision encoder the detector needs the backbone tokens alone.
        let backbone = || meter.stage(Role::VisionEncoder, &[1], Some("backbone_nlc"), inputs);
        Ok(DetectorCosts {
            text_encoder: meter.stage(Role::TextEncoder, &[1], None, inputs)?,
            vision_encoder: match own_images {
                true => backbone()?,
                false => StageCost::default(),
            },
            features: meter.stage(Role::DetectorFeatures, &[1], None, inputs)?,
            search: meter.stage(Role::Detector, &[1], None, inputs)?,
            masks: meter.stage(Role::DetectorMasks, &[1, 2], None, inputs)?,
        })
    })
}

/// A graph that is not part of a bundle, to be measured.
#[derive(Debug, Clone, Copy)]
pub struct LoneGraph<'a> {
    /// What messages call it.
    pub role: &'a str,
    /// Its file.
    pub path: &'a Path,
    /// SHA-256 of the file, in hexadecimal.
    pub sha256: &'a str,
    /// Its only input, as large as it can get.
    pub input: &'a ZeroInput,
    /// The outputs that a run asks for.
    pub outputs: &'a [&'a str],
}

/// What a graph that is not part of a bundle takes, as [`measure`] does it.
///
/// # Errors
/// As [`measure`].
pub fn measure_file(
    graph: LoneGraph<'_>,
    engine: &Engine,
    limit: Option<u64>,
) -> Result<StageCost, GraphError> {
    let LoneGraph {
        role,
        path,
        sha256,
        input,
        outputs,
    } = graph;
    cached(engine, &format!("{sha256} {:?}", input.shape), || {
        let mut engine = engine.clone();
        engine.set_pack_weights(true);
        let runs = [vec![input.clone()]];
        let profile = retry_without_limit(limit, |limit| {
            engine.measure(role, path, &runs, outputs, limit)
        })?;
        let peak = profile.peaks.first().copied().unwrap_or(0);
        Ok(StageCost::through(profile.weights, peak, peak))
    })
}

/// Measures graphs of one bundle.
struct Meter<'a> {
    bundle: &'a Bundle,
    engine: Engine,
    limit: Option<u64>,
}

impl<'a> Meter<'a> {
    fn new(bundle: &'a Bundle, engine: &Engine, packed: bool, limit: Option<u64>) -> Self {
        let mut engine = engine.clone();
        engine.set_pack_weights(packed);
        Self {
            bundle,
            engine,
            limit,
        }
    }

    /// The cost of a graph, 0 if the bundle has none of this role: `inputs` says what goes in for each of `counts` objects, one or
    /// two. All outputs are asked for, or `output` alone.
    fn stage(
        &self,
        role: Role,
        counts: &[usize],
        output: Option<&str>,
        inputs: impl Fn(&GraphFile, usize) -> Vec<ZeroInput>,
    ) -> Result<StageCost, TrackError> {
        let graph = self.bundle.manifest().graph(role);
        let (Some(graph), Some(path)) = (graph, self.bundle.graph_path(role)) else {
            return Ok(StageCost::default());
        };
        let outputs: Vec<&str> = match output {
            Some(output) => vec![output],
            None => graph.outputs.iter().map(|out| out.name.as_str()).collect(),
        };
        let runs: Vec<_> = counts.iter().map(|&count| inputs(graph, count)).collect();
        let profile = retry_without_limit(self.limit, |limit| {
            self.engine
                .measure(role.as_str(), &path, &runs, &outputs, limit)
        });
        let MemoryProfile { weights, peaks } = profile.map_err(TrackError::Load)?;
        Ok(match *peaks.as_slice() {
            [one, two] => StageCost::through(weights, one, two),
            [one] => StageCost::through(weights, one, one),
            _ => StageCost::default(),
        })
    }
}

/// The result of `run` within a limit. If it does not fit, the result without a limit: the caller then wants to know how much is
/// needed.
pub(crate) fn retry_without_limit<T, E: IsFull>(
    limit: Option<u64>,
    mut run: impl FnMut(Option<u64>) -> Result<T, E>,
) -> Result<T, E> {
    match run(limit) {
        Err(error) if limit.is_some() && error.is_full() => run(None),
        other => other,
    }
}

/// The inputs of a graph of the tracker with `objects` objects that recall `extent`, with values padded by `value_padding` channels.
fn tracker_inputs(
    manifest: &Manifest,
    graph: &GraphFile,
    objects: usize,
    extent: Extent,
    value_padding: usize,
) -> Vec<ZeroInput> {
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
            "memory_time" => extent.entries,
            "pointer_time" => extent.conditioning_pointers + extent.pointers,
            "pointers_cond" => extent.conditioning_pointers * pointer_tokens,
            _ => {
                if let Some(slot) = numbered(input, "memory_") {
                    return if slot < extent.entries { tokens } else { 0 };
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
    zero_inputs(graph, dynamic)
}

/// The inputs of a graph; `dynamic` is the length of an input's axis that the manifest leaves open.
fn zero_inputs(graph: &GraphFile, dynamic: impl Fn(&str, usize) -> usize) -> Vec<ZeroInput> {
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
        .map(|input| ZeroInput {
            name: input.name.clone(),
            element: element_of(input.dtype),
            shape: shape(&input.name, &input.shape),
        })
        .collect()
}

/// What the cache holds for `what`, or what `measure` finds.
fn cached<T, E>(engine: &Engine, what: &str, measure: impl FnOnce() -> Result<T, E>) -> Result<T, E>
where
    T: Serialize + DeserializeOwned,
{
    let file = cache_file(engine, what);
    if let Some(known) = file.as_deref().and_then(read) {
        return Ok(known);
    }
    let exact = engine.measures_exactly();
    let measured = measure()?;
    if let Some(file) = file.filter(|_| exact) {
        write(&file, &measured);
    }
    Ok(measured)
}

/// The cache's file for `what`, named by all that a measurement depends on; `None` without a cache folder.
fn cache_file(engine: &Engine, what: &str) -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let folder = match set("XDG_CACHE_HOME") {
        Some(folder) => PathBuf::from(folder),
        None => PathBuf::from(set("HOME")?).join(".cache"),
    };
    let key = format!(
        "{CACHE_VERSION} {what} {} {} {} {}",
        engine.version(),
        engine.device_text(),
        engine.threads(),
        std::env::consts::ARCH,
    );
    let name = format!("{}.json", hex_digest(key.as_bytes()));
    Some(folder.join("snow-ort/memory-profiles").join(name))
}

fn read<T: DeserializeOwned>(file: &Path) -> Option<T> {
    let bytes = std::fs::read(file).ok()?;
    serde_json::from_slice(&bytes).ok()
}

/// Writes the cache's file. It only saves time, so a failure is not an error.
fn write(file: &Path, costs: &impl Serialize) {
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
