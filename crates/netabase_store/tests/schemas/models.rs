//! Models with every type, every kind of key and every policy.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use netabase_store::blob::BlobHash;
use netabase_store::{Author, Blob, FieldType, NetabaseKey, netabase_definition_module};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use serde::{Deserialize, Serialize};

#[netabase_definition_module(ZooDefinition, ZooKeys)]
pub mod zoo {
    use std::collections::{BTreeMap, BTreeSet};
    use std::time::{Duration, SystemTime};

    use netabase_store::{Author, Blob, NetabaseModel};
    use serde::{Deserialize, Serialize};

    use super::{Address, Colour, Days, Node};

    /// Every simple type.
    #[derive(NetabaseModel, Clone, Debug, PartialEq, Serialize, Deserialize)]
    #[netabase(ZooDefinition, version = 3, lifetime = "90m")]
    #[secondary_key(name = "whole", fields(wide, signed, small, text))]
    #[secondary_key(name = "rest", fields(double, single, letter, yes, when, long))]
    pub struct Simple {
        #[primary_key]
        pub id: u128,
        #[primary_key]
        pub name: String,
        #[secondary_key]
        pub wide: u64,
        pub small: (u8, u16, u32),
        #[secondary_key]
        pub signed: (i8, i16, i32, i64, i128),
        #[secondary_key]
        pub single: f32,
        #[secondary_key]
        pub double: f64,
        pub letter: char,
        pub yes: bool,
        #[secondary_key(unique)]
        pub text: String,
        #[secondary_key]
        pub bytes: Vec<u8>,
        pub when: SystemTime,
        pub long: Duration,
        #[serde(default)]
        pub author: Option<Author>,
    }

    /// Every type with parts.
    #[derive(NetabaseModel, Clone, Debug, PartialEq, Serialize, Deserialize)]
    #[netabase(ZooDefinition, name = "made-of.parts")]
    #[secondary_key(name = "mixed", fields(colour, days, maybe, pair))]
    pub struct Parts {
        #[primary_key]
        pub id: [u8; 4],
        #[secondary_key]
        pub maybe: Option<u32>,
        #[secondary_key]
        pub tags: Vec<String>,
        #[secondary_key]
        pub levels: BTreeSet<u8>,
        #[secondary_key]
        pub colour: Colour,
        #[secondary_key]
        pub days: Days,
        #[secondary_key]
        pub paths: Vec<Vec<u16>>,
        pub pair: (String, Option<bool>),
        pub address: Address,
        pub map: BTreeMap<String, BTreeMap<u64, Option<char>>>,
        pub by_colour: BTreeMap<(u8, String), Colour>,
        pub set: BTreeSet<(Option<i16>, Vec<u8>)>,
        pub array: [Option<i64>; 3],
        pub tree: Box<Node>,
        pub one: (u8,),
        pub any_blob: Option<Blob>,
    }

    /// A record of its owner, with blobs.
    #[derive(NetabaseModel, Clone, Debug, PartialEq, Serialize, Deserialize)]
    #[netabase(ZooDefinition, owned)]
    pub struct Owned {
        #[primary_key]
        pub owner: Author,
        #[primary_key]
        pub page: Option<i32>,
        #[blob]
        pub cover: Blob,
        #[blob]
        pub back: Option<Blob>,
        #[blob]
        pub pages: Vec<Blob>,
    }

    /// A merged model.
    #[derive(NetabaseModel, Clone, Debug, PartialEq, Serialize, Deserialize)]
    #[netabase(ZooDefinition)]
    pub struct Merged {
        #[primary_key]
        pub id: u8,
        #[secondary_key]
        #[merge(lww)]
        pub title: String,
        #[merge(max)]
        pub highest: (u8, String),
        #[merge(min)]
        pub lowest: Option<i64>,
        #[merge(counter)]
        pub small: u8,
        #[merge(counter)]
        pub votes: i64,
        #[merge(set)]
        #[secondary_key]
        pub tags: BTreeSet<String>,
    }
}
pub use zoo::*;

#[derive(FieldType, NetabaseKey, Clone, Debug, PartialEq, PartialOrd, Serialize, Deserialize)]
pub enum Colour {
    Red,
    Grey(u8),
    Rgb(u8, u8, u8),
    Named { name: String, shade: Option<i8> },
    Nothing {},
    Void(),
}

/// A struct of one part is written as its part.
#[derive(FieldType, NetabaseKey, Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Days(pub Vec<u32>);

#[derive(FieldType, Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Address {
    pub street: String,
    pub number: Option<u16>,
    pub at: (f64, f32),
    pub r#type: Box<Colour>,
}

#[derive(FieldType, Clone, Debug, PartialEq, Default, Serialize, Deserialize)]
pub struct Node {
    pub name: String,
    pub children: Vec<Self>,
}

/// Returns some values, always the same ones.
pub fn examples<T: std::fmt::Debug>(strategy: impl Strategy<Value = T>, number: usize) -> Vec<T> {
    let mut runner = TestRunner::deterministic();
    (0..number).map(|_| strategy.new_tree(&mut runner).unwrap().current()).collect()
}

fn time() -> impl Strategy<Value = SystemTime> {
    (0_u64..10_000_000_000, 0_u32..1_000_000_000)
        .prop_map(|(seconds, nanos)| UNIX_EPOCH + Duration::new(seconds, nanos))
}

fn author() -> impl Strategy<Value = Author> {
    any::<[u8; 32]>().prop_map(Author::from_bytes)
}

fn blob() -> impl Strategy<Value = Blob> {
    any::<([u8; 32], u64)>().prop_map(|(hash, size)| Blob { hash: BlobHash::from_bytes(hash), size })
}

fn colour() -> impl Strategy<Value = Colour> {
    prop_oneof![
        Just(Colour::Red),
        any::<u8>().prop_map(Colour::Grey),
        any::<(u8, u8, u8)>().prop_map(|(r, g, b)| Colour::Rgb(r, g, b)),
        any::<(String, Option<i8>)>().prop_map(|(name, shade)| Colour::Named { name, shade }),
        Just(Colour::Nothing {}),
        Just(Colour::Void()),
    ]
}

fn node() -> impl Strategy<Value = Node> {
    let leaf = any::<String>().prop_map(|name| Node { name, children: Vec::new() });
    leaf.prop_recursive(4, 12, 3, |inner| {
        (any::<String>(), prop::collection::vec(inner, 0..3))
            .prop_map(|(name, children)| Node { name, children })
    })
}

type Small = (u8, u16, u32);
type Signed = (i8, i16, i32, i64, i128);

pub fn simple() -> impl Strategy<Value = Simple> {
    let first = (any::<u128>(), any::<String>(), any::<u64>(), any::<Small>(), any::<Signed>());
    // JSON has no NaN and no infinity, which a test of their own looks at.
    let floats =
        (prop::num::f32::NORMAL | prop::num::f32::ZERO, prop::num::f64::NORMAL | prop::num::f64::ZERO);
    let rest =
        (any::<(char, bool, String, Vec<u8>)>(), time(), any::<Duration>(), prop::option::of(author()));
    (first, floats, rest).prop_map(|(first, (single, double), rest)| {
        let (id, name, wide, small, signed) = first;
        let ((letter, yes, text, bytes), when, long, author) = rest;
        Simple { id, name, wide, small, signed, single, double, letter, yes, text, bytes, when, long, author }
    })
}

fn address() -> impl Strategy<Value = Address> {
    let at = (prop::num::f64::NORMAL, prop::num::f32::NORMAL);
    (any::<String>(), any::<Option<u16>>(), at, colour()).prop_map(|(street, number, at, colour)| Address {
        street,
        number,
        at,
        r#type: Box::new(colour),
    })
}

fn few<T: Arbitrary>() -> impl Strategy<Value = Vec<T>> {
    prop::collection::vec(any::<T>(), 0..4)
}

fn map<K: Ord + Arbitrary, V: std::fmt::Debug>(
    value: impl Strategy<Value = V>,
) -> impl Strategy<Value = BTreeMap<K, V>> {
    prop::collection::btree_map(any::<K>(), value, 0..4)
}

pub fn parts() -> impl Strategy<Value = Parts> {
    let levels = prop::collection::btree_set(any::<u8>(), 0..4);
    let keys = (any::<([u8; 4], Option<u32>)>(), few::<String>(), levels);
    let named = (colour(), few().prop_map(Days), address(), node());
    let maps = map::<String, _>(map::<u64, _>(any::<Option<char>>()));
    let lists = (prop::collection::vec(few::<u16>(), 0..4), any::<(String, Option<bool>)>(), maps);
    let set = prop::collection::btree_set((any::<Option<i16>>(), few::<u8>()), 0..4);
    let rest = (set, any::<([Option<i64>; 3], (u8,))>());
    (keys, named, lists, rest, prop::option::of(blob())).prop_map(|(keys, named, lists, rest, any_blob)| {
        let ((id, maybe), tags, levels) = keys;
        let (colour, days, address, tree) = named;
        let (paths, pair, map) = lists;
        let (set, (array, one)) = rest;
        Parts {
            id,
            maybe,
            tags,
            levels,
            colour,
            days,
            paths,
            pair,
            address,
            map,
            // Its keys are no text, so that it has JSON only while it is empty.
            by_colour: BTreeMap::new(),
            set,
            array,
            tree: Box::new(tree),
            one,
            any_blob,
        }
    })
}

pub fn owned() -> impl Strategy<Value = Owned> {
    let blobs = (blob(), prop::option::of(blob()), prop::collection::vec(blob(), 0..4));
    (author(), any::<Option<i32>>(), blobs).prop_map(|(owner, page, (cover, back, pages))| Owned {
        owner,
        page,
        cover,
        back,
        pages,
    })
}

pub fn merged() -> impl Strategy<Value = Merged> {
    let sets = prop::collection::btree_set("[a-e]", 0..4);
    (0_u8..2, any::<String>(), any::<(u8, String)>(), any::<Option<i64>>(), any::<(u8, i64)>(), sets)
        .prop_map(|(id, title, highest, lowest, (small, votes), tags)| Merged {
            id,
            title,
            highest,
            lowest,
            small,
            votes,
            tags,
        })
}
