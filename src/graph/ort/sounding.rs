//! What a graph takes of the arena, by running it once on zeros in an arena of its own.

use std::path::Path;
use std::sync::PoisonError;

use ort::memory::Allocator;
use ort::value::DynTensor;

use super::arena::Arena;
use super::running::OrtGraph;
use super::values::{element_to, wrap};
use super::{LOADED, Loaded, Runtime, message};
use crate::graph::{Blank, GraphError, Sounding, Tensor};

impl Runtime {
    /// Loads a graph file alone and runs it once for each of `runs`, on zeros, ascending in what they need. The arena
    /// of these runs is bounded by `limit` bytes.
    ///
    /// # Errors
    /// A graph that cannot be loaded or run, [`GraphError::ArenaFull`] at the limit, and a process that already has
    /// graphs: the library has one arena at a time for new sessions.
    pub fn sound(
        &self,
        role: &str,
        path: &Path,
        runs: &[Vec<Blank>],
        outputs: &[&str],
        limit: Option<u64>,
    ) -> Result<Sounding, GraphError> {
        let failed = |reason: String| GraphError::Device {
            operation: format!("sounding graph {role}"),
            reason,
        };
        let Some(Loaded { arena: slot, .. }) = LOADED.get() else {
            return Err(failed("the library is not loaded".to_owned()));
        };
        let slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
        if slot.is_some() {
            return Err(failed("graphs are already loaded".to_owned()));
        }
        let arena = Arena::open(&self.environment, self.place(), limit, || self.builder())
            .map_err(|reason| self.provider_error(reason))?;
        let sounding = self.sound_in(&arena, role, path, runs, outputs);
        let closed = arena.close(&self.environment).map_err(failed);
        let sounding = sounding?;
        closed.map(|()| sounding)
    }

    fn sound_in(
        &self,
        arena: &Arena,
        role: &str,
        path: &Path,
        runs: &[Vec<Blank>],
        outputs: &[&str],
    ) -> Result<Sounding, GraphError> {
        let mut graph = OrtGraph::within(role, arena, self.session(role, path, None))?;
        let loaded = arena.stats()?;
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
            let result = graph.run(&inputs, outputs, arena.run_options());
            OrtGraph::within(role, arena, result)?;
            peaks.push(arena.stats()?.peak_in_use.saturating_sub(loaded.in_use));
        }
        Ok(Sounding {
            weights: loaded.in_use,
            peaks,
        })
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
