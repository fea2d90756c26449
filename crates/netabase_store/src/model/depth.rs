//! Limits the nesting of values: a peer's bytes may be read by recursive types, and the stack is
//! finite.
//!
//! Deserializer and serializer are those of the format, with a number of levels that goes down with
//! the parts of a value. For types that are not recursive the compiler knows all of these numbers.

use std::cell::Cell;

use serde::de::DeserializeSeed;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::model::limits::MAX_LEVELS;

mod de;
mod ser;

/// Reads a value; `None` where it nests deeper than [`MAX_LEVELS`].
pub(crate) fn deserialize<'de, T, D>(from: D) -> Result<Option<T>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    let exceeded = Cell::new(false);
    let bounded = Bounded::new(std::marker::PhantomData::<T>, &exceeded);
    match bounded.deserialize(from) {
        Ok(value) => Ok(Some(value)),
        Err(_) if exceeded.get() => Ok(None),
        Err(error) => Err(error),
    }
}

/// Writes a value; `None` where it nests deeper than [`MAX_LEVELS`].
pub(crate) fn serialize<T, S>(value: &T, to: S) -> Result<Option<S::Ok>, S::Error>
where
    T: Serialize + ?Sized,
    S: Serializer,
{
    let exceeded = Cell::new(false);
    match Bounded::new(value, &exceeded).serialize(to) {
        Ok(written) => Ok(Some(written)),
        Err(_) if exceeded.get() => Ok(None),
        Err(error) => Err(error),
    }
}

/// A part of serde, and how deep in a value it is.
#[derive(Debug, Clone, Copy)]
struct Bounded<'a, T> {
    inner: T,
    level: Level<'a>,
}

#[derive(Debug, Clone, Copy)]
struct Level<'a> {
    left: usize,
    /// Whether reading or writing has failed for the depth.
    exceeded: &'a Cell<bool>,
}

impl<'a, T> Bounded<'a, T> {
    fn new(inner: T, exceeded: &'a Cell<bool>) -> Self {
        Self { inner, level: Level { left: MAX_LEVELS, exceeded } }
    }
}

impl<'a> Level<'a> {
    /// Goes down one level; `None` if that is too deep.
    fn down(self) -> Option<Self> {
        let left = self.left.checked_sub(1);
        if left.is_none() {
            self.exceeded.set(true);
        }
        left.map(|left| Self { left, ..self })
    }

    fn of<T>(self, inner: T) -> Bounded<'a, T> {
        Bounded { inner, level: self }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    use super::*;

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    enum Tree {
        Leaf,
        One(Box<Tree>),
        Two(u8, Box<Tree>),
        Named { name: String, below: Option<Box<Tree>> },
        Many(Vec<Tree>),
        By(BTreeMap<String, Tree>),
    }

    fn written(tree: &Tree) -> Option<Vec<u8>> {
        let mut to = postcard::Serializer { output: postcard::ser_flavors::AllocVec::default() };
        let done = serialize(tree, &mut to).unwrap();
        done.map(|()| postcard::ser_flavors::Flavor::finalize(to.output).unwrap())
    }

    fn read(bytes: &[u8]) -> Option<Tree> {
        deserialize(&mut postcard::Deserializer::from_bytes(bytes)).unwrap()
    }

    fn nested(levels: usize) -> Tree {
        (0..levels).fold(Tree::Leaf, |below, _| Tree::One(Box::new(below)))
    }

    #[test]
    fn what_is_written_can_be_read_up_to_the_last_level() {
        let deepest = nested(MAX_LEVELS - 1);
        let bytes = written(&deepest).unwrap();
        assert_eq!((read(&bytes), bytes), (Some(deepest.clone()), postcard::to_stdvec(&deepest).unwrap()));
        let deeper = nested(MAX_LEVELS);
        assert_eq!(written(&deeper), None);
        assert_eq!(read(&postcard::to_stdvec(&deeper).unwrap()), None);
        let json = serde_json::to_string(&deeper).unwrap();
        let read: Option<Tree> = deserialize(&mut serde_json::Deserializer::from_str(&json)).unwrap();
        assert_eq!(read, None);
    }

    #[test]
    fn a_hostile_value_ends_before_the_stack_does() {
        for variant in [1_u8, 4] {
            let byte_pairs: &[u8] = if variant == 1 { &[1] } else { &[4, 1] };
            let bytes = byte_pairs.repeat(1 << 20);
            let small = std::thread::Builder::new().stack_size(1 << 20);
            assert_eq!(small.spawn(move || read(&bytes)).unwrap().join().unwrap(), None);
        }
    }

    fn trees() -> impl Strategy<Value = Tree> {
        Just(Tree::Leaf).prop_recursive(8, 64, 4, |below| {
            prop_oneof![
                below.clone().prop_map(|below| Tree::One(Box::new(below))),
                (any::<u8>(), below.clone()).prop_map(|(number, below)| Tree::Two(number, Box::new(below))),
                (".{0,3}", proptest::option::of(below.clone()))
                    .prop_map(|(name, below)| Tree::Named { name, below: below.map(Box::new) }),
                proptest::collection::vec(below.clone(), 0..4).prop_map(Tree::Many),
                proptest::collection::btree_map(".{0,3}", below, 0..4).prop_map(Tree::By),
            ]
        })
    }

    proptest! {
        #[test]
        fn nothing_else_changes(tree in trees()) {
            let bytes = written(&tree).unwrap();
            prop_assert_eq!(&bytes, &postcard::to_stdvec(&tree).unwrap());
            prop_assert_eq!(read(&bytes), Some(tree.clone()));
            let mut json = Vec::new();
            serialize(&tree, &mut serde_json::Serializer::new(&mut json)).unwrap().unwrap();
            prop_assert_eq!(&json, &serde_json::to_vec(&tree).unwrap());
            let again: Option<Tree> = deserialize(&mut serde_json::Deserializer::from_slice(&json)).unwrap();
            prop_assert_eq!(again, Some(tree));
        }
    }
}
