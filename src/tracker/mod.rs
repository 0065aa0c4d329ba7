//! The tracker: one frame for all objects, in chunks.
//!
//! A prompt takes effect when its frame is reached: the frame becomes a conditioning frame of the object, and the
//! object's other frames are tracked from what its memory holds. Objects that share their history are tracked in one
//! batch (a cohort), which gives the same result as one after the other.

mod error;
pub mod memory_bank;
pub mod memory_policy;
mod memory_selection;
mod model;
mod points;
mod selected_cohorts;
mod stages;
mod steps;

use std::rc::Rc;

pub use self::error::TrackError;
pub(crate) use self::model::element_of;
pub use self::model::{Graphs, ModelSpec};
pub(crate) use self::model::{check_signature, graph_file, load_graph};
use self::points::{no_points, points_of};
pub use self::stages::StageTimes;
use self::stages::{Decode, Decoded, Features, Stages};
pub(crate) use self::stages::{VALUE_PADDING, padding_width, value_padding};
pub(crate) use self::steps::Memory;
use crate::bundle::{Bundle, Precision};
use crate::media::mask::{BinaryMask, mask_prompt};
use crate::runtime::{ArenaStats, Backend, Copies, GraphError, Host, Provider, Runtime, Tensor};
use crate::tracker::memory_bank::{Bank, Entry};
use crate::tracker::memory_policy::{History, Parameters};

/// What the user says of an object on a frame, in pixels of the source frame.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Prompt {
    /// The frame, from 0.
    pub frame: usize,
    /// The object's id, from 1.
    pub object: u32,
    /// Points as x, y, label (1 on the object, 0 beside it).
    pub points: Vec<[f32; 3]>,
    /// Box as x1, y1, x2, y2.
    pub bbox: Option<[f32; 4]>,
    /// The whole object on this frame; stands alone.
    pub mask: Option<BinaryMask>,
}

/// One object on one frame.
#[derive(Debug, Clone, PartialEq)]
pub struct ObjectMask {
    /// The object's id.
    pub object: u32,
    /// `[low_size, low_size]` mask logits.
    pub low_res: Vec<f32>,
    /// Logit of the object being visible.
    pub score: f32,
    /// The model's own estimate of the mask's IoU.
    pub iou: Option<f32>,
    /// Who gets a pixel that several objects claim; absent where the higher logit does.
    pub rank: Option<Rank>,
}

/// An object's claim to pixels: of the objects of one group, the one with the highest share gets them whole.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rank {
    /// The group: what was found for one text.
    pub group: usize,
    /// How likely the object is there, 0 to 1.
    pub share: f32,
}

/// All objects of one frame.
#[derive(Debug, Clone, PartialEq)]
pub struct FrameResult {
    /// The frame, from 0.
    pub frame: usize,
    /// Side of the low-resolution masks.
    pub low_size: usize,
    /// Objects in the order in which they were first prompted.
    pub objects: Vec<ObjectMask>,
}

/// How to track.
#[derive(Debug, Clone, Copy, Default)]
pub struct TrackerOptions {
    /// Frames of the clip; counts beyond the manifest's `max_object_pointers` make no difference.
    pub num_frames: usize,
    /// Most objects in one batch.
    pub chunk: usize,
}

/// Objects with the same history, and their memory.
struct Cohort {
    objects: Vec<u32>,
    history: History,
    bank: Bank,
}

/// Tracks objects through the frames of one clip.
pub struct Tracker {
    stages: Stages,
    spec: ModelSpec,
    options: TrackerOptions,
    cohorts: Vec<Cohort>,
    order: Vec<u32>,
}

impl Tracker {
    /// Loads the graphs of a bundle.
    ///
    /// # Errors
    /// A graph that the library or the provider refuses, or a manifest that this program does not understand.
    pub fn new(
        bundle: &Bundle,
        runtime: Runtime,
        options: TrackerOptions,
    ) -> Result<Self, TrackError> {
        check_precision(bundle, runtime.provider())?;
        Self::sharing(bundle, Rc::new(runtime), options)
    }

    /// Loads the graphs of a bundle on a backend that others use too.
    ///
    /// # Errors
    /// As [`Tracker::new`].
    pub(crate) fn sharing(
        bundle: &Bundle,
        backend: Rc<dyn Backend>,
        options: TrackerOptions,
    ) -> Result<Self, TrackError> {
        let graphs = Graphs::load(bundle, backend.as_ref())?;
        Self::from_parts(ModelSpec::of(bundle)?, backend, graphs, options)
    }

    /// A tracker on any backend.
    ///
    /// # Errors
    /// The backend.
    pub fn from_parts(
        spec: ModelSpec,
        backend: Rc<dyn Backend>,
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

    /// Seconds spent so far.
    pub fn times(&self) -> StageTimes {
        self.stages.times
    }

    /// Bytes that the memory bank holds.
    pub fn bank_bytes(&self) -> usize {
        self.cohorts.iter().map(|cohort| cohort.bank.bytes()).sum()
    }

    /// Has the arena take `bytes` bytes in all, so that what does not fit shows before the first frame.
    ///
    /// # Errors
    /// [`GraphError::ArenaFull`].
    pub fn reserve(&mut self, bytes: u64) -> Result<(), GraphError> {
        self.stages.reserve(bytes)
    }

    /// What the arena of all graphs holds; `None` for a backend without one.
    ///
    /// # Errors
    /// A library that does not say.
    pub fn arena_stats(&self) -> Result<Option<ArenaStats>, GraphError> {
        self.stages.backend.arena_stats()
    }

    /// What went between the host and the device so far.
    pub fn copies(&self) -> Copies {
        self.stages.backend.copies()
    }

    /// Tracks the next frame.
    ///
    /// `image` is `[resolution, resolution, 3]` RGB; `size` is the source frame's width and height, in which prompts
    /// are given. Frames come in order, each once; before the first prompt the result has no objects and no graph runs.
    ///
    /// # Errors
    /// See [`TrackError`].
    pub fn step(
        &mut self,
        frame: usize,
        image: Vec<u8>,
        size: (u32, u32),
        prompts: &[Prompt],
    ) -> Result<FrameResult, TrackError> {
        self.step_then(frame, image, size, prompts, &mut |_| Vec::new())
    }

    /// As [`Tracker::step`], with more prompts on this frame once its objects are known: `more` sees their masks, in the
    /// order of [`FrameResult::objects`], and names objects that do not exist yet. The result is the same as if it had
    /// been known before.
    ///
    /// # Errors
    /// See [`TrackError`].
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

    /// Takes an object out of its cohort, or makes a new one for it.
    fn detach(&mut self, object: u32) -> Result<Cohort, GraphError> {
        let home = self
            .cohorts
            .iter()
            .position(|cohort| cohort.objects.contains(&object));
        let Some(home) = home else {
            self.order.push(object);
            return Ok(Cohort {
                objects: vec![object],
                history: History::default(),
                bank: Bank::default(),
            });
        };
        let cohort = &self.cohorts[home];
        if cohort.objects.len() == 1 {
            return Ok(self.cohorts.remove(home));
        }
        let (mine, others): (Vec<usize>, Vec<usize>) =
            (0..cohort.objects.len()).partition(|&row| cohort.objects[row] == object);
        let backend = self.stages.backend.as_ref();
        let detached = cohort.part(backend, &mine)?;
        let rest = cohort.part(backend, &others)?;
        self.cohorts[home] = rest;
        Ok(detached)
    }

    /// Puts cohorts with the same history together, as far as a chunk holds them.
    fn merge(&self, cohorts: Vec<Cohort>) -> Result<Vec<Cohort>, GraphError> {
        let mut groups: Vec<Vec<Cohort>> = Vec::new();
        for cohort in cohorts {
            let fits = |group: &&mut Vec<Cohort>| {
                group
                    .iter()
                    .map(|member| member.objects.len())
                    .sum::<usize>()
                    + cohort.objects.len()
                    <= self.options.chunk
                    && group[0].history == cohort.history
                    && group[0].bank.frames().eq(cohort.bank.frames())
            };
            match groups.iter_mut().find(fits) {
                Some(group) => group.push(cohort),
                None => groups.push(vec![cohort]),
            }
        }
        let mut merged = Vec::with_capacity(groups.len());
        for mut group in groups {
            if group.len() == 1 {
                merged.append(&mut group);
                continue;
            }
            let sources: Vec<(&Bank, Vec<usize>)> = group
                .iter()
                .map(|member| (&member.bank, (0..member.objects.len()).collect()))
                .collect();
            let bank = Bank::gather(self.stages.backend.as_ref(), &sources)?;
            let objects = group
                .iter()
                .flat_map(|member| member.objects.iter().copied())
                .collect();
            merged.push(Cohort {
                objects,
                history: group.swap_remove(0).history,
                bank,
            });
        }
        Ok(merged)
    }

    /// Runs a prompt; the reference's `_run_single_frame_inference` on an initial conditioning frame.
    fn condition(
        &mut self,
        frame: usize,
        features: &Features,
        cohort: &mut Cohort,
        prompt: &Prompt,
        size: (u32, u32),
    ) -> Result<ObjectMask, GraphError> {
        let side = self.spec.resolution;
        let (coords, labels) = if prompt.mask.is_some() {
            no_points(1)
        } else {
            points_of(prompt, size, side)
        };
        let multimask = match &prompt.mask {
            // The pointer of a mask prompt is that of the best mask the decoder would have given.
            Some(_) => true,
            None => memory_policy::use_multimask(&self.spec.policy, true, labels.len()),
        };
        let pixels = prompt
            .mask
            .as_ref()
            .map(|mask| mask_prompt(mask, side as u32));
        self.condition_on(frame, features, cohort, (coords, labels), pixels, multimask)
    }

    /// Runs a prompt as the model takes it: points with labels, or a mask `[resolution, resolution]` of 0 to 1.
    fn condition_on(
        &mut self,
        frame: usize,
        features: &Features,
        cohort: &mut Cohort,
        (coords, labels): (Vec<f32>, Vec<i64>),
        pixels: Option<Vec<f32>>,
        multimask: bool,
    ) -> Result<ObjectMask, GraphError> {
        let side = self.spec.resolution;
        let backend = Rc::clone(&self.stages.backend);
        let mask = match pixels {
            Some(pixels) => Some(backend.upload(&[1, side, side], Host::F32(pixels))?),
            None => None,
        };
        let decode = Decode {
            embeddings: if mask.is_some() {
                &features.plain
            } else {
                &features.without_memory
            },
            coords: backend.upload(&[1, labels.len(), 2], Host::F32(coords))?,
            labels: backend.upload(&[1, labels.len()], Host::I64(labels))?,
            mask: mask.as_ref(),
            multimask,
        };
        let decoded = self.stages.decode(features, &decode, &cohort.objects)?;
        let memory = self
            .stages
            .encode_memory(features, &decoded, mask.as_ref(), true)?;
        let masks = self.remember(frame, cohort, memory, decoded)?;
        cohort.history.tracked.remove(&frame);
        cohort.history.cond.push(frame);
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

    /// What a cohort's objects look like on a frame, which they do not remember yet.
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
            .map_err(|source| TrackError::Bank { frame, source })?;
        let horizon = memory_policy::pointer_horizon(parameters, self.options.num_frames);
        // The reference divides in float32.
        let longest = horizon.saturating_sub(1) as f32;
        let memory_time: Vec<i64> = recall
            .memories
            .iter()
            .map(|memory| memory.time_row as i64)
            .collect();
        let pointer_time: Vec<f32> = recall
            .cond_pointers
            .iter()
            .chain(&recall.pointers)
            .map(|pointer| pointer.distance as f32 / longest)
            .collect();
        let graph_error = |source| TrackError::Graph { frame, source };
        let conditioned = self
            .stages
            .attend(features, &recalled, memory_time, pointer_time, objects)
            .map_err(graph_error)?;
        let (coords, labels) = no_points(objects);
        let decode = Decode {
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

    /// Puts what a frame leaves in the cohort's bank, in place of what no later frame can recall, and gives the masks.
    ///
    /// The arena cannot move a tensor. A graph's output lies amid its working memory: kept there, it would leave gaps
    /// that the next graph does not fit in. A copy made once that memory is free takes the place of what was forgotten.
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
        let settled = |tensor: Tensor| backend.gather_rows(&[(&tensor, rows.clone())]);
        let memory = settled(memory)?;
        let pointer = settled(pointers)?;
        let entry = Entry {
            memory: Some(memory),
            pointer,
        };
        cohort.bank.insert(frame, entry);
        Ok(masks)
    }
}

impl Cohort {
    fn part(&self, backend: &dyn Backend, rows: &[usize]) -> Result<Self, GraphError> {
        Ok(Self {
            objects: rows.iter().map(|&row| self.objects[row]).collect(),
            history: self.history.clone(),
            bank: self.bank.select(backend, rows)?,
        })
    }

    /// Drops what no frame from `next` on can recall.
    fn forget(&mut self, parameters: &Parameters, next: usize) {
        let history = self.history.clone();
        self.bank.retain(|frame| {
            let reachable = memory_policy::reachable(parameters, &history, frame, next);
            (reachable.memory, reachable.pointer)
        });
        let held: std::collections::BTreeSet<usize> = self.bank.frames().collect();
        self.history.tracked.retain(|frame| held.contains(frame));
        self.history.weak.retain(|frame| held.contains(frame));
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

/// Frames go forward only: prompts are for the frame at hand.
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
