//! Changing a record as it is, from many tasks and at several nodes.

use netabase::netabase_store::NetabaseStore;
use netabase::netabase_store::WriteError;
use netabase::netabase_store::schema::EncodedRecord;
use netabase::{NetabaseError, PutOptions, RecordKey, StoreError};

use crate::common::*;

#[tokio::test]
async fn no_update_is_lost_however_many_tasks_change_one_record() {
    let node = Notes::new_with_config(memory_config()).unwrap();
    node.put_record(note(1, "")).await.unwrap();
    let tasks = 2 * NetabaseStore::MAX_UPDATE_ATTEMPTS;
    let updates = (0..tasks).map(|_| {
        let node = node.clone();
        tokio::spawn(async move { node.update_record(NotePrimaryKey(1), |note| note.text.push('x')).await })
    });
    for update in futures::future::join_all(updates).await {
        assert!(update.unwrap().unwrap().is_some());
    }
    let found = node.get_record(NotePrimaryKey(1)).await.unwrap().unwrap();
    assert_eq!(found.text.len(), tasks);
}

#[tokio::test]
async fn a_change_that_comes_between_is_what_the_next_attempt_begins_with() {
    let node = Notes::new_with_config(memory_config()).unwrap();
    node.put_record(note(1, "")).await.unwrap();
    let mut attempts = 0;
    let updated = node.update_record(NotePrimaryKey(1), |changed| {
        if attempts == 0 {
            node.store().open_tree().unwrap().put(&note(1, "tree")).unwrap();
        }
        attempts += 1;
        changed.text.push_str(", update");
    });
    assert_eq!(updated.await.unwrap(), Some(note(1, "tree, update")));
    assert_eq!(attempts, 2);
}

#[tokio::test]
async fn what_only_another_node_has_is_changed_for_both() {
    let nodes = network(2).await;
    let key = RecordKey::of(&NotePrimaryKey(1)).unwrap();
    nodes[0].put_record(note(1, "first")).await.unwrap();
    let updated = nodes[1].update_record(NotePrimaryKey(1), |note| note.text.push_str(", second"));
    assert_eq!(updated.await.unwrap(), Some(note(1, "first, second")));
    assert_eq!(nodes[0].get_record(NotePrimaryKey(1)).await.unwrap(), Some(note(1, "first, second")));
    assert_eq!(nodes[0].store().envelope(&key).unwrap(), nodes[1].store().envelope(&key).unwrap());
    nodes[0].remove_record(NotePrimaryKey(1)).await.unwrap();
    assert_eq!(nodes[1].update_record(NotePrimaryKey(1), |note| note.text.clear()).await.unwrap(), None);
}

#[tokio::test]
async fn an_update_of_a_merged_record_returns_what_everybody_has_contributed() {
    let nodes = network(2).await;
    nodes[0].put_record(Tally { id: 1, count: 5 }).await.unwrap();
    let (tally, outcome) = nodes[1]
        .update_record_with(TallyPrimaryKey(1), PutOptions::default(), |tally| tally.count += 1)
        .await
        .unwrap()
        .unwrap();
    assert_eq!((tally, outcome.accepted.len()), (Tally { id: 1, count: 6 }, 1));
    assert_eq!(nodes[0].get_record(TallyPrimaryKey(1)).await.unwrap(), Some(Tally { id: 1, count: 6 }));
}

#[tokio::test]
async fn an_update_keeps_the_key_and_tells_its_own_errors() {
    let node = Notes::new_with_config(memory_config()).unwrap();
    node.put_record(note(1, "")).await.unwrap();
    let error = node.update_record(NotePrimaryKey(1), |note| note.id = 2).await.unwrap_err();
    assert!(
        matches!(error, NetabaseError::Store(StoreError::Write(WriteError::KeyChanged { .. }))),
        "{error}"
    );
    let key = RecordKey::of(&NotePrimaryKey(1)).unwrap();
    let other = |_: &_| Ok(EncodedRecord::of(&note(2, "")).unwrap());
    let error = node.update(&key, PutOptions::default(), other).await.unwrap_err();
    assert!(
        matches!(error, NetabaseError::Store(StoreError::Write(WriteError::KeyChanged { .. }))),
        "{error}"
    );
    let fails = |_: &_| Err(NetabaseError::NotRunning);
    let error = node.update(&key, PutOptions::default(), fails).await.unwrap_err();
    assert!(matches!(error, NetabaseError::NotRunning), "{error}");
}
