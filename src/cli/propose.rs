//! `--proposals`: its options, the file behind them, and what it takes of memory.

use std::ffi::OsString;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};

use super::args::{RuntimeArgs, one_or_more, share};
use crate::media::Frame;
use crate::memory::profile::{self, within_or_not};
use crate::memory::{Presence, ProposalCost};
use crate::proposals::form::{self, Form};
use crate::proposals::{Choice, Proposal, ProposalError, ROLE};
use crate::runtime::{ArenaStats, Provider, Runtime};
use crate::size;

/// What of a proposal becomes the prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum PromptKind {
    /// Its box
    Box,
    /// Its mask
    Mask,
}

impl PromptKind {
    /// As it stands on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Box => "box",
            Self::Mask => "mask",
        }
    }
}

/// Where these options stand in the help.
const HEADING: &str = "Proposals";

/// The graph that proposes objects, and how often.
#[derive(Debug, Clone, Args)]
pub(super) struct GraphArgs {
    /// Track what a graph proposes on frame 0: FastSAM or a YOLO segmentation model, as Ultralytics exports it to ONNX
    #[arg(long, help_heading = HEADING, value_name = "FILE.onnx")]
    pub proposals: Option<PathBuf>,

    /// Longer side of the image of a graph that takes any size [default: what the file says, else 640]
    #[arg(long, help_heading = HEADING, value_name = "PIXELS", requires = "proposals", allow_negative_numbers = true, value_parser = clap::value_parser!(u32).range(1..))]
    pub proposal_size: Option<u32>,

    /// Look again on every N-th frame; what no object covers there becomes a new one
    #[arg(long, help_heading = HEADING, value_name = "N", requires = "proposals", allow_negative_numbers = true, value_parser = one_or_more)]
    pub discover_every: Option<NonZeroUsize>,
}

/// What is proposed, and what becomes of it.
#[derive(Debug, Clone, Args)]
pub(super) struct ProposalArgs {
    #[command(flatten)]
    pub graph: GraphArgs,

    /// What of a proposal becomes the prompt
    #[arg(
        long,
        help_heading = HEADING,
        value_name = "box|mask",
        default_value = "box",
        hide_possible_values = true,
        requires = "proposals"
    )]
    pub proposal_prompts: PromptKind,

    /// Only proposals with a score above this
    #[arg(long, help_heading = HEADING, value_name = "0…1", default_value = "0.4", requires = "proposals", allow_negative_numbers = true, value_parser = share)]
    pub conf: f32,

    /// Of two boxes of one class whose intersection over union is above this, only the better one
    #[arg(long, help_heading = HEADING, value_name = "0…1", default_value = "0.7", requires = "proposals", allow_negative_numbers = true, value_parser = share)]
    pub iou: f32,

    /// At most so many proposals on a frame, the best ones
    #[arg(long, help_heading = HEADING, value_name = "N", default_value = "32", requires = "proposals", allow_negative_numbers = true, value_parser = one_or_more)]
    pub max_det: NonZeroUsize,

    /// Compare boxes of different classes for --iou too
    #[arg(long, help_heading = HEADING, requires = "proposals")]
    pub class_agnostic: bool,

    /// A proposal is not new if more than this share of its mask is covered by the masks of objects
    #[arg(long, help_heading = HEADING, value_name = "0…1", default_value = "0.5", requires = "proposals", allow_negative_numbers = true, value_parser = share)]
    pub covered: f32,

    /// At most so many objects in all; memory is planned for them [default: those with prompts, and --max-det more]
    #[arg(long, help_heading = HEADING, value_name = "N", requires = "proposals", allow_negative_numbers = true, value_parser = one_or_more)]
    pub max_objects: Option<NonZeroUsize>,
}

impl ProposalArgs {
    /// Which detections count.
    pub fn choice(&self) -> Choice {
        Choice {
            least_score: self.conf,
            most_iou: self.iou,
            most: self.max_det.get(),
            class_agnostic: self.class_agnostic,
        }
    }

    /// The same as arguments of another process; none without a graph.
    pub fn arguments(&self) -> Vec<OsString> {
        let Some(file) = &self.graph.proposals else {
            return Vec::new();
        };
        let mut arguments = vec!["--proposals".into(), file.into()];
        let mut add = |name: &str, value: Option<String>| {
            arguments.extend(value.map(|value| format!("--{name}={value}").into()));
        };
        let graph = &self.graph;
        add("proposal-size", graph.proposal_size.map(|n| n.to_string()));
        let every = graph.discover_every;
        add("discover-every", every.map(|n| n.to_string()));
        let prompts = self.proposal_prompts.as_str().to_owned();
        add("proposal-prompts", Some(prompts));
        add("conf", Some(self.conf.to_string()));
        add("iou", Some(self.iou.to_string()));
        add("max-det", Some(self.max_det.to_string()));
        add("covered", Some(self.covered.to_string()));
        add("max-objects", self.max_objects.map(|n| n.to_string()));
        if self.class_agnostic {
            arguments.push("--class-agnostic".into());
        }
        arguments
    }
}

/// A file that can propose objects.
pub(super) struct Proposer {
    pub path: PathBuf,
    pub digest: String,
    pub form: Form,
    /// What it takes of memory, where somebody asked.
    pub cost: Option<ProposalCost>,
    /// Bytes of weights that are not in the arena. On the processor the library keeps those of a file without external
    /// data, as exports are, on its own heap. They count like any others, so the arena gets that much less.
    pub beside: u64,
}

/// What a look alone took.
pub(super) struct FirstLook {
    pub proposals: Vec<Proposal>,
    pub load_s: f64,
    pub look_s: f64,
    pub arena: ArenaStats,
}

impl Proposer {
    /// Checks that the file is there, before anything that takes long: its SHA-256.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn digest(args: &GraphArgs) -> Result<Option<String>> {
        Ok(args.proposals.as_deref().map(form::digest).transpose()?)
    }

    /// Reads the form of the file, which takes loading it alone.
    ///
    /// # Errors
    /// No ONNX, and a graph of another form.
    pub fn open(
        path: &Path,
        digest: String,
        args: &GraphArgs,
        limit: Option<u64>,
        runtime: &Runtime,
    ) -> Result<Self> {
        let (form, _) = within_or_not(limit, |limit| {
            runtime.alone(ROLE, path, limit, |graph| {
                Form::of(graph, path, args.proposal_size)
            })
        })?;
        let beside = match runtime.provider() {
            Provider::Cpu => std::fs::metadata(path).map_or(0, |file| file.len()),
            Provider::Cuda => 0,
        };
        Ok(Self {
            path: path.to_path_buf(),
            digest,
            form,
            cost: None,
            beside,
        })
    }

    /// Measures what a look takes, if that is not known yet.
    ///
    /// # Errors
    /// A graph that cannot run.
    pub fn measure(
        &mut self,
        args: &GraphArgs,
        limit: Option<u64>,
        runtime: &mut Runtime,
    ) -> Result<ProposalCost> {
        let mut cost = profile::sound_file(
            runtime,
            ROLE,
            (&self.path, &self.digest),
            &self.form.blank(),
            &[&self.form.detections, &self.form.prototypes],
            limit,
        )
        .map_err(ProposalError::from)?;
        cost.weights += self.beside;
        let presence = match args.discover_every {
            None => Presence::Before,
            Some(_) => Presence::InTurn,
        };
        let cost = ProposalCost { cost, presence };
        self.cost = Some(cost);
        Ok(cost)
    }

    /// Looks at the first frame, with nothing else loaded.
    ///
    /// # Errors
    /// A graph that does not fit in the limit, or cannot run.
    pub fn first_look(
        &self,
        frame: &Frame,
        choice: &Choice,
        limit: Option<u64>,
        runtime: &Runtime,
    ) -> Result<FirstLook> {
        if let (Some(cost), Some(limit)) = (self.cost, limit) {
            let needed = cost.cost.weights + cost.cost.workspace(1);
            if needed > limit {
                bail!(
                    "--proposals {}: a look at images of {} px needs {} of memory, {} of them weights, but the limit is {}; give a smaller --proposal-size if the graph takes any size, or --mem-limit {} or more",
                    self.path.display(),
                    self.form.largest().0.max(self.form.largest().1),
                    size::show(needed),
                    size::show(cost.cost.weights),
                    size::show(limit),
                    size::in_mib(needed),
                );
            }
        }
        let limit = limit.map(|limit| limit.saturating_sub(self.beside).max(1));
        let start = Instant::now();
        let ((proposals, load_s), arena) = runtime.alone(ROLE, &self.path, limit, |graph| {
            let load_s = start.elapsed().as_secs_f64();
            let found = self.form.look(runtime, graph, frame, choice)?;
            Ok::<_, ProposalError>((found, load_s))
        })?;
        Ok(FirstLook {
            proposals,
            load_s,
            look_s: start.elapsed().as_secs_f64() - load_s,
            arena,
        })
    }
}

/// What `snow-ort plan` counts of a graph that proposes objects.
///
/// # Errors
/// A file that is none, of another form, or cannot run.
pub(super) fn cost(
    args: &GraphArgs,
    limit: Option<u64>,
    runtime_args: &RuntimeArgs,
) -> Result<Option<ProposalCost>> {
    let (Some(path), Some(digest)) = (args.proposals.as_deref(), Proposer::digest(args)?) else {
        return Ok(None);
    };
    let mut runtime = Runtime::load(&runtime_args.options(limit))?;
    let mut proposer = Proposer::open(path, digest, args, limit, &runtime)?;
    proposer.measure(args, limit, &mut runtime).map(Some)
}
