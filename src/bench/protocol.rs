//! The protocol between a trial and the process of a variant: one JSON object a line.
//!
//! The process is started with its own arguments, followed by `--input`, `--prompts` and `--frames` (the largest number of
//! frames that it will be asked for). It writes [`Answer::Ready`] when its model is loaded. Each line on its standard input
//! asks for one more frame, and the process answers with [`Answer::Frame`]; it goes through the clip forwards and
//! backwards, as [`walk`] says. It ends when its standard input ends. Standard error is free for messages.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The line that asks for a frame.
pub const NEXT: &str = "{\"next\":\"frame\"}";

/// A line that the process of a variant writes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// The model is loaded.
    Ready(Ready),
    /// A frame is tracked.
    Frame(Frame),
}

/// What runs in the process of a variant.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ready {
    /// Program and library, with their versions.
    pub what: String,
    /// Side of the model's image in pixels.
    pub resolution: u32,
    /// Precision of the model.
    pub precision: String,
    /// Threads of one operator.
    pub threads: usize,
    /// Seconds of each graph that ran once, before the first frame, by the name of its stage.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub once: BTreeMap<String, f64>,
}

/// Time and memory of one frame, from the resized image to the low-resolution masks of all objects and their memories.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Frame {
    /// Seconds in all.
    pub seconds: f64,
    /// Seconds of each stage, by its name; stages that the process cannot tell apart, or that did not run on this frame, are
    /// left out.
    pub stages: BTreeMap<String, f64>,
    /// Greatest resident memory of the process so far, in bytes.
    pub peak_resident_bytes: Option<u64>,
    /// Greatest size of the arena so far, in bytes.
    pub arena_peak_bytes: Option<u64>,
    /// Memory of the process on the GPU, in bytes.
    pub device_bytes: Option<u64>,
    /// Size of the memory bank, in bytes.
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
