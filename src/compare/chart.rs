//! The plots of the page: text in HTML, so that it keeps its size on every screen, and lines in SVG, which is stretched.

use crate::compare::page::escape;

/// Points of a line; a longer one shows the lowest value of each stretch.
const MOST_POINTS: u64 = 240;

/// Dots of a row of samples.
const MOST_DOTS: usize = 240;

/// A line over the frames of a clip, in the colour of a place.
pub(super) struct Line<'a> {
    pub place: usize,
    pub name: &'a str,
    /// Frame and value, 0 to 1, in the order of frames.
    pub points: Vec<(u64, f64)>,
}

/// Lines over `frames` frames; `label` says what they are.
pub(super) fn lines(lines: &[Line<'_>], frames: u64, label: &str) -> String {
    let values = lines
        .iter()
        .flat_map(|line| line.points.iter().map(|(_, value)| *value));
    let least = values.fold(0.9_f64, f64::min).clamp(0.0, 0.9);
    // A multiple of 0.1, so that marks have one digit.
    let low = (least * 10.0 + 1e-9).floor() / 10.0;
    let step = frames.div_ceil(MOST_POINTS).max(1);
    let end = frames.saturating_sub(1).max(1) as f64;
    let place = |frame: u64, value: f64| {
        let (x, y) = (
            frame as f64 / end * 1000.0,
            (1.0 - value) / (1.0 - low) * 100.0,
        );
        format!("{x:.0},{y:.1}")
    };
    let mut svg = format!(
        "<svg viewBox=\"0 0 1000 100\" preserveAspectRatio=\"none\" role=\"img\" aria-label=\"{}\">",
        escape(&format!("{label}: {}", summary(lines)))
    );
    let marks = marks(low);
    for mark in &marks {
        let y = (1.0 - mark) / (1.0 - low) * 100.0;
        svg.push_str(&format!("<path class=\"rule\" d=\"M0 {y:.1}H1000\"/>"));
    }
    // The first is drawn last: the baseline stays in sight.
    for line in lines.iter().rev() {
        let mut points: Vec<(u64, f64)> = Vec::new();
        for (frame, value) in &line.points {
            match points.last_mut() {
                Some((last, lowest)) if *last / step == frame / step => {
                    *lowest = lowest.min(*value);
                }
                _ => points.push((*frame, *value)),
            }
        }
        if let [(frame, value)] = points[..] {
            points.push((frame + 1, value));
        }
        let points: Vec<String> = points.iter().map(|(f, v)| place(*f, *v)).collect();
        svg.push_str(&format!(
            "<polyline class=\"line v{}\" points=\"{}\"/>",
            line.place % 8,
            points.join(" ")
        ));
    }
    svg.push_str("</svg>");
    let y: String = marks
        .iter()
        .map(|mark| {
            let bottom = (mark - low) / (1.0 - low) * 100.0;
            format!("<span style=\"bottom:{bottom:.1}%\">{mark:.1}</span>")
        })
        .collect();
    let note = match step {
        1 => String::new(),
        _ => format!("<p class=\"note\">Each point is the lowest of {step} frames.</p>"),
    };
    format!(
        "<div class=\"plot\" data-frames=\"{frames}\"><div class=\"y\" aria-hidden=\"true\">{y}</div>{svg}<div class=\"cursor\" aria-hidden=\"true\"></div></div>\
         <div class=\"x\" aria-hidden=\"true\"><span>0</span><span>frame</span><span>{}</span></div>{}{note}",
        frames.saturating_sub(1),
        legend(lines)
    )
}

fn marks(low: f64) -> Vec<f64> {
    let steps = ((1.0 - low) * 10.0).round() as u32;
    let every = if steps > 5 { 2 } else { 1 };
    (0..=steps)
        .filter(|step| step % every == 0)
        .map(|step| 1.0 - f64::from(step) / 10.0)
        .collect()
}

fn summary(lines: &[Line<'_>]) -> String {
    let each = lines
        .iter()
        .filter(|line| !line.points.is_empty())
        .map(|line| {
            let sum: f64 = line.points.iter().map(|(_, value)| value).sum();
            let least = line
                .points
                .iter()
                .map(|(_, value)| *value)
                .fold(f64::MAX, f64::min);
            format!(
                "{} mean {:.3}, lowest {least:.3}",
                line.name,
                sum / line.points.len() as f64
            )
        });
    each.collect::<Vec<_>>().join("; ")
}

fn legend(lines: &[Line<'_>]) -> String {
    let entry = |line: &Line<'_>| {
        format!(
            "<li><svg viewBox=\"0 0 28 8\" aria-hidden=\"true\"><path class=\"line v{}\" d=\"M0 4H28\"/></svg>{}</li>",
            line.place % 8,
            escape(line.name)
        )
    };
    format!(
        "<ul class=\"legend\">{}</ul>",
        lines.iter().map(entry).collect::<String>()
    )
}

/// A row of a bar chart.
pub(super) struct Bar<'a> {
    pub name: &'a str,
    /// Length and class of each part, in the order in which they are joined, and what it is.
    pub parts: Vec<(f64, String, String)>,
    /// What stands behind the bar.
    pub text: String,
}

/// Bars from a common zero.
pub(super) fn bars(bars: &[Bar<'_>]) -> String {
    let length = |bar: &Bar<'_>| bar.parts.iter().map(|(value, ..)| value).sum::<f64>();
    let longest = bars.iter().map(length).fold(0.0, f64::max).max(1e-12);
    let row = |bar: &Bar<'_>| {
        let part = |(value, class, what): &(f64, String, String)| {
            format!(
                "<i class=\"{class}\" style=\"width:{:.2}%\" title=\"{}\"></i>",
                value / longest * 100.0,
                escape(what)
            )
        };
        format!(
            "<div class=\"row\"><span class=\"name\">{}</span><span class=\"bar\" aria-hidden=\"true\">{}</span><span class=\"value\">{}</span></div>",
            escape(bar.name),
            bar.parts.iter().map(part).collect::<String>(),
            escape(&bar.text)
        )
    };
    format!(
        "<div class=\"bars\">{}</div>",
        bars.iter().map(row).collect::<String>()
    )
}

/// Samples of one variant: `rounds[round][sample]`, and median and quartiles.
pub(super) struct Samples<'a> {
    pub place: usize,
    pub name: &'a str,
    pub rounds: Vec<Vec<f64>>,
    pub quartiles: [f64; 3],
    pub text: String,
}

/// A dot for each sample over a common axis from 0, rounds from top to bottom; a box from quartile to quartile.
pub(super) fn strips(rows: &[Samples<'_>], end_text: impl Fn(f64) -> String) -> String {
    let all = rows
        .iter()
        .flat_map(|row| row.rounds.iter().flatten().copied());
    let end = all.fold(0.0, f64::max).max(1e-12) * 1.02;
    let left = |value: f64| format!("{:.2}%", value / end * 100.0);
    let row = |row: &Samples<'_>| {
        let count: usize = row.rounds.iter().map(Vec::len).sum();
        let every = count.div_ceil(MOST_DOTS).max(1);
        let rounds = row.rounds.len().max(1) as f64;
        let samples = row.rounds.iter().enumerate();
        let samples =
            samples.flat_map(|(round, block)| block.iter().map(move |value| (round, *value)));
        let dots: String = samples
            .step_by(every)
            .map(|(round, value)| {
                let top = 8.0 + 84.0 * (round as f64 + 0.5) / rounds;
                format!(
                    "<i class=\"dot\" style=\"left:{};top:{top:.0}%\"></i>",
                    left(value)
                )
            })
            .collect();
        let [low, median, high] = row.quartiles;
        format!(
            "<div class=\"row\"><span class=\"name\">{}</span><span class=\"strip c{}\" aria-hidden=\"true\"><i class=\"box\" style=\"left:{};width:{}\"></i><i class=\"median\" style=\"left:{}\"></i>{dots}</span><span class=\"value\">{}</span></div>",
            escape(row.name),
            row.place % 8,
            left(low),
            left(high - low),
            left(median),
            escape(&row.text)
        )
    };
    format!(
        "<div class=\"bars\">{}<div class=\"row axis\" aria-hidden=\"true\"><span class=\"name\"></span><span class=\"ends\"><span>0</span><span>{}</span></span><span class=\"value\"></span></div></div>",
        rows.iter().map(row).collect::<String>(),
        escape(&end_text(end))
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn points(html: &str) -> Vec<&str> {
        let start = html.find("points=\"").unwrap() + 8;
        let end = start + html[start..].find('"').unwrap();
        html[start..end].split(' ').collect()
    }

    #[test]
    fn a_line_goes_from_the_first_frame_to_the_last() {
        let line = |points| {
            [Line {
                place: 9,
                name: "a<b",
                points,
            }]
        };
        let html = lines(&line(vec![(0, 1.0), (1, 0.75), (2, 0.5)]), 3, "IoU");
        assert_eq!(points(&html), ["0,0.0", "500,50.0", "1000,100.0"]);
        assert!(html.contains("line v1") && html.contains("a&lt;b mean 0.750, lowest 0.500"));
        assert!(
            html.contains(">0.5</span>")
                && html.contains(">1.0</span>")
                && !html.contains(">0.4</span>")
        );
        // Of a long clip the lowest of each stretch is seen.
        let long = (0..2400)
            .map(|frame| (frame, if frame == 1234 { 0.0 } else { 1.0 }))
            .collect();
        let html = lines(&line(long), 2400, "IoU");
        let points = points(&html);
        assert_eq!(points.len(), 240);
        assert_eq!(
            points
                .iter()
                .filter(|point| point.ends_with(",100.0"))
                .count(),
            1
        );
        assert!(html.contains("lowest of 10 frames"));
        assert!(lines(&line(vec![(0, 1.0)]), 1, "IoU").contains("polyline"));
    }

    #[test]
    fn bars_have_one_scale() {
        let bar = |name, value: f64| Bar {
            name,
            parts: vec![(value, "c0".into(), "x".into())],
            text: "t".into(),
        };
        let html = bars(&[bar("a", 4.0), bar("b", 1.0)]);
        assert!(html.contains("width:100.00%") && html.contains("width:25.00%"));
    }
}
