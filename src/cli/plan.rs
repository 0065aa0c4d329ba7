//! `snow-ort plan`: what a run would need, without a clip.

use anyhow::Result;
use serde::Serialize;

use super::args::PlanArgs;
use super::budget::{self, Answer, Demand};
use super::{counted, models, say};
use crate::bundle::Bundle;
use crate::graph::Runtime;
use crate::plan::Plan;
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
    let mut all = Vec::with_capacity(dirs.len());
    for dir in &dirs {
        let bundle = Bundle::open(dir)?;
        let demand = Demand {
            bundle: &bundle,
            groups: budget::alike(&bundle, args.objects.get())?,
            chunk: args.chunk.map(Into::into),
            limit: args.mem_limit,
            provider: args.runtime.provider,
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
        ("in use at once", plan.in_use_bytes, "with the largest work"),
        ("headroom", plan.headroom_bytes, "for gaps between tensors"),
        ("total", plan.total_bytes, ""),
    ];
    for (name, bytes, note) in rows {
        // The processor's arena has no gaps.
        if name == "headroom" && bytes == 0 {
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
