//! The record protocol, as a peer of bare libp2p sees it.

use std::num::NonZeroUsize;

use futures::{StreamExt, stream};
use libp2p::{Swarm, identify, kad, request_response, swarm::SwarmEvent};
use netabase::health::ReadAnswer;
use netabase::{
    Consistency, Envelope, GetOptions, NetabaseError, NetabaseSwarmEvent, PutOptions, RecordKey, Refusal,
    Timestamp,
};
use netabase_store::SigningKey;
use netabase_store::schema::EncodedRecord;
use tokio::sync::mpsc;

use crate::common::bare::*;
use crate::common::*;

fn key(id: u64) -> RecordKey {
    RecordKey::of(&NotePrimaryKey(id)).unwrap()
}

fn signed(note: &Note, millis: u64) -> Envelope {
    let payload = EncodedRecord::of(note).unwrap().payload;
    let time = Timestamp::from_unix_millis(millis);
    Envelope::sign(&SigningKey::from_bytes(&[7; 32]), &key(note.id), time, 0, Some(&payload))
}

fn refusals(events: &mut netabase::Events) -> Vec<(Option<netabase::PeerId>, Option<RecordKey>, Refusal)> {
    let mut refusals = Vec::new();
    while let Some(event) = events.try_recv().unwrap() {
        if let NetabaseSwarmEvent::RecordRefused { peer, key, reason } = event {
            refusals.push((peer, key, reason));
        }
    }
    refusals
}

#[tokio::test]
async fn each_record_of_a_put_is_answered_for_itself_and_each_refusal_is_told_once() {
    let victim = started(memory_config()).await;
    let mut hostile = hostile_peer(&victim).await;
    let peer = *hostile.local_peer_id();
    let (good, newer) = (signed(&note(1, "good"), 5), signed(&note(2, "newer"), 9));
    let older = signed(&note(2, "older"), 3);
    let mut forged = signed(&note(3, "forged"), 5).as_bytes().to_vec();
    *forged.last_mut().unwrap() ^= 1;
    let mut events = victim.subscribe_to_broadcasts();
    let request = put_request(&[
        (key(1).as_bytes(), good.as_bytes()),
        (key(1).as_bytes(), good.as_bytes()),
        (key(2).as_bytes(), newer.as_bytes()),
        (key(2).as_bytes(), older.as_bytes()),
        (key(3).as_bytes(), &forged),
        (b"no record key", good.as_bytes()),
    ]);
    let response = ask(&mut hostile, &victim, request).await.unwrap();
    assert_eq!(response, b"\x01\x00\x06\x00\x00\x01\x00\x00\x00\x02\x09\x02\x04\x02\x01");
    let expected = [
        (Some(peer), Some(key(2)), Refusal::Outdated),
        (Some(peer), Some(key(3)), Refusal::InvalidSignature),
        (Some(peer), None, Refusal::InvalidKey),
    ];
    assert_eq!(refusals(&mut events), expected);
    assert_eq!(victim.store().replica().refusals().iter().map(|(_, count)| count).sum::<u64>(), 3);
    assert_eq!(victim.get_record(NotePrimaryKey(1)).await.unwrap(), Some(note(1, "good")));
    assert_eq!(victim.get_record(NotePrimaryKey(2)).await.unwrap(), Some(note(2, "newer")));
    victim.store().flush().unwrap();
    assert_eq!(victim.query_local_records(None).await.unwrap().len(), 2);
}

#[tokio::test]
async fn copies_and_versions_are_answered_in_the_order_of_the_keys() {
    let victim = started(memory_config()).await;
    let mut hostile = hostile_peer(&victim).await;
    victim.store().open_tree::<Note>().unwrap().put(&note(1, "kept")).unwrap();
    victim.store().open_tree::<Note>().unwrap().put(&note(2, "removed")).unwrap();
    victim.store().open_tree::<Note>().unwrap().remove(&NotePrimaryKey(2)).unwrap();
    let kept = victim.store().envelope(&key(1)).unwrap().unwrap();
    let tombstone = victim.store().envelope(&key(2)).unwrap().unwrap();
    let (one, two, three) = (key(1), key(2), key(3));
    let keys: [&[u8]; 4] = [three.as_bytes(), one.as_bytes(), b"no record key", two.as_bytes()];

    let copies = ask(&mut hostile, &victim, keys_request(2, &keys)).await.unwrap();
    let copy = |envelope: &Envelope| {
        let length = u32::try_from(envelope.as_bytes().len()).unwrap().to_be_bytes();
        [&[1][..], &length, envelope.as_bytes()].concat()
    };
    let expected = [&b"\x02\x00\x04\x00"[..], &copy(&kept), b"\x00", &copy(&tombstone)].concat();
    assert_eq!(copies, expected);

    let versions = ask(&mut hostile, &victim, keys_request(3, &keys)).await.unwrap();
    let version = |envelope: &Envelope| {
        let version = envelope.version().unwrap();
        [&[1][..], &version.timestamp.to_bits().to_be_bytes(), &version.hash[..16]].concat()
    };
    let expected = [&b"\x03\x00\x04\x00"[..], &version(&kept), b"\x00", &version(&tombstone)].concat();
    assert_eq!(versions, expected);
}

#[tokio::test]
async fn a_get_of_kademlia_has_the_copy_that_the_record_protocol_gives() {
    let victim = started(memory_config()).await;
    let mut hostile = hostile_peer(&victim).await;
    let tree = victim.store().open_tree::<Note>().unwrap();
    tree.put_many(&[note(1, "kept"), note(2, "removed")]).unwrap();
    tree.remove(&NotePrimaryKey(2)).unwrap();
    for id in 1..=3 {
        let query = hostile.behaviour_mut().kad.get_record(key(id).as_bytes().to_vec().into());
        let found = async {
            loop {
                if let SwarmEvent::Behaviour(HostileEvent::Kad(kad::Event::OutboundQueryProgressed {
                    id,
                    result: kad::QueryResult::GetRecord(result),
                    ..
                })) = hostile.select_next_some().await
                    && id == query
                {
                    match result {
                        Ok(kad::GetRecordOk::FoundRecord(found)) => return Some(found.record.value),
                        _ => return None,
                    }
                }
            }
        };
        let found = within_deadline("the end of a query", found).await;
        let kept = victim.store().envelope(&key(id)).unwrap();
        assert_eq!(found, kept.map(|kept| kept.as_bytes().to_vec()), "record {id}");
        assert_eq!(found.is_some(), id < 3);
    }
}

#[tokio::test]
async fn a_get_is_answered_as_far_as_there_is_room_and_asked_again_for_the_rest() {
    let victim = started(memory_config()).await;
    let mut hostile = hostile_peer(&victim).await;
    let records: Vec<Note> = (0..5).map(|id| note(id, &"x".repeat(400_000))).collect();
    victim.store().open_tree::<Note>().unwrap().put_many(&records).unwrap();
    let keys: Vec<RecordKey> = (0..5).map(key).collect();
    let mut left: Vec<&[u8]> = keys.iter().map(RecordKey::as_bytes).collect();
    let mut answers = Vec::new();
    while !left.is_empty() {
        let copies = ask(&mut hostile, &victim, keys_request(2, &left)).await.unwrap();
        assert!(copies.len() < 1_200_000, "{} bytes", copies.len());
        answers.push(items(&copies));
        left.drain(..items(&copies));
    }
    assert_eq!(answers, [2, 2, 1]);
}

#[tokio::test]
async fn what_is_not_understood_is_answered_and_the_connection_stays() {
    let victim = started(memory_config()).await;
    let mut hostile = hostile_peer(&victim).await;
    let too_many = put_request(&[(&b""[..], &b""[..]); 257]);
    let too_long = vec![0; 2 * 1024 * 1024];
    let cases: [(Vec<u8>, &[u8]); 6] = [
        (vec![100, 0, 0], b"\x00\x01"),
        (vec![255], b"\x00\x01"),
        (Vec::new(), b"\x00\x02"),
        (put_request(&[(b"cut", b"off")])[..12].to_vec(), b"\x00\x02"),
        (too_many, b"\x00\x02"),
        (too_long, b"\x00\x03"),
    ];
    for (request, expected) in cases {
        assert_eq!(ask(&mut hostile, &victim, request).await.as_deref(), Some(expected));
    }
    let good = signed(&note(1, "good"), 5);
    let put = put_request(&[(key(1).as_bytes(), good.as_bytes())]);
    assert_eq!(ask(&mut hostile, &victim, put).await.unwrap(), b"\x01\x00\x01\x00\x00");
    assert_eq!(hostile.connected_peers().count(), 1);
}

#[tokio::test]
async fn a_hello_is_answered_with_the_clock_and_the_run_of_the_node_and_costs_nothing() {
    let victim = started(memory_config()).await;
    let mut hostile = hostile_peer(&victim).await;
    let hello = [&b"\x07\x00\x03\x01\x00\x08"[..], &[0; 8], b"\x02\x00\x10", &[7; 16], b"\xfe\x00\x03new"];
    let hello = hello.concat();
    let before = victim.store().replica().clock().unix_millis();
    let answers = [
        ask(&mut hostile, &victim, hello.clone()).await.unwrap(),
        ask(&mut hostile, &victim, hello.clone()).await.unwrap(),
    ];
    assert!(answers.iter().all(|answer| answer.starts_with(b"\x07\x00\x02\x01\x00\x08")), "{answers:?}");
    let clock = |answer: &[u8]| u64::from_be_bytes(answer[6..14].try_into().unwrap());
    assert!(clock(&answers[0]) >= before && clock(&answers[0]) <= clock(&answers[1]));
    assert_eq!(answers[0][14..], answers[1][14..], "it is one run");
    assert_eq!(ask(&mut hostile, &victim, hello[..20].to_vec()).await.unwrap(), b"\x00\x02");
    let report = victim.peer_report(*hostile.local_peer_id()).unwrap();
    assert_eq!((report.score, report.refused.len(), report.throttled), (0, 0, 0));
}

/// Sends requests without waiting, and counts the answers until `enough` of them are there.
async fn answers_to(
    hostile: &mut Swarm<Hostile>,
    victim: &Notes,
    request: &[u8],
    count: usize,
    enough: usize,
) -> Vec<Vec<u8>> {
    for _ in 0..count {
        hostile.behaviour_mut().records.send_request(&victim.local_peer_id(), request.to_vec());
    }
    let mut answers = Vec::new();
    let collected = async {
        while answers.len() < enough {
            if let SwarmEvent::Behaviour(HostileEvent::Records(request_response::Event::Message {
                message: request_response::Message::Response { response, .. },
                ..
            })) = hostile.select_next_some().await
            {
                answers.push(response);
            }
        }
    };
    within_deadline("the answers", collected).await;
    answers
}

#[test]
fn requests_over_the_bound_are_answered_busy_at_once() {
    // The only thread that may block is taken, so no request is carried out until it is free again.
    let runtime =
        tokio::runtime::Builder::new_multi_thread().max_blocking_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        let victim = started(memory_config()).await;
        let mut hostile = hostile_peer(&victim).await;
        let (release, released) = std::sync::mpsc::sync_channel::<()>(1);
        let (taken, is_taken) = tokio::sync::oneshot::channel();
        let blocker = tokio::task::spawn_blocking(move || {
            taken.send(()).unwrap();
            let _ = released.recv();
        });
        is_taken.await.unwrap();
        let workers = std::thread::available_parallelism().map_or(2, NonZeroUsize::get);
        // 32 may wait beside those that have a thread; the others are told.
        let allowed = workers + 32;
        let good = signed(&note(1, "good"), 5);
        let put = put_request(&[(key(1).as_bytes(), good.as_bytes())]);
        let busy = answers_to(&mut hostile, &victim, &put, allowed + 5, 5).await;
        assert_eq!(busy, vec![b"\x00\x04".to_vec(); 5]);
        // The loop goes on meanwhile.
        victim.get_mode().await.unwrap();
        drop(release);
        blocker.await.unwrap();
        let carried_out = answers_to(&mut hostile, &victim, &put, 0, allowed).await;
        assert!(carried_out.iter().all(|answer| answer.starts_with(b"\x01\x00\x01")));
        assert_eq!(carried_out.len(), allowed);
    });
}

#[tokio::test]
async fn puts_that_wait_share_a_request() {
    const PUTS: u64 = 40;
    let author = started(memory_config()).await;
    let (requests, mut received) = mpsc::channel(100);
    let (go_on, may_go_on) = tokio::sync::watch::channel(false);
    let mut swarm = hostile_peer(&author).await;
    let peer = tokio::spawn(async move {
        let mut may_go_on = may_go_on;
        let mut waiting = Vec::new();
        loop {
            tokio::select! {
                _ = may_go_on.changed() => {}
                event = swarm.select_next_some() => {
                    if let SwarmEvent::Behaviour(HostileEvent::Records(request_response::Event::Message {
                        message: request_response::Message::Request { request, channel, .. }, ..
                    })) = event
                    {
                        requests.try_send(items(&request)).unwrap();
                        waiting.push((channel, items(&request)));
                    }
                }
            }
            if *may_go_on.borrow() {
                for (channel, count) in waiting.drain(..) {
                    let stored =
                        [&[1][..], &u16::try_from(count).unwrap().to_be_bytes(), &vec![0; 2 * count]];
                    let _ = swarm.behaviour_mut().records.send_response(channel, stored.concat());
                }
            }
        }
    });
    author.bootstrap().await.unwrap();
    let puts = stream::iter(0..PUTS).map(|id| author.put_record(note(id, "one of many")));
    let puts = puts.buffer_unordered(usize::try_from(PUTS).unwrap()).collect::<Vec<_>>();
    let release = async {
        let first = [received.recv().await.unwrap(), received.recv().await.unwrap()];
        // The put that is polled last finds the swarm's answer only behind the commands of all
        // others.
        author.get_mode().await.unwrap();
        go_on.send(true).unwrap();
        first
    };
    let (outcomes, first) = within_deadline("the puts", futures::future::join(puts, release)).await;
    assert!(outcomes.iter().all(|outcome| outcome.as_ref().unwrap().accepted.len() == 1));
    let mut counts = first.to_vec();
    while let Ok(count) = received.try_recv() {
        counts.push(count);
    }
    assert_eq!(counts.iter().sum::<usize>(), usize::try_from(PUTS).unwrap(), "each record is sent once");
    assert!(counts.len() <= 6, "{} requests carried {PUTS} records: {counts:?}", counts.len());
    peer.abort();
}

#[tokio::test]
async fn a_peer_without_the_record_protocol_does_not_enter_the_routing_table() {
    let victim = started(memory_config()).await;
    let mut events = victim.subscribe_to_broadcasts();
    let mut swarm = bare_swarm(&victim, false);
    let peer = tokio::spawn(async move {
        loop {
            swarm.select_next_some().await;
        }
    });
    let protocols = wait_for(&mut events, |event| match event {
        NetabaseSwarmEvent::Identify(event) => match &**event {
            identify::Event::Received { info, .. } => Some(info.protocols.clone()),
            _ => None,
        },
        _ => None,
    })
    .await;
    assert!(protocols.iter().any(|name| name.as_ref() == "/netabase/NotesDefinition/kad/1.0.0"));
    assert!(matches!(victim.bootstrap().await, Err(NetabaseError::NoKnownPeers)));
    let outcome = victim.put_record_with(note(1, "to nobody"), PutOptions::default()).await.unwrap();
    assert_eq!(outcome.asked, []);
    peer.abort();
}

#[tokio::test]
async fn many_reads_of_one_peer_at_a_time_each_have_their_own_answer() {
    let nodes = network(2).await;
    let many: Vec<Note> = (0..150).step_by(2).map(|id| note(id, &format!("text {id}"))).collect();
    for note in &many {
        nodes[0].put_record(note.clone()).await.unwrap();
    }
    let mut options = GetOptions::default();
    options.consistency = Consistency::All;
    let reads = (0..150).map(|id| nodes[1].get_record_with(NotePrimaryKey(id), options.clone()));
    let found = futures::future::join_all(reads).await;
    let found: Vec<Note> = found
        .into_iter()
        .filter_map(|outcome| {
            let outcome = outcome.unwrap();
            assert_eq!(outcome.peers.len(), 1);
            assert!(
                matches!(outcome.peers[0].answer, ReadAnswer::Version(_) | ReadAnswer::Nothing),
                "{:?}",
                outcome.peers
            );
            outcome.record
        })
        .collect();
    assert_eq!(found, many);
}
