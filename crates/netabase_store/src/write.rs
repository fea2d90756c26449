//! The way of a write: from callers through the writer's queue into one commit.
//!
//! `writer` owns the engine's write transactions. Everything that changes a table goes through it.

pub(crate) mod apply;
pub(crate) mod coalesce;
pub(crate) mod index_changes;
pub(crate) mod limits;
pub(crate) mod planned_write;
pub(crate) mod transaction;
pub(crate) mod writer;
