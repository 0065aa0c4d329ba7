//! The pictures of the frames that the page shows.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;

use crate::compare::numbers::Numbers;
use crate::compare::page::{GROUND_TRUTH, Picture};
use crate::compare::picture::{jpeg, masks};
use crate::compare::report::{ShownFrame, VariantReport};
use crate::media::index_png::read_index_png;
use crate::media::{self, Frame};
use crate::scoring::IGNORED;
use crate::scoring::ground_truth::GroundTruth;

/// Reads the clip up to the last frame that is shown, and each variant's masks of those frames from its run in `out`.
pub(super) fn make(
    input: &Path,
    shown: &[ShownFrame],
    variants: &[VariantReport],
    truth: Option<&GroundTruth>,
    out: &Path,
) -> Result<Vec<Picture>> {
    let Some(last) = shown.iter().map(|shown| shown.frame).max() else {
        return Ok(Vec::new());
    };
    let numbers = Numbers::of(variants);
    let mut pictures: BTreeMap<u64, Picture> = BTreeMap::new();
    let mut source = media::open(input)?;
    for number in 0..=last {
        let Some(frame) = source.next_frame()? else {
            break;
        };
        if shown.iter().any(|shown| shown.frame == number) {
            let masks = masks_of(&frame, variants, truth, numbers.as_ref(), out)?;
            let jpeg = jpeg(&frame)?;
            pictures.insert(number, Picture { jpeg, masks });
        }
    }
    // All frames were tracked, so that all come.
    Ok(shown
        .iter()
        .filter_map(|shown| pictures.remove(&shown.frame))
        .collect())
}

fn masks_of(
    frame: &Frame,
    variants: &[VariantReport],
    truth: Option<&GroundTruth>,
    numbers: Option<&Numbers>,
    out: &Path,
) -> Result<BTreeMap<String, Vec<u8>>> {
    let number = frame.index as u64;
    let mut all = BTreeMap::new();
    for variant in variants {
        let Some(run) = &variant.run else { continue };
        let file = out
            .join(&run.folder)
            .join("masks")
            .join(format!("{number:05}.png"));
        let mut image = read_index_png(&file)?;
        if let Some(numbers) = numbers {
            renumber(&mut image.ids, |id| numbers.of_run(&variant.name, id));
        }
        if let Some(png) = masks(number, &image.ids, image.width, image.height)? {
            all.insert(variant.name.clone(), png);
        }
    }
    let labels = match truth {
        Some(truth) => truth.read(frame.index, frame.width, frame.height)?,
        None => None,
    };
    if let Some(mut labels) = labels {
        for id in &mut labels.ids {
            if *id == IGNORED {
                *id = 0;
            }
        }
        if let Some(numbers) = numbers {
            renumber(&mut labels.ids, |id| numbers.of_truth(id));
        }
        if let Some(png) = masks(number, &labels.ids, labels.width, labels.height)? {
            all.insert(GROUND_TRUTH.to_owned(), png);
        }
    }
    Ok(all)
}

fn renumber(ids: &mut [u16], number: impl Fn(u32) -> u32) {
    let mut known: BTreeMap<u16, u16> = BTreeMap::from([(0, 0)]);
    for id in ids {
        // A colour is all that the number gives: one that does not fit any more may repeat one.
        *id = *known
            .entry(*id)
            .or_insert_with(|| number(u32::from(*id)) as u16);
    }
}
