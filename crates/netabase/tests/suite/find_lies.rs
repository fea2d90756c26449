//! Peers that answer queries with lies, and what becomes of them and of the answers.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use netabase::health::PeerState;
use netabase::key::KeyField;
use netabase::query::NetworkPage;
use netabase::query::{CutOff, HolderAnswer, HolderFailure, HolderReport};
use netabase::{Envelope, Freshness, PeerId, QueryOptions, RecordKey, Refusal, Timestamp};
use netabase_store::SigningKey;
use netabase_store::schema::EncodedRecord;

use crate::common::bare::*;
use crate::common::*;

const TOPIC: &str = "cooking";

fn told(id: u64, topic: &str) -> Note {
    Note { id, topic: topic.into(), text: "text".into() }
}

/// A note that somebody has signed: its primary key and its envelope.
fn signed(note: &Note) -> (Vec<u8>, Vec<u8>) {
    let key = RecordKey::of(&NotePrimaryKey(note.id)).unwrap();
    let payload = EncodedRecord::of(note).unwrap().payload;
    let time = Timestamp::from_unix_millis(1_700_000_000_000);
    let envelope = Envelope::sign(&SigningKey::from_bytes(&[9; 32]), &key, time, 0, Some(&payload));
    (key.primary_key().to_vec(), envelope.as_bytes().to_vec())
}

/// The same, with a byte of the signature changed.
fn forged(id: u64) -> (Vec<u8>, Vec<u8>) {
    let (key, mut envelope) = signed(&told(id, TOPIC));
    *envelope.last_mut().unwrap() ^= 1;
    (key, envelope)
}

fn page(records: &[(Vec<u8>, Vec<u8>)], last: Option<&[u8]>, is_last: bool) -> Vec<u8> {
    let records: Vec<_> = records.iter().map(|(key, envelope)| (&key[..], &envelope[..])).collect();
    page_response(&records, last, is_last)
}

/// Asks a node that has the notes 0 and 1 itself, and an honest peer with the notes 2 and 3, while
/// a hostile one answers as `react` says.
async fn asked_with(
    react: impl FnMut(Vec<u8>) -> Reaction + Send + 'static,
    options: QueryOptions,
) -> (Notes, PeerId, NetworkPage<Note>) {
    let (nodes, peer, found) = asked_of_two(react, options).await;
    (nodes[0].clone(), peer, found)
}

/// The same, with the node that has asked and the honest peer.
async fn asked_of_two(
    react: impl FnMut(Vec<u8>) -> Reaction + Send + 'static,
    options: QueryOptions,
) -> (Vec<Notes>, PeerId, NetworkPage<Note>) {
    let nodes = network_without_repair(2).await;
    for (node, ids) in nodes.iter().zip([[0, 1], [2, 3]]) {
        for id in ids {
            let (key, envelope) = signed(&told(id, TOPIC));
            let key = RecordKey::new("NotesDefinition", "Note", &key).unwrap();
            node.store().replica().admit(key.as_bytes(), &envelope).unwrap();
        }
        node.store().flush().unwrap();
    }
    let victim = nodes[0].clone();
    let hostile = hostile_peer(&victim).await;
    let peer = *hostile.local_peer_id();
    let hostile = react_to_queries(hostile, react);
    let found = victim.query::<Note>().topic(TOPIC).limit(50).options(options).page().await.unwrap();
    // What was refused is counted by the loop, which takes one thing after the other.
    victim.connected_peers().await.unwrap();
    hostile.abort();
    let honest = report_of(&found, nodes[1].local_peer_id());
    assert_eq!((honest.answer, honest.records), (HolderAnswer::Answered, 2));
    (nodes, peer, found)
}

fn report_of(found: &NetworkPage<Note>, peer: PeerId) -> HolderReport {
    found.report.peers.iter().find(|report| report.peer == peer).unwrap().clone()
}

fn ids(found: &NetworkPage<Note>) -> Vec<u64> {
    found.records.iter().map(|note| note.id).collect()
}

/// Answers everything with the same, and expects that to be noticed.
async fn answered_with(response: Vec<u8>) -> (Notes, PeerId, HolderReport, Vec<u64>) {
    let react = move |_| Reaction::Answer(response.clone());
    let (victim, peer, found) = asked_with(react, QueryOptions::default()).await;
    (victim, peer, report_of(&found, peer), ids(&found))
}

/// A lie in the form of an answer ends it, and is reported.
async fn is_misconduct(response: Vec<u8>) {
    let (victim, peer, report, found) = answered_with(response).await;
    assert_eq!(report.answer, HolderAnswer::Failed(HolderFailure::Misbehaved));
    let conduct = victim.peer_report(peer).unwrap();
    assert!(conduct.score > 0, "{conduct:?}");
    assert!(found.starts_with(&[0, 1, 2, 3]));
}

#[tokio::test]
async fn what_one_peer_withholds_others_tell() {
    let (_, _, report, found) = answered_with(page(&[], None, true)).await;
    assert_eq!((report.answer, report.records, found), (HolderAnswer::Answered, 0, vec![0, 1, 2, 3]));
}

#[tokio::test]
async fn an_honest_answer_of_a_stranger_counts_in_whatever_order_it_comes() {
    let records: Vec<_> = [7, 5, 6].map(|id| signed(&told(id, TOPIC))).into();
    let (_, _, report, found) = answered_with(page(&records, None, true)).await;
    assert_eq!((report.records, found), (3, vec![0, 1, 2, 3, 5, 6, 7]));
}

#[tokio::test]
async fn forged_records_are_left_out_and_their_sender_is_banned() {
    let mut records: Vec<_> = (10..16).map(forged).collect();
    records.push(signed(&told(20, TOPIC)));
    let (victim, peer, report, found) = answered_with(page(&records, None, true)).await;
    assert_eq!((report.records, report.refused, found), (1, 6, vec![0, 1, 2, 3, 20]));
    let conduct = victim.peer_report(peer).unwrap();
    assert!(matches!(conduct.state, PeerState::Banned { .. }), "{conduct:?}");
}

#[tokio::test]
async fn records_that_do_not_answer_the_query_are_left_out_and_never_a_ban() {
    let records: Vec<_> = (10..40).map(|id| signed(&told(id, "gardening"))).collect();
    let (victim, peer, report, found) = answered_with(page(&records, None, true)).await;
    assert_eq!((report.records, report.refused, found), (0, 30, vec![0, 1, 2, 3]));
    let conduct = victim.peer_report(peer).unwrap();
    assert_eq!((conduct.state, &conduct.refused[..]), (PeerState::Slowed, &[(Refusal::KeyMismatch, 30)][..]));
}

#[tokio::test]
async fn a_record_that_comes_twice_is_misconduct() {
    let record = signed(&told(10, TOPIC));
    is_misconduct(page(&[record.clone(), record], None, true)).await;
}

#[tokio::test]
async fn a_page_that_does_not_go_on_is_misconduct() {
    is_misconduct(page(&[], None, false)).await;
    is_misconduct(page(&[], Some(b"not what was asked for"), false)).await;
}

#[tokio::test]
async fn more_records_than_asked_for_are_misconduct() {
    let records: Vec<_> = (10..61).map(|id| signed(&told(id, TOPIC))).collect();
    is_misconduct(page(&records, None, true)).await;
}

#[tokio::test]
async fn an_answer_that_is_none_is_misconduct() {
    is_misconduct(b"what is this".to_vec()).await;
    is_misconduct(Vec::new()).await;
}

#[tokio::test]
async fn a_peer_that_goes_on_answering_without_an_end_is_cut_off() {
    let pages = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&pages);
    let start = NoteTopicSecondaryKey(TOPIC.into()).to_key_bytes();
    let endless = move |_| {
        let page_number = counted.fetch_add(1, Ordering::Relaxed);
        let last = [start.clone(), vec![0; page_number + 1]].concat();
        Reaction::Answer(page(&[], Some(&last), false))
    };
    let (_, peer, found) = asked_with(endless, QueryOptions::default()).await;
    assert_eq!(report_of(&found, peer).answer, HolderAnswer::CutOff(CutOff::Endless));
    assert_eq!(ids(&found), [0, 1, 2, 3]);
    assert_eq!(pages.load(Ordering::Relaxed), 16);
}

#[tokio::test]
async fn a_peer_with_more_records_than_wanted_of_one_is_cut_off() {
    let start = NoteTopicSecondaryKey(TOPIC.into()).to_key_bytes();
    let mut next = 100_u64;
    let endless = move |_| {
        next += 1;
        let record = signed(&told(next, TOPIC));
        let last = [&start[..], &record.0].concat();
        Reaction::Answer(page(&[record], Some(&last), false))
    };
    let mut options = QueryOptions::default();
    options.max_peer_records = 5;
    let (_, peer, found) = asked_with(endless, options).await;
    assert_eq!(report_of(&found, peer).answer, HolderAnswer::CutOff(CutOff::Records));
    assert_eq!(ids(&found), [0, 1, 2, 3, 101, 102, 103, 104, 105]);
}

#[tokio::test]
async fn nobody_waits_for_a_silent_peer_for_longer_than_allowed() {
    let mut options = QueryOptions::default();
    options.peer_timeout = Duration::from_millis(300);
    let (_, peer, found) = asked_with(|_| Reaction::Silence, options).await;
    assert_eq!(report_of(&found, peer).answer, HolderAnswer::Failed(HolderFailure::TimedOut));
    assert_eq!((ids(&found), found.report.is_complete()), (vec![0, 1, 2, 3], false));
}

#[tokio::test]
async fn a_peer_of_another_program_says_that_it_has_no_such_model() {
    let (victim, peer, report, found) = answered_with(vec![0, 16]).await;
    assert_eq!((report.answer, found), (HolderAnswer::Failed(HolderFailure::Unknown), vec![0, 1, 2, 3]));
    assert!(victim.peer_report(peer).is_none_or(|conduct| conduct.score == 0));
}

#[tokio::test]
async fn when_the_time_is_over_what_everybody_has_passed_is_returned() {
    let start = NoteTopicSecondaryKey(TOPIC.into()).to_key_bytes();
    let mut is_first = true;
    // It has told of everything up to the note 1, and of nothing more.
    let stuck = move |_| {
        if !std::mem::take(&mut is_first) {
            return Reaction::Silence;
        }
        let last = [&start[..], &1_u64.to_key_bytes()].concat();
        Reaction::Answer(page(&[], Some(&last), false))
    };
    let mut options = QueryOptions::default();
    options.timeout = Some(Duration::from_secs(1));
    let (nodes, peer, found) = asked_of_two(stuck, options).await;
    assert_eq!(
        (ids(&found), report_of(&found, peer).answer),
        (vec![0, 1], HolderAnswer::CutOff(CutOff::Time))
    );
    let rest = nodes[0].query::<Note>().topic(TOPIC).after(found.cursor.unwrap()).page().await.unwrap();
    assert_eq!(ids(&rest), [2, 3]);
}

#[tokio::test]
async fn equal_queries_at_a_time_that_may_be_cached_are_asked_once() {
    let questions = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&questions);
    let victim = started(memory_config()).await;
    let hostile = hostile_peer(&victim).await;
    let hostile = react_to_queries(hostile, move |_| {
        counted.fetch_add(1, Ordering::Relaxed);
        Reaction::Answer(page(&[signed(&told(1, TOPIC))], None, true))
    });
    let mut options = QueryOptions::default();
    options.freshness = Freshness::Cached(Duration::from_secs(60 * 60));
    let query = victim.query::<Note>().topic(TOPIC).options(options);
    let pages = futures::future::join_all((0..10).map(|_| query.page())).await;
    assert!(pages.into_iter().all(|page| ids(&page.unwrap()) == [1]));
    assert_eq!(questions.load(Ordering::Relaxed), 1);
    hostile.abort();
}

const GET: u8 = 2;
const VERSIONS: u8 = 3;

/// A version of a note that is newer than [`signed`].
fn newer(id: u64) -> Envelope {
    let note = Note { text: "newer".into(), ..told(id, TOPIC) };
    let key = RecordKey::of(&NotePrimaryKey(id)).unwrap();
    let payload = EncodedRecord::of(&note).unwrap().payload;
    let time = Timestamp::from_unix_millis(1_700_000_001_000);
    Envelope::sign(&SigningKey::from_bytes(&[9; 32]), &key, time, 0, Some(&payload))
}

/// The keys of a question of the record protocol.
fn keys_of(request: &[u8]) -> Vec<RecordKey> {
    let (mut keys, mut rest) = (Vec::new(), &request[3..]);
    while !rest.is_empty() {
        let (key, left) = rest[2..].split_at(u16::from_be_bytes([rest[0], rest[1]]).into());
        keys.push(RecordKey::parse(key).unwrap());
        rest = left;
    }
    keys
}

fn id_of(key: &RecordKey) -> u64 {
    (0..100).find(|id| RecordKey::of(&NotePrimaryKey(*id)).unwrap() == *key).unwrap()
}

/// Says that there is a newer version of every record.
fn newer_versions(request: &[u8]) -> Vec<u8> {
    let keys = keys_of(request);
    let versions = keys.iter().flat_map(|key| {
        let envelope = newer(id_of(key));
        let timestamp = envelope.timestamp().unwrap().to_bits().to_be_bytes();
        [&[1][..], &timestamp, &envelope.fingerprint()].concat()
    });
    [&[VERSIONS][..], &u16::try_from(keys.len()).unwrap().to_be_bytes(), &versions.collect::<Vec<_>>()]
        .concat()
}

/// Asks a node with some notes for the newest versions, of which peers have newer ones that react
/// to questions for records.
async fn newest_with(
    count: usize,
    react_to: impl FnMut(Vec<u8>) -> Reaction + Clone + Send + 'static,
    options: QueryOptions,
) -> NetworkPage<Note> {
    let victim = started(memory_config()).await;
    for id in 0..6 {
        let key = RecordKey::of(&NotePrimaryKey(id)).unwrap();
        victim.store().replica().admit(key.as_bytes(), &signed(&told(id, TOPIC)).1).unwrap();
    }
    victim.store().flush().unwrap();
    let mut peers = Vec::new();
    for _ in 0..count {
        peers.push(react_without_records(hostile_peer(&victim).await, react_to.clone()));
    }
    let mut options = options;
    options.freshness = Freshness::Newest;
    let query = victim.query::<Note>().topic(TOPIC).limit(50).options(options);
    let found = within_deadline("the page", query.page()).await.unwrap();
    peers.iter().for_each(tokio::task::JoinHandle::abort);
    found
}

#[tokio::test]
async fn newer_versions_that_did_not_fit_in_an_answer_are_asked_for_again() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    let found = newest_with(
        1,
        move |request| match request[0] {
            VERSIONS => Reaction::Answer(newer_versions(&request)),
            GET => {
                counted.fetch_add(1, Ordering::Relaxed);
                let one = newer(id_of(&keys_of(&request)[0]));
                let length = u32::try_from(one.as_bytes().len()).unwrap().to_be_bytes();
                Reaction::Answer([&[GET, 0, 1, 1][..], &length, one.as_bytes()].concat())
            }
            _ => Reaction::Close,
        },
        QueryOptions::default(),
    )
    .await;
    assert_eq!(ids(&found), [0, 1, 2, 3, 4, 5]);
    assert!(found.records.iter().all(|note| note.text == "newer"), "{found:?}");
    assert_eq!(asked.load(Ordering::Relaxed), 6);
}

#[tokio::test]
async fn peers_that_claim_newer_versions_and_do_not_send_them_are_not_waited_for_one_after_the_other() {
    const PEERS: usize = 6;
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    let silent = move |request: Vec<u8>| match request[0] {
        VERSIONS => Reaction::Answer(newer_versions(&request)),
        GET => {
            counted.fetch_add(1, Ordering::Relaxed);
            Reaction::Silence
        }
        _ => Reaction::Close,
    };
    let mut options = QueryOptions::default();
    options.peer_timeout = Duration::from_millis(500);
    let found = newest_with(PEERS, silent, options).await;
    assert_eq!(ids(&found), [0, 1, 2, 3, 4, 5]);
    assert!(found.records.iter().all(|note| note.text == "text"), "{found:?}");
    let asked = asked.load(Ordering::Relaxed);
    assert!((1..PEERS - 1).contains(&asked), "{asked}");
}
