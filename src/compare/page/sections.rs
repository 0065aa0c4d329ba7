//! The parts of the page.

use std::collections::BTreeMap;

use super::{GROUND_TRUTH, escape, ious_per_frame, scores_per_frame};
use crate::bench::table::NOISE;
use crate::compare::chart::{self, Line};
use crate::compare::numbers::Numbers;
use crate::compare::report::{AbReport, VariantReport};
use crate::compare::verdict::{ENOUGH_IOU, J_AND_F_MARGIN};
use crate::compare::{agreement::LOST, require, table};
use crate::media::overlay::object_colour;
use crate::scoring::matching::SAME;

pub(super) fn clip(report: &AbReport) -> String {
    let clip = &report.clip;
    let truth = match &report.ground_truth {
        Some(dir) => format!(", ground truth {dir}"),
        None => String::new(),
    };
    escape(&format!(
        "{}: {} frames of {}x{} pixels, {}{truth}; baseline {}",
        clip.path,
        clip.frames,
        clip.width,
        clip.height,
        table::followed(report),
        report.variants.first().map_or("", |variant| &variant.name),
    ))
}

pub(super) fn also(report: &AbReport) -> String {
    let also = report.verdict.also.as_ref();
    also.map_or(String::new(), |text| {
        format!("<p class=\"also\">{}</p>", escape(text))
    })
}

pub(super) fn warnings(report: &AbReport) -> String {
    let failed: Vec<&str> = report
        .variants
        .iter()
        .filter(|variant| variant.error.is_some())
        .map(|variant| variant.name.as_str())
        .collect();
    // Why stands in the table's rows, and is long.
    let told = |warning: &str| {
        failed
            .iter()
            .any(|name| warning.starts_with(&format!("{name} failed: ")))
    };
    let mut items = String::new();
    if !failed.is_empty() {
        items.push_str(&format!(
            "<li>{} failed; the table says why</li>",
            escape(&failed.join(", "))
        ));
    }
    for warning in report
        .verdict
        .warnings
        .iter()
        .filter(|warning| !told(warning))
    {
        items.push_str(&format!("<li>{}</li>", escape(warning)));
    }
    match items.is_empty() {
        true => items,
        false => format!("<ul class=\"warnings\" aria-label=\"Warnings\">{items}</ul>"),
    }
}

pub(super) fn requirements(report: &AbReport) -> String {
    if report.requirements.is_empty() {
        return String::new();
    }
    let item = |requirement: &crate::compare::report::RequirementReport| {
        let (class, word) = match requirement.met {
            true => ("met", "✓ met"),
            false => ("unmet", "✗ not met"),
        };
        let value = require::shown(requirement);
        format!(
            "<li><code>{}</code> <span class=\"{class}\">{word}</span> (found {value})</li>",
            escape(&requirement.text)
        )
    };
    let items: String = report.requirements.iter().map(item).collect();
    format!("<ul class=\"required\" aria-label=\"Requirements\">{items}</ul>")
}

pub(super) fn table(report: &AbReport) -> String {
    let rows = table::rows(report);
    let Some((header, rows)) = rows.split_first() else {
        return String::new();
    };
    let mut html = String::from(
        "<div class=\"scroll\" data-scroll role=\"region\" aria-labelledby=\"h-variants\" tabindex=\"0\"><table class=\"cards\"><thead><tr>",
    );
    for name in header {
        html.push_str(&format!("<th scope=\"col\">{}</th>", escape(name)));
    }
    html.push_str("</tr></thead><tbody>");
    for (place, (row, variant)) in rows.iter().zip(&report.variants).enumerate() {
        let chosen = report.verdict.run.as_ref() == Some(&variant.name);
        html.push_str(if chosen {
            "<tr class=\"chosen\">"
        } else {
            "<tr>"
        });
        let mut tags = String::new();
        if place == 0 {
            tags.push_str("<span class=\"tag\">baseline</span>");
        }
        if chosen {
            tags.push_str("<span class=\"tag run\">run this</span>");
        }
        html.push_str(&format!(
            "<th scope=\"row\"><span class=\"swatch c{}\"></span>{}{tags}</th>",
            place % 8,
            escape(&variant.name)
        ));
        match (&variant.run, &variant.error) {
            (None, Some(error)) => html.push_str(&format!(
                "<td class=\"failed\" colspan=\"{}\">failed on {}: {}</td>",
                header.len() - 1,
                escape(&variant.provider),
                escape(error)
            )),
            _ => {
                for (name, cell) in header.iter().zip(row).skip(1) {
                    let class = match (cell.as_str(), name.as_str()) {
                        ("-", _) => " class=\"empty\"",
                        (_, "frame" | "speedup") => " class=\"wide\"",
                        _ => "",
                    };
                    // On a line of its own the table is no wider than a page.
                    let cell = match cell.split_once(NOISE) {
                        Some((value, _)) => {
                            format!(
                                "{}<br><span class=\"tag\">within the noise</span>",
                                escape(value)
                            )
                        }
                        None => escape(cell),
                    };
                    html.push_str(&format!(
                        "<td{class} data-label=\"{}\">{cell}</td>",
                        escape(name)
                    ));
                }
            }
        }
        html.push_str("</tr>");
    }
    html.push_str("</tbody></table></div>");
    if report.finds() {
        html.push_str(
            "<p class=\"note\">Objects are those that were found; missed are those of the baseline that a variant did not find, extra those \
             that the baseline did not find, differ the frames on which one shows an object that the other does not. IoU, worst and lost are \
             those of objects that both found.</p>",
        );
    }
    html.push_str(&format!(
        "<p class=\"note\">IoU, worst and lost compare masks with those of the baseline: the mean over objects and frames, the lowest of an \
         object on a frame, and objects below {LOST} from some frame to the end. A speedup above 1 is faster than the baseline; in \
         brackets its 95% interval. Frame: median, in brackets the quartiles.</p>"
    ));
    html
}

pub(super) fn viewer(report: &AbReport, numbers: Option<&Numbers>, pictures: bool) -> String {
    if !pictures {
        return "<p class=\"note\">No frames are shown: no variant has masks, or --page-frames is 0.</p>".to_owned();
    }
    let prompted = report
        .prompts
        .iter()
        .map(|prompt| (prompt.object, String::new()));
    let objects: BTreeMap<u32, String> = match numbers {
        Some(numbers) => numbers.shown.clone(),
        None => prompted.collect(),
    };
    let entry = |(object, what): (&u32, &String)| {
        let what = match what.is_empty() {
            true => String::new(),
            false => format!(": {}", escape(what)),
        };
        format!("<li>{}object {object}{what}</li>", swatch(*object))
    };
    let key: String = objects.iter().map(entry).collect();
    format!(
        r#"<div id="viewer">
<p class="hint">The frames where variants differ most come first; others show the clip evenly. Behind a frame's number stands the lowest IoU of an object with the baseline. Keys: ← → another frame, M masks, W wipe.</p>
<div class="controls">
<span class="slide"><button type="button" id="previous" aria-label="previous frame">◀</button><label for="pick">Frame</label><input type="range" id="pick" min="0" max="0" value="0"><button type="button" id="next" aria-label="next frame">▶</button></span>
<label>Order <select id="order"><option value="worst">worst first</option><option value="clip">as in the clip</option></select></label>
<fieldset><legend hidden>Compare</legend><label><input type="radio" name="as" id="as-side" checked>side by side</label><label><input type="radio" name="as" id="as-wipe">wipe</label></fieldset>
<label><input type="checkbox" id="masks" checked>masks</label>
</div>
<div class="chips" id="chips" role="group" aria-label="Frames that are shown, with the lowest IoU of an object"></div>
<output id="where" for="pick"></output>
<div class="panels" id="side"></div>
<div class="wipe" id="wipe" hidden>
<div class="controls"><label>Left <select id="left"></select></label><label>Right <select id="right"></select></label></div>
<p class="note" id="said"></p>
<div id="stage"></div>
<input type="range" id="divide" min="0" max="100" value="50" aria-label="Divider between left and right, in percent of the width">
</div>
<ul class="objects-key" aria-label="Objects">{key}</ul>
<noscript><p class="note">Frames need JavaScript; everything else on this page does not.</p></noscript>
</div>"#
    )
}

/// A square of an object's colour.
pub(super) fn swatch(object: u32) -> String {
    let [r, g, b] = object_colour(object);
    format!("<span class=\"swatch\" style=\"background:rgb({r},{g},{b})\"></span>")
}

pub(super) fn quality(report: &AbReport) -> String {
    let frames = report.clip.frames;
    let lines = |points: &dyn Fn(&VariantReport) -> Vec<(u64, f64)>| -> Vec<Line<'_>> {
        let all = report
            .variants
            .iter()
            .enumerate()
            .map(|(place, variant)| Line {
                place,
                name: &variant.name,
                points: points(variant),
            });
        all.filter(|line| !line.points.is_empty()).collect()
    };
    let mut html = String::new();
    let scores = lines(&scores_per_frame);
    if !scores.is_empty() {
        html.push_str("<h3>J&amp;F against ground truth, mean over objects</h3>");
        html.push_str(&chart::lines(
            &scores,
            frames,
            "J&F against ground truth over frames",
        ));
    }
    let ious = lines(&ious_per_frame);
    if ious.is_empty() {
        html.push_str("<p class=\"note\">No variant could be compared with the baseline.</p>");
    } else {
        let baseline = report.variants.first().map_or("", |variant| &variant.name);
        html.push_str(&format!(
            "<h3>IoU with the masks of {}, mean over objects{}</h3>",
            escape(baseline),
            match report.finds() {
                false => "",
                true => " that both found",
            }
        ));
        html.push_str(&chart::lines(
            &ious,
            frames,
            "IoU with the baseline over frames",
        ));
        html.push_str("<p class=\"note\">The dotted line is the frame shown above; a click shows the nearest.</p>");
    }
    html
}

pub(super) fn objects(report: &AbReport) -> String {
    let mut rows = String::new();
    for variant in &report.variants {
        let scores = variant.run.as_ref().and_then(|run| run.scores.as_ref());
        let mut ids: Vec<u32> = scores
            .iter()
            .flat_map(|scores| scores.objects.iter().map(|object| object.object))
            .chain(
                variant
                    .agreement
                    .iter()
                    // Of objects that were found, the ids are others than those of the ground truth.
                    .filter(|_| !report.finds())
                    .flat_map(|a| a.objects.iter().map(|o| o.object)),
            )
            .collect();
        ids.sort_unstable();
        ids.dedup();
        for id in ids {
            let mean =
                scores.and_then(|s| s.objects.iter().find(|o| o.object == id)?.mean.as_ref());
            let lost = variant
                .run
                .as_ref()
                .and_then(|run| run.lost.iter().find(|l| l.object == id));
            let alike = variant
                .agreement
                .as_ref()
                .and_then(|a| a.objects.iter().find(|o| o.object == id));
            let frame =
                |frame: Option<u64>| frame.map_or("-".to_owned(), |frame| frame.to_string());
            let mut cells = vec![("object", id.to_string())];
            if report.ground_truth.is_some() {
                let three = |value: Option<f64>| {
                    value.map_or("-".to_owned(), |value| format!("{value:.3}"))
                };
                cells.push(("J", three(mean.map(|mean| mean.j))));
                cells.push(("F", three(mean.map(|mean| mean.f))));
                cells.push((
                    "lost to ground truth from",
                    frame(lost.map(|lost| lost.from_frame)),
                ));
            }
            if report.finds() {
                let matched =
                    scores.and_then(|s| s.objects.iter().find(|o| o.object == id)?.matched);
                let found = matched.map_or("not found".to_owned(), |id| format!("object {id}"));
                cells.push(("found as", found));
            }
            let of = |value: &dyn Fn(&crate::compare::agreement::ObjectAgreement) -> String| {
                alike.map_or("-".to_owned(), value)
            };
            let worst = |o: &crate::compare::agreement::ObjectAgreement| {
                format!("{:.3} on frame {}", o.worst_iou, o.worst_frame)
            };
            if !report.finds() {
                cells.extend([
                    ("mean IoU", of(&|o| format!("{:.3}", o.iou))),
                    ("worst IoU", of(&worst)),
                    ("first below 0.5", of(&|o| frame(o.first_below))),
                    ("below 0.5 to the end from", of(&|o| frame(o.lost_from))),
                ]);
            }
            if rows.is_empty() {
                let header = cells
                    .iter()
                    .map(|(name, _)| format!("<th scope=\"col\">{name}</th>"));
                rows = format!(
                    "<thead><tr><th scope=\"col\">variant</th>{}</tr></thead><tbody>",
                    header.collect::<String>()
                );
            }
            let cells: String = cells
                .iter()
                .map(|(name, cell)| {
                    let class = if cell == "-" { " class=\"empty\"" } else { "" };
                    format!("<td{class} data-label=\"{name}\">{cell}</td>")
                })
                .collect();
            rows.push_str(&format!(
                "<tr><th scope=\"row\">{}</th>{cells}</tr>",
                escape(&variant.name)
            ));
        }
    }
    if rows.is_empty() {
        return String::new();
    }
    let (title, note) = match report.finds() {
        false => (
            "Each object",
            "IoU is that with the baseline's mask of the object, from its first prompt on.",
        ),
        true => (
            "Each object of the ground truth",
            "Which object of a run is which of the ground truth, their masks say; one that was not found counts as empty masks.",
        ),
    };
    format!(
        "<section aria-labelledby=\"h-objects\"><h2 id=\"h-objects\">{title}</h2><div class=\"scroll\" data-scroll role=\"region\" aria-labelledby=\"h-objects\" tabindex=\"0\"><table class=\"cards\">{rows}</tbody></table></div>\
         <p class=\"note\">{note}</p></section>"
    )
}

pub(super) fn how(report: &AbReport) -> String {
    let protocol = &report.protocol;
    let mut entries = vec![
        ("machine".to_owned(), report.machine.text()),
        (
            "times".to_owned(),
            format!(
                "each variant in a process of its own, warmed with {} frames, then {} rounds through all of them, forwards and \
                 backwards in turn, {} frames of each a round; from the resized image to all objects' low-resolution masks \
                 and memories. A speedup is the median of the rounds' ratios, its interval a bootstrap over rounds.",
                protocol.warm_frames, protocol.rounds, protocol.block_frames
            ),
        ),
        (
            "masks".to_owned(),
            format!(
                "`snow-ort run` of each variant over the whole clip{}",
                match &report.ground_truth {
                    Some(_) => format!("; J and F as in DAVIS 2017; {GROUND_TRUTH} as given"),
                    None => String::new(),
                }
            ),
        ),
        (
            "verdict".to_owned(),
            format!(
                "the variant that takes least time among those with good masks: J&F at most {J_AND_F_MARGIN} below the best where there is \
                 ground truth, else a mean IoU with the baseline of at least {ENOUGH_IOU} and no object lost{}",
                if report.finds() {
                    ", missed or extra"
                } else {
                    ""
                }
            ),
        ),
        ("clip".to_owned(), format!("SHA-256 {}", report.clip.sha256)),
        (
            "program".to_owned(),
            format!("snow-ort {}", report.snow_ort),
        ),
        ("command".to_owned(), report.command.join(" ")),
    ];
    if report.finds() {
        let (within, truth, parts) = match &report.proposals {
            None => (
                " within a text",
                ", without regard to texts",
                "detector, decisions and tracker",
            ),
            Some(_) => ("", "", "the graph that proposes objects, and the tracker"),
        };
        entries.push((
            "objects".to_owned(),
            format!(
                "each variant finds its own and numbers them by itself. Those of two runs are matched{within}, one with one at most: the \
                 highest mean IoU over the frames that show either first, and at least {SAME} on average over those that show both. \
                 Those of the ground truth likewise{truth}. A time is that of the whole loop: {parts}."
            ),
        ));
    }
    for variant in &report.variants {
        let what = match (&variant.run, &variant.timing) {
            (Some(run), timing) => format!(
                "{}: {}, manifest {}, chunk {}{}",
                variant.dir,
                variant.what(),
                run.model.manifest_sha256.get(..12).unwrap_or_default(),
                run.runtime.chunk,
                timing
                    .as_ref()
                    .map_or(String::new(), |arm| format!("; {}", arm.ready.what)),
            ),
            _ => variant.dir.clone(),
        };
        entries.push((format!("variant {}", variant.name), what));
    }
    let entry = |(name, text): &(String, String)| {
        format!("<dt>{}</dt><dd>{}</dd>", escape(name), escape(text))
    };
    let entries: String = entries.iter().map(entry).collect();
    format!(
        "<dl>{entries}</dl><p class=\"note\">report.json beside this page has every sample.</p>"
    )
}
