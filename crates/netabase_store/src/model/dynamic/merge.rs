//! Merges the fields of merged models of run-time schemas, as `merge.rs` does for Rust types.

use super::model::{Field, MergeRule};
use super::types::Type;
use super::value::Value;

/// The direction of a merge; compare [`Merge`](crate::model::merge::Merge).
pub(super) enum Merge<'a> {
    /// Merges these earlier contributions into the fields of the latest one.
    All(&'a [Value]),
    /// Turns the fields that an author wants to read into those that it contributes.
    Own { own: Option<&'a Value>, others: &'a [Value] },
}

impl Merge<'_> {
    /// Merges the fields that are not simply those of the latest contribution.
    pub(super) fn apply(&self, record: &mut Value, fields: &[Field]) {
        let Value::List(values) = record else { return };
        for (position, (value, field)) in values.iter_mut().zip(fields).enumerate() {
            match field.merge {
                MergeRule::Latest => {}
                MergeRule::Max => self.replace(value, position, |other, field| other.order(field).is_gt()),
                MergeRule::Min => self.replace(value, position, |other, field| other.order(field).is_lt()),
                MergeRule::Counter => self.count(value, position, &field.ty),
                MergeRule::Set => self.unite(value, position),
            }
        }
    }

    fn replace(&self, value: &mut Value, position: usize, is_better: fn(&Value, &Value) -> bool) {
        let Self::All(earlier) = self else { return };
        for other in earlier.iter().filter_map(|record| record.fields().get(position)) {
            if is_better(other, value) {
                *value = other.clone();
            }
        }
    }

    fn count(&self, value: &mut Value, position: usize, ty: &Type) {
        let sum = |records: &[Value]| -> i128 {
            records.iter().filter_map(|record| record.fields().get(position)).map(widen).sum()
        };
        let wide = match self {
            Self::All(earlier) => widen(value) + sum(earlier),
            Self::Own { others, .. } => widen(value) - sum(others),
        };
        *value = saturate(wide, ty);
    }

    fn unite(&self, value: &mut Value, position: usize) {
        let Value::List(elements) = value else { return };
        match self {
            Self::All(earlier) => {
                let mut all = std::mem::take(elements);
                for other in earlier.iter().filter_map(|record| record.fields().get(position)) {
                    all.extend_from_slice(other.fields());
                }
                *value = Value::set(all);
            }
            Self::Own { own, others } => {
                let has = |record: &Value, element: &Value| {
                    let sorted = record.fields().get(position).map_or(&[][..], Value::fields);
                    sorted.binary_search_by(|of| of.order(element)).is_ok()
                };
                elements.retain(|element| {
                    own.is_some_and(|own| has(own, element))
                        || !others.iter().any(|other| has(other, element))
                });
            }
        }
    }
}

fn widen(value: &Value) -> i128 {
    match value {
        Value::Unsigned(value) => (*value).into(),
        Value::Signed(value) => (*value).into(),
        _ => 0,
    }
}

/// Returns the nearest value of the type.
fn saturate(wide: i128, ty: &Type) -> Value {
    let unsigned = |max: u64| Value::Unsigned(u64::try_from(wide.clamp(0, max.into())).unwrap_or_default());
    let signed = |min: i64, max: i64| {
        Value::Signed(i64::try_from(wide.clamp(min.into(), max.into())).unwrap_or_default())
    };
    match ty {
        Type::U8 => unsigned(u8::MAX.into()),
        Type::U16 => unsigned(u16::MAX.into()),
        Type::U32 => unsigned(u32::MAX.into()),
        Type::U64 => unsigned(u64::MAX),
        Type::I8 => signed(i8::MIN.into(), i8::MAX.into()),
        Type::I16 => signed(i16::MIN.into(), i16::MAX.into()),
        Type::I32 => signed(i32::MIN.into(), i32::MAX.into()),
        _ => signed(i64::MIN, i64::MAX),
    }
}
