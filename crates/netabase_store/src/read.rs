//! Typed reads of committed records, on the caller's thread.

pub(crate) mod cursor;
pub(crate) mod limits;
#[cfg(feature = "import-export")]
pub(crate) mod long_read;
pub(crate) mod snapshot;
pub(crate) mod tree;
pub(crate) mod tree_query;
pub(crate) mod view;
