//! Statistics of repeated measurements.

use serde::{Deserialize, Serialize};

/// The median of some values, and their quartiles.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// Half of the values are below.
    pub median: f64,
    /// A quarter of the values is below.
    pub low: f64,
    /// A quarter of the values is above.
    pub high: f64,
}

impl Spread {
    /// Median and quartiles, interpolated linearly between neighbouring values; `None` without values.
    pub fn of(values: &[f64]) -> Option<Self> {
        let sorted = sorted(values);
        Some(Self {
            median: quantile(&sorted, 0.5)?,
            low: quantile(&sorted, 0.25)?,
            high: quantile(&sorted, 0.75)?,
        })
    }
}

/// The ratio of two variants' times over the rounds of a trial.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ratio {
    /// The median of the ratios of all rounds.
    pub median: f64,
    /// Lower end of the 95% interval of that median (bootstrap over rounds).
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// The ratio of each round.
    pub rounds: Vec<f64>,
}

impl Ratio {
    /// `ours[i] / theirs[i]` for each round `i`; `None` without rounds.
    pub fn of(ours: &[f64], theirs: &[f64]) -> Option<Self> {
        let rounds: Vec<f64> = ours.iter().zip(theirs).map(|(a, b)| a / b).collect();
        let median = median(&rounds)?;
        let (low, high) = interval(&rounds)?;
        Some(Self {
            median,
            low,
            high,
            rounds,
        })
    }

    /// Whether the difference is within the noise: the interval contains 1.
    pub fn is_noise(&self) -> bool {
        self.low <= 1.0 && 1.0 <= self.high
    }
}

/// The median; `None` without values.
pub fn median(values: &[f64]) -> Option<f64> {
    quantile(&sorted(values), 0.5)
}

fn sorted(values: &[f64]) -> Vec<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
}

fn quantile(sorted: &[f64], share: f64) -> Option<f64> {
    let place = share * sorted.len().checked_sub(1)? as f64;
    let (below, above) = (place.floor() as usize, place.ceil() as usize);
    Some(sorted[below] + (sorted[above] - sorted[below]) * (place - below as f64))
}

const RESAMPLES: usize = 2000;

/// The interval that contains 95% of the medians of resampled rounds. The same values give the same interval.
fn interval(rounds: &[f64]) -> Option<(f64, f64)> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut draw = |below: usize| {
        // Xorshift64*: good enough for 2000 draws, and the same on every machine.
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        let bits = state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        (bits % below as u64) as usize
    };
    let mut medians = Vec::with_capacity(RESAMPLES);
    for _ in 0..RESAMPLES {
        let resampled: Vec<f64> = rounds.iter().map(|_| rounds[draw(rounds.len())]).collect();
        medians.push(median(&resampled)?);
    }
    let medians = sorted(&medians);
    Some((quantile(&medians, 0.025)?, quantile(&medians, 0.975)?))
}
