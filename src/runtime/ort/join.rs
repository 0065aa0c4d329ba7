//! Joining slices of tensors: copied in host memory, or by a graph of Gather and Concat on a device.

use std::collections::hash_map::Entry;

use ort::session::Session;
use ort::session::builder::SessionBuilder;
use ort::value::{DynTensor, Outlet, TensorElementType};

use super::arena::Arena;
use super::engine::{Allocation, Engine};
use super::in_memory::{outlet, session_of};
use super::message;
use super::running::{InArena, OrtGraph};
use super::values::{element_to, unwrap, wrap};
use crate::runtime::{Backend, GraphError, Host, Tensor, rows};

/// Copies slices between tensors in host memory.
pub(super) fn on_host(
    arena: &Arena,
    tensors: &[&Tensor],
    plan: &rows::Plan,
) -> Result<Tensor, GraphError> {
    let failed = |error: ort::Error| GraphError::Device {
        operation: format!("making a tensor of shape {:?}", plan.shape),
        reason: message(error),
    };
    let mut target = DynTensor::new(
        &arena.allocator(),
        element_to(plan.key.element),
        plan.shape.clone(),
    )
    .map_err(failed)?;
    let mut write = target.data_ptr_mut().cast::<u8>();
    let mut sources = Vec::with_capacity(tensors.len());
    for tensor in tensors {
        sources.push(unwrap("join", tensor)?.data_ptr().cast::<u8>());
    }
    for &(source, start, bytes) in plan.slices.iter().filter(|(_, _, bytes)| *bytes > 0) {
        // SAFETY: the plan proved that every slice lies inside its source and that the target holds exactly the sum of
        // them; all are in host memory with this provider, and the target is new.
        unsafe {
            std::ptr::copy_nonoverlapping(sources[source].add(start), write, bytes);
            write = write.add(bytes);
        }
    }
    OrtGraph::within("join", arena, wrap("join", target.into_dyn()))
}

impl Engine {
    /// The same as [`on_host`] through a graph, for tensors that the host cannot see. `rows` is empty when whole
    /// tensors are joined.
    pub(super) fn join_on_device(
        &self,
        tensors: &[&Tensor],
        rows: &[&[usize]],
        plan: &rows::Plan,
    ) -> Result<Tensor, GraphError> {
        let mut cache = self
            .shared
            .join_graphs
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let graph = match cache.entry(plan.key) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => {
                let failed = |reason: String| GraphError::Device {
                    operation: "building the graph that joins tensors".to_owned(),
                    reason,
                };
                let arena = self.arena()?;
                let builder = self.builder(&Allocation::Registered)?;
                let session = arena
                    .make_sessions(|| join_session(&builder, plan.key))
                    .map_err(failed)?
                    .map_err(|error| failed(message(error)))?;
                let graph = self.graph("join", session)?;
                entry.insert(Box::new(InArena { graph, arena }))
            }
        };
        let mut named = Vec::new();
        for (i, tensor) in tensors.iter().enumerate() {
            named.push((format!("source_{i}"), (*tensor).clone()));
        }
        for (i, rows) in rows.iter().enumerate() {
            let data = rows.iter().map(|&row| row as i64).collect();
            named.push((
                format!("rows_{i}"),
                self.upload(&[rows.len()], Host::I64(data))?,
            ));
        }
        let inputs: Vec<(&str, &Tensor)> = named
            .iter()
            .map(|(name, tensor)| (name.as_str(), tensor))
            .collect();
        let mut outputs = graph.run(&inputs, &["joined"])?;
        outputs.pop().ok_or_else(|| GraphError::Tensor {
            name: "joined".to_owned(),
            expected: "one output".to_owned(),
            got: "none".to_owned(),
        })
    }
}

/// A session that joins tensors of one dtype and rank.
fn join_session(builder: &SessionBuilder, key: rows::Key) -> ort::Result<Session> {
    use ort::editor::{Graph as Editor, Node, ONNX_DOMAIN};
    use ort::operator::Attribute;

    let any = |name: &str, ty, rank| outlet(name, ty, &vec![-1; rank]);
    let element = element_to(key.element);
    let mut graph = Editor::new()?;
    let mut inputs: Vec<Outlet> = (0..key.sources)
        .map(|i| any(&format!("source_{i}"), element, key.rank))
        .collect();
    let mut parts: Vec<String> = (0..key.sources).map(|i| format!("source_{i}")).collect();
    if key.join == rows::Join::Rows {
        inputs.extend(
            (0..key.sources).map(|i| any(&format!("rows_{i}"), TensorElementType::Int64, 1)),
        );
        parts = (0..key.sources).map(|i| format!("part_{i}")).collect();
    }
    graph.set_inputs(inputs)?;
    graph.set_outputs([any("joined", element, key.rank)])?;
    if key.join == rows::Join::Rows {
        for (i, part) in parts.iter().enumerate() {
            let names = [format!("source_{i}"), format!("rows_{i}")];
            graph.add_node(Node::new(
                "Gather",
                ONNX_DOMAIN,
                format!("gather_{i}"),
                names,
                [part.clone()],
                [],
            )?)?;
        }
    }
    let axis = Attribute::new("axis", i64::from(key.join == rows::Join::Tokens))?;
    graph.add_node(Node::new(
        "Concat",
        ONNX_DOMAIN,
        "concat",
        parts,
        ["joined"],
        [axis],
    )?)?;
    session_of(graph, builder)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::EngineOptions;

    /// Both ways must agree; a GPU has only the second, and this is where it is checked without one.
    #[test]
    fn the_graph_moves_what_the_host_copies() {
        let Ok(engine) = Engine::load(&EngineOptions::default()) else {
            println!("skipped: no ONNX Runtime library here");
            return;
        };
        let numbered = |shape: &[usize], first: usize| {
            let count = shape.iter().product::<usize>();
            let data = (first..first + count).map(|x| x as f32).collect();
            engine.upload(shape, Host::F32(data)).unwrap()
        };
        let (a, b) = (numbered(&[3, 2, 4], 0), numbered(&[2, 2, 4], 100));
        let sources = [(&a, vec![2, 0]), (&b, vec![1])];
        let plan = rows::plan_rows(&sources).unwrap();
        let rows: Vec<&[usize]> = sources.iter().map(|(_, rows)| rows.as_slice()).collect();
        let by_graph = engine.join_on_device(&[&a, &b], &rows, &plan).unwrap();
        let arena = engine.arena().unwrap();
        let by_copy = on_host(&arena, &[&a, &b], &plan).unwrap();
        assert_eq!(by_graph.shape(), [3, 2, 4]);
        assert_eq!(by_copy.shape(), [3, 2, 4]);
        let expected: Vec<f32> = (16..24)
            .chain(0..8)
            .chain(108..116)
            .map(|x| x as f32)
            .collect();
        assert_eq!(engine.download(&by_graph).unwrap(), expected);
        assert_eq!(engine.download(&by_copy).unwrap(), expected);

        let c = numbered(&[2, 1, 4], 200);
        let plan = rows::plan_tokens(&[&b, &c]).unwrap();
        let by_graph = engine.join_on_device(&[&b, &c], &[], &plan).unwrap();
        let by_copy = on_host(&arena, &[&b, &c], &plan).unwrap();
        assert_eq!(by_graph.shape(), [2, 3, 4]);
        assert_eq!(
            engine.download(&by_graph).unwrap(),
            engine.download(&by_copy).unwrap()
        );
    }
}
