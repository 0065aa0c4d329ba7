//! Explains why a machine does not run a bundle, or runs it slowly or wrongly, and what to do.
//!
//! [`examine`] collects [`facts`] about the machine, the library and the bundle. [`diagnose`] turns facts into findings, each
//! with a fix; it needs no machine. A [`Report`] holds both, as `--json` writes them, and [`text`] shows it.
//!
//! Each provider is tried in a separate process ([`trial`], [`worker`]), so that a crash becomes a fact like any other. A GPU
//! provider also tracks a short drawn clip ([`clip`]), and its masks are compared with the processor's ([`compare`], [`masks`]).

pub mod attention;
pub mod clip;
pub mod compare;
pub mod diagnose;
pub mod examine;
pub mod facts;
pub mod finding;
pub mod golden;
pub mod gpu;
pub mod gpu_code;
pub mod host;
pub mod inspection;
pub mod library;
pub mod links;
pub mod masks;
pub mod memory;
pub mod packages;
pub mod report;
pub mod text;
pub mod trial;
pub mod worker;

pub use self::finding::{Finding, Severity};
pub use self::report::{DOCTOR_VERSION, Report, Verdict};
