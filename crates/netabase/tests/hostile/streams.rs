//! Streams that are opened and not used.

use futures::StreamExt;
use libp2p::Swarm;
use libp2p::{request_response, swarm::SwarmEvent};
use netabase::NetabaseConfig;
use netabase::StoreOptions;
use tokio::task::JoinSet;

use crate::common::bare::*;
use crate::common::*;
use crate::scene::*;

/// How many streams a node lets one connection have under way.
const MAX_STREAMS: usize = 64;

/// Waits until `count` more requests of a peer have ended without an answer.
async fn ended(hostile: &mut Swarm<Hostile>, count: usize) {
    let mut left = count;
    let ended = async {
        while left > 0 {
            if let SwarmEvent::Behaviour(HostileEvent::Records(request_response::Event::OutboundFailure {
                ..
            })) = hostile.select_next_some().await
            {
                left -= 1;
            }
        }
    };
    within_deadline("the streams to end", ended).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_that_never_end_a_message_are_few_and_are_ended() {
    const STREAMS: usize = 300;
    let scene = Scene::new(config()).await;
    let victim = &scene.victim;
    let mut attack = scene.begin("slow streams: a byte now and then");
    let mut hostile = hostile_peer_with(victim, Script::Drip(0, scene.pace())).await;
    // A frame of 60 KiB, as its length says, of no trace.
    let request = [&[0][..], &(60 * 1024_u32).to_be_bytes()[..], &vec![1; 60 * 1024]].concat();
    for _ in 0..STREAMS {
        hostile.behaviour_mut().records.send_request(&victim.local_peer_id(), request.clone());
    }
    // Beyond the bound at once, the others when their time is over.
    ended(&mut hostile, STREAMS - MAX_STREAMS).await;
    meanwhile(&mut hostile, scene.served()).await;
    ended(&mut hostile, MAX_STREAMS).await;
    attack.tally.sent = STREAMS as u64;
    attack.tally.judged(victim, *hostile.local_peer_id(), 0).await;
    scene.end(attack, &format!("{} ended at once, {MAX_STREAMS} in time", STREAMS - MAX_STREAMS));
    scene.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_that_never_end_a_message_leave_memory_to_others() {
    const PEERS: usize = 30;
    const STREAMS: usize = 40;
    const FRAME: u32 = 60 * 1024;
    let large = StoreOptions { max_value_bytes: 1 << 20, ..config().store };
    let scene = Scene::new(NetabaseConfig { store: large, ..config() }).await;
    let victim = &scene.victim;
    let mut attack = scene.begin("many peers that send half a message, and then a byte now and then");
    let request = [&[0][..], &FRAME.to_be_bytes()[..], &vec![1; FRAME as usize]].concat();
    let mut hostile = JoinSet::new();
    for _ in 0..PEERS {
        let mut peer = hostile_peer_with(victim, Script::Drip(request.len() / 2, scene.pace())).await;
        for _ in 0..STREAMS {
            peer.behaviour_mut().records.send_request(&victim.local_peer_id(), request.clone());
        }
        hostile.spawn(async move {
            ended(&mut peer, 1).await;
            peer
        });
    }
    while let Some(peer) = hostile.join_next().await {
        drop(peer.unwrap());
    }
    scene.served().await;
    attack.tally.sent = (PEERS * STREAMS) as u64;
    scene.end(attack, &format!("{} MiB of requests begun", (PEERS * STREAMS * FRAME as usize) >> 20));
    scene.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_nobody_reads_take_no_more_than_their_room() {
    const STREAMS: usize = 300;
    const VALUE: usize = 1 << 20;
    let scene = Scene::with(
        NetabaseConfig { store: StoreOptions { max_value_bytes: VALUE, ..config().store }, ..config() },
        async |victim, _| {
            victim.put_record(note(1, &"x".repeat(VALUE - 100))).await.unwrap();
        },
    )
    .await;
    let victim = &scene.victim;
    let mut attack = scene.begin("slow streams: answers that are never read");
    let mut hostile = hostile_peer_with(victim, Script::Deaf).await;
    for _ in 0..STREAMS {
        let request = keys_request(2, &[key(1).as_bytes()]);
        hostile.behaviour_mut().records.send_request(&victim.local_peer_id(), request);
    }
    meanwhile(&mut hostile, scene.served()).await;
    attack.tally.sent = STREAMS as u64;
    scene.end(attack, &format!("{} MiB of answers asked for", (STREAMS * VALUE) >> 20));
    scene.close().await;
}
