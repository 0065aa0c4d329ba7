//! The H.264 writer of overlay videos: libx264, yuv420p, BT.709, limited range, tagged as such.
//!
//! video-rs's `Encoder` cannot stand in for it: it converts with the BT.601 matrix, sets no colour
//! tags, and counts time in microseconds, in which 30000/1001 frames a second are not exact.

use std::ffi::CStr;
use std::path::{Path, PathBuf};
use std::ptr;

use ffmpeg_next::error::EAGAIN;
use ffmpeg_next::format::Pixel;
use ffmpeg_next::format::context::Output;
use ffmpeg_next::frame::Video;
use ffmpeg_next::{Dictionary, Error, Packet, Rational, codec, color, encoder, ffi, format};

use super::MediaError;
use super::ffmpeg;
use super::filters::FilterChain;
use super::index_png::partial_path;
use super::overlay_clock::OverlayClock;

/// Writes an overlay video.
///
/// The file is written under its name with `.partial` behind it; [`OverlayWriter::finish`] gives it
/// its name. Dropped before that, the partial file is removed.
pub struct OverlayWriter {
    path: PathBuf,
    partial: PathBuf,
    size: Size,
    clock: OverlayClock,
    scaler: Option<Scaler>,
    stream: OutputStream,
    finished: bool,
}

#[derive(Clone, Copy, PartialEq)]
struct Size {
    width: u32,
    height: u32,
}

impl Size {
    /// The size with an odd column or row added, as 4:2:0 chroma needs it.
    fn even(self) -> Self {
        Self {
            width: self.width + self.width % 2,
            height: self.height + self.height % 2,
        }
    }
}

impl OverlayWriter {
    /// Starts a video of `width` x `height` pixels; an odd size grows by one column or row of its
    /// edge. The container is chosen by the name's ending: mp4, mov or mkv.
    ///
    /// `frame_rate` (a fraction, frames per second) spaces the frames that come without a time.
    ///
    /// # Errors
    /// Another ending, a size or rate of 0, a folder that cannot be written, or an FFmpeg without
    /// libx264.
    pub fn create(
        path: &Path,
        width: u32,
        height: u32,
        frame_rate: (u32, u32),
    ) -> Result<Self, MediaError> {
        ffmpeg::init();
        ffmpeg::take_message();
        let container = Container::of(path)?;
        let partial = partial_path(path);
        let fail = |detail: String| MediaError::Write {
            path: path.to_owned(),
            detail,
        };
        let (rate, per) = frame_rate;
        if width == 0 || height == 0 || rate == 0 || per == 0 {
            return Err(MediaError::Size {
                what: "starting an overlay video",
                expected: "a positive size and frame rate".to_owned(),
                got: format!("{width}x{height} at {rate}/{per} frames per second"),
            });
        }
        let size = Size { width, height };
        let clock = OverlayClock::new(rate, per);
        // Created here first: the system's reason is clearer than FFmpeg's.
        std::fs::File::create(&partial).map_err(|error| fail(error.to_string()))?;
        match OutputStream::start(&partial, container, size.even(), frame_rate, &clock) {
            Ok(stream) => Ok(Self {
                path: path.to_owned(),
                partial,
                size,
                clock,
                scaler: None,
                stream,
                finished: false,
            }),
            Err(detail) => {
                // The start's error is the one to report.
                let _ = std::fs::remove_file(&partial);
                Err(fail(detail))
            }
        }
    }

    /// Adds a frame: `rgb` is `[height, width, 3]`. A frame of another size than the video is
    /// scaled to it.
    ///
    /// With `pts_s` (seconds) the frame is shown at that time, counted from the first frame's;
    /// without, one frame after the one before. A time that differs from a whole number of frames
    /// by no more than the rounding of the source's clock (a millisecond if it counts those) is put
    /// right.
    ///
    /// # Errors
    /// The bytes do not fit the size, or the file cannot be written (a full disk, for one).
    pub fn write(
        &mut self,
        rgb: &[u8],
        width: u32,
        height: u32,
        pts_s: Option<f64>,
    ) -> Result<(), MediaError> {
        let expected = width as usize * height as usize * 3;
        if rgb.len() != expected || expected == 0 {
            return Err(MediaError::Size {
                what: "writing an overlay frame",
                expected: format!("{expected} bytes for {width}x{height}"),
                got: format!("{} bytes", rgb.len()),
            });
        }
        ffmpeg::take_message();
        let tick = self.clock.tick(pts_s);
        self.encode(rgb, Size { width, height }, tick)
            .map_err(|detail| self.fail(detail))
    }

    /// Writes what the encoder still holds, closes the file and gives it its name.
    ///
    /// # Errors
    /// The file cannot be written; the partial file is removed then.
    pub fn finish(mut self) -> Result<(), MediaError> {
        ffmpeg::take_message();
        self.stream
            .finish()
            .map_err(|error| self.fail(ffmpeg::describe(error)))?;
        std::fs::rename(&self.partial, &self.path).map_err(|error| self.fail(error.to_string()))?;
        self.finished = true;
        Ok(())
    }

    fn fail(&self, detail: String) -> MediaError {
        MediaError::Write {
            path: self.path.clone(),
            detail,
        }
    }

    fn encode(&mut self, rgb: &[u8], size: Size, tick: i64) -> Result<(), String> {
        let padded = if size == self.size { size.even() } else { size };
        let scaler = match self.scaler.take() {
            Some(scaler) if scaler.source == padded => scaler,
            _ => Scaler::new(padded, self.size.even())?,
        };
        let mut picture = self
            .scaler
            .insert(scaler)
            .scale(&mut rgb_picture(rgb, size, padded)?)?;
        picture.set_pts(Some(tick));
        self.stream.encode(&picture).map_err(ffmpeg::describe)
    }
}

impl Drop for OverlayWriter {
    fn drop(&mut self) {
        if !self.finished {
            // Nothing can be reported from here.
            let _ = std::fs::remove_file(&self.partial);
        }
    }
}

/// The containers that an overlay can be written to.
#[derive(Clone, Copy, PartialEq)]
enum Container {
    Mp4,
    Mov,
    Matroska,
}

impl Container {
    /// The container that the name's ending stands for.
    fn of(path: &Path) -> Result<Self, MediaError> {
        let ending = path
            .extension()
            .map(|ending| ending.to_string_lossy().to_lowercase());
        match ending.as_deref() {
            Some("mp4") => Ok(Self::Mp4),
            Some("mov") => Ok(Self::Mov),
            Some("mkv") => Ok(Self::Matroska),
            other => Err(MediaError::OverlayFormat {
                path: path.to_owned(),
                ending: other.map_or("no ending at all".to_owned(), |ending| format!(".{ending}")),
            }),
        }
    }

    /// FFmpeg's name of the container.
    fn name(self) -> &'static CStr {
        match self {
            Self::Mp4 => c"mp4",
            Self::Mov => c"mov",
            Self::Matroska => c"matroska",
        }
    }
}

/// RGB pictures of one size to BT.709 in limited range, in the size of the video.
struct Scaler {
    source: Size,
    chain: FilterChain,
}

impl Scaler {
    fn new(source: Size, target: Size) -> Result<Self, String> {
        let filters = format!(
            "scale=w={}:h={}:flags=bicubic+accurate_rnd+full_chroma_inp\
             :out_color_matrix=bt709:out_range=limited,format=pix_fmts=yuv420p",
            target.width, target.height
        );
        let no_time = Rational::new(1, 1);
        let (width, height) = (source.width, source.height);
        let chain = FilterChain::new(width, height, Pixel::RGB24, no_time, &filters);
        Ok(Self {
            source,
            chain: chain.map_err(|error| {
                format!("no conversion from a frame of {width}x{height}: {error}")
            })?,
        })
    }

    fn scale(&mut self, picture: &mut Video) -> Result<Video, String> {
        let mut scaled = self.chain.run(picture)?;
        scaled.set_color_range(color::Range::MPEG);
        scaled.set_color_space(color::Space::BT709);
        scaled.set_color_primaries(color::Primaries::BT709);
        scaled.set_color_transfer_characteristic(color::TransferCharacteristic::BT709);
        Ok(scaled)
    }
}

/// Copies the frame into a picture, its last column and row repeated where `padded` is larger.
fn rgb_picture(rgb: &[u8], size: Size, padded: Size) -> Result<Video, String> {
    let mut picture = Video::new(Pixel::RGB24, padded.width, padded.height);
    if picture.planes() == 0 {
        return Err(format!(
            "no memory for a frame of {}x{}",
            padded.width, padded.height
        ));
    }
    let row_bytes = size.width as usize * 3;
    let stride = picture.stride(0);
    let rows = rgb.chunks_exact(row_bytes);
    let last = rgb[rgb.len() - row_bytes..].chunks_exact(row_bytes);
    let targets = picture.data_mut(0).chunks_exact_mut(stride);
    for (target, row) in targets.zip(rows.chain(last)) {
        target[..row_bytes].copy_from_slice(row);
        if padded.width > size.width {
            target[row_bytes..row_bytes + 3].copy_from_slice(&row[row_bytes - 3..]);
        }
    }
    Ok(picture)
}

/// A file with one video stream, and its encoder.
struct OutputStream {
    encoder: encoder::Video,
    output: Output,
    /// Seconds per tick of the encoder, and of the container.
    time_bases: [Rational; 2],
    ticks_per_frame: i64,
}

impl OutputStream {
    /// Opens the file and the encoder, and writes the container's header.
    fn start(
        path: &Path,
        container: Container,
        size: Size,
        frame_rate: (u32, u32),
        clock: &OverlayClock,
    ) -> Result<Self, String> {
        let number =
            |value: u32| i32::try_from(value).map_err(|_| format!("{value} is too large a number"));
        let rate = Rational::new(number(frame_rate.0)?, number(frame_rate.1)?);
        let time_base = Rational::new(1, number(clock.ticks_per_second())?);
        let mut output = open_output(path, container)?;
        let codec = encoder::find_by_name("libx264")
            .ok_or("the installed FFmpeg has no libx264 encoder")?;
        let mut open = || {
            let flags = output.format().flags();
            let encoder = open_encoder(codec, size, rate, time_base, flags)?;
            let mut stream = output.add_stream_with(&encoder)?;
            stream.set_time_base(time_base);
            stream.set_avg_frame_rate(rate);
            // The index of these containers comes last unless they are asked to move it.
            let options = match container {
                Container::Matroska => Dictionary::new(),
                Container::Mp4 | Container::Mov => {
                    Dictionary::from_iter([("movflags", "+faststart")])
                }
            };
            output.write_header_with(options)?;
            // The header may have changed the container's clock.
            let stream = output.stream(0).ok_or(Error::StreamNotFound)?;
            Ok((encoder, stream.time_base()))
        };
        let (encoder, container_base) = open().map_err(ffmpeg::describe)?;
        Ok(Self {
            encoder,
            output,
            time_bases: [time_base, container_base],
            ticks_per_frame: clock.ticks_per_frame(),
        })
    }

    fn encode(&mut self, picture: &Video) -> Result<(), Error> {
        self.encoder.send_frame(picture)?;
        self.drain()
    }

    /// Writes the packets that the encoder has ready.
    fn drain(&mut self) -> Result<(), Error> {
        loop {
            let mut packet = Packet::empty();
            match self.encoder.receive_packet(&mut packet) {
                Ok(()) => {}
                Err(Error::Eof | Error::Other { errno: EAGAIN }) => return Ok(()),
                Err(error) => return Err(error),
            }
            // The container takes the last frame's length from here.
            packet.set_duration(self.ticks_per_frame);
            packet.set_stream(0);
            let [encoder, container] = self.time_bases;
            packet.rescale_ts(encoder, container);
            packet.write_interleaved(&mut self.output)?;
        }
    }

    /// Writes what the encoder still holds and the container's trailer, and closes the file.
    fn finish(&mut self) -> Result<(), Error> {
        self.encoder.send_eof()?;
        self.drain()?;
        self.output.write_trailer()?;
        // SAFETY: the context is alive. The call sets its file to null, which the wrapper then
        // leaves alone; the wrapper itself would drop the error of a last buffered write.
        ffmpeg::check(unsafe { ffi::avio_closep(&raw mut (*self.output.as_mut_ptr()).pb) })
    }
}

/// Opens a file for writing by the bytes of its path. The wrapper's own function panics on a path
/// that is not UTF-8.
fn open_output(path: &Path, container: Container) -> Result<Output, String> {
    let url = ffmpeg::file_url(path).ok_or("the path holds a zero byte")?;
    let open = || {
        let mut context: *mut ffi::AVFormatContext = ptr::null_mut();
        // SAFETY: URL and name are C strings. The wrapper owns the context from its allocation on,
        // and closes its file if there is one.
        unsafe {
            ffmpeg::check(ffi::avformat_alloc_output_context2(
                &raw mut context,
                ptr::null(),
                container.name().as_ptr(),
                url.as_ptr(),
            ))?;
            let output = Output::wrap(context);
            ffmpeg::check(ffi::avio_open(
                &raw mut (*context).pb,
                url.as_ptr(),
                ffi::AVIO_FLAG_WRITE,
            ))?;
            Ok(output)
        }
    };
    open().map_err(ffmpeg::describe)
}

fn open_encoder(
    codec: ffmpeg_next::Codec,
    size: Size,
    rate: Rational,
    time_base: Rational,
    container: format::Flags,
) -> Result<encoder::Video, Error> {
    let mut encoder = codec::Context::new_with_codec(codec).encoder().video()?;
    encoder.set_width(size.width);
    encoder.set_height(size.height);
    encoder.set_format(Pixel::YUV420P);
    encoder.set_time_base(time_base);
    encoder.set_frame_rate(Some(rate));
    encoder.set_color_range(color::Range::MPEG);
    encoder.set_colorspace(color::Space::BT709);
    encoder.set_color_primaries(color::Primaries::BT709);
    encoder.set_color_transfer_characteristic(color::TransferCharacteristic::BT709);
    encoder.set_aspect_ratio(Rational::new(1, 1));
    let mut options = Dictionary::from_iter([("preset", "veryfast"), ("crf", "18")]);
    if container.contains(format::Flags::GLOBAL_HEADER) {
        // Added to libx264's own flags, which `set_flags` would replace.
        options.set("flags", "+global_header");
    }
    encoder.open_as_with(codec, options)
}
