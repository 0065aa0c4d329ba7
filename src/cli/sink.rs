//! The last stage: low-resolution logits to masks at source size, and from there to files.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context as _, Result};
use safetensors::Dtype;
use safetensors::tensor::TensorView;

use super::discovery::Seen;
use super::score::{self, Scorer};
use crate::media::contact_sheet::{ContactSheet, SheetFrame};
use crate::media::index_png::write_index_png;
use crate::media::mask::{
    BinaryMask, binarise, bounding_box, rle_counts, sigmoid, upsample_logits,
};
use crate::media::overlay::{self, OverlayWriter};
use crate::proposals::Proposal;
use crate::session::report::{
    FrameTracks, ObjectTrack, ProposalSource, ProposalTrack, Rle, ScoresReport, SizeReport,
    TracksWriter,
};
use crate::tracker::{FrameResult, ObjectMask};

/// A frame with its result.
pub struct TrackedFrame {
    /// What the tracker found.
    pub result: FrameResult,
    /// Width of the source frame in pixels.
    pub width: u32,
    /// Height of the source frame in pixels.
    pub height: u32,
    /// The source frame, RGB, when an overlay or a contact sheet is made.
    pub rgb: Option<Vec<u8>>,
    /// Presentation time in seconds.
    pub pts_s: Option<f64>,
    /// What a graph proposed, on a frame that it looked at.
    pub proposals: Option<Vec<Seen>>,
}

/// Where results go. Everything that the user sees under a final name is staged by the caller.
pub struct SinkOptions {
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

/// Seconds per stage, and what was seen on the way.
#[derive(Debug, Clone, Default)]
pub struct SinkStats {
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
pub struct Sink {
    masks: PathBuf,
    tracks: TracksWriter,
    logits: Option<PathBuf>,
    overlay: Option<OverlayWriter>,
    sheet: Option<(PathBuf, ContactSheet)>,
    scorer: Option<Scorer>,
    threshold: f32,
    stats: SinkStats,
}

impl Sink {
    /// Creates `masks/` and `tracks.json`.
    ///
    /// # Errors
    ///
    /// They cannot be written.
    pub fn create(options: SinkOptions) -> Result<Self> {
        let masks = options.dir.join("masks");
        std::fs::create_dir(&masks)
            .with_context(|| format!("cannot create the folder {}", masks.display()))?;
        let tracks = options.dir.join("tracks.json");
        let tracks = TracksWriter::create(&tracks)
            .with_context(|| format!("cannot write {}", tracks.display()))?;
        Ok(Self {
            masks,
            tracks,
            logits: options.logits,
            overlay: options.overlay,
            sheet: options.sheet.map(|path| (path, ContactSheet::default())),
            scorer: options.scorer,
            threshold: options.threshold,
            stats: SinkStats::default(),
        })
    }

    /// Writes everything of one frame.
    ///
    /// # Errors
    ///
    /// Something cannot be written.
    pub fn write(&mut self, mut frame: TrackedFrame) -> Result<()> {
        let number = frame.result.frame;
        let size = (frame.width, frame.height);
        let proposals = frame.proposals.take();
        self.note(&frame);

        let start = Instant::now();
        let painted = paint(&frame, self.threshold);
        self.stats.upsample_s += start.elapsed().as_secs_f64();

        let start = Instant::now();
        let path = self.masks.join(format!("{number:05}.png"));
        write_index_png(&path, frame.width, frame.height, &painted.ids)
            .with_context(|| format!("cannot write frame {number}'s mask"))?;
        self.tracks
            .write(&FrameTracks {
                frame: number as u64,
                time_s: frame.pts_s,
                objects: painted.tracks,
                proposals: proposals
                    .map(|all| all.iter().map(|seen| track_of(seen, size)).collect()),
            })
            .with_context(|| format!("cannot write {}", self.tracks.path().display()))?;
        self.stats.write_s += start.elapsed().as_secs_f64();

        if let Some(dir) = &self.logits {
            let start = Instant::now();
            let path = dir.join(format!("{number:05}.safetensors"));
            let bytes = logits_file(&frame.result)
                .with_context(|| format!("cannot pack frame {number}'s logits"))?;
            std::fs::write(&path, bytes)
                .with_context(|| format!("cannot write {}", path.display()))?;
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
    pub fn finish(self) -> Result<SinkStats> {
        let path = self.tracks.path().to_path_buf();
        self.tracks
            .finish()
            .with_context(|| format!("cannot write {}", path.display()))?;
        let mut stats = self.stats;
        // A video of no frames is no video; it is dropped, and its file with it.
        if let Some(writer) = self.overlay.filter(|_| stats.frames > 0) {
            let start = Instant::now();
            writer.finish().context("cannot write the overlay")?;
            stats.overlay_s += start.elapsed().as_secs_f64();
        }
        if let Some((path, sheet)) = self.sheet {
            let start = Instant::now();
            sheet
                .write(&path)
                .context("cannot write the contact sheet")?;
            stats.sheet_s += start.elapsed().as_secs_f64();
        }
        if let Some(scorer) = self.scorer {
            let start = Instant::now();
            match scorer.report(&self.masks) {
                Ok(scores) => stats.scores = Some(scores),
                Err(error) => stats.unscored = Some(score::unscored(&error)),
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
            self.stats.unscored = Some(score::unscored(&error));
            self.scorer = None;
        }
        self.stats.score_s += start.elapsed().as_secs_f64();
    }

    fn show(&mut self, mut frame: SheetFrame, pts_s: Option<f64>) -> Result<()> {
        let start = Instant::now();
        if let Some(writer) = &mut self.overlay {
            if let Some(ids) = frame.ids.take() {
                overlay::draw(&mut frame.rgb, frame.width, frame.height, &ids);
            }
            writer
                .write(&frame.rgb, frame.width, frame.height, pts_s)
                .with_context(|| format!("cannot write frame {} of the overlay", frame.number))?;
            self.stats.overlay_s += start.elapsed().as_secs_f64();
        }
        let start = Instant::now();
        if let Some((_, sheet)) = &mut self.sheet {
            sheet
                .add(frame)
                .context("cannot add a frame to the contact sheet")?;
            self.stats.sheet_s += start.elapsed().as_secs_f64();
        }
        Ok(())
    }

    fn note(&mut self, frame: &TrackedFrame) {
        for object in &frame.result.objects {
            if !self.stats.objects.contains(&object.object) {
                self.stats.objects.push(object.object);
            }
        }
        let known = self.stats.sizes.last();
        if known.is_none_or(|s| (s.width, s.height) != (frame.width, frame.height)) {
            self.stats.sizes.push(SizeReport {
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
            Some(logits) => binarise(logits, width, height, threshold),
            None => BinaryMask {
                width,
                height,
                data: vec![0; pixels],
            },
        };
        // The reference shows what was found only where something of it is seen.
        if object.rank.is_some() && !mask.data.contains(&1) {
            continue;
        }
        claims.settle(place, object, &mut mask);
        if let Some(logits) = logits {
            for (index, inside) in mask.data.iter().enumerate() {
                if *inside != 0 && logits[index] > best[index] {
                    best[index] = logits[index];
                    painted.ids[index] = id;
                }
            }
        }
        painted.tracks.push(ObjectTrack {
            object: object.object,
            rle: Rle {
                size: [height, width],
                counts: rle_counts(&mask),
            },
            bbox: bounding_box(&mask),
            area: mask.data.iter().map(|inside| u64::from(*inside)).sum(),
            score_logit: object.score,
            score: sigmoid(object.score),
            iou: object.iou,
        });
    }
    painted
}

/// An object's logits at source size; `None` if nothing of it is visible.
fn visible(object: &ObjectMask, frame: &TrackedFrame, threshold: f32) -> Option<Vec<f32>> {
    // Interpolation stays between its neighbours, so these logits stay far below the threshold everywhere; an
    // object that is not visible is the usual case.
    let blank = object.low_res.iter().all(|logit| *logit < threshold - 1.0);
    let side = frame.result.low_size;
    (!blank).then(|| upsample_logits(&object.low_res, side, frame.width, frame.height))
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
            for (winner, logit) in winners.iter_mut().zip(&logits) {
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

    fn settle(&self, place: usize, object: &ObjectMask, mask: &mut BinaryMask) {
        let Some(winners) = object.rank.and_then(|rank| self.winners.get(&rank.group)) else {
            return;
        };
        for (inside, winner) in mask.data.iter_mut().zip(winners) {
            if usize::from(winner.0) != place + 1 {
                *inside = 0;
            }
        }
    }
}

fn track_of(seen: &Seen, (width, height): (u32, u32)) -> ProposalTrack {
    let Proposal {
        bbox,
        score,
        class,
        mask,
    } = &seen.proposal;
    ProposalTrack {
        bbox: *bbox,
        source: ProposalSource {
            score: *score,
            class: *class,
            class_name: seen.class_name.clone(),
        },
        rle: Rle {
            size: [height, width],
            counts: rle_counts(&mask.in_frame(width, height)),
        },
        area: mask.area(),
        covered: seen.covered,
        object: seen.object,
    }
}

/// `low_res_masks` f32 `[objects,h,w]`, `object_score` f32 `[objects]`, `object_ids` i64 `[objects]`.
fn logits_file(result: &FrameResult) -> Result<Vec<u8>> {
    let objects = result.objects.len();
    let side = result.low_size;
    let mut masks = Vec::with_capacity(objects * side * side * 4);
    let mut scores = Vec::with_capacity(objects * 4);
    let mut ids = Vec::with_capacity(objects * 8);
    for object in &result.objects {
        masks.extend(object.low_res.iter().flat_map(|logit| logit.to_le_bytes()));
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
    Ok(safetensors::serialize(tensors, None)?)
}
