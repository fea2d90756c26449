//! Declarations of applications: models, their keys and queries, and the form in which the core
//! sees them.
//!
//! Nothing here reads or writes a store. Macros implement the traits; `dynamic` is the same for
//! schemas at run time.

pub(crate) mod blob;
pub(crate) mod depth;
pub(crate) mod described;
pub mod dynamic;
pub(crate) mod fields;
pub(crate) mod json_tokens;
pub(crate) mod key;
pub(crate) mod key_range;
pub(crate) mod limits;
pub(crate) mod merge;
pub(crate) mod query;
pub(crate) mod raw_query;
pub(crate) mod schema;
pub(crate) mod scope;
