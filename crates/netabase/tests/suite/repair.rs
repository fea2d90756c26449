//! Records find their holders again when nodes come, go and miss something.

use std::num::NonZeroUsize;

use libp2p::PeerId;
use libp2p::kad::KBucketKey;
use netabase::{DHTDiscoveryConfig, NetabaseConfig, RecordKey};

use crate::common::*;

/// A node that repairs only when it is told to, with few holders for each record.
fn config(replication: usize, bootstrap: Option<&Notes>) -> NetabaseConfig {
    let dht = DHTDiscoveryConfig {
        bootstrap_peers: bootstrap.map(full_address).into_iter().collect(),
        replication_factor: NonZeroUsize::new(replication).unwrap(),
        repair_interval: None,
        ..DHTDiscoveryConfig::default()
    };
    NetabaseConfig { dht, ..memory_config() }
}

async fn network_of(count: usize, replication: usize) -> Vec<Notes> {
    let mut nodes = vec![started(config(replication, None)).await];
    for _ in 1..count {
        let config = config(replication, Some(&nodes[0]));
        nodes.push(started(config).await);
    }
    for node in &nodes {
        knows_peers(node, count - 1).await;
    }
    nodes
}

fn has(node: &Notes, id: u64) -> Option<String> {
    let notes = node.store().open_tree::<Note>().unwrap();
    notes.get(&NotePrimaryKey(id)).unwrap().map(|note| note.text)
}

fn copies(nodes: &[Notes], id: u64, text: &str) -> usize {
    nodes.iter().filter(|node| has(node, id).as_deref() == Some(text)).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_node_gets_what_it_should_hold() {
    let mut nodes = network_of(3, 20).await;
    for id in 0..50 {
        nodes[0].put_record(note(id, "here")).await.unwrap();
    }
    let late = started(config(20, Some(&nodes[0]))).await;
    knows_peers(&late, 3).await;
    let report = within_deadline("the repair", late.repair()).await.unwrap();
    assert_eq!((report.received, report.unreachable), (50, 0), "each is fetched once: {report:?}");
    for id in 0..50 {
        assert_eq!(has(&late, id).as_deref(), Some("here"));
    }
    nodes.push(late);
    for node in &nodes {
        node.store().flush().unwrap();
    }
    let again = within_deadline("the repair", nodes[3].repair()).await.unwrap();
    assert_eq!((again.equal, again.comparisons, again.sent, again.received), (3, 3, 0, 0), "{again:?}");
    assert_eq!(again.messages, 6, "a question and an answer for each peer: {again:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_missed_something_has_it_after_a_repair() {
    let nodes = network_of(3, 20).await;
    for id in 0..200 {
        nodes[0].put_record(note(id, "first")).await.unwrap();
    }
    nodes[1].stop_swarm().await.unwrap();
    nodes[2].remove_peer(nodes[1].local_peer_id()).await.unwrap();
    nodes[0].remove_peer(nodes[1].local_peer_id()).await.unwrap();
    for id in 0..20 {
        nodes[0].put_record(note(id, "second")).await.unwrap();
    }
    nodes[0].remove_record(NotePrimaryKey(20)).await.unwrap();
    nodes[0].put_record(note(1000, "new")).await.unwrap();
    nodes[1].start_swarm().await.unwrap();
    knows_peers(&nodes[1], 2).await;
    let report = within_deadline("the repair", nodes[1].repair()).await.unwrap();
    assert!(report.received >= 22, "{report:?}");
    for id in 0..20 {
        assert_eq!(has(&nodes[1], id).as_deref(), Some("second"));
    }
    assert_eq!((has(&nodes[1], 20), has(&nodes[1], 1000).as_deref()), (None, Some("new")));
}

#[tokio::test(flavor = "multi_thread")]
async fn records_have_as_many_holders_as_before_after_nodes_have_gone() {
    const REPLICATION: usize = 4;
    let mut nodes = network_of(12, REPLICATION).await;
    for id in 0..60 {
        nodes[(id % 12) as usize].put_record(note(id, "kept")).await.unwrap();
    }
    for node in nodes.drain(8..) {
        node.stop_swarm().await.unwrap();
    }
    for _ in 0..2 {
        for node in &nodes {
            within_deadline("the repair", node.repair()).await.unwrap();
        }
    }
    for id in 0..60 {
        let copies = copies(&nodes, id, "kept");
        assert!(copies >= REPLICATION, "{copies} copies of {id}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_lost_its_connections_compares_at_once_when_it_has_some_again() {
    let mut nodes = network_of(2, 20).await;
    let mut config = config(20, Some(&nodes[0]));
    config.dht.repair_interval = Some(std::time::Duration::from_secs(60 * 60));
    let away = started(config).await;
    for (node, others) in [(&nodes[0], 2), (&nodes[1], 2), (&away, 2)] {
        knows_peers(node, others).await;
    }
    nodes[0].put_record(note(1, "first")).await.unwrap();
    let mut events = away.subscribe_to_broadcasts();
    // It keeps them in its routing table, and is in theirs again only when it has come back.
    for node in &nodes {
        node.remove_peer(away.local_peer_id()).await.unwrap();
    }
    nodes[0].store().open_tree::<Note>().unwrap().put(&note(2, "meanwhile")).unwrap();
    within_deadline("the comparison", async {
        while has(&away, 2).is_none() || !away.is_current() {
            let _ = events.recv().await;
        }
    })
    .await;
    nodes.push(away);
}

#[tokio::test(flavor = "multi_thread")]
async fn much_that_a_tree_has_written_is_compared_at_once() {
    let mut nodes = network_of(1, 20).await;
    let mut config = config(20, Some(&nodes[0]));
    config.dht.repair_interval = Some(std::time::Duration::from_secs(60 * 60));
    let writer = started(config).await;
    knows_peers(&writer, 1).await;
    let mut events = writer.subscribe_to_broadcasts();
    let many: Vec<Note> = (0..1500).map(|id| note(id, "much")).collect();
    writer.store().open_tree::<Note>().unwrap().put_many(&many).unwrap();
    let sent = within_deadline("the walk", async {
        loop {
            if let Ok(netabase::NetabaseSwarmEvent::Repaired(report)) = events.recv().await
                && report.sent > 0
            {
                return report.sent;
            }
        }
    })
    .await;
    assert_eq!(sent, 1500, "in one walk, and before it was due to be published");
    nodes.push(writer);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_no_holder_any_more_hands_over_and_gives_up_its_copy() {
    const REPLICATION: usize = 3;
    let mut nodes = network_of(4, REPLICATION).await;
    for id in 0..40 {
        nodes[0].put_record(note(id, "moved")).await.unwrap();
    }
    for _ in 4..12 {
        let config = config(REPLICATION, Some(&nodes[0]));
        nodes.push(started(config).await);
    }
    for node in &nodes {
        knows_peers(node, 11).await;
    }
    let mut released = 0;
    for _ in 0..2 {
        for node in &nodes {
            released += within_deadline("the repair", node.repair()).await.unwrap().released;
        }
    }
    assert!(released > 0);
    for node in &nodes {
        node.store().flush().unwrap();
    }
    for id in 0..40 {
        let copies = copies(&nodes, id, "moved");
        // Its author keeps a copy, too, and so does the next closest, which others may take for a
        // holder.
        assert!((REPLICATION..=REPLICATION + 2).contains(&copies), "{copies} copies of {id}");
        let key = RecordKey::of(&NotePrimaryKey(id)).unwrap();
        assert!(nodes[0].store().envelope(&key).unwrap().is_some());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_is_gone_is_found_to_be_so_once() {
    let mut nodes = network_of(3, 20).await;
    for id in 0..10 {
        nodes[0].put_record(note(id, "here")).await.unwrap();
    }
    let gone = nodes.pop().unwrap();
    // A peer that its user has named is not dialled just to see whether it is there.
    nodes[0].add_address(gone.local_peer_id(), gone.listen_addresses().remove(0)).await.unwrap();
    gone.stop_swarm().await.unwrap();
    let first = within_deadline("the repair", nodes[0].repair()).await.unwrap();
    assert_eq!(first.unreachable, 1, "{first:?}");
    // What has just come gathers for a moment before it is written, and only what is written is
    // compared.
    nodes[1].store().flush().unwrap();
    let second = within_deadline("the repair", nodes[0].repair()).await.unwrap();
    assert_eq!((second.unreachable, second.comparisons, second.equal), (0, 1, 1), "{second:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_knows_more_peers_of_a_part_of_the_keyspace_than_hold_a_record() {
    const PEERS: usize = 30;
    let node = started(config(20, None)).await;
    let local = KBucketKey::from(node.local_peer_id());
    let is_in_other_half = |peer: &PeerId| KBucketKey::from(*peer).distance(&local).ilog2() == Some(255);
    let others = std::iter::repeat_with(PeerId::random).filter(is_in_other_half).take(PEERS);
    for peer in others {
        node.add_address(peer, "/memory/1".parse().unwrap()).await.unwrap();
    }
    assert_eq!(within_deadline("the lookup", node.bootstrap()).await.unwrap(), PEERS);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_repair_has_sent_need_not_be_published_as_well() {
    const RECORDS: u64 = 2000;
    let author = Notes::new_with_config(config(20, None)).unwrap();
    for id in 0..RECORDS {
        author.put_record(note(id, "offline")).await.unwrap();
    }
    author.start_swarm().await.unwrap();
    let peer = started(config(20, Some(&author))).await;
    knows_peers(&author, 1).await;
    let report = within_deadline("the repair", author.repair()).await.unwrap();
    assert!(report.sent > 0, "{report:?}");
    author.store().flush().unwrap();
    // The republisher may be at work on some.
    let due = author.store().replica().due(usize::MAX).unwrap().len();
    assert!(due <= 256, "{due}");
    assert!((0..RECORDS).all(|id| has(&peer, id).is_some()));
}
