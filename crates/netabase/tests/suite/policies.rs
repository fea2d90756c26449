//! Who may write a record, and what becomes of what several nodes write, between nodes.

use netabase::netabase_store::WriteError;
use netabase::{NetabaseError, StoreError};

use crate::common::*;

/// Waits until a node has a tally of its own that says `count`.
async fn counts(node: &Notes, id: u64, count: i64) {
    let mut events = node.subscribe_to_broadcasts();
    within_deadline("the tally to be complete", async {
        while node.store().open_tree::<Tally>().unwrap().get(&TallyPrimaryKey(id)).unwrap()
            != Some(Tally { id, count })
        {
            let _ = events.recv().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_record_belongs_to_the_node_whose_author_it_names() {
    let nodes = network(2).await;
    let owner = nodes[0].store().author().unwrap();
    let profile = Profile { owner, name: "Ada".into() };
    let outcome = nodes[0].put_record(profile.clone()).await.unwrap();
    assert_eq!(outcome.accepted, [nodes[1].local_peer_id()]);
    assert_eq!(nodes[1].get_record(ProfilePrimaryKey(owner)).await.unwrap(), Some(profile.clone()));
    let refused = nodes[1].put_record(Profile { name: "Eve".into(), ..profile.clone() }).await.unwrap_err();
    assert!(
        matches!(refused, NetabaseError::Store(StoreError::Write(WriteError::NotOwner { .. }))),
        "{refused:?}"
    );
    let refused = nodes[1].remove_record(ProfilePrimaryKey(owner)).await.unwrap_err();
    assert!(
        matches!(refused, NetabaseError::Store(StoreError::Write(WriteError::NotOwner { .. }))),
        "{refused:?}"
    );
    assert_eq!(nodes[0].fetch_record(ProfilePrimaryKey(owner)).await.unwrap(), Some(profile));
}

#[tokio::test]
async fn what_several_nodes_count_adds_up_at_all_of_them() {
    let nodes = network(3).await;
    let put = |node: usize, count| nodes[node].put_record(Tally { id: 1, count });
    let (first, second) = futures::join!(put(0, 5), put(1, 7));
    assert!(first.is_ok() && second.is_ok());
    for node in &nodes {
        counts(node, 1, 12).await;
    }
    // The third has seen twelve, and adds one.
    put(2, 13).await.unwrap();
    for node in &nodes {
        counts(node, 1, 13).await;
        assert_eq!(node.fetch_record(TallyPrimaryKey(1)).await.unwrap(), Some(Tally { id: 1, count: 13 }));
    }
    assert!(nodes[0].remove_record(TallyPrimaryKey(1)).await.is_ok());
    assert_eq!(nodes[0].get_record(TallyPrimaryKey(1)).await.unwrap(), None);
}
