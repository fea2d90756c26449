//! The standing of this node: the reports of peers about it, for handles and operators.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use libp2p::PeerId;
use netabase_store::Refusal;
use parking_lot::Mutex;

use crate::peers::limits::{CLOCK_TOLERANCE_MILLIS, MAX_NOTICES, REFUSED_FOR, SHARED_FOR};
use crate::platform::{self, Instant};
use crate::protocol::record::RunId;

/// The difference between a node's clock and those of its connected peers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClockComparison {
    /// The milliseconds by which this node's clock is ahead of the median of its peers' clocks.
    /// Negative if it is behind.
    pub ahead_millis: i64,
    /// The number of peers that have sent their clocks. With a single one, it is unknown which of
    /// the two clocks is wrong.
    pub peers: usize,
}

impl ClockComparison {
    /// Compares this node's clock with peers' clocks, given the milliseconds by which it is ahead
    /// of each. Returns `None` without peers.
    pub(crate) fn of(mut ahead: Vec<i64>) -> Option<Self> {
        ahead.sort_unstable();
        let peers = ahead.len();
        let median = |at: usize| ahead.get(at).copied();
        let (lower, upper) = (median(peers.checked_sub(1)? / 2)?, median(peers / 2)?);
        // Of the two middle values, the smaller difference.
        let ahead_millis = if lower.unsigned_abs() <= upper.unsigned_abs() { lower } else { upper };
        Some(Self { ahead_millis, peers })
    }

    /// Returns whether the clocks differ by a minute or more. Peers refuse records that are more
    /// than ten minutes ahead. Of two concurrent writes, the one with the later clock wins.
    pub const fn differs(&self) -> bool {
        self.ahead_millis.unsigned_abs() >= CLOCK_TOLERANCE_MILLIS
    }
}

/// A ban of this node by a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct BanNotice {
    /// The peer.
    pub peer: PeerId,
    /// The end of the ban.
    pub until: SystemTime,
    /// The refusal of the last record that this node sent to the peer.
    pub reason: Refusal,
}

/// The reports of peers about a node.
///
/// ```
/// # use netabase::{Netabase, NetabaseConfig, StoreOptions, netabase_definition_module};
/// # #[netabase_definition_module(ChatDefinition, ChatKeys)]
/// # mod chat {
/// #     use netabase::NetabaseModel;
/// #     use serde::{Deserialize, Serialize};
/// #     #[derive(NetabaseModel, Clone, Serialize, Deserialize)]
/// #     #[netabase(ChatDefinition)]
/// #     pub struct Message { #[primary_key] pub id: u64 }
/// # }
/// # use chat::*;
/// # fn main() -> Result<(), netabase::NetabaseError> {
/// # let config = NetabaseConfig { store: StoreOptions::in_memory(), ..NetabaseConfig::default() };
/// let netabase = Netabase::<ChatDefinition>::new_with_config(config)?;
/// // Without peers there is no comparison.
/// assert_eq!(netabase.standing().clock, None);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Standing {
    /// The difference from the peers' clocks, or `None` if no connected peer has sent its clock.
    pub clock: Option<ClockComparison>,
    /// The connected peers whose clocks differ from this node's, and the milliseconds by which this
    /// node's clock is ahead of each. Negative if it is behind.
    pub other_clocks: Vec<(PeerId, i64)>,
    /// The peers that slow this node and refuse most of its records, with the remaining time.
    pub slowed_by: Vec<(PeerId, Duration)>,
    /// The bans of this node by peers.
    pub banned_by: Vec<BanNotice>,
    /// The reasons for which peers have refused versions of this node, and their numbers, until ten
    /// minutes after the last refusal. Refusals because a peer has a newer version are not
    /// included. Refusals for the timestamp are dropped when this node's clock agrees with its
    /// peers' again.
    pub refused: Vec<(Refusal, u64)>,
    /// The peers, possibly including this node, whose identity two running nodes have.
    pub shared_identities: Vec<PeerId>,
}

/// The current standing, which the event loop writes and handles read. It outlives the swarm.
#[derive(Debug, Clone)]
pub(crate) struct Standings {
    run: RunId,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    clock: Option<ClockComparison>,
    other_clocks: Vec<(PeerId, i64)>,
    slowed_by: Notices<()>,
    banned_by: Notices<(SystemTime, Refusal)>,
    shared: Notices<()>,
    /// The refusals, at most one entry for each reason.
    refused: Vec<(Refusal, u64, Instant)>,
}

/// Notices about peers, each with an end.
#[derive(Debug)]
struct Notices<T>(HashMap<PeerId, (Instant, T)>);

impl<T> Default for Notices<T> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<T: Copy> Notices<T> {
    /// Sets a notice; returns whether it is new.
    fn set(&mut self, peer: PeerId, until: Instant, what: T) -> bool {
        self.expire(platform::now());
        if self.0.len() >= MAX_NOTICES && !self.0.contains_key(&peer) {
            let first = self.0.iter().min_by_key(|(_, (until, _))| *until).map(|(peer, _)| *peer);
            first.and_then(|first| self.0.remove(&first));
        }
        self.0.insert(peer, (until, what)).is_none()
    }

    /// Sets or removes a notice; returns whether it is new.
    fn set_or_remove(&mut self, peer: PeerId, notice: Option<(Instant, T)>) -> bool {
        if notice.is_none() {
            self.0.remove(&peer);
        }
        notice.is_some_and(|(until, what)| self.set(peer, until, what))
    }

    fn expire(&mut self, now: Instant) {
        self.0.retain(|_, (until, _)| *until > now);
    }

    fn get(&mut self, now: Instant) -> impl Iterator<Item = (PeerId, Instant, T)> {
        self.expire(now);
        self.0.iter().map(|(peer, (until, what))| (*peer, *until, *what))
    }
}

impl Default for Standings {
    /// Creates a standing with a run id of its own.
    fn default() -> Self {
        Self { run: random(), state: Arc::default() }
    }
}

impl Standings {
    /// Returns the id of this run of the program.
    pub(crate) fn run(&self) -> RunId {
        self.run
    }

    /// Returns the current standing.
    pub(crate) fn now(&self) -> Standing {
        let (now, mut state) = (platform::now(), self.state.lock());
        let ban = |(peer, _, (until, reason))| BanNotice { peer, until, reason };
        Standing {
            clock: state.clock,
            other_clocks: state.other_clocks.clone(),
            slowed_by: state.slowed_by.get(now).map(|(peer, until, ())| (peer, until - now)).collect(),
            banned_by: state.banned_by.get(now).map(ban).collect(),
            shared_identities: state.shared.get(now).map(|(peer, _, ())| peer).collect(),
            refused: state
                .refused
                .iter()
                .filter(|(_, _, last)| now.saturating_duration_since(*last) < REFUSED_FOR)
                .map(|(reason, count, _)| (*reason, *count))
                .collect(),
        }
    }

    /// Updates the comparison of clocks, given the milliseconds by which this node's is ahead of
    /// each peer's.
    ///
    /// If the clock agrees with all of them, or with most of them again, refusals for the timestamp
    /// are dropped: the records are signed again automatically.
    pub(crate) fn compare_clocks(&self, ahead: &[(PeerId, i64)]) -> Option<ClockComparison> {
        let clock = ClockComparison::of(ahead.iter().map(|(_, ahead)| *ahead).collect());
        let differs = |ahead: i64| ClockComparison { ahead_millis: ahead, peers: 1 }.differs();
        let mut state = self.state.lock();
        state.other_clocks = ahead.iter().filter(|(_, ahead)| differs(*ahead)).copied().collect();
        let did_differ = std::mem::replace(&mut state.clock, clock).is_some_and(|clock| clock.differs());
        let agrees = clock.is_some_and(|clock| !clock.differs());
        if agrees && (did_differ || state.other_clocks.is_empty()) {
            state.refused.retain(|(reason, ..)| *reason != Refusal::FutureTimestamp);
        }
        clock
    }

    /// Returns whether this node's clock is behind its peers'.
    pub(crate) fn is_clock_behind(&self) -> bool {
        self.state.lock().clock.is_some_and(|clock| clock.differs() && clock.ahead_millis < 0)
    }

    /// Records the remaining time for which a peer slows this node, if it does; returns whether
    /// that is new.
    pub(crate) fn slowed_by(&self, peer: PeerId, rest: Option<Duration>) -> bool {
        let notice = rest.map(|rest| (platform::now() + rest, ()));
        self.state.lock().slowed_by.set_or_remove(peer, notice)
    }

    /// Records the remaining time of a peer's ban of this node, and the reason; returns whether
    /// that is new.
    pub(crate) fn banned_by(&self, peer: PeerId, ban: Option<(Duration, Refusal)>) -> bool {
        let notice = |(rest, reason)| (platform::now() + rest, (platform::system_time() + rest, reason));
        self.state.lock().banned_by.set_or_remove(peer, ban.map(notice))
    }

    /// Records a peer's refusal of a version of this node.
    pub(crate) fn refused(&self, reason: Refusal) {
        let (now, mut state) = (platform::now(), self.state.lock());
        match state.refused.iter_mut().find(|(known, ..)| *known == reason) {
            Some((_, count, last)) => {
                let is_over = now.saturating_duration_since(*last) >= REFUSED_FOR;
                *count = if is_over { 1 } else { count.saturating_add(1) };
                *last = now;
            }
            None => state.refused.push((reason, 1, now)),
        }
    }

    /// Records another proof that two running nodes have the identity of a peer; returns whether
    /// that is new.
    pub(crate) fn shared(&self, peer: PeerId) -> bool {
        self.state.lock().shared.set(peer, platform::now() + SHARED_FOR, ())
    }

    /// Returns whether two running nodes have the identity of a peer.
    pub(crate) fn is_shared(&self, peer: &PeerId) -> bool {
        let mut state = self.state.lock();
        state.shared.expire(platform::now());
        state.shared.0.contains_key(peer)
    }
}

/// Returns a unique run id: the end of a random peer id, which the operating system's generator
/// makes.
fn random() -> RunId {
    let bytes = platform::random_peer_id().to_bytes();
    bytes.last_chunk().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_wrong_clock_is_outvoted_and_one_peer_decides_nothing() {
        let compare = |ahead: &[i64]| ClockComparison::of(ahead.to_vec());
        let hour = 60 * 60 * 1000;
        assert_eq!(compare(&[]), None);
        for (ahead, median, differs) in [
            (&[hour][..], hour, true),
            (&[hour, 2], 2, false),
            (&[-hour, -hour], -hour, true),
            (&[hour, -3, 5], 5, false),
            (&[hour, hour + 1, 5], hour, true),
            (&[i64::MIN, i64::MAX, 0], 0, false),
            (&[59_999], 59_999, false),
        ] {
            let compared = compare(ahead).unwrap();
            assert_eq!((compared.ahead_millis, compared.differs()), (median, differs), "{ahead:?}");
            assert_eq!(compared.peers, ahead.len());
        }
    }

    #[test]
    fn what_was_refused_for_its_date_counts_until_the_clocks_agree() {
        let standings = Standings::default();
        let [one, other] = [PeerId::random(), PeerId::random()];
        let hour = 60 * 60 * 1000;
        let refused = |ahead: &[(PeerId, i64)]| {
            standings.compare_clocks(ahead);
            standings.now().refused
        };
        standings.refused(Refusal::Full);
        standings.refused(Refusal::FutureTimestamp);
        let (full, both) = ([(Refusal::Full, 1)], [(Refusal::Full, 1), (Refusal::FutureTimestamp, 1)]);
        assert_eq!(refused(&[]), both, "nobody is there");
        assert_eq!(refused(&[(one, hour), (other, hour)]), both);
        assert_eq!(refused(&[(one, 5), (other, hour)]), full, "the peer is wrong that still differs");
        // The peer may continue to refuse this node's versions.
        standings.refused(Refusal::FutureTimestamp);
        assert_eq!(refused(&[(one, 5), (other, hour)]), both);
        assert_eq!(refused(&[(one, 5), (other, 6)]), full);
    }

    #[test]
    fn each_run_has_its_own_name() {
        let (one, other) = (Standings::default(), Standings::default());
        assert_ne!(one.run(), other.run());
        assert_eq!(one.run(), one.clone().run());
    }

    #[test]
    fn notices_end_by_themselves_and_are_bounded() {
        let standings = Standings::default();
        assert!(!standings.slowed_by(PeerId::random(), None));
        let peers: Vec<PeerId> = (0..=MAX_NOTICES).map(|_| PeerId::random()).collect();
        for (seconds, peer) in (100..).zip(&peers) {
            let ban = Some((Duration::from_secs(seconds), Refusal::InvalidSignature));
            assert!(standings.banned_by(*peer, ban) && !standings.banned_by(*peer, ban));
        }
        let banned_by = standings.now().banned_by;
        assert_eq!(banned_by.len(), MAX_NOTICES);
        assert!(banned_by.iter().all(|ban| ban.peer != peers[0]), "the one that ends first is forgotten");
        assert!(standings.slowed_by(peers[0], Some(Duration::ZERO)));
        assert_eq!(standings.now().slowed_by, []);
    }
}
