//! Prompts: which objects to track, from command line flags, from a JSON file, or from a program.
//!
//! A prompt takes effect when its frame is reached, before that frame is tracked. The frame becomes a conditioning
//! frame of that object. An object does not exist before its first prompt. A second prompt for an object on a later
//! frame refines it. Coordinates are pixels of the source frame: the frame's left edge is x = 0, its right edge
//! x = width.
//!
//! On one frame an object takes one box, any number of points, or a box with points; or one mask and nothing else.
//! That is what the reference's `Sam3TrackerVideoProcessor.add_inputs_to_inference_session` accepts.

mod entry;
mod error;
mod file;
mod flags;
mod json;
mod mask;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::{Deserialize, Deserializer, Serialize};

pub use self::entry::Conflict;
use self::entry::{PromptEntry, PromptShape};
pub use self::error::{PromptError, PromptProblem};
pub use self::flags::{FlagPrompt, parse_exemplar};
use crate::masks::prompt::mask_prompt;
use crate::tracker::Prompt;

/// The greatest object id: index PNGs hold at most 16 bits.
pub const MAX_OBJECT: u32 = u16::MAX as u32;

/// All prompts of a run, in the order in which they were given. Everything that does not depend on a frame's size has
/// been checked; [`Prompts::check`] does the rest.
///
/// Serialises as a list of prompts with their origins and with masks as COCO's run lengths, so that another process gets
/// the same prompts without the files that they came from. Reading the list makes the same checks.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Prompts {
    entries: Vec<PromptEntry>,
}

impl<'de> Deserialize<'de> for Prompts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let entries = Vec::<PromptEntry>::deserialize(deserializer)?;
        let checked = entries.iter().try_for_each(PromptEntry::check);
        checked
            .and_then(|()| Self::merging(entries))
            .map_err(serde::de::Error::custom)
    }
}

impl Prompts {
    /// Reads the prompts of `flags` (all on frame 0, objects 1, 2, … in their order) and of the JSON file.
    ///
    /// A mask flag whose PNG has several ids gives one object per id: with the PNG's own ids when it is the only
    /// flag, else with the next free ones.
    ///
    /// # Errors
    ///
    /// [`PromptError::None`] if there is not one prompt. Others name the flag, or the entry (from 1) with its frame and
    /// object, and the value.
    pub fn load(flags: &[FlagPrompt], file: Option<&Path>) -> Result<Self, PromptError> {
        let mut entries = flags::read_flags(flags)?;
        if let Some(file) = file {
            entries.extend(file::read_file(file)?);
        }
        Self::from_entries(entries)
    }

    /// Checks the prompts of a program. Errors name them by their number, from 1.
    ///
    /// # Errors
    ///
    /// [`PromptError::None`] for an empty list; else the first prompt with a value that no prompt can have, or that
    /// excludes an earlier one.
    pub fn from_prompts(prompts: Vec<Prompt>) -> Result<Self, PromptError> {
        let mut entries = Vec::with_capacity(prompts.len());
        for (index, prompt) in prompts.into_iter().enumerate() {
            entries.extend(PromptEntry::of_prompt(index + 1, prompt)?);
        }
        Self::from_entries(entries)
    }

    /// No prompts, for a run whose objects are proposed by a graph or detected by texts.
    pub fn none() -> Self {
        Self {
            entries: Vec::new(),
        }
    }

    fn from_entries(entries: Vec<PromptEntry>) -> Result<Self, PromptError> {
        if entries.is_empty() {
            return Err(PromptError::None);
        }
        Self::merging(entries)
    }

    /// Checks that the prompts of each frame and object can be merged.
    fn merging(entries: Vec<PromptEntry>) -> Result<Self, PromptError> {
        for (index, entry) in entries.iter().enumerate() {
            for earlier in &entries[..index] {
                entry.check_beside(earlier)?;
            }
        }
        Ok(Self { entries })
    }

    /// The frames with prompts, ascending.
    pub fn frames(&self) -> BTreeSet<usize> {
        self.entries.iter().map(|entry| entry.frame).collect()
    }

    /// The last frame with a prompt.
    pub fn last_frame(&self) -> usize {
        let frames = self.entries.iter().map(|entry| entry.frame);
        frames.max().unwrap_or(0)
    }

    /// The objects, each with the frame of its first prompt.
    pub fn first_frames(&self) -> BTreeMap<u32, usize> {
        let mut first: BTreeMap<u32, usize> = BTreeMap::new();
        for entry in &self.entries {
            let frame = first.entry(entry.object).or_insert(entry.frame);
            *frame = entry.frame.min(*frame);
        }
        first
    }

    /// The files of mask prompts, each with its prompt's origin.
    pub fn mask_files(&self) -> impl Iterator<Item = (&str, &Path)> {
        self.entries.iter().filter_map(|entry| match &entry.shape {
            PromptShape::Mask {
                file: Some(file), ..
            } => Some((entry.origin.as_str(), file.as_path())),
            _ => None,
        })
    }

    /// Mask prompts that are empty once they are scaled to `side` x `side` pixels, which is what the model sees: the
    /// origin of each, its object, and its number of pixels before.
    pub fn vanishing(&self, side: u32) -> Vec<(&str, u32, usize)> {
        let mut empty = Vec::new();
        for entry in &self.entries {
            if let PromptShape::Mask { mask, .. } = &entry.shape
                && mask_prompt(mask, side).iter().all(|value| *value == 0.0)
            {
                let pixels = mask.area() as usize;
                empty.push((entry.origin.as_str(), entry.object, pixels));
            }
        }
        empty
    }

    /// Checks the prompts on `frame` against its size in pixels.
    ///
    /// # Errors
    ///
    /// A box or point outside of the frame, a mask of another size.
    pub fn check(&self, frame: usize, width: u32, height: u32) -> Result<(), PromptError> {
        let mut on_frame = self.entries.iter().filter(|entry| entry.frame == frame);
        on_frame.try_for_each(|entry| entry.check_inside(width, height))
    }

    /// Checks that every prompt's frame is one of the first `frames`; `why` says why there are no more.
    ///
    /// # Errors
    ///
    /// [`PromptError::PastEnd`] of the first prompt on a later one.
    pub fn check_end(&self, frames: usize, why: &str) -> Result<(), PromptError> {
        match self.entries.iter().find(|entry| entry.frame >= frames) {
            None => Ok(()),
            Some(entry) => Err(PromptError::PastEnd {
                origin: entry.origin.clone(),
                frame: entry.frame,
                end: why.to_owned(),
            }),
        }
    }

    /// Merges the prompts by frame and object. Objects of a frame come in the order of their first prompt.
    pub fn into_frames(self) -> BTreeMap<usize, Vec<Prompt>> {
        let mut frames: BTreeMap<usize, Vec<Prompt>> = BTreeMap::new();
        for entry in self.entries {
            let prompts = frames.entry(entry.frame).or_default();
            let same = |prompt: &Prompt| prompt.object == entry.object;
            let index = prompts.iter().position(same).unwrap_or_else(|| {
                prompts.push(Prompt {
                    frame: entry.frame,
                    object: entry.object,
                    ..Prompt::default()
                });
                prompts.len() - 1
            });
            let prompt = &mut prompts[index];
            match entry.shape {
                PromptShape::Box(corners) => prompt.bbox = Some(corners),
                PromptShape::Points(points) => prompt.points.extend(points),
                PromptShape::Mask { mask, .. } => prompt.mask = Some(mask),
            }
        }
        frames
    }
}
