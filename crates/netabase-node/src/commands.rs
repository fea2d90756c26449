//! The commands, each with its arguments.

pub(crate) mod authors;
pub(crate) mod care;
pub(crate) mod completions;
pub(crate) mod config;
pub(crate) mod man;
pub(crate) mod node;
pub(crate) mod records;
pub(crate) mod schema;
pub(crate) mod transfer;
pub(crate) mod watch;
