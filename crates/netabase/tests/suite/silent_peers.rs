//! Peers that have stopped to answer and keep their connections, as on a machine that sleeps.

use netabase::health::WriteAnswer;
use netabase::{PeerId, PutOptions, WriteOutcome};
use tokio::sync::mpsc;

use crate::common::bare::*;
use crate::common::*;

/// How many calls there are: far more than would end in time if each of them waited for a peer's
/// timeout.
const CALLS: u64 = 12;

fn answer_of(outcome: &WriteOutcome, peer: PeerId) -> WriteAnswer {
    outcome.peers.iter().find(|answer| answer.peer == peer).expect("the peer was asked").answer.clone()
}

#[tokio::test]
async fn a_peer_that_sleeps_is_waited_for_once_and_compared_with_when_it_wakes() {
    let nodes = network(2).await;
    // Nobody runs it: its connection stays open, and nothing is answered.
    let asleep = hostile_peer(&nodes[0]).await;
    let peer = *asleep.local_peer_id();
    within_deadline("the puts and gets beside it", async {
        for id in 0..CALLS {
            let outcome = nodes[0].put_record(note(id, "written while it sleeps")).await.unwrap();
            assert_eq!(outcome.accepted, [nodes[1].local_peer_id()]);
            assert_eq!(answer_of(&outcome, peer), WriteAnswer::Pending);
            assert_eq!(nodes[0].get_record(NotePrimaryKey(1000 + id)).await.unwrap(), None);
        }
    })
    .await;

    let (compared, mut comparisons) = mpsc::channel(100);
    let awake = react(asleep, move |request| {
        match request[0] {
            // It has stored what it is sent, and has the versions that it is asked for.
            1 => return Reaction::Answer([&request[..1], &request[1..3], &[0, 0]].concat()),
            3 => return Reaction::Answer([&[3][..], &request[1..3]].concat()),
            4 => drop(compared.try_send(())),
            _ => {}
        }
        Reaction::Close
    });
    within_deadline("the comparison", comparisons.recv()).await.unwrap();
    awake.abort();
}

#[tokio::test]
async fn a_put_may_wait_for_nobody() {
    let nodes = network(2).await;
    let asleep = hostile_peer(&nodes[0]).await;
    let mut events = nodes[1].subscribe_to_broadcasts();
    let mut options = PutOptions::default();
    options.write_concern = Some(0);
    let outcome = nodes[0].put_record_with(note(1, "here is enough"), options).await.unwrap();
    assert_eq!((outcome.asked, outcome.accepted, outcome.peers), (vec![], vec![], vec![]));
    assert_eq!(nodes[0].store().open_tree::<Note>().unwrap().len().unwrap(), 1);
    wait_for_record(&mut events, |record| record.key().model() == "Note").await;
    drop(asleep);
}
