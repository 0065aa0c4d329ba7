//! snow-ort: tracks objects in video with SAM3 as ONNX graphs, inside a memory budget, without Python.
//!
//! Who may use whom: [`cli`] uses everything and is the only code that prints; [`tracker`] uses [`policy`], [`bank`]
//! and [`graph`]; [`detector`] uses [`text`] and [`graph`], [`follower`] the detector, the tracker and [`policy`];
//! [`proposals`] uses [`graph`] and [`media`]; [`bank`] uses [`policy`]'s types and [`graph`]'s tensors; [`package`] uses
//! [`bundle`]; [`policy`] and [`metrics`] use
//! nothing.

pub mod bench;
pub mod bundle;
pub mod cli;
pub mod coco;
pub mod compare;
pub mod detector;
pub mod doctor;
pub mod loader_cache;
pub mod media;
pub mod memory;
pub mod output;
pub mod package;
pub mod prompts;
pub mod proposals;
pub mod runtime;
pub mod scoring;
pub mod session;
pub mod size;
pub mod text_tracking;
pub mod tracker;
pub mod words;
