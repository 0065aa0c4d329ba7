//! `snow-ort plan`: what a run would need, without a clip.

use anyhow::Result;
use serde::Serialize;

use super::args::PlanArgs;
use super::budget::{self, Answer, Demand};
use super::{counted, models, propose, say};
use crate::bundle::Bundle;
use crate::graph::Runtime;
use crate::plan::{Plan, Presence};
use crate::size;

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
        let bundle = Bundle::open(dir)?;
        let demand = Demand {
            bundle: &bundle,
            groups: budget::alike(&bundle, args.objects.get())?,
            chunk: args.chunk.map(Into::into),
            limit: args.mem_limit,
            provider: args.runtime.provider,
            proposals,
        };
        let Answer { plan, refusal } = budget::answer(&demand, &mut runtime)?;
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
    let rows = [
        ("weights", plan.weights_bytes, weights),
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
        ("proposals", proposals, &looking),
        ("in use at once", plan.in_use_bytes, "with the largest work"),
        ("headroom", plan.headroom_bytes, "for gaps between tensors"),
        ("total", plan.total_bytes, ""),
    ];
    for (name, bytes, note) in rows {
        // The processor's arena has no gaps, and few runs look for objects.
        if ["headroom", "proposals"].contains(&name) && bytes == 0 {
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
