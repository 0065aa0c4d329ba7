//! Ctrl-C and SIGTERM: the first ends a run in order, the second at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use anyhow::{Context as _, Result};

use super::{EXIT_FAILED, complain};
use crate::output::Unfinished;
use crate::session::Stop;

const PREPARING: u8 = 0;
const TRACKING: u8 = 1;
const ASKED: u8 = 2;

/// Takes signals, and turns the first one during a run into a request to stop.
#[derive(Debug, Clone)]
pub(super) struct Interrupt {
    state: Arc<AtomicU8>,
    stop: Stop,
}

impl Interrupt {
    /// Takes over SIGINT, SIGTERM and SIGHUP. Until [`Interrupt::tracking`] is called a signal ends the program at
    /// once, as there is nothing to keep yet.
    pub(super) fn install(unfinished: &Unfinished) -> Result<Self> {
        Self::install_saying(unfinished, || "nothing was kept".to_owned())
    }

    /// As [`Interrupt::install`], with what is said of a sudden end.
    pub(super) fn install_saying(
        unfinished: &Unfinished,
        words: impl Fn() -> String + Send + 'static,
    ) -> Result<Self> {
        let interrupt = Self {
            state: Arc::new(AtomicU8::new(PREPARING)),
            stop: Stop::default(),
        };
        let (state, stop) = (Arc::clone(&interrupt.state), interrupt.stop.clone());
        let unfinished = unfinished.clone();
        ctrlc::set_handler(move || {
            let asked = state.compare_exchange(TRACKING, ASKED, Ordering::SeqCst, Ordering::SeqCst);
            if asked.is_ok() {
                stop.request();
                complain("interrupted: finishing the frame at hand (again to leave at once)");
                return;
            }
            unfinished.remove_all_and_keep_locked();
            complain(&format!("interrupted: {}", words()));
            // SAFETY: always sound to call. `std::process::exit` would run the destructors of libraries that other
            // threads are still inside of.
            unsafe { libc::_exit(i32::from(EXIT_FAILED)) }
        })
        .context("cannot take over Ctrl-C")?;
        Ok(interrupt)
    }

    /// From now on a first signal only asks for the end.
    pub(super) fn tracking(&self) {
        self.state.store(TRACKING, Ordering::SeqCst);
    }

    /// The flag that the first signal during a run sets.
    pub(super) fn stop(&self) -> &Stop {
        &self.stop
    }
}

/// Lets a write past `ulimit -f` fail as on a full disk; by default its signal ends the program on the spot, with
/// everything half-written.
pub(super) fn ignore_file_size_limit() {
    // SAFETY: no handler is installed, and nothing else of this program touches this signal.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
}
