//! `snow-ort plan`: what a run would need, without a clip.

use std::num::NonZeroUsize;
use std::path::Path;

use anyhow::Result;
use clap::Args;
use serde::Serialize;

use super::args::{BundleArgs, EngineArgs, PolicyArgs, one_or_more};
use super::proposal_args::GraphArgs;
use super::{counted, hints, say, text_args};
use crate::bundle::Bundle;
use crate::memory::budget::{self, Budget, DetectorUse, Request};
use crate::memory::{DetectorWorkspace, Plan, Presence, ProposalCost, ProposalPlan};
use crate::proposals::form;
use crate::proposals::proposer::Proposer;
use crate::runtime::Engine;
use crate::session::check_checkpoint;
use crate::size;
use crate::table::{self, Style};
use crate::text_tracking::check_text_tracking;
use crate::tracker::memory_policy::Selection;

const PLAN_HELP: &str = "\
The total is what `snow-ort run --mem-limit` reserves before the first frame: weights, shared features, the full memory \
bank, the work of the largest graph, and room for gaps between tensors. It assumes objects with one prompt each, on the \
same frame of a long clip; with --texts, objects that are detected one by one in 10,000 frames.

Graphs are measured once, by running them for one object and for two. The result is kept in $XDG_CACHE_HOME/snow-ort \
(~/.cache/snow-ort), for this bundle, library, provider and number of threads. docs/memory.md

Exit codes: 0: finished; 1: finished, but no bundle fits in --mem-limit; 2: could not finish.";

/// Arguments of `snow-ort plan`.
#[derive(Debug, Args)]
#[command(after_help = PLAN_HELP)]
pub(super) struct PlanArgs {
    #[command(flatten)]
    pub bundles: BundleArgs,

    /// Objects to track
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = one_or_more)]
    pub objects: NonZeroUsize,

    /// The limit to stay in, such as 512MiB or 3GiB
    #[arg(long, value_name = "SIZE", allow_negative_numbers = true, value_parser = crate::size::parse)]
    pub mem_limit: Option<u64>,

    /// Most objects that go through a graph at once [default: up to 8 by the image's size, on a GPU 16; fewer where --mem-limit asks for it]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = one_or_more)]
    pub chunk: Option<NonZeroUsize>,

    #[command(flatten)]
    pub proposals: GraphArgs,

    /// Plan for objects that this many texts detect, as `run --text` does
    #[arg(long, value_name = "N", conflicts_with = "proposals", allow_negative_numbers = true, value_parser = one_or_more)]
    pub texts: Option<NonZeroUsize>,

    /// Detect at this resolution, as `run --det-res` does
    #[arg(
        long,
        value_name = "PIXELS",
        requires = "texts",
        allow_negative_numbers = true
    )]
    pub det_res: Option<u32>,

    #[command(flatten)]
    pub policy: PolicyArgs,

    #[command(flatten)]
    pub engine: EngineArgs,

    /// Print JSON instead of a table
    #[arg(long)]
    pub json: bool,
}

/// One bundle's line of `--json`.
#[derive(Debug, Serialize)]
struct Planned {
    model: String,
    name: String,
    resolution: u32,
    precision: String,
    provider: String,
    limit_bytes: Option<u64>,
    fits: bool,
    refusal: Option<String>,
    #[serde(flatten)]
    plan: Plan,
}

/// Runs the command; returns whether a bundle fits in the limit, if there is one.
pub(super) fn run(args: &PlanArgs) -> Result<bool> {
    let dirs = args.bundles.dirs()?;
    let options = args.engine.config().options(args.mem_limit);
    let mut engine = Engine::load(&options)?;
    let proposals = proposal_cost(args)?;
    let mut all = Vec::with_capacity(dirs.len());
    for dir in &dirs {
        all.push(plan(args, dir, proposals, &mut engine)?);
    }
    if args.json {
        say(&serde_json::to_string_pretty(&all)?);
    } else {
        for planned in &all {
            show(planned);
        }
    }
    Ok(all.iter().any(|planned| planned.fits))
}

fn plan(
    args: &PlanArgs,
    dir: &Path,
    proposals: Option<ProposalCost>,
    engine: &mut Engine,
) -> Result<Planned> {
    let mut bundle = Bundle::open(dir)?;
    if let Some(Selection(above)) = args.policy.memory_selection {
        bundle.select_memories(above);
    }
    let detector_bundle = match args.det_res {
        Some(resolution) => {
            let models = args.bundles.models.as_deref();
            text_args::detector_bundle(resolution, dir, bundle.manifest(), models)?
        }
        None => None,
    };
    let detector_bundle = match &detector_bundle {
        Some(dir) => Some(Bundle::open(dir)?),
        None => None,
    };
    if let Some(detector) = &detector_bundle {
        check_checkpoint(detector, &bundle)?;
    }
    let detector = args
        .texts
        .map(|texts| DetectorUse::with(&bundle, detector_bundle.as_ref(), texts.get()));
    let objects = args.objects.get();
    let groups = match &detector {
        Some(detector) => {
            check_text_tracking(&bundle)?;
            budget::detected(&bundle, detector, objects)?
        }
        None => budget::prompted_once(&bundle, objects)?,
    };
    let request = Request {
        bundle: &bundle,
        groups,
        detector,
        chunk: args.chunk.map(Into::into),
        limit: args.mem_limit,
        provider: args.engine.provider,
        proposals,
    };
    let Budget {
        plan, over_limit, ..
    } = budget::budget(&request, engine)?;
    let manifest = bundle.manifest();
    Ok(Planned {
        model: dir.display().to_string(),
        name: manifest.name.clone(),
        resolution: manifest.resolution,
        precision: manifest.precision.to_string(),
        provider: args.engine.provider.to_string(),
        limit_bytes: args.mem_limit,
        fits: over_limit.is_none(),
        refusal: over_limit.as_ref().map(hints::over_limit),
        plan,
    })
}

/// What the graph of proposals needs.
fn proposal_cost(args: &PlanArgs) -> Result<Option<ProposalCost>> {
    let Some(graph) = args.proposals.config() else {
        return Ok(None);
    };
    let digest = form::digest(&graph.file)?;
    let limit = args.mem_limit;
    let mut engine = Engine::load(&args.engine.config().options(limit))?;
    let mut proposer = Proposer::open(&graph.file, digest, graph.image_size, limit, &engine)?;
    let again = graph.detect_every.is_some();
    Ok(Some(proposer.measure(again, limit, &mut engine)?))
}

fn show(planned: &Planned) {
    let plan = &planned.plan;
    say(&format!(
        "{} ({} px, {}) on {}: {}, {} at once",
        planned.model,
        planned.resolution,
        planned.precision,
        planned.provider,
        counted(plan.objects as u64, "object"),
        plan.chunk.min(plan.objects)
    ));
    let mut table = table::new(Style::Plain);
    for (name, bytes, note) in parts(plan) {
        // The processor's arena has no gaps, and few runs have proposals or texts.
        let optional = ["headroom", "proposals", "text_encoder"].contains(&name);
        if (optional || name.starts_with("detector")) && bytes == 0 {
            continue;
        }
        table.add_row([name, &size::show(bytes), &note]);
    }
    table::align_right(&mut table, &[1]);
    say(table::text(&table).trim_end_matches('\n'));
    match (&planned.refusal, planned.limit_bytes) {
        (Some(why), _) => say(&format!("  does not fit: {why}")),
        (None, Some(limit)) => say(&format!("  fits in {}", size::show(limit))),
        (None, None) => {}
    }
}

/// What the plan notes about the working memory of a graph.
const WORK: &str = "work, one graph at a time";

/// The parts of a plan: name, bytes, note.
fn parts(plan: &Plan) -> Vec<(&'static str, u64, String)> {
    let weights = match plan.packed_weights {
        true => "",
        false => "mapped from their files, not counted",
    };
    let bank = format!("{} an object", size::show(plan.bank_bytes_per_object));
    let (proposals, proposal_note) = plan.proposals.map_or((0, String::new()), proposal_part);
    let (before, text_note) = plan.detector.map_or((0, String::new()), |part| {
        let texts = counted(part.texts as u64, "text");
        let note = format!("with {texts}, before the rest is loaded");
        (part.text_encoder_bytes, note)
    });
    let detector_weights = plan.detector.map_or(0, |part| part.weights_bytes);
    let detecting = plan.detector.map(|part| part.workspace_bytes);
    let work = |of: fn(&DetectorWorkspace) -> u64| detecting.as_ref().map_or(0, of);
    let workspace = &plan.workspace_bytes;
    let part = |name, bytes, note: &str| (name, bytes, note.to_owned());
    vec![
        part("text_encoder", before, &text_note),
        part("weights", plan.weights_bytes, weights),
        part("detector weights", detector_weights, weights),
        part("shared features", plan.shared_features_bytes, ""),
        part("memory bank", plan.bank_bytes, &bank),
        part("vision_encoder", workspace.vision_encoder, WORK),
        part("memory_attention", workspace.memory_attention, WORK),
        part("mask_decoder", workspace.mask_decoder, WORK),
        part("memory_encoder", workspace.memory_encoder, WORK),
        part("detector images", work(|work| work.vision_encoder), WORK),
        part("detector_features", work(|work| work.features), WORK),
        part("detector", work(|work| work.search), WORK),
        part("detector_masks", work(|work| work.masks), WORK),
        part("proposals", proposals, &proposal_note),
        part("in use at once", plan.in_use_bytes, "with the largest work"),
        part("headroom", plan.headroom_bytes, "for gaps between tensors"),
        part("total", plan.total_bytes, ""),
    ]
}

/// Bytes and note of the graph of proposals.
fn proposal_part(part: ProposalPlan) -> (u64, String) {
    let weights = size::show(part.weights_bytes);
    let both = part.weights_bytes + part.workspace_bytes;
    match part.presence {
        Presence::Before => (
            both,
            format!("with {weights} of weights, before the rest is loaded"),
        ),
        Presence::InTurn => (
            both,
            format!("with {weights} of weights, not at the same time as the others"),
        ),
        Presence::Loaded => (
            part.workspace_bytes,
            format!("{WORK}; {weights} of weights stay loaded"),
        ),
    }
}
