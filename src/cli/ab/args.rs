//! The arguments of `snow-ort ab`.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::Args;

use crate::ab::require::METRICS;
use crate::ab::variant::Variant;
use crate::cli::args::{PolicyArgs, PromptArgs, RuntimeArgs, one_or_more};

const AB_HELP: &str = "\
Variants (--variant NAME=DIR[,KEY=VALUE…]):
  DIR is a bundle. Keys are provider, device-id, ort-lib, threads, chunk and mem-limit; what a variant does not say is as the flag of that name says for all. The first variant is the baseline.

How it is done:
  Each variant tracks the whole clip, one after the other, as `snow-ort run` does; this gives masks and scores. Then all are timed as by `snow-ort bench`: each in a process of its own, warm, in --rounds rounds that go through the variants forwards and backwards in turn. All are loaded at the same time then: what cannot be held together is compared in pairs. Warming goes --warm frames beyond the last prompt; the first 64 frames of the clip are used, forwards and backwards.

  With --text each variant finds its objects itself, and numbers them by itself: those of two runs are matched within a text by their masks, the highest mean IoU over the frames that show either first; on the frames that show both it has to be 0.5 at least. IoU, worst and lost are those of the objects that both found; missed is what the baseline alone found, extra what the variant alone found, differ on how many frames one shows an object that the other does not. Objects of the ground truth are matched in the same way. A time is that of the whole loop: detector, decisions and tracker.

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

    /// Find every object that the text means and follow each, as `run --text` does; instead of prompts (repeatable)
    #[arg(long = "text", id = "texts", value_name = "TEXT")]
    pub texts: Vec<String>,

    /// Set a parameter of the loop that finds and follows, for all variants, as for `run` (repeatable)
    #[arg(
        long = "follow",
        id = "follow",
        value_name = "NAME=VALUE",
        requires = "texts"
    )]
    pub follow: Vec<String>,

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

    /// Most objects that go through a graph at once [default: up to 8, by the image's size and --mem-limit]
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

/// How a variant is run: its own words first, then those for all.
#[derive(Debug, Clone)]
pub(super) struct Manner {
    pub policy: PolicyArgs,
    pub runtime: RuntimeArgs,
    pub chunk: Option<NonZeroUsize>,
    pub mem_limit: Option<u64>,
}

impl Manner {
    /// Of a variant.
    pub fn of(variant: &Variant, args: &AbArgs) -> Self {
        let all = &args.runtime;
        Self {
            policy: args.policy,
            runtime: RuntimeArgs {
                provider: variant.provider.unwrap_or(all.provider),
                device_id: variant.device_id.unwrap_or(all.device_id),
                ort_lib: variant.ort_lib.clone().or_else(|| all.ort_lib.clone()),
                threads: variant.threads.or(all.threads),
                cuda_options: all.cuda_options.clone(),
            },
            chunk: variant.chunk.or(args.chunk),
            mem_limit: variant.mem_limit.or(args.mem_limit),
        }
    }
}
