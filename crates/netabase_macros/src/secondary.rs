//! Parses `#[secondary_key(..)]` on a field and on the struct.

use std::collections::HashSet;

use quote::ToTokens;
use syn::ext::IdentExt;
use syn::parse::{Parse, ParseStream};
use syn::punctuated::Punctuated;
use syn::{
    Attribute, Field, GenericArgument, Ident, LitStr, Meta, Path, PathArguments, Token, Type, parenthesized,
};

use crate::arguments::{once, skip_argument};
use crate::mistakes::Mistakes;
use crate::names;

/// The most fields of a key, as a tuple can have; `MAX_KEY_FIELDS` of the store is the same.
pub(crate) const MAX_PARTS: usize = 6;

/// A secondary key and the names generated for it.
pub(crate) struct SecondaryKey {
    /// The name of its index in the schema.
    pub(crate) name: String,
    /// The method that asks for it.
    pub(crate) accessor: Ident,
    /// The generated key type.
    pub(crate) ident: Ident,
    /// Its variant in the enum of secondary keys.
    pub(crate) variant: Ident,
    /// The types that the generated key type wraps.
    pub(crate) types: Vec<Type>,
    pub(crate) source: Source,
    /// Whether two records may not have the same key.
    pub(crate) unique: bool,
}

/// The source of a key.
pub(crate) enum Source {
    /// The values of a field.
    Field(Ident, Shape),
    /// Several fields, each of them whole.
    Fields(Vec<Ident>),
    /// The values that a function returns as the type.
    Function(Path, Box<Type>, Shape),
}

/// The number of values of a key.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    One,
    Optional,
    Many,
}

/// The valid arguments.
#[derive(Default)]
struct Arguments {
    name: Option<LitStr>,
    fields: Option<(Path, Vec<Ident>)>,
    ty: Option<Type>,
    with: Option<Path>,
    unique: Option<()>,
}

struct Argument {
    name: Path,
    value: Value,
}

enum Value {
    Unique,
    Name(LitStr),
    Fields(Vec<Ident>),
    Type(Type),
    With(Path),
    Wrong(syn::Error),
}

impl SecondaryKey {
    /// Reads a marked field.
    pub(crate) fn of_field(
        model: &Ident,
        ident: &Ident,
        ty: &Type,
        attribute: &Attribute,
        mistakes: &mut Mistakes,
    ) -> Option<Self> {
        let mut arguments = Arguments::default();
        arguments.read(attribute, Place::Field, mistakes);
        let (shape, ty) = shape(ty, mistakes);
        let source = Source::Field(ident.clone(), shape);
        Self::new(model, ident, vec![ty.clone()], source, arguments.unique.is_some(), mistakes)
    }

    /// Reads an attribute above the struct that has these fields.
    pub(crate) fn of_struct(
        model: &Ident,
        attribute: &Attribute,
        fields: &[&Field],
        mistakes: &mut Mistakes,
    ) -> Option<Self> {
        const WRITE: &str = "above a struct, write `#[secondary_key(name = \"..\", fields(a, b))]` or \
                             `#[secondary_key(name = \"..\", type = Type, with = function)]`; a key of one \
                             field is marked above that field";
        if !matches!(attribute.meta, Meta::List(_)) {
            mistakes.add(attribute, WRITE);
            return None;
        }
        let mut arguments = Arguments::default();
        arguments.read(attribute, Place::Struct, mistakes);
        let unique = arguments.unique.is_some();
        let name = arguments.key_name(attribute, mistakes);
        let (types, source) = arguments.source(attribute, fields, mistakes)?;
        Self::new(model, &name?, types, source, unique, mistakes)
    }

    fn new(
        model: &Ident,
        name: &Ident,
        types: Vec<Type>,
        source: Source,
        unique: bool,
        mistakes: &mut Mistakes,
    ) -> Option<Self> {
        let variant = mistakes.check(names::variant(name))?;
        Some(Self {
            name: name.unraw().to_string(),
            accessor: names::accessor(name),
            ident: names::secondary_key(model, name),
            variant,
            types,
            source,
            unique,
        })
    }

    /// Returns the source of the key for the schema.
    pub(crate) fn source_text(&self) -> String {
        let text = |ident: &Ident| ident.unraw().to_string();
        match &self.source {
            Source::Field(field, Shape::One) => text(field),
            Source::Field(field, Shape::Optional) => format!("{}?", text(field)),
            Source::Field(field, Shape::Many) => format!("{}*", text(field)),
            Source::Fields(fields) => fields.iter().map(text).collect::<Vec<_>>().join(","),
            Source::Function(path, ..) => format!("={}", path.to_token_stream().to_string().replace(' ', "")),
        }
    }

    /// Returns what documentation calls the key.
    pub(crate) fn description(&self) -> String {
        match &self.source {
            Source::Field(..) => format!("field `{}`", self.name),
            Source::Fields(_) => format!("fields `{}`", self.source_text().replace(',', "`, `")),
            Source::Function(..) => format!("computed value `{}`", self.name),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Field,
    Struct,
}

impl Arguments {
    fn read(&mut self, attribute: &Attribute, place: Place, mistakes: &mut Mistakes) {
        let tokens = match &attribute.meta {
            Meta::Path(_) => return,
            Meta::List(list) => list.tokens.clone(),
            Meta::NameValue(meta) => return mistakes.add(meta, place.unknown()),
        };
        let parsed = syn::parse::Parser::parse2(Punctuated::<Argument, Token![,]>::parse_terminated, tokens);
        for Argument { name, value } in mistakes.check(parsed).into_iter().flatten() {
            let set = match value {
                Value::Unique => once(&mut self.unique, &name, ()),
                Value::Wrong(error) if place == Place::Struct => Err(error),
                _ if place == Place::Field => Err(syn::Error::new_spanned(name, place.unknown())),
                Value::Name(text) => once(&mut self.name, &name, text),
                Value::Fields(fields) => once(&mut self.fields, &name.clone(), (name, fields)),
                Value::Type(ty) => once(&mut self.ty, &name, ty),
                Value::With(path) => once(&mut self.with, &name, path),
                Value::Wrong(error) => Err(error),
            };
            mistakes.check(set);
        }
    }

    fn key_name(&self, attribute: &Attribute, mistakes: &mut Mistakes) -> Option<Ident> {
        let Some(name) = &self.name else {
            mistakes.add(attribute, "the key needs a name: add `name = \"..\"`");
            return None;
        };
        let ident = names::identifier(name);
        if ident.is_none() {
            mistakes.add(
                name,
                "a key is named like a field: write an identifier, such as `name = \"room_time\"`",
            );
        }
        ident
    }

    fn source(
        self,
        attribute: &Attribute,
        known: &[&Field],
        mistakes: &mut Mistakes,
    ) -> Option<(Vec<Type>, Source)> {
        match (self.fields, self.ty, self.with) {
            (Some((name, fields)), None, None) => compound(&name, fields, known, mistakes),
            (None, Some(ty), Some(with)) => {
                let (shape, value) = shape(&ty, mistakes);
                Some((vec![value.clone()], Source::Function(with, Box::new(ty), shape)))
            }
            (fields, ty, with) => {
                mistakes.add(attribute, incomplete(fields.is_some(), ty.is_some(), with.is_some()));
                None
            }
        }
    }
}

/// Says how to complete arguments that name no source, or more than one.
fn incomplete(fields: bool, ty: bool, with: bool) -> &'static str {
    match (fields, ty, with) {
        (true, ..) => {
            "a key is made of fields or computed, not both: remove `fields(..)`, or `type` and `with`"
        }
        (false, true, _) => {
            "say what computes the key: add `with = function`, where `fn function(&Self) -> Type`"
        }
        (false, false, true) => "say what the function returns: add `type = Type`",
        (false, false, false) => {
            "say what the key is made of: add `fields(a, b)`, or `type = Type, with = function`"
        }
    }
}

/// Checks the fields of a compound key.
fn compound(
    name: &Path,
    fields: Vec<Ident>,
    known: &[&Field],
    mistakes: &mut Mistakes,
) -> Option<(Vec<Type>, Source)> {
    match fields.as_slice() {
        [] => mistakes.add(name, "name the fields that the key is made of: `fields(a, b)`"),
        [one] => {
            let message =
                format!("a key of one field is marked above it: write `#[secondary_key]` above `{one}`");
            mistakes.add(one, message);
        }
        _ => {}
    }
    if let Some(extra) = fields.get(MAX_PARTS) {
        mistakes.add(extra, too_many_parts());
    }
    let mut taken = HashSet::new();
    let mut types = Vec::new();
    for field in &fields {
        if !taken.insert(field.unraw()) {
            mistakes.add(field, "the field is named twice: remove one");
        }
        match known.iter().find(|known| known.ident.as_ref() == Some(field)) {
            Some(found) => types.push(found.ty.clone()),
            None => mistakes.add(field, unknown_field(known)),
        }
    }
    (types.len() == fields.len() && !fields.is_empty()).then_some((types, Source::Fields(fields)))
}

/// Says how many fields a key can have.
pub(crate) fn too_many_parts() -> String {
    format!("a key is made of at most {MAX_PARTS} fields: put some into a struct that derives `NetabaseKey`")
}

fn unknown_field(known: &[&Field]) -> String {
    let names = known.iter().filter_map(|field| field.ident.as_ref()).map(|ident| format!("`{ident}`"));
    format!("the model has no such field: it has {}", names.collect::<Vec<_>>().join(", "))
}

impl Place {
    fn unknown(self) -> &'static str {
        match self {
            Self::Field => {
                "above a field, write `#[secondary_key]` or `#[secondary_key(unique)]`: a key with a name is \
                 declared above the struct"
            }
            Self::Struct => {
                "unknown argument: write `name = \"..\"`, `unique`, and `fields(a, b)` or `type = Type, with = function`"
            }
        }
    }
}

impl Parse for Argument {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        // `type` is a keyword.
        let name = input.call(Ident::parse_any)?;
        let value = match Value::parse(&name, input) {
            Ok(value) => value,
            Err(error) => {
                skip_argument(input)?;
                Value::Wrong(error)
            }
        };
        Ok(Self { name: name.into(), value })
    }
}

impl Value {
    fn parse(name: &Ident, input: ParseStream<'_>) -> syn::Result<Self> {
        let value = || input.parse::<Token![=]>().map(|_| input);
        match name.to_string().as_str() {
            "unique" if input.is_empty() || input.peek(Token![,]) => Ok(Self::Unique),
            "name" => value()?.parse().map(Self::Name).map_err(|error| {
                syn::Error::new(error.span(), "write the name as a string: `name = \"..\"`")
            }),
            "type" => value()?.parse().map(Self::Type),
            "with" => value()?.parse().map(Self::With),
            "fields" => {
                let content;
                parenthesized!(content in input);
                let fields =
                    Punctuated::<Ident, Token![,]>::parse_terminated_with(&content, Ident::parse_any)?;
                Ok(Self::Fields(fields.into_iter().collect()))
            }
            _ => Err(syn::Error::new_spanned(name, Place::Struct.unknown())),
        }
    }
}

/// Returns how many values a field of the written type has, and their type.
fn shape<'a>(ty: &'a Type, mistakes: &mut Mistakes) -> (Shape, &'a Type) {
    let (shape, value) = container(ty);
    let (inner, _) = container(value);
    if matches!(
        (shape, inner),
        (Shape::Optional, Shape::Optional | Shape::Many) | (Shape::Many, Shape::Optional)
    ) {
        mistakes.add(
            ty,
            "which values are to be found is not clear from this type: compute them, with \
             `#[secondary_key(name = \"..\", type = Vec<Value>, with = function)]` above the struct",
        );
    }
    (shape, value)
}

fn container(ty: &Type) -> (Shape, &Type) {
    let path = match ty {
        // A type that a `macro_rules` macro has substituted.
        Type::Group(group) => return container(&group.elem),
        Type::Paren(paren) => return container(&paren.elem),
        Type::Path(path) if path.qself.is_none() => &path.path,
        _ => return (Shape::One, ty),
    };
    let Some((name, value)) =
        path.segments.last().and_then(|last| Some((&last.ident, only_type(&last.arguments)?)))
    else {
        return (Shape::One, ty);
    };
    match name.to_string().as_str() {
        "Option" => (Shape::Optional, value),
        // One byte string.
        "Vec" if is_u8(value) => (Shape::One, ty),
        "Vec" | "BTreeSet" => (Shape::Many, value),
        _ => (Shape::One, ty),
    }
}

fn only_type(arguments: &PathArguments) -> Option<&Type> {
    let PathArguments::AngleBracketed(arguments) = arguments else { return None };
    let mut arguments = arguments.args.iter();
    match (arguments.next(), arguments.next()) {
        (Some(GenericArgument::Type(ty)), None) => Some(ty),
        _ => None,
    }
}

fn is_u8(ty: &Type) -> bool {
    matches!(ty, Type::Path(path) if path.path.is_ident("u8"))
}
