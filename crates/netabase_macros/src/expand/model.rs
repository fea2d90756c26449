//! The expansion of `#[derive(NetabaseModel)]`.

use proc_macro2::{Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::ext::IdentExt;
use syn::spanned::Spanned;
use syn::{Ident, Path};

use super::blobs;
use super::described;
use super::fields as by_fields;
use super::key::{encode, exact_key, key_field};
use super::merge;
use super::query::{accessor, accessors};
use super::values::{encode_index, local, secondary_keys};
use super::version::version;
use crate::model::{KeyType, Model, Policy};
use crate::names;

/// Generates the key types of a model, and implements the traits for it and for them.
pub(crate) fn model(model: &Model, private: &TokenStream) -> TokenStream {
    let declarations =
        declarations(model, &quote!(#[derive(::core::clone::Clone, ::core::fmt::Debug)]), private);
    let key_fields = model.key_types().map(|key| newtype(&key, private)).collect::<Vec<_>>();
    let generated = Generated {
        fields,
        methods: methods(model, private),
        version: version(&model.ident, &model.version, &by_fields::decode(model, private), private),
        accessor,
    };
    let traits = traits(model, &generated, private);
    let owner = owner(model, private);
    quote! {
        #declarations
        #(#key_fields)*
        #traits
        #owner
    }
}

/// Compiles only if the primary key of an owned model starts with its owner.
fn owner(model: &Model, private: &TokenStream) -> Option<TokenStream> {
    let first = model.primary.first().filter(|_| model.policy == Policy::Owned)?;
    let ty = &first.ty;
    Some(quote_spanned!(ty.span()=> const _: () = #private::owner_of::<#ty>();))
}

/// The generated items of a model, which are guessed if it has mistakes.
pub(crate) struct Generated {
    /// The type of a key's field, or the tuple of its fields.
    pub(crate) fields: fn(&KeyType<'_>) -> TokenStream,
    /// The methods of `NetabaseModel`.
    pub(crate) methods: TokenStream,
    /// The implementation of `ModelVersion`.
    pub(crate) version: TokenStream,
    /// The method that asks by a key.
    pub(crate) accessor: fn(&Model, &KeyType<'_>, &TokenStream) -> TokenStream,
}

pub(super) fn fields(key: &KeyType<'_>) -> TokenStream {
    match key.types.as_slice() {
        [only] => quote!(#only),
        several => quote!((#(#several),*)),
    }
}

/// Declares the key types, with `attributes` on the structs, and their items that do not depend on
/// their fields.
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
    let types = &key.types;
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
    let [ty] = key.types.as_slice() else { return None };
    let ident = &key.ident;
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
    let variant_docs = model.secondary.iter().map(|key| format!("A key of the {}.", key.description()));
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
    let (ident, types) = (&key.ident, &key.types);
    let encodes = types.iter().enumerate().map(|(position, ty)| {
        let position = syn::Index::from(position);
        encode(ty, &quote!(&self.#position), private)
    });
    let decode = quote! {
        ::core::result::Result::Ok(Self(#(<#types as #private::KeyField>::decode_key(input)?),*))
    };
    let key_field = key_field(ident, &quote!(#(#encodes)*), &decode, private);
    let exact_key = exact_key(ident, &fields(key), private);
    quote!(#key_field #exact_key)
}

/// Implements the traits of the model and of its keys.
///
/// The traits need the definition; an invalid model may not have one.
pub(crate) fn traits(model: &Model, generated: &Generated, private: &TokenStream) -> Option<TokenStream> {
    let definition = model.definition.as_ref()?;
    let version = &generated.version;
    let keys = key_traits(model, generated.fields, private);
    let accessors = accessors(model, generated.accessor, private);
    let model = netabase_model(model, definition, &generated.methods, private);
    Some(quote!(#keys #version #model #accessors))
}

fn key_traits(model: &Model, fields: fn(&KeyType<'_>) -> TokenStream, private: &TokenStream) -> TokenStream {
    let ident = &model.ident;
    let secondary_keys = names::secondary_keys(ident);
    let key_traits = model.key_types().map(|key| key_trait(ident, &key, &fields(&key), private));
    let variants = model.secondary.iter().map(|key| &key.variant).collect::<Vec<_>>();
    let idents = model.secondary.iter().map(|key| &key.ident).collect::<Vec<_>>();
    let (index, encode) = if idents.is_empty() {
        (quote!(match *self {}), quote!(match *self {}))
    } else {
        (
            quote!(match self { #(Self::#variants(_) => <#idents as #private::SecondaryKey>::INDEX,)* }),
            quote!(match self { #(Self::#variants(key) => #private::KeyField::encode_key(key, out),)* }),
        )
    };
    quote! {
        #(#key_traits)*

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

/// Says whose key it is, and how to ask for it.
fn key_trait(model: &Ident, key: &KeyType<'_>, fields: &TokenStream, private: &TokenStream) -> TokenStream {
    let ident = &key.ident;
    // An error about a private type points at the type.
    let span = key.types.first().map_or_else(Span::call_site, |ty| Span::call_site().located_at(ty.span()));
    let fields = quote_spanned!(span=> type Fields = #fields;);
    let (implementation, position) = match key.index {
        None => (
            quote! {
                impl #private::PrimaryKey for #ident {
                    type Model = #model;
                    #fields
                }
            },
            quote!(::core::option::Option::None),
        ),
        Some(index) => (
            quote! {
                impl #private::SecondaryKey for #ident {
                    type Model = #model;
                    #fields
                    const INDEX: usize = #index;
                }
            },
            quote!(::core::option::Option::Some(#index)),
        ),
    };
    quote! {
        #[automatically_derived]
        #implementation

        #[automatically_derived]
        impl #private::QueryKey<#model> for #ident {
            const POSITION: ::core::option::Option<usize> = #position;

            fn is_whole(bytes: &[u8]) -> bool {
                <Self as #private::KeyField>::from_key_bytes(bytes).is_ok()
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
    let version = model.version.number;
    let policy = match model.policy {
        Policy::Open => quote!(Open),
        Policy::Owned => quote!(Owned),
        Policy::Merged => quote!(Merged),
    };
    let lifetime = model.lifetime.map_or_else(
        || quote!(::core::option::Option::None),
        |millis| quote!(::core::option::Option::Some(#millis)),
    );
    let (merge, blobs) = (merge::rules(model), blobs::names(model));
    let fields = described::fields(&model.fields, ident, private);
    let primary = model.primary.iter().map(|part| part.field.unraw().to_string());
    let indexes = model.secondary.iter().map(|key| {
        let (name, source, unique) = (&key.name, key.source_text(), key.unique);
        quote!(#private::IndexSchema { name: #name, source: #source, unique: #unique })
    });
    quote! {
        #[automatically_derived]
        impl #private::NetabaseModel for #ident {
            type Definition = #definition;
            type PrimaryKey = #primary_key;
            type SecondaryKeys = #secondary_keys;
            type Key = #key;

            const SCHEMA: &'static #private::ModelSchema = &#private::ModelSchema {
                name: #name,
                version: #version,
                policy: #private::WritePolicy::#policy,
                lifetime: #lifetime,
                merge: #merge,
                blobs: #blobs,
                fields: #fields,
                primary_key: &[#(#primary),*],
                indexes: &[#(#indexes),*],
                codec: &#private::TypedCodec::<#ident>::new(),
            };

            #methods
        }
    }
}

fn methods(model: &Model, private: &TokenStream) -> TokenStream {
    let primary_key = names::primary_key(&model.ident);
    let primary_fields = model.primary.iter().map(|part| &part.field);
    let encode_primary = model.primary.iter().map(|part| {
        let field = &part.field;
        encode(&part.ty, &quote!(&self.#field), private)
    });
    let secondary_keys = secondary_keys(model);
    let encode_indexes =
        model.secondary.iter().enumerate().map(|(index, key)| encode_index(index, key, private));
    let (encode_value, merge_fields) = (encode_value(model, private), merge::method(model, private));
    let blobs = blobs::method(model, private);
    let keys = local("keys");
    quote! {
        fn primary_key(&self) -> Self::PrimaryKey {
            #primary_key(#(::core::clone::Clone::clone(&self.#primary_fields)),*)
        }

        fn secondary_keys(&self) -> ::std::vec::Vec<Self::SecondaryKeys> {
            #secondary_keys
        }

        fn encode_primary_key(&self, out: &mut ::std::vec::Vec<u8>) {
            #(#encode_primary)*
        }

        fn encode_index_keys(&self, #keys: &mut #private::IndexKeys) {
            #(#encode_indexes)*
        }

        #encode_value

        #merge_fields

        #blobs
    }
}

fn encode_value(model: &Model, private: &TokenStream) -> TokenStream {
    let encode = by_fields::encode(model, private);
    quote! {
        fn encode_value(
            &self,
            encoding: #private::Encoding,
            out: ::std::vec::Vec<u8>,
        ) -> ::core::result::Result<::std::vec::Vec<u8>, #private::ValueError> {
            #encode
        }
    }
}
