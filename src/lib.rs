//! Tracks objects in video with SAM3 as ONNX graphs, inside a memory budget, without Python.
//!
//! A run is described by a [`Config`], opened, and run; masks go to a folder, results to an [`Observer`]:
//!
//! ```no_run
//! use snow_ort::{Config, FrameResult, Objects, Observer, Prompts, Stop};
//!
//! struct Print;
//! impl Observer for Print {
//!     fn frame(&mut self, result: &FrameResult) {
//!         for object in &result.objects {
//!             println!("frame {}, object {}: score {:.2}", result.frame, object.object, object.score);
//!         }
//!     }
//! }
//!
//! let prompts = Prompts::load(&[], Some("demo/prompts.json".as_ref()))?;
//! let bundle = "models/snow-tiny/snow-tiny-336-fp16";
//! let config = Config::new("demo/clip.mp4", bundle, Objects::Prompts(prompts));
//! let finished = snow_ort::open(config)?.run(&Stop::default(), &mut Print)?;
//! println!("{} frames", finished.report.frames);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A program that has its own frames and its own loop uses a [`Tracker`] on an [`Engine`]; `examples/` has both, and texts.
//! ONNX Runtime's library is loaded at run time; [`EngineOptions`] says where it is found.

pub mod bench;
pub mod bundle;
pub mod cli;
pub mod coco;
pub mod compare;
pub mod detector;
pub mod doctor;
pub mod masks;
pub mod media;
pub mod memory;
pub mod output;
pub mod package;
pub mod prompts;
pub mod proposals;
pub mod runtime;
pub mod scoring;
pub mod session;
pub mod shared_library;
pub mod size;
pub mod table;
pub mod text_tracking;
pub mod tracker;
pub mod words;

pub use bundle::{Bundle, BundleError};
pub use masks::{Logits, Mask, Rle};
pub use prompts::{PromptError, Prompts};
pub use runtime::{Engine, EngineOptions, GraphError, Provider};
pub use session::config::{
    Config, EngineConfig, MemorySelection, Objects, OutputConfig, Parameter, ProposalConfig,
    ProposalGraph, ProposalPrompt, TextConfig,
};
pub use session::{
    Finished, Note, NoteCode, Observer, Session, SessionError, Stop, open, open_with,
};
pub use tracker::{FrameResult, ObjectMask, Prompt, TrackError, Tracker, TrackerOptions};
