//! A victim, an honest node that works with it all the time, and what the attacks on them came to.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use futures::{StreamExt, TryFutureExt};
use libp2p::Swarm;
use libp2p::kad::{self, Quorum, Record};
use libp2p::swarm::SwarmEvent;
use netabase::health::{PeerAnswer, PeerReport, PeerState, WriteAnswer};
use netabase::{
    DHTDiscoveryConfig, Envelope, NetabaseConfig, NetabaseError, PeerId, RecordKey, Refusal, StoreOptions,
    Timestamp, WriteOutcome,
};
use netabase_store::SigningKey;
use netabase_store::schema::EncodedRecord;
use tokio::sync::{Mutex, MutexGuard, watch};
use tokio::task::JoinHandle;

use crate::common::bare::*;
use crate::common::*;

/// How many rounds of honest work there are at least during each attack.
const ROUNDS: usize = 3;
/// What an honest round writes and reads.
const CALLS_PER_ROUND: usize = 5;
/// From where on the honest nodes number their notes, and how many of them there are.
pub const HONEST: u64 = 1 << 40;
pub const HONEST_NOTES: u64 = 32;
/// By how much the program may grow during an attack, in bytes.
pub const MAX_GROWTH: u64 = 256 << 20;

/// One scene at a time, so that what the program grows by is the attack's.
static ALONE: Mutex<()> = Mutex::const_new(());

/// A node, and an honest one that works with it.
pub struct Scene {
    pub victim: Notes,
    pub honest: Notes,
    rounds: watch::Receiver<usize>,
    stop: watch::Sender<bool>,
    work: JoinHandle<Result<(), String>>,
    _alone: MutexGuard<'static, ()>,
}

/// One attack in a scene, from its begin to its end.
pub struct Attack {
    name: String,
    rounds: usize,
    memory: u64,
    began: Instant,
    pub tally: Tally,
}

/// What became of what a hostile peer has sent.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub sent: u64,
    pub accepted: u64,
    pub refused: BTreeMap<String, u64>,
    pub states: BTreeMap<&'static str, u64>,
}

/// Both answer as soon as one of them has: what a hostile peer does not answer holds up nobody.
pub fn config() -> NetabaseConfig {
    let one = std::num::NonZeroUsize::MIN;
    let dht = DHTDiscoveryConfig {
        write_concern: 1,
        read_concern: one,
        repair_interval: None,
        ..DHTDiscoveryConfig::default()
    };
    NetabaseConfig {
        dht,
        store: StoreOptions { max_value_bytes: 4096, ..memory_config().store },
        ..memory_config()
    }
}

impl Scene {
    pub async fn new(config: NetabaseConfig) -> Self {
        Self::with(config, async |_, _| {}).await
    }

    /// Does `prepare` before the honest work begins.
    pub async fn with(config: NetabaseConfig, prepare: impl AsyncFnOnce(&Notes, &Notes)) -> Self {
        let alone = ALONE.lock().await;
        let victim = started(config.clone()).await;
        let mut config = config;
        config.dht.bootstrap_peers = vec![full_address(&victim)];
        let honest = started(config).await;
        knows_peers(&victim, 1).await;
        knows_peers(&honest, 1).await;
        prepare(&victim, &honest).await;
        let (stop, stopped) = watch::channel(false);
        let (round, rounds) = watch::channel(0);
        let work = work(victim.clone(), honest.clone(), stopped, round);
        let work = tokio::spawn(work.inspect_err(|error| println!("the honest work has failed: {error}")));
        Self { victim, honest, rounds, stop, work, _alone: alone }
    }

    pub fn begin(&self, name: impl Into<String>) -> Attack {
        let rounds = *self.rounds.borrow();
        Attack {
            name: name.into(),
            rounds,
            memory: resident_bytes(),
            began: Instant::now(),
            tally: Tally::default(),
        }
    }

    /// Waits until the honest nodes have done their work some times more.
    pub async fn served(&self) {
        let mut rounds = self.rounds.clone();
        let until = *rounds.borrow() + ROUNDS;
        let served = rounds.wait_for(|rounds| *rounds >= until);
        within_deadline("honest work during an attack", served).await.expect("the honest work has failed");
    }

    /// A number that changes with each honest round.
    pub fn pace(&self) -> watch::Receiver<usize> {
        self.rounds.clone()
    }

    /// Prints what an attack came to, and checks what holds of all.
    pub fn end(&self, attack: Attack, more: &str) -> Tally {
        let Attack { name, rounds, memory, began, tally } = attack;
        let rounds = *self.rounds.borrow() - rounds;
        let grown = resident_bytes().saturating_sub(memory);
        let mut line = format!("{name}: {} sent, {} accepted", tally.sent, tally.accepted);
        for (reason, count) in &tally.refused {
            write!(line, ", {count} refused ({reason})").unwrap();
        }
        for (state, count) in &tally.states {
            write!(line, "; {count} peers {state}").unwrap();
        }
        let more = if more.is_empty() { String::new() } else { format!("; {more}") };
        println!(
            "{line}{more}; {} honest puts and gets meanwhile, 0 failed; {} MiB more memory; {} ms",
            rounds * CALLS_PER_ROUND,
            grown >> 20,
            began.elapsed().as_millis(),
        );
        assert!(rounds >= ROUNDS, "{name}: {rounds} rounds of honest work");
        assert!(grown <= MAX_GROWTH, "{name}: {grown} bytes more");
        assert!(self.victim.peer_reports().len() <= netabase::limits::MAX_TRACKED_PEERS);
        tally
    }

    /// Ends the honest work, none of which may have failed, and looks at what the victim has kept.
    pub async fn close(self) {
        self.stop.send(true).unwrap();
        within_deadline("the honest work to end", self.work).await.unwrap().unwrap();
        let store = self.victim.store();
        store.flush().unwrap();
        let report = store.check(netabase_store::admin::CheckOptions::default()).unwrap();
        assert!(report.is_clean(), "{report:?}");
    }
}

/// Puts at one node and reads at the other, both ways, until it is told to stop.
async fn work(
    victim: Notes,
    honest: Notes,
    stopped: watch::Receiver<bool>,
    rounds: watch::Sender<usize>,
) -> Result<(), String> {
    let mut round = 0_u64;
    while !*stopped.borrow() {
        let id = HONEST + 2 * (round % (HONEST_NOTES / 2));
        let text = format!("round {round}");
        let failed = |what: &'static str| move |error: NetabaseError| format!("{what}: {error}");
        let same = |found: Option<Note>, id: u64, what: &str| {
            let expected = Some(note(id, &text));
            if found == expected { Ok(()) } else { Err(format!("{what}: {found:?}, not {expected:?}")) }
        };
        let outcome = honest.put_record(note(id, &text)).await.map_err(failed("the honest put"))?;
        arrived(outcome, &victim, note(id, &text), "the honest put").await?;
        let pk = || NotePrimaryKey(id);
        same(victim.get_record(pk()).await.map_err(failed("the victim's get"))?, id, "the victim's get")?;
        same(honest.fetch_record(pk()).await.map_err(failed("the honest fetch"))?, id, "the honest fetch")?;
        let id = id + 1;
        let outcome = victim.put_record(note(id, &text)).await.map_err(failed("the victim's put"))?;
        arrived(outcome, &honest, note(id, &text), "the victim's put").await?;
        let found = honest.get_record(NotePrimaryKey(id)).await.map_err(failed("the honest get"))?;
        same(found, id, "the honest get")?;
        round += 1;
        rounds.send_replace(usize::try_from(round).unwrap());
    }
    Ok(())
}

/// Checks that a put has reached a node. A node that was silent for a moment is not waited for, and
/// is sent what it has missed as soon as it answers again.
async fn arrived(outcome: WriteOutcome, at: &Notes, note: Note, what: &str) -> Result<(), String> {
    let peer = at.local_peer_id();
    let silent = PeerAnswer { peer, answer: WriteAnswer::Pending };
    if outcome.accepted.contains(&peer) {
        return Ok(());
    }
    if !outcome.peers.contains(&silent) {
        return Err(format!("{what}: {outcome:?}"));
    }
    let mut events = at.subscribe_to_broadcasts();
    let tree = at.store().open_tree::<Note>().unwrap();
    within_deadline("a version that a node has missed", async {
        while tree.get(&NotePrimaryKey(note.id)).unwrap().as_ref() != Some(&note) {
            let _ = events.recv().await;
        }
    })
    .await;
    Ok(())
}

impl Tally {
    /// Adds what the victim has noted about a peer, until it has judged `count` records.
    pub async fn judged(&mut self, victim: &Notes, peer: PeerId, count: u64) {
        let report =
            if count > 0 { Some(judged(victim, peer, count).await) } else { victim.peer_report(peer) };
        for (reason, count) in report.into_iter().flat_map(|report| report.refused) {
            *self.refused.entry(reason.to_string()).or_default() += count;
        }
        *self.states.entry(state(victim, peer)).or_default() += 1;
    }

    pub fn refused(&self) -> u64 {
        self.refused.values().sum()
    }

    /// Checks that nothing was accepted, and that all was refused for one of these reasons.
    pub fn all_refused(&self, reasons: &[Refusal]) {
        assert_eq!((self.accepted, self.refused()), (0, self.sent), "{self:?}");
        let known: Vec<String> = reasons.iter().map(ToString::to_string).collect();
        assert!(self.refused.keys().all(|reason| known.contains(reason)), "{self:?}");
    }
}

/// Waits until the victim has refused `count` records of a peer.
async fn judged(victim: &Notes, peer: PeerId, count: u64) -> PeerReport {
    let mut events = victim.subscribe_to_broadcasts();
    let judged = async {
        loop {
            let report = victim.peer_report(peer);
            let refused =
                report.iter().flat_map(|report| &report.refused).map(|(_, count)| count).sum::<u64>();
            if let Some(report) = report.filter(|_| refused >= count) {
                return report;
            }
            let _ = events.recv().await;
        }
    };
    within_deadline("the victim to judge", judged).await
}

pub fn state(victim: &Notes, peer: PeerId) -> &'static str {
    match victim.peer_report(peer).map(|report| report.state) {
        None => "unknown",
        Some(PeerState::Good) => "good",
        Some(PeerState::Slowed) => "slowed",
        Some(PeerState::Banned { .. }) => "banned",
        Some(_) => "of another state",
    }
}

/// Sends a record by Kademlia and waits until it is accepted, which is returned, or the victim has
/// refused `count` records of the peer: a refused put ends without an answer.
pub async fn send_by_kad(
    hostile: &mut Swarm<Hostile>,
    victim: &Notes,
    (key, value): (&[u8], &[u8]),
    count: u64,
) -> bool {
    let record = Record::new(key.to_vec(), value.to_vec());
    let peer = *hostile.local_peer_id();
    let kad = &mut hostile.behaviour_mut().kad;
    let query = kad.put_record_to(record, std::iter::once(victim.local_peer_id()), Quorum::One);
    let refused = judged(victim, peer, count);
    tokio::pin!(refused);
    loop {
        tokio::select! {
            _ = &mut refused => return false,
            event = hostile.select_next_some() => match event {
                SwarmEvent::Behaviour(HostileEvent::Kad(kad::Event::OutboundQueryProgressed {
                    id, result: kad::QueryResult::PutRecord(Ok(_)), ..
                })) if id == query => return true,
                _ => {}
            }
        }
    }
}

/// How many records a put has stored, according to its answer.
pub fn stored(answer: &[u8]) -> u64 {
    let answers = answer.get(3..).filter(|_| answer[0] == 1).unwrap_or_default();
    answers.chunks(2).filter(|answer| answer[0] == 0).count() as u64
}

/// How much memory the program has, in bytes.
pub fn resident_bytes() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let resident = pages.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok());
    resident.unwrap_or_default() * 4096
}

pub fn key(id: u64) -> RecordKey {
    RecordKey::of(&NotePrimaryKey(id)).unwrap()
}

pub fn now() -> Timestamp {
    let millis = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
    Timestamp::from_unix_millis(millis.try_into().unwrap())
}

pub fn payload(note: &Note) -> Vec<u8> {
    EncodedRecord::of(note).unwrap().payload
}

/// Somebody whom nobody knows.
pub fn stranger() -> SigningKey {
    SigningKey::from_bytes(&[7; 32])
}

/// A valid note of a stranger.
pub fn signed(id: u64, text: &str) -> Envelope {
    Envelope::sign(&stranger(), &key(id), now(), 0, Some(&payload(&note(id, text))))
}
