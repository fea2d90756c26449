//! How records are imported.

use super::ImportProgress;
use crate::admin::limits::BATCH_RECORDS;
use crate::admin::progress::ProgressCallback;
use crate::options::NonExhaustive;

/// How to import.
#[derive(Debug)]
pub struct ImportOptions<'a> {
    /// The model of the values, where the input does not say so: of plain objects and tables.
    /// Default: none, and every record has its model beside it.
    pub model: Option<String>,
    /// What the input is made of. Default: what it begins with says so.
    pub format: ImportFormat,
    /// The first line to store, or the first element of an array; those before it are read, but not
    /// stored. Default: 1. To go on with an import, begin after
    /// [`ImportReport::last_line`](crate::import::ImportReport::last_line).
    pub first_line: u64,
    /// How many lines are stored together; at least one. Default: 1000.
    pub batch: usize,
    /// The longest line that is read, in bytes; a longer one is an error of that line. Default: 16
    /// MiB.
    pub max_line_bytes: usize,
    /// What to do with a record whose primary key is taken. Default: it replaces the one that is
    /// there.
    pub on_conflict: OnConflict,
    /// After how many bad lines to stop; with 1, at the first one. Default: never.
    pub stop_at_errors: usize,
    /// Is told after every batch how far it is. Default: nobody is told. An import that it stops
    /// has stored every batch before.
    pub progress: ProgressCallback<'a, ImportProgress>,
    #[doc(hidden)]
    pub non_exhaustive: NonExhaustive,
}

impl Default for ImportOptions<'_> {
    fn default() -> Self {
        Self {
            model: None,
            format: ImportFormat::default(),
            first_line: 1,
            batch: BATCH_RECORDS,
            max_line_bytes: 16 * 1024 * 1024,
            on_conflict: OnConflict::default(),
            stop_at_errors: usize::MAX,
            progress: ProgressCallback::default(),
            non_exhaustive: NonExhaustive::default(),
        }
    }
}

/// What to do with a record whose primary key is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum OnConflict {
    /// It replaces the record that is there. The default.
    #[default]
    Replace,
    /// The record that is there stays.
    Skip,
    /// The record that is there stays, and the line is a bad one.
    Fail,
}

/// What an input is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum ImportFormat {
    /// An array if the input begins with a bracket; a table if [`ImportOptions::model`] is given
    /// and the first line names fields of it; or else lines of JSON. The default.
    #[default]
    Auto,
    /// An array if the input begins with a bracket, or else lines of JSON.
    Json,
    /// A table in CSV (RFC 4180) with commas, semicolons or tabs, whose first row names fields of
    /// [`ImportOptions::model`].
    ///
    /// Cells of text fields are taken as they are, others as JSON (`42`, `true`, `["a","b"]`), or
    /// as text if they are none. An empty cell of an optional field is no value.
    Csv,
}
