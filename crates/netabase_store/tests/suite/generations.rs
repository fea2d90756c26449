//! Programs of three generations of one model, whose version is the same, share records: each reads
//! what it knows of the others', changes it, and loses nothing of the rest.

use std::collections::HashMap;

use netabase_store::dynamic::Schema;
use netabase_store::{
    Envelope, NetabaseDefinition, NetabaseModel, NetabaseStore, RecordKey, StorageBackend,
    netabase_definition_module,
};
use proptest::prelude::*;

use crate::common::identity;

/// The first generation.
#[netabase_definition_module(EarlyDefinition, EarlyKeys, name = "PlacesDefinition")]
mod early {
    use netabase_store::{FieldType, NetabaseModel};
    use serde::{Deserialize, Serialize};

    #[derive(NetabaseModel, Clone, Debug, PartialEq, Serialize, Deserialize)]
    #[netabase(EarlyDefinition)]
    pub(crate) struct Place {
        #[primary_key]
        pub(crate) id: u8,
        #[secondary_key]
        pub(crate) title: String,
        pub(crate) stars: u8,
        pub(crate) at: At,
        #[serde(default)]
        pub(crate) old: u32,
    }

    #[derive(FieldType, Clone, Debug, PartialEq, Serialize, Deserialize)]
    pub(crate) struct At {
        pub(crate) x: i32,
    }
}

/// Stars are more, places have notes and tags, and two coordinates.
#[netabase_definition_module(MiddleDefinition, MiddleKeys, name = "PlacesDefinition")]
mod middle {
    use netabase_store::{FieldType, NetabaseModel};
    use serde::{Deserialize, Serialize};

    #[derive(NetabaseModel, Clone, Debug, PartialEq, Serialize, Deserialize)]
    #[netabase(MiddleDefinition)]
    pub(crate) struct Place {
        #[primary_key]
        pub(crate) id: u8,
        pub(crate) at: At,
        pub(crate) stars: u32,
        #[secondary_key]
        pub(crate) title: String,
        pub(crate) note: Option<String>,
        #[serde(default)]
        #[secondary_key]
        pub(crate) tags: Vec<String>,
        #[serde(default)]
        pub(crate) old: u32,
    }

    #[derive(FieldType, Clone, Debug, PartialEq, Serialize, Deserialize)]
    pub(crate) struct At {
        pub(crate) x: i32,
        #[serde(default)]
        pub(crate) y: i32,
    }
}

/// Titles are names, and something old is gone.
#[netabase_definition_module(LateDefinition, LateKeys, name = "PlacesDefinition")]
mod late {
    use netabase_store::{FieldType, NetabaseModel};
    use serde::{Deserialize, Serialize};

    #[derive(NetabaseModel, Clone, Debug, PartialEq, Serialize, Deserialize)]
    #[netabase(LateDefinition)]
    pub(crate) struct Place {
        #[primary_key]
        pub(crate) id: u8,
        #[serde(alias = "title")]
        #[secondary_key]
        pub(crate) name: String,
        pub(crate) note: Option<String>,
        pub(crate) kind: Option<Kind>,
        #[serde(default)]
        #[secondary_key]
        pub(crate) tags: Vec<String>,
        pub(crate) stars: u32,
        pub(crate) at: super::middle::At,
    }

    #[derive(FieldType, Clone, Debug, PartialEq, Serialize, Deserialize)]
    pub(crate) enum Kind {
        House,
        Park { trees: u32 },
    }
}

/// All that a place can have.
#[derive(Debug, Clone, PartialEq)]
struct Whole {
    title: String,
    stars: u8,
    x: i32,
    y: i32,
    old: u32,
    note: Option<String>,
    tags: Vec<String>,
    kind: Option<late::Kind>,
}

impl Whole {
    fn early(&self) -> early::Place {
        early::Place {
            id: 1,
            title: self.title.clone(),
            stars: self.stars,
            at: early::At { x: self.x },
            old: self.old,
        }
    }

    fn middle(&self) -> middle::Place {
        middle::Place {
            id: 1,
            at: middle::At { x: self.x, y: self.y },
            stars: self.stars.into(),
            title: self.title.clone(),
            note: self.note.clone(),
            tags: self.tags.clone(),
            old: self.old,
        }
    }

    fn late(&self) -> late::Place {
        late::Place {
            id: 1,
            name: self.title.clone(),
            note: self.note.clone(),
            kind: self.kind.clone(),
            tags: self.tags.clone(),
            stars: self.stars.into(),
            at: middle::At { x: self.x, y: self.y },
        }
    }

    /// Takes over what a generation knows.
    fn edited(&self, generation: usize, edit: &Self) -> Self {
        let mut whole = Self { title: edit.title.clone(), stars: edit.stars, x: edit.x, ..self.clone() };
        if generation > 0 {
            (whole.y, whole.note, whole.tags) = (edit.y, edit.note.clone(), edit.tags.clone());
        }
        if generation < 2 {
            whole.old = edit.old;
        } else {
            whole.kind.clone_from(&edit.kind);
        }
        whole
    }
}

fn wholes() -> impl Strategy<Value = Whole> {
    let text = || prop::sample::select(vec!["", "a", "b"]).prop_map(String::from);
    let kind = prop_oneof![Just(late::Kind::House), (0..3_u32).prop_map(|trees| late::Kind::Park { trees })];
    let numbers = (any::<u8>(), -2..2_i32, -2..2_i32, 0..3_u32);
    let more = (prop::option::of(text()), prop::collection::vec(text(), 0..2), prop::option::of(kind));
    (text(), numbers, more).prop_map(|(title, (stars, x, y, old), (note, tags, kind))| Whole {
        title,
        stars,
        x,
        y,
        old,
        note,
        tags,
        kind,
    })
}

/// What happens at a store.
#[derive(Debug, Clone)]
enum Step {
    /// It writes, over what it has.
    Write(usize, Whole),
    /// It sends what it has to another one.
    Send(usize, usize),
}

const STORES: usize = 4;

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        (0..3_usize, wholes()).prop_map(|(store, whole)| Step::Write(store, whole)),
        (0..STORES, 0..STORES).prop_map(|(from, to)| Step::Send(from, to)),
    ];
    prop::collection::vec(step, 1..24)
}

fn key() -> RecordKey {
    RecordKey::new("PlacesDefinition", "Place", &[1]).unwrap()
}

fn put(store: &NetabaseStore, generation: usize, whole: &Whole) {
    match generation {
        0 => store.open_tree().unwrap().put(&whole.early()),
        1 => store.open_tree().unwrap().put(&whole.middle()),
        _ => store.open_tree().unwrap().put(&whole.late()),
    }
    .unwrap();
}

fn only<M: NetabaseModel>(store: &NetabaseStore) -> M {
    store.open_tree::<M>().unwrap().iter().unwrap().next().unwrap().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn generations_lose_nothing_of_each_other(steps in steps()) {
        let text = Schema::of::<middle::MiddleDefinition>().unwrap().to_toml();
        let schema = Schema::from_toml(&text).unwrap().definition();
        // The stores share a clock, so that a later write wins.
        let place = crate::common::Place::new(StorageBackend::Memory);
        let open = |number: u8, schema| {
            let mut options = place.options.clone();
            options.identity = Some(identity(number));
            NetabaseStore::open_with("", Some(schema), options).unwrap()
        };
        let stores = [
            open(1, early::EarlyDefinition::SCHEMA),
            open(2, middle::MiddleDefinition::SCHEMA),
            open(3, late::LateDefinition::SCHEMA),
            open(4, schema),
        ];
        let send = |from: &NetabaseStore, to: &NetabaseStore| {
            if let Some(envelope) = from.envelope(&key()).unwrap() {
                // One that others have overtaken is refused, as it should be.
                let _ = to.replica().admit(key().as_bytes(), envelope.as_bytes());
                to.flush().unwrap();
            }
        };
        let mut wholes: HashMap<Vec<u8>, Whole> = HashMap::new();
        let bytes = |envelope: Envelope| envelope.as_bytes().to_vec();
        for step in steps {
            place.time.advance(std::time::Duration::from_millis(1));
            match step {
                Step::Write(at, edit) => {
                    let before = stores[at].envelope(&key()).unwrap().map(bytes);
                    let none = Whole {
                        title: String::new(), stars: 0, x: 0, y: 0, old: 0, note: None, tags: Vec::new(), kind: None,
                    };
                    let whole = before.map_or(none, |before| wholes[&before].clone()).edited(at, &edit);
                    put(&stores[at], at, &edit);
                    wholes.insert(bytes(stores[at].envelope(&key()).unwrap().unwrap()), whole);
                }
                Step::Send(from, to) => send(&stores[from], &stores[to]),
            }
        }
        for _ in 0..2 {
            for (from, to) in (0..STORES).flat_map(|from| (0..STORES).map(move |to| (from, to))) {
                send(&stores[from], &stores[to]);
            }
        }
        let Some(last) = stores[0].envelope(&key()).unwrap() else { return Ok(()) };
        for store in &stores {
            let envelope = store.envelope(&key()).unwrap();
            prop_assert_eq!(envelope.as_ref(), Some(&last));
            prop_assert!(store.check(netabase_store::admin::CheckOptions::default()).unwrap().is_clean());
        }
        let whole = &wholes[last.as_bytes()];
        prop_assert_eq!(only::<early::Place>(&stores[0]), whole.early());
        prop_assert_eq!(only::<middle::Place>(&stores[1]), whole.middle());
        prop_assert_eq!(only::<late::Place>(&stores[2]), whole.late());
        let codec = schema.model("Place").unwrap().codec;
        let json = codec.to_json(last.payload()).unwrap();
        prop_assert_eq!(json, serde_json::to_string(&whole.middle()).unwrap());
        let titled = stores[0].open_tree::<early::Place>().unwrap();
        let named = stores[2].open_tree::<late::Place>().unwrap();
        prop_assert_eq!(titled.find(early::PlaceTitleSecondaryKey(whole.title.clone())).unwrap().len(), 1);
        prop_assert_eq!(named.find(late::PlaceNameSecondaryKey(whole.title.clone())).unwrap().len(), 1);
    }
}
