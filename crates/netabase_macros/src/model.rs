//! Parses the input of `#[derive(NetabaseModel)]`.

use std::iter;

use syn::ext::IdentExt;
use syn::{Attribute, Data, DeriveInput, Field, Fields, Ident, Meta, Path, Type, Visibility};

use crate::arguments::{Arguments, Of, Version};
use crate::described::{Absent, DescribedField, aliases, changes_form};
use crate::merge::{MergedField, Rule};
use crate::mistakes::Mistakes;
use crate::names;
use crate::secondary::{MAX_PARTS, SecondaryKey, too_many_parts};
use crate::tag;

/// A model: a struct and its keys.
pub(crate) struct Model {
    pub(crate) ident: Ident,
    pub(crate) vis: Visibility,
    /// The definition that it belongs to; a valid model has one.
    pub(crate) definition: Option<Path>,
    /// Its name in record keys.
    pub(crate) name: String,
    pub(crate) version: Version,
    pub(crate) policy: Policy,
    /// The TTL of its records, in milliseconds.
    pub(crate) lifetime: Option<u64>,
    /// The fields that say how they are merged.
    pub(crate) merged: Vec<MergedField>,
    /// The fields of the primary key.
    pub(crate) primary: Vec<KeyPart>,
    /// The secondary keys: those of fields in their order, then those declared on the struct.
    pub(crate) secondary: Vec<SecondaryKey>,
    /// The fields that name blobs.
    pub(crate) blobs: Vec<KeyPart>,
    /// The descriptions of all fields.
    pub(crate) fields: Vec<DescribedField>,
    /// The fields in the form that serde's derives give them; `None` if an attribute changes that
    /// of some.
    pub(crate) values: Option<Vec<ValueField>>,
}

/// A field that is written and read by its type alone.
pub(crate) struct ValueField {
    pub(crate) ident: Ident,
    /// The name that makes its tag: the first of its former names, so that programs from before it
    /// was renamed read it, or its own.
    pub(crate) stored: String,
    pub(crate) absent: Absent,
}

/// The authors that may write the records of a model.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Policy {
    Open,
    Owned,
    Merged,
}

/// A field of the primary key, or one that names blobs.
pub(crate) struct KeyPart {
    pub(crate) field: Ident,
    pub(crate) ty: Type,
}

/// A key type to generate: a tuple struct.
pub(crate) struct KeyType<'a> {
    pub(crate) ident: Ident,
    pub(crate) doc: String,
    pub(crate) types: Vec<&'a Type>,
    /// The method that asks by it, where there is one.
    pub(crate) accessor: Option<Accessor>,
    /// Its position among the indexes; the primary key has none.
    pub(crate) index: Option<usize>,
}

/// A method that asks by a key.
pub(crate) struct Accessor {
    pub(crate) ident: Ident,
    /// The source of the key in generated documentation.
    pub(crate) made_of: String,
}

/// The meaning of a field's attributes.
enum Role<'a> {
    Plain,
    Primary,
    Secondary(&'a Attribute),
    Blob,
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

    /// Reads as much as it can, and adds problems to `mistakes`.
    pub(crate) fn read(input: &DeriveInput, mistakes: &mut Mistakes) -> Self {
        let (arguments, declared) = read_attributes(input, mistakes);
        let name = mistakes.check(arguments.name_or(&input.ident)).unwrap_or_default();
        let version = arguments.version(mistakes).unwrap_or(Version { number: 1, migrate_from: None });
        let lifetime = arguments.lifetime;
        let policy = policy(&arguments, mistakes);
        let definition = definition(input, arguments, mistakes);
        let mut model = Self {
            ident: input.ident.clone(),
            vis: input.vis.clone(),
            definition,
            name,
            version,
            policy,
            lifetime,
            merged: Vec::new(),
            primary: Vec::new(),
            secondary: Vec::new(),
            blobs: Vec::new(),
            fields: Vec::new(),
            values: None,
        };
        let has_own_form = input.attrs.iter().any(changes_form);
        for field in fields(input).into_iter().flatten() {
            model.read_field(field, &input.attrs, has_own_form, mistakes);
        }
        if let Some(extra) = model.primary.get(MAX_PARTS) {
            mistakes.add(&extra.field, too_many_parts());
        }
        let fields = fields(input).into_iter().flatten().collect::<Vec<_>>();
        model.values = values(input, &fields);
        // Attributes may give fields other names.
        if let Some(values) = &model.values {
            tag::check(values.iter().map(|field| (&field.ident, field.stored.as_str())), mistakes);
        }
        for attribute in declared {
            let key = SecondaryKey::of_struct(&input.ident, attribute, &fields, mistakes);
            model.push_secondary(key, attribute, mistakes);
        }
        model.check_merged(mistakes);
        model
    }

    /// A model with a field that is merged is a merged one.
    fn check_merged(&mut self, mistakes: &mut Mistakes) {
        if let (Policy::Owned, Some(merged)) = (self.policy, self.merged.first()) {
            let message = "an owned record has one author, so that there is nothing to merge: remove `owned`, or \
                           `#[merge(..)]`";
            mistakes.add(&merged.field, message);
        } else if !self.merged.is_empty() {
            self.policy = Policy::Merged;
        }
        for key in self.secondary.iter().filter(|key| self.policy == Policy::Merged && key.unique) {
            let message = format!(
                "the key `{}` of a merged record is what all its authors make of it, and cannot be kept unique: remove \
                 `unique`",
                key.name
            );
            mistakes.add(&key.accessor, message);
        }
    }

    /// Returns the types of the primary key and of each secondary key.
    pub(crate) fn key_types(&self) -> impl Iterator<Item = KeyType<'_>> {
        let model = self.ident.unraw();
        let primary = KeyType {
            ident: names::primary_key(&self.ident),
            doc: format!("The primary key of [`{model}`]."),
            types: self.primary.iter().map(|part| &part.ty).collect(),
            accessor: self.primary_accessor(),
            index: None,
        };
        let secondary = self.secondary.iter().enumerate().map(move |(index, key)| KeyType {
            ident: key.ident.clone(),
            doc: format!("The secondary key `{}` of [`{model}`].", key.name),
            types: key.types.iter().collect(),
            accessor: Some(Accessor { ident: key.accessor.clone(), made_of: key.description() }),
            index: Some(index),
        });
        iter::once(primary).chain(secondary)
    }

    /// Returns the method that asks for the primary key, if it is named after one field.
    fn primary_accessor(&self) -> Option<Accessor> {
        let [KeyPart { field, .. }] = self.primary.as_slice() else { return None };
        Some(Accessor { ident: names::accessor(field), made_of: format!("field `{}`", field.unraw()) })
    }

    fn read_field(
        &mut self,
        field: &Field,
        of_struct: &[Attribute],
        has_own_form: bool,
        mistakes: &mut Mistakes,
    ) {
        let role = Role::read(field, mistakes);
        // A tuple struct has been reported.
        let Some(ident) = &field.ident else { return };
        let merge = self.read_rule(field, ident, matches!(role, Role::Primary), mistakes);
        self.fields.push(DescribedField {
            name: ident.unraw().to_string(),
            ty: field.ty.clone(),
            has_own_form: has_own_form || field.attrs.iter().any(changes_form),
            merge: merge.map(Rule::name),
            absent: Absent::of(&field.attrs, of_struct),
            aliases: aliases(&field.attrs),
        });
        match role {
            Role::Plain => {}
            Role::Primary => self.primary.push(KeyPart { field: ident.clone(), ty: field.ty.clone() }),
            Role::Blob => self.blobs.push(KeyPart { field: ident.clone(), ty: field.ty.clone() }),
            Role::Secondary(attribute) => {
                let key = SecondaryKey::of_field(&self.ident, ident, &field.ty, attribute, mistakes);
                self.push_secondary(key, ident, mistakes);
            }
        }
    }

    fn read_rule(
        &mut self,
        field: &Field,
        ident: &Ident,
        is_primary: bool,
        mistakes: &mut Mistakes,
    ) -> Option<Rule> {
        let is_rule = |attribute: &&Attribute| matches!(Helper::of(attribute), Some(Helper::Merge));
        let mut rules = field.attrs.iter().filter(is_rule);
        let attribute = rules.next()?;
        if let Some(extra) = rules.next() {
            mistakes.add(extra, "the attribute is repeated: remove one");
        }
        if is_primary {
            mistakes
                .add(attribute, "the primary key is the same in whatever is merged: remove `#[merge(..)]`");
            return None;
        }
        let rule = Rule::read(attribute, mistakes)?;
        self.merged.push(MergedField { field: ident.clone(), ty: field.ty.clone(), rule });
        Some(rule)
    }

    /// Adds a key, unless its names are taken.
    fn push_secondary(
        &mut self,
        key: Option<SecondaryKey>,
        place: impl quote::ToTokens,
        mistakes: &mut Mistakes,
    ) {
        let Some(key) = key else { return };
        let same_name =
            |other: &&SecondaryKey| other.variant == key.variant || other.accessor == key.accessor;
        let other = self.secondary.iter().find(same_name).map(|other| other.name.clone());
        let primary = || {
            let taken = self.primary_accessor()?.ident == key.accessor;
            self.primary.first().filter(|_| taken).map(|part| part.field.unraw().to_string())
        };
        if let Some(other) = other.or_else(primary) {
            let message = format!("the keys `{}` and `{other}` would have one name: rename one", key.name);
            return mistakes.add(place, message);
        }
        self.secondary.push(key);
    }
}

impl<'a> Role<'a> {
    fn read(field: &'a Field, mistakes: &mut Mistakes) -> Self {
        let mut role = Self::Plain;
        for attribute in &field.attrs {
            let marked = match Helper::of(attribute) {
                Some(Helper::Primary) => Self::Primary,
                Some(Helper::Secondary) => Self::Secondary(attribute),
                Some(Helper::Blob) => Self::Blob,
                Some(Helper::Netabase) => {
                    mistakes.add(attribute, "`#[netabase(..)]` belongs on the struct");
                    continue;
                }
                Some(Helper::Merge) | None => continue,
            };
            if matches!(marked, Self::Primary | Self::Blob) && !matches!(attribute.meta, Meta::Path(_)) {
                mistakes.add(&attribute.meta, "this attribute has no arguments: remove them");
            }
            match (&role, &marked) {
                (Self::Plain, _) => role = marked,
                (Self::Primary, Self::Secondary(_)) | (Self::Secondary(_), Self::Primary) => mistakes.add(
                    attribute,
                    "a field is the primary key or a secondary key, not both: the primary key already finds the \
                     record, remove `#[secondary_key]`",
                ),
                (Self::Blob, Self::Primary | Self::Secondary(_))
                | (Self::Primary | Self::Secondary(_), Self::Blob) => mistakes.add(
                    attribute,
                    "a field is a key or names a blob, not both: keep one of the attributes, and write a second \
                     field for the other",
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
    Merge,
    Blob,
}

impl Helper {
    pub(crate) fn of(attribute: &Attribute) -> Option<Self> {
        match attribute.path().get_ident()?.to_string().as_str() {
            "netabase" => Some(Self::Netabase),
            "primary_key" => Some(Self::Primary),
            "secondary_key" => Some(Self::Secondary),
            "merge" => Some(Self::Merge),
            "blob" => Some(Self::Blob),
            _ => None,
        }
    }
}

/// Returns the fields, if no attribute changes what serde's derives make of them, other than a
/// default.
fn values(input: &DeriveInput, fields: &[&Field]) -> Option<Vec<ValueField>> {
    let mut attributes = input.attrs.iter().chain(fields.iter().flat_map(|field| &field.attrs));
    if attributes.any(changes_form) {
        return None;
    }
    let value = |field: &&Field| {
        let (ident, aliases) = (field.ident.clone()?, aliases(&field.attrs));
        let stored = aliases.into_iter().next().unwrap_or_else(|| ident.unraw().to_string());
        Some(ValueField { ident, stored, absent: Absent::of(&field.attrs, &input.attrs) })
    };
    fields.iter().map(value).collect()
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

/// Returns the arguments of `#[netabase(..)]`, and the attributes that declare keys.
fn read_attributes<'a>(input: &'a DeriveInput, mistakes: &mut Mistakes) -> (Arguments, Vec<&'a Attribute>) {
    let mut arguments = Arguments::new(Of::Model);
    let mut declared = Vec::new();
    for attribute in &input.attrs {
        match Helper::of(attribute) {
            Some(Helper::Netabase) => arguments.read_attribute(attribute, mistakes),
            Some(Helper::Secondary) => declared.push(attribute),
            Some(Helper::Primary | Helper::Merge | Helper::Blob) => {
                mistakes.add(attribute, "this attribute belongs on a field");
            }
            None => {}
        }
    }
    (arguments, declared)
}

fn policy(arguments: &Arguments, mistakes: &mut Mistakes) -> Policy {
    match (&arguments.owned, &arguments.merged) {
        (Some(_), Some(merged)) => {
            mistakes.add(
                merged,
                "an owned record has one author, so that there is nothing to merge: remove `owned` or `merged`",
            );
            Policy::Owned
        }
        (Some(_), None) => Policy::Owned,
        (None, Some(_)) => Policy::Merged,
        (None, None) => Policy::Open,
    }
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
