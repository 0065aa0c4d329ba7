//! Checks of a manifest on its own: its version, its values, and the roles of its graphs.

use std::path::Path;

use serde::Deserialize;

use super::error::BundleError;
use super::manifest::{Manifest, Role, accepted_versions};

/// The memory policies that this program implements.
const POLICIES: [&str; 1] = ["sam2_memory_bank"];

/// The model families whose graphs this program can run.
const FAMILIES: [&str; 1] = ["sam3_tracker_video"];

/// The fields of a manifest that every version has: enough to report its version.
#[derive(Deserialize)]
struct VersionOnly {
    schema_version: serde_json::Value,
    source: Option<SourceId>,
}

#[derive(Deserialize)]
struct SourceId {
    id: Option<String>,
}

/// Parses a manifest of a version that this program reads.
///
/// # Errors
/// [`BundleError::Manifest`] or [`BundleError::SchemaVersion`].
pub(super) fn parse(file: &Path, bytes: &[u8]) -> Result<Manifest, BundleError> {
    let invalid = |error: serde_json::Error| BundleError::Manifest {
        file: file.to_path_buf(),
        reason: error.to_string(),
    };
    let version: VersionOnly = serde_json::from_slice(bytes).map_err(invalid)?;
    let number = version
        .schema_version
        .as_u64()
        .and_then(|number| u32::try_from(number).ok());
    if !number.is_some_and(|number| accepted_versions().contains(&number)) {
        return Err(wrong_version(file, version, number));
    }
    serde_json::from_slice(bytes).map_err(invalid)
}

fn wrong_version(file: &Path, version: VersionOnly, number: Option<u32>) -> BundleError {
    let accepted = accepted_versions();
    let id = version
        .source
        .and_then(|source| source.id)
        .unwrap_or_else(|| "<checkpoint>".to_owned());
    let again = format!("export the bundle again with `snow-export {id}` of this version");
    let remedy = match number {
        Some(number) if number > *accepted.end() => format!("update snow-ort, or {again}"),
        _ => again,
    };
    BundleError::SchemaVersion {
        file: file.to_path_buf(),
        found: version.schema_version.to_string(),
        accepted: if accepted.start() == accepted.end() {
            format!("version {}", accepted.end())
        } else {
            format!("versions {} to {}", accepted.start(), accepted.end())
        },
        remedy,
    }
}

/// Checks that this program can work with the manifest's values.
///
/// # Errors
/// [`BundleError::Field`] of the first value that it cannot work with.
pub(super) fn values(file: &Path, manifest: &Manifest) -> Result<(), BundleError> {
    let wrong = |problem: Problem| BundleError::Field {
        file: file.to_path_buf(),
        field: problem.field.to_owned(),
        found: problem.found,
        expected: problem.expected,
    };
    preprocessing(manifest)
        .and_then(|()| names(manifest))
        .and_then(|()| sizes(manifest))
        .map_err(wrong)
}

/// A field with a value that this program cannot work with.
struct Problem {
    field: &'static str,
    found: String,
    expected: String,
}

fn expect(
    field: &'static str,
    fits: bool,
    found: impl std::fmt::Debug,
    expected: impl Into<String>,
) -> Result<(), Problem> {
    if fits {
        return Ok(());
    }
    Err(Problem {
        field,
        found: format!("{found:?}"),
        expected: expected.into(),
    })
}

fn preprocessing(manifest: &Manifest) -> Result<(), Problem> {
    let preprocess = &manifest.preprocess;
    for (field, found, expected) in [
        ("preprocess.filter", &preprocess.filter, "bilinear"),
        ("preprocess.rounding", &preprocess.rounding, "uint8"),
        ("preprocess.layout", &preprocess.layout, "nhwc"),
        ("preprocess.channels", &preprocess.channels, "rgb"),
    ] {
        expect(field, found == expected, found, format!("{expected:?}"))?;
    }
    let antialias = preprocess.antialias;
    expect("preprocess.antialias", antialias, antialias, "true")?;
    let in_graph = preprocess.in_graph;
    expect("preprocess.in_graph", in_graph, in_graph, "true")
}

fn names(manifest: &Manifest) -> Result<(), Problem> {
    for (field, found, known) in [
        ("family", &manifest.family, FAMILIES),
        ("policy.name", &manifest.policy.name, POLICIES),
    ] {
        let fits = known.contains(&found.as_str());
        expect(field, fits, found, format!("one of {known:?}"))?;
    }
    Ok(())
}

fn sizes(manifest: &Manifest) -> Result<(), Problem> {
    // Far above any real model, and small enough that products of two sizes cannot overflow.
    const MAX: u32 = 1 << 20;
    let policy = &manifest.policy;
    for (field, found) in [
        ("resolution", manifest.resolution),
        ("grid", manifest.grid),
        ("policy.num_maskmem", policy.num_maskmem),
        ("policy.max_cond_frames", policy.max_cond_frames),
        ("policy.max_object_pointers", policy.max_object_pointers),
        ("policy.pointer_tokens", policy.pointer_tokens),
        ("masks.low_res", manifest.masks.low_res),
        ("masks.prompt_size", manifest.masks.prompt_size),
        ("memory.channels", manifest.memory.channels),
    ] {
        let fits = (1..=MAX).contains(&found);
        expect(field, fits, found, format!("1 to {MAX}"))?;
    }
    let (resolution, grid) = (manifest.resolution, manifest.grid);
    let divides = resolution.is_multiple_of(grid);
    let divisor = format!("a divisor of the resolution {resolution}");
    expect("grid", divides, grid, divisor)?;
    let tokens = u64::from(grid) * u64::from(grid);
    let found = manifest.memory.tokens;
    let expected = format!("grid * grid = {tokens}");
    expect("memory.tokens", u64::from(found) == tokens, found, expected)
}

/// Checks that each role that is needed has exactly one graph.
///
/// # Errors
/// [`BundleError::DuplicateRole`] or [`BundleError::MissingRole`].
pub(super) fn roles(file: &Path, manifest: &Manifest) -> Result<(), BundleError> {
    for (index, graph) in manifest.graphs.iter().enumerate() {
        let mut earlier = manifest.graphs[..index].iter();
        if earlier.any(|other| other.role == graph.role) {
            return Err(BundleError::DuplicateRole {
                file: file.to_path_buf(),
                role: graph.role,
            });
        }
    }
    let detector = manifest.detector.iter().flat_map(|_| Role::DETECTOR);
    for role in Role::REQUIRED.into_iter().chain(detector) {
        if manifest.graph(role).is_none() {
            return Err(BundleError::MissingRole {
                file: file.to_path_buf(),
                role,
                remedy: manifest.export_command(),
            });
        }
    }
    Ok(())
}
