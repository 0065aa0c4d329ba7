//! `snow-ort plan`: what a run would need, without a clip.

use std::num::NonZeroUsize;

use anyhow::Result;
use clap::Args;
use serde::Serialize;

use super::args::{BundleArgs, PolicyArgs, RuntimeArgs, one_or_more};
use super::budget::{self, Answer, Demand, Looking};
use super::{counted, models, propose, say, texts};
use crate::bundle::Bundle;
use crate::memory::{DetectorWorkspace, Plan, Presence};
use crate::runtime::Runtime;
use crate::size;
use crate::text_tracking::follows;

const PLAN_HELP: &str = "\
The total bounds the arena that all graphs share, which `snow-ort run --mem-limit` reserves before the first frame: \
weights, shared features, the bank of memories once it is full, and the work of the graph that needs most beside it, with room for gaps between tensors. \
It is for objects that are prompted once each, on the same frame of a long clip; with --texts for objects that are found one by \
one and conditioned anew as often as the bundle's loop does on 10,000 frames.

What a graph needs is measured the first time, by running it alone for one object and for two; the result is kept in \
$XDG_CACHE_HOME/snow-ort (~/.cache/snow-ort), for this bundle, library, provider and number of threads.

Exit codes: 0 done; 1 done, but no bundle fits in --mem-limit; 2 could not do it.";

/// Arguments of `snow-ort plan`.
#[derive(Debug, Args)]
#[command(after_help = PLAN_HELP)]
pub(super) struct PlanArgs {
    #[command(flatten)]
    pub bundles: BundleArgs,

    /// Objects to follow
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = one_or_more)]
    pub objects: NonZeroUsize,

    /// The limit to stay in, such as 512MiB or 3GiB
    #[arg(long, value_name = "SIZE", allow_negative_numbers = true, value_parser = crate::size::parse)]
    pub mem_limit: Option<u64>,

    /// Most objects that go through a graph at once [default: up to 8 by the image's size, on a GPU 16; fewer where --mem-limit asks for it]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = one_or_more)]
    pub chunk: Option<NonZeroUsize>,

    #[command(flatten)]
    pub proposals: propose::GraphArgs,

    /// The objects are found for so many texts, as `run --text` finds them, and come one by one
    #[arg(long, value_name = "N", conflicts_with = "proposals", allow_negative_numbers = true, value_parser = one_or_more)]
    pub texts: Option<NonZeroUsize>,

    /// Look for them at this resolution, as `run --det-res` does
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
    pub runtime: RuntimeArgs,

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
    let dirs = models::all(&args.bundles)?;
    let mut runtime = Runtime::load(&args.runtime.options(args.mem_limit))?;
    let proposals = propose::cost(&args.proposals, args.mem_limit, &args.runtime)?;
    let mut all = Vec::with_capacity(dirs.len());
    for dir in &dirs {
        let mut bundle = Bundle::open(dir)?;
        args.policy.apply(&mut bundle);
        let detecting = texts::detecting(args.det_res, args.bundles.models.as_deref(), &bundle)?;
        let looking = args
            .texts
            .map(|texts| Looking::with(&bundle, detecting.as_ref(), texts.get()));
        let objects = args.objects.get();
        let groups = match &looking {
            Some(looking) => {
                follows(&bundle)?;
                budget::found(&bundle, looking, objects)?
            }
            None => budget::alike(&bundle, objects)?,
        };
        let demand = Demand {
            bundle: &bundle,
            groups,
            looking,
            chunk: args.chunk.map(Into::into),
            limit: args.mem_limit,
            provider: args.runtime.provider,
            proposals,
        };
        let Answer { plan, refusal, .. } = budget::answer(&demand, &mut runtime)?;
        let manifest = bundle.manifest();
        all.push(Planned {
            model: dir.display().to_string(),
            name: manifest.name.clone(),
            resolution: manifest.resolution,
            precision: manifest.precision.to_string(),
            provider: args.runtime.provider.to_string(),
            limit_bytes: args.mem_limit,
            fits: refusal.is_none(),
            refusal,
            plan,
        });
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
    let weights = if plan.packed_weights {
        ""
    } else {
        "mapped from their files, not counted"
    };
    let bank = format!("{} an object", size::show(plan.bank_bytes_per_object));
    let workspace = &plan.workspace_bytes;
    let (proposals, looking) = match plan.proposals {
        None => (0, String::new()),
        Some(part) => {
            let weights = size::show(part.weights_bytes);
            let why = match part.presence {
                Presence::Before => format!("with {weights} of weights, before the rest is loaded"),
                Presence::InTurn => format!("with {weights} of weights, in turn"),
                Presence::Loaded => format!("work, in turn; {weights} of weights stay loaded"),
            };
            let bytes = match part.presence {
                Presence::Loaded => part.workspace_bytes,
                _ => part.weights_bytes + part.workspace_bytes,
            };
            (bytes, why)
        }
    };
    let (before, text_note) = match plan.detector {
        None => (0, String::new()),
        Some(part) => (
            part.text_encoder_bytes,
            format!(
                "with {}, before the rest is loaded",
                counted(part.texts as u64, "text")
            ),
        ),
    };
    let weights_of = plan.detector.map_or(0, |part| part.weights_bytes);
    let detecting = plan.detector.map(|part| part.workspace_bytes);
    let work = |of: fn(&DetectorWorkspace) -> u64| detecting.as_ref().map_or(0, of);
    let rows = [
        ("text_encoder", before, text_note.as_str()),
        ("weights", plan.weights_bytes, weights),
        ("detector weights", weights_of, weights),
        ("shared features", plan.shared_features_bytes, ""),
        ("bank of memories", plan.bank_bytes, &bank),
        ("vision_encoder", workspace.vision_encoder, "work, in turn"),
        (
            "memory_attention",
            workspace.memory_attention,
            "work, in turn",
        ),
        ("mask_decoder", workspace.mask_decoder, "work, in turn"),
        ("memory_encoder", workspace.memory_encoder, "work, in turn"),
        (
            "detector images",
            work(|work| work.vision_encoder),
            "work, in turn",
        ),
        (
            "detector_features",
            work(|work| work.features),
            "work, in turn",
        ),
        ("detector", work(|work| work.search), "work, in turn"),
        ("detector_masks", work(|work| work.masks), "work, in turn"),
        ("proposals", proposals, &looking),
        ("in use at once", plan.in_use_bytes, "with the largest work"),
        ("headroom", plan.headroom_bytes, "for gaps between tensors"),
        ("total", plan.total_bytes, ""),
    ];
    for (name, bytes, note) in rows {
        // The processor's arena has no gaps, and few runs look for objects.
        let optional = ["headroom", "proposals", "text_encoder"].contains(&name);
        if (optional || name.starts_with("detector")) && bytes == 0 {
            continue;
        }
        let line = format!("  {name:<17} {:>9}  {note}", size::show(bytes));
        say(line.trim_end());
    }
    match (&planned.refusal, planned.limit_bytes) {
        (Some(why), _) => say(&format!("  does not fit: {why}")),
        (None, Some(limit)) => say(&format!("  fits in {}", size::show(limit))),
        (None, None) => {}
    }
}
