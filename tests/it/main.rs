//! Integration tests, one module per subject.

mod bundle;
mod cli;
mod fake;
mod interrupt;
mod library;
mod media;
mod onnx;
mod output;
mod policy;
mod prompts;
mod tracker;
