//! Care of a database: checks, formats, backups, import, export, and figures.

pub(crate) mod api_file;
pub(crate) mod backup;
pub(crate) mod check;
pub(crate) mod compact;
pub(crate) mod counters;
#[cfg(feature = "import-export")]
pub(crate) mod export;
pub(crate) mod histogram;
#[cfg(feature = "import-export")]
pub(crate) mod import;
pub(crate) mod left_record;
pub(crate) mod limits;
pub(crate) mod migrate;
pub(crate) mod migrate_records;
pub(crate) mod progress;
pub(crate) mod rebuild;
pub(crate) mod statistics;

pub use crate::error::{AdminError, DamageError};
pub use api_file::{ApiFile, PublishedApi};
pub use check::{CheckOptions, CheckReport, Problem};
pub use compact::Compaction;
pub use counters::StoreCounters;
pub use histogram::{Histogram, HistogramReading};
pub use left_record::{LeftReason, LeftRecord};
pub use migrate_records::{MigrationProgress, MigrationReport};
pub use progress::Progress;
#[cfg(feature = "import-export")]
pub use progress::ProgressCallback;
pub use statistics::{HistoryStatistics, IndexStatistics, ModelStatistics, Statistics, TableStatistics};
