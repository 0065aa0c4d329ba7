//! The memory bank of a cohort: owns the tensors, which stay on the device, and lays out what a frame recalls.

use std::collections::BTreeMap;

use crate::runtime::{Backend, Element, GraphError, Tensor};
use crate::tracker::memory_policy::{Reachable, Recall};

/// What one frame left of a cohort. Row `i` of each tensor is the cohort's object `i`.
#[derive(Debug, Clone)]
pub struct MemoryEntry {
    /// Memory features, `[objects, tokens, channels]`; `None` once no later frame can recall them.
    pub memory: Option<Tensor>,
    /// Object pointers, `[objects, pointer tokens, channels]`.
    pub pointer: Tensor,
}

/// The memory entries of a cohort, by frame.
#[derive(Debug, Clone, Default)]
pub struct MemoryBank {
    entries: BTreeMap<usize, MemoryEntry>,
}

/// The inputs of the memory attention graph for what is recalled.
#[derive(Debug, Clone, Copy)]
pub struct Slots {
    /// Number of inputs for memory features, one frame each.
    pub memories: usize,
    /// Number of inputs for object pointers of tracked frames, one frame each, by distance.
    pub pointers: usize,
    /// Channels of memory features and of a pointer token.
    pub channels: usize,
    /// Dtype of memory features.
    pub memory_element: Element,
    /// Dtype of object pointers.
    pub pointer_element: Element,
}

/// What a frame recalls, as inputs of the memory attention graph.
#[derive(Debug)]
pub struct RecalledTensors {
    /// Memory features, one tensor a slot, `[objects, tokens or 0, channels]`.
    pub memories: Vec<Tensor>,
    /// Object pointers of the conditioning frames, `[objects, frames * pointer tokens, channels]`.
    pub conditioning_pointers: Tensor,
    /// Object pointers of tracked frames, one tensor a distance from 1, `[objects, pointer tokens or 0, channels]`.
    pub pointers: Vec<Tensor>,
}

/// A recall that the bank cannot serve: an error of this program, not of its input.
#[derive(Debug, thiserror::Error)]
pub enum BankError {
    /// The policy recalls a frame that the bank does not hold.
    #[error(
        "the memory bank has no {what} of frame {frame} (it holds frames {held:?}); please report this"
    )]
    Missing {
        /// Memory or pointer.
        what: &'static str,
        /// The frame.
        frame: usize,
        /// Frames that the bank holds.
        held: Vec<usize>,
    },
    /// The graph has too few slots.
    #[error(
        "{needed} memories are recalled, but the graph has {slots} slots; export the bundle again"
    )]
    Slots {
        /// Memories recalled.
        needed: usize,
        /// Inputs of the graph.
        slots: usize,
    },
    /// The device.
    #[error(transparent)]
    Graph(#[from] GraphError),
}

impl MemoryBank {
    /// Puts the entry of `frame`, in place of an earlier one of the same frame.
    pub fn insert(&mut self, frame: usize, entry: MemoryEntry) {
        self.entries.insert(frame, entry);
    }

    /// Frames that have an entry, in ascending order.
    pub fn frames(&self) -> impl Iterator<Item = usize> + '_ {
        self.entries.keys().copied()
    }

    /// Bytes of all tensors.
    pub fn bytes(&self) -> usize {
        let entry = |entry: &MemoryEntry| {
            entry.memory.as_ref().map_or(0, Tensor::bytes) + entry.pointer.bytes()
        };
        self.entries.values().map(entry).sum()
    }

    /// Drops memory features and object pointers that are no longer reachable, as `reachable` says for each frame.
    pub fn retain(&mut self, mut reachable: impl FnMut(usize) -> Reachable) {
        self.entries.retain(|&frame, entry| {
            let Reachable { memory, pointer } = reachable(frame);
            if !memory {
                entry.memory = None;
            }
            memory || pointer
        });
    }

    /// A bank of some of the rows, in the order given.
    ///
    /// # Errors
    /// The device, or a row that does not exist.
    pub fn select(&self, backend: &dyn Backend, rows: &[usize]) -> Result<Self, GraphError> {
        Self::gather(backend, &[(self, rows.to_vec())])
    }

    /// A bank of rows of several banks that hold the same frames, one bank after the other.
    ///
    /// # Errors
    /// The device, or a row that does not exist.
    pub fn gather(
        backend: &dyn Backend,
        sources: &[(&Self, Vec<usize>)],
    ) -> Result<Self, GraphError> {
        let mut entries = BTreeMap::new();
        let frames: Vec<usize> = sources
            .first()
            .map(|(bank, _)| bank.frames().collect())
            .unwrap_or_default();
        for frame in frames {
            let mut pointers = Vec::new();
            let mut memories = Vec::new();
            for (bank, rows) in sources {
                let Some(entry) = bank.entries.get(&frame) else {
                    continue;
                };
                pointers.push((&entry.pointer, rows.clone()));
                memories.extend(entry.memory.as_ref().map(|memory| (memory, rows.clone())));
            }
            let memory = if memories.is_empty() {
                None
            } else {
                Some(backend.gather_rows(&memories)?)
            };
            entries.insert(
                frame,
                MemoryEntry {
                    memory,
                    pointer: backend.gather_rows(&pointers)?,
                },
            );
        }
        Ok(Self { entries })
    }

    /// Puts what `recall` names into the graph's slots, for a cohort of `objects` objects. Unused slots get empty tensors.
    ///
    /// # Errors
    /// [`BankError::Missing`] for a frame that the bank does not hold, [`BankError::Slots`] if the graph has too few slots, and
    /// [`BankError::Graph`] if the device fails.
    pub fn recall(
        &self,
        backend: &dyn Backend,
        slots: Slots,
        objects: usize,
        recall: &Recall,
    ) -> Result<RecalledTensors, BankError> {
        if recall.memories.len() > slots.memories {
            return Err(BankError::Slots {
                needed: recall.memories.len(),
                slots: slots.memories,
            });
        }
        let empty_memory = backend.empty(slots.memory_element, &[objects, 0, slots.channels])?;
        let empty_pointer = backend.empty(slots.pointer_element, &[objects, 0, slots.channels])?;
        let mut memories = Vec::with_capacity(slots.memories);
        for reference in &recall.memories {
            let entry = self
                .entries
                .get(&reference.frame)
                .and_then(|entry| entry.memory.clone());
            memories.push(entry.ok_or_else(|| self.missing("memory", reference.frame))?);
        }
        memories.resize(slots.memories, empty_memory);
        let mut pointers = vec![empty_pointer.clone(); slots.pointers];
        for reference in &recall.pointers {
            let pointer = self.pointer(reference.frame)?;
            if let Some(slot) = pointers.get_mut(reference.distance - 1) {
                *slot = pointer.clone();
            }
        }
        let conditioning_pointers = match recall.conditioning_pointers.as_slice() {
            [] => empty_pointer,
            [one] => self.pointer(one.frame)?.clone(),
            many => {
                let pointers = many
                    .iter()
                    .map(|one| self.pointer(one.frame))
                    .collect::<Result<Vec<_>, _>>()?;
                backend.concat_tokens(&pointers)?
            }
        };
        Ok(RecalledTensors {
            memories,
            conditioning_pointers,
            pointers,
        })
    }

    fn pointer(&self, frame: usize) -> Result<&Tensor, BankError> {
        self.entries
            .get(&frame)
            .map(|entry| &entry.pointer)
            .ok_or_else(|| self.missing("pointer", frame))
    }

    fn missing(&self, what: &'static str, frame: usize) -> BankError {
        BankError::Missing {
            what,
            frame,
            held: self.frames().collect(),
        }
    }
}
