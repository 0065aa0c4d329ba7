//! The last stage: low-resolution logits to masks at the size of the frame, and from there to files.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensorError};

use super::SessionError;
use super::discovery::JudgedProposal;
use super::error::chain;
use super::report::{
    FrameTracks, ObjectTrack, ProposalSource, ProposalTrack, ScoresReport, SizeReport, TracksWriter,
};
use crate::masks::{Logits, Mask, Rle, sigmoid};
use crate::media::contact_sheet::{ContactSheet, SheetFrame};
use crate::media::index_png::write_index_png;
use crate::media::overlay::{self, OverlayWriter};
use crate::proposals::Proposal;
use crate::scoring::scorer::Scorer;
use crate::tracker::{FrameResult, ObjectMask};

/// A frame with its result.
pub(super) struct TrackedFrame {
    /// The objects and their masks.
    pub result: FrameResult,
    /// Width of the source frame in pixels.
    pub width: u32,
    /// Height of the source frame in pixels.
    pub height: u32,
    /// The source frame, RGB, when an overlay or a contact sheet is made.
    pub rgb: Option<Vec<u8>>,
    /// Presentation time in seconds.
    pub pts_s: Option<f64>,
    /// The proposals, on a frame on which the graph ran.
    pub proposals: Option<Vec<JudgedProposal>>,
}

/// Where results go. The caller stages everything that the user sees under a final name.
pub(super) struct WriterOptions {
    /// The run's folder: gets `masks/` and `tracks.json`.
    pub dir: PathBuf,
    /// A folder for raw logits.
    pub logits: Option<PathBuf>,
    /// The overlay video.
    pub overlay: Option<OverlayWriter>,
    /// The file of the contact sheet.
    pub sheet: Option<PathBuf>,
    /// Judges the masks.
    pub scorer: Option<Scorer>,
    /// A logit above this belongs to the object.
    pub threshold: f32,
}

/// Seconds of each stage, and facts about the frames.
#[derive(Debug, Clone, Default)]
pub(super) struct WriterStats {
    /// Frames written.
    pub frames: u64,
    /// Seconds spent on masks at source size.
    pub upsample_s: f64,
    /// Seconds spent on index PNGs and tracks.
    pub write_s: f64,
    /// Seconds spent on the overlay video.
    pub overlay_s: f64,
    /// Seconds spent on raw logits.
    pub logits_s: f64,
    /// Seconds spent on scores.
    pub score_s: f64,
    /// Seconds spent on the contact sheet.
    pub sheet_s: f64,
    /// The scores of all frames, if they were asked for.
    pub scores: Option<ScoresReport>,
    /// Why there are no scores although they were asked for.
    pub unscored: Option<String>,
    /// Ids of the objects in order of first appearance.
    pub objects: Vec<u32>,
    /// Frame sizes in order of appearance.
    pub sizes: Vec<SizeReport>,
}

/// Writes frames as they come; keeps none.
pub(super) struct Writer {
    masks: PathBuf,
    tracks: TracksWriter,
    logits: Option<PathBuf>,
    overlay: Option<OverlayWriter>,
    sheet: Option<(PathBuf, ContactSheet)>,
    scorer: Option<Scorer>,
    threshold: f32,
    stats: WriterStats,
}

impl Writer {
    /// Creates `masks/` and `tracks.json`.
    ///
    /// # Errors
    ///
    /// They cannot be written.
    pub(super) fn create(options: WriterOptions) -> Result<Self, SessionError> {
        let masks = options.dir.join("masks");
        std::fs::create_dir(&masks).map_err(|error| {
            SessionError::write(format!("the folder {}", masks.display()), error)
        })?;
        let tracks = options.dir.join("tracks.json");
        let tracks = TracksWriter::create(&tracks)
            .map_err(|error| SessionError::write(tracks.display().to_string(), error))?;
        Ok(Self {
            masks,
            tracks,
            logits: options.logits,
            overlay: options.overlay,
            sheet: options.sheet.map(|path| (path, ContactSheet::default())),
            scorer: options.scorer,
            threshold: options.threshold,
            stats: WriterStats::default(),
        })
    }

    /// Writes everything of one frame.
    ///
    /// # Errors
    ///
    /// Something cannot be written.
    pub(super) fn write(&mut self, mut frame: TrackedFrame) -> Result<(), SessionError> {
        let number = frame.result.frame;
        let size = (frame.width, frame.height);
        let proposals = frame.proposals.take();
        self.stats.note(&frame);

        let start = Instant::now();
        let painted = paint(&frame, self.threshold);
        self.stats.upsample_s += start.elapsed().as_secs_f64();

        let start = Instant::now();
        let path = self.masks.join(format!("{number:05}.png"));
        write_index_png(&path, frame.width, frame.height, &painted.ids)
            .map_err(|error| SessionError::write(format!("the mask of frame {number}"), error))?;
        self.tracks
            .write(&FrameTracks {
                frame: number as u64,
                time_s: frame.pts_s,
                objects: painted.tracks,
                proposals: proposals
                    .map(|all| all.iter().map(|judged| track_of(judged, size)).collect()),
            })
            .map_err(|error| {
                SessionError::write(self.tracks.path().display().to_string(), error)
            })?;
        self.stats.write_s += start.elapsed().as_secs_f64();

        if let Some(dir) = &self.logits {
            let start = Instant::now();
            let path = dir.join(format!("{number:05}.safetensors"));
            let bytes = logits_file(&frame.result).map_err(|error| {
                SessionError::write(format!("the logits of frame {number}"), error)
            })?;
            std::fs::write(&path, bytes)
                .map_err(|error| SessionError::write(path.display().to_string(), error))?;
            self.stats.logits_s += start.elapsed().as_secs_f64();
        }

        self.judge(number, &painted.ids, size);
        if let Some(rgb) = frame.rgb {
            let shown = SheetFrame {
                number: number as u64,
                width: frame.width,
                height: frame.height,
                rgb,
                ids: Some(painted.ids),
            };
            self.show(shown, frame.pts_s)?;
        }
        self.stats.frames += 1;
        Ok(())
    }

    /// Ends the files and adds up the scores.
    ///
    /// # Errors
    ///
    /// They cannot be written.
    pub(super) fn finish(self) -> Result<WriterStats, SessionError> {
        let path = self.tracks.path().to_path_buf();
        self.tracks
            .finish()
            .map_err(|error| SessionError::write(path.display().to_string(), error))?;
        let mut stats = self.stats;
        // A video of no frames is no video; it is dropped, and its file with it.
        if let Some(writer) = self.overlay.filter(|_| stats.frames > 0) {
            let start = Instant::now();
            writer
                .finish()
                .map_err(|error| SessionError::write("the overlay", error))?;
            stats.overlay_s += start.elapsed().as_secs_f64();
        }
        if let Some((path, sheet)) = self.sheet {
            let start = Instant::now();
            sheet
                .write(&path)
                .map_err(|error| SessionError::write("the contact sheet", error))?;
            stats.sheet_s += start.elapsed().as_secs_f64();
        }
        if let Some(scorer) = self.scorer {
            let start = Instant::now();
            match scorer.report(&self.masks) {
                Ok(scores) => stats.scores = Some(scores),
                Err(error) => stats.unscored = Some(chain(&error)),
            }
            stats.score_s += start.elapsed().as_secs_f64();
        }
        Ok(stats)
    }

    /// Scores a frame. A run is worth more than its scores: an error ends these alone.
    fn judge(&mut self, number: usize, ids: &[u16], size: (u32, u32)) {
        let Some(scorer) = &mut self.scorer else {
            return;
        };
        let start = Instant::now();
        if let Err(error) = scorer.add(number, ids, size) {
            self.stats.unscored = Some(chain(&error));
            self.scorer = None;
        }
        self.stats.score_s += start.elapsed().as_secs_f64();
    }

    fn show(&mut self, mut frame: SheetFrame, pts_s: Option<f64>) -> Result<(), SessionError> {
        let start = Instant::now();
        if let Some(writer) = &mut self.overlay {
            if let Some(ids) = frame.ids.take() {
                overlay::draw(&mut frame.rgb, frame.width, frame.height, &ids);
            }
            writer
                .write(&frame.rgb, frame.width, frame.height, pts_s)
                .map_err(|error| {
                    SessionError::write(format!("frame {} of the overlay", frame.number), error)
                })?;
            self.stats.overlay_s += start.elapsed().as_secs_f64();
        }
        let start = Instant::now();
        if let Some((_, sheet)) = &mut self.sheet {
            sheet
                .add(frame)
                .map_err(|error| SessionError::write("a frame of the contact sheet", error))?;
            self.stats.sheet_s += start.elapsed().as_secs_f64();
        }
        Ok(())
    }
}

impl WriterStats {
    /// Notes the objects and the size of a frame.
    pub(super) fn note(&mut self, frame: &TrackedFrame) {
        for object in &frame.result.objects {
            if !self.objects.contains(&object.object) {
                self.objects.push(object.object);
            }
        }
        let known = self.sizes.last();
        if known.is_none_or(|s| (s.width, s.height) != (frame.width, frame.height)) {
            self.sizes.push(SizeReport {
                from_frame: frame.result.frame as u64,
                width: frame.width,
                height: frame.height,
            });
        }
    }
}

struct Painted {
    ids: Vec<u16>,
    tracks: Vec<ObjectTrack>,
}

/// One object after another, so that logits of one object at source size are all that is held at a time. Where
/// objects overlap the higher logit wins, and the earlier object if they are equal.
fn paint(frame: &TrackedFrame, threshold: f32) -> Painted {
    let (width, height) = (frame.width, frame.height);
    let pixels = width as usize * height as usize;
    let mut painted = Painted {
        ids: vec![0; pixels],
        tracks: Vec::with_capacity(frame.result.objects.len()),
    };
    let claims = Claims::of(frame, threshold);
    let mut best = vec![f32::NEG_INFINITY; pixels];
    for (place, object) in frame.result.objects.iter().enumerate() {
        let id = u16::try_from(object.object).unwrap_or(u16::MAX);
        let logits = visible(object, frame, threshold);
        let mut mask = match &logits {
            Some(logits) => logits.above(threshold),
            None => Mask::empty(width, height),
        };
        // The reference shows what was found only where something of it is seen.
        if object.rank.is_some() && mask.is_empty() {
            continue;
        }
        claims.apply(place, object, &mut mask);
        if let Some(logits) = logits {
            let logits = logits.values();
            for (index, inside) in mask.pixels().iter().enumerate() {
                if *inside && logits[index] > best[index] {
                    best[index] = logits[index];
                    painted.ids[index] = id;
                }
            }
        }
        painted.tracks.push(ObjectTrack {
            object: object.object,
            rle: Rle::of(&mask),
            bbox: mask.bounding_box(),
            area: mask.area(),
            score_logit: object.score,
            score: sigmoid(object.score),
            iou: object.iou,
        });
    }
    painted
}

/// An object's logits at source size; `None` if nothing of it is visible.
fn visible(object: &ObjectMask, frame: &TrackedFrame, threshold: f32) -> Option<Logits> {
    // Interpolation stays between its neighbours, so these logits stay far below the threshold everywhere; an
    // object that is not visible is the usual case.
    let mut logits = object.low_res.values().iter();
    let blank = logits.all(|logit| *logit < threshold - 1.0);
    (!blank).then(|| object.low_res.resized(frame.width, frame.height))
}

/// Who gets each pixel among the objects of a group, where objects have ranks.
///
/// Reference: `_apply_object_wise_non_overlapping_constraints` of `Sam3VideoProcessor`, which leaves a lone object as it
/// is.
struct Claims {
    /// For each group the place of the object that gets a pixel, plus one, and its share.
    winners: BTreeMap<usize, Vec<(u16, f32)>>,
}

impl Claims {
    fn of(frame: &TrackedFrame, threshold: f32) -> Self {
        let mut winners: BTreeMap<usize, Vec<(u16, f32)>> = BTreeMap::new();
        let pixels = frame.width as usize * frame.height as usize;
        let mut shown = 0;
        for (place, object) in frame.result.objects.iter().enumerate() {
            let Some(rank) = object.rank else { continue };
            let Some(logits) = visible(object, frame, threshold) else {
                continue;
            };
            let winners = winners
                .entry(rank.group)
                .or_insert_with(|| vec![(0, 0.0); pixels]);
            let mut any = false;
            for (winner, logit) in winners.iter_mut().zip(logits.values()) {
                let inside = *logit > threshold;
                any |= inside;
                if inside && rank.share > winner.1 {
                    *winner = (place as u16 + 1, rank.share);
                }
            }
            shown += usize::from(any);
        }
        if shown < 2 {
            winners.clear();
        }
        Self { winners }
    }

    fn apply(&self, place: usize, object: &ObjectMask, mask: &mut Mask) {
        let Some(winners) = object.rank.and_then(|rank| self.winners.get(&rank.group)) else {
            return;
        };
        for (inside, winner) in mask.pixels_mut().iter_mut().zip(winners) {
            *inside &= usize::from(winner.0) == place + 1;
        }
    }
}

fn track_of(judged: &JudgedProposal, (width, height): (u32, u32)) -> ProposalTrack {
    let Proposal {
        bbox,
        score,
        class,
        mask,
    } = &judged.proposal;
    ProposalTrack {
        bbox: *bbox,
        source: ProposalSource {
            score: *score,
            class: *class,
            class_name: judged.class_name.clone(),
        },
        rle: Rle::of(&mask.in_frame(width, height)),
        area: mask.mask.area(),
        covered: judged.covered,
        object: judged.object,
    }
}

/// `low_res_masks` f32 `[objects,h,w]`, `object_score` f32 `[objects]`, `object_ids` i64 `[objects]`.
fn logits_file(result: &FrameResult) -> Result<Vec<u8>, SafeTensorError> {
    let objects = result.objects.len();
    let side = result.low_size;
    let mut masks = Vec::with_capacity(objects * side * side * 4);
    let mut scores = Vec::with_capacity(objects * 4);
    let mut ids = Vec::with_capacity(objects * 8);
    for object in &result.objects {
        let logits = object.low_res.values().iter();
        masks.extend(logits.flat_map(|logit| logit.to_le_bytes()));
        scores.extend(object.score.to_le_bytes());
        ids.extend(i64::from(object.object).to_le_bytes());
    }
    let tensors = [
        (
            "low_res_masks",
            TensorView::new(Dtype::F32, vec![objects, side, side], &masks)?,
        ),
        (
            "object_score",
            TensorView::new(Dtype::F32, vec![objects], &scores)?,
        ),
        (
            "object_ids",
            TensorView::new(Dtype::I64, vec![objects], &ids)?,
        ),
    ];
    safetensors::serialize(tensors, None)
}
