//! Shared libraries as files: what their ELF headers state, the glibc that they need, and which file the system's loader
//! takes for a name. Nothing is loaded. Used by packages, by the doctor, and before ONNX Runtime is loaded.

pub mod elf;
pub mod glibc;
pub mod loader_cache;

pub use elf::{Elf, ElfError};
pub use glibc::Glibc;
