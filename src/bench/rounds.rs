//! The order in which arms take their turns.

use super::BenchError;
use super::protocol::Frame;

/// What can be timed frame by frame; a process, or a double in tests.
pub trait Timed {
    /// Tracks the next frame.
    ///
    /// # Errors
    /// It cannot go on.
    fn frame(&mut self) -> Result<Frame, BenchError>;
}

/// How long to measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Length {
    /// Frames of each arm after its first that are not counted: until its memory bank is full and its caches are warm.
    pub warm: usize,
    /// Rounds; each arm has one block in each.
    pub rounds: usize,
    /// Frames of a block.
    pub block: usize,
}

impl Length {
    /// Frames after an arm's first.
    pub fn frames(&self) -> usize {
        self.warm + self.rounds * self.block
    }

    /// Frames that an arm is asked for in all.
    pub fn asked(&self) -> usize {
        self.frames() + 1
    }
}

/// Most frames to which a block is made longer, so that a measurement does not take many times what was asked for.
const LONGEST_BLOCK: usize = 64;

/// A block of `asked` frames or more that has as many looks as any other, where arms look for something on every so many
/// frames only (`periods`).
///
/// # Errors
/// A sentence that says why blocks stay as long as asked for.
pub fn even_block(asked: usize, periods: impl IntoIterator<Item = usize>) -> Result<usize, String> {
    let common = periods.into_iter().fold(1, |common: usize, period| {
        common.saturating_mul(period / common_divisor(common, period))
    });
    let block = asked.checked_next_multiple_of(common).unwrap_or(usize::MAX);
    if block > asked.max(LONGEST_BLOCK) {
        return Err(format!(
            "looks for objects have no even share in the times: that takes blocks of {common} frames (--block {common})"
        ));
    }
    Ok(block)
}

fn common_divisor(a: usize, b: usize) -> usize {
    match b {
        0 => a.max(1),
        _ => common_divisor(b, a % b),
    }
}

/// Runs all arms; returns each arm's counted frames, `[arm][round][frame of the block]`, as many as it got to.
///
/// Every second round goes through the arms backwards: what drifts steadily adds to all of them alike. An arm that fails
/// has no further turn; `on_failure` is told, with the arm's place, and may end the measurement.
///
/// # Errors
/// What `on_failure` returns.
pub fn measure<T: Timed>(
    arms: &mut [T],
    length: Length,
    on_frame: &mut dyn FnMut(),
    on_failure: &mut dyn FnMut(usize, BenchError) -> Result<(), BenchError>,
) -> Result<Vec<Vec<Vec<Frame>>>, BenchError> {
    let mut out = vec![false; arms.len()];
    let mut turn = |index: usize, arm: &mut T, frames: usize| {
        let mut block = Vec::with_capacity(frames);
        while block.len() < frames && !out[index] {
            match arm.frame() {
                Ok(frame) => {
                    block.push(frame);
                    on_frame();
                }
                Err(error) => {
                    out[index] = true;
                    on_failure(index, error)?;
                }
            }
        }
        Ok(block)
    };
    for (index, arm) in arms.iter_mut().enumerate() {
        turn(index, arm, length.warm)?;
    }
    let mut blocks = vec![Vec::with_capacity(length.rounds); arms.len()];
    for round in 0..length.rounds {
        for place in 0..blocks.len() {
            let index = match round % 2 {
                0 => place,
                _ => blocks.len() - 1 - place,
            };
            let block = turn(index, &mut arms[index], length.block)?;
            if !block.is_empty() {
                blocks[index].push(block);
            }
        }
    }
    Ok(blocks)
}
