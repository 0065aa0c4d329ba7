//! Tables that people read, on a terminal and in Markdown: `comfy-table` without borders, colours and wrapping.

use comfy_table::{CellAlignment, Table, presets};

/// How a table looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// Aligned columns, without lines.
    Plain,
    /// A table of GitHub's Markdown; it needs a header.
    Markdown,
}

/// An empty table. A column is as wide as its longest cell, in terminal columns.
pub fn new(style: Style) -> Table {
    let mut table = Table::new();
    table.load_style(match style {
        Style::Plain => presets::NOTHING,
        Style::Markdown => presets::ASCII_MARKDOWN,
    });
    table
}

/// Aligns columns to the right; call it when the table has its rows.
pub fn align_right(table: &mut Table, columns: &[usize]) {
    for &index in columns {
        if let Some(column) = table.column_mut(index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
}

/// The table's lines without spaces at their ends, each with a line feed.
pub fn text(table: &Table) -> String {
    let mut text = table.trim_fmt();
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_in_both_styles() {
        let fill = |style| {
            let mut table = new(style);
            table.set_header(vec!["name", "time"]);
            table.add_row(vec!["a", "12 ms"]).add_row(vec!["große", ""]);
            align_right(&mut table, &[1]);
            text(&table)
        };
        let plain = [" name    time", " a      12 ms", " große", ""];
        assert_eq!(fill(Style::Plain), plain.join("\n"));
        let markdown = fill(Style::Markdown);
        let lines: Vec<&str> = markdown.lines().collect();
        assert_eq!(lines[0], "| name  |  time |");
        assert!(lines[1].starts_with("|---"), "{markdown}");
        assert_eq!(lines.len(), 4);
    }
}
