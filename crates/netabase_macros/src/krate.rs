//! The path of the crate that generated code needs.

use proc_macro_crate::{FoundCrate, crate_name};
use proc_macro2::{Span, TokenStream};
use quote::{format_ident, quote};

/// Returns the path of the `__private` module of `netabase`, or else of `netabase_store`, under the
/// name that the user's `Cargo.toml` gives it.
pub(crate) fn private() -> syn::Result<TokenStream> {
    ["netabase", "netabase_store"]
        .into_iter()
        .find_map(|package| match crate_name(package).ok()? {
            // The crate itself, its tests or its examples; it declares `extern crate self as ..`.
            FoundCrate::Itself => Some(format_ident!("{package}")),
            FoundCrate::Name(name) => Some(format_ident!("{name}")),
        })
        .map(|krate| quote!(::#krate::__private))
        .ok_or_else(|| {
            syn::Error::new(
                Span::call_site(),
                "this macro needs the crate `netabase`: run `cargo add netabase`",
            )
        })
}
