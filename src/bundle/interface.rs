//! Checks the inputs and outputs of a bundle's graphs against those that the engine uses, which follow from the manifest's
//! own sizes. So a graph that does not fit is refused by name when the bundle is opened, not by ONNX Runtime mid-run.

use std::collections::BTreeMap;
use std::path::Path;

use super::error::{BundleError, TensorMismatch};
use super::expected::{Axis, ExpectedTensor, ExpectedType, Side, Table};
use super::manifest::{DType, Dim, Manifest, Role, TensorSpec};
use super::{detector_tensors, tracker_tensors};

/// Checks names, dtypes and shapes of the graphs' inputs and outputs.
///
/// # Errors
/// [`BundleError::Tensor`] of the first that does not fit.
pub(super) fn check(file: &Path, manifest: &Manifest) -> Result<(), BundleError> {
    let expected = expected(manifest);
    let checked = check_expected(manifest, &expected)
        .and_then(|()| check_surplus(manifest, &expected))
        .and_then(|()| check_feeds(manifest));
    checked.map_err(|problem| {
        BundleError::Tensor(Box::new(TensorMismatch {
            file: file.to_path_buf(),
            graph: problem.graph,
            side: problem.side.as_str(),
            tensor: problem.tensor,
            expected: problem.expected,
            found: problem.found,
            remedy: manifest.export_command(),
        }))
    })
}

/// An input or output that does not fit.
struct Problem {
    graph: Role,
    side: Side,
    tensor: String,
    expected: String,
    found: String,
}

/// Sizes of the axes that the manifest does not state, by name, each with the tensor that it was first seen in.
type SharedSizes = BTreeMap<&'static str, (u64, String)>;

fn expected(manifest: &Manifest) -> Vec<ExpectedTensor> {
    let mut table = Table::default();
    // A bundle without a detector can have `direct` too: the detector may be in a bundle of another resolution.
    let mut inputs = tensors(manifest, Role::MemoryEncoder, Side::Input).iter();
    let has_direct = manifest.detector.is_some() || inputs.any(|spec| spec.name == "direct");
    tracker_tensors::add(&mut table, manifest, has_direct);
    if let Some(detector) = &manifest.detector {
        detector_tensors::add(&mut table, manifest, detector);
    }
    table.0
}

fn tensors(manifest: &Manifest, graph: Role, side: Side) -> &[TensorSpec] {
    match (manifest.graph(graph), side) {
        (None, _) => &[],
        (Some(graph), Side::Input) => &graph.inputs,
        (Some(graph), Side::Output) => &graph.outputs,
    }
}

fn check_expected(manifest: &Manifest, expected: &[ExpectedTensor]) -> Result<(), Problem> {
    let mut sizes = SharedSizes::new();
    for tensor in expected {
        check_tensor(manifest, tensor, &mut sizes)?;
    }
    Ok(())
}

fn check_tensor(
    manifest: &Manifest,
    expected: &ExpectedTensor,
    sizes: &mut SharedSizes,
) -> Result<(), Problem> {
    let specs = tensors(manifest, expected.graph, expected.side);
    let problem = |found: String, sizes: &SharedSizes| Problem {
        graph: expected.graph,
        side: expected.side,
        tensor: expected.name.clone(),
        expected: expected_text(expected, sizes),
        found,
    };
    let mut named = specs.iter().filter(|spec| spec.name == expected.name);
    let Some(spec) = named.next() else {
        let names: Vec<&str> = specs.iter().map(|spec| spec.name.as_str()).collect();
        let found = format!("no such tensor among [{}]", names.join(", "));
        return Err(problem(found, sizes));
    };
    if named.next().is_some() {
        return Err(problem("two of that name".into(), sizes));
    }
    if !dtype_fits(expected.dtype, spec.dtype) || !shape_fits(&expected.shape, &spec.shape, sizes) {
        let found = format!("{} {}", spec.dtype, spec.shape_text());
        return Err(problem(found, sizes));
    }
    for (axis, found) in expected.shape.iter().zip(&spec.shape) {
        if let (Axis::Shared(name), Dim::Fixed(size)) = (axis, found) {
            sizes
                .entry(name)
                .or_insert_with(|| (*size, format!("{} of {}", expected.name, expected.graph)));
        }
    }
    Ok(())
}

fn dtype_fits(expected: ExpectedType, found: DType) -> bool {
    match expected {
        ExpectedType::Is(dtype) => found == dtype,
        ExpectedType::Float => {
            matches!(found, DType::Float32 | DType::Float16 | DType::Bfloat16)
        }
    }
}

fn shape_fits(expected: &[Axis], found: &[Dim], sizes: &SharedSizes) -> bool {
    let mut pairs = expected.iter().zip(found);
    expected.len() == found.len()
        && pairs.all(|(axis, found)| match (axis, found) {
            (Axis::Size(size), Dim::Fixed(found)) => size == found,
            (Axis::Shared(name), Dim::Fixed(found)) => match sizes.get(name) {
                Some((size, _)) => size == found,
                None => *found > 0,
            },
            (Axis::Dynamic(_), Dim::Symbol(_)) => true,
            _ => false,
        })
}

fn expected_text(expected: &ExpectedTensor, sizes: &SharedSizes) -> String {
    let dtype = match expected.dtype {
        ExpectedType::Is(dtype) => dtype.to_string(),
        ExpectedType::Float => "float32 or float16".to_owned(),
    };
    let mut origin = String::new();
    let dims: Vec<String> = expected
        .shape
        .iter()
        .map(|axis| match axis {
            Axis::Size(size) => size.to_string(),
            Axis::Dynamic(name) => (*name).to_owned(),
            Axis::Shared(name) => match sizes.get(name) {
                Some((size, from)) => {
                    origin = format!(" ({name} as in {from})");
                    size.to_string()
                }
                None => (*name).to_owned(),
            },
        })
        .collect();
    format!("{dtype} [{}]{origin}", dims.join(","))
}

/// Checks for inputs that the engine does not feed: they would fail on the first frame.
fn check_surplus(manifest: &Manifest, expected: &[ExpectedTensor]) -> Result<(), Problem> {
    let detector = manifest.detector.iter().flat_map(|_| Role::DETECTOR);
    for role in Role::REQUIRED.into_iter().chain(detector) {
        for spec in tensors(manifest, role, Side::Input) {
            let known = expected.iter().any(|tensor| {
                tensor.graph == role && tensor.side == Side::Input && tensor.name == spec.name
            });
            if !known {
                return Err(Problem {
                    graph: role,
                    side: Side::Input,
                    tensor: spec.name.clone(),
                    expected: "no input of that name".into(),
                    found: format!("{} {}", spec.dtype, spec.shape_text()),
                });
            }
        }
    }
    Ok(())
}

fn check_feeds(manifest: &Manifest) -> Result<(), Problem> {
    let feeds = tracker_tensors::FEEDS
        .iter()
        .chain(&detector_tensors::FEEDS);
    for feed in feeds {
        let mut outputs = tensors(manifest, feed.from, Side::Output).iter();
        let Some(source) = outputs.find(|spec| spec.name == feed.output) else {
            continue;
        };
        let mut inputs = tensors(manifest, feed.to, Side::Input).iter();
        let other =
            inputs.find(|spec| is_fed(&spec.name, feed.input) && spec.dtype != source.dtype);
        if let Some(spec) = other {
            return Err(Problem {
                graph: feed.to,
                side: Side::Input,
                tensor: spec.name.clone(),
                expected: format!(
                    "{} as {} returns it in {}",
                    source.dtype, feed.from, feed.output
                ),
                found: spec.dtype.to_string(),
            });
        }
    }
    Ok(())
}

/// Whether an input has the name `pattern`, or is a slot of it: `memory_3` is a slot of `memory_*`, `memory_time` is not;
/// `pointers_cond` is a slot of `pointers_*`.
fn is_fed(name: &str, pattern: &str) -> bool {
    let stem = pattern.strip_suffix('*');
    let slot = stem.and_then(|stem| name.strip_prefix(stem));
    let is_slot = slot.is_some_and(|slot| {
        slot == "cond" || (!slot.is_empty() && slot.bytes().all(|byte| byte.is_ascii_digit()))
    });
    is_slot || name == pattern
}
