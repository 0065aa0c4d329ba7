//! Frames in, pictures out: frame sources (video file, image folder, single image), resizing, index
//! PNGs, the overlay video and the contact sheet.
//!
//! # FFmpeg
//!
//! Videos are read and written through `ffmpeg-next` and its safe wrappers: contexts, packets,
//! frames, filters. What they cannot do is done by a few calls of FFmpeg's C interface: paths that
//! are not UTF-8, FFmpeg's log, some fields of a stream, errors of closing a file.
//!
//! `video-rs`, a layer above `ffmpeg-next`, is not used:
//! - its `Decoder` resizes with AREA scaling and the BT.601 matrix, does not apply rotation metadata,
//!   loses the frames after a change of resolution, and gives the decoding time as a frame's time;
//! - its `Reader` panics on a path that is not UTF-8, and reports the end of a file as an error;
//! - its `Encoder` sets no colour tags and counts time in microseconds;
//! - what is left is too little to depend on it: `Location` is a path, `Time` a number and its time
//!   base, and the parts of `StreamInfo` are private;
//! - version 0.12 turns on all features of `ffmpeg-next`, so that a build needs FFmpeg's libraries for
//!   devices and for audio resampling too, and adds 29 crates.

mod canvas;
pub mod contact_sheet;
#[cfg(feature = "video")]
mod ffmpeg;
#[cfg(feature = "video")]
mod filters;
pub mod images;
pub mod index_png;
mod input;
pub mod overlay;
#[cfg(feature = "video")]
mod overlay_clock;
#[cfg(feature = "video")]
mod overlay_writer;
pub mod resize;
#[cfg(feature = "video")]
pub mod video;
#[cfg(not(feature = "video"))]
mod without_video;

use std::path::{Path, PathBuf};

pub use input::MAX_PIXELS;

/// One picture: RGB, 8 bit, row-major, no padding, so `rgb.len() == width * height * 3`.
#[derive(Debug, Clone, PartialEq)]
pub struct Frame {
    /// Position in presentation order, from 0.
    pub index: usize,
    /// Columns, after rotation metadata is applied.
    pub width: u32,
    /// Rows, after rotation metadata is applied.
    pub height: u32,
    /// `[height, width, 3]` bytes.
    pub rgb: Vec<u8>,
    /// Presentation time in seconds on the source's own clock, if the source has one.
    pub pts_s: Option<f64>,
}

/// What a source reads from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourceKind {
    /// A file decoded by FFmpeg.
    Video,
    /// A folder of images, or one image.
    Images,
}

/// What is known about a source before its frames are read.
#[derive(Debug, Clone, PartialEq)]
pub struct SourceInfo {
    /// The path that was opened.
    pub path: PathBuf,
    /// Video or images.
    pub kind: SourceKind,
    /// Columns of the first frame, after rotation.
    pub width: u32,
    /// Rows of the first frame, after rotation.
    pub height: u32,
    /// Frames per second as a fraction; 24/1 for images.
    pub frame_rate: (u32, u32),
    /// Number of images, the container's own count of frames, or its duration times its frame
    /// rate. A hint: the source may deliver fewer or more frames.
    pub frames_hint: Option<u64>,
    /// Notes for the user about a source that can be read, one sentence each.
    pub notes: Vec<String>,
}

/// Damage of a source whose frames could still be read.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Damage {
    /// Packets that could not be read or decoded; their frames are missing or concealed.
    pub packets: u64,
    /// Frames that were delivered although the decoder reported them as damaged.
    pub frames: u64,
    /// FFmpeg's first error message, after the number of the packet.
    pub first_error: Option<String>,
}

/// Frames of one source, in presentation order.
pub trait FrameSource: Send {
    /// Returns what is known about the source.
    fn info(&self) -> &SourceInfo;

    /// Returns the next frame, or `None` at the end. Damaged packets are skipped and counted, not
    /// errors.
    ///
    /// # Errors
    /// An image that cannot be read or has another size than the first; a frame that cannot be
    /// converted to RGB.
    fn next_frame(&mut self) -> Result<Option<Frame>, MediaError>;

    /// Returns the damage found so far.
    fn damage(&self) -> Damage;
}

/// Why a picture, a video or a mask cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MediaError {
    /// The input path does not exist.
    #[error("{}: no such file or folder; check the path", path.display())]
    Missing {
        /// The path as given.
        path: PathBuf,
    },
    /// The input is a file of zero bytes.
    #[error("{}: the file is empty (0 bytes); copy or download it again", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// The operating system refused to read the input.
    #[error("{}: cannot be read: {source}", path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// The operating system's reason.
        source: std::io::Error,
    },
    /// A FIFO, socket or device, or a folder in place of a file.
    #[error(
        "{}: it is {found}, expected a regular file; copy its contents to a file and give that",
        path.display()
    )]
    NotRegular {
        /// The path as given.
        path: PathBuf,
        /// The kind of thing at the path.
        found: &'static str,
    },
    /// A picture with more pixels than the limit.
    #[error(
        "{}: the image is {width}x{height}, {} pixels, expected at most {limit}; \
         scale it down, or replace it if its header is wrong",
        path.display(), u64::from(*width) * u64::from(*height)
    )]
    TooLarge {
        /// The image file.
        path: PathBuf,
        /// Columns, as the header says.
        width: u32,
        /// Rows, as the header says.
        height: u32,
        /// The largest number of pixels that is read.
        limit: u64,
    },
    /// One file with several pictures, in a format that FFmpeg does not play.
    #[error(
        "{}: it is an animated {kind}, expected a still image or a video; convert it, \
         e.g. with `magick INPUT -coalesce FOLDER/%05d.png`, and give the folder",
        path.display()
    )]
    Animated {
        /// The image file.
        path: PathBuf,
        /// The file format.
        kind: &'static str,
    },
    /// The program was built without the feature `video`.
    #[error(
        "{}: this program was built without video; give a folder of images \
         (`ffmpeg -i VIDEO frames/%05d.png` makes one), or use a build with the feature `video`",
        path.display()
    )]
    WithoutVideo {
        /// The file.
        path: PathBuf,
    },
    /// FFmpeg cannot open the file as a video.
    #[error(
        "{}: not a video that FFmpeg can open ({detail}); give a video file, or a folder of images",
        path.display()
    )]
    NotVideo {
        /// The file.
        path: PathBuf,
        /// FFmpeg's reason.
        detail: String,
    },
    /// The file opens, but holds no video stream.
    #[error("{}: it holds no video, only {found}; give a file with a video stream", path.display())]
    NoVideoStream {
        /// The file.
        path: PathBuf,
        /// The kinds of streams that are there.
        found: String,
    },
    /// No decoder for the video's codec.
    #[error(
        "{}: the installed FFmpeg has no decoder for the codec {codec}; convert it first, \
         e.g. with `ffmpeg -i INPUT -c:v libx264 -crf 12 OUTPUT.mp4` on a machine that can read it",
        path.display()
    )]
    NoDecoder {
        /// The file.
        path: PathBuf,
        /// The codec's name, or its tag where it has none.
        codec: String,
    },
    /// The file has a video stream of which not one frame decodes.
    #[error(
        "{}: not one frame could be decoded ({detail}); the file is truncated or damaged: \
         copy or download it again",
        path.display()
    )]
    NoFrame {
        /// The file.
        path: PathBuf,
        /// How many packets were read, and the first error.
        detail: String,
    },
    /// A decoded frame cannot be turned into RGB.
    #[error("{}: frame {frame}: {detail}", path.display())]
    Convert {
        /// The file.
        path: PathBuf,
        /// The frame's index.
        frame: usize,
        /// FFmpeg's reason.
        detail: String,
    },
    /// A folder without images.
    #[error(
        "{}: the folder holds no images (looked for files ending in {extensions}; \
         hidden files and subfolders are not read)",
        path.display()
    )]
    NoImages {
        /// The folder.
        path: PathBuf,
        /// The extensions that count as images.
        extensions: String,
    },
    /// Images of one folder differ in size.
    #[error(
        "{}: the image is {}x{}, but the folder's first image {} is {}x{}; \
         all images of a folder must have the same size: resize or move the others",
        path.display(), size.0, size.1, first.display(), first_size.0, first_size.1
    )]
    MixedSizes {
        /// The folder's first image.
        first: PathBuf,
        /// Its width and height.
        first_size: (u32, u32),
        /// The first image of another size.
        path: PathBuf,
        /// Its width and height.
        size: (u32, u32),
    },
    /// An image cannot be decoded.
    #[error("{}: the image cannot be read: {detail}; replace or remove it", path.display())]
    Image {
        /// The image file.
        path: PathBuf,
        /// The decoder's reason.
        detail: String,
    },
    /// An index mask is damaged, or is neither a palette PNG nor a grey PNG.
    #[error("{}: not a usable index mask: {detail}", path.display())]
    IndexPng {
        /// The PNG file.
        path: PathBuf,
        /// What is wrong, and what is expected.
        detail: String,
    },
    /// Sizes or lengths that contradict each other.
    #[error("{what}: expected {expected}, got {got}")]
    Size {
        /// What was being done.
        what: &'static str,
        /// The expected size.
        expected: String,
        /// The size that was given.
        got: String,
    },
    /// The overlay's file name does not end like a container for H.264.
    #[error(
        "{}: the overlay video must end in .mp4, .mov or .mkv, not {ending}",
        path.display()
    )]
    OverlayFormat {
        /// The path as given.
        path: PathBuf,
        /// The ending that was found.
        ending: String,
    },
    /// The contact sheet's file name has another ending than its format.
    #[error("{}: the contact sheet must end in .png, not {ending}", path.display())]
    SheetFormat {
        /// The path as given.
        path: PathBuf,
        /// The ending that was found.
        ending: String,
    },
    /// An output file cannot be written. Its unfinished part has been removed.
    #[error("{}: cannot be written: {detail}", path.display())]
    Write {
        /// The final path of the output.
        path: PathBuf,
        /// The reason.
        detail: String,
    },
}

/// Opens a folder as images in name order, a file with an image's ending as one frame, and every
/// other file as a video.
///
/// # Errors
/// The path is missing, empty, not a regular file, not a video, or an animated image other than a
/// GIF; a video has no video stream or not one frame that decodes; a folder has no images or images
/// of different sizes.
pub fn open(path: &Path) -> Result<Box<dyn FrameSource>, MediaError> {
    match classify(path)? {
        SourceKind::Images => Ok(Box::new(images::ImageSource::open(path)?)),
        #[cfg(feature = "video")]
        SourceKind::Video => Ok(Box::new(video::VideoSource::open(path)?)),
        #[cfg(not(feature = "video"))]
        SourceKind::Video => without_video::open(path),
    }
}

/// Counts the frames of a source, up to `limit`. A video is decoded for that, images are not.
///
/// # Errors
/// As [`open`].
pub fn count_frames_up_to(path: &Path, limit: usize) -> Result<usize, MediaError> {
    match classify(path)? {
        SourceKind::Images => Ok(images::list(path)?.len().min(limit)),
        #[cfg(feature = "video")]
        SourceKind::Video => video::count_frames_up_to(path, limit),
        #[cfg(not(feature = "video"))]
        SourceKind::Video => without_video::count_frames_up_to(path, limit),
    }
}

fn classify(path: &Path) -> Result<SourceKind, MediaError> {
    let meta = input::metadata(path)?;
    if meta.is_dir() {
        return Ok(SourceKind::Images);
    }
    input::check_regular(path, meta.file_type())?;
    if meta.len() == 0 {
        return Err(MediaError::Empty {
            path: path.to_owned(),
        });
    }
    // Users mean an animated GIF as a video; in a folder it is read as one picture.
    if images::has_image_extension(path) && !images::has_extension(path, "gif") {
        return Ok(SourceKind::Images);
    }
    Ok(SourceKind::Video)
}
