//! What to type about an error of a comparison.

use crate::compare::{AbError, RequirementProblem};

/// What to do about an error, with flags.
pub(in crate::cli) fn advice(error: &AbError) -> Option<&'static str> {
    match error {
        AbError::Variant { .. } => Some("see `snow-ort ab --help` for --variant"),
        AbError::TooFewVariants { .. } => {
            Some("give --variant NAME=DIR for each (`snow-ort run` runs one)")
        }
        AbError::SameName { .. } => Some("give each --variant its own name"),
        AbError::OutIsBundle { .. } | AbError::InputInRuns { .. } => {
            Some("choose it with --out DIR")
        }
        AbError::Requirement { problem, .. } => match problem {
            RequirementProblem::NeedsFoundObjects { .. } => {
                Some("give --text or --proposals, or leave it out")
            }
            RequirementProblem::NeedsGroundTruth { .. } => Some("give --gt DIR, or leave it out"),
            _ => None,
        },
        _ => None,
    }
}
