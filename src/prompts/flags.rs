//! Prompts from command line flags: text such as `10,20,110,220`, and mask files.

use std::path::{Path, PathBuf};

use super::entry::{PromptEntry, PromptShape, check_object, valid_box, valid_point};
use super::mask::{empty_mask, ids_of, read_mask, select};
use super::{PromptError, PromptProblem};
use crate::words::counted;

/// One prompt flag of the command line, with the text that the user wrote.
#[derive(Debug, Clone, PartialEq)]
pub enum FlagPrompt {
    /// `--box x1,y1,x2,y2`
    Box(String),
    /// `--point x,y[,label]`
    Point(String),
    /// `--mask index.png`
    Mask(PathBuf),
}

/// The entries of `flags`: all on frame 0, objects 1, 2, … in their order.
///
/// A mask flag whose PNG has several ids gives one object per id: with the PNG's own ids when it is the only flag, else
/// with the next free ones.
///
/// # Errors
/// [`PromptError::Invalid`] or [`PromptError::Mask`] of the first wrong flag.
pub(super) fn read_flags(flags: &[FlagPrompt]) -> Result<Vec<PromptEntry>, PromptError> {
    let only = flags.len() == 1;
    let mut entries = Vec::new();
    let mut next = 1;
    for flag in flags {
        let (origin, shape) = match flag {
            FlagPrompt::Box(text) => (format!("--box {text}"), box_of(text)),
            FlagPrompt::Point(text) => (format!("--point {text}"), point_of(text)),
            FlagPrompt::Mask(file) => {
                let masks = read_mask_flag(file, only, next)?;
                next += masks.len() as u32;
                entries.extend(masks);
                continue;
            }
        };
        entries.push(PromptEntry {
            shape: shape.map_err(|problem| problem.at(&origin))?,
            origin,
            frame: 0,
            object: next,
        });
        next += 1;
    }
    Ok(entries)
}

fn box_of(text: &str) -> Result<PromptShape, PromptProblem> {
    const FORM: &str = "x1,y1,x2,y2";
    match parse_numbers(text, 4..=4, FORM)?[..] {
        [x1, y1, x2, y2] => Ok(PromptShape::Box(valid_box([x1, y1, x2, y2])?)),
        _ => Err(PromptProblem::Malformed(format!("expected {FORM}"))),
    }
}

fn point_of(text: &str) -> Result<PromptShape, PromptProblem> {
    const FORM: &str = "x,y or x,y,label";
    let point = match parse_numbers(text, 2..=3, FORM)?[..] {
        [x, y] => [x, y, 1.0],
        [x, y, label] => [x, y, label],
        _ => return Err(PromptProblem::Malformed(format!("expected {FORM}"))),
    };
    Ok(PromptShape::Points(vec![valid_point(point)?]))
}

/// One entry per id of the PNG. The first object is `next` unless the ids are kept.
fn read_mask_flag(file: &Path, only: bool, next: u32) -> Result<Vec<PromptEntry>, PromptError> {
    let origin = format!("--mask {}", file.display());
    let image = read_mask(&origin, file)?;
    let ids = ids_of(&image);
    if ids.is_empty() {
        return Err(empty_mask(&image).at(origin));
    }
    let keep = only && ids.len() > 1;
    (next..)
        .zip(&ids)
        .map(|(free, id)| {
            let object = if keep { u32::from(*id) } else { free };
            check_object(object.into()).map_err(|problem| problem.at(&origin))?;
            Ok(PromptEntry {
                origin: origin.clone(),
                frame: 0,
                object,
                shape: PromptShape::Mask {
                    file: Some(file.to_path_buf()),
                    mask: select(&image, |found| found == *id),
                },
            })
        })
        .collect()
}

/// Numbers separated by commas, as many as `count` allows; `form` shows what is expected.
fn parse_numbers(
    text: &str,
    count: std::ops::RangeInclusive<usize>,
    form: &str,
) -> Result<Vec<f32>, PromptProblem> {
    let parts: Vec<&str> = text.split(',').map(str::trim).collect();
    if !count.contains(&parts.len()) {
        let given = parts.iter().filter(|part| !part.is_empty()).count();
        return Err(PromptProblem::Malformed(format!(
            "expected {form}, got {}",
            counted(given as u64, "number")
        )));
    }
    let parsed = parts.into_iter().map(|part| match part.parse::<f32>() {
        Ok(number) if number.is_finite() => Ok(number),
        Ok(_) => Err(format!("{part:?} is not a finite number, expected {form}")),
        Err(_) => Err(format!("{part:?} is not a number, expected {form}")),
    });
    parsed
        .collect::<Result<_, _>>()
        .map_err(PromptProblem::Malformed)
}

/// An example box for the detector: `x1,y1,x2,y2` or `x1,y1,x2,y2,label` in pixels. Returns the corners and whether the
/// box shows what is meant: label 1, the default, or 0 for what is not meant.
///
/// # Errors
/// Text of another form, a label other than 0 or 1, or a box without area.
pub fn parse_exemplar(text: &str) -> Result<([f32; 4], bool), PromptProblem> {
    const FORM: &str = "x1,y1,x2,y2 or x1,y1,x2,y2,label";
    let (corners, label) = match parse_numbers(text, 4..=5, FORM)?[..] {
        [x1, y1, x2, y2] => ([x1, y1, x2, y2], 1.0),
        [x1, y1, x2, y2, label] => ([x1, y1, x2, y2], label),
        _ => return Err(PromptProblem::Malformed(format!("expected {FORM}"))),
    };
    if label != 0.0 && label != 1.0 {
        return Err(PromptProblem::Malformed(format!(
            "label {label}, expected 1 (such things are meant) or 0 (they are not)"
        )));
    }
    Ok((valid_box(corners)?, label == 1.0))
}
