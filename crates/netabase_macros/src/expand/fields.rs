//! Writing and reading the fields of a model in the order of their tags.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::ext::IdentExt;

use super::described;
use super::values::local;
use crate::described::Absent;
use crate::model::{Model, ValueField};
use crate::names;
use crate::tag::tag;

/// Returns the fields in the order of their tags.
fn sorted(fields: &[ValueField]) -> Vec<(u16, &ValueField)> {
    let mut fields: Vec<_> = fields.iter().map(|field| (tag(&field.stored), field)).collect();
    fields.sort_by_key(|(tag, _)| *tag);
    fields
}

/// The body of `encode_value`, which needs `Serialize` of the model. An error about that points at
/// the struct's name.
pub(super) fn encode(model: &Model, private: &TokenStream) -> TokenStream {
    let ident = names::in_macro(&model.ident);
    let Some(fields) = &model.values else {
        return quote_spanned!(ident.span()=> #private::encode_value::<#ident>(self, encoding, out));
    };
    let (this, to) = (local("this"), local("to"));
    let writes = sorted(fields).into_iter().map(|(tag, field)| {
        let field = &field.ident;
        quote!(#to.field(#tag, &#this.#field)?;)
    });
    let write = quote! {
        |#this: &Self, #to: &mut #private::Writer| {
            #(#writes)*
            ::core::result::Result::Ok(())
        }
    };
    quote_spanned!(ident.span()=> #private::encode_fields::<#ident>(self, encoding, out, #write))
}

/// Decodes this version, which needs `Deserialize` of the model. An error about that points at the
/// struct's name.
pub(super) fn decode(model: &Model, private: &TokenStream) -> TokenStream {
    let ident = names::in_macro(&model.ident);
    let Some(fields) = &model.values else {
        return quote_spanned!(ident.span()=> #private::decode_value::<#ident>(version, value));
    };
    let (sorted, from) = (sorted(fields), local("from"));
    let locals: Vec<_> = (0..sorted.len()).map(|place| local(&format!("field_{place}"))).collect();
    let idents = sorted.iter().map(|(_, field)| &field.ident);
    let reads = sorted.iter().map(|(tag, field)| match &field.absent {
        Absent::Missing => {
            let name = field.ident.unraw().to_string();
            quote!(#from.field(#tag, #name)?)
        }
        Absent::Default => quote!(#from.field_or(#tag, ::core::default::Default::default)?),
        Absent::Call(path) => quote!(#from.field_or(#tag, #path)?),
        Absent::PartOf(path) => {
            let (whole, ident) = (described::whole(path.as_ref(), &quote!(Self)), &field.ident);
            quote!(#from.field_or(#tag, || #whole.#ident)?)
        }
    });
    let read = quote! {
        |#from: &mut #private::Reader<'_>| {
            #(let #locals = #reads;)*
            ::core::result::Result::Ok(Self { #(#idents: #locals),* })
        }
    };
    quote_spanned!(ident.span()=> #private::decode_fields::<#ident>(version, value, #read))
}
