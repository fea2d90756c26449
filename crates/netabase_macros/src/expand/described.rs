//! Descriptions of fields, and the expansion of `#[derive(FieldType)]`.

use proc_macro2::{Group, TokenStream, TokenTree};
use quote::{ToTokens, quote};
use syn::Ident;
use syn::ext::IdentExt;

use crate::described::{Body, DescribedField, DescribedType};

/// Implements `FieldType`.
pub(crate) fn described(described: &DescribedType, private: &TokenStream) -> TokenStream {
    let body = body(&described.body, &described.ident, private);
    field_type(&described.ident, &body, private)
}

/// Wraps the body of the function that describes the type.
pub(crate) fn field_type(ident: &Ident, body: &TokenStream, private: &TokenStream) -> TokenStream {
    let name = ident.unraw().to_string();
    quote! {
        #[automatically_derived]
        impl #private::FieldType for #ident {
            const TYPE: &'static #private::TypeSchema = {
                fn body() -> #private::BodySchema {
                    #body
                }
                &#private::TypeSchema::named(
                    #name,
                    ::core::concat!(::core::module_path!(), "::", #name),
                    body,
                )
            };
        }
    }
}

fn body(body: &Body, this: &Ident, private: &TokenStream) -> TokenStream {
    match body {
        Body::Unit => quote!(#private::BodySchema::Unit),
        Body::Tuple(parts) => {
            let fields = fields(parts, this, private);
            quote!(#private::BodySchema::Tuple(#fields))
        }
        Body::Struct(parts) => {
            let fields = fields(parts, this, private);
            quote!(#private::BodySchema::Struct(#fields))
        }
        Body::Enum(variants) => {
            let variants = variants.iter().map(|(name, variant)| {
                let variant = self::body(variant, this, private);
                quote!((#name, #variant))
            });
            quote! {
                {
                    const VARIANTS: &[(&::core::primitive::str, #private::BodySchema)] = &[#(#variants),*];
                    #private::BodySchema::Enum(VARIANTS)
                }
            }
        }
    }
}

/// Describes fields of the type `this`: those types that are not described have the constant of a
/// trait.
pub(super) fn fields(fields: &[DescribedField], this: &Ident, private: &TokenStream) -> TokenStream {
    let fields = fields.iter().map(|DescribedField { name, ty, has_own_form, merge }| {
        let rust_type = ty.to_token_stream().to_string().replace(' ', "");
        let none = quote!(::core::option::Option::None);
        let described = if *has_own_form {
            none.clone()
        } else {
            let ty = named_self(ty.to_token_stream(), this);
            quote!(#private::Described::<#ty>::TYPE)
        };
        let merge = merge.map_or(none, |rule| quote!(::core::option::Option::Some(#rule)));
        quote!(#private::FieldSchema { name: #name, rust_type: #rust_type, ty: #described, merge: #merge })
    });
    quote! {
        {
            #[allow(unused_imports, reason = "all types may be described")]
            use #private::Undescribed as _;
            const FIELDS: &[#private::FieldSchema] = &[#(#fields),*];
            FIELDS
        }
    }
}

/// Names the type itself, which items inside of its implementation cannot call `Self`.
fn named_self(tokens: TokenStream, this: &Ident) -> TokenStream {
    let name = |token: TokenTree| match token {
        TokenTree::Ident(ident) if ident == "Self" => {
            let mut this = this.clone();
            this.set_span(ident.span());
            TokenTree::Ident(this)
        }
        TokenTree::Group(group) => {
            let mut named = Group::new(group.delimiter(), named_self(group.stream(), this));
            named.set_span(group.span());
            TokenTree::Group(named)
        }
        other => other,
    };
    tokens.into_iter().map(name).collect()
}
