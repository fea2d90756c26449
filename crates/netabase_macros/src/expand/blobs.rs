//! Expands the blobs that the fields of a model name.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::ext::IdentExt;
use syn::spanned::Spanned;

use super::values::local;
use crate::model::Model;

/// Returns the names of the fields, as the database remembers them.
pub(super) fn names(model: &Model) -> String {
    let names = model.blobs.iter().map(|part| part.field.unraw().to_string());
    names.collect::<Vec<_>>().join(",")
}

/// The method of `NetabaseModel` that lists the blobs, if there may be any.
pub(super) fn method(model: &Model, private: &TokenStream) -> Option<TokenStream> {
    model.blobs.first()?;
    let found = local("found");
    let lists = model.blobs.iter().map(|part| {
        let (field, ty) = (&part.field, &part.ty);
        quote_spanned!(ty.span()=> <#ty as #private::BlobField>::list(&self.#field, #found);)
    });
    Some(quote! {
        fn blobs(&self, #found: &mut ::std::vec::Vec<#private::Blob>) {
            #(#lists)*
        }
    })
}
