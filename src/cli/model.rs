//! What a run steps through its frames: a tracker that is told its objects, or one that finds them.

use std::collections::BTreeSet;

use anyhow::Result;

use super::pipeline::{Images, Step};
use crate::runtime::{ArenaStats, GraphError};
use crate::text_tracking::Follower;
use crate::tracker::{FrameResult, ObjectMask, Prompt, Tracker};

/// What runs: a tracker that is told its objects, or one that finds them.
pub(super) enum Model {
    Tracker(Box<Tracker>),
    Follower(Box<Follower>),
}

impl Model {
    /// One frame through it.
    pub fn step(&mut self) -> &mut dyn Step {
        match self {
            Self::Tracker(tracker) => tracker.as_mut(),
            Self::Follower(follower) => follower.as_mut(),
        }
    }

    /// Has the arena take what a plan says.
    pub fn reserve(&mut self, bytes: u64) -> Result<(), GraphError> {
        match self {
            Self::Tracker(tracker) => tracker.reserve(bytes),
            Self::Follower(follower) => follower.reserve(bytes),
        }
    }

    /// What the arena holds and held.
    pub fn arena_stats(&self) -> Result<Option<ArenaStats>, GraphError> {
        match self {
            Self::Tracker(tracker) => tracker.arena_stats(),
            Self::Follower(follower) => follower.arena_stats(),
        }
    }

    /// The tracker, for what it says of memory and time.
    pub fn tracker(&self) -> &Tracker {
        match self {
            Self::Tracker(tracker) => tracker,
            Self::Follower(follower) => follower.tracker(),
        }
    }
}

impl Step for Follower {
    fn step(
        &mut self,
        frame: usize,
        images: Images,
        _size: (u32, u32),
        _prompts: &[Prompt],
        _more: &mut dyn FnMut(&[ObjectMask]) -> Vec<Prompt>,
    ) -> Result<FrameResult> {
        Ok(Self::step(self, frame, images.model, images.detector)?)
    }

    fn held_back(&self) -> usize {
        Self::held_back(self)
    }

    fn mistaken(&self) -> BTreeSet<u32> {
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
    ) -> Result<FrameResult> {
        Ok(self.step_then(frame, images.model, size, prompts, more)?)
    }
}
