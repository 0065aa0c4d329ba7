//! Checks of a run before anything is loaded: input, prompts, ground truth, bundles and outputs.

use std::path::Path;

use super::SessionError;
use super::config::{Config, MemorySelection, Objects};
use super::error::OtherCheckpoint;
use super::notes::{Note, NoteCode};
use crate::bundle::Bundle;
use crate::detector::detector_spec;
use crate::media::{self, FrameSource, SourceInfo, SourceKind};
use crate::prompts::{PromptError, Prompts};
use crate::proposals::form;
use crate::scoring::ground_truth::GroundTruth;
use crate::scoring::scorer::Scorer;
use crate::text_tracking::check_text_tracking;
use crate::words::counted;

/// A run whose files are checked; no model is loaded.
pub(super) struct Preflight {
    /// The frames, from the first on.
    pub source: Box<dyn FrameSource>,
    /// What the input says about itself.
    pub info: SourceInfo,
    /// The tracker's bundle.
    pub bundle: Bundle,
    /// The bundle of a detector at another resolution.
    pub detector_bundle: Option<Bundle>,
    /// The prompts of the user; none for texts.
    pub prompts: Prompts,
    /// SHA-256 of the graph that proposes objects.
    pub proposals_digest: Option<String>,
    /// Frames of the clip, counted up to the policy's greatest number of object pointers.
    pub num_frames: usize,
    /// Scores the masks, if there is ground truth.
    pub scorer: Option<Scorer>,
    /// What the user should know.
    pub notes: Vec<Note>,
}

/// Checks everything that can be checked before a model is loaded.
///
/// # Errors
/// The first thing that would end the run later.
pub(super) fn check(config: &Config) -> Result<Preflight, SessionError> {
    let prompts = config.prompts().cloned().unwrap_or_else(Prompts::none);
    let has_prompts = !prompts.frames().is_empty();
    let proposals_digest = match &config.objects {
        Objects::Prompts(_) if !has_prompts => return Err(PromptError::None.into()),
        Objects::Prompts(_) => None,
        Objects::Texts(texts) if texts.texts.is_empty() => return Err(SessionError::NoText),
        Objects::Texts(_) => None,
        Objects::Proposals(_) if config.ground_truth.is_some() && has_prompts => {
            return Err(SessionError::MixedGroundTruth);
        }
        Objects::Proposals(proposals) => Some(form::digest(&proposals.graph.file)?),
    };
    let source = media::open(&config.input)?;
    let info = source.info().clone();
    if let Some(outputs) = &config.outputs {
        super::output_conflicts::check(config, outputs)?;
    }
    let max_frames = config.max_frames.map(Into::into);
    let truth = match &config.ground_truth {
        Some(dir) => Some(GroundTruth::open(dir, &info, max_frames)?),
        None => None,
    };
    let (bundle, detector_bundle) = bundles(config)?;
    let manifest = bundle.manifest();
    let num_frames = match config.num_frames {
        Some(num_frames) => num_frames,
        None => count_frames(
            &config.input,
            max_frames,
            &info,
            &prompts,
            truth.as_ref(),
            manifest.policy.max_object_pointers as usize,
        )?,
    };
    let scorer = match (truth, &config.objects) {
        (None, _) => None,
        (Some(truth), Objects::Prompts(_)) => Some(Scorer::plan(truth, &prompts.first_frames())?),
        (Some(truth), _) => Some(Scorer::matching(truth)?),
    };
    let notes = notes(&info, &bundle, &prompts, scorer.as_ref());
    Ok(Preflight {
        source,
        info,
        bundle,
        detector_bundle,
        prompts,
        proposals_digest,
        num_frames,
        scorer,
        notes,
    })
}

/// The tracker's bundle, and the detector's if that is another.
fn bundles(config: &Config) -> Result<(Bundle, Option<Bundle>), SessionError> {
    let mut bundle = Bundle::open(&config.bundle)?;
    match config.memory_selection {
        None => {}
        Some(MemorySelection::All) => bundle.select_memories(None),
        Some(MemorySelection::Above(score)) => bundle.select_memories(Some(score)),
    }
    let Objects::Texts(texts) = &config.objects else {
        return Ok((bundle, None));
    };
    let detector_bundle = match &texts.detector_bundle {
        Some(dir) => Some(Bundle::open(dir)?),
        None => None,
    };
    if let Some(detector) = &detector_bundle {
        check_checkpoint(detector, &bundle)?;
    }
    detector_spec(detector_bundle.as_ref().unwrap_or(&bundle))?;
    check_text_tracking(&bundle)?;
    Ok((bundle, detector_bundle))
}

/// Refuses a detector of another checkpoint than the tracker's.
///
/// # Errors
/// [`SessionError::OtherCheckpoint`].
pub(crate) fn check_checkpoint(detector: &Bundle, tracker: &Bundle) -> Result<(), SessionError> {
    let (theirs, ours) = (detector.manifest(), tracker.manifest());
    if theirs.source.sha256 == ours.source.sha256 {
        return Ok(());
    }
    Err(Box::new(OtherCheckpoint {
        detector: detector.dir().to_path_buf(),
        detector_sha256: theirs.source.sha256.clone(),
        tracker: tracker.dir().to_path_buf(),
        tracker_sha256: ours.source.sha256.clone(),
        remedy: format!(
            "{} --parts tracker,detector",
            ours.export_command_at(theirs.resolution)
        ),
    })
    .into())
}

/// What the user should know before the run.
fn notes(
    info: &SourceInfo,
    bundle: &Bundle,
    prompts: &Prompts,
    scorer: Option<&Scorer>,
) -> Vec<Note> {
    let input = info.notes.iter();
    let mut notes: Vec<Note> = input
        .map(|note| Note::new(NoteCode::Input, note.to_string()))
        .collect();
    let manifest = bundle.manifest();
    if manifest.source.random_weights {
        notes.push(Note::new(
            NoteCode::RandomWeights,
            format!(
                "the weights of {} are random: the masks mean nothing",
                bundle.dir().display()
            ),
        ));
    }
    let side = manifest.masks.prompt_size;
    for (origin, object, pixels) in prompts.vanishing(side) {
        notes.push(Note::new(
            NoteCode::VanishingMask,
            format!(
                "{origin}: the mask of object {object} has {}, and none is left at the {side}x{side} that the model sees; give a larger mask, or a box",
                counted(pixels as u64, "pixel")
            ),
        ));
    }
    let scorer = scorer.into_iter().flat_map(Scorer::notes);
    notes.extend(scorer.map(|note| Note::new(NoteCode::GroundTruth, note)));
    notes
}

/// Checks the prompts and the ground truth against the frames that really come, as far as the last frame that either
/// names, and returns how many frames there are, counted up to `pointers`: the tracker needs to know whether a clip is
/// shorter than that.
///
/// For a later frame of a video this decodes up to it. Decoding costs little compared with tracking, and a prompt or a file
/// that cannot be used is reported now rather than then.
pub(crate) fn count_frames(
    input: &Path,
    max_frames: Option<usize>,
    info: &SourceInfo,
    prompts: &Prompts,
    truth: Option<&GroundTruth>,
    pointers: usize,
) -> Result<usize, SessionError> {
    let most = max_frames.unwrap_or(usize::MAX);
    if most != usize::MAX {
        prompts.check_end(most, &format!("the run ends after {most} frames"))?;
    }
    prompts.check(0, info.width, info.height)?;
    let annotated = || truth.into_iter().flat_map(GroundTruth::frames);
    let last = annotated().chain([prompts.last_frame()]).max().unwrap_or(0);
    let limit = pointers.max(last.saturating_add(1)).min(most);
    check_truth(truth, 0, info.width, info.height)?;
    let frames = if last == 0 || info.kind == SourceKind::Images {
        let frames = media::count_frames_up_to(input, limit)?;
        if info.kind == SourceKind::Images {
            // All images of a folder have one size.
            for frame in prompts.frames() {
                prompts.check(frame, info.width, info.height)?;
            }
            for frame in annotated().take_while(|frame| *frame < frames) {
                check_truth(truth, frame, info.width, info.height)?;
            }
        }
        frames
    } else {
        let mut source = media::open(input)?;
        let mut frames = 0;
        while frames < limit {
            let Some(frame) = source.next_frame()? else {
                break;
            };
            prompts.check(frames, frame.width, frame.height)?;
            check_truth(truth, frames, frame.width, frame.height)?;
            frames += 1;
        }
        frames
    };
    if frames < limit {
        let why = format!(
            "{} has {}",
            input.display(),
            counted(frames as u64, "frame")
        );
        prompts.check_end(frames, &why)?;
        if let Some(truth) = truth {
            truth.check_end(frames, &why)?;
        }
    }
    Ok(frames.min(pointers))
}

fn check_truth(
    truth: Option<&GroundTruth>,
    frame: usize,
    width: u32,
    height: u32,
) -> Result<(), SessionError> {
    match truth {
        Some(truth) => Ok(truth.check(frame, width, height)?),
        None => Ok(()),
    }
}
