//! A graph that runs alone, in an arena that is gone with it: to use it without leaving anything in the engine's arena, or to
//! measure on zeros what it takes.

use std::path::Path;
use std::sync::Arc;

use ort::memory::Allocator;
use ort::session::builder::SessionBuilder;
use ort::value::DynTensor;

use super::arena::Arena;
use super::engine::{Allocation, Engine};
use super::message;
use super::running::{InArena, OrtGraph};
use super::values::{element_to, wrap};
use crate::runtime::{ArenaStats, Graph, GraphError, MemoryProfile, Provider, Tensor, ZeroInput};

impl Engine {
    /// Loads a graph file alone, in an arena bounded by `limit` bytes, and gives it to `work`. Returns what `work` returned, and
    /// what the arena held. Graph and arena are gone afterwards, so tensors of the graph must not leave `work`.
    ///
    /// Graphs of the engine may be loaded already: they keep their arena.
    ///
    /// # Errors
    /// A graph that cannot be loaded, [`GraphError::ArenaFull`] at the limit, and the errors of `work`.
    pub fn alone<T, E: From<GraphError>>(
        &self,
        role: &str,
        path: &Path,
        limit: Option<u64>,
        work: impl FnOnce(&mut dyn Graph) -> Result<T, E>,
    ) -> Result<(T, ArenaStats), E> {
        let open = |builder| self.session(builder, role, path, None);
        self.alone_with(role, limit, open, work)
    }

    /// As [`Engine::alone`], with a graph that `open` makes.
    pub(super) fn alone_with<T, E: From<GraphError>>(
        &self,
        role: &str,
        limit: Option<u64>,
        open: impl FnOnce(SessionBuilder) -> Result<OrtGraph, GraphError>,
        work: impl FnOnce(&mut dyn Graph) -> Result<T, E>,
    ) -> Result<(T, ArenaStats), E> {
        let (arena, opened) = self.open_alone(limit, open)?;
        let graph = OrtGraph::within(role, &arena, opened)?;
        let mut graph = InArena {
            graph,
            arena: Arc::clone(&arena),
        };
        let worked = work(&mut graph);
        let stats = arena.stats();
        Ok((worked?, stats?))
    }

    /// An arena for one graph, and that graph.
    fn open_alone(
        &self,
        limit: Option<u64>,
        open: impl FnOnce(SessionBuilder) -> Result<OrtGraph, GraphError>,
    ) -> Result<(Arc<Arena>, Result<OrtGraph, GraphError>), GraphError> {
        let process = &self.shared.process;
        let failed = |reason| self.provider_error(reason);
        // Held, so that the engine's arena is not made meanwhile.
        let shared = process.shared();
        // A GPU's arena cannot be registered again, so another must not take the place of one that is in use.
        if self.provider() == Provider::Cuda && shared.strong_count() > 0 {
            let graph = open(self.builder(&Allocation::Own(limit))?)?;
            let arena = Arena::of_session(process, self.place(), limit, &graph.session);
            return Ok((arena.map_err(failed)?, Ok(graph)));
        }
        let builder = || self.new_builder(&Allocation::Registered);
        let make = || open(self.builder(&Allocation::Registered)?);
        Arena::open(process, self.place(), limit, builder, make).map_err(failed)
    }

    /// Whether [`Engine::measure`] finds what a graph takes in a process without other graphs.
    pub(crate) fn measures_exactly(&self) -> bool {
        self.provider() == Provider::Cpu || self.shared.process.shared().strong_count() == 0
    }

    /// Measures what a graph file takes of memory: loads it alone and runs it once for each of `runs`, on zeros, in an arena
    /// bounded by `limit` bytes. Runs that need more come later. `outputs` are the outputs that each run asks for.
    ///
    /// Graphs of the engine may be loaded already. On a GPU what is measured then is up to twice what it is without them: the
    /// graph gets the library's default arena, which gives a tensor more than it asks for where that saves a cut.
    ///
    /// # Errors
    /// As for [`Engine::alone`], and a graph that cannot run.
    pub fn measure(
        &self,
        role: &str,
        path: &Path,
        runs: &[Vec<ZeroInput>],
        outputs: &[&str],
        limit: Option<u64>,
    ) -> Result<MemoryProfile, GraphError> {
        let (profile, _) = self.alone(role, path, limit, |graph| {
            let stats = |graph: &dyn Graph| {
                graph.arena_stats()?.ok_or_else(|| GraphError::Device {
                    operation: format!("measuring graph {role}"),
                    reason: "it has no arena".to_owned(),
                })
            };
            let loaded = stats(graph)?;
            let mut peaks = Vec::with_capacity(runs.len());
            for run in runs {
                let inputs = run
                    .iter()
                    .map(|input| Ok((input.name.as_str(), zeros(input)?)))
                    .collect::<Result<Vec<_>, GraphError>>()?;
                let inputs: Vec<(&str, &Tensor)> = inputs
                    .iter()
                    .map(|(name, tensor)| (*name, tensor))
                    .collect();
                drop(graph.run(&inputs, outputs)?);
                peaks.push(stats(graph)?.peak_in_use.saturating_sub(loaded.in_use));
            }
            Ok::<_, GraphError>(MemoryProfile {
                weights: loaded.in_use,
                peaks,
            })
        })?;
        Ok(profile)
    }
}

/// Zeros in host memory.
fn zeros(input: &ZeroInput) -> Result<Tensor, GraphError> {
    let mut value = DynTensor::new(
        &Allocator::default(),
        element_to(input.element),
        input.shape.clone(),
    )
    .map_err(|error| GraphError::Device {
        operation: format!("making zeros of shape {:?}", input.shape),
        reason: message(error),
    })?;
    let bytes = input.shape.iter().product::<usize>() * input.element.size();
    if bytes > 0 {
        // SAFETY: the tensor is new, in host memory, and has `bytes` bytes; zero is a value of every dtype.
        unsafe { value.data_ptr_mut().cast::<u8>().write_bytes(0, bytes) };
    }
    wrap(&input.name, value.into_dyn())
}
