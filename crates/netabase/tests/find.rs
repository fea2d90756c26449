//! Finding out who holds what.

mod common;

use std::collections::BTreeSet;

use common::*;
use netabase::{PeerId, Scope};

async fn holders(node: &Notes, scope: Scope) -> BTreeSet<PeerId> {
    node.holders(scope).await.unwrap().into_iter().collect()
}

#[tokio::test]
async fn in_a_small_network_everybody_may_hold_everything() {
    let nodes = network(3).await;
    let topic = Scope::value(&NoteTopicSecondaryKey("cooking".into()));
    for scope in [topic, Scope::model::<Note>(), Scope::definition::<NotesDefinition>()] {
        let others: BTreeSet<PeerId> = nodes[1..].iter().map(Notes::local_peer_id).collect();
        assert_eq!(holders(&nodes[0], scope).await, others);
    }
    let other = Scope { definition: "Other".into(), ..Scope::model::<Note>() };
    assert_eq!(holders(&nodes[0], other).await, BTreeSet::new());
}
