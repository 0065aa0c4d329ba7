//! What a run leaves behind besides masks: `run.json` (the whole run) and `tracks.json` (every object on every frame).

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, BufWriter, Lines, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

mod found;
mod model;

pub use self::found::{DetectorReport, FoundReport, TextReport};
pub use self::model::ModelReport;
use crate::masks::Rle;
pub use crate::scoring::report::{
    FrameScore, MeanScores, OBJECTS_BY_ID, OBJECTS_BY_OVERLAP, ObjectScores, ScoresReport,
};
use crate::tracker::Prompt;

/// Version of the layout of run.json and tracks.json.
pub const REPORT_VERSION: u32 = 1;

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Every frame was tracked.
    Done,
    /// Ended by Ctrl-C (or SIGTERM); the frames up to there are complete.
    Interrupted,
    /// Ended by an error; the frames up to there are complete.
    Failed,
}

impl Status {
    /// The status as it stands in run.json.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Interrupted => "interrupted",
            Self::Failed => "failed",
        }
    }
}

/// run.json.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunReport {
    /// Version of this layout.
    pub schema_version: u32,
    /// How the run ended.
    pub status: Status,
    /// The error that ended the run; null unless the status is `failed`.
    pub error: Option<String>,
    /// What was tracked in.
    pub input: InputReport,
    /// Frames tracked; there is one mask file for each.
    pub frames: u64,
    /// Sizes of the frames, in order of appearance; more than one when the video changes its size.
    pub sizes: Vec<SizeReport>,
    /// Ids of the objects, in order of first appearance.
    pub objects: Vec<u32>,
    /// The prompts, merged by frame and object: those of the user, then those of proposals.
    pub prompts: Vec<PromptReport>,
    /// What was found for each text of `--text`; empty without.
    #[serde(default)]
    pub texts: Vec<TextReport>,
    /// How objects were found for texts; null without `--text`.
    #[serde(default)]
    pub detector: Option<DetectorReport>,
    /// The graph that proposed objects; null when none was given.
    pub proposals: Option<ProposalsReport>,
    /// The bundle that was run.
    pub model: ModelReport,
    /// How it was run.
    pub runtime: RuntimeReport,
    /// Where the time went.
    pub timings: Timings,
    /// Frames per second over the tracked frames, loading not counted.
    pub fps: f64,
    /// Greatest resident memory of the process in bytes (VmHWM); null where the system does not tell.
    pub peak_memory_bytes: Option<u64>,
    /// The arena that all graphs share; null when the library does not tell.
    pub arena: Option<ArenaReport>,
    /// Memory of this process on the GPU at the end of the run, in bytes, from `nvidia-smi`; null on the processor and
    /// where it does not tell. The arena gives nothing back, so that this is near the peak.
    pub device_memory_bytes: Option<u64>,
    /// What went between the host and the GPU while the run tracked; null on the processor.
    pub copies: Option<CopiesReport>,
    /// The overlay video; null when none was asked for.
    pub overlay: Option<String>,
    /// The folder of raw logits; null when none was asked for.
    pub logits: Option<String>,
    /// The contact sheet; null when none was asked for.
    pub contact_sheet: Option<String>,
    /// The scores against ground truth; null when none was given.
    pub scores: Option<ScoresReport>,
}

/// The arena that all graphs share, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArenaReport {
    /// Most that the arena took from the system: the limit bounds this.
    pub peak_bytes: u64,
    /// Most that was in weights and tensors at once; on a GPU with a limit, what was reserved before the first frame
    /// counts.
    pub in_use_bytes: u64,
    /// The limit; null without one. Weights of a graph of proposals that are outside of the arena while it is loaded, on the
    /// processor, are within it too.
    pub limit_bytes: Option<u64>,
    /// What the run was predicted to need at most; null when nothing was predicted (without `--mem-limit`).
    pub predicted_bytes: Option<u64>,
}

/// What went between the host and a GPU, in bytes, over all frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopiesReport {
    /// Images, prompts and flags.
    pub to_device_bytes: u64,
    /// Mask logits and scores.
    pub to_host_bytes: u64,
}

/// The source of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InputReport {
    /// Path as given; bytes that are not UTF-8 are replaced.
    pub path: String,
    /// `video` or `images`.
    pub kind: String,
    /// Frames per second as a fraction.
    pub frame_rate: (u32, u32),
    /// The container's own number of frames, if it states one.
    pub frames_hint: Option<u64>,
    /// Packets that could not be decoded and were skipped.
    pub damaged_packets: u64,
    /// Frames that the decoder marked as damaged.
    pub damaged_frames: u64,
    /// The decoder's first complaint.
    pub first_damage: Option<String>,
}

/// A frame size and the first frame that has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SizeReport {
    /// The first frame of this size.
    pub from_frame: u64,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
}

/// The prompts of one object on one frame.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PromptReport {
    /// The frame.
    pub frame: u64,
    /// The object.
    pub object: u32,
    /// x1, y1, x2, y2 in pixels of the source frame.
    #[serde(rename = "box")]
    pub bbox: Option<[f32; 4]>,
    /// x, y, label.
    pub points: Vec<[f32; 3]>,
    /// Number of pixels of the mask prompt.
    pub mask_area: Option<u64>,
    /// The proposal that it came of; null for a prompt of the user.
    pub proposal: Option<ProposalSource>,
}

impl PromptReport {
    /// The report of a prompt of the user.
    pub fn of(prompt: &Prompt) -> Self {
        Self {
            frame: prompt.frame as u64,
            object: prompt.object,
            bbox: prompt.bbox,
            points: prompt.points.clone(),
            mask_area: prompt.mask.as_ref().map(|mask| mask.area()),
            proposal: None,
        }
    }
}

/// What a graph said of an object that it proposed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProposalSource {
    /// 0 to 1.
    pub score: f32,
    /// The class, from 0.
    pub class: u32,
    /// Its name, where the file has one.
    pub class_name: Option<String>,
}

/// How objects were proposed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProposalsReport {
    /// The graph's file.
    pub file: String,
    /// Its SHA-256.
    pub sha256: String,
    /// Width and height in pixels of the image that it takes, the largest one.
    pub image: [u32; 2],
    /// What of a proposal became the prompt: `box` or `mask`.
    pub prompts: String,
    /// Scores are above this.
    pub conf: f32,
    /// Of boxes that overlapped by more, the best stayed.
    pub iou: f32,
    /// Most proposals on a frame.
    pub max_det: usize,
    /// Whether boxes of different classes were compared.
    pub class_agnostic: bool,
    /// Frames from one run of the graph to the next; null if it ran on frame 0 only.
    pub discover_every: Option<usize>,
    /// A proposal was not new if more than this share of its mask was covered.
    pub covered: f32,
    /// Most objects in all.
    pub max_objects: usize,
    /// Frames on which the graph ran.
    pub looks: u64,
    /// Proposals on all of them.
    pub proposals: u64,
    /// Proposals that became objects.
    pub added: u64,
    /// Proposals that would have become objects but for `max_objects`.
    pub left_out: u64,
    /// The first frame on which one was left out.
    pub full_on_frame: Option<u64>,
    /// Whether the graph stayed loaded between its runs.
    pub stays_loaded: bool,
    /// Times that the graph was loaded, to check its form not counted.
    pub loads: u64,
    /// Seconds of these.
    pub load_s: f64,
    /// Seconds of running the graph: from frame to proposals.
    pub look_s: f64,
}

/// How a bundle was run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RuntimeReport {
    /// Version of this program.
    pub snow_ort: String,
    /// Version of ONNX Runtime.
    pub onnxruntime: String,
    /// The ONNX Runtime library that was loaded.
    pub library: String,
    /// `cpu` or `cuda`.
    pub provider: String,
    /// Threads asked for; null when ONNX Runtime chose.
    pub threads: Option<usize>,
    /// Most objects that go through a graph at once.
    pub chunk: usize,
    /// Tracked frames with a memory score up to this were not recalled; null where all were.
    #[serde(default)]
    pub memory_selection: Option<f64>,
}

/// Seconds per stage. Stages run at the same time, so their sum may exceed `tracking_s`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Timings {
    /// From the start of the program's work to its end.
    pub total_s: f64,
    /// Checking the bundle and loading the graphs.
    pub load_s: f64,
    /// From the first frame asked for to the last frame written.
    pub tracking_s: f64,
    /// Each stage in the order of the work.
    pub stages: Vec<StageReport>,
}

/// The time of one stage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StageReport {
    /// Name of the stage, e.g. `vision_encoder`.
    pub stage: String,
    /// Seconds over all frames.
    pub seconds: f64,
    /// Seconds divided by the number of frames.
    pub seconds_per_frame: f64,
}

impl StageReport {
    /// The report of `seconds` spent in `stage` over `frames` frames.
    pub fn new(stage: &str, seconds: f64, frames: u64) -> Self {
        Self {
            stage: stage.to_owned(),
            seconds,
            seconds_per_frame: if frames == 0 {
                0.0
            } else {
                seconds / frames as f64
            },
        }
    }
}

/// One frame of tracks.json.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FrameTracks {
    /// The frame, counted from 0; its mask is `masks/<frame, 5 digits>.png`.
    pub frame: u64,
    /// Presentation time in seconds, if the source has one.
    pub time_s: Option<f64>,
    /// The objects known on this frame, also those that are not visible.
    pub objects: Vec<ObjectTrack>,
    /// The proposals on this frame, best first; absent on frames on which the graph did not run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proposals: Option<Vec<ProposalTrack>>,
}

/// One proposal on one frame.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProposalTrack {
    /// x1, y1, x2, y2 in pixels of the source frame.
    #[serde(rename = "box")]
    pub bbox: [f32; 4],
    /// What the graph said of it.
    #[serde(flatten)]
    pub source: ProposalSource,
    /// Its mask at source size as COCO RLE.
    pub rle: Rle,
    /// Number of pixels of the mask.
    pub area: u64,
    /// Share of the mask that the masks of objects covered, 0 to 1.
    pub covered: f32,
    /// The object that it became; null for one that was not new, or was left out.
    pub object: Option<u32>,
}

/// One object on one frame.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ObjectTrack {
    /// The object's id.
    pub object: u32,
    /// The object's whole mask at source size as COCO RLE, also where another object is in front in the index PNG.
    pub rle: Rle,
    /// x1, y1, x2, y2 around the mask in pixels, x2 and y2 exclusive; null when the mask is empty.
    #[serde(rename = "box")]
    pub bbox: Option<[u32; 4]>,
    /// Number of pixels of the mask.
    pub area: u64,
    /// Logit of the object being visible.
    pub score_logit: f32,
    /// Probability of the object being visible: the logistic function of `score_logit`.
    pub score: f32,
    /// The model's own estimate of the mask's intersection over union; null where it gives none.
    pub iou: Option<f32>,
}

/// tracks.json, written frame by frame: `{"schema_version": 1, "frames": [ … ]}`, one frame per line.
#[derive(Debug)]
pub struct TracksWriter {
    file: BufWriter<File>,
    path: PathBuf,
    empty: bool,
}

impl TracksWriter {
    /// Starts the file at `path`.
    ///
    /// # Errors
    ///
    /// The file cannot be written.
    pub fn create(path: &Path) -> io::Result<Self> {
        let mut file = BufWriter::new(File::create(path)?);
        write!(file, "{{\"schema_version\":{REPORT_VERSION},\"frames\":[")?;
        Ok(Self {
            file,
            path: path.to_path_buf(),
            empty: true,
        })
    }

    /// Adds a frame.
    ///
    /// # Errors
    ///
    /// The file cannot be written.
    pub fn write(&mut self, frame: &FrameTracks) -> io::Result<()> {
        self.file
            .write_all(if self.empty { b"\n" } else { b",\n" })?;
        self.empty = false;
        serde_json::to_writer(&mut self.file, frame)?;
        Ok(())
    }

    /// Ends the file and brings it to the disk.
    ///
    /// # Errors
    ///
    /// The file cannot be written.
    pub fn finish(mut self) -> io::Result<()> {
        self.file.write_all(b"\n]}\n")?;
        self.file.flush()?;
        self.file.get_ref().sync_all()
    }

    /// Path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Reads a tracks.json that [`TracksWriter`] wrote, frame by frame.
#[derive(Debug)]
pub struct TracksReader {
    lines: Lines<BufReader<File>>,
    path: PathBuf,
}

impl TracksReader {
    /// Opens the file at `path`.
    ///
    /// # Errors
    ///
    /// The file cannot be read.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self {
            lines: BufReader::new(File::open(path)?).lines(),
            path: path.to_path_buf(),
        })
    }

    /// Path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Iterator for TracksReader {
    type Item = io::Result<FrameTracks>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let line = match self.lines.next()? {
                Ok(line) => line,
                Err(error) => return Some(Err(error)),
            };
            // The first line and the last hold no frame.
            if line.starts_with("{\"schema_version\"") || line.starts_with(']') {
                continue;
            }
            let frame = serde_json::from_str(line.trim_end_matches(','));
            return Some(frame.map_err(io::Error::from));
        }
    }
}

/// Writes run.json.
///
/// # Errors
///
/// The file cannot be written.
pub fn write_run(path: &Path, report: &RunReport) -> io::Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    serde_json::to_writer_pretty(&mut file, report)?;
    file.write_all(b"\n")?;
    file.flush()?;
    file.get_ref().sync_all()
}

/// Greatest resident memory of this process so far, in bytes.
pub fn peak_memory_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// Memory of this process on the GPU now, in bytes, as `nvidia-smi` tells it. Not yet seen to work: in a container it
/// may list other process ids than the process itself knows, and this is `None` then.
pub fn device_memory_bytes() -> Option<u64> {
    let output = std::process::Command::new("nvidia-smi")
        .args([
            "--query-compute-apps=pid,used_memory",
            "--format=csv,noheader,nounits",
        ])
        .output()
        .ok()?;
    let own = std::process::id().to_string();
    let text = String::from_utf8(output.stdout).ok()?;
    text.lines().find_map(|line| {
        let (pid, mib) = line.split_once(',')?;
        let mib: u64 = mib.trim().parse().ok()?;
        (pid.trim() == own).then_some(mib << 20)
    })
}
