//! From what the macros are told to Rust.
//!
//! Generated code names everything by its full path: what the user has in scope is not ours. It stays
//! small by calling generic functions of the crate.

mod definition;
mod key;
mod model;
#[cfg(test)]
mod tests;

pub(crate) use definition::definition;
pub(crate) use key::{key, key_field};
pub(crate) use model::{declarations, model, traits};
