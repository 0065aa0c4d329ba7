//! The plots of the page: text as HTML, so that it keeps its size on every screen, and lines as SVG, which is stretched.

use askama::Template;
use askama::filters::HtmlSafe;

/// The largest number of points of a line; a point of a longer one is the lowest value of several frames.
const MAX_POINTS: u64 = 240;

/// The largest number of dots in a row of samples.
const MAX_DOTS: usize = 240;

/// A plot of lines over the frames of a clip.
#[derive(Debug, Template)]
#[template(path = "lines.html")]
pub(super) struct Lines {
    label: String,
    frames: u64,
    /// Frames of a point.
    step: u64,
    marks: Vec<Mark>,
    lines: Vec<Line>,
}

impl HtmlSafe for Lines {}

/// A mark on the vertical axis.
#[derive(Debug)]
struct Mark {
    text: String,
    /// Distance from the bottom, in percent.
    bottom: String,
    /// Distance from the top, 0 to 100.
    y: String,
}

#[derive(Debug)]
struct Line {
    place: usize,
    name: String,
    /// Points as SVG has them.
    points: String,
}

/// The values of a variant over the frames of the clip.
#[derive(Debug)]
pub(super) struct Series<'a> {
    /// The place of the variant, which gives its colour.
    pub place: usize,
    /// Its name.
    pub name: &'a str,
    /// Frames in ascending order, with values from 0 to 1.
    pub points: Vec<(u64, f64)>,
}

impl Lines {
    /// Plots `series` over `frames` frames. `what` describes them for screen readers.
    pub(super) fn new(series: &[Series<'_>], frames: u64, what: &str) -> Self {
        let values = series.iter().flat_map(|one| &one.points);
        let min = values.map(|(_, value)| *value).fold(0.9_f64, f64::min);
        // A multiple of 0.1, so that marks have one digit.
        let low = (min.clamp(0.0, 0.9) * 10.0 + 1e-9).floor() / 10.0;
        let step = frames.div_ceil(MAX_POINTS).max(1);
        let end = frames.saturating_sub(1).max(1) as f64;
        let height = |value: f64| (1.0 - value) / (1.0 - low) * 100.0;
        let point = |(frame, value): &(u64, f64)| {
            let x = *frame as f64 / end * 1000.0;
            format!("{x:.0},{:.1}", height(*value))
        };
        let line = |one: &Series<'_>| {
            let points: Vec<String> = thinned(&one.points, step).iter().map(point).collect();
            Line {
                place: one.place,
                name: one.name.to_owned(),
                points: points.join(" "),
            }
        };
        let mark = |value: f64| Mark {
            text: format!("{value:.1}"),
            bottom: format!("{:.1}", 100.0 - height(value)),
            y: format!("{:.1}", height(value)),
        };
        Self {
            label: format!("{what}: {}", summary(series)),
            frames,
            step,
            marks: marks(low).into_iter().map(mark).collect(),
            lines: series.iter().map(line).collect(),
        }
    }
}

/// The lowest point of every `step` frames. A single point becomes a short line.
fn thinned(all: &[(u64, f64)], step: u64) -> Vec<(u64, f64)> {
    let mut points: Vec<(u64, f64)> = Vec::new();
    for (frame, value) in all {
        match points.last_mut() {
            Some((last, lowest)) if *last / step == frame / step => *lowest = lowest.min(*value),
            _ => points.push((*frame, *value)),
        }
    }
    if let [(frame, value)] = points[..] {
        points.push((frame + 1, value));
    }
    points
}

/// The values of the marks on an axis from `low` to 1.
fn marks(low: f64) -> Vec<f64> {
    let steps = ((1.0 - low) * 10.0).round() as u32;
    let every = if steps > 5 { 2 } else { 1 };
    (0..=steps)
        .filter(|step| step % every == 0)
        .map(|step| 1.0 - f64::from(step) / 10.0)
        .collect()
}

fn summary(series: &[Series<'_>]) -> String {
    let each = series.iter().filter(|one| !one.points.is_empty());
    let each = each.map(|one| {
        let values = || one.points.iter().map(|(_, value)| *value);
        let mean = values().sum::<f64>() / one.points.len() as f64;
        let lowest = values().fold(f64::MAX, f64::min);
        format!("{} mean {mean:.3}, lowest {lowest:.3}", one.name)
    });
    each.collect::<Vec<_>>().join("; ")
}

/// A bar chart; all bars begin at 0 and have the same scale.
#[derive(Debug, Template)]
#[template(path = "bars.html")]
pub(super) struct Bars {
    pub bars: Vec<Bar>,
}

impl HtmlSafe for Bars {}

#[derive(Debug)]
pub(super) struct Bar {
    pub name: String,
    /// The parts of the bar, from left to right.
    pub parts: Vec<Part>,
    /// The text after the bar.
    pub text: String,
}

#[derive(Debug)]
pub(super) struct Part {
    pub value: f64,
    /// The class with its colour; see `page.css`.
    pub class: String,
    pub title: String,
}

impl Bars {
    fn percent(&self, part: &Part) -> String {
        let length = |bar: &Bar| bar.parts.iter().map(|part| part.value).sum::<f64>();
        let longest = self.bars.iter().map(length).fold(1e-12, f64::max);
        format!("{:.2}", part.value / longest * 100.0)
    }
}

/// A row for each variant, with a dot for each sample and a box from quartile to quartile, on a common axis from 0.
#[derive(Debug, Template)]
#[template(path = "samples.html")]
pub(super) struct Samples {
    rows: Vec<SampleRow>,
    /// The right end of the axis.
    end: f64,
    end_text: String,
}

impl HtmlSafe for Samples {}

#[derive(Debug)]
pub(super) struct SampleRow {
    /// The place of the variant, which gives its colour.
    pub place: usize,
    pub name: String,
    /// The samples, `[round][sample]`.
    pub rounds: Vec<Vec<f64>>,
    pub low: f64,
    pub median: f64,
    pub high: f64,
    /// The text after the row.
    pub text: String,
}

impl Samples {
    /// Plots `rows`; `value_text` writes a value for people.
    pub(super) fn new(rows: Vec<SampleRow>, value_text: impl Fn(f64) -> String) -> Self {
        let all = rows.iter().flat_map(|row| row.rounds.iter().flatten());
        let end = all.copied().fold(1e-12, f64::max) * 1.02;
        Self {
            rows,
            end,
            end_text: value_text(end),
        }
    }

    fn percent(&self, value: f64) -> String {
        format!("{:.2}", value / self.end * 100.0)
    }
}

impl SampleRow {
    /// The samples that are shown, each with its distance from the top in percent: the first round is the highest.
    fn dots(&self) -> Vec<(f64, String)> {
        let count: usize = self.rounds.iter().map(Vec::len).sum();
        let rounds = self.rounds.len().max(1) as f64;
        let top = |round: usize| format!("{:.0}", 8.0 + 84.0 * (round as f64 + 0.5) / rounds);
        let samples = self.rounds.iter().enumerate();
        samples
            .flat_map(|(round, block)| block.iter().map(move |value| (*value, top(round))))
            .step_by(count.div_ceil(MAX_DOTS).max(1))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn points(html: &str) -> Vec<&str> {
        let start = html.find("points=\"").unwrap() + 8;
        let end = start + html[start..].find('"').unwrap();
        html[start..end].split(' ').collect()
    }

    fn html(points: Vec<(u64, f64)>, frames: u64) -> String {
        let series = [Series {
            place: 9,
            name: "a<b",
            points,
        }];
        Lines::new(&series, frames, "IoU").to_string()
    }

    #[test]
    fn a_line_goes_from_the_first_frame_to_the_last() {
        let short = html(vec![(0, 1.0), (1, 0.75), (2, 0.5)], 3);
        assert_eq!(points(&short), ["0,0.0", "500,50.0", "1000,100.0"]);
        assert!(short.contains("line v1") && short.contains("a&#60;b mean 0.750, lowest 0.500"));
        assert!(short.contains(">0.5</span>") && short.contains(">1.0</span>"));
        assert!(!short.contains(">0.4</span>") && !short.contains("Each point"));
        // A point of a long clip is the lowest of several frames.
        let long = (0..2400).map(|frame| (frame, if frame == 1234 { 0.0 } else { 1.0 }));
        let long = html(long.collect(), 2400);
        let all = points(&long);
        assert_eq!(all.len(), 240);
        let lowest = all.iter().filter(|point| point.ends_with(",100.0"));
        assert_eq!(lowest.count(), 1);
        assert!(long.contains("lowest of 10 frames"));
        assert_eq!(points(&html(vec![(0, 1.0)], 1)).len(), 2);
    }

    #[test]
    fn bars_have_one_scale() {
        let bar = |name: &str, value: f64| Bar {
            name: name.to_owned(),
            parts: vec![Part {
                value,
                class: "c0".to_owned(),
                title: "x".to_owned(),
            }],
            text: "t".to_owned(),
        };
        let bars = vec![bar("a", 4.0), bar("b", 1.0)];
        let html = Bars { bars }.to_string();
        assert!(html.contains("width:100.00%") && html.contains("width:25.00%"));
    }
}
