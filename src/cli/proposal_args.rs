//! `--proposals` and its options.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::args::{one_or_more, share};
use crate::prompts::Prompts;
use crate::session::config::{ProposalConfig, ProposalGraph, ProposalPrompt};

/// What of a proposal becomes the prompt
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum PromptKind {
    /// Its box
    Box,
    /// Its mask
    Mask,
}

/// The heading of these options in the help.
const HEADING: &str = "Proposals";

/// The graph that proposes objects, and how often.
#[derive(Debug, Clone, Args)]
pub(super) struct GraphArgs {
    /// Track what a graph proposes on frame 0: FastSAM or a YOLO segmentation model, as Ultralytics exports it to ONNX
    #[arg(long, help_heading = HEADING, value_name = "FILE.onnx")]
    pub proposals: Option<PathBuf>,

    /// Longer side of the image, for a graph that takes any size [default: what the file says, else 640]
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

    /// Drop a box whose IoU with a better one of its class is above this
    #[arg(long, help_heading = HEADING, value_name = "0…1", default_value = "0.7", requires = "proposals", allow_negative_numbers = true, value_parser = share)]
    pub iou: f32,

    /// Most proposals on a frame; the best ones
    #[arg(long, help_heading = HEADING, value_name = "N", default_value = "32", requires = "proposals", allow_negative_numbers = true, value_parser = one_or_more)]
    pub max_det: NonZeroUsize,

    /// Compare boxes of different classes for --iou too
    #[arg(long, help_heading = HEADING, requires = "proposals")]
    pub class_agnostic: bool,

    /// A proposal is not new if more than this share of its mask is covered by the masks of objects
    #[arg(long, help_heading = HEADING, value_name = "0…1", default_value = "0.5", requires = "proposals", allow_negative_numbers = true, value_parser = share)]
    pub covered: f32,

    /// Most objects in all; memory is planned for them [default: those with prompts, and --max-det more]
    #[arg(long, help_heading = HEADING, value_name = "N", requires = "proposals", allow_negative_numbers = true, value_parser = one_or_more)]
    pub max_objects: Option<NonZeroUsize>,
}

impl GraphArgs {
    /// The same as the library takes it; `None` without a graph.
    pub(super) fn config(&self) -> Option<ProposalGraph> {
        Some(ProposalGraph {
            file: self.proposals.clone()?,
            image_size: self.proposal_size,
            detect_every: self.discover_every,
        })
    }
}

impl ProposalArgs {
    /// The same as the library takes it, with the prompts of the user; `None` without a graph.
    pub(super) fn config(&self, prompts: Prompts) -> Option<ProposalConfig> {
        Some(ProposalConfig {
            graph: self.graph.config()?,
            prompt: match self.proposal_prompts {
                PromptKind::Box => ProposalPrompt::Box,
                PromptKind::Mask => ProposalPrompt::Mask,
            },
            min_score: self.conf,
            max_iou: self.iou,
            max_proposals: self.max_det,
            class_agnostic: self.class_agnostic,
            max_covered: self.covered,
            max_objects: self.max_objects,
            prompts,
        })
    }
}
