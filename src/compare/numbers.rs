//! Under which number an object that was found is shown: the same thing has the same number, and colour, in all runs.

use std::collections::{BTreeMap, BTreeSet};

use super::report::VariantReport;

/// The numbers of all runs' objects: the baseline's own, and the next free ones for what it did not find.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Numbers {
    runs: BTreeMap<String, BTreeMap<u32, u32>>,
    truth: BTreeMap<u32, u32>,
    /// Each number, ascending, with what it stands for in words: its text, and whose it is if not the baseline's.
    pub shown: BTreeMap<u32, String>,
}

impl Numbers {
    /// Of variants that found their objects; `None` where prompts said which objects there are.
    pub fn of(variants: &[VariantReport]) -> Option<Self> {
        let first = variants.first()?;
        if variants.iter().all(|variant| variant.found().is_none()) {
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
        let texts = variant.finds.iter().flat_map(|finds| &finds.texts);
        for object in texts.clone().flat_map(|text| &text.objects) {
            if let (Some(number), Some(own)) = (object.object, object.variant_object) {
                known.insert(own, number);
            }
        }
        // Of a variant that could not be compared, all objects are its own.
        let found = variant.run.iter().flat_map(|run| &run.texts);
        for text in found {
            for object in &text.objects {
                known.entry(object.object).or_insert_with(|| {
                    let alone = format!("{} of {} alone", object.object, variant.name);
                    self.next(match &text.text {
                        Some(text) => format!("{text} ({alone})"),
                        None => alone,
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
                _ => self.next(format!("{} of the ground truth alone", object.object)),
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

    /// The number of a variant's object.
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
    use crate::compare::finds::{Finds, ObjectFinds, ObjectFound, TextFinds, TextFound};
    use crate::compare::verdict::tests::timed;

    fn found(name: &str, objects: &[u32]) -> VariantReport {
        let object = |object: &u32| ObjectFound {
            object: *object,
            score: 0.9,
            first_frame: 0,
            frames: 2,
        };
        let mut variant = timed(name, &[1.0; 4]);
        variant.run.as_mut().unwrap().texts = vec![TextFound {
            text: Some("bear".to_owned()),
            objects: objects.iter().map(object).collect(),
        }];
        variant
    }

    #[test]
    fn the_same_object_has_the_same_number_everywhere() {
        assert_eq!(Numbers::of(&[timed("a", &[1.0])]), None);
        let mut b = found("b", &[2, 7]);
        let pair = |object, variant_object| ObjectFinds {
            object,
            variant_object,
            first_frame: None,
            variant_first_frame: None,
            differing_frames: 0,
            iou: None,
            worst_iou: None,
        };
        b.finds = Some(Finds {
            found: 1,
            missed: 1,
            extra: 1,
            differing_frames: 2,
            texts: vec![TextFinds {
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
            ["bear", "bear", "bear (2 of b alone)", "bear (1 of c alone)"]
        );
    }
}
