//! The expansion of `#[derive(NetabaseModel)]`.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::Path;
use syn::ext::IdentExt;

use super::key::{encode, key_field};
use crate::model::{KeyType, Model};
use crate::names;

/// Generates the key types of a model, and implements the traits for it and for them.
pub(crate) fn model(model: &Model, private: &TokenStream) -> TokenStream {
    let declarations =
        declarations(model, &quote!(#[derive(::core::clone::Clone, ::core::fmt::Debug)]), private);
    let key_fields = model.key_types().map(|key| newtype(&key, private)).collect::<Vec<_>>();
    let traits = traits(model, &methods(model, private), private);
    quote! {
        #declarations
        #(#key_fields)*
        #traits
    }
}

/// Declares the key types, with `attributes` on the structs, and what they have whatever their fields are.
pub(crate) fn declarations(model: &Model, attributes: &TokenStream, private: &TokenStream) -> TokenStream {
    let structs =
        model.key_types().map(|key| key_struct(model, &key, attributes, private)).collect::<Vec<_>>();
    let enums = key_enums(model);
    let conversions = conversions(model);
    quote! {
        #(#structs)*
        #enums
        #conversions
    }
}

fn key_struct(
    model: &Model,
    key: &KeyType<'_>,
    attributes: &TokenStream,
    private: &TokenStream,
) -> TokenStream {
    let (vis, ident, doc) = (&model.vis, &key.ident, &key.doc);
    let types = key.parts.iter().map(|part| &part.ty);
    let from_field = from_field(key);
    quote! {
        #[doc = #doc]
        #attributes
        #[allow(private_interfaces, reason = "the field of the model may be private, too")]
        #vis struct #ident(#(pub #types),*);

        #from_field

        #[automatically_derived]
        impl ::core::cmp::PartialEq for #ident {
            fn eq(&self, other: &Self) -> bool {
                #private::KeyField::to_key_bytes(self) == #private::KeyField::to_key_bytes(other)
            }
        }

        #[automatically_derived]
        impl ::core::cmp::Eq for #ident {}

        #[automatically_derived]
        impl ::core::cmp::PartialOrd for #ident {
            fn partial_cmp(&self, other: &Self) -> ::core::option::Option<::core::cmp::Ordering> {
                ::core::option::Option::Some(::core::cmp::Ord::cmp(self, other))
            }
        }

        #[automatically_derived]
        impl ::core::cmp::Ord for #ident {
            fn cmp(&self, other: &Self) -> ::core::cmp::Ordering {
                ::core::cmp::Ord::cmp(
                    &#private::KeyField::to_key_bytes(self),
                    &#private::KeyField::to_key_bytes(other),
                )
            }
        }

        #[automatically_derived]
        impl ::core::hash::Hash for #ident {
            fn hash<H: ::core::hash::Hasher>(&self, state: &mut H) {
                ::core::hash::Hash::hash(&#private::KeyField::to_key_bytes(self), state);
            }
        }
    }
}

/// Converts the field of a key that has one.
fn from_field(key: &KeyType<'_>) -> Option<TokenStream> {
    let [part] = key.parts.as_slice() else { return None };
    let (ident, ty) = (&key.ident, &part.ty);
    Some(quote! {
        #[automatically_derived]
        impl ::core::convert::From<#ty> for #ident {
            fn from(field: #ty) -> Self {
                Self(field)
            }
        }
    })
}

fn key_enums(model: &Model) -> TokenStream {
    let vis = &model.vis;
    let (primary_key, secondary_keys, key) =
        (names::primary_key(&model.ident), names::secondary_keys(&model.ident), names::key(&model.ident));
    let (variants, idents) =
        (model.secondary.iter().map(|key| &key.variant), model.secondary.iter().map(|key| &key.ident));
    let variant_docs = model.secondary.iter().map(|key| format!("A key of the field `{}`.", key.name));
    let secondary_doc = format!("The secondary keys of [`{}`].", model.ident.unraw());
    let key_doc = format!("The keys of [`{}`].", model.ident.unraw());
    let derives = super::key_derives();
    quote! {
        #[doc = #secondary_doc]
        #derives
        #vis enum #secondary_keys {
            #(
                #[doc = #variant_docs]
                #variants(#idents),
            )*
        }

        #[doc = #key_doc]
        #derives
        #vis enum #key {
            /// The key that names a record.
            Primary(#primary_key),
            /// A key that finds records.
            Secondary(#secondary_keys),
        }
    }
}

fn conversions(model: &Model) -> TokenStream {
    let (primary_key, secondary_keys, key) =
        (names::primary_key(&model.ident), names::secondary_keys(&model.ident), names::key(&model.ident));
    let (variants, idents) =
        (model.secondary.iter().map(|key| &key.variant), model.secondary.iter().map(|key| &key.ident));
    quote! {
        #[automatically_derived]
        impl ::core::convert::From<#primary_key> for #key {
            fn from(key: #primary_key) -> Self {
                Self::Primary(key)
            }
        }

        #[automatically_derived]
        impl ::core::convert::From<#secondary_keys> for #key {
            fn from(key: #secondary_keys) -> Self {
                Self::Secondary(key)
            }
        }

        #(
            #[automatically_derived]
            impl ::core::convert::From<#idents> for #secondary_keys {
                fn from(key: #idents) -> Self {
                    Self::#variants(key)
                }
            }

            #[automatically_derived]
            impl ::core::convert::From<#idents> for #key {
                fn from(key: #idents) -> Self {
                    Self::Secondary(#secondary_keys::#variants(key))
                }
            }
        )*
    }
}

fn newtype(key: &KeyType<'_>, private: &TokenStream) -> TokenStream {
    let positions = (0..key.parts.len()).map(syn::Index::from);
    let encodes = key
        .parts
        .iter()
        .zip(positions)
        .map(|(part, position)| encode(&part.ty, &quote!(&self.#position), private));
    let types = key.parts.iter().map(|part| &part.ty);
    let decode = quote! {
        ::core::result::Result::Ok(Self(#(<#types as #private::KeyField>::decode_key(input)?),*))
    };
    key_field(&key.ident, &quote!(#(#encodes)*), &decode, private)
}

/// Implements the traits of the model and of its keys. `methods` are those of `NetabaseModel`.
///
/// The traits need the definition; an invalid model may not have one.
pub(crate) fn traits(model: &Model, methods: &TokenStream, private: &TokenStream) -> Option<TokenStream> {
    let definition = model.definition.as_ref()?;
    let keys = key_traits(model, private);
    let model = netabase_model(model, definition, methods, private);
    Some(quote!(#keys #model))
}

fn key_traits(model: &Model, private: &TokenStream) -> TokenStream {
    let ident = &model.ident;
    let (primary_key, secondary_keys) = (names::primary_key(ident), names::secondary_keys(ident));
    let variants = model.secondary.iter().map(|key| &key.variant).collect::<Vec<_>>();
    let idents = model.secondary.iter().map(|key| &key.ident).collect::<Vec<_>>();
    let indexes = 0..idents.len();
    let (index, encode) = if idents.is_empty() {
        (quote!(match *self {}), quote!(match *self {}))
    } else {
        (
            quote!(match self { #(Self::#variants(_) => <#idents as #private::SecondaryKey>::INDEX,)* }),
            quote!(match self { #(Self::#variants(key) => #private::KeyField::encode_key(key, out),)* }),
        )
    };
    quote! {
        #[automatically_derived]
        impl #private::PrimaryKey for #primary_key {
            type Model = #ident;
        }

        #(
            #[automatically_derived]
            impl #private::SecondaryKey for #idents {
                type Model = #ident;
                const INDEX: usize = #indexes;
            }
        )*

        #[automatically_derived]
        impl #private::SecondaryKeys for #secondary_keys {
            type Model = #ident;

            fn index(&self) -> usize {
                #index
            }

            fn encode_key(&self, out: &mut ::std::vec::Vec<u8>) {
                #encode
            }
        }
    }
}

fn netabase_model(
    model: &Model,
    definition: &Path,
    methods: &TokenStream,
    private: &TokenStream,
) -> TokenStream {
    let (ident, name) = (&model.ident, &model.name);
    let (primary_key, secondary_keys, key) =
        (names::primary_key(ident), names::secondary_keys(ident), names::key(ident));
    let indexes = model.secondary.iter().map(|key| &key.name).collect::<Vec<_>>();
    quote! {
        #[automatically_derived]
        impl #private::NetabaseModel for #ident {
            type Definition = #definition;
            type PrimaryKey = #primary_key;
            type SecondaryKeys = #secondary_keys;
            type Key = #key;

            const SCHEMA: &'static #private::ModelSchema = &#private::ModelSchema {
                name: #name,
                version: 1,
                indexes: &[#(#private::IndexSchema { name: #indexes, source: #indexes, unique: false }),*],
                extract: &#private::extract_keys::<#ident>,
            };

            #methods
        }
    }
}

fn methods(model: &Model, private: &TokenStream) -> TokenStream {
    let (primary_key, secondary_keys) =
        (names::primary_key(&model.ident), names::secondary_keys(&model.ident));
    let primary_fields = model.primary.iter().map(|part| &part.field);
    let encode_primary = model.primary.iter().map(|part| {
        let field = &part.field;
        encode(&part.ty, &quote!(&self.#field), private)
    });
    let (variants, idents) =
        (model.secondary.iter().map(|key| &key.variant), model.secondary.iter().map(|key| &key.ident));
    let secondary_fields = model.secondary.iter().map(|key| &key.part.field).collect::<Vec<_>>();
    let secondary_types = model.secondary.iter().map(|key| &key.part.ty);
    let positions = 0..secondary_fields.len();
    let codec = codec(model, private);
    quote! {
        fn primary_key(&self) -> Self::PrimaryKey {
            #primary_key(#(::core::clone::Clone::clone(&self.#primary_fields)),*)
        }

        fn secondary_keys(&self) -> ::std::vec::Vec<Self::SecondaryKeys> {
            ::std::vec::Vec::from([
                #(#secondary_keys::#variants(#idents(::core::clone::Clone::clone(&self.#secondary_fields)))),*
            ])
        }

        fn encode_primary_key(&self, out: &mut ::std::vec::Vec<u8>) {
            #(#encode_primary)*
        }

        fn encode_index_keys(&self, keys: &mut #private::IndexKeys) {
            #(#private::IndexKeys::push(
                keys,
                #positions,
                <#secondary_types as #private::KeyField>::to_key_bytes(&self.#secondary_fields),
            );)*
        }

        #codec
    }
}

/// The only code that needs serde of the model. An error about that points at the struct's name.
fn codec(model: &Model, private: &TokenStream) -> TokenStream {
    let ident = names::in_macro(&model.ident);
    let encode = quote_spanned!(ident.span()=> #private::encode_value::<#ident>(self, out));
    let decode = quote_spanned!(ident.span()=> #private::decode_value::<#ident>(value));
    quote! {
        fn encode_value(
            &self,
            out: ::std::vec::Vec<u8>,
        ) -> ::core::result::Result<::std::vec::Vec<u8>, #private::ValueError> {
            #encode
        }

        fn decode_value(value: &[u8]) -> ::core::result::Result<Self, #private::ValueError> {
            #decode
        }
    }
}
