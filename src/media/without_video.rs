//! Reading and writing videos in a program that was built without FFmpeg: every function returns the
//! same error.

use std::path::Path;

use super::{FrameSource, MediaError};

fn error(path: &Path) -> MediaError {
    MediaError::WithoutVideo {
        path: path.to_owned(),
    }
}

/// Always fails.
///
/// # Errors
/// [`MediaError::WithoutVideo`].
pub(crate) fn open(path: &Path) -> Result<Box<dyn FrameSource>, MediaError> {
    Err(error(path))
}

/// Always fails.
///
/// # Errors
/// [`MediaError::WithoutVideo`].
pub(crate) fn count_frames_up_to(path: &Path, _limit: usize) -> Result<usize, MediaError> {
    Err(error(path))
}

/// The writer of overlay videos, of which no value exists here.
pub enum OverlayWriter {}

impl OverlayWriter {
    /// Always fails.
    ///
    /// # Errors
    /// [`MediaError::WithoutVideo`].
    pub fn create(
        path: &Path,
        _width: u32,
        _height: u32,
        _frame_rate: (u32, u32),
    ) -> Result<Self, MediaError> {
        Err(error(path))
    }

    /// Cannot be called: no value of this type exists.
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

    /// Cannot be called: no value of this type exists.
    ///
    /// # Errors
    /// None.
    pub fn finish(self) -> Result<(), MediaError> {
        match self {}
    }
}
