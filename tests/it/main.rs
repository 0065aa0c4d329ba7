//! Integration tests, one module per subject.

#![allow(
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::too_many_lines,
    clippy::unwrap_used,
    unreachable_pub,
    reason = "tests say why they are skipped, list many cases, and fail where they cannot go on"
)]

mod ab;
mod ab_found;
mod association;
mod bench;
mod bundle;
mod cli;
mod clip;
mod contact_sheet;
mod detect;
mod doctor;
mod examples;
mod fake;
mod fake_detector;
mod findings;
mod interrupt;
mod layers;
mod library;
mod masks;
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
mod text_tracking;
mod tracker;
