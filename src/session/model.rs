//! The tracker of a run: of objects with prompts, or of texts.

use std::collections::BTreeSet;

use super::SessionError;
use super::pipeline::{Images, Step};
use crate::runtime::{ArenaStats, GraphError};
use crate::text_tracking::TextTracker;
use crate::tracker::{FrameResult, ObjectMask, Prompt, Tracker};

/// The tracker of a run.
pub(crate) enum Model {
    /// Of objects with prompts.
    Tracker(Box<Tracker>),
    /// Of objects that texts mean.
    TextTracker(Box<TextTracker>),
}

impl Model {
    /// One frame through it.
    pub(crate) fn step(&mut self) -> &mut dyn Step {
        match self {
            Self::Tracker(tracker) => tracker.as_mut(),
            Self::TextTracker(tracker) => tracker.as_mut(),
        }
    }

    /// Reserves `bytes` of the arena.
    pub(crate) fn reserve(&mut self, bytes: u64) -> Result<(), GraphError> {
        match self {
            Self::Tracker(tracker) => tracker.reserve(bytes),
            Self::TextTracker(tracker) => tracker.reserve(bytes),
        }
    }

    /// What the arena holds and held, in bytes.
    pub(crate) fn arena_stats(&self) -> Result<Option<ArenaStats>, GraphError> {
        match self {
            Self::Tracker(tracker) => tracker.arena_stats(),
            Self::TextTracker(tracker) => tracker.arena_stats(),
        }
    }

    /// The tracker of objects, with its times and memory.
    pub(crate) fn tracker(&self) -> &Tracker {
        match self {
            Self::Tracker(tracker) => tracker,
            Self::TextTracker(tracker) => tracker.tracker(),
        }
    }
}

impl Step for TextTracker {
    fn step(
        &mut self,
        frame: usize,
        images: Images,
        _size: (u32, u32),
        _prompts: &[Prompt],
        _more: &mut dyn FnMut(&[ObjectMask]) -> Vec<Prompt>,
    ) -> Result<FrameResult, SessionError> {
        Ok(Self::step(self, frame, images.model, images.detector)?)
    }

    fn held_back(&self) -> usize {
        Self::held_back(self)
    }

    fn removed(&self) -> BTreeSet<u32> {
        self.removed()
    }
}

impl Step for Tracker {
    fn step(
        &mut self,
        frame: usize,
        images: Images,
        size: (u32, u32),
        prompts: &[Prompt],
        more: &mut dyn FnMut(&[ObjectMask]) -> Vec<Prompt>,
    ) -> Result<FrameResult, SessionError> {
        Ok(self.step_then(frame, images.model, size, prompts, more)?)
    }
}
