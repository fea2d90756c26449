//! The attributes of the models in a definition module.

use syn::punctuated::Punctuated;
use syn::{Attribute, DeriveInput, Fields, Ident, Item, Path, Token, parse_quote};

use crate::model::Helper;

/// Returns the item if it derives `NetabaseModel`.
pub(crate) fn model(item: &Item) -> Option<DeriveInput> {
    let input = match item {
        Item::Struct(item) => DeriveInput::from(item.clone()),
        Item::Enum(item) => DeriveInput::from(item.clone()),
        Item::Union(item) => DeriveInput::from(item.clone()),
        _ => return None,
    };
    input.attrs.iter().flat_map(derived).any(|path| is_model(&path)).then_some(input)
}

/// Tells the derive macro of a model that it is in the module of `definition`, and puts its helper
/// attributes after the derive that introduces them.
pub(crate) fn adopt(item: &mut Item, definition: &Ident) {
    let Some(attributes) = attributes(item) else { return };
    put_helpers_last(attributes);
    attributes.push(parse_quote!(#[netabase(in #definition)]));
}

/// Puts the helper attributes of an earlier version of a model after the derive that introduces
/// them.
pub(crate) fn adopt_version(item: &mut Item) {
    let Some(attributes) = attributes(item) else { return };
    if attributes.iter().flat_map(derived).any(|path| ends_with(&path, "NetabaseVersion")) {
        put_helpers_last(attributes);
    }
}

fn put_helpers_last(attributes: &mut Vec<Attribute>) {
    let (helpers, others): (Vec<_>, Vec<_>) =
        attributes.drain(..).partition(|attribute| Helper::of(attribute).is_some());
    *attributes = others;
    attributes.extend(helpers);
}

/// Makes a model an ordinary type again.
pub(crate) fn strip(item: &mut Item) {
    if model(item).is_none() {
        return;
    }
    if let Some(attributes) = attributes(item) {
        attributes.retain(|attribute| Helper::of(attribute).is_none());
        attributes.iter_mut().for_each(strip_derive);
    }
    if let Item::Struct(item) = item {
        strip_fields(&mut item.fields);
    }
}

fn strip_fields(fields: &mut Fields) {
    for field in fields {
        field.attrs.retain(|attribute| Helper::of(attribute).is_none());
    }
}

fn strip_derive(attribute: &mut Attribute) {
    let paths = derived(attribute);
    if paths.iter().any(is_model) {
        let others = paths.iter().filter(|path| !is_model(path));
        *attribute = parse_quote!(#[derive(#(#others),*)]);
    }
}

fn attributes(item: &mut Item) -> Option<&mut Vec<Attribute>> {
    match item {
        Item::Struct(item) => Some(&mut item.attrs),
        Item::Enum(item) => Some(&mut item.attrs),
        Item::Union(item) => Some(&mut item.attrs),
        _ => None,
    }
}

/// Returns the traits of a `#[derive(..)]`.
fn derived(attribute: &Attribute) -> Vec<Path> {
    if !attribute.path().is_ident("derive") {
        return Vec::new();
    }
    let paths = attribute.parse_args_with(Punctuated::<Path, Token![,]>::parse_terminated);
    paths.map(|paths| paths.into_iter().collect()).unwrap_or_default()
}

fn is_model(path: &Path) -> bool {
    ends_with(path, "NetabaseModel")
}

fn ends_with(path: &Path, name: &str) -> bool {
    path.segments.last().is_some_and(|segment| segment.ident == name)
}
