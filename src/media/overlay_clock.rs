//! Presentation times of the overlay video: seconds of the source in, rising ticks out.

/// Ticks per second are at least this many, so that the times of a source with a variable rate are
/// kept to within 6 microseconds.
const MIN_TICKS: u32 = 90_000;

/// A rate above this one is counted in [`MIN_TICKS`]: more ticks do not fit FFmpeg's numbers.
const MAX_TICKS: u32 = 10_000_000;

/// One tick, in seconds, of the coarsest common clock that does not count milliseconds (MPEG's).
const FINE_CLOCK_S: f64 = 1.0 / 90_000.0;

/// Turns the times of frames into ticks.
pub(super) struct OverlayClock {
    ticks_per_second: u32,
    ticks_per_frame: i64,
    /// The source's time, in seconds, at tick 0.
    origin_s: Option<f64>,
    last: Option<i64>,
}

impl OverlayClock {
    /// A clock for `rate` / `per` frames a second, both above 0. Ticks per second and per frame are
    /// whole numbers, so that a constant rate is exact.
    pub(super) fn new(rate: u32, per: u32) -> Self {
        let (ticks_per_second, ticks_per_frame) = if rate > MAX_TICKS {
            let ticks = f64::from(MIN_TICKS) * f64::from(per) / f64::from(rate);
            (MIN_TICKS, (ticks.round() as i64).max(1))
        } else {
            let times = MIN_TICKS.div_ceil(rate);
            (rate * times, i64::from(per) * i64::from(times))
        };
        Self {
            ticks_per_second,
            ticks_per_frame,
            origin_s: None,
            last: None,
        }
    }

    /// Ticks in a second.
    pub(super) fn ticks_per_second(&self) -> u32 {
        self.ticks_per_second
    }

    /// Ticks from one frame to the next at the constant rate.
    pub(super) fn ticks_per_frame(&self) -> i64 {
        self.ticks_per_frame
    }

    /// The tick of the next frame, later than the one before.
    ///
    /// With a time (seconds) it is counted from the first frame's time; a time that differs from a
    /// whole number of frames by no more than the rounding of the source's clock is put right.
    /// Without a time the frame follows one frame after the one before.
    pub(super) fn tick(&mut self, pts_s: Option<f64>) -> i64 {
        let next = self.last.map_or(0, |last| last + self.ticks_per_frame);
        let tick = match pts_s.filter(|time| time.is_finite()) {
            Some(time) => self.tick_at(time, next),
            None => next,
        };
        self.last = Some(tick);
        tick
    }

    fn tick_at(&mut self, time: f64, next: i64) -> i64 {
        let per_second = f64::from(self.ticks_per_second);
        // A first frame with a time may follow frames without: it then is one frame after them.
        let origin = *self.origin_s.get_or_insert(time - next as f64 / per_second);
        let exact = (time - origin) * per_second;
        let snapped = self.snap(exact, time);
        let after_last = |tick: &i64| self.last.is_none_or(|last| *tick > last);
        // Times must rise; a source whose clock jumps back goes on at its frame rate.
        [snapped, exact.round() as i64]
            .into_iter()
            .find(after_last)
            .unwrap_or_else(|| {
                self.origin_s = Some(time - next as f64 / per_second);
                next
            })
    }

    /// The tick of a whole number of frames, if `exact` ticks differ from it only by the rounding
    /// of the source's clock, or else the nearest tick. A constant rate stays constant that way,
    /// although Matroska, for one, counts the times of its frames in milliseconds.
    fn snap(&self, exact: f64, time: f64) -> i64 {
        let per_second = f64::from(self.ticks_per_second);
        let per_frame = self.ticks_per_frame as f64;
        let milliseconds = time * 1000.0;
        let source_tick = if (milliseconds - milliseconds.round()).abs() < 1e-4 {
            1e-3
        } else {
            FINE_CLOCK_S
        };
        // At a high rate a millisecond is not small compared to a frame.
        let slack = (source_tick * 1.001 * per_second).min(per_frame / 4.0);
        let constant = (exact / per_frame).round() * per_frame;
        if (exact - constant).abs() <= slack {
            constant as i64
        } else {
            exact.round() as i64
        }
    }
}
