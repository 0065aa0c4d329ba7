//! A bundle's golden vectors: each graph on the inputs that the unpatched reference had, against what that gave.
//!
//! # The ladder
//!
//! The distance of an output is its relative L2 distance, `|got - expected| / |expected|`. Each precision has two steps. Up
//! to the first it is what that precision rounds; up to the second it may be, and masks should be compared before they are
//! trusted; beyond it something computes wrongly.
//!
//! | precision | rounding | doubtful |
//! | --- | --- | --- |
//! | fp32 | 1e-2 | 5e-2 |
//! | fp16 | 5e-2 | 2e-1 |
//! | int8 | 1e-1 | 3e-1 |
//!
//! The first step of fp32 and of fp16 is the exporter's own: a graph that it wrote was within it on the processor. fp32 is
//! that wide because a memory is stored as bfloat16, where one last bit that falls the other way is 2^-8 of a value, and
//! because GPUs may multiply with TF32. On the processor, with small random weights, the worst outputs were at 1e-6 in fp32,
//! 1.7e-3 in fp16 and 3.9e-2 in int8.

use half::{bf16, f16};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

use super::facts::GoldenFacts;
use crate::bundle::{Bundle, DType, Precision, Role, TensorSpec};
use crate::runtime::{Backend, Graph, GraphError, Host, Tensor};
use crate::tracker::{VALUE_PADDING, element_of, value_padding};

/// Prefixes of a golden file's tensors.
const INPUT: &str = "in.";
const OUTPUT: &str = "out.";

/// Why golden vectors could not be compared.
#[derive(Debug, thiserror::Error)]
pub enum GoldenError {
    /// The file is not what the exporter writes.
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

/// A precision's steps (see the [module](self)): relative L2 distances.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ladder {
    /// Rounding, up to this.
    pub rounding: f64,
    /// Doubtful, up to this; wrong beyond.
    pub doubtful: f64,
}

/// The steps of `precision`.
pub fn ladder(precision: Precision) -> Ladder {
    let (rounding, doubtful) = match precision {
        Precision::Fp32 => (1e-2, 5e-2),
        Precision::Fp16 => (5e-2, 2e-1),
        Precision::Int8 => (1e-1, 3e-1),
    };
    Ladder { rounding, doubtful }
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
                let data = data_for(input, &view).map_err(&wrong)?;
                backend.upload(view.shape(), data)?
            }
        };
        inputs.push((&input.name, tensor));
    }
    let expected: Vec<(&str, Vec<f32>)> = spec
        .outputs
        .iter()
        .filter_map(|output| {
            // Outputs that the reference does not give by themselves have no golden vectors.
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
    let mut worst = GoldenFacts {
        output: String::new(),
        relative_l2: Some(-1.0),
    };
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
        let further = match (distance, worst.relative_l2) {
            (Some(distance), Some(worst)) => distance > worst,
            (None, Some(_)) => true,
            (_, None) => false,
        };
        if further {
            worst = GoldenFacts {
                output: (*name).to_owned(),
                relative_l2: distance,
            };
        }
    }
    Ok(Some(worst))
}

/// `|got - expected| / |expected|`, in double precision; `None` if a value is not finite.
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

/// A golden tensor as the graph's input takes it: golden vectors are float32 where graphs may be narrower.
fn data_for(input: &TensorSpec, view: &TensorView<'_>) -> Result<Host, String> {
    let unfit = || {
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
        (DType::Float32, _) => Host::F32(floats(view).ok_or_else(unfit)?),
        (DType::Float16, _) => {
            let floats = floats(view).ok_or_else(unfit)?;
            Host::F16(floats.into_iter().map(f16::from_f32).collect())
        }
        (DType::Bfloat16, _) => {
            let floats = floats(view).ok_or_else(unfit)?;
            Host::Bf16(floats.into_iter().map(bf16::from_f32).collect())
        }
        _ => return Err(unfit()),
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
    fn distances_are_relative_and_see_what_is_not_finite() {
        assert_eq!(relative_l2(&[3.0, 4.0], &[3.0, 4.0]), Some(0.0));
        assert_eq!(relative_l2(&[3.0, 3.0], &[3.0, 4.0]), Some(0.2));
        assert_eq!(relative_l2(&[f32::NAN, 4.0], &[3.0, 4.0]), None);
        assert_eq!(relative_l2(&[3.0, f32::INFINITY], &[3.0, 4.0]), None);
        // Nothing expected, nothing got.
        assert_eq!(relative_l2(&[0.0], &[0.0]), Some(0.0));
    }

    #[test]
    fn fewer_bits_have_a_wider_ladder() {
        let steps = [Precision::Fp32, Precision::Fp16, Precision::Int8].map(ladder);
        for (narrow, wide) in steps.iter().zip(&steps[1..]) {
            assert!(narrow.rounding < wide.rounding && narrow.doubtful < wide.doubtful);
        }
        for Ladder { rounding, doubtful } in steps {
            assert!(rounding < doubtful && doubtful < 1.0);
        }
    }
}
