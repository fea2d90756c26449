//! Silent peers, which have stopped answering.
//!
//! A suspended machine or a stopped process keeps its connections for about a minute, until pings
//! fail. Waiting for each of its answers would delay every put and every lookup. So a peer that
//! owes an answer, and sends nothing for longer than it ever needs, is *silent*: no call waits for
//! it, and versions that it would have been sent are recorded as missed. When it sends something
//! again, it is compared with.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use libp2p::PeerId;

use crate::peers::limits::{
    ANSWER_PATIENCE, DIAL_PATIENCE, LOOP_LATENESS, MAX_ANSWER_PATIENCE, MAX_SILENT,
    SLOW_LINE_BYTES_PER_SECOND, USUAL_FACTOR,
};
use crate::platform::Instant;

/// The peers that owe answers, and the silent ones. Connected peers, dialled peers and silent peers
/// are tracked.
#[derive(Debug, Default)]
pub(crate) struct SilentPeers {
    peers: HashMap<PeerId, Activity>,
    /// The times of the next checks, one for each peer.
    due: BTreeSet<(Instant, PeerId)>,
    silent: usize,
}

#[derive(Debug, Default)]
struct Activity {
    /// The time of its last message.
    heard: Option<Instant>,
    /// If it owes an answer: the end of the wait, and the length of the wait from any message.
    waiting: Option<(Instant, Duration)>,
    /// The estimated time that its answers take.
    usual: Duration,
    /// Whether a check is scheduled.
    is_due: bool,
    silent: Option<MissedVersions>,
}

/// Whether a silent peer was not sent a version, or has not accepted one.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MissedVersions(pub(crate) bool);

impl SilentPeers {
    pub(crate) fn is_silent(&self, peer: &PeerId) -> bool {
        self.silent > 0 && self.peers.get(peer).is_some_and(|activity| activity.silent.is_some())
    }

    /// Returns the number of silent peers.
    pub(crate) fn count(&self) -> usize {
        self.silent
    }

    /// Returns the time of the next check.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.due.first().map(|(time, _)| *time)
    }

    /// Records a request of `bytes` bytes to a peer.
    pub(crate) fn asked(&mut self, peer: PeerId, bytes: usize, is_connected: bool, now: Instant) {
        let activity = self.peers.entry(peer).or_default();
        if activity.silent.is_some() {
            return;
        }
        let millis = bytes.saturating_mul(1000) / SLOW_LINE_BYTES_PER_SECOND;
        let travel = Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX));
        let base =
            if is_connected { ANSWER_PATIENCE.max(activity.usual * USUAL_FACTOR) } else { DIAL_PATIENCE };
        let patience = base.saturating_add(travel).min(MAX_ANSWER_PATIENCE);
        let (until, longest) = activity.waiting.unwrap_or((now + patience, patience));
        activity.waiting = Some((until, longest.max(patience)));
        if !activity.is_due {
            activity.is_due = true;
            self.due.insert((until, peer));
        }
    }

    /// Records a message of a peer; returns whether it has missed versions if it was silent.
    pub(crate) fn heard(&mut self, peer: PeerId, now: Instant) -> Option<MissedVersions> {
        let activity = self.peers.entry(peer).or_default();
        activity.heard = Some(now);
        activity.waiting = activity.waiting.map(|(_, patience)| (now + patience, patience));
        let missed = activity.silent.take();
        self.silent -= usize::from(missed.is_some());
        missed
    }

    /// Records the time that a peer took to answer a request.
    pub(crate) fn answered(&mut self, peer: &PeerId, took: Duration) {
        if let Some(activity) = self.peers.get_mut(peer) {
            activity.usual = if activity.usual.is_zero() { took } else { (activity.usual * 7 + took) / 8 };
        }
    }

    /// Records that a peer owes no answers any more.
    pub(crate) fn owes_nothing(&mut self, peer: &PeerId) {
        if let Some(activity) = self.peers.get_mut(peer) {
            activity.waiting = None;
        }
    }

    /// Records that a silent peer was not sent a version, or has not accepted one yet.
    pub(crate) fn has_missed(&mut self, peer: &PeerId) {
        if let Some(MissedVersions(missed)) =
            self.peers.get_mut(peer).and_then(|activity| activity.silent.as_mut())
        {
            *missed = true;
        }
    }

    /// Records that a peer has no connection any more. A silent peer stays silent until it sends
    /// something.
    pub(crate) fn disconnected(&mut self, peer: &PeerId) {
        if self.peers.get(peer).is_some_and(|activity| activity.silent.is_none() && !activity.is_due) {
            self.peers.remove(peer);
        }
    }

    /// Returns whether a peer has sent nothing for `time` and owes no answer, so that it may have
    /// become silent.
    pub(crate) fn is_quiet(&self, peer: &PeerId, time: Duration, now: Instant) -> bool {
        self.peers.get(peer).is_none_or(|activity| {
            let heard = activity.heard.is_some_and(|heard| now.saturating_duration_since(heard) < time);
            !heard && activity.waiting.is_none() && activity.silent.is_none()
        })
    }

    /// Checks the peer whose check is due; returns it if it has become silent. `is_connected` tells
    /// whether a peer is connected.
    pub(crate) fn look(&mut self, now: Instant, is_connected: impl Fn(&PeerId) -> bool) -> Option<PeerId> {
        let (time, peer) = self.due.pop_first()?;
        let activity = self.peers.get_mut(&peer)?;
        activity.is_due = false;
        let Some((until, patience)) = activity.waiting else {
            if activity.silent.is_none() && !is_connected(&peer) {
                self.peers.remove(&peer);
            }
            return None;
        };
        let was_late = now.saturating_duration_since(time) > LOOP_LATENESS;
        let until = if was_late { until.max(now + patience) } else { until };
        if self.silent >= MAX_SILENT {
            self.forget_silent(is_connected);
        }
        let activity = self.peers.get_mut(&peer)?;
        if until > now || self.silent >= MAX_SILENT {
            let next = until.max(now + ANSWER_PATIENCE.min(patience) / 8);
            (activity.is_due, activity.waiting) = (true, Some((until, patience)));
            self.due.insert((next, peer));
            return None;
        }
        (activity.waiting, activity.silent) = (None, Some(MissedVersions::default()));
        self.silent += 1;
        Some(peer)
    }

    /// Drops the silent peers that are not connected. When one is dialled, calls wait for it once
    /// more.
    fn forget_silent(&mut self, is_connected: impl Fn(&PeerId) -> bool) {
        self.peers.retain(|peer, activity| activity.silent.is_none() || is_connected(peer));
        self.silent = self.peers.values().filter(|activity| activity.silent.is_some()).count();
    }

    /// Returns the usual answer time of the slowest peer that is not silent.
    pub(crate) fn slowest(&self) -> Duration {
        let heard = self.peers.values().filter(|activity| activity.silent.is_none());
        heard.map(|activity| activity.usual).max().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform;

    /// Runs all checks that are due by `now`, at their times; returns the peers that have become
    /// silent.
    fn silent_by(silence: &mut SilentPeers, now: Instant) -> Vec<PeerId> {
        let mut silent = Vec::new();
        while let Some(time) = silence.next_due().filter(|time| *time <= now) {
            silent.extend(silence.look(time, |_| true));
        }
        silent
    }

    #[test]
    fn a_peer_that_owes_an_answer_is_silent_until_it_is_heard_of() {
        let (mut silence, peer, now) = (SilentPeers::default(), PeerId::random(), platform::now());
        silence.asked(peer, 100, true, now);
        assert!(silent_by(&mut silence, now + ANSWER_PATIENCE / 2).is_empty() && !silence.is_silent(&peer));
        assert_eq!(silent_by(&mut silence, now + ANSWER_PATIENCE * 2), [peer]);
        assert!(silence.is_silent(&peer) && silence.count() == 1);
        // No further answer is expected of the peer.
        silence.asked(peer, 100, true, now + ANSWER_PATIENCE * 2);
        assert!(silence.next_due().is_none());
        silence.has_missed(&peer);
        silence.disconnected(&peer);
        assert_eq!(silence.heard(peer, now + ANSWER_PATIENCE * 3), Some(MissedVersions(true)));
        assert_eq!((silence.heard(peer, now + ANSWER_PATIENCE * 3), silence.count()), (None, 0));
    }

    #[test]
    fn a_peer_that_answers_something_is_waited_for_anew() {
        let (mut silence, peer, now) = (SilentPeers::default(), PeerId::random(), platform::now());
        silence.asked(peer, 100, true, now);
        for step in 1..10 {
            assert!(silent_by(&mut silence, now + ANSWER_PATIENCE * step / 2).is_empty());
            assert_eq!(silence.heard(peer, now + ANSWER_PATIENCE * step / 2), None);
        }
        silence.owes_nothing(&peer);
        assert!(silent_by(&mut silence, now + ANSWER_PATIENCE * 100).is_empty());
        assert!(silence.due.is_empty());
    }

    #[test]
    fn a_slow_peer_and_a_long_request_have_more_time() {
        let now = platform::now();
        let [slow, long, usual] = [(); 3].map(|()| PeerId::random());
        let mut silence = SilentPeers::default();
        let _ = silence.heard(slow, now);
        silence.answered(&slow, ANSWER_PATIENCE);
        silence.asked(slow, 100, true, now);
        silence.asked(long, 4 * SLOW_LINE_BYTES_PER_SECOND, true, now);
        silence.asked(usual, 100, true, now);
        assert_eq!(silent_by(&mut silence, now + ANSWER_PATIENCE * 2), [usual]);
        let mut others = silent_by(&mut silence, now + MAX_ANSWER_PATIENCE);
        others.sort_unstable();
        let mut expected = [slow, long];
        expected.sort_unstable();
        assert_eq!(others, expected);
    }

    #[test]
    fn a_loop_that_was_late_itself_blames_nobody() {
        let (mut silence, peer, now) = (SilentPeers::default(), PeerId::random(), platform::now());
        silence.asked(peer, 100, true, now);
        let woken = now + Duration::from_secs(60);
        assert_eq!(silence.look(woken, |_| true), None);
        assert!(silent_by(&mut silence, woken + ANSWER_PATIENCE / 2).is_empty());
        assert_eq!(silent_by(&mut silence, woken + ANSWER_PATIENCE * 2), [peer]);
    }

    #[test]
    fn peers_without_a_connection_are_forgotten_when_they_owe_nothing() {
        let (mut silence, peer, now) = (SilentPeers::default(), PeerId::random(), platform::now());
        silence.asked(peer, 100, false, now);
        silence.owes_nothing(&peer);
        assert_eq!(silence.look(now + DIAL_PATIENCE, |_| false), None);
        let _ = silence.heard(peer, now);
        silence.disconnected(&peer);
        assert!(silence.peers.is_empty() && silence.due.is_empty());
    }
}
