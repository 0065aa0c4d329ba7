//! Packages: the program with all that it needs except glibc, in one archive. The same inputs give the same bytes.
//!
//! [`sources`] finds the program and the Python wheels, [`collect()`] chooses the files of a package, and [`archive::write`] writes
//! them.

pub mod archive;
mod bom;
mod closure;
mod collect;
mod crates;
mod debian;
mod error;
mod files;
mod libraries;
mod manifest;
mod materials;
mod notes;
mod recipe;
mod runtime;
pub mod sources;
pub mod summary;
pub mod wheels;

pub use collect::collect;
pub use error::PackageError;
pub use files::Package;
pub use manifest::{MANIFEST, Manifest};
pub use recipe::Recipe;
pub use runtime::RuntimeSet;
