//! Refused authors: their peers are told so, and their records are neither kept nor found.

use netabase::health::PeerState;
use netabase::{Consistency, GetOptions, NetabaseConfig, Refusal, Scope, StoreOptions};
use netabase_store::ChangeKind;

use crate::common::*;

/// Returns the ids of the notes that a query of the network finds.
async fn found(node: &Notes) -> Vec<u64> {
    node.query::<Note>().collect().await.unwrap().records.iter().map(|note| note.id).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn records_of_a_refused_author_are_neither_taken_nor_found() {
    let nodes = network_without_repair(3).await;
    let [flooder, node, other] = &nodes[..] else { panic!("there are three") };
    let author = flooder.store().author().unwrap();
    other.put_record(note(1, "honest")).await.unwrap();
    flooder.put_record(note(2, "flood")).await.unwrap();
    assert_eq!(found(node).await, [1, 2]);

    let mut events = node.subscribe_to_broadcasts();
    assert!(node.refuse_author(author).await.unwrap());
    let is_removed = |kind| kind == ChangeKind::Removed;
    let removed = wait_for_record(&mut events, |record| is_removed(record.kind())).await;
    assert_eq!(removed.model::<Note>(), Some(Ok(note(2, "flood"))));
    assert_eq!(found(node).await, [1], "another holder has the other one");
    assert_eq!(found(other).await, [1, 2], "the list is the node's own");

    let outcome = flooder.put_record(note(3, "more")).await.unwrap();
    let refused: Vec<_> = outcome.refused().collect();
    assert_eq!(refused, [(node.local_peer_id(), Refusal::RefusedAuthor)]);
    assert_eq!(outcome.accepted, [other.local_peer_id()]);
    let mut all = GetOptions::default();
    all.consistency = Consistency::All;
    let read = node.get_record_with(NotePrimaryKey(3), all).await.unwrap();
    assert_eq!(read.record, None);
    for sender in [flooder, other] {
        let report = node.peer_report(sender.local_peer_id());
        assert!(report.is_none_or(|report| (report.state, report.score) == (PeerState::Good, 0)));
    }

    assert!(node.allow_author(author).await.unwrap());
    assert_eq!(node.refused_authors(), []);
    let outcome = flooder.put_record(note(4, "allowed")).await.unwrap();
    assert!(outcome.accepted.contains(&node.local_peer_id()));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_settings_refuse_authors_and_a_removal_says_how_much_is_gone() {
    let writer = started(memory_config()).await;
    let author = writer.store().author().unwrap();
    let store = StoreOptions { refused_authors: vec![author], ..memory_config().store };
    let node = started(NetabaseConfig { store, ..config_knowing(&writer) }).await;
    knows_peers(&writer, 1).await;
    let outcome = writer.put_record(note(1, "refused")).await.unwrap();
    assert_eq!(outcome.refused().next(), Some((node.local_peer_id(), Refusal::RefusedAuthor)));

    assert!(node.allow_author(author).await.unwrap());
    let outcome = writer.put_record(note(2, "taken")).await.unwrap();
    assert_eq!(outcome.accepted, [node.local_peer_id()]);
    let removed = node.remove_author(author).await.unwrap();
    assert_eq!((removed.records, removed.tombstones), (1, 0));
    assert_eq!(node.store().open_tree::<Note>().unwrap().len().unwrap(), 0);
}

/// A configuration in which peers may send so many new records of an author at a time.
fn limited(burst: u32, config: NetabaseConfig) -> NetabaseConfig {
    NetabaseConfig { author_records_per_second: 1, author_record_burst: burst, ..config }
}

#[tokio::test(flavor = "multi_thread")]
async fn records_that_come_too_fast_are_refused_and_fetched_later() {
    const RECORDS: u64 = 20;
    let writer = started(without_repair(memory_config())).await;
    let node = started(limited(5, without_repair(config_knowing(&writer)))).await;
    knows_peers(&writer, 1).await;
    let mut refused = 0;
    for id in 0..RECORDS {
        let outcome = writer.put_record(note(id, "fast")).await.unwrap();
        if let Some((peer, reason)) = outcome.refused().next() {
            assert_eq!((peer, reason), (node.local_peer_id(), Refusal::TooFast));
            refused += 1;
        }
    }
    assert!(refused > 0);
    assert_eq!(node.fast_authors(), [(writer.store().author().unwrap(), refused)]);
    assert!(writer.fast_authors().is_empty());
    let report = node.peer_report(writer.local_peer_id()).unwrap();
    assert_eq!((report.state, report.score), (PeerState::Good, 0));
    // A new version of a record that is here is none too many.
    let outcome = writer.put_record(note(0, "changed")).await.unwrap();
    assert_eq!(outcome.accepted, [node.local_peer_id()]);

    // A node that catches up is not limited by the rate of an author.
    node.repair().await.unwrap();
    let notes = node.store().open_tree::<Note>().unwrap();
    node.store().flush().unwrap();
    assert_eq!(notes.len().unwrap(), RECORDS);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_fetches_live_changes_that_come_too_fast() {
    const RECORDS: u64 = 50;
    let writer = started(without_repair(memory_config())).await;
    let node = started(limited(1, without_repair(config_knowing(&writer)))).await;
    knows_peers(&writer, 1).await;
    let replication = node.replicate(Scope::model::<Note>()).unwrap();
    replication.caught_up().await.unwrap();
    let mut events = node.subscribe_to_broadcasts();
    for id in 0..RECORDS {
        writer.put_record(note(id, "live")).await.unwrap();
    }
    let mut ids = std::collections::BTreeSet::new();
    while ids.len() < usize::try_from(RECORDS).unwrap() {
        let record = wait_for_record(&mut events, |record| record.model::<Note>().is_some()).await;
        ids.extend(record.model::<Note>().unwrap().map(|note| note.id));
    }
    assert!(!node.fast_authors().is_empty(), "some came too fast");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_fetches_the_records_of_an_author_that_is_allowed_again() {
    let writer = started(without_repair(memory_config())).await;
    let author = writer.store().author().unwrap();
    let node = started(without_repair(config_knowing(&writer))).await;
    knows_peers(&writer, 1).await;
    assert!(node.refuse_author(author).await.unwrap());
    for id in 0..3 {
        writer.put_record(note(id, "refused")).await.unwrap();
    }
    let replication = node.replicate(Scope::model::<Note>()).unwrap();
    replication.caught_up().await.unwrap();
    assert!(replication.statistics().refused >= 3, "{:?}", replication.statistics());

    assert!(node.allow_author(author).await.unwrap());
    within_deadline("the records of the allowed author", replication.caught_up()).await.unwrap();
    assert_eq!(node.store().open_tree::<Note>().unwrap().len().unwrap(), 3);
}
