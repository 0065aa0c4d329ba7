//! One run of each graph: names its inputs, times it, and copies to the host what is read there.

use std::sync::Arc;
use std::time::Instant;

use super::ObjectMask;
use super::model::{Graphs, ModelSpec};
use crate::masks::Logits;
use crate::runtime::{Backend, Element, GraphError, Host, Tensor, exactly};
use crate::tracker::memory_bank::RecalledTensors;

/// Seconds spent in each graph so far.
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

/// Outputs of the vision encoder, in the order of the fields of [`Features`].
const FEATURES: [&str; 4] = [
    "features_nlc",
    "features_no_memory_nlc",
    "high_res_0_nchw",
    "high_res_1_nchw",
];

/// Input of the memory attention: zeros that make its values wider.
pub(crate) const VALUE_PADDING: &str = "value_padding";

/// The [`VALUE_PADDING`] that attention wants on a backend, f32 `[1, 1, gap]` or without elements; `gap` is
/// [`Manifest::value_gap`](crate::bundle::Manifest::value_gap).
///
/// # Errors
/// No memory.
pub(crate) fn value_padding(backend: &dyn Backend, gap: usize) -> Result<Tensor, GraphError> {
    match padding_width(backend, gap) {
        0 => backend.empty(Element::F32, &[1, 1, 0]),
        width => backend.upload(&[1, 1, width], Host::F32(vec![0.0; width])),
    }
}

/// How many channels of zeros values get on a backend, where keys are wider by `gap`.
pub(crate) fn padding_width(backend: &dyn Backend, gap: usize) -> usize {
    if backend.wants_equal_widths() { gap } else { 0 }
}

/// The features of a frame. The next frame's may overwrite them, so they must not be kept.
pub(super) struct Features {
    /// `[1, tokens, channels]`.
    pub(super) plain: Tensor,
    /// `[1, tokens, channels]`, with the model's "no memory" embedding added.
    pub(super) without_memory: Tensor,
    /// Feature maps of four and two times the grid's side, `[1, channels, side, side]`.
    pub(super) high_res: [Tensor; 2],
    /// Backbone tokens for a detector, if they were asked for.
    pub(super) backbone: Option<Tensor>,
}

/// Inputs of the mask decoder beside the high-resolution features. Rows are objects.
pub(super) struct DecoderInputs<'a> {
    /// `[objects or 1, tokens, channels]`.
    pub(super) embeddings: &'a Tensor,
    /// `[objects, points, 2]`, in pixels of the model's image.
    pub(super) coords: Tensor,
    /// `[objects, points]`.
    pub(super) labels: Tensor,
    /// A mask prompt, `[1, resolution, resolution]`.
    pub(super) mask: Option<&'a Tensor>,
    /// Whether the best of several masks is chosen.
    pub(super) multimask: bool,
}

/// Inputs of the memory encoder beside the features.
pub(super) struct MemoryInputs<'a> {
    /// `[objects, low_size, low_size]`.
    pub(super) low_res: &'a Tensor,
    /// `[objects]`.
    pub(super) score: &'a Tensor,
    pub(super) objects: usize,
    /// A mask that is remembered in place of the logits, `[1, resolution, resolution]`.
    pub(super) mask: Option<&'a Tensor>,
    /// Whether the logits are binarised, as those of prompts are.
    pub(super) from_prompt: bool,
    /// Whether the logits are resized in one step.
    pub(super) direct: bool,
}

/// Outputs of the mask decoder for a cohort.
pub(super) struct Decoded {
    /// Mask logits, `[objects, low_size, low_size]`.
    pub(super) low_res: Tensor,
    /// Object scores, `[objects]`.
    pub(super) score: Tensor,
    /// Object pointers, `[objects, pointer tokens, channels]`.
    pub(super) pointers: Tensor,
    /// Logits and scores on the host.
    pub(super) masks: Vec<ObjectMask>,
}

/// The graphs on their backend.
pub(super) struct Stages {
    pub(super) backend: Arc<dyn Backend>,
    graphs: Graphs,
    has_direct: bool,
    resolution: usize,
    low_size: usize,
    no_mask: Tensor,
    value_padding: Tensor,
    pub(super) times: StageTimes,
}

impl Stages {
    pub(super) fn new(
        spec: &ModelSpec,
        backend: Arc<dyn Backend>,
        graphs: Graphs,
    ) -> Result<Self, GraphError> {
        let side = spec.resolution;
        let no_mask = backend.upload(&[1, side, side], Host::F32(vec![0.0; side * side]))?;
        let value_padding = value_padding(backend.as_ref(), spec.value_gap)?;
        Ok(Self {
            backend,
            graphs,
            has_direct: spec.has_direct,
            resolution: side,
            low_size: spec.low_size,
            no_mask,
            value_padding,
            times: StageTimes::default(),
        })
    }

    /// Has the arena take `bytes` bytes in one region, with the features at its start.
    ///
    /// Otherwise an output lies between its graph's working memory, and the features, which outlive that memory, would cut the
    /// region in two.
    pub(super) fn reserve(&mut self, bytes: u64) -> Result<(), GraphError> {
        self.backend.reserve(bytes)?;
        self.graphs.vision_encoder.keep_outputs(&FEATURES)
    }

    /// Image to features; `image` is `[resolution, resolution, 3]`, RGB. `with_backbone` for a detector.
    pub(super) fn encode_image(
        &mut self,
        image: Vec<u8>,
        with_backbone: bool,
    ) -> Result<Features, GraphError> {
        let side = self.resolution;
        let image = self.backend.upload(&[1, side, side, 3], Host::U8(image))?;
        let start = Instant::now();
        let mut names = FEATURES.to_vec();
        if with_backbone {
            names.push("backbone_nlc");
        }
        let mut outputs = self
            .graphs
            .vision_encoder
            .run(&[("image", &image)], &names)?;
        self.times.vision_encoder_s += start.elapsed().as_secs_f64();
        let backbone = with_backbone.then(|| outputs.pop()).flatten();
        let [plain, without_memory, high_res_0, high_res_1] = exactly("vision_encoder", outputs)?;
        Ok(Features {
            plain,
            without_memory,
            high_res: [high_res_0, high_res_1],
            backbone,
        })
    }

    /// Features conditioned on what `objects` objects recall, `[objects, tokens, channels]`.
    pub(super) fn attend(
        &mut self,
        features: &Features,
        recalled: &RecalledTensors,
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
            ("pointers_cond", &recalled.conditioning_pointers),
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
        inputs.push((VALUE_PADDING, &self.value_padding));
        let start = Instant::now();
        let outputs = self
            .graphs
            .memory_attention
            .run(&inputs, &["conditioned_nlc"])?;
        self.times.memory_attention_s += start.elapsed().as_secs_f64();
        let [conditioned] = exactly("memory_attention", outputs)?;
        Ok(conditioned)
    }

    /// Masks, scores and object pointers of `objects`.
    pub(super) fn decode(
        &mut self,
        features: &Features,
        decode: &DecoderInputs,
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
        let area = self.low_size * self.low_size;
        if logits.len() != area * objects.len() || scores.len() != objects.len() {
            return Err(GraphError::Tensor {
                name: "low_res_masks".to_owned(),
                expected: format!("{} masks of {area} logits", objects.len()),
                got: format!("{} logits and {} scores", logits.len(), scores.len()),
            });
        }
        let masks = objects
            .iter()
            .zip(Logits::squares(self.low_size, &logits))
            .zip(&scores)
            .enumerate()
            .map(|(row, ((&object, low_res), &score))| ObjectMask {
                object,
                low_res,
                score,
                iou: ious.get(row).copied(),
                rank: None,
            })
            .collect();
        Ok(Decoded {
            low_res,
            score,
            pointers,
            masks,
        })
    }

    /// Memory features of decoded masks, `[objects, tokens, channels]`; of `mask` in their place if it is given.
    pub(super) fn encode_memory(
        &mut self,
        features: &Features,
        decoded: &Decoded,
        mask: Option<&Tensor>,
        from_prompt: bool,
    ) -> Result<Tensor, GraphError> {
        self.encode_masks(
            features,
            &MemoryInputs {
                low_res: &decoded.low_res,
                score: &decoded.score,
                objects: decoded.masks.len(),
                mask,
                from_prompt,
                direct: false,
            },
        )
    }

    /// Memory features of masks, `[objects, tokens, channels]`.
    pub(super) fn encode_masks(
        &mut self,
        features: &Features,
        remembered: &MemoryInputs,
    ) -> Result<Tensor, GraphError> {
        let &MemoryInputs {
            low_res,
            score,
            objects,
            mask,
            from_prompt,
            direct,
        } = remembered;
        let has_mask = self
            .backend
            .upload(&[1], Host::Bool(vec![mask.is_some()]))?;
        let from_prompt = self
            .backend
            .upload(&[objects], Host::Bool(vec![from_prompt; objects]))?;
        let direct = self.backend.upload(&[1], Host::Bool(vec![direct]))?;
        let mut inputs = vec![
            ("features_nlc", &features.plain),
            ("low_res_masks", low_res),
            ("mask_prompt", mask.unwrap_or(&self.no_mask)),
            ("has_mask_prompt", &has_mask),
            ("object_score", score),
            ("from_prompt", &from_prompt),
        ];
        if self.has_direct {
            inputs.push(("direct", &direct));
        }
        let start = Instant::now();
        let outputs = self.graphs.memory_encoder.run(&inputs, &["memory_nlc"])?;
        self.times.memory_encoder_s += start.elapsed().as_secs_f64();
        let [memory] = exactly("memory_encoder", outputs)?;
        Ok(memory)
    }
}
