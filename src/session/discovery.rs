//! Objects that a graph proposes during a run: when the graph runs, which proposals are new, and what becomes of them.

use std::time::Instant;

use super::SessionError;
use super::config::{Config, ProposalConfig, ProposalPrompt};
use super::notes::{Note, NoteCode};
use super::report::{PromptReport, ProposalSource, ProposalsReport};
use crate::bundle::Bundle;
use crate::masks::Mask;
use crate::masks::prompt::mask_prompt;
use crate::media::{self, Frame};
use crate::memory::budget::Proposed;
use crate::memory::{Plan, Presence};
use crate::prompts::MAX_OBJECT;
use crate::proposals::proposer::{FirstProposals, Proposer};
use crate::proposals::{Proposal, ProposalError, ProposalOptions, ROLE};
use crate::runtime::{Backend as _, Engine, Graph};
use crate::tracker::{ObjectMask, Prompt};
use crate::words::counted;

/// A proposal and what became of it.
#[derive(Debug, Clone)]
pub(crate) struct JudgedProposal {
    /// The proposal.
    pub proposal: Proposal,
    /// The name of its class, where the file has one.
    pub class_name: Option<String>,
    /// Share of its mask that the masks of objects cover, 0 to 1.
    pub covered: f32,
    /// The object that it became.
    pub object: Option<u32>,
}

/// The sizes and the threshold of a model's masks.
#[derive(Debug, Clone, Copy)]
struct MaskSpec {
    /// A logit above this belongs to the object.
    threshold: f32,
    /// Side of a mask prompt.
    prompt_size: u32,
}

/// Objects that have prompts before the first run of the graph.
#[derive(Debug, Clone, Copy)]
struct Known {
    /// Objects with prompts of the user, on whatever frame.
    objects: usize,
    /// The greatest id of them.
    last_id: u32,
}

/// Runs the graph that proposes objects, and decides which proposals become objects.
pub(crate) struct Discovery {
    proposer: Proposer,
    engine: Engine,
    masks: MaskSpec,
    options: ProposalOptions,
    prompt_kind: ProposalPrompt,
    max_covered: f32,
    every: Option<usize>,
    /// Whether the graph stays loaded between its runs.
    stays: bool,
    graph: Option<Box<dyn Graph>>,
    /// The first frame's, until it is tracked.
    first: Option<Vec<Proposal>>,
    objects: usize,
    max_objects: usize,
    last_id: u32,
    prompted: Vec<PromptReport>,
    report: ProposalsReport,
    /// What the arena of the first run held, in bytes: at once, and in tensors.
    peak: Option<(u64, u64)>,
}

impl Discovery {
    /// Reads the graph's file and runs it on the first frame of the input, alone: its session is gone when this returns.
    /// `digest` is [`form::digest`](crate::proposals::form::digest) of the file.
    ///
    /// # Errors
    /// A file of another form, and a graph that does not fit in the limit or cannot run.
    pub(super) fn begin(
        config: &Config,
        proposals: &ProposalConfig,
        digest: String,
        bundle: &Bundle,
    ) -> Result<Self, SessionError> {
        let mut engine = Engine::load(&config.engine_options())?;
        let graph = &proposals.graph;
        let mem_limit = config.mem_limit;
        let mut proposer =
            Proposer::open(&graph.file, digest, graph.image_size, mem_limit, &engine)?;
        if mem_limit.is_some() {
            let again = graph.detect_every.is_some();
            proposer.measure(again, mem_limit, &mut engine)?;
        }
        let first = match media::open(&config.input)?.next_frame()? {
            Some(frame) => {
                Some(proposer.first(&frame, &proposals.options(), mem_limit, &engine)?)
            }
            None => None,
        };
        let objects = proposals.prompts.first_frames();
        let known = Known {
            objects: objects.len(),
            last_id: objects.keys().next_back().copied().unwrap_or(0),
        };
        let masks = &bundle.manifest().masks;
        let masks = MaskSpec {
            threshold: masks.threshold as f32,
            prompt_size: masks.prompt_size,
        };
        Ok(Self::new(proposals, proposer, engine, first, masks, known))
    }

    fn new(
        config: &ProposalConfig,
        proposer: Proposer,
        engine: Engine,
        first: Option<FirstProposals>,
        masks: MaskSpec,
        known: Known,
    ) -> Self {
        let max_objects = config
            .max_objects
            .map_or(known.objects + config.max_proposals.get(), Into::into);
        let every = config.graph.detect_every.map(usize::from);
        let (width, height) = proposer.form.largest();
        let limit = engine.mem_limit();
        let report = ProposalsReport {
            file: proposer.path.display().to_string(),
            sha256: proposer.digest.clone(),
            image: [width, height],
            prompts: config.prompt.as_str().to_owned(),
            conf: config.min_score,
            iou: config.max_iou,
            max_det: config.max_proposals.get(),
            class_agnostic: config.class_agnostic,
            discover_every: every,
            covered: config.max_covered,
            max_objects,
            looks: u64::from(first.is_some()),
            proposals: 0,
            added: 0,
            left_out: 0,
            full_on_frame: None,
            stays_loaded: false,
            loads: u64::from(first.is_some()),
            load_s: first.as_ref().map_or(0.0, |first| first.load_s),
            look_s: first.as_ref().map_or(0.0, |first| first.run_s),
        };
        let peak = first
            .as_ref()
            .map(|first| (first.arena.peak_held, first.arena.peak_in_use));
        let mut discovery = Self {
            proposer,
            engine,
            masks,
            options: config.options(),
            prompt_kind: config.prompt,
            max_covered: config.max_covered,
            every,
            stays: false,
            graph: None,
            first: first.map(|first| first.proposals),
            objects: known.objects,
            max_objects,
            last_id: known.last_id,
            prompted: Vec::new(),
            report,
            peak,
        };
        let limit = limit.map(|limit| discovery.arena_limit(limit));
        discovery.engine.set_mem_limit(limit);
        discovery
    }

    /// What a limit on memory leaves for the arena that all graphs share.
    fn arena_limit(&self, limit: u64) -> u64 {
        match self.every {
            Some(_) => limit.saturating_sub(self.proposer.heap_weights).max(1),
            None => limit,
        }
    }

    /// The objects that may be proposed.
    pub(super) fn proposed(&self) -> Proposed {
        let (now, later) = self.expected();
        Proposed {
            now,
            later,
            from: self.every.unwrap_or(0),
            // What the graph needs of the arena, if it was measured.
            cost: self.proposer.cost,
        }
    }

    /// Most objects of the first frame, and of later ones.
    fn expected(&self) -> (usize, usize) {
        let room = self.max_objects.saturating_sub(self.objects);
        let now = self.first.as_ref().map_or(0, Vec::len).min(room);
        (now, self.every.map_or(0, |_| room - now))
    }

    /// Frames from one run of the graph to the next; `None` if it runs on frame 0 only.
    pub(crate) fn every(&self) -> Option<usize> {
        self.every
    }

    /// Sets the limit of the tracker's `engine` to what the graph of proposals leaves, and keeps the graph loaded between its
    /// runs if the plan says so.
    pub(super) fn keep_within(
        &mut self,
        limit: Option<u64>,
        plan: Option<&Plan>,
        engine: &mut Engine,
    ) {
        engine.set_mem_limit(limit.map(|limit| self.arena_limit(limit)));
        let part = plan.and_then(|plan| plan.proposals);
        // Without a plan there is no limit.
        let stays = part.is_none_or(|part| part.presence == Presence::Loaded);
        self.stays = stays && self.every.is_some();
        self.report.stays_loaded = self.stays;
    }

    /// Seconds spent so far on loading and running the graph.
    pub(crate) fn seconds(&self) -> f64 {
        self.report.load_s + self.report.look_s
    }

    /// Whether there are proposals for a frame.
    pub(super) fn due(&self, frame: usize) -> bool {
        frame == 0 || self.every.is_some_and(|every| frame.is_multiple_of(every))
    }

    /// The proposals on a frame. Those on frame 0 are known before the run; `frame` is needed on later ones.
    ///
    /// # Errors
    /// The graph cannot be loaded or run.
    pub(super) fn propose(
        &mut self,
        frame: Option<&Frame>,
    ) -> Result<Vec<Proposal>, ProposalError> {
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
                let graph = self.engine.load(ROLE, &self.proposer.path)?;
                self.report.loads += 1;
                self.report.load_s += start.elapsed().as_secs_f64();
                graph
            }
        };
        let start = Instant::now();
        let form = &self.proposer.form;
        let found = form.propose(&self.engine, graph.as_mut(), frame, &self.options)?;
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
    pub(super) fn judge(
        &mut self,
        frame: usize,
        size: (u32, u32),
        proposals: Vec<Proposal>,
        masks: &[ObjectMask],
    ) -> (Vec<Prompt>, Vec<JudgedProposal>) {
        let taken = self.union(masks, size);
        let mut prompts = Vec::new();
        let mut all = Vec::with_capacity(proposals.len());
        for proposal in proposals {
            let shared = taken
                .as_ref()
                .map_or(0, |taken| proposal.mask.shared(taken));
            let covered = shared as f32 / proposal.mask.mask.area().max(1) as f32;
            let prompt = if covered > self.max_covered {
                None
            } else {
                self.prompt(frame, size, &proposal)
            };
            let mut judged = JudgedProposal {
                class_name: self.proposer.form.class_name(proposal.class),
                proposal,
                covered,
                object: None,
            };
            if let Some(prompt) = prompt {
                judged.object = Some(prompt.object);
                self.prompted.push(PromptReport {
                    proposal: Some(ProposalSource {
                        score: judged.proposal.score,
                        class: judged.proposal.class,
                        class_name: judged.class_name.clone(),
                    }),
                    ..PromptReport::of(&prompt)
                });
                prompts.push(prompt);
            }
            all.push(judged);
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
        match self.prompt_kind {
            ProposalPrompt::Box => prompt.bbox = Some(proposal.bbox),
            ProposalPrompt::Mask => {
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
        if self.objects >= self.max_objects || self.last_id >= MAX_OBJECT {
            self.report.left_out += 1;
            self.report.full_on_frame.get_or_insert(frame as u64);
            return None;
        }
        self.objects += 1;
        self.last_id += 1;
        prompt.object = self.last_id;
        Some(prompt)
    }

    /// The pixels of a frame that some object has; `None` if there are none.
    fn union(&self, masks: &[ObjectMask], (width, height): (u32, u32)) -> Option<Mask> {
        let threshold = self.masks.threshold;
        let inside = |logit: &f32| *logit > threshold;
        let visible = |mask: &&ObjectMask| mask.low_res.values().iter().any(inside);
        let mut union: Option<Mask> = None;
        for object in masks.iter().filter(visible) {
            let mask = object.low_res.resized(width, height).above(threshold);
            match &mut union {
                None => union = Some(mask),
                Some(union) => union.add(&mask),
            }
        }
        union
    }

    /// The parts of run.json about proposals: the runs of the graph, and the prompts of new objects.
    pub(super) fn report(&self) -> (ProposalsReport, &[PromptReport]) {
        (self.report.clone(), &self.prompted)
    }

    /// Most that the arena of the first run held, in bytes: at once, and in tensors.
    pub(super) fn peak(&self) -> Option<(u64, u64)> {
        self.peak
    }

    /// What the user should know after the run, one sentence each.
    pub(super) fn notes(&self) -> Vec<Note> {
        let report = &self.report;
        let mut notes = Vec::new();
        if report.proposals == 0 && report.looks > 0 {
            notes.push(Note::new(
                NoteCode::NothingProposed,
                format!(
                    "{} proposed nothing with a score above {}",
                    report.file, report.conf
                ),
            ));
        }
        if let Some(frame) = report.full_on_frame {
            notes.push(Note::new(
                NoteCode::MaxObjects,
                format!(
                    "the run may track {} objects: from frame {frame} on, {} that no object covered {} left out",
                    report.max_objects,
                    counted(report.left_out, "proposal"),
                    if report.left_out == 1 { "was" } else { "were" },
                ),
            ));
        }
        notes
    }
}
