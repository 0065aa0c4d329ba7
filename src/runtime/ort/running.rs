//! Running a session in its arena.
//!
//! Inputs and outputs are bound to the device, in a new binding for every run: a binding that is used twice writes its outputs into
//! the buffers that the memory bank still holds.

use std::sync::Arc;

use ort::memory::{AllocationDevice, MemoryInfo};
use ort::session::{NoSelectedOutputs, RunOptions, Session};
use ort::value::DynTensor;

use super::arena::{self, Arena};
use super::copies::CopyCount;
use super::values::{element_to, ports, unwrap, wrap};
use super::{message, placement};
use crate::runtime::{ArenaStats, Graph, GraphError, PlacedNode, Signature, Tensor};

/// A session that runs through a binding.
pub(super) struct OrtGraph {
    pub role: String,
    pub session: Session,
    pub device: MemoryInfo<'static>,
    /// Outputs with a buffer that each run overwrites ([`Graph::keep_outputs`]).
    pub kept: Vec<(String, DynTensor)>,
    /// Counts inputs that are copied to the device; `None` where graphs run in host memory.
    pub copies: Option<Arc<CopyCount>>,
    /// Whether the library recorded where it put the nodes.
    pub placed: bool,
}

impl OrtGraph {
    /// Turns an error of the library about a full arena into [`GraphError::ArenaFull`].
    fn explain(error: GraphError, arena: &Arena) -> GraphError {
        let (GraphError::Run { role, reason } | GraphError::Load { role, reason, .. }) = &error
        else {
            return error;
        };
        let (Some(requested), Ok(stats)) = (arena::is_full(reason), arena.stats()) else {
            return error;
        };
        GraphError::ArenaFull {
            what: format!("graph {role}"),
            requested,
            held: stats.held,
            limit: stats.limit,
            reason: reason.clone(),
        }
    }

    /// The result of a graph in an arena, or [`GraphError::ArenaFull`] if the arena went over its limit meanwhile.
    pub(super) fn within<T>(
        role: &str,
        arena: &Arena,
        result: Result<T, GraphError>,
    ) -> Result<T, GraphError> {
        let Some(requested) = arena.refused() else {
            return result.map_err(|error| Self::explain(error, arena));
        };
        let limit = arena.limit();
        // What was given all the same is back by now, or with the graph.
        drop(result);
        Err(GraphError::ArenaFull {
            what: format!("graph {role}"),
            requested: Some(requested),
            held: arena.stats()?.peak_held.min(limit.unwrap_or(u64::MAX)),
            limit,
            reason: "no free block is left to give back".to_owned(),
        })
    }
}

/// A graph and the arena that it runs in.
pub(super) struct InArena {
    pub graph: OrtGraph,
    pub arena: Arc<Arena>,
}

impl Graph for InArena {
    fn signature(&self) -> Option<Signature> {
        Some(self.graph.signature())
    }

    fn metadata(&self, key: &str) -> Option<String> {
        self.graph.session.metadata().ok()?.custom(key)
    }

    fn arena_stats(&self) -> Result<Option<ArenaStats>, GraphError> {
        self.arena.stats().map(Some)
    }

    fn placement(&self) -> Result<Option<Vec<PlacedNode>>, GraphError> {
        if !self.graph.placed {
            return Ok(None);
        }
        let nodes = placement::read(&self.graph.session).map_err(|error| GraphError::Device {
            operation: format!("asking where the nodes of graph {} are", self.graph.role),
            reason: message(error),
        })?;
        Ok(Some(nodes))
    }

    fn keep_outputs(&mut self, outputs: &[&str]) -> Result<(), GraphError> {
        let mut kept = Vec::with_capacity(outputs.len());
        for &name in outputs {
            let unfit = |got: String| GraphError::Tensor {
                name: name.to_owned(),
                expected: format!("an output of graph {} with a fixed shape", self.graph.role),
                got,
            };
            let port = ports(self.graph.session.outputs())
                .into_iter()
                .find(|port| port.name == name)
                .ok_or_else(|| unfit("none of this name".to_owned()))?;
            let shape: Option<Vec<usize>> = port.shape.iter().copied().collect();
            let (Some(element), Some(shape)) = (port.element, shape) else {
                return Err(unfit(format!("{port:?}")));
            };
            let place = DynTensor::new(&self.arena.allocator(), element_to(element), shape);
            let place = place.map_err(|error| GraphError::Run {
                role: self.graph.role.clone(),
                reason: message(error),
            });
            let place = OrtGraph::within(&self.graph.role, &self.arena, place)?;
            kept.push((name.to_owned(), place));
        }
        self.graph.kept = kept;
        Ok(())
    }

    fn run(
        &mut self,
        inputs: &[(&str, &Tensor)],
        outputs: &[&str],
    ) -> Result<Vec<Tensor>, GraphError> {
        let result = self.graph.run(inputs, outputs, self.arena.run_options());
        OrtGraph::within(&self.graph.role, &self.arena, result)
    }
}

impl OrtGraph {
    pub(super) fn signature(&self) -> Signature {
        let (inputs, outputs) = (ports(self.session.inputs()), ports(self.session.outputs()));
        Signature { inputs, outputs }
    }

    pub(super) fn run(
        &mut self,
        inputs: &[(&str, &Tensor)],
        outputs: &[&str],
        options: Option<&RunOptions<NoSelectedOutputs>>,
    ) -> Result<Vec<Tensor>, GraphError> {
        let role = self.role.clone();
        let failed = |error: ort::Error| GraphError::Run {
            role: role.clone(),
            reason: message(error),
        };
        let mut binding = self.session.create_binding().map_err(failed)?;
        for (name, tensor) in inputs {
            let value = unwrap(name, tensor)?;
            if let Some(copies) = &self.copies
                && value.memory_info().allocation_device() == AllocationDevice::CPU
            {
                copies.add_to_device(tensor);
            }
            binding.bind_input(*name, value).map_err(failed)?;
        }
        for name in outputs {
            match self.kept.iter_mut().find(|(kept, _)| kept == name) {
                Some((_, place)) => binding.bind_output(*name, place),
                None => binding.bind_output_to_device(*name, &self.device),
            }
            .map_err(failed)?;
        }
        binding.synchronize_inputs().map_err(failed)?;
        let values = match options {
            Some(options) => self.session.run_binding_with_options(&binding, options),
            None => self.session.run_binding(&binding),
        };
        let mut values = values.map_err(failed)?;
        let mut tensors = Vec::with_capacity(outputs.len());
        for name in outputs {
            let value = values.remove(name).ok_or_else(|| GraphError::Tensor {
                name: (*name).to_owned(),
                expected: format!("an output of graph {}", self.role),
                got: "none of this name".to_owned(),
            })?;
            tensors.push(wrap(name, value)?);
        }
        drop(values);
        binding.synchronize_outputs().map_err(failed)?;
        Ok(tensors)
    }
}
