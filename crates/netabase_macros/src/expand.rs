//! From what the macros are told to Rust.
//!
//! Generated code names everything by its full path: what the user has in scope is not ours. It
//! stays small by calling generic functions of the crate.

mod blobs;
mod definition;
mod described;
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
pub(crate) use version::{model_version, version};

/// What every generated enum of keys derives.
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
