//! The arguments of `snow-ort ab`.

use std::ffi::OsString;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Args;

use crate::bundle::Manifest;
use crate::cli::args::{PolicyArgs, PromptArgs, RuntimeArgs, one_or_more};
use crate::cli::propose::ProposalArgs;
use crate::cli::texts::{self, TextArgs};
use crate::compare::require::METRICS;
use crate::compare::variant::Variant;

const AB_HELP: &str = "\
Variants (--variant NAME=DIR[,KEY=VALUE…]):
  DIR is a bundle. Keys are provider, device-id, ort-lib, threads, chunk, mem-limit and memory-selection, with --text detect-every, det-res and follow (as follow=NAME=VALUE, repeatable), with --proposals discover-every; what a variant does not say is as the flag of that name says for all. The first variant is the baseline.

How it is done:
  Each variant tracks the whole clip, one after the other, as `snow-ort run` does; this gives masks and scores. Then all are timed as by `snow-ort bench`: each in a process of its own, warm, in --rounds rounds that go through the variants forwards and backwards in turn. All are loaded at the same time then: what cannot be held together is compared in pairs. Warming goes --warm frames beyond the last prompt; the first 64 frames of the clip are used, forwards and backwards.

  With --text each variant finds its objects itself, and numbers them by itself: those of two runs are matched within a text by their masks, the highest mean IoU over the frames that show either first; on the frames that show both it has to be 0.5 at least. IoU, worst and lost are those of the objects that both found; missed is what the baseline alone found, extra what the variant alone found, differ on how many frames one shows an object that the other does not. Objects of the ground truth are matched in the same way. A time is that of the whole loop: detector, decisions and tracker.

  With --proposals a graph proposes the objects, to all variants on the same first frame; what it proposes later (--discover-every) depends on the masks of each. Objects of two runs are matched in the same way, all with all. A time is that of the graph and the tracker; with --discover-every the frames that are timed (up to 64) stay in memory for it, which counts in the resident memory.

  Where objects are looked for on some frames only, every block of the timing has as many looks as any other: --block is made longer for that if need be, and seconds of a frame have the share of a look in them.

  A variant that fails becomes a row that says why; the others go on. Results are kept in DIR/variants and DIR/timing.json with the hash of everything they depend on: after an interruption the same command goes on, and what has changed is made again.

Output (--out DIR):
  index.html   the verdict, tables, plots and the frames side by side, in one file
  report.json  everything, with every sample
  variants/    masks/, tracks.json and run.json of each variant

The verdict is the variant that takes least time among those with good masks: J&F at most 0.01 below the best where there is ground truth, else a mean IoU with the baseline of at least 0.95 and no object lost, missed or extra.";

/// What stands behind all other help.
fn help() -> String {
    let metrics: String = METRICS
        .iter()
        .map(|metric| format!("  {:<12} {}\n", metric.name, metric.what))
        .collect();
    format!(
        "{AB_HELP}\n\nRequirements (--require \"b.iou>=0.97 b.speedup>=1.3\"), VARIANT.NAME with >=, <=, > or <; sizes of memory as 512MiB or 3GiB:\n{metrics}\n\
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
    pub runtime: RuntimeArgs,

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
    pub fn finds(&self) -> bool {
        !self.text.texts.is_empty() || self.proposals.graph.proposals.is_some()
    }
}

/// How a variant is run: its own words first, then those for all.
#[derive(Debug, Clone)]
pub(super) struct Manner {
    pub policy: PolicyArgs,
    pub runtime: RuntimeArgs,
    pub text: TextArgs,
    pub proposals: ProposalArgs,
    pub chunk: Option<NonZeroUsize>,
    pub mem_limit: Option<u64>,
}

impl Manner {
    /// Of a variant.
    pub fn of(variant: &Variant, args: &AbArgs) -> Self {
        let all = &args.runtime;
        let mut text = args.text.clone();
        text.detect_every = variant.detect_every.or(text.detect_every);
        text.det_res = variant.det_res.or(text.det_res);
        // Of two values of a parameter the last holds.
        text.parameters.extend_from_slice(&variant.follow);
        let mut proposals = args.proposals.clone();
        let graph = &mut proposals.graph;
        graph.discover_every = variant.discover_every.or(graph.discover_every);
        Self {
            policy: PolicyArgs {
                memory_selection: variant.memory_selection.or(args.policy.memory_selection),
            },
            runtime: RuntimeArgs {
                provider: variant.provider.unwrap_or(all.provider),
                device_id: variant.device_id.unwrap_or(all.device_id),
                ort_lib: variant.ort_lib.clone().or_else(|| all.ort_lib.clone()),
                threads: variant.threads.or(all.threads),
                cuda_options: all.cuda_options.clone(),
            },
            text,
            proposals,
            chunk: variant.chunk.or(args.chunk),
            mem_limit: variant.mem_limit.or(args.mem_limit),
        }
    }

    /// The same as arguments of another process.
    pub fn arguments(&self) -> Vec<OsString> {
        let mut arguments = self.runtime.arguments(self.chunk, self.mem_limit);
        arguments.extend(self.policy.arguments().into_iter().map(Into::into));
        arguments.extend(self.finding());
        arguments
    }

    /// How it finds its objects, as arguments; none where prompts say which there are.
    pub fn finding(&self) -> Vec<OsString> {
        let texts = self.text.arguments().into_iter().map(Into::into);
        texts.chain(self.proposals.arguments()).collect()
    }

    /// Frames from one look for objects to the next; 1 where there are no looks, or only that at the first frame.
    pub fn every(&self) -> usize {
        let proposed = self.proposals.graph.discover_every;
        proposed.map_or(self.text.every(), NonZeroUsize::get)
    }

    /// Checks what concerns finding objects against a variant's bundle, and returns the folder of a detector's bundle of its own.
    ///
    /// # Errors
    /// Options that say nothing here, a parameter that does not exist, or no bundle for the detector.
    pub fn check(&self, variant: &Variant, manifest: &Manifest) -> Result<Option<PathBuf>> {
        let [of_texts, of_proposals] = variant.of_finding();
        let texts = !self.text.texts.is_empty();
        if let (Some(key), false) = (of_texts, texts) {
            bail!("{key} is about what texts find: give --text, or leave it out");
        }
        let proposed = self.proposals.graph.proposals.is_some();
        if let (Some(key), false) = (of_proposals, proposed) {
            bail!("{key} is about what a graph proposes: give --proposals, or leave it out");
        }
        if !texts {
            return Ok(None);
        }
        // Without a detector it is a row that says so.
        if let Some(detector) = &manifest.detector {
            texts::changed(&detector.follow, &self.text.parameters)?;
        }
        texts::detecting_in(self.text.det_res, None, &variant.model, manifest)
    }
}
