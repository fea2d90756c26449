//! What a node answers to the questions of others for records, as `docs/formats.md` says.

use futures::StreamExt;
use libp2p::Swarm;
use netabase::RecordKey;
use netabase::key::KeyField;

use crate::common::bare::*;
use crate::common::*;

const REVERSE: u8 = 1;

fn short(bytes: &[u8]) -> Vec<u8> {
    [&u16::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat()
}

/// A question for the notes with a topic, or for all.
fn question(model: &str, topic: Option<&str>, flags: u8, records: u16, bytes: u32) -> Vec<u8> {
    let start = topic.map(|topic| NoteTopicSecondaryKey(topic.into()).to_key_bytes()).unwrap_or_default();
    let mut end = start.clone();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    let index = topic.map_or(vec![0], |_| [vec![1], short(b"topic")].concat());
    let end = if end.is_empty() { vec![0] } else { [vec![1], short(&end)].concat() };
    let parts = [
        vec![1],
        short(b"NotesDefinition"),
        short(model.as_bytes()),
        index,
        short(&start),
        end,
        vec![flags],
        records.to_be_bytes().to_vec(),
        bytes.to_be_bytes().to_vec(),
    ];
    parts.concat()
}

/// A node with ten notes, and a peer of it.
async fn scene() -> (Notes, Swarm<Hostile>) {
    let node = started(memory_config()).await;
    for id in 0..10 {
        node.put_record(note(id, "text")).await.unwrap();
    }
    let peer = hostile_peer(&node).await;
    (node, peer)
}

/// The page that the notes `ids` make.
fn page_of(node: &Notes, ids: &[u64], last: Option<&[u8]>, is_last: bool) -> Vec<u8> {
    let records: Vec<_> = ids
        .iter()
        .map(|id| {
            let key = RecordKey::of(&NotePrimaryKey(*id)).unwrap();
            (key.primary_key().to_vec(), node.store().envelope(&key).unwrap().unwrap())
        })
        .collect();
    let records: Vec<_> =
        records.iter().map(|(key, envelope)| (key.as_slice(), envelope.as_bytes())).collect();
    page_response(&records, last, is_last)
}

#[tokio::test]
async fn a_page_has_the_records_that_are_asked_for_in_order() {
    let (node, mut peer) = scene().await;
    let entry = |id: u64| {
        let topic = NoteTopicSecondaryKey(format!("topic {}", id % 3)).to_key_bytes();
        [topic, id.to_key_bytes()].concat()
    };
    let all = question("Note", Some("topic 1"), 0, 100, 1 << 20);
    let answer = ask_query(&mut peer, &node, all).await.unwrap();
    assert_eq!(answer, page_of(&node, &[1, 4, 7], Some(&entry(7)), true));

    let last = question("Note", Some("topic 1"), REVERSE, 2, 1 << 20);
    let answer = ask_query(&mut peer, &node, last).await.unwrap();
    assert_eq!(answer, page_of(&node, &[7, 4], Some(&entry(4)), false));

    let by_id = question("Note", None, 0, 3, 1 << 20);
    let answer = ask_query(&mut peer, &node, by_id).await.unwrap();
    assert_eq!(answer, page_of(&node, &[0, 1, 2], Some(&2_u64.to_key_bytes()), false));

    let few_bytes = question("Note", Some("topic 1"), 0, 100, 10);
    let answer = ask_query(&mut peer, &node, few_bytes).await.unwrap();
    assert_eq!(answer, page_of(&node, &[1], Some(&entry(1)), false));

    let other = question("Note", Some("nothing"), 0, 100, 1 << 20);
    assert_eq!(ask_query(&mut peer, &node, other).await.unwrap(), page_of(&node, &[], None, true));
}

#[tokio::test]
async fn what_is_not_known_is_refused_clearly() {
    let (node, mut peer) = scene().await;
    let mut other_index = question("Note", Some("topic 1"), 0, 100, 1 << 20);
    let at = other_index.windows(5).position(|window| window == b"topic").unwrap();
    other_index[at] = b'x';
    let unknown = [question("Nothing", None, 0, 1, 1), question("@Note", None, 0, 1, 1), other_index];
    for question in unknown {
        assert_eq!(ask_query(&mut peer, &node, question).await.unwrap(), [0, 16]);
    }
    assert_eq!(ask_query(&mut peer, &node, vec![9, 1, 2]).await.unwrap(), [0, 1]);
    assert_eq!(ask_query(&mut peer, &node, vec![1, 0, 200]).await.unwrap(), [0, 2]);
    assert_eq!(ask_query(&mut peer, &node, Vec::new()).await.unwrap(), [0, 2]);
}

#[tokio::test]
async fn a_page_has_no_more_records_than_one_may_have() {
    let node = started(memory_config()).await;
    let many: Vec<Note> = (0..1500).map(|id| note(id, "text")).collect();
    node.store().open_tree::<Note>().unwrap().put_many(&many).unwrap();
    let mut peer = hostile_peer(&node).await;
    let answer = ask_query(&mut peer, &node, question("Note", None, 0, u16::MAX, u32::MAX)).await.unwrap();
    let ids: Vec<u64> = (0..1024).collect();
    assert_eq!(answer, page_of(&node, &ids, Some(&1023_u64.to_key_bytes()), false));
}

#[tokio::test]
async fn callers_who_ask_for_one_record_at_a_time_ask_the_network_once() {
    const CALLERS: usize = 32;
    let node = started(memory_config()).await;
    let mut peer = hostile_peer(&node).await;
    let mut requests = 0;
    {
        let gets = (0..CALLERS).map(|_| node.get_record(NotePrimaryKey(1)));
        let gets = futures::future::join_all(gets);
        tokio::pin!(gets);
        let all = loop {
            tokio::select! {
                // All of them before the peer answers any.
                biased;
                found = &mut gets => break found,
                event = peer.select_next_some() => if let Some((_, channel)) = get_asked(event) {
                    requests += 1;
                    peer.behaviour_mut().records.send_response(channel, copy_response(None)).unwrap();
                },
            }
        };
        assert!(all.into_iter().all(|found| found.unwrap().is_none()));
    }
    assert_eq!(requests, 1);
}
