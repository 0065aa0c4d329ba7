//! Compares variants of a model on one clip: how well their masks agree, how good they are, time, memory, and which
//! variant to run.
//!
//! A *variant* is a bundle and the way it is run. The first variant is the *baseline*: agreement and speedup are relative to
//! it. [`comparison`] runs and measures the variants; the other modules turn results into figures, a verdict, a table and a
//! page.

pub mod agreement;
pub mod comparison;
#[cfg(test)]
mod doubles;
mod error;
pub mod found;
pub mod frames;
mod keys;
pub mod numbers;
pub mod page;
pub mod picture;
pub mod report;
pub mod requirement;
pub mod table;
mod timing;
pub mod variant;
pub mod verdict;
mod warnings;

pub use error::{AbError, RequirementProblem};
