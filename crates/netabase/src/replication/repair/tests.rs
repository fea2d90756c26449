//! Tests of a repair with one peer, whose answers are simulated.

use netabase_store::{Envelope, SigningKey, StorageBackend, StoreOptions, Timestamp};

use crate::dht::holders::position_of;
use crate::peers::score::PeerScores;
use crate::replication::repair::exchange::admit_all;
use crate::replication::repair::limits::{SLICE_PATIENCE, SLICE_RECORDS};
use crate::replication::repair::wire::{RecordsResponse, Request};
use crate::replication::repair::*;
use crate::telemetry::trace::Traces;

fn key(id: u8) -> RecordKey {
    RecordKey::new("Def", "Model", &[id]).unwrap()
}

fn theirs(id: u8) -> Envelope {
    let author = SigningKey::from_bytes(&[9; 32]);
    Envelope::sign(&author, &key(id), Timestamp::from_unix_millis(1_700_000_000_000), 0, Some(b"value"))
}

fn store(options: StoreOptions) -> NetabaseStore {
    let identity = Some(SigningKey::from_bytes(&[1; 32]));
    let options = StoreOptions { backend: StorageBackend::Memory, identity, ..options };
    NetabaseStore::open_with("", None, options).unwrap()
}

/// Returns the response to a fetch of these records.
fn records(ids: impl IntoIterator<Item = u8>) -> Frame {
    let mut response = RecordsResponse::new(1 << 20);
    for id in ids {
        assert!(response.push(Some((key(id).as_bytes(), theirs(id).as_bytes()))));
    }
    Frame::new(response.finish())
}

fn admission(store: &NetabaseStore) -> Admission {
    Admission::new(store.clone(), PeerScores::default(), Traces::default())
}

fn peers(store: &NetabaseStore, sender: &mpsc::Sender<Command>) -> Peers {
    Peers {
        store: store.clone(),
        admission: admission(store),
        commands: Commands::new(sender),
        max_frame_bytes: 1 << 20,
        republish_interval: Duration::from_secs(1),
    }
}

fn slice(store: &NetabaseStore) -> Slice {
    let placed = store.replica().positions(&[0; 32], SLICE_RECORDS).unwrap();
    Slice { from: [0; 32], to: None, placed: placed.into(), claims: Arc::default() }
}

#[test]
fn what_every_copy_would_be_refused_for_is_fetched_once_and_blames_nobody() {
    let full = store(StoreOptions { max_author_bytes: 0, ..StoreOptions::default() });
    let peer = PeerId::random();
    let admitted = admit_all(&admission(&full), peer, &records([1, 2]));
    assert_eq!((admitted.answered, admitted.news, admitted.received.len()), (2, 0, 2));
    assert!(admitted.refused.is_empty());
    let admitted = admit_all(&admission(&store(StoreOptions::default())), peer, &records([1, 2]));
    assert_eq!((admitted.answered, admitted.news, admitted.received.len()), (2, 2, 2));
    // Another peer may have the record that this one has forged.
    let mut forged = records([1]).bytes().unwrap().to_vec();
    *forged.last_mut().unwrap() ^= 1;
    let admitted = admit_all(&admission(&store(StoreOptions::default())), peer, &Frame::new(forged));
    assert_eq!((admitted.answered, admitted.received.len(), admitted.refused.len()), (1, 0, 1));
}

#[tokio::test]
async fn a_record_that_cannot_be_read_is_not_in_the_way_of_the_others() {
    let store = store(StoreOptions::default());
    let (sender, mut commands) = mpsc::channel(10);
    let peers = peers(&store, &sender);
    let positions = [1, 2, 3].map(|id| first(&key(id).position()));
    let (slice, mut report) = (slice(&store), RepairReport::default());
    let fetch = peers.fetch(PeerId::random(), &positions, &slice, &mut report);
    let answer = async {
        let mut asked = Vec::new();
        while let Some(Command::Ask { request, reply, .. }) = commands.recv().await {
            let Ok(Request::Fetch(positions)) = Request::decode(request.bytes().unwrap()) else { panic!() };
            asked.push(positions.len());
            // The first record is larger than a frame, so that the response has none.
            let frame =
                if asked.len() == 1 { Frame::failure(wire::Failure::TooLarge) } else { records([2, 3]) };
            crate::event_loop::command::answer(reply, Ok(Ok(frame)));
            if asked.len() == 2 {
                return asked;
            }
        }
        asked
    };
    let (fetched, asked) = timeout(SLICE_PATIENCE, async { tokio::join!(fetch, answer) }).await.unwrap();
    assert!(matches!(fetched, Ok(true)));
    assert_eq!((asked, report.received), (vec![3, 2], 2));
    drop(sender);
}

#[test]
fn a_copy_that_others_may_expect_here_is_not_given_up() {
    let store = store(StoreOptions::default());
    for id in 0..60 {
        store.replica().admit(key(id).as_bytes(), theirs(id).as_bytes()).unwrap();
    }
    store.flush().unwrap();
    let peers = (0..50).map(|_| PeerId::random()).map(|peer| (peer, position_of(peer))).collect();
    let view = View::new(PeerId::random(), peers, 8);
    let slice = slice(&store);
    let plan = Plan::new(&view, &slice, &store);
    let (mut near, mut far) = (0, 0);
    for placed in slice.placed.iter() {
        let is_held = view.holders(&placed.position).1;
        let is_near = view.is_near(&placed.position);
        near += usize::from(is_near && !is_held);
        far += usize::from(!is_near);
        assert_eq!(plan.holders.contains_key(&placed.position), !is_near);
        assert_eq!(plan.places().contains(&placed.position), is_held);
    }
    assert!(far > 0, "{near}");
}

#[tokio::test]
async fn a_comparison_of_which_an_answer_is_missing_or_invalid_is_not_whole() {
    use crate::replication::repair::compare::Brief;
    let store = store(StoreOptions::default());
    for id in 0..4 {
        store.replica().admit(key(id).as_bytes(), theirs(id).as_bytes()).unwrap();
    }
    store.flush().unwrap();
    let slice = slice(&store);
    let brief = |byte| Brief { position: [byte; 16], fingerprint: [byte; 8] };
    let listed = |items| Comparison::Listed { items, until: None };
    let unsorted = listed(vec![brief(9), brief(3)]);
    for (answers, expected) in [
        (vec![Comparison::Equal], true),
        (Vec::new(), false),
        (vec![Comparison::Equal, Comparison::Equal], false),
        (vec![unsorted], false),
    ] {
        let (sender, mut commands) = mpsc::channel(10);
        let peers = peers(&store, &sender);
        let mut report = RepairReport::default();
        let compare = peers.compare(PeerId::random(), &[], &slice, &mut report);
        let answer = async {
            let Some(Command::Ask { reply, .. }) = commands.recv().await else { panic!("nothing is asked") };
            let frame = Frame::new(Response::Compared(answers.clone()).encode(1 << 20));
            crate::event_loop::command::answer(reply, Ok(Ok(frame)));
        };
        let (compared, ()) = timeout(SLICE_PATIENCE, async { tokio::join!(compare, answer) }).await.unwrap();
        let Ok((_, is_whole)) = compared else { panic!("{answers:?}: the peer has answered") };
        assert_eq!(is_whole, expected, "{answers:?}");
        drop(sender);
    }
}

#[tokio::test]
async fn all_ranges_that_follow_from_an_answer_are_compared_in_one_round_trip() {
    let store = store(StoreOptions::default());
    let slice = Slice { from: [0; 32], to: None, placed: Arc::default(), claims: Arc::default() };
    let item = |number: u32| Item {
        position: *blake3::hash(&number.to_be_bytes()).as_bytes(),
        fingerprint: [0; 16],
    };
    let mut items: Vec<Item> = (0..4096).map(item).collect();
    items.sort_unstable();
    let (sender, mut commands) = mpsc::channel(10);
    let peers = peers(&store, &sender);
    let mut report = RepairReport::default();
    let compare = peers.compare(PeerId::random(), &items, &slice, &mut report);
    let answer = async {
        // One range, its sixteen parts, and theirs: no answer is given before all are asked for.
        for (messages, comparison) in [(1, Comparison::Split), (1, Comparison::Split), (8, Comparison::Equal)]
        {
            let mut asked = Vec::new();
            while asked.len() < messages {
                let Some(Command::Ask { request, reply, .. }) = commands.recv().await else { panic!() };
                let Ok(Request::Compare(ranges)) = Request::decode(request.bytes().unwrap()) else {
                    panic!()
                };
                asked.push((ranges.len(), reply));
            }
            for (ranges, reply) in asked {
                let answers = vec![comparison.clone(); ranges];
                let frame = Frame::new(Response::Compared(answers).encode(1 << 20));
                crate::event_loop::command::answer(reply, Ok(Ok(frame)));
            }
        }
    };
    let (compared, ()) = timeout(SLICE_PATIENCE, async { tokio::join!(compare, answer) }).await.unwrap();
    assert!(matches!(compared, Ok((_, true))));
    assert_eq!(report.messages, 20);
    drop(sender);
}
