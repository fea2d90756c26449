//! The counted operations: those of a store in memory, on the same records in every run.

use std::error::Error;
use std::ops::Range;
use std::sync::mpsc::sync_channel;

use netabase_store::schema::EncodedRecord;
use netabase_store::{
    Clock, Envelope, NetabaseDefinition, NetabaseStore, RecordKey, SigningKey, StorageBackend, StoreOptions,
    Tree, netabase_definition_module,
};

use crate::harness::{Operation, Outcome};

/// How many records there are before anything is counted.
const STORED: u64 = 2000;
/// How many records have the same city.
const PER_CITY: u64 = 100;
/// When everything happens, in milliseconds since the Unix epoch.
const NOW: u64 = 1_700_000_000_000;

/// Does an operation once; the number of the round chooses the records.
type Act = Box<dyn FnMut(usize) -> Outcome>;

/// An operation of the store.
#[derive(Clone, Copy)]
struct StoreOperation {
    name: &'static str,
    rounds: usize,
    /// Whether the writer's thread does a part of it.
    writes: bool,
    /// Makes everything that is needed for a number of rounds.
    prepare: fn(usize) -> Outcome<Prepared>,
}

struct Prepared {
    store: NetabaseStore,
    act: Act,
}

impl Prepared {
    fn new(store: &NetabaseStore, act: impl FnMut(usize) -> Outcome + 'static) -> Self {
        Self { store: store.clone(), act: Box::new(act) }
    }
}

const OPERATIONS: &[StoreOperation] = &[
    StoreOperation { name: "put_many of 1000", rounds: 2, writes: true, prepare: put_many_1000 },
    StoreOperation { name: "put_many of 100, signed", rounds: 2, writes: true, prepare: put_many_100_signed },
    StoreOperation { name: "put", rounds: 50, writes: true, prepare: put },
    StoreOperation { name: "update of an indexed field", rounds: 50, writes: true, prepare: update },
    StoreOperation { name: "remove", rounds: 50, writes: true, prepare: remove },
    StoreOperation { name: "admit of 100", rounds: 1, writes: true, prepare: admit_100 },
    StoreOperation { name: "get", rounds: 5000, writes: false, prepare: get },
    StoreOperation { name: "get_many of 100", rounds: 50, writes: false, prepare: get_many_100 },
    StoreOperation { name: "find of 1", rounds: 2000, writes: false, prepare: find_1 },
    StoreOperation { name: "find of 100", rounds: 50, writes: false, prepare: find_100 },
    StoreOperation { name: "range of 1000", rounds: 10, writes: false, prepare: range_1000 },
    StoreOperation { name: "scan of 2000", rounds: 10, writes: false, prepare: scan_2000 },
];

/// Returns what is counted.
pub(crate) fn all() -> Vec<Operation> {
    OPERATIONS.iter().map(|operation| operation.counted()).collect()
}

impl StoreOperation {
    fn counted(self) -> Operation {
        let Self { name, rounds, writes, .. } = self;
        Operation {
            name,
            rounds,
            counted: if writes { &[] } else { &["perform_rounds"] },
            // With the writer comes what it does for the preparation.
            profiled: if writes { &["perform_rounds", "commit_group"] } else { &["perform_rounds"] },
            perform: Box::new(move |times| self.perform(times)),
        }
    }

    /// Does it `times` times.
    fn perform(self, times: usize) -> Outcome {
        // Prepared for the longer run in both, which then differ in nothing but the operation.
        let mut prepared = (self.prepare)(times.max(2 * self.rounds))?;
        // The writer is done with everything before when it answers this.
        prepared.store.flush()?;
        perform_rounds(&mut prepared.act, times)?;
        prepared.store.flush()?;
        // The cost of closing a store depends on its records.
        std::mem::forget(prepared);
        Ok(())
    }
}

/// A function of its own, so that a profile can be limited to it; see `profile` in `harness.rs`.
#[inline(never)]
fn perform_rounds(act: &mut Act, times: usize) -> Outcome {
    (0..times).try_for_each(act)
}

#[netabase_definition_module(TownDefinition, TownKeys)]
mod town {
    use netabase_store::NetabaseModel;
    use serde::{Deserialize, Serialize};

    /// A record of about a hundred bytes.
    #[derive(NetabaseModel, Clone, Debug, PartialEq, Serialize, Deserialize)]
    #[netabase(TownDefinition)]
    pub(crate) struct Person {
        #[primary_key]
        pub(crate) id: u64,
        #[secondary_key]
        pub(crate) email: String,
        #[secondary_key]
        pub(crate) city: String,
        pub(crate) born: u32,
        pub(crate) notes: String,
    }
}
use town::*;

fn person(id: u64) -> Person {
    Person {
        id,
        email: email(id),
        city: city(id / PER_CITY),
        born: 1900 + u32::try_from(id % 100).unwrap_or_default(),
        notes: "lives here and is rarely seen, but pays in time".into(),
    }
}

fn email(id: u64) -> String {
    format!("person-{id:06}@example.org")
}

fn city(number: u64) -> String {
    format!("city {number:04}")
}

fn people(ids: Range<u64>) -> Vec<Person> {
    ids.map(person).collect()
}

/// Makes batches of records that follow the stored ones.
fn batches(rounds: usize, size: u64) -> Vec<Vec<Person>> {
    let starts = (STORED..).step_by(usize::try_from(size).unwrap_or(usize::MAX));
    starts.take(rounds).map(|start| people(start..start + size)).collect()
}

/// Numbers of stored records in an order without pattern, the same in every run.
fn scattered(round: usize, modulus: u64) -> u64 {
    (round as u64).wrapping_mul(7919) % modulus
}

fn empty_store(seed: Option<u8>) -> Outcome<NetabaseStore> {
    let options = StoreOptions {
        backend: StorageBackend::Memory,
        clock: Clock::from_fn(|| NOW),
        identity: seed.map(|seed| SigningKey::from_bytes(&[seed; 32])),
        ..StoreOptions::default()
    };
    Ok(NetabaseStore::open_with("", Some(TownDefinition::SCHEMA), options)?)
}

/// Opens a store with [`STORED`] records; unsigned.
fn stored() -> Outcome<(NetabaseStore, Tree<Person>)> {
    let store = empty_store(None)?;
    let tree = store.open_tree()?;
    tree.put_many(&people(0..STORED))?;
    // The writer frees what it has written after it has answered, which must not mix with what
    // comes.
    store.flush()?;
    Ok((store, tree))
}

fn put_many_1000(rounds: usize) -> Outcome<Prepared> {
    put_batches(&stored()?.0, batches(rounds, 1000))
}

fn put_many_100_signed(rounds: usize) -> Outcome<Prepared> {
    put_batches(&empty_store(Some(1))?, batches(rounds, 100))
}

fn put(rounds: usize) -> Outcome<Prepared> {
    let (store, tree) = stored()?;
    let people = people(STORED..STORED + rounds as u64);
    Ok(Prepared::new(&store, move |round| Ok(people.get(round).map_or(Ok(()), |person| tree.put(person))?)))
}

fn put_batches(store: &NetabaseStore, batches: Vec<Vec<Person>>) -> Outcome<Prepared> {
    let tree = store.open_tree::<Person>()?;
    Ok(Prepared::new(store, move |round| Ok(tree.put_many(batches.get(round).ok_or("no such round")?)?)))
}

fn update(_rounds: usize) -> Outcome<Prepared> {
    let (store, tree) = stored()?;
    Ok(Prepared::new(&store, move |round| {
        let key = PersonPrimaryKey(scattered(round, STORED));
        expect(1, tree.update(&key, |person| person.city.push_str(" beyond the river"))?.into_iter())
    }))
}

fn remove(_rounds: usize) -> Outcome<Prepared> {
    let (store, tree) = stored()?;
    Ok(Prepared::new(&store, move |round| {
        let removed = tree.remove(&PersonPrimaryKey(scattered(round, STORED)))?;
        expect(1, removed.then_some(()).into_iter())
    }))
}

/// Records from a peer, which are written together.
fn admit_100(rounds: usize) -> Outcome<Prepared> {
    let peer = empty_store(Some(2))?;
    let batches = batches(rounds, 100);
    batches.iter().try_for_each(|batch| peer.open_tree()?.put_many(batch))?;
    peer.flush()?;
    let records = peer.local_records(None)?;
    // It stays open, so that closing it is not counted.
    std::mem::forget(peer);
    let store = empty_store(None)?;
    let writer = store.clone();
    let first = EncodedRecord::of(&person(0))?;
    Ok(Prepared::new(&store, move |round| {
        let records = records.chunks(100).nth(round).ok_or("no such round")?;
        write_as_one_group(&writer, &first, || admit(&writer, records))
    }))
}

fn admit(store: &NetabaseStore, records: &[(RecordKey, Envelope)]) -> Outcome {
    for (key, envelope) in records {
        expect(1, store.replica().admit(key.as_bytes(), envelope.as_bytes())?.then_some(()).into_iter())?;
    }
    Ok(())
}

/// Holds up the writer while `queue` queues writes, so that their number in a commit is not chance;
/// the writes around them are two of an unsigned record.
fn write_as_one_group(
    store: &NetabaseStore,
    record: &EncodedRecord,
    queue: impl FnOnce() -> Outcome,
) -> Outcome {
    let (held, is_held) = sync_channel(1);
    let (release, released) = sync_channel::<()>(1);
    store.replica().submit(record, move |_| {
        let _ = held.send(());
        let _ = released.recv();
    })?;
    is_held.recv()?;
    queue()?;
    let (done, is_done) = sync_channel(1);
    store.replica().submit(record, move |outcome| {
        let _ = done.send(outcome);
    })?;
    release.send(())?;
    is_done.recv()??;
    Ok(())
}

fn get(_rounds: usize) -> Outcome<Prepared> {
    let (store, tree) = stored()?;
    Ok(Prepared::new(&store, move |round| {
        expect(1, tree.get(&PersonPrimaryKey(scattered(round, STORED)))?.into_iter())
    }))
}

fn get_many_100(_rounds: usize) -> Outcome<Prepared> {
    let (store, tree) = stored()?;
    let keys = (0..100).map(|round| PersonPrimaryKey(scattered(round, STORED))).collect::<Vec<_>>();
    Ok(Prepared::new(&store, move |_| expect(100, tree.get_many(&keys)?.into_iter().flatten())))
}

fn find_1(rounds: usize) -> Outcome<Prepared> {
    let (store, tree) = stored()?;
    let emails = (0..rounds).map(|round| email(scattered(round, STORED))).collect::<Vec<_>>();
    Ok(Prepared::new(&store, move |round| {
        let email = emails.get(round).cloned().unwrap_or_default();
        expect(1, tree.find(PersonEmailSecondaryKey(email))?.into_iter())
    }))
}

fn find_100(_rounds: usize) -> Outcome<Prepared> {
    let (store, tree) = stored()?;
    Ok(Prepared::new(&store, move |round| {
        let city = city(scattered(round, STORED / PER_CITY));
        expect(100, tree.find(PersonCitySecondaryKey(city))?.into_iter())
    }))
}

fn range_1000(_rounds: usize) -> Outcome<Prepared> {
    let (store, tree) = stored()?;
    Ok(Prepared::new(&store, move |_| expect_rows(1000, tree.query().id(500..1500).rows()?)))
}

fn scan_2000(_rounds: usize) -> Outcome<Prepared> {
    let (store, tree) = stored()?;
    Ok(Prepared::new(&store, move |_| expect_rows(2000, tree.iter()?)))
}

fn expect_rows<T, E: Into<Box<dyn Error>>>(
    count: usize,
    mut rows: impl Iterator<Item = Result<T, E>>,
) -> Outcome {
    let found = rows.try_fold(0, |found, row| row.map(|_| found + 1).map_err(Into::into))?;
    expect(count, 0..found)
}

/// An operation that does not find what it should is fast, and not to be counted.
fn expect<T>(count: usize, found: impl Iterator<Item = T>) -> Outcome {
    let found = found.count();
    if found == count { Ok(()) } else { Err(format!("{found} records instead of {count}").into()) }
}
