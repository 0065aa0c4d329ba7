//! One prompt with its origin, and the checks that need neither the frame's size nor other prompts.

use std::path::PathBuf;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{MAX_OBJECT, PromptError, PromptProblem};
use crate::masks::{Mask, Rle};
use crate::tracker::Prompt;

/// What a prompt says about its object.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum PromptShape {
    /// x1, y1, x2, y2 in pixels.
    Box([f32; 4]),
    /// Points as x, y, label.
    Points(Vec<[f32; 3]>),
    /// All pixels of the object.
    Mask {
        /// The file that it was read from. In JSON, characters that are not Unicode are replaced: the name serves
        /// messages and the check that no output overwrites an input, and the file is not read again.
        #[serde(with = "lossy_path")]
        file: Option<PathBuf>,
        /// The pixels; in JSON as COCO's run lengths.
        #[serde(with = "run_lengths")]
        mask: Mask,
    },
}

/// One prompt as it was given, before the prompts of a frame and object are merged.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct PromptEntry {
    /// Where it was given, as errors name it: the flag, or the file with the entry's number, frame and object.
    pub(super) origin: String,
    /// The frame, from 0.
    pub(super) frame: usize,
    /// The object's id, from 1.
    pub(super) object: u32,
    /// Its box, points or mask.
    pub(super) shape: PromptShape,
}

impl PromptEntry {
    /// The entries of one prompt of a program: one each for its box, its points and its mask. `number` counts from 1.
    ///
    /// # Errors
    /// A prompt with none of the three, or with a value that no prompt can have.
    pub(super) fn of_prompt(number: usize, prompt: Prompt) -> Result<Vec<Self>, PromptError> {
        let origin = format!(
            "prompt {number} (frame {}, object {})",
            prompt.frame, prompt.object
        );
        let mut shapes = Vec::new();
        shapes.extend(prompt.bbox.map(PromptShape::Box));
        if !prompt.points.is_empty() {
            shapes.push(PromptShape::Points(prompt.points));
        }
        let masks = prompt.mask.into_iter();
        shapes.extend(masks.map(|mask| PromptShape::Mask { file: None, mask }));
        if shapes.is_empty() {
            return Err(PromptProblem::NoShape.at(origin));
        }
        shapes
            .into_iter()
            .map(|shape| {
                let entry = Self {
                    origin: origin.clone(),
                    frame: prompt.frame,
                    object: prompt.object,
                    shape,
                };
                entry.check()?;
                Ok(entry)
            })
            .collect()
    }

    /// Checks the values that do not depend on the frame's size.
    ///
    /// # Errors
    /// [`PromptError::Invalid`] with the first problem.
    pub(super) fn check(&self) -> Result<(), PromptError> {
        let values = match &self.shape {
            PromptShape::Box(corners) => valid_box(*corners).map(|_| ()),
            PromptShape::Points(points) => {
                points.iter().try_for_each(|p| valid_point(*p).map(|_| ()))
            }
            PromptShape::Mask { mask, .. } => valid_mask(mask),
        };
        check_object(self.object.into())
            .and(values)
            .map_err(|problem| problem.at(self.origin.clone()))
    }

    /// Checks the coordinates, or the mask's size, against the size in pixels of the prompt's frame.
    ///
    /// # Errors
    /// [`PromptError::Invalid`].
    pub(super) fn check_inside(&self, width: u32, height: u32) -> Result<(), PromptError> {
        let problem = match &self.shape {
            PromptShape::Box(corners) => box_outside(*corners, width, height),
            PromptShape::Points(points) => points
                .iter()
                .find_map(|point| point_outside(*point, width, height)),
            PromptShape::Mask { file, mask } => {
                let fits = (mask.width(), mask.height()) == (width, height);
                (!fits).then(|| PromptProblem::MaskSize {
                    file: file.clone(),
                    mask_width: mask.width(),
                    mask_height: mask.height(),
                    frame: self.frame,
                    width,
                    height,
                })
            }
        };
        match problem {
            None => Ok(()),
            Some(problem) => Err(problem.at(self.origin.clone())),
        }
    }

    /// Checks that a frame can have both prompts for the same object: one box, and either points or nothing else; or one
    /// mask alone, as the reference accepts them.
    ///
    /// # Errors
    /// [`PromptError::Invalid`] at this entry, which came after `earlier`.
    pub(super) fn check_beside(&self, earlier: &Self) -> Result<(), PromptError> {
        if (earlier.frame, earlier.object) != (self.frame, self.object) {
            return Ok(());
        }
        let conflict = match (&earlier.shape, &self.shape) {
            (PromptShape::Box(_), PromptShape::Box(_)) => Conflict::TwoBoxes,
            (PromptShape::Mask { .. }, PromptShape::Mask { .. }) => Conflict::TwoMasks,
            (PromptShape::Mask { .. }, _) | (_, PromptShape::Mask { .. }) => {
                Conflict::MaskAndOthers
            }
            _ => return Ok(()),
        };
        let problem = PromptProblem::Conflict {
            object: self.object,
            frame: self.frame,
            conflict,
            first: (earlier.origin != self.origin).then(|| earlier.origin.clone()),
        };
        Err(problem.at(self.origin.clone()))
    }
}

/// Prompts of one frame and object that exclude each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Conflict {
    /// Two boxes.
    TwoBoxes,
    /// Two masks.
    TwoMasks,
    /// A mask with a box or points.
    MaskAndOthers,
}

impl std::fmt::Display for Conflict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::TwoBoxes => "a second box, expected at most one",
            Self::TwoMasks => "a second mask, expected at most one",
            Self::MaskAndOthers => "a mask and a box or points, expected one or the other",
        })
    }
}

/// The box itself if it is finite and has an area.
pub(super) fn valid_box(corners: [f32; 4]) -> Result<[f32; 4], PromptProblem> {
    let [x1, y1, x2, y2] = corners;
    if corners.iter().any(|value| !value.is_finite()) {
        Err(PromptProblem::NotFinite(corners.to_vec()))
    } else if x2 < x1 || y2 < y1 {
        Err(PromptProblem::BoxInverted(corners))
    } else if x1 == x2 || y1 == y2 {
        Err(PromptProblem::BoxEmpty(corners))
    } else {
        Ok(corners)
    }
}

/// The point itself if it is finite and its label is 0 or 1.
pub(super) fn valid_point(point: [f32; 3]) -> Result<[f32; 3], PromptProblem> {
    let [x, y, label] = point;
    if point.iter().any(|value| !value.is_finite()) {
        Err(PromptProblem::NotFinite(point.to_vec()))
    } else if label == 0.0 || label == 1.0 {
        Ok(point)
    } else {
        Err(PromptProblem::Label { x, y, label })
    }
}

fn valid_mask(mask: &Mask) -> Result<(), PromptProblem> {
    if mask.is_empty() {
        Err(PromptProblem::MaskEmpty { alpha: false })
    } else {
        Ok(())
    }
}

/// The object's id if it is one that an index PNG can hold.
pub(super) fn check_object(object: i64) -> Result<u32, PromptProblem> {
    match u32::try_from(object) {
        Ok(id) if (1..=MAX_OBJECT).contains(&id) => Ok(id),
        _ => Err(PromptProblem::Object(object)),
    }
}

fn box_outside(corners: [f32; 4], width: u32, height: u32) -> Option<PromptProblem> {
    let [x1, y1, x2, y2] = corners;
    let inside = x1 >= 0.0 && y1 >= 0.0 && x2 <= width as f32 && y2 <= height as f32;
    (!inside).then_some(PromptProblem::BoxOutside {
        corners,
        width,
        height,
    })
}

fn point_outside([x, y, _]: [f32; 3], width: u32, height: u32) -> Option<PromptProblem> {
    let inside = x >= 0.0 && y >= 0.0 && x < width as f32 && y < height as f32;
    (!inside).then_some(PromptProblem::PointOutside {
        x,
        y,
        width,
        height,
    })
}

/// A path as text, with a replacement for what is not Unicode.
mod lossy_path {
    use super::*;

    pub(super) fn serialize<S: Serializer>(
        path: &Option<PathBuf>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let text = path.as_ref().map(|path| path.to_string_lossy());
        text.serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<PathBuf>, D::Error> {
        Option::<PathBuf>::deserialize(deserializer)
    }
}

/// A mask as `{"size": [height, width], "counts": "…"}`, COCO's compressed run lengths.
mod run_lengths {
    use super::*;

    pub(super) fn serialize<S: Serializer>(mask: &Mask, serializer: S) -> Result<S::Ok, S::Error> {
        Rle::of(mask).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Mask, D::Error> {
        let rle = Rle::deserialize(deserializer)?;
        rle.decode().map_err(serde::de::Error::custom)
    }
}
