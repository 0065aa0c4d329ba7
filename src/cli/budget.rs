//! A limit on memory to a plan: the chunk and the layout of the weights that fit, or an error that says what would.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;

use anyhow::{Result, anyhow};

use super::counted;
use crate::bundle::{Bundle, Precision};
use crate::graph::{Provider, Runtime};
use crate::plan::{
    self, Costs, Extent, Group, Plan, Presence, ProposalCost, Sizes, default_chunk, sounding,
};
use crate::size;
use crate::tracker::{ModelSpec, Prompt};

/// What is to be planned for.
pub(super) struct Demand<'a> {
    pub bundle: &'a Bundle,
    pub groups: Vec<Group>,
    /// As asked for; chosen if absent.
    pub chunk: Option<usize>,
    pub limit: Option<u64>,
    pub provider: Provider,
    /// What looking for objects takes, if somebody does.
    pub proposals: Option<ProposalCost>,
}

/// Objects without a prompt of the user, which a graph proposes.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Proposed {
    /// On frame 0, at most.
    pub now: usize,
    /// On later frames, at most.
    pub later: usize,
    /// The first of these frames.
    pub from: usize,
    /// What looking for them takes, where it was measured.
    pub cost: Option<ProposalCost>,
}

/// A plan, and whether it is within the limit.
pub(super) struct Answer {
    pub plan: Plan,
    /// What to do about a plan that does not fit; absent for one that does.
    pub refusal: Option<String>,
}

/// Objects with as many prompts on the same frames, in a clip of `num_frames` frames.
fn groups(
    bundle: &Bundle,
    prompts: &BTreeMap<usize, Vec<Prompt>>,
    num_frames: usize,
) -> Result<Vec<Group>> {
    let policy = ModelSpec::of(bundle)?.policy;
    let mut frames: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
    for prompt in prompts.values().flatten() {
        frames.entry(prompt.object).or_default().push(prompt.frame);
    }
    let mut histories: BTreeMap<Vec<usize>, usize> = BTreeMap::new();
    for history in frames.into_values() {
        *histories.entry(history).or_default() += 1;
    }
    Ok(histories
        .into_iter()
        .map(|(history, objects)| Group {
            objects,
            first: history.first().copied().unwrap_or(0),
            extent: Extent::new(&policy, history.len(), num_frames),
        })
        .collect())
}

impl Proposed {
    /// These objects in a clip of `num_frames` frames. Those of later frames may come at once or one by one: in the plan
    /// they are tracked together and remembered one by one, which takes most.
    fn groups(&self, bundle: &Bundle, num_frames: usize) -> Result<Vec<Group>> {
        let policy = ModelSpec::of(bundle)?.policy;
        let extent = Extent::new(&policy, 1, num_frames);
        let group = |objects, first| Group {
            objects,
            first,
            extent,
        };
        let now = (self.now > 0).then(|| group(self.now, 0));
        let later = std::iter::repeat_n(group(1, self.from), self.later);
        Ok(now.into_iter().chain(later).collect())
    }
}

/// Objects with one prompt each, on the same frame of a long clip.
pub(super) fn alike(bundle: &Bundle, objects: usize) -> Result<Vec<Group>> {
    let policy = ModelSpec::of(bundle)?.policy;
    let extent = Extent::new(&policy, 1, usize::MAX);
    Ok(vec![Group {
        objects,
        first: 0,
        extent,
    }])
}

/// Measures what is not known yet and plans.
///
/// # Errors
/// A graph that cannot be measured.
pub(super) fn answer(demand: &Demand<'_>, runtime: &mut Runtime) -> Result<Answer> {
    let groups = &demand.groups;
    let extent = groups
        .iter()
        .fold(Extent::default(), |extent, group| extent.max(group.extent));
    let sizes = Sizes::of(demand.bundle.manifest());
    let most = demand
        .chunk
        .unwrap_or_else(|| default_chunk(demand.bundle.manifest()));
    let mut sound = |packed| -> Result<Costs> {
        let costs = sounding::sound(demand.bundle, runtime, packed, extent, demand.limit)?;
        Ok(Costs {
            proposals: demand.proposals,
            ..costs
        })
    };
    let costs = sound(true)?;
    let Some(limit) = demand.limit else {
        return Ok(Answer {
            plan: plan::plan(&costs, &sizes, groups, most),
            refusal: None,
        });
    };
    let fit = |costs: &Costs| match demand.chunk {
        Some(chunk) => {
            let plan = plan::plan(costs, &sizes, groups, chunk);
            (plan.total_bytes <= limit)
                .then_some(plan)
                .ok_or_else(|| Box::new(plan))
        }
        None => plan::within(costs, &sizes, groups, most, limit),
    };
    let mut tried = fit(&costs);
    let mut costs = costs;
    // A GPU has a copy of the weights in any case.
    if tried.is_err() && demand.provider == Provider::Cpu {
        let mapped = sound(false)?;
        let again = fit(&mapped);
        let smaller = match (&tried, &again) {
            (Err(packed), Err(mapped)) => mapped.total_bytes < packed.total_bytes,
            _ => true,
        };
        if smaller {
            (tried, costs) = (again, mapped);
        }
    }
    Ok(match tried {
        Ok(plan) => Answer {
            plan: stay_loaded(plan, &costs, &sizes, groups, limit),
            refusal: None,
        },
        Err(plan) => Answer {
            refusal: Some(refuse(demand, &plan, &costs, &sizes, extent, limit)),
            plan: *plan,
        },
    })
}

/// The plan with the graph that proposes objects loaded all the time, which saves loading it for each look, where the
/// limit leaves room for that; the plan as it is otherwise.
fn stay_loaded(plan: Plan, costs: &Costs, sizes: &Sizes, groups: &[Group], limit: u64) -> Plan {
    let Some(ProposalCost {
        cost,
        presence: Presence::InTurn,
    }) = costs.proposals
    else {
        return plan;
    };
    let costs = Costs {
        proposals: Some(ProposalCost {
            cost,
            presence: Presence::Loaded,
        }),
        ..*costs
    };
    let loaded = plan::plan(&costs, sizes, groups, plan.chunk);
    if loaded.total_bytes <= limit {
        loaded
    } else {
        plan
    }
}

/// As [`answer`], with an error where it does not fit.
fn fitting(demand: &Demand<'_>, runtime: &mut Runtime) -> Result<Plan> {
    let answer = answer(demand, runtime)?;
    match answer.refusal {
        None => Ok(answer.plan),
        Some(why) => Err(anyhow!(why)),
    }
}

/// What a run settles before it loads its graphs: the plan if there is a limit, and the chunk. `runtime` is set to the
/// plan's layout of the weights.
pub(super) fn settle(
    bundle: &Bundle,
    prompts: &BTreeMap<usize, Vec<Prompt>>,
    num_frames: usize,
    chunk: Option<NonZeroUsize>,
    limit: Option<u64>,
    proposed: &Proposed,
    runtime: &mut Runtime,
) -> Result<(Option<Plan>, usize)> {
    let asked = chunk.map(usize::from);
    let Some(limit) = limit else {
        return Ok((
            None,
            asked.unwrap_or_else(|| default_chunk(bundle.manifest())),
        ));
    };
    let mut groups = groups(bundle, prompts, num_frames)?;
    groups.extend(proposed.groups(bundle, num_frames)?);
    let demand = Demand {
        bundle,
        groups,
        chunk: asked,
        limit: Some(limit),
        provider: runtime.provider(),
        proposals: proposed.cost,
    };
    let plan = fitting(&demand, runtime)?;
    runtime.set_pack_weights(plan.packed_weights);
    Ok((Some(plan), plan.chunk))
}

fn refuse(
    demand: &Demand<'_>,
    plan: &Plan,
    costs: &Costs,
    sizes: &Sizes,
    extent: Extent,
    limit: u64,
) -> String {
    let manifest = demand.bundle.manifest();
    let (part, bytes) = plan.largest();
    let mut ways = Vec::new();
    if demand.chunk.is_some()
        && let Ok(smaller) = plan::within(costs, sizes, &demand.groups, plan.chunk, limit)
    {
        ways.push(format!(
            "--chunk {} ({})",
            smaller.chunk,
            size::show(smaller.total_bytes)
        ));
    }
    let objects = plan::most_objects(costs, sizes, extent, plan.objects, limit);
    if objects > 0 && objects < plan.objects {
        let how = match demand.proposals {
            Some(_) => format!(" (--max-objects {objects})"),
            None => String::new(),
        };
        let objects = counted(objects as u64, "object");
        ways.push(format!("{objects} at once{how}"));
    }
    // Everything but the weights grows with the number of tokens.
    let working = plan.total_bytes - plan.weights_bytes;
    let room = limit.saturating_sub(plan.weights_bytes);
    let patch = (manifest.resolution / manifest.grid.max(1)).max(1);
    let side = f64::from(manifest.resolution) * (room as f64 / working.max(1) as f64).sqrt();
    let side = (side as u32) / patch * patch;
    if side >= 4 * patch && side < manifest.resolution {
        ways.push(format!("a bundle of about {side} px or less"));
    }
    let half = plan.total_bytes / 2;
    if demand.provider == Provider::Cuda && manifest.precision == Precision::Fp32 && half <= limit {
        ways.push(format!("a bundle in fp16 (about {})", size::show(half)));
    }
    ways.push(format!(
        "--mem-limit {} or more",
        size::in_mib(plan.total_bytes)
    ));
    format!(
        "{} with {} and {} at once needs {} of memory, but the limit is {}; the largest part is {part} with {}; what would fit: {}",
        demand.bundle.dir().display(),
        counted(plan.objects as u64, "object"),
        plan.chunk.min(plan.objects),
        size::show(plan.total_bytes),
        size::show(limit),
        size::show(bytes),
        ways.join(", or ")
    )
}
