//! Runs each graph on the inputs of its golden vectors and compares its outputs with those of the unpatched reference.
//!
//! # Tolerances
//!
//! The distance of an output is its relative L2 distance, `|got - expected| / |expected|`. Each precision has two limits. A
//! distance up to the first is rounding. A distance up to the second is doubtful: compare masks before you trust them. A larger
//! distance means that something computes wrongly.
//!
//! | precision | rounding up to | wrong above |
//! | --- | --- | --- |
//! | fp32 | 1e-2 | 5e-2 |
//! | fp16 | 5e-2 | 2e-1 |
//! | int8 | 1e-1 | 3e-1 |
//!
//! The first limits of fp32 and fp16 are those of the exporter, which checks each graph on the processor. fp32 needs that much
//! because memory features are stored as bfloat16, where the last bit is 2^-8 of a value, and because GPUs may multiply with
//! TF32. On the processor, with small random weights, the largest distances were 1e-6 in fp32, 1.7e-3 in fp16 and 3.9e-2 in int8.

use half::{bf16, f16};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

use super::facts::GoldenFacts;
use crate::bundle::{Bundle, DType, GraphFile, Precision, Role, TensorSpec};
use crate::runtime::{Backend, Graph, GraphError, Host, Tensor};
use crate::tracker::{VALUE_PADDING, element_of, value_padding};

/// Prefix of the names of a golden file's inputs.
const INPUT: &str = "in.";
/// Prefix of the names of its outputs.
const OUTPUT: &str = "out.";

/// Why golden vectors could not be compared.
#[derive(Debug, thiserror::Error)]
pub enum GoldenError {
    /// The file is not one that the exporter writes for this graph.
    #[error("{file}: {reason}; export the bundle again with `{remedy}`")]
    File {
        /// The file.
        file: String,
        /// What is wrong.
        reason: String,
        /// The export command.
        remedy: String,
    },
    /// The graph cannot be loaded or run.
    #[error(transparent)]
    Graph(#[from] GraphError),
}

/// The limits of a precision (see the [module](self)), as relative L2 distances.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tolerance {
    /// Distances up to this one are rounding.
    pub rounding: f64,
    /// Distances above this one are wrong; those between are doubtful.
    pub wrong_above: f64,
}

/// The limits of `precision`.
pub fn tolerance(precision: Precision) -> Tolerance {
    let (rounding, wrong_above) = match precision {
        Precision::Fp32 => (1e-2, 5e-2),
        Precision::Fp16 => (5e-2, 2e-1),
        Precision::Int8 => (1e-1, 3e-1),
    };
    Tolerance {
        rounding,
        wrong_above,
    }
}

/// The golden file of a graph, relative to the bundle's folder; `None` if the bundle has none for it.
pub fn file_of(bundle: &Bundle, role: Role) -> Option<&str> {
    let golden = &bundle.manifest().golden;
    let file = golden.iter().find(|file| file.kind == role.as_str())?;
    Some(&file.file)
}

/// Runs `graph` on its golden inputs and compares its outputs; `None` if the bundle has no golden vectors for it.
///
/// # Errors
/// A file that cannot be read, lacks an input or has one of another dtype; a graph that fails.
pub fn compare(
    bundle: &Bundle,
    role: Role,
    graph: &mut dyn Graph,
    backend: &dyn Backend,
) -> Result<Option<GoldenFacts>, GoldenError> {
    let (Some(file), Some(spec)) = (file_of(bundle, role), bundle.manifest().graph(role)) else {
        return Ok(None);
    };
    let path = bundle.dir().join(file);
    let wrong = |reason: String| GoldenError::File {
        file: path.display().to_string(),
        reason,
        remedy: bundle.manifest().export_command(),
    };
    let bytes = std::fs::read(&path).map_err(|error| wrong(format!("cannot be read: {error}")))?;
    let golden = SafeTensors::deserialize(&bytes)
        .map_err(|error| wrong(format!("is not a safetensors file: {error}")))?;
    let inputs = inputs(bundle, spec, &golden, backend, &wrong)?;
    let expected: Vec<(&str, Vec<f32>)> = spec
        .outputs
        .iter()
        .filter_map(|output| {
            // The reference does not give every output of a graph separately.
            let view = golden.tensor(&format!("{OUTPUT}{}", output.name)).ok()?;
            Some((output.name.as_str(), floats(&view)?))
        })
        .collect();
    if expected.is_empty() {
        return Err(wrong("has none of the graph's outputs".to_owned()));
    }
    let given: Vec<(&str, &Tensor)> = inputs
        .iter()
        .map(|(name, tensor)| (*name, tensor))
        .collect();
    let names: Vec<&str> = expected.iter().map(|(name, _)| *name).collect();
    let outputs = graph.run(&given, &names)?;
    let mut largest: Option<GoldenFacts> = None;
    for ((name, expected), output) in expected.iter().zip(&outputs) {
        let got = backend.download(output)?;
        if got.len() != expected.len() {
            return Err(wrong(format!(
                "output {name} has {} values, but the graph gives {}",
                expected.len(),
                got.len()
            )));
        }
        let distance = relative_l2(&got, expected);
        // A distance that is not finite is larger than any other.
        let larger = largest
            .as_ref()
            .is_none_or(|known| match (distance, known.relative_l2) {
                (Some(distance), Some(known)) => distance > known,
                (None, Some(_)) => true,
                (_, None) => false,
            });
        if larger {
            largest = Some(GoldenFacts {
                output: (*name).to_owned(),
                relative_l2: distance,
            });
        }
    }
    Ok(largest)
}

/// Uploads the graph's golden inputs, each with its name. `wrong` turns a reason into an error that names the file.
fn inputs<'s>(
    bundle: &Bundle,
    spec: &'s GraphFile,
    golden: &SafeTensors<'_>,
    backend: &dyn Backend,
    wrong: &dyn Fn(String) -> GoldenError,
) -> Result<Vec<(&'s str, Tensor)>, GoldenError> {
    let mut inputs: Vec<(&str, Tensor)> = Vec::with_capacity(spec.inputs.len());
    for input in &spec.inputs {
        if input.name == VALUE_PADDING {
            let gap = bundle.manifest().value_gap();
            inputs.push((VALUE_PADDING, value_padding(backend, gap)?));
            continue;
        }
        let view = golden
            .tensor(&format!("{INPUT}{}", input.name))
            .map_err(|_| wrong(format!("has no input {}", input.name)))?;
        let tensor = match view.shape().contains(&0) {
            true => backend.empty(element_of(input.dtype), view.shape())?,
            false => {
                let data = data_for(input, &view).map_err(wrong)?;
                backend.upload(view.shape(), data)?
            }
        };
        inputs.push((&input.name, tensor));
    }
    Ok(inputs)
}

/// The relative L2 distance `|got - expected| / |expected|`, in double precision; `None` if a value is not finite.
pub fn relative_l2(got: &[f32], expected: &[f32]) -> Option<f64> {
    let (mut difference, mut norm) = (0.0, 0.0);
    for (&got, &expected) in got.iter().zip(expected) {
        let (got, expected) = (f64::from(got), f64::from(expected));
        difference += (got - expected) * (got - expected);
        norm += expected * expected;
    }
    let distance = f64::sqrt(difference) / f64::sqrt(norm).max(1e-12);
    distance.is_finite().then_some(distance)
}

/// Converts a golden tensor to the dtype of the graph's input: golden vectors are float32 where a graph may take float16.
///
/// # Errors
/// The dtypes do not match. The text says which.
fn data_for(input: &TensorSpec, view: &TensorView<'_>) -> Result<Host, String> {
    let mismatch = || {
        format!(
            "input {} is {:?}, but the graph takes {}",
            input.name,
            view.dtype(),
            input.dtype
        )
    };
    let bytes = view.data();
    Ok(match (input.dtype, view.dtype()) {
        (DType::Uint8, Dtype::U8) => Host::U8(bytes.to_vec()),
        (DType::Bool, Dtype::BOOL) => Host::Bool(bytes.iter().map(|&byte| byte != 0).collect()),
        (DType::Int64, Dtype::I64) => {
            let (numbers, _) = bytes.as_chunks();
            Host::I64(
                numbers
                    .iter()
                    .map(|&number| i64::from_le_bytes(number))
                    .collect(),
            )
        }
        (DType::Float32, _) => Host::F32(floats(view).ok_or_else(mismatch)?),
        (DType::Float16, _) => {
            let floats = floats(view).ok_or_else(mismatch)?;
            Host::F16(floats.into_iter().map(f16::from_f32).collect())
        }
        (DType::Bfloat16, _) => {
            let floats = floats(view).ok_or_else(mismatch)?;
            Host::Bf16(floats.into_iter().map(bf16::from_f32).collect())
        }
        _ => return Err(mismatch()),
    })
}

/// The elements of a float32 tensor; `None` for one of another dtype.
fn floats(view: &TensorView<'_>) -> Option<Vec<f32>> {
    if view.dtype() != Dtype::F32 {
        return None;
    }
    let (numbers, _) = view.data().as_chunks();
    Some(
        numbers
            .iter()
            .map(|&number| f32::from_le_bytes(number))
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_are_relative_and_need_finite_values() {
        assert_eq!(relative_l2(&[3.0, 4.0], &[3.0, 4.0]), Some(0.0));
        assert_eq!(relative_l2(&[3.0, 3.0], &[3.0, 4.0]), Some(0.2));
        assert_eq!(relative_l2(&[f32::NAN, 4.0], &[3.0, 4.0]), None);
        assert_eq!(relative_l2(&[3.0, f32::INFINITY], &[3.0, 4.0]), None);
        // All values are 0.
        assert_eq!(relative_l2(&[0.0], &[0.0]), Some(0.0));
    }

    #[test]
    fn narrower_precisions_have_larger_limits() {
        let limits = [Precision::Fp32, Precision::Fp16, Precision::Int8].map(tolerance);
        for (wide, narrow) in limits.iter().zip(&limits[1..]) {
            assert!(wide.rounding < narrow.rounding && wide.wrong_above < narrow.wrong_above);
        }
        for limit in limits {
            assert!(limit.rounding < limit.wrong_above && limit.wrong_above < 1.0);
        }
    }
}
