//! What a measurement and its arms say to each other, one JSON object a line.
//!
//! The arm is started with `--input`, `--prompts` and `--frames` (how many frames it may be asked for at most) behind its own
//! arguments. It writes [`Answer::Ready`] once its model is loaded. Each line on its standard input asks for one frame
//! more, and it answers each with [`Answer::Frame`]; it goes through the clip forwards and backwards in turn. The end of
//! its input ends it. Standard error is its own.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The line that asks for a frame.
pub const NEXT: &str = "{\"next\":\"frame\"}";

/// A line of an arm.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// The model is loaded.
    Ready(Ready),
    /// A frame is tracked.
    Frame(Frame),
}

/// What an arm is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ready {
    /// Program, library and their versions.
    pub what: String,
    /// Side of the model's image in pixels.
    pub resolution: u32,
    /// Precision of the model.
    pub precision: String,
    /// Threads of one operator.
    pub threads: usize,
    /// Seconds of what was done once before the first frame, by its graph's name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub once: BTreeMap<String, f64>,
}

/// One frame's cost, from the resized image to the low-resolution masks of all objects and their memories.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Frame {
    /// Seconds in all.
    pub seconds: f64,
    /// Seconds of each stage, by its graph's name; stages that an arm cannot tell apart, or that this frame did not need, are
    /// left out.
    pub stages: BTreeMap<String, f64>,
    /// Greatest resident memory of the process so far, in bytes.
    pub peak_resident_bytes: Option<u64>,
    /// Greatest size of the arena so far, in bytes.
    pub arena_peak_bytes: Option<u64>,
    /// Memory of the process on its GPU, in bytes.
    pub device_bytes: Option<u64>,
    /// What the memory bank holds, in bytes.
    pub bank_bytes: Option<u64>,
}

/// Which frame of a clip of `length` frames is the `n`-th of a walk forwards and backwards: 0, 1, 2, 1, 0, 1, …
pub fn walk(n: usize, length: usize) -> usize {
    if length <= 1 {
        return 0;
    }
    let place = n % (2 * (length - 1));
    place.min(2 * (length - 1) - place)
}
