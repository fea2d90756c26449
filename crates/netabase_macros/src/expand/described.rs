//! Descriptions of fields, and the expansion of `#[derive(FieldType)]`.

use proc_macro2::{Group, Span, TokenStream, TokenTree};
use quote::{ToTokens, quote};
use syn::ext::IdentExt;
use syn::{ExprPath, Ident, Member};

use crate::described::{Absent, Body, DescribedField, DescribedType};

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
    let fields = fields.iter().map(|DescribedField { name, ty, has_own_form, merge, absent, aliases }| {
        let rust_type = ty.to_token_stream().to_string().replace(' ', "");
        let none = quote!(::core::option::Option::None);
        let ty = named_self(ty.to_token_stream(), this);
        let described =
            if *has_own_form { none.clone() } else { quote!(#private::Described::<#ty>::TYPE) };
        let default = match absent {
            Absent::Missing => none.clone(),
            Absent::Default => quote! {
                ::core::option::Option::Some(|| #private::default_json::<#ty>(::core::default::Default::default))
            },
            Absent::Call(path) => {
                quote!(::core::option::Option::Some(|| #private::default_json::<#ty>(#path)))
            }
            Absent::PartOf(path) => {
                let (whole, member) = (whole(path.as_ref(), &quote!(#this)), member(name));
                quote!(::core::option::Option::Some(|| #private::default_json::<#ty>(|| #whole.#member)))
            }
        };
        let merge = merge.map_or(none, |rule| quote!(::core::option::Option::Some(#rule)));
        quote! {
            #private::FieldSchema {
                name: #name,
                rust_type: #rust_type,
                ty: #described,
                merge: #merge,
                default: #default,
                aliases: &[#(#aliases),*],
            }
        }
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

/// Returns the struct whose fields are the defaults of fields.
pub(super) fn whole(path: Option<&ExprPath>, this: &TokenStream) -> TokenStream {
    path.map_or_else(|| quote!(<#this as ::core::default::Default>::default()), |path| quote!(#path()))
}

/// Returns a field by its name, or by its position.
fn member(name: &str) -> Member {
    name.parse().map_or_else(
        |_| Member::Named(syn::parse_str(name).unwrap_or_else(|_| Ident::new_raw(name, Span::call_site()))),
        |position: usize| Member::from(position),
    )
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
