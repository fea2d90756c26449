//! Parses the input of `#[derive(NetabaseVersion)]`.

use syn::{DeriveInput, Ident};

use crate::arguments::{Arguments, Of, Version};
use crate::mistakes::Mistakes;
use crate::model::Helper;

/// An earlier version of a model.
pub(crate) struct OldVersion {
    pub(crate) ident: Ident,
    pub(crate) version: Version,
}

impl OldVersion {
    /// Reads the type.
    pub(crate) fn parse(input: &DeriveInput) -> syn::Result<Self> {
        let mut mistakes = Mistakes::default();
        if !input.generics.params.is_empty() {
            mistakes
                .add(&input.generics, "a version of a model cannot be generic: name the types of the fields");
        }
        let mut arguments = Arguments::new(Of::Version);
        for attribute in &input.attrs {
            if matches!(Helper::of(attribute), Some(Helper::Netabase)) {
                arguments.read_attribute(attribute, &mut mistakes);
            }
        }
        for path in &arguments.paths {
            mistakes.add(path, "an earlier version belongs to no definition: remove this");
        }
        let version = arguments.version(&mut mistakes);
        let Some(version) = version else {
            return Err(mistakes.with(syn::Error::new_spanned(
                &input.ident,
                "which version is it? write `#[netabase(version = 1)]` above it",
            )));
        };
        mistakes.finish(Self { ident: input.ident.clone(), version })
    }
}
