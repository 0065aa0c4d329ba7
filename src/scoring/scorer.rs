//! The scores of a run against ground truth: which objects count on which frames, and what is said about it.

use std::collections::BTreeMap;
use std::path::Path;

use crate::media::index_png::read_index_png;
use crate::scoring::ground_truth::GroundTruth;
use crate::scoring::matching::Matcher;
use crate::scoring::report::{
    FrameScore, MeanScores, OBJECTS_BY_ID, OBJECTS_BY_OVERLAP, ObjectScores, ScoresReport,
};
use crate::scoring::{IGNORED, Means, Overlaps, Score, ScoringError, score_frame};
use crate::words::listed;

/// One object that the ground truth shows.
#[derive(Debug)]
struct Judged {
    object: u16,
    tracked: bool,
    /// The run's id, where that is another.
    matched: Option<u32>,
    /// The first frame that counts.
    from: usize,
    frames: Vec<(usize, Score)>,
}

/// Scores frames as they come; of each it keeps two numbers an object.
#[derive(Debug)]
pub(crate) struct Scorer {
    truth: GroundTruth,
    judged: Vec<Judged>,
    unseen: Vec<u32>,
    annotated: u64,
    finds: Option<Matching>,
}

/// Which found object is which of the ground truth is known when all frames are there; they are scored then.
#[derive(Debug, Default)]
struct Matching {
    /// The ground truth is the first side, the run the second.
    matcher: Matcher,
    /// The annotated frames.
    frames: Vec<usize>,
}

impl Scorer {
    /// Plans the scores of the objects of `truth`, given the frame of each tracked object's first prompt.
    ///
    /// A tracked object counts from the frame after its first prompt on, as in DAVIS. One that is not tracked counts
    /// from the first frame that shows it on: nothing gave it away there.
    ///
    /// # Errors
    ///
    /// No object would count on any frame.
    pub(crate) fn plan(
        truth: GroundTruth,
        first_prompts: &BTreeMap<u32, usize>,
    ) -> Result<Self, ScoringError> {
        let shown = truth.objects();
        let judged: Vec<Judged> = shown
            .iter()
            .map(|(object, first_shown)| {
                let prompted = first_prompts.get(&u32::from(*object));
                Judged {
                    object: *object,
                    tracked: prompted.is_some(),
                    matched: None,
                    from: prompted.map_or(*first_shown, |frame| frame + 1),
                    frames: Vec::new(),
                }
            })
            .collect();
        let scorer = Self {
            unseen: first_prompts
                .keys()
                .filter(|id| !shown.keys().any(|object| u32::from(*object) == **id))
                .copied()
                .collect(),
            annotated: 0,
            finds: None,
            judged,
            truth,
        };
        if scorer.judged.iter().all(|object| !scorer.counts(object)) {
            let dir = scorer.truth.dir().to_path_buf();
            return Err(match scorer.judged.is_empty() {
                true => ScoringError::NoFrame { dir },
                false => ScoringError::NothingAfterPrompts { dir },
            });
        }
        Ok(scorer)
    }

    /// Plans the scores of objects that the run finds itself. Each object of `truth` counts from the first frame that
    /// shows it on; which of the run's it is, their masks say.
    ///
    /// # Errors
    ///
    /// No frame is annotated.
    pub(crate) fn matching(truth: GroundTruth) -> Result<Self, ScoringError> {
        let scorer = Self::plan(truth, &BTreeMap::new())?;
        Ok(Self {
            finds: Some(Matching::default()),
            ..scorer
        })
    }

    fn counts(&self, object: &Judged) -> bool {
        let last = self.truth.frames().next_back();
        last.is_some_and(|last| last >= object.from)
    }

    /// What the user should know before the run, one sentence each.
    pub(crate) fn notes(&self) -> Vec<String> {
        if self.finds.is_some() {
            return Vec::new();
        }
        let dir = self.truth.dir().display();
        let mut notes = Vec::new();
        let missed = self.judged.iter().filter(|object| !object.tracked);
        if let Some(objects) = listed(missed.map(|object| u32::from(object.object))) {
            notes.push(format!(
                "the ground truth {dir} shows {objects}, for which there is no prompt: scored as empty masks"
            ));
        }
        if let Some(objects) = listed(self.unseen.iter().copied()) {
            let why = if self.unseen.contains(&u32::from(IGNORED)) {
                format!(" ({IGNORED} marks pixels that are ignored)")
            } else {
                String::new()
            };
            notes.push(format!(
                "the ground truth {dir} never shows {objects}: not scored{why}"
            ));
        }
        let late = self.judged.iter().filter(|object| !self.counts(object));
        if let Some(objects) = listed(late.map(|object| u32::from(object.object))) {
            notes.push(format!(
                "the ground truth {dir} has no frame after the first prompt of {objects}: not scored"
            ));
        }
        notes
    }

    /// Scores a frame if it is annotated; `ids` is what its mask file holds.
    ///
    /// # Errors
    ///
    /// The ground truth has changed since it was checked.
    pub(crate) fn add(
        &mut self,
        frame: usize,
        ids: &[u16],
        (width, height): (u32, u32),
    ) -> Result<(), ScoringError> {
        let Some(truth) = self.truth.read(frame, width, height)? else {
            return Ok(());
        };
        self.annotated += 1;
        if let Some(finds) = &mut self.finds {
            let overlaps = Overlaps::of(&truth.ids, ids, width, height)?;
            finds.add(frame, &overlaps);
            return Ok(());
        }
        self.judge(frame, &truth.ids, ids, (width, height))
    }

    fn judge(
        &mut self,
        frame: usize,
        truth: &[u16],
        ids: &[u16],
        (width, height): (u32, u32),
    ) -> Result<(), ScoringError> {
        let mut due: Vec<&mut Judged> = self
            .judged
            .iter_mut()
            .filter(|object| frame >= object.from)
            .collect();
        let objects: Vec<u16> = due.iter().map(|object| object.object).collect();
        let scores = score_frame(truth, ids, width, height, &objects)?;
        for (object, score) in due.iter_mut().zip(scores) {
            object.frames.push((frame, score));
        }
        Ok(())
    }

    /// The scores of the frames so far; `masks` is the folder with the index PNGs that the run wrote of them.
    ///
    /// # Errors
    ///
    /// The ground truth has changed since it was checked, or the run's masks cannot be read again.
    pub(crate) fn report(mut self, masks: &Path) -> Result<ScoresReport, ScoringError> {
        let by = match self.finds.take() {
            Some(finds) => {
                self.settle(&finds, masks)?;
                OBJECTS_BY_OVERLAP
            }
            None => OBJECTS_BY_ID,
        };
        Ok(self.summary(by))
    }

    /// Gives the objects of the run the ids of the ground truth, and scores its frames.
    fn settle(&mut self, finds: &Matching, masks: &Path) -> Result<(), ScoringError> {
        let matches = finds.matcher.matches();
        for object in &mut self.judged {
            let id = u32::from(object.object);
            object.matched = matches.iter().find(|m| m.first == id).map(|m| m.second);
            object.tracked = object.matched.is_some();
        }
        let found = finds.matcher.side(1).keys().copied();
        self.unseen = found
            .filter(|id| matches.iter().all(|m| m.second != *id))
            .collect();
        for frame in &finds.frames {
            let mut got = read_index_png(&masks.join(format!("{frame:05}.png")))?;
            for id in &mut got.ids {
                let known = matches.iter().find(|m| m.second == u32::from(*id));
                *id = known.map_or(0, |m| m.first as u16);
            }
            let size = (got.width, got.height);
            if let Some(truth) = self.truth.read(*frame, size.0, size.1)? {
                self.judge(*frame, &truth.ids, &got.ids, size)?;
            }
        }
        Ok(())
    }

    fn summary(&self, objects_by: &str) -> ScoresReport {
        let means: Vec<Option<Means>> = self
            .judged
            .iter()
            .map(|object| Means::over_frames(object.frames.iter().map(|(_, score)| *score)))
            .collect();
        let objects = self.judged.iter().zip(&means).map(|(object, mean)| {
            let frame = |(frame, score): &(usize, Score)| FrameScore {
                frame: *frame as u64,
                j: score.j,
                f: score.f,
            };
            ObjectScores {
                object: u32::from(object.object),
                tracked: object.tracked,
                matched: object.matched,
                frames: object.frames.len() as u64,
                mean: mean.map(MeanScores::from),
                per_frame: object.frames.iter().map(frame).collect(),
            }
        });
        ScoresReport {
            ground_truth: self.truth.dir().display().to_string(),
            matched_by: self.truth.matched().as_str().to_owned(),
            objects_by: objects_by.to_owned(),
            annotated_frames: self.annotated,
            overall: Means::over(means.iter().flatten().copied()).map(MeanScores::from),
            objects: objects.collect(),
            not_scored: self.unseen.clone(),
        }
    }
}

impl Matching {
    fn add(&mut self, frame: usize, overlaps: &Overlaps) {
        self.frames.push(frame);
        for (side, labels) in [&overlaps.expected, &overlaps.got].into_iter().enumerate() {
            for id in labels.keys() {
                self.matcher.shows(side, u32::from(*id));
            }
        }
        for expected in overlaps.expected.keys() {
            for got in overlaps.got.keys() {
                let iou = overlaps.iou(*expected, *got);
                self.matcher.pair((*expected).into(), (*got).into(), iou);
            }
        }
    }
}
