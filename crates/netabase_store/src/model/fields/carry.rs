//! What an edit leaves as it was: the parts of a value that the program does not know.

use super::{FORM, Fault, Form, Kind, TAG_BYTES, de};

/// A field: its tag with its form, and all of its bytes.
#[derive(Debug, Clone, Copy)]
struct Field<'a> {
    tag: u16,
    /// The bytes, with the tag.
    whole: &'a [u8],
    /// The bytes of the value, without the tag and the length.
    value: &'a [u8],
}

impl Field<'_> {
    /// Returns the tag without the form.
    fn name(&self) -> u16 {
        self.tag & !FORM
    }

    fn is_struct(&self) -> bool {
        self.tag & FORM == Form::Fields as u16
    }
}

/// Returns the fields of a program's edit with those that it does not know.
///
/// `before` is what was edited, `known` the same as the program writes it, and `edited` what it has
/// made of it. What is the same in `known` and `edited` stays as it was in `before`; what is in
/// `before` alone was not known.
pub(crate) fn carried(before: &[u8], known: &[u8], edited: &[u8]) -> Result<Vec<u8>, Fault> {
    let mut out = Vec::with_capacity(before.len().max(edited.len()));
    join(before, known, edited, &mut out)?;
    Ok(out)
}

fn join(before: &[u8], known: &[u8], edited: &[u8], out: &mut Vec<u8>) -> Result<(), Fault> {
    let (before, known, edited) = (split(before)?, split(known)?, split(edited)?);
    let mut names: Vec<u16> = before.iter().chain(&edited).map(Field::name).collect();
    names.sort_unstable();
    names.dedup();
    for name in names {
        let [was, knew, now] = [&before, &known, &edited].map(|fields| {
            let place = fields.binary_search_by_key(&name, Field::name).ok()?;
            fields.get(place).copied()
        });
        match (was, knew, now) {
            // Not known, or not changed.
            (Some(was), None, None) => out.extend_from_slice(was.whole),
            (Some(was), Some(knew), Some(now)) if knew.whole == now.whole => {
                out.extend_from_slice(was.whole);
            }
            (Some(was), Some(knew), Some(now)) if [was, knew, now].iter().all(Field::is_struct) => {
                let mut inner = Vec::new();
                join(was.value, knew.value, now.value, &mut inner)?;
                out.extend_from_slice(&now.tag.to_be_bytes());
                super::ser::sized(&inner, out);
            }
            (_, _, Some(now)) => out.extend_from_slice(now.whole),
            // It was removed.
            (_, _, None) => {}
        }
    }
    Ok(())
}

/// Returns the fields of a struct.
fn split(fields: &[u8]) -> Result<Vec<Field<'_>>, Fault> {
    let (mut rest, mut found, mut before) = (fields, Vec::new(), None);
    loop {
        let start = rest;
        let Some((tag, form)) = de::next_tag(&mut rest, &mut before)? else { return Ok(found) };
        let value = de::pass(form, &mut rest)?;
        let whole = start.get(..start.len() - rest.len()).ok_or(Kind::End)?;
        debug_assert!(whole.len() >= TAG_BYTES + value.len(), "a value is behind its tag");
        found.push(Field { tag: tag | form as u16, whole, value });
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use serde::{Deserialize, Serialize};

    use super::super::{read, write};
    use super::*;

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    struct Later {
        name: String,
        place: Later2,
        rating: Option<u8>,
        labels: BTreeMap<String, u8>,
    }

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    struct Later2 {
        x: i32,
        y: i32,
        z: Option<i32>,
    }

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    struct Earlier {
        name: String,
        place: Earlier2,
        note: Option<String>,
    }

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    struct Earlier2 {
        x: i32,
        y: i32,
    }

    fn bytes(value: &impl Serialize) -> Vec<u8> {
        write(value, Vec::new()).unwrap()
    }

    proptest! {
        #[test]
        fn an_earlier_program_changes_what_it_knows(
            name in ".{0,4}",
            point in any::<(i32, i32)>(),
            (z, rating) in any::<(Option<i32>, Option<u8>)>(),
            new_name in proptest::option::of(".{0,4}"),
            x in proptest::option::of(any::<i32>()),
            note in proptest::option::of(".{0,4}"),
        ) {
            let labels = BTreeMap::from([("a".to_owned(), 1)]);
            let later =
                Later { name, place: Later2 { x: point.0, y: point.1, z }, rating, labels };
            let before = bytes(&later);
            let earlier: Earlier = read(&before).unwrap();
            let known = bytes(&earlier);
            let mut edited = earlier;
            let mut expected = later;
            if let Some(name) = new_name {
                edited.name.clone_from(&name);
                expected.name = name;
            }
            if let Some(x) = x {
                (edited.place.x, expected.place.x) = (x, x);
            }
            edited.note = note;
            let after = carried(&before, &known, &bytes(&edited)).unwrap();
            prop_assert_eq!(read::<Later>(&after).unwrap(), expected);
            prop_assert_eq!(read::<Earlier>(&after).unwrap(), edited.clone());
            // Removing what it knows leaves nothing of it.
            let known = bytes(&edited);
            edited.note = None;
            let again = carried(&after, &known, &bytes(&edited)).unwrap();
            prop_assert_eq!(read::<Earlier>(&again).unwrap(), edited);
        }
    }
}
