//! What a process says on standard error.

use std::io::Read as _;
use std::process::ChildStderr;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

/// Bytes that are kept for a message.
const KEPT: usize = 2000;

/// The last that a process said. A pipe that nobody empties would stop a talkative one.
#[derive(Debug)]
pub struct Words {
    kept: Arc<Mutex<Vec<u8>>>,
    reader: Option<JoinHandle<()>>,
}

impl Words {
    /// Reads until the process closes its standard error.
    pub fn listen(mut errors: ChildStderr) -> Self {
        let kept = Arc::new(Mutex::new(Vec::new()));
        let shared = Arc::clone(&kept);
        let reader = std::thread::spawn(move || {
            let mut buffer = [0; 1024];
            while let Ok(count @ 1..) = errors.read(&mut buffer) {
                let mut kept = shared.lock().unwrap_or_else(PoisonError::into_inner);
                kept.extend_from_slice(&buffer[..count]);
                let surplus = kept.len().saturating_sub(KEPT);
                kept.drain(..surplus);
            }
        });
        Self {
            kept,
            reader: Some(reader),
        }
    }

    /// Waits for the end, which is that of the process.
    pub fn end(&mut self) {
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }

    /// What a process that has ended said last: its error if it named one, else all that was kept.
    pub fn last(&mut self) -> String {
        self.end();
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let text = String::from_utf8_lossy(&kept);
        let text = text.trim();
        let error = text.rfind("error: ").filter(|at| {
            // Of a line of its own.
            *at == 0 || text.as_bytes().get(at - 1) == Some(&b'\n')
        });
        match (text, error) {
            ("", _) => "it said nothing".to_owned(),
            (text, Some(at)) => text[at..].trim_start_matches("error: ").to_owned(),
            (text, None) => text.to_owned(),
        }
    }
}
