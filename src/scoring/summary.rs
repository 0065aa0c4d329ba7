//! Means over frames and over objects.

use super::Score;

/// A frame counts as found when J or F is above this.
const FOUND: f64 = 0.5;

/// Means of J and F.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Means {
    /// Mean J.
    pub j: f64,
    /// Share of the frames with J above 0.5.
    pub j_recall: f64,
    /// Mean F.
    pub f: f64,
    /// Share of the frames with F above 0.5.
    pub f_recall: f64,
}

impl Means {
    /// The means over the frames of one object; None without a frame.
    pub fn over_frames(scores: impl IntoIterator<Item = Score>) -> Option<Self> {
        let share = |value: f64| if value > FOUND { 1.0 } else { 0.0 };
        Self::over(scores.into_iter().map(|score| Self {
            j: score.j,
            j_recall: share(score.j),
            f: score.f,
            f_recall: share(score.f),
        }))
    }

    /// The means over objects, each with the same weight however many frames it has; None without an object.
    pub fn over(parts: impl IntoIterator<Item = Self>) -> Option<Self> {
        let mut count = 0.0;
        let mut sum = [0.0; 4];
        for part in parts {
            count += 1.0;
            for (sum, value) in sum
                .iter_mut()
                .zip([part.j, part.j_recall, part.f, part.f_recall])
            {
                *sum += value;
            }
        }
        (count > 0.0).then(|| {
            let [j, j_recall, f, f_recall] = sum.map(|sum| sum / count);
            Self {
                j,
                j_recall,
                f,
                f_recall,
            }
        })
    }

    /// J&F: the mean of the two.
    pub fn j_and_f(&self) -> f64 {
        (self.j + self.f) / 2.0
    }
}
