//! A graph alone, in an arena of its own that is gone with it: to use it before others are loaded, or to see on zeros what
//! it takes.

use std::path::Path;
use std::sync::{Arc, PoisonError};

use ort::memory::Allocator;
use ort::value::DynTensor;

use super::arena::Arena;
use super::running::{InArena, OrtGraph};
use super::values::{element_to, wrap};
use super::{LOADED, Loaded, Runtime, message};
use crate::runtime::{ArenaStats, Blank, Graph, GraphError, Sounding, Tensor};

impl Runtime {
    /// Loads a graph file alone, in an arena bounded by `limit` bytes, and gives it to `work`. Graph and arena are gone
    /// afterwards; what the arena held is told. Tensors of `work` must not outlive it.
    ///
    /// # Errors
    /// A graph that cannot be loaded, [`GraphError::ArenaFull`] at the limit, a process that already has graphs (the
    /// library has one arena at a time for new sessions), and what `work` says.
    pub fn alone<T, E: From<GraphError>>(
        &self,
        role: &str,
        path: &Path,
        limit: Option<u64>,
        work: impl FnOnce(&mut dyn Graph) -> Result<T, E>,
    ) -> Result<(T, ArenaStats), E> {
        self.alone_with(role, limit, || self.session(role, path, None), work)
    }

    /// As [`Runtime::alone`], with a graph that `open` makes.
    pub(super) fn alone_with<T, E: From<GraphError>>(
        &self,
        role: &str,
        limit: Option<u64>,
        open: impl FnOnce() -> Result<OrtGraph, GraphError>,
        work: impl FnOnce(&mut dyn Graph) -> Result<T, E>,
    ) -> Result<(T, ArenaStats), E> {
        let failed = |reason: String| GraphError::Device {
            operation: format!("running graph {role} alone"),
            reason,
        };
        let Some(Loaded { arena: slot, .. }) = LOADED.get() else {
            return Err(failed("the library is not loaded".to_owned()).into());
        };
        let slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
        if slot.is_some() {
            return Err(failed("graphs are already loaded".to_owned()).into());
        }
        let arena = Arena::open(&self.environment, self.place(), limit, || self.builder())
            .map_err(|reason| self.provider_error(reason))?;
        let arena = Arc::new(arena);
        let worked = OrtGraph::within(role, &arena, open())
            .map_err(E::from)
            .and_then(|graph| {
                let arena = Arc::clone(&arena);
                work(&mut InArena { graph, arena })
            });
        let stats = arena.stats();
        // The graph had the only other reference, and is gone.
        let closed = match Arc::into_inner(arena) {
            Some(arena) => arena.close(&self.environment).map_err(failed),
            None => Err(failed("its arena is still in use".to_owned())),
        };
        let worked = worked?;
        closed?;
        Ok((worked, stats?))
    }

    /// Loads a graph file alone and runs it once for each of `runs`, on zeros, ascending in what they need. The arena
    /// of these runs is bounded by `limit` bytes.
    ///
    /// # Errors
    /// As for [`Runtime::alone`], and a graph that cannot be run.
    pub fn sound(
        &self,
        role: &str,
        path: &Path,
        runs: &[Vec<Blank>],
        outputs: &[&str],
        limit: Option<u64>,
    ) -> Result<Sounding, GraphError> {
        let (sounding, _) = self.alone(role, path, limit, |graph| {
            let stats = |graph: &dyn Graph| {
                graph.arena_stats()?.ok_or_else(|| GraphError::Device {
                    operation: format!("sounding graph {role}"),
                    reason: "it has no arena".to_owned(),
                })
            };
            let loaded = stats(graph)?;
            let mut peaks = Vec::with_capacity(runs.len());
            for run in runs {
                let inputs = run
                    .iter()
                    .map(|blank| Ok((blank.name.as_str(), zeros(blank)?)))
                    .collect::<Result<Vec<_>, GraphError>>()?;
                let inputs: Vec<(&str, &Tensor)> = inputs
                    .iter()
                    .map(|(name, tensor)| (*name, tensor))
                    .collect();
                drop(graph.run(&inputs, outputs)?);
                peaks.push(stats(graph)?.peak_in_use.saturating_sub(loaded.in_use));
            }
            Ok::<_, GraphError>(Sounding {
                weights: loaded.in_use,
                peaks,
            })
        })?;
        Ok(sounding)
    }
}

/// Zeros in host memory.
fn zeros(blank: &Blank) -> Result<Tensor, GraphError> {
    let mut value = DynTensor::new(
        &Allocator::default(),
        element_to(blank.element),
        blank.shape.clone(),
    )
    .map_err(|error| GraphError::Device {
        operation: format!("making zeros of shape {:?}", blank.shape),
        reason: message(error),
    })?;
    let bytes = blank.shape.iter().product::<usize>() * blank.element.size();
    if bytes > 0 {
        // SAFETY: the tensor is new, in host memory, and has `bytes` bytes; zero is a value of every dtype.
        unsafe { value.data_ptr_mut().cast::<u8>().write_bytes(0, bytes) };
    }
    wrap(&blank.name, value.into_dyn())
}
