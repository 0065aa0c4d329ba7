//! Counts bytes that are copied between the host and a GPU.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::runtime::{Copies, Tensor};

/// Bytes, counted by all graphs of an engine.
#[derive(Debug, Default)]
pub(super) struct CopyCount {
    to_device: AtomicU64,
    to_host: AtomicU64,
}

impl CopyCount {
    /// An input that a run copies to the device.
    pub(super) fn add_to_device(&self, tensor: &Tensor) {
        self.to_device
            .fetch_add(tensor.bytes() as u64, Ordering::Relaxed);
    }

    /// A tensor that was fetched.
    pub(super) fn add_to_host(&self, tensor: &Tensor) {
        self.to_host
            .fetch_add(tensor.bytes() as u64, Ordering::Relaxed);
    }

    /// Both so far.
    pub(super) fn total(&self) -> Copies {
        Copies {
            to_device: self.to_device.load(Ordering::Relaxed),
            to_host: self.to_host.load(Ordering::Relaxed),
        }
    }
}
