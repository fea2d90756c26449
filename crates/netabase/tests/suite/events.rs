//! Subscriptions to events.

use netabase::changes::{ChangeKind, Origin};
use netabase::limits::EVENT_CAPACITY;
use netabase::{EventError, NetabaseSwarmEvent};

use crate::common::*;

#[tokio::test]
async fn a_subscription_made_before_the_start_goes_on_across_restarts() {
    let netabase = Notes::new_with_config(memory_config()).unwrap();
    let mut events = netabase.subscribe_to_broadcasts();
    let started = |event: &NetabaseSwarmEvent| matches!(event, NetabaseSwarmEvent::Started).then_some(());
    let stopped = |event: &NetabaseSwarmEvent| matches!(event, NetabaseSwarmEvent::Stopped).then_some(());
    for _ in 0..2 {
        netabase.start_swarm().await.unwrap();
        wait_for(&mut events, started).await;
        netabase.stop_swarm().await.unwrap();
        wait_for(&mut events, stopped).await;
    }
    drop(netabase);
    let end = loop {
        if let Err(end) = within_deadline("the end", events.recv()).await {
            break end;
        }
    };
    assert_eq!(end, EventError::Closed);
}

#[tokio::test]
async fn record_events_say_what_happened_and_who_did_it() {
    let netabase = Notes::new_with_config(memory_config()).unwrap();
    let mut events = netabase.subscribe_to_broadcasts();
    netabase.put_record(note(1, "first")).await.unwrap();
    netabase.put_record(note(1, "second")).await.unwrap();
    netabase.remove_record(NotePrimaryKey(1)).await.unwrap();
    let expected = [
        (ChangeKind::Stored, note(1, "first")),
        (ChangeKind::Updated, note(1, "second")),
        (ChangeKind::Removed, note(1, "second")),
    ];
    for (kind, record) in expected {
        let event = wait_for_record(&mut events, |_| true).await;
        assert_eq!((event.kind(), event.origin()), (kind, Origin::Local));
        assert_eq!(event.model::<Note>(), Some(Ok(record.clone())));
        assert!(
            matches!(event.record::<NotesDefinition>(), Some(Ok(NotesDefinition::Note(found))) if found == record)
        );
        assert_eq!(event.author_peer(), Some(netabase.local_peer_id()));
        assert_eq!(event.key().to_string(), r"/NotesDefinition/Note/\x00\x00\x00\x00\x00\x00\x00\x01");
    }
}

#[tokio::test]
async fn a_slow_subscriber_learns_how_many_events_it_missed() {
    let netabase = Notes::new_with_config(memory_config()).unwrap();
    let mut slow = netabase.subscribe_to_broadcasts();
    let records: Vec<Note> = (0..2 * EVENT_CAPACITY as u64).map(|id| note(id, "many")).collect();
    netabase.store().open_tree::<Note>().unwrap().put_many(&records).unwrap();
    let missed = match slow.recv().await {
        Err(EventError::Lagged { missed }) => missed,
        other => panic!("{other:?}"),
    };
    let mut left = 0;
    while let Ok(Some(_)) = slow.try_recv() {
        left += 1;
    }
    assert!(left >= EVENT_CAPACITY as u64 && missed > 0, "{left} left, {missed} missed");
    assert_eq!(missed + left, records.len() as u64);
}

#[tokio::test]
async fn events_are_shared_and_not_copied() {
    let netabase = Notes::new_with_config(memory_config()).unwrap();
    let (mut one, mut other) = (netabase.subscribe_to_broadcasts(), netabase.subscribe_to_broadcasts());
    netabase.put_record(note(1, "shared")).await.unwrap();
    let one = wait_for_record(&mut one, |_| true).await;
    let other = wait_for_record(&mut other, |_| true).await;
    let payload = |event: &netabase::RecordEvent| event.envelope().unwrap().as_bytes().as_ptr();
    assert_eq!(payload(&one), payload(&other));
}

#[tokio::test]
async fn connections_and_listeners_are_events() {
    let left = started(memory_config()).await;
    let mut events = left.subscribe_to_broadcasts();
    let right = Notes::new_with_config(config_knowing(&left)).unwrap();
    let mut right_events = right.subscribe_to_broadcasts();
    right.start_swarm().await.unwrap();
    let listening = wait_for(&mut right_events, |event| match event {
        NetabaseSwarmEvent::NewListenAddress(address) => Some(address.clone()),
        _ => None,
    })
    .await;
    assert_eq!(right.listen_addresses(), [listening]);
    let (peer, outgoing) = wait_for(&mut events, |event| match event {
        NetabaseSwarmEvent::ConnectionEstablished { peer, outgoing, .. } => Some((*peer, *outgoing)),
        _ => None,
    })
    .await;
    assert_eq!((peer, outgoing), (right.local_peer_id(), false));
    let alive = wait_for(&mut events, |event| match event {
        NetabaseSwarmEvent::RoundTrip { peer, .. } => Some(*peer),
        _ => None,
    })
    .await;
    assert_eq!(alive, right.local_peer_id());
    right.stop_swarm().await.unwrap();
    let closed = wait_for(&mut events, |event| match event {
        NetabaseSwarmEvent::ConnectionClosed { peer, connections: 0, .. } => Some(*peer),
        _ => None,
    })
    .await;
    assert_eq!(closed, right.local_peer_id());
}
