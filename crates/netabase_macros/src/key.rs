//! Parses the input of `#[derive(NetabaseKey)]`.

use syn::{Data, DataEnum, DeriveInput, Fields, Ident};

use crate::mistakes::Mistakes;

/// The most variants that the byte in front of a variant's fields can number.
const MAX_VARIANTS: usize = 256;

/// A type that can be part of a key.
pub(crate) struct Key {
    pub(crate) ident: Ident,
    pub(crate) shape: Shape,
}

/// The shape of a key type.
pub(crate) enum Shape {
    Struct(Fields),
    Enum(Vec<(u8, Ident, Fields)>),
}

impl Key {
    /// Reads the struct or enum.
    pub(crate) fn parse(input: &DeriveInput) -> syn::Result<Self> {
        let mut mistakes = Mistakes::default();
        if !input.generics.params.is_empty() {
            mistakes.add(&input.generics, "a key type cannot be generic: name the types of the fields");
        }
        let shape = match &input.data {
            Data::Struct(data) => Shape::Struct(data.fields.clone()),
            Data::Enum(data) => Shape::Enum(variants(data, &mut mistakes)),
            Data::Union(data) => {
                mistakes.add(
                    data.union_token,
                    "a key type is a struct or an enum: the fields of a union have no order",
                );
                Shape::Struct(Fields::Unit)
            }
        };
        mistakes.finish(Self { ident: input.ident.clone(), shape })
    }
}

fn variants(data: &DataEnum, mistakes: &mut Mistakes) -> Vec<(u8, Ident, Fields)> {
    if let Some(variant) = data.variants.iter().nth(MAX_VARIANTS) {
        mistakes.add(
            variant,
            "a key enum has at most 256 variants, counted by one byte: move some into a nested enum",
        );
    }
    let variants = data.variants.iter().map(|variant| (variant.ident.clone(), variant.fields.clone()));
    (0..=u8::MAX).zip(variants).map(|(index, (ident, fields))| (index, ident, fields)).collect()
}
