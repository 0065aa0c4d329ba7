//! What can be checked of prompts and ground truth before a model is loaded: that the frames which they name come.

use std::path::Path;

use anyhow::Result;

use super::counted;
use crate::media::{self, SourceInfo, SourceKind};
use crate::prompts::Prompts;
use crate::scoring::ground_truth::GroundTruth;

/// Checks the prompts and the ground truth against the frames that really come, as far as the last frame that either
/// names, and returns how many frames there are, counted up to `pointers`: the tracker needs to know whether a clip is
/// shorter than that.
///
/// For a later frame of a video this decodes up to it. That costs little beside tracking as far, and a prompt or a file
/// that cannot be used is reported now rather than then.
pub(super) fn survey(
    input: &Path,
    max_frames: Option<usize>,
    info: &SourceInfo,
    prompts: &Prompts,
    truth: Option<&GroundTruth>,
    pointers: usize,
) -> Result<usize> {
    let most = max_frames.unwrap_or(usize::MAX);
    if most != usize::MAX {
        prompts.check_end(most, &format!("--max-frames {most} ends the run before it"))?;
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

fn check_truth(truth: Option<&GroundTruth>, frame: usize, width: u32, height: u32) -> Result<()> {
    match truth {
        Some(truth) => Ok(truth.check(frame, width, height)?),
        None => Ok(()),
    }
}
