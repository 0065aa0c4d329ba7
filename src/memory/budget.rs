//! A memory limit to a plan: the chunk and the layout of the weights that fit, or what would fit.

use std::collections::BTreeMap;

use crate::bundle::Bundle;
use crate::detector::{DetectError, detector_spec};
use crate::memory::over_limit::{Model, ObjectOrigin, Refused};
use crate::memory::{
    self, Costs, DetectorNeeds, DetectorSizes, Extent, Group, Plan, Presence, ProposalCost, Sizes,
    default_chunk, profile,
};
use crate::runtime::{Engine, Provider};
use crate::tracker::{ModelSpec, Prompt, TrackError};

pub(crate) use crate::memory::over_limit::OverLimit;

/// Why there is no plan.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BudgetError {
    /// The run needs more memory than its limit.
    #[error(transparent)]
    OverLimit(#[from] Box<OverLimit>),
    /// A graph cannot be measured.
    #[error(transparent)]
    Track(#[from] TrackError),
    /// The bundle has no detector.
    #[error(transparent)]
    Detect(#[from] DetectError),
}

/// What is to be planned.
pub(crate) struct Request<'a> {
    /// The tracker's bundle.
    pub bundle: &'a Bundle,
    /// The objects.
    pub groups: Vec<Group>,
    /// Objects in one run of a graph; chosen without.
    pub chunk: Option<usize>,
    /// Most bytes of the arena.
    pub limit: Option<u64>,
    /// Where graphs run.
    pub provider: Provider,
    /// What the graph of proposals needs, if there is one.
    pub proposals: Option<ProposalCost>,
    /// The detector, if texts are tracked.
    pub detector: Option<DetectorUse<'a>>,
}

/// A detector and its work.
#[derive(Clone, Copy)]
pub(crate) struct DetectorUse<'a> {
    /// The detector's bundle.
    pub bundle: &'a Bundle,
    /// Whether it takes images at its own resolution, because it is another bundle than the tracker's.
    pub own_images: bool,
    /// Number of texts.
    pub texts: usize,
}

impl<'a> DetectorUse<'a> {
    /// The detector of the tracker's own bundle, or of another.
    pub(crate) fn with(bundle: &'a Bundle, other: Option<&'a Bundle>, texts: usize) -> Self {
        Self {
            bundle: other.unwrap_or(bundle),
            own_images: other.is_some(),
            texts,
        }
    }
}

/// Objects that texts mean; their number is not known in advance.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DetectedObjects {
    /// Most at once, by the parameters of text tracking.
    pub max_objects: usize,
    /// Whether the user set that number.
    pub set_by_user: bool,
    /// Frames from one reconditioning to the next; 0 for never.
    pub recondition_every: usize,
    /// Frames of the clip, if they are known.
    pub frames: Option<usize>,
}

/// Objects that a plan assumes where texts are tracked and the user sets no number.
const ASSUMED_OBJECTS: usize = 16;

/// Frames that a plan assumes where the length of the clip is not known.
const ASSUMED_FRAMES: usize = 10_000;

impl DetectedObjects {
    /// What each object recalls at most.
    fn extent(&self, bundle: &Bundle) -> Result<Extent, TrackError> {
        let policy = ModelSpec::of(bundle)?.policy;
        let frames = self.frames.unwrap_or(ASSUMED_FRAMES);
        let prompts = 1 + frames.checked_div(self.recondition_every).unwrap_or(0);
        // In steps, so that one measurement serves clips of about the same length.
        Ok(Extent::new(&policy, prompts.next_power_of_two(), frames))
    }
}

/// Objects that a graph may propose.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Proposed {
    /// Most on frame 0.
    pub now: usize,
    /// Most on later frames.
    pub later: usize,
    /// The first of these later frames.
    pub from: usize,
    /// What the graph needs, if it was measured.
    pub cost: Option<ProposalCost>,
}

impl Proposed {
    /// These objects in a clip of `num_frames` frames. Those of later frames may come at once or one by one: the plan
    /// assumes that they are tracked together and remembered one by one, which takes most.
    pub(crate) fn groups(
        &self,
        bundle: &Bundle,
        num_frames: usize,
    ) -> Result<Vec<Group>, TrackError> {
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

/// A plan, and whether it is within the limit.
pub(crate) struct Budget {
    /// The plan, also if it does not fit.
    pub plan: Plan,
    /// What each graph needs.
    pub costs: Costs,
    /// Bytes of the tensors between graphs.
    pub sizes: Sizes,
    /// Why the plan does not fit, and what would; `None` for one that fits.
    pub over_limit: Option<OverLimit>,
}

/// Objects by their prompts, grouped by the frames of these, in a clip of `num_frames` frames.
///
/// # Errors
/// A manifest that this program does not understand.
pub(crate) fn prompted(
    bundle: &Bundle,
    prompts: &BTreeMap<usize, Vec<Prompt>>,
    num_frames: usize,
) -> Result<Vec<Group>, TrackError> {
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

/// Objects with one prompt each, on the same frame of a long clip.
///
/// # Errors
/// A manifest that this program does not understand.
pub(crate) fn prompted_once(bundle: &Bundle, objects: usize) -> Result<Vec<Group>, TrackError> {
    let policy = ModelSpec::of(bundle)?.policy;
    let extent = Extent::new(&policy, 1, usize::MAX);
    Ok(vec![Group {
        objects,
        first: 0,
        extent,
    }])
}

/// Objects that texts mean, in a long clip.
///
/// # Errors
/// A bundle without a detector.
pub(crate) fn detected(
    bundle: &Bundle,
    detector: &DetectorUse<'_>,
    objects: usize,
) -> Result<Vec<Group>, BudgetError> {
    let parameters = &detector_spec(detector.bundle)?.text_tracking;
    let detected = DetectedObjects {
        max_objects: objects,
        set_by_user: true,
        recondition_every: parameters.recondition_every as usize,
        frames: None,
    };
    Ok(memory::one_by_one(objects, detected.extent(bundle)?))
}

/// Measures what is not known yet, and plans.
///
/// # Errors
/// A graph that cannot be measured.
pub(crate) fn budget(request: &Request<'_>, engine: &mut Engine) -> Result<Budget, BudgetError> {
    let groups = &request.groups;
    let extent = groups
        .iter()
        .fold(Extent::default(), |extent, group| extent.max(group.extent));
    let sizes = Sizes::of(request.bundle.manifest());
    let max_chunk = request
        .chunk
        .unwrap_or_else(|| default_chunk(request.bundle.manifest(), request.provider));
    let mut costs = measure(request, extent, true, engine)?;
    let Some(limit) = request.limit else {
        return Ok(Budget {
            plan: memory::plan(&costs, &sizes, groups, max_chunk),
            costs,
            sizes,
            over_limit: None,
        });
    };
    let fit = |costs: &Costs| match request.chunk {
        Some(chunk) => {
            let plan = memory::plan(costs, &sizes, groups, chunk);
            (plan.total_bytes <= limit)
                .then_some(plan)
                .ok_or_else(|| Box::new(plan))
        }
        None => memory::largest_chunk(costs, &sizes, groups, max_chunk, limit),
    };
    let mut planned = fit(&costs);
    // A GPU has a copy of the weights in any case.
    if planned.is_err() && request.provider == Provider::Cpu {
        let mapped_costs = measure(request, extent, false, engine)?;
        let mapped = fit(&mapped_costs);
        let smaller = match (&planned, &mapped) {
            (Err(packed), Err(mapped)) => mapped.total_bytes < packed.total_bytes,
            _ => true,
        };
        if smaller {
            (planned, costs) = (mapped, mapped_costs);
        }
    }
    Ok(match planned {
        Ok(plan) => Budget {
            plan: stay_loaded(plan, &costs, &sizes, groups, limit),
            costs,
            sizes,
            over_limit: None,
        },
        Err(plan) => Budget {
            over_limit: Some(over_limit(request, &plan, &costs, &sizes, extent, limit)),
            plan: *plan,
            costs,
            sizes,
        },
    })
}

/// Measures all graphs of a request; `packed` says whether weights are laid out anew in the arena.
fn measure(
    request: &Request<'_>,
    extent: Extent,
    packed: bool,
    engine: &mut Engine,
) -> Result<Costs, BudgetError> {
    let costs = profile::measure(request.bundle, engine, packed, extent, request.limit)?;
    let detector = match request.detector {
        Some(DetectorUse {
            bundle,
            own_images,
            texts,
        }) => Some(DetectorNeeds {
            costs: profile::measure_detector(bundle, engine, packed, own_images, request.limit)?,
            sizes: DetectorSizes::of(bundle.manifest(), own_images),
            texts,
        }),
        None => None,
    };
    Ok(Costs {
        proposals: request.proposals,
        detector,
        ..costs
    })
}

/// The plan with the graph of proposals loaded all the time, which saves loading it for each run, where the limit leaves
/// room for that; the plan as it is otherwise.
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

/// What a run loads with: the chunk, and the plan if there is a limit.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Decided {
    /// Objects in one run of a graph.
    pub chunk: usize,
    /// The plan; `None` without a limit.
    pub plan: Option<Plan>,
}

/// Decides the chunk of a run, and sets the engine's layout of weights as the plan says.
///
/// # Errors
/// [`BudgetError::OverLimit`]; a graph that cannot be measured.
pub(crate) fn decide(request: &Request<'_>, engine: &mut Engine) -> Result<Decided, BudgetError> {
    if request.limit.is_none() {
        let chunk = request
            .chunk
            .unwrap_or_else(|| default_chunk(request.bundle.manifest(), request.provider));
        return Ok(Decided { chunk, plan: None });
    }
    let Budget {
        plan, over_limit, ..
    } = budget(request, engine)?;
    if let Some(over_limit) = over_limit {
        return Err(Box::new(over_limit).into());
    }
    engine.set_pack_weights(plan.packed_weights);
    Ok(Decided {
        chunk: plan.chunk,
        plan: Some(plan),
    })
}

/// What a run of texts loads with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DecidedTexts {
    /// Chunk and plan.
    pub decided: Decided,
    /// Most objects at once.
    pub max_objects: usize,
    /// Whether the limit holds fewer objects than the parameters allow, without the user having set a number.
    pub reduced: bool,
}

/// As [`decide`], for objects that texts mean. If the user does not set their number, the plan assumes 16, or as many as
/// fit; the rest of the limit then goes to more objects. `request.groups` is not used.
///
/// # Errors
/// As [`decide`].
pub(crate) fn decide_texts(
    request: Request<'_>,
    detected: DetectedObjects,
    engine: &mut Engine,
) -> Result<DecidedTexts, BudgetError> {
    let max_objects = detected.max_objects;
    let Some(limit) = request.limit else {
        return Ok(DecidedTexts {
            decided: decide(&request, engine)?,
            max_objects,
            reduced: false,
        });
    };
    let extent = detected.extent(request.bundle)?;
    let objects = match detected.set_by_user {
        true => max_objects,
        false => max_objects.min(ASSUMED_OBJECTS),
    };
    let request = Request {
        groups: memory::one_by_one(objects.max(1), extent),
        ..request
    };
    let Budget {
        plan,
        costs,
        sizes,
        over_limit,
    } = budget(&request, engine)?;
    let chunk = plan.chunk;
    let fitting =
        memory::max_objects_one_by_one(&costs, &sizes, extent, max_objects.max(1), chunk, limit);
    let reduced = over_limit.is_some();
    if let Some(over_limit) = over_limit
        && (detected.set_by_user || fitting == 0)
    {
        return Err(Box::new(over_limit).into());
    }
    engine.set_pack_weights(costs.packed);
    let groups = memory::one_by_one(fitting, extent);
    let plan = memory::plan(&costs, &sizes, &groups, chunk);
    Ok(DecidedTexts {
        decided: Decided {
            chunk,
            plan: Some(plan),
        },
        max_objects: fitting,
        reduced,
    })
}

/// What would fit in place of a plan that does not.
fn over_limit(
    request: &Request<'_>,
    plan: &Plan,
    costs: &Costs,
    sizes: &Sizes,
    extent: Extent,
    limit: u64,
) -> OverLimit {
    let refused = Refused {
        plan,
        costs,
        sizes,
        groups: &request.groups,
        extent,
        chunk_requested: request.chunk.is_some(),
        limit,
        provider: request.provider,
        model: Model::of(request.bundle.manifest()),
        bundle: request.bundle.dir(),
        origin: match (request.proposals, request.detector) {
            (Some(_), _) => ObjectOrigin::Proposals,
            (_, Some(_)) => ObjectOrigin::Texts,
            _ => ObjectOrigin::Prompts,
        },
    };
    refused.over_limit()
}
