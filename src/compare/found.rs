//! Objects that runs find by themselves: on which frames they are, and which of two runs' objects are the same.
//!
//! Each run numbers its objects by itself, so objects of two runs are matched by their masks.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::agreement::{frame_by_frame, iou};
use super::error::{AbError, results};
use super::report::{
    Agreement, FoundComparison, FoundObject, FrameIou, ObjectAgreement, ObjectComparison,
    TextComparison, TextObjects,
};
use crate::scoring::matching::Matcher;
use crate::session::report::{FoundReport, FrameTracks, ObjectTrack, RunReport, TracksReader};

/// A run that found its objects by itself.
#[derive(Debug, Clone, Copy)]
pub struct FoundRun<'a> {
    /// Its tracks.json.
    pub tracks: &'a Path,
    /// Its objects for each text, from [`objects_of_run`].
    pub texts: &'a [TextObjects],
}

/// A text, or `None` for proposals, and the objects that run.json lists for it.
type Listed = (Option<String>, Vec<FoundReport>);

/// The objects that a run found, for each text, with the frames on which its tracks.json shows them. Empty if objects have
/// prompts.
///
/// # Errors
/// [`AbError::Results`] for a tracks.json that cannot be read.
pub fn objects_of_run(run: &RunReport, tracks: &Path) -> Result<Vec<TextObjects>, AbError> {
    let listed: Vec<Listed> = if run.proposals.is_some() {
        let found = run.prompts.iter().filter_map(|prompt| {
            Some(FoundReport {
                object: prompt.object,
                score: prompt.proposal.as_ref()?.score,
            })
        });
        vec![(None, found.collect())]
    } else {
        let texts = run.texts.iter();
        texts
            .map(|text| (Some(text.text.clone()), text.objects.clone()))
            .collect()
    };
    match listed.is_empty() {
        true => Ok(Vec::new()),
        false => with_frames(tracks, &listed),
    }
}

fn with_frames(tracks: &Path, listed: &[Listed]) -> Result<Vec<TextObjects>, AbError> {
    // The first frame of each object, and the number of its frames.
    let mut frames: BTreeMap<u32, (u64, u64)> = BTreeMap::new();
    for frame in open(tracks)? {
        let frame = frame.map_err(results(tracks))?;
        for object in shown(&frame) {
            let (_, count) = frames.entry(object.object).or_insert((frame.frame, 0));
            *count += 1;
        }
    }
    let with_frames = |object: &FoundReport| {
        let (first_frame, count) = frames.get(&object.object)?;
        Some(FoundObject {
            object: object.object,
            score: object.score,
            first_frame: *first_frame,
            frames: *count,
        })
    };
    let of_text = |(text, objects): &Listed| {
        let mut objects: Vec<FoundObject> = objects.iter().filter_map(with_frames).collect();
        objects.sort_by_key(|object| object.object);
        TextObjects {
            text: text.clone(),
            objects,
        }
    };
    Ok(listed.iter().map(of_text).collect())
}

/// Compares the objects that two runs of one clip found for the same texts. Objects are matched by their masks within a text
/// (see [`Matcher::matches`]). The agreement is that of the objects that both found, with the baseline's ids.
///
/// # Errors
/// [`AbError::Results`] for a file or a mask that cannot be read, and for runs of different lengths.
pub fn compare(
    baseline: FoundRun<'_>,
    variant: FoundRun<'_>,
) -> Result<(FoundComparison, Option<Agreement>), AbError> {
    let pairs = Pairs::of(baseline, variant)?;
    let mut tally = Tally::default();
    both(baseline, variant, |[expected, got]| {
        tally.add(&pairs, expected, got)
    })?;
    let agreement = Agreement::of(tally.agreeing.values().cloned().collect());
    let texts: Vec<TextComparison> = baseline
        .texts
        .iter()
        .zip(variant.texts)
        .map(|(ours, theirs)| compare_text(ours, theirs, &pairs, &tally, agreement.as_ref()))
        .collect();
    let sum = |of: fn(&TextComparison) -> u64| texts.iter().map(of).sum();
    let comparison = FoundComparison {
        found: sum(|text| text.found),
        missed: sum(|text| text.missed),
        extra: sum(|text| text.extra),
        differing_frames: tally.differing_frames.len() as u64,
        texts,
    };
    Ok((comparison, agreement))
}

/// Which objects of two runs are the same.
struct Pairs {
    variant_by_baseline: BTreeMap<u32, u32>,
    baseline_by_variant: BTreeMap<u32, u32>,
}

impl Pairs {
    fn of(baseline: FoundRun<'_>, variant: FoundRun<'_>) -> Result<Self, AbError> {
        let (ours, theirs) = (text_of(baseline.texts), text_of(variant.texts));
        let mut matcher = Matcher::default();
        both(baseline, variant, |[expected, got]| {
            shown(expected).for_each(|object| matcher.shows(0, object.object));
            shown(got).for_each(|object| matcher.shows(1, object.object));
            for one in shown(expected) {
                let text = ours.get(&one.object);
                for other in shown(got).filter(|other| theirs.get(&other.object) == text) {
                    let iou = iou(&one.rle, &other.rle)?;
                    matcher.pair(one.object, other.object, iou);
                }
            }
            Ok(())
        })?;
        let matches = matcher.matches();
        Ok(Self {
            variant_by_baseline: matches.iter().map(|m| (m.first, m.second)).collect(),
            baseline_by_variant: matches.iter().map(|m| (m.second, m.first)).collect(),
        })
    }
}

/// What the frames of two runs add up to.
#[derive(Default)]
struct Tally {
    /// The objects that both found, by the baseline's ids.
    agreeing: BTreeMap<u32, ObjectAgreement>,
    /// Frames on which an object of the baseline is without its counterpart.
    baseline_only: BTreeMap<u32, u64>,
    /// Frames on which an object of the variant is without its counterpart.
    variant_only: BTreeMap<u32, u64>,
    differing_frames: BTreeSet<u64>,
}

impl Tally {
    fn add(
        &mut self,
        pairs: &Pairs,
        expected: &FrameTracks,
        got: &FrameTracks,
    ) -> Result<(), String> {
        let frame = expected.frame;
        for one in shown(expected) {
            let id = pairs.variant_by_baseline.get(&one.object);
            let other = shown(got).find(|object| Some(&object.object) == id);
            if let Some(other) = other {
                self.agree(one.object, frame, iou(&one.rle, &other.rle)?);
                continue;
            }
            *self.baseline_only.entry(one.object).or_default() += 1;
            self.differing_frames.insert(frame);
            if id.is_some() {
                self.agree(one.object, frame, 0.0);
            }
        }
        for other in shown(got) {
            let id = pairs.baseline_by_variant.get(&other.object);
            if shown(expected).any(|object| Some(&object.object) == id) {
                continue;
            }
            *self.variant_only.entry(other.object).or_default() += 1;
            self.differing_frames.insert(frame);
            if let Some(id) = id {
                self.agree(*id, frame, 0.0);
            }
        }
        Ok(())
    }

    fn agree(&mut self, object: u32, frame: u64, iou: f64) {
        let agreement = self.agreeing.entry(object);
        let agreement = agreement.or_insert_with(|| ObjectAgreement::empty(object));
        agreement.per_frame.push(FrameIou { frame, iou });
    }
}

fn compare_text(
    baseline: &TextObjects,
    variant: &TextObjects,
    pairs: &Pairs,
    tally: &Tally,
    agreement: Option<&Agreement>,
) -> TextComparison {
    let missing =
        |counts: &BTreeMap<u32, u64>, object: u32| counts.get(&object).copied().unwrap_or(0);
    let mut objects: Vec<ObjectComparison> = Vec::new();
    for one in &baseline.objects {
        let id = pairs.variant_by_baseline.get(&one.object);
        let other = variant
            .objects
            .iter()
            .find(|other| Some(&other.object) == id);
        let iou = agreement.and_then(|all| all.objects.iter().find(|o| o.object == one.object));
        objects.push(ObjectComparison {
            object: Some(one.object),
            variant_object: other.map(|other| other.object),
            first_frame: Some(one.first_frame),
            variant_first_frame: other.map(|other| other.first_frame),
            differing_frames: missing(&tally.baseline_only, one.object)
                + other.map_or(0, |other| missing(&tally.variant_only, other.object)),
            iou: iou.map(|agreement| agreement.iou),
            worst_iou: iou.map(|agreement| agreement.worst_iou),
        });
    }
    let extra = |other: &&FoundObject| !pairs.baseline_by_variant.contains_key(&other.object);
    objects.extend(
        variant
            .objects
            .iter()
            .filter(extra)
            .map(|other| ObjectComparison {
                object: None,
                variant_object: Some(other.object),
                first_frame: None,
                variant_first_frame: Some(other.first_frame),
                differing_frames: missing(&tally.variant_only, other.object),
                iou: None,
                worst_iou: None,
            }),
    );
    let count = |of: fn(&ObjectComparison) -> bool| objects.iter().filter(|o| of(o)).count() as u64;
    let ious: Vec<f64> = objects.iter().filter_map(|object| object.iou).collect();
    TextComparison {
        text: baseline.text.clone(),
        found: count(|o| o.object.is_some() && o.variant_object.is_some()),
        missed: count(|o| o.variant_object.is_none()),
        extra: count(|o| o.object.is_none()),
        iou: (!ious.is_empty()).then(|| ious.iter().sum::<f64>() / ious.len() as f64),
        worst_iou: objects.iter().filter_map(|o| o.worst_iou).reduce(f64::min),
        objects,
    }
}

/// The place of each object's text.
fn text_of(texts: &[TextObjects]) -> BTreeMap<u32, usize> {
    let places = texts.iter().enumerate();
    places
        .flat_map(|(place, text)| text.objects.iter().map(move |o| (o.object, place)))
        .collect()
}

/// The objects with a mask on a frame.
fn shown(frame: &FrameTracks) -> impl Iterator<Item = &ObjectTrack> {
    frame.objects.iter().filter(|object| object.area > 0)
}

fn open(path: &Path) -> Result<TracksReader, AbError> {
    TracksReader::open(path).map_err(results(path))
}

fn both(
    baseline: FoundRun<'_>,
    variant: FoundRun<'_>,
    visit: impl FnMut([&FrameTracks; 2]) -> Result<(), String>,
) -> Result<(), AbError> {
    frame_by_frame(open(baseline.tracks)?, open(variant.tracks)?, visit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::masks::{Mask, Rle};
    use crate::session::report::TracksWriter;

    /// On each frame some objects, each with the columns of 10 that it fills.
    type Clip<'a> = &'a [&'a [(u32, std::ops::Range<u32>)]];

    fn write(path: &Path, clip: Clip<'_>) {
        let mut writer = TracksWriter::create(path).unwrap();
        for (number, frame) in clip.iter().enumerate() {
            let track = |(object, columns): &(u32, std::ops::Range<u32>)| {
                let mask = Mask::from_fn(10, 2, |x, _| columns.contains(&x));
                ObjectTrack {
                    object: *object,
                    bbox: None,
                    area: mask.area(),
                    rle: Rle::of(&mask),
                    score_logit: 1.0,
                    score: 0.7,
                    iou: None,
                }
            };
            let frame = FrameTracks {
                frame: number as u64,
                time_s: None,
                objects: frame.iter().map(track).collect(),
                proposals: None,
            };
            writer.write(&frame).unwrap();
        }
        writer.finish().unwrap();
    }

    fn texts(all: &[(&str, &[u32])]) -> Vec<Listed> {
        let found = |object: &u32| FoundReport {
            object: *object,
            score: 0.9,
        };
        let text = |(text, objects): &(&str, &[u32])| {
            let objects = objects.iter().map(found).collect();
            (Some((*text).to_owned()), objects)
        };
        all.iter().map(text).collect()
    }

    #[test]
    fn objects_of_two_runs_are_matched_by_their_masks_within_a_text() {
        let dir = tempfile::tempdir().unwrap();
        let (one, other) = (dir.path().join("one.json"), dir.path().join("other.json"));
        // 1 and 2 are bears, 3 is a dog. Of the other run's, 5 is bear 2, 6 the dog, which comes late, and 7 is new; its 8 lies
        // where bear 1 is, but is a dog.
        let frame: &[_] = &[(1, 0..2), (2, 2..6), (3, 6..10)];
        write(&one, &[frame, frame, frame]);
        let first: &[_] = &[(5, 2..5), (7, 0..0), (8, 0..2)];
        let later: &[_] = &[(5, 2..6), (6, 6..10), (7, 0..1), (8, 0..2)];
        write(&other, &[first, later, later]);
        let bears = with_frames(&one, &texts(&[("bear", &[1, 2]), ("dog", &[3])])).unwrap();
        let found = with_frames(&other, &texts(&[("bear", &[5, 7]), ("dog", &[8, 6, 9])])).unwrap();
        let of = |text: usize, place: usize| found[text].objects[place];
        assert_eq!((of(0, 1).first_frame, of(0, 1).frames), (1, 2));
        let ids: Vec<u32> = found[1].objects.iter().map(|o| o.object).collect();
        assert_eq!(ids, [6, 8], "9 is never seen");

        let run = |tracks, texts| FoundRun { tracks, texts };
        let (finds, agreement) = compare(run(&one, &bears), run(&other, &found)).unwrap();
        // Bear 7 has half of bear 1, on the two frames that show both.
        assert_eq!((finds.found, finds.missed, finds.extra), (3, 0, 1));
        assert_eq!(finds.differing_frames, 3);
        let [bear, dog] = finds.texts.as_slice() else {
            panic!("{finds:?}")
        };
        let pairs = |text: &TextComparison| -> Vec<_> {
            let pair = |o: &ObjectComparison| (o.object, o.variant_object, o.differing_frames);
            text.objects.iter().map(pair).collect()
        };
        assert_eq!(pairs(bear), [(Some(1), Some(7), 1), (Some(2), Some(5), 0)]);
        assert_eq!(pairs(dog), [(Some(3), Some(6), 1), (None, Some(8), 3)]);
        assert_eq!((dog.found, dog.missed, dog.extra), (1, 0, 1));
        assert_eq!(dog.iou, Some(2.0 / 3.0));
        assert_eq!((dog.worst_iou, bear.worst_iou), (Some(0.0), Some(0.0)));
        assert_eq!(dog.objects[0].variant_first_frame, Some(1));
        let agreement = agreement.unwrap();
        let ids: Vec<u32> = agreement.objects.iter().map(|o| o.object).collect();
        assert_eq!(ids, [1, 2, 3]);
        assert_eq!(agreement.objects[1].per_frame[0].iou, 0.75);

        // The other way round the same things are found and missed.
        let (finds, _) = compare(run(&other, &found), run(&one, &bears)).unwrap();
        assert_eq!((finds.found, finds.missed, finds.extra), (3, 1, 0));
    }

    #[test]
    fn objects_that_meet_on_one_frame_only_are_not_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let (one, other) = (dir.path().join("one.json"), dir.path().join("other.json"));
        write(&one, &[&[(1, 0..4)], &[(1, 0..4)], &[(1, 0..4)]]);
        write(&other, &[&[(1, 0..4)], &[(1, 6..10)], &[(1, 6..10)]]);
        let bear = |tracks: &Path| with_frames(tracks, &texts(&[("bear", &[1])])).unwrap();
        let (expected, got) = (bear(&one), bear(&other));
        let run = |tracks, texts| FoundRun { tracks, texts };
        let (finds, agreement) = compare(run(&one, &expected), run(&other, &got)).unwrap();
        assert_eq!((finds.found, finds.missed, finds.extra), (0, 1, 1));
        assert_eq!((finds.differing_frames, agreement), (3, None));
    }

    #[test]
    fn nothing_in_common_is_no_agreement_and_other_lengths_are_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let (one, other) = (dir.path().join("one.json"), dir.path().join("other.json"));
        write(&one, &[&[(1, 0..2)], &[(1, 0..2)]]);
        write(&other, &[&[], &[]]);
        let bear = with_frames(&one, &texts(&[("bear", &[1])])).unwrap();
        let none = with_frames(&other, &texts(&[("bear", &[])])).unwrap();
        let run = |tracks, texts| FoundRun { tracks, texts };
        let (finds, agreement) = compare(run(&one, &bear), run(&other, &none)).unwrap();
        assert_eq!((finds.found, finds.missed, finds.extra), (0, 1, 0));
        assert!(agreement.is_none() && finds.texts[0].iou.is_none());
        write(&other, &[&[]]);
        let error = compare(run(&one, &bear), run(&other, &none))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("other.json") && error.contains("number of frames"),
            "{error}"
        );
    }
}
