//! The detector: detects objects in an image from text and example boxes.
//!
//! Each text is encoded once, and each image's features are made once. The detector's graph runs once for each text, and
//! masks are made only of the candidates that are kept. Follows `Sam3Model` of transformers.

mod tokenizer;

use std::sync::Arc;
use std::time::Instant;

use crate::bundle::{Bundle, DetectorSpec, Role};
use crate::detector::tokenizer::{TextError, TextTokenizer};
use crate::masks::Logits;
use crate::runtime::{
    ArenaStats, Backend, Element, Engine, Graph, GraphError, Host, Tensor, exactly,
};
use crate::tracker::{TrackError, check_signature, graph_file, load_graph};

/// Why objects cannot be detected.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DetectError {
    /// The bundle has no detector.
    #[error(
        "{bundle} has no detector; export it with `{remedy} --parts tracker,detector`, or use another bundle"
    )]
    NoDetector {
        /// The bundle's folder.
        bundle: String,
        /// The export command without the parts.
        remedy: String,
    },
    /// The memory encoder of the tracker's bundle cannot store the mask of a detection.
    #[error(
        "{bundle} cannot track detected objects: its memory encoder has no input `direct`; export it with `{remedy} --parts tracker,detector`, or use another bundle"
    )]
    NoDirect {
        /// The bundle's folder.
        bundle: String,
        /// The export command without the parts.
        remedy: String,
    },
    /// A text cannot be used.
    #[error(transparent)]
    Text(#[from] TextError),
    /// A graph cannot be loaded.
    #[error(transparent)]
    Load(#[from] TrackError),
    /// A graph fails.
    #[error(transparent)]
    Graph(#[from] GraphError),
}

/// An example box: it shows an object that is meant, or one that is not.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Exemplar {
    /// Left, top, right and bottom, as shares of the image's width and height.
    pub corners: [f32; 4],
    /// Whether the object in it is meant.
    pub positive: bool,
}

/// The detector's features of an image at three scales, on the backend's device.
pub struct Levels {
    fine: Tensor,
    middle: Tensor,
    coarse: Tensor,
}

/// The candidates of one text: every query of the detector with its box and score.
pub struct Candidates {
    /// Left, top, right and bottom of each, as shares of the image's width and height.
    pub boxes: Vec<[f32; 4]>,
    /// Probability that each is an object that the text means, 0 to 1.
    pub scores: Vec<f32>,
    queries: Tensor,
    encoded: Tensor,
    prompt: Tensor,
}

impl Candidates {
    /// Indices of those with a score above `threshold`, by descending score; equal ones in their order.
    pub fn above(&self, threshold: f32) -> Vec<usize> {
        let mut above: Vec<usize> = (0..self.scores.len())
            .filter(|&index| self.scores[index] > threshold)
            .collect();
        above.sort_by(|&a, &b| self.scores[b].total_cmp(&self.scores[a]));
        above
    }
}

/// Seconds spent in each stage of a detector so far.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct DetectorTimes {
    /// The text encoder, once, loading included.
    pub text_encoder_s: f64,
    /// The vision encoder, where the detector has its own.
    pub backbone_s: f64,
    /// Backbone tokens to features.
    pub features_s: f64,
    /// Features and texts to candidates.
    pub detect_s: f64,
    /// Candidates to masks.
    pub masks_s: f64,
}

/// Adds the seconds that `run` takes to `total`.
fn timed<T>(total: &mut f64, run: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let value = run();
    *total += start.elapsed().as_secs_f64();
    value
}

/// The graphs of the detector that run for each image, on a backend.
pub struct Detector {
    backend: Arc<dyn Backend>,
    features: Box<dyn Graph>,
    geometry: Option<Box<dyn Graph>>,
    detector: Box<dyn Graph>,
    masks: Box<dyn Graph>,
    queries: usize,
    mask_side: usize,
    times: DetectorTimes,
}

impl Detector {
    /// Loads the graphs of a bundle; the geometry encoder, which example boxes need, only `with_boxes`.
    ///
    /// # Errors
    /// A bundle without a detector, or a graph that cannot be loaded.
    pub fn load(
        bundle: &Bundle,
        backend: Arc<dyn Backend>,
        with_boxes: bool,
    ) -> Result<Self, DetectError> {
        let manifest = bundle.manifest();
        let spec = detector_spec(bundle)?;
        let geometry = match with_boxes {
            true => Some(load_graph(bundle, backend.as_ref(), Role::GeometryEncoder)?),
            false => None,
        };
        Ok(Self {
            features: load_graph(bundle, backend.as_ref(), Role::DetectorFeatures)?,
            geometry,
            detector: load_graph(bundle, backend.as_ref(), Role::Detector)?,
            masks: load_graph(bundle, backend.as_ref(), Role::DetectorMasks)?,
            queries: spec.queries as usize,
            mask_side: 4 * manifest.grid as usize,
            times: DetectorTimes::default(),
            backend,
        })
    }

    /// Seconds spent so far.
    pub fn times(&self) -> DetectorTimes {
        self.times
    }

    /// Side of the square mask logits.
    pub fn mask_side(&self) -> usize {
        self.mask_side
    }

    /// The features of an image, from the vision encoder's output `backbone_nlc`.
    ///
    /// # Errors
    /// The graph fails.
    pub fn features(&mut self, backbone: &Tensor) -> Result<Levels, GraphError> {
        let names = ["level_0_nchw", "level_1_nchw", "level_2_nchw"];
        let inputs = [("backbone_nlc", backbone)];
        let outputs = timed(&mut self.times.features_s, || {
            self.features.run(&inputs, &names)
        })?;
        let [fine, middle, coarse] = exactly("detector_features", outputs)?;
        Ok(Levels {
            fine,
            middle,
            coarse,
        })
    }

    /// The candidates of a text, encoded by [`encode_texts`], and of example boxes.
    ///
    /// # Errors
    /// A graph fails, or there are boxes and the geometry encoder was not loaded.
    pub fn detect(
        &mut self,
        levels: &Levels,
        text: &Tensor,
        exemplars: &[Exemplar],
    ) -> Result<Candidates, GraphError> {
        let prompt = match exemplars {
            [] => text.clone(),
            exemplars => {
                let geometry = self.geometry(levels, exemplars)?;
                self.backend.concat_tokens(&[text, &geometry])?
            }
        };
        let inputs = [("level_2_nchw", &levels.coarse), ("prompt_nlc", &prompt)];
        let names = ["boxes", "scores", "queries_qc", "encoded_nlc"];
        let outputs = timed(&mut self.times.detect_s, || {
            self.detector.run(&inputs, &names)
        })?;
        let [boxes, scores, queries, encoded] = exactly("detector", outputs)?;
        let boxes = self.backend.download(&boxes)?;
        let scores = self.backend.download(&scores)?;
        if scores.len() != self.queries || boxes.len() != 4 * self.queries {
            return Err(GraphError::Tensor {
                name: "scores".to_owned(),
                expected: format!("{} candidates", self.queries),
                got: format!("{} scores and {} sides", scores.len(), boxes.len()),
            });
        }
        Ok(Candidates {
            boxes: boxes
                .chunks_exact(4)
                .map(|sides| [sides[0], sides[1], sides[2], sides[3]])
                .collect(),
            scores,
            queries,
            encoded,
            prompt,
        })
    }

    /// The tokens of example boxes, `[1, tokens, C]`.
    fn geometry(&mut self, levels: &Levels, exemplars: &[Exemplar]) -> Result<Tensor, GraphError> {
        let count = exemplars.len();
        let sides = exemplars.iter().flat_map(|exemplar| {
            let [left, top, right, bottom] = exemplar.corners;
            [
                (left + right) / 2.0,
                (top + bottom) / 2.0,
                right - left,
                bottom - top,
            ]
        });
        let boxes = Host::F32(sides.collect());
        let boxes = self.backend.upload(&[1, count, 4], boxes)?;
        let labels = exemplars
            .iter()
            .map(|exemplar| i64::from(exemplar.positive));
        let labels = self
            .backend
            .upload(&[1, count], Host::I64(labels.collect()))?;
        let graph = self.geometry.as_mut().ok_or_else(|| GraphError::Run {
            role: Role::GeometryEncoder.as_str().to_owned(),
            reason: "it was not loaded".to_owned(),
        })?;
        let inputs = [
            ("level_2_nchw", &levels.coarse),
            ("boxes", &boxes),
            ("box_labels", &labels),
        ];
        let [geometry] = exactly("geometry_encoder", graph.run(&inputs, &["geometry_nlc"])?)?;
        Ok(geometry)
    }

    /// Mask logits of the candidates with the indices `rows`, `[mask_side, mask_side]` each, in that order.
    ///
    /// # Errors
    /// The graph fails, or an index is past the last candidate.
    pub fn masks(
        &mut self,
        levels: &Levels,
        candidates: &Candidates,
        rows: &[usize],
    ) -> Result<Vec<Logits>, GraphError> {
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let queries = self
            .backend
            .gather_rows(&[(&candidates.queries, rows.to_vec())])?;
        let inputs = [
            ("level_0_nchw", &levels.fine),
            ("level_1_nchw", &levels.middle),
            ("encoded_nlc", &candidates.encoded),
            ("prompt_nlc", &candidates.prompt),
            ("queries_qc", &queries),
        ];
        let outputs = timed(&mut self.times.masks_s, || {
            self.masks.run(&inputs, &["mask_logits"])
        })?;
        let [logits] = exactly("detector_masks", outputs)?;
        let logits = self.backend.download(&logits)?;
        let area = self.mask_side * self.mask_side;
        if logits.len() != rows.len() * area {
            return Err(GraphError::Tensor {
                name: "mask_logits".to_owned(),
                expected: format!("{} masks of {area} logits", rows.len()),
                got: format!("{} logits", logits.len()),
            });
        }
        Ok(Logits::squares(self.mask_side, &logits))
    }
}

/// Encodes texts for the detector, `[1, tokens, C]` each. The text encoder, which is large, is loaded only while this runs.
///
/// # Errors
/// A bundle without a detector, a text that cannot be used, or a graph that fails.
pub fn encode_texts(
    bundle: &Bundle,
    backend: &dyn Backend,
    texts: &[&str],
) -> Result<Vec<Tensor>, DetectError> {
    // All of them, before the first long step.
    let tokens = tokens_of(bundle, texts)?;
    let mut graph = load_graph(bundle, backend, Role::TextEncoder)?;
    Ok(encode(graph.as_mut(), backend, tokens)?)
}

/// As [`encode_texts`], with the text encoder in its own arena: nothing of it is left in the arena that the other graphs
/// share. Also returns the statistics of its arena.
///
/// # Errors
/// As [`encode_texts`], and a process that has graphs already.
pub(crate) fn encode_texts_alone(
    bundle: &Bundle,
    engine: &Engine,
    texts: &[&str],
) -> Result<(Vec<Tensor>, ArenaStats), DetectError> {
    let tokens = tokens_of(bundle, texts)?;
    let role = Role::TextEncoder;
    let path = graph_file(bundle, role)?;
    let limit = engine.mem_limit();
    let (encoded, stats) = engine.alone(role.as_str(), &path, limit, |graph| {
        check_signature(bundle, role, graph)?;
        let encoded = encode(graph, engine, tokens)?;
        let host = encoded.iter().map(|text| {
            let values = engine.download(text)?;
            Ok((text.element(), text.shape().to_vec(), values))
        });
        Ok::<_, DetectError>(host.collect::<Result<Vec<_>, GraphError>>()?)
    })?;
    let texts = encoded.into_iter().map(|(element, shape, values)| {
        let values = match element {
            Element::F16 => Host::F16(values.into_iter().map(half::f16::from_f32).collect()),
            Element::Bf16 => Host::Bf16(values.into_iter().map(half::bf16::from_f32).collect()),
            _ => Host::F32(values),
        };
        engine.upload(&shape, values)
    });
    Ok((texts.collect::<Result<_, _>>()?, stats))
}

/// Tokens of each text.
fn tokens_of(bundle: &Bundle, texts: &[&str]) -> Result<Vec<Vec<i64>>, DetectError> {
    let detector = detector_spec(bundle)?;
    let tokenizer = TextTokenizer::open(
        &bundle.dir().join(&detector.tokenizer.file),
        detector.max_text_tokens as usize,
    )?;
    let tokens = texts.iter().map(|text| tokenizer.encode(text));
    Ok(tokens.collect::<Result<_, _>>()?)
}

fn encode(
    graph: &mut dyn Graph,
    backend: &dyn Backend,
    texts: Vec<Vec<i64>>,
) -> Result<Vec<Tensor>, GraphError> {
    let mut encoded = Vec::with_capacity(texts.len());
    for tokens in texts {
        let ids = backend.upload(&[1, tokens.len()], Host::I64(tokens))?;
        let [text] = exactly(
            "text_encoder",
            graph.run(&[("token_ids", &ids)], &["text_nlc"])?,
        )?;
        encoded.push(text);
    }
    Ok(encoded)
}

/// The manifest's description of the detector.
///
/// # Errors
/// [`DetectError::NoDetector`].
pub(crate) fn detector_spec(bundle: &Bundle) -> Result<&DetectorSpec, DetectError> {
    let manifest = bundle.manifest();
    let missing = || DetectError::NoDetector {
        bundle: bundle.dir().display().to_string(),
        remedy: manifest.export_command(),
    };
    manifest.detector.as_ref().ok_or_else(missing)
}

/// A vision encoder for the detector alone.
pub struct Backbone {
    graph: Box<dyn Graph>,
    resolution: usize,
}

impl Backbone {
    /// Loads the vision encoder of a bundle.
    ///
    /// # Errors
    /// A graph that cannot be loaded.
    pub fn load(bundle: &Bundle, backend: &dyn Backend) -> Result<Self, DetectError> {
        Ok(Self {
            graph: load_graph(bundle, backend, Role::VisionEncoder)?,
            resolution: bundle.manifest().resolution as usize,
        })
    }

    /// The backbone's tokens, `backbone_nlc`, of an image `[resolution, resolution, 3]`, RGB.
    ///
    /// # Errors
    /// The graph fails.
    pub fn encode(&mut self, backend: &dyn Backend, image: Vec<u8>) -> Result<Tensor, GraphError> {
        let side = self.resolution;
        let image = backend.upload(&[1, side, side, 3], Host::U8(image))?;
        let outputs = self.graph.run(&[("image", &image)], &["backbone_nlc"])?;
        let [tokens] = exactly("vision_encoder", outputs)?;
        Ok(tokens)
    }
}
