//! Tables of the page, whose rows become cards on a narrow screen.

use askama::Template;
use askama::filters::HtmlSafe;

use crate::media::overlay::object_colour;

/// A table.
#[derive(Debug, Template)]
#[template(path = "cards.html")]
pub(super) struct Cards {
    /// The id of the heading that names the table.
    pub heading: &'static str,
    /// The header, with the column of the rows' names first.
    pub columns: Vec<Title>,
    pub rows: Vec<Row>,
}

impl HtmlSafe for Cards {}

/// The name of a row or a column.
#[derive(Debug)]
pub(super) struct Title {
    pub swatch: Option<Swatch>,
    pub text: String,
}

impl Title {
    pub(super) fn plain(text: &str) -> Self {
        Self {
            swatch: None,
            text: text.to_owned(),
        }
    }
}

#[derive(Debug)]
pub(super) struct Row {
    pub head: Title,
    /// Whether it is tagged as the baseline.
    pub baseline: bool,
    /// Whether it is tagged as the variant to run.
    pub chosen: bool,
    pub cells: Vec<Cell>,
}

impl Row {
    pub(super) fn plain(head: Title, cells: Vec<Cell>) -> Self {
        Self {
            head,
            baseline: false,
            chosen: false,
            cells,
        }
    }
}

#[derive(Debug, Clone)]
pub(super) enum Cell {
    /// Text; `-` is left out on a narrow screen.
    Text(String),
    /// A time or a ratio, with a tag if it is within the noise.
    Time { text: String, noise: bool },
    /// Why a variant failed; it takes the whole row.
    Failed(String),
    /// An object that both runs found.
    Found { shown: String, iou: String },
    /// An object that the variant did not find.
    Missed,
    /// An object that the baseline did not find.
    Extra(String),
}

impl Cell {
    /// Text, or `-` without one.
    pub(super) fn or_dash(text: Option<String>) -> Self {
        Self::Text(text.unwrap_or_else(|| "-".to_owned()))
    }
}

/// A coloured square.
#[derive(Debug, Clone, Copy, Template)]
#[template(
    ext = "html",
    source = r#"<span {% match self %}{% when Self::Variant(place) %}class="swatch c{{ place % 8 }}"{% when Self::Object([r, g, b]) %}class="swatch" style="background:rgb({{ r }},{{ g }},{{ b }})"{% endmatch %}></span>"#
)]
pub(super) enum Swatch {
    /// In the colour of the variant at this place.
    Variant(usize),
    /// In this colour of an object.
    Object([u8; 3]),
}

impl HtmlSafe for Swatch {}

impl Swatch {
    /// The square of the object with this number.
    pub(super) fn of_object(number: u32) -> Self {
        Self::Object(object_colour(number))
    }
}
