//! Merges the fields of merged models.
//!
//! Generated code calls these functions for each field.

use std::collections::BTreeSet;

use crate::error::ValueError;
use crate::model::schema::{IndexKeys, ModelSchema};
use crate::version::envelope::{Author, Envelope, EnvelopeRef};

/// An integer that several authors count in.
#[doc(hidden)]
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be counted in",
    label = "not a counter",
    note = "with #[merge(counter)], use an integer of at most 64 bits"
)]
pub trait Counter: Copy {
    fn widen(self) -> i128;

    /// Returns the nearest value of the type.
    fn saturate(wide: i128) -> Self;
}

macro_rules! counters {
    ($($int:ty),*) => {$(
        impl Counter for $int {
            fn widen(self) -> i128 {
                self.into()
            }

            fn saturate(wide: i128) -> Self {
                Self::try_from(wide).unwrap_or(if wide < 0 { Self::MIN } else { Self::MAX })
            }
        }
    )*};
}
counters!(i8, i16, i32, i64, u8, u16, u32, u64);

/// A set that several authors add to.
#[doc(hidden)]
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be added to by several authors",
    label = "not a set",
    note = "with #[merge(set)], use a `BTreeSet`"
)]
pub trait Elements: Sized {
    fn unite(&mut self, other: &Self);

    /// Keeps the elements that are in `own`, or in none of `others`.
    fn keep_own(&mut self, own: Option<&Self>, others: &[&Self]);
}

impl<T: Ord + Clone> Elements for BTreeSet<T> {
    fn unite(&mut self, other: &Self) {
        self.extend(other.iter().cloned());
    }

    fn keep_own(&mut self, own: Option<&Self>, others: &[&Self]) {
        self.retain(|element| {
            own.is_some_and(|own| own.contains(element))
                || !others.iter().any(|other| other.contains(element))
        });
    }
}

/// The direction of a merge.
#[doc(hidden)]
#[derive(Debug)]
pub enum Merge<'a, M> {
    /// Merges these earlier contributions into the fields of the latest one.
    All(&'a [M]),
    /// Turns the fields that an author wants to read into those that it contributes.
    Own {
        /// The author's former contribution.
        own: Option<&'a M>,
        others: &'a [M],
    },
}

/// The largest value that any author has given.
pub fn merge_max<M, T: Ord + Clone>(field: &mut T, how: &Merge<'_, M>, of: fn(&M) -> &T) {
    if let Merge::All(earlier) = how
        && let Some(max) = earlier.iter().map(of).max().filter(|max| *max > &*field)
    {
        *field = max.clone();
    }
}

/// The smallest value that any author has given.
pub fn merge_min<M, T: Ord + Clone>(field: &mut T, how: &Merge<'_, M>, of: fn(&M) -> &T) {
    if let Merge::All(earlier) = how
        && let Some(min) = earlier.iter().map(of).min().filter(|min| *min < &*field)
    {
        *field = min.clone();
    }
}

/// The sum of all authors' counts, or the count with which one author makes it that sum.
pub fn merge_counter<M, T: Counter>(field: &mut T, how: &Merge<'_, M>, of: fn(&M) -> &T) {
    let sum = |models: &[M]| models.iter().map(|model| of(model).widen()).sum::<i128>();
    *field = T::saturate(match how {
        Merge::All(earlier) => field.widen() + sum(earlier),
        Merge::Own { others, .. } => field.widen() - sum(others),
    });
}

/// The union of all authors' elements, or one author's own: those that it had, and those that no
/// other has.
pub fn merge_set<M, T: Elements>(field: &mut T, how: &Merge<'_, M>, of: fn(&M) -> &T) {
    match how {
        Merge::All(earlier) => earlier.iter().for_each(|model| field.unite(of(model))),
        Merge::Own { own, others } => {
            field.keep_own(own.map(of), &others.iter().map(of).collect::<Vec<_>>());
        }
    }
}

/// Gives a bundle its merged payload; returns it with its secondary keys.
///
/// If this program can read no contribution, the latest one's payload is the result: it may be of a
/// later version of the model.
pub(crate) fn merged(model: &ModelSchema, primary: &[u8], bundle: &Envelope) -> (Envelope, IndexKeys) {
    let Some(parts) = bundle.view().bundle().filter(|_| !bundle.is_tombstone()) else {
        return (bundle.clone(), IndexKeys::default());
    };
    let mut parts: Vec<_> = parts.live().collect();
    parts.sort_by_key(|part| part.moment());
    let payloads: Vec<_> = parts.into_iter().map(EnvelopeRef::payload).collect();
    match model.guarded(|codec| codec.merge(primary, &payloads)) {
        Ok(Some(record)) => (bundle.with_payload(&record.payload), model.bounded(record.keys.secondary)),
        _ => (bundle.with_payload(payloads.last().copied().unwrap_or_default()), IndexKeys::default()),
    }
}

/// Returns the payload of the contribution that replaces `own`, an earlier one, when its author
/// wants to read `wanted`.
pub(crate) fn contribution(
    model: &ModelSchema,
    current: Option<&Envelope>,
    author: Author,
    wanted: &[u8],
) -> Result<Vec<u8>, ValueError> {
    let bundle = current.and_then(|current| current.view().bundle());
    let (mut own, mut others) = (None, Vec::new());
    for part in bundle.iter().flat_map(|bundle| bundle.live()) {
        if part.author() == Some(author) { own = Some(part.payload()) } else { others.push(part.payload()) }
    }
    Ok(model.guarded(|codec| codec.contribution(wanted, own, &others))?.payload)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A rule for a model that is nothing but its field.
    type Rule<T> = fn(&mut T, &Merge<'_, T>, fn(&T) -> &T);

    fn all<T>(rule: Rule<T>, mut latest: T, earlier: &[T]) -> T {
        rule(&mut latest, &Merge::All(earlier), |value| value);
        latest
    }

    fn own<T>(rule: Rule<T>, mut wanted: T, own: Option<&T>, others: &[T]) -> T {
        rule(&mut wanted, &Merge::Own { own, others }, |value| value);
        wanted
    }

    #[test]
    fn sums_stop_at_the_ends_of_the_type() {
        assert_eq!(all(merge_counter, 200_u8, &[100, 1]), 255);
        assert_eq!(all(merge_counter, -100_i8, &[-100]), -128);
        assert_eq!(all(merge_counter, u64::MAX, &[7]), u64::MAX);
        assert_eq!(all(merge_counter, 100_i8, &[100, -120]), 80, "only the whole sum is cut off");
    }

    #[test]
    fn a_tally_is_what_the_others_have_not_counted() {
        let tally = |wanted: i64, others: &[i64]| own(merge_counter, wanted, None, others);
        assert_eq!((tally(7, &[]), tally(7, &[3, 1]), tally(0, &[3])), (7, 3, -3));
        assert_eq!(own(merge_counter, 2_u32, None, &[5]), 0, "what others have counted stays");
    }

    #[test]
    fn elements_belong_to_those_who_added_them() {
        let set = |elements: &[u8]| elements.iter().copied().collect::<BTreeSet<_>>();
        let ours = own(merge_set, set(&[1, 2, 3]), Some(&set(&[2])), &[set(&[1, 2])]);
        assert_eq!(ours, set(&[2, 3]));
        assert_eq!(all(merge_set, ours, &[set(&[1, 2])]), set(&[1, 2, 3]));
    }

    #[test]
    fn the_largest_and_the_smallest_are_found() {
        assert_eq!((all(merge_max, 5, &[7, 3]), all(merge_min, 5, &[7, 3])), (7, 3));
        assert_eq!((own(merge_max, 5, Some(&9), &[7]), own(merge_min, 5, None, &[3])), (5, 5));
    }
}
