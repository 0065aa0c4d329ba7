//! Detecting objects in images, from texts and example boxes, into a folder of masks, overlays and COCO detections.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensorError};
use serde::{Deserialize, Serialize};

use super::Observer;
use super::SessionError;
use super::config::{EngineConfig, distinct};
use super::notes::{Note, NoteCode};
use crate::bundle::Bundle;
use crate::coco::{CocoAnnotation, CocoCategory, CocoFile, CocoImage, CocoInfo};
use crate::detector::{Backbone, Candidates, Detector, Exemplar, detector_spec, encode_texts};
use crate::masks::{Logits, Mask, Rle, sigmoid};
use crate::media::index_png::write_index_png;
use crate::media::resize::resize_frame;
use crate::media::{Frame, images, overlay};
use crate::output::{Content, StagedDir, Unfinished};
use crate::runtime::{Backend as _, Engine, Tensor};

/// A pixel belongs to an object from this share of its mask on, as in `post_process_instance_segmentation` of the
/// reference.
const MASK_SHARE: f32 = 0.5;

/// What to detect in which images.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DetectionConfig {
    /// Images, in the order of the results.
    pub images: Vec<PathBuf>,
    /// The folder of a bundle with a detector.
    pub bundle: PathBuf,
    /// What to detect.
    #[serde(default)]
    pub texts: Vec<String>,
    /// Boxes around examples, in a single image.
    #[serde(default)]
    pub examples: Vec<ExampleBox>,
    /// Least score, 0 to 1; the bundle's without.
    #[serde(default)]
    pub threshold: Option<f32>,
    /// The library and the device.
    #[serde(default)]
    pub engine: EngineConfig,
    /// Most bytes of the arena.
    #[serde(default)]
    pub mem_limit: Option<u64>,
    /// The folder of `masks/`, `overlays/` and `detections.json`.
    pub out: PathBuf,
    /// A folder for raw scores, boxes and mask logits.
    #[serde(default)]
    pub logits: Option<PathBuf>,
    /// Whether an earlier run's files may be replaced.
    #[serde(default)]
    pub overwrite: bool,
}

/// A box around an example.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct ExampleBox {
    /// x1, y1, x2, y2 in pixels of the image.
    pub corners: [f32; 4],
    /// Whether things like its content are meant; otherwise they are not.
    pub positive: bool,
}

/// The detections of all images.
#[derive(Debug)]
pub(crate) struct Detections {
    /// What `detections.json` holds.
    pub file: CocoFile,
    /// The output folder.
    pub out: PathBuf,
    /// The folder of raw logits.
    pub logits: Option<PathBuf>,
    /// Seconds before the first image.
    pub load_s: f64,
    /// Seconds from the first image to the end.
    pub images_s: f64,
    /// Most bytes that the arena held, where the library tells.
    pub arena_peak: Option<u64>,
}

/// Why nothing can be detected.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum DetectionError {
    /// Examples in several images.
    #[error("a box stands in one image, but there are {images}; give one image")]
    SeveralImages {
        /// How many.
        images: usize,
    },
    /// Neither texts nor examples.
    #[error("nothing to detect: give a text, or a box around an example")]
    Nothing,
    /// An example that lies outside of the image.
    #[error("box {x1},{y1},{x2},{y2} leaves the image, which is {width}x{height} pixels", x1 = corners[0], y1 = corners[1], x2 = corners[2], y2 = corners[3])]
    Outside {
        /// The box.
        corners: [f32; 4],
        /// Width of the image in pixels.
        width: u32,
        /// Height of the image in pixels.
        height: u32,
    },
    /// An image failed, so that nothing is kept.
    #[error("nothing was kept: {}", image.display())]
    Image {
        /// The image.
        image: PathBuf,
        /// The cause.
        source: Box<DetectionError>,
    },
    /// Anything that can go wrong in a session.
    #[error(transparent)]
    Session(Box<SessionError>),
}

impl<E: Into<SessionError>> From<E> for DetectionError {
    fn from(error: E) -> Self {
        Self::Session(Box::new(error.into()))
    }
}

/// Detects objects in all images of `config`, one text after the other. Folders that are not complete yet are registered
/// in `unfinished`.
///
/// # Errors
/// [`DetectionError`]; nothing is kept then.
pub(crate) fn detect(
    config: &DetectionConfig,
    unfinished: &Unfinished,
    observer: &mut dyn Observer,
) -> Result<Detections, DetectionError> {
    let start = Instant::now();
    if !config.examples.is_empty() && config.images.len() > 1 {
        return Err(DetectionError::SeveralImages {
            images: config.images.len(),
        });
    }
    if config.texts.is_empty() && config.examples.is_empty() {
        return Err(DetectionError::Nothing);
    }
    let bundle = Bundle::open(&config.bundle)?;
    let detector_spec = detector_spec(&bundle)?;
    let mut texts = distinct(config.texts.iter().cloned());
    if texts.is_empty() {
        texts.push(detector_spec.boxes_only_text.clone());
    }
    let threshold = config
        .threshold
        .unwrap_or(detector_spec.text_tracking.score_threshold as f32);
    if bundle.manifest().source.random_weights {
        observer.note(&Note::new(
            NoteCode::RandomWeights,
            format!(
                "the weights of {} are random: detections mean nothing",
                config.bundle.display()
            ),
        ));
    }

    let engine = Arc::new(Engine::load(&config.engine.options(config.mem_limit))?);
    let staged = |dir, content| StagedDir::create(dir, content, config.overwrite, unfinished);
    let out = staged(&config.out, Content::Detections)?;
    let logits = config.logits.as_deref();
    let logits = logits.map(|dir| staged(dir, Content::Logits)).transpose()?;
    let names: Vec<&str> = texts.iter().map(String::as_str).collect();
    let encoded = encode_texts(&bundle, engine.as_ref(), &names)?;
    let mut job = Job {
        resolution: bundle.manifest().resolution,
        threshold,
        texts: &encoded,
        examples: &config.examples,
        backbone: Backbone::load(&bundle, engine.as_ref())?,
        detector: Detector::load(&bundle, engine.clone(), !config.examples.is_empty())?,
        engine: &engine,
        out: out.path(),
        logits: logits.as_ref().map(StagedDir::path),
        annotations: Vec::new(),
        images: Vec::new(),
    };
    for folder in ["masks", "overlays"] {
        let path = job.out.join(folder);
        std::fs::create_dir(&path).map_err(|error| {
            SessionError::write(format!("the folder {}", path.display()), error)
        })?;
    }
    let load_s = start.elapsed().as_secs_f64();
    observer.begin(Some(config.images.len() as u64));
    for image in &config.images {
        job.image(image).map_err(|error| DetectionError::Image {
            image: image.clone(),
            source: Box::new(error),
        })?;
        observer.image();
    }
    observer.end();

    let Job {
        images,
        annotations,
        ..
    } = job;
    let file = CocoFile {
        info: CocoInfo {
            description: format!("snow-ort {}", env!("CARGO_PKG_VERSION")),
            model: config.bundle.display().to_string(),
            manifest_sha256: bundle.manifest_sha256().to_owned(),
            threshold,
        },
        images,
        categories: (1..)
            .zip(texts)
            .map(|(id, name)| CocoCategory { id, name })
            .collect(),
        annotations,
    };
    let path = out.path().join("detections.json");
    let written = |error: std::io::Error| SessionError::write(path.display().to_string(), error);
    let text = serde_json::to_string(&file).map_err(|error| written(error.into()))?;
    std::fs::write(&path, text + "\n").map_err(written)?;
    let placed = |source| SessionError::Place { source };
    let logits = logits.map(StagedDir::commit).transpose().map_err(placed)?;
    let out = out.commit().map_err(placed)?;
    Ok(Detections {
        file,
        out,
        logits,
        load_s,
        images_s: start.elapsed().as_secs_f64() - load_s,
        arena_peak: engine.arena_stats()?.map(|stats| stats.peak_held),
    })
}

/// What all images share.
struct Job<'a> {
    resolution: u32,
    threshold: f32,
    texts: &'a [Tensor],
    examples: &'a [ExampleBox],
    backbone: Backbone,
    detector: Detector,
    engine: &'a Engine,
    out: PathBuf,
    logits: Option<PathBuf>,
    images: Vec<CocoImage>,
    annotations: Vec<CocoAnnotation>,
}

/// A detection before it has a number.
struct Detection {
    text: usize,
    score: f32,
    corners: [f32; 4],
    mask: Mask,
}

impl Job<'_> {
    fn image(&mut self, path: &Path) -> Result<(), DetectionError> {
        let number = self.images.len() as u64;
        let rgb = images::decode(path)?;
        let (width, height) = rgb.dimensions();
        let frame = Frame {
            index: number as usize,
            width,
            height,
            rgb: rgb.into_raw(),
            pts_s: None,
        };
        let exemplars = self.exemplars(width, height)?;
        let image = resize_frame(&frame, self.resolution)?;
        let tokens = self.backbone.encode(self.engine, image)?;
        let levels = self.detector.features(&tokens)?;
        let mut found = Vec::new();
        for (text, encoded) in self.texts.iter().enumerate() {
            let candidates = self.detector.detect(&levels, encoded, &exemplars)?;
            let rows = candidates.above(self.threshold);
            let masks = self.detector.masks(&levels, &candidates, &rows)?;
            if let Some(dir) = &self.logits {
                let file = number as usize * self.texts.len() + text;
                let bytes = raw(&candidates, &rows, &masks, self.detector.mask_side())
                    .map_err(|error| SessionError::write("raw logits", error))?;
                let path = dir.join(format!("{file:05}.safetensors"));
                std::fs::write(&path, bytes)
                    .map_err(|error| SessionError::write(path.display().to_string(), error))?;
            }
            for (row, logits) in rows.into_iter().zip(masks) {
                // The reference makes shares of logits before it scales them.
                let shares = logits.map(sigmoid).resized(width, height);
                found.push(Detection {
                    text,
                    score: candidates.scores[row],
                    corners: candidates.boxes[row],
                    mask: shares.above(MASK_SHARE),
                });
            }
        }
        found.sort_by(|a, b| b.score.total_cmp(&a.score));
        self.write(number, frame, &found)?;
        self.note(number, path, (width, height), found);
        Ok(())
    }

    fn exemplars(&self, width: u32, height: u32) -> Result<Vec<Exemplar>, DetectionError> {
        let (wide, high) = (width as f32, height as f32);
        let mut exemplars = Vec::with_capacity(self.examples.len());
        for &ExampleBox { corners, positive } in self.examples {
            let [x1, y1, x2, y2] = corners;
            if x1 < 0.0 || y1 < 0.0 || x2 > wide || y2 > high {
                return Err(DetectionError::Outside {
                    corners,
                    width,
                    height,
                });
            }
            exemplars.push(Exemplar {
                corners: [x1 / wide, y1 / high, x2 / wide, y2 / high],
                positive,
            });
        }
        Ok(exemplars)
    }

    fn write(&self, number: u64, frame: Frame, found: &[Detection]) -> Result<(), DetectionError> {
        let (width, height) = (frame.width, frame.height);
        let mut ids = vec![0u16; width as usize * height as usize];
        // The best last, so that it lies in front.
        for (index, object) in found.iter().enumerate().rev() {
            let id = u16::try_from(index + 1).unwrap_or(u16::MAX);
            for (place, inside) in ids.iter_mut().zip(object.mask.pixels()) {
                if *inside {
                    *place = id;
                }
            }
        }
        let name = format!("{number:05}.png");
        write_index_png(&self.out.join("masks").join(&name), width, height, &ids)?;
        let mut rgb = frame.rgb;
        overlay::draw(&mut rgb, width, height, &ids);
        let path = self.out.join("overlays").join(&name);
        image::save_buffer(&path, &rgb, width, height, image::ColorType::Rgb8)
            .map_err(|error| SessionError::write(path.display().to_string(), error).into())
    }

    fn note(
        &mut self,
        number: u64,
        path: &Path,
        (width, height): (u32, u32),
        found: Vec<Detection>,
    ) {
        self.images.push(CocoImage {
            id: number,
            file_name: path.display().to_string(),
            width,
            height,
        });
        for (index, object) in found.into_iter().enumerate() {
            let [left, top, right, bottom] = object.corners;
            let (wide, high) = (width as f32, height as f32);
            self.annotations.push(CocoAnnotation {
                id: self.annotations.len() as u64 + 1,
                image_id: number,
                category_id: object.text as u64 + 1,
                mask_index: index as u32 + 1,
                bbox: [
                    left * wide,
                    top * high,
                    (right - left) * wide,
                    (bottom - top) * high,
                ],
                area: object.mask.area(),
                segmentation: Rle::of(&object.mask),
                score: object.score,
                iscrowd: 0,
            });
        }
    }
}

/// Everything that was computed for an image and a text: `scores` f32 `[queries]`, `boxes` f32 `[queries, 4]`, `rows`
/// i64 `[found]`, and `mask_logits` f32 `[found, side, side]`.
fn raw(
    candidates: &Candidates,
    rows: &[usize],
    masks: &[Logits],
    side: usize,
) -> Result<Vec<u8>, SafeTensorError> {
    let bytes = |values: &mut dyn Iterator<Item = f32>| -> Vec<u8> {
        values.flat_map(f32::to_le_bytes).collect()
    };
    let scores = bytes(&mut candidates.scores.iter().copied());
    let boxes = bytes(&mut candidates.boxes.iter().flatten().copied());
    let logits = bytes(&mut masks.iter().flat_map(Logits::values).copied());
    let indices: Vec<u8> = rows
        .iter()
        .flat_map(|&row| (row as i64).to_le_bytes())
        .collect();
    let (queries, found) = (candidates.scores.len(), rows.len());
    let tensors = [
        ("scores", Dtype::F32, vec![queries], &scores),
        ("boxes", Dtype::F32, vec![queries, 4], &boxes),
        ("rows", Dtype::I64, vec![found], &indices),
        ("mask_logits", Dtype::F32, vec![found, side, side], &logits),
    ];
    let views = tensors
        .into_iter()
        .map(|(name, dtype, shape, data)| Ok((name, TensorView::new(dtype, shape, data)?)))
        .collect::<Result<Vec<_>, SafeTensorError>>()?;
    safetensors::serialize(views, None)
}
