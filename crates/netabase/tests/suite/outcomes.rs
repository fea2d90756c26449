//! Calls that say what each peer did.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use libp2p::PeerId;
use netabase::health::ReadSource;
use netabase::health::{HolderState, PeerAnswer, ReadAnswer, VersionId, WriteAnswer};
use netabase::{
    Consistency, Envelope, GetOptions, Health, Lifetime, NetabaseConfig, NetabaseError, NetabaseSwarmEvent,
    PutOptions, RecordKey, Refusal, StoreOptions, Timestamp,
};
use netabase_store::SigningKey;
use netabase_store::replica::ExpectedVersion;
use netabase_store::schema::EncodedRecord;

use crate::common::bare::*;
use crate::common::*;

fn concern(peers: usize) -> PutOptions {
    let mut options = PutOptions::default();
    options.write_concern = Some(peers);
    options
}

fn consistency(consistency: Consistency) -> GetOptions {
    let mut options = GetOptions::default();
    options.consistency = consistency;
    options
}

fn answer_of<A: Clone>(peers: &[PeerAnswer<A>], peer: PeerId) -> A {
    peers.iter().find(|answer| answer.peer == peer).expect("the peer was asked").answer.clone()
}

fn state_of(health: &Health, peer: PeerId) -> HolderState {
    let mut holders = health.holders.iter();
    holders.find(|(holder, _)| *holder == peer).expect("the peer is a holder").1.clone()
}

fn key(id: u64) -> RecordKey {
    RecordKey::of(&NotePrimaryKey(id)).unwrap()
}

fn version_of(node: &Notes, id: u64) -> VersionId {
    VersionId::of(&node.store().envelope(&key(id)).unwrap().unwrap()).unwrap()
}

fn signed(note: &Note, time: Timestamp) -> Envelope {
    let payload = EncodedRecord::of(note).unwrap().payload;
    Envelope::sign(&SigningKey::from_bytes(&[7; 32]), &key(note.id), time, 0, Some(&payload))
}

#[tokio::test]
async fn a_refusal_comes_back_to_the_writer_with_its_reason() {
    let author = started(memory_config()).await;
    let strict = started(NetabaseConfig {
        store: StoreOptions { max_value_bytes: 100, ..memory_config().store },
        ..config_knowing(&author)
    })
    .await;
    knows_peers(&author, 1).await;
    let mut events = strict.subscribe_to_broadcasts();
    let outcome = author.put_record(note(1, &"x".repeat(200))).await.unwrap();
    assert_eq!((outcome.asked, outcome.accepted), (vec![strict.local_peer_id()], vec![]));
    let refused =
        PeerAnswer { peer: strict.local_peer_id(), answer: WriteAnswer::Refused(Refusal::TooLarge) };
    assert_eq!(outcome.peers, [refused]);
    let told = wait_for(&mut events, |event| match event {
        NetabaseSwarmEvent::RecordRefused { peer, key, reason } => Some((*peer, key.clone(), *reason)),
        _ => None,
    })
    .await;
    assert_eq!(told, (Some(author.local_peer_id()), Some(key(1)), Refusal::TooLarge));
}

#[tokio::test]
async fn a_put_wins_over_a_newer_version_that_its_author_did_not_know() {
    let nodes = network_without_repair(3).await;
    let [writer, holder, other] = &nodes[..] else { panic!("there are three") };
    // A stranger has deleted what does not exist yet, in the future.
    let ahead = Timestamp::from_unix_millis(Timestamp::now().unix_millis() + 9 * 60 * 1000);
    let tombstone = Envelope::sign(&SigningKey::from_bytes(&[7; 32]), &key(1), ahead, 0, None);
    let admitted = holder.store().replica().admit(key(1).as_bytes(), tombstone.as_bytes());
    assert_eq!(admitted, Ok(true));
    let outcome = writer.put_record_with(note(1, "honest"), concern(2)).await.unwrap();
    assert_eq!(outcome.overtaken_by, None);
    assert!(outcome.version.timestamp > ahead, "it was signed again");
    assert_eq!(outcome.accepted.len(), 2);
    for node in [writer, holder, other] {
        let stored = node.store().envelope(&key(1)).unwrap().unwrap();
        assert_eq!((stored.is_tombstone(), stored.version()), (false, Some(outcome.version)));
    }
    // So does a removal.
    let outcome = writer.remove_record_with(NotePrimaryKey(1), concern(2)).await.unwrap().unwrap();
    assert_eq!((outcome.overtaken_by, outcome.accepted.len()), (None, 2));
}

#[tokio::test]
async fn a_version_that_a_peer_has_already_is_known_there() {
    let nodes = network(2).await;
    nodes[0].put_record(note(1, "once")).await.unwrap();
    let (victim, hostile) = (&nodes[0], hostile_peer(&nodes[0]).await);
    let peer = *hostile.local_peer_id();
    let task = react(hostile, |request| Reaction::Answer([&[1, 0, 1][..], &[1, 0], &request[..0]].concat()));
    let outcome = victim.put_record_with(note(2, "to both"), concern(2)).await.unwrap();
    assert_eq!(answer_of(&outcome.peers, peer), WriteAnswer::Known);
    assert_eq!(answer_of(&outcome.peers, nodes[1].local_peer_id()), WriteAnswer::Accepted);
    assert_eq!(outcome.accepted.len(), 2);
    task.abort();
}

#[tokio::test]
async fn a_peer_that_says_nothing_delays_nobody() {
    let nodes = network(2).await;
    let hostile = hostile_peer(&nodes[0]).await;
    let silent = *hostile.local_peer_id();
    let task = react(hostile, |_| Reaction::Silence);
    let outcome = nodes[0].put_record_with(note(1, "one is enough"), concern(1)).await.unwrap();
    assert_eq!(answer_of(&outcome.peers, nodes[1].local_peer_id()), WriteAnswer::Accepted);
    assert_eq!(answer_of(&outcome.peers, silent), WriteAnswer::Pending);
    // A caller who wants both is told what is known when the time is over.
    let mut both = concern(2);
    both.timeout = Some(Duration::from_millis(300));
    let outcome = nodes[0].put_record_with(note(1, "both"), both).await.unwrap();
    assert_eq!(answer_of(&outcome.peers, nodes[1].local_peer_id()), WriteAnswer::Accepted);
    assert_eq!(answer_of(&outcome.peers, silent), WriteAnswer::Pending);
    task.abort();
}

#[tokio::test]
async fn a_peer_that_closes_the_stream_or_is_gone_is_unreachable() {
    let nodes = network(3).await;
    let hostile = hostile_peer(&nodes[0]).await;
    let closing = *hostile.local_peer_id();
    let task = react(hostile, |_| Reaction::Close);
    let gone = nodes[2].local_peer_id();
    let mut events = nodes[0].subscribe_to_broadcasts();
    nodes[2].stop_swarm().await.unwrap();
    wait_for(&mut events, |event| match event {
        NetabaseSwarmEvent::ConnectionClosed { peer, connections: 0, .. } => (*peer == gone).then_some(()),
        _ => None,
    })
    .await;
    nodes[0].put_record(note(0, "looks for the holders")).await.unwrap();
    let outcome = nodes[0].put_record_with(note(1, "to all"), concern(3)).await.unwrap();
    assert_eq!(outcome.accepted, [nodes[1].local_peer_id()]);
    let reason = |answer| match answer {
        WriteAnswer::Unreachable(reason) => reason.to_string(),
        other => panic!("{other:?}"),
    };
    assert!(reason(answer_of(&outcome.peers, closing)).starts_with("the stream has failed"));
    if let Some(answer) = outcome.peers.iter().find(|answer| answer.peer == gone) {
        assert_eq!(reason(answer.answer.clone()), "the peer cannot be reached");
    }
    task.abort();
}

#[tokio::test]
async fn a_peer_that_answers_nonsense_is_unreachable() {
    let author = started(memory_config()).await;
    let answers = [b"\x01\x00\x02\x00\x00\x00\x00".to_vec(), b"nonsense".to_vec(), b"\x00\x01".to_vec()];
    let mut answers = answers.into_iter();
    let hostile = hostile_peer(&author).await;
    let task = react(hostile, move |request| match request.first() {
        Some(1) => Reaction::Answer(answers.next().unwrap_or_default()),
        // Whether it has a newer version.
        _ => Reaction::Close,
    });
    for (id, expected) in (0..).zip([
        "the answer does not belong to the request",
        "the answer does not belong to the request",
        "the peer does not know this kind of request",
    ]) {
        let outcome = author.put_record(note(id, "to a strange peer")).await.unwrap();
        assert_eq!(outcome.peers[0].answer, WriteAnswer::Unreachable(expected.into()));
    }
    task.abort();
}

#[tokio::test]
async fn a_busy_peer_says_so_at_once() {
    let author = started(memory_config()).await;
    let task = react(hostile_peer(&author).await, |_| Reaction::Answer(b"\x00\x04".to_vec()));
    let outcome = author.put_record(note(1, "to a busy peer")).await.unwrap();
    assert_eq!(outcome.peers[0].answer, WriteAnswer::Refused(Refusal::Overloaded));
    assert_eq!(outcome.refused().map(|(_, reason)| reason).collect::<Vec<_>>(), [Refusal::Overloaded]);
    task.abort();
}

#[tokio::test]
async fn a_removal_says_what_each_peer_did() {
    let nodes = network(2).await;
    nodes[0].put_record(note(1, "short-lived")).await.unwrap();
    let outcome = nodes[0].remove_record_with(NotePrimaryKey(1), concern(1)).await.unwrap();
    let outcome = outcome.unwrap();
    assert!(outcome.replaced);
    let accepted = PeerAnswer { peer: nodes[1].local_peer_id(), answer: WriteAnswer::Accepted };
    assert_eq!(outcome.peers, [accepted]);
}

/// Three nodes, of which the last was away while the record 1 was written again, and has the first
/// version.
async fn with_an_older_copy() -> (Vec<Notes>, VersionId) {
    let nodes = network_without_repair(3).await;
    nodes[0].put_record_with(note(1, "older"), concern(2)).await.unwrap();
    let older = version_of(&nodes[2], 1);
    nodes[2].stop_swarm().await.unwrap();
    nodes[0].put_record_with(note(1, "newer"), concern(1)).await.unwrap();
    nodes[2].start_swarm().await.unwrap();
    knows_peers(&nodes[2], 2).await;
    for node in &nodes {
        knows_peers(node, 2).await;
    }
    (nodes, older)
}

#[tokio::test]
async fn health_tells_who_has_what_and_a_repair_brings_the_newest_to_all() {
    let (nodes, older) = with_an_older_copy().await;
    let late = started(without_repair(config_knowing(&nodes[0]))).await;
    knows_peers(&nodes[0], 3).await;
    let (current, behind, missing) =
        (nodes[1].local_peer_id(), nodes[2].local_peer_id(), late.local_peer_id());
    let newest = version_of(&nodes[0], 1);

    let before = nodes[0].health(NotePrimaryKey(1)).await.unwrap();
    assert_eq!((before.current, before.wanted), (1, 3));
    assert_eq!((before.newest, before.local), (Some(newest), Some(newest)));
    assert_eq!(state_of(&before, current), HolderState::Current);
    assert_eq!(state_of(&before, behind), HolderState::Older(older));
    assert_eq!(state_of(&before, missing), HolderState::Missing);
    assert_eq!(before.repairs, []);

    let repaired = nodes[0].health_and_repair(NotePrimaryKey(1)).await.unwrap();
    assert_eq!((repaired.current, repaired.repairs.len()), (1, 2));
    assert_eq!(answer_of(&repaired.repairs, behind), WriteAnswer::Accepted);
    assert_eq!(answer_of(&repaired.repairs, missing), WriteAnswer::Accepted);

    let after = nodes[0].health_and_repair(NotePrimaryKey(1)).await.unwrap();
    assert_eq!((after.current, after.wanted, after.repairs), (3, 3, vec![]));
    assert_eq!(late.get_record(NotePrimaryKey(1)).await.unwrap(), Some(note(1, "newer")));
}

#[tokio::test]
async fn a_repair_fetches_the_newest_version_from_a_peer() {
    let (nodes, older) = with_an_older_copy().await;
    let health = nodes[2].health_and_repair(NotePrimaryKey(1)).await.unwrap();
    assert_eq!((health.current, health.local), (2, Some(older)));
    assert_eq!(health.newest, Some(version_of(&nodes[0], 1)));
    let local = nodes[2].get_record_with(NotePrimaryKey(1), consistency(Consistency::Local)).await.unwrap();
    assert_eq!(local.record, Some(note(1, "newer")));
}

#[tokio::test]
async fn a_newest_version_that_is_none_is_found_out_by_a_repair() {
    let nodes = network(2).await;
    nodes[0].put_record(note(1, "honest")).await.unwrap();
    let hostile = hostile_peer(&nodes[0]).await;
    let liar = *hostile.local_peer_id();
    let later = Timestamp::from_unix_millis(nodes[0].store().replica().clock().unix_millis() + 60_000);
    let mut forged = signed(&note(1, "forged"), later).as_bytes().to_vec();
    *forged.last_mut().unwrap() ^= 1;
    let claim = [&b"\x03\x00\x01\x01"[..], &later.to_bits().to_be_bytes(), &[9; 16]].concat();
    let length = u32::try_from(forged.len()).unwrap().to_be_bytes();
    let copy = [&b"\x02\x00\x01\x01"[..], &length, &forged].concat();
    let task =
        react(hostile, move |request| Reaction::Answer(if request[0] == 3 { &claim } else { &copy }.clone()));
    let mut events = nodes[0].subscribe_to_broadcasts();
    let health = nodes[0].health_and_repair(NotePrimaryKey(1)).await.unwrap();
    assert_eq!(state_of(&health, liar), HolderState::Invalid(Refusal::InvalidSignature));
    assert_eq!(health.newest, Some(version_of(&nodes[0], 1)));
    assert_eq!(state_of(&health, nodes[1].local_peer_id()), HolderState::Current);
    let told = wait_for(&mut events, |event| match event {
        NetabaseSwarmEvent::RecordRefused { peer, reason, .. } => Some((*peer, *reason)),
        _ => None,
    })
    .await;
    assert_eq!(told, (Some(liar), Refusal::InvalidSignature));
    task.abort();
}

#[tokio::test]
async fn the_consistency_says_whom_a_read_asks() {
    let (nodes, _) = with_an_older_copy().await;
    let read = |level| nodes[2].get_record_with(NotePrimaryKey(1), consistency(level));
    let author = nodes[0].store().author();
    let newest = nodes[0].store().envelope(&key(1)).unwrap().unwrap().version();

    for level in [Consistency::Local, Consistency::LocalFirst] {
        let local = read(level).await.unwrap();
        assert_eq!(local.record, Some(note(1, "older")));
        assert_eq!((local.author, local.source, local.expires), (author, Some(ReadSource::Local), None));
        assert_eq!(local.peers, []);
    }
    let fetched = read(Consistency::Newest).await.unwrap();
    assert_eq!((fetched.record, fetched.version), (Some(note(1, "newer")), newest));
    assert!(matches!(fetched.source, Some(ReadSource::Peer(_))), "{:?}", fetched.source);

    let all = read(Consistency::All).await.unwrap();
    assert_eq!((all.record, all.source), (Some(note(1, "newer")), Some(ReadSource::Local)));
    for node in &nodes[..2] {
        assert_eq!(answer_of(&all.peers, node.local_peer_id()), ReadAnswer::Version(newest.unwrap()));
    }
    let none = nodes[2].get_record_with(NotePrimaryKey(2), consistency(Consistency::All)).await.unwrap();
    assert_eq!((none.record, none.version, none.source), (None, None, None));
    assert!(none.peers.len() == 2 && none.peers.iter().all(|answer| answer.answer == ReadAnswer::Nothing));
}

#[tokio::test]
async fn a_read_of_all_tells_of_every_peer_and_brings_the_record_to_those_without() {
    let nodes = network(2).await;
    let [hostile, silent, invalid] =
        [hostile_peer(&nodes[0]).await, hostile_peer(&nodes[0]).await, hostile_peer(&nodes[0]).await];
    let (without, silent_peer, invalid_peer) =
        (*hostile.local_peer_id(), *silent.local_peer_id(), *invalid.local_peer_id());
    let puts = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&puts);
    let tasks = [
        react(hostile, move |request| {
            if request[0] == 1 {
                counted.fetch_add(1, Ordering::Relaxed);
                return Reaction::Answer(b"\x01\x00\x01\x00\x00".to_vec());
            }
            Reaction::Answer(b"\x02\x00\x01\x00".to_vec())
        }),
        react(silent, |_| Reaction::Silence),
        react(invalid, |_| Reaction::Answer(b"\x02\x00\x01\x01\x00\x00\x00\x01\x00".to_vec())),
    ];
    nodes[1].store().open_tree::<Note>().unwrap().put(&note(1, "here")).unwrap();
    let version = nodes[1].store().envelope(&key(1)).unwrap().unwrap().version().unwrap();
    let mut options = consistency(Consistency::All);
    options.timeout = Some(Duration::from_secs(1));
    let read = nodes[0].get_record_with(NotePrimaryKey(1), options).await.unwrap();
    assert_eq!(
        (read.record, read.source),
        (Some(note(1, "here")), Some(ReadSource::Peer(nodes[1].local_peer_id())))
    );
    assert_eq!(answer_of(&read.peers, nodes[1].local_peer_id()), ReadAnswer::Version(version));
    assert_eq!(answer_of(&read.peers, without), ReadAnswer::Nothing);
    assert_eq!(answer_of(&read.peers, silent_peer), ReadAnswer::TimedOut);
    assert_eq!(answer_of(&read.peers, invalid_peer), ReadAnswer::Invalid(Refusal::InvalidEnvelope));
    within_deadline("the repair", async {
        while puts.load(Ordering::Relaxed) == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    tasks.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn a_removed_record_has_a_version_and_no_record() {
    let nodes = network(2).await;
    nodes[0].put_record(note(1, "short-lived")).await.unwrap();
    nodes[0].remove_record(NotePrimaryKey(1)).await.unwrap();
    let read = nodes[1].get_record_with(NotePrimaryKey(1), consistency(Consistency::Newest)).await.unwrap();
    assert_eq!(read.record, None);
    assert_eq!((read.author, read.version.is_some()), (nodes[0].store().author(), true));
}

#[tokio::test]
async fn reads_that_need_peers_say_so_before_the_start() {
    let netabase = Notes::new_with_config(memory_config()).unwrap();
    for level in [Consistency::Newest, Consistency::All] {
        let error = netabase.get_record_with(NotePrimaryKey(1), consistency(level)).await.unwrap_err();
        assert!(matches!(error, NetabaseError::NotRunning), "{error}");
    }
    for level in [Consistency::Local, Consistency::LocalFirst] {
        assert_eq!(
            netabase.get_record_with(NotePrimaryKey(1), consistency(level)).await.unwrap().record,
            None
        );
    }
    assert!(matches!(netabase.health(NotePrimaryKey(1)).await, Err(NetabaseError::NotRunning)));
}

#[tokio::test]
async fn an_author_whose_write_had_a_condition_learns_of_the_newer_version() {
    let nodes = network(3).await;
    nodes[0].put_record_with(note(1, "first"), concern(2)).await.unwrap();
    // The third one alone has a newer version.
    let newer = Timestamp::from_unix_millis(nodes[0].store().replica().clock().unix_millis() + 60_000);
    let newer = signed(&note(1, "newer"), newer);
    assert_eq!(nodes[2].store().replica().admit(key(1).as_bytes(), newer.as_bytes()), Ok(true));
    let mut events = nodes[0].subscribe_to_broadcasts();
    let known = nodes[0].store().envelope(&key(1)).unwrap().unwrap();
    let mut options = concern(2);
    options.expected = Some(ExpectedVersion::Content(known.content_hash()));
    let outcome = nodes[0].put_record_with(note(1, "second"), options).await.unwrap();
    assert_eq!(outcome.accepted, [nodes[1].local_peer_id()]);
    assert_eq!(outcome.overtaken_by, newer.version());
    let refused: Vec<_> = outcome.refused().collect();
    assert_eq!(refused, [(nodes[2].local_peer_id(), Refusal::Outdated)]);
    let updated =
        wait_for_record(&mut events, |record| record.origin() == netabase::changes::Origin::Network).await;
    assert_eq!(updated.model::<Note>(), Some(Ok(note(1, "newer"))));
}

#[tokio::test]
async fn a_put_says_until_when_its_record_counts_everywhere() {
    let nodes = network(2).await;
    let now = Duration::from_millis(nodes[0].store().replica().clock().unix_millis());
    let end = UNIX_EPOCH + now + Duration::from_secs(3600);
    let mut options = concern(1);
    options.lifetime = Lifetime::Until(end);
    nodes[0].put_record_with(note(1, "for an hour"), options).await.unwrap();
    let read = nodes[1].get_record_with(NotePrimaryKey(1), consistency(Consistency::Local)).await.unwrap();
    assert_eq!((read.record, read.expires), (Some(note(1, "for an hour")), Some(end)));
    assert_eq!(read.author, nodes[0].store().author());
}
