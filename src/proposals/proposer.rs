//! The file behind proposals: its form, what it needs of memory, and the proposals on the first frame.

use std::path::{Path, PathBuf};
use std::time::Instant;

use super::form::Form;
use super::{Proposal, ProposalError, ProposalOptions, ROLE};
use crate::media::Frame;
use crate::memory::profile::{self, LoneGraph, retry_without_limit};
use crate::memory::{Presence, ProposalCost};
use crate::runtime::{ArenaStats, Engine, Provider};

/// A file that proposes objects, checked.
pub(crate) struct Proposer {
    /// The ONNX file.
    pub path: PathBuf,
    /// SHA-256 of the file, in hex.
    pub digest: String,
    /// The form of its input and outputs.
    pub form: Form,
    /// What it needs of memory, if it was measured.
    pub cost: Option<ProposalCost>,
    /// Bytes of weights outside of the arena. On the processor the library keeps the weights of a file without external
    /// data, as exports are, on its own heap. They count like any others, so the arena gets that much less.
    pub heap_weights: u64,
}

/// The proposals on the first frame, and what they took.
pub(crate) struct FirstProposals {
    /// The proposals, best first.
    pub proposals: Vec<Proposal>,
    /// Seconds of loading the graph.
    pub load_s: f64,
    /// Seconds of running it.
    pub run_s: f64,
    /// The arena of that run.
    pub arena: ArenaStats,
}

impl Proposer {
    /// Reads the form of a file, which takes loading it alone. `digest` is [`form::digest`] of it; `image_size` is the longer
    /// side in pixels for a graph that takes any size; `mem_limit` bounds the arena, in bytes.
    ///
    /// # Errors
    /// A file that is no ONNX, or a graph of another form.
    pub(crate) fn open(
        path: &Path,
        digest: String,
        image_size: Option<u32>,
        mem_limit: Option<u64>,
        engine: &Engine,
    ) -> Result<Self, ProposalError> {
        let (form, _) = retry_without_limit(mem_limit, |limit| {
            engine.alone(ROLE, path, limit, |graph| Form::of(graph, path, image_size))
        })?;
        let heap_weights = match engine.provider() {
            Provider::Cpu => std::fs::metadata(path).map_or(0, |file| file.len()),
            Provider::Cuda => 0,
        };
        Ok(Self {
            path: path.to_path_buf(),
            digest,
            form,
            cost: None,
            heap_weights,
        })
    }

    /// Measures what the graph needs of memory, if that is not known yet. `again` says whether it runs on later frames too.
    ///
    /// # Errors
    /// A graph that cannot run.
    pub(crate) fn measure(
        &mut self,
        again: bool,
        mem_limit: Option<u64>,
        engine: &mut Engine,
    ) -> Result<ProposalCost, ProposalError> {
        let graph = LoneGraph {
            role: ROLE,
            path: &self.path,
            sha256: &self.digest,
            input: &self.form.largest_input(),
            outputs: &[&self.form.detections, &self.form.prototypes],
        };
        let mut cost = profile::measure_file(graph, engine, mem_limit)?;
        cost.weights += self.heap_weights;
        let presence = match again {
            false => Presence::Before,
            true => Presence::InTurn,
        };
        let cost = ProposalCost { cost, presence };
        self.cost = Some(cost);
        Ok(cost)
    }

    /// Runs the graph on the first frame, with nothing else loaded.
    ///
    /// # Errors
    /// [`ProposalError::OverLimit`] for a graph that does not fit in the limit; a graph that cannot run.
    pub(crate) fn first(
        &self,
        frame: &Frame,
        options: &ProposalOptions,
        mem_limit: Option<u64>,
        engine: &Engine,
    ) -> Result<FirstProposals, ProposalError> {
        if let (Some(cost), Some(limit)) = (self.cost, mem_limit) {
            let needed = cost.cost.weights + cost.cost.workspace(1);
            if needed > limit {
                let (width, height) = self.form.largest();
                return Err(ProposalError::OverLimit {
                    path: self.path.clone(),
                    side: width.max(height),
                    needed,
                    weights: cost.cost.weights,
                    limit,
                });
            }
        }
        let mem_limit = mem_limit.map(|limit| limit.saturating_sub(self.heap_weights).max(1));
        let start = Instant::now();
        let ((proposals, load_s), arena) = engine.alone(ROLE, &self.path, mem_limit, |graph| {
            let load_s = start.elapsed().as_secs_f64();
            let proposals = self.form.propose(engine, graph, frame, options)?;
            Ok::<_, ProposalError>((proposals, load_s))
        })?;
        Ok(FirstProposals {
            proposals,
            load_s,
            run_s: start.elapsed().as_secs_f64() - load_s,
            arena,
        })
    }
}
