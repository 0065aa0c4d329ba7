//! J (region) and F (boundary) of masks against ground truth, as the DAVIS 2017 benchmark defines them. Numbers only: no
//! files and no printing.
//!
//! Reference: `davis2017-evaluation`, semi-supervised. Pixels that the ground truth marks with [`IGNORED`] count for
//! nothing: both masks are cleared there, as that benchmark does with void pixels.

mod boundary;
pub mod ground_truth;
pub mod matching;
mod overlap;
pub mod report;
pub(crate) mod scorer;
mod summary;

use std::collections::BTreeMap;
use std::path::PathBuf;

use boundary::Crop;
pub use boundary::tolerance;
pub use overlap::Overlaps;
pub use summary::Means;

use crate::masks::Iou;

/// The label of pixels that are not judged; never an object.
pub const IGNORED: u16 = 255;

/// How well a mask meets the ground truth on one frame.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Score {
    /// Region: intersection over union, 0 to 1; 1 if both masks are empty.
    pub j: f64,
    /// Boundary: F-measure of the two outlines, 0 to 1. Two masks without an outline have 1, one alone 0.
    pub f: f64,
}

/// Why two label maps cannot be compared.
#[derive(Debug, thiserror::Error)]
#[error(
    "comparing label maps of {width}x{height}: expected {} labels in each, got {expected} of the ground truth and \
     {got} of the result; give both in the frame's size",
    u64::from(*width) * u64::from(*height)
)]
pub struct SizeError {
    /// Columns.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// Labels of the ground truth.
    pub expected: usize,
    /// Labels of the result.
    pub got: usize,
}

/// Why a run cannot be scored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ScoringError {
    /// The ground truth changed since it was checked.
    #[error("the ground truth changed during the run")]
    Changed(#[from] ground_truth::GroundTruthError),
    /// Label maps of different sizes.
    #[error(transparent)]
    Size(#[from] SizeError),
    /// The run's masks cannot be read again.
    #[error(transparent)]
    Masks(#[from] crate::media::MediaError),
    /// No annotated frame is tracked.
    #[error("the ground truth {}: no PNG stands for a frame that is tracked", dir.display())]
    NoFrame {
        /// The folder.
        dir: PathBuf,
    },
    /// No annotated frame comes after an object's first prompt.
    #[error(
        "the ground truth {}: nothing can be scored: no frame after an object's first prompt is annotated (frames up to and with it do not count); annotate later frames",
        dir.display()
    )]
    NothingAfterPrompts {
        /// The folder.
        dir: PathBuf,
    },
}

impl SizeError {
    /// Fails unless both label maps have `width * height` labels.
    fn check(expected: &[u16], got: &[u16], width: u32, height: u32) -> Result<(), Self> {
        let pixels = width as usize * height as usize;
        if expected.len() == pixels && got.len() == pixels {
            return Ok(());
        }
        Err(Self {
            width,
            height,
            expected: expected.len(),
            got: got.len(),
        })
    }
}

/// What is known of one label after a pass over both maps.
#[derive(Debug, Clone, Copy)]
struct Extent {
    expected: u64,
    got: u64,
    both: u64,
    /// x1, y1, x2, y2 around both masks, x2 and y2 exclusive.
    bounds: [usize; 4],
}

/// The scores of `objects` on one frame, in their order. `expected` (ground truth) and `got` (result) are label maps,
/// row-major, `width * height` labels each; 0 is background. An object that neither shows has J and F 1.
///
/// # Errors
///
/// A map has another length.
pub fn score_frame(
    expected: &[u16],
    got: &[u16],
    width: u32,
    height: u32,
    objects: &[u16],
) -> Result<Vec<Score>, SizeError> {
    SizeError::check(expected, got, width, height)?;
    let size = (width as usize, height as usize);
    let extents = extents(expected, got, size.0);
    let radius = tolerance(width, height);
    let score = |object: &u16| {
        let Some(extent) = extents.get(object) else {
            return Score { j: 1.0, f: 1.0 };
        };
        let crop = Crop::around(extent.bounds, size);
        let outline = |map: &[u16]| crop.outline(map, expected, *object);
        Score {
            j: Iou::of_areas(extent.expected, extent.got, extent.both).or(1.0),
            f: boundary::f_measure(&outline(expected), &outline(got), radius),
        }
    };
    Ok(objects.iter().map(score).collect())
}

fn extents(expected: &[u16], got: &[u16], width: usize) -> BTreeMap<u16, Extent> {
    let mut extents = BTreeMap::new();
    if width == 0 {
        return extents;
    }
    let rows = expected.chunks_exact(width).zip(got.chunks_exact(width));
    for (y, (expected, got)) in rows.enumerate() {
        let mut x = 0;
        // Whole runs of one pair, so that an object is looked up once for many pixels.
        while x < width {
            let pair = (expected[x], got[x]);
            let end = (x + 1..width)
                .find(|next| (expected[*next], got[*next]) != pair)
                .unwrap_or(width);
            if pair.0 != IGNORED {
                note(&mut extents, pair, [x, y, end, y + 1]);
            }
            x = end;
        }
    }
    extents
}

fn note(extents: &mut BTreeMap<u16, Extent>, (expected, got): (u16, u16), run: [usize; 4]) {
    let pixels = (run[2] - run[0]) as u64;
    let mut add = |label: u16, shares: [u64; 3]| {
        if label == 0 {
            return;
        }
        let extent = extents.entry(label).or_insert(Extent {
            expected: 0,
            got: 0,
            both: 0,
            bounds: run,
        });
        extent.expected += shares[0];
        extent.got += shares[1];
        extent.both += shares[2];
        let [x1, y1, x2, y2] = extent.bounds;
        extent.bounds = [
            x1.min(run[0]),
            y1.min(run[1]),
            x2.max(run[2]),
            y2.max(run[3]),
        ];
    };
    if expected == got {
        add(expected, [pixels; 3]);
    } else {
        add(expected, [pixels, 0, 0]);
        add(got, [0, pixels, 0]);
    }
}
