//! The schedule of the comparisons with each holder of a scope.

use std::collections::HashMap;

use libp2p::PeerId;

use crate::platform::Instant;
use crate::replication::sync::limits::{MAX_GONE, OVERRUN_PAUSE, REMEMBERED_FOR, SESSION_BACKOFF};
use crate::replication::sync::replicator::jittered;

/// The schedule of a holder, and the result of its last session.
#[derive(Debug)]
pub(super) struct Turn {
    pub(super) next: Instant,
    pub(super) failures: u32,
    /// The generation at the start of the last session, and at that of the last successful one.
    pub(super) tried: Option<u64>,
    pub(super) done: Option<u64>,
    /// Whether live changes of the peer were lost since the start of the last session.
    is_overrun: bool,
    /// The number of consecutive sessions that found nothing missing, and the time from which the
    /// next one may start because of lost changes.
    idle: u32,
    rested: Instant,
    /// Whether the peer is no holder at present.
    is_gone: bool,
}

impl Turn {
    pub(super) fn is_due(&self, generation: u64, now: Instant) -> bool {
        self.due() <= now || self.tried.is_none_or(|tried| tried < generation)
    }

    /// Returns the time of the next comparison unless one is requested.
    pub(super) fn due(&self) -> Instant {
        // A peer in back-off is not compared with, whatever it sends.
        if self.is_overrun && self.failures == 0 { self.next.min(self.rested) } else { self.next }
    }
}

/// The schedules of all scopes. The schedule of a peer that disconnects after a failure is kept, so
/// that reconnecting does not shorten the back-off.
#[derive(Debug, Default)]
pub(super) struct Turns(HashMap<(u64, PeerId), Turn>);

impl Turns {
    pub(super) fn get(&self, id: u64, peer: &PeerId) -> Option<&Turn> {
        self.0.get(&(id, *peer)).filter(|turn| !turn.is_gone)
    }

    pub(super) fn retain_scopes(&mut self, is_kept: impl Fn(u64) -> bool) {
        self.0.retain(|(id, _), _| is_kept(*id));
    }

    /// Creates a schedule for each new holder of a scope.
    pub(super) fn meet(&mut self, id: u64, holders: &[PeerId], now: Instant) {
        self.0.retain(|(of, peer), turn| {
            if *of == id {
                turn.is_gone = !holders.contains(peer);
            }
            !turn.is_gone || (turn.failures > 0 && now < turn.next + REMEMBERED_FOR)
        });
        for peer in holders {
            self.0.entry((id, *peer)).or_insert(Turn {
                next: now,
                failures: 0,
                tried: None,
                done: None,
                is_overrun: false,
                idle: 0,
                rested: now,
                is_gone: false,
            });
        }
        self.forget_gone();
    }

    /// Drops the disconnected peers whose back-off ends first, if there are too many.
    fn forget_gone(&mut self) {
        let gone = self.0.iter().filter(|(_, turn)| turn.is_gone);
        let mut gone: Vec<_> = gone.map(|(name, turn)| (turn.next, *name)).collect();
        let excess = gone.len().saturating_sub(MAX_GONE);
        if excess > 0 {
            gone.sort_unstable();
            for (_, name) in gone.iter().take(excess) {
                self.0.remove(name);
            }
        }
    }

    pub(super) fn begin(&mut self, id: u64, peer: PeerId, generation: u64) {
        if let Some(turn) = self.0.get_mut(&(id, peer)) {
            turn.tried = Some(generation);
            turn.is_overrun = false;
        }
    }

    /// Handles lost live changes of a peer: its sets are compared soon, and each time less soon
    /// while nothing was missing.
    pub(super) fn is_overrun(&mut self, peer: PeerId) {
        let of_peer = self.0.iter_mut().filter(|((_, of), _)| *of == peer);
        of_peer.for_each(|(_, turn)| turn.is_overrun = true);
    }

    /// Records the success of a session. `is_news` tells whether records were missing.
    pub(super) fn has_succeeded(
        &mut self,
        id: u64,
        peer: PeerId,
        generation: u64,
        is_news: bool,
        now: Instant,
        next: Instant,
    ) {
        if let Some(turn) = self.0.get_mut(&(id, peer)) {
            (turn.failures, turn.done, turn.next) = (0, Some(generation), next);
            turn.idle = if is_news { 0 } else { turn.idle.saturating_add(1) };
            turn.rested = now + OVERRUN_PAUSE.after(turn.idle.saturating_add(1));
        }
    }

    /// Starts the back-off of a peer, twice as long as after the previous failure.
    pub(super) fn has_failed(&mut self, id: u64, peer: PeerId, now: Instant) {
        if let Some(turn) = self.0.get_mut(&(id, peer)) {
            turn.failures = turn.failures.saturating_add(1);
            turn.next = now + jittered(SESSION_BACKOFF.after(turn.failures));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::platform;

    const SCOPE: u64 = 7;
    const GENERATION: u64 = 1;

    fn is_due(turns: &Turns, peer: &PeerId, now: Instant) -> bool {
        turns.get(SCOPE, peer).is_some_and(|turn| turn.is_due(GENERATION, now))
    }

    #[test]
    fn a_peer_that_comes_back_is_left_alone_for_as_long_as_one_that_stays() {
        let (peer, other, mut now) = (PeerId::random(), PeerId::random(), platform::now());
        let mut turns = Turns::default();
        for failures in 0..12_u32 {
            turns.meet(SCOPE, &[peer, other], now);
            assert!(is_due(&turns, &peer, now), "after {failures} failures");
            turns.begin(SCOPE, peer, GENERATION);
            turns.has_failed(SCOPE, peer, now);
            // The peer disconnects and reconnects at once.
            turns.meet(SCOPE, &[other], now);
            assert!(turns.get(SCOPE, &peer).is_none());
            turns.meet(SCOPE, &[peer, other], now);
            let wait = SESSION_BACKOFF.after(failures + 1);
            assert!(!is_due(&turns, &peer, now + wait / 2), "after {failures} failures");
            now += wait * 2;
        }
        assert!(is_due(&turns, &other, now));
        // A comparison is requested at once.
        turns.has_failed(SCOPE, peer, now);
        turns.meet(SCOPE, &[], now);
        turns.meet(SCOPE, &[peer], now);
        assert!(turns.get(SCOPE, &peer).is_some_and(|turn| turn.is_due(GENERATION + 1, now)));
    }

    #[test]
    fn a_peer_whose_changes_were_lost_is_compared_with_soon_and_less_soon_while_nothing_was_missing() {
        let (peer, mut now) = (PeerId::random(), platform::now());
        let (mut turns, day) = (Turns::default(), Duration::from_secs(24 * 60 * 60));
        turns.meet(SCOPE, &[peer], now);
        let session = |turns: &mut Turns, is_news, now| {
            turns.begin(SCOPE, peer, GENERATION);
            turns.has_succeeded(SCOPE, peer, GENERATION, is_news, now, now + day);
        };
        for is_news in [true, true, true] {
            session(&mut turns, is_news, now);
            assert!(!is_due(&turns, &peer, now + day / 2));
            turns.is_overrun(peer);
            assert!(!is_due(&turns, &peer, now) && is_due(&turns, &peer, now + OVERRUN_PAUSE.first));
            now += OVERRUN_PAUSE.first;
        }
        for _ in 0..20 {
            session(&mut turns, false, now);
            turns.is_overrun(peer);
        }
        assert!(!is_due(&turns, &peer, now + OVERRUN_PAUSE.max / 2));
        assert!(is_due(&turns, &peer, now + OVERRUN_PAUSE.max));
        // A failure takes precedence.
        turns.has_failed(SCOPE, peer, now + day);
        turns.is_overrun(peer);
        assert!(!is_due(&turns, &peer, now + day));
    }

    #[test]
    fn who_has_gone_is_forgotten_with_time_after_success_and_beyond_a_bound() {
        let (peer, now) = (PeerId::random(), platform::now());
        let mut turns = Turns::default();
        turns.meet(SCOPE, &[peer], now);
        turns.has_failed(SCOPE, peer, now);
        turns.meet(SCOPE, &[], now);
        assert_eq!(turns.0.len(), 1);
        turns.meet(SCOPE, &[], now + 2 * SESSION_BACKOFF.first + REMEMBERED_FOR);
        assert!(turns.0.is_empty());
        turns.meet(SCOPE, &[peer], now);
        turns.has_succeeded(SCOPE, peer, GENERATION, true, now, now);
        turns.meet(SCOPE, &[], now);
        assert!(turns.0.is_empty());
        for _ in 0..MAX_GONE + 5 {
            let peer = PeerId::random();
            turns.meet(SCOPE, &[peer], now);
            turns.has_failed(SCOPE, peer, now);
        }
        turns.meet(SCOPE, &[], now);
        assert_eq!(turns.0.len(), MAX_GONE);
    }
}
