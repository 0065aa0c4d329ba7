//! The numbers under which found objects are shown: the same object has the same number, and colour, in all runs.

use std::collections::{BTreeMap, BTreeSet};

use super::report::VariantReport;

/// The numbers of the objects of all runs: the ids of the baseline, then the next free numbers for other objects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Numbers {
    runs: BTreeMap<String, BTreeMap<u32, u32>>,
    truth: BTreeMap<u32, u32>,
    /// The description of each number: its text, and the only run that found it if that is not the baseline.
    pub shown: BTreeMap<u32, String>,
}

impl Numbers {
    /// Numbers the objects that variants found by themselves; `None` if objects have prompts.
    pub fn of(variants: &[VariantReport]) -> Option<Self> {
        let first = variants.first()?;
        if variants
            .iter()
            .all(|variant| variant.found_count().is_none())
        {
            return None;
        }
        let mut numbers = Self {
            runs: BTreeMap::new(),
            truth: BTreeMap::new(),
            shown: BTreeMap::new(),
        };
        let texts = first.run.iter().flat_map(|run| &run.texts);
        for (text, object) in texts.flat_map(|t| t.objects.iter().map(|o| (&t.text, o.object))) {
            numbers
                .shown
                .insert(object, text.clone().unwrap_or_default());
        }
        let own = numbers.shown.keys().map(|id| (*id, *id)).collect();
        numbers.runs.insert(first.name.clone(), own);
        for variant in &variants[1..] {
            numbers.add(variant);
        }
        numbers.add_truth(first);
        Some(numbers)
    }

    fn add(&mut self, variant: &VariantReport) {
        let mut known = BTreeMap::new();
        let texts = variant.found_objects.iter().flat_map(|found| &found.texts);
        for object in texts.clone().flat_map(|text| &text.objects) {
            if let (Some(number), Some(own)) = (object.object, object.variant_object) {
                known.insert(own, number);
            }
        }
        // All objects of a variant without a comparison get numbers of their own.
        let found = variant.run.iter().flat_map(|run| &run.texts);
        for text in found {
            for object in &text.objects {
                known.entry(object.object).or_insert_with(|| {
                    let own = format!("{} of {}, not in the baseline", object.object, variant.name);
                    self.next(match &text.text {
                        Some(text) => format!("{text} ({own})"),
                        None => own,
                    })
                });
            }
        }
        self.runs.insert(variant.name.clone(), known);
    }

    fn add_truth(&mut self, baseline: &VariantReport) {
        let scores = baseline.run.as_ref().and_then(|run| run.scores.as_ref());
        for object in scores.iter().flat_map(|scores| &scores.objects) {
            let number = match object.matched {
                Some(number) if self.shown.contains_key(&number) => number,
                _ => self.next(format!(
                    "{} of the ground truth, not in the baseline",
                    object.object
                )),
            };
            self.truth.insert(object.object, number);
        }
    }

    fn next(&mut self, what: String) -> u32 {
        let taken: BTreeSet<u32> = self.shown.keys().copied().collect();
        let number = taken.last().map_or(1, |last| last + 1);
        self.shown.insert(number, what);
        number
    }

    /// The number of an object of a variant.
    pub fn of_run(&self, variant: &str, object: u32) -> u32 {
        let run = self.runs.get(variant);
        run.and_then(|run| run.get(&object))
            .copied()
            .unwrap_or(object)
    }

    /// The number of an object of the ground truth.
    pub fn of_truth(&self, object: u32) -> u32 {
        self.truth.get(&object).copied().unwrap_or(object)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::doubles::timed;
    use crate::compare::report::{
        FoundComparison, FoundObject, ObjectComparison, TextComparison, TextObjects,
    };

    fn found(name: &str, objects: &[u32]) -> VariantReport {
        let object = |object: &u32| FoundObject {
            object: *object,
            score: 0.9,
            first_frame: 0,
            frames: 2,
        };
        let mut variant = timed(name, &[1.0; 4]);
        variant.run.as_mut().unwrap().texts = vec![TextObjects {
            text: Some("bear".to_owned()),
            objects: objects.iter().map(object).collect(),
        }];
        variant
    }

    #[test]
    fn the_same_object_has_the_same_number_everywhere() {
        assert_eq!(Numbers::of(&[timed("a", &[1.0])]), None);
        let mut b = found("b", &[2, 7]);
        let pair = |object, variant_object| ObjectComparison {
            object,
            variant_object,
            first_frame: None,
            variant_first_frame: None,
            differing_frames: 0,
            iou: None,
            worst_iou: None,
        };
        b.found_objects = Some(FoundComparison {
            found: 1,
            missed: 1,
            extra: 1,
            differing_frames: 2,
            texts: vec![TextComparison {
                text: Some("bear".to_owned()),
                found: 1,
                missed: 1,
                extra: 1,
                iou: None,
                worst_iou: None,
                objects: vec![
                    pair(Some(1), None),
                    pair(Some(2), Some(7)),
                    pair(None, Some(2)),
                ],
            }],
        });
        let numbers = Numbers::of(&[found("a", &[1, 2]), b, found("c", &[1])]).unwrap();
        assert_eq!(numbers.of_run("a", 2), 2);
        assert_eq!(numbers.of_run("b", 7), 2);
        assert_eq!(numbers.of_run("b", 2), 3);
        assert_eq!(numbers.of_run("c", 1), 4);
        assert_eq!(numbers.of_truth(9), 9);
        let names: Vec<&str> = numbers.shown.values().map(String::as_str).collect();
        assert_eq!(
            names,
            [
                "bear",
                "bear",
                "bear (2 of b, not in the baseline)",
                "bear (1 of c, not in the baseline)"
            ]
        );
    }
}
