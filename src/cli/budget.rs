//! A limit on memory to a plan: the chunk and the layout of the weights that fit, or an error that says what would.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;

use anyhow::{Result, anyhow};

use super::{complain, counted};
use crate::bundle::{Bundle, Precision};
use crate::detector::described;
use crate::memory::{
    self, Costs, DetectorNeeds, DetectorSizes, Extent, Group, Plan, Presence, ProposalCost, Sizes,
    default_chunk, profile,
};
use crate::runtime::{Provider, Runtime};
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
    /// What finds objects for texts, if somebody asks.
    pub looking: Option<Looking<'a>>,
}

/// A detector and its work.
#[derive(Clone, Copy)]
pub(super) struct Looking<'a> {
    /// The detector's bundle.
    pub bundle: &'a Bundle,
    /// Whether it looks at images of its own, since it is another bundle than the tracker's.
    pub own_images: bool,
    /// How many texts are looked for.
    pub texts: usize,
}

impl<'a> Looking<'a> {
    /// With the detector of the tracker's own bundle, or of another.
    pub fn with(bundle: &'a Bundle, other: Option<&'a Bundle>, texts: usize) -> Self {
        Self {
            bundle: other.unwrap_or(bundle),
            own_images: other.is_some(),
            texts,
        }
    }
}

/// Objects that texts find: how many there will be is not known.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sought {
    /// Most at once, as the loop's parameters have it.
    pub most: usize,
    /// Whether the user said so.
    pub asked: bool,
    /// Frames between two times of remembering them as if they had been prompted; 0 for never.
    pub recondition_every: usize,
    /// Frames that come, as far as that is known.
    pub frames: Option<usize>,
}

/// Objects that are planned for where texts find them and the user does not bound them.
const SOUGHT: usize = 16;

/// Frames that are planned for where nobody knows how many come.
const FRAMES: usize = 10_000;

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
    pub costs: Costs,
    pub sizes: Sizes,
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

/// Objects that a bundle's loop finds in a long clip.
pub(super) fn found(bundle: &Bundle, looking: &Looking<'_>, objects: usize) -> Result<Vec<Group>> {
    let follow = &described(looking.bundle)?.follow;
    let sought = Sought {
        most: objects,
        asked: true,
        recondition_every: follow.recondition_every as usize,
        frames: None,
    };
    Ok(memory::one_by_one(objects, sought.extent(bundle)?))
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
        .unwrap_or_else(|| default_chunk(demand.bundle.manifest(), demand.provider));
    let mut sound = |packed| -> Result<Costs> {
        let costs = profile::sound(demand.bundle, runtime, packed, extent, demand.limit)?;
        let detector = match demand.looking {
            Some(looking) => Some(needs(&looking, packed, demand.limit, runtime)?),
            None => None,
        };
        Ok(Costs {
            proposals: demand.proposals,
            detector,
            ..costs
        })
    };
    let costs = sound(true)?;
    let Some(limit) = demand.limit else {
        return Ok(Answer {
            plan: memory::plan(&costs, &sizes, groups, most),
            costs,
            sizes,
            refusal: None,
        });
    };
    let fit = |costs: &Costs| match demand.chunk {
        Some(chunk) => {
            let plan = memory::plan(costs, &sizes, groups, chunk);
            (plan.total_bytes <= limit)
                .then_some(plan)
                .ok_or_else(|| Box::new(plan))
        }
        None => memory::within(costs, &sizes, groups, most, limit),
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
            costs,
            sizes,
            refusal: None,
        },
        Err(plan) => Answer {
            refusal: Some(refuse(demand, &plan, &costs, &sizes, extent, limit)),
            plan: *plan,
            costs,
            sizes,
        },
    })
}

/// Measures a detector.
fn needs(
    looking: &Looking<'_>,
    packed: bool,
    limit: Option<u64>,
    runtime: &mut Runtime,
) -> Result<DetectorNeeds> {
    let &Looking {
        bundle,
        own_images,
        texts,
    } = looking;
    Ok(DetectorNeeds {
        costs: profile::sound_detector(bundle, runtime, packed, own_images, limit)?,
        sizes: DetectorSizes::of(bundle.manifest(), own_images),
        texts,
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
    let loaded = memory::plan(&costs, sizes, groups, plan.chunk);
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
            asked.unwrap_or_else(|| default_chunk(bundle.manifest(), runtime.provider())),
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
        looking: None,
    };
    let plan = fitting(&demand, runtime)?;
    runtime.set_pack_weights(plan.packed_weights);
    Ok((Some(plan), plan.chunk))
}

/// As [`settle`], for objects that texts find: the plan, the chunk, and how many objects fit. Without a word of the user's on
/// how many there may be, it is for [`SOUGHT`] of them, or as many as fit; what is left of the limit then goes to more.
pub(super) fn settle_sought(
    bundle: &Bundle,
    looking: Looking<'_>,
    sought: Sought,
    chunk: Option<NonZeroUsize>,
    limit: Option<u64>,
    runtime: &mut Runtime,
) -> Result<(Option<Plan>, usize, usize)> {
    let asked = chunk.map(usize::from);
    let Some(limit) = limit else {
        let chunk = asked.unwrap_or_else(|| default_chunk(bundle.manifest(), runtime.provider()));
        return Ok((None, chunk, sought.most));
    };
    let extent = sought.extent(bundle)?;
    let objects = match sought.asked {
        true => sought.most,
        false => sought.most.min(SOUGHT),
    };
    let demand = Demand {
        bundle,
        groups: memory::one_by_one(objects.max(1), extent),
        chunk: asked,
        limit: Some(limit),
        provider: runtime.provider(),
        proposals: None,
        looking: Some(looking),
    };
    let Answer {
        plan,
        costs,
        sizes,
        refusal,
    } = answer(&demand, runtime)?;
    let chunk = plan.chunk;
    let most = memory::most_found(&costs, &sizes, extent, (sought.most.max(1), chunk), limit);
    match refusal {
        Some(why) if sought.asked || most == 0 => return Err(anyhow!(why)),
        Some(_) => complain(&format!(
            "warning: --mem-limit {} holds {} at once; what is found beyond that is not followed",
            size::show(limit),
            counted(most as u64, "object")
        )),
        None => {}
    }
    runtime.set_pack_weights(costs.packed);
    let plan = memory::plan(&costs, &sizes, &memory::one_by_one(most, extent), chunk);
    Ok((Some(plan), chunk, most))
}

impl Sought {
    /// What each object recalls at most.
    fn extent(&self, bundle: &Bundle) -> Result<Extent> {
        let policy = ModelSpec::of(bundle)?.policy;
        let frames = self.frames.unwrap_or(FRAMES);
        let prompts = 1 + frames.checked_div(self.recondition_every).unwrap_or(0);
        // In steps, so that one measurement serves clips of about the same length.
        Ok(Extent::new(&policy, prompts.next_power_of_two(), frames))
    }
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
        && let Ok(smaller) = memory::within(costs, sizes, &demand.groups, plan.chunk, limit)
    {
        ways.push(format!(
            "--chunk {} ({})",
            smaller.chunk,
            size::show(smaller.total_bytes)
        ));
    }
    let objects = memory::most_objects(costs, sizes, extent, plan.objects, limit);
    if objects > 0 && objects < plan.objects {
        let how = match (demand.proposals, demand.looking) {
            (Some(_), _) => format!(" (--max-objects {objects})"),
            (_, Some(_)) => format!(" (--follow max_objects={objects})"),
            _ => String::new(),
        };
        let objects = counted(objects as u64, "object");
        ways.push(format!("{objects} at once{how}"));
    }
    // Everything but the weights grows with the number of tokens.
    let weights = plan.weights_bytes + plan.detector.map_or(0, |part| part.weights_bytes);
    let working = plan.total_bytes.saturating_sub(weights);
    let room = limit.saturating_sub(weights);
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
