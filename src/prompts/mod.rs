//! Prompts: which objects to track, from flags and from a JSON file.
//!
//! A prompt takes effect when its frame is reached, before that frame is tracked. The frame becomes a conditioning
//! frame of that object. An object does not exist before its first prompt. A second prompt for an object on a later
//! frame refines it. Coordinates are pixels of the source frame: the frame's left edge is x = 0, its right edge
//! x = width.
//!
//! On one frame an object takes one box, any number of points, or a box with points; or one mask and nothing else.
//! That is what the reference's `Sam3TrackerVideoProcessor.add_inputs_to_inference_session` accepts.

mod file;
mod json;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::media::index_png::{IndexImage, read_index_png};
use crate::media::mask::{BinaryMask, mask_prompt};
use crate::tracker::Prompt;
use crate::words::counted;

/// The greatest object id: index PNGs hold at most 16 bits.
pub const MAX_OBJECT: u32 = u16::MAX as u32;

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

/// Why the prompts cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PromptError {
    /// Neither flags nor a file.
    #[error(
        "no prompts: say what to track with --box x1,y1,x2,y2, --point x,y or --mask index.png (on frame 0), with --prompts FILE.json, or have a graph propose objects with --proposals FILE.onnx (see `snow-ort run --help`)"
    )]
    None,
    /// A prompt file cannot be read.
    #[error("cannot read the prompts file {}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// The system's reason.
        #[source]
        source: std::io::Error,
    },
    /// A prompt file is not a JSON list.
    #[error(
        "{}: expected a JSON list such as [{{\"frame\": 0, \"object\": 1, \"box\": [10, 20, 110, 220]}}]: {reason}",
        file.display()
    )]
    Json {
        /// The file.
        file: PathBuf,
        /// The parser's reason, with line and column.
        reason: String,
    },
    /// One prompt is wrong, whatever the frame's size.
    #[error("{origin}: {reason}")]
    Invalid {
        /// The flag, or the file with the entry's number (from 1), frame and object.
        origin: String,
        /// What is wrong and what is expected.
        reason: String,
    },
    /// A mask file cannot be read.
    #[error("{origin}: the mask cannot be used")]
    Mask {
        /// As for `Invalid`.
        origin: String,
        /// The reader's reason, which names the file.
        #[source]
        source: crate::media::MediaError,
    },
    /// A prompt stands on a frame that does not come.
    #[error("{origin}: there is no frame {frame}: {end} (frames count from 0)")]
    PastEnd {
        /// As for `Invalid`.
        origin: String,
        /// The prompt's frame.
        frame: usize,
        /// How many frames there are, and why.
        end: String,
    },
}

/// What one prompt says, before prompts of the same frame and object are merged.
enum Shape {
    Box([f32; 4]),
    Points(Vec<[f32; 3]>),
    Mask { file: PathBuf, mask: BinaryMask },
}

struct Piece {
    origin: String,
    frame: usize,
    object: u32,
    shape: Shape,
}

/// All prompts of a run, in the order in which they were given. Everything that does not depend on a frame's size has
/// been checked; [`Prompts::check`] does the rest.
pub struct Prompts {
    pieces: Vec<Piece>,
}

impl Prompts {
    /// Reads the prompts of `flags` (all on frame 0, objects 1, 2, … in their order) and of the JSON file.
    ///
    /// A mask flag whose PNG has several ids gives one object per id: with the PNG's own ids when it is the only
    /// flag, else with the next free ones.
    ///
    /// # Errors
    ///
    /// Names the flag, or the entry (from 1), its frame and object, and the value.
    pub fn load(flags: &[FlagPrompt], file: Option<&Path>) -> Result<Self, PromptError> {
        let mut prompts = Self { pieces: Vec::new() };
        prompts.add_flags(flags)?;
        if let Some(file) = file {
            prompts.add_file(file)?;
        }
        if prompts.pieces.is_empty() {
            return Err(PromptError::None);
        }
        prompts.check_merge()?;
        Ok(prompts)
    }

    /// No prompts, for a run whose objects are proposed by a graph.
    pub fn none() -> Self {
        Self { pieces: Vec::new() }
    }

    /// The frames with prompts, ascending.
    pub fn frames(&self) -> BTreeSet<usize> {
        self.pieces.iter().map(|piece| piece.frame).collect()
    }

    /// The last frame with a prompt.
    pub fn last_frame(&self) -> usize {
        self.pieces
            .iter()
            .map(|piece| piece.frame)
            .max()
            .unwrap_or(0)
    }

    /// The objects, each with the frame of its first prompt.
    pub fn first_frames(&self) -> BTreeMap<u32, usize> {
        let mut first: BTreeMap<u32, usize> = BTreeMap::new();
        for piece in &self.pieces {
            let frame = first.entry(piece.object).or_insert(piece.frame);
            *frame = piece.frame.min(*frame);
        }
        first
    }

    /// The files of mask prompts, each with where it is named.
    pub fn mask_files(&self) -> impl Iterator<Item = (&str, &Path)> {
        self.pieces.iter().filter_map(|piece| match &piece.shape {
            Shape::Mask { file, .. } => Some((piece.origin.as_str(), file.as_path())),
            _ => None,
        })
    }

    /// Mask prompts of which nothing is left at `side` x `side` pixels, which is what the model sees: where each is
    /// named, its object, and its number of pixels.
    pub fn vanishing(&self, side: u32) -> Vec<(&str, u32, usize)> {
        let mut found = Vec::new();
        for piece in &self.pieces {
            if let Shape::Mask { mask, .. } = &piece.shape
                && mask_prompt(mask, side).iter().all(|value| *value == 0.0)
            {
                let pixels = mask.data.iter().filter(|inside| **inside != 0).count();
                found.push((piece.origin.as_str(), piece.object, pixels));
            }
        }
        found
    }

    /// Checks the prompts on `frame` against its size in pixels.
    ///
    /// # Errors
    ///
    /// A box or point outside of the frame, a mask of another size.
    pub fn check(&self, frame: usize, width: u32, height: u32) -> Result<(), PromptError> {
        for piece in self.pieces.iter().filter(|piece| piece.frame == frame) {
            let reason = match &piece.shape {
                Shape::Box(b) => box_outside(b, width, height),
                Shape::Points(points) => points
                    .iter()
                    .find_map(|point| point_outside(point, width, height)),
                Shape::Mask { file, mask } => ((mask.width, mask.height) != (width, height)).then(
                    || {
                        format!(
                            "{} is {}x{} pixels, but frame {frame} is {width}x{height}; a mask must have the frame's size",
                            file.display(),
                            mask.width,
                            mask.height
                        )
                    },
                ),
            };
            if let Some(reason) = reason {
                return Err(PromptError::Invalid {
                    origin: piece.origin.clone(),
                    reason,
                });
            }
        }
        Ok(())
    }

    /// Checks that no prompt stands on a frame past the end; `frames` of them come, and `why` says why no more.
    ///
    /// # Errors
    ///
    /// Names the first prompt that does.
    pub fn check_end(&self, frames: usize, why: &str) -> Result<(), PromptError> {
        match self.pieces.iter().find(|piece| piece.frame >= frames) {
            None => Ok(()),
            Some(piece) => Err(PromptError::PastEnd {
                origin: piece.origin.clone(),
                frame: piece.frame,
                end: why.to_owned(),
            }),
        }
    }

    /// Merges the prompts by frame and object. Objects of a frame come in the order of their first prompt.
    pub fn into_frames(self) -> BTreeMap<usize, Vec<Prompt>> {
        let mut frames: BTreeMap<usize, Vec<Prompt>> = BTreeMap::new();
        for piece in self.pieces {
            let prompts = frames.entry(piece.frame).or_default();
            let index = match prompts
                .iter()
                .position(|prompt| prompt.object == piece.object)
            {
                Some(index) => index,
                None => {
                    prompts.push(Prompt {
                        frame: piece.frame,
                        object: piece.object,
                        points: Vec::new(),
                        bbox: None,
                        mask: None,
                    });
                    prompts.len() - 1
                }
            };
            let prompt = &mut prompts[index];
            match piece.shape {
                Shape::Box(b) => prompt.bbox = Some(b),
                Shape::Points(points) => prompt.points.extend(points),
                Shape::Mask { mask, .. } => prompt.mask = Some(mask),
            }
        }
        frames
    }

    fn add_flags(&mut self, flags: &[FlagPrompt]) -> Result<(), PromptError> {
        let only = flags.len() == 1;
        let mut next = 1;
        for flag in flags {
            let (origin, shape) = match flag {
                FlagPrompt::Box(text) => {
                    let origin = format!("--box {text}");
                    let shape = parse_flag(text, 4..=4, "x1,y1,x2,y2")
                        .and_then(|n| valid_box([n[0], n[1], n[2], n[3]]))
                        .map(Shape::Box);
                    (origin, shape)
                }
                FlagPrompt::Point(text) => {
                    let origin = format!("--point {text}");
                    let shape = parse_flag(text, 2..=3, "x,y or x,y,label")
                        .and_then(|n| valid_point(&n))
                        .map(|point| Shape::Points(vec![point]));
                    (origin, shape)
                }
                FlagPrompt::Mask(file) => {
                    next = self.add_mask_flag(file, only, next)?;
                    continue;
                }
            };
            let shape = shape.map_err(|reason| PromptError::Invalid {
                origin: origin.clone(),
                reason,
            })?;
            self.pieces.push(Piece {
                origin,
                frame: 0,
                object: next,
                shape,
            });
            next += 1;
        }
        Ok(())
    }

    /// Adds one object per id of the PNG and returns the next free object id.
    fn add_mask_flag(&mut self, file: &Path, only: bool, next: u32) -> Result<u32, PromptError> {
        let origin = format!("--mask {}", file.display());
        let image = read_mask(&origin, file)?;
        let ids = ids_of(&image);
        if ids.is_empty() {
            return Err(PromptError::Invalid {
                origin,
                reason: empty_mask(&image),
            });
        }
        let keep = only && ids.len() > 1;
        for (offset, id) in (0u32..).zip(&ids) {
            let object = if keep { u32::from(*id) } else { next + offset };
            check_object(object.into()).map_err(|reason| PromptError::Invalid {
                origin: origin.clone(),
                reason,
            })?;
            self.pieces.push(Piece {
                origin: origin.clone(),
                frame: 0,
                object,
                shape: Shape::Mask {
                    file: file.to_path_buf(),
                    mask: select(&image, |found| found == *id),
                },
            });
        }
        Ok(next + u32::try_from(ids.len()).unwrap_or(u32::MAX - next))
    }

    /// One box, and either points or nothing else; or one mask alone: as the reference takes them.
    fn check_merge(&self) -> Result<(), PromptError> {
        for (index, piece) in self.pieces.iter().enumerate() {
            for earlier in &self.pieces[..index] {
                if (earlier.frame, earlier.object) != (piece.frame, piece.object) {
                    continue;
                }
                let place = format!("object {} on frame {}", piece.object, piece.frame);
                let reason = match (&earlier.shape, &piece.shape) {
                    (Shape::Box(_), Shape::Box(_)) => {
                        format!("{place} has a second box, expected at most one")
                    }
                    (Shape::Mask { .. }, Shape::Mask { .. }) => {
                        format!("{place} has a second mask, expected at most one")
                    }
                    (Shape::Mask { .. }, _) | (_, Shape::Mask { .. }) => {
                        format!("{place} has a mask and a box or points, expected one or the other")
                    }
                    _ => continue,
                };
                let other = if earlier.origin == piece.origin {
                    String::new()
                } else {
                    format!("; the first is {}", earlier.origin)
                };
                return Err(PromptError::Invalid {
                    origin: piece.origin.clone(),
                    reason: format!("{reason}{other}"),
                });
            }
        }
        Ok(())
    }
}

fn parse_flag(
    text: &str,
    count: std::ops::RangeInclusive<usize>,
    form: &str,
) -> Result<Vec<f32>, String> {
    let parts: Vec<&str> = text.split(',').map(str::trim).collect();
    if !count.contains(&parts.len()) {
        return Err(format!(
            "expected {form}, got {}",
            counted(
                parts.iter().filter(|part| !part.is_empty()).count() as u64,
                "number"
            )
        ));
    }
    parts
        .into_iter()
        .map(|part| match part.parse::<f32>() {
            Ok(number) if number.is_finite() => Ok(number),
            Ok(_) => Err(format!("{part:?} is not a finite number, expected {form}")),
            Err(_) => Err(format!("{part:?} is not a number, expected {form}")),
        })
        .collect()
}

/// An example for the detector: `x1,y1,x2,y2` or `x1,y1,x2,y2,label` in pixels; the label is 1 for what is meant (the
/// default) or 0 for what is not.
///
/// # Errors
/// What is wrong with it.
pub fn parse_exemplar(text: &str) -> Result<([f32; 4], bool), String> {
    let values = parse_flag(text, 4..=5, "x1,y1,x2,y2 or x1,y1,x2,y2,label")?;
    let (corners, label) = match values[..] {
        [x1, y1, x2, y2] => ([x1, y1, x2, y2], 1.0),
        [x1, y1, x2, y2, label] => ([x1, y1, x2, y2], label),
        _ => return Err("expected x1,y1,x2,y2".to_owned()),
    };
    if label != 0.0 && label != 1.0 {
        return Err(format!(
            "label {label}, expected 1 (such things are meant) or 0 (they are not)"
        ));
    }
    Ok((valid_box(corners)?, label == 1.0))
}

fn valid_box(b: [f32; 4]) -> Result<[f32; 4], String> {
    let [x1, y1, x2, y2] = b;
    let what = if x2 < x1 || y2 < y1 {
        "inverted"
    } else if x1 == x2 || y1 == y2 {
        "empty"
    } else {
        return Ok(b);
    };
    Err(format!(
        "box {} is {what}: expected x1,y1,x2,y2 with x1 < x2 and y1 < y2",
        numbers(&b)
    ))
}

fn valid_point(point: &[f32]) -> Result<[f32; 3], String> {
    match *point {
        [x, y] => Ok([x, y, 1.0]),
        [x, y, label] if label == 0.0 || label == 1.0 => Ok([x, y, label]),
        [x, y, label] => Err(format!(
            "point {x},{y} has label {label}, expected 1 (on the object) or 0 (not on it)"
        )),
        _ => Err(format!(
            "a point has {}, expected [x, y] or [x, y, label]",
            counted(point.len() as u64, "number")
        )),
    }
}

fn check_object(object: i64) -> Result<u32, String> {
    match u32::try_from(object) {
        Ok(id) if (1..=MAX_OBJECT).contains(&id) => Ok(id),
        _ => Err(format!(
            "object is {object}, expected 1 to {MAX_OBJECT} (0 is the background)"
        )),
    }
}

fn box_outside(b: &[f32; 4], width: u32, height: u32) -> Option<String> {
    let [x1, y1, x2, y2] = *b;
    let inside = x1 >= 0.0 && y1 >= 0.0 && x2 <= width as f32 && y2 <= height as f32;
    (!inside).then(|| {
        format!(
            "box {} reaches outside of the frame, which is {width}x{height} pixels: expected 0 <= x1 < x2 <= {width} and 0 <= y1 < y2 <= {height}",
            numbers(b)
        )
    })
}

fn point_outside(point: &[f32; 3], width: u32, height: u32) -> Option<String> {
    let [x, y, _] = *point;
    let inside = x >= 0.0 && y >= 0.0 && x < width as f32 && y < height as f32;
    (!inside).then(|| {
        format!(
            "point {x},{y} is outside of the frame, which is {width}x{height} pixels: expected 0 <= x < {width} and 0 <= y < {height}"
        )
    })
}

fn numbers(values: &[f32]) -> String {
    let texts: Vec<String> = values.iter().map(f32::to_string).collect();
    texts.join(",")
}

/// Most different values of an 8-bit grey image that can be object ids; a soft edge has more.
const MOST_GREYS: usize = 16;
/// As [`MOST_GREYS`] for 16 bits, in which this program writes ids above 255.
const MOST_DEEP_GREYS: usize = 256;

fn read_mask(origin: &str, file: &Path) -> Result<IndexImage, PromptError> {
    let image = read_index_png(file).map_err(|source| PromptError::Mask {
        origin: origin.to_owned(),
        source,
    })?;
    let most = match image.grey_bits {
        Some(16) => MOST_DEEP_GREYS,
        Some(_) => MOST_GREYS,
        None => return Ok(image),
    };
    let values = ids_of(&image).len();
    if values > most {
        return Err(PromptError::Invalid {
            origin: origin.to_owned(),
            reason: format!(
                "{} is a grey image with {values} different values above 0, as a mask with a soft edge has, expected at most {most}, one for each object; threshold it to 0 and 255, or give an index PNG with a palette",
                file.display()
            ),
        });
    }
    Ok(image)
}

fn empty_mask(image: &IndexImage) -> String {
    let alpha = if image.alpha {
        " (its transparency is ignored: only the values or palette indices count)"
    } else {
        ""
    };
    format!("the mask is empty: every pixel is 0{alpha}")
}

fn ids_of(image: &IndexImage) -> Vec<u16> {
    let ids: BTreeSet<u16> = image.ids.iter().copied().filter(|id| *id != 0).collect();
    ids.into_iter().collect()
}

fn select(image: &IndexImage, keep: impl Fn(u16) -> bool) -> BinaryMask {
    BinaryMask {
        width: image.width,
        height: image.height,
        data: image.ids.iter().map(|id| u8::from(keep(*id))).collect(),
    }
}

/// A file with a single id is a plain mask, whatever its value; one with several is an index mask.
fn mask_of_object(image: &IndexImage, object: u32) -> Result<BinaryMask, String> {
    let ids = ids_of(image);
    match ids.as_slice() {
        [] => Err(empty_mask(image)),
        [_] => Ok(select(image, |id| id != 0)),
        _ if ids.iter().any(|id| u32::from(*id) == object) => {
            Ok(select(image, |id| u32::from(id) == object))
        }
        _ => {
            let shown: Vec<String> = ids.iter().take(16).map(u16::to_string).collect();
            Err(format!(
                "the index mask has no pixel of object {object}, only of {}{}",
                shown.join(", "),
                if ids.len() > shown.len() { ", …" } else { "" }
            ))
        }
    }
}
