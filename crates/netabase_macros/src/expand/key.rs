//! The expansion of `#[derive(NetabaseKey)]`.

use proc_macro2::TokenStream;
use quote::{format_ident, quote};
use syn::ext::IdentExt;
use syn::{Fields, Ident, Type};

use crate::key::{Key, Shape};

/// Implements `KeyField`.
pub(crate) fn key(key: &Key, private: &TokenStream) -> TokenStream {
    let ident = &key.ident;
    let (encode, decode) = match &key.shape {
        Shape::Struct(fields) => of_struct(fields, private),
        Shape::Enum(variants) => of_enum(ident, variants, private),
    };
    let key_field = key_field(ident, &encode, &decode, private);
    let exact_key = exact_key(ident, &quote!(#ident), private);
    quote!(#key_field #exact_key)
}

/// Lets a value stand for the one key of the type `key` that has the same encoding.
pub(crate) fn exact_key(ident: &Ident, key: &TokenStream, private: &TokenStream) -> TokenStream {
    quote! {
        #[automatically_derived]
        impl #private::ExactKey<#key> for #ident {
            fn encode_exact(&self, out: &mut ::std::vec::Vec<u8>) {
                #private::KeyField::encode_key(self, out);
            }
        }

        #[automatically_derived]
        impl #private::KeyRange<#key> for #ident {
            fn span(&self) -> #private::KeySpan {
                #private::exact_span::<#key>(self)
            }
        }
    }
}

/// Wraps the bodies of the two methods, whose arguments are `self`, `out` and `input`.
pub(crate) fn key_field(
    ident: &Ident,
    encode: &TokenStream,
    decode: &TokenStream,
    private: &TokenStream,
) -> TokenStream {
    quote! {
        #[automatically_derived]
        impl #private::KeyField for #ident {
            fn encode_key(&self, out: &mut ::std::vec::Vec<u8>) {
                #encode
            }

            fn decode_key(input: &mut &[u8]) -> ::core::result::Result<Self, #private::KeyError> {
                #decode
            }
        }
    }
}

fn of_struct(fields: &Fields, private: &TokenStream) -> (TokenStream, TokenStream) {
    let encode = fields
        .iter()
        .zip(fields.members())
        .map(|(field, member)| encode(&field.ty, &quote!(&self.#member), private));
    let decode = decode(&quote!(Self), fields, private);
    (quote!(#(#encode)*), decode)
}

fn of_enum(
    ident: &Ident,
    variants: &[(u8, Ident, Fields)],
    private: &TokenStream,
) -> (TokenStream, TokenStream) {
    let encode_arms = variants.iter().map(|(index, variant, fields)| {
        let members = fields.members();
        let bindings: Vec<_> = (0..fields.len()).map(|position| format_ident!("field_{position}")).collect();
        let parts = fields
            .iter()
            .zip(&bindings)
            .map(|(field, binding)| encode(&field.ty, &quote!(#binding), private));
        quote! {
            Self::#variant { #(#members: #bindings),* } => {
                ::std::vec::Vec::push(out, #index);
                #(#parts)*
            }
        }
    });
    let decode_arms = variants.iter().map(|(index, variant, fields)| {
        let decode = decode(&quote!(Self::#variant), fields, private);
        quote!(#index => #decode,)
    });
    let expected = format!("a variant of `{}`", ident.unraw());
    let encode =
        if variants.is_empty() { quote!(match *self {}) } else { quote!(match self { #(#encode_arms)* }) };
    let decode = quote! {
        match <u8 as #private::KeyField>::decode_key(input)? {
            #(#decode_arms)*
            _ => ::core::result::Result::Err(#private::KeyError::Malformed { expected: #expected }),
        }
    };
    (encode, decode)
}

/// Encodes `value`, of the type `ty`, to `out`. An error about the type points at the type.
pub(super) fn encode(ty: &Type, value: &TokenStream, private: &TokenStream) -> TokenStream {
    quote!(<#ty as #private::KeyField>::encode_key(#value, out);)
}

/// Decodes the fields of `constructor` from `input`.
fn decode(constructor: &TokenStream, fields: &Fields, private: &TokenStream) -> TokenStream {
    let members = fields.members();
    let types = fields.iter().map(|field| &field.ty);
    quote! {
        ::core::result::Result::Ok(#constructor {
            #(#members: <#types as #private::KeyField>::decode_key(input)?,)*
        })
    }
}
