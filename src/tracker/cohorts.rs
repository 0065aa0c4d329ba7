//! Cohorts: objects that are tracked in one batch because they recall the same frames.
//!
//! Objects that start to differ, by a prompt or by the frames that are selected for them, are split into cohorts; cohorts that no
//! longer differ are joined.

use std::collections::BTreeSet;

use super::memory_bank::MemoryBank;
use super::memory_policy::{self, History, Parameters, memory_score};
use super::{ObjectMask, Tracker};
use crate::runtime::{Backend, GraphError};

/// Objects with the same history, and their memory.
pub(super) struct Cohort {
    /// Ids; an object's place is its row in the tensors of the bank.
    pub(super) objects: Vec<u32>,
    pub(super) history: History,
    pub(super) bank: MemoryBank,
}

impl Cohort {
    /// A cohort of one new object.
    pub(super) fn new(object: u32) -> Self {
        Self {
            objects: vec![object],
            history: History::default(),
            bank: MemoryBank::default(),
        }
    }

    /// A cohort of the objects at `rows`, in that order.
    ///
    /// # Errors
    /// The device.
    fn part(&self, backend: &dyn Backend, rows: &[usize]) -> Result<Self, GraphError> {
        Ok(Self {
            objects: rows.iter().map(|&row| self.objects[row]).collect(),
            history: self.history.clone(),
            bank: self.bank.select(backend, rows)?,
        })
    }

    /// Drops what no frame from `next` on can recall.
    pub(super) fn forget(&mut self, parameters: &Parameters, next: usize) {
        let history = self.history.clone();
        self.bank
            .retain(|frame| memory_policy::reachable(parameters, &history, frame, next));
        let held: BTreeSet<usize> = self.bank.frames().collect();
        self.history.tracked.retain(|frame| held.contains(frame));
        self.history.weak.retain(|frame| held.contains(frame));
    }
}

impl Tracker {
    /// Takes an object out of its cohort, or makes a cohort for a new object. It is in none of the tracker's cohorts then.
    ///
    /// # Errors
    /// The device.
    pub(super) fn detach(&mut self, object: u32) -> Result<Cohort, GraphError> {
        let home = self
            .cohorts
            .iter()
            .position(|cohort| cohort.objects.contains(&object));
        let Some(home) = home else {
            self.order.push(object);
            return Ok(Cohort::new(object));
        };
        let cohort = &self.cohorts[home];
        if cohort.objects.len() == 1 {
            return Ok(self.cohorts.remove(home));
        }
        let (mine, others): (Vec<usize>, Vec<usize>) =
            (0..cohort.objects.len()).partition(|&row| cohort.objects[row] == object);
        let backend = self.stages.backend.as_ref();
        let detached = cohort.part(backend, &mine)?;
        let rest = cohort.part(backend, &others)?;
        self.cohorts[home] = rest;
        Ok(detached)
    }

    /// Joins cohorts with the same history, up to a chunk of objects each.
    ///
    /// # Errors
    /// The device.
    pub(super) fn merge(&self, cohorts: Vec<Cohort>) -> Result<Vec<Cohort>, GraphError> {
        let mut groups: Vec<Vec<Cohort>> = Vec::new();
        for cohort in cohorts {
            let fits = |group: &&mut Vec<Cohort>| {
                group
                    .iter()
                    .map(|member| member.objects.len())
                    .sum::<usize>()
                    + cohort.objects.len()
                    <= self.options.chunk
                    && group[0].history == cohort.history
                    && group[0].bank.frames().eq(cohort.bank.frames())
            };
            match groups.iter_mut().find(fits) {
                Some(group) => group.push(cohort),
                None => groups.push(vec![cohort]),
            }
        }
        let mut merged = Vec::with_capacity(groups.len());
        for mut group in groups {
            if group.len() == 1 {
                merged.append(&mut group);
                continue;
            }
            let sources: Vec<(&MemoryBank, Vec<usize>)> = group
                .iter()
                .map(|member| (&member.bank, (0..member.objects.len()).collect()))
                .collect();
            let bank = MemoryBank::gather(self.stages.backend.as_ref(), &sources)?;
            let objects = group
                .iter()
                .flat_map(|member| member.objects.iter().copied())
                .collect();
            merged.push(Cohort {
                objects,
                history: group.swap_remove(0).history,
                bank,
            });
        }
        Ok(merged)
    }

    /// Objects whose [`memory_score`] on a frame is too low for the frame to be recalled later; none if the bundle does not select.
    pub(super) fn weak<'a>(
        &self,
        masks: impl IntoIterator<Item = &'a ObjectMask>,
    ) -> BTreeSet<u32> {
        let Some(threshold) = self.spec.policy.memory_selection else {
            return BTreeSet::new();
        };
        masks
            .into_iter()
            .filter(|mask| memory_score(mask.score, mask.iou.unwrap_or(1.0)) <= threshold)
            .map(|mask| mask.object)
            .collect()
    }

    /// Notes in the history of the `weak` objects that `frame` is weak, for those that were tracked on it. Cohorts are split where
    /// objects differ, and joined where they no longer do.
    ///
    /// # Errors
    /// The device.
    pub(super) fn select(&mut self, frame: usize, weak: &BTreeSet<u32>) -> Result<(), GraphError> {
        if self.spec.policy.memory_selection.is_none() {
            return Ok(());
        }
        let backend = self.backend();
        let mut split = Vec::with_capacity(self.cohorts.len());
        for mut cohort in std::mem::take(&mut self.cohorts) {
            let (poor, good): (Vec<usize>, Vec<usize>) =
                (0..cohort.objects.len()).partition(|&row| weak.contains(&cohort.objects[row]));
            if poor.is_empty() || !cohort.history.tracked.contains(&frame) {
                split.push(cohort);
                continue;
            }
            if !good.is_empty() {
                let rest: Cohort = cohort.part(backend.as_ref(), &good)?;
                cohort = cohort.part(backend.as_ref(), &poor)?;
                split.push(rest);
            }
            cohort.history.weak.insert(frame);
            split.push(cohort);
        }
        self.cohorts = self.merge(split)?;
        Ok(())
    }
}
