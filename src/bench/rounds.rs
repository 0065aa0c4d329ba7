//! The order in which the variants of a trial track their frames.

use super::BenchError;
use super::protocol::Frame;

/// Something that tracks one frame at a time and tells how long that took.
pub trait Timed {
    /// Tracks the next frame.
    ///
    /// # Errors
    /// It cannot track any more frames.
    fn frame(&mut self) -> Result<Frame, BenchError>;
}

/// The length of a trial.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Length {
    /// Frames of each variant, after its first, that are not measured: they fill the memory bank and warm the caches.
    pub warm: usize,
    /// Rounds; each has one block for each variant.
    pub rounds: usize,
    /// Frames of a block.
    pub block: usize,
}

impl Length {
    /// Frames of a variant, without its first.
    pub fn frames(&self) -> usize {
        self.warm + self.rounds * self.block
    }

    /// Frames that a variant is asked for in all.
    pub fn requests(&self) -> usize {
        self.frames() + 1
    }
}

/// A block is not made longer than this many frames, so that a trial does not take many times as long as the user asked.
const MAX_BLOCK: usize = 64;

/// The length of a block, `asked` frames or more, with which all blocks have the same number of detections. `periods` has,
/// for each variant, the number of frames from one detection to the next.
///
/// # Errors
/// [`BenchError::UnevenBlocks`] if such a block would be much longer than asked for.
pub fn even_block(
    asked: usize,
    periods: impl IntoIterator<Item = usize>,
) -> Result<usize, BenchError> {
    let common = periods.into_iter().fold(1, |common: usize, period| {
        common.saturating_mul(period / common_divisor(common, period))
    });
    let block = asked.checked_next_multiple_of(common).unwrap_or(usize::MAX);
    if block > asked.max(MAX_BLOCK) {
        return Err(BenchError::UnevenBlocks { block: common });
    }
    Ok(block)
}

fn common_divisor(a: usize, b: usize) -> usize {
    match b {
        0 => a.max(1),
        _ => common_divisor(b, a % b),
    }
}

/// Measures all variants; returns their measured frames, `[variant][round][frame of the block]`. A variant that fails has
/// fewer.
///
/// Every second round goes through the variants backwards, so that a steady drift adds the same to all of them. After a
/// variant has failed it is not asked again; `on_failure` gets its place and its error, and may end the trial.
///
/// # Errors
/// What `on_failure` returns.
pub fn measure<T: Timed>(
    variants: &mut [T],
    length: Length,
    on_frame: &mut dyn FnMut(),
    on_failure: &mut dyn FnMut(usize, BenchError) -> Result<(), BenchError>,
) -> Result<Vec<Vec<Vec<Frame>>>, BenchError> {
    let mut failed = vec![false; variants.len()];
    let mut track = |index: usize, variant: &mut T, frames: usize| {
        let mut block = Vec::with_capacity(frames);
        while block.len() < frames && !failed[index] {
            match variant.frame() {
                Ok(frame) => {
                    block.push(frame);
                    on_frame();
                }
                Err(error) => {
                    failed[index] = true;
                    on_failure(index, error)?;
                }
            }
        }
        Ok(block)
    };
    for (index, variant) in variants.iter_mut().enumerate() {
        track(index, variant, length.warm)?;
    }
    let mut blocks = vec![Vec::with_capacity(length.rounds); variants.len()];
    for round in 0..length.rounds {
        for place in 0..blocks.len() {
            let index = match round % 2 {
                0 => place,
                _ => blocks.len() - 1 - place,
            };
            let block = track(index, &mut variants[index], length.block)?;
            if !block.is_empty() {
                blocks[index].push(block);
            }
        }
    }
    Ok(blocks)
}
