//! Random sequences of calls to a store and to a `BTreeMap`; random deliveries of versions.
#![allow(dead_code, reason = "the crates that share it do not use all of it")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]
#![allow(unreachable_pub, reason = "every test file is a crate of its own")]

use std::collections::BTreeMap;
use std::time::Duration;

use netabase_store::schema::EncodedRecord;
use netabase_store::{
    Envelope, NetabaseStore, Query, RecordKey, StorageBackend, StoreError, Timestamp, Tree, WriteError,
};
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::TestCaseResult;

use crate::common::*;

/// An operation on a store.
#[derive(Debug, Clone)]
pub enum Call {
    Put(Customer),
    PutMany(Vec<Customer>),
    Insert(Customer),
    /// Gives the customer another name.
    Update(i64, &'static str),
    Remove(i64),
    /// Removes the customers of a name.
    RemoveAll(&'static str),
    /// A transaction that does all of it, and then commits or not.
    Transaction {
        steps: Vec<Step>,
        commit: bool,
        disturb: Option<Customer>,
    },
    Reopen,
}

#[derive(Debug, Clone)]
pub enum Step {
    Put(Customer),
    PutVisit(Visit),
    Remove(i64),
    Get(i64),
}

/// Few keys and few names, so that records meet.
fn a_customer() -> impl Strategy<Value = Customer> {
    let name = a_name();
    let city = prop::option::of(prop::sample::select(vec!["", "x", "y"]));
    (an_id(), name, city, 0..3_usize).prop_map(|(id, name, city, notes)| Customer {
        id,
        name: name.into(),
        city: city.map(Into::into),
        notes: "n".repeat(notes),
    })
}

fn a_name() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["", "a", "a\0", "b", "\u{1}"])
}

fn an_id() -> impl Strategy<Value = i64> {
    prop::sample::select(vec![i64::MIN, -2, -1, 0, 1, 255, 256, i64::MAX])
}

fn a_step() -> impl Strategy<Value = Step> {
    let page = prop::sample::select(vec!["", "a", "a\0"]);
    prop_oneof![
        4 => a_customer().prop_map(Step::Put),
        2 => (page, 0..3_u32).prop_map(|(page, number)| Step::PutVisit(visit(page, number))),
        2 => an_id().prop_map(Step::Remove),
        2 => an_id().prop_map(Step::Get),
    ]
}

pub fn a_call() -> impl Strategy<Value = Call> {
    let transaction =
        (prop::collection::vec(a_step(), 0..8), any::<bool>(), prop::option::weighted(0.3, a_customer()));
    prop_oneof![
        8 => a_customer().prop_map(Call::Put),
        2 => prop::collection::vec(a_customer(), 0..6).prop_map(Call::PutMany),
        2 => a_customer().prop_map(Call::Insert),
        2 => (an_id(), a_name()).prop_map(|(id, name)| Call::Update(id, name)),
        4 => an_id().prop_map(Call::Remove),
        1 => a_name().prop_map(Call::RemoveAll),
        4 => transaction.prop_map(|(steps, commit, disturb)| Call::Transaction { steps, commit, disturb }),
        1 => Just(Call::Reopen),
    ]
}

/// The expected content of a store.
#[derive(Debug, Clone, Default)]
struct Model {
    customers: BTreeMap<i64, Customer>,
    visits: BTreeMap<(String, u32), Visit>,
}

impl Model {
    fn put(&mut self, customer: &Customer) {
        self.customers.insert(customer.id, customer.clone());
    }
}

/// A store and its model.
struct Pair<'a> {
    place: &'a Place,
    store: Option<NetabaseStore>,
    model: Model,
}

impl<'a> Pair<'a> {
    fn new(place: &'a Place) -> Self {
        Self { place, store: Some(place.open()), model: Model::default() }
    }

    fn store(&self) -> &NetabaseStore {
        self.store.as_ref().unwrap()
    }

    fn customers(&self) -> Tree<Customer> {
        self.store().open_tree().unwrap()
    }

    fn call(&mut self, call: &Call) -> TestCaseResult {
        match call {
            Call::Put(customer) => {
                self.customers().put(customer).unwrap();
                self.model.put(customer);
            }
            Call::PutMany(customers) => {
                self.customers().put_many(customers).unwrap();
                for customer in customers {
                    self.model.put(customer);
                }
            }
            Call::Insert(customer) => {
                let inserted = self.customers().insert(customer);
                prop_assert_eq!(inserted.is_ok(), !self.model.customers.contains_key(&customer.id));
                self.model.customers.entry(customer.id).or_insert_with(|| customer.clone());
            }
            Call::Update(id, name) => {
                let key = CustomerPrimaryKey(*id);
                let updated = self.customers().update(&key, |customer| customer.name = (*name).into());
                if let Some(customer) = self.model.customers.get_mut(id) {
                    customer.name = (*name).into();
                }
                prop_assert_eq!(updated.unwrap(), self.model.customers.get(id).cloned());
            }
            Call::RemoveAll(name) => {
                let removed = self.customers().remove_all(Query::new().name(*name)).unwrap();
                let before = self.model.customers.len();
                self.model.customers.retain(|_, customer| customer.name != *name);
                prop_assert_eq!(removed, u64::try_from(before - self.model.customers.len()).unwrap());
            }
            Call::Remove(id) => {
                let removed = self.customers().remove(&CustomerPrimaryKey(*id)).unwrap();
                prop_assert_eq!(removed, self.model.customers.remove(id).is_some());
            }
            Call::Transaction { steps, commit, disturb } => {
                self.transaction(steps, *commit, disturb.as_ref())?;
            }
            Call::Reopen if self.place.is_on_disk() => {
                self.store = None;
                self.store = Some(self.place.open());
            }
            Call::Reopen => {}
        }
        Ok(())
    }

    fn transaction(&mut self, steps: &[Step], commit: bool, disturb: Option<&Customer>) -> TestCaseResult {
        let mut transaction = self.store().begin_write();
        let (mut after, mut written, mut read) = (self.model.clone(), Vec::new(), Vec::new());
        for step in steps {
            match step {
                Step::Put(customer) => {
                    transaction.put(customer).unwrap();
                    after.put(customer);
                    written.push(customer.id);
                }
                Step::PutVisit(visit) => {
                    transaction.put(visit).unwrap();
                    after.visits.insert((visit.page.clone(), visit.number), visit.clone());
                }
                Step::Remove(id) => {
                    transaction.remove(&CustomerPrimaryKey(*id)).unwrap();
                    after.customers.remove(id);
                    written.push(*id);
                }
                Step::Get(id) => {
                    let found = transaction.get(&CustomerPrimaryKey(*id)).unwrap();
                    prop_assert_eq!(found.as_ref(), after.customers.get(id));
                    if !written.contains(id) {
                        read.push(*id);
                    }
                }
            }
        }
        if let Some(customer) = disturb {
            self.customers().put(customer).unwrap();
            // A store without an identity cannot tell a record from its equal.
            let changed =
                self.store().author().is_some() || self.model.customers.get(&customer.id) != Some(customer);
            self.model.put(customer);
            if !written.contains(&customer.id) {
                after.put(customer);
            }
            if commit && changed && read.contains(&customer.id) {
                let outcome = transaction.commit();
                prop_assert!(
                    matches!(outcome, Err(StoreError::Write(WriteError::Conflict { .. }))),
                    "{:?}",
                    outcome
                );
                return Ok(());
            }
        }
        if commit {
            transaction.commit().unwrap();
            self.model = after;
        }
        Ok(())
    }

    /// Compares everything that can be read.
    fn check(&self) -> TestCaseResult {
        let (tree, model) = (self.customers(), &self.model.customers);
        let expected: Vec<_> = model.values().cloned().collect();
        prop_assert_eq!(tree.iter().unwrap().collect::<Result<Vec<_>, _>>().unwrap(), &expected[..]);
        let mut reverse: Vec<_> = tree.iter().unwrap().rev().map(Result::unwrap).collect();
        reverse.reverse();
        prop_assert_eq!(reverse, &expected[..]);
        prop_assert_eq!(tree.len().unwrap(), u64::try_from(model.len()).unwrap());
        prop_assert_eq!(
            self.store().local_records(None).unwrap().len(),
            model.len() + self.model.visits.len()
        );
        for id in [i64::MIN, -2, -1, 0, 1, 255, 256, i64::MAX] {
            let found = tree.get(&CustomerPrimaryKey(id)).unwrap();
            prop_assert_eq!(found.as_ref(), model.get(&id));
        }
        for name in ["", "a", "a\0", "b", "\u{1}"] {
            let found = tree.find(CustomerNameSecondaryKey(name.into())).unwrap();
            let expected: Vec<_> = model.values().filter(|customer| customer.name == name).cloned().collect();
            prop_assert_eq!(found, expected);
        }
        for city in ["", "x", "y"] {
            let found = tree.find(CustomerCitySecondaryKey(city.into())).unwrap();
            let of_city = |customer: &&Customer| customer.city.as_deref() == Some(city);
            prop_assert_eq!(found, model.values().filter(of_city).cloned().collect::<Vec<_>>());
        }
        let visits = self.store().open_tree::<Visit>().unwrap();
        let found: Vec<_> = visits.iter().unwrap().map(Result::unwrap).collect();
        prop_assert_eq!(found, self.model.visits.values().cloned().collect::<Vec<_>>());
        Ok(())
    }

    /// Closes the store and counts the entries of its tables.
    fn check_tables(mut self) -> TestCaseResult {
        self.store = None;
        let records = self.model.customers.len();
        let cities = self.model.customers.values().filter(|customer| customer.city.is_some()).count();
        if let Some(count) = counter(self.place) {
            prop_assert_eq!(count("index/Customer/name"), records);
            prop_assert_eq!(count("index/Customer/city"), cities);
            prop_assert_eq!(count("records/Customer"), records);
            prop_assert_eq!(count("schedule"), count("due"));
            if self.place.options.identity.is_some() {
                prop_assert_eq!(count("expiry"), records + self.model.visits.len());
                let all = records + self.model.visits.len() + count("tombstones");
                prop_assert_eq!(count("schedule"), all);
            } else {
                prop_assert_eq!(count("tombstones") + count("schedule") + count("expiry"), 0);
            }
        }
        Ok(())
    }
}

type Counter = Box<dyn Fn(&str) -> usize>;

/// Returns what counts the entries of a table of a closed database, by reading them.
fn counter(place: &Place) -> Option<Counter> {
    match place.options.backend {
        StorageBackend::Redb => {
            use redb::{ReadableDatabase, ReadableTable};
            let database = redb::Database::open(place.path()).unwrap();
            Some(Box::new(move |name| {
                let name = format!("5/{name}");
                let definition = redb::TableDefinition::<&[u8], &[u8]>::new(&name);
                let table = database.begin_read().unwrap().open_table(definition);
                table.map_or(0, |table| table.iter().unwrap().count())
            }))
        }
        StorageBackend::Sled => {
            let database = open_sled(&place.path());
            Some(Box::new(move |name| {
                let stored = format!("5/{name}");
                let prefix =
                    [&u16::try_from(stored.len()).unwrap().to_be_bytes(), stored.as_bytes()].concat();
                let counted = database.scan_prefix(prefix).count();
                let kept = database.get([b"\0\x085/counts", name.as_bytes()].concat()).unwrap();
                let kept = kept.map_or(0, |kept| u64::from_be_bytes(kept[..8].try_into().unwrap()));
                assert_eq!(u64::try_from(counted).unwrap(), kept, "{name}");
                counted
            }))
        }
        _ => None,
    }
}

/// Does the calls at a place and at a model, and compares the two.
pub fn run(mut place: Place, calls: &[Call]) -> TestCaseResult {
    // Nothing expires, but every version has an expiry time of its own.
    place.options.record_lifetime = Some(Duration::from_secs(3600));
    let mut pair = Pair::new(&place);
    for call in calls {
        pair.call(call)?;
        place.time.advance(Duration::from_millis(1));
    }
    pair.check()?;
    pair.check_tables()
}

/// A signed version of one of a few records.
pub fn a_version() -> impl Strategy<Value = (RecordKey, Envelope)> {
    let content = prop::option::weighted(0.7, a_customer());
    (1..4_u8, 0..4_u64, 0..3_i64, content).prop_map(|(author, time, id, content)| {
        let key = RecordKey::of(&CustomerPrimaryKey(id)).unwrap();
        let payload = content.map(|content| EncodedRecord::of(&Customer { id, ..content }).unwrap().payload);
        let timestamp = Timestamp::from_bits((START << 16) + time);
        (key.clone(), Envelope::sign(&identity(author), &key, timestamp, 0, payload.as_deref()))
    })
}

/// Everything that peers and users can see of three records.
pub fn state(store: &NetabaseStore) -> impl PartialEq + std::fmt::Debug + use<> {
    let tree = store.open_tree::<Customer>().unwrap();
    let envelopes: Vec<_> =
        (0..3).map(|id| store.envelope(&RecordKey::of(&CustomerPrimaryKey(id)).unwrap()).unwrap()).collect();
    let records: Vec<_> = tree.iter().unwrap().map(Result::unwrap).collect();
    let name = |name: &str| tree.find(CustomerNameSecondaryKey(name.into())).unwrap();
    let named: Vec<_> = ["", "a", "a\0", "b", "\u{1}"].map(name).into();
    let city = |city: &str| tree.find(CustomerCitySecondaryKey(city.into())).unwrap();
    let cities: Vec<_> = ["", "x", "y"].map(city).into();
    (envelopes, records, named, cities)
}

/// Delivers versions in the order that `order` says, and waits until they are on the disk.
pub fn deliver(store: &NetabaseStore, versions: &[(RecordKey, Envelope)], order: &[Index]) {
    for index in order {
        let (key, envelope) = index.get(versions);
        let _ = store.replica().admit(key.as_bytes(), envelope.as_bytes());
    }
    for (key, envelope) in versions {
        let _ = store.replica().admit(key.as_bytes(), envelope.as_bytes());
    }
    // The queue is in order: what was admitted before this is written before it.
    store.open_tree().unwrap().put(&visit("last", 1)).unwrap();
}
