//! What goes into the tracker and what comes out.

use crate::masks::{Logits, Mask};

/// What a user says of an object on a frame, in pixels of the source frame.
///
/// ```
/// use snow_ort::tracker::Prompt;
///
/// let prompt = Prompt {
///     frame: 0,
///     object: 1,
///     bbox: Some([120.0, 80.0, 410.0, 460.0]),
///     ..Prompt::default()
/// };
/// ```
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Prompt {
    /// The frame, from 0.
    pub frame: usize,
    /// The object's id, from 1.
    pub object: u32,
    /// Points as x, y, label (1 on the object, 0 beside it).
    pub points: Vec<[f32; 3]>,
    /// Box as x1, y1, x2, y2.
    pub bbox: Option<[f32; 4]>,
    /// The whole object on this frame, at any size. Points and box are ignored then.
    pub mask: Option<Mask>,
}

/// One object on one frame.
#[derive(Debug, Clone, PartialEq)]
pub struct ObjectMask {
    /// The object's id.
    pub object: u32,
    /// Mask logits, `[low_size, low_size]`; the object is where they are above the manifest's threshold.
    pub low_res: Logits,
    /// Logit of the object being visible on this frame.
    pub score: f32,
    /// The model's own estimate of the mask's IoU.
    pub iou: Option<f32>,
    /// Decides which of several objects gets a pixel; `None` if the one with the higher logit gets it.
    pub rank: Option<Rank>,
}

impl ObjectMask {
    /// The object's pixels in a frame of `width` x `height` pixels: where its logits, resized bilinearly, are above
    /// `threshold` (the bundle's `masks.threshold`, usually 0).
    pub fn mask(&self, threshold: f32, width: u32, height: u32) -> Mask {
        self.low_res.resized(width, height).above(threshold)
    }
}

/// An object's claim to pixels. A pixel that several objects of one group cover goes to the one with the highest share.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rank {
    /// The group: the objects of one text.
    pub group: usize,
    /// Probability that the object is visible, 0 to 1.
    pub share: f32,
}

/// All objects of one frame.
#[derive(Debug, Clone, PartialEq)]
pub struct FrameResult {
    /// The frame, from 0.
    pub frame: usize,
    /// Side of the low-resolution masks.
    pub low_size: usize,
    /// Objects in the order in which they were first prompted.
    pub objects: Vec<ObjectMask>,
}

/// How to track.
#[derive(Debug, Clone, Copy)]
pub struct TrackerOptions {
    /// Frames of the clip. It matters only below the manifest's `max_object_pointers`: the model sees how long a short clip is.
    /// Give `usize::MAX` if it is not known; the results are those of a long clip then.
    pub num_frames: usize,
    /// Most objects that go through a graph at once. It changes time and memory, not the results. 0 counts as 1.
    pub chunk: usize,
}

impl Default for TrackerOptions {
    /// A clip of unknown length, 8 objects at once.
    fn default() -> Self {
        Self {
            num_frames: usize::MAX,
            chunk: 8,
        }
    }
}
