//! Video files: the frames that `ffmpeg -i IN -fps_mode passthrough -autoscale 0 -pix_fmt rgb24`
//! writes, byte for byte, each with its presentation time.
//!
//! The order of calls follows the FFmpeg command (5.1): which stream it picks, what it does with
//! damaged packets, and that it goes on after them.

use std::ffi::{CStr, c_int};
use std::path::{Path, PathBuf};
use std::ptr;
use std::time::Duration;

use ffmpeg_next::ffi;

use super::av::{self, Codec, Input, Messages, Packet, Picture};
use super::convert::Converter;
use super::input::open_regular;
use super::{Damage, Frame, FrameSource, MediaError, SourceInfo, SourceKind};

/// A decoder that reports nothing but errors while it drains is given up after this many.
const MAX_DRAIN_ERRORS: u32 = 1000;

/// Decodes the frames of one video file.
pub struct VideoSource {
    info: SourceInfo,
    decoding: Decoding,
    converter: Option<Converter>,
    first: Option<Frame>,
    delivered: usize,
}

impl VideoSource {
    /// Opens the file and decodes its first frame, whose size after rotation is in the info.
    ///
    /// # Errors
    /// The file cannot be opened, has no video stream or no decoder for it, or not one frame of it
    /// decodes.
    pub fn open(path: &Path) -> Result<Self, MediaError> {
        let decoding = Decoding::open(path)?;
        let mut source = Self {
            info: SourceInfo {
                path: path.to_owned(),
                kind: SourceKind::Video,
                width: 0,
                height: 0,
                frame_rate: decoding.frame_rate(),
                frames_hint: None,
                notes: Vec::new(),
            },
            decoding,
            converter: None,
            first: None,
            delivered: 0,
        };
        source.info.frames_hint = source.decoding.frames_hint(source.info.frame_rate);
        let Some(first) = source.decode()? else {
            return Err(source.decoding.no_frame());
        };
        source.info.width = first.width;
        source.info.height = first.height;
        source.first = Some(first);
        Ok(source)
    }

    fn decode(&mut self) -> Result<Option<Frame>, MediaError> {
        if !self.decoding.next_picture() {
            return Ok(None);
        }
        let index = self.delivered;
        let failed = |detail| MediaError::Convert {
            path: self.info.path.clone(),
            frame: index,
            detail,
        };
        let pts_s = self.decoding.picture_time();
        let picture = &self.decoding.picture;
        let rebuild = match &self.converter {
            Some(converter) => !converter.fits(picture),
            None => true,
        };
        if rebuild {
            // The old graph goes first: two graphs of 4K frames at once would be waste.
            self.converter = None;
            self.converter = Some(
                Converter::new(self.decoding.input.ptr(), self.decoding.stream, picture)
                    .map_err(failed)?,
            );
        }
        let Some(converter) = &mut self.converter else {
            return Err(failed("no conversion to RGB".to_owned()));
        };
        let (width, height, rgb) = converter.convert(picture).map_err(failed)?;
        self.delivered += 1;
        Ok(Some(Frame {
            index,
            width,
            height,
            rgb,
            pts_s,
        }))
    }
}

impl FrameSource for VideoSource {
    fn info(&self) -> &SourceInfo {
        &self.info
    }

    fn next_frame(&mut self) -> Result<Option<Frame>, MediaError> {
        match self.first.take() {
            Some(frame) => Ok(Some(frame)),
            None => self.decode(),
        }
    }

    fn damage(&self) -> Damage {
        self.decoding.damage.clone()
    }
}

/// Decodes at most `limit` frames, without converting them, and says how many there are.
///
/// # Errors
/// As [`VideoSource::open`].
pub fn count_frames_up_to(path: &Path, limit: usize) -> Result<usize, MediaError> {
    let mut decoding = Decoding::open(path)?;
    let mut count = 0;
    while count < limit && decoding.next_picture() {
        count += 1;
    }
    if count == 0 && limit > 0 {
        return Err(decoding.no_frame());
    }
    Ok(count)
}

#[derive(PartialEq)]
enum Stage {
    Reading,
    Draining,
    Ended,
}

struct Decoding {
    path: PathBuf,
    // Freed before the input, whose stream it was made from.
    decoder: Codec,
    // Freed after the decoder, which writes to it.
    messages: Messages,
    input: Input,
    stream: usize,
    packet: Packet,
    picture: Picture,
    stage: Stage,
    // The decoder may hold more frames of what it was last given.
    pending: bool,
    drain_errors: u32,
    packets_read: u64,
    damage: Damage,
}

impl Decoding {
    fn open(path: &Path) -> Result<Self, MediaError> {
        av::init();
        av::take_message();
        // Asked first, since FFmpeg's own words for a missing permission name no cause.
        open_regular(path)?;
        let input = open_input(path)?;
        let stream = pick_stream(path, &input)?;
        let decoder = open_decoder(path, &input, stream)?;
        let memory = || MediaError::NotVideo {
            path: path.to_owned(),
            detail: "out of memory".to_owned(),
        };
        Ok(Self {
            path: path.to_owned(),
            messages: Messages::attach(&decoder),
            decoder,
            input,
            stream,
            packet: Packet::new().ok_or_else(memory)?,
            picture: Picture::new().ok_or_else(memory)?,
            stage: Stage::Reading,
            pending: false,
            drain_errors: 0,
            packets_read: 0,
            damage: Damage::default(),
        })
    }

    fn stream(&self) -> *mut ffi::AVStream {
        // SAFETY: the index was taken from this context, whose streams live as long as it does.
        unsafe { *(*self.input.ptr()).streams.add(self.stream) }
    }

    fn frame_rate(&self) -> (u32, u32) {
        // SAFETY: stream and context are alive; the call only reads them.
        let (average, guessed) = unsafe {
            let stream = self.stream();
            (
                (*stream).avg_frame_rate,
                ffi::av_guess_frame_rate(self.input.ptr(), stream, ptr::null_mut()),
            )
        };
        [average, guessed]
            .into_iter()
            .find_map(
                |rate| match (u32::try_from(rate.num), u32::try_from(rate.den)) {
                    (Ok(num), Ok(den)) if num > 0 && den > 0 => Some((num, den)),
                    _ => None,
                },
            )
            .unwrap_or((25, 1))
    }

    fn frames_hint(&self, rate: (u32, u32)) -> Option<u64> {
        // SAFETY: stream and context are alive; the fields are plain numbers.
        let (counted, seconds) = unsafe {
            let stream = self.stream();
            let seconds = if (*stream).duration > 0 {
                (*stream).duration as f64 * to_f64((*stream).time_base)
            } else {
                (*self.input.ptr()).duration as f64 / f64::from(ffi::AV_TIME_BASE)
            };
            ((*stream).nb_frames, seconds)
        };
        if counted > 0 {
            return u64::try_from(counted).ok();
        }
        let frames = (seconds * f64::from(rate.0) / f64::from(rate.1)).round();
        (frames >= 1.0).then_some(frames as u64)
    }

    fn no_frame(&self) -> MediaError {
        let said = self
            .damage
            .first_error
            .clone()
            .unwrap_or_else(|| "the video stream holds no frames".to_owned());
        MediaError::NoFrame {
            path: self.path.clone(),
            detail: format!("{} packets read; {said}", self.packets_read),
        }
    }

    fn picture_time(&self) -> Option<f64> {
        // SAFETY: picture and stream are alive; the fields are plain numbers.
        unsafe {
            let time = (*self.picture.ptr()).best_effort_timestamp;
            (time != ffi::AV_NOPTS_VALUE).then(|| time as f64 * to_f64((*self.stream()).time_base))
        }
    }

    /// Decodes the next frame into `self.picture`; false at the end.
    fn next_picture(&mut self) -> bool {
        while self.stage != Stage::Ended {
            if self.pending {
                if self.receive() {
                    return true;
                }
            } else {
                self.feed();
            }
        }
        false
    }

    fn receive(&mut self) -> bool {
        // SAFETY: decoder and picture are alive; FFmpeg releases what the picture held before.
        let code = unsafe { ffi::avcodec_receive_frame(self.decoder.ptr(), self.picture.ptr()) };
        if code >= 0 {
            self.drain_errors = 0;
            // SAFETY: the picture was filled just now; the fields are plain numbers.
            let damaged = unsafe {
                (*self.picture.ptr()).decode_error_flags != 0
                    || (*self.picture.ptr()).flags & ffi::AV_FRAME_FLAG_CORRUPT != 0
            };
            // Some decoders only say it. What a camera puts beside the picture is no damage.
            let said = self
                .messages
                .take()
                .filter(|said| !said.contains("APP fields"));
            if damaged || said.is_some() {
                self.damage.frames += 1;
                self.note(
                    said.unwrap_or_else(|| "the decoder marked a frame as damaged".to_owned()),
                );
            }
            return true;
        }
        if code == ffi::AVERROR_EOF {
            self.stage = Stage::Ended;
        } else if self.stage == Stage::Draining {
            self.drain_errors += 1;
            if code != ffi::AVERROR(ffi::EAGAIN) {
                self.packet_error(code);
            }
            if self.drain_errors > MAX_DRAIN_ERRORS {
                self.stage = Stage::Ended;
            }
        } else {
            self.pending = false;
            if code != ffi::AVERROR(ffi::EAGAIN) {
                self.packet_error(code);
            }
        }
        false
    }

    fn feed(&mut self) {
        // SAFETY: input, packet and decoder are alive, and the packet is released before it is
        // filled again.
        unsafe {
            ffi::av_packet_unref(self.packet.ptr());
            av::take_message();
            let code = ffi::av_read_frame(self.input.ptr(), self.packet.ptr());
            if code == ffi::AVERROR(ffi::EAGAIN) {
                std::thread::sleep(Duration::from_millis(10));
                return;
            }
            if code < 0 && code != ffi::AVERROR_EOF {
                self.packet_error(code);
            } else if let Some(said) = av::take_message() {
                // A demuxer that finds its way again after damage says so only in its messages.
                self.damage.packets += 1;
                self.note(said);
            }
            if code < 0 {
                self.stage = Stage::Draining;
                self.pending = true;
                ffi::avcodec_send_packet(self.decoder.ptr(), ptr::null());
                return;
            }
            if (*self.packet.ptr()).stream_index as usize != self.stream {
                return;
            }
            self.packets_read += 1;
            if self.packets_read == 1 {
                self.copy_stream_side_data();
            }
            let marked = (*self.packet.ptr()).flags & ffi::AV_PKT_FLAG_CORRUPT != 0;
            if marked {
                let said = av::take_message()
                    .unwrap_or_else(|| "the container marked a packet as damaged".to_owned());
                self.damage.packets += 1;
                self.note(said);
            }
            let code = ffi::avcodec_send_packet(self.decoder.ptr(), self.packet.ptr());
            if code < 0 && code != ffi::AVERROR_EOF {
                if !marked {
                    self.packet_error(code);
                }
            } else {
                self.pending = true;
            }
        }
    }

    /// Some decoders take a stream's side data only from packets. The display matrix stays with
    /// the stream: in a frame it would count as a change of geometry.
    fn copy_stream_side_data(&mut self) {
        // SAFETY: the stream's side data is an array of the stated length, each of the stated
        // size, and the packet's new side data has that size too.
        unsafe {
            let stream = self.stream();
            for i in 0..usize::try_from((*stream).nb_side_data).unwrap_or(0) {
                let source = (*stream).side_data.add(i);
                let kind = (*source).type_;
                if kind == ffi::AVPacketSideDataType::AV_PKT_DATA_DISPLAYMATRIX
                    || !ffi::av_packet_get_side_data(self.packet.ptr(), kind, ptr::null_mut())
                        .is_null()
                {
                    continue;
                }
                let target = ffi::av_packet_new_side_data(self.packet.ptr(), kind, (*source).size);
                if !target.is_null() {
                    ptr::copy_nonoverlapping((*source).data, target, (*source).size);
                }
            }
        }
    }

    fn packet_error(&mut self, code: c_int) {
        self.damage.packets += 1;
        let code = av::describe(code);
        let said = match self.messages.take() {
            Some(said) => format!("{said}; {code}"),
            None => code,
        };
        self.note(said);
    }

    fn note(&mut self, said: String) {
        if self.damage.first_error.is_none() {
            self.damage.first_error = Some(format!("packet {}: {said}", self.packets_read));
        }
    }
}

fn to_f64(rational: ffi::AVRational) -> f64 {
    f64::from(rational.num) / f64::from(rational.den)
}

fn open_input(path: &Path) -> Result<Input, MediaError> {
    let not_video = |detail: String| MediaError::NotVideo {
        path: path.to_owned(),
        detail,
    };
    let url = av::file_url(path).ok_or_else(|| not_video("the path holds a zero byte".into()))?;
    let mut context: *mut ffi::AVFormatContext = ptr::null_mut();
    // SAFETY: the URL is a C string; on failure FFmpeg leaves the context null and has freed it.
    unsafe {
        let mut options: *mut ffi::AVDictionary = ptr::null_mut();
        ffi::av_dict_set(
            &raw mut options,
            c"scan_all_pmts".as_ptr(),
            c"1".as_ptr(),
            0,
        );
        let code = ffi::avformat_open_input(
            &raw mut context,
            url.as_ptr(),
            ptr::null(),
            &raw mut options,
        );
        ffi::av_dict_free(&raw mut options);
        if code < 0 {
            return Err(not_video(av::describe(code)));
        }
        let input = Input::own(context).ok_or_else(|| not_video("out of memory".into()))?;
        if CStr::from_ptr((*(*context).iformat).name) == c"tty" {
            return Err(not_video("it is a text file".into()));
        }
        let code = ffi::avformat_find_stream_info(context, ptr::null_mut());
        if code < 0 && (*context).nb_streams == 0 {
            return Err(not_video(av::describe(code)));
        }
        Ok(input)
    }
}

/// The stream that the FFmpeg command takes: the largest picture, with a bonus for streams that
/// had packets while probing and for the default stream. Cover pictures of audio do not count.
fn pick_stream(path: &Path, input: &Input) -> Result<usize, MediaError> {
    // SAFETY: the context is alive and its array of streams has the stated length.
    unsafe {
        let context = input.ptr();
        let count = (*context).nb_streams as usize;
        let mut best: Option<(usize, i64)> = None;
        let mut found: Vec<&str> = Vec::new();
        for i in 0..count {
            let stream = *(*context).streams.add(i);
            let parameters = (*stream).codecpar;
            // The command reads no packet of the streams that it does not decode.
            (*stream).discard = ffi::AVDiscard::AVDISCARD_ALL;
            let cover = (*stream).disposition & ffi::AV_DISPOSITION_ATTACHED_PIC != 0;
            let kind = match (*parameters).codec_type {
                ffi::AVMediaType::AVMEDIA_TYPE_VIDEO if cover => "a cover picture",
                ffi::AVMediaType::AVMEDIA_TYPE_VIDEO => "video",
                ffi::AVMediaType::AVMEDIA_TYPE_AUDIO => "audio",
                ffi::AVMediaType::AVMEDIA_TYPE_SUBTITLE => "subtitles",
                _ => "data",
            };
            if kind != "video" {
                if !found.contains(&kind) {
                    found.push(kind);
                }
                continue;
            }
            let mut score = i64::from((*parameters).width) * i64::from((*parameters).height);
            if (*stream).event_flags & ffi::AVSTREAM_EVENT_FLAG_NEW_PACKETS != 0 {
                score += 100_000_000;
            }
            if (*stream).disposition & ffi::AV_DISPOSITION_DEFAULT != 0 {
                score += 5_000_000;
            }
            if best.is_none_or(|(_, least)| score > least) {
                best = Some((i, score));
            }
        }
        if let Some((index, _)) = best {
            (*(*(*context).streams.add(index))).discard = ffi::AVDiscard::AVDISCARD_NONE;
            return Ok(index);
        }
        if found.is_empty() {
            return Err(MediaError::NotVideo {
                path: path.to_owned(),
                detail: av::take_message().unwrap_or_else(|| "it holds no streams".to_owned()),
            });
        }
        Err(MediaError::NoVideoStream {
            path: path.to_owned(),
            found: found.join(" and "),
        })
    }
}

fn open_decoder(path: &Path, input: &Input, stream: usize) -> Result<Codec, MediaError> {
    let not_video = |detail: String| MediaError::NotVideo {
        path: path.to_owned(),
        detail,
    };
    // SAFETY: context, stream and parameters are alive; the decoder is owned from its allocation
    // on, and the options dictionary is freed on every way out.
    unsafe {
        let stream = *(*input.ptr()).streams.add(stream);
        let parameters = (*stream).codecpar;
        let codec = ffi::avcodec_find_decoder((*parameters).codec_id);
        if codec.is_null() {
            return Err(MediaError::NoDecoder {
                path: path.to_owned(),
                codec: codec_name(&*parameters),
            });
        }
        let decoder = Codec::own(ffi::avcodec_alloc_context3(codec))
            .ok_or_else(|| not_video("out of memory".into()))?;
        let context = decoder.ptr();
        let code = ffi::avcodec_parameters_to_context(context, parameters);
        if code < 0 {
            return Err(not_video(av::describe(code)));
        }
        (*context).pkt_timebase = (*stream).time_base;
        (*context).framerate = (*stream).avg_frame_rate;
        let mut options: *mut ffi::AVDictionary = ptr::null_mut();
        ffi::av_dict_set(&raw mut options, c"threads".as_ptr(), c"auto".as_ptr(), 0);
        let code = ffi::avcodec_open2(context, codec, &raw mut options);
        ffi::av_dict_free(&raw mut options);
        if code < 0 {
            let codec = codec_name(&*parameters);
            return Err(not_video(format!(
                "the decoder for {codec} does not start: {}",
                av::describe(code)
            )));
        }
        Ok(decoder)
    }
}

fn codec_name(parameters: &ffi::AVCodecParameters) -> String {
    if parameters.codec_id == ffi::AVCodecID::AV_CODEC_ID_NONE {
        let tag: String = parameters
            .codec_tag
            .to_le_bytes()
            .iter()
            .map(|byte| char::from(*byte).escape_default().to_string())
            .collect();
        return format!("with the tag '{tag}'");
    }
    // SAFETY: FFmpeg returns a static C string for every id.
    unsafe {
        CStr::from_ptr(ffi::avcodec_get_name(parameters.codec_id))
            .to_string_lossy()
            .into_owned()
    }
}
