//! What a node says when it is asked why a record is as it is.

use netabase::changes::{ChangeKind, Origin};
use netabase::health::TraceKind;
use netabase::{Envelope, NetabaseSwarmEvent, RecordKey, Timestamp};
use netabase_store::SigningKey;
use netabase_store::schema::EncodedRecord;

use crate::common::*;

#[tokio::test]
async fn the_life_of_a_record_is_told_by_both_nodes() {
    let nodes = network(2).await;
    let [author, holder] = &nodes[..] else { panic!("two nodes") };
    let mut events = holder.subscribe_to_broadcasts();
    author.put_record(note(1, "first")).await.unwrap();
    wait_for_record(&mut events, |record| record.kind() == ChangeKind::Stored).await;
    author.remove_record(NotePrimaryKey(1)).await.unwrap();
    wait_for_record(&mut events, |record| record.kind() == ChangeKind::Removed).await;
    author.fetch_record(NotePrimaryKey(1)).await.unwrap();

    let told = author.why(NotePrimaryKey(1)).await.unwrap();
    assert_eq!(told.is_holder, Some(true));
    assert!(told.current.as_ref().unwrap().is_tombstone());
    assert!(told.next_publication.is_some());
    let kinds: Vec<(ChangeKind, Origin)> = changes(&told.events);
    assert_eq!(kinds, [(ChangeKind::Stored, Origin::Local), (ChangeKind::Removed, Origin::Local)]);
    let peer = holder.local_peer_id();
    let published = told.events.iter().filter(|event| match &event.kind {
        TraceKind::Published { answers } => {
            answers.len() == 1 && answers[0].peer == peer && answers[0].answer.is_acceptance()
        }
        _ => false,
    });
    assert_eq!(published.count(), 2);
    assert!(told.events.iter().any(|event| matches!(event.kind, TraceKind::Fetched { copies: 1, .. })));
    let history: Vec<ChangeKind> = told.history.iter().map(|(_, change)| change.kind).collect();
    assert_eq!(history, [ChangeKind::Stored, ChangeKind::Removed]);
    assert!(told.events.is_sorted_by_key(|event| event.time));

    let told = holder.why(NotePrimaryKey(1)).await.unwrap();
    assert_eq!(told.next_publication, None, "the author publishes it");
    let accepted = TraceKind::Accepted { peer: author.local_peer_id() };
    assert_eq!(told.events.iter().filter(|event| event.kind == accepted).count(), 2);
    let kinds: Vec<(ChangeKind, Origin)> = changes(&told.events);
    assert_eq!(kinds, [(ChangeKind::Stored, Origin::Network), (ChangeKind::Removed, Origin::Network)]);
    let text = told.to_string();
    let expected = [
        "here: a tombstone, version of ",
        "holder: yes",
        "published next: not by this node",
        "change 1: stored by a peer",
        &format!("accepted from {}", author.local_peer_id()),
        "removed by a peer",
    ];
    for line in expected {
        assert!(text.contains(line), "`{line}` is not in:\n{text}");
    }
}

fn changes(events: &[netabase::health::TraceEvent]) -> Vec<(ChangeKind, Origin)> {
    let changes = events.iter().filter_map(|event| match event.kind {
        TraceKind::Changed { kind, origin, .. } => Some((kind, origin)),
        _ => None,
    });
    changes.collect()
}

#[tokio::test]
async fn a_node_says_who_refused_and_what_it_never_saw() {
    // Their repair would find out that the version is old before it is sent.
    let nodes = network_without_repair(2).await;
    nodes[1].stop_swarm().await.unwrap();
    nodes[1].put_record(note(1, "old")).await.unwrap();
    // Somebody else's, which the first node does not publish when the second one is back.
    let key = RecordKey::of(&NotePrimaryKey(1)).unwrap();
    let later = Timestamp::from_unix_millis(nodes[0].store().replica().clock().unix_millis() + 60_000);
    let payload = EncodedRecord::of(&note(1, "newer")).unwrap().payload;
    let newer = Envelope::sign(&SigningKey::from_bytes(&[7; 32]), &key, later, 0, Some(&payload));
    assert_eq!(nodes[0].store().replica().admit(key.as_bytes(), newer.as_bytes()), Ok(true));
    let mut events = nodes[0].subscribe_to_broadcasts();
    nodes[1].start_swarm().await.unwrap();
    let address = nodes[0].listen_addresses().remove(0);
    nodes[1].add_address(nodes[0].local_peer_id(), address).await.unwrap();
    wait_for(&mut events, |event| matches!(event, NetabaseSwarmEvent::RecordRefused { .. }).then_some(()))
        .await;
    let told = nodes[0].why(NotePrimaryKey(1)).await.unwrap();
    let line = format!("refused from {}: a newer version is already here", nodes[1].local_peer_id());
    assert!(told.to_string().contains(&line), "{told}");

    let told = nodes[0].why(NotePrimaryKey(7)).await.unwrap();
    assert!(told.events.is_empty() && told.history.is_empty() && told.current.is_none());
    assert!(told.to_string().contains("here: nothing"), "{told}");
}

#[tokio::test]
async fn a_node_that_does_not_run_tells_what_its_disk_knows() {
    let node = Notes::new_with_config(memory_config()).unwrap();
    node.put_record(note(1, "alone")).await.unwrap();
    let told = node.why(NotePrimaryKey(1)).await.unwrap();
    assert_eq!((told.is_holder, told.history.len()), (None, 1));
    assert!(told.to_string().contains("not known, the swarm is not running"), "{told}");
}
