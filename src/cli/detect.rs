//! `snow-ort detect`: objects in images, from text and example boxes.

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use safetensors::Dtype;
use safetensors::tensor::TensorView;

use super::args::DetectArgs;
use super::progress::Progress;
use super::signals::Interrupt;
use super::texts::distinct;
use super::{complain, counted, models, say};
use crate::bundle::Bundle;
use crate::coco::{CocoAnnotation, CocoCategory, CocoFile, CocoImage, CocoInfo};
use crate::detector::{Backbone, Candidates, Detector, Exemplar, described, encode_texts};
use crate::media::images;
use crate::media::index_png::write_index_png;
use crate::media::mask::{BinaryMask, binarise, rle_counts, sigmoid, upsample_logits};
use crate::media::resize::resize_frame;
use crate::media::{Frame, overlay};
use crate::output::{Content, StagedDir, Unfinished};
use crate::prompts::parse_exemplar;
use crate::runtime::{Backend as _, Runtime, Tensor};
use crate::session::report::Rle;
use crate::size;

/// A mask's share of the object from which a pixel belongs to it, as `post_process_instance_segmentation` of the
/// reference has it.
const MASK_SHARE: f32 = 0.5;

/// Runs the command.
pub(super) fn run(args: &DetectArgs) -> Result<()> {
    let start = Instant::now();
    let unfinished = Unfinished::default();
    // Nothing is kept of a run that is ended early.
    let _interrupt = Interrupt::install(&unfinished)?;
    let inputs = inputs(args)?;
    let boxes = args
        .boxes
        .iter()
        .map(|text| {
            parse_exemplar(text).map_err(|reason| anyhow::anyhow!("--box {text}: {reason}"))
        })
        .collect::<Result<Vec<_>>>()?;
    if !boxes.is_empty() && inputs.len() > 1 {
        bail!(
            "--box stands in one image, but there are {}; give one image",
            inputs.len()
        );
    }
    if args.texts.is_empty() && boxes.is_empty() {
        bail!("nothing to find: give --text WORDS, or an example with --box");
    }
    let dir = models::choose(args.model.as_deref(), args.res, args.models.as_deref())?;
    let bundle = Bundle::open(&dir)?;
    let manifest = bundle.manifest();
    let described = described(&bundle)?;
    let mut texts = distinct(&args.texts);
    if texts.is_empty() {
        texts.push(&described.boxes_only_text);
    }
    let threshold = args
        .threshold
        .unwrap_or(described.follow.score_threshold as f32);
    if manifest.source.random_weights {
        complain(&format!(
            "warning: the weights of {} are random: what is found means nothing",
            dir.display()
        ));
    }

    let runtime = Rc::new(Runtime::load(&args.runtime.options(args.mem_limit))?);
    let out = StagedDir::create(&args.out, Content::Detections, args.overwrite, &unfinished)?;
    let logits = match &args.dump_logits {
        Some(dir) => Some(StagedDir::create(
            dir,
            Content::Logits,
            args.overwrite,
            &unfinished,
        )?),
        None => None,
    };
    let encoded = encode_texts(&bundle, runtime.as_ref(), &texts)?;
    let mut job = Job {
        resolution: manifest.resolution,
        threshold,
        texts: &encoded,
        boxes: &boxes,
        backbone: Backbone::load(&bundle, runtime.as_ref())?,
        detector: Detector::load(&bundle, runtime.clone(), !boxes.is_empty())?,
        runtime: &runtime,
        out: out.path(),
        logits: logits.as_ref().map(StagedDir::path),
        annotations: Vec::new(),
        images: Vec::new(),
    };
    for folder in ["masks", "overlays"] {
        let path = job.out.join(folder);
        std::fs::create_dir(&path)
            .with_context(|| format!("cannot create the folder {}", path.display()))?;
    }
    let load_s = start.elapsed().as_secs_f64();
    let mut progress = Progress::start(Some(inputs.len() as u64), args.quiet);
    for path in &inputs {
        job.image(path)
            .with_context(|| format!("nothing was kept: {}", path.display()))?;
        progress.frame();
    }
    progress.finish();

    let Job {
        images,
        annotations,
        ..
    } = job;
    let file = CocoFile {
        info: CocoInfo {
            description: format!("snow-ort {}", env!("CARGO_PKG_VERSION")),
            model: dir.display().to_string(),
            manifest_sha256: bundle.manifest_sha256().to_owned(),
            threshold,
        },
        images,
        categories: (1..)
            .zip(texts)
            .map(|(id, name)| CocoCategory {
                id,
                name: name.to_owned(),
            })
            .collect(),
        annotations,
    };
    let path = out.path().join("detections.json");
    let text = serde_json::to_string(&file)?;
    std::fs::write(&path, text + "\n")
        .with_context(|| format!("cannot write {}", path.display()))?;
    let logits = logits.map(StagedDir::commit).transpose()?;
    let placed = out.commit().context("cannot put the results in place")?;
    if !args.quiet {
        summarise(&file, &placed, logits.as_deref(), load_s, start, &runtime)?;
    }
    Ok(())
}

fn inputs(args: &DetectArgs) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for input in &args.inputs {
        if !input.exists() {
            bail!("{}: no such file or folder", input.display());
        }
        found.append(&mut images::list(input)?);
    }
    Ok(found)
}

/// What all images share.
struct Job<'a> {
    resolution: u32,
    threshold: f32,
    texts: &'a [Tensor],
    /// Corners in pixels, and whether the content is meant.
    boxes: &'a [([f32; 4], bool)],
    backbone: Backbone,
    detector: Detector,
    runtime: &'a Runtime,
    out: PathBuf,
    logits: Option<PathBuf>,
    images: Vec<CocoImage>,
    annotations: Vec<CocoAnnotation>,
}

/// An object before it has a number.
struct Found {
    text: usize,
    score: f32,
    corners: [f32; 4],
    mask: BinaryMask,
}

impl Job<'_> {
    fn image(&mut self, path: &Path) -> Result<()> {
        let number = self.images.len() as u64;
        let rgb = images::decode(path)?;
        let (width, height) = rgb.dimensions();
        let frame = Frame {
            index: number as usize,
            width,
            height,
            rgb: rgb.into_raw(),
            pts_s: None,
        };
        let exemplars = self.exemplars(width, height)?;
        let image = resize_frame(&frame, self.resolution)?;
        let tokens = self.backbone.encode(self.runtime, image)?;
        let levels = self.detector.features(&tokens)?;
        let mut found = Vec::new();
        for (text, encoded) in self.texts.iter().enumerate() {
            let candidates = self.detector.search(&levels, encoded, &exemplars)?;
            let rows = candidates.above(self.threshold);
            let masks = self.detector.masks(&levels, &candidates, &rows)?;
            if let Some(dir) = &self.logits {
                let file = number as usize * self.texts.len() + text;
                let bytes = raw(&candidates, &rows, &masks, self.detector.mask_side())?;
                let path = dir.join(format!("{file:05}.safetensors"));
                std::fs::write(&path, bytes)
                    .with_context(|| format!("cannot write {}", path.display()))?;
            }
            for (row, logits) in rows.into_iter().zip(masks) {
                // The reference makes shares of logits before it scales them.
                let shares: Vec<f32> = logits.iter().map(|&logit| sigmoid(logit)).collect();
                let side = self.detector.mask_side();
                let scaled = upsample_logits(&shares, side, width, height);
                found.push(Found {
                    text,
                    score: candidates.scores[row],
                    corners: candidates.boxes[row],
                    mask: binarise(&scaled, width, height, MASK_SHARE),
                });
            }
        }
        found.sort_by(|a, b| b.score.total_cmp(&a.score));
        self.write(number, frame, &found)?;
        self.note(number, path, (width, height), found);
        Ok(())
    }

    fn exemplars(&self, width: u32, height: u32) -> Result<Vec<Exemplar>> {
        let (wide, high) = (width as f32, height as f32);
        let mut exemplars = Vec::with_capacity(self.boxes.len());
        for &([x1, y1, x2, y2], positive) in self.boxes {
            if x1 < 0.0 || y1 < 0.0 || x2 > wide || y2 > high {
                bail!("box {x1},{y1},{x2},{y2} leaves the image, which is {width}x{height} pixels");
            }
            exemplars.push(Exemplar {
                corners: [x1 / wide, y1 / high, x2 / wide, y2 / high],
                positive,
            });
        }
        Ok(exemplars)
    }

    fn write(&self, number: u64, frame: Frame, found: &[Found]) -> Result<()> {
        let (width, height) = (frame.width, frame.height);
        let mut ids = vec![0u16; width as usize * height as usize];
        // The best last, so that it lies in front.
        for (index, object) in found.iter().enumerate().rev() {
            let id = u16::try_from(index + 1).unwrap_or(u16::MAX);
            for (place, inside) in ids.iter_mut().zip(&object.mask.data) {
                if *inside != 0 {
                    *place = id;
                }
            }
        }
        let name = format!("{number:05}.png");
        write_index_png(&self.out.join("masks").join(&name), width, height, &ids)?;
        let mut rgb = frame.rgb;
        overlay::draw(&mut rgb, width, height, &ids);
        let path = self.out.join("overlays").join(&name);
        image::save_buffer(&path, &rgb, width, height, image::ColorType::Rgb8)
            .with_context(|| format!("cannot write {}", path.display()))
    }

    fn note(&mut self, number: u64, path: &Path, (width, height): (u32, u32), found: Vec<Found>) {
        self.images.push(CocoImage {
            id: number,
            file_name: path.display().to_string(),
            width,
            height,
        });
        for (index, object) in found.into_iter().enumerate() {
            let [left, top, right, bottom] = object.corners;
            let (wide, high) = (width as f32, height as f32);
            self.annotations.push(CocoAnnotation {
                id: self.annotations.len() as u64 + 1,
                image_id: number,
                category_id: object.text as u64 + 1,
                mask_index: index as u32 + 1,
                bbox: [
                    left * wide,
                    top * high,
                    (right - left) * wide,
                    (bottom - top) * high,
                ],
                area: object
                    .mask
                    .data
                    .iter()
                    .map(|&inside| u64::from(inside))
                    .sum(),
                segmentation: Rle {
                    size: [height, width],
                    counts: rle_counts(&object.mask),
                },
                score: object.score,
                iscrowd: 0,
            });
        }
    }
}

/// Everything that was computed for an image and a text: `scores` f32 `[queries]`, `boxes` f32 `[queries, 4]`, `rows`
/// i64 `[found]`, and `mask_logits` f32 `[found, side, side]`.
fn raw(
    candidates: &Candidates,
    rows: &[usize],
    masks: &[Vec<f32>],
    side: usize,
) -> Result<Vec<u8>> {
    let bytes = |values: &mut dyn Iterator<Item = f32>| -> Vec<u8> {
        values.flat_map(f32::to_le_bytes).collect()
    };
    let scores = bytes(&mut candidates.scores.iter().copied());
    let boxes = bytes(&mut candidates.boxes.iter().flatten().copied());
    let logits = bytes(&mut masks.iter().flatten().copied());
    let indices: Vec<u8> = rows
        .iter()
        .flat_map(|&row| (row as i64).to_le_bytes())
        .collect();
    let (queries, found) = (candidates.scores.len(), rows.len());
    let tensors = [
        ("scores", Dtype::F32, vec![queries], &scores),
        ("boxes", Dtype::F32, vec![queries, 4], &boxes),
        ("rows", Dtype::I64, vec![found], &indices),
        ("mask_logits", Dtype::F32, vec![found, side, side], &logits),
    ];
    let views = tensors
        .into_iter()
        .map(|(name, dtype, shape, data)| Ok((name, TensorView::new(dtype, shape, data)?)))
        .collect::<Result<Vec<_>>>()?;
    Ok(safetensors::serialize(views, None)?)
}

fn summarise(
    file: &CocoFile,
    placed: &Path,
    logits: Option<&Path>,
    load_s: f64,
    start: Instant,
    runtime: &Runtime,
) -> Result<()> {
    let images = file.images.len() as u64;
    let seconds = start.elapsed().as_secs_f64() - load_s;
    let mut memory = String::new();
    if let Some(stats) = runtime.arena_stats()? {
        memory = format!(", arena {}", size::show(stats.peak_held));
    }
    say(&format!(
        "done: {}, {}, {:.2} s an image after {load_s:.2} s{memory}",
        counted(images, "image"),
        counted(file.annotations.len() as u64, "object"),
        seconds / images.max(1) as f64,
    ));
    for category in &file.categories {
        let of_it = |found: &&CocoAnnotation| found.category_id == category.id;
        let found: Vec<_> = file.annotations.iter().filter(of_it).collect();
        let best = found.iter().map(|found| found.score).fold(0.0, f32::max);
        let best = match found.is_empty() {
            true => String::new(),
            false => format!(", the best {best:.2}"),
        };
        say(&format!(
            "{:?}: {}{best}",
            category.name,
            counted(found.len() as u64, "object")
        ));
    }
    say(&format!("results  {}", placed.display()));
    if let Some(logits) = logits {
        say(&format!("logits   {}", logits.display()));
    }
    Ok(())
}
