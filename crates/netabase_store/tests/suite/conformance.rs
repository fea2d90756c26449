//! The suite that runs on all backends, with and without an identity.

use netabase_store::schema::{EncodedRecord, IndexKeys};
use netabase_store::{PrimaryKey, RecordKey, RecordKeyError, StoreError, Tree, WriteError};

use crate::common::*;

on_every_backend! {
    a_record_comes_back,
    a_record_replaces_the_one_before,
    a_removed_record_is_gone,
    a_removal_of_nothing_leaves_nothing,
    many_records_go_and_come_back_in_one_call,
    put_many_stores_all_records_or_none,
    the_last_of_two_records_in_one_call_counts,
    records_are_iterated_in_key_order_and_in_reverse,
    both_ends_of_an_iteration_meet,
    a_compound_key_is_ordered_part_by_part,
    records_are_found_by_secondary_key,
    a_secondary_key_finds_no_other_that_it_begins,
    a_replaced_record_is_not_found_by_its_old_secondary_key,
    a_removed_record_is_not_found,
    a_record_that_was_removed_and_put_again_is_there,
    an_empty_store_has_nothing,
    models_do_not_mix,
    a_transaction_writes_to_several_models,
    a_transaction_reads_its_own_writes,
    a_dropped_transaction_does_nothing,
    a_transaction_with_a_refused_write_leaves_the_others_alone,
    a_transaction_conflicts_if_what_it_read_was_changed,
    a_transaction_conflicts_if_what_it_missed_was_put,
    a_transaction_conflicts_if_what_it_read_was_removed,
    a_transaction_that_read_nothing_wins_over_an_earlier_commit,
    a_value_over_the_limit_is_refused_with_its_size,
    a_secondary_key_over_the_limit_is_refused_with_its_name,
    a_record_with_too_many_secondary_keys_is_refused_with_their_number,
    a_primary_key_over_the_limit_is_refused,
    an_iteration_sees_what_was_there_when_it_began,
    clones_share_a_store,
    threads_write_at_the_same_time,
}

/// Neither the first nor the second removal, alone or in a transaction, is one of something.
fn a_removal_of_nothing_leaves_nothing(place: &Place) {
    let store = place.open();
    let customers = store.open_tree::<Customer>().unwrap();
    let key = CustomerPrimaryKey(1);
    let envelope = || store.envelope(&RecordKey::of(&key).unwrap()).unwrap();
    let remove = || {
        let mut transaction = store.begin_write();
        transaction.remove(&key).unwrap();
        transaction.commit().unwrap();
        customers.remove(&key).unwrap()
    };
    assert!(!remove());
    assert_eq!(envelope(), None);
    customers.put(&customer(1, "Ada")).unwrap();
    assert!(customers.remove(&key).unwrap());
    let removed = envelope();
    assert_eq!(removed.is_some(), store.author().is_some());
    assert!(!remove());
    assert_eq!(envelope(), removed, "the first removal stays");
}

fn customers(place: &Place) -> Tree<Customer> {
    place.open().open_tree().unwrap()
}

fn all<M: netabase_store::NetabaseModel>(tree: &Tree<M>) -> Vec<M> {
    tree.iter().unwrap().collect::<Result<_, _>>().unwrap()
}

fn by_name(tree: &Tree<Customer>, name: &str) -> Vec<i64> {
    let found = tree.find(CustomerNameSecondaryKey(name.into())).unwrap();
    found.into_iter().map(|customer| customer.id).collect()
}

fn by_city(tree: &Tree<Customer>, city: &str) -> Vec<i64> {
    let found = tree.find(CustomerCitySecondaryKey(city.into())).unwrap();
    found.into_iter().map(|customer| customer.id).collect()
}

fn a_record_comes_back(place: &Place) {
    let tree = customers(place);
    let ada = customer(-1, "Ada");
    tree.put(&ada).unwrap();
    assert_eq!(tree.get(&CustomerPrimaryKey(-1)).unwrap(), Some(ada));
    assert_eq!(tree.get(&CustomerPrimaryKey(1)).unwrap(), None);
    assert!(tree.contains(&CustomerPrimaryKey(-1)).unwrap());
    assert!(!tree.contains(&CustomerPrimaryKey(1)).unwrap());
    assert_eq!(tree.len().unwrap(), 1);
}

fn a_record_replaces_the_one_before(place: &Place) {
    let tree = customers(place);
    tree.put(&customer(1, "Ada")).unwrap();
    tree.put(&customer(1, "Grace")).unwrap();
    assert_eq!(all(&tree), [customer(1, "Grace")]);
    assert_eq!(tree.len().unwrap(), 1);
}

fn a_removed_record_is_gone(place: &Place) {
    let tree = customers(place);
    tree.put_many(&[customer(1, "Ada"), customer(2, "Grace")]).unwrap();
    assert!(tree.remove(&CustomerPrimaryKey(1)).unwrap());
    assert!(!tree.remove(&CustomerPrimaryKey(1)).unwrap());
    assert!(!tree.remove(&CustomerPrimaryKey(3)).unwrap());
    assert_eq!(tree.get(&CustomerPrimaryKey(1)).unwrap(), None);
    assert!(!tree.contains(&CustomerPrimaryKey(1)).unwrap());
    assert_eq!(all(&tree), [customer(2, "Grace")]);
    assert_eq!(tree.len().unwrap(), 1);
}

fn many_records_go_and_come_back_in_one_call(place: &Place) {
    let tree = customers(place);
    let records: Vec<_> = (0..100).map(|id| customer(id, "Ada")).collect();
    tree.put_many(&records).unwrap();
    tree.put_many(&[]).unwrap();
    let keys = [7, -1, 99, 7].map(CustomerPrimaryKey);
    let found = tree.get_many(&keys).unwrap();
    let expected = [Some(customer(7, "Ada")), None, Some(customer(99, "Ada")), Some(customer(7, "Ada"))];
    assert_eq!(found, expected);
    assert_eq!(tree.len().unwrap(), 100);
}

fn put_many_stores_all_records_or_none(place: &Place) {
    let tree = customers(place);
    let too_long = customer(2, &"x".repeat(IndexKeys::MAX_KEY_BYTES));
    tree.put_many(&[customer(1, "Ada"), too_long]).unwrap_err();
    assert!(tree.is_empty().unwrap());
}

fn the_last_of_two_records_in_one_call_counts(place: &Place) {
    let tree = customers(place);
    tree.put_many(&[customer(1, "Ada"), customer(1, "Grace")]).unwrap();
    assert_eq!(all(&tree), [customer(1, "Grace")]);
    assert_eq!((by_name(&tree, "Ada"), by_name(&tree, "Grace")), (vec![], vec![1]));
}

fn records_are_iterated_in_key_order_and_in_reverse(place: &Place) {
    let tree = customers(place);
    let ids = [300, -1, i64::MIN, 0, i64::MAX, 256, -300, 255];
    tree.put_many(&ids.map(|id| customer(id, "Ada"))).unwrap();
    let ascending = [i64::MIN, -300, -1, 0, 255, 256, 300, i64::MAX].map(|id| customer(id, "Ada"));
    assert_eq!(all(&tree), ascending);
    let mut descending: Vec<_> = tree.iter().unwrap().rev().map(Result::unwrap).collect();
    descending.reverse();
    assert_eq!(descending, ascending);
}

fn both_ends_of_an_iteration_meet(place: &Place) {
    let tree = customers(place);
    tree.put_many(&[1, 2, 3].map(|id| customer(id, "Ada"))).unwrap();
    let mut records = tree.iter().unwrap().map(|record| record.unwrap().id);
    let met = [records.next(), records.next_back(), records.next(), records.next_back(), records.next()];
    assert_eq!(met, [Some(1), Some(3), Some(2), None, None]);
}

fn a_compound_key_is_ordered_part_by_part(place: &Place) {
    let tree = place.open().open_tree::<Visit>().unwrap();
    let ordered = [("", 9), ("a", 256), ("a", 300), ("a\0", 0), ("a\0b", 1), ("ab", 0), ("b", 2)];
    let visits = ordered.map(|(page, number)| visit(page, number));
    tree.put_many(visits.iter().rev()).unwrap();
    assert_eq!(all(&tree), visits);
    assert_eq!(tree.get(&VisitPrimaryKey("a\0".into(), 0)).unwrap(), Some(visit("a\0", 0)));
    assert!(tree.remove(&VisitPrimaryKey("a".into(), 256)).unwrap());
    assert_eq!(tree.len().unwrap(), 6);
}

fn records_are_found_by_secondary_key(place: &Place) {
    let tree = customers(place);
    let in_city = |id, name, city: &str| Customer { city: Some(city.into()), ..customer(id, name) };
    let records = [
        in_city(5, "Ada", "London"),
        in_city(-5, "Ada", "Paris"),
        in_city(3, "Grace", "Paris"),
        customer(4, "Ada"),
    ];
    tree.put_many(&records).unwrap();
    assert_eq!(by_name(&tree, "Ada"), [-5, 4, 5], "in the order of the primary keys");
    assert!(by_name(&tree, "Nobody").is_empty());
    assert_eq!(by_city(&tree, "Paris"), [-5, 3]);
    assert!(by_city(&tree, "").is_empty(), "a customer without a city is not found by city");
    let found = tree.find(CustomerSecondaryKeys::Name("Grace".to_owned().into())).unwrap();
    assert_eq!(found, [in_city(3, "Grace", "Paris")]);
}

fn a_secondary_key_finds_no_other_that_it_begins(place: &Place) {
    let tree = customers(place);
    let names = ["", "a", "a\0", "a\u{1}", "ab", "\u{10ffff}"];
    let records: Vec<_> = (0..).zip(names).map(|(id, name)| customer(id, name)).collect();
    tree.put_many(&records).unwrap();
    for (id, name) in (0..).zip(names) {
        assert_eq!(by_name(&tree, name), [id], "{name:?}");
    }
}

fn a_replaced_record_is_not_found_by_its_old_secondary_key(place: &Place) {
    let tree = customers(place);
    tree.put(&Customer { city: Some("Paris".into()), ..customer(1, "Ada") }).unwrap();
    tree.put(&Customer { city: Some("Paris".into()), ..customer(1, "Grace") }).unwrap();
    assert_eq!((by_name(&tree, "Ada"), by_name(&tree, "Grace")), (vec![], vec![1]));
    assert_eq!(by_city(&tree, "Paris"), [1]);
    tree.put(&customer(1, "Grace")).unwrap();
    assert!(by_city(&tree, "Paris").is_empty());
}

fn a_removed_record_is_not_found(place: &Place) {
    let tree = customers(place);
    tree.put_many(&[customer(1, "Ada"), customer(2, "Ada")]).unwrap();
    tree.remove(&CustomerPrimaryKey(1)).unwrap();
    assert_eq!(by_name(&tree, "Ada"), [2]);
}

fn a_record_that_was_removed_and_put_again_is_there(place: &Place) {
    let tree = customers(place);
    for _ in 0..3 {
        tree.put(&customer(1, "Ada")).unwrap();
        assert_eq!((tree.len().unwrap(), by_name(&tree, "Ada")), (1, vec![1]));
        assert!(tree.remove(&CustomerPrimaryKey(1)).unwrap());
        assert_eq!((tree.len().unwrap(), by_name(&tree, "Ada")), (0, vec![]));
    }
}

fn an_empty_store_has_nothing(place: &Place) {
    let store = place.open();
    let tree = store.open_tree::<Customer>().unwrap();
    assert!(tree.is_empty().unwrap());
    assert_eq!(tree.len().unwrap(), 0);
    assert_eq!(all(&tree), []);
    assert_eq!(tree.get(&CustomerPrimaryKey(0)).unwrap(), None);
    assert!(by_name(&tree, "").is_empty());
    assert_eq!(store.local_records(None).unwrap().len(), 0);
    assert_eq!(store.replica().due(10).unwrap(), []);
    assert_eq!(store.replica().refusals(), []);
}

fn models_do_not_mix(place: &Place) {
    let store = place.open();
    let (customers, orders) = (store.open_tree::<Customer>().unwrap(), store.open_tree::<Order>().unwrap());
    customers.put(&customer(1, "Ada")).unwrap();
    assert_eq!(orders.get(&OrderPrimaryKey(1)).unwrap(), None);
    orders.put(&order(1, 1)).unwrap();
    orders.put(&order(2, 1)).unwrap();
    assert!(customers.remove(&CustomerPrimaryKey(1)).unwrap());
    assert_eq!((customers.len().unwrap(), orders.len().unwrap()), (0, 2));
    assert_eq!(orders.find(OrderCustomerSecondaryKey(1)).unwrap(), [order(1, 1), order(2, 1)]);
    let local = store.local_records(Some(1)).unwrap();
    let keys: Vec<_> = local.iter().map(|(key, _)| key.clone()).collect();
    assert_eq!(keys, [RecordKey::of(&OrderPrimaryKey(1)).unwrap()]);
    assert_eq!(store.local_records(None).unwrap().len(), 2);
}

fn a_transaction_writes_to_several_models(place: &Place) {
    let store = place.open();
    store.open_tree().unwrap().put(&visit("old", 1)).unwrap();
    let mut transaction = store.begin_write();
    transaction.put(&customer(1, "Ada")).unwrap();
    transaction.put(&order(1, 1)).unwrap();
    transaction.remove(&VisitPrimaryKey("old".into(), 1)).unwrap();
    transaction.commit().unwrap();
    assert_eq!(by_name(&store.open_tree().unwrap(), "Ada"), [1]);
    assert_eq!(all(&store.open_tree::<Order>().unwrap()), [order(1, 1)]);
    assert_eq!(all(&store.open_tree::<Visit>().unwrap()), []);
}

fn a_transaction_reads_its_own_writes(place: &Place) {
    let store = place.open();
    let tree = store.open_tree::<Customer>().unwrap();
    tree.put(&customer(1, "Ada")).unwrap();
    let mut transaction = store.begin_write();
    let mut see = |id, expected: Option<Customer>| {
        assert_eq!(transaction.get(&CustomerPrimaryKey(id)).unwrap(), expected);
    };
    see(1, Some(customer(1, "Ada")));
    see(2, None);
    transaction.remove(&CustomerPrimaryKey(1)).unwrap();
    transaction.put(&customer(2, "Grace")).unwrap();
    transaction.put(&customer(2, "Edsger")).unwrap();
    assert_eq!(transaction.get(&CustomerPrimaryKey(1)).unwrap(), None);
    assert_eq!(transaction.get(&CustomerPrimaryKey(2)).unwrap(), Some(customer(2, "Edsger")));
    assert_eq!(all(&tree), [customer(1, "Ada")], "nobody else sees them yet");
    transaction.commit().unwrap();
    assert_eq!(all(&tree), [customer(2, "Edsger")]);
    assert!(by_name(&tree, "Grace").is_empty());
}

fn a_dropped_transaction_does_nothing(place: &Place) {
    let store = place.open();
    let tree = store.open_tree::<Customer>().unwrap();
    tree.put(&customer(1, "Ada")).unwrap();
    let mut transaction = store.begin_write();
    transaction.put(&customer(2, "Grace")).unwrap();
    transaction.remove(&CustomerPrimaryKey(1)).unwrap();
    drop(transaction);
    tree.put(&customer(3, "Edsger")).unwrap();
    assert_eq!(all(&tree), [customer(1, "Ada"), customer(3, "Edsger")]);
}

fn a_transaction_with_a_refused_write_leaves_the_others_alone(place: &Place) {
    let store = place.open();
    let mut transaction = store.begin_write();
    transaction.put(&customer(1, "Ada")).unwrap();
    transaction.put(&customer(1, &"x".repeat(IndexKeys::MAX_KEY_BYTES))).unwrap_err();
    transaction.commit().unwrap();
    assert_eq!(all(&store.open_tree::<Customer>().unwrap()), [customer(1, "Ada")]);
}

/// Commits a transaction that reads the record under `read`, after `meanwhile` was done.
fn commit_after<K: PrimaryKey>(
    place: &Place,
    read: &K,
    meanwhile: impl FnOnce(&Tree<Customer>),
) -> Result<Vec<Order>, StoreError> {
    let store = place.open();
    let tree = store.open_tree().unwrap();
    tree.put(&customer(1, "Ada")).unwrap();
    let mut transaction = store.begin_write();
    transaction.get(read).unwrap();
    transaction.put(&order(1, 1)).unwrap();
    meanwhile(&tree);
    let outcome = transaction.commit();
    let orders = all(&store.open_tree::<Order>().unwrap());
    assert_eq!(orders.is_empty(), outcome.is_err());
    outcome.map(|()| orders)
}

fn assert_conflict(outcome: &Result<Vec<Order>, StoreError>, id: i64) {
    let expected = RecordKey::of(&CustomerPrimaryKey(id)).unwrap();
    assert!(
        matches!(outcome, Err(StoreError::Write(WriteError::Conflict { key })) if *key == expected),
        "{outcome:?}"
    );
}

fn a_transaction_conflicts_if_what_it_read_was_changed(place: &Place) {
    let change = |tree: &Tree<Customer>| tree.put(&customer(1, "Grace")).unwrap();
    assert_conflict(&commit_after(place, &CustomerPrimaryKey(1), change), 1);
}

fn a_transaction_conflicts_if_what_it_missed_was_put(place: &Place) {
    let put = |tree: &Tree<Customer>| tree.put(&customer(2, "Grace")).unwrap();
    assert_conflict(&commit_after(place, &CustomerPrimaryKey(2), put), 2);
}

fn a_transaction_conflicts_if_what_it_read_was_removed(place: &Place) {
    let remove = |tree: &Tree<Customer>| assert!(tree.remove(&CustomerPrimaryKey(1)).unwrap());
    assert_conflict(&commit_after(place, &CustomerPrimaryKey(1), remove), 1);
}

fn a_transaction_that_read_nothing_wins_over_an_earlier_commit(place: &Place) {
    let store = place.open();
    let tree = store.open_tree::<Customer>().unwrap();
    tree.put(&customer(2, "Ada")).unwrap();
    let mut transaction = store.begin_write();
    transaction.put(&customer(1, "transaction")).unwrap();
    transaction.remove(&CustomerPrimaryKey(2)).unwrap();
    transaction.put(&customer(3, "transaction")).unwrap();
    tree.put_many(&[customer(1, "between"), customer(2, "between")]).unwrap();
    transaction.commit().unwrap();
    assert_eq!(all(&tree), [customer(1, "transaction"), customer(3, "transaction")]);
}

fn a_value_over_the_limit_is_refused_with_its_size(place: &Place) {
    let mut place = place.elsewhere();
    place.options.max_value_bytes = 100;
    let store = place.open();
    let tree = store.open_tree::<Customer>().unwrap();
    // The version; the tags of id, name and notes; the id and two lengths.
    let overhead = 2 + 3 * 2 + 1 + 1 + 1;
    let of_size = |size: usize| Customer { notes: "x".repeat(size - overhead), ..customer(1, "") };
    tree.put(&of_size(100)).unwrap();
    let error = tree.put(&of_size(101)).unwrap_err();
    assert!(
        matches!(error, StoreError::Write(WriteError::ValueTooLarge { size: 101, limit: 100 })),
        "{error:?}"
    );
    assert!(error.to_string().contains("101") && error.to_string().contains("100"), "{error}");
    assert_eq!(all(&tree), [of_size(100)]);
    let mut transaction = store.begin_write();
    assert!(matches!(
        transaction.put(&of_size(101)),
        Err(StoreError::Write(WriteError::ValueTooLarge { .. }))
    ));
}

fn a_secondary_key_over_the_limit_is_refused_with_its_name(place: &Place) {
    let tree = customers(place);
    let longest = "x".repeat(IndexKeys::MAX_KEY_BYTES - 1);
    tree.put(&customer(1, &longest)).unwrap();
    assert_eq!(by_name(&tree, &longest), [1]);
    let error = tree.put(&customer(1, &format!("{longest}x"))).unwrap_err();
    assert!(
        matches!(
            error,
            StoreError::Write(WriteError::IndexKeyTooLong { index: "name", size, limit: IndexKeys::MAX_KEY_BYTES })
                if size == IndexKeys::MAX_KEY_BYTES + 1
        ),
        "{error:?}"
    );
}

fn a_record_with_too_many_secondary_keys_is_refused_with_their_number(place: &Place) {
    let store = place.open();
    let mut record = EncodedRecord::of(&customer(1, "Ada")).unwrap();
    let before = record.keys.secondary.iter().count();
    for _ in before..IndexKeys::MAX_KEYS {
        record.keys.secondary.push(0, b"name\0\0".to_vec());
    }
    store.replica().submit(&record, |result| assert!(result.is_ok())).unwrap();
    record.keys.secondary.push(0, b"name\0\0".to_vec());
    let error = store.replica().submit(&record, |_| ()).unwrap_err();
    assert!(
        matches!(error, StoreError::Write(WriteError::TooManyIndexKeys { count, limit: IndexKeys::MAX_KEYS }) if count == IndexKeys::MAX_KEYS + 1),
        "{error:?}"
    );
}

fn a_primary_key_over_the_limit_is_refused(place: &Place) {
    let tree = place.open().open_tree::<Visit>().unwrap();
    // The page ends with one byte, and the number has four.
    let longest = "x".repeat(RecordKey::MAX_PRIMARY_KEY_BYTES - 5);
    tree.put(&visit(&longest, 1)).unwrap();
    assert_eq!(all(&tree), [visit(&longest, 1)]);
    let too_long = format!("{longest}x");
    let refused = |error: StoreError| matches!(error, StoreError::RecordKey(RecordKeyError::TooLong { len }) if len == RecordKey::MAX_PRIMARY_KEY_BYTES + 1);
    assert!(refused(tree.put(&visit(&too_long, 1)).unwrap_err()));
    assert!(refused(tree.remove(&VisitPrimaryKey(too_long.clone(), 1)).unwrap_err()));
    assert!(refused(tree.get(&VisitPrimaryKey(too_long, 1)).unwrap_err()));
}

fn an_iteration_sees_what_was_there_when_it_began(place: &Place) {
    if !place.has_snapshots() {
        return;
    }
    let tree = customers(place);
    tree.put_many(&[customer(1, "Ada"), customer(2, "Grace"), customer(3, "Edsger")]).unwrap();
    let mut records = tree.iter().unwrap();
    assert_eq!(records.next().unwrap().unwrap(), customer(1, "Ada"));
    tree.put_many(&[customer(2, "changed"), customer(4, "new")]).unwrap();
    tree.remove(&CustomerPrimaryKey(3)).unwrap();
    let rest: Vec<_> = records.map(Result::unwrap).collect();
    assert_eq!(rest, [customer(2, "Grace"), customer(3, "Edsger")]);
    assert_eq!(all(&tree).len(), 3);
}

fn clones_share_a_store(place: &Place) {
    let store = place.open();
    let clone = store.clone();
    store.open_tree().unwrap().put(&customer(1, "Ada")).unwrap();
    drop(store);
    assert_eq!(all(&clone.open_tree::<Customer>().unwrap()), [customer(1, "Ada")]);
}

fn threads_write_at_the_same_time(place: &Place) {
    let tree = customers(place);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let tree = tree.clone();
            scope.spawn(move || {
                for id in 0..10 {
                    tree.put(&customer(thread * 100 + id, "Ada")).unwrap();
                    tree.put(&customer(-1, "shared")).unwrap();
                }
            });
        }
    });
    assert_eq!(tree.len().unwrap(), 41);
    assert_eq!(by_name(&tree, "Ada").len(), 40);
    assert_eq!(by_name(&tree, "shared"), [-1]);
}
