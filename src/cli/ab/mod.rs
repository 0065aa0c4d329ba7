//! `snow-ort ab`: compares variants of a model on one clip.

pub(super) mod args;
pub(super) mod hints;
mod host;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use self::args::AbArgs;
use self::host::{Missing, Workers};
use super::bench::uneven;
use super::run::default_out;
use super::signals::Interrupt;
use super::{complain, say};
use crate::bench::rounds;
use crate::bundle::Bundle;
use crate::compare::comparison::{Comparison, ComparisonConfig, VariantConfig};
use crate::compare::report::AbReport;
use crate::compare::requirement::{self, Given};
use crate::compare::{table, variant};
use crate::output::Unfinished;
use crate::prompts::{FlagPrompt, PromptError, Prompts};
use crate::table::Style;

/// Runs the command; returns whether all requirements are met.
pub(super) fn run(args: &AbArgs, flags: &[FlagPrompt]) -> Result<bool> {
    let unfinished = Unfinished::default();
    let missing = Missing::default();
    let out = args
        .out
        .clone()
        .unwrap_or_else(|| default_out(&args.input, "ab-"));
    let (still, place) = (missing.clone(), out.display().to_string());
    // A signal ends this program at once, and its processes with it; what is complete stays.
    let _interrupt = Interrupt::install_saying(&unfinished, move || match still.text().as_str() {
        "" => "nothing was kept".to_owned(),
        parts => format!(
            "still missing: {parts}; what is complete is kept in {place}, and the same command goes on from there"
        ),
    })?;
    let comparison = Comparison::prepare(config(args, flags, out.clone())?)?;
    for note in comparison.notes() {
        complain(&format!("warning: {note}"));
    }
    missing.begin(comparison.names());
    let mut workers = Workers {
        missing,
        quiet: args.quiet,
        progress: None,
    };
    let report = comparison.run(&mut workers, &unfinished)?;
    finish(&report, &out)
}

/// Converts the arguments, and checks them against each other.
fn config(args: &AbArgs, flags: &[FlagPrompt], out: PathBuf) -> Result<ComparisonConfig> {
    let variants = variant::parse_all(&args.variants)?;
    let given = Given {
        ground_truth: args.gt.is_some(),
        found_objects: args.finds(),
    };
    let requirements = requirement::parse(&args.require, &variants, given)?;
    let prompts = prompts(args, flags)?;
    let mut configs = Vec::with_capacity(variants.len());
    for variant in &variants {
        let flag = || format!("--variant {}={}", variant.name, variant.model.display());
        let manifest = Bundle::peek(&variant.model).with_context(flag)?;
        let run = args.config_of(variant, &manifest, &prompts);
        configs.push(VariantConfig {
            name: variant.name.clone(),
            run: run.with_context(flag)?,
        });
    }
    let periods = configs.iter().map(|variant| variant.run.detect_every());
    let (block_frames, warnings) = match rounds::even_block(args.block.get(), periods) {
        Ok(block) => (block, Vec::new()),
        Err(error) => (args.block.get(), vec![uneven(&error)]),
    };
    Ok(ComparisonConfig {
        variants: configs,
        out,
        requirements,
        warm_frames: args.warm,
        rounds: args.rounds.get(),
        block_frames,
        page_frames: args.page_frames,
        overwrite: args.overwrite,
        fresh: args.fresh,
        program: std::env::current_exe().context("cannot find this program's own file")?,
        command: command_line(),
        warnings,
    })
}

/// The prompts; none if the variants find their objects by themselves.
fn prompts(args: &AbArgs, flags: &[FlagPrompt]) -> Result<Prompts> {
    let texts = !args.text.texts.is_empty();
    if texts && args.proposals.graph.proposals.is_some() {
        bail!("--proposals cannot be used with --text: leave out one of them");
    }
    match Prompts::load(flags, args.prompting.prompts.as_deref()) {
        Err(PromptError::None) if args.finds() => Ok(Prompts::none()),
        Ok(_) if texts => bail!(
            "--text detects its objects itself, and cannot be combined with --box, --point, --mask or --prompts; leave out one of them"
        ),
        Ok(_) if args.finds() => bail!(
            "ab compares objects of prompts by their ids, and proposed ones by their masks: give either --proposals or prompts"
        ),
        other => Ok(other?),
    }
}

/// The command line as it was typed, but without the folder of the program.
fn command_line() -> Vec<String> {
    let mut words: Vec<String> = std::env::args().collect();
    if let Some(program) = words.first_mut() {
        let name = Path::new(program.as_str()).file_name();
        if let Some(name) = name.map(|name| name.to_string_lossy().into_owned()) {
            *program = name;
        }
    }
    words
}

/// Prints the report; returns whether all requirements are met.
fn finish(report: &AbReport, out: &Path) -> Result<bool> {
    say(table::render(report, Style::Plain).trim_end());
    say(&format!("page     {}", out.join("index.html").display()));
    say(&format!("report   {}", out.join("report.json").display()));
    let failed = report.variants.iter().filter(|v| v.error.is_some());
    let failed: Vec<&str> = failed.map(|variant| variant.name.as_str()).collect();
    // Exit 1 if a requirement is not met and at least one variant ran.
    let met = report.requirements.iter().all(|one| one.met);
    if !met && failed.len() < report.variants.len() {
        return Ok(false);
    }
    if !failed.is_empty() {
        bail!(
            "{} failed, the report in {} says why; the same command with --overwrite tries again and uses what is there",
            failed.join(", "),
            out.display()
        );
    }
    Ok(true)
}
