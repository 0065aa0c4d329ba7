//! Video files: the frames that `ffmpeg -i IN -fps_mode passthrough -autoscale 0 -pix_fmt rgb24`
//! writes, byte for byte, each with its presentation time.
//!
//! The order of calls follows the FFmpeg command (5.1): which stream it decodes, what it does with
//! damaged packets, and that it goes on after them.

use std::path::{Path, PathBuf};
use std::ptr;
use std::time::Duration;

use ffmpeg_next::codec::packet::{self, Mut as _};
use ffmpeg_next::decoder::{self, Opened};
use ffmpeg_next::error::EAGAIN;
use ffmpeg_next::format::context::Input;
use ffmpeg_next::format::stream::Disposition;
use ffmpeg_next::frame::Video;
use ffmpeg_next::{Dictionary, Error, Packet, Rational, Stream, codec, ffi, media};

use super::ffmpeg::{self, DecoderMessages};
use super::filters::RgbConverter;
use super::input::open_regular;
use super::{Damage, Frame, FrameSource, MediaError, SourceInfo, SourceKind};

/// A decoder that reports nothing but errors while it drains is given up after this many.
const MAX_DRAIN_ERRORS: u32 = 1000;

const TRY_AGAIN: Error = Error::Other { errno: EAGAIN };

/// Decodes the frames of one video file.
pub struct VideoSource {
    info: SourceInfo,
    decoding: Decoding,
    converter: Option<RgbConverter>,
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
                frame_rate: decoding.frame_rate,
                frames_hint: decoding.frames_hint(),
                notes: Vec::new(),
            },
            decoding,
            converter: None,
            first: None,
            delivered: 0,
        };
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
        let pts_s = self.decoding.picture_time();
        let (width, height, rgb) = self.convert().map_err(|detail| MediaError::Convert {
            path: self.info.path.clone(),
            frame: index,
            detail,
        })?;
        self.delivered += 1;
        Ok(Some(Frame {
            index,
            width,
            height,
            rgb,
            pts_s,
        }))
    }

    /// Width, height and RGB bytes of the decoded picture, which is empty afterwards.
    fn convert(&mut self) -> Result<(u32, u32, Vec<u8>), String> {
        let picture = &self.decoding.picture;
        let kept = self.converter.take_if(|converter| converter.fits(picture));
        let converter = match kept {
            Some(converter) => converter,
            None => {
                // The old graph goes first: two graphs of 4K frames at once would waste memory.
                self.converter = None;
                let stream = self.decoding.stream().ok_or("the stream is gone")?;
                RgbConverter::new(&stream, picture)?
            }
        };
        let converter = self.converter.insert(converter);
        converter.convert(&mut self.decoding.picture)
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

/// Decodes at most `limit` frames, without converting them, and returns how many there are.
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

/// One stream on its way from packets to decoded pictures.
struct Decoding {
    path: PathBuf,
    decoder: Opened,
    // Dropped after the decoder, which writes to it.
    messages: DecoderMessages,
    input: Input,
    stream_index: usize,
    /// Frames per second as a fraction.
    frame_rate: (u32, u32),
    picture: Video,
    stage: Stage,
    /// Whether the decoder may hold more pictures of the packets that it got.
    pending: bool,
    drain_errors: u32,
    packets_read: u64,
    damage: Damage,
}

impl Decoding {
    fn open(path: &Path) -> Result<Self, MediaError> {
        ffmpeg::init();
        ffmpeg::take_message();
        // Checked first, since FFmpeg's message for a missing permission names no cause.
        open_regular(path)?;
        let mut input = open_input(path)?;
        let (stream_index, facts) = pick_stream(path, &mut input)?;
        let not_video = || MediaError::NotVideo {
            path: path.to_owned(),
            detail: "its stream is gone".to_owned(),
        };
        let stream = input.stream(stream_index).ok_or_else(not_video)?;
        let mut decoder = open_decoder(path, &stream, facts.codec_tag)?;
        Ok(Self {
            path: path.to_owned(),
            messages: DecoderMessages::attach(&mut decoder),
            decoder,
            frame_rate: [stream.avg_frame_rate(), facts.guessed_rate]
                .into_iter()
                .find_map(positive)
                .unwrap_or((25, 1)),
            input,
            stream_index,
            picture: Video::empty(),
            stage: Stage::Reading,
            pending: false,
            drain_errors: 0,
            packets_read: 0,
            damage: Damage::default(),
        })
    }

    fn stream(&self) -> Option<Stream<'_>> {
        self.input.stream(self.stream_index)
    }

    fn frames_hint(&self) -> Option<u64> {
        let stream = self.stream()?;
        if stream.frames() > 0 {
            return u64::try_from(stream.frames()).ok();
        }
        let seconds = if stream.duration() > 0 {
            stream.duration() as f64 * f64::from(stream.time_base())
        } else {
            self.input.duration() as f64 / f64::from(ffi::AV_TIME_BASE)
        };
        let (frames, per_seconds) = self.frame_rate;
        let count = (seconds * f64::from(frames) / f64::from(per_seconds)).round();
        (count >= 1.0).then_some(count as u64)
    }

    fn no_frame(&self) -> MediaError {
        let reason = self
            .damage
            .first_error
            .clone()
            .unwrap_or_else(|| "the video stream holds no frames".to_owned());
        MediaError::NoFrame {
            path: self.path.clone(),
            detail: format!("{} packets read; {reason}", self.packets_read),
        }
    }

    /// The presentation time of the decoded picture, in seconds.
    fn picture_time(&self) -> Option<f64> {
        let time = self.picture.timestamp()?;
        Some(time as f64 * f64::from(self.stream()?.time_base()))
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
        let error = match self.decoder.receive_frame(&mut self.picture) {
            Ok(()) => {
                self.note_damaged_picture();
                return true;
            }
            Err(Error::Eof) => {
                self.stage = Stage::Ended;
                return false;
            }
            Err(error) => error,
        };
        if error != TRY_AGAIN {
            self.packet_error(error);
        }
        if self.stage == Stage::Draining {
            self.drain_errors += 1;
            if self.drain_errors > MAX_DRAIN_ERRORS {
                self.stage = Stage::Ended;
            }
        } else {
            self.pending = false;
        }
        false
    }

    fn note_damaged_picture(&mut self) {
        self.drain_errors = 0;
        let marked = self.picture.has_decode_errors() || self.picture.is_corrupt();
        // Some decoders report damage only in the log. Unknown JPEG APP fields, which cameras write,
        // are no damage.
        let logged = self
            .messages
            .take()
            .filter(|message| !message.contains("APP fields"));
        if marked || logged.is_some() {
            self.damage.frames += 1;
            self.note(logged.unwrap_or_else(|| "the decoder marked a frame as damaged".to_owned()));
        }
    }

    /// Reads the next packet and gives it to the decoder if it is of the stream.
    fn feed(&mut self) {
        ffmpeg::take_message();
        let mut packet = Packet::empty();
        let read = packet.read(&mut self.input);
        match read {
            Err(TRY_AGAIN) => {
                std::thread::sleep(Duration::from_millis(10));
                return;
            }
            Ok(()) | Err(Error::Eof) => {
                // A demuxer that finds its way again after damage reports that only in the log.
                if let Some(logged) = ffmpeg::take_message() {
                    self.damage.packets += 1;
                    self.note(logged);
                }
            }
            Err(error) => self.packet_error(error),
        }
        if read.is_err() {
            self.stage = Stage::Draining;
            self.pending = true;
            // A decoder that refuses to drain says so again when it is asked for a picture.
            let _ = self.decoder.send_eof();
            return;
        }
        if packet.stream() == self.stream_index {
            self.send(packet);
        }
    }

    fn send(&mut self, mut packet: Packet) {
        self.packets_read += 1;
        if self.packets_read == 1 {
            self.copy_stream_side_data(&mut packet);
        }
        let marked = packet.is_corrupt();
        if marked {
            self.damage.packets += 1;
            let logged = ffmpeg::take_message();
            self.note(
                logged.unwrap_or_else(|| "the container marked a packet as damaged".to_owned()),
            );
        }
        match self.decoder.send_packet(&packet) {
            Ok(()) | Err(Error::Eof) => self.pending = true,
            // Counted already.
            Err(_) if marked => {}
            Err(error) => self.packet_error(error),
        }
    }

    /// Adds the stream's side data to its first packet: some decoders take it only from packets.
    /// The display matrix stays with the stream: in a frame it would count as a change of geometry.
    fn copy_stream_side_data(&self, packet: &mut Packet) {
        let Some(stream) = self.stream() else { return };
        for side in stream.side_data() {
            let kind = side.kind();
            if kind == packet::side_data::Type::DisplayMatrix
                || packet.side_data().any(|own| own.kind() == kind)
            {
                continue;
            }
            let data = side.data();
            // SAFETY: the packet is alive, and its new side data has the size of the copied data.
            unsafe {
                let target =
                    ffi::av_packet_new_side_data(packet.as_mut_ptr(), kind.into(), data.len());
                if !target.is_null() {
                    ptr::copy_nonoverlapping(data.as_ptr(), target, data.len());
                }
            }
        }
    }

    fn packet_error(&mut self, error: Error) {
        self.damage.packets += 1;
        let text = ffmpeg::describe(error);
        self.note(match self.messages.take() {
            Some(logged) => format!("{logged}; {text}"),
            None => text,
        });
    }

    fn note(&mut self, message: String) {
        let packet = self.packets_read;
        self.damage
            .first_error
            .get_or_insert_with(|| format!("packet {packet}: {message}"));
    }
}

fn positive(rate: Rational) -> Option<(u32, u32)> {
    let part = |value: i32| u32::try_from(value).ok().filter(|value| *value > 0);
    Some((part(rate.numerator())?, part(rate.denominator())?))
}

/// Opens a file by the bytes of its path. The wrapper's own functions panic on a path that is not
/// UTF-8, and refuse a file whose streams lack parameters, which the FFmpeg command decodes.
fn open_input(path: &Path) -> Result<Input, MediaError> {
    let not_video = |detail: String| MediaError::NotVideo {
        path: path.to_owned(),
        detail,
    };
    let failed = |error| not_video(ffmpeg::describe(error));
    let url =
        ffmpeg::file_url(path).ok_or_else(|| not_video("the path holds a zero byte".into()))?;
    let options = Dictionary::from_iter([("scan_all_pmts", "1")]);
    let mut context: *mut ffi::AVFormatContext = ptr::null_mut();
    // SAFETY: the URL is a C string. A context that does not open is freed by FFmpeg; the wrapper
    // owns one that does. The dictionary is given back to its owner, whatever the call made of it.
    let (input, probed) = unsafe {
        let mut options = options.disown();
        let opened = ffi::avformat_open_input(
            &raw mut context,
            url.as_ptr(),
            ptr::null(),
            &raw mut options,
        );
        drop(Dictionary::own(options));
        ffmpeg::check(opened).map_err(failed)?;
        let input = Input::wrap(context);
        if input.format().name() == "tty" {
            return Err(not_video("it is a text file".into()));
        }
        let probed = ffi::avformat_find_stream_info(context, ptr::null_mut());
        (input, ffmpeg::check(probed))
    };
    match probed {
        Err(error) if input.nb_streams() == 0 => Err(failed(error)),
        _ => Ok(input),
    }
}

/// What the wrapper does not tell about a stream.
struct StreamFacts {
    width: i32,
    height: i32,
    /// The container's four bytes for the codec.
    codec_tag: u32,
    /// Whether packets of the stream were found while the file was probed.
    has_packets: bool,
    guessed_rate: Rational,
}

/// Finds the stream that the FFmpeg command decodes: the largest picture, with a bonus for streams
/// that had packets while the file was probed and for the default stream. Cover pictures of audio
/// files are left out. The other streams are not read from then on, as the command does it.
fn pick_stream(path: &Path, input: &mut Input) -> Result<(usize, StreamFacts), MediaError> {
    let mut best: Option<(i64, usize, StreamFacts)> = None;
    let mut found: Vec<&str> = Vec::new();
    for stream in input.streams() {
        let cover = stream.disposition().contains(Disposition::ATTACHED_PIC);
        let kind = match stream.parameters().medium() {
            media::Type::Video if cover => "a cover picture",
            media::Type::Video => "video",
            media::Type::Audio => "audio",
            media::Type::Subtitle => "subtitles",
            _ => "data",
        };
        if kind != "video" {
            if !found.contains(&kind) {
                found.push(kind);
            }
            continue;
        }
        let facts = facts(input, &stream);
        let mut score = i64::from(facts.width) * i64::from(facts.height);
        if facts.has_packets {
            score += 100_000_000;
        }
        if stream.disposition().contains(Disposition::DEFAULT) {
            score += 5_000_000;
        }
        if best.as_ref().is_none_or(|(highest, ..)| score > *highest) {
            best = Some((score, stream.index(), facts));
        }
    }
    if let Some((_, index, facts)) = best {
        read_only(input, index);
        return Ok((index, facts));
    }
    if found.is_empty() {
        return Err(MediaError::NotVideo {
            path: path.to_owned(),
            detail: ffmpeg::take_message().unwrap_or_else(|| "it holds no streams".to_owned()),
        });
    }
    Err(MediaError::NoVideoStream {
        path: path.to_owned(),
        found: found.join(" and "),
    })
}

fn facts(input: &Input, stream: &Stream<'_>) -> StreamFacts {
    // SAFETY: input, stream and parameters are alive; guessing a rate changes neither.
    unsafe {
        let pointer = stream.as_ptr();
        let parameters = (*pointer).codecpar;
        StreamFacts {
            width: (*parameters).width,
            height: (*parameters).height,
            codec_tag: (*parameters).codec_tag,
            has_packets: (*pointer).event_flags & ffi::AVSTREAM_EVENT_FLAG_NEW_PACKETS != 0,
            guessed_rate: ffi::av_guess_frame_rate(
                input.as_ptr().cast_mut(),
                pointer.cast_mut(),
                ptr::null_mut(),
            )
            .into(),
        }
    }
}

/// Makes the demuxer skip the packets of every stream but one.
fn read_only(input: &mut Input, index: usize) {
    for mut stream in input.streams_mut() {
        let discard = if stream.index() == index {
            ffi::AVDiscard::AVDISCARD_NONE
        } else {
            ffi::AVDiscard::AVDISCARD_ALL
        };
        // SAFETY: the stream is alive, and FFmpeg leaves this field to its user.
        unsafe { (*stream.as_mut_ptr()).discard = discard };
    }
}

fn open_decoder(path: &Path, stream: &Stream<'_>, codec_tag: u32) -> Result<Opened, MediaError> {
    let not_video = |detail: String| MediaError::NotVideo {
        path: path.to_owned(),
        detail,
    };
    let id = stream.parameters().id();
    let name = match id {
        codec::Id::None => format!("with the tag '{}'", codec_tag.to_le_bytes().escape_ascii()),
        _ => id.name().to_owned(),
    };
    let Some(codec) = decoder::find(id) else {
        return Err(MediaError::NoDecoder {
            path: path.to_owned(),
            codec: name,
        });
    };
    let mut context = codec::Context::new_with_codec(codec);
    context
        .set_parameters(stream.parameters())
        .map_err(|error| not_video(ffmpeg::describe(error)))?;
    context.set_frame_rate(Some(stream.avg_frame_rate()));
    let mut decoder = context.decoder();
    decoder.set_packet_time_base(stream.time_base());
    decoder
        .open_as_with(codec, Dictionary::from_iter([("threads", "auto")]))
        .map_err(|error| {
            not_video(format!(
                "the decoder for {name} does not start: {}",
                ffmpeg::describe(error)
            ))
        })
}
