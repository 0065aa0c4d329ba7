//! What to type about an error or a note of the library: the flags that the library does not name.

use anyhow::Error;

use super::chain;
use crate::bundle::locate::LocateError;
use crate::compare::AbError;
use crate::memory::over_limit::{Fit, ObjectOrigin, OverLimit};
use crate::prompts::PromptError;
use crate::proposals::ProposalError;
use crate::scoring::ScoringError;
use crate::session::detection::DetectionError;
use crate::session::{NoteCode, ParameterError, SessionError};
use crate::size;

/// An error with its causes in one line, and what to do about it.
pub(super) fn with_advice(error: &Error) -> String {
    let text = chain(error);
    let advice = error.chain().find_map(advice);
    let advice = advice.or_else(|| disk_advice(&text).map(str::to_owned));
    match advice {
        Some(advice) => format!("{text}; {advice}"),
        None => text,
    }
}

/// What to do about a note; empty, or text to put behind it.
pub(super) fn of_note(code: NoteCode) -> &'static str {
    match code {
        NoteCode::NothingProposed => "; give a lower --conf",
        NoteCode::MaxObjects => "; raise --max-objects, or --conf",
        _ => "",
    }
}

/// A refusal for lack of memory, with what would fit as flags.
pub(super) fn over_limit(over: &OverLimit) -> String {
    format!("{over}; {}", fits(over))
}

fn fits(over: &OverLimit) -> String {
    let ways: Vec<String> = over
        .would_fit
        .iter()
        .map(|fit| flag_of(fit, over))
        .collect();
    format!("what would fit: {}", ways.join(", or "))
}

fn flag_of(fit: &Fit, over: &OverLimit) -> String {
    match *fit {
        Fit::Chunk { chunk, bytes } => format!("--chunk {chunk} ({})", size::show(bytes)),
        Fit::Objects(objects) => match over.origin {
            ObjectOrigin::Prompts => fit.to_string(),
            ObjectOrigin::Proposals => format!("{fit} (--max-objects {objects})"),
            ObjectOrigin::Texts => format!("{fit} (--follow max_objects={objects})"),
        },
        Fit::Limit(bytes) => format!("--mem-limit {} or more", size::in_mib(bytes)),
        Fit::Resolution(_) | Fit::Fp16(_) => fit.to_string(),
    }
}

/// What to do about one error of a chain.
fn advice(error: &(dyn std::error::Error + 'static)) -> Option<String> {
    if let Some(over) = error.downcast_ref::<Box<OverLimit>>() {
        return Some(fits(over));
    }
    if let Some(over) = error.downcast_ref::<OverLimit>() {
        return Some(fits(over));
    }
    if let Some(error) = error.downcast_ref::<SessionError>() {
        return session(error);
    }
    if let Some(error) = error.downcast_ref::<LocateError>() {
        return locate(error);
    }
    if let Some(DetectionError::Session(error)) = error.downcast_ref::<DetectionError>() {
        return session(error);
    }
    if let Some(error) = error.downcast_ref::<PromptError>() {
        return prompts(error);
    }
    match error.downcast_ref::<AbError>() {
        Some(AbError::Session(error)) => session(error),
        Some(error) => super::ab::hints::advice(error).map(str::to_owned),
        None => None,
    }
}

fn session(error: &SessionError) -> Option<String> {
    match error {
        SessionError::OverLimit(over) => Some(fits(over)),
        SessionError::Prompts(error) => prompts(error),
        SessionError::NoText => Some("give --text WORDS".to_owned()),
        SessionError::MixedGroundTruth => {
            Some("leave out --gt, --proposals, or the prompts".to_owned())
        }
        SessionError::Parameter(ParameterError::Unknown { .. }) => {
            Some("give --follow NAME=VALUE".to_owned())
        }
        SessionError::Scoring(ScoringError::NoFrame { .. }) => {
            Some("raise --max-frames, or leave out --gt".to_owned())
        }
        SessionError::Scoring(ScoringError::NothingAfterPrompts { .. }) => {
            Some("or leave out --gt".to_owned())
        }
        SessionError::Proposals(ProposalError::OverLimit { needed, .. }) => Some(format!(
            "give a smaller --proposal-size if the graph takes any size, or --mem-limit {} or more",
            size::in_mib(*needed)
        )),
        _ => None,
    }
}

fn prompts(error: &PromptError) -> Option<String> {
    if matches!(error, PromptError::PastEnd { end, .. } if end.starts_with("the run ends after")) {
        return Some("raise --max-frames".to_owned());
    }
    matches!(error, PromptError::None).then(|| {
        "say what to track with --box x1,y1,x2,y2, --point x,y or --mask index.png (on frame 0), with --prompts FILE.json, or have a graph propose objects with --proposals FILE.onnx (see `snow-ort run --help`)".to_owned()
    })
}

fn locate(error: &LocateError) -> Option<String> {
    match error {
        LocateError::None { resolution, .. } => {
            // Without a manifest nothing is known of the resolutions that a model takes.
            let possible = resolution.map_or(String::new(), |resolution| {
                format!(
                    " (it says whether the model can have {resolution} pixels, and which are nearest if not)"
                )
            });
            Some(format!(
                "give one with --model DIR, or make one with `snow-export`{possible}"
            ))
        }
        LocateError::Several {
            resolution: None, ..
        } => Some("choose one with --model DIR or --res".to_owned()),
        LocateError::Several { .. } => Some("choose one with --model DIR".to_owned()),
        _ => None,
    }
}

fn disk_advice(text: &str) -> Option<&'static str> {
    if text.contains("No space left") {
        Some("free some space, or write to another disk")
    } else if text.contains("File too large") {
        Some("raise the limit on a file's size (`ulimit -f`), or write to another disk")
    } else {
        None
    }
}
