//! The values that the secondary keys of a record have.

use proc_macro2::{Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::Ident;
use syn::spanned::Spanned;

use super::key::encode;
use crate::model::Model;
use crate::names;
use crate::secondary::{SecondaryKey, Shape, Source};

/// Lists the secondary keys of a record.
pub(super) fn secondary_keys(model: &Model) -> TokenStream {
    if model.secondary.is_empty() {
        return quote!(::std::vec::Vec::new());
    }
    let secondary_keys = names::secondary_keys(&model.ident);
    let (keys, value) = (local("keys"), local("value"));
    let pushes = model.secondary.iter().map(|SecondaryKey { ident, variant, source, .. }| {
        let push = |parts: TokenStream| {
            quote!(::std::vec::Vec::push(&mut #keys, #secondary_keys::#variant(#ident(#parts)));)
        };
        match source {
            Source::Fields(fields) => push(quote!(#(::core::clone::Clone::clone(&self.#fields)),*)),
            Source::Field(..) | Source::Function(..) => {
                each_value(source, &push(quote!(::core::clone::Clone::clone(#value))))
            }
        }
    });
    quote! {
        let mut #keys = ::std::vec::Vec::new();
        #(#pushes)*
        #keys
    }
}

/// Encodes the values of one secondary key.
pub(super) fn encode_index(index: usize, key: &SecondaryKey, private: &TokenStream) -> TokenStream {
    let (keys, value) = (local("keys"), local("value"));
    match (&key.source, key.types.as_slice()) {
        (Source::Fields(fields), types) => {
            let parts =
                types.iter().zip(fields).map(|(ty, field)| encode(ty, &quote!(&self.#field), private));
            quote! {
                let mut key = ::std::vec::Vec::new();
                {
                    let out = &mut key;
                    #(#parts)*
                }
                #private::IndexKeys::push(#keys, #index, key);
            }
        }
        (source, types) => {
            let push = quote! {
                #private::IndexKeys::push(
                    #keys,
                    #index,
                    #(<#types as #private::KeyField>::to_key_bytes(#value),)*
                );
            };
            each_value(source, &push)
        }
    }
}

/// Returns the name of a variable that paths which the user has written cannot mean.
pub(super) fn local(name: &str) -> Ident {
    Ident::new(name, Span::mixed_site())
}

/// Runs `body` with a reference to each value of the source, called `value`.
fn each_value(source: &Source, body: &TokenStream) -> TokenStream {
    let (value, values) = (local("value"), local("values"));
    let (given, shape) = match source {
        Source::Field(field, shape) => (quote!(&self.#field), *shape),
        Source::Function(path, ty, shape) => {
            let call = quote_spanned!(path.span()=> #path(self));
            (quote!(&{ let #values: #ty = #call; #values }), *shape)
        }
        Source::Fields(_) => return TokenStream::new(),
    };
    match shape {
        Shape::One => quote! {
            {
                let #value = #given;
                #body
            }
        },
        Shape::Optional | Shape::Many => quote! {
            for #value in ::core::iter::IntoIterator::into_iter(#given) {
                #body
            }
        },
    }
}
