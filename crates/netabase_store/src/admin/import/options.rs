//! Options of an import.

use super::ImportProgress;
use crate::admin::limits::BATCH_RECORDS;
use crate::admin::progress::ProgressCallback;
use crate::options::NonExhaustive;

/// Options of an import.
#[derive(Debug)]
pub struct ImportOptions<'a> {
    /// The model of the values, where the input does not name it: of plain objects and tables.
    /// Default: `None`; each record of the input names its model.
    pub model: Option<String>,
    /// The format of the input. Default: detected from its first bytes.
    pub format: ImportFormat,
    /// The first line to store, or the first element of an array; those before it are read, but not
    /// stored. Default: 1. To continue an import, begin after
    /// [`ImportReport::last_line`](crate::import::ImportReport::last_line).
    pub first_line: u64,
    /// The number of lines in a batch; at least one. Default: 1000.
    pub batch: usize,
    /// The longest line that is read, in bytes; a longer one is an error of that line. Default: 16
    /// MiB.
    pub max_line_bytes: usize,
    /// The treatment of a record whose primary key exists already. Default: it replaces the stored
    /// one.
    pub on_conflict: OnConflict,
    /// The number of bad lines after which the import stops; with 1, at the first one. Default:
    /// `usize::MAX`.
    pub stop_at_errors: usize,
    /// Called with the progress after every batch. Default: no callback. An import that the
    /// callback stops has stored every earlier batch.
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

/// The treatment of a record whose primary key exists already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum OnConflict {
    /// The record replaces the stored one. The default.
    #[default]
    Replace,
    /// The stored record stays.
    Skip,
    /// The stored record stays, and the line counts as a bad one.
    Fail,
}

/// The format of an input.
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
