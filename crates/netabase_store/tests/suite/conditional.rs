//! Writes that depend on what is there: inserts, updates, swaps, unique keys, transactions.

use std::collections::BTreeSet;
use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::Duration;

use netabase_store::admin::CheckOptions;
use netabase_store::schema::EncodedRecord;
use netabase_store::{
    Change, Envelope, NetabaseStore, RecordKey, StoreError, Timestamp, Tree, WatchFrom, WriteError,
};
use proptest::prelude::*;
use proptest::test_runner::{TestCaseResult, TestRunner};

use crate::common::chat::*;
use crate::common::tables;
use crate::common::{HeldWriter, PATIENCE, Place, identity, on_every_backend};

on_every_backend! {
    an_insert_takes_only_a_free_key,
    a_removed_or_expired_key_is_free,
    an_update_returns_what_it_stored,
    an_update_of_nothing_does_nothing,
    an_update_must_keep_the_primary_key,
    updates_at_the_same_time_lose_nothing,
    an_update_is_done_again_on_what_others_stored,
    updates_inside_updates_do_not_wait_for_each_other,
    a_swap_needs_the_expected_version,
    swaps_at_the_same_time_have_one_winner,
    a_unique_key_belongs_to_one_record,
    a_record_keeps_its_own_unique_keys,
    a_unique_key_that_was_given_up_is_free,
    a_unique_key_of_an_expired_record_is_free,
    a_unique_key_that_a_damaged_record_had_is_free,
    a_unique_key_is_taken_once_by_many_at_the_same_time,
    a_unique_key_passes_between_records_in_one_transaction,
    two_records_swap_their_unique_keys_in_one_batch,
    two_records_of_one_batch_cannot_share_a_unique_key,
    a_unique_key_of_a_put_that_was_replaced_in_its_batch_is_free,
    uniqueness_is_that_of_the_result,
    a_batch_that_fails_leaves_nothing_behind,
    batches_that_fail_do_not_harm_those_beside_them,
    submitted_writes_of_one_group_are_unique,
    a_peer_may_break_uniqueness_and_both_are_found,
    a_transaction_inserts_only_what_is_free,
    a_transaction_that_inserts_conflicts_with_another,
    a_failed_transaction_can_be_run_again,
}

fn open(place: &Place) -> (NetabaseStore, Tree<Account>) {
    let store = place.try_open::<ChatDefinition>().unwrap();
    let accounts = store.open_tree().unwrap();
    (store, accounts)
}

fn key(name: &str) -> AccountPrimaryKey {
    AccountPrimaryKey(name.into())
}

fn record_key(name: &str) -> RecordKey {
    RecordKey::of(&key(name)).unwrap()
}

fn by_email(accounts: &Tree<Account>, email: &str) -> Vec<String> {
    let found = accounts.find(AccountEmailSecondaryKey(email.into())).unwrap();
    found.into_iter().map(|account| account.name).collect()
}

fn by_alias(accounts: &Tree<Account>, alias: &str) -> Vec<String> {
    let found = accounts.find(AccountAliasesSecondaryKey(alias.into())).unwrap();
    found.into_iter().map(|account| account.name).collect()
}

#[track_caller]
fn assert_not_unique<T: std::fmt::Debug>(outcome: Result<T, StoreError>, index: &str, holder: &str) {
    match outcome {
        Err(StoreError::Write(WriteError::NotUnique { index: found, holder: by })) => {
            assert_eq!((found, by), (index, record_key(holder)));
        }
        outcome => panic!("{outcome:?}"),
    }
}

#[track_caller]
fn assert_conflict(outcome: &Result<(), StoreError>, name: &str) {
    assert!(
        matches!(outcome, Err(StoreError::Write(WriteError::Conflict { key })) if *key == record_key(name)),
        "{outcome:?}"
    );
}

/// Every change so far.
fn changes(store: &NetabaseStore) -> Vec<Change> {
    let mut changes = store.changes(WatchFrom::Oldest).unwrap();
    std::iter::from_fn(|| changes.try_next().unwrap()).map(|numbered| numbered.change).collect()
}

/// Compares what is kept beside the records with the records.
fn assert_consistent(accounts: &Tree<Account>) {
    let all: Vec<_> = accounts.iter().unwrap().map(Result::unwrap).collect();
    assert_eq!(accounts.len().unwrap(), u64::try_from(all.len()).unwrap());
    let sorted = |mut entries: Vec<(String, String)>| {
        entries.sort();
        entries
    };
    let entries = |keys: fn(&Account) -> Vec<String>| {
        let entries = all.iter().flat_map(|account| {
            let keys: BTreeSet<_> = keys(account).into_iter().collect();
            keys.into_iter().map(|key| (key, account.name.clone()))
        });
        sorted(entries.collect())
    };
    let names = |rows: Vec<Account>| rows.into_iter().map(|account| account.name).collect::<Vec<_>>();
    let expected = |keys| entries(keys).into_iter().map(|(_, name)| name).collect::<Vec<_>>();
    let (emails, aliases, cities) =
        (accounts.query().email(..), accounts.query().aliases(..), accounts.query().city(..));
    let of_email: fn(&Account) -> Vec<String> = |account| account.email.iter().cloned().collect();
    assert_eq!(names(emails.page().unwrap().records), expected(of_email));
    assert_eq!(names(aliases.page().unwrap().records), expected(|account| account.aliases.clone()));
    assert_eq!(names(cities.page().unwrap().records), expected(|account| vec![account.city.clone()]));
    let counts = [emails.count().unwrap(), aliases.count().unwrap(), cities.count().unwrap()];
    let lengths = [of_email, |account| account.aliases.clone(), |account| vec![account.city.clone()]];
    assert_eq!(counts, lengths.map(|keys| u64::try_from(entries(keys).len()).unwrap()));
}

fn an_insert_takes_only_a_free_key(place: &Place) {
    let (store, accounts) = open(place);
    accounts.insert(&account("ada", "a@x")).unwrap();
    let outcome = accounts.insert(&account("ada", "b@x"));
    assert!(
        matches!(&outcome, Err(StoreError::Write(WriteError::Exists { key })) if *key == record_key("ada")),
        "{outcome:?}"
    );
    assert_eq!(accounts.get(&key("ada")).unwrap(), Some(account("ada", "a@x")));
    assert_eq!(changes(&store).len(), 1);
    assert_consistent(&accounts);
}

fn a_removed_or_expired_key_is_free(place: &Place) {
    let mut place = place.elsewhere();
    place.options.record_lifetime = Some(Duration::from_secs(10));
    let (_store, accounts) = open(&place);
    accounts.insert(&account("ada", "a@x")).unwrap();
    accounts.remove(&key("ada")).unwrap();
    accounts.insert(&account("ada", "b@x")).unwrap();
    place.time.advance(Duration::from_secs(10));
    let signed = place.options.identity.is_some();
    assert_eq!(accounts.insert(&account("ada", "c@x")).is_ok(), signed, "unsigned records do not expire");
}

fn an_update_returns_what_it_stored(place: &Place) {
    let (_store, accounts) = open(place);
    accounts.put(&account("ada", "a@x")).unwrap();
    let updated = accounts.update(&key("ada"), |account| account.email = None).unwrap().unwrap();
    assert_eq!(accounts.get(&key("ada")).unwrap(), Some(updated.clone()));
    assert_eq!(updated, Account { email: None, ..account("ada", "") });
    assert_eq!(by_email(&accounts, "a@x"), [""; 0]);
    assert_consistent(&accounts);
}

fn an_update_of_nothing_does_nothing(place: &Place) {
    let (_store, accounts) = open(place);
    assert_eq!(accounts.update(&key("ada"), |_| panic!("there is nothing to change")).unwrap(), None);
    accounts.put(&account("ada", "a@x")).unwrap();
    accounts.remove(&key("ada")).unwrap();
    assert_eq!(accounts.update(&key("ada"), |_| panic!("there is nothing to change")).unwrap(), None);
    assert!(accounts.is_empty().unwrap());
}

fn an_update_must_keep_the_primary_key(place: &Place) {
    let (_store, accounts) = open(place);
    accounts.put(&account("ada", "a@x")).unwrap();
    let outcome = accounts.update(&key("ada"), |account| account.name = "eve".into());
    assert!(
        matches!(&outcome, Err(StoreError::Write(WriteError::KeyChanged { key })) if *key == record_key("ada")),
        "{outcome:?}"
    );
    assert_eq!(accounts.len().unwrap(), 1);
}

fn updates_at_the_same_time_lose_nothing(place: &Place) {
    let (threads, times) = (24, 50);
    let (_store, accounts) = open(place);
    accounts.put(&account("ada", "a@x")).unwrap();
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                for _ in 0..times {
                    accounts.update(&key("ada"), |account| account.visits += 1).unwrap().unwrap();
                }
            });
        }
    });
    assert_eq!(accounts.get(&key("ada")).unwrap().unwrap().visits, threads * times);
    assert_consistent(&accounts);
}

fn an_update_is_done_again_on_what_others_stored(place: &Place) {
    let (_store, accounts) = open(place);
    accounts.put(&account("ada", "a@x")).unwrap();
    let mut seen = Vec::new();
    let updated = accounts.update(&key("ada"), |record| {
        seen.push(record.visits);
        if seen.len() < 4 {
            accounts.put(&Account { visits: record.visits + 10, ..account("ada", "b@x") }).unwrap();
        }
        record.visits += 1;
    });
    assert_eq!(seen, [0, 10, 20, 30]);
    assert_eq!(updated.unwrap().unwrap(), Account { visits: 31, ..account("ada", "b@x") });
    // A record that is removed in the meantime is not restored.
    let updated = accounts.update(&key("ada"), |_| assert!(accounts.remove(&key("ada")).unwrap()));
    assert_eq!(updated.unwrap(), None);
    assert!(accounts.is_empty().unwrap());
}

fn updates_inside_updates_do_not_wait_for_each_other(place: &Place) {
    let (_store, accounts) = open(place);
    accounts.put_many(&[account("ada", "a@x"), account("eve", "e@x")]).unwrap();
    // Both meet a conflict each time they are called first, so both go on in turn.
    let disturb = |name: &str, visits| accounts.put(&Account { visits, ..account(name, name) }).unwrap();
    let mut calls = (0, 0);
    accounts
        .update(&key("ada"), |ada| {
            calls.0 += 1;
            if calls.0 == 1 {
                return disturb("ada", 1);
            }
            let eve = accounts.update(&key("eve"), |eve| {
                calls.1 += 1;
                if calls.1 == 1 {
                    disturb("eve", 1);
                }
                eve.visits += 1;
            });
            ada.visits += eve.unwrap().unwrap().visits;
        })
        .unwrap();
    assert_eq!(calls, (2, 2));
    assert_eq!(accounts.get(&key("ada")).unwrap().unwrap().visits, 3);
}

fn a_swap_needs_the_expected_version(place: &Place) {
    let (store, accounts) = open(place);
    let swap =
        |visits, expected| accounts.compare_and_swap(&Account { visits, ..account("ada", "a@x") }, expected);
    swap(1, None).unwrap();
    let first = accounts.entry(&key("ada")).unwrap().unwrap();
    assert_eq!((first.record.visits, first.author()), (1, store.author()));
    assert_conflict(&swap(2, None), "ada");
    swap(2, Some(first.content_hash())).unwrap();
    assert_conflict(&swap(3, Some(first.content_hash())), "ada");
    let second = accounts.entry(&key("ada")).unwrap().unwrap();
    accounts.remove(&key("ada")).unwrap();
    assert_conflict(&swap(3, Some(second.content_hash())), "ada");
    swap(4, None).unwrap();
    assert_eq!(accounts.get(&key("ada")).unwrap().unwrap().visits, 4);
    assert_eq!(changes(&store).len(), 4);
}

fn swaps_at_the_same_time_have_one_winner(place: &Place) {
    let (_store, accounts) = open(place);
    let swap = |visits| accounts.compare_and_swap(&Account { visits, ..account("ada", "a@x") }, None);
    let outcomes: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|visits| scope.spawn(move || swap(visits))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let won: Vec<_> =
        (0..).zip(&outcomes).filter(|(_, outcome)| outcome.is_ok()).map(|(won, _)| won).collect();
    assert_eq!(won, [accounts.get(&key("ada")).unwrap().unwrap().visits]);
    for outcome in outcomes.into_iter().filter(Result::is_err) {
        assert_conflict(&outcome, "ada");
    }
}

fn a_unique_key_belongs_to_one_record(place: &Place) {
    let (store, accounts) = open(place);
    let with_aliases = |name: &str, aliases: &[&str]| Account {
        email: None,
        aliases: aliases.iter().map(|alias| (*alias).to_owned()).collect(),
        ..account(name, "")
    };
    accounts.put(&account("ada", "a@x")).unwrap();
    accounts.put(&with_aliases("bob", &["b", "robert", "b"])).unwrap();
    assert_not_unique(accounts.put(&account("eve", "a@x")), "email", "ada");
    assert_not_unique(accounts.insert(&account("eve", "a@x")), "email", "ada");
    assert_not_unique(accounts.put(&with_aliases("eve", &["e", "robert"])), "aliases", "bob");
    let mut transaction = store.begin_write();
    transaction.put(&account("eve", "a@x")).unwrap();
    assert_not_unique(transaction.commit(), "email", "ada");
    accounts.put(&account("eve", "e@x")).unwrap();
    let update = accounts.update(&key("eve"), |eve| eve.email = Some("a@x".into()));
    assert_not_unique(update, "email", "ada");
    let expected = accounts.entry(&key("eve")).unwrap().unwrap().content_hash();
    assert_not_unique(accounts.compare_and_swap(&account("eve", "a@x"), Some(expected)), "email", "ada");
    // Neither a key that another begins nor nothing at all is the same key.
    accounts.put(&account("eve", "a@")).unwrap();
    accounts.put(&account("fay", "a@x\0")).unwrap();
    accounts.put_many(&[with_aliases("nil", &[]), with_aliases("non", &[])]).unwrap();
    assert_eq!(by_email(&accounts, "a@x"), ["ada"]);
    assert_eq!(by_alias(&accounts, "robert"), ["bob"]);
    assert_consistent(&accounts);
}

fn a_record_keeps_its_own_unique_keys(place: &Place) {
    let (_store, accounts) = open(place);
    for visits in 0..3 {
        accounts.put(&Account { visits, ..account("ada", "a@x") }).unwrap();
    }
    accounts.put_many(&[account("ada", "a@x"), account("ada", "b@x"), account("ada", "a@x")]).unwrap();
    accounts.update(&key("ada"), |account| account.visits = 9).unwrap();
    assert_eq!(accounts.get(&key("ada")).unwrap(), Some(Account { visits: 9, ..account("ada", "a@x") }));
    assert_consistent(&accounts);
}

fn a_unique_key_that_was_given_up_is_free(place: &Place) {
    let (_store, accounts) = open(place);
    accounts.put(&account("ada", "a@x")).unwrap();
    accounts.remove(&key("ada")).unwrap();
    accounts.put(&account("bob", "a@x")).unwrap();
    accounts.put(&account("bob", "b@x")).unwrap();
    accounts.put(&account("cat", "a@x")).unwrap();
    accounts.update(&key("cat"), |cat| cat.email = None).unwrap();
    accounts.put(&account("ada", "a@x")).unwrap();
    assert_eq!(by_email(&accounts, "a@x"), ["ada"]);
    assert_eq!(accounts.remove_all(netabase_store::Query::new().email(..)).unwrap(), 2);
    accounts.put(&account("dan", "b@x")).unwrap();
    assert_consistent(&accounts);
}

fn a_unique_key_of_an_expired_record_is_free(place: &Place) {
    let mut place = place.elsewhere();
    if place.options.identity.is_none() {
        return;
    }
    place.options.record_lifetime = Some(Duration::from_secs(10));
    let (store, accounts) = open(&place);
    let (sender, receiver) = sync_channel(3);
    let submit = |name: &str, email: &str| {
        let (sender, record) = (sender.clone(), EncodedRecord::of(&account(name, email)).unwrap());
        store.replica().submit(&record, move |result| sender.send(result).unwrap()).unwrap();
    };
    // One group, so that no sweep comes between the record that expires and the next one.
    let held = HeldWriter::hold(&store, |_| submit("zoe", "z@x"));
    submit("ada", "a@x");
    place.time.advance(Duration::from_secs(5));
    submit("bob", "a@x");
    place.time.advance(Duration::from_secs(5));
    assert_eq!(accounts.get(&key("ada")).unwrap(), None);
    held.release();
    for _ in 0..3 {
        receiver.recv_timeout(PATIENCE).unwrap().unwrap();
    }
    assert_eq!(by_email(&accounts, "a@x"), ["bob"]);
}

fn a_unique_key_that_a_damaged_record_had_is_free(place: &Place) {
    if !place.is_on_disk() {
        return;
    }
    open(place).1.put(&account("ada", "a@x")).unwrap();
    tables::rewrite(place, |tables| {
        let records = tables.iter_mut().filter(|((table, _), _)| table == "records/Account");
        records.for_each(|(_, envelope)| envelope.truncate(1));
    });
    let (_store, accounts) = open(place);
    // Nobody knows any more which entries of indexes the damaged record had.
    accounts.put(&account("ada", "b@x")).unwrap();
    accounts.put(&account("bob", "a@x")).unwrap();
    assert_eq!(
        (by_email(&accounts, "a@x"), by_email(&accounts, "b@x")),
        (vec!["bob".into()], vec!["ada".into()])
    );
    assert_not_unique(accounts.put(&account("cat", "a@x")), "email", "bob");
}

fn a_unique_key_is_taken_once_by_many_at_the_same_time(place: &Place) {
    let (_store, accounts) = open(place);
    let names: Vec<_> = (0..8).map(|thread| format!("u{thread}")).collect();
    for email in ["a@x", "b@x", "c@x", "d@x"] {
        let outcomes: Vec<_> = thread::scope(|scope| {
            let put = |name| accounts.put(&account(name, email));
            let threads: Vec<_> = names.iter().map(|name| scope.spawn(move || put(name))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let holder = by_email(&accounts, email);
        assert_eq!(holder.len(), 1);
        let won: Vec<_> = names.iter().zip(&outcomes).filter(|(_, outcome)| outcome.is_ok()).collect();
        assert_eq!((won.len(), won[0].0), (1, &holder[0]));
        for outcome in outcomes.into_iter().filter(Result::is_err) {
            assert_not_unique(outcome, "email", &holder[0]);
        }
    }
    assert_consistent(&accounts);
}

fn a_unique_key_passes_between_records_in_one_transaction(place: &Place) {
    let (store, accounts) = open(place);
    accounts.put(&account("m", "a@x")).unwrap();
    // The writes of a transaction are in the order of their keys, whatever the order of the calls.
    for (from, to) in [("m", "z"), ("z", "a"), ("a", "m")] {
        let mut transaction = store.begin_write();
        transaction.put(&account(to, "a@x")).unwrap();
        transaction.remove(&key(from)).unwrap();
        transaction.commit().unwrap();
        assert_eq!(by_email(&accounts, "a@x"), [to]);
        let mut transaction = store.begin_write();
        transaction.put(&account(from, "a@x")).unwrap();
        transaction.put(&account(to, "other@x")).unwrap();
        transaction.commit().unwrap();
        assert_eq!(
            (by_email(&accounts, "a@x"), by_email(&accounts, "other@x")),
            (vec![from.into()], vec![to.into()])
        );
        accounts.put_many(&[account(to, "a@x"), Account { email: None, ..account(from, "") }]).unwrap();
        accounts.remove(&key(from)).unwrap();
        assert_consistent(&accounts);
    }
}

fn two_records_swap_their_unique_keys_in_one_batch(place: &Place) {
    let (_store, accounts) = open(place);
    accounts.put_many(&[account("ada", "1"), account("bob", "2"), account("cat", "3")]).unwrap();
    accounts.put_many(&[account("ada", "2"), account("bob", "1")]).unwrap();
    assert_eq!(
        (by_email(&accounts, "1"), by_email(&accounts, "2")),
        (vec!["bob".into()], vec!["ada".into()])
    );
    accounts.put_many(&[account("ada", "3"), account("bob", "2"), account("cat", "1")]).unwrap();
    assert_eq!(["1", "2", "3"].map(|email| by_email(&accounts, email).concat()), ["cat", "bob", "ada"]);
    assert_not_unique(accounts.put_many(&[account("ada", "1"), account("bob", "3")]), "email", "cat");
    assert_eq!(["1", "2", "3"].map(|email| by_email(&accounts, email).concat()), ["cat", "bob", "ada"]);
    assert_consistent(&accounts);
}

fn two_records_of_one_batch_cannot_share_a_unique_key(place: &Place) {
    let (_store, accounts) = open(place);
    accounts.put_many(&[account("ada", "1"), account("bob", "1")]).unwrap_err();
    assert!(accounts.is_empty().unwrap());
    assert_consistent(&accounts);
}

fn a_unique_key_of_a_put_that_was_replaced_in_its_batch_is_free(place: &Place) {
    let (_store, accounts) = open(place);
    accounts.put(&account("bob", "1")).unwrap();
    accounts.put_many(&[account("ada", "1"), account("ada", "2")]).unwrap();
    assert_eq!(
        (by_email(&accounts, "1"), by_email(&accounts, "2")),
        (vec!["bob".into()], vec!["ada".into()])
    );
    assert_consistent(&accounts);
}

/// The writes of a batch to some of a few accounts; `None` removes one.
type Writes = Vec<(usize, Option<Account>)>;

fn a_batch() -> impl Strategy<Value = Writes> {
    let email = prop::option::of(prop::sample::select(vec!["1", "2", "3"]));
    let aliases = prop::collection::vec(prop::sample::select(vec!["x", "y", "z"]), 0..3);
    let write = (0..4_usize, prop::option::weighted(0.8, (email, aliases)));
    let write = write.prop_map(|(name, content)| {
        let content = content.map(|(email, aliases)| Account {
            email: email.map(Into::into),
            aliases: aliases.into_iter().map(Into::into).collect(),
            ..account(NAMES[name], "")
        });
        (name, content)
    });
    prop::collection::vec(write, 1..6)
}

const NAMES: [&str; 4] = ["ada", "bob", "cat", "dan"];

fn is_unique(accounts: &[Option<Account>; 4]) -> bool {
    let mut taken = BTreeSet::new();
    accounts.iter().flatten().all(|account| {
        let aliases: BTreeSet<_> = account.aliases.iter().map(|alias| (1, alias)).collect();
        account.email.iter().map(|email| (0, email)).chain(aliases).all(|key| taken.insert(key))
    })
}

/// A batch succeeds if and only if its result is unique, and fails whole.
fn uniqueness_is_that_of_the_result(place: &Place) {
    let config = ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() };
    let batches = prop::collection::vec((a_batch(), any::<bool>()), 1..12);
    let run = |batches: Vec<(Writes, bool)>| -> TestCaseResult {
        let place = place.elsewhere();
        let (store, accounts) = open(&place);
        let mut model = [const { None }; 4];
        for (batch, one_by_one) in batches {
            let mut after = model.clone();
            if one_by_one {
                let (name, content) = batch[0].clone();
                after[name].clone_from(&content);
                let outcome = match content {
                    Some(content) => accounts.put(&content),
                    None => accounts.remove(&key(NAMES[name])).map(drop),
                };
                prop_assert_eq!(outcome.is_ok(), is_unique(&after), "{:?}", outcome);
            } else {
                let mut transaction = store.begin_write();
                for (name, content) in batch {
                    match &content {
                        Some(content) => transaction.put(content).unwrap(),
                        None => transaction.remove(&key(NAMES[name])).unwrap(),
                    }
                    after[name] = content;
                }
                let outcome = transaction.commit();
                prop_assert_eq!(outcome.is_ok(), is_unique(&after), "{:?}", outcome);
            }
            if is_unique(&after) {
                model = after;
            }
            for (name, expected) in NAMES.iter().zip(&model) {
                prop_assert_eq!(&accounts.get(&key(name)).unwrap(), expected);
            }
            assert_consistent(&accounts);
        }
        Ok(())
    };
    TestRunner::new(config).run(&batches, run).unwrap();
}

fn a_batch_that_fails_leaves_nothing_behind(place: &Place) {
    let (store, accounts) = open(place);
    accounts.put_many(&[account("ada", "1"), account("bob", "2"), account("cat", "3")]).unwrap();
    let before: Vec<_> = accounts.iter().unwrap().map(Result::unwrap).collect();
    let envelopes = || NAMES.map(|name| store.envelope(&record_key(name)).unwrap());
    let (stored, seen, due) = (envelopes(), changes(&store).len(), store.replica().due(99).unwrap());
    let mut transaction = store.begin_write();
    transaction.put(&Account { city: "Rome".into(), ..account("ada", "4") }).unwrap();
    transaction.remove(&key("bob")).unwrap();
    transaction.put(&account("dan", "5")).unwrap();
    transaction.put(&account("eve", "3")).unwrap();
    transaction.put(&message(1, "hall")).unwrap();
    assert_not_unique(transaction.commit(), "email", "cat");
    assert_eq!(accounts.iter().unwrap().map(Result::unwrap).collect::<Vec<_>>(), before);
    assert_eq!((envelopes(), changes(&store).len(), store.replica().due(99).unwrap()), (stored, seen, due));
    assert!(store.open_tree::<Message>().unwrap().is_empty().unwrap());
    assert_eq!(accounts.query().city("Rome").count().unwrap(), 0);
    assert_consistent(&accounts);
    accounts.put_many(&[account("dan", "4"), account("eve", "5")]).unwrap();
    if place.is_on_disk() {
        drop((store, accounts));
        let (_store, accounts) = open(place);
        assert_eq!(accounts.len().unwrap(), 5);
        assert_consistent(&accounts);
    }
}

fn batches_that_fail_do_not_harm_those_beside_them(place: &Place) {
    let (store, accounts) = open(place);
    accounts.put(&account("taken", "taken")).unwrap();
    let rounds = 20;
    thread::scope(|scope| {
        for thread in 0..4 {
            let accounts = &accounts;
            scope.spawn(move || {
                for round in 0..rounds {
                    let name = |part: &str| format!("{thread}-{round}-{part}");
                    let good = ["a", "b"].map(|part| account(&name(part), &name(part)));
                    let bad = [account(&name("c"), &name("c")), account(&name("d"), "taken")];
                    accounts.put_many(&good).unwrap();
                    assert_not_unique(accounts.put_many(&bad), "email", "taken");
                    assert!(accounts.remove(&key(&name("b"))).unwrap());
                }
            });
        }
    });
    assert_eq!(accounts.len().unwrap(), 1 + 4 * rounds);
    assert_eq!(changes(&store).len(), 1 + 4 * usize::try_from(rounds).unwrap() * 3);
    assert_consistent(&accounts);
}

fn submitted_writes_of_one_group_are_unique(place: &Place) {
    let (store, accounts) = open(place);
    let submit = |store: &NetabaseStore, name: &str, email: &str| {
        let (sender, receiver) = sync_channel(1);
        let record = EncodedRecord::of(&account(name, email)).unwrap();
        store.replica().submit(&record, move |result| sender.send(result).unwrap()).unwrap();
        receiver
    };
    let held = HeldWriter::hold(&store, |store| drop(submit(store, "ada", "1")));
    let before = store.counters().commits;
    let answers = [("bob", "2"), ("cat", "2"), ("bob", "3"), ("dan", "2")]
        .map(|(name, email)| submit(&store, name, email));
    held.release();
    let [bob, cat, again, dan] = answers.map(|answer| answer.recv_timeout(PATIENCE).unwrap());
    assert_eq!(store.counters().commits - before, 1);
    bob.unwrap();
    assert_not_unique(cat, "email", "bob");
    again.unwrap();
    dan.unwrap();
    assert_eq!(["1", "2", "3"].map(|email| by_email(&accounts, email).concat()), ["ada", "dan", "bob"]);
    assert_consistent(&accounts);
}

/// Delivers a peer's version and waits until it is written.
fn deliver(store: &NetabaseStore, place: &Place, record: &Account) -> Envelope {
    let key = record_key(&record.name);
    let payload = EncodedRecord::of(record).unwrap().payload;
    let timestamp = Timestamp::from_unix_millis(place.time.now() + 1_000);
    let envelope = Envelope::sign(&identity(9), &key, timestamp, 0, Some(&payload));
    assert_eq!(store.replica().admit(key.as_bytes(), envelope.as_bytes()), Ok(true));
    store.flush().unwrap();
    envelope
}

fn a_peer_may_break_uniqueness_and_both_are_found(place: &Place) {
    let (store, accounts) = open(place);
    accounts.put(&account("bob", "1")).unwrap();
    let envelope = deliver(&store, place, &account("eve", "1"));
    assert_eq!(store.envelope(&record_key("eve")).unwrap(), Some(envelope));
    assert_eq!(by_email(&accounts, "1"), ["bob", "eve"]);
    deliver(&store, place, &account("ada", "1"));
    assert_eq!(by_email(&accounts, "1"), ["ada", "bob", "eve"]);
    // A record keeps its unique value, alone and in a batch, and no other record gets it.
    accounts.update(&key("eve"), |eve| eve.visits += 1).unwrap();
    accounts.put_many(&[account("bob", "1"), account("ada", "1")]).unwrap();
    assert_eq!(by_email(&accounts, "1"), ["ada", "bob", "eve"]);
    assert_not_unique(accounts.put(&account("cat", "1")), "email", "ada");
    assert_not_unique(accounts.put_many(&[account("bob", "1"), account("cat", "1")]), "email", "ada");
    let report = store.check(CheckOptions::default()).unwrap();
    assert_eq!((report.total_problems, report.faults), (2, 0), "the conflict is listed, {report:?}");
    accounts.put_many(&[account("bob", "2"), account("ada", "3")]).unwrap();
    accounts.update(&key("eve"), |eve| eve.visits += 1).unwrap();
    assert_eq!(by_email(&accounts, "1"), ["eve"]);
    assert_consistent(&accounts);
}

fn a_transaction_inserts_only_what_is_free(place: &Place) {
    let (store, accounts) = open(place);
    accounts.put(&account("ada", "1")).unwrap();
    let mut transaction = store.begin_write();
    let outcome = transaction.insert(&account("ada", "2"));
    assert!(
        matches!(&outcome, Err(StoreError::Write(WriteError::Exists { key })) if *key == record_key("ada")),
        "{outcome:?}"
    );
    transaction.insert(&account("bob", "2")).unwrap();
    transaction.insert(&account("bob", "3")).unwrap_err();
    transaction.remove(&key("bob")).unwrap();
    transaction.insert(&account("bob", "4")).unwrap();
    transaction.remove(&key("ada")).unwrap();
    transaction.insert(&account("ada", "5")).unwrap();
    transaction.commit().unwrap();
    assert_eq!(
        (by_email(&accounts, "4"), by_email(&accounts, "5")),
        (vec!["bob".into()], vec!["ada".into()])
    );
    assert_consistent(&accounts);
}

fn a_transaction_that_inserts_conflicts_with_another(place: &Place) {
    let (store, accounts) = open(place);
    let mut transactions = [store.begin_write(), store.begin_write()];
    for (transaction, email) in transactions.iter_mut().zip(["1", "2"]) {
        transaction.insert(&account("ada", email)).unwrap();
        transaction.put(&message(email.parse().unwrap(), "hall")).unwrap();
    }
    let [first, second] = transactions;
    first.commit().unwrap();
    assert_conflict(&second.commit(), "ada");
    assert_eq!(by_email(&accounts, "1"), ["ada"]);
    assert_eq!(store.open_tree::<Message>().unwrap().len().unwrap(), 1);
}

fn a_failed_transaction_can_be_run_again(place: &Place) {
    let (threads, times) = (4, 15);
    let (store, accounts) = open(place);
    accounts.put_many(&[account("ada", "1"), account("bob", "2")]).unwrap();
    let transfer = || loop {
        let mut transaction = store.begin_write();
        for name in ["ada", "bob"] {
            let record = transaction.get(&key(name)).unwrap().unwrap();
            transaction.put(&Account { visits: record.visits + 1, ..record }).unwrap();
        }
        match transaction.commit() {
            Err(StoreError::Write(WriteError::Conflict { .. })) => {}
            outcome => return outcome.unwrap(),
        }
    };
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| (0..times).for_each(|_| transfer()));
        }
    });
    for name in ["ada", "bob"] {
        assert_eq!(accounts.get(&key(name)).unwrap().unwrap().visits, threads * times);
    }
}
