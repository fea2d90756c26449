//! What programs may change without a new version, since values have their fields under tags.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use super::super::model::Field;
use super::super::schema::{NamedType, TypeBody, VariantBody};
use super::super::types::Type;
use super::{Body, Difference, Shape};

/// What values may lack, or have under other names: fields by their owners, which is nothing for
/// the model, the name of a struct, or those of an enum and its variant.
#[derive(Debug, Clone, Default)]
pub(crate) struct Absences {
    may_be_absent: BTreeSet<(String, String)>,
    /// The present names of fields, by their former ones.
    aliases: BTreeMap<(String, String), String>,
}

impl Absences {
    pub(in super::super) fn of(fields: &[Field], types: &[NamedType]) -> Self {
        let mut absences = Self::default();
        for field in fields {
            absences.add("", field.stored_name(), field.may_be_absent(), std::iter::empty());
        }
        for NamedType { name, body } in types {
            match body {
                TypeBody::Struct(fields) => absences.add_all(name, fields),
                TypeBody::Tuple(_) => {}
                TypeBody::Enum(variants) => {
                    for variant in variants {
                        if let VariantBody::Struct(fields) = &variant.body {
                            absences.add_all(&format!("{name}::{}", variant.name), fields);
                        }
                    }
                }
            }
        }
        absences
    }

    fn add_all(&mut self, owner: &str, fields: &[Field]) {
        for field in fields {
            let aliases = field.aliases.iter().map(|alias| &**alias);
            self.add(owner, &field.name, field.may_be_absent(), aliases);
        }
    }

    pub(in super::super) fn add<'a>(
        &mut self,
        owner: &str,
        field: &str,
        may_be_absent: bool,
        aliases: impl Iterator<Item = &'a str>,
    ) {
        if may_be_absent {
            self.may_be_absent.insert((owner.to_owned(), field.to_owned()));
        }
        for alias in aliases {
            self.aliases.insert((owner.to_owned(), alias.to_owned()), field.to_owned());
        }
    }
}

impl Shape {
    /// Returns the first difference because of which a program with the shape `other` would not
    /// read what was written by fields with this one.
    ///
    /// Fields may come and go, an integer may become wider, a field an option, an option a field
    /// with a default, and enums may have more variants. What comes must be what values may lack,
    /// and what stays be of its type.
    pub(crate) fn difference_by_fields(&self, other: &Self) -> Option<Difference> {
        let names = |shape: &Self| shape.types.iter().map(|(name, _)| Arc::from(&**name)).collect();
        let mut comparison =
            Comparison { former: self, other, names: [names(self), names(other)], met: HashSet::new() };
        let fields = |shape: &'_ Self| {
            shape.fields.iter().map(|(name, ty)| (name.clone(), ty.clone())).collect::<Vec<_>>()
        };
        comparison.fields(&fields(self), &fields(other), "").err()
    }

    /// Returns the shape of values that programs of both shapes have written, which whoever can
    /// read all of them can read.
    pub(crate) fn with(&self, former: &Self) -> Self {
        let mut union = self.clone();
        union.lacking.extend(former.lacking.iter().cloned());
        union.lacking.extend(add_missing("", &mut union.fields, &former.fields));
        for (name, body) in &former.types {
            match union.types.iter_mut().find(|(known, _)| known == name) {
                Some((_, known)) => known.add(name, body, &mut union.lacking),
                None => union.types.push((name.clone(), body.clone())),
            }
        }
        union
    }
}

/// Adds the fields of a former struct, and returns those that one of the two does not have.
fn add_missing<T: Clone>(
    owner: &str,
    to: &mut Vec<(String, T)>,
    former: &[(String, T)],
) -> Vec<(String, String)> {
    let has = |fields: &[(String, T)], name: &str| fields.iter().any(|(known, _)| known == name);
    let of_owner = |(name, _): &(String, T)| (owner.to_owned(), name.clone());
    let mut lacking: Vec<_> = to.iter().filter(|(name, _)| !has(former, name)).map(of_owner).collect();
    let missing: Vec<_> = former.iter().filter(|(name, _)| !has(to, name)).cloned().collect();
    lacking.extend(missing.iter().map(of_owner));
    to.extend(missing);
    lacking
}

impl Body {
    /// Adds the fields and variants of a former body.
    fn add(&mut self, owner: &str, former: &Self, lacking: &mut BTreeSet<(String, String)>) {
        match (self, former) {
            (Self::Struct(fields), Self::Struct(former)) => {
                lacking.extend(add_missing(owner, fields, former));
            }
            (Self::Enum(variants), Self::Enum(former)) => {
                for (name, body) in former {
                    match variants.iter_mut().find(|(known, _)| known == name) {
                        Some((_, known)) => known.add(&format!("{owner}::{name}"), body, lacking),
                        None => variants.push((name.clone(), body.clone())),
                    }
                }
            }
            _ => {}
        }
    }
}

/// A comparison of a former shape with another one.
struct Comparison<'a> {
    former: &'a Shape,
    other: &'a Shape,
    names: [Vec<Arc<str>>; 2],
    /// The pairs of named types that are alike, or are being compared.
    met: HashSet<(usize, usize)>,
}

/// How the text of an option begins.
const OPTION: &str = "option<";

/// Fields with their types, or `None` where a type is not described.
type Fields = [(String, Option<String>)];

impl Comparison<'_> {
    fn fields(&mut self, former: &Fields, other: &Fields, owner: &str) -> Result<(), Difference> {
        let place = |name: &str| match owner {
            "" => format!("field `{name}`"),
            owner => format!("field `{name}` of `{owner}`"),
        };
        let shown = |(name, ty): &(String, Option<String>)| match ty {
            Some(ty) => format!("{name}: {ty}"),
            None => name.clone(),
        };
        let mut met = HashSet::new();
        for field in former {
            let key = (owner.to_owned(), field.0.clone());
            let name = self.other.absences.aliases.get(&key).unwrap_or(&field.0);
            // Whoever does not know a field keeps it.
            let Some(present) = other.iter().find(|(known, _)| known == name) else { continue };
            if !self.former.lacking.contains(&key) {
                met.insert(name.clone());
            }
            let (Some(was), Some(is)) = (&field.1, &present.1) else { continue };
            // What is there of an option is its value, and what is not has a default.
            let key = (owner.to_owned(), name.clone());
            let has_default = !is.starts_with(OPTION) && self.other.absences.may_be_absent.contains(&key);
            let value = was.strip_prefix(OPTION).and_then(|inner| inner.strip_suffix('>'));
            let was = value.filter(|_| has_default).unwrap_or(was);
            if !self.is_alike_text(was, is, true)? {
                let (found, expected) = (Some(shown(field)), Some(shown(present)));
                return Err(Difference { place: place(&present.0), found, expected });
            }
        }
        for field in other.iter().filter(|(name, _)| !met.contains(name)) {
            let key = (owner.to_owned(), field.0.clone());
            if !self.other.absences.may_be_absent.contains(&key) {
                return Err(Difference { place: place(&field.0), found: None, expected: Some(shown(field)) });
            }
        }
        Ok(())
    }

    fn is_alike_text(&mut self, former: &str, other: &str, is_field: bool) -> Result<bool, Difference> {
        let [names, other_names] = &self.names;
        match (Type::parse(former, names), Type::parse(other, other_names)) {
            (Ok(former), Ok(other)) => self.is_alike(&former, &other, is_field),
            _ => Ok(false),
        }
    }

    /// Returns whether values of a type can be read as those of another one. A difference is one of
    /// their parts.
    fn is_alike(&mut self, former: &Type, other: &Type, is_field: bool) -> Result<bool, Difference> {
        Ok(match (former, other) {
            (Type::Optional(former), Type::Optional(other)) => self.is_alike(former, other, is_field)?,
            // An option that is there is its value. One more option is not.
            (former, Type::Optional(other)) if is_field => {
                !matches!(**other, Type::Optional(_)) && self.is_alike(former, other, true)?
            }
            (Type::List(former), Type::List(other)) | (Type::Set(former), Type::Set(other)) => {
                self.is_alike(former, other, false)?
            }
            (Type::Array(former, len), Type::Array(other, other_len)) => {
                len == other_len && self.is_alike(former, other, false)?
            }
            (Type::Map(key, value), Type::Map(other_key, other_value)) => {
                self.is_alike(key, other_key, false)? && self.is_alike(value, other_value, false)?
            }
            (Type::Tuple(former), Type::Tuple(other)) => self.are_alike(former, other)?,
            (Type::Named { position, .. }, Type::Named { position: other, .. }) => {
                !self.met.insert((*position, *other)) || self.named(*position, *other, is_field)?
            }
            // A struct of one part is that part.
            (Type::Named { position, .. }, other) => match only_part(self.former, *position) {
                Some(only) => match Type::parse(only, &self.names[0]) {
                    Ok(only) => self.is_alike(&only, other, is_field)?,
                    Err(_) => false,
                },
                None => false,
            },
            (former, Type::Named { position, .. }) => match only_part(self.other, *position) {
                Some(only) => match Type::parse(only, &self.names[1]) {
                    Ok(only) => self.is_alike(former, &only, is_field)?,
                    Err(_) => false,
                },
                None => false,
            },
            (former, other) => former == other || is_wider(former, other, is_field),
        })
    }

    fn are_alike(&mut self, former: &[Type], other: &[Type]) -> Result<bool, Difference> {
        if former.len() != other.len() {
            return Ok(false);
        }
        for (former, other) in former.iter().zip(other) {
            if !self.is_alike(former, other, false)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn named(&mut self, former: usize, other: usize, is_field: bool) -> Result<bool, Difference> {
        let (Some((_, former)), Some((name, other))) =
            (self.former.types.get(former), self.other.types.get(other))
        else {
            return Ok(false);
        };
        match (former, other) {
            (Body::Enum(former), Body::Enum(other)) => self.variants(former, other, name),
            (Body::Tuple(former), Body::Tuple(other)) if former.len() == 1 && other.len() == 1 => {
                let ([former], [other]) = (former.as_slice(), other.as_slice()) else { return Ok(false) };
                self.is_alike_text(former, other, is_field)
            }
            (former, other) => self.bodies(former, other, name),
        }
    }

    fn variants(
        &mut self,
        former: &[(String, Body)],
        other: &[(String, Body)],
        of: &str,
    ) -> Result<bool, Difference> {
        for (name, body) in former {
            let Some((_, present)) = other.iter().find(|(known, _)| known == name) else {
                let place = format!("variant `{name}` of `{of}`");
                return Err(Difference { place, found: Some(name.clone()), expected: None });
            };
            if !self.bodies(body, present, &format!("{of}::{name}"))? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn bodies(&mut self, former: &Body, other: &Body, owner: &str) -> Result<bool, Difference> {
        match (former, other) {
            (Body::Unit, Body::Unit) => Ok(true),
            (Body::Struct(former), Body::Struct(other)) => {
                let fields = |fields: &[(String, String)]| {
                    fields.iter().map(|(name, ty)| (name.clone(), Some(ty.clone()))).collect::<Vec<_>>()
                };
                self.fields(&fields(former), &fields(other), owner).map(|()| true)
            }
            (Body::Tuple(former), Body::Tuple(other)) if former.len() == other.len() => {
                for (former, other) in former.iter().zip(other) {
                    if !self.is_alike_text(former, other, false)? {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
            _ => Ok(false),
        }
    }
}

/// Returns the part of a tuple struct that has one.
fn only_part(shape: &Shape, position: usize) -> Option<&str> {
    match shape.types.get(position) {
        Some((_, Body::Tuple(parts))) => match parts.as_slice() {
            [only] => Some(only),
            _ => None,
        },
        _ => None,
    }
}

/// Returns whether an integer is another one of more bits. In a list an integer of 8 bits is a
/// byte, and others are not.
fn is_wider(former: &Type, other: &Type, is_field: bool) -> bool {
    const UNSIGNED: [Type; 5] = [Type::U8, Type::U16, Type::U32, Type::U64, Type::U128];
    const SIGNED: [Type; 5] = [Type::I8, Type::I16, Type::I32, Type::I64, Type::I128];
    [UNSIGNED, SIGNED].iter().any(|integers| {
        let place = |ty: &Type| integers.iter().position(|integer| integer == ty);
        match (place(former), place(other)) {
            (Some(former), Some(other)) => former <= other && (is_field || former > 0),
            _ => false,
        }
    })
}
