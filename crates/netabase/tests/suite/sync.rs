//! Scopes that nodes keep: everything of them is here, and stays current.
#![allow(clippy::cast_possible_truncation, clippy::print_stdout, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::StreamExt;
use negentropy::{Id, Negentropy, NegentropyStorageVector};
use netabase::libp2p::request_response;
use netabase::libp2p::swarm::SwarmEvent;
use netabase::limits::{RECORD_BURST, RECORDS_PER_SECOND, SYNC_GIVE_BYTES};
use netabase::members::MemberList;
use netabase::netabase_store::SigningKey;
use netabase::netabase_store::replica::SyncItem;
use netabase::netabase_store::schema::EncodedRecord;
use netabase::sync::{SyncFailure, SyncReport};
use netabase::{
    Author, DHTDiscoveryConfig, DhtMode, Envelope, NetabaseConfig, NetabaseSwarmEvent, RecordKey,
    Replication, Scope, StoreOptions, Timestamp,
};
use proptest::prelude::*;
use proptest::sample::select;

use crate::common::bare::*;
use crate::common::*;

/// A node that gets nothing but by what is tested.
fn config() -> NetabaseConfig {
    let dht = DHTDiscoveryConfig { repair_interval: None, ..DHTDiscoveryConfig::default() };
    NetabaseConfig { dht, ..memory_config() }
}

async fn meet(one: &Notes, other: &Notes) {
    one.add_address(other.local_peer_id(), other.listen_addresses()[0].clone()).await.unwrap();
}

fn notes_scope() -> Scope {
    Scope::model::<Note>()
}

fn all_notes() -> Scope {
    Scope::definition::<NotesDefinition>()
}

fn fingerprint(node: &Notes, scope: &Scope) -> [u8; 16] {
    node.store().replica().sync_set(scope).unwrap().fingerprint().unwrap()
}

fn len(node: &Notes) -> usize {
    node.store().replica().sync_set(&notes_scope()).unwrap().len()
}

async fn caught_up(replication: &Replication) {
    within_deadline("the replication", replication.caught_up()).await.unwrap();
}

async fn sync(replication: &Replication) {
    replication.sync();
    caught_up(replication).await;
}

fn write(node: &Notes, ids: impl IntoIterator<Item = u64>, text: &str) {
    let notes: Vec<_> = ids.into_iter().map(|id| note(id, text)).collect();
    node.store().open_tree().unwrap().put_many(&notes).unwrap();
}

fn text(node: &Notes, id: u64) -> Option<String> {
    node.store().open_tree::<Note>().unwrap().get(&NotePrimaryKey(id)).unwrap().map(|note| note.text)
}

/// Gives a node what another one has, without the network.
fn copy(from: &Notes, to: &Notes) {
    from.store().flush().unwrap();
    for (key, envelope) in from.store().local_records(None).unwrap() {
        to.store().replica().admit(key.as_bytes(), envelope.as_bytes()).unwrap();
    }
    to.store().flush().unwrap();
}

/// Nobody sends a client what it should hold, and the interval between two comparisons is longer
/// than the test.
#[tokio::test(flavor = "multi_thread")]
async fn changes_that_are_lost_live_come_at_once_by_a_comparison() {
    const RECORDS: u64 = 40;
    let author = started(config()).await;
    let mut client = config();
    client.dht.mode = DhtMode::Client;
    let replica = started(client).await;
    let replication = replica.replicate(notes_scope()).unwrap();
    meet(&replica, &author).await;
    caught_up(&replication).await;
    let notes = author.store().open_tree::<Note>().unwrap();
    within_deadline("the subscription", async {
        while author.live_stats().published == 0 {
            notes.put(&note(0, "is anybody there")).unwrap();
            tokio::task::yield_now().await;
        }
    })
    .await;

    let mut events = replica.subscribe_to_broadcasts();
    // More bytes than may wait to be published.
    let burst: Vec<Note> = (1..=RECORDS).map(|id| note(id, &"x".repeat(512 * 1024))).collect();
    notes.put_many(&burst).unwrap();
    within_deadline("the burst", async {
        // A session counts what it has brought when it ends.
        while len(&replica) < burst.len() + 1 || replication.statistics().received == 0 {
            let _ = events.recv().await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_node_gets_everything_in_a_stream() {
    const NOTES: u64 = 10_000;
    let author = started(config()).await;
    write(&author, 0..NOTES, "text");
    author.store().open_tree::<Note>().unwrap().remove(&NotePrimaryKey(7)).unwrap();
    let empty = started(config()).await;
    let replication = empty.replicate(notes_scope()).unwrap();
    meet(&empty, &author).await;
    caught_up(&replication).await;
    assert_eq!(len(&empty), 10_000);
    assert_eq!(fingerprint(&empty, &notes_scope()), fingerprint(&author, &notes_scope()));
    assert_eq!((text(&empty, 7), text(&empty, 8)), (None, Some("text".into())));
    let report = replication.statistics();
    assert_eq!((report.received, report.refused, report.withheld), (NOTES, 0, 0), "{report:?}");
    assert_eq!(report.streamed, NOTES, "{report:?}");
    assert!(report.round_trips < 12, "{report:?}");
    // The next time there is nothing to do.
    sync(&replication).await;
    let again = replication.statistics();
    assert_eq!((again.received, again.round_trips - report.round_trips), (NOTES, 1), "{again:?}");
    assert!(again.bytes_received - report.bytes_received < 20, "{again:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_was_away_gets_what_has_changed() {
    const NOTES: u64 = 5000;
    let (author, away) = (started(config()).await, started(config()).await);
    write(&author, 0..NOTES, "text");
    let replication = away.replicate(notes_scope()).unwrap();
    meet(&away, &author).await;
    caught_up(&replication).await;
    let before = replication.statistics();
    away.stop_swarm().await.unwrap();
    write(&author, NOTES..NOTES + 300, "new");
    write(&author, 0..50, "later");
    let notes = author.store().open_tree::<Note>().unwrap();
    for id in 100..120 {
        notes.remove(&NotePrimaryKey(id)).unwrap();
    }
    away.start_swarm().await.unwrap();
    meet(&away, &author).await;
    sync(&replication).await;
    assert_eq!(fingerprint(&away, &notes_scope()), fingerprint(&author, &notes_scope()));
    assert_eq!(
        (text(&away, 3), text(&away, 100), text(&away, NOTES)),
        (Some("later".into()), None, Some("new".into()))
    );
    let report = replication.statistics();
    assert_eq!(report.received - before.received, 370, "{report:?}");
    let bytes = report.bytes_received - before.bytes_received;
    assert!(bytes < before.bytes_received / 4, "{bytes} bytes, {before:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_keeps_the_scope_is_given_what_it_lacks() {
    let (left, right) = (started(config()).await, started(config()).await);
    write(&left, 0..100, "left");
    write(&right, 50..150, "right");
    let scopes = [left.replicate(all_notes()).unwrap(), right.replicate(notes_scope()).unwrap()];
    meet(&left, &right).await;
    caught_up(&scopes[0]).await;
    caught_up(&scopes[1]).await;
    for _ in 0..2 {
        sync(&scopes[0]).await;
        sync(&scopes[1]).await;
    }
    assert_eq!(fingerprint(&left, &notes_scope()), fingerprint(&right, &notes_scope()));
    assert_eq!(len(&left), 150);
    assert_eq!(text(&left, 60).as_deref(), Some("right"));
    // Each counts what came to it and what it had, whoever began; nothing was refused.
    let [left, right] = scopes.map(|scope| scope.statistics());
    assert_eq!((left.received, left.refused), (100, 0), "{left:?}");
    assert_eq!((right.received, right.refused), (50, 0), "{right:?}");
    assert!(left.sent >= 50 && right.sent >= 100, "{left:?}, {right:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_left_a_value_leaves_it_everywhere() {
    let (author, other) = (started(config()).await, started(config()).await);
    write(&author, 0..60, "text");
    copy(&author, &other);
    // Of topic 1, one gets another topic, one goes, and one comes.
    let notes = author.store().open_tree::<Note>().unwrap();
    notes.put(&Note { id: 1, topic: "elsewhere".into(), text: "moved".into() }).unwrap();
    notes.remove(&NotePrimaryKey(4)).unwrap();
    notes.put(&Note { id: 1000, topic: "topic 1".into(), text: "new".into() }).unwrap();
    notes.put(&Note { id: 2000, topic: "topic 2".into(), text: "not wanted".into() }).unwrap();
    let topic = Scope::value(&NoteTopicSecondaryKey("topic 1".into()));
    let replication = other.replicate(topic.clone()).unwrap();
    meet(&other, &author).await;
    caught_up(&replication).await;
    assert_eq!(text(&other, 1).as_deref(), Some("moved"));
    assert_eq!((text(&other, 4), text(&other, 1000).as_deref()), (None, Some("new")));
    assert_eq!(text(&other, 2000), None, "{:?}", replication.statistics());
    assert_eq!(fingerprint(&other, &topic), fingerprint(&author, &topic));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_was_broken_off_goes_on_where_it_was() {
    const NOTES: u64 = 8000;
    let (author, empty) = (started(config()).await, started(config()).await);
    let long = "x".repeat(1000);
    write(&author, 0..NOTES, &long);
    let replication = empty.replicate(notes_scope()).unwrap();
    let mut events = empty.subscribe_to_broadcasts();
    meet(&empty, &author).await;
    wait_for(&mut events, |event| match event {
        NetabaseSwarmEvent::SyncProgress { report, .. } => (report.received > 1000).then_some(()),
        _ => None,
    })
    .await;
    empty.stop_swarm().await.unwrap();
    empty.store().flush().unwrap();
    let held = len(&empty);
    assert!(held > 1000 && held < 8000, "it was broken off: {held}");
    empty.start_swarm().await.unwrap();
    meet(&empty, &author).await;
    sync(&replication).await;
    assert_eq!(len(&empty), 8000);
    let report = replication.statistics();
    // At most the pages that were on their way come twice.
    assert!(report.bytes_received < NOTES * 1200 + 5 * 1024 * 1024, "{report:?}");
    assert_eq!(report.received, NOTES, "{report:?}");
}

/// What the crate's own comparison costs: round trips and bytes.
fn plain(one: &Notes, other: &Notes) -> (u64, u64) {
    let storage = |node: &Notes| {
        let mut storage = NegentropyStorageVector::new();
        for placed in node.store().replica().positions(&[0; 32], usize::MAX).unwrap() {
            let envelope = node.store().envelope(&placed.key).unwrap().unwrap();
            let item = SyncItem::of(&placed.key, &envelope).unwrap();
            storage.insert(item.timestamp, Id::from_byte_array(item.id)).unwrap();
        }
        storage.seal().unwrap();
        storage
    };
    let (one, other) = (storage(one), storage(other));
    let mut asker = Negentropy::borrowed(&one, 0).unwrap();
    let mut answerer = Negentropy::borrowed(&other, 0).unwrap();
    let (mut message, mut cost) = (Some(asker.initiate().unwrap()), (0, 0));
    while let Some(asked) = message {
        let answer = answerer.reconcile(&asked).unwrap();
        cost = (cost.0 + 1, cost.1 + (asked.len() + answer.len()) as u64);
        message = asker.reconcile_with_ids(&answer, &mut Vec::new(), &mut Vec::new()).unwrap();
    }
    cost
}

#[tokio::test(flavor = "multi_thread")]
async fn a_comparison_costs_no_more_than_plain_negentropy() {
    for differences in [0, 10, 100_u64] {
        let (author, other) = (started(config()).await, started(config()).await);
        for part in 0..10 {
            write(&author, part * 1000..(part + 1) * 1000, "text");
        }
        copy(&author, &other);
        write(&author, (0..differences).map(|number| number * 97), "changed");
        let plain = plain(&other, &author);
        let replication = other.replicate(notes_scope()).unwrap();
        meet(&other, &author).await;
        caught_up(&replication).await;
        let report = replication.statistics();
        println!("{differences} differences: plain {plain:?}, {report:?}");
        assert_eq!(report.received, differences);
        assert!(report.compare_round_trips <= plain.0, "{plain:?}, {report:?}");
        assert!(report.compare_bytes <= plain.1, "{plain:?}, {report:?}");
    }
}

/// What happens to a network between two meetings.
#[derive(Debug, Clone)]
struct Round {
    /// Who is with whom.
    groups: Vec<usize>,
    /// By which node, which note, and its text; none removes it.
    writes: Vec<(usize, u64, Option<&'static str>)>,
}

fn a_round(nodes: usize) -> impl Strategy<Value = Round> {
    let write = (0..nodes, 0..60_u64, prop::option::of(select(vec!["a", "b", "c"])));
    (prop::collection::vec(0..3_usize, nodes), prop::collection::vec(write, 0..80))
        .prop_map(|(groups, writes)| Round { groups, writes })
}

async fn converge(nodes: usize, rounds: &[Round]) {
    let nodes: Vec<Notes> = (0..nodes).map(|_| Notes::new_with_config(config()).unwrap()).collect();
    let kept: Vec<_> = nodes.iter().map(|node| node.replicate(all_notes()).unwrap()).collect();
    let together = Round { groups: vec![0; nodes.len()], writes: Vec::new() };
    for round in rounds.iter().chain([&together]) {
        for node in &nodes {
            node.start_swarm().await.unwrap();
        }
        for group in 0..3 {
            let members: Vec<_> = (0..nodes.len()).filter(|node| round.groups[*node] == group).collect();
            for pair in members.windows(2) {
                meet(&nodes[pair[0]], &nodes[pair[1]]).await;
            }
        }
        for (node, id, text) in &round.writes {
            let tree = nodes[*node].store().open_tree::<Note>().unwrap();
            match text {
                Some(text) => tree.put(&note(*id, text)).unwrap(),
                None => drop(tree.remove(&NotePrimaryKey(*id)).unwrap()),
            }
        }
        if std::ptr::eq(round, &raw const together) {
            break;
        }
        for (index, replication) in kept.iter().enumerate() {
            let alone = round.groups.iter().filter(|group| **group == round.groups[index]).count() == 1;
            if !alone {
                sync(replication).await;
            }
        }
        for node in &nodes {
            node.stop_swarm().await.unwrap();
        }
    }
    let scopes = [notes_scope(), Scope::model::<Topic>()];
    let prints = || {
        let of_node = |node: &Notes| scopes.each_ref().map(|scope| fingerprint(node, scope));
        nodes.iter().map(of_node).collect::<std::collections::BTreeSet<_>>().len()
    };
    // News goes one hop in each round.
    for _ in 0..2 * nodes.len() {
        for replication in &kept {
            sync(replication).await;
        }
        if prints() == 1 {
            break;
        }
    }
    assert_eq!(prints(), 1, "the sets are not equal");
    let contents = |node: &Notes| node.store().local_records(None).unwrap();
    for node in &nodes {
        let (ours, theirs): (Vec<(RecordKey, _)>, _) = (contents(node), contents(&nodes[0]));
        assert_eq!(ours, theirs);
    }
    for node in &nodes {
        node.stop_swarm().await.unwrap();
    }
}

#[test]
fn random_partitions_and_merges_converge() {
    let config = ProptestConfig { cases: 4, failure_persistence: None, ..ProptestConfig::default() };
    let case =
        (2..=8_usize).prop_flat_map(|nodes| (Just(nodes), prop::collection::vec(a_round(nodes), 1..4)));
    proptest!(config, |((nodes, rounds) in case)| {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        runtime.block_on(converge(nodes, &rounds));
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replication_ends_when_it_is_dropped_unless_it_is_detached() {
    let (author, other) = (started(config()).await, started(config()).await);
    let replication = other.replicate(notes_scope()).unwrap();
    meet(&other, &author).await;
    caught_up(&replication).await;
    let key = RecordKey::of(&NotePrimaryKey(1)).unwrap();
    write(&author, [1], "text");
    sync(&replication).await;
    let envelope = other.store().envelope(&key).unwrap().unwrap();
    assert!(other.store().replica().is_pinned(&key, &envelope));
    drop(replication);
    assert!(!other.store().replica().is_pinned(&key, &envelope));
    other.replicate(notes_scope()).unwrap().detach();
    assert!(other.store().replica().is_pinned(&key, &envelope));
    let mut events = other.subscribe_to_broadcasts();
    let report: SyncReport = wait_for(&mut events, |event| match event {
        NetabaseSwarmEvent::SyncFinished { report, failure: None, .. } => Some(*report),
        _ => None,
    })
    .await;
    assert_eq!(report.received, 0);
    let unknown = Scope { definition: "Other".into(), ..notes_scope() };
    assert!(other.replicate(unknown).is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_without_room_for_its_scope_does_not_fetch_it_again_and_again() {
    const NOTES: u64 = 3000;
    const ROOM: u64 = 64 * 1024;
    let author = started(config()).await;
    write(&author, 0..NOTES, "text");
    let small = started(NetabaseConfig {
        store: StoreOptions { max_replica_bytes: ROOM, ..config().store },
        ..config()
    })
    .await;
    let replication = small.replicate(notes_scope()).unwrap();
    meet(&small, &author).await;
    caught_up(&replication).await;
    let first = replication.statistics();
    assert!(first.received > 0 && first.refused > 0, "{first:?}");
    // What had to go is asked for once more, and then it is known that there is no room for it.
    let mut before = first;
    let mut is_settled = false;
    for _ in 0..10 {
        small.store().flush().unwrap();
        sync(&replication).await;
        let after = replication.statistics();
        let came = (after.received - before.received) + (after.refused - before.refused);
        is_settled = came == 0;
        before = after;
        if is_settled {
            break;
        }
    }
    assert!(is_settled, "{before:?}");
    // Steady traffic: what is news comes, and nothing else.
    for id in 0..5 {
        write(&author, [NOTES + id], "news");
        sync(&replication).await;
        small.store().flush().unwrap();
    }
    let after = replication.statistics();
    let came = (after.received - before.received) + (after.refused - before.refused);
    assert!((1..=20).contains(&came), "{came}: {before:?} {after:?}");
    let kept = small.store().local_records(None).unwrap();
    let bytes = kept.iter().map(|(key, value)| key.as_bytes().len() + value.as_bytes().len()).sum::<usize>();
    assert!(bytes as u64 <= ROOM + 1024, "{bytes}");
}

const RECONCILE: u8 = 1;
const FETCH: u8 = 2;
const RANGE: u8 = 3;

/// The answer to a comparison: how many items there are, and a message.
fn reconciled(count: u32, message: &[u8]) -> Vec<u8> {
    [&[RECONCILE, 0][..], &count.to_be_bytes(), message].concat()
}

/// A list of ids of a range without end.
fn listed(ids: u8) -> Vec<u8> {
    let list: Vec<u8> = (0..ids).flat_map(|id| [id; 32]).collect();
    reconciled(100, &[&[0x61, 0, 0, 2, ids][..], &list].concat())
}

fn signed(id: u64) -> (RecordKey, Envelope) {
    let key = RecordKey::of(&NotePrimaryKey(id)).unwrap();
    let payload = EncodedRecord::of(&note(id, "text")).unwrap().payload;
    let time = Timestamp::from_unix_millis(1_700_000_000_000);
    let envelope = Envelope::sign(&SigningKey::from_bytes(&[9; 32]), &key, time, 0, Some(&payload));
    (key, envelope)
}

fn record(id: u64, forged: bool) -> Vec<u8> {
    let (key, envelope) = signed(id);
    let mut envelope = envelope.as_bytes().to_vec();
    let last = envelope.len() - 1;
    envelope[last] ^= u8::from(forged);
    let lengths = [key.as_bytes().len() as u16, envelope.len() as u16];
    [&lengths[0].to_be_bytes()[..], key.as_bytes(), &[0, 0], &lengths[1].to_be_bytes(), &envelope].concat()
}

/// Records of a range, which goes on a little later.
fn ranged(request: &[u8], records: &[Vec<u8>], goes_on: bool) -> Vec<u8> {
    let from = u64::from_be_bytes(request[10..18].try_into().unwrap());
    let next = if goes_on { [&[1][..], &(from + 1).to_be_bytes(), &[0]].concat() } else { vec![0] };
    [&[RANGE][..], &next, &(records.len() as u16).to_be_bytes(), &records.concat()].concat()
}

/// Says that all of what was asked for was looked up, and sends some records.
fn fetched(request: &[u8], records: &[Vec<u8>]) -> Vec<u8> {
    [&[FETCH][..], &request[10..12], &(records.len() as u16).to_be_bytes(), &records.concat()].concat()
}

/// A way to lie: what is answered, or nothing; and how the session ends.
struct Lie {
    name: &'static str,
    answer: fn(&[u8]) -> Option<Vec<u8>>,
    failure: Option<SyncFailure>,
}

const LIES: [Lie; 9] = [
    Lie { name: "no answer", answer: |_| None, failure: Some(SyncFailure::Unreachable) },
    Lie {
        name: "what is no message",
        answer: |_| Some(b"\x01\x07nonsense".to_vec()),
        failure: Some(SyncFailure::Nonsense),
    },
    Lie {
        name: "what is no comparison",
        answer: |_| Some(reconciled(5, b"nonsense")),
        failure: Some(SyncFailure::Nonsense),
    },
    Lie {
        name: "ids that are not there",
        answer: |asked| Some(if asked[0] == RECONCILE { listed(50) } else { fetched(asked, &[]) }),
        failure: Some(SyncFailure::Withheld),
    },
    Lie {
        name: "ids, and other records for them",
        answer: |asked| {
            Some(if asked[0] == RECONCILE { listed(50) } else { fetched(asked, &[record(1, false)]) })
        },
        failure: Some(SyncFailure::Withheld),
    },
    Lie {
        name: "ids, and forged records for them",
        answer: |asked| {
            let forged = || (0..20).map(|id| record(id, true)).collect::<Vec<_>>();
            Some(if asked[0] == RECONCILE { listed(50) } else { fetched(asked, &forged()) })
        },
        failure: Some(SyncFailure::Withheld),
    },
    Lie {
        name: "comparisons that never end",
        answer: |asked| {
            let mut message = vec![0x61, 0, 0, 1];
            message.extend(asked.iter().rev().chain(&[7; 16]).take(16));
            Some(reconciled(5, &message))
        },
        failure: Some(SyncFailure::Endless),
    },
    Lie {
        name: "very many, and the same record without end",
        answer: |asked| {
            Some(match asked[0] {
                RECONCILE => reconciled(u32::MAX, &[]),
                _ => ranged(asked, &[record(1, false)], true),
            })
        },
        failure: Some(SyncFailure::Endless),
    },
    Lie {
        name: "very many again and again",
        answer: |asked| {
            Some(match asked[0] {
                RECONCILE => reconciled(u32::MAX, &[]),
                _ => ranged(asked, &[], false),
            })
        },
        failure: Some(SyncFailure::Nonsense),
    },
];

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_lies_wastes_its_own_time_only() {
    let (victim, honest) = (started(config()).await, started(config()).await);
    write(&victim, 10..90, "ours");
    let replication = victim.replicate(notes_scope()).unwrap();
    meet(&victim, &honest).await;
    caught_up(&replication).await;
    for (number, lie) in (1000..).zip(&LIES) {
        let mut events = victim.subscribe_to_broadcasts();
        let hostile = hostile_peer(&victim).await;
        let (peer, answer) = (*hostile.local_peer_id(), lie.answer);
        let asked = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&asked);
        let liar = react_to_sync(hostile, move |request| {
            count.fetch_add(1, Ordering::Relaxed);
            answer(&request).map_or(Reaction::Close, Reaction::Answer)
        });
        // What the honest one has comes all the same.
        write(&honest, [number], "honest");
        let ended = wait_for(&mut events, |event| match event {
            // One that had asked before the peer did anything has failed, and is tried again.
            NetabaseSwarmEvent::SyncFinished { peer: with, report, failure, .. } => {
                (*with == peer && asked.load(Ordering::Relaxed) > 0).then_some((*report, *failure))
            }
            _ => None,
        })
        .await;
        sync(&replication).await;
        assert_eq!(text(&victim, number).as_deref(), Some("honest"), "{}", lie.name);
        liar.abort();
        println!("{}: {ended:?}", lie.name);
        assert_eq!(ended.1, lie.failure, "{}: {:?}", lie.name, ended.0);
        let asked = asked.load(Ordering::Relaxed);
        assert!(asked > 0 && ended.0.round_trips <= 300, "{}: {asked}, {:?}", lie.name, ended.0);
        victim.remove_peer(peer).await.unwrap();
        victim.pardon(peer);
    }
    let refusals = victim.store().replica().refusals();
    assert!(
        refusals.iter().any(|(reason, _)| *reason == netabase::Refusal::InvalidSignature),
        "{refusals:?}"
    );
    // Only what was signed was taken.
    assert!((0..10).all(|id| id == 1 || text(&victim, id).is_none()));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_refused_for_want_of_a_member_list_is_fetched_when_the_list_is_here() {
    let (root, author) = (SigningKey::from_bytes(&[8; 32]), Author::of(&SigningKey::from_bytes(&[9; 32])));
    let replica = started(NetabaseConfig {
        store: StoreOptions { root: Some(Author::of(&root)), ..config().store },
        ..config()
    })
    .await;
    let replication = replica.replicate(notes_scope()).unwrap();
    let mut events = replica.subscribe_to_broadcasts();
    let item = {
        let (key, envelope) = signed(1);
        SyncItem::of(&key, &envelope).unwrap()
    };
    let peer = react_to_sync(hostile_peer(&replica).await, move |request| {
        let list = [&[0x61, 0, 0, 2, 1][..], &item.id].concat();
        let answer = match request[0] {
            RECONCILE => reconciled(1, &list),
            RANGE => ranged(&request, &[record(1, false)], false),
            _ => fetched(&request, &[record(1, false)]),
        };
        Reaction::Answer(answer)
    });
    let ended = wait_for(&mut events, |event| match event {
        NetabaseSwarmEvent::SyncFinished { report, failure, .. } => Some((*report, *failure)),
        _ => None,
    })
    .await;
    assert_eq!((ended.0.received, ended.1, text(&replica, 1)), (0, None, None), "there is no list");
    let mut list = MemberList::default();
    list.add(author).unwrap();
    let list = list.sign(&root, "NotesDefinition", None).unwrap();
    replica.apply_members(list).await.unwrap();
    caught_up(&replication).await;
    within_deadline("the record", async {
        while text(&replica, 1).is_none() {
            let _ = events.recv().await;
        }
    })
    .await;
    peer.abort();
}

const GIVE: u8 = 4;

/// Says that it keeps the scope, has nothing of it, and stores what it is given.
fn a_peer_without_anything(request: &[u8], stored: &AtomicU64) -> Vec<u8> {
    if request[0] == RECONCILE {
        return [&[RECONCILE, 1][..], &0_u32.to_be_bytes(), &[0x61, 0, 0, 2, 0]].concat();
    }
    assert_eq!(request[0], GIVE);
    let count = u16::from_be_bytes([request[10], request[11]]);
    stored.fetch_add(count.into(), Ordering::Relaxed);
    [&[GIVE][..], &count.to_be_bytes(), &vec![0; 2 * usize::from(count)]].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_given_is_held_a_frame_at_a_time() {
    const NOTES: u64 = 60;
    const LONG: usize = 200_000;
    let giver = started(config()).await;
    write(&giver, 0..NOTES, &"x".repeat(LONG));
    let mut events = giver.subscribe_to_broadcasts();
    giver.replicate(notes_scope()).unwrap().detach();
    let hostile = hostile_peer(&giver).await;
    let stored = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&stored);
    let taker =
        react_to_sync(hostile, move |request| Reaction::Answer(a_peer_without_anything(&request, &count)));
    let report = wait_for(&mut events, |event| match event {
        NetabaseSwarmEvent::SyncFinished { report, failure: None, .. } => Some(*report),
        _ => None,
    })
    .await;
    taker.abort();
    assert_eq!((report.sent, stored.load(Ordering::Relaxed)), (NOTES, NOTES), "{report:?}");
    let held = usize::try_from(report.held_bytes).unwrap();
    assert!((LONG..=SYNC_GIVE_BYTES).contains(&held), "{report:?}");
    assert!(SYNC_GIVE_BYTES < LONG * NOTES as usize, "it is less than everything");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_record_that_is_given_is_charged_to_the_giver() {
    // More than a peer may give at once, and in the time that the test may take.
    const GIFTS: u64 = 300;
    const EACH: u16 = 3000;
    let victim = started(NetabaseConfig { author_records_per_second: 0, ..config() }).await;
    victim.replicate(notes_scope()).unwrap().detach();
    let mut hostile = hostile_peer(&victim).await;
    let (key, note) = (RecordKey::of(&NotePrimaryKey(1)).unwrap(), note(1, "given"));
    let payload = EncodedRecord::of(&note).unwrap().payload;
    let now = Timestamp::from_unix_millis(victim.store().replica().clock().unix_millis());
    let envelope = Envelope::sign(&SigningKey::from_bytes(&[7; 32]), &key, now, 0, Some(&payload));
    // The tag of the request is that of a put, and the scope comes before the number of records.
    let records: Vec<_> = (0..EACH).map(|_| (key.as_bytes(), envelope.as_bytes())).collect();
    let scope = victim.store().replica().model_tag(&notes_scope()).unwrap();
    let gift = [&[GIVE, 0][..], &scope, &put_request(&records)[1..]].concat();
    let began = std::time::Instant::now();
    let (mut taken, mut refused) = (0, 0);
    for _ in 0..GIFTS {
        let id = hostile.behaviour_mut().sync.send_request(&victim.local_peer_id(), gift.clone());
        let answered = async {
            loop {
                if let SwarmEvent::Behaviour(HostileEvent::Sync(request_response::Event::Message {
                    message: request_response::Message::Response { request_id, response },
                    ..
                })) = hostile.select_next_some().await
                    && request_id == id
                {
                    return response;
                }
            }
        };
        let answer = within_deadline("an answer to a gift", answered).await;
        let is_taken = answer[0] == GIVE;
        taken += u64::from(is_taken) * u64::from(EACH);
        refused += u64::from(!is_taken);
        if refused > 0 {
            break;
        }
    }
    let most = u64::from(RECORD_BURST) + u64::from(RECORDS_PER_SECOND) * (began.elapsed().as_secs() + 1);
    assert!(refused > 0 && taken > 0 && taken <= most, "{taken} taken, {refused} gifts refused");
}
