//! The commands, each with its arguments.

pub(crate) mod completions;
pub(crate) mod config;
pub(crate) mod man;
pub(crate) mod schema;
