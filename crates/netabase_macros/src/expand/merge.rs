//! Expands the merge of a model's fields.

use proc_macro2::TokenStream;
use quote::{format_ident, quote, quote_spanned};
use syn::ext::IdentExt;
use syn::spanned::Spanned;

use super::values::local;
use crate::merge::{MergedField, Rule};
use crate::model::Model;

/// Returns how the fields are merged, as the database remembers it.
pub(super) fn rules(model: &Model) -> String {
    let rules = merged_fields(model).map(|field| format!("{}={}", field.field.unraw(), field.rule.name()));
    rules.collect::<Vec<_>>().join(",")
}

/// The method of `NetabaseModel` that merges, if there is a field that it has to.
pub(super) fn method(model: &Model, private: &TokenStream) -> Option<TokenStream> {
    merged_fields(model).next()?;
    let how = local("how");
    let merges = merged_fields(model).map(|MergedField { field, ty, rule }| {
        let function = format_ident!("merge_{}", rule.name(), span = ty.span());
        quote_spanned!(ty.span()=> #private::#function::<Self, #ty>(&mut self.#field, #how, |one| &one.#field);)
    });
    Some(quote! {
        fn merge_fields(&mut self, #how: &#private::Merge<'_, Self>) {
            #(#merges)*
        }
    })
}

/// Returns the fields that are not simply those of the latest contribution.
fn merged_fields(model: &Model) -> impl Iterator<Item = &MergedField> {
    model.merged.iter().filter(|field| field.rule != Rule::Latest)
}
