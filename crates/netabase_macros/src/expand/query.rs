//! The trait that asks for the records of a model by their keys.

use proc_macro2::TokenStream;
use quote::quote;
use syn::ext::IdentExt;

use super::model::fields;
use crate::model::{Accessor, KeyType, Model};
use crate::names;

/// Declares the trait that asks for records by each key.
pub(super) fn accessors(
    model: &Model,
    accessor: fn(&Model, &KeyType<'_>, &TokenStream) -> TokenStream,
    private: &TokenStream,
) -> TokenStream {
    let (vis, ident, query) = (&model.vis, &model.ident, names::query(&model.ident));
    let doc = format!("Asks for records of [`{}`] by their keys.", ident.unraw());
    let methods = model.key_types().map(|key| accessor(model, &key, private)).collect::<Vec<_>>();
    quote! {
        #[doc = #doc]
        #[allow(
            private_interfaces,
            private_bounds,
            dead_code,
            reason = "the field of the model may be private, too, and not every key is asked for"
        )]
        #vis trait #query: #private::QueryOf<#ident> + ::core::marker::Sized {
            #(#methods)*
        }

        #[automatically_derived]
        impl<S: #private::QueryOf<#ident>> #query for S {}
    }
}

/// The method that asks by a key; a primary key of several fields has none.
pub(super) fn accessor(model: &Model, key: &KeyType<'_>, private: &TokenStream) -> TokenStream {
    let Some(Accessor { ident: name, made_of }) = &key.accessor else { return TokenStream::new() };
    let (ident, fields, model) = (&key.ident, fields(key), &model.ident);
    let doc = format!("Asks by the {made_of}: for the records whose keys are among `keys`, in their order.");
    let select = if key.index.is_none() {
        quote!(#private::Select::primary_key(self, keys))
    } else {
        quote!(#private::Select::secondary_key::<#ident>(self, keys))
    };
    quote! {
        #[doc = #doc]
        fn #name(
            self,
            keys: impl #private::KeyRange<#fields>,
        ) -> <Self as #private::Select>::Selected<#ident>
        where
            Self: #private::Select<Model = #model>,
        {
            #select
        }
    }
}
