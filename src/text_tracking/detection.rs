//! What looks for objects on a frame: the detector with the encoded texts, and a vision encoder where it has its own.

use std::rc::Rc;
use std::time::Instant;

use crate::bundle::Bundle;
use crate::detector::{Backbone, DetectError, Detector, DetectorTimes};
use crate::media::mask::upsample_logits;
use crate::runtime::{Backend, GraphError, Tensor};
use crate::text_tracking::association::{FollowParameters, Found, Pixels, suppress_overlaps};

/// A found object with its mask logits.
pub(super) struct Candidate {
    pub(super) found: Found,
    /// `[low_size, low_size]` of the tracker.
    pub(super) logits: Vec<f32>,
}

/// Graphs and texts; they are gone with it.
pub(super) struct Eyes {
    backend: Rc<dyn Backend>,
    detector: Detector,
    /// For images of a resolution of their own; absent where the tracker's vision encoder serves the detector.
    backbone: Option<Backbone>,
    backbone_s: f64,
    texts: Vec<Tensor>,
}

impl Eyes {
    /// Loads the detector of a bundle, with its vision encoder if it looks at images of its own.
    ///
    /// # Errors
    /// A graph that cannot be loaded.
    pub(super) fn load(
        bundle: &Bundle,
        own_images: bool,
        backend: Rc<dyn Backend>,
        texts: Vec<Tensor>,
    ) -> Result<Self, DetectError> {
        let backbone = match own_images {
            true => Some(Backbone::load(bundle, backend.as_ref())?),
            false => None,
        };
        Ok(Self {
            detector: Detector::load(bundle, Rc::clone(&backend), false)?,
            backend,
            backbone,
            backbone_s: 0.0,
            texts,
        })
    }

    /// Whether it looks at images of its own.
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

    /// What is found in an image of its own, as [`Eyes::find`].
    ///
    /// # Errors
    /// A graph fails, or there is no image.
    pub(super) fn find_in(
        &mut self,
        image: Option<Vec<u8>>,
        parameters: &FollowParameters,
        low_size: usize,
    ) -> Result<Vec<Candidate>, GraphError> {
        let start = Instant::now();
        let tokens = match (&mut self.backbone, image) {
            (Some(backbone), Some(image)) => Some(backbone.encode(self.backend.as_ref(), image)?),
            _ => None,
        };
        self.backbone_s += start.elapsed().as_secs_f64();
        self.find(tokens.as_ref(), parameters, low_size)
    }

    /// What is found, text by text, each in the order of its candidates, from the vision encoder's `backbone_nlc`. Masks
    /// have `low_size`, the tracker's.
    ///
    /// # Errors
    /// A graph fails, or there are no tokens.
    pub(super) fn find(
        &mut self,
        backbone: Option<&Tensor>,
        parameters: &FollowParameters,
        low_size: usize,
    ) -> Result<Vec<Candidate>, GraphError> {
        let backbone = backbone.ok_or_else(|| GraphError::Tensor {
            name: "backbone_nlc".to_owned(),
            expected: "an output of the vision encoder".to_owned(),
            got: "none of this name".to_owned(),
        })?;
        let levels = self.detector.features(backbone)?;
        let (from, to) = (self.detector.mask_side(), low_size);
        let mut all = Vec::new();
        for (text, encoded) in self.texts.iter().enumerate() {
            let candidates = self.detector.search(&levels, encoded, &[])?;
            let mut rows = candidates.above(parameters.score_threshold);
            rows.sort_unstable();
            let masks = self.detector.masks(&levels, &candidates, &rows)?;
            let pixels: Vec<Pixels> = masks.iter().map(|mask| Pixels::of(mask)).collect();
            let scores: Vec<f32> = rows.iter().map(|&row| candidates.scores[row]).collect();
            let stays = suppress_overlaps(&scores, &pixels, parameters.nms_iou);
            let found = masks.into_iter().zip(pixels).zip(scores).zip(stays);
            all.extend(found.filter(|(_, stays)| *stays).map(
                |(((mut logits, mut pixels), score), _)| {
                    if from != to {
                        logits = upsample_logits(&logits, from, to as u32, to as u32);
                        pixels = Pixels::of(&logits);
                    }
                    let found = Found {
                        text,
                        score,
                        pixels,
                    };
                    Candidate { found, logits }
                },
            ));
        }
        Ok(all)
    }
}
