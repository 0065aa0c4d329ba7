//! Batches where each object recalls the frames that are good for it: objects that differ in them go apart, and together again
//! once they do not.

use std::collections::BTreeSet;

use super::{Cohort, ObjectMask, Tracker};
use crate::runtime::GraphError;
use crate::tracker::memory_policy::memory_score;

impl Tracker {
    /// Objects whose mask is not good enough for its frame to be recalled later; none where every frame is.
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

    /// Notes for each object that was tracked on `frame` whether it is one of the `weak`.
    ///
    /// # Errors
    /// The device.
    pub(super) fn select(&mut self, frame: usize, weak: &BTreeSet<u32>) -> Result<(), GraphError> {
        if self.spec.policy.memory_selection.is_none() {
            return Ok(());
        }
        let backend = self.backend();
        let mut parted = Vec::with_capacity(self.cohorts.len());
        for mut cohort in std::mem::take(&mut self.cohorts) {
            let (poor, good): (Vec<usize>, Vec<usize>) =
                (0..cohort.objects.len()).partition(|&row| weak.contains(&cohort.objects[row]));
            if poor.is_empty() || !cohort.history.tracked.contains(&frame) {
                parted.push(cohort);
                continue;
            }
            if !good.is_empty() {
                let rest: Cohort = cohort.part(backend.as_ref(), &good)?;
                cohort = cohort.part(backend.as_ref(), &poor)?;
                parted.push(rest);
            }
            cohort.history.weak.insert(frame);
            parted.push(cohort);
        }
        self.cohorts = self.merge(parted)?;
        Ok(())
    }
}
