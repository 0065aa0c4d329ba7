//! The thin, owning layer over FFmpeg's C interface that decoding and the overlay writer share.
//!
//! The safe wrapper is not used for opening and decoding: it panics on paths that are not UTF-8 and
//! hides the frame fields (best-effort times, error flags, side data) that are needed here.

use std::cell::RefCell;
use std::ffi::{CStr, CString, c_int};
use std::path::Path;
use std::sync::{Mutex, Once};

use ffmpeg_next::ffi;

/// Silences FFmpeg for the whole process, once; errors are kept for [`take_message`] instead.
pub fn init() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: both calls only set process-wide values, and the callback is a plain function.
        unsafe {
            #[cfg(target_arch = "x86_64")]
            ffi::av_log_set_callback(Some(keep_message));
            #[cfg(not(target_arch = "x86_64"))]
            ffi::av_log_set_level(ffi::AV_LOG_QUIET);
        }
    });
}

thread_local! {
    static MESSAGE: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// The first error that FFmpeg reported on this thread since the last call.
pub fn take_message() -> Option<String> {
    MESSAGE.with(|slot| slot.try_borrow_mut().ok()?.take())
}

// Only on x86-64 is the C `va_list` a type that Rust can pass on.
#[cfg(target_arch = "x86_64")]
unsafe extern "C" fn keep_message(
    class: *mut std::ffi::c_void,
    level: c_int,
    format: *const std::ffi::c_char,
    arguments: *mut ffi::__va_list_tag,
) {
    if level > ffi::AV_LOG_ERROR {
        return;
    }
    let mut line = [0 as std::ffi::c_char; 400];
    let mut prefix: c_int = 0;
    // SAFETY: FFmpeg passes a class, a format and its arguments that belong together; the buffer's
    // length is given, and the text in it ends with a zero byte.
    let text = unsafe {
        ffi::av_log_format_line2(
            class,
            level,
            format,
            arguments,
            line.as_mut_ptr(),
            line.len() as c_int,
            &raw mut prefix,
        );
        CStr::from_ptr(line.as_ptr())
            .to_string_lossy()
            .trim()
            .to_owned()
    };
    if text.is_empty() {
        return;
    }
    // SAFETY: what FFmpeg passes starts with a pointer to its class, or is null. A codec's context
    // has that class name, and its `opaque` is null or set by `Messages::attach`, whose mutex
    // outlives the codec. A codec's worker threads log with copies of the context.
    unsafe {
        let kind = class.cast::<*const ffi::AVClass>();
        if !kind.is_null()
            && !(*kind).is_null()
            && CStr::from_ptr((**kind).class_name) == c"AVCodecContext"
        {
            let slot = (*class.cast::<ffi::AVCodecContext>()).opaque;
            if let Some(slot) = slot.cast::<Mutex<Option<String>>>().as_ref() {
                if let Ok(mut slot) = slot.lock() {
                    slot.get_or_insert(text);
                }
                return;
            }
        }
    }
    // A thread that is ending has no slot any more; its message is then of no use.
    let _ = MESSAGE.try_with(|slot| {
        if let Ok(mut slot) = slot.try_borrow_mut()
            && slot.is_none()
        {
            *slot = Some(text);
        }
    });
}

/// The errors that a decoder reports, from whichever of its threads.
///
/// It must outlive the decoder that it is attached to.
pub struct Messages(Box<Mutex<Option<String>>>);

impl Messages {
    /// Collects what the decoder says from now on.
    pub fn attach(decoder: &Codec) -> Self {
        let slot = Box::new(Mutex::new(None));
        // SAFETY: the decoder is alive, and FFmpeg leaves this field to its user.
        unsafe { (*decoder.ptr()).opaque = (&raw const *slot).cast_mut().cast() };
        Self(slot)
    }

    /// The first error since the last call.
    pub fn take(&self) -> Option<String> {
        self.0.lock().ok()?.take()
    }
}

/// FFmpeg's text for an error code, after what it said itself on this thread, if anything.
pub fn describe(code: c_int) -> String {
    let mut buffer = [0 as std::ffi::c_char; ffi::AV_ERROR_MAX_STRING_SIZE];
    // SAFETY: the buffer's length is given; FFmpeg ends the text with a zero byte in any case.
    let text = unsafe {
        ffi::av_strerror(code, buffer.as_mut_ptr(), buffer.len());
        CStr::from_ptr(buffer.as_ptr()).to_string_lossy()
    };
    match take_message() {
        Some(said) if !said.contains(text.as_ref()) => format!("{said}; {text}"),
        Some(said) => said,
        None => text.into_owned(),
    }
}

/// The path as FFmpeg must get it: its bytes as they are, and a prefix without which a `:` in the
/// name would be taken for a protocol. `None` if the path holds a zero byte.
pub fn file_url(path: &Path) -> Option<CString> {
    use std::os::unix::ffi::OsStrExt;
    let mut url = b"file:".to_vec();
    url.extend_from_slice(path.as_os_str().as_bytes());
    CString::new(url).ok()
}

macro_rules! owner {
    ($(#[$doc:meta])* $name:ident, $of:ty, $free:path) => {
        $(#[$doc])*
        pub struct $name(*mut $of);

        impl $name {
            /// Takes ownership; `None` for a null pointer.
            ///
            /// # Safety
            /// The pointer comes from the matching FFmpeg allocation and nobody else frees it.
            pub unsafe fn own(pointer: *mut $of) -> Option<Self> {
                (!pointer.is_null()).then_some(Self(pointer))
            }

            /// The pointer, valid and not null as long as `self` lives.
            pub fn ptr(&self) -> *mut $of {
                self.0
            }
        }

        impl Drop for $name {
            fn drop(&mut self) {
                // SAFETY: the pointer is owned and freed only here.
                unsafe { $free(&raw mut self.0) }
            }
        }

        // SAFETY: FFmpeg's objects may move between threads; they are only used through the one
        // owner, never from two threads at once.
        unsafe impl Send for $name {}
    };
}

owner!(
    /// An opened input.
    Input,
    ffi::AVFormatContext,
    ffi::avformat_close_input
);
owner!(
    /// A decoder or encoder.
    Codec,
    ffi::AVCodecContext,
    ffi::avcodec_free_context
);
owner!(
    /// A reusable frame.
    Picture,
    ffi::AVFrame,
    ffi::av_frame_free
);
owner!(
    /// A reusable packet.
    Packet,
    ffi::AVPacket,
    ffi::av_packet_free
);
owner!(
    /// A filter graph.
    Graph,
    ffi::AVFilterGraph,
    ffi::avfilter_graph_free
);

impl Picture {
    /// A frame without buffers; `None` when out of memory.
    pub fn new() -> Option<Self> {
        // SAFETY: the new frame is owned by nobody else.
        unsafe { Self::own(ffi::av_frame_alloc()) }
    }
}

impl Packet {
    /// An empty packet; `None` when out of memory.
    pub fn new() -> Option<Self> {
        // SAFETY: the new packet is owned by nobody else.
        unsafe { Self::own(ffi::av_packet_alloc()) }
    }
}
