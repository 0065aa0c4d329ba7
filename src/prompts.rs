//! Prompts: which objects to track, from flags and from a JSON file.
//!
//! A prompt takes effect when its frame is reached, before that frame is tracked. The frame becomes a conditioning
//! frame of that object. An object does not exist before its first prompt. A second prompt for an object on a later
//! frame refines it. Coordinates are pixels of the source frame: the frame's left edge is x = 0, its right edge
//! x = width.
//!
//! On one frame an object takes one box, any number of points, or a box with points; or one mask and nothing else.
//! That is what the reference's `Sam3TrackerVideoProcessor.add_inputs_to_inference_session` accepts.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::media::index_png::{IndexImage, read_index_png};
use crate::media::mask::BinaryMask;
use crate::tracker::Prompt;

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
        "no prompts: say what to track with --box x1,y1,x2,y2, --point x,y or --mask index.png (on frame 0), or with --prompts FILE.json (see `snow-ort run --help`)"
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

/// One entry of a prompts file. Signed numbers and loose lists, so that a wrong value gets a message of its own.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    frame: i64,
    object: i64,
    #[serde(rename = "box")]
    bbox: Option<Vec<Option<f64>>>,
    points: Option<Vec<Vec<Option<f64>>>>,
    mask: Option<PathBuf>,
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
                reason: "the mask is empty: every pixel is 0".into(),
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

    fn add_file(&mut self, file: &Path) -> Result<(), PromptError> {
        let text = std::fs::read(file).map_err(|source| PromptError::Read {
            file: file.to_path_buf(),
            source,
        })?;
        let entries: Vec<serde_json::Value> =
            serde_json::from_slice(&text).map_err(|error| PromptError::Json {
                file: file.to_path_buf(),
                reason: error.to_string(),
            })?;
        if entries.is_empty() {
            return Err(PromptError::Json {
                file: file.to_path_buf(),
                reason: "the list is empty".into(),
            });
        }
        for (index, value) in entries.into_iter().enumerate() {
            self.add_entry(file, index + 1, value)?;
        }
        Ok(())
    }

    fn add_entry(
        &mut self,
        file: &Path,
        number: usize,
        value: serde_json::Value,
    ) -> Result<(), PromptError> {
        // The frame and object are named even when another field makes the entry unreadable.
        let named = |field: &str| {
            value
                .get(field)
                .map_or_else(|| "?".to_owned(), serde_json::Value::to_string)
        };
        let origin = format!(
            "{}: entry {number} (frame {}, object {})",
            file.display(),
            named("frame"),
            named("object")
        );
        let invalid = |reason: String| PromptError::Invalid {
            origin: origin.clone(),
            reason,
        };

        let entry: Entry =
            serde_json::from_value(value).map_err(|error| invalid(error.to_string()))?;
        let frame = usize::try_from(entry.frame)
            .map_err(|_| invalid(format!("frame is {}, expected 0 or more", entry.frame)))?;
        let object = check_object(entry.object).map_err(invalid)?;

        let mut shapes = Vec::new();
        if let Some(numbers) = entry.bbox {
            let numbers = finite(&numbers, "box").map_err(invalid)?;
            let numbers: [f32; 4] = numbers.as_slice().try_into().map_err(|_| {
                invalid(format!(
                    "box has {} numbers, expected 4: [x1, y1, x2, y2]",
                    numbers.len()
                ))
            })?;
            shapes.push(Shape::Box(valid_box(numbers).map_err(invalid)?));
        }
        if let Some(points) = entry.points {
            if points.is_empty() {
                return Err(invalid("points is an empty list".into()));
            }
            let points: Result<Vec<[f32; 3]>, String> = points
                .iter()
                .map(|point| valid_point(&finite(point, "points")?))
                .collect();
            shapes.push(Shape::Points(points.map_err(invalid)?));
        }
        if let Some(mask) = entry.mask {
            let path = file.parent().unwrap_or(Path::new("")).join(mask);
            let image = read_mask(&origin, &path)?;
            let mask = mask_of_object(&image, object)
                .map_err(|reason| invalid(format!("{}: {reason}", path.display())))?;
            shapes.push(Shape::Mask { file: path, mask });
        }
        if shapes.is_empty() {
            return Err(invalid(
                "it says nothing of the object: give box, points or mask".into(),
            ));
        }
        self.pieces.extend(shapes.into_iter().map(|shape| Piece {
            origin: origin.clone(),
            frame,
            object,
            shape,
        }));
        Ok(())
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
            "expected {form}, got {} numbers",
            parts.iter().filter(|part| !part.is_empty()).count()
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

/// JSON has no NaN or infinity; programs write null, or a number past the range, in their place.
fn finite(numbers: &[Option<f64>], field: &str) -> Result<Vec<f32>, String> {
    numbers
        .iter()
        .map(|number| match number {
            Some(number) if (*number as f32).is_finite() => Ok(*number as f32),
            Some(number) => Err(format!("{field} holds {number}, expected pixels")),
            None => Err(format!("{field} holds null (NaN?), expected numbers")),
        })
        .collect()
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
            "a point has {} numbers, expected [x, y] or [x, y, label]",
            point.len()
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

fn read_mask(origin: &str, file: &Path) -> Result<IndexImage, PromptError> {
    read_index_png(file).map_err(|source| PromptError::Mask {
        origin: origin.to_owned(),
        source,
    })
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
        [] => Err("the mask is empty: every pixel is 0".into()),
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
