//! The rows of a table in CSV, each of bounded length, as JSON objects.

use std::borrow::Cow;
use std::io::{self, BufRead};

use csv_core::{ReadRecordResult, Reader, ReaderBuilder};
use serde_json::value::RawValue;

use super::items::{Item, Next, Place};
use super::source::{Passed, Ready, Source};
use super::{ImportError, LineError};
use crate::model::described::{FieldSchema, TypeSchema};
use crate::model::schema::ModelSchema;

/// The header row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Columns {
    delimiter: u8,
    columns: Vec<Column>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Column {
    name: &'static str,
    content: Content,
    /// Whether an empty cell is no value.
    is_optional: bool,
}

/// The form of a column's cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Content {
    /// As text.
    Text,
    /// As JSON, or else as text.
    Json,
}

impl Columns {
    /// Reads the first row, which names fields of the model.
    pub(super) fn of_header(header: &[u8], model: &ModelSchema) -> Result<Self, ImportError> {
        // The characters that may separate cells.
        const DELIMITERS: [u8; 3] = [b',', b';', b'\t'];
        let mut failed = None;
        for delimiter in DELIMITERS {
            match Self::with(header, delimiter, model) {
                Ok(columns) => return Ok(Self { delimiter, columns }),
                // The error for commas, the usual delimiter, helps most.
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        Err(failed.unwrap_or(ImportError::Empty))
    }

    fn with(header: &[u8], delimiter: u8, model: &ModelSchema) -> Result<Vec<Column>, ImportError> {
        let text = std::str::from_utf8(header);
        let wrong = |message: String| ImportError::Columns { message: super::shorten(&message) };
        let text = text.map_err(|_| wrong("the first row is not text in UTF-8".to_owned()))?;
        let mut columns: Vec<Column> = Vec::new();
        for cell in text.split(char::from(delimiter)) {
            let cell = cell.trim();
            let name = cell.strip_prefix('"').and_then(|cell| cell.strip_suffix('"')).unwrap_or(cell);
            let Some(field) = model.fields.iter().find(|field| field.name == name) else {
                let names: Vec<_> = model.fields.iter().map(|field| field.name).collect();
                let names = names.join(", ");
                return Err(wrong(format!("`{name}` is not a field of {}, which has {names}", model.name)));
            };
            if columns.iter().any(|column| column.name == name) {
                return Err(wrong(format!("`{name}` is there twice")));
            }
            columns.push(Column::of(field));
        }
        Ok(columns)
    }
}

impl Column {
    fn of(field: &FieldSchema) -> Self {
        let (is_optional, is_text) = match field.ty {
            Some(TypeSchema::Optional(inner)) => (true, is_text_type(inner)),
            Some(ty) => (false, is_text_type(ty)),
            None => {
                let name: String = field.rust_type.chars().filter(|c| !c.is_whitespace()).collect();
                let inner = name.strip_prefix("option<").or_else(|| name.strip_prefix("Option<"));
                let inner = inner.and_then(|inner| inner.strip_suffix('>'));
                (inner.is_some(), is_text_name(inner.unwrap_or(&name)))
            }
        };
        let content = if is_text { Content::Text } else { Content::Json };
        Self { name: field.name, content, is_optional }
    }

    /// Adds a cell to an object.
    fn write(self, cell: &str, json: &mut String) {
        let is_json = || serde_json::from_str::<&RawValue>(cell).is_ok();
        if self.is_optional && cell.is_empty() {
            json.push_str("null");
        } else if self.content == Content::Json && is_json() {
            json.push_str(cell);
        } else {
            write_text(cell, json);
        }
    }
}

fn write_text(text: &str, json: &mut String) {
    // Text is always JSON.
    json.push_str(&serde_json::to_string(text).unwrap_or_default());
}

fn is_text_type(ty: &TypeSchema) -> bool {
    matches!(ty, TypeSchema::Simple(name) if is_text_name(name))
}

fn is_text_name(name: &str) -> bool {
    matches!(name, "string" | "char" | "author" | "String" | "Author")
}

/// Reads rows.
pub(super) struct Table<R> {
    source: Source<R>,
    limit: usize,
    reader: Reader,
    columns: Vec<Column>,
    /// The cells of the row, one after the other.
    cells: Vec<u8>,
    /// The end of each cell.
    ends: Vec<usize>,
    /// The filled parts of `cells` and `ends`.
    filled: usize,
    count: usize,
    /// The line on which the row begins that is being read.
    begun: Option<u64>,
    is_too_long: bool,
    number: u64,
    json: String,
}

impl<R: BufRead> Table<R> {
    /// Reads the rows behind the first one.
    pub(super) fn new(source: Source<R>, columns: Columns, limit: usize) -> Self {
        // The first size of the buffer for the cells of a row, which grows.
        const CELL_BYTES: usize = 4096;
        let Columns { delimiter, columns } = columns;
        Self {
            number: source.ends,
            source,
            limit: limit.max(CELL_BYTES),
            reader: ReaderBuilder::new().delimiter(delimiter).build(),
            cells: vec![0; CELL_BYTES],
            // One more than there should be, by which a row that has too many is known.
            ends: vec![0; columns.len() + 1],
            columns,
            filled: 0,
            count: 0,
            begun: None,
            is_too_long: false,
            json: String::new(),
        }
    }

    pub(super) fn source(&self) -> &Source<R> {
        &self.source
    }

    pub(super) fn number(&self) -> u64 {
        self.number
    }

    pub(super) fn next(&mut self) -> io::Result<Next<'_>> {
        let line = match self.begun {
            Some(line) => line,
            None => match self.source.pass(|byte| matches!(byte, b'\n' | b'\r'))? {
                Passed::Idle => return Ok(Next::Idle),
                Passed::End => return Ok(Next::End),
                Passed::At(_) => {
                    (self.filled, self.count, self.is_too_long) = (0, 0, false);
                    *self.begun.insert(self.source.ends + 1)
                }
            },
        };
        loop {
            let ready = self.source.ready()?;
            if ready == Ready::Idle {
                return Ok(Next::Idle);
            }
            let chunk = if ready == Ready::End { &[] } else { self.source.chunk()? };
            let (cells, ends) = (self.cells.get_mut(self.filled..), self.ends.get_mut(self.count..));
            let (result, taken, filled, count) =
                self.reader.read_record(chunk, cells.unwrap_or_default(), ends.unwrap_or_default());
            if ready == Ready::Bytes {
                self.source.take(taken)?;
            }
            self.filled += filled;
            self.count += count;
            match result {
                ReadRecordResult::InputEmpty => {}
                ReadRecordResult::OutputFull if self.cells.len() < self.limit => {
                    self.cells.resize((2 * self.cells.len()).min(self.limit), 0);
                }
                ReadRecordResult::OutputFull => (self.is_too_long, self.filled) = (true, 0),
                // The cells beyond the columns do not matter.
                ReadRecordResult::OutputEndsFull => self.count = self.columns.len(),
                ReadRecordResult::Record => break,
                ReadRecordResult::End => return Ok(Next::End),
            }
        }
        self.begun = None;
        self.number = line;
        let text = self.row();
        Ok(Next::Item(Item { place: Place { line, item: None }, text }))
    }

    /// Makes an object of the cells.
    fn row(&mut self) -> Result<Cow<'_, [u8]>, LineError> {
        let Self { cells, ends, columns, json, .. } = self;
        if self.is_too_long {
            return Err(LineError::TooLong { limit: self.limit });
        }
        if self.count != columns.len() {
            let (found, expected) = (self.count, columns.len());
            let found = if found > expected { format!("more than {expected}") } else { found.to_string() };
            return Err(LineError::Row {
                message: format!("it has {found} cells, the first row has {expected}"),
            });
        }
        json.clear();
        let mut start = 0;
        for (column, end) in columns.iter().zip(ends) {
            let cell = cells.get(start..*end).and_then(|cell| std::str::from_utf8(cell).ok());
            let Some(cell) = cell else {
                return Err(LineError::Row { message: format!("`{}` is not text in UTF-8", column.name) });
            };
            json.push(if json.is_empty() { '{' } else { ',' });
            write_text(column.name, json);
            json.push(':');
            column.write(cell, json);
            start = *end;
        }
        json.push('}');
        Ok(Cow::Borrowed(json.as_bytes()))
    }
}
