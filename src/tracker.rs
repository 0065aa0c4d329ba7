//! The tracker: one frame for all objects, in chunks.
//!
//! A prompt takes effect when its frame is reached: the frame becomes a conditioning frame of the object, and the
//! object's other frames are tracked from what its memory holds. Objects that share their history are tracked in one
//! batch (a cohort), which gives the same result as one after the other.

use std::time::Instant;

use crate::bank::{Bank, BankError, Entry, Slots};
use crate::bundle::{Bundle, DType, Role};
use crate::graph::{Backend, Element, Graph, GraphError, Host, Runtime, Tensor};
use crate::media::mask::{BinaryMask, mask_prompt};
use crate::policy::{self, History, Parameters};

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

/// Seconds spent in each stage so far.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct StageTimes {
    /// Image to features.
    pub vision_encoder_s: f64,
    /// Features conditioned on memory.
    pub memory_attention_s: f64,
    /// Masks, scores and pointers.
    pub mask_decoder_s: f64,
    /// Masks to memory.
    pub memory_encoder_s: f64,
}

/// How to track.
#[derive(Debug, Clone, Copy)]
pub struct TrackerOptions {
    /// Frames of the clip; counts beyond the manifest's `max_object_pointers` make no difference.
    pub num_frames: usize,
    /// Most objects in one batch.
    pub chunk: usize,
}

/// What the tracker needs to know of a model; all of it comes from a manifest.
#[derive(Debug, Clone)]
pub struct ModelSpec {
    /// Side of the model's image in pixels.
    pub resolution: usize,
    /// Side of the low-resolution masks.
    pub low_size: usize,
    /// Memory policy.
    pub policy: Parameters,
    /// Slots of the memory attention graph.
    pub slots: Slots,
}

/// The four graphs.
pub struct Graphs {
    /// Image to features.
    pub vision_encoder: Box<dyn Graph>,
    /// Features conditioned on memory.
    pub memory_attention: Box<dyn Graph>,
    /// Masks, scores and pointers.
    pub mask_decoder: Box<dyn Graph>,
    /// Masks to memory.
    pub memory_encoder: Box<dyn Graph>,
}

/// What stops the tracker.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrackError {
    /// A graph or the device.
    #[error("frame {frame}: {source}")]
    Graph {
        /// The frame.
        frame: usize,
        /// The cause.
        source: GraphError,
    },
    /// The memory bank.
    #[error("frame {frame}: {source}")]
    Bank {
        /// The frame.
        frame: usize,
        /// The cause.
        source: BankError,
    },
    /// A graph cannot be prepared.
    #[error(transparent)]
    Load(GraphError),
    /// The manifest asks for something that this program does not know.
    #[error(
        "the bundle's {field} is {got}, expected {expected}; export it again with a matching snow-export"
    )]
    Unsupported {
        /// Field of the manifest.
        field: &'static str,
        /// What is there.
        got: String,
        /// What can be used.
        expected: &'static str,
    },
    /// A prompt came late.
    #[error(
        "frame {frame}: a prompt of object {object} is for frame {meant}; frames go forward only"
    )]
    WrongFrame {
        /// The frame at hand.
        frame: usize,
        /// The object.
        object: u32,
        /// The prompt's frame.
        meant: usize,
    },
}

/// Objects with the same history, and their memory.
struct Cohort {
    objects: Vec<u32>,
    history: History,
    bank: Bank,
}

/// What the image of a frame becomes.
struct Features {
    plain: Tensor,
    without_memory: Tensor,
    high_res: [Tensor; 2],
}

/// Inputs of the mask decoder beside the features; `points` rows are objects.
struct Decode<'a> {
    embeddings: &'a Tensor,
    coords: Tensor,
    labels: Tensor,
    mask: Option<&'a Tensor>,
    multimask: bool,
}

/// Outputs of the mask decoder for a cohort.
struct Decoded {
    low_res: Tensor,
    score: Tensor,
    pointers: Tensor,
    masks: Vec<ObjectMask>,
}

/// Tracks objects through the frames of one clip.
pub struct Tracker {
    backend: Box<dyn Backend>,
    graphs: Graphs,
    spec: ModelSpec,
    options: TrackerOptions,
    cohorts: Vec<Cohort>,
    order: Vec<u32>,
    no_mask: Tensor,
    times: StageTimes,
}

impl ModelSpec {
    /// Reads what the tracker needs from a bundle.
    ///
    /// # Errors
    /// [`TrackError::Unsupported`] for a memory policy or a memory dtype that this program does not know.
    pub fn of(bundle: &Bundle) -> Result<Self, TrackError> {
        let manifest = bundle.manifest();
        let policy = &manifest.policy;
        if policy.name != "sam2_memory_bank" {
            return Err(TrackError::Unsupported {
                field: "policy.name",
                got: policy.name.clone(),
                expected: "sam2_memory_bank",
            });
        }
        let element = |field, dtype: &DType| match dtype {
            DType::Float32 => Ok(Element::F32),
            DType::Float16 => Ok(Element::F16),
            DType::Bfloat16 => Ok(Element::Bf16),
            other => Err(TrackError::Unsupported {
                field,
                got: format!("{other:?}"),
                expected: "a floating-point dtype",
            }),
        };
        let pointers = manifest
            .graphs
            .iter()
            .filter(|graph| graph.role == Role::MaskDecoder)
            .flat_map(|graph| &graph.outputs)
            .find(|output| output.name == "pointers");
        let pointer_element = match pointers {
            Some(output) => element("mask_decoder.pointers", &output.dtype)?,
            None => {
                return Err(TrackError::Unsupported {
                    field: "mask_decoder",
                    got: "without output pointers".to_owned(),
                    expected: "an output pointers",
                });
            }
        };
        Ok(Self {
            resolution: manifest.resolution as usize,
            low_size: manifest.masks.low_res as usize,
            policy: Parameters {
                num_maskmem: policy.num_maskmem as usize,
                max_cond_frames: policy.max_cond_frames as usize,
                max_object_pointers: policy.max_object_pointers as usize,
                multimask_output_in_sam: policy.multimask_output_in_sam,
                multimask_output_for_tracking: policy.multimask_output_for_tracking,
                multimask_min_points: policy.multimask_min_points as usize,
                multimask_max_points: policy.multimask_max_points as usize,
            },
            slots: Slots {
                memories: (policy.max_cond_frames + policy.num_maskmem) as usize - 1,
                pointers: policy.max_object_pointers as usize - 1,
                channels: manifest.memory.channels as usize,
                memory_element: element("memory.dtype", &manifest.memory.dtype)?,
                pointer_element,
            },
        })
    }
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
        let spec = ModelSpec::of(bundle)?;
        let load = |role: Role, name: &'static str| {
            let path = bundle
                .graph_path(role)
                .ok_or_else(|| TrackError::Unsupported {
                    field: name,
                    got: "absent".to_owned(),
                    expected: "a graph of this role",
                })?;
            runtime.load(name, &path).map_err(TrackError::Load)
        };
        let graphs = Graphs {
            vision_encoder: load(Role::VisionEncoder, "vision_encoder")?,
            memory_attention: load(Role::MemoryAttention, "memory_attention")?,
            mask_decoder: load(Role::MaskDecoder, "mask_decoder")?,
            memory_encoder: load(Role::MemoryEncoder, "memory_encoder")?,
        };
        Self::from_parts(spec, Box::new(runtime), graphs, options)
    }

    /// A tracker on any backend.
    ///
    /// # Errors
    /// The backend.
    pub fn from_parts(
        spec: ModelSpec,
        backend: Box<dyn Backend>,
        graphs: Graphs,
        options: TrackerOptions,
    ) -> Result<Self, TrackError> {
        let side = spec.resolution;
        let no_mask = backend
            .upload(&[1, side, side], Host::F32(vec![0.0; side * side]))
            .map_err(TrackError::Load)?;
        let options = TrackerOptions {
            chunk: options.chunk.max(1),
            ..options
        };
        Ok(Self {
            backend,
            graphs,
            spec,
            options,
            cohorts: Vec::new(),
            order: Vec::new(),
            no_mask,
            times: StageTimes::default(),
        })
    }

    /// Seconds spent so far.
    pub fn times(&self) -> StageTimes {
        self.times
    }

    /// Bytes that the memory bank holds.
    pub fn bank_bytes(&self) -> usize {
        self.cohorts.iter().map(|cohort| cohort.bank.bytes()).sum()
    }

    /// Number of objects so far.
    pub fn objects(&self) -> usize {
        self.order.len()
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
        if let Some(prompt) = prompts.iter().find(|prompt| prompt.frame != frame) {
            return Err(TrackError::WrongFrame {
                frame,
                object: prompt.object,
                meant: prompt.frame,
            });
        }
        let low_size = self.spec.low_size;
        if self.cohorts.is_empty() && prompts.is_empty() {
            return Ok(FrameResult {
                frame,
                low_size,
                objects: Vec::new(),
            });
        }
        let graph_error = |source| TrackError::Graph { frame, source };
        let features = self.encode_image(image).map_err(graph_error)?;
        let mut masks = Vec::with_capacity(self.order.len() + prompts.len());
        let mut prompted = Vec::with_capacity(prompts.len());
        for prompt in prompts {
            let mut cohort = self.detach(prompt.object).map_err(graph_error)?;
            masks.push(
                self.condition(frame, &features, &mut cohort, prompt, size)
                    .map_err(graph_error)?,
            );
            prompted.push(cohort);
        }
        let mut tracked = std::mem::take(&mut self.cohorts);
        for cohort in &mut tracked {
            masks.extend(self.track(frame, &features, cohort)?);
        }
        self.cohorts = tracked;
        self.cohorts
            .extend(self.merge(prompted).map_err(graph_error)?);
        for cohort in &mut self.cohorts {
            cohort.forget(&self.spec.policy, frame + 1);
        }
        masks.sort_by_key(|mask| self.order.iter().position(|&object| object == mask.object));
        Ok(FrameResult {
            frame,
            low_size,
            objects: masks,
        })
    }

    fn encode_image(&mut self, image: Vec<u8>) -> Result<Features, GraphError> {
        let side = self.spec.resolution;
        let image = self.backend.upload(&[1, side, side, 3], Host::U8(image))?;
        let start = Instant::now();
        let names = [
            "features_nlc",
            "features_no_memory_nlc",
            "high_res_0_nchw",
            "high_res_1_nchw",
        ];
        let outputs = self
            .graphs
            .vision_encoder
            .run(&[("image", &image)], &names)?;
        self.times.vision_encoder_s += start.elapsed().as_secs_f64();
        let [plain, without_memory, high_res_0, high_res_1] = exactly("vision_encoder", outputs)?;
        Ok(Features {
            plain,
            without_memory,
            high_res: [high_res_0, high_res_1],
        })
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
        let backend = self.backend.as_ref();
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
            let bank = Bank::gather(self.backend.as_ref(), &sources)?;
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
            None => policy::use_multimask(&self.spec.policy, true, labels.len()),
        };
        let mask = match &prompt.mask {
            Some(mask) => {
                let pixels = mask_prompt(mask, side as u32);
                Some(self.backend.upload(&[1, side, side], Host::F32(pixels))?)
            }
            None => None,
        };
        let decode = Decode {
            embeddings: if mask.is_some() {
                &features.plain
            } else {
                &features.without_memory
            },
            coords: self
                .backend
                .upload(&[1, labels.len(), 2], Host::F32(coords))?,
            labels: self.backend.upload(&[1, labels.len()], Host::I64(labels))?,
            mask: mask.as_ref(),
            multimask,
        };
        let decoded = self.decode(features, &decode, &cohort.objects)?;
        let memory = self.encode_memory(features, &decoded, mask.as_ref(), true)?;
        cohort.bank.insert(
            frame,
            Entry {
                memory: Some(memory),
                pointer: decoded.pointers,
            },
        );
        cohort.history.tracked.remove(&frame);
        cohort.history.cond.push(frame);
        decoded
            .masks
            .into_iter()
            .next()
            .ok_or_else(|| GraphError::Tensor {
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
        let objects = cohort.objects.len();
        let parameters = &self.spec.policy;
        let recall = policy::recall(parameters, &cohort.history, frame, self.options.num_frames);
        let recalled = cohort
            .bank
            .recall(self.backend.as_ref(), self.spec.slots, objects, &recall)
            .map_err(|source| TrackError::Bank { frame, source })?;
        let horizon = policy::pointer_horizon(parameters, self.options.num_frames);
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
            .attend(features, &recalled, memory_time, pointer_time, objects)
            .map_err(graph_error)?;
        let (coords, labels) = no_points(objects);
        let decode = Decode {
            embeddings: &conditioned,
            coords: self
                .backend
                .upload(&[objects, 1, 2], Host::F32(coords))
                .map_err(graph_error)?,
            labels: self
                .backend
                .upload(&[objects, 1], Host::I64(labels))
                .map_err(graph_error)?,
            mask: None,
            multimask: policy::use_multimask(&self.spec.policy, false, 0),
        };
        let decoded = self
            .decode(features, &decode, &cohort.objects)
            .map_err(graph_error)?;
        let memory = self
            .encode_memory(features, &decoded, None, false)
            .map_err(graph_error)?;
        cohort.bank.insert(
            frame,
            Entry {
                memory: Some(memory),
                pointer: decoded.pointers,
            },
        );
        cohort.history.tracked.insert(frame);
        Ok(decoded.masks)
    }

    fn attend(
        &mut self,
        features: &Features,
        recalled: &crate::bank::Recalled,
        memory_time: Vec<i64>,
        pointer_time: Vec<f32>,
        objects: usize,
    ) -> Result<Tensor, GraphError> {
        let entries = memory_time.len();
        let memory_time = self
            .backend
            .upload(&[objects, entries], Host::I64(memory_time.repeat(objects)))?;
        let pointers = pointer_time.len();
        let pointer_time = match pointers {
            0 => self.backend.empty(Element::F32, &[objects, 0])?,
            _ => self.backend.upload(
                &[objects, pointers],
                Host::F32(pointer_time.repeat(objects)),
            )?,
        };
        let memory_names: Vec<String> = (0..recalled.memories.len())
            .map(|i| format!("memory_{i}"))
            .collect();
        let pointer_names: Vec<String> = (1..=recalled.pointers.len())
            .map(|i| format!("pointers_{i}"))
            .collect();
        let mut inputs = vec![
            ("features_nlc", &features.plain),
            ("pointers_cond", &recalled.cond_pointers),
        ];
        inputs.extend(
            memory_names
                .iter()
                .map(String::as_str)
                .zip(&recalled.memories),
        );
        inputs.extend(
            pointer_names
                .iter()
                .map(String::as_str)
                .zip(&recalled.pointers),
        );
        inputs.push(("memory_time", &memory_time));
        inputs.push(("pointer_time", &pointer_time));
        let start = Instant::now();
        let outputs = self
            .graphs
            .memory_attention
            .run(&inputs, &["conditioned_nlc"])?;
        self.times.memory_attention_s += start.elapsed().as_secs_f64();
        let [conditioned] = exactly("memory_attention", outputs)?;
        Ok(conditioned)
    }

    fn decode(
        &mut self,
        features: &Features,
        decode: &Decode,
        objects: &[u32],
    ) -> Result<Decoded, GraphError> {
        let has_mask = self
            .backend
            .upload(&[1], Host::Bool(vec![decode.mask.is_some()]))?;
        let multimask = self
            .backend
            .upload(&[1], Host::Bool(vec![decode.multimask]))?;
        let inputs = [
            ("embeddings_nlc", decode.embeddings),
            ("high_res_0_nchw", &features.high_res[0]),
            ("high_res_1_nchw", &features.high_res[1]),
            ("point_coords", &decode.coords),
            ("point_labels", &decode.labels),
            ("mask_prompt", decode.mask.unwrap_or(&self.no_mask)),
            ("has_mask_prompt", &has_mask),
            ("multimask", &multimask),
        ];
        let start = Instant::now();
        let outputs = self.graphs.mask_decoder.run(
            &inputs,
            &["low_res_masks", "object_score", "iou", "pointers"],
        )?;
        self.times.mask_decoder_s += start.elapsed().as_secs_f64();
        let [low_res, score, iou, pointers] = exactly("mask_decoder", outputs)?;
        let logits = self.backend.download(&low_res)?;
        let scores = self.backend.download(&score)?;
        let ious = self.backend.download(&iou)?;
        let area = self.spec.low_size * self.spec.low_size;
        if logits.len() != area * objects.len() || scores.len() != objects.len() {
            return Err(GraphError::Tensor {
                name: "low_res_masks".to_owned(),
                expected: format!("{} masks of {area} logits", objects.len()),
                got: format!("{} logits and {} scores", logits.len(), scores.len()),
            });
        }
        let masks = objects
            .iter()
            .zip(logits.chunks_exact(area))
            .zip(&scores)
            .enumerate()
            .map(|(row, ((&object, low_res), &score))| ObjectMask {
                object,
                low_res: low_res.to_vec(),
                score,
                iou: ious.get(row).copied(),
            })
            .collect();
        Ok(Decoded {
            low_res,
            score,
            pointers,
            masks,
        })
    }

    fn encode_memory(
        &mut self,
        features: &Features,
        decoded: &Decoded,
        mask: Option<&Tensor>,
        from_prompt: bool,
    ) -> Result<Tensor, GraphError> {
        let objects = decoded.masks.len();
        let has_mask = self
            .backend
            .upload(&[1], Host::Bool(vec![mask.is_some()]))?;
        let from_prompt = self
            .backend
            .upload(&[objects], Host::Bool(vec![from_prompt; objects]))?;
        let inputs = [
            ("features_nlc", &features.plain),
            ("low_res_masks", &decoded.low_res),
            ("mask_prompt", mask.unwrap_or(&self.no_mask)),
            ("has_mask_prompt", &has_mask),
            ("object_score", &decoded.score),
            ("from_prompt", &from_prompt),
        ];
        let start = Instant::now();
        let outputs = self.graphs.memory_encoder.run(&inputs, &["memory_nlc"])?;
        self.times.memory_encoder_s += start.elapsed().as_secs_f64();
        let [memory] = exactly("memory_encoder", outputs)?;
        Ok(memory)
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
            let reachable = policy::reachable(parameters, &history, frame, next);
            (reachable.memory, reachable.pointer)
        });
        let held: std::collections::BTreeSet<usize> = self.bank.frames().collect();
        self.history.tracked.retain(|frame| held.contains(frame));
    }
}

fn exactly<const N: usize>(role: &str, outputs: Vec<Tensor>) -> Result<[Tensor; N], GraphError> {
    let count = outputs.len();
    outputs.try_into().map_err(|_| GraphError::Tensor {
        name: format!("outputs of {role}"),
        expected: N.to_string(),
        got: count.to_string(),
    })
}

/// "No point" for each object: what the reference gives its prompt encoder on frames without a prompt.
fn no_points(objects: usize) -> (Vec<f32>, Vec<i64>) {
    (vec![0.0; 2 * objects], vec![-1; objects])
}

/// A box's corners (labels 2 and 3), then points, scaled to the model's image as the reference's processor does.
fn points_of(prompt: &Prompt, size: (u32, u32), side: usize) -> (Vec<f32>, Vec<i64>) {
    let ratio = |length: u32| (side as f64 / f64::from(length)) as f32;
    let (x_ratio, y_ratio) = (ratio(size.0), ratio(size.1));
    let mut coords = Vec::new();
    let mut labels = Vec::new();
    let mut push = |x: f32, y: f32, label: i64| {
        coords.extend([x * x_ratio, y * y_ratio]);
        labels.push(label);
    };
    if let Some([x1, y1, x2, y2]) = prompt.bbox {
        push(x1, y1, 2);
        push(x2, y2, 3);
    }
    for &[x, y, label] in &prompt.points {
        push(x, y, label as i64);
    }
    (coords, labels)
}
