//! Reports of an import: its progress, its result and bad lines.

use std::fmt;
use std::sync::Arc;

use thiserror::Error;

use crate::error::{StoreError, ValueError};
use crate::version::admit::Refusal;

/// The progress of an import.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ImportProgress {
    /// The lines that were read.
    pub lines: u64,
    /// The bytes that were read.
    pub bytes: u64,
    /// The records that were stored.
    pub records: u64,
    /// See [`ImportReport::last_line`].
    pub last_line: u64,
}

/// The result of an import.
#[derive(Debug, Clone)]
#[must_use = "an import may have met bad lines, or a file that was cut off"]
#[non_exhaustive]
pub struct ImportReport {
    /// The lines that were read, or the elements of an array.
    pub lines: u64,
    /// The bytes that were read.
    pub bytes: u64,
    /// The records that were stored.
    pub records: u64,
    /// The records that were not stored because of
    /// [`OnConflict::Skip`](crate::import::OnConflict::Skip), and those with signed versions that
    /// have expired or of which the same or a newer version is here.
    pub skipped: u64,
    /// The lines that could not be stored.
    pub bad: u64,
    /// The first 100 of them that were met, in the order of the
    /// lines.
    pub bad_lines: Vec<BadLine>,
    /// The last line that is done, or the last element of an array: every record up to it is on the
    /// disk, or was skipped or reported. To continue, begin with the line after it.
    pub last_line: u64,
    /// The number of records that the export had to leave out, from its last line.
    pub left_out: u64,
    /// The end of the input.
    pub end: ImportEnd,
}

impl ImportReport {
    /// Returns whether the input was complete and every line in it was good.
    pub fn is_whole(&self) -> bool {
        self.end == ImportEnd::Complete && self.bad == 0 && self.left_out == 0
    }
}

/// The end of an import's input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ImportEnd {
    /// The whole input was read; an export ended with its last line.
    Complete,
    /// The input was cut off: it lacks the last line of the export, or the bracket that ends the
    /// array. Its complete lines are stored.
    CutOff,
    /// The export's last line names another number of records than the file has. Its lines are
    /// stored.
    Incomplete {
        /// The number of records in the last line.
        expected: u64,
        /// The number of lines with records.
        found: u64,
    },
    /// The progress callback has stopped it.
    Stopped,
    /// The number of bad lines has reached
    /// [`ImportOptions::stop_at_errors`](crate::import::ImportOptions::stop_at_errors).
    TooManyErrors,
}

/// A line that could not be stored.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct BadLine {
    /// The line's number, from 1; of an element of an array, or a row of several lines, the number
    /// of its first line.
    pub line: u64,
    /// The number of the element, from 1, if the input is an array.
    pub item: Option<u64>,
    /// The error.
    pub error: LineError,
}

impl fmt::Display for BadLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.item {
            None => write!(f, "line {}: {}", self.line, self.error),
            Some(item) => write!(f, "element {item}, on line {}: {}", self.line, self.error),
        }
    }
}

/// An error of a line.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum LineError {
    /// The line is longer than
    /// [`ImportOptions::max_line_bytes`](crate::import::ImportOptions::max_line_bytes).
    #[error("it has more than {limit} bytes, which is more than any record may have")]
    TooLong {
        /// The limit in bytes.
        limit: usize,
    },
    /// The line is no JSON of this form.
    #[error("it is no JSON object on one line: {message}")]
    Json {
        /// The parser's error, with its place.
        message: String,
    },
    /// The line is neither a record nor the last line of an export.
    #[error(
        "it has no `model` and `value`; if it is a plain value, say of which model, as with `--model` or `?model=`"
    )]
    Form,
    /// The row does not fit the first row.
    #[error("the row cannot be read: {message}")]
    Row {
        /// The reason.
        message: String,
    },
    /// The value is not one of its model.
    #[error(transparent)]
    Value(#[from] ValueError),
    /// The store does not take the record.
    #[error(transparent)]
    Refused(Arc<StoreError>),
    /// The signed version of the record is not taken, as it would not be from a peer.
    #[error("its signed version is not taken: {0}")]
    Signed(Refusal),
    /// The line comes after the last line of the export.
    #[error("it comes after the end of the export or array; import files that were joined one by one")]
    AfterEnd,
}

/// The reason why an input cannot be imported.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ImportError {
    /// The input is empty.
    #[error("the input is empty: there is nothing to import")]
    Empty,
    /// The input is not text in UTF-8.
    #[error("the input is {what}, and must be text in UTF-8; convert it first, as with `{command}`")]
    Encoding {
        /// The detected format.
        what: &'static str,
        /// A command that converts it.
        command: &'static str,
    },
    /// The definition has no such model.
    #[error("the definition has no model `{name}` whose values the input could have")]
    UnknownModel {
        /// The name that was given.
        name: String,
    },
    /// The model of a table's rows is unknown.
    #[error("a table does not say of which model its rows are; name the model")]
    NoModel,
    /// The first row of a table does not name fields of the model.
    #[error("the first row of a table must name fields of the model: {message}")]
    Columns {
        /// The reason.
        message: String,
    },
    /// The first line is that of an export, and cannot be read.
    #[error("the first line of the export is damaged ({message})")]
    NoHeader {
        /// The error of the line.
        message: String,
    },
    /// The export was written by a newer program.
    #[error("the export has format {found}, this program knows {known}; use the newer program")]
    UnknownFormat {
        /// The format of the export.
        found: u32,
        /// The format of this program.
        known: u32,
    },
    /// The export is of another definition.
    #[error("the export is of the definition `{found}`, the store of `{expected}`; open the store for it")]
    OtherDefinition {
        /// The definition of the export.
        found: String,
        /// The definition of the store.
        expected: &'static str,
    },
}
