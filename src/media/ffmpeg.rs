//! FFmpeg's messages, errors and paths, as the video reader and the overlay writer need them.
//!
//! FFmpeg reports many problems only in its log. The log is captured here instead of printed, and
//! the first error of each decoder and of each thread is kept for the caller.

use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::path::Path;
use std::sync::{Mutex, Once};

use ffmpeg_next::decoder::Opened;
use ffmpeg_next::{Error, ffi};

/// Prepares FFmpeg for the whole process, once: it prints nothing from then on.
pub(super) fn init() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // The texts of FFmpeg's error codes; without devices nothing else is set up, so it cannot fail.
        let _ = ffmpeg_next::init();
        #[cfg(not(target_arch = "x86_64"))]
        ffmpeg_next::log::set_level(ffmpeg_next::log::Level::Quiet);
        // SAFETY: the call sets one process-wide function pointer, to a function that lives forever.
        #[cfg(target_arch = "x86_64")]
        unsafe {
            ffi::av_log_set_callback(Some(keep_message))
        };
    });
}

type Slot = Mutex<Option<String>>;

thread_local! {
    static MESSAGE: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Takes the first error that FFmpeg logged on this thread since the last call.
pub(super) fn take_message() -> Option<String> {
    MESSAGE.with(|slot| slot.try_borrow_mut().ok()?.take())
}

/// FFmpeg's log callback: keeps errors in the slot of their decoder, or else of their thread.
///
/// # Safety
/// Only FFmpeg calls it, with arguments that belong together.
// Rust can pass the C `va_list` on only on x86-64.
#[cfg(target_arch = "x86_64")]
unsafe extern "C" fn keep_message(
    class: *mut c_void,
    level: c_int,
    format: *const c_char,
    arguments: *mut ffi::__va_list_tag,
) {
    if level > ffi::AV_LOG_ERROR {
        return;
    }
    let mut line = [0 as c_char; 400];
    let mut prefix: c_int = 0;
    // SAFETY: FFmpeg passes a format and its arguments; the line's length is given, and the text in
    // it ends with a zero byte. `class` is null or points to a struct that begins with a pointer to
    // its class. A struct of the class AVCodecContext is a codec's context; its `opaque` is null or
    // set by `DecoderMessages::attach`, whose slot outlives the decoder. A decoder's worker threads
    // log with copies of the context, which have the same `opaque`.
    let (text, slot) = unsafe {
        ffi::av_log_format_line2(
            class,
            level,
            format,
            arguments,
            line.as_mut_ptr(),
            line.len() as c_int,
            &raw mut prefix,
        );
        let text = CStr::from_ptr(line.as_ptr()).to_string_lossy();
        let kind = class.cast::<*const ffi::AVClass>().as_ref();
        let codec = kind
            .and_then(|kind| kind.as_ref())
            .is_some_and(|kind| CStr::from_ptr(kind.class_name) == c"AVCodecContext");
        let slot = if codec {
            let context = class.cast::<ffi::AVCodecContext>();
            (*context).opaque.cast::<Slot>().as_ref()
        } else {
            None
        };
        (text, slot)
    };
    let text = text.trim();
    if text.is_empty() {
        return;
    }
    if let Some(slot) = slot {
        if let Ok(mut first) = slot.lock() {
            first.get_or_insert_with(|| text.to_owned());
        }
        return;
    }
    // A thread that is ending has no slot any more, and no code reads the message.
    let _ = MESSAGE.try_with(|slot| {
        if let Ok(mut first) = slot.try_borrow_mut() {
            first.get_or_insert_with(|| text.to_owned());
        }
    });
}

/// The first error that one decoder logged, on any of its threads.
///
/// It must be dropped after the decoder that it is attached to.
pub(super) struct DecoderMessages(Box<Slot>);

impl DecoderMessages {
    /// Collects the decoder's errors from now on.
    pub(super) fn attach(decoder: &mut Opened) -> Self {
        let slot = Box::new(Mutex::new(None));
        // SAFETY: the decoder is alive, and FFmpeg leaves this field to its user.
        unsafe { (*decoder.as_mut_ptr()).opaque = (&raw const *slot).cast_mut().cast() };
        Self(slot)
    }

    /// Takes the first error since the last call.
    pub(super) fn take(&self) -> Option<String> {
        self.0.lock().ok()?.take()
    }
}

/// The text of an error, after the error that FFmpeg logged on this thread, if any.
pub(super) fn describe(error: Error) -> String {
    let text = error.to_string();
    match take_message() {
        Some(logged) if logged.contains(&text) => logged,
        Some(logged) => format!("{logged}; {text}"),
        None => text,
    }
}

/// Turns the status code of an FFmpeg call into its error.
///
/// # Errors
/// The code is negative.
pub(super) fn check(code: c_int) -> Result<(), Error> {
    if code < 0 {
        Err(Error::from(code))
    } else {
        Ok(())
    }
}

/// The path as an FFmpeg URL: the bytes of the path after `file:`, without which FFmpeg would take
/// the part before a `:` for a protocol. `None` if the path holds a zero byte.
pub(super) fn file_url(path: &Path) -> Option<CString> {
    use std::os::unix::ffi::OsStrExt;
    let mut url = b"file:".to_vec();
    url.extend_from_slice(path.as_os_str().as_bytes());
    CString::new(url).ok()
}
