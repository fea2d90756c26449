//! How records are imported.

use super::ImportProgress;
use crate::progress::ProgressCallback;

/// The default of [`ImportOptions::batch`].
pub const DEFAULT_IMPORT_BATCH: usize = 1000;
/// The default of [`ImportOptions::max_line_bytes`]: 16 MiB, which any value of the default size fits in
/// unless its JSON is sixteen times as long.
pub const DEFAULT_MAX_LINE_BYTES: usize = 16 * 1024 * 1024;

/// How to import.
#[derive(Debug)]
pub struct ImportOptions<'a> {
    /// The first line to store; those before it are read, but not stored. Default: 1, the line that says
    /// what the file is. To go on with an import, begin after [`ImportReport::last_line`](crate::ImportReport::last_line).
    pub first_line: u64,
    /// How many lines are stored together; at least one. Default: 1000.
    pub batch: usize,
    /// The longest line that is read, in bytes; a longer one is an error of that line. Default: 16 MiB.
    pub max_line_bytes: usize,
    /// What to do with a record whose primary key is taken. Default: it replaces the one that is there.
    pub on_conflict: OnConflict,
    /// After how many bad lines to stop; with 1, at the first one. Default: never.
    pub stop_at_errors: usize,
    /// Is told after every batch how far it is. Default: nobody is told. An import that it stops has
    /// stored every batch before.
    pub progress: ProgressCallback<'a, ImportProgress>,
}

impl Default for ImportOptions<'_> {
    fn default() -> Self {
        Self {
            first_line: 1,
            batch: DEFAULT_IMPORT_BATCH,
            max_line_bytes: DEFAULT_MAX_LINE_BYTES,
            on_conflict: OnConflict::default(),
            stop_at_errors: usize::MAX,
            progress: ProgressCallback::default(),
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
