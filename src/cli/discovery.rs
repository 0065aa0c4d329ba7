//! Objects that a graph proposes, frame by frame: when it looks, what is new, and what becomes of it.

use std::path::Path;
use std::time::Instant;

use anyhow::Result;

use super::args::RuntimeArgs;
use super::budget::Proposed;
use super::propose::{FirstLook, PromptKind, ProposalArgs, Proposer};
use crate::bundle::Bundle;
use crate::media::mask::{BinaryMask, binarise, mask_prompt, upsample_logits};
use crate::media::{self, Frame};
use crate::memory::{Plan, Presence};
use crate::prompts::{MAX_OBJECT, Prompts};
use crate::proposals::{Choice, Proposal, ProposalError, ROLE};
use crate::runtime::{Backend as _, Graph, Runtime};
use crate::session::report::{PromptReport, ProposalSource, ProposalsReport};
use crate::tracker::{ObjectMask, Prompt};

/// A proposal and what became of it.
#[derive(Debug, Clone)]
pub struct Seen {
    /// What was proposed.
    pub proposal: Proposal,
    /// The name of its class, where the file has one.
    pub class_name: Option<String>,
    /// Share of its mask that is covered by the masks of objects, 0 to 1.
    pub covered: f32,
    /// The object that it became.
    pub object: Option<u32>,
}

/// What a model's masks are like.
#[derive(Debug, Clone, Copy)]
struct MaskSpec {
    /// Side of the low-resolution logits.
    low_size: usize,
    /// A logit above this belongs to the object.
    threshold: f32,
    /// Side of a mask prompt.
    prompt_size: u32,
}

/// Objects that are known before the first look.
#[derive(Debug, Clone, Copy)]
struct Known {
    /// Objects with prompts of the user, on whatever frame.
    objects: usize,
    /// The greatest id of them.
    last: u32,
}

/// Looks for objects during a run.
pub struct Discovery {
    proposer: Proposer,
    runtime: Runtime,
    masks: MaskSpec,
    choice: Choice,
    kind: PromptKind,
    covered: f32,
    every: Option<usize>,
    /// Whether the graph stays loaded between looks.
    stays: bool,
    graph: Option<Box<dyn Graph>>,
    /// The first frame's, until it is tracked.
    first: Option<Vec<Proposal>>,
    objects: usize,
    most: usize,
    last: u32,
    found: Vec<PromptReport>,
    report: ProposalsReport,
    /// What the arena of the first look held, in bytes: at once, and in tensors.
    peak: Option<(u64, u64)>,
}

impl Discovery {
    /// Reads the graph of --proposals and has it look at the first frame, alone: its session is gone when this returns. `None`
    /// without a graph; `digest` is [`Proposer::digest`] of it.
    ///
    /// # Errors
    /// A file of another form, and a graph that does not fit in the limit or cannot run.
    pub(super) fn begin(
        args: &ProposalArgs,
        digest: Option<String>,
        (input, runtime, limit): (&Path, &RuntimeArgs, Option<u64>),
        prompts: &Prompts,
        bundle: &Bundle,
    ) -> Result<Option<Self>> {
        let (Some(path), Some(digest)) = (args.graph.proposals.as_deref(), digest) else {
            return Ok(None);
        };
        let mut runtime = Runtime::load(&runtime.options(limit))?;
        let mut proposer = Proposer::open(path, digest, &args.graph, limit, &runtime)?;
        if limit.is_some() {
            proposer.measure(&args.graph, limit, &mut runtime)?;
        }
        let first = match media::open(input)?.next_frame()? {
            Some(frame) => Some(proposer.first_look(&frame, &args.choice(), limit, &runtime)?),
            None => None,
        };
        let objects = prompts.first_frames();
        let known = Known {
            objects: objects.len(),
            last: objects.keys().next_back().copied().unwrap_or(0),
        };
        let masks = &bundle.manifest().masks;
        let masks = MaskSpec {
            low_size: masks.low_res as usize,
            threshold: masks.threshold as f32,
            prompt_size: masks.prompt_size,
        };
        Ok(Some(Self::new(
            args, proposer, runtime, first, masks, known,
        )))
    }

    /// From options, a file of the right form, and the first look if there is a frame.
    fn new(
        args: &ProposalArgs,
        proposer: Proposer,
        runtime: Runtime,
        first: Option<FirstLook>,
        masks: MaskSpec,
        known: Known,
    ) -> Self {
        let most = args
            .max_objects
            .map_or(known.objects + args.max_det.get(), Into::into);
        let every = args.graph.discover_every.map(usize::from);
        let (width, height) = proposer.form.largest();
        let limit = runtime.mem_limit();
        let report = ProposalsReport {
            file: proposer.path.display().to_string(),
            sha256: proposer.digest.clone(),
            image: [width, height],
            prompts: args.proposal_prompts.as_str().to_owned(),
            conf: args.conf,
            iou: args.iou,
            max_det: args.max_det.get(),
            class_agnostic: args.class_agnostic,
            discover_every: every,
            covered: args.covered,
            max_objects: most,
            looks: u64::from(first.is_some()),
            proposals: 0,
            added: 0,
            left_out: 0,
            full_on_frame: None,
            stays_loaded: false,
            loads: u64::from(first.is_some()),
            load_s: first.as_ref().map_or(0.0, |look| look.load_s),
            look_s: first.as_ref().map_or(0.0, |look| look.look_s),
        };
        let peak = first
            .as_ref()
            .map(|look| (look.arena.peak_held, look.arena.peak_in_use));
        let mut discovery = Self {
            proposer,
            runtime,
            masks,
            choice: args.choice(),
            kind: args.proposal_prompts,
            covered: args.covered,
            every,
            stays: false,
            graph: None,
            first: first.map(|look| look.proposals),
            objects: known.objects,
            most,
            last: known.last,
            found: Vec::new(),
            report,
            peak,
        };
        let limit = limit.map(|limit| discovery.arena_limit(limit));
        discovery.runtime.set_mem_limit(limit);
        discovery
    }

    /// What a limit on memory leaves for the arena that all graphs share.
    fn arena_limit(&self, limit: u64) -> u64 {
        match self.every {
            Some(_) => limit.saturating_sub(self.proposer.beside).max(1),
            None => limit,
        }
    }

    /// The objects that may come of it.
    pub(super) fn proposed(&self) -> Proposed {
        let (now, later) = self.expected();
        Proposed {
            now,
            later,
            from: self.every.unwrap_or(0),
            // What looking takes of the arena, where it was measured.
            cost: self.proposer.cost,
        }
    }

    /// Objects that may come of the first look, and later.
    fn expected(&self) -> (usize, usize) {
        let room = self.most.saturating_sub(self.objects);
        let now = self.first.as_ref().map_or(0, Vec::len).min(room);
        (now, self.every.map_or(0, |_| room - now))
    }

    /// Frames between two looks; `None` if there is only the first.
    pub fn every(&self) -> Option<usize> {
        self.every
    }

    /// Leaves the tracker's `runtime` what a limit holds beside this, and keeps the graph between looks where the plan says so.
    pub(super) fn keep_within(
        &mut self,
        limit: Option<u64>,
        plan: Option<&Plan>,
        runtime: &mut Runtime,
    ) {
        runtime.set_mem_limit(limit.map(|limit| self.arena_limit(limit)));
        let part = plan.and_then(|plan| plan.proposals);
        // Without a plan there is no limit.
        let stays = part.is_none_or(|part| part.presence == Presence::Loaded);
        self.stays = stays && self.every.is_some();
        self.report.stays_loaded = self.stays;
    }

    /// Seconds spent so far on loading the graph and looking.
    pub(super) fn seconds(&self) -> f64 {
        self.report.load_s + self.report.look_s
    }

    /// Whether there are proposals for a frame.
    pub fn due(&self, frame: usize) -> bool {
        frame == 0 || self.every.is_some_and(|every| frame.is_multiple_of(every))
    }

    /// The proposals on a frame. Those on frame 0 are known before the run; `frame` is needed on later ones.
    ///
    /// # Errors
    /// The graph cannot be loaded or run.
    pub fn look(&mut self, frame: Option<&Frame>) -> Result<Vec<Proposal>, ProposalError> {
        if let Some(first) = self.first.take() {
            return Ok(first);
        }
        let Some(frame) = frame else {
            return Ok(Vec::new());
        };
        let mut graph = match self.graph.take() {
            Some(graph) => graph,
            None => {
                let start = Instant::now();
                let graph = self.runtime.load(ROLE, &self.proposer.path)?;
                self.report.loads += 1;
                self.report.load_s += start.elapsed().as_secs_f64();
                graph
            }
        };
        let start = Instant::now();
        let form = &self.proposer.form;
        let found = form.look(&self.runtime, graph.as_mut(), frame, &self.choice)?;
        self.report.looks += 1;
        self.report.look_s += start.elapsed().as_secs_f64();
        // Dropped here otherwise: the tracker's graphs come next and need its memory.
        if self.stays {
            self.graph = Some(graph);
        }
        Ok(found)
    }

    /// Which of the proposals on a frame of a size (width, height) are new, given the masks of its objects: prompts for
    /// these, and what became of each.
    pub fn judge(
        &mut self,
        frame: usize,
        size: (u32, u32),
        proposals: Vec<Proposal>,
        masks: &[ObjectMask],
    ) -> (Vec<Prompt>, Vec<Seen>) {
        let taken = self.union(masks, size);
        let mut prompts = Vec::new();
        let mut all = Vec::with_capacity(proposals.len());
        for proposal in proposals {
            let shared = taken
                .as_ref()
                .map_or(0, |taken| proposal.mask.shared(taken));
            let covered = shared as f32 / proposal.mask.area().max(1) as f32;
            let prompt = if covered > self.covered {
                None
            } else {
                self.prompt(frame, size, &proposal)
            };
            let mut seen = Seen {
                class_name: self.proposer.form.class_name(proposal.class),
                proposal,
                covered,
                object: None,
            };
            if let Some(prompt) = prompt {
                seen.object = Some(prompt.object);
                self.found.push(PromptReport {
                    proposal: Some(ProposalSource {
                        score: seen.proposal.score,
                        class: seen.proposal.class,
                        class_name: seen.class_name.clone(),
                    }),
                    ..PromptReport::of(&prompt)
                });
                prompts.push(prompt);
            }
            all.push(seen);
        }
        self.report.proposals += all.len() as u64;
        self.report.added += prompts.len() as u64;
        (prompts, all)
    }

    /// A prompt for a new object; `None` if there is no room for one, or if the model would see nothing of the mask.
    fn prompt(&mut self, frame: usize, size: (u32, u32), proposal: &Proposal) -> Option<Prompt> {
        let mut prompt = Prompt {
            frame,
            ..Prompt::default()
        };
        match self.kind {
            PromptKind::Box => prompt.bbox = Some(proposal.bbox),
            PromptKind::Mask => {
                let mask = proposal.mask.in_frame(size.0, size.1);
                if mask_prompt(&mask, self.masks.prompt_size)
                    .iter()
                    .all(|value| *value == 0.0)
                {
                    return None;
                }
                prompt.mask = Some(mask);
            }
        }
        if self.objects >= self.most || self.last >= MAX_OBJECT {
            self.report.left_out += 1;
            self.report.full_on_frame.get_or_insert(frame as u64);
            return None;
        }
        self.objects += 1;
        self.last += 1;
        prompt.object = self.last;
        Some(prompt)
    }

    /// The pixels of a frame that some object has; `None` if there are none.
    fn union(&self, masks: &[ObjectMask], (width, height): (u32, u32)) -> Option<BinaryMask> {
        let MaskSpec {
            low_size,
            threshold,
            ..
        } = self.masks;
        let visible = |mask: &&ObjectMask| mask.low_res.iter().any(|logit| *logit > threshold);
        let mut union: Option<BinaryMask> = None;
        for object in masks.iter().filter(visible) {
            let logits = upsample_logits(&object.low_res, low_size, width, height);
            let mask = binarise(&logits, width, height, threshold);
            match &mut union {
                None => union = Some(mask),
                Some(union) => {
                    let pixels = union.data.iter_mut().zip(&mask.data);
                    pixels.for_each(|(pixel, inside)| *pixel |= inside);
                }
            }
        }
        union
    }

    /// What run.json says: the looks, and the prompts that came of them.
    pub(super) fn report(&self) -> (ProposalsReport, &[PromptReport]) {
        (self.report.clone(), &self.found)
    }

    /// Most that the arena of the first look held, in bytes: at once, and in tensors.
    pub(super) fn peak(&self) -> Option<(u64, u64)> {
        self.peak
    }

    /// What the user should know after the run, one sentence each.
    pub(super) fn notes(&self) -> Vec<String> {
        let report = &self.report;
        let mut notes = Vec::new();
        if report.proposals == 0 && report.looks > 0 {
            notes.push(format!(
                "{} proposed nothing with a score above {}; give a lower --conf",
                report.file, report.conf
            ));
        }
        if let Some(frame) = report.full_on_frame {
            notes.push(format!(
                "{} objects are the most (--max-objects): from frame {frame} on {} that no object covered {} left out; raise it, or --conf",
                report.max_objects,
                super::counted(report.left_out, "proposal"),
                if report.left_out == 1 { "was" } else { "were" },
            ));
        }
        notes
    }
}
