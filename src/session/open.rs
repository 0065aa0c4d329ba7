//! Opening a run: checks, the memory plan, the output folders, and the loaded graphs.

use std::collections::BTreeMap;
use std::time::Instant;

use super::SessionError;
use super::config::{Config, Objects, TextConfig};
use super::discovery::Discovery;
use super::model::Model;
use super::notes::{Note, NoteCode};
use super::outputs::Outputs;
use super::preflight::{self, Preflight};
use super::text_parameters::changed;
use crate::bundle::Bundle;
use crate::detector::{DetectorTimes, detector_spec};
use crate::media::overlay::OverlayWriter;
use crate::media::{FrameSource, SourceInfo, SourceKind};
use crate::memory::Plan;
use crate::memory::budget::{self, Decided, DetectedObjects, DetectorUse, Request};
use crate::output::Unfinished;
use crate::runtime::Engine;
use crate::scoring::scorer::Scorer;
use crate::size;
use crate::text_tracking::{TextTracker, TextTrackingOptions, parameters_of};
use crate::tracker::{Prompt, StageTimes, Tracker, TrackerOptions};
use crate::words::counted;

/// A run that is checked, planned and loaded.
///
/// One process has one ONNX Engine environment, so two sessions that are open at the same time share the library and the
/// number of threads.
pub struct Session {
    pub(crate) config: Config,
    pub(crate) start: Instant,
    pub(crate) load_s: f64,
    pub(crate) source: Box<dyn FrameSource>,
    pub(crate) info: SourceInfo,
    pub(crate) bundle: Bundle,
    pub(crate) detector_bundle: Option<Bundle>,
    pub(crate) prompts: BTreeMap<usize, Vec<Prompt>>,
    pub(crate) discovery: Option<Discovery>,
    pub(crate) scorer: Option<Scorer>,
    pub(crate) notes: Vec<Note>,
    pub(crate) plan: Option<Plan>,
    pub(super) outputs: Option<Outputs>,
    pub(crate) overlay: Option<OverlayWriter>,
    pub(crate) model: Model,
    pub(crate) library: LibraryFacts,
}

/// The loaded library and the chunk, for the report.
#[derive(Debug, Clone)]
pub(crate) struct LibraryFacts {
    /// Version of ONNX Engine.
    pub version: String,
    /// The library's file.
    pub path: String,
    /// Where graphs run, such as `cuda:0`.
    pub device: String,
    /// Threads of one operator.
    pub threads: usize,
    /// Objects in one run of a graph.
    pub chunk: usize,
}

/// Checks a run, plans its memory and loads its graphs.
///
/// # Errors
/// Everything that would end the run later and can be known now; see [`SessionError`].
pub fn open(config: Config) -> Result<Session, SessionError> {
    open_with(config, &Unfinished::default())
}

/// As [`open`]. Output folders that are not complete yet are registered in `unfinished`, so that a program that is ended
/// from outside can remove them.
///
/// # Errors
/// As [`open`].
pub fn open_with(config: Config, unfinished: &Unfinished) -> Result<Session, SessionError> {
    let start = Instant::now();
    let Preflight {
        source,
        info,
        bundle,
        detector_bundle,
        prompts,
        proposals_digest,
        num_frames,
        scorer,
        mut notes,
    } = preflight::check(&config)?;
    let mut engine = Engine::load(&config.engine_options())?;
    let mut discovery = match (&config.objects, proposals_digest) {
        (Objects::Proposals(proposals), Some(digest)) => {
            Some(Discovery::begin(&config, proposals, digest, &bundle)?)
        }
        _ => None,
    };
    let prompts = prompts.into_frames();
    let loading = Loading {
        config: &config,
        bundle: &bundle,
        detector_bundle: detector_bundle.as_ref(),
        info: &info,
        num_frames,
    };
    let (decided, text_options) = match &config.objects {
        Objects::Texts(texts) => {
            let (decided, options, note) = loading.decide_texts(texts, &mut engine)?;
            notes.extend(note);
            (decided, Some(options))
        }
        _ => {
            let decided = loading.decide(&prompts, discovery.as_ref(), &mut engine)?;
            (decided, None)
        }
    };
    if let Some(discovery) = &mut discovery {
        discovery.keep_within(config.mem_limit, decided.plan.as_ref(), &mut engine);
    }
    let outputs = match &config.outputs {
        Some(outputs) => Some(Outputs::create(outputs, unfinished)?),
        None => None,
    };
    let overlay = outputs
        .as_ref()
        .and_then(|outputs| outputs.overlay.as_ref());
    let overlay = match overlay {
        Some(file) => Some(OverlayWriter::create(
            file.path(),
            info.width,
            info.height,
            info.frame_rate,
        )?),
        None => None,
    };
    let library = LibraryFacts {
        version: engine.version().to_owned(),
        path: engine.library().display().to_string(),
        device: engine.device_text(),
        threads: engine.threads(),
        chunk: decided.chunk,
    };
    let mut model = loading.load(text_options, decided, engine)?;
    if let Some(plan) = &decided.plan {
        model.reserve(plan.total_bytes)?;
    }
    Ok(Session {
        load_s: start.elapsed().as_secs_f64(),
        config,
        start,
        source,
        info,
        bundle,
        detector_bundle,
        prompts,
        discovery,
        scorer,
        notes,
        plan: decided.plan,
        outputs,
        overlay,
        model,
        library,
    })
}

/// What planning and loading need to know of a run.
struct Loading<'a> {
    config: &'a Config,
    bundle: &'a Bundle,
    detector_bundle: Option<&'a Bundle>,
    info: &'a SourceInfo,
    num_frames: usize,
}

impl Loading<'_> {
    fn request<'a>(&'a self, engine: &Engine) -> Request<'a> {
        Request {
            bundle: self.bundle,
            groups: Vec::new(),
            chunk: self.config.chunk.map(usize::from),
            limit: self.config.mem_limit,
            provider: engine.provider(),
            proposals: None,
            detector: None,
        }
    }

    /// The chunk and the plan of objects with prompts and of proposed ones.
    fn decide(
        &self,
        prompts: &BTreeMap<usize, Vec<Prompt>>,
        discovery: Option<&Discovery>,
        engine: &mut Engine,
    ) -> Result<Decided, SessionError> {
        let proposed = discovery.map(Discovery::proposed).unwrap_or_default();
        let mut groups = budget::prompted(self.bundle, prompts, self.num_frames)?;
        groups.extend(proposed.groups(self.bundle, self.num_frames)?);
        let request = Request {
            groups,
            proposals: proposed.cost,
            ..self.request(engine)
        };
        Ok(budget::decide(&request, engine)?)
    }

    /// The chunk, the plan and the options of text tracking; and a note where fewer objects fit than may be detected.
    fn decide_texts(
        &self,
        texts: &TextConfig,
        engine: &mut Engine,
    ) -> Result<(Decided, TextTrackingOptions, Option<Note>), SessionError> {
        let max_frames = self.max_frames();
        let detector_bundle = self.detector_bundle.unwrap_or(self.bundle);
        let parameters = changed(
            &detector_spec(detector_bundle)?.text_tracking,
            &texts.parameters,
        )?;
        let options = TextTrackingOptions {
            parameters: parameters_of(&parameters),
            fill_hole_area: parameters.fill_hole_area as usize,
            detect_every: texts.detect_every.get(),
            max_frames,
            tracker: TrackerOptions::default(),
        };
        let hint = self.info.frames_hint.map(|count| count as usize);
        let frames = self.config.num_frames.or(max_frames).or(hint);
        let detected = DetectedObjects {
            max_objects: options.parameters.max_objects,
            set_by_user: texts.parameters.iter().any(|p| p.name == "max_objects"),
            recondition_every: options.parameters.recondition_every,
            frames,
        };
        let request = Request {
            detector: Some(DetectorUse::with(
                self.bundle,
                self.detector_bundle,
                texts.texts.len(),
            )),
            ..self.request(engine)
        };
        let limit = request.limit;
        let texts = budget::decide_texts(request, detected, engine)?;
        let note = limit.filter(|_| texts.reduced).map(|limit| {
            Note::new(
                NoteCode::ObjectsOverLimit,
                format!(
                    "the memory limit of {} holds {} at once; objects beyond that are not tracked",
                    size::show(limit),
                    counted(texts.max_objects as u64, "object")
                ),
            )
        });
        let tracker = TrackerOptions {
            num_frames: self.num_frames,
            chunk: texts.decided.chunk,
        };
        let options = options.with(tracker, texts.max_objects);
        Ok((texts.decided, options, note))
    }

    /// The most frames that can come, if that is certain.
    fn max_frames(&self) -> Option<usize> {
        if self.config.num_frames.is_some() {
            return None;
        }
        let pointers = self.bundle.manifest().policy.max_object_pointers as usize;
        // A count that ended before it had to is the length of the whole clip.
        let counted = (self.num_frames < pointers).then_some(self.num_frames);
        let images = self.info.frames_hint;
        let images = images.filter(|_| self.info.kind == SourceKind::Images);
        let bounds = [
            self.config.max_frames.map(usize::from),
            counted,
            images.map(|count| count as usize),
        ];
        bounds.into_iter().flatten().min()
    }

    /// Loads the graphs.
    fn load(
        &self,
        text_options: Option<TextTrackingOptions>,
        decided: Decided,
        engine: Engine,
    ) -> Result<Model, SessionError> {
        if let (Some(options), Objects::Texts(texts)) = (text_options, &self.config.objects) {
            let texts: Vec<&str> = texts.texts.iter().map(String::as_str).collect();
            let tracker =
                TextTracker::new(self.bundle, self.detector_bundle, engine, &texts, options)?;
            return Ok(Model::TextTracker(Box::new(tracker)));
        }
        let options = TrackerOptions {
            num_frames: self.num_frames,
            chunk: decided.chunk,
        };
        let tracker = Tracker::new(self.bundle, engine, options)?;
        Ok(Model::Tracker(Box::new(tracker)))
    }
}

impl Session {
    /// What the user should know before the run.
    pub fn notes(&self) -> &[Note] {
        &self.notes
    }

    /// Width and height of the first frame in pixels.
    pub fn frame_size(&self) -> (u32, u32) {
        (self.info.width, self.info.height)
    }

    /// The number of frames, if it is known.
    pub fn frames(&self) -> Option<u64> {
        let max_frames = self.config.max_frames.map(|max| max.get() as u64);
        match (self.info.frames_hint, max_frames) {
            (Some(hint), Some(max)) => Some(hint.min(max)),
            (hint, _) => hint,
        }
    }
}

/// Seconds of the stages so far.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StepTimes {
    /// The tracker's.
    pub tracker: StageTimes,
    /// The detector's; zeros without texts.
    pub detector: DetectorTimes,
    /// Loading and running the graph of proposals.
    pub proposals_s: f64,
}

impl Session {
    /// Seconds of the stages so far.
    pub(crate) fn step_times(&self) -> StepTimes {
        StepTimes {
            tracker: self.model.tracker().times(),
            detector: match &self.model {
                Model::Tracker(_) => DetectorTimes::default(),
                Model::TextTracker(tracker) => tracker.detector_times(),
            },
            proposals_s: self.discovery.as_ref().map_or(0.0, Discovery::seconds),
        }
    }

    /// Seconds of what was done once before the first frame, by the name of its graph.
    pub(crate) fn once(&self) -> BTreeMap<String, f64> {
        let times = self.step_times();
        let once = match (&self.model, &self.discovery) {
            (Model::TextTracker(_), _) => Some(("text_encoder", times.detector.text_encoder_s)),
            (Model::Tracker(_), Some(_)) => Some(("proposals", times.proposals_s)),
            (Model::Tracker(_), None) => None,
        };
        let once = once.into_iter();
        once.map(|(name, seconds)| (name.to_owned(), seconds))
            .collect()
    }
}
