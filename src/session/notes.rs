//! What a user should know about a run that goes on all the same.

use std::fmt;

/// What a note is about. The code stays the same from version to version; the message may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum NoteCode {
    /// The input has a peculiarity, such as a rotation or a change of size.
    Input,
    /// Parts of the input could not be decoded.
    DamagedInput,
    /// The weights are random: masks mean nothing.
    RandomWeights,
    /// A mask prompt vanishes at the size that the model sees.
    VanishingMask,
    /// Some objects are not scored, or scored as empty masks.
    GroundTruth,
    /// The memory limit holds fewer objects than may be detected.
    ObjectsOverLimit,
    /// The graph of proposals proposed nothing.
    NothingProposed,
    /// Proposals were left out because the run may track no more objects.
    MaxObjects,
}

impl NoteCode {
    /// The code as text, such as `random_weights`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Input => "input",
            Self::DamagedInput => "damaged_input",
            Self::RandomWeights => "random_weights",
            Self::VanishingMask => "vanishing_mask",
            Self::GroundTruth => "ground_truth",
            Self::ObjectsOverLimit => "objects_over_limit",
            Self::NothingProposed => "nothing_proposed",
            Self::MaxObjects => "max_objects",
        }
    }
}

/// One thing that a user should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// What it is about.
    pub code: NoteCode,
    /// One sentence.
    pub message: String,
}

impl Note {
    /// A note of one sentence.
    pub(crate) fn new(code: NoteCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }
}

impl fmt::Display for Note {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str(&self.message)
    }
}
