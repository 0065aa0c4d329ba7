//! What two runs found, for the same texts or among what a graph proposed. Each numbers its objects by itself: which of one is which of the other is
//! said by their masks.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::AbError;
use super::agreement::{Agreement, FrameIou, ObjectAgreement, bad, iou, side_by_side};
use crate::scoring::matching::Matcher;
use crate::session::report::{FoundReport, FrameTracks, ObjectTrack, TracksReader};

/// What a run found for a text, or of what a graph proposed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TextFound {
    /// The text; null for what a graph proposed.
    pub text: Option<String>,
    /// The objects that are seen on some frame, by id.
    pub objects: Vec<ObjectFound>,
}

/// An object that a run found.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ObjectFound {
    /// Its id in this run.
    pub object: u32,
    /// The score with which it was found, 0 to 1.
    pub score: f32,
    /// The first frame on which it is seen.
    pub first_frame: u64,
    /// Frames on which it is seen.
    pub frames: u64,
}

/// What a variant found, beside what the baseline found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Finds {
    /// Objects of the baseline that it found too.
    pub found: u64,
    /// Objects of the baseline that it did not find.
    pub missed: u64,
    /// Its objects that the baseline did not find.
    pub extra: u64,
    /// Frames on which one of the two shows an object that the other does not show there.
    pub differing_frames: u64,
    /// Each text.
    pub texts: Vec<TextFinds>,
}

/// The same for a text, or for what a graph proposed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TextFinds {
    /// The text; null for what a graph proposed.
    pub text: Option<String>,
    /// Objects of the baseline that the variant found too.
    pub found: u64,
    /// Objects of the baseline that it did not find.
    pub missed: u64,
    /// Its objects that the baseline did not find.
    pub extra: u64,
    /// Mean over the objects that both found of their mean IoU; null if there is none.
    pub iou: Option<f64>,
    /// The lowest IoU of such an object on a frame; null if there is none.
    pub worst_iou: Option<f64>,
    /// Each object: those of the baseline by id, then those that the variant alone found.
    pub objects: Vec<ObjectFinds>,
}

/// An object that one of two runs found, or both.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ObjectFinds {
    /// Its id in the baseline; null if that did not find it.
    pub object: Option<u32>,
    /// Its id in the variant; null if that did not find it.
    pub variant_object: Option<u32>,
    /// The first frame on which the baseline shows it.
    pub first_frame: Option<u64>,
    /// The first frame on which the variant shows it.
    pub variant_first_frame: Option<u64>,
    /// Frames on which one of the two shows it and the other does not.
    pub differing_frames: u64,
    /// Mean IoU over the frames on which either shows it, 0 where one does not; null unless both found it.
    pub iou: Option<f64>,
    /// The lowest of these; null unless both found it.
    pub worst_iou: Option<f64>,
}

/// A run that found its objects.
#[derive(Debug, Clone, Copy)]
pub struct TextRun<'a> {
    /// Its tracks.json.
    pub tracks: &'a Path,
    /// The texts, with the objects that are seen on some frame.
    pub texts: &'a [TextFound],
}

/// What was looked for, and the objects that came of it: for a text, or without one for a graph that proposes objects.
pub type Sought = (Option<String>, Vec<FoundReport>);

/// Adds to what run.json says of the objects found on which frames they are seen.
///
/// # Errors
/// A tracks.json that cannot be read.
pub fn seen(tracks: &Path, sought: &[Sought]) -> Result<Vec<TextFound>, AbError> {
    let mut frames: BTreeMap<u32, (u64, u64)> = BTreeMap::new();
    for frame in open(tracks)? {
        let frame = frame.map_err(bad(tracks))?;
        for object in shown(&frame) {
            let (_, count) = frames.entry(object.object).or_insert((frame.frame, 0));
            *count += 1;
        }
    }
    let found = |(text, objects): &Sought| {
        let mut objects: Vec<ObjectFound> = objects
            .iter()
            .filter_map(|object| {
                let (first_frame, count) = frames.get(&object.object)?;
                Some(ObjectFound {
                    object: object.object,
                    score: object.score,
                    first_frame: *first_frame,
                    frames: *count,
                })
            })
            .collect();
        objects.sort_by_key(|object| object.object);
        TextFound {
            text: text.clone(),
            objects,
        }
    };
    Ok(sought.iter().map(found).collect())
}

/// Compares what two runs of one clip found for the same texts, text by text. Objects are matched by their masks (see
/// [`Matcher::matches`]); the agreement is that of the objects that both found, under the baseline's ids.
///
/// # Errors
/// A tracks.json that cannot be read, masks that are none, or runs of different lengths.
pub fn compare(
    baseline: TextRun<'_>,
    variant: TextRun<'_>,
) -> Result<(Finds, Option<Agreement>), AbError> {
    let sides = [text_of(baseline.texts), text_of(variant.texts)];
    let mut matcher = Matcher::default();
    both(baseline, variant, |[expected, got]| {
        for (side, frame) in [expected, got].into_iter().enumerate() {
            shown(frame).for_each(|object| matcher.shows(side, object.object));
        }
        for one in shown(expected) {
            for other in shown(got) {
                if sides[0].get(&one.object) == sides[1].get(&other.object) {
                    let iou = iou(&one.rle, &other.rle)?;
                    matcher.pair(one.object, other.object, iou);
                }
            }
        }
        Ok(())
    })?;
    let matches = matcher.matches();
    let counterpart = |object: u32| matches.iter().find(|m| m.first == object).map(|m| m.second);
    let matched: BTreeMap<u32, u32> = matches.iter().map(|m| (m.second, m.first)).collect();

    let mut alike: BTreeMap<u32, ObjectAgreement> = BTreeMap::new();
    let mut alone: BTreeMap<(usize, u32), u64> = BTreeMap::new();
    let mut differing = BTreeSet::new();
    both(baseline, variant, |[expected, got]| {
        let frame = expected.frame;
        let mut add = |object: u32, iou: f64| {
            let empty = || ObjectAgreement::empty(object);
            let known = alike.entry(object).or_insert_with(empty);
            known.per_frame.push(FrameIou { frame, iou });
        };
        let mut differs = |side: usize, object: u32| {
            *alone.entry((side, object)).or_default() += 1;
            differing.insert(frame);
        };
        for one in shown(expected) {
            let other = counterpart(one.object);
            match shown(got).find(|object| Some(object.object) == other) {
                Some(other) => add(one.object, iou(&one.rle, &other.rle)?),
                None => {
                    differs(0, one.object);
                    if other.is_some() {
                        add(one.object, 0.0);
                    }
                }
            }
        }
        for other in shown(got) {
            let one = matched.get(&other.object);
            if !shown(expected).any(|object| Some(&object.object) == one) {
                differs(1, other.object);
                if let Some(one) = one {
                    add(*one, 0.0);
                }
            }
        }
        Ok(())
    })?;
    let agreement = Agreement::of(alike.into_values().collect());
    let texts: Vec<TextFinds> = baseline
        .texts
        .iter()
        .zip(variant.texts)
        .map(|(one, other)| text_finds(one, other, &matched, agreement.as_ref(), &alone))
        .collect();
    let sum = |of: fn(&TextFinds) -> u64| texts.iter().map(of).sum();
    let finds = Finds {
        found: sum(|text| text.found),
        missed: sum(|text| text.missed),
        extra: sum(|text| text.extra),
        differing_frames: differing.len() as u64,
        texts,
    };
    Ok((finds, agreement))
}

/// `matched` has the baseline's id by the variant's; `alone` the frames on which one side's object is seen without its
/// counterpart.
fn text_finds(
    baseline: &TextFound,
    variant: &TextFound,
    matched: &BTreeMap<u32, u32>,
    agreement: Option<&Agreement>,
    alone: &BTreeMap<(usize, u32), u64>,
) -> TextFinds {
    let lonely = |side: usize, object: u32| alone.get(&(side, object)).copied().unwrap_or(0);
    let mut objects: Vec<ObjectFinds> = Vec::new();
    for one in &baseline.objects {
        let of_one = |other: &&ObjectFound| matched.get(&other.object) == Some(&one.object);
        let other = variant.objects.iter().find(of_one);
        let alike = agreement.and_then(|all| all.objects.iter().find(|o| o.object == one.object));
        objects.push(ObjectFinds {
            object: Some(one.object),
            variant_object: other.map(|other| other.object),
            first_frame: Some(one.first_frame),
            variant_first_frame: other.map(|other| other.first_frame),
            differing_frames: lonely(0, one.object) + other.map_or(0, |o| lonely(1, o.object)),
            iou: alike.map(|alike| alike.iou),
            worst_iou: alike.map(|alike| alike.worst_iou),
        });
    }
    let extra = |other: &&ObjectFound| !matched.contains_key(&other.object);
    objects.extend(
        variant
            .objects
            .iter()
            .filter(extra)
            .map(|other| ObjectFinds {
                object: None,
                variant_object: Some(other.object),
                first_frame: None,
                variant_first_frame: Some(other.first_frame),
                differing_frames: lonely(1, other.object),
                iou: None,
                worst_iou: None,
            }),
    );
    let count = |of: fn(&ObjectFinds) -> bool| objects.iter().filter(|o| of(o)).count() as u64;
    let ious: Vec<f64> = objects.iter().filter_map(|object| object.iou).collect();
    TextFinds {
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
fn text_of(texts: &[TextFound]) -> BTreeMap<u32, usize> {
    let places = texts.iter().enumerate();
    places
        .flat_map(|(place, text)| text.objects.iter().map(move |o| (o.object, place)))
        .collect()
}

/// The objects of which a frame shows something.
fn shown(frame: &FrameTracks) -> impl Iterator<Item = &ObjectTrack> {
    frame.objects.iter().filter(|object| object.area > 0)
}

fn open(path: &Path) -> Result<TracksReader, AbError> {
    TracksReader::open(path).map_err(bad(path))
}

/// Goes through two runs frame by frame.
fn both(
    baseline: TextRun<'_>,
    variant: TextRun<'_>,
    look: impl FnMut([&FrameTracks; 2]) -> Result<(), String>,
) -> Result<(), AbError> {
    side_by_side(open(baseline.tracks)?, open(variant.tracks)?, look)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::mask::{BinaryMask, rle_counts};
    use crate::session::report::{Rle, TracksWriter};

    /// On each frame some objects, each with the columns of 10 that it fills.
    type Clip<'a> = &'a [&'a [(u32, std::ops::Range<u32>)]];

    fn write(path: &Path, clip: Clip<'_>) {
        let mut writer = TracksWriter::create(path).unwrap();
        for (number, frame) in clip.iter().enumerate() {
            let track = |(object, columns): &(u32, std::ops::Range<u32>)| {
                let mask = BinaryMask {
                    width: 10,
                    height: 2,
                    data: (0..20)
                        .map(|at| u8::from(columns.contains(&(at % 10))))
                        .collect(),
                };
                ObjectTrack {
                    object: *object,
                    bbox: None,
                    area: mask.data.iter().map(|inside| u64::from(*inside)).sum(),
                    rle: Rle {
                        size: [2, 10],
                        counts: rle_counts(&mask),
                    },
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

    fn texts(all: &[(&str, &[u32])]) -> Vec<Sought> {
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
        let bears = seen(&one, &texts(&[("bear", &[1, 2]), ("dog", &[3])])).unwrap();
        let found = seen(&other, &texts(&[("bear", &[5, 7]), ("dog", &[8, 6, 9])])).unwrap();
        let of = |text: usize, place: usize| found[text].objects[place];
        assert_eq!((of(0, 1).first_frame, of(0, 1).frames), (1, 2));
        let ids: Vec<u32> = found[1].objects.iter().map(|o| o.object).collect();
        assert_eq!(ids, [6, 8], "9 is never seen");

        let run = |tracks, texts| TextRun { tracks, texts };
        let (finds, agreement) = compare(run(&one, &bears), run(&other, &found)).unwrap();
        // Bear 7 has half of bear 1, on the two frames that show both.
        assert_eq!((finds.found, finds.missed, finds.extra), (3, 0, 1));
        assert_eq!(finds.differing_frames, 3);
        let [bear, dog] = finds.texts.as_slice() else {
            panic!("{finds:?}")
        };
        let pairs = |text: &TextFinds| -> Vec<_> {
            let pair = |o: &ObjectFinds| (o.object, o.variant_object, o.differing_frames);
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
        let bear = |tracks: &Path| seen(tracks, &texts(&[("bear", &[1])])).unwrap();
        let (expected, got) = (bear(&one), bear(&other));
        let run = |tracks, texts| TextRun { tracks, texts };
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
        let bear = seen(&one, &texts(&[("bear", &[1])])).unwrap();
        let none = seen(&other, &texts(&[("bear", &[])])).unwrap();
        let run = |tracks, texts| TextRun { tracks, texts };
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
