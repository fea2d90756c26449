//! Nodes that share records, in one process on the memory transport.

use std::net::TcpListener;
use std::num::NonZeroUsize;

use netabase::changes::{ChangeKind, Origin};
use netabase::netabase_store::WriteError;
use netabase::{Multiaddr, NetabaseConfig, NetabaseError, NetabaseSwarmEvent, PeerId, RecordKey, StoreError};

use crate::common::*;

#[tokio::test]
async fn a_record_put_at_one_node_is_read_at_another() {
    let nodes = network(2).await;
    let outcome = nodes[0].put_record(note(1, "hello")).await.unwrap();
    assert_eq!(
        (outcome.asked.as_slice(), outcome.accepted.as_slice()),
        (&[nodes[1].local_peer_id()][..], &[nodes[1].local_peer_id()][..])
    );
    assert!(!outcome.replaced);
    assert_eq!(nodes[1].get_record(NotePrimaryKey(1)).await.unwrap(), Some(note(1, "hello")));
    assert_eq!(nodes[1].get_record(NotePrimaryKey(2)).await.unwrap(), None);
}

#[tokio::test]
async fn a_record_that_the_store_refuses_reaches_nobody() {
    let nodes = network(2).await;
    let page = |id| Page { id, slug: "start".into() };
    let outcome = nodes[0].put_record(page(1)).await.unwrap();
    assert_eq!(outcome.accepted, [nodes[1].local_peer_id()]);
    let refused = nodes[0].put_record(page(2)).await.unwrap_err();
    assert!(
        matches!(
            refused,
            NetabaseError::Store(StoreError::Write(WriteError::NotUnique { index: "slug", .. }))
        ),
        "{refused:?}"
    );
    assert_eq!(nodes[1].get_record(PagePrimaryKey(1)).await.unwrap(), Some(page(1)));
    for node in &nodes {
        assert_eq!(node.get_record(PagePrimaryKey(2)).await.unwrap(), None);
    }
}

#[tokio::test]
async fn ten_nodes_read_what_every_other_wrote() {
    let nodes = network(10).await;
    for (id, node) in (0..).zip(&nodes) {
        let outcome = node.put_record(note(id, "from one of ten")).await.unwrap();
        assert_eq!(outcome.asked.len(), 9);
        assert!(outcome.accepted.len() >= 3);
    }
    for node in &nodes {
        for id in 0..10 {
            assert_eq!(node.get_record(NotePrimaryKey(id)).await.unwrap(), Some(note(id, "from one of ten")));
        }
    }
}

#[tokio::test]
async fn a_record_goes_to_as_many_peers_as_the_replication_factor_says() {
    let three = NonZeroUsize::new(3).unwrap();
    let config = |mut config: NetabaseConfig| {
        config.dht.replication_factor = three;
        config
    };
    let mut nodes = vec![started(config(memory_config())).await];
    for _ in 1..8 {
        let config = config(config_knowing(&nodes[0]));
        nodes.push(started(config).await);
    }
    knows_peers(&nodes[0], 7).await;
    let outcome = nodes[0].put_record(note(1, "for three")).await.unwrap();
    assert_eq!(outcome.asked.len(), 3);
}

#[tokio::test]
async fn a_late_node_fetches_what_is_not_local_and_keeps_it() {
    let nodes = network(2).await;
    nodes[0].put_record(note(7, "early")).await.unwrap();
    let late = started(config_knowing(&nodes[0])).await;
    knows_peers(&late, 2).await;
    assert!(late.query_local_records(None).await.unwrap().is_empty());
    let mut events = late.subscribe_to_broadcasts();
    assert_eq!(late.get_record(NotePrimaryKey(7)).await.unwrap(), Some(note(7, "early")));
    let kept = wait_for_record(&mut events, |record| record.kind() == ChangeKind::Stored).await;
    assert_eq!((kept.origin(), kept.author_peer()), (Origin::Network, Some(nodes[0].local_peer_id())));
    let tree = late.store().open_tree::<Note>().unwrap();
    assert_eq!(tree.find(NoteTopicSecondaryKey("topic 1".into())).unwrap(), [note(7, "early")]);
}

#[tokio::test]
async fn an_update_replaces_the_record_at_every_node() {
    let nodes = network(3).await;
    let mut events = nodes[2].subscribe_to_broadcasts();
    nodes[0].put_record(note(1, "first")).await.unwrap();
    wait_for_record(&mut events, |record| record.kind() == ChangeKind::Stored).await;
    let outcome = nodes[1].put_record(note(1, "second")).await.unwrap();
    assert!(outcome.replaced);
    let updated = wait_for_record(&mut events, |record| record.kind() == ChangeKind::Updated).await;
    assert_eq!(updated.model::<Note>(), Some(Ok(note(1, "second"))));
    assert_eq!(updated.model::<Topic>(), None);
    for node in &nodes {
        assert_eq!(node.fetch_record(NotePrimaryKey(1)).await.unwrap(), Some(note(1, "second")));
    }
}

#[tokio::test]
async fn a_removal_reaches_every_peer() {
    let nodes = network(3).await;
    let mut events = nodes[2].subscribe_to_broadcasts();
    nodes[0].put_record(note(1, "short-lived")).await.unwrap();
    wait_for_record(&mut events, |record| record.kind() == ChangeKind::Stored).await;
    let outcome = nodes[1].remove_record(NotePrimaryKey(1)).await.unwrap();
    assert!(outcome.unwrap().replaced);
    let removed = wait_for_record(&mut events, |record| record.kind() == ChangeKind::Removed).await;
    assert_eq!(removed.model::<Note>(), Some(Ok(note(1, "short-lived"))));
    for node in &nodes {
        assert_eq!(node.get_record(NotePrimaryKey(1)).await.unwrap(), None);
        assert_eq!(node.fetch_record(NotePrimaryKey(1)).await.unwrap(), None);
    }
}

#[tokio::test]
async fn a_removal_of_nothing_says_so_and_leaves_nothing() {
    let nodes = network(2).await;
    let key = RecordKey::of(&NotePrimaryKey(7)).unwrap();
    for _ in 0..2 {
        assert_eq!(nodes[0].remove_record(NotePrimaryKey(7)).await.unwrap(), None);
    }
    assert_eq!(nodes[0].store().envelope(&key).unwrap(), None);
    nodes[0].put_record(note(7, "short-lived")).await.unwrap();
    assert!(nodes[0].remove_record(NotePrimaryKey(7)).await.unwrap().is_some());
    let tombstone = nodes[0].store().envelope(&key).unwrap().unwrap();
    assert_eq!(nodes[0].remove_record(NotePrimaryKey(7)).await.unwrap(), None);
    assert_eq!(nodes[0].store().envelope(&key).unwrap(), Some(tombstone), "the first removal stays");
}

#[tokio::test]
async fn a_record_that_only_a_peer_has_is_removed() {
    let author = started(memory_config()).await;
    author.put_record(note(7, "elsewhere")).await.unwrap();
    let key = RecordKey::of(&NotePrimaryKey(7)).unwrap();
    let written = author.store().envelope(&key).unwrap().unwrap();
    let holder = started(memory_config()).await;
    assert!(holder.store().replica().admit(key.as_bytes(), written.as_bytes()).unwrap());
    // A client holds nothing for others.
    let mut config = config_knowing(&holder);
    config.dht.mode = netabase::DhtMode::Client;
    let client = Notes::new_with_config(config).unwrap();
    assert_eq!(client.remove_record(NotePrimaryKey(7)).await.unwrap(), None, "nobody can be asked");
    client.start_swarm().await.unwrap();
    knows_peers(&client, 1).await;
    assert_eq!(client.store().envelope(&key).unwrap(), None);
    let removal = client.remove_record(NotePrimaryKey(7)).await.unwrap().unwrap();
    assert!(removal.version > written.version().unwrap(), "the removal comes after what the peer has");
    assert_eq!(removal.accepted, [holder.local_peer_id()]);
    assert!(holder.store().envelope(&key).unwrap().unwrap().is_tombstone());
}

#[tokio::test]
async fn a_record_put_offline_is_published_when_a_peer_appears() {
    let author = started(memory_config()).await;
    let outcome = author.put_record(note(1, "alone")).await.unwrap();
    assert_eq!(outcome.asked, []);
    assert_eq!(author.get_record(NotePrimaryKey(1)).await.unwrap(), Some(note(1, "alone")));
    let peer: Notes = Notes::new_with_config(config_knowing(&author)).unwrap();
    let mut events = peer.subscribe_to_broadcasts();
    peer.start_swarm().await.unwrap();
    let stored = wait_for_record(&mut events, |_| true).await;
    assert_eq!(stored.model::<Note>(), Some(Ok(note(1, "alone"))));
}

#[tokio::test]
async fn a_record_put_before_the_start_is_published_after_it() {
    let author = Notes::new_with_config(memory_config()).unwrap();
    author.put_record(note(1, "early")).await.unwrap();
    author.start_swarm().await.unwrap();
    let peer = Notes::new_with_config(config_knowing(&author)).unwrap();
    let mut events = peer.subscribe_to_broadcasts();
    peer.start_swarm().await.unwrap();
    wait_for_record(&mut events, |_| true).await;
    assert_eq!(peer.get_record(NotePrimaryKey(1)).await.unwrap(), Some(note(1, "early")));
}

#[tokio::test]
async fn a_record_written_through_the_local_store_is_read_at_another_node() {
    let nodes = network(2).await;
    nodes[0].store().open_tree::<Note>().unwrap().put(&note(3, "typed")).unwrap();
    assert_eq!(nodes[1].get_record(NotePrimaryKey(3)).await.unwrap(), Some(note(3, "typed")));
}

#[tokio::test]
async fn networks_of_different_names_do_not_mix() {
    let ours = started(memory_config()).await;
    let mut events = ours.subscribe_to_broadcasts();
    let theirs = started(NetabaseConfig { network: Some("another".into()), ..config_knowing(&ours) }).await;
    wait_for(&mut events, |event| match event {
        NetabaseSwarmEvent::Identify(event) => {
            matches!(**event, libp2p::identify::Event::Received { .. }).then_some(())
        }
        _ => None,
    })
    .await;
    let outcome = ours.put_record(note(1, "ours")).await.unwrap();
    assert_eq!(outcome.asked, []);
    assert_eq!(theirs.get_record(NotePrimaryKey(1)).await.unwrap(), None);
}

#[tokio::test]
async fn a_value_of_the_largest_size_travels() {
    let nodes = network(2).await;
    let large = Note { id: 1, topic: "large".into(), text: "x".repeat(1024 * 1024 - 64) };
    let outcome = nodes[0].put_record(large.clone()).await.unwrap();
    assert_eq!(outcome.accepted.len(), 1);
    nodes[1].stop_swarm().await.unwrap();
    assert_eq!(nodes[1].get_record(NotePrimaryKey(1)).await.unwrap(), Some(large));
}

#[tokio::test]
async fn a_fetched_version_is_here_when_the_fetch_returns() {
    let nodes = network(2).await;
    nodes[0].put_record(note(1, "first")).await.unwrap();
    nodes[1].stop_swarm().await.unwrap();
    nodes[0].put_record(note(1, "second")).await.unwrap();
    nodes[1].start_swarm().await.unwrap();
    knows_peers(&nodes[1], 1).await;
    assert_eq!(nodes[1].fetch_record(NotePrimaryKey(1)).await.unwrap(), Some(note(1, "second")));
    assert_eq!(nodes[1].get_record(NotePrimaryKey(1)).await.unwrap(), Some(note(1, "second")));
}

#[tokio::test]
async fn a_get_does_not_wait_for_peers_that_never_answer() {
    let nodes = network(2).await;
    nodes[0].put_record(note(1, "alive")).await.unwrap();
    let late = started(config_knowing(&nodes[0])).await;
    knows_peers(&late, 2).await;
    nodes[1].stop_swarm().await.unwrap();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let unanswered = PeerId::random();
    late.add_address(unanswered, tcp_address(&silent)).await.unwrap();
    let mut events = late.subscribe_to_broadcasts();
    assert_eq!(late.get_record(NotePrimaryKey(1)).await.unwrap(), Some(note(1, "alive")));
    while let Some(event) = events.try_recv().unwrap() {
        let failed = matches!(event, NetabaseSwarmEvent::OutgoingConnectionError { peer, .. } if peer == Some(unanswered));
        assert!(!failed, "the get has waited for the dial to fail");
    }
}

#[tokio::test]
async fn a_dead_peer_is_left_alone_for_a_while() {
    let nodes = network(2).await;
    let dead = PeerId::random();
    let closed = tcp_address(&TcpListener::bind("127.0.0.1:0").unwrap());
    let mut events = nodes[0].subscribe_to_broadcasts();
    nodes[0].add_address(dead, closed).await.unwrap();
    wait_for(&mut events, |event| match event {
        NetabaseSwarmEvent::OutgoingConnectionError { peer, .. } => (*peer == Some(dead)).then_some(()),
        _ => None,
    })
    .await;
    for id in 0..3 {
        nodes[0].put_record(note(id, "dead or alive")).await.unwrap();
        nodes[0].fetch_record(NotePrimaryKey(id)).await.unwrap();
    }
    while let Some(event) = events.try_recv().unwrap() {
        assert!(
            !matches!(event, NetabaseSwarmEvent::Dialing { peer } if peer == Some(dead)),
            "dialled again"
        );
    }
}

fn tcp_address(listener: &TcpListener) -> Multiaddr {
    format!("/ip4/127.0.0.1/tcp/{}", listener.local_addr().unwrap().port()).parse().unwrap()
}

#[tokio::test]
async fn a_node_finds_a_bootstrap_peer_that_starts_later() {
    let late = Notes::new_with_config(NetabaseConfig {
        listen_addresses: vec!["/memory/7040".parse().unwrap()],
        ..memory_config()
    })
    .unwrap();
    let mut config = memory_config();
    let address: Multiaddr = "/memory/7040".parse().unwrap();
    config.dht.bootstrap_peers = vec![address.with_p2p(late.local_peer_id()).unwrap()];
    let early = started(config).await;
    let mut events = early.subscribe_to_broadcasts();
    early.put_record(note(1, "nobody is there")).await.unwrap();
    wait_for(&mut events, |event| match event {
        NetabaseSwarmEvent::OutgoingConnectionError { .. } => Some(()),
        _ => None,
    })
    .await;
    let mut late_events = late.subscribe_to_broadcasts();
    late.start_swarm().await.unwrap();
    let stored = wait_for_record(&mut late_events, |_| true).await;
    assert_eq!(stored.model::<Note>(), Some(Ok(note(1, "nobody is there"))));
}

#[tokio::test]
async fn an_author_whose_version_nobody_accepts_learns_of_the_newer_one() {
    let nodes = network(3).await;
    nodes[0].put_record(note(1, "old")).await.unwrap();
    nodes[0].stop_swarm().await.unwrap();
    // The old version is due again at the next start, and is older than what the others have.
    nodes[0].put_record(note(1, "also old")).await.unwrap();
    // Twice, because the first may fall into the same millisecond.
    nodes[1].put_record(note(1, "new")).await.unwrap();
    nodes[1].put_record(note(1, "newer")).await.unwrap();
    let mut events = nodes[0].subscribe_to_broadcasts();
    nodes[0].start_swarm().await.unwrap();
    let address = nodes[1].listen_addresses().remove(0);
    nodes[0].add_address(nodes[1].local_peer_id(), address).await.unwrap();
    let updated = wait_for_record(&mut events, |record| record.origin() == Origin::Network).await;
    assert_eq!(updated.model::<Note>(), Some(Ok(note(1, "newer"))));
    assert_eq!(nodes[0].get_record(NotePrimaryKey(1)).await.unwrap(), Some(note(1, "newer")));
}

#[tokio::test]
async fn a_client_keeps_no_copies_that_nobody_would_renew() {
    let server = started(memory_config()).await;
    let mut config = config_knowing(&server);
    config.dht.mode = netabase::DhtMode::Client;
    let client = started(config).await;
    knows_peers(&client, 1).await;
    server.put_record(note(1, "first")).await.unwrap();
    assert_eq!(client.get_record(NotePrimaryKey(1)).await.unwrap(), Some(note(1, "first")));
    server.put_record(note(1, "second")).await.unwrap();
    assert_eq!(client.get_record(NotePrimaryKey(1)).await.unwrap(), Some(note(1, "second")));
    assert!(client.query_local_records(None).await.unwrap().is_empty());
}
