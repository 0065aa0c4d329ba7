//! The order in which arms take their turns.

use super::BenchError;
use super::protocol::Frame;

/// What can be timed frame by frame; [`super::arm::Arm`], or a double in tests.
pub trait Timed {
    /// Tracks the next frame.
    ///
    /// # Errors
    /// It cannot go on.
    fn frame(&mut self) -> Result<Frame, BenchError>;
}

impl Timed for super::arm::Arm {
    fn frame(&mut self) -> Result<Frame, BenchError> {
        Self::frame(self)
    }
}

/// How long to measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Length {
    /// Frames of each arm that are not counted: until its memory bank is full and its caches are warm.
    pub warm: usize,
    /// Rounds; each arm has one block in each.
    pub rounds: usize,
    /// Frames of a block.
    pub block: usize,
}

impl Length {
    /// Frames that an arm is asked for in all.
    pub fn frames(&self) -> usize {
        self.warm + self.rounds * self.block
    }
}

/// Runs all arms; returns each arm's counted frames, `[arm][round][frame of the block]`.
///
/// Every second round goes through the arms backwards: what drifts steadily adds to all of them alike.
///
/// # Errors
/// The first arm that fails ends the measurement.
pub fn measure<T: Timed>(
    arms: &mut [T],
    length: Length,
    on_frame: &mut dyn FnMut(),
) -> Result<Vec<Vec<Vec<Frame>>>, BenchError> {
    for arm in arms.iter_mut() {
        for _ in 0..length.warm {
            arm.frame()?;
            on_frame();
        }
    }
    let mut blocks = vec![Vec::with_capacity(length.rounds); arms.len()];
    for round in 0..length.rounds {
        for turn in 0..arms.len() {
            let index = match round % 2 {
                0 => turn,
                _ => arms.len() - 1 - turn,
            };
            let mut block = Vec::with_capacity(length.block);
            for _ in 0..length.block {
                block.push(arms[index].frame()?);
                on_frame();
            }
            blocks[index].push(block);
        }
    }
    Ok(blocks)
}
