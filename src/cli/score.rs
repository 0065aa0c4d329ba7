//! The scores of a run against ground truth: which objects count on which frames, and what is said about it.

use std::collections::BTreeMap;

use anyhow::{Result, bail};

use super::counted;
use crate::ground_truth::{GroundTruth, GroundTruthError};
use crate::metrics::{IGNORED, Means, Score, score_frame};
use crate::report::{FrameScore, MeanScores, ObjectScores, ScoresReport};

/// One object that the ground truth shows.
#[derive(Debug)]
struct Judged {
    object: u16,
    tracked: bool,
    /// The first frame that counts.
    from: usize,
    frames: Vec<(usize, Score)>,
}

/// Scores frames as they come; of each it keeps two numbers an object.
#[derive(Debug)]
pub struct Scorer {
    truth: GroundTruth,
    judged: Vec<Judged>,
    unseen: Vec<u32>,
    annotated: u64,
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
    pub(super) fn plan(truth: GroundTruth, first_prompts: &BTreeMap<u32, usize>) -> Result<Self> {
        let shown = truth.objects();
        let judged: Vec<Judged> = shown
            .iter()
            .map(|(object, first_shown)| {
                let prompted = first_prompts.get(&u32::from(*object));
                Judged {
                    object: *object,
                    tracked: prompted.is_some(),
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
            judged,
            truth,
        };
        if scorer.judged.iter().all(|object| !scorer.counts(object)) {
            let dir = scorer.truth.dir().display();
            if scorer.judged.is_empty() {
                bail!(
                    "--gt {dir}: no PNG stands for a frame that is tracked; raise --max-frames, or leave out --gt"
                );
            }
            bail!(
                "--gt {dir}: nothing can be scored: no frame after an object's first prompt is annotated (frames up to and with it do not count); annotate later frames, or leave out --gt"
            );
        }
        Ok(scorer)
    }

    fn counts(&self, object: &Judged) -> bool {
        let last = self.truth.frames().next_back();
        last.is_some_and(|last| last >= object.from)
    }

    /// What the user should know before the run, one sentence each.
    pub(super) fn notes(&self) -> Vec<String> {
        let dir = self.truth.dir().display();
        let mut notes = Vec::new();
        let missed = self.judged.iter().filter(|object| !object.tracked);
        if let Some(objects) = listed(missed.map(|object| u32::from(object.object))) {
            notes.push(format!(
                "--gt {dir} shows {objects}, for which there is no prompt: scored as empty masks"
            ));
        }
        if let Some(objects) = listed(self.unseen.iter().copied()) {
            let why = if self.unseen.contains(&u32::from(IGNORED)) {
                format!(" ({IGNORED} marks pixels that are ignored)")
            } else {
                String::new()
            };
            notes.push(format!("--gt {dir} never shows {objects}: not scored{why}"));
        }
        let late = self.judged.iter().filter(|object| !self.counts(object));
        if let Some(objects) = listed(late.map(|object| u32::from(object.object))) {
            notes.push(format!(
                "--gt {dir} has no frame after the first prompt of {objects}: not scored"
            ));
        }
        notes
    }

    /// Scores a frame if it is annotated; `ids` is what its mask file holds.
    ///
    /// # Errors
    ///
    /// The ground truth has changed since it was checked.
    pub(super) fn add(
        &mut self,
        frame: usize,
        ids: &[u16],
        (width, height): (u32, u32),
    ) -> Result<()> {
        let Some(truth) = self.truth.read(frame, width, height)? else {
            return Ok(());
        };
        self.annotated += 1;
        let mut due: Vec<&mut Judged> = self
            .judged
            .iter_mut()
            .filter(|object| frame >= object.from)
            .collect();
        let objects: Vec<u16> = due.iter().map(|object| object.object).collect();
        let scores = score_frame(&truth.ids, ids, width, height, &objects)?;
        for (object, score) in due.iter_mut().zip(scores) {
            object.frames.push((frame, score));
        }
        Ok(())
    }

    /// The scores of the frames so far.
    pub(super) fn report(&self) -> ScoresReport {
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
                frames: object.frames.len() as u64,
                mean: mean.map(MeanScores::from),
                per_frame: object.frames.iter().map(frame).collect(),
            }
        });
        ScoresReport {
            ground_truth: self.truth.dir().display().to_string(),
            matched_by: self.truth.matched().as_str().to_owned(),
            annotated_frames: self.annotated,
            overall: Means::over(means.iter().flatten().copied()).map(MeanScores::from),
            objects: objects.collect(),
            not_scored: self.unseen.clone(),
        }
    }
}

/// `object 3`, or `objects 1, 2, 5`; None if there is none.
fn listed(objects: impl Iterator<Item = u32>) -> Option<String> {
    let names: Vec<String> = objects.map(|object| object.to_string()).collect();
    let plural = if names.len() == 1 { "" } else { "s" };
    (!names.is_empty()).then(|| format!("object{plural} {}", names.join(", ")))
}

/// The scores as lines of a table.
pub(super) fn table(scores: &ScoresReport) -> Vec<String> {
    let row = |name: &str, mean: Option<&MeanScores>, rest: &str| {
        let values = match mean {
            Some(mean) => [mean.j, mean.f, mean.j_and_f].map(|value| format!("{value:.3}")),
            None => ["-"; 3].map(str::to_owned),
        };
        let [j, f, both] = values;
        format!("{name:<8} {j:>6} {f:>6} {both:>6} {rest}")
            .trim_end()
            .to_owned()
    };
    let mut lines = vec![
        format!(
            "scores   {}, {}",
            scores.ground_truth,
            counted(scores.annotated_frames, "annotated frame")
        ),
        format!(
            "{:<8} {:>6} {:>6} {:>6} {:>7}",
            "object", "J", "F", "J&F", "frames"
        ),
    ];
    for object in &scores.objects {
        let note = if object.tracked { "" } else { "  not tracked" };
        lines.push(row(
            &object.object.to_string(),
            object.mean.as_ref(),
            &format!("{:>7}{note}", object.frames),
        ));
    }
    lines.push(row("overall", scores.overall.as_ref(), ""));
    lines
}

/// Ground truth that changed while the run went on, in words.
pub(super) fn unscored(error: &anyhow::Error) -> String {
    let what = if error.is::<GroundTruthError>() {
        "the ground truth changed during the run: "
    } else {
        ""
    };
    format!("{what}{}", super::chain(error))
}
