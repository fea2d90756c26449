//! Floods of connections, and the honest peers among them.

use netabase::NetabaseSwarmEvent;
use netabase::health::ConnectionInfo;

use crate::common::flood::{flood, limited};
use crate::common::*;

#[tokio::test]
async fn an_honest_peer_gets_in_and_stays_while_the_node_is_flooded() {
    const MAX: u32 = 32;
    let node = started(limited(memory_config(), MAX)).await;
    let mut events = node.subscribe_to_broadcasts();
    let flood = tokio::spawn(flood(full_address(&node), 80));
    // The flood has filled the node, and some of it was thrown out.
    let mut connected = 0;
    let mut thrown_out = 0;
    within_deadline("the flood", async {
        while connected < MAX || thrown_out == 0 {
            match events.recv().await {
                Ok(NetabaseSwarmEvent::ConnectionEstablished { .. }) => connected += 1,
                Ok(NetabaseSwarmEvent::ConnectionClosed { .. }) => thrown_out += 1,
                _ => {}
            }
        }
    })
    .await;

    let honest = started(config_knowing(&node)).await;
    knows_peers(&node, 1).await;
    knows_peers(&honest, 1).await;
    for id in 0..20 {
        let outcome = honest.put_record(note(id, "in the flood")).await.unwrap();
        assert_eq!(outcome.accepted, [node.local_peer_id()]);
        assert_eq!(honest.fetch_record(NotePrimaryKey(id)).await.unwrap(), Some(note(id, "in the flood")));
        assert_eq!(node.get_record(NotePrimaryKey(id)).await.unwrap(), Some(note(id, "in the flood")));
    }
    let peers = node.connected_peers().await.unwrap();
    assert!(peers.contains(&honest.local_peer_id()));
    assert!(peers.len() <= 32 + 4, "{} peers", peers.len());
    assert!(!flood.is_finished(), "the flood went on all the time");
    flood.abort();
}

#[tokio::test]
async fn connections_are_told_at_both_ends_until_they_are_closed() {
    let nodes = network(2).await;
    let [one, other] = &nodes[..] else { unreachable!() };
    let mut events = one.subscribe_to_broadcasts();
    let told = async |node: &Notes| node.connections().await.unwrap();
    let (here, there) = (told(one).await, told(other).await);
    assert!(!here.is_empty() && here.iter().all(|known| known.peer == other.local_peer_id()), "{here:?}");
    let outgoing = |known: &[ConnectionInfo]| known.iter().filter(|known| known.outgoing).count();
    assert!(there.iter().all(|known| known.peer == one.local_peer_id()), "{there:?}");
    assert_ne!(outgoing(&here) + outgoing(&there), 0, "somebody has dialled");
    one.remove_peer(other.local_peer_id()).await.unwrap();
    let is_gone = |event: &NetabaseSwarmEvent| {
        matches!(event, NetabaseSwarmEvent::ConnectionClosed { connections: 0, .. }).then_some(())
    };
    wait_for(&mut events, is_gone).await;
    let left = told(one).await;
    assert!(left.iter().all(|known| !here.contains(known)), "{left:?}");
}

#[tokio::test]
async fn a_flooded_node_still_makes_connections_itself() {
    let node = started(limited(memory_config(), 16)).await;
    let mut events = node.subscribe_to_broadcasts();
    let flood = tokio::spawn(flood(full_address(&node), 30));
    wait_for(&mut events, |event| matches!(event, NetabaseSwarmEvent::ConnectionClosed { .. }).then_some(()))
        .await;
    let other = started(memory_config()).await;
    let address = other.listen_addresses().remove(0);
    node.add_address(other.local_peer_id(), address).await.unwrap();
    let connected = wait_for(&mut events, |event| match event {
        NetabaseSwarmEvent::ConnectionEstablished { peer, outgoing: true, .. } => Some(*peer),
        _ => None,
    });
    assert_eq!(connected.await, other.local_peer_id());
    knows_peers(&node, 1).await;
    let outcome = node.put_record(note(1, "out of the flood")).await.unwrap();
    assert_eq!(outcome.accepted, [other.local_peer_id()]);
    assert!(!flood.is_finished(), "the flood went on all the time");
    flood.abort();
}
