//! The output of commands: tables for people, JSON for programs.

use std::collections::BTreeSet;
use std::fmt;
use std::io::{self, IsTerminal, Write};

use anyhow::Context;
use console::{Term, measure_text_width, pad_str, truncate_str};
use netabase::netabase_store::text;
use serde::Serialize;
use serde_json::Value;

use crate::failure::Failure;

/// The separator between the columns of a table.
const GAP: &str = "  ";
/// The smallest width to which a column is cut to fit a table into a terminal.
const MIN_COLUMN: usize = 8;
/// The most columns of a terminal that a cell takes, wherever the table is printed. One large value
/// would widen every row. `--json` prints values whole.
const MAX_CELL_COLUMNS: usize = 1024;
/// The mark at the end of text that was cut.
const CUT: &str = "..";

/// A table with aligned columns, which are cut to the width of the terminal.
#[derive(Debug)]
pub(crate) struct Table {
    heads: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(heads: &[&str]) -> Self {
        Self { heads: heads.iter().map(|head| cell(&head.to_uppercase())).collect(), rows: Vec::new() }
    }

    /// Adds a row. Line breaks in a cell are printed as `\n`, and long cells are cut.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().map(|text| cell(&text)).collect());
    }

    /// Prints the table, cut to the width of a terminal if it is printed to one.
    pub(crate) fn print(&self) -> Result<(), Failure> {
        let terminal = Term::stdout();
        let width =
            terminal.size_checked().filter(|_| terminal.is_term()).map(|(_, columns)| usize::from(columns));
        let colours = terminal.is_term() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        write_all(&mut io::stdout().lock(), self.text(width, colours).as_bytes())
    }

    /// Prints the table, even if it is wider than the terminal.
    pub(crate) fn print_wide(&self) -> Result<(), Failure> {
        write_all(&mut io::stdout().lock(), self.text(None, false).as_bytes())
    }

    fn text(&self, width: Option<usize>, colours: bool) -> String {
        let widths = self.widths(width);
        let head = join(&self.heads, &widths);
        let mut text = if colours { format!("\x1b[1m{head}\x1b[0m\n") } else { format!("{head}\n") };
        for row in &self.rows {
            text.push_str(&join(row, &widths));
            text.push('\n');
        }
        text
    }

    /// Returns the widths of the columns. The widest ones are reduced until the table fits.
    fn widths(&self, limit: Option<usize>) -> Vec<usize> {
        let mut widths: Vec<usize> = self.heads.iter().map(|head| measure_text_width(head)).collect();
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(measure_text_width(cell));
            }
        }
        let Some(limit) = limit else { return widths };
        let gaps = GAP.len() * widths.len().saturating_sub(1);
        while widths.iter().sum::<usize>() + gaps > limit {
            let Some(widest) = widths.iter_mut().filter(|width| **width > MIN_COLUMN).max() else { break };
            *widest -= 1;
        }
        widths
    }
}

fn join(cells: &[String], widths: &[usize]) -> String {
    let cells = cells.iter().zip(widths).map(|(cell, width)| {
        let cell = truncate_str(cell, *width, CUT);
        pad_str(&cell, *width, console::Alignment::Left, None).into_owned()
    });
    cells.collect::<Vec<_>>().join(GAP).trim_end().to_owned()
}

/// Returns a text as it stands in a cell. The text may come from a peer.
fn cell(text: &str) -> String {
    // Characters that combine with the one before take no column, but are as many bytes.
    let end = text.char_indices().nth(MAX_CELL_COLUMNS).map(|(end, _)| end);
    let shown = text::line(text.get(..end.unwrap_or(text.len())).unwrap_or_default());
    match end {
        Some(_) => truncate_str(&shown, MAX_CELL_COLUMNS - CUT.len(), "").into_owned() + CUT,
        None => truncate_str(&shown, MAX_CELL_COLUMNS, CUT).into_owned(),
    }
}

/// Writes a note to standard error, and ignores errors such as a closed pipe.
pub(crate) fn write_note(text: fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr(), "{}", text::line(&text.to_string()));
}

/// Calls [`write_note`] with a format string.
macro_rules! note {
    ($($text:tt)*) => { $crate::output::write_note(format_args!($($text)*)) };
}
pub(crate) use note;

/// Returns a value for people: text without quotation marks, other values as JSON.
pub(crate) fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) if items.is_empty() => "-".to_owned(),
        Value::Array(items) if items.iter().all(Value::is_string) => {
            items.iter().map(text).collect::<Vec<_>>().join(", ")
        }
        value @ (Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => value.to_string(),
    }
}

/// Prints an object as a table of names and values, with nested objects flattened.
pub(crate) fn describe(value: &Value) -> Result<(), Failure> {
    let mut table = Table::new(&["what", "value"]);
    flatten("", value, &mut table);
    table.print_wide()
}

/// Adds a row for each value of an object, with dots in the names of nested ones.
pub(crate) fn flatten(name: &str, value: &Value, table: &mut Table) {
    match value {
        Value::Object(object) => {
            for (inner, value) in object {
                let name = if name.is_empty() { inner.clone() } else { format!("{name}.{inner}") };
                flatten(&name, value, table);
            }
        }
        value => table.row([name.to_owned(), text(value)]),
    }
}

/// Makes a table of objects, with those columns of `first` that exist in front of the others.
pub(crate) fn records(objects: &[Value], first: &[&str]) -> Table {
    let mut columns: Vec<&str> = Vec::new();
    let names =
        objects.iter().filter_map(Value::as_object).flat_map(|object| object.keys().map(String::as_str));
    let all: BTreeSet<&str> = names.collect();
    columns.extend(first.iter().filter(|name| all.contains(*name)));
    columns.extend(all.iter().filter(|name| !first.contains(name)));
    if columns.is_empty() {
        columns.extend(first);
    }
    let mut table = Table::new(&columns);
    for object in objects {
        table.row(columns.iter().map(|name| object.get(name).map(text).unwrap_or_default()));
    }
    table
}

/// Prints a value as JSON, indented for a terminal, and on one line otherwise.
pub(crate) fn print_json(value: &impl Serialize) -> Result<(), Failure> {
    print_document(&if io::stdout().is_terminal() {
        serde_json::to_string_pretty(value)?
    } else {
        serde_json::to_string(value)?
    })
}

/// Prints JSON in the form that it has, and flushes it.
pub(crate) fn print_document(json: &str) -> Result<(), Failure> {
    write_all(&mut io::stdout().lock(), format!("{}\n", text::json(json)).as_bytes())
}

/// Prints a text on one line and flushes it.
pub(crate) fn print_line(text: &str) -> Result<(), Failure> {
    write_all(&mut io::stdout().lock(), format!("{}\n", text::line(text)).as_bytes())
}

/// Writes and flushes `bytes`.
pub(crate) fn write_all(out: &mut impl Write, bytes: &[u8]) -> Result<(), Failure> {
    let written = out.write_all(bytes).and_then(|()| out.flush());
    Ok(written.context("cannot write to standard output")?)
}

#[cfg(test)]
mod tests {
    use super::{CUT, GAP, MAX_CELL_COLUMNS, Table};

    fn table() -> Table {
        let mut table = Table::new(&["key", "value"]);
        table.row(["1".to_owned(), "short".to_owned()]);
        table.row(["22".to_owned(), "one line\nand on".to_owned()]);
        table.row(["\u{1b}[2J".to_owned(), "\u{4f60}\u{597d} which is long enough to be cut".to_owned()]);
        table
    }

    #[test]
    fn columns_are_aligned() {
        let text = table().text(None, false);
        let starts: Vec<_> =
            text.lines().filter_map(|line| line.find("one").or(line.find("short"))).collect();
        assert_eq!(starts, [11, 11], "{text}");
    }

    #[test]
    fn a_table_fits_into_a_terminal() {
        let text = table().text(Some(24), false);
        for line in text.lines() {
            assert!(console::measure_text_width(line) <= 24, "{line}");
        }
        assert!(text.contains(CUT), "{text}");
    }

    #[test]
    fn nothing_that_is_shown_moves_the_cursor() {
        let text = table().text(None, false);
        assert!(text.contains("\\u{1b}[2J") && text.contains("one line\\nand on"), "{text}");
        assert!(!text.contains('\u{1b}'));
    }

    #[test]
    fn a_large_cell_widens_no_row_beyond_the_limit() {
        for large in ["x", "\u{4f60}", "\u{202e}", "e\u{301}", "\u{301}"] {
            let mut table = Table::new(&["key", "value", "written"]);
            for _ in 0..10 {
                table.row(["1", "short", "now"].map(str::to_owned));
            }
            table.row(["2".to_owned(), large.repeat(1 << 20), "now".to_owned()]);
            let text = table.text(None, false);
            assert!(text.contains(CUT), "{large:?}");
            for line in text.lines() {
                let columns = console::measure_text_width(line);
                assert!(columns <= MAX_CELL_COLUMNS + 2 * GAP.len() + 20, "{large:?}: {columns}");
                assert!(line.len() < 10 * MAX_CELL_COLUMNS, "{large:?}: {}", line.len());
            }
        }
    }
}
