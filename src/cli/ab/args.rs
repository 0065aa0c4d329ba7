//! The arguments of `snow-ort ab`.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Args;

use crate::bundle::Manifest;
use crate::cli::args::{EngineArgs, PolicyArgs, PromptArgs, one_or_more};
use crate::cli::proposal_args::ProposalArgs;
use crate::cli::text_args::TextArgs;
use crate::compare::requirement::METRICS;
use crate::compare::variant::Variant;
use crate::prompts::Prompts;
use crate::session::Config;
use crate::session::config::{EngineConfig, Objects};
use crate::session::text_parameters::changed;

const AB_HELP: &str = "\
Variants (--variant NAME=DIR[,KEY=VALUE…]):
  DIR is a bundle; the first variant is the baseline. Keys are provider, device-id, ort-lib, threads, chunk, mem-limit and memory-selection; with --text also detect-every, det-res and follow=NAME=VALUE (repeatable); with --proposals also discover-every. Without a key, the flag of that name holds.

How it is done:
  Each variant tracks the whole clip as `snow-ort run` does, one after the other. Then all are measured side by side as by `snow-ort bench`, on the first 64 frames of the clip, beginning --warm frames after the last prompt. All are loaded at the same time then; compare variants in pairs if they do not fit together.

  With --text and --proposals, objects of two runs are matched by their masks, and a time is that of the whole loop. Every block has as many detections as any other: --block is raised if necessary. With --discover-every, the measured frames stay in memory, which counts in the resident memory.

  A variant that fails becomes a row that says why; the others go on. After an interruption the same command goes on: complete results are used again if nothing that they depend on has changed.

Output (--out DIR):
  index.html   the verdict, tables, plots and the frames side by side, in one file
  report.json  everything, with every sample
  variants/    masks/, tracks.json and run.json of each variant

The verdict is the fastest variant with good masks: with ground truth, a J&F at most 0.01 below the best; otherwise a mean IoU with the baseline of at least 0.95 and no object lost, missed or extra. docs/compare.md says more.";

/// The end of the long help.
fn help() -> String {
    let metrics: String = METRICS
        .iter()
        .map(|metric| format!("  {:<12} {}\n", metric.name, metric.what))
        .collect();
    format!(
        "{AB_HELP}\n\nRequirements (--require \"b.iou>=0.97 b.speedup>=1.3\"), VARIANT.METRIC with >=, <=, > or <; memory as 512MiB or 3GiB:\n{metrics}\n\
         Exit codes: 0 done; 1 done, but a requirement is not met; 2 could not do it, or a variant failed."
    )
}

/// Arguments of `snow-ort ab`.
#[derive(Debug, Args)]
#[command(after_long_help = help(), after_help = "`snow-ort ab --help` says how variants, output and requirements work.")]
pub(in crate::cli) struct AbArgs {
    /// A video file, or a folder of images in name order
    pub input: PathBuf,

    /// A bundle, and how it is run where that differs; the first is the baseline (repeatable)
    #[arg(long = "variant", value_name = "NAME=DIR[,KEY=VALUE…]")]
    pub variants: Vec<String>,

    #[command(flatten)]
    pub prompting: PromptArgs,

    #[command(flatten)]
    pub text: TextArgs,

    #[command(flatten)]
    pub proposals: ProposalArgs,

    /// Score the masks against ground truth: a folder of index PNGs, as for `run`
    #[arg(long, value_name = "DIR")]
    pub gt: Option<PathBuf>,

    /// Output folder [default: out/ab-<name of the input without its ending>]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,

    /// What variants have to reach, such as "b.iou>=0.97 b.speedup>=1.3"; exit code 1 if one does not (repeatable)
    #[arg(long, value_name = "REQUIREMENTS")]
    pub require: Vec<String>,

    /// Use only the first N frames
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = one_or_more)]
    pub max_frames: Option<NonZeroUsize>,

    /// Frames of each variant that do not count, after the last prompt
    #[arg(long, value_name = "N", default_value = "8", allow_negative_numbers = true, value_parser = one_or_more)]
    pub warm: NonZeroUsize,

    /// Rounds through all variants
    #[arg(long, value_name = "N", default_value = "8", allow_negative_numbers = true, value_parser = one_or_more)]
    pub rounds: NonZeroUsize,

    /// Frames of a variant in a round
    #[arg(long, value_name = "N", default_value = "4", allow_negative_numbers = true, value_parser = one_or_more)]
    pub block: NonZeroUsize,

    /// Frames that the page shows at most
    #[arg(long, value_name = "N", default_value_t = 24)]
    pub page_frames: usize,

    #[command(flatten)]
    pub policy: PolicyArgs,

    #[command(flatten)]
    pub engine: EngineArgs,

    /// Most objects that go through a graph at once [default: up to 8 by the image's size, on a GPU 16; fewer where --mem-limit asks for it]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = one_or_more)]
    pub chunk: Option<NonZeroUsize>,

    /// Most memory that graphs of each variant may take, such as 512MiB or 3GiB
    #[arg(long, value_name = "SIZE", allow_negative_numbers = true, value_parser = crate::size::parse)]
    pub mem_limit: Option<u64>,

    /// Replace the report of an earlier comparison; results that still hold are used again
    #[arg(long)]
    pub overwrite: bool,

    /// Use no results of an earlier comparison
    #[arg(long)]
    pub fresh: bool,

    /// No progress; the table and errors only
    #[arg(long, short)]
    pub quiet: bool,
}

impl AbArgs {
    /// Whether each variant finds its objects itself, so that prompts say nothing of them.
    pub(crate) fn finds(&self) -> bool {
        !self.text.texts.is_empty() || self.proposals.graph.proposals.is_some()
    }
}

impl AbArgs {
    /// The run of a variant over the clip, with the settings that the variant states itself first. It writes nothing;
    /// `prompts` are those of the comparison.
    ///
    /// # Errors
    /// Settings of the variant that say nothing here, a parameter that does not exist, or no bundle for the detector.
    pub(crate) fn config_of(
        &self,
        variant: &Variant,
        manifest: &Manifest,
        prompts: &Prompts,
    ) -> Result<Config> {
        let (of_texts, of_proposals) = (variant.key_of_texts(), variant.key_of_proposals());
        let texts = !self.text.texts.is_empty();
        if let (Some(key), false) = (of_texts, texts) {
            bail!("{key} is about objects that texts mean: give --text, or leave it out");
        }
        let proposed = self.proposals.graph.proposals.is_some();
        if let (Some(key), false) = (of_proposals, proposed) {
            bail!(
                "{key} is about objects that a graph proposes: give --proposals, or leave it out"
            );
        }
        let engine = self.engine.config();
        let selection = PolicyArgs {
            memory_selection: variant.memory_selection.or(self.policy.memory_selection),
        };
        Ok(Config {
            max_frames: self.max_frames,
            engine: EngineConfig {
                provider: variant.provider.unwrap_or(engine.provider),
                device_id: variant.device_id.unwrap_or(engine.device_id),
                library: variant.ort_lib.clone().or(engine.library),
                threads: variant.threads.or(engine.threads),
                ..engine
            },
            chunk: variant.chunk.or(self.chunk),
            mem_limit: variant.mem_limit.or(self.mem_limit),
            memory_selection: selection.config(),
            ground_truth: self.gt.clone(),
            protect: self.prompting.prompts.iter().cloned().collect(),
            ..Config::new(
                &self.input,
                &variant.model,
                self.objects_of(variant, manifest, prompts)?,
            )
        })
    }

    /// What a variant tracks.
    fn objects_of(
        &self,
        variant: &Variant,
        manifest: &Manifest,
        prompts: &Prompts,
    ) -> Result<Objects> {
        let mut text = self.text.clone();
        text.detect_every = variant.detect_every.or(text.detect_every);
        text.det_res = variant.det_res.or(text.det_res);
        // Of two values of a parameter the last counts.
        text.parameters.extend_from_slice(&variant.follow);
        if let Some(texts) = text.config(&variant.model, None)? {
            // Without a detector it is a row that says so.
            if let Some(detector) = &manifest.detector {
                changed(&detector.text_tracking, &texts.parameters)?;
            }
            return Ok(Objects::Texts(texts));
        }
        let mut proposals = self.proposals.clone();
        let graph = &mut proposals.graph;
        graph.discover_every = variant.discover_every.or(graph.discover_every);
        Ok(match proposals.config(prompts.clone()) {
            Some(proposals) => Objects::Proposals(proposals),
            None => Objects::Prompts(prompts.clone()),
        })
    }
}
