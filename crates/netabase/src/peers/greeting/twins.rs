//! Twins: two running programs with one identity, whose writes replace each other's.
//!
//! Each run of a program has a random id, which it sends in its hellos. A peer that has heard of
//! two runs of one node asks for *witnesses*, in which a run signs that it knows of the other. A
//! run that ended before the next one began cannot know of it, so a restart never yields two runs
//! that know of each other, and two such statements prove that both are running. The peer forwards
//! the statements, and each run learns of the other by the other's signature. No other node can
//! forge a statement.

use std::collections::HashMap;

use libp2p::PeerId;
use libp2p::identity::{Keypair, PublicKey};

use crate::peers::limits::{MAX_TWIN_PEERS, MAX_TWIN_RUNS, TWIN_MEMORY};
use crate::platform::Instant;
use crate::protocol::record::{Hello, RunId, Witness};

/// The domain of these signatures, which separates them from every other use of the key.
const DOMAIN: &[u8] = b"netabase run witness v1";

/// The known runs of nodes.
#[derive(Debug, Default)]
pub(super) struct Twins {
    peers: HashMap<PeerId, Vec<Run>>,
    /// Other runs with this node's identity that peers have reported, true or not.
    rumoured: Vec<(RunId, Instant)>,
    /// The clock of the latest witness of another run that knows of this one. A witness that is not
    /// later proves nothing new.
    latest: Option<u64>,
}

/// A run of a peer's program.
#[derive(Debug)]
struct Run {
    id: RunId,
    heard: Instant,
    /// Its latest witness, with the time of its arrival.
    witness: Option<(Witness, Instant)>,
}

/// The conclusions from a hello.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Insight {
    /// Whether two running nodes have the identity of the peer.
    pub(super) peer_is_shared: bool,
    /// Whether another running node has the identity of this one.
    pub(super) we_are_shared: bool,
    /// Whether to send the peer another hello, with a question or news.
    pub(super) greet: bool,
}

impl Twins {
    /// Evaluates the hello of `peer`.
    pub(super) fn learn(
        &mut self,
        ours: RunId,
        us: PeerId,
        peer: PeerId,
        hello: &Hello,
        now: Instant,
    ) -> Insight {
        let mut insight = Insight { greet: self.hear(peer, hello.run, now), ..Insight::default() };
        for run in hello.runs.iter().filter(|run| **run != ours) {
            insight.greet |= self.hear_rumour(*run, now);
        }
        for witness in &hello.witnesses {
            if witness.by == hello.run {
                insight.greet |= self.keep(peer, witness, now);
            } else if witness.of == ours && witness.by != ours {
                let is_later = self.latest.is_none_or(|latest| latest < witness.clock);
                if is_later && is_signed(witness, &us) {
                    self.latest = Some(witness.clock);
                    insight.we_are_shared = true;
                }
            }
        }
        insight.peer_is_shared = self.is_shared(&peer, now);
        insight
    }

    /// Adds to a hello to `peer` the known runs of it, their witnesses, and this run's own
    /// witnesses.
    pub(super) fn tell(&mut self, identity: &Keypair, peer: &PeerId, hello: &mut Hello, now: Instant) {
        if let Some(runs) = self.peers.get(peer) {
            let runs: Vec<_> =
                runs.iter().filter(|run| now.saturating_duration_since(run.heard) < TWIN_MEMORY).collect();
            if runs.len() > 1 {
                hello.runs = runs.iter().map(|run| run.id).collect();
                hello.witnesses =
                    runs.iter().filter_map(|run| run.witness.map(|(witness, _)| witness)).collect();
            }
        }
        self.rumoured.retain(|(_, heard)| now.saturating_duration_since(*heard) < TWIN_MEMORY);
        if hello.witnesses.is_empty() {
            let (by, clock) = (hello.run, hello.clock);
            hello.witnesses =
                self.rumoured.iter().filter_map(|(of, _)| sign(identity, by, *of, clock)).collect();
        }
    }

    /// Records the hello of a run of a peer; returns whether the run is another one than the
    /// latest.
    fn hear(&mut self, peer: PeerId, run: RunId, now: Instant) -> bool {
        if self.peers.len() >= MAX_TWIN_PEERS && !self.peers.contains_key(&peer) {
            let heard = |runs: &Vec<Run>| runs.iter().map(|run| run.heard).max();
            let quiet = self.peers.iter().min_by_key(|(_, runs)| heard(runs)).map(|(peer, _)| *peer);
            quiet.and_then(|quiet| self.peers.remove(&quiet));
        }
        let runs = self.peers.entry(peer).or_default();
        if let Some(known) = runs.iter_mut().find(|known| known.id == run) {
            known.heard = now;
            return false;
        }
        if runs.len() >= MAX_TWIN_RUNS {
            runs.remove(0);
        }
        runs.push(Run { id: run, heard: now, witness: None });
        runs.len() > 1
    }

    /// Records a run with this node's identity that a peer has reported; returns whether it is new.
    fn hear_rumour(&mut self, run: RunId, now: Instant) -> bool {
        if let Some((_, heard)) = self.rumoured.iter_mut().find(|(known, _)| *known == run) {
            *heard = now;
            return false;
        }
        if self.rumoured.len() >= MAX_TWIN_RUNS {
            self.rumoured.remove(0);
        }
        self.rumoured.push((run, now));
        true
    }

    /// Stores the witness of a run of a peer; returns whether it is the first of that run.
    fn keep(&mut self, peer: PeerId, witness: &Witness, now: Instant) -> bool {
        let Some(runs) = self.peers.get_mut(&peer) else { return false };
        let is_known = runs.iter().any(|run| run.id == witness.of);
        let Some(by) = runs.iter_mut().find(|run| run.id == witness.by && run.id != witness.of) else {
            return false;
        };
        if !is_known || !is_signed(witness, &peer) {
            return false;
        }
        by.witness.replace((*witness, now)).is_none()
    }

    /// Returns whether two runs of a peer know of each other.
    fn is_shared(&self, peer: &PeerId, now: Instant) -> bool {
        let Some([one, other]) = self.peers.get(peer).map(Vec::as_slice) else { return false };
        let knows = |by: &Run, of: &Run| {
            by.witness.is_some_and(|(witness, came)| {
                witness.of == of.id && now.saturating_duration_since(came) < TWIN_MEMORY
            })
        };
        knows(one, other) && knows(other, one)
    }
}

fn signed_bytes(by: &RunId, of: &RunId, clock: u64) -> Vec<u8> {
    [DOMAIN, by, of, &clock.to_be_bytes()].concat()
}

fn sign(identity: &Keypair, by: RunId, of: RunId, clock: u64) -> Option<Witness> {
    let signature = identity.sign(&signed_bytes(&by, &of, clock)).ok()?;
    Some(Witness { by, of, clock, signature: signature.try_into().ok()? })
}

/// Returns whether the key in the id of `peer` has signed a witness.
fn is_signed(witness: &Witness, peer: &PeerId) -> bool {
    let Ok(key) = PublicKey::try_decode_protobuf(peer.as_ref().digest()) else { return false };
    key.verify(&signed_bytes(&witness.by, &witness.of, witness.clock), &witness.signature)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform;

    /// A node that exchanges hellos.
    struct Speaker {
        identity: Keypair,
        run: RunId,
        clock: u64,
        twins: Twins,
    }

    impl Speaker {
        fn new(identity: &Keypair, run: u8) -> Self {
            Self { identity: identity.clone(), run: [run; 16], clock: 1, twins: Twins::default() }
        }

        fn peer(&self) -> PeerId {
            self.identity.public().to_peer_id()
        }

        fn hello(&mut self, to: &PeerId, now: Instant) -> Hello {
            self.clock += 1;
            let mut hello = Hello { clock: self.clock, run: self.run, ..Hello::default() };
            self.twins.tell(&self.identity, to, &mut hello, now);
            hello
        }

        fn hear(&mut self, from: PeerId, hello: &Hello, now: Instant) -> Insight {
            let (run, us) = (self.run, self.peer());
            self.twins.learn(run, us, from, hello, now)
        }

        /// Sends another node a hello and receives its answer.
        fn greet(&mut self, other: &mut Self, now: Instant) -> [Insight; 2] {
            let asked = self.hello(&other.peer(), now);
            let heard = other.hear(self.peer(), &asked, now);
            let answered = other.hello(&self.peer(), now);
            [self.hear(other.peer(), &answered, now), heard]
        }
    }

    #[test]
    fn two_running_nodes_with_one_identity_are_told_so_and_a_restarted_one_is_not() {
        let (identity, now) = (Keypair::generate_ed25519(), platform::now());
        let mut watcher = Speaker::new(&Keypair::generate_ed25519(), 9);
        let [mut first, mut second] = [1, 2].map(|run| Speaker::new(&identity, run));
        first.greet(&mut watcher, now);
        // As after a restart: the first run sends no further hello.
        for _ in 0..5 {
            let [ours, theirs] = second.greet(&mut watcher, now);
            assert!(!ours.we_are_shared && !theirs.peer_is_shared);
            let [theirs, ours] = watcher.greet(&mut second, now);
            assert!(!ours.we_are_shared && !theirs.peer_is_shared);
        }
        // The first run is still alive after all.
        let (mut told, mut seen) = ([false; 2], false);
        for _ in 0..3 {
            let [of_first, of_second] = [&mut first, &mut second].map(|speaker| watcher.greet(speaker, now));
            seen |= of_first[0].peer_is_shared || of_second[0].peer_is_shared;
            told = [told[0] | of_first[1].we_are_shared, told[1] | of_second[1].we_are_shared];
        }
        assert!(seen && told == [true; 2], "{told:?}");
        // Each proof counts once, and when one of the two has ended, there are no new ones.
        let later = now + TWIN_MEMORY;
        let mut proofs = 0;
        for _ in 0..5 {
            let [theirs, ours] = watcher.greet(&mut first, later);
            assert!(!theirs.peer_is_shared);
            proofs += u32::from(ours.we_are_shared);
        }
        assert!(proofs <= 1, "{proofs}");
    }

    #[test]
    fn a_peer_cannot_make_up_a_twin() {
        let now = platform::now();
        let mut node = Speaker::new(&Keypair::generate_ed25519(), 1);
        let liar = Keypair::generate_ed25519();
        let witness = sign(&liar, [7; 16], node.run, 5).unwrap();
        let runs = vec![node.run, [7; 16]];
        let lie = Hello { run: [3; 16], clock: 1, runs, witnesses: vec![witness], ..Hello::default() };
        let insight = node.hear(liar.public().to_peer_id(), &lie, now);
        assert!(!insight.we_are_shared && insight.greet);
        // The run signs that it knows of the reported id, which is no proof to itself.
        let signed = node.hello(&liar.public().to_peer_id(), now).witnesses;
        let lie = Hello { witnesses: signed, ..lie };
        assert!(!node.hear(liar.public().to_peer_id(), &lie, now).we_are_shared);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let (now, mut twins) = (platform::now(), Twins::default());
        for run in 0..10_u8 {
            for _ in 0..MAX_TWIN_PEERS / 4 {
                twins.hear(PeerId::random(), [run; 16], now);
            }
            twins.hear_rumour([run; 16], now);
        }
        assert_eq!((twins.peers.len(), twins.rumoured.len()), (MAX_TWIN_PEERS, MAX_TWIN_RUNS));
    }
}
