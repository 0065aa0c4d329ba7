//! The end of what a process writes to standard error.

use std::io::Read as _;
use std::process::ChildStderr;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

/// Bytes that are kept for a message.
const KEPT: usize = 2000;

/// The last bytes that a process wrote to standard error. A thread reads all of it: a full pipe would stop the process.
#[derive(Debug)]
pub struct StderrTail {
    kept: Arc<Mutex<Vec<u8>>>,
    reader: Option<JoinHandle<()>>,
}

impl StderrTail {
    /// Starts to read; the thread ends when the process closes its standard error.
    pub fn read(mut errors: ChildStderr) -> Self {
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

    /// Waits until the process has closed its standard error.
    pub fn wait(&mut self) {
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }

    /// Waits for the process, and returns its error message: the text after the last line that begins with `error: `, or all
    /// that was kept if there is no such line.
    pub fn message(&mut self) -> String {
        self.wait();
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let text = String::from_utf8_lossy(&kept);
        let text = text.trim();
        let error = text
            .rfind("error: ")
            .filter(|at| *at == 0 || text.as_bytes().get(at - 1) == Some(&b'\n'));
        match (text, error) {
            ("", _) => "it wrote nothing to standard error".to_owned(),
            (text, Some(at)) => text[at..].trim_start_matches("error: ").to_owned(),
            (text, None) => text.to_owned(),
        }
    }
}
