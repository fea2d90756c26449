//! Expands the macros' input to Rust.
//!
//! Generated code names every item by its full path, so that names in the user's scope do not
//! matter. The code stays small by calling generic functions of the crate.

mod blobs;
mod definition;
mod described;
mod fields;
mod key;
mod merge;
mod model;
mod query;
#[cfg(test)]
mod tests;
mod values;
mod version;

use proc_macro2::TokenStream;
use quote::quote;

pub(crate) use definition::definition;
pub(crate) use described::{described, field_type};
pub(crate) use key::{exact_key, key, key_field};
pub(crate) use model::{Generated, declarations, model, traits};
pub(crate) use version::{model_version, old_version};

/// The derives of every generated enum of keys.
fn key_derives() -> TokenStream {
    quote! {
        #[derive(
            ::core::clone::Clone,
            ::core::fmt::Debug,
            ::core::cmp::PartialEq,
            ::core::cmp::Eq,
            ::core::hash::Hash,
        )]
    }
}
