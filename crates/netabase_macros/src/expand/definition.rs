//! The expansion of `#[netabase_definition_module]`.

use proc_macro2::TokenStream;
use quote::{ToTokens, quote};
use syn::ItemMod;
use syn::ext::IdentExt;

use crate::definition::{Definition, Member};
use crate::names;

/// Generates the enums of models and of keys, and writes them into the module.
pub(crate) fn definition(definition: &Definition, private: &TokenStream) -> TokenStream {
    let enums = enums(definition);
    let traits = traits(definition, private);
    let conversions = definition.models.iter().map(|member| conversions(definition, member, private));
    let (mistakes, vis) = (&definition.mistakes, &definition.vis);
    // For a glob import of the module, without a name that could collide.
    let select = quote! {
        #[allow(unused_imports, reason = "not every program asks by a key of several fields")]
        #vis use #private::Select as _;
    };
    into_module(&definition.module, &quote! { #select #enums #traits #(#conversions)* #mistakes })
}

fn into_module(module: &ItemMod, generated: &TokenStream) -> TokenStream {
    let mut module = module.clone();
    if let Some((_, items)) = &mut module.content {
        items.push(syn::Item::Verbatim(generated.clone()));
    }
    module.into_token_stream()
}

fn enums(definition: &Definition) -> TokenStream {
    let vis = &definition.vis;
    let (ident, keys) = (names::in_macro(&definition.ident), names::in_macro(&definition.keys));
    let doc = format!("The models of the definition `{}`.", definition.name);
    let keys_doc = format!("The keys of the models of the definition `{}`.", definition.name);
    let variants = definition.models.iter().map(|Member { model, cfg }| {
        let (variant, doc) =
            (names::in_macro(&model.ident), format!("A record of the model `{}`.", model.ident.unraw()));
        quote!(#(#cfg)* #[doc = #doc] #variant(#variant))
    });
    let key_variants = definition.models.iter().map(|Member { model, cfg }| {
        let (variant, key) = (names::in_macro(&model.ident), names::key(&model.ident));
        let doc = format!("A key of the model `{}`.", model.ident.unraw());
        quote!(#(#cfg)* #[doc = #doc] #variant(#key))
    });
    let derives = super::key_derives();
    quote! {
        #[doc = #doc]
        #[derive(::core::clone::Clone)]
        #[allow(private_interfaces, reason = "some models may be less visible than others")]
        #vis enum #ident {
            #(#variants,)*
        }

        #[doc = #keys_doc]
        #derives
        #[allow(private_interfaces, reason = "some models may be less visible than others")]
        #vis enum #keys {
            #(#key_variants,)*
        }
    }
}

fn traits(definition: &Definition, private: &TokenStream) -> TokenStream {
    let Definition { ident, keys, name, .. } = definition;
    let members = |expand: fn(&Member, &TokenStream) -> TokenStream| {
        definition.models.iter().map(move |member| expand(member, private))
    };
    let schemas = members(|Member { model, cfg }, private| {
        let model = &model.ident;
        quote!(#(#cfg)* <#model as #private::NetabaseModel>::SCHEMA)
    });
    let keys_of = members(|Member { model, cfg }, private| {
        let model = &model.ident;
        quote!(#(#cfg)* Self::#model(model) => ::core::convert::From::from(#private::NetabaseModel::primary_key(model)),)
    });
    let encodes = members(|Member { model, cfg }, private| {
        let model = &model.ident;
        quote!(#(#cfg)* Self::#model(model) => #private::EncodedRecord::of(model),)
    });
    let decodes = members(|Member { model, cfg }, private| {
        let ident = &model.ident;
        quote! {
            #(#cfg)*
            if model == <#ident as #private::NetabaseModel>::SCHEMA.name {
                return #private::decode_payload(payload).map(Self::#ident);
            }
        }
    });
    // A reference to an enum without variants has to be looked through to see that there are none.
    let this = if definition.models.is_empty() { quote!(*self) } else { quote!(self) };
    quote! {
        #[automatically_derived]
        impl #private::NetabaseDefinition for #ident {
            type Keys = #keys;

            const SCHEMA: &'static #private::DefinitionSchema = &#private::DefinitionSchema {
                name: #name,
                models: &[#(#schemas),*],
            };

            fn key(&self) -> Self::Keys {
                match #this { #(#keys_of)* }
            }

            fn encode(&self) -> ::core::result::Result<#private::EncodedRecord, #private::ValueError> {
                match #this { #(#encodes)* }
            }

            fn decode(model: &str, payload: &[u8]) -> ::core::result::Result<Self, #private::ValueError> {
                #(#decodes)*
                ::core::result::Result::Err(#private::ValueError::UnknownModel {
                    name: ::std::borrow::ToOwned::to_owned(model),
                })
            }
        }

        #[automatically_derived]
        impl ::core::fmt::Debug for #ident {
            fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
                ::core::fmt::Debug::fmt(&#private::NetabaseDefinition::key(self), f)
            }
        }
    }
}

/// Leads from a model to the definition and back, and from its keys to the enum of keys.
fn conversions(definition: &Definition, member: &Member, private: &TokenStream) -> TokenStream {
    let Definition { ident, keys, .. } = definition;
    let Member { model, cfg } = member;
    let model = &model.ident;
    let (key, primary_key) = (names::key(model), names::primary_key(model));
    quote! {
        #(#cfg)*
        #[automatically_derived]
        impl ::core::convert::From<#model> for #ident {
            fn from(model: #model) -> Self {
                Self::#model(model)
            }
        }

        #(#cfg)*
        #[automatically_derived]
        impl #private::DefinitionOf<#model> for #ident {}

        #(#cfg)*
        #[automatically_derived]
        impl ::core::convert::TryFrom<#ident> for #model {
            type Error = #ident;

            fn try_from(model: #ident) -> ::core::result::Result<Self, #ident> {
                #[allow(unreachable_patterns, reason = "the definition may have no other model")]
                match model {
                    #ident::#model(model) => ::core::result::Result::Ok(model),
                    other => ::core::result::Result::Err(other),
                }
            }
        }

        #(#cfg)*
        #[automatically_derived]
        impl ::core::convert::From<#key> for #keys {
            fn from(key: #key) -> Self {
                Self::#model(key)
            }
        }

        #(#cfg)*
        #[automatically_derived]
        impl ::core::convert::From<#primary_key> for #keys {
            fn from(key: #primary_key) -> Self {
                Self::#model(::core::convert::From::from(key))
            }
        }
    }
}
