//! What stands for reading and writing videos in a program that was built without FFmpeg: each says so.

use std::path::Path;

use super::{FrameSource, MediaError};

fn refusal(path: &Path) -> MediaError {
    MediaError::WithoutVideo {
        path: path.to_owned(),
    }
}

/// Refuses.
///
/// # Errors
/// [`MediaError::WithoutVideo`].
pub fn open(path: &Path) -> Result<Box<dyn FrameSource>, MediaError> {
    Err(refusal(path))
}

/// Refuses.
///
/// # Errors
/// [`MediaError::WithoutVideo`].
pub fn count_frames_up_to(path: &Path, _limit: usize) -> Result<usize, MediaError> {
    Err(refusal(path))
}

/// The overlay video; there is none here.
pub enum OverlayWriter {}

impl OverlayWriter {
    /// Refuses.
    ///
    /// # Errors
    /// [`MediaError::WithoutVideo`].
    pub fn create(
        path: &Path,
        _width: u32,
        _height: u32,
        _frame_rate: (u32, u32),
    ) -> Result<Self, MediaError> {
        Err(refusal(path))
    }

    /// Cannot be called: there is no value of this type.
    ///
    /// # Errors
    /// None.
    pub fn write(
        &mut self,
        _rgb: &[u8],
        _width: u32,
        _height: u32,
        _pts_s: Option<f64>,
    ) -> Result<(), MediaError> {
        match *self {}
    }

    /// Cannot be called: there is no value of this type.
    ///
    /// # Errors
    /// None.
    pub fn finish(self) -> Result<(), MediaError> {
        match self {}
    }
}
