//! Conversion between the library's values and dtypes and those of this program.

use std::sync::Arc;

use ort::value::{DynTensor, DynValue, TensorElementType};

use crate::runtime::{Element, GraphError, Port, Tensor};

/// A session's value, shared by the memory bank and later runs.
struct Value(DynTensor);

// SAFETY: an OrtValue is reference counted inside the library, and its data is not written after a run returned it, except for
// outputs that `Graph::keep_outputs` names: its caller does not use them any more when the graph runs again.
unsafe impl Send for Value {}
// SAFETY: as above: nothing writes to the data while it is shared.
unsafe impl Sync for Value {}

pub(super) fn element_of(element: TensorElementType) -> Option<Element> {
    Some(match element {
        TensorElementType::Uint8 => Element::U8,
        TensorElementType::Int64 => Element::I64,
        TensorElementType::Bool => Element::Bool,
        TensorElementType::Float32 => Element::F32,
        TensorElementType::Float16 => Element::F16,
        TensorElementType::Bfloat16 => Element::Bf16,
        _ => return None,
    })
}

pub(super) fn element_to(element: Element) -> TensorElementType {
    match element {
        Element::U8 => TensorElementType::Uint8,
        Element::I64 => TensorElementType::Int64,
        Element::Bool => TensorElementType::Bool,
        Element::F32 => TensorElementType::Float32,
        Element::F16 => TensorElementType::Float16,
        Element::Bf16 => TensorElementType::Bfloat16,
    }
}

pub(super) fn wrap(name: &str, value: DynValue) -> Result<Tensor, GraphError> {
    let unexpected = |got: String| GraphError::Tensor {
        name: name.to_owned(),
        expected: "a tensor of a known dtype".to_owned(),
        got,
    };
    let dtype = value.dtype().to_string();
    let value: DynTensor = value.downcast().map_err(|_| unexpected(dtype.clone()))?;
    let element = element_of(*value.data_type()).ok_or_else(|| unexpected(dtype))?;
    let shape = value
        .shape()
        .iter()
        .map(|&length| usize::try_from(length))
        .collect::<Result<Vec<_>, _>>();
    let shape = shape.map_err(|_| unexpected("a negative axis".to_owned()))?;
    Ok(Tensor::new(element, shape, Arc::new(Value(value))))
}

pub(super) fn unwrap<'t>(name: &str, tensor: &'t Tensor) -> Result<&'t DynTensor, GraphError> {
    let value = tensor.value::<Value>().map(|value| &value.0);
    value.ok_or_else(|| GraphError::Tensor {
        name: name.to_owned(),
        expected: "a tensor of this backend".to_owned(),
        got: "another backend's".to_owned(),
    })
}

pub(super) fn ports(outlets: &[ort::value::Outlet]) -> Vec<Port> {
    let port = |outlet: &ort::value::Outlet| {
        let shape = outlet.dtype().tensor_shape().map(|shape| {
            shape
                .iter()
                .map(|&length| usize::try_from(length).ok())
                .collect()
        });
        Port {
            name: outlet.name().to_owned(),
            element: outlet.dtype().tensor_type().and_then(element_of),
            shape: shape.unwrap_or_default(),
        }
    };
    outlets.iter().map(port).collect()
}
