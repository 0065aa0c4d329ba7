//! The tracker: one frame for all objects, in chunks.
//!
//! A prompt takes effect when its frame is reached: the frame becomes a conditioning frame of the object, and later frames are
//! tracked from the object's memory bank. Objects that recall the same frames are tracked in one batch (a cohort), which gives the
//! same result as one object after the other.
//!
//! The model follows `Sam3TrackerVideoModel` of transformers; which frames are recalled is decided in [`memory_policy`].

mod cohorts;
mod error;
pub mod memory_bank;
pub mod memory_policy;
mod memory_selection;
mod model;
mod points;
mod stages;
mod steps;
mod types;

use std::sync::Arc;

use self::cohorts::Cohort;
pub use self::error::TrackError;
pub(crate) use self::model::element_of;
pub use self::model::{Graphs, ModelSpec};
pub(crate) use self::model::{check_signature, graph_file, load_graph};
use self::points::Points;
pub use self::stages::StageTimes;
use self::stages::{Decoded, DecoderInputs, Features, Stages};
pub(crate) use self::stages::{VALUE_PADDING, padding_width, value_padding};
pub(crate) use self::steps::Memory;
pub use self::types::{FrameResult, ObjectMask, Prompt, Rank, TrackerOptions};
use crate::bundle::{Bundle, Precision};
use crate::masks::prompt::mask_prompt;
use crate::runtime::{ArenaStats, Backend, Copies, Engine, GraphError, Host, Provider, Tensor};
use crate::tracker::memory_bank::MemoryEntry;

/// Tracks objects through the frames of one clip.
///
/// ```no_run
/// use snow_ort::bundle::Bundle;
/// use snow_ort::runtime::{Engine, EngineOptions};
/// use snow_ort::tracker::{Prompt, Tracker, TrackerOptions};
///
/// let bundle = Bundle::open("models/snow-tiny".as_ref())?;
/// let engine = Engine::load(&EngineOptions::default())?;
/// let mut tracker = Tracker::new(&bundle, engine, TrackerOptions::default())?;
/// let side = bundle.manifest().resolution as usize;
/// let prompt = Prompt { object: 1, bbox: Some([120.0, 80.0, 410.0, 460.0]), ..Prompt::default() };
/// for frame in 0..24 {
///     let image = vec![0; side * side * 3]; // the frame, resized to the model's resolution
///     let prompts = if frame == 0 { std::slice::from_ref(&prompt) } else { &[] };
///     let result = tracker.step(frame, image, (640, 480), prompts)?;
///     let mask = result.objects[0].mask(0.0, 640, 480);
///     println!("{frame}: {} pixels", mask.area());
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Tracker {
    stages: Stages,
    spec: ModelSpec,
    options: TrackerOptions,
    cohorts: Vec<Cohort>,
    /// Ids of all objects, in the order in which they were first prompted.
    order: Vec<u32>,
}

impl Tracker {
    /// Loads the graphs of a bundle. Give a clone of the engine to use it for other graphs as well.
    ///
    /// # Errors
    /// [`TrackError::Load`] for a graph that the library or the provider refuses, [`TrackError::Unsupported`] and
    /// [`TrackError::Signature`] for a bundle that this program cannot run.
    pub fn new(
        bundle: &Bundle,
        engine: Engine,
        options: TrackerOptions,
    ) -> Result<Self, TrackError> {
        check_precision(bundle, engine.provider())?;
        Self::sharing(bundle, Arc::new(engine), options)
    }

    /// Loads the graphs of a bundle on a backend that runs other graphs as well.
    ///
    /// # Errors
    /// As [`Tracker::new`].
    pub(crate) fn sharing(
        bundle: &Bundle,
        backend: Arc<dyn Backend>,
        options: TrackerOptions,
    ) -> Result<Self, TrackError> {
        let graphs = Graphs::load(bundle, backend.as_ref())?;
        Self::from_parts(ModelSpec::of(bundle)?, backend, graphs, options)
    }

    /// A tracker from its parts, on any backend: with graphs that are recorded, wrapped or loaded elsewhere.
    ///
    /// # Errors
    /// The backend.
    pub fn from_parts(
        spec: ModelSpec,
        backend: Arc<dyn Backend>,
        graphs: Graphs,
        options: TrackerOptions,
    ) -> Result<Self, TrackError> {
        let stages = Stages::new(&spec, backend, graphs).map_err(TrackError::Load)?;
        let options = TrackerOptions {
            chunk: options.chunk.max(1),
            ..options
        };
        Ok(Self {
            stages,
            spec,
            options,
            cohorts: Vec::new(),
            order: Vec::new(),
        })
    }

    /// Seconds spent in each graph so far.
    pub fn times(&self) -> StageTimes {
        self.stages.times
    }

    /// Bytes that the memory banks of all objects hold.
    pub fn bank_bytes(&self) -> usize {
        self.cohorts.iter().map(|cohort| cohort.bank.bytes()).sum()
    }

    /// Has the arena take `bytes` bytes in all, so that a limit that is too small shows before the first frame.
    ///
    /// # Errors
    /// [`GraphError::ArenaFull`] if they do not fit.
    pub fn reserve(&mut self, bytes: u64) -> Result<(), GraphError> {
        self.stages.reserve(bytes)
    }

    /// What the arena of all graphs holds; `None` for a backend without one.
    ///
    /// # Errors
    /// The library does not answer.
    pub fn arena_stats(&self) -> Result<Option<ArenaStats>, GraphError> {
        self.stages.backend.arena_stats()
    }

    /// Bytes copied between the host and the device so far.
    pub fn copies(&self) -> Copies {
        self.stages.backend.copies()
    }

    /// Tracks the next frame and returns the masks of all objects.
    ///
    /// - `frame`: its index, from 0. Frames come in order, each once.
    /// - `image`: `[resolution, resolution, 3]`, RGB, one byte a value; `resolution` is the manifest's.
    /// - `size`: width and height of the source frame in pixels. Prompts are in its pixels.
    /// - `prompts`: those of this frame. An object starts with its first prompt; a later prompt corrects it. Before the first
    ///   prompt of all, the result has no objects and no graph runs.
    ///
    /// # Errors
    /// [`TrackError::WrongFrame`] for a prompt of another frame, [`TrackError::Graph`] if a graph or the device fails, for example
    /// at the memory limit. The tracker cannot go on after that.
    pub fn step(
        &mut self,
        frame: usize,
        image: Vec<u8>,
        size: (u32, u32),
        prompts: &[Prompt],
    ) -> Result<FrameResult, TrackError> {
        self.step_then(frame, image, size, prompts, &mut |_| Vec::new())
    }

    /// Tracks the next frame, with prompts for new objects that depend on it.
    ///
    /// It does what [`Tracker::step`] does, then calls `more` with the masks of the objects so far, in the order of
    /// [`FrameResult::objects`]. `more` returns prompts of objects that do not exist yet. The result is the same as if they had
    /// been among `prompts`; the image is encoded once.
    ///
    /// # Errors
    /// As [`Tracker::step`].
    pub fn step_then(
        &mut self,
        frame: usize,
        image: Vec<u8>,
        size: (u32, u32),
        prompts: &[Prompt],
        more: &mut dyn FnMut(&[ObjectMask]) -> Vec<Prompt>,
    ) -> Result<FrameResult, TrackError> {
        check_frame(frame, prompts)?;
        let low_size = self.spec.low_size;
        let mut masks = Vec::with_capacity(self.order.len() + prompts.len());
        let mut added = Vec::new();
        let nothing = self.cohorts.is_empty() && prompts.is_empty();
        if nothing {
            added = more(&masks);
            if added.is_empty() {
                return Ok(FrameResult {
                    frame,
                    low_size,
                    objects: masks,
                });
            }
        }
        let graph_error = |source| TrackError::Graph { frame, source };
        let features = self.stages.encode_image(image, false);
        let features = features.map_err(graph_error)?;
        let mut prompted = Vec::with_capacity(prompts.len());
        let mut condition = |tracker: &mut Self, masks: &mut Vec<ObjectMask>, prompt: &Prompt| {
            let mut cohort = tracker.detach(prompt.object)?;
            masks.push(tracker.condition(frame, &features, &mut cohort, prompt, size)?);
            prompted.push(cohort);
            Ok(())
        };
        for prompt in prompts {
            condition(self, &mut masks, prompt).map_err(graph_error)?;
        }
        let mut tracked = std::mem::take(&mut self.cohorts);
        for cohort in &mut tracked {
            masks.extend(self.track(frame, &features, cohort)?);
        }
        self.cohorts = tracked;
        if !nothing {
            self.sort(&mut masks);
            added = more(&masks);
        }
        check_frame(frame, &added)?;
        for prompt in &added {
            condition(self, &mut masks, prompt).map_err(graph_error)?;
        }
        self.cohorts
            .extend(self.merge(prompted).map_err(graph_error)?);
        for cohort in &mut self.cohorts {
            cohort.forget(&self.spec.policy, frame + 1);
        }
        let weak = self.weak(&masks);
        self.select(frame, &weak).map_err(graph_error)?;
        self.sort(&mut masks);
        Ok(FrameResult {
            frame,
            low_size,
            objects: masks,
        })
    }

    /// Puts masks in the order in which their objects were first prompted.
    fn sort(&self, masks: &mut [ObjectMask]) {
        masks.sort_by_key(|mask| self.order.iter().position(|&object| object == mask.object));
    }

    /// Runs a prompt, as `_run_single_frame_inference` of transformers does on an initial conditioning frame.
    fn condition(
        &mut self,
        frame: usize,
        features: &Features,
        cohort: &mut Cohort,
        prompt: &Prompt,
        size: (u32, u32),
    ) -> Result<ObjectMask, GraphError> {
        let side = self.spec.resolution;
        let points = if prompt.mask.is_some() {
            Points::none(1)
        } else {
            Points::of(prompt, size, side)
        };
        let multimask = match &prompt.mask {
            // The object pointer of a mask prompt is that of the best mask that the decoder would have given.
            Some(_) => true,
            None => memory_policy::use_multimask(&self.spec.policy, true, points.labels.len()),
        };
        let pixels = prompt
            .mask
            .as_ref()
            .map(|mask| mask_prompt(mask, side as u32));
        self.condition_on(frame, features, cohort, points, pixels, multimask)
    }

    /// Runs a prompt as the model takes it: points, or `pixels` of a mask, `[resolution, resolution]` from 0 to 1. The frame
    /// becomes a conditioning frame of the cohort's only object.
    fn condition_on(
        &mut self,
        frame: usize,
        features: &Features,
        cohort: &mut Cohort,
        points: Points,
        pixels: Option<Vec<f32>>,
        multimask: bool,
    ) -> Result<ObjectMask, GraphError> {
        let side = self.spec.resolution;
        let backend = Arc::clone(&self.stages.backend);
        let mask = match pixels {
            Some(pixels) => Some(backend.upload(&[1, side, side], Host::F32(pixels))?),
            None => None,
        };
        let decode = DecoderInputs {
            embeddings: if mask.is_some() {
                &features.plain
            } else {
                &features.without_memory
            },
            coords: backend.upload(&[1, points.labels.len(), 2], Host::F32(points.coords))?,
            labels: backend.upload(&[1, points.labels.len()], Host::I64(points.labels))?,
            mask: mask.as_ref(),
            multimask,
        };
        let decoded = self.stages.decode(features, &decode, &cohort.objects)?;
        let memory = self
            .stages
            .encode_memory(features, &decoded, mask.as_ref(), true)?;
        let masks = self.remember(frame, cohort, memory, decoded)?;
        cohort.history.tracked.remove(&frame);
        cohort.history.conditioning.push(frame);
        masks.into_iter().next().ok_or_else(|| GraphError::Tensor {
            name: "low_res_masks".to_owned(),
            expected: "one object".to_owned(),
            got: "none".to_owned(),
        })
    }

    /// Tracks a cohort on a frame without prompts.
    fn track(
        &mut self,
        frame: usize,
        features: &Features,
        cohort: &mut Cohort,
    ) -> Result<Vec<ObjectMask>, TrackError> {
        let decoded = self.predict_cohort(frame, features, cohort)?;
        let graph_error = |source| TrackError::Graph { frame, source };
        let memory = self
            .stages
            .encode_memory(features, &decoded, None, false)
            .map_err(graph_error)?;
        let masks = self
            .remember(frame, cohort, memory, decoded)
            .map_err(graph_error)?;
        cohort.history.tracked.insert(frame);
        Ok(masks)
    }

    /// Predicts the masks of a cohort's objects on a frame, without remembering them.
    fn predict_cohort(
        &mut self,
        frame: usize,
        features: &Features,
        cohort: &Cohort,
    ) -> Result<Decoded, TrackError> {
        let objects = cohort.objects.len();
        let parameters = &self.spec.policy;
        let recall =
            memory_policy::recall(parameters, &cohort.history, frame, self.options.num_frames);
        let recalled = cohort
            .bank
            .recall(
                self.stages.backend.as_ref(),
                self.spec.slots,
                objects,
                &recall,
            )
            .map_err(|source| TrackError::MemoryBank { frame, source })?;
        let horizon = memory_policy::pointer_horizon(parameters, self.options.num_frames);
        // transformers divides in float32.
        let longest = horizon.saturating_sub(1) as f32;
        let memory_time: Vec<i64> = recall
            .memories
            .iter()
            .map(|memory| memory.time_row as i64)
            .collect();
        let pointer_time: Vec<f32> = recall
            .conditioning_pointers
            .iter()
            .chain(&recall.pointers)
            .map(|pointer| pointer.distance as f32 / longest)
            .collect();
        let graph_error = |source| TrackError::Graph { frame, source };
        let conditioned = self
            .stages
            .attend(features, &recalled, memory_time, pointer_time, objects)
            .map_err(graph_error)?;
        let Points { coords, labels } = Points::none(objects);
        let decode = DecoderInputs {
            embeddings: &conditioned,
            coords: self
                .stages
                .backend
                .upload(&[objects, 1, 2], Host::F32(coords))
                .map_err(graph_error)?,
            labels: self
                .stages
                .backend
                .upload(&[objects, 1], Host::I64(labels))
                .map_err(graph_error)?,
            mask: None,
            multimask: memory_policy::use_multimask(&self.spec.policy, false, 0),
        };
        self.stages
            .decode(features, &decode, &cohort.objects)
            .map_err(graph_error)
    }

    /// Puts a frame's memory entry into the cohort's bank, after dropping what no later frame can recall, and returns the masks.
    ///
    /// The arena cannot move a tensor. A graph's output lies between its working memory: kept there, it would leave gaps that the
    /// next graph does not fit in. So the bank keeps a copy, made when that memory is free again.
    fn remember(
        &self,
        frame: usize,
        cohort: &mut Cohort,
        memory: Tensor,
        decoded: Decoded,
    ) -> Result<Vec<ObjectMask>, GraphError> {
        let Decoded {
            low_res,
            score,
            pointers,
            masks,
        } = decoded;
        drop((low_res, score));
        cohort.forget(&self.spec.policy, frame + 1);
        let backend = self.stages.backend.as_ref();
        let rows: Vec<usize> = (0..masks.len()).collect();
        let copied = |tensor: Tensor| backend.gather_rows(&[(&tensor, rows.clone())]);
        let memory = copied(memory)?;
        let pointer = copied(pointers)?;
        let entry = MemoryEntry {
            memory: Some(memory),
            pointer,
        };
        cohort.bank.insert(frame, entry);
        Ok(masks)
    }
}

/// Refuses a bundle that a provider has no kernels for.
///
/// # Errors
/// [`TrackError::Unsupported`].
pub(crate) fn check_precision(bundle: &Bundle, provider: Provider) -> Result<(), TrackError> {
    let precision = bundle.manifest().precision;
    if (provider, precision) == (Provider::Cuda, Precision::Int8) {
        // The provider has no integer kernels: every linear layer would go through the host.
        return Err(TrackError::Unsupported {
            field: "precision",
            got: precision.to_string(),
            expected: "fp16 or fp32 on a GPU (int8 is for --provider cpu)",
        });
    }
    Ok(())
}

/// Refuses prompts of another frame.
///
/// # Errors
/// [`TrackError::WrongFrame`].
fn check_frame(frame: usize, prompts: &[Prompt]) -> Result<(), TrackError> {
    match prompts.iter().find(|prompt| prompt.frame != frame) {
        None => Ok(()),
        Some(prompt) => Err(TrackError::WrongFrame {
            frame,
            object: prompt.object,
            meant: prompt.frame,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assert_send<T: Send>() {}

    #[test]
    fn a_tracker_can_move_to_another_thread() {
        assert_send::<Tracker>();
    }
}
