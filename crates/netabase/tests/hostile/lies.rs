//! Peers that lie when copies are compared, and messages that are none.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::common::bare::*;
use crate::common::*;
use crate::records::Random;
use crate::scene::*;

const COMPARE: u8 = 4;
const OFFER: u8 = 5;
const FETCH: u8 = 6;
/// The bytes of a range in a request: from, whether and where it ends, count and digest.
const RANGE_BYTES: usize = 32 + 1 + 32 + 4 + 16;

/// A message with a tag and `count` items.
fn message(tag: u8, count: usize, items: &[u8]) -> Vec<u8> {
    [&[tag][..], &u16::try_from(count).unwrap().to_be_bytes(), items].concat()
}

/// Where each range of a comparison begins.
fn begins(request: &[u8]) -> Vec<[u8; 32]> {
    let (mut rest, mut begins) = (&request[3..], Vec::new());
    for _ in 0..items(request) {
        begins.push(*rest.first_chunk().unwrap());
        let length = if rest[32] == 1 { RANGE_BYTES } else { RANGE_BYTES - 32 };
        rest = &rest[length..];
    }
    begins
}

/// A place a little later.
fn after(mut position: [u8; 32]) -> [u8; 32] {
    for byte in position.iter_mut().rev() {
        *byte = byte.wrapping_add(1);
        if *byte != 0 {
            break;
        }
    }
    position
}

/// Each range has no items, and goes on a little later.
fn endless(request: &[u8]) -> Vec<u8> {
    let answers = begins(request).into_iter().flat_map(|from| [&[3][..], &after(from), &[0, 0]].concat());
    message(COMPARE, items(request), &answers.collect::<Vec<_>>())
}

/// As many items as a list may have, none of which exists.
fn invented(request: &[u8]) -> Vec<u8> {
    let mut random = Random(1);
    let mut list: Vec<Vec<u8>> =
        (0..1024).map(|_| (0..3).flat_map(|_| random.next().to_be_bytes()).collect()).collect();
    list.sort_unstable();
    let answer = [&[2][..], &1024_u16.to_be_bytes(), &list.concat()].concat();
    message(COMPARE, items(request), &answer.repeat(items(request)))
}

/// A list out of order, which goes on before it begins.
fn senseless(request: &[u8]) -> Vec<u8> {
    let answer = [&[3][..], &[0; 32], &2_u16.to_be_bytes(), &[9; 24], &[1; 24]].concat();
    message(COMPARE, items(request), &answer.repeat(items(request)))
}

/// None of what was asked for is there.
fn nothing(request: &[u8]) -> Vec<u8> {
    message(FETCH, items(request), &vec![0; items(request)])
}

/// A forged record in place of whatever was asked for.
fn forged(request: &[u8]) -> Vec<u8> {
    let mut envelope = signed(1, "forged").as_bytes().to_vec();
    envelope[20] ^= 1;
    let key = key(1);
    let length = u16::try_from(key.as_bytes().len()).unwrap().to_be_bytes();
    let size = u32::try_from(envelope.len()).unwrap().to_be_bytes();
    let record = [&[1][..], &length, key.as_bytes(), &size, &envelope].concat();
    let count = items(request).min(8);
    message(FETCH, count, &record.repeat(count))
}

/// Makes an answer to a request.
type Liar = fn(&[u8]) -> Vec<u8>;

/// A way to lie: what is answered to a comparison, and to what is fetched because of it; nothing
/// closes the stream.
struct Lie {
    name: &'static str,
    compared: Liar,
    fetched: Option<Liar>,
}

const LIES: [Lie; 8] = [
    Lie { name: "comparisons that never end", compared: endless, fetched: Some(nothing) },
    Lie { name: "invented items that are not there", compared: invented, fetched: Some(nothing) },
    Lie { name: "invented items and no answer", compared: invented, fetched: None },
    Lie { name: "invented items and forged records", compared: invented, fetched: Some(forged) },
    Lie { name: "answers that make no sense", compared: senseless, fetched: Some(nothing) },
    Lie {
        name: "always to be split",
        compared: |asked| message(COMPARE, items(asked), &vec![1; items(asked)]),
        fetched: None,
    },
    Lie { name: "more answers than questions", compared: |_| message(COMPARE, 32, &[1; 32]), fetched: None },
    Lie {
        name: "answers to another question",
        compared: |_| b"\x01\x00\x01\x00\x00".to_vec(),
        fetched: None,
    },
];

/// How many records a node holds.
fn held(node: &Notes) -> u64 {
    node.store().flush().unwrap();
    node.store().replica().positions_len().unwrap()
}

async fn lie(scene: &Scene, lie: &Lie) {
    let victim = &scene.victim;
    let mut attack = scene.begin(format!("lies in a repair: {}", lie.name));
    let before = held(victim);
    let hostile = hostile_peer(victim).await;
    let peer = *hostile.local_peer_id();
    let (compared, fetched) = (lie.compared, lie.fetched);
    let asked = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&asked);
    let liar = react(hostile, move |request| {
        count.fetch_add(1, Ordering::Relaxed);
        match (request[0], fetched) {
            (COMPARE, _) => Reaction::Answer(compared(&request)),
            // All of it is wanted, and what was never offered.
            (OFFER, _) => Reaction::Answer(message(OFFER, 1024, &[0xff; 2048])),
            (FETCH, Some(fetched)) => Reaction::Answer(fetched(&request)),
            _ => Reaction::Close,
        }
    });
    let report = within_deadline("the repair", victim.repair()).await.unwrap();
    scene.served().await;
    attack.tally.judged(victim, peer, 0).await;
    liar.abort();
    attack.tally.sent = asked.load(Ordering::Relaxed);
    let after = held(victim);
    assert_eq!(after, before, "{}: something was kept", lie.name);
    assert!(report.messages <= 4 * 64 * 3, "{}: {report:?}", lie.name);
    assert!(attack.tally.sent > 0, "the liar was asked");
    let more = format!("repair ended after {} messages, {} received", report.messages, report.received);
    scene.end(attack, &more);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_lies_in_a_repair_is_asked_a_bounded_number_of_times() {
    let scene = Scene::with(config(), async |_, honest| {
        for id in 0..HONEST_NOTES {
            honest.put_record(note(HONEST + id, "before")).await.unwrap();
        }
        for id in 0..300 {
            honest.put_record(note(id, "kept")).await.unwrap();
        }
    })
    .await;
    for (id, told) in (1000..).zip(&LIES) {
        // What is missing comes from the honest node all the same.
        scene.honest.store().open_tree::<Page>().unwrap().put(&Page { id, slug: id.to_string() }).unwrap();
        let before = held(&scene.victim);
        within_deadline("the repair", scene.victim.repair()).await.unwrap();
        assert_eq!(held(&scene.victim), before + 1);
        lie(&scene, told).await;
    }
    scene.close().await;
}

/// A range of a comparison.
fn range(from: [u8; 32], to: Option<[u8; 32]>, count: u32) -> Vec<u8> {
    let end = to.map_or(vec![0], |to| [&[1][..], &to].concat());
    [&from[..], &end, &count.to_be_bytes(), &[7; 16]].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_message_is_answered_and_changes_nothing() {
    const RANDOM: usize = 500;
    let scene = Scene::new(config()).await;
    let victim = &scene.victim;
    let mut attack = scene.begin("garbage frames and hostile ranges");
    let mut hostile = hostile_peer(victim).await;
    let backwards = range([9; 32], Some([1; 32]), u32::MAX);
    let whole = range([0; 32], None, u32::MAX);
    // Many that differ, as long as they may be, and the same many times.
    let apart = |at: u8| range([8 * at; 32], (at < 31).then(|| [8 * at + 8; 32]), u32::MAX);
    let parts: Vec<u8> = (0..32).flat_map(apart).collect();
    let items = |length: usize| -> Vec<u8> {
        (0..1024_u16).flat_map(|item| [&item.to_be_bytes()[..], &vec![5; length - 2]].concat()).collect()
    };
    let mut requests = vec![
        message(COMPARE, 1, &backwards),
        message(COMPARE, 32, &parts),
        message(OFFER, 1024, &items(24)),
        message(FETCH, 1024, &items(16)),
        message(COMPARE, 32, &whole.repeat(32)),
        message(COMPARE, 33, &whole.repeat(33)),
        message(COMPARE, 0, &[]),
        message(OFFER, 1024, &[5; 24 * 1024]),
        message(OFFER, 1025, &[5; 24 * 1025]),
        message(FETCH, 1024, &[5; 16 * 1024]),
        message(FETCH, 0xffff, &[]),
        put_request(&[(b"", b"")])[..4].to_vec(),
        vec![0; 64 * 1024],
        vec![1; 3 * 1024 * 1024],
    ];
    let mut random = Random(2);
    requests.extend((0..RANDOM).map(|_| {
        let mut bytes: Vec<u8> = (0..random.below(200)).map(|_| random.next().to_be_bytes()[0]).collect();
        // Mostly something that begins like a request.
        if let Some(tag) = bytes.first_mut().filter(|tag| **tag > 50) {
            *tag = 2 + *tag % 6;
        }
        bytes
    }));
    let (mut failures, mut answers) = (0, 0);
    for request in &requests {
        let answer = ask(&mut hostile, victim, request.clone()).await.expect("the connection stays");
        assert!(answer.len() < 64 * 1024, "{} bytes for {}", answer.len(), request.len());
        assert_ne!(answer[0], 1, "nothing was put");
        if answer[0] == 0 {
            failures += 1;
        } else {
            answers += 1;
        }
        attack.tally.sent += 1;
    }
    assert_eq!(ask(&mut hostile, victim, requests[0].clone()).await.unwrap(), b"\x04\x00\x01\x00");
    assert!(failures >= RANDOM / 2 && answers >= 4, "{failures} failures, {answers} answers");
    meanwhile(&mut hostile, scene.served()).await;
    scene.end(attack, &format!("{failures} answered as failures, {answers} with an empty answer or a list"));
    scene.close().await;
}
