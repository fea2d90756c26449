//! Finding out who holds what.

use std::collections::BTreeSet;
use std::time::Duration;

use netabase::key::KeyField;
use netabase::libp2p::kad;
use netabase::query::HolderAnswer;
use netabase::query::NetworkPage;
use netabase::{
    Envelope, Events, Freshness, NetabaseError, NetabaseSwarmEvent, PeerId, QueryOptions, RecordKey, Scope,
    Timestamp,
};

use netabase_store::SigningKey;
use netabase_store::schema::EncodedRecord;

use crate::common::*;

async fn holders(node: &Notes, scope: Scope) -> BTreeSet<PeerId> {
    node.holders(scope).await.unwrap().into_iter().collect()
}

#[tokio::test]
async fn in_a_small_network_everybody_may_hold_everything() {
    let nodes = network_without_repair(3).await;
    let topic = Scope::value(&NoteTopicSecondaryKey("cooking".into()));
    for scope in [topic, Scope::model::<Note>(), Scope::definition::<NotesDefinition>()] {
        let others: BTreeSet<PeerId> = nodes[1..].iter().map(|node| node.local_peer_id()).collect();
        assert_eq!(holders(&nodes[0], scope).await, others);
    }
    let other = Scope { definition: "Other".into(), ..Scope::model::<Note>() };
    assert_eq!(holders(&nodes[0], other).await, BTreeSet::new());
}

/// The bytes of a provider key, as `docs/formats.md` says.
fn provider_key(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let mut hasher = blake3::Hasher::new_derive_key("netabase 2026-11 provider key of a scope");
    hasher.update(&[tag]);
    for part in parts {
        hasher.update(&u32::try_from(part.len()).unwrap().to_be_bytes());
        hasher.update(part);
    }
    [b"/netabase-find/", &hasher.finalize().as_bytes()[..]].concat()
}

fn topic_key(topic: &str) -> Vec<u8> {
    let value = NoteTopicSecondaryKey(topic.into()).to_key_bytes();
    provider_key(1, &[b"NotesDefinition", b"Note", b"topic", &value])
}

/// Waits until a node has announced a key to another one.
async fn announced(events: &mut Events) {
    wait_for(events, |event| match event {
        NetabaseSwarmEvent::Kad(event) => match **event {
            kad::Event::InboundRequest { request: kad::InboundRequest::AddProvider { .. } } => Some(()),
            _ => None,
        },
        _ => None,
    })
    .await;
}

/// Waits until `count` keys are provided by `peer`, as far as `node` knows.
async fn provides(node: &Notes, events: &mut Events, peer: PeerId, count: usize) -> BTreeSet<Vec<u8>> {
    loop {
        let provided: BTreeSet<Vec<u8>> = node.store().replica().provided_by(&peer).into_iter().collect();
        if provided.len() >= count {
            return provided;
        }
        announced(events).await;
    }
}

#[tokio::test]
async fn a_node_says_once_what_models_and_values_it_holds() {
    let nodes = network_without_repair(2).await;
    let mut events = nodes[1].subscribe_to_broadcasts();
    for id in 0..30 {
        nodes[0].store().open_tree::<Note>().unwrap().put(&note(id, "text")).unwrap();
    }
    let provided = provides(&nodes[1], &mut events, nodes[0].local_peer_id(), 4).await;
    let topics = ["topic 0", "topic 1", "topic 2"].map(topic_key);
    let expected = topics.into_iter().chain([provider_key(0, &[b"NotesDefinition", b"Note"])]).collect();
    assert_eq!(provided, expected);
}

#[tokio::test]
async fn the_holder_of_too_many_values_says_that_it_does_not_list_them() {
    let nodes = network_without_repair(2).await;
    let mut events = nodes[1].subscribe_to_broadcasts();
    let tree = nodes[0].store().open_tree::<Note>().unwrap();
    let many: Vec<Note> =
        (0..2000).map(|id| Note { id, topic: format!("topic {id}"), text: String::new() }).collect();
    tree.put_many(&many).unwrap();
    let provided = provides(&nodes[1], &mut events, nodes[0].local_peer_id(), 2).await;
    let unlisted = provider_key(2, &[b"NotesDefinition", b"Note", b"topic"]);
    let expected = BTreeSet::from([unlisted, provider_key(0, &[b"NotesDefinition", b"Note"])]);
    assert_eq!(provided, expected);
}

#[tokio::test]
async fn what_is_held_no_longer_is_not_provided_any_more() {
    let nodes = network_without_repair(2).await;
    let mut events = nodes[1].subscribe_to_broadcasts();
    let (local, tree) = (nodes[0].local_peer_id(), nodes[0].store().open_tree::<Note>().unwrap());
    tree.put(&note(0, "text")).unwrap();
    provides(&nodes[1], &mut events, local, 2).await;
    assert!(nodes[0].store().replica().provided_by(&local).contains(&topic_key("topic 0")));
    tree.remove(&NotePrimaryKey(0)).unwrap();
    tree.put(&note(1, "text")).unwrap();
    // The new topic is announced in the same tick, after the old one was taken back.
    let provided = provides(&nodes[1], &mut events, local, 3).await;
    assert!(provided.contains(&topic_key("topic 1")));
    let own: BTreeSet<Vec<u8>> = nodes[0].store().replica().provided_by(&local).into_iter().collect();
    let model = provider_key(0, &[b"NotesDefinition", b"Note"]);
    assert_eq!(own, BTreeSet::from([model, topic_key("topic 1")]));
}

fn cached() -> QueryOptions {
    let mut options = QueryOptions::default();
    options.freshness = Freshness::Cached(Duration::from_secs(60 * 60));
    options
}

fn ids(page: &NetworkPage<Note>) -> Vec<u64> {
    page.records.iter().map(|note| note.id).collect()
}

/// Stores a note at one node alone.
fn keep(node: &Notes, id: u64) {
    node.store().open_tree::<Note>().unwrap().put(&note(id, "text")).unwrap();
}

#[tokio::test]
async fn a_cached_page_is_returned_until_something_changes_here_that_belongs_to_it() {
    let nodes = network_without_repair(2).await;
    for id in [0, 3] {
        nodes[1].put_record(note(id, "text")).await.unwrap();
    }
    // Its copies of them are changes, too.
    nodes[0].store().flush().unwrap();
    let query = nodes[0].query::<Note>().topic("topic 0").options(cached());
    let first = query.page().await.unwrap();
    assert_eq!((ids(&first), first.report.cached), (vec![0, 3], None));
    // A change of another topic does not matter.
    keep(&nodes[0], 1);
    let second = query.page().await.unwrap();
    assert_eq!((ids(&second), second.report.cached.is_some()), (vec![0, 3], true));
    keep(&nodes[0], 6);
    let third = query.page().await.unwrap();
    assert_eq!((ids(&third), third.report.cached), (vec![0, 3, 6], None));
    nodes[0].store().open_tree::<Note>().unwrap().remove(&NotePrimaryKey(3)).unwrap();
    assert_eq!(ids(&query.page().await.unwrap()), [0, 6]);
}

#[tokio::test]
async fn what_was_deleted_here_is_not_found_elsewhere() {
    let nodes = network_without_repair(2).await;
    nodes[0].put_record(note(0, "text")).await.unwrap();
    nodes[1].put_record(note(3, "text")).await.unwrap();
    // Nobody is told of it.
    nodes[0].store().open_tree::<Note>().unwrap().remove(&NotePrimaryKey(0)).unwrap();
    let page = nodes[0].query::<Note>().topic("topic 0").page().await.unwrap();
    assert_eq!(ids(&page), [3]);
    assert!(page.report.is_complete());
    assert_eq!(page.report.peers[0].answer, HolderAnswer::Answered);
}

#[tokio::test]
async fn a_query_needs_a_running_swarm_and_no_peers() {
    let node = Notes::new_with_config(memory_config()).unwrap();
    let query = node.query::<Note>().reverse();
    assert!(matches!(query.page().await, Err(NetabaseError::NotRunning)));
    assert!(matches!(query.stream(), Err(NetabaseError::NotRunning)));
    node.start_swarm().await.unwrap();
    keep(&node, 0);
    keep(&node, 1);
    let page = query.page().await.unwrap();
    assert_eq!((ids(&page), page.cursor, page.report.local_records), (vec![1, 0], None, 2));
}

#[tokio::test]
async fn a_page_without_a_limit_has_one() {
    let node = started(memory_config()).await;
    let many: Vec<Note> = (0..1500).map(|id| note(id, "text")).collect();
    node.store().open_tree::<Note>().unwrap().put_many(&many).unwrap();
    let first = node.query::<Note>().page().await.unwrap();
    let rest = node.query::<Note>().after(first.cursor.unwrap()).page().await.unwrap();
    assert_eq!((first.records.len(), rest.records.len(), rest.cursor), (1000, 500, None));
    assert_eq!(node.query::<Note>().collect().await.unwrap().records.len(), 1500);
}

/// Gives a node alone a version of a note, signed by nobody whom the nodes know, so that it stays
/// where it is.
fn have(node: &Notes, known: &Note, version: u64) {
    let key = RecordKey::of(&NotePrimaryKey(known.id)).unwrap();
    let payload = EncodedRecord::of(known).unwrap().payload;
    let author = SigningKey::from_bytes(&[9; 32]);
    let time = Timestamp::from_unix_millis(1_700_000_000_000 + version);
    let envelope = Envelope::sign(&author, &key, time, 0, Some(&payload));
    node.store().replica().admit(key.as_bytes(), envelope.as_bytes()).unwrap();
    node.store().flush().unwrap();
}

#[tokio::test]
async fn the_newest_version_counts_wherever_it_is_in_the_order() {
    let nodes = network_without_repair(3).await;
    let (old, new) = (note(0, "old"), Note { topic: "topic 2".into(), ..note(0, "new") });
    have(&nodes[1], &old, 1);
    have(&nodes[2], &new, 2);
    have(&nodes[2], &note(1, "text"), 1);
    for query in
        [nodes[0].query::<Note>().topic("topic 0"..), nodes[0].query::<Note>().topic("topic 0"..).reverse()]
    {
        let mut found = query.page().await.unwrap().records;
        found.sort_by_key(|note| note.id);
        assert_eq!(found, [new.clone(), note(1, "text")]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_larger_network_those_are_asked_who_say_that_they_hold_a_value() {
    const NODES: usize = 25;
    let nodes = network_without_repair(NODES).await;
    let holder = &nodes[5];
    let provider = holder.local_peer_id();
    let heard = nodes.iter().map(|node| {
        let mut events = node.subscribe_to_broadcasts();
        Box::pin(async move { provides(node, &mut events, provider, 2).await })
    });
    let heard = futures::future::select_all(heard.collect::<Vec<_>>());
    have(holder, &note(7, "text"), 1);
    within_deadline("the announcement", heard).await;

    let asker = &nodes[NODES - 1];
    let scope = Scope::value(&NoteTopicSecondaryKey("topic 1".into()));
    assert_eq!(holders(asker, scope).await, BTreeSet::from([provider]));
    let page = asker.query::<Note>().topic("topic 1").page().await.unwrap();
    assert_eq!((ids(&page), page.report.peers.len()), (vec![7], 1));
    let none = Scope::value(&NoteTopicSecondaryKey("topic 2".into()));
    assert_eq!(holders(asker, none).await, BTreeSet::new());
}

#[netabase::netabase_definition_module(PostsDefinition, PostsKeys)]
#[allow(unreachable_pub, reason = "the models of a program are public")]
mod posts {
    use netabase::NetabaseModel;
    use serde::{Deserialize, Serialize};

    #[derive(NetabaseModel, Clone, Debug, PartialEq, Serialize, Deserialize)]
    #[netabase(PostsDefinition)]
    pub struct Post {
        #[primary_key]
        pub id: u64,
        #[secondary_key]
        pub tags: Vec<String>,
    }
}
use posts::*;

#[tokio::test]
async fn a_record_with_several_values_comes_once_in_a_page_of_a_peer() {
    let open = || netabase::Netabase::<PostsDefinition>::new_with_config(memory_config()).unwrap();
    let (asker, holder) = (open(), open());
    let tags = |tags: &[&str]| tags.iter().map(|tag| (*tag).to_owned()).collect::<Vec<_>>();
    let posts = [
        Post { id: 1, tags: tags(&["a", "b", "c"]) },
        Post { id: 2, tags: tags(&["b"]) },
        Post { id: 3, tags: tags(&["a", "c", "d"]) },
    ];
    holder.store().open_tree().unwrap().put_many(&posts).unwrap();
    asker.start_swarm().await.unwrap();
    holder.start_swarm().await.unwrap();
    asker.add_address(holder.local_peer_id(), holder.listen_addresses()[0].clone()).await.unwrap();
    for is_reverse in [false, true] {
        let (mut question, mut local) =
            (asker.query::<Post>().tags(..), holder.store().open_tree::<Post>().unwrap().query().tags(..));
        if is_reverse {
            (question, local) = (question.reverse(), local.reverse());
        }
        let found = question.page().await.unwrap();
        assert_eq!(found.records, local.page().unwrap().records, "{:?}", found.report);
        let told = found.report.peers.iter().find(|told| told.peer == holder.local_peer_id()).unwrap();
        assert_eq!((&told.answer, told.records, told.refused), (&HolderAnswer::Answered, 3, 0), "{told:?}");
    }
    let conduct = asker.peer_report(holder.local_peer_id());
    assert!(conduct.as_ref().is_none_or(|conduct| conduct.score == 0), "{conduct:?}");
}
