//! The expansion after an error.
//!
//! The rest of the user's program refers to the items that the macros would have generated. Stubs
//! of them keep the compiler from reporting every such place along with the one mistake.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{Data, DeriveInput, Ident, Item, parse_quote};

use crate::expand::Generated;
use crate::mistakes::Mistakes;
use crate::model::{Accessor, KeyPart, KeyType, Model};
use crate::{derives, expand};

/// Leaves the item without its models.
pub(crate) fn definition(mut item: Item, error: &syn::Error) -> TokenStream {
    if let Item::Mod(module) = &mut item {
        module.content.iter_mut().flat_map(|(_, items)| items).for_each(derives::strip);
        module.attrs.push(parse_quote!(#[allow(unused, reason = "the models are missing")]));
    }
    let error = error.to_compile_error();
    quote!(#item #error)
}

/// Generates the types and the traits of the model that was meant, as far as they can be guessed.
pub(crate) fn model(input: &DeriveInput, error: &syn::Error, private: &TokenStream) -> TokenStream {
    let mut tokens = error.to_compile_error();
    if can_expand(input) {
        let model = guess(input);
        tokens.extend(expand::declarations(&model, &TokenStream::new(), private));
        for key in model.key_types() {
            tokens.extend(key_stub(&key.ident, private));
        }
        let stub = quote!(::core::unreachable!());
        let generated = Generated {
            fields: |_| quote!(Self),
            methods: method_stubs(private),
            version: expand::model_version(&model.ident, model.version.number, &stub, private),
            accessor: accessor_stub,
        };
        tokens.extend(expand::traits(&model, &generated, private));
    }
    tokens
}

/// Returns whether traits can be implemented for the type: not for a generic one, nor for a union.
pub(crate) fn can_expand(input: &DeriveInput) -> bool {
    input.generics.params.is_empty() && !matches!(input.data, Data::Union(_))
}

/// Reads the struct, and takes the first field for the primary key if none is marked.
fn guess(input: &DeriveInput) -> Model {
    let mut model = Model::read(input, &mut Mistakes::default());
    // Nobody reads the descriptions of a program that does not compile.
    model.fields.clear();
    if let (true, Data::Struct(data)) = (model.primary.is_empty(), &input.data) {
        let first = data.fields.iter().next();
        model.primary.extend(first.map(|field| KeyPart { field: input.ident.clone(), ty: field.ty.clone() }));
    }
    model
}

/// Implements the traits of a key type without requirements on its fields.
fn key_stub(ident: &Ident, private: &TokenStream) -> TokenStream {
    let key_field = key_field_stub(ident, private);
    quote! {
        impl ::core::clone::Clone for #ident {
            fn clone(&self) -> Self {
                ::core::unreachable!()
            }
        }

        impl ::core::fmt::Debug for #ident {
            fn fmt(&self, _: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
                ::core::unreachable!()
            }
        }

        #key_field
    }
}

/// Asks by a key with an argument of any type.
fn accessor_stub(model: &Model, key: &KeyType<'_>, private: &TokenStream) -> TokenStream {
    let (ident, model) = (&key.ident, &model.ident);
    let method = key.accessor.as_ref().map(|Accessor { ident: name, .. }| {
        quote! {
            fn #name<K>(self, _: K) -> <Self as #private::Select>::Selected<#ident>
            where
                Self: #private::Select<Model = #model>,
            {
                ::core::unreachable!()
            }
        }
    });
    quote!(#method)
}

fn key_field_stub(ident: &Ident, private: &TokenStream) -> TokenStream {
    let stub = quote!(::core::unreachable!());
    expand::key_field(ident, &stub, &stub, private)
}

fn method_stubs(private: &TokenStream) -> TokenStream {
    quote! {
        fn primary_key(&self) -> Self::PrimaryKey {
            ::core::unreachable!()
        }

        fn secondary_keys(&self) -> ::std::vec::Vec<Self::SecondaryKeys> {
            ::core::unreachable!()
        }

        fn encode_primary_key(&self, _: &mut ::std::vec::Vec<u8>) {
            ::core::unreachable!()
        }

        fn encode_index_keys(&self, _: &mut #private::IndexKeys) {
            ::core::unreachable!()
        }

        fn encode_value(
            &self,
            _: #private::Encoding,
            _: ::std::vec::Vec<u8>,
        ) -> ::core::result::Result<::std::vec::Vec<u8>, #private::ValueError> {
            ::core::unreachable!()
        }
    }
}

/// Implements `KeyField`, unless the type cannot be one.
pub(crate) fn key(input: &DeriveInput, error: &syn::Error, private: &TokenStream) -> TokenStream {
    let mut tokens = error.to_compile_error();
    if can_expand(input) {
        let ident = &input.ident;
        tokens.extend(key_field_stub(ident, private));
        tokens.extend(expand::exact_key(ident, &quote!(#ident), private));
    }
    tokens
}

/// Implements `FieldType`, unless the type cannot be described.
pub(crate) fn described(input: &DeriveInput, error: &syn::Error, private: &TokenStream) -> TokenStream {
    let mut tokens = error.to_compile_error();
    if can_expand(input) {
        tokens.extend(expand::field_type(&input.ident, &quote!(::core::unreachable!()), private));
    }
    tokens
}

/// Implements `ModelVersion`, with a version before every other.
pub(crate) fn version(input: &DeriveInput, error: &syn::Error, private: &TokenStream) -> TokenStream {
    let mut tokens = error.to_compile_error();
    if can_expand(input) {
        let stub = quote!(::core::unreachable!());
        tokens.extend(expand::model_version(&input.ident, 0, &stub, private));
    }
    tokens
}
