//! `run --text`: its options, and the loop's parameters.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow, bail};
use clap::Args;

use super::args::{RunArgs, one_or_more};
use super::budget::{self, Looking, Sought};
use super::models;
use crate::bundle::{Bundle, Follow, Manifest};
use crate::detector::described;
use crate::memory::Plan;
use crate::runtime::Runtime;
use crate::session::report::TextReport;
use crate::text_tracking::{FollowOptions, parameters_of};
use crate::tracker::TrackerOptions;

/// Where these options stand in the help.
const HEADING: &str = "Text";

/// Why texts and prompts do not go together.
pub(super) const NOT_WITH_PROMPTS: &str = "--text finds its objects itself, and cannot be combined with --box, --point, --mask or --prompts; leave out one of them";

/// Why texts and proposals do not go together.
pub(super) const NOT_WITH_PROPOSALS: &str =
    "--proposals cannot be used with --text: leave out one of them";

/// Texts to follow, and how.
#[derive(Debug, Clone, Args)]
pub(super) struct TextArgs {
    /// Find every object that the text means, and follow each; instead of prompts (repeatable)
    #[arg(long = "text", id = "texts", help_heading = HEADING, value_name = "TEXT")]
    pub texts: Vec<String>,

    /// Set a parameter of the loop that finds and follows (repeatable), such as hotstart_delay=0; without a value the names are listed
    #[arg(long = "follow", id = "follow", help_heading = HEADING, value_name = "NAME=VALUE", requires = "texts")]
    pub parameters: Vec<String>,

    /// Look for objects on frame 0 and on every N-th frame; in between they are only followed [default: 1]
    #[arg(long, help_heading = HEADING, value_name = "N", requires = "texts", allow_negative_numbers = true, value_parser = one_or_more)]
    pub detect_every: Option<NonZeroUsize>,

    /// Look for objects at this resolution, with the detector of the same model's bundle; --res is that of the tracker
    ///
    /// That bundle stands beside the other, or where --res looks, has the same name, and comes from the same checkpoint.
    #[arg(long, help_heading = HEADING, value_name = "PIXELS", requires = "texts", allow_negative_numbers = true)]
    pub det_res: Option<u32>,
}

impl TextArgs {
    /// Frames from one look for objects to the next.
    pub fn every(&self) -> usize {
        self.detect_every.map_or(1, NonZeroUsize::get)
    }

    /// The same as arguments of another process.
    pub fn arguments(&self) -> Vec<String> {
        let mut arguments = Vec::new();
        let mut add = |name: &str, value: &str| {
            // A value may begin with a hyphen.
            arguments.push(format!("--{name}={value}"));
        };
        for text in &self.texts {
            add("text", text);
        }
        for change in &self.parameters {
            add("follow", change);
        }
        if let Some(every) = self.detect_every {
            add("detect-every", &every.to_string());
        }
        if let Some(res) = self.det_res {
            add("det-res", &res.to_string());
        }
        arguments
    }
}

/// Texts, each once, in the order given.
pub(super) fn distinct(given: &[String]) -> Vec<&str> {
    let mut texts: Vec<&str> = Vec::new();
    for text in given {
        if !texts.contains(&text.as_str()) {
            texts.push(text);
        }
    }
    texts
}

/// Refuses what cannot be combined with texts.
pub(super) fn check(args: &RunArgs, has_prompts: bool) -> Result<()> {
    if args.text.texts.is_empty() {
        return Ok(());
    }
    if has_prompts {
        bail!(NOT_WITH_PROMPTS);
    }
    if args.proposals.graph.proposals.is_some() {
        bail!(NOT_WITH_PROPOSALS);
    }
    Ok(())
}

/// The folder of the bundle of `--det-res`, for a tracker's bundle in `dir`; `None` where one bundle does both.
///
/// # Errors
/// No bundle, or one of another checkpoint.
pub(super) fn detecting_in(
    det_res: Option<u32>,
    models: Option<&Path>,
    dir: &Path,
    manifest: &Manifest,
) -> Result<Option<PathBuf>> {
    let Some(res) = det_res.filter(|res| *res != manifest.resolution) else {
        return Ok(None);
    };
    let found = models::sibling(dir, manifest, res, models)?;
    let (theirs, ours) = (
        &Bundle::peek(&found)?.source.sha256,
        &manifest.source.sha256,
    );
    if theirs != ours {
        bail!(
            "--det-res {res}: {} comes from the checkpoint {theirs}, but {} from {ours}; export both from one checkpoint, such as with `{} --parts tracker,detector`",
            found.display(),
            dir.display(),
            manifest.export_command_at(res)
        );
    }
    Ok(Some(found))
}

/// The bundle of `--det-res`, checked against that of the tracker; `None` where one bundle does both.
///
/// # Errors
/// No bundle, or one of another checkpoint, or without a detector.
pub(super) fn detecting(
    det_res: Option<u32>,
    models: Option<&Path>,
    bundle: &Bundle,
) -> Result<Option<Bundle>> {
    let Some(dir) = detecting_in(det_res, models, bundle.dir(), bundle.manifest())? else {
        return Ok(None);
    };
    let other = Bundle::open(&dir)?;
    described(&other)?;
    Ok(Some(other))
}

/// The frames of a clip, as far as they are known.
#[derive(Debug, Clone, Copy)]
pub(super) struct Coming {
    /// The clip's, as the tracker takes them.
    pub num_frames: usize,
    /// The most that come, if that is certain.
    pub most: Option<usize>,
    /// How many come, as it seems.
    pub likely: Option<usize>,
}

/// How to follow what is found, and the plan if there is a limit: chunk and number of objects fit in it.
///
/// # Errors
/// A bundle without a detector, a parameter that does not exist or has another type, or too little memory.
pub(super) fn settle(
    args: &TextArgs,
    bundle: &Bundle,
    looking: Looking<'_>,
    coming: Coming,
    chunk: Option<NonZeroUsize>,
    limit: Option<u64>,
    runtime: &mut Runtime,
) -> Result<(FollowOptions, Option<Plan>)> {
    let follow = options(args, looking.bundle, coming.most)?;
    let sought = sought(args, &follow, coming.likely);
    let (plan, chunk, most_objects) =
        budget::settle_sought(bundle, looking, sought, chunk, limit, runtime)?;
    let tracker = TrackerOptions {
        num_frames: coming.num_frames,
        chunk,
    };
    Ok((follow.with(tracker, most_objects), plan))
}

/// How to follow: the bundle's parameters with those that were set.
fn options(args: &TextArgs, bundle: &Bundle, most_frames: Option<usize>) -> Result<FollowOptions> {
    let detector = described(bundle)?;
    let follow = changed(&detector.follow, &args.parameters)?;
    Ok(FollowOptions {
        parameters: parameters_of(&follow),
        fill_hole_area: follow.fill_hole_area as usize,
        detect_every: args.every(),
        most_frames,
        tracker: TrackerOptions::default(),
    })
}

/// The objects that a plan is for.
fn sought(args: &TextArgs, options: &FollowOptions, frames: Option<usize>) -> Sought {
    let names = args.parameters.iter();
    let mut names = names.filter_map(|change| change.split_once('='));
    Sought {
        most: options.parameters.max_objects,
        asked: names.any(|(name, _)| name == "max_objects"),
        recondition_every: options.parameters.recondition_every,
        frames,
    }
}

/// Parameters of the loop with changes, `NAME=VALUE` each.
///
/// # Errors
/// A parameter that does not exist, or a value of another type.
pub(super) fn changed(follow: &Follow, changes: &[String]) -> Result<Follow> {
    let mut values = serde_json::to_value(follow)?;
    let Some(fields) = values.as_object_mut() else {
        bail!("the bundle's parameters are no JSON object");
    };
    for change in changes {
        let (name, value) = change.split_once('=').unwrap_or((change, ""));
        let Some(field) = fields.get_mut(name) else {
            let names: Vec<&str> = fields.keys().map(String::as_str).collect();
            bail!(
                "--follow {change}: no parameter {name:?}; there are {}",
                names.join(", ")
            );
        };
        let expected = if field.is_boolean() {
            "true or false"
        } else {
            "a number"
        };
        let parsed = serde_json::from_str::<serde_json::Value>(value)
            .ok()
            .filter(|value| value.is_boolean() == field.is_boolean() && !value.is_string());
        *field = parsed.ok_or_else(|| {
            anyhow!("--follow {change}: expected {name}={expected}, got {value:?}")
        })?;
    }
    serde_json::from_value(values).map_err(|error| anyhow!("--follow: {error}"))
}

/// What was found for each text, by object.
pub(super) fn report(
    texts: &[&str],
    objects: &[u32],
    origin: impl Fn(u32) -> (usize, f32),
) -> Vec<TextReport> {
    let mut found: Vec<TextReport> = texts
        .iter()
        .map(|text| TextReport {
            text: (*text).to_owned(),
            objects: Vec::new(),
        })
        .collect();
    let mut objects = objects.to_vec();
    objects.sort_unstable();
    for object in objects {
        let (text, score) = origin(object);
        if let Some(report) = found.get_mut(text) {
            report
                .objects
                .push(crate::session::report::FoundReport { object, score });
        }
    }
    found
}
