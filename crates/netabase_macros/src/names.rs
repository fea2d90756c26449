//! The names of generated items.

use proc_macro2::Span;
use quote::format_ident;
use syn::ext::IdentExt;
use syn::{Ident, LitStr};

/// Returns `UserPrimaryKey` for a model `User`.
pub(crate) fn primary_key(model: &Ident) -> Ident {
    generated(model, "PrimaryKey")
}

/// Returns `UserSecondaryKeys` for a model `User`.
pub(crate) fn secondary_keys(model: &Ident) -> Ident {
    generated(model, "SecondaryKeys")
}

/// Returns `UserKey` for a model `User`.
pub(crate) fn key(model: &Ident) -> Ident {
    generated(model, "Key")
}

/// Returns `UserFirstNameSecondaryKey` for a model `User` and a field `first_name`.
pub(crate) fn secondary_key(model: &Ident, field: &Ident) -> Ident {
    generated(model, &format!("{}SecondaryKey", upper_camel_case(field)))
}

/// Returns the enum variant `FirstName` for a field `first_name`, unless that is no identifier.
pub(crate) fn variant(field: &Ident) -> syn::Result<Ident> {
    syn::parse_str::<Ident>(&upper_camel_case(field))
        .map(|variant| in_macro(&Ident::new(&variant.to_string(), field.span())))
        .map_err(|_| syn::Error::new_spanned(field, "no type can be named after this field: rename it"))
}

/// Returns `ident` as if the macro had written it where the user did. Errors still point there, but
/// lints take it for generated code.
pub(crate) fn in_macro(ident: &Ident) -> Ident {
    let mut ident = ident.clone();
    ident.set_span(Span::call_site().located_at(ident.span()));
    ident
}

/// Returns `UserQuery` for a model `User`.
pub(crate) fn query(model: &Ident) -> Ident {
    generated(model, "Query")
}

/// The methods of queries, which would hide those of keys.
const QUERY_METHODS: [&str; 19] = [
    "primary_key",
    "secondary_key",
    "reverse",
    "limit",
    "after",
    "rows",
    "page",
    "count",
    "first",
    "last",
    "remove",
    "watch",
    "raw",
    "new",
    "keys",
    "stream",
    "collect",
    "options",
    "written_by",
];

/// Returns the method that asks by a key.
pub(crate) fn accessor(key: &Ident) -> Ident {
    let ident = in_macro(key);
    if QUERY_METHODS.iter().any(|method| ident.unraw() == method) {
        return format_ident!("{}_", ident.unraw(), span = ident.span());
    }
    ident
}

/// Returns the name as an identifier, if it can be one.
pub(crate) fn identifier(name: &LitStr) -> Option<Ident> {
    let mut ident = syn::parse_str::<Ident>(&name.value())
        .or_else(|_| syn::parse_str(&format!("r#{}", name.value())))
        .ok()
        .filter(|ident| ident.unraw() == name.value())?;
    ident.set_span(name.span());
    Some(ident)
}

fn generated(model: &Ident, suffix: &str) -> Ident {
    let ident = in_macro(model);
    format_ident!("{}{suffix}", ident.unraw(), span = ident.span())
}

fn upper_camel_case(field: &Ident) -> String {
    field.unraw().to_string().split('_').flat_map(capitalised).collect()
}

fn capitalised(word: &str) -> impl Iterator<Item = char> {
    let mut chars = word.chars();
    chars.next().into_iter().flat_map(char::to_uppercase).chain(chars)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ident(name: &str) -> Ident {
        syn::parse_str(name).unwrap()
    }

    #[test]
    fn fields_become_upper_camel_case() {
        for (field, variant) in
            [("room", "Room"), ("created_at", "CreatedAt"), ("r#type", "Type"), ("_x1_2", "X12")]
        {
            assert_eq!(super::variant(&ident(field)).unwrap(), variant);
        }
        assert!(variant(&ident("_1")).is_err());
        assert!(variant(&ident("self_")).is_err());
    }

    #[test]
    fn the_methods_of_keys_keep_away_from_those_of_queries() {
        for (key, method) in
            [("room", "room"), ("r#type", "r#type"), ("count", "count_"), ("r#last", "last_")]
        {
            assert_eq!(accessor(&ident(key)), method);
        }
    }

    #[test]
    fn names_are_identifiers() {
        let name =
            |name: &str| identifier(&LitStr::new(name, Span::call_site())).map(|ident| ident.to_string());
        assert_eq!(name("room_time").as_deref(), Some("room_time"));
        assert_eq!(name("type").as_deref(), Some("r#type"));
        assert_eq!((name("room-time"), name(""), name("self"), name("r#type")), (None, None, None, None));
    }

    #[test]
    fn generated_names_start_with_the_model() {
        assert_eq!(primary_key(&ident("User")), "UserPrimaryKey");
        assert_eq!(secondary_key(&ident("r#User"), &ident("first_name")), "UserFirstNameSecondaryKey");
    }
}
