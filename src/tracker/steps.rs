//! One frame in separate steps, for text tracking, which decides between them what is remembered.
//!
//! A frame is: [`Tracker::view`] (image to features), [`Tracker::predict`] (masks of all objects), [`Tracker::commit`] (objects
//! remember the frame), [`Tracker::begin`] (new objects), [`Tracker::end`] (objects that are dropped).

use std::collections::BTreeMap;
use std::sync::Arc;

use super::cohorts::Cohort;
use super::points::Points;
use super::stages::{Decoded, Features, MemoryInputs};
use super::{ObjectMask, TrackError, Tracker};
use crate::masks::Logits;
use crate::runtime::{Backend, GraphError, Host, Tensor};

/// The features of a frame.
pub(crate) struct View {
    frame: usize,
    features: Features,
}

impl View {
    /// Backbone tokens, the detector's input; `None` if [`Tracker::view`] was not asked for them.
    pub(crate) fn backbone(&self) -> Option<&Tensor> {
        self.features.backbone.as_ref()
    }
}

/// Predicted masks of all objects on a frame that none of them remembers yet, still on the device.
pub(crate) struct Predictions {
    /// One a cohort, in the order of the tracker's cohorts.
    decoded: Vec<Decoded>,
}

/// What an object remembers of a frame.
#[derive(Debug, Clone)]
pub(crate) enum Memory {
    /// The mask that [`Tracker::predict`] returned, binarised, and its score.
    Predicted,
    /// A mask that was decided on in its place. The object counts as visible if any logit is above 0.
    Decided {
        /// Mask logits, `[low_size, low_size]`.
        logits: Logits,
        /// Whether the frame becomes a conditioning frame of the object.
        conditioning: bool,
    },
}

/// The object score of a decided mask that has pixels; its negative is that of one that has none.
const VISIBLE: f32 = 10.0;

impl Tracker {
    /// The backend that the tracker's graphs run on.
    pub(crate) fn backend(&self) -> Arc<dyn Backend> {
        Arc::clone(&self.stages.backend)
    }

    /// Side of the low-resolution masks.
    pub(crate) fn low_size(&self) -> usize {
        self.spec.low_size
    }

    /// Side of the model's image.
    pub(crate) fn resolution(&self) -> usize {
        self.spec.resolution
    }

    /// Encodes the image of a frame, `[resolution, resolution, 3]`, RGB. `with_backbone` if a detector needs the backbone tokens.
    ///
    /// # Errors
    /// [`TrackError::Graph`].
    pub(crate) fn view(
        &mut self,
        frame: usize,
        image: Vec<u8>,
        with_backbone: bool,
    ) -> Result<View, TrackError> {
        let features = self
            .stages
            .encode_image(image, with_backbone)
            .map_err(|source| TrackError::Graph { frame, source })?;
        Ok(View { frame, features })
    }

    /// Predicts the masks of all objects, in the order in which they began. Give the second value to [`Tracker::commit`].
    ///
    /// # Errors
    /// [`TrackError::Graph`], [`TrackError::MemoryBank`].
    pub(crate) fn predict(
        &mut self,
        view: &View,
    ) -> Result<(Vec<ObjectMask>, Predictions), TrackError> {
        let cohorts = std::mem::take(&mut self.cohorts);
        let decoded: Result<Vec<_>, _> = cohorts
            .iter()
            .map(|cohort| self.predict_cohort(view.frame, &view.features, cohort))
            .collect();
        self.cohorts = cohorts;
        let decoded = decoded?;
        let mut masks: Vec<ObjectMask> = decoded
            .iter()
            .flat_map(|decoded| decoded.masks.iter().cloned())
            .collect();
        self.sort(&mut masks);
        Ok((masks, Predictions { decoded }))
    }

    /// Has every object remember the frame: as `memories` says for its id, or else as [`Memory::Predicted`].
    ///
    /// # Errors
    /// [`TrackError::Graph`].
    pub(crate) fn commit(
        &mut self,
        view: &View,
        predictions: Predictions,
        memories: &BTreeMap<u32, Memory>,
    ) -> Result<(), TrackError> {
        let frame = view.frame;
        let graph_error = |source| TrackError::Graph { frame, source };
        let weak = self.weak(predictions.decoded.iter().flat_map(|part| &part.masks));
        let mut cohorts = std::mem::take(&mut self.cohorts);
        for (cohort, decoded) in cohorts.iter_mut().zip(predictions.decoded) {
            let memory = self
                .encode_as(view, &decoded, memories)
                .map_err(graph_error)?;
            self.remember(frame, cohort, memory, decoded)
                .map_err(graph_error)?;
            cohort.history.tracked.insert(frame);
        }
        self.cohorts = cohorts;
        let conditioned: Vec<u32> = memories
            .iter()
            .filter(|(_, memory)| {
                matches!(
                    memory,
                    Memory::Decided {
                        conditioning: true,
                        ..
                    }
                )
            })
            .map(|(object, _)| *object)
            .collect();
        let mut changed = Vec::with_capacity(conditioned.len());
        for object in conditioned {
            let mut cohort = self.detach(object).map_err(graph_error)?;
            cohort.history.tracked.remove(&frame);
            cohort.history.conditioning.push(frame);
            changed.push(cohort);
        }
        let merged = self.merge(changed).map_err(graph_error)?;
        self.cohorts.extend(merged);
        for cohort in &mut self.cohorts {
            cohort.forget(&self.spec.policy, frame + 1);
        }
        self.select(frame, &weak).map_err(graph_error)
    }

    /// Memory features of a cohort's objects, `[objects, tokens, channels]`, in the order of the cohort.
    fn encode_as(
        &mut self,
        view: &View,
        decoded: &Decoded,
        memories: &BTreeMap<u32, Memory>,
    ) -> Result<Tensor, GraphError> {
        let (mut predicted, mut decided) = (Vec::new(), Vec::new());
        for (row, mask) in decoded.masks.iter().enumerate() {
            match memories.get(&mask.object) {
                Some(Memory::Decided { logits, .. }) => {
                    let visible = logits.values().iter().any(|logit| *logit > 0.0);
                    let score = if visible { VISIBLE } else { -VISIBLE };
                    decided.push((row, logits.values(), score));
                }
                _ => predicted.push((row, mask.low_res.values(), mask.score)),
            }
        }
        let backend = self.backend();
        let mut parts = Vec::with_capacity(2);
        let mut order = Vec::with_capacity(decoded.masks.len());
        for (rows, is_decided) in [(predicted, false), (decided, true)] {
            if rows.is_empty() {
                continue;
            }
            let (count, side) = (rows.len(), self.spec.low_size);
            let logits = rows
                .iter()
                .flat_map(|(_, logits, _)| logits.iter().copied());
            let low_res = backend.upload(&[count, side, side], Host::F32(logits.collect()))?;
            let scores = rows.iter().map(|(_, _, score)| *score).collect();
            let score = backend.upload(&[count], Host::F32(scores))?;
            let remembered = MemoryInputs {
                low_res: &low_res,
                score: &score,
                objects: count,
                mask: None,
                from_prompt: !is_decided,
                direct: is_decided,
            };
            parts.push(self.stages.encode_masks(&view.features, &remembered)?);
            order.extend(rows.into_iter().map(|(row, _, _)| row));
        }
        match <[Tensor; 1]>::try_from(parts) {
            Ok([memory]) => Ok(memory),
            Err(parts) => {
                let all: Vec<(&Tensor, Vec<usize>)> = parts
                    .iter()
                    .map(|part| {
                        (
                            part,
                            (0..part.shape().first().copied().unwrap_or(0)).collect(),
                        )
                    })
                    .collect();
                let joined = backend.gather_rows(&all)?;
                let mut places = vec![0; order.len()];
                for (place, row) in order.into_iter().enumerate() {
                    places[row] = place;
                }
                backend.gather_rows(&[(&joined, places)])
            }
        }
    }

    /// Starts to track objects, given as ids and masks, `[resolution, resolution]` from 0 to 1. The frame becomes their first
    /// conditioning frame, as with mask prompts.
    ///
    /// # Errors
    /// [`TrackError::Graph`].
    pub(crate) fn begin(
        &mut self,
        view: &View,
        objects: Vec<(u32, Vec<f32>)>,
    ) -> Result<(), TrackError> {
        let frame = view.frame;
        let graph_error = |source| TrackError::Graph { frame, source };
        let mut begun = Vec::with_capacity(objects.len());
        for (object, pixels) in objects {
            let mut cohort = Cohort::new(object);
            self.order.push(object);
            let points = Points::none(1);
            self.condition_on(
                frame,
                &view.features,
                &mut cohort,
                points,
                Some(pixels),
                true,
            )
            .map_err(graph_error)?;
            begun.push(cohort);
        }
        let merged = self.merge(begun).map_err(graph_error)?;
        self.cohorts.extend(merged);
        Ok(())
    }

    /// Stops tracking objects and drops their memory. Ids that are not tracked are ignored.
    ///
    /// # Errors
    /// The device fails while the others of a cohort are copied.
    pub(crate) fn end(&mut self, objects: impl IntoIterator<Item = u32>) -> Result<(), GraphError> {
        for object in objects {
            if self.order.contains(&object) {
                self.detach(object)?;
                self.order.retain(|other| *other != object);
            }
        }
        Ok(())
    }
}
