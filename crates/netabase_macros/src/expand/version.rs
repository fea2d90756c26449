//! The implementation of `ModelVersion`, for models and for their earlier versions.

use proc_macro2::{Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{Ident, Path};

use crate::arguments::Version;
use crate::names;

/// Implements `ModelVersion` for an earlier version of a model. An error about serde points at the
/// name of the type.
pub(crate) fn old_version(ident: &Ident, version: &Version, private: &TokenStream) -> TokenStream {
    let this = names::in_macro(ident);
    let decode = quote_spanned!(this.span()=> #private::decode_value::<#this>(version, value));
    self::version(ident, version, &decode, private)
}

/// Implements `ModelVersion` with an expression that decodes this version, and checks that the
/// versions follow each other.
pub(super) fn version(
    ident: &Ident,
    version: &Version,
    decode: &TokenStream,
    private: &TokenStream,
) -> TokenStream {
    let check = version.migrate_from.as_ref().map(|old| check_order(ident, version.number, old, private));
    let body = body(ident, version, decode, private);
    let implementation = model_version(ident, version.number, &body, private);
    quote!(#implementation #check)
}

/// Implements `ModelVersion`; the arguments of the method are `version` and `value`.
pub(crate) fn model_version(
    ident: &Ident,
    number: u32,
    body: &TokenStream,
    private: &TokenStream,
) -> TokenStream {
    quote! {
        #[automatically_derived]
        impl #private::ModelVersion for #ident {
            const VERSION: u32 = #number;

            fn decode_version(
                version: u32,
                value: #private::Encoded<'_>,
            ) -> ::core::result::Result<Self, #private::ValueError> {
                #body
            }
        }
    }
}

/// Decodes this version, or an earlier one. An error about the conversion points at the name of the
/// earlier version.
fn body(ident: &Ident, version: &Version, decode: &TokenStream, private: &TokenStream) -> TokenStream {
    let number = version.number;
    let migrate = version.migrate_from.as_ref().map(|old| {
        let span = Span::call_site().located_at(old.span());
        let mut this = ident.clone();
        this.set_span(span);
        let private = at(span, private);
        let migrate = quote_spanned! {span=>
            #private::migrate_value::<#old, #this>(
                version,
                value,
                <#old as #private::ModelVersion>::decode_version,
                <#old as #private::ModelVersion>::VERSION,
            )
        };
        quote! {
            if version < #number {
                return #migrate;
            }
        }
    });
    quote!(#migrate #decode)
}

/// Returns the path as if it were written at `span`: an error that points at all of a call points
/// there.
fn at(span: Span, path: &TokenStream) -> TokenStream {
    let tokens = path.clone().into_iter().map(|mut token| {
        token.set_span(span);
        token
    });
    tokens.collect()
}

fn check_order(ident: &Ident, number: u32, old: &Path, private: &TokenStream) -> TokenStream {
    let message =
        format!("`{ident}` has version {number}: `migrate_from` must name a type of a lower version");
    let span = Span::call_site().located_at(old.span());
    quote_spanned! {span=>
        const _: () = ::core::assert!(<#old as #private::ModelVersion>::VERSION < #number, #message);
    }
}
