//! The memory bank of objects that share their history: owns the tensors, on the device, and carries out a recall.

use std::collections::BTreeMap;

use crate::runtime::{Backend, Element, GraphError, Tensor};
use crate::tracker::memory_policy::Recall;

/// What one frame left of a group of objects; row `i` is the group's object `i`.
#[derive(Debug, Clone)]
pub struct Entry {
    /// `[objects, tokens, channels]`; absent once no later frame can recall it.
    pub memory: Option<Tensor>,
    /// `[objects, pointer tokens, channels]`.
    pub pointer: Tensor,
}

/// Entries by frame.
#[derive(Debug, Clone, Default)]
pub struct Bank {
    entries: BTreeMap<usize, Entry>,
}

/// Shape of the slots of the memory attention graph.
#[derive(Debug, Clone, Copy)]
pub struct Slots {
    /// Number of memory inputs.
    pub memories: usize,
    /// Number of inputs for pointers of tracked frames, one frame each, by distance.
    pub pointers: usize,
    /// Channels of a memory and of a pointer token.
    pub channels: usize,
    /// Dtype of a memory.
    pub memory_element: Element,
    /// Dtype of a pointer.
    pub pointer_element: Element,
}

/// Tensors that stand ready for the memory attention graph.
#[derive(Debug)]
pub struct Recalled {
    /// One a slot, `[objects, tokens or 0, channels]`.
    pub memories: Vec<Tensor>,
    /// Pointers of the conditioning frames, `[objects, frames * pointer tokens, channels]`.
    pub cond_pointers: Tensor,
    /// One a distance from 1, `[objects, pointer tokens or 0, channels]`.
    pub pointers: Vec<Tensor>,
}

/// A recall that the bank cannot serve: an error of this program, not of its input.
#[derive(Debug, thiserror::Error)]
pub enum BankError {
    /// The policy names a frame that left nothing.
    #[error(
        "the memory bank has no {what} of frame {frame} (it holds frames {held:?}); please report this"
    )]
    Missing {
        /// Memory or pointer.
        what: &'static str,
        /// The frame.
        frame: usize,
        /// Frames that are there.
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

impl Bank {
    /// Puts what `frame` left, in place of what it left before.
    pub fn insert(&mut self, frame: usize, entry: Entry) {
        self.entries.insert(frame, entry);
    }

    /// Frames that left something.
    pub fn frames(&self) -> impl Iterator<Item = usize> + '_ {
        self.entries.keys().copied()
    }

    /// Bytes of all tensors.
    pub fn bytes(&self) -> usize {
        let entry =
            |entry: &Entry| entry.memory.as_ref().map_or(0, Tensor::bytes) + entry.pointer.bytes();
        self.entries.values().map(entry).sum()
    }

    /// Drops memories and pointers for which `keep(frame)` says (memory, pointer) no longer matter.
    pub fn retain(&mut self, mut keep: impl FnMut(usize) -> (bool, bool)) {
        self.entries.retain(|&frame, entry| {
            let (memory, pointer) = keep(frame);
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

    /// Rows of several banks that hold the same frames, one bank after the other.
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
                Entry {
                    memory,
                    pointer: backend.gather_rows(&pointers)?,
                },
            );
        }
        Ok(Self { entries })
    }

    /// Lays out what `recall` names in the graph's slots; slots that stay unused get empty tensors.
    ///
    /// # Errors
    /// See [`BankError`].
    pub fn recall(
        &self,
        backend: &dyn Backend,
        slots: Slots,
        objects: usize,
        recall: &Recall,
    ) -> Result<Recalled, BankError> {
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
        let cond_pointers = match recall.cond_pointers.as_slice() {
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
        Ok(Recalled {
            memories,
            cond_pointers,
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
