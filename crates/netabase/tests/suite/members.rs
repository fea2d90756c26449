//! Closed networks: the list of members reaches every node, and counts there.

use netabase::changes::Origin;
use netabase::members::{MemberList, MembersError, SignedMembers};
use netabase::netabase_store::WriteError;
use netabase::{
    Author, Envelope, Events, Keypair, NetabaseConfig, NetabaseError, NetabaseSwarmEvent, PeerId, RecordKey,
    Refusal, StoreError, StoreOptions, Timestamp,
};
use netabase_store::SigningKey;
use netabase_store::schema::EncodedRecord;

use crate::common::*;

/// Whose records the tests offer.
const WRITER: u8 = 7;
/// Before and after what is revoked, in milliseconds.
const EARLY: u64 = 1000;
const REVOKED: u64 = 2000;
const LATE: u64 = 3000;

struct Root(SigningKey);

impl Root {
    fn new() -> Self {
        Self(SigningKey::from_bytes(&[9; 32]))
    }

    fn author(&self) -> Author {
        Author::of(&self.0)
    }

    fn keypair(&self) -> Keypair {
        Keypair::ed25519_from_bytes(self.0.to_bytes()).unwrap()
    }

    fn config(&self) -> NetabaseConfig {
        NetabaseConfig {
            store: StoreOptions { root: Some(self.author()), ..memory_config().store },
            ..memory_config()
        }
    }

    fn config_knowing(&self, peer: &Notes) -> NetabaseConfig {
        NetabaseConfig {
            store: StoreOptions { root: Some(self.author()), ..memory_config().store },
            ..config_knowing(peer)
        }
    }
}

fn writer() -> SigningKey {
    SigningKey::from_bytes(&[WRITER; 32])
}

fn author_of(node: &Notes) -> Author {
    node.store().author().unwrap()
}

/// A list of the nodes and of the writer.
fn everybody(nodes: &[Notes]) -> MemberList {
    let mut list = MemberList::default();
    for author in nodes.iter().map(author_of).chain([Author::of(&writer())]) {
        list.add(author).unwrap();
    }
    list
}

/// Offers a note that the writer has signed at `time`, as a peer would.
fn offer(node: &Notes, id: u64, time: u64) -> Result<bool, Refusal> {
    let key = RecordKey::of(&NotePrimaryKey(id)).unwrap();
    let payload = EncodedRecord::of(&note(id, "offered")).unwrap().payload;
    let envelope = Envelope::sign(&writer(), &key, Timestamp::from_unix_millis(time), 0, Some(&payload));
    node.store().replica().admit(key.as_bytes(), envelope.as_bytes())
}

/// Waits until `node` has `list`.
async fn has_list(node: &Notes, events: &mut Events, list: &MemberList) {
    within_deadline("the member list", async {
        while node.members().unwrap().as_ref() != Some(list) {
            let _ = events.recv().await;
        }
    })
    .await;
}

async fn all_have_list(nodes: &[Notes], list: &MemberList) {
    for node in nodes {
        has_list(node, &mut node.subscribe_to_broadcasts(), list).await;
    }
}

/// Nodes each of which has room for connections to its neighbours only.
async fn line(root: &Root, count: usize) -> Vec<Notes> {
    let mut nodes: Vec<Notes> = Vec::new();
    for position in 0..count {
        let mut config = nodes.last().map_or_else(|| root.config(), |last| root.config_knowing(last));
        config.connections.max_established = if position == 0 || position == count - 1 { 1 } else { 2 };
        let node = Notes::new_with_config(config).unwrap();
        let mut events = nodes.last().map(|node| node.subscribe_to_broadcasts());
        node.start_swarm().await.unwrap();
        if let Some(events) = &mut events {
            identified(events, node.local_peer_id()).await;
        }
        nodes.push(node);
    }
    nodes
}

async fn identified(events: &mut Events, peer: PeerId) {
    wait_for(events, |event| match event {
        NetabaseSwarmEvent::Identify(event) => {
            matches!(**event, libp2p::identify::Event::Received { peer_id, .. } if peer_id == peer)
                .then_some(())
        }
        _ => None,
    })
    .await;
}

#[tokio::test]
async fn a_list_counts_at_the_other_end_of_a_line_and_after_an_absence() {
    let root = Root::new();
    let nodes = line(&root, 8).await;
    assert_eq!(offer(&nodes[7], 1, EARLY), Err(Refusal::NotMember), "there is no list yet");

    let mut list = everybody(&nodes);
    nodes[0].publish_members(&list, &root.keypair()).await.unwrap();
    all_have_list(&nodes, &list).await;
    for node in &nodes {
        assert_eq!(offer(node, 1, EARLY), Ok(true));
    }

    nodes[7].stop_swarm().await.unwrap();
    assert_eq!(offer(&nodes[7], 2, LATE), Ok(true), "it has not heard");
    list.revoke(Author::of(&writer()), Timestamp::from_unix_millis(REVOKED));
    nodes[0].publish_members(&list, &root.keypair()).await.unwrap();
    all_have_list(&nodes[..7], &list).await;

    let mut events = nodes[7].subscribe_to_broadcasts();
    nodes[7].start_swarm().await.unwrap();
    let removed =
        wait_for_record(&mut events, |record| record.model::<Note>() == Some(Ok(note(2, "offered")))).await;
    assert_eq!((removed.origin(), removed.envelope()), (Origin::Network, None));
    assert_eq!(nodes[7].members().unwrap(), Some(list));
    for (position, node) in nodes.iter().enumerate() {
        assert_eq!(offer(node, 3, LATE), Err(Refusal::NotMember), "node {position}");
        let tree = node.store().open_tree::<Note>().unwrap();
        assert_eq!(tree.get(&NotePrimaryKey(1)).unwrap(), Some(note(1, "offered")), "node {position}");
        assert_eq!(tree.get(&NotePrimaryKey(2)).unwrap(), None, "node {position}");
        let connected = node.connected_peers().await.unwrap();
        let is_neighbour = |peer: &PeerId| {
            nodes.iter().position(|other| other.local_peer_id() == *peer).unwrap().abs_diff(position) == 1
        };
        assert!(connected.iter().all(is_neighbour), "node {position} has other peers than its neighbours");
    }
}

#[tokio::test]
async fn parts_of_a_network_that_meet_have_the_newest_list() {
    let root = Root::new();
    let [a, c] = [started(root.config()).await, started(root.config()).await];
    let b = started(root.config_knowing(&a)).await;
    let d = started(root.config_knowing(&c)).await;
    let nodes = [a, b, c, d];
    let older = everybody(&nodes[..3]).sign(&root.0, "NotesDefinition", None).unwrap();
    let newer = everybody(&nodes).sign(&root.0, "NotesDefinition", Some(older.timestamp())).unwrap();
    nodes[0].apply_members(newer.clone()).await.unwrap();
    nodes[2].apply_members(older.clone()).await.unwrap();
    all_have_list(&nodes[..2], newer.members()).await;
    all_have_list(&nodes[2..], older.members()).await;

    nodes[1].add_address(nodes[2].local_peer_id(), nodes[2].listen_addresses().remove(0)).await.unwrap();
    all_have_list(&nodes, newer.members()).await;
    let error = nodes[3].apply_members(older).await.unwrap_err();
    assert!(
        matches!(error, NetabaseError::Store(StoreError::Members(MembersError::Outdated { .. }))),
        "{error}"
    );
}

#[tokio::test]
async fn a_member_writes_for_everybody_and_others_for_nobody() {
    let root = Root::new();
    let first = started(root.config()).await;
    let second = started(root.config_knowing(&first)).await;
    let error = first.put_record(note(1, "too early")).await.unwrap_err();
    assert!(
        matches!(error, NetabaseError::Store(StoreError::Write(WriteError::NotMember { .. }))),
        "{error}"
    );
    let mut list = MemberList::default();
    list.add(author_of(&second)).unwrap();
    let mut events = second.subscribe_to_broadcasts();
    first.publish_members(&list, &root.keypair()).await.unwrap();
    let signed = wait_for(&mut events, |event| match event {
        NetabaseSwarmEvent::MembersChanged(signed) => Some(signed.clone()),
        _ => None,
    })
    .await;
    assert_eq!((signed.members(), signed.signer()), (&list, root.author()));

    let outcome = second.put_record(note(1, "a member's")).await.unwrap();
    assert_eq!(outcome.accepted, [first.local_peer_id()]);
    assert_eq!(first.get_record(NotePrimaryKey(1)).await.unwrap(), Some(note(1, "a member's")));
    let error = first.remove_record(NotePrimaryKey(1)).await.unwrap_err();
    assert!(
        matches!(error, NetabaseError::Store(StoreError::Write(WriteError::NotMember { .. }))),
        "{error}"
    );
    let stranger = Keypair::generate_ed25519();
    let error = first.publish_members(&list, &stranger).await.unwrap_err();
    assert!(
        matches!(error, NetabaseError::Store(StoreError::Members(MembersError::NotRoot { .. }))),
        "{error}"
    );
}

#[tokio::test]
async fn a_list_published_offline_reaches_peers_that_appear() {
    let root = Root::new();
    let node = Notes::new_with_config(root.config()).unwrap();
    let list = everybody(std::slice::from_ref(&node));
    let outcome = node.publish_members(&list, &root.keypair()).await.unwrap();
    assert_eq!(outcome.asked, []);
    assert_eq!(node.members().unwrap(), Some(list.clone()));
    node.start_swarm().await.unwrap();
    let server = started(root.config_knowing(&node)).await;
    let mut config = root.config_knowing(&node);
    config.dht.mode = netabase::DhtMode::Client;
    let client = started(config).await;
    all_have_list(&[server, client], &list).await;
}

#[tokio::test]
async fn a_list_is_kept_over_a_restart() {
    let root = Root::new();
    let directory = tempfile::tempdir().unwrap();
    let config = NetabaseConfig {
        store: StoreOptions { backend: netabase::StorageBackend::Redb, ..root.config().store },
        database_path: Some(directory.path().join("notes.redb")),
        ..root.config()
    };
    let node = Notes::new_with_config(config.clone()).unwrap();
    let list = everybody(std::slice::from_ref(&node));
    let bytes = list.sign(&root.0, "NotesDefinition", None).unwrap().as_bytes().to_vec();
    node.apply_members(SignedMembers::parse(&bytes).unwrap()).await.unwrap();
    drop(node);
    let node = Notes::new_with_config(config).unwrap();
    assert_eq!(node.members().unwrap(), Some(list));
    node.put_record(note(1, "still a member")).await.unwrap();
}

#[tokio::test]
async fn an_open_network_has_no_member_list() {
    let node = Notes::new_with_config(memory_config()).unwrap();
    let error = node.members().unwrap_err();
    assert!(matches!(error, NetabaseError::Store(StoreError::Members(MembersError::OpenNetwork))), "{error}");
}
