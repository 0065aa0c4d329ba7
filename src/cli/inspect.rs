//! `snow-ort inspect`: shows what a bundle contains.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use super::say;
use crate::doctor::inspection::Inspection;

/// Arguments of `snow-ort inspect`.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit codes: 0 the bundle is as it was exported; 1 it is not, and the text says what is wrong; 2 it could \
                  not be inspected."
)]
pub(super) struct InspectArgs {
    /// The bundle: a folder that snow-export wrote
    #[arg(value_name = "DIR")]
    pub model: PathBuf,

    /// Print JSON instead of text
    #[arg(long)]
    pub json: bool,
}

/// Runs the command; returns whether the bundle is as it was exported.
pub(super) fn run(args: &InspectArgs) -> Result<bool> {
    let inspection = Inspection::of(&args.model)?;
    if args.json {
        say(&serde_json::to_string_pretty(&inspection)?);
    } else {
        for line in inspection.lines() {
            say(&line);
        }
    }
    Ok(inspection.damage.is_none())
}
