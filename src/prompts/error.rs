//! Why prompts cannot be used.

use std::path::PathBuf;

use super::{Conflict, MAX_OBJECT};

/// Why the prompts cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PromptError {
    /// There is no prompt at all.
    #[error("no prompts were given")]
    None,
    /// A prompt file cannot be read.
    #[error("cannot read the prompts file {}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// The system's reason.
        #[source]
        source: std::io::Error,
    },
    /// A prompt file is not a JSON list.
    #[error(
        "{}: expected a JSON list such as [{{\"frame\": 0, \"object\": 1, \"box\": [10, 20, 110, 220]}}]: {reason}",
        file.display()
    )]
    Json {
        /// The file.
        file: PathBuf,
        /// The parser's reason, with line and column.
        reason: String,
    },
    /// One prompt is wrong.
    #[error("{origin}: {problem}")]
    Invalid {
        /// Where the prompt was given: the flag, the file with the entry's number (from 1), frame and object, or the
        /// number of a program's prompt.
        origin: String,
        /// What is wrong and what is expected.
        problem: PromptProblem,
    },
    /// A mask file cannot be read.
    #[error("{origin}: the mask cannot be used")]
    Mask {
        /// As for `Invalid`.
        origin: String,
        /// The reader's reason, which names the file.
        #[source]
        source: crate::media::MediaError,
    },
    /// A prompt's frame is past the last one.
    #[error("{origin}: there is no frame {frame}: {end} (frames count from 0)")]
    PastEnd {
        /// As for `Invalid`.
        origin: String,
        /// The prompt's frame.
        frame: usize,
        /// How many frames there are, and why.
        end: String,
    },
}

/// What is wrong with one prompt.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum PromptProblem {
    /// Text or JSON that does not have the form of a prompt: what was found and what was expected.
    #[error("{0}")]
    Malformed(String),
    /// An object id that an index PNG cannot hold.
    #[error("object is {0}, expected 1 to {MAX_OBJECT} (0 is the background)")]
    Object(i64),
    /// None of box, points and mask.
    #[error("it has none of box, points and mask; give box, points or mask")]
    NoShape,
    /// A coordinate or label that is NaN or infinite; all values of the box or point.
    #[error("{} has a value that is not a finite number", numbers(.0))]
    NotFinite(Vec<f32>),
    /// A box whose right edge is left of its left one, or its bottom above its top.
    #[error("box {} is inverted: expected x1,y1,x2,y2 with x1 < x2 and y1 < y2", numbers(.0))]
    BoxInverted([f32; 4]),
    /// A box without area.
    #[error("box {} is empty: expected x1,y1,x2,y2 with x1 < x2 and y1 < y2", numbers(.0))]
    BoxEmpty([f32; 4]),
    /// A box that is not within its frame.
    #[error(
        "box {} reaches outside of the frame, which is {width}x{height} pixels: expected 0 <= x1 < x2 <= {width} and 0 <= y1 < y2 <= {height}",
        numbers(corners)
    )]
    BoxOutside {
        /// x1, y1, x2, y2.
        corners: [f32; 4],
        /// Columns of the frame.
        width: u32,
        /// Rows of the frame.
        height: u32,
    },
    /// A point that is not within its frame.
    #[error(
        "point {x},{y} is outside of the frame, which is {width}x{height} pixels: expected 0 <= x < {width} and 0 <= y < {height}"
    )]
    PointOutside {
        /// The point's column.
        x: f32,
        /// The point's row.
        y: f32,
        /// Columns of the frame.
        width: u32,
        /// Rows of the frame.
        height: u32,
    },
    /// A point's label that is neither 0 nor 1.
    #[error("point {x},{y} has label {label}, expected 1 (on the object) or 0 (not on it)")]
    Label {
        /// The point's column.
        x: f32,
        /// The point's row.
        y: f32,
        /// The label.
        label: f32,
    },
    /// A mask without a pixel.
    #[error(
        "the mask is empty: every pixel is 0{}",
        if *alpha { " (its transparency is ignored: only the values or palette indices count)" } else { "" }
    )]
    MaskEmpty {
        /// Whether its file has transparency, which people may take for the mask.
        alpha: bool,
    },
    /// A mask that does not have its frame's size.
    #[error(
        "{} is {mask_width}x{mask_height} pixels, but frame {frame} is {width}x{height}; a mask must have the frame's size",
        file.as_ref().map_or("the mask".into(), |file| file.to_string_lossy())
    )]
    MaskSize {
        /// The file that it was read from.
        file: Option<PathBuf>,
        /// Columns of the mask.
        mask_width: u32,
        /// Rows of the mask.
        mask_height: u32,
        /// The frame, from 0.
        frame: usize,
        /// Columns of the frame.
        width: u32,
        /// Rows of the frame.
        height: u32,
    },
    /// A grey image with more values than there can be objects.
    #[error(
        "{} is a grey image with {values} different values above 0, as a mask with a soft edge has, expected at most {max_values}, one for each object; threshold it to 0 and 255, or give an index PNG with a palette",
        file.display()
    )]
    MaskSoft {
        /// The file.
        file: PathBuf,
        /// Different values above 0.
        values: usize,
        /// The limit.
        max_values: usize,
    },
    /// An index mask of other objects.
    #[error(
        "the index mask has no pixel of object {object}, only of {}",
        first_ids(ids)
    )]
    MaskOfOthers {
        /// The prompt's object.
        object: u32,
        /// The ids in the mask, ascending.
        ids: Vec<u16>,
    },
    /// Prompts of one frame and object that exclude each other.
    #[error(
        "object {object} on frame {frame} has {conflict}{}",
        first.as_ref().map(|first| format!("; the first is {first}")).unwrap_or_default()
    )]
    Conflict {
        /// The object.
        object: u32,
        /// The frame, from 0.
        frame: usize,
        /// Which kinds.
        conflict: Conflict,
        /// Origin of the earlier prompt; absent if both were given in one entry.
        first: Option<String>,
    },
}

impl PromptProblem {
    /// The error for the prompt at `origin`.
    pub(super) fn at(self, origin: impl Into<String>) -> PromptError {
        PromptError::Invalid {
            origin: origin.into(),
            problem: self,
        }
    }
}

fn numbers(values: &[f32]) -> String {
    let texts: Vec<String> = values.iter().map(f32::to_string).collect();
    texts.join(",")
}

/// The first 16 ids, and a sign that there are more.
fn first_ids(ids: &[u16]) -> String {
    let shown: Vec<String> = ids.iter().take(16).map(u16::to_string).collect();
    let more = if ids.len() > shown.len() { ", …" } else { "" };
    format!("{}{more}", shown.join(", "))
}
