//! Frames in, masks out: frame sources (video file, image folder, single image), resizing, mask
//! operations, index PNGs, the overlay video and the contact sheet.

#[cfg(feature = "video")]
mod av;
mod canvas;
pub mod contact_sheet;
#[cfg(feature = "video")]
mod convert;
#[cfg(feature = "video")]
mod encode;
pub mod images;
pub mod index_png;
mod input;
pub mod mask;
pub mod overlay;
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

/// What is known of a source before its frames are read.
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
    /// rate. A hint: the frames that really come may be fewer or more.
    pub frames_hint: Option<u64>,
    /// What the user should know of the source although it can be read, one sentence each.
    pub notes: Vec<String>,
}

/// What was wrong with a source whose frames could be read all the same.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Damage {
    /// Packets that could not be read or decoded; what they held is missing or concealed.
    pub packets: u64,
    /// Frames that were delivered although the decoder marked them as damaged.
    pub frames: u64,
    /// The first complaint, in FFmpeg's words, with where it arose.
    pub first_error: Option<String>,
}

/// Frames of one source, in presentation order.
pub trait FrameSource: Send {
    /// What is known of the source.
    fn info(&self) -> &SourceInfo;

    /// The next frame, or `None` at the end. Damaged packets are skipped and counted, not errors.
    ///
    /// # Errors
    /// An image that cannot be read or has another size than the first; a frame that cannot be
    /// converted to RGB.
    fn next_frame(&mut self) -> Result<Option<Frame>, MediaError>;

    /// The damage met so far.
    fn damage(&self) -> Damage;
}

/// What went wrong with a picture, a video or a mask, where, and what to do about it.
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
    /// A FIFO, socket or device, or a folder where only a file will do.
    #[error(
        "{}: it is {found}, expected a regular file; copy what it holds to a file and give that",
        path.display()
    )]
    NotRegular {
        /// The path as given.
        path: PathBuf,
        /// What is there.
        found: &'static str,
    },
    /// A picture of more pixels than are read.
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
        /// The most pixels that are read.
        limit: u64,
    },
    /// One file with several pictures, of a kind that FFmpeg does not play.
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
    /// The program has no part that reads or writes videos.
    #[error(
        "{}: this program was built without video; give a folder of images (`ffmpeg -i VIDEO frames/%05d.png` makes one), or a build with the feature `video`",
        path.display()
    )]
    WithoutVideo {
        /// The file.
        path: PathBuf,
    },
    /// The file is no video that FFmpeg knows.
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
    #[error("{}: holds no video, only {found}; give a file with a video stream", path.display())]
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
        /// How many packets were read and the first complaint.
        detail: String,
    },
    /// A decoded frame cannot be turned into RGB.
    #[error("{}: frame {frame}: {detail}", path.display())]
    Convert {
        /// The file.
        path: PathBuf,
        /// The frame's index.
        frame: usize,
        /// What failed.
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
         all images of a folder must have one size: resize or move the odd ones",
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
    /// An index mask is no palette or grey PNG, or is damaged.
    #[error("{}: not a usable index mask: {detail}", path.display())]
    IndexPng {
        /// The PNG file.
        path: PathBuf,
        /// What is wrong, and what is expected.
        detail: String,
    },
    /// A run-length string does not describe a mask of the stated size.
    #[error("run-length counts of a {width}x{height} mask: {detail}")]
    Rle {
        /// Columns of the mask.
        width: u32,
        /// Rows of the mask.
        height: u32,
        /// What is wrong.
        detail: String,
    },
    /// Sizes or lengths that do not fit together.
    #[error("{what}: expected {expected}, got {got}")]
    Size {
        /// What was being done.
        what: &'static str,
        /// The expected size.
        expected: String,
        /// The size that came.
        got: String,
    },
    /// The overlay's file name has an ending that no H.264 container has.
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
    /// An output file cannot be written; what was there of it is removed.
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
/// [`MediaError`] names the path and says what is wrong: it is missing, empty, no regular file, no
/// video, an animated image other than a GIF, without a video stream, without a single decodable frame, or a folder without images or with mixed sizes.
pub fn open(path: &Path) -> Result<Box<dyn FrameSource>, MediaError> {
    match classify(path)? {
        SourceKind::Images => Ok(Box::new(images::ImageSource::open(path)?)),
        #[cfg(feature = "video")]
        SourceKind::Video => Ok(Box::new(video::VideoSource::open(path)?)),
        #[cfg(not(feature = "video"))]
        SourceKind::Video => without_video::open(path),
    }
}

/// Decodes at most `limit` frames and says how many there are up to that. Images are counted
/// without being decoded.
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
    // An animated GIF is a video to its user; in a folder it counts as a picture.
    if images::has_image_extension(path) && !images::has_extension(path, "gif") {
        return Ok(SourceKind::Images);
    }
    Ok(SourceKind::Video)
}
