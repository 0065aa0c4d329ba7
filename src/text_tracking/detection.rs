//! The detector of a frame: the detector's graphs with the encoded texts, and a vision encoder where it has its own.

use std::sync::Arc;
use std::time::Instant;

use crate::bundle::Bundle;
use crate::detector::{Backbone, DetectError, Detector, DetectorTimes};
use crate::masks::nms::keep_masks;
use crate::masks::{Logits, PackedMask};
use crate::runtime::{Backend, GraphError, Tensor};
use crate::text_tracking::association::{Detection, TextTrackingParameters};

/// A detection with its mask logits.
pub(super) struct DetectedMask {
    pub(super) detection: Detection,
    /// `[low_size, low_size]` of the tracker.
    pub(super) logits: Logits,
}

/// What the detector runs on.
pub(super) enum DetectorInput<'a> {
    /// The tracker's `backbone_nlc`; absent where its vision encoder has no such output.
    Tokens(Option<&'a Tensor>),
    /// An image of the detector's own resolution, `[resolution, resolution, 3]` RGB.
    Image(Option<Vec<u8>>),
}

/// Graphs and encoded texts. Dropping it frees the graphs.
pub(super) struct FrameDetector {
    backend: Arc<dyn Backend>,
    detector: Detector,
    /// For images of the detector's own resolution; absent where the tracker's vision encoder serves the detector.
    backbone: Option<Backbone>,
    backbone_s: f64,
    texts: Vec<Tensor>,
}

impl FrameDetector {
    /// Loads the detector of a bundle, and with `own_images` its vision encoder too.
    ///
    /// # Errors
    /// A graph that cannot be loaded.
    pub(super) fn load(
        bundle: &Bundle,
        own_images: bool,
        backend: Arc<dyn Backend>,
        texts: Vec<Tensor>,
    ) -> Result<Self, DetectError> {
        let backbone = match own_images {
            true => Some(Backbone::load(bundle, backend.as_ref())?),
            false => None,
        };
        Ok(Self {
            detector: Detector::load(bundle, Arc::clone(&backend), false)?,
            backend,
            backbone,
            backbone_s: 0.0,
            texts,
        })
    }

    /// Whether it runs on images of its own resolution.
    pub(super) fn own_images(&self) -> bool {
        self.backbone.is_some()
    }

    /// Seconds spent so far.
    pub(super) fn times(&self) -> DetectorTimes {
        DetectorTimes {
            backbone_s: self.backbone_s,
            ..self.detector.times()
        }
    }

    /// The detections of a frame with masks of the tracker's `low_size`: text by text, each in the order of its
    /// candidates, after mask NMS within each text.
    ///
    /// # Errors
    /// A graph fails, or there are no tokens.
    pub(super) fn detect(
        &mut self,
        input: DetectorInput<'_>,
        parameters: &TextTrackingParameters,
        low_size: usize,
    ) -> Result<Vec<DetectedMask>, GraphError> {
        let encoded;
        let tokens = match input {
            DetectorInput::Tokens(tokens) => tokens,
            DetectorInput::Image(image) => {
                encoded = self.encode(image)?;
                encoded.as_ref()
            }
        };
        let tokens = tokens.ok_or_else(|| GraphError::Tensor {
            name: "backbone_nlc".to_owned(),
            expected: "an output of the vision encoder".to_owned(),
            got: "none of this name".to_owned(),
        })?;
        let levels = self.detector.features(tokens)?;
        let (from, to) = (self.detector.mask_side(), low_size);
        let mut all = Vec::new();
        for (text, encoded) in self.texts.iter().enumerate() {
            let candidates = self.detector.detect(&levels, encoded, &[])?;
            let mut rows = candidates.above(parameters.score_threshold);
            rows.sort_unstable();
            let masks = self.detector.masks(&levels, &candidates, &rows)?;
            let pixels = masks.iter().map(|mask| PackedMask::of(mask.values()));
            let pixels: Vec<PackedMask> = pixels.collect();
            let scores: Vec<f32> = rows.iter().map(|&row| candidates.scores[row]).collect();
            let keep = keep_masks(&scores, &pixels, parameters.nms_iou);
            let found = masks.into_iter().zip(pixels).zip(scores).zip(keep);
            all.extend(found.filter(|(_, keep)| *keep).map(
                |(((mut logits, mut pixels), score), _)| {
                    if from != to {
                        logits = logits.resized(to as u32, to as u32);
                        pixels = PackedMask::of(logits.values());
                    }
                    let detection = Detection {
                        text,
                        score,
                        pixels,
                    };
                    DetectedMask { detection, logits }
                },
            ));
        }
        Ok(all)
    }

    /// The tokens of an image of the detector's own resolution.
    fn encode(&mut self, image: Option<Vec<u8>>) -> Result<Option<Tensor>, GraphError> {
        let start = Instant::now();
        let tokens = match (&mut self.backbone, image) {
            (Some(backbone), Some(image)) => Some(backbone.encode(self.backend.as_ref(), image)?),
            _ => None,
        };
        self.backbone_s += start.elapsed().as_secs_f64();
        Ok(tokens)
    }
}
