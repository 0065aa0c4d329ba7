//! Small graphs without weights, made in memory.

use ort::editor::{Graph, Model, ONNX_DOMAIN, Opset};
use ort::session::Session;
use ort::session::builder::SessionBuilder;
use ort::value::{Outlet, Shape, SymbolicDimensions, TensorElementType, ValueType};

/// An input or output; -1 is an axis of any length.
pub(super) fn outlet(name: &str, ty: TensorElementType, shape: &[i64]) -> Outlet {
    Outlet::new(
        name,
        ValueType::Tensor {
            ty,
            shape: Shape::new(shape.iter().copied()),
            dimension_symbols: SymbolicDimensions::empty(shape.len()),
        },
    )
}

/// A session of a finished graph.
pub(super) fn session_of(graph: Graph, builder: &SessionBuilder) -> ort::Result<Session> {
    let mut model = Model::new([Opset::new(ONNX_DOMAIN, 20)?])?;
    model.set_graph(graph)?;
    model.into_session(builder)
}
