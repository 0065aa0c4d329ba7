//! One run, from its description to its report.

pub mod report;
