//! The H.264 writer of overlay videos: libx264, yuv420p, BT.709, limited range, so tagged.

use std::ffi::{CStr, CString, c_int};
use std::path::{Path, PathBuf};
use std::ptr;

use ffmpeg_next::ffi;

use super::MediaError;
use super::av::{self, Codec, Packet, Picture};
use super::index_png::partial_path;

/// Ticks per second are at least this many, so that the times of a source with a variable rate are
/// kept to within 6 microseconds.
const MIN_TICKS: u32 = 90_000;

/// One tick, in seconds, of the coarsest common clock that does not count milliseconds (MPEG's).
const FINE_CLOCK_S: f64 = 1.0 / 90_000.0;

/// Writes an overlay video.
///
/// The file is written under its name with `.partial` behind it; [`OverlayWriter::finish`] gives it
/// its name. Dropped before that, the partial file is removed.
pub struct OverlayWriter {
    path: PathBuf,
    partial: PathBuf,
    // The order matters: freed before the container, in whose terms they were made.
    encoder: Codec,
    scaler: Option<Scaler>,
    packet: Packet,
    picture: Picture,
    output: Output,
    size: (u32, u32),
    ticks_per_second: u32,
    ticks_per_frame: i64,
    origin_s: Option<f64>,
    last: Option<i64>,
    staged: Vec<u8>,
    finished: bool,
}

struct Output(*mut ffi::AVFormatContext);

// SAFETY: used by one owner only, which may move between threads.
unsafe impl Send for Output {}

impl Output {
    /// Closes the file; an error of a write that was still buffered shows here.
    fn close(&mut self) -> c_int {
        // SAFETY: the context is alive, and FFmpeg sets its file to null when it is closed.
        unsafe {
            if (*self.0).pb.is_null() {
                return 0;
            }
            ffi::avio_closep(&raw mut (*self.0).pb)
        }
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        self.close();
        // SAFETY: owned, and freed only here.
        unsafe { ffi::avformat_free_context(self.0) }
    }
}

struct Scaler {
    context: *mut ffi::SwsContext,
    source: (c_int, c_int),
}

// SAFETY: used by one owner only, which may move between threads.
unsafe impl Send for Scaler {}

impl Scaler {
    /// RGB of the given size to BT.709 in limited range, in the size of `target`.
    fn new(source: (c_int, c_int), target: &ffi::AVFrame) -> Result<Self, String> {
        // SAFETY: plain numbers go in; the context is checked and owned, and the table of
        // coefficients is static.
        unsafe {
            let context = ffi::sws_getContext(
                source.0,
                source.1,
                ffi::AVPixelFormat::AV_PIX_FMT_RGB24,
                target.width,
                target.height,
                ffi::AVPixelFormat::AV_PIX_FMT_YUV420P,
                ffi::SWS_BICUBIC | ffi::SWS_ACCURATE_RND | ffi::SWS_FULL_CHR_H_INP,
                ptr::null_mut(),
                ptr::null_mut(),
                ptr::null(),
            );
            if context.is_null() {
                return Err(format!(
                    "no conversion from a frame of {}x{}",
                    source.0, source.1
                ));
            }
            let table = ffi::sws_getCoefficients(ffi::SWS_CS_ITU709);
            let one = 1 << 16;
            ffi::sws_setColorspaceDetails(context, table, 1, table, 0, 0, one, one);
            Ok(Self { context, source })
        }
    }
}

impl Drop for Scaler {
    fn drop(&mut self) {
        // SAFETY: owned, and freed only here.
        unsafe { ffi::sws_freeContext(self.context) }
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
        av::init();
        av::take_message();
        let container = container_of(path)?;
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
        let (ticks_per_second, ticks_per_frame) = clock(frame_rate);
        // Asked of the operating system first: its reason is clearer than FFmpeg's.
        std::fs::File::create(&partial).map_err(|error| fail(error.to_string()))?;
        let url = av::file_url(&partial);
        let made = url
            .ok_or_else(|| "the path holds a zero byte".to_owned())
            .and_then(|url| {
                start(
                    &url,
                    container,
                    (width, height),
                    frame_rate,
                    ticks_per_second,
                )
            });
        match made {
            Ok((output, encoder, packet, picture)) => Ok(Self {
                path: path.to_owned(),
                partial,
                encoder,
                scaler: None,
                packet,
                picture,
                output,
                size: (width, height),
                ticks_per_second,
                ticks_per_frame,
                origin_s: None,
                last: None,
                staged: Vec::new(),
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
    /// without, one frame after the one before. A time that is off a whole number of frames by no
    /// more than the source's clock rounds (a millisecond if it counts those) is put right.
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
        av::take_message();
        let tick = self.tick(pts_s);
        self.last = Some(tick);
        self.encode(rgb, width, height, tick)
            .map_err(|detail| self.fail(detail))
    }

    /// Writes what the encoder still holds, closes the file and gives it its name.
    ///
    /// # Errors
    /// The file cannot be written; the partial file is removed then.
    pub fn finish(mut self) -> Result<(), MediaError> {
        av::take_message();
        self.close().map_err(|detail| self.fail(detail))?;
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

    fn tick(&mut self, pts_s: Option<f64>) -> i64 {
        let next = self.last.map_or(0, |last| last + self.ticks_per_frame);
        let Some(time) = pts_s.filter(|time| time.is_finite()) else {
            return next;
        };
        let per_second = f64::from(self.ticks_per_second);
        // A first frame with a time may follow frames without: it then is one frame after them.
        let origin = *self.origin_s.get_or_insert(time - next as f64 / per_second);
        let exact = (time - origin) * per_second;
        let snapped = self.snap(exact, time);
        let after_last = |tick: &i64| self.last.is_none_or(|last| *tick > last);
        // Times must rise; a source whose clock jumps back goes on at its frame rate.
        [snapped, exact.round() as i64]
            .into_iter()
            .find(after_last)
            .unwrap_or_else(|| {
                self.origin_s = Some(time - next as f64 / per_second);
                next
            })
    }

    /// The tick of the whole number of frames that `exact` ticks are but for the rounding of the
    /// source's clock, or else the nearest tick. A constant rate thus stays constant, although
    /// Matroska, for one, counts its frames' times in milliseconds.
    fn snap(&self, exact: f64, time: f64) -> i64 {
        let per_second = f64::from(self.ticks_per_second);
        let per_frame = self.ticks_per_frame as f64;
        let milliseconds = time * 1000.0;
        let source_tick = if (milliseconds - milliseconds.round()).abs() < 1e-4 {
            1e-3
        } else {
            FINE_CLOCK_S
        };
        // At a high rate a millisecond is no longer small beside a frame.
        let slack = (source_tick * 1.001 * per_second).min(per_frame / 4.0);
        let constant = (exact / per_frame).round() * per_frame;
        if (exact - constant).abs() <= slack {
            constant as i64
        } else {
            exact.round() as i64
        }
    }

    fn encode(&mut self, rgb: &[u8], width: u32, height: u32, tick: i64) -> Result<(), String> {
        let even = if (width, height) == self.size {
            (width + width % 2, height + height % 2)
        } else {
            (width, height)
        };
        stage(rgb, (width, height), even, &mut self.staged);
        let (rgb, width, height) = (&self.staged, even.0, even.1);
        let side = |value: u32| c_int::try_from(value).map_err(|_| "the frame is too large");
        let (width, height) = (side(width)?, side(height)?);
        // SAFETY: encoder, picture and scaler are alive; the source rows lie in `rgb`, which was
        // made for this size with room behind it; the picture's planes have the encoder's size.
        unsafe {
            let target = self.picture.ptr();
            check(ffi::av_frame_make_writable(target))?;
            let scaler = match self.scaler.take() {
                Some(scaler) if scaler.source == (width, height) => scaler,
                _ => Scaler::new((width, height), &*target)?,
            };
            let scaler = self.scaler.insert(scaler);
            let rows = [rgb.as_ptr(), ptr::null(), ptr::null(), ptr::null()];
            let strides = [width * 3, 0, 0, 0];
            check(ffi::sws_scale(
                scaler.context,
                rows.as_ptr(),
                strides.as_ptr(),
                0,
                height,
                (*target).data.as_ptr(),
                (*target).linesize.as_ptr(),
            ))?;
            (*target).pts = tick;
            check(ffi::avcodec_send_frame(self.encoder.ptr(), target))?;
        }
        self.drain()
    }

    fn drain(&mut self) -> Result<(), String> {
        // SAFETY: encoder, packet, container and its only stream are alive. The file is checked
        // after each packet, since a buffered write reports nothing itself.
        unsafe {
            loop {
                let code = ffi::avcodec_receive_packet(self.encoder.ptr(), self.packet.ptr());
                if code == ffi::AVERROR(ffi::EAGAIN) || code == ffi::AVERROR_EOF {
                    return Ok(());
                }
                check(code)?;
                let packet = self.packet.ptr();
                // The container takes the last frame's length from here.
                (*packet).duration = self.ticks_per_frame;
                (*packet).stream_index = 0;
                let stream = *(*self.output.0).streams;
                ffi::av_packet_rescale_ts(
                    packet,
                    (*self.encoder.ptr()).time_base,
                    (*stream).time_base,
                );
                check(ffi::av_interleaved_write_frame(self.output.0, packet))?;
                check((*(*self.output.0).pb).error)?;
            }
        }
    }

    fn close(&mut self) -> Result<(), String> {
        // SAFETY: encoder and container are alive; a null frame ends the stream.
        unsafe {
            check(ffi::avcodec_send_frame(self.encoder.ptr(), ptr::null()))?;
            self.drain()?;
            check(ffi::av_write_trailer(self.output.0))?;
            check((*(*self.output.0).pb).error)?;
        }
        check(self.output.close())
    }
}

impl Drop for OverlayWriter {
    fn drop(&mut self) {
        if !self.finished {
            self.output.close();
            // Nothing can be reported from here.
            let _ = std::fs::remove_file(&self.partial);
        }
    }
}

/// FFmpeg's name of the container that the ending stands for.
fn container_of(path: &Path) -> Result<&'static CStr, MediaError> {
    let ending = path
        .extension()
        .map(|ending| ending.to_string_lossy().to_lowercase());
    match ending.as_deref() {
        Some("mp4") => Ok(c"mp4"),
        Some("mov") => Ok(c"mov"),
        Some("mkv") => Ok(c"matroska"),
        other => Err(MediaError::OverlayFormat {
            path: path.to_owned(),
            ending: other.map_or("no ending at all".to_owned(), |ending| format!(".{ending}")),
        }),
    }
}

/// Ticks per second and per frame: whole numbers of both, so that a constant rate is exact.
fn clock((rate, per): (u32, u32)) -> (u32, i64) {
    const MAX_TICKS: u32 = 10_000_000;
    if rate > MAX_TICKS {
        let ticks = f64::from(MIN_TICKS) * f64::from(per) / f64::from(rate);
        return (MIN_TICKS, (ticks.round() as i64).max(1));
    }
    let times = MIN_TICKS.div_ceil(rate);
    (rate * times, i64::from(per) * i64::from(times))
}

/// Copies the frame, its last column and row repeated where `to` is larger than `from`, and leaves
/// room behind it: the scaler's vector code reads past the last pixel.
fn stage(rgb: &[u8], from: (u32, u32), to: (u32, u32), into: &mut Vec<u8>) {
    const ROOM: usize = 64;
    let row_bytes = from.0 as usize * 3;
    into.clear();
    into.reserve(to.0 as usize * to.1 as usize * 3 + ROOM);
    let add = |row: &[u8], into: &mut Vec<u8>| {
        into.extend_from_slice(row);
        if to.0 > from.0 {
            into.extend_from_slice(&row[row_bytes - 3..]);
        }
    };
    if to.0 == from.0 {
        into.extend_from_slice(rgb);
    } else {
        for row in rgb.chunks_exact(row_bytes) {
            add(row, into);
        }
    }
    if to.1 > from.1 {
        add(&rgb[rgb.len() - row_bytes..], into);
    }
    into.extend_from_slice(&[0; ROOM]);
}

type Parts = (Output, Codec, Packet, Picture);

fn start(
    url: &CString,
    container: &CStr,
    (width, height): (u32, u32),
    frame_rate: (u32, u32),
    ticks_per_second: u32,
) -> Result<Parts, String> {
    let memory = || "out of memory".to_owned();
    let number =
        |value: u32| c_int::try_from(value).map_err(|_| format!("{value} is too large a number"));
    let rate = ffi::AVRational {
        num: number(frame_rate.0)?,
        den: number(frame_rate.1)?,
    };
    let base = ffi::AVRational {
        num: 1,
        den: number(ticks_per_second)?,
    };
    // SAFETY: every object is owned from its allocation on, and every code and pointer is checked.
    unsafe {
        let mut context: *mut ffi::AVFormatContext = ptr::null_mut();
        check(ffi::avformat_alloc_output_context2(
            &raw mut context,
            ptr::null(),
            container.as_ptr(),
            url.as_ptr(),
        ))?;
        let output = Output(context);
        check(ffi::avio_open(
            &raw mut (*context).pb,
            url.as_ptr(),
            ffi::AVIO_FLAG_WRITE,
        ))?;

        let codec = ffi::avcodec_find_encoder_by_name(c"libx264".as_ptr());
        if codec.is_null() {
            return Err("the installed FFmpeg has no libx264 encoder".to_owned());
        }
        let encoder = Codec::own(ffi::avcodec_alloc_context3(codec)).ok_or_else(memory)?;
        let settings = encoder.ptr();
        (*settings).width = number(width + width % 2)?;
        (*settings).height = number(height + height % 2)?;
        (*settings).pix_fmt = ffi::AVPixelFormat::AV_PIX_FMT_YUV420P;
        (*settings).time_base = base;
        (*settings).framerate = rate;
        (*settings).color_range = ffi::AVColorRange::AVCOL_RANGE_MPEG;
        (*settings).colorspace = ffi::AVColorSpace::AVCOL_SPC_BT709;
        (*settings).color_primaries = ffi::AVColorPrimaries::AVCOL_PRI_BT709;
        (*settings).color_trc = ffi::AVColorTransferCharacteristic::AVCOL_TRC_BT709;
        (*settings).sample_aspect_ratio = ffi::AVRational { num: 1, den: 1 };
        if (*(*context).oformat).flags & ffi::AVFMT_GLOBALHEADER != 0 {
            (*settings).flags |= ffi::AV_CODEC_FLAG_GLOBAL_HEADER as c_int;
        }
        with_options(&[(c"preset", c"veryfast"), (c"crf", c"18")], |options| {
            ffi::avcodec_open2(settings, codec, options)
        })?;

        let stream = ffi::avformat_new_stream(context, ptr::null());
        if stream.is_null() {
            return Err(memory());
        }
        check(ffi::avcodec_parameters_from_context(
            (*stream).codecpar,
            settings,
        ))?;
        (*stream).time_base = base;
        (*stream).avg_frame_rate = rate;
        let faststart: &[(&CStr, &CStr)] = if container == c"matroska" {
            &[]
        } else {
            &[(c"movflags", c"+faststart")]
        };
        with_options(faststart, |options| {
            ffi::avformat_write_header(context, options)
        })?;

        let picture = Picture::new().ok_or_else(memory)?;
        let frame = picture.ptr();
        (*frame).format = ffi::AVPixelFormat::AV_PIX_FMT_YUV420P as c_int;
        (*frame).width = (*settings).width;
        (*frame).height = (*settings).height;
        (*frame).color_range = (*settings).color_range;
        (*frame).colorspace = (*settings).colorspace;
        (*frame).color_primaries = (*settings).color_primaries;
        (*frame).color_trc = (*settings).color_trc;
        check(ffi::av_frame_get_buffer(frame, 0))?;
        let packet = Packet::new().ok_or_else(memory)?;
        Ok((output, encoder, packet, picture))
    }
}

fn with_options(
    options: &[(&CStr, &CStr)],
    call: impl FnOnce(*mut *mut ffi::AVDictionary) -> c_int,
) -> Result<(), String> {
    let mut dictionary: *mut ffi::AVDictionary = ptr::null_mut();
    // SAFETY: keys and values are C strings, which FFmpeg copies; the dictionary is freed here.
    let code = unsafe {
        for (key, value) in options {
            ffi::av_dict_set(&raw mut dictionary, key.as_ptr(), value.as_ptr(), 0);
        }
        let code = call(&raw mut dictionary);
        ffi::av_dict_free(&raw mut dictionary);
        code
    };
    check(code)
}

fn check(code: c_int) -> Result<(), String> {
    if code < 0 {
        return Err(av::describe(code));
    }
    Ok(())
}
