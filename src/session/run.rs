//! Running an opened session: frames in, results out, and the report of the run.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;

use super::discovery::Discovery;
use super::model::Model;
use super::notes::{Note, NoteCode};
use super::open::Session;
use super::outputs::{Outputs, Placed};
use super::pipeline::{self, DetectorImages, Job, Outcome};
use super::report::{
    self, ArenaReport, CopiesReport, DetectorReport, FoundReport, InputReport, ModelReport,
    PromptReport, REPORT_VERSION, RunReport, RuntimeReport, StageReport, Status, TextReport,
    Timings,
};
use super::writer::{Writer, WriterOptions, WriterStats};
use super::{Observer, SessionError, Stop, chain};
use crate::detector::DetectorTimes;
use crate::media::SourceKind;
use crate::output::StagedDir;
use crate::runtime::{ArenaStats, Copies, Provider};
use crate::text_tracking::TextTracker;
use crate::tracker::{Prompt, StageTimes};
use crate::words::counted;

/// A run that came to its end, or was stopped.
#[derive(Debug)]
pub struct Finished {
    /// The report, as run.json has it.
    pub report: RunReport,
    /// Where the results are; `None` for a run that writes nothing.
    pub placed: Option<Placed>,
    /// Why there are no scores although there is ground truth.
    pub unscored: Option<String>,
}

/// What tracking took, and what it found.
struct Measured {
    texts: Vec<TextReport>,
    detector: Option<(DetectorReport, DetectorTimes)>,
    times: StageTimes,
    tracking_s: f64,
    arena: Option<ArenaStats>,
    copies: Copies,
}

/// What the report needs of the session once its parts are in the pipeline.
struct Context {
    config: super::Config,
    info: crate::media::SourceInfo,
    model: ModelReport,
    memory_selection: Option<f64>,
    prompts: Vec<PromptReport>,
    library: super::open::LibraryFacts,
    start: Instant,
    load_s: f64,
    predicted: Option<u64>,
}

impl Session {
    /// Decodes, tracks and writes until the clip ends, something fails, or `stop` is requested.
    ///
    /// A run that ended early keeps its complete frames, but does not replace an earlier run: it is put into a separate folder.
    ///
    /// # Errors
    /// [`SessionError::Failed`] if frames are kept, or what made the run end without any.
    pub fn run(self, stop: &Stop, observer: &mut dyn Observer) -> Result<Finished, SessionError> {
        let frames = self.frames();
        let Self {
            config,
            start,
            load_s,
            source,
            info,
            bundle,
            detector_bundle,
            prompts,
            discovery,
            scorer,
            notes: _,
            plan,
            outputs,
            overlay,
            mut model,
            library,
        } = self;
        let manifest = bundle.manifest();
        let writer = match &outputs {
            Some(outputs) => Some(Writer::create(WriterOptions {
                dir: outputs.run.path(),
                logits: outputs.logits.as_ref().map(StagedDir::path),
                overlay,
                sheet: outputs.sheet.as_ref().map(|file| file.path().to_path_buf()),
                scorer,
                threshold: manifest.masks.threshold as f32,
            })?),
            None => None,
        };
        let context = Context {
            model: ModelReport::of(&bundle),
            memory_selection: manifest.policy.memory_selection,
            prompts: reports_of(&prompts),
            info,
            library,
            start,
            load_s,
            predicted: plan.map(|plan| plan.total_bytes),
            config,
        };
        let tracking = Instant::now();
        observer.begin(frames);
        let outcome = pipeline::run(
            Job {
                source,
                resolution: manifest.resolution,
                detector: detector_bundle.as_ref().map(|bundle| DetectorImages {
                    resolution: bundle.manifest().resolution,
                    every: context.config.detect_every(),
                }),
                max_frames: context.config.max_frames.map(Into::into),
                keep_rgb: outputs
                    .as_ref()
                    .is_some_and(|outputs| outputs.overlay.is_some() || outputs.sheet.is_some()),
                prompts,
                discovery,
                writer,
                stop: stop.clone(),
                observer: &mut *observer,
            },
            model.step(),
        );
        let tracking_s = tracking.elapsed().as_secs_f64();
        observer.end();
        let detector_model = detector_bundle.as_ref().map(ModelReport::of);
        let objects = outcome
            .written
            .as_ref()
            .map_or(&[][..], |stats| stats.objects.as_slice());
        let tracker = model.tracker();
        let measured = Measured {
            texts: texts_of(&context.config, &model, objects),
            detector: match &model {
                Model::TextTracker(tracker) => Some(detector_of(
                    context.config.detect_every(),
                    detector_model,
                    tracker,
                )),
                Model::Tracker(_) => None,
            },
            times: tracker.times(),
            tracking_s,
            arena: model.arena_stats()?,
            copies: tracker.copies(),
        };
        for note in notes_of(&context, &outcome) {
            observer.note(&note);
        }
        context.conclude(outcome, outputs, &measured)
    }
}

/// What the user should know after the run.
fn notes_of(context: &Context, outcome: &Outcome) -> Vec<Note> {
    let mut notes = Vec::new();
    let damage = &outcome.decode.damage;
    if damage.packets > 0 || damage.frames > 0 {
        let first = damage.first_error.as_deref().unwrap_or("no details");
        notes.push(Note::new(
            NoteCode::DamagedInput,
            format!(
                "{} is damaged: {}, {} ({first})",
                context.config.input.display(),
                counted(damage.packets, "damaged packet"),
                counted(damage.frames, "damaged frame")
            ),
        ));
    }
    notes.extend(outcome.discovery.iter().flat_map(Discovery::notes));
    notes
}

pub(crate) fn reports_of(prompts: &BTreeMap<usize, Vec<Prompt>>) -> Vec<PromptReport> {
    prompts.values().flatten().map(PromptReport::of).collect()
}

/// The objects of each text, with the scores at which they were detected.
fn texts_of(config: &super::Config, model: &Model, objects: &[u32]) -> Vec<TextReport> {
    let (super::config::Objects::Texts(texts), Model::TextTracker(tracker)) =
        (&config.objects, model)
    else {
        return Vec::new();
    };
    let mut reports: Vec<TextReport> = texts
        .texts
        .iter()
        .map(|text| TextReport {
            text: text.clone(),
            objects: Vec::new(),
        })
        .collect();
    let mut objects = objects.to_vec();
    objects.sort_unstable();
    for object in objects {
        let (text, score) = tracker.origin(object);
        if let Some(report) = reports.get_mut(text) {
            report.objects.push(FoundReport { object, score });
        }
    }
    reports
}

/// What the detector did.
fn detector_of(
    every: usize,
    model: Option<ModelReport>,
    tracker: &TextTracker,
) -> (DetectorReport, DetectorTimes) {
    let report = DetectorReport {
        every: every as u64,
        looks: tracker.detection_frames() as u64,
        most_objects: tracker.max_objects() as u64,
        dropped_after: tracker.last_detection().map(|frame| frame as u64),
        model,
    };
    (report, tracker.detector_times())
}

impl Context {
    /// Puts the results in place, or says why there are none.
    fn conclude(
        &self,
        outcome: Outcome,
        outputs: Option<Outputs>,
        measured: &Measured,
    ) -> Result<Finished, SessionError> {
        // A disk that is full or gone: a part is of no use, and there may be no room for it.
        let stats = match &outcome.written {
            Ok(stats) => stats.clone(),
            Err(error) => {
                let message = chain(error);
                let message = match &outputs {
                    Some(outputs) => outputs.in_final_names(&message),
                    None => message,
                };
                return Err(SessionError::NothingKept { message });
            }
        };
        if let Some(prompt) = outcome.unused.first() {
            return Err(SessionError::PromptNotReached {
                object: prompt.object,
                frame: prompt.frame,
                input: self.config.input.clone(),
                frames: stats.frames,
            });
        }
        let status = match (&outcome.error, outcome.interrupted) {
            (Some(_), _) => Status::Failed,
            (None, true) => Status::Interrupted,
            (None, false) => Status::Done,
        };
        if stats.frames == 0 {
            return Err(outcome.error.unwrap_or(SessionError::NoFrames));
        }
        let mut report = self.compose(&outcome, &stats, status, measured);
        let placed = match outputs {
            Some(outputs) => Some(place(outputs, status, &mut report)?),
            None => None,
        };
        match (outcome.error, &placed) {
            (Some(error), Some(placed)) => Err(SessionError::Failed {
                frames: stats.frames,
                kept_in: placed.run.clone(),
                source: Box::new(error),
            }),
            (Some(error), None) => Err(error),
            (None, _) => Ok(Finished {
                report,
                placed,
                unscored: stats.unscored,
            }),
        }
    }

    fn compose(
        &self,
        outcome: &Outcome,
        stats: &WriterStats,
        status: Status,
        measured: &Measured,
    ) -> RunReport {
        let proposals = outcome.discovery.as_ref().map(Discovery::report);
        let mut prompts = self.prompts.clone();
        let proposed = proposals
            .iter()
            .flat_map(|(_, found)| found.iter().cloned());
        prompts.extend(proposed);
        let proposals = proposals.map(|(report, _)| report);
        let before = outcome.discovery.as_ref().and_then(Discovery::peak);
        let (held_before, used_before) = before.unwrap_or_default();
        let stages = stages_of(outcome, stats, measured, proposals.as_ref());
        let on_gpu = self.config.engine.provider == Provider::Cuda;
        RunReport {
            schema_version: REPORT_VERSION,
            status,
            error: outcome.error.as_ref().map(|error| chain(error)),
            input: self.input(outcome),
            frames: stats.frames,
            sizes: stats.sizes.clone(),
            texts: measured.texts.clone(),
            detector: measured.detector.as_ref().map(|(report, _)| report.clone()),
            objects: stats.objects.clone(),
            prompts,
            proposals,
            model: self.model.clone(),
            runtime: RuntimeReport {
                snow_ort: env!("CARGO_PKG_VERSION").to_owned(),
                onnxruntime: self.library.version.clone(),
                library: self.library.path.clone(),
                provider: self.config.engine.provider.to_string(),
                threads: self.config.engine.threads.map(Into::into),
                chunk: self.library.chunk,
                memory_selection: self.memory_selection,
            },
            timings: Timings {
                total_s: self.start.elapsed().as_secs_f64(),
                load_s: self.load_s,
                tracking_s: measured.tracking_s,
                stages,
            },
            fps: stats.frames as f64 / measured.tracking_s.max(1e-9),
            peak_memory_bytes: report::peak_memory_bytes(),
            arena: measured.arena.map(|arena| ArenaReport {
                peak_bytes: arena.peak_held.max(held_before),
                in_use_bytes: arena.peak_in_use.max(used_before),
                limit_bytes: self.config.mem_limit,
                predicted_bytes: self.predicted,
            }),
            device_memory_bytes: on_gpu.then(report::device_memory_bytes).flatten(),
            copies: on_gpu.then_some(CopiesReport {
                to_device_bytes: measured.copies.to_device,
                to_host_bytes: measured.copies.to_host,
            }),
            overlay: None,
            logits: None,
            contact_sheet: None,
            scores: stats.scores.clone(),
        }
    }

    fn input(&self, outcome: &Outcome) -> InputReport {
        let damage = &outcome.decode.damage;
        InputReport {
            path: self.config.input.display().to_string(),
            kind: match self.info.kind {
                SourceKind::Video => "video",
                SourceKind::Images => "images",
            }
            .to_owned(),
            frame_rate: self.info.frame_rate,
            frames_hint: self.info.frames_hint,
            damaged_packets: damage.packets,
            damaged_frames: damage.frames,
            first_damage: damage.first_error.clone(),
        }
    }
}

/// Seconds of all stages, in the order in which a frame passes them.
fn stages_of(
    outcome: &Outcome,
    stats: &WriterStats,
    measured: &Measured,
    proposals: Option<&report::ProposalsReport>,
) -> Vec<StageReport> {
    let stage = |name, seconds| StageReport::new(name, seconds, stats.frames);
    let times = &measured.times;
    let mut stages = vec![
        stage("decode", outcome.decode.decode_s),
        stage("resize", outcome.decode.resize_s),
    ];
    stages.extend(proposals.map(|report| stage("proposals", report.load_s + report.look_s)));
    stages.push(stage("vision_encoder", times.vision_encoder_s));
    if let Some((report, detector)) = &measured.detector {
        stages.push(stage("text_encoder", detector.text_encoder_s));
        if report.model.is_some() {
            stages.push(stage("detector_vision_encoder", detector.backbone_s));
        }
        stages.push(stage("detector_features", detector.features_s));
        stages.push(stage("detector", detector.detect_s));
        stages.push(stage("detector_masks", detector.masks_s));
    }
    stages.extend([
        stage("memory_attention", times.memory_attention_s),
        stage("mask_decoder", times.mask_decoder_s),
        stage("memory_encoder", times.memory_encoder_s),
        stage("upsample", stats.upsample_s),
        stage("write", stats.write_s),
        stage("overlay", stats.overlay_s),
        stage("logits", stats.logits_s),
        stage("score", stats.score_s),
        stage("contact_sheet", stats.sheet_s),
    ]);
    stages
}

/// Writes run.json and moves everything to its final name.
fn place(outputs: Outputs, status: Status, report: &mut RunReport) -> Result<Placed, SessionError> {
    let targets = outputs.targets(status);
    let shown = |path: Option<PathBuf>| path.map(|path| path.display().to_string());
    report.overlay = shown(targets.overlay);
    report.logits = shown(targets.logits);
    report.contact_sheet = shown(targets.contact_sheet);
    report::write_run(&outputs.run.path().join("run.json"), report).map_err(|error| {
        SessionError::NothingKept {
            message: format!(
                "cannot write {}: {error}",
                outputs.run.dir().join("run.json").display()
            ),
        }
    })?;
    outputs
        .place(status)
        .map_err(|source| SessionError::Place { source })
}
