//! What `#[derive(NetabaseModel)]` is told.

use std::iter;

use syn::ext::IdentExt;
use syn::{Attribute, Data, DeriveInput, Field, Fields, Ident, Meta, Path, Type, Visibility};

use crate::arguments::Arguments;
use crate::mistakes::Mistakes;
use crate::names;

/// A model: a struct and its keys.
pub(crate) struct Model {
    pub(crate) ident: Ident,
    pub(crate) vis: Visibility,
    /// The definition that it belongs to; a valid model has one.
    pub(crate) definition: Option<Path>,
    /// Its name in record keys.
    pub(crate) name: String,
    /// The fields of the primary key.
    pub(crate) primary: Vec<KeyPart>,
    /// The secondary keys, in the order of the fields.
    pub(crate) secondary: Vec<SecondaryKey>,
}

/// A field that is a key, or part of one.
pub(crate) struct KeyPart {
    pub(crate) field: Ident,
    pub(crate) ty: Type,
}

/// A secondary key and the names generated for it.
pub(crate) struct SecondaryKey {
    pub(crate) part: KeyPart,
    /// The name of its index in the schema.
    pub(crate) name: String,
    /// The generated key type.
    pub(crate) ident: Ident,
    /// Its variant in the enum of secondary keys.
    pub(crate) variant: Ident,
}

/// A key type to generate: a tuple struct.
pub(crate) struct KeyType<'a> {
    pub(crate) ident: Ident,
    pub(crate) doc: String,
    pub(crate) parts: Vec<&'a KeyPart>,
}

/// What the attributes of a field say.
enum Role {
    Plain,
    Primary,
    Secondary,
}

impl Model {
    /// Reads a model that has no mistakes.
    pub(crate) fn parse(input: &DeriveInput) -> syn::Result<Self> {
        let mut mistakes = Mistakes::default();
        check_shape(input, &mut mistakes);
        let model = Self::read(input, &mut mistakes);
        if model.primary.is_empty() && matches!(fields(input), Some(Fields::Named(_))) {
            mistakes.add(
                &input.ident,
                "a model needs a primary key: write `#[primary_key]` above the field that names a record",
            );
        }
        mistakes.finish(model)
    }

    /// Reads as much as there is, and adds what is wrong with it to `mistakes`.
    pub(crate) fn read(input: &DeriveInput, mistakes: &mut Mistakes) -> Self {
        let (definition, name) = read_attributes(input, mistakes);
        let mut model = Self {
            ident: input.ident.clone(),
            vis: input.vis.clone(),
            definition,
            name,
            primary: Vec::new(),
            secondary: Vec::new(),
        };
        for field in fields(input).into_iter().flatten() {
            model.read_field(field, mistakes);
        }
        model
    }

    /// Returns the types of the primary key and of each secondary key.
    pub(crate) fn key_types(&self) -> impl Iterator<Item = KeyType<'_>> {
        let model = self.ident.unraw();
        let primary = KeyType {
            ident: names::primary_key(&self.ident),
            doc: format!("The primary key of [`{model}`]."),
            parts: self.primary.iter().collect(),
        };
        let secondary = self.secondary.iter().map(move |key| KeyType {
            ident: key.ident.clone(),
            doc: format!("The secondary key `{}` of [`{model}`].", key.name),
            parts: vec![&key.part],
        });
        iter::once(primary).chain(secondary)
    }

    fn read_field(&mut self, field: &Field, mistakes: &mut Mistakes) {
        let role = Role::read(field, mistakes);
        // A tuple struct has been reported.
        let Some(ident) = field.ident.clone() else { return };
        let part = KeyPart { field: ident, ty: field.ty.clone() };
        match role {
            Role::Plain => {}
            Role::Primary => self.primary.push(part),
            Role::Secondary => self.push_secondary(part, mistakes),
        }
    }

    fn push_secondary(&mut self, part: KeyPart, mistakes: &mut Mistakes) {
        let Some(variant) = mistakes.check(names::variant(&part.field)) else { return };
        if let Some(other) = self.secondary.iter().find(|other| other.variant == variant) {
            let message =
                format!("the keys of this field and of `{}` would have one name: rename one", other.name);
            return mistakes.add(&part.field, message);
        }
        let ident = names::secondary_key(&self.ident, &part.field);
        self.secondary.push(SecondaryKey { name: part.field.unraw().to_string(), part, ident, variant });
    }
}

impl Role {
    fn read(field: &Field, mistakes: &mut Mistakes) -> Self {
        let mut role = Self::Plain;
        for attribute in &field.attrs {
            let marked = match Helper::of(attribute) {
                Some(Helper::Primary) => Self::Primary,
                Some(Helper::Secondary) => Self::Secondary,
                Some(Helper::Netabase) => {
                    mistakes.add(attribute, "`#[netabase(..)]` belongs on the struct");
                    continue;
                }
                None => continue,
            };
            if !matches!(attribute.meta, Meta::Path(_)) {
                mistakes.add(&attribute.meta, "this attribute has no arguments: remove them");
            }
            match (&role, &marked) {
                (Self::Plain, _) => role = marked,
                (Self::Primary, Self::Secondary) | (Self::Secondary, Self::Primary) => mistakes.add(
                    attribute,
                    "a field is the primary key or a secondary key, not both: the primary key already finds the \
                     record, remove `#[secondary_key]`",
                ),
                _ => mistakes.add(attribute, "the attribute is repeated: remove one"),
            }
        }
        role
    }
}

/// A helper attribute of the derive macro.
pub(crate) enum Helper {
    Netabase,
    Primary,
    Secondary,
}

impl Helper {
    pub(crate) fn of(attribute: &Attribute) -> Option<Self> {
        match attribute.path().get_ident()?.to_string().as_str() {
            "netabase" => Some(Self::Netabase),
            "primary_key" => Some(Self::Primary),
            "secondary_key" => Some(Self::Secondary),
            _ => None,
        }
    }
}

/// Returns the fields of a struct.
fn fields(input: &DeriveInput) -> Option<&Fields> {
    match &input.data {
        Data::Struct(data) => Some(&data.fields),
        Data::Enum(_) | Data::Union(_) => None,
    }
}

fn check_shape(input: &DeriveInput, mistakes: &mut Mistakes) {
    let write =
        format!("a model is a struct with named fields: write `struct {} {{ field: Type }}`", input.ident);
    match &input.data {
        Data::Struct(data) => match &data.fields {
            Fields::Named(_) => {}
            Fields::Unnamed(fields) => mistakes.add(fields, write),
            Fields::Unit => mistakes.add(&input.ident, write),
        },
        Data::Enum(data) => mistakes.add(data.enum_token, format!("{write} with this enum as a field")),
        Data::Union(data) => mistakes.add(data.union_token, write),
    }
    if !input.generics.params.is_empty() {
        mistakes.add(
            &input.generics,
            "a model cannot be generic, since its name stands for one type in the database: name the type",
        );
    }
}

/// Returns the definition and the name of the model.
fn read_attributes(input: &DeriveInput, mistakes: &mut Mistakes) -> (Option<Path>, String) {
    let mut arguments = Arguments::default();
    for attribute in &input.attrs {
        match Helper::of(attribute) {
            Some(Helper::Netabase) => arguments.read_attribute(attribute, mistakes),
            Some(Helper::Primary | Helper::Secondary) => {
                mistakes.add(attribute, "this attribute belongs on a field");
            }
            None => {}
        }
    }
    let name = mistakes.check(arguments.name_or(&input.ident)).unwrap_or_default();
    (definition(input, arguments, mistakes), name)
}

/// Returns the one definition that the attributes and the module agree on.
fn definition(input: &DeriveInput, arguments: Arguments, mistakes: &mut Mistakes) -> Option<Path> {
    let mut paths = arguments.paths.into_iter();
    let first = paths.next();
    for path in paths {
        mistakes.add(path, "a model belongs to one definition: remove this one");
    }
    match (&first, &arguments.module) {
        (None, Some(module)) => {
            mistakes.add(&input.ident, format!("the model names no definition: write `#[netabase({module})]` above it"));
        }
        (None, None) => mistakes.add(
            &input.ident,
            "the model names no definition: write `#[netabase(Definition)]` above it, in the module of that definition",
        ),
        (Some(path), Some(module)) if !ends_with(path, module) => {
            mistakes.add(path, format!("the model is in the module of another definition: write `{module}`"));
        }
        (Some(_), _) => return first,
    }
    arguments.module.map(Path::from)
}

fn ends_with(path: &Path, ident: &Ident) -> bool {
    path.segments.last().is_some_and(|segment| segment.ident.unraw() == ident.unraw())
}
