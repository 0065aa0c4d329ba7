//! Integration tests, one module per subject.

mod ab;
mod bench;
mod bundle;
mod cli;
mod clip;
mod contact_sheet;
mod detect;
mod doctor;
mod fake;
mod fake_detector;
mod findings;
mod follow;
mod follower;
mod interrupt;
mod library;
mod media;
mod memory;
mod onnx;
mod output;
mod policy;
mod posing;
mod prompts;
mod proposals;
mod scores;
mod selection;
mod tracker;
