//! Ground truth of a run: a folder of index PNGs, matched with the frames of the input and checked before any frame is
//! tracked. Only names, sizes and ids are kept; the labels of a frame are read again when it is scored.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::media::index_png::{IndexImage, read_index_png};
use crate::media::{MediaError, SourceInfo, SourceKind, images};
use crate::scoring::IGNORED;

/// More values than this in a grey image are a soft edge or a photograph, not object ids.
const MOST_GREYS: usize = 64;

/// Why a folder cannot serve as ground truth.
#[derive(Debug, thiserror::Error)]
pub enum GroundTruthError {
    /// The path is no folder.
    #[error("the ground truth {}: no such folder; give a folder of index PNGs, one for each annotated frame", dir.display())]
    NoFolder {
        /// The path as given.
        dir: PathBuf,
    },
    /// The folder cannot be read.
    #[error("the ground truth {}: the folder cannot be read", dir.display())]
    Read {
        /// The folder.
        dir: PathBuf,
        /// The system's reason.
        #[source]
        source: std::io::Error,
    },
    /// The folder holds nothing that could be ground truth.
    #[error(
        "the ground truth {}: the folder holds no PNG, expected one for each annotated frame, such as 00000.png{}",
        dir.display(),
        masks.as_ref().map_or(String::new(), |masks| format!("; did you mean {}?", masks.display()))
    )]
    Empty {
        /// The folder.
        dir: PathBuf,
        /// A folder in it that holds PNGs under the name that a run gives its masks.
        masks: Option<PathBuf>,
    },
    /// A file's name says no frame.
    #[error("{}: matches no frame: {reason}; rename or remove it", file.display())]
    Name {
        /// The PNG.
        file: PathBuf,
        /// What the name is expected to be.
        reason: String,
    },
    /// Two files stand for one frame.
    #[error("{} and {} both stand for frame {frame}; remove one of them", first.display(), second.display())]
    Twice {
        /// The one.
        first: PathBuf,
        /// The other.
        second: PathBuf,
        /// Their frame.
        frame: usize,
    },
    /// A file of a frame that does not come.
    #[error(
        "{}: there is no frame {frame}: {end} (frames count from 0); rename or remove the file",
        file.display()
    )]
    PastEnd {
        /// The PNG.
        file: PathBuf,
        /// Its frame.
        frame: usize,
        /// How many frames there are.
        end: String,
    },
    /// A file of another size than its frame.
    #[error(
        "{}: the ground truth is {}x{}, but frame {frame} is {}x{}; give it in the frame's size (scale labels without \
         interpolation)",
        file.display(), got.0, got.1, expected.0, expected.1
    )]
    Size {
        /// The PNG.
        file: PathBuf,
        /// Its frame.
        frame: usize,
        /// Width and height of the frame.
        expected: (u32, u32),
        /// Width and height of the PNG.
        got: (u32, u32),
    },
    /// A file that cannot be read as an index PNG.
    #[error("the ground truth cannot be used")]
    Unusable(#[from] MediaError),
    /// A grey image with too many values.
    #[error(
        "{}: it is a grey image with {values} different values above 0, expected at most {MOST_GREYS}, one for each \
         object; save the labels as an index PNG",
        file.display()
    )]
    Grey {
        /// The PNG.
        file: PathBuf,
        /// How many values it has.
        values: usize,
    },
    /// No file shows an object.
    #[error(
        "the ground truth {}: no PNG shows an object: all labels are 0 (background){}; label the pixels of an object with its id",
        dir.display(),
        if *ignored { format!(" or {IGNORED} (ignored)") } else { String::new() }
    )]
    NoObject {
        /// The folder.
        dir: PathBuf,
        /// Whether there are labels that are ignored.
        ignored: bool,
    },
}

/// How names of files were matched with frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Match {
    /// By the names of the input's images without their endings.
    Name,
    /// By the frame's number, from 0.
    Number,
}

impl Match {
    /// The rule as it stands in run.json.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Number => "number",
        }
    }
}

/// One annotated frame.
#[derive(Debug, Clone)]
struct Annotation {
    file: PathBuf,
    size: (u32, u32),
    objects: BTreeSet<u16>,
    shows_white: bool,
}

/// A folder of ground truth that fits its input.
#[derive(Debug, Clone)]
pub struct GroundTruth {
    dir: PathBuf,
    matched: Match,
    black_and_white: bool,
    frames: BTreeMap<usize, Annotation>,
}

impl GroundTruth {
    /// Finds the PNGs of `dir`, matches them with the frames of the input, and reads each once. Files of frames from
    /// `max_frames` on are left out, unread. Hidden files, subfolders and other kinds of files count for nothing.
    ///
    /// A folder of grey PNGs without any value but black and white, as binary masks are saved, shows object 1 in white.
    ///
    /// For a folder of images, the files are matched by name if each has the name of an image but for the ending; else,
    /// and for a video, by number: `00012.png` is frame 12, as in the `masks/` of a run.
    ///
    /// # Errors
    ///
    /// No folder, no PNG, a name that says no frame, a file that is no index PNG, or no object in any.
    pub fn open(
        dir: &Path,
        input: &SourceInfo,
        max_frames: Option<usize>,
    ) -> Result<Self, GroundTruthError> {
        let files = list(dir)?;
        let images = match input.kind {
            SourceKind::Images => images::list(&input.path)?,
            SourceKind::Video => Vec::new(),
        };
        let (matched, files) = match by_name(&files, &images) {
            Some(found) => (Match::Name, found?),
            None => (Match::Number, by_number(files, &images)?),
        };
        let mut truth = Self {
            dir: dir.to_path_buf(),
            matched,
            black_and_white: true,
            frames: BTreeMap::new(),
        };
        let mut ignored = false;
        for (frame, file) in files {
            if max_frames.is_some_and(|most| frame >= most) {
                break;
            }
            let image = read_index_png(&file)?;
            let mut objects: BTreeSet<u16> = image.ids.iter().copied().collect();
            objects.remove(&0);
            let white = white_of(&image);
            truth.black_and_white &= objects.iter().all(|id| Some(*id) == white);
            let shows_white = white.is_some_and(|white| objects.contains(&white));
            ignored |= objects.remove(&IGNORED);
            if image.grey_bits.is_some() && objects.len() > MOST_GREYS {
                return Err(GroundTruthError::Grey {
                    file,
                    values: objects.len(),
                });
            }
            let annotation = Annotation {
                file,
                size: (image.width, image.height),
                objects,
                shows_white,
            };
            truth.frames.insert(frame, annotation);
        }
        truth.black_and_white &= truth.frames.values().any(|frame| frame.shows_white);
        if truth.black_and_white {
            for annotation in truth.frames.values_mut() {
                annotation.objects = annotation.shows_white.then_some(1).into_iter().collect();
            }
        }
        if !truth.frames.is_empty() && truth.objects().is_empty() {
            return Err(GroundTruthError::NoObject {
                dir: truth.dir,
                ignored,
            });
        }
        Ok(truth)
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// How the files were matched.
    pub fn matched(&self) -> Match {
        self.matched
    }

    /// The annotated frames, ascending.
    pub fn frames(&self) -> impl DoubleEndedIterator<Item = usize> {
        self.frames.keys().copied()
    }

    /// The objects that the ground truth shows, each with the first annotated frame that shows it.
    pub fn objects(&self) -> BTreeMap<u16, usize> {
        let mut objects = BTreeMap::new();
        for (frame, annotation) in &self.frames {
            for object in &annotation.objects {
                objects.entry(*object).or_insert(*frame);
            }
        }
        objects
    }

    /// Checks the size of a frame's ground truth, if it has any, against the frame's.
    ///
    /// # Errors
    ///
    /// The sizes differ.
    pub fn check(&self, frame: usize, width: u32, height: u32) -> Result<(), GroundTruthError> {
        match self.frames.get(&frame) {
            Some(annotation) => annotation.check(frame, (width, height)),
            None => Ok(()),
        }
    }

    /// Checks that no file stands for a frame from `frames` on; `end` says why there are no more.
    ///
    /// # Errors
    ///
    /// One does.
    pub fn check_end(&self, frames: usize, end: &str) -> Result<(), GroundTruthError> {
        match self.frames.range(frames..).next() {
            Some((frame, annotation)) => Err(GroundTruthError::PastEnd {
                file: annotation.file.clone(),
                frame: *frame,
                end: end.to_owned(),
            }),
            None => Ok(()),
        }
    }

    /// The labels of a frame of the given size; None if the frame is not annotated.
    ///
    /// # Errors
    ///
    /// The file has changed since [`GroundTruth::open`]: it cannot be read, or has another size.
    pub fn read(
        &self,
        frame: usize,
        width: u32,
        height: u32,
    ) -> Result<Option<IndexImage>, GroundTruthError> {
        let Some(annotation) = self.frames.get(&frame) else {
            return Ok(None);
        };
        let mut image = read_index_png(&annotation.file)?;
        if self.black_and_white {
            let white = white_of(&image);
            for id in &mut image.ids {
                *id = u16::from(Some(*id) == white);
            }
        }
        let now = Annotation {
            size: (image.width, image.height),
            ..annotation.clone()
        };
        now.check(frame, (width, height))?;
        Ok(Some(image))
    }
}

impl Annotation {
    fn check(&self, frame: usize, expected: (u32, u32)) -> Result<(), GroundTruthError> {
        if self.size == expected {
            return Ok(());
        }
        Err(GroundTruthError::Size {
            file: self.file.clone(),
            frame,
            expected,
            got: self.size,
        })
    }
}

/// The largest value that a grey image can have; None for one with a palette.
fn white_of(image: &IndexImage) -> Option<u16> {
    image.grey_bits.map(|bits| u16::MAX >> (16 - bits))
}

/// The PNGs of a folder in name order.
fn list(dir: &Path) -> Result<Vec<PathBuf>, GroundTruthError> {
    if !dir.is_dir() {
        return Err(GroundTruthError::NoFolder {
            dir: dir.to_path_buf(),
        });
    }
    let files = pngs_in(dir).map_err(|source| GroundTruthError::Read {
        dir: dir.to_path_buf(),
        source,
    })?;
    if files.is_empty() {
        let masks = dir.join("masks");
        let found = pngs_in(&masks).is_ok_and(|files| !files.is_empty());
        return Err(GroundTruthError::Empty {
            dir: dir.to_path_buf(),
            masks: found.then_some(masks),
        });
    }
    Ok(files)
}

fn pngs_in(dir: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let (name, path) = (entry.file_name(), entry.path());
        let hidden = name.as_encoded_bytes().starts_with(b".");
        let png = path
            .extension()
            .is_some_and(|e| e.eq_ignore_ascii_case("png"));
        if png && !hidden && !path.is_dir() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

type Matched = Result<BTreeMap<usize, PathBuf>, GroundTruthError>;

/// None unless each file has the name of an image but for the ending.
fn by_name(files: &[PathBuf], images: &[PathBuf]) -> Option<Matched> {
    let mut frames = BTreeMap::new();
    for (frame, image) in images.iter().enumerate() {
        // Of images that differ in their endings only, none is meant more than the others.
        if frames.insert(image.file_stem()?, frame).is_some() {
            return None;
        }
    }
    let found: Option<Vec<_>> = files
        .iter()
        .map(|file| Some((*frames.get(file.file_stem()?)?, file.clone())))
        .collect();
    Some(once_each(found?))
}

fn by_number(files: Vec<PathBuf>, images: &[PathBuf]) -> Matched {
    let mut found = Vec::with_capacity(files.len());
    for file in files {
        let stem = file.file_stem().unwrap_or_default().to_string_lossy();
        let number = stem
            .bytes()
            .all(|byte| byte.is_ascii_digit())
            .then(|| stem.parse::<usize>().ok());
        let Some(frame) = number.flatten() else {
            let numbers = "a frame's number, such as 00000.png for the first";
            return Err(GroundTruthError::Name {
                reason: match images.first().and_then(|image| image.file_stem()) {
                    Some(first) => format!(
                        "expected the name of one of the images, such as {}.png, or {numbers}",
                        first.display()
                    ),
                    None => format!("expected {numbers}"),
                },
                file,
            });
        };
        found.push((frame, file));
    }
    once_each(found)
}

fn once_each(found: Vec<(usize, PathBuf)>) -> Matched {
    let mut frames: BTreeMap<usize, PathBuf> = BTreeMap::new();
    for (frame, file) in found {
        if let Some(first) = frames.get(&frame) {
            return Err(GroundTruthError::Twice {
                first: first.clone(),
                second: file,
                frame,
            });
        }
        frames.insert(frame, file);
    }
    Ok(frames)
}
