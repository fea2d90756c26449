//! Closed networks of one name: nodes with another root are noticed, told of, and kept apart.

use netabase::health::OtherRoot;
use netabase::members::MemberList;
use netabase::{Events, Identity, NetabaseConfig, NetabaseSwarmEvent, Scope, StoreOptions};

use crate::common::*;

fn closed(root: &Identity, config: NetabaseConfig) -> NetabaseConfig {
    NetabaseConfig { store: StoreOptions { root: Some(root.author()), ..config.store }, ..config }
}

async fn other_root(events: &mut Events) -> OtherRoot {
    wait_for(events, |event| match event {
        NetabaseSwarmEvent::OtherRoot(other) => Some(other.clone()),
        _ => None,
    })
    .await
}

async fn is_alone(node: &Notes, events: &mut Events) {
    within_deadline("the connection to end", async {
        while !node.connected_peers().await.unwrap().is_empty() {
            let _ = events.recv().await;
        }
    })
    .await;
}

#[tokio::test]
async fn two_clubs_of_one_name_are_kept_apart_and_told_of_each_other() {
    let [ours, theirs] = [(); 2].map(|()| Identity::generate());
    let node = Notes::new_with_config(closed(&ours, memory_config())).unwrap();
    let mut list = MemberList::default();
    list.add(node.store().author().unwrap()).unwrap();
    node.publish_members(&list, &ours).await.unwrap();
    node.put_record(note(1, "ours")).await.unwrap();
    node.start_swarm().await.unwrap();
    let stranger = Notes::new_with_config(closed(&theirs, config_knowing(&node))).unwrap();
    let _kept = stranger.replicate(Scope::definition::<NotesDefinition>()).unwrap();
    let (mut events, mut strangers) = (node.subscribe_to_broadcasts(), stranger.subscribe_to_broadcasts());
    stranger.start_swarm().await.unwrap();

    let (seen, seen_there) = (other_root(&mut events).await, other_root(&mut strangers).await);
    let digits = |root: &Identity| root.author().to_string()[..16].to_owned();
    assert_eq!((seen.peer, &*seen.theirs), (stranger.local_peer_id(), &*digits(&theirs)));
    assert_eq!(seen.ours.as_deref(), Some(&*digits(&ours)));
    assert_eq!((&*seen_there.theirs, seen_there.ours.as_deref()), (&*digits(&ours), Some(&*digits(&theirs))));
    assert_eq!(node.other_roots(), [seen]);
    is_alone(&node, &mut events).await;
    is_alone(&stranger, &mut strangers).await;
    while let Ok(Some(event)) = strangers.try_recv() {
        let is_wrong = matches!(
            event,
            NetabaseSwarmEvent::SyncStarted { .. } | NetabaseSwarmEvent::RecordRefused { .. }
        );
        assert!(!is_wrong, "{event:?}");
    }

    // Whoever has the root is not kept away.
    let friend = started(closed(&ours, config_knowing(&node))).await;
    knows_peers(&friend, 1).await;
    assert_eq!(friend.get_record(NotePrimaryKey(1)).await.unwrap(), Some(note(1, "ours")));
}

#[tokio::test]
async fn an_open_node_in_a_closed_network_is_told_that_it_has_no_root() {
    let root = Identity::generate();
    let closed = started(closed(&root, memory_config())).await;
    let open = Notes::new_with_config(config_knowing(&closed)).unwrap();
    let mut events = open.subscribe_to_broadcasts();
    open.start_swarm().await.unwrap();
    let seen = other_root(&mut events).await;
    assert_eq!((seen.peer, seen.ours), (closed.local_peer_id(), None));
    knows_peers(&open, 1).await;
}
