//! The tables of the page: variants, found objects, and scores of each object.

use super::cards::{Cards, Cell, Row, Swatch, Title};
use crate::bench::table::NOISE;
use crate::compare::numbers::Numbers;
use crate::compare::report::{
    AbReport, FoundObject, ObjectAgreement, ObjectComparison, TextComparison, VariantReport,
};
use crate::compare::table;
use crate::compare::verdict::found_text;
use crate::words::counted;

/// One row for each variant, as in the printed table.
pub(super) fn variants(report: &AbReport) -> Cards {
    let mut rows = table::rows(report).into_iter();
    let header = rows.next().unwrap_or_default();
    let columns: Vec<Title> = header.iter().map(|name| Title::plain(name)).collect();
    let variants = report.variants.iter().zip(rows).enumerate();
    let row = |(place, (variant, texts)): (usize, (&VariantReport, Vec<String>))| {
        let cells = header.iter().zip(texts).skip(1);
        Row {
            head: Title {
                swatch: Some(Swatch::Variant(place)),
                text: variant.name.clone(),
            },
            baseline: place == 0,
            chosen: report.verdict.run.as_ref() == Some(&variant.name),
            cells: match (&variant.run, &variant.error) {
                (None, Some(error)) => {
                    vec![Cell::Failed(format!(
                        "failed on {}: {error}",
                        variant.provider
                    ))]
                }
                _ => cells.map(|(name, text)| variant_cell(name, text)).collect(),
            },
        }
    };
    Cards {
        heading: "h-variants",
        columns,
        rows: variants.map(row).collect(),
    }
}

fn variant_cell(column: &str, text: String) -> Cell {
    if text == "-" || !["frame", "speedup"].contains(&column) {
        return Cell::Text(text);
    }
    match text.split_once(NOISE) {
        Some((value, _)) => Cell::Time {
            text: value.to_owned(),
            noise: true,
        },
        None => Cell::Time { text, noise: false },
    }
}

/// What the page shows of objects that variants found by themselves.
pub(super) struct Found {
    /// What each variant found, compared with the baseline.
    pub summary: Vec<String>,
    pub baseline_failed: bool,
    /// For each text, or for the proposals, a title and a table; no table without an object.
    pub tables: Vec<(String, Option<Cards>)>,
}

/// The found objects; `None` if objects have prompts.
pub(super) fn found(report: &AbReport, numbers: Option<&Numbers>) -> Option<Found> {
    let (numbers, baseline) = (numbers?, report.variants.first()?);
    let summary = report.variants.iter().filter_map(|variant| {
        let found = found_text(variant.found_objects.as_ref()?);
        Some(format!("{} finds {found}", variant.name))
    });
    let texts = report.texts.iter().map(|text| format!("“{text}”"));
    let proposals = report.proposals.iter();
    let proposals = proposals.map(|file| format!("Proposals of {file}"));
    let titles = texts.chain(proposals).enumerate();
    Some(Found {
        summary: summary.collect(),
        baseline_failed: baseline.run.is_none(),
        tables: titles
            .map(|(place, title)| (title, text_table(report, baseline, place, numbers)))
            .collect(),
    })
}

/// A variant that was compared with the baseline, and its objects of a text.
struct Compared<'a> {
    /// The place of the variant.
    place: usize,
    variant: &'a VariantReport,
    comparison: &'a TextComparison,
    objects: &'a [FoundObject],
}

impl Compared<'_> {
    fn object(&self, id: Option<u32>) -> Option<&FoundObject> {
        self.objects.iter().find(|object| Some(object.object) == id)
    }

    fn cell(&self, baseline_object: u32) -> Cell {
        let of_it = |o: &&ObjectComparison| o.object == Some(baseline_object);
        let Some(pair) = self.comparison.objects.iter().find(of_it) else {
            return Cell::or_dash(None);
        };
        match (self.object(pair.variant_object), pair.iou, pair.worst_iou) {
            (Some(object), Some(iou), Some(worst)) => Cell::Found {
                shown: shown(object),
                iou: format!("IoU {iou:.3} ({worst:.3})"),
            },
            _ => Cell::Missed,
        }
    }
}

fn objects_of(variant: &VariantReport, text: usize) -> &[FoundObject] {
    let run = variant.run.as_ref();
    run.and_then(|run| run.texts.get(text))
        .map_or(&[], |text| &text.objects)
}

/// A row for each object that was found for a text, a column for each variant; `None` without an object.
fn text_table(
    report: &AbReport,
    baseline: &VariantReport,
    text: usize,
    numbers: &Numbers,
) -> Option<Cards> {
    let variants = report.variants.iter().enumerate();
    let compared: Vec<Compared<'_>> = variants
        .filter_map(|(place, variant)| {
            Some(Compared {
                place,
                variant,
                comparison: variant.found_objects.as_ref()?.texts.get(text)?,
                objects: objects_of(variant, text),
            })
        })
        .collect();
    let head = |number: u32| Title {
        swatch: Some(Swatch::of_object(number)),
        text: format!("object {number}"),
    };
    let mut rows: Vec<Row> = Vec::new();
    for object in objects_of(baseline, text) {
        let mut cells = vec![Cell::Text(shown(object))];
        cells.extend(compared.iter().map(|one| one.cell(object.object)));
        rows.push(Row::plain(head(object.object), cells));
    }
    for (column, one) in compared.iter().enumerate() {
        let pairs = one.comparison.objects.iter();
        let extra = pairs.filter(|pair| pair.object.is_none());
        for object in extra.filter_map(|pair| one.object(pair.variant_object)) {
            let mut cells = vec![Cell::or_dash(None); compared.len() + 1];
            cells[column + 1] = Cell::Extra(shown(object));
            let number = numbers.of_run(&one.variant.name, object.object);
            rows.push(Row::plain(head(number), cells));
        }
    }
    let title = |place: usize, variant: &VariantReport| Title {
        swatch: Some(Swatch::Variant(place)),
        text: variant.name.clone(),
    };
    let mut columns = vec![Title::plain("object"), title(0, baseline)];
    columns.extend(compared.iter().map(|one| title(one.place, one.variant)));
    (!rows.is_empty()).then_some(Cards {
        heading: "h-found",
        columns,
        rows,
    })
}

fn shown(object: &FoundObject) -> String {
    format!(
        "from frame {}, {}, score {:.2}",
        object.first_frame,
        counted(object.frames, "frame"),
        object.score
    )
}

/// A row for each object of each variant; `None` without an object.
pub(super) fn objects(report: &AbReport) -> Option<Cards> {
    let mut columns: Vec<Title> = Vec::new();
    let mut rows: Vec<Row> = Vec::new();
    for variant in &report.variants {
        for id in object_ids(report, variant) {
            let (names, cells): (Vec<&str>, Vec<Cell>) =
                object_cells(report, variant, id).into_iter().unzip();
            if columns.is_empty() {
                let names = std::iter::once("variant").chain(names);
                columns = names.map(Title::plain).collect();
            }
            rows.push(Row::plain(Title::plain(&variant.name), cells));
        }
    }
    (!rows.is_empty()).then_some(Cards {
        heading: "h-objects",
        columns,
        rows,
    })
}

/// The objects with scores or with an agreement. Ids of found objects are not those of the ground truth, so then only scores
/// count.
fn object_ids(report: &AbReport, variant: &VariantReport) -> Vec<u32> {
    let scores = variant.run.iter().filter_map(|run| run.scores.as_ref());
    let scored = scores.flat_map(|scores| scores.objects.iter().map(|o| o.object));
    let agreement = variant.agreement.iter().filter(|_| !report.finds_objects());
    let agreeing = agreement.flat_map(|all| all.objects.iter().map(|o| o.object));
    let mut ids: Vec<u32> = scored.chain(agreeing).collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}

/// The columns of an object's row, each with its name.
fn object_cells(report: &AbReport, variant: &VariantReport, id: u32) -> Vec<(&'static str, Cell)> {
    let run = variant.run.as_ref();
    let scores = run.and_then(|run| run.scores.as_ref());
    let score = scores.and_then(|scores| scores.objects.iter().find(|o| o.object == id));
    let mut cells = vec![("object", Cell::Text(id.to_string()))];
    if report.ground_truth.is_some() {
        let mean = score.and_then(|score| score.mean.as_ref());
        let lost = run.and_then(|run| run.lost.iter().find(|lost| lost.object == id));
        cells.extend([
            (
                "J",
                Cell::or_dash(mean.map(|mean| format!("{:.3}", mean.j))),
            ),
            (
                "F",
                Cell::or_dash(mean.map(|mean| format!("{:.3}", mean.f))),
            ),
            (
                "lost to ground truth from",
                Cell::or_dash(lost.map(|lost| lost.from_frame.to_string())),
            ),
        ]);
    }
    if report.finds_objects() {
        let matched = score.and_then(|score| score.matched);
        let text = matched.map_or("not found".to_owned(), |id| format!("object {id}"));
        cells.push(("found as", Cell::Text(text)));
        return cells;
    }
    let agreement = variant.agreement.as_ref();
    let agreement = agreement.and_then(|all| all.objects.iter().find(|o| o.object == id));
    let cell =
        |text: &dyn Fn(&ObjectAgreement) -> Option<String>| Cell::or_dash(agreement.and_then(text));
    cells.extend([
        ("mean IoU", cell(&|o| Some(format!("{:.3}", o.iou)))),
        (
            "worst IoU",
            cell(&|o| Some(format!("{:.3} on frame {}", o.worst_iou, o.worst_frame))),
        ),
        (
            "first below 0.5",
            cell(&|o| Some(o.first_below?.to_string())),
        ),
        (
            "below 0.5 to the end from",
            cell(&|o| Some(o.lost_from?.to_string())),
        ),
    ]);
    cells
}
