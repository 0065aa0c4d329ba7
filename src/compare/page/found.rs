//! The part of the page with what was found, for each text or of what a graph proposed.

use super::escape;
use super::sections::swatch;
use crate::compare::finds::{ObjectFinds, ObjectFound, TextFinds};
use crate::compare::numbers::Numbers;
use crate::compare::report::{AbReport, VariantReport};
use crate::compare::verdict::found_text;

/// A variant that was compared, its place, and what it found for a text.
type Compared<'a> = (usize, &'a VariantReport, &'a TextFinds);

/// For each text, or for a graph that proposes objects, a table: a row an object, a column a variant. Nothing where prompts say
/// which objects there are.
pub(super) fn section(report: &AbReport, numbers: Option<&Numbers>) -> String {
    let (Some(numbers), Some(baseline)) = (numbers, report.variants.first()) else {
        return String::new();
    };
    let mut html =
        String::from("<section aria-labelledby=\"h-found\"><h2 id=\"h-found\">What was found</h2>");
    let all: Vec<String> = report
        .variants
        .iter()
        .filter_map(|variant| {
            let found = found_text(variant.finds.as_ref()?);
            Some(format!("{} finds {found}", escape(&variant.name)))
        })
        .collect();
    if !all.is_empty() {
        html.push_str(&format!("<p>{}.</p>", all.join("; ")));
    }
    if baseline.run.is_none() {
        html.push_str(&format!(
            "<p class=\"note\">{} could not be run: what the others found has nothing to be compared with.</p></section>",
            escape(&baseline.name)
        ));
        return html;
    }
    let texts = report.texts.iter().map(|text| format!("“{text}”"));
    let proposed = report
        .proposals
        .iter()
        .map(|file| format!("What {file} proposes"));
    for (place, title) in texts.chain(proposed).enumerate() {
        let compared: Vec<Compared<'_>> = report
            .variants
            .iter()
            .enumerate()
            .filter_map(|(column, variant)| {
                let finds = variant.finds.as_ref()?.texts.get(place)?;
                Some((column, variant, finds))
            })
            .collect();
        html.push_str(&format!("<h3>{}</h3>", escape(&title)));
        html.push_str(&table(baseline, place, &compared, numbers));
    }
    html.push_str(
        "<p class=\"note\">An object of a variant has the number and colour of the baseline's that it was matched with. IoU is the mean over the \
         frames that show it in either run, 0 where one does not; in brackets the lowest.</p></section>",
    );
    html
}

fn table(
    baseline: &VariantReport,
    place: usize,
    compared: &[Compared<'_>],
    numbers: &Numbers,
) -> String {
    let known: &[ObjectFound] = baseline
        .run
        .as_ref()
        .and_then(|run| run.texts.get(place))
        .map_or(&[], |text| &text.objects);
    let mut rows = String::new();
    let names: Vec<&str> = std::iter::once(baseline.name.as_str())
        .chain(compared.iter().map(|(_, variant, _)| variant.name.as_str()))
        .collect();
    for object in known {
        let mut cells = vec![seen(object)];
        cells.extend(compared.iter().map(|(_, variant, finds)| {
            let of_it = |o: &&ObjectFinds| o.object == Some(object.object);
            finds
                .objects
                .iter()
                .find(of_it)
                .map_or("-".to_owned(), |finds| {
                    counterpart(finds, own(variant, place, finds.variant_object))
                })
        }));
        rows.push_str(&row(object.object, &names, &cells));
    }
    for (column, (_, variant, finds)) in compared.iter().enumerate() {
        for extra in finds
            .objects
            .iter()
            .filter(|object| object.object.is_none())
        {
            let Some(object) = own(variant, place, extra.variant_object) else {
                continue;
            };
            let mut cells = vec!["-".to_owned(); names.len()];
            cells[column + 1] = format!("<b>extra</b>: {}", seen(object));
            let number = numbers.of_run(&variant.name, object.object);
            rows.push_str(&row(number, &names, &cells));
        }
    }
    if rows.is_empty() {
        return "<p class=\"note\">Nothing was found.</p>".to_owned();
    }
    let column = |place: usize, name: &str| {
        format!(
            "<th scope=\"col\"><span class=\"swatch c{}\"></span>{}</th>",
            place % 8,
            escape(name)
        )
    };
    let mut header = column(0, &baseline.name);
    for (place, variant, _) in compared {
        header.push_str(&column(*place, &variant.name));
    }
    format!(
        "<div class=\"scroll\" data-scroll role=\"region\" aria-labelledby=\"h-found\" tabindex=\"0\"><table class=\"cards\"><thead><tr><th scope=\"col\">object</th>{header}</tr></thead><tbody>{rows}</tbody></table></div>"
    )
}

fn row(number: u32, names: &[&str], cells: &[String]) -> String {
    let mut html = format!(
        "<tr><th scope=\"row\">{}object {number}</th>",
        swatch(number)
    );
    for (name, cell) in names.iter().zip(cells) {
        let class = if cell == "-" { " class=\"empty\"" } else { "" };
        html.push_str(&format!(
            "<td{class} data-label=\"{}\">{cell}</td>",
            escape(name)
        ));
    }
    html.push_str("</tr>");
    html
}

/// What a run says of its object of an id.
fn own(variant: &VariantReport, place: usize, object: Option<u32>) -> Option<&ObjectFound> {
    let text = variant.run.as_ref()?.texts.get(place)?;
    text.objects
        .iter()
        .find(|known| Some(known.object) == object)
}

fn seen(object: &ObjectFound) -> String {
    format!(
        "from frame {}, {}, score {:.2}",
        object.first_frame,
        match object.frames {
            1 => "1 frame".to_owned(),
            frames => format!("{frames} frames"),
        },
        object.score
    )
}

fn counterpart(finds: &ObjectFinds, own: Option<&ObjectFound>) -> String {
    match (own, finds.iou, finds.worst_iou) {
        (Some(own), Some(iou), Some(worst)) => {
            format!("{}<br>IoU {iou:.3} ({worst:.3})", seen(own))
        }
        _ => "<b class=\"unmet\">missed</b>".to_owned(),
    }
}
