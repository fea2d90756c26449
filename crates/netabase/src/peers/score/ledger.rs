//! The ledger of refusals: counters, scores and bans. Callers pass the time.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use libp2p::PeerId;
use netabase_store::Refusal;

use crate::admission::Severity;
use crate::dht::address::Prefix;
use crate::peers::limits::{
    BAN, BAN_AT, BANNED_PER_PREFIX, FORGET_BANS_AFTER, GRAVE_POINTS, MAX_BAN, MAX_POINTS, MAX_TRACKED_PEERS,
    POINT_LIFETIME, RECORD_BURST, RECORDS_PER_SECOND, SLIGHT_POINTS, SLOW_AT, SLOWED_INTERVAL,
};
use crate::peers::score::{Throttle, Verdict};
use crate::platform::{self, Instant};
use crate::rpc::backoff::Backoff;
use crate::rpc::token_bucket::{TokenBucket, amount};

/// The state of a peer by its score.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum PeerState {
    /// The peer is served normally.
    Good,
    /// Most of the peer's records are refused unseen.
    Slowed,
    /// The peer's connections are denied.
    Banned {
        /// The end of the ban.
        until: SystemTime,
    },
}

/// The report on a peer's conduct.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PeerReport {
    /// The peer.
    pub peer: PeerId,
    /// The state of the peer.
    pub state: PeerState,
    /// The current score, which decays with time.
    pub score: u32,
    /// The numbers of its records that were refused after a check, by reason.
    pub refused: Vec<(Refusal, u64)>,
    /// The number of its records that were refused unseen, because its quota was used up or it was
    /// slowed.
    pub throttled: u64,
    /// The number of its bans.
    pub bans: u32,
}

/// The conduct of all peers.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// The conduct of at most [`MAX_TRACKED_PEERS`] peers.
    peers: HashMap<PeerId, Conduct>,
}

#[derive(Debug)]
struct Conduct {
    refused: Vec<(Refusal, u64)>,
    throttled: u64,
    grave: Points,
    slight: Points,
    /// The quota of records.
    records: TokenBucket,
    slowed: bool,
    /// The time from which the next request of a slowed peer is processed.
    next_look: Instant,
    bans: u32,
    ban: Option<Ban>,
    /// The time of its last message.
    last: Instant,
}

#[derive(Debug, Clone, Copy)]
struct Ban {
    until: Instant,
    /// The end by the wall clock, for reports.
    ends: SystemTime,
    prefix: Option<Prefix>,
    /// The refusal of the last record.
    reason: Refusal,
    /// Whether the peer has connected and was notified.
    is_told: bool,
}

impl Ledger {
    pub(super) fn refused(
        &mut self,
        peer: PeerId,
        prefix: Option<Prefix>,
        reason: Refusal,
        severity: Severity,
        now: Instant,
    ) -> Verdict {
        let conduct = self.conduct(peer, now);
        conduct.count(reason);
        match severity {
            Severity::None => return Verdict::Tolerated,
            Severity::Slight => conduct.slight.add(SLIGHT_POINTS, now),
            Severity::Grave => conduct.grave.add(GRAVE_POINTS, now),
        }
        if conduct.grave.at(now) >= BAN_AT && !conduct.is_banned(now) {
            return Verdict::Banned { until: conduct.ban(prefix, reason, now) };
        }
        let before = conduct.slowed;
        if conduct.is_slowed(now) && !before { Verdict::Slowed } else { Verdict::Tolerated }
    }

    pub(super) fn allow_records(&mut self, peer: &PeerId, count: usize, now: Instant) -> bool {
        self.check_records(peer, count, now).is_ok()
    }

    pub(super) fn check_records(
        &mut self,
        peer: &PeerId,
        count: usize,
        now: Instant,
    ) -> Result<(), Throttle> {
        let conduct = self.conduct(*peer, now);
        let allowed = conduct.allows(count, now);
        if allowed.is_err() {
            conduct.throttled = conduct.throttled.saturating_add(u64::try_from(count).unwrap_or(u64::MAX));
        }
        allowed
    }

    pub(super) fn charge(&mut self, peer: &PeerId, count: usize, now: Instant) -> bool {
        let conduct = self.conduct(*peer, now);
        let is_paid = conduct.records.take(amount(count), now);
        conduct.throttled = conduct.throttled.saturating_add(u64::from(!is_paid));
        is_paid
    }

    pub(super) fn spend(&mut self, peer: &PeerId, cost: usize, now: Instant) {
        self.conduct(*peer, now).records.spend(amount(cost), now);
    }

    pub(super) fn slowed_for(&self, peer: &PeerId, now: Instant) -> Option<Duration> {
        let conduct = self.peers.get(peer).filter(|conduct| conduct.slows(now))?;
        let steps = (0..=2 * MAX_POINTS).map(|step| POINT_LIFETIME * step);
        let mut over = steps.filter(|rest| conduct.score(now + *rest) < SLOW_AT / 2);
        over.next()
    }

    pub(super) fn ban_of(&self, peer: &PeerId, now: Instant) -> Option<(Duration, Refusal)> {
        let ban = self.peers.get(peer)?.ban.filter(|ban| ban.until > now)?;
        Some((ban.until - now, ban.reason))
    }

    pub(super) fn begins_to_tell(&mut self, peer: &PeerId) -> bool {
        let ban = self.peers.get_mut(peer).and_then(|conduct| conduct.ban.as_mut());
        ban.is_some_and(|ban| !std::mem::replace(&mut ban.is_told, true))
    }

    pub(super) fn is_banned(&self, peer: &PeerId, now: Instant) -> bool {
        self.peers.get(peer).is_some_and(|conduct| conduct.is_banned(now))
    }

    pub(super) fn is_limited(&self, prefix: Prefix, now: Instant) -> bool {
        let banned =
            |conduct: &&Conduct| conduct.ban.is_some_and(|ban| ban.prefix == Some(prefix) && ban.until > now);
        self.peers.values().filter(banned).count() >= BANNED_PER_PREFIX
    }

    pub(super) fn report(&self, peer: &PeerId, now: Instant) -> Option<PeerReport> {
        self.peers.get(peer).map(|conduct| conduct.report(*peer, now))
    }

    pub(super) fn reports(&self, now: Instant) -> Vec<PeerReport> {
        self.peers.iter().map(|(peer, conduct)| conduct.report(*peer, now)).collect()
    }

    pub(super) fn pardon(&mut self, peer: &PeerId) -> bool {
        self.peers.remove(peer).is_some()
    }

    /// Returns the conduct of a peer, evicting another peer's if there are too many.
    fn conduct(&mut self, peer: PeerId, now: Instant) -> &mut Conduct {
        if self.peers.len() >= MAX_TRACKED_PEERS && !self.peers.contains_key(&peer) {
            let quiet = self.peers.iter().min_by_key(|(_, known)| (known.is_banned(now), known.last));
            if let Some(quiet) = quiet.map(|(peer, _)| *peer) {
                self.peers.remove(&quiet);
            }
        }
        let conduct = self.peers.entry(peer).or_insert_with(|| Conduct::new(now));
        if now.saturating_duration_since(conduct.last) >= FORGET_BANS_AFTER {
            conduct.bans = 0;
        }
        conduct.last = now;
        conduct
    }
}

impl Conduct {
    fn new(now: Instant) -> Self {
        Self {
            refused: Vec::new(),
            throttled: 0,
            grave: Points { points: 0, since: now },
            slight: Points { points: 0, since: now },
            records: TokenBucket::new(RECORDS_PER_SECOND.into(), RECORD_BURST.into(), now),
            slowed: false,
            next_look: now,
            bans: 0,
            ban: None,
            last: now,
        }
    }

    /// Counts a refusal. There is at most one counter for each reason.
    fn count(&mut self, reason: Refusal) {
        match self.refused.iter_mut().find(|(counted, _)| *counted == reason) {
            Some((_, count)) => *count = count.saturating_add(1),
            None => self.refused.push((reason, 1)),
        }
    }

    fn score(&self, now: Instant) -> u32 {
        self.grave.at(now).saturating_add(self.slight.at(now))
    }

    /// Returns whether the peer is slowed: from a high score on, until its score is low.
    fn is_slowed(&mut self, now: Instant) -> bool {
        self.slowed = self.slows(now);
        self.slowed
    }

    fn slows(&self, now: Instant) -> bool {
        self.score(now) >= if self.slowed { SLOW_AT / 2 } else { SLOW_AT }
    }

    fn is_banned(&self, now: Instant) -> bool {
        self.ban.is_some_and(|ban| ban.until > now)
    }

    /// Bans the peer; returns the end of the ban. Except for the count of bans, its record starts
    /// afresh.
    fn ban(&mut self, prefix: Option<Prefix>, reason: Refusal, now: Instant) -> SystemTime {
        self.bans = self.bans.saturating_add(1);
        let ban = Backoff { first: BAN, max: MAX_BAN }.after(self.bans);
        let (until, ends) = (now + ban, platform::system_time() + ban);
        self.ban = Some(Ban { until, ends, prefix, reason, is_told: false });
        self.grave = Points { points: 0, since: now };
        self.slight = self.grave;
        self.slowed = false;
        ends
    }

    fn allows(&mut self, count: usize, now: Instant) -> Result<(), Throttle> {
        if self.is_banned(now) {
            return Err(Throttle::Slowed);
        }
        if self.is_slowed(now) {
            let due = now >= self.next_look;
            if due {
                self.next_look = now + SLOWED_INTERVAL;
            }
            return if due { Ok(()) } else { Err(Throttle::Slowed) };
        }
        if self.records.take(amount(count), now) { Ok(()) } else { Err(Throttle::TooFast) }
    }

    fn report(&self, peer: PeerId, now: Instant) -> PeerReport {
        let state = match self.ban {
            Some(ban) if ban.until > now => PeerState::Banned { until: ban.ends },
            _ if self.slows(now) => PeerState::Slowed,
            _ => PeerState::Good,
        };
        let (score, refused) = (self.score(now), self.refused.clone());
        PeerReport { peer, state, score, refused, throttled: self.throttled, bans: self.bans }
    }
}

/// A score that decays one point at a time.
#[derive(Debug, Clone, Copy)]
struct Points {
    points: u32,
    /// The time at which the score was that high.
    since: Instant,
}

impl Points {
    fn at(self, now: Instant) -> u32 {
        let passed = now.saturating_duration_since(self.since).as_secs() / POINT_LIFETIME.as_secs();
        self.points.saturating_sub(u32::try_from(passed).unwrap_or(u32::MAX))
    }

    fn add(&mut self, points: u32, now: Instant) {
        self.points = self.at(now).saturating_add(points).min(MAX_POINTS);
        self.since = now;
    }
}

#[cfg(test)]
mod tests {
    use libp2p::Multiaddr;

    use super::*;
    use netabase_store::RecordKey;

    use crate::admission::Offence;

    const SECOND: Duration = Duration::from_secs(1);

    fn refuse(ledger: &mut Ledger, peer: PeerId, reason: Refusal, now: Instant) -> Verdict {
        let key = RecordKey::new("Def", "Model", b"1").ok();
        ledger.refused(peer, None, reason, Severity::of(&Offence { key, reason, is_author: true }), now)
    }

    /// Sends forged records until the peer is banned; returns their number.
    fn ban(ledger: &mut Ledger, peer: PeerId, prefix: Option<Prefix>, now: Instant) -> usize {
        let forge = || ledger.refused(peer, prefix, Refusal::InvalidSignature, Severity::Grave, now);
        1 + std::iter::repeat_with(forge)
            .take_while(|verdict| !matches!(verdict, Verdict::Banned { .. }))
            .count()
    }

    #[test]
    fn a_forger_is_slowed_then_banned_and_comes_back_with_time() {
        let (mut ledger, peer, now) = (Ledger::default(), PeerId::random(), platform::now());
        let verdicts = [(); 4].map(|()| refuse(&mut ledger, peer, Refusal::InvalidSignature, now));
        assert_eq!(
            verdicts,
            [Verdict::Tolerated, Verdict::Slowed, Verdict::Tolerated, Verdict::Tolerated],
            "slowed once"
        );
        assert!(!ledger.is_banned(&peer, now));
        let last = refuse(&mut ledger, peer, Refusal::InvalidSignature, now);
        assert!(matches!(last, Verdict::Banned { .. }), "{last:?}");
        assert!(ledger.is_banned(&peer, now + BAN * 9 / 10) && !ledger.allow_records(&peer, 1, now));
        assert!(!ledger.is_banned(&peer, now + BAN));
        let report = ledger.report(&peer, now + BAN).unwrap();
        assert_eq!((report.state, report.score, report.bans), (PeerState::Good, 0, 1));
        assert_eq!((report.refused, report.throttled), (vec![(Refusal::InvalidSignature, 5)], 1));
    }

    #[test]
    fn a_repeater_is_banned_for_longer_up_to_a_bound() {
        let (mut ledger, peer, mut now) = (Ledger::default(), PeerId::random(), platform::now());
        let mut expected = BAN;
        for _ in 0..20 {
            ban(&mut ledger, peer, None, now);
            assert!(ledger.is_banned(&peer, now + expected * 9 / 10));
            now += expected;
            assert!(!ledger.is_banned(&peer, now));
            expected = (expected * 2).min(MAX_BAN);
        }
        now += FORGET_BANS_AFTER;
        ban(&mut ledger, peer, None, now);
        assert!(!ledger.is_banned(&peer, now + BAN), "good conduct is remembered, too");
    }

    #[test]
    fn an_honest_peer_is_never_banned_for_being_behind() {
        let (mut ledger, peer, now) = (Ledger::default(), PeerId::random(), platform::now());
        let harmless = [
            Refusal::FutureTimestamp,
            Refusal::Outdated,
            Refusal::Expired,
            Refusal::NotMember,
            Refusal::RefusedAuthor,
            Refusal::OverQuota,
            Refusal::Full,
            Refusal::Busy,
            Refusal::StoreFailed,
        ];
        for reason in harmless.into_iter().cycle().take(10_000) {
            assert_eq!(refuse(&mut ledger, peer, reason, now), Verdict::Tolerated);
        }
        assert_eq!(ledger.report(&peer, now).unwrap().score, 0);
        // The peer's models and limits may differ.
        let slight = [Refusal::NotOwner, Refusal::TooLarge, Refusal::InvalidValue];
        for reason in slight.into_iter().cycle().take(10_000) {
            assert!(!matches!(refuse(&mut ledger, peer, reason, now), Verdict::Banned { .. }));
        }
        assert_eq!(ledger.report(&peer, now).unwrap().state, PeerState::Slowed);
        assert_eq!(ledger.report(&peer, now + 10 * 60 * SECOND).unwrap().state, PeerState::Good);
    }

    #[test]
    fn a_peer_is_told_for_how_long_it_is_slowed_or_banned_and_of_a_ban_once() {
        let (mut ledger, peer, now) = (Ledger::default(), PeerId::random(), platform::now());
        for _ in 0..8 {
            assert_eq!(ledger.slowed_for(&peer, now), None);
            refuse(&mut ledger, peer, Refusal::TooLarge, now);
        }
        // 21 of 40 points have to decay.
        assert_eq!(ledger.slowed_for(&peer, now), Some(63 * SECOND));
        assert_eq!(ledger.slowed_for(&peer, now + 60 * SECOND), Some(3 * SECOND));
        assert_eq!(ledger.check_records(&peer, 1, now), Ok(()));
        assert_eq!(ledger.check_records(&peer, 1, now), Err(Throttle::Slowed));
        assert_eq!(ledger.slowed_for(&peer, now + 63 * SECOND), None);
        assert_eq!((ledger.ban_of(&peer, now), ledger.begins_to_tell(&peer)), (None, false));
        ban(&mut ledger, peer, None, now);
        assert_eq!(ledger.ban_of(&peer, now), Some((BAN, Refusal::InvalidSignature)));
        assert!(ledger.begins_to_tell(&peer) && !ledger.begins_to_tell(&peer));
        assert_eq!(ledger.ban_of(&peer, now + BAN), None);
        let quiet = PeerId::random();
        let burst = usize::try_from(RECORD_BURST).unwrap();
        assert_eq!(ledger.check_records(&quiet, burst + 1, now), Err(Throttle::TooFast));
    }

    #[test]
    fn a_peer_pays_for_what_costs_more_than_a_record() {
        let (mut ledger, peer, now) = (Ledger::default(), PeerId::random(), platform::now());
        let burst = RECORD_BURST as usize;
        assert!(ledger.allow_records(&peer, 1, now) && ledger.charge(&peer, burst - 2, now));
        assert!(!ledger.charge(&peer, 2, now), "there is not as much left");
        assert!(ledger.allow_records(&peer, 1, now) && !ledger.allow_records(&peer, 1, now));
        assert_eq!(ledger.report(&peer, now).unwrap().throttled, 2);
        assert!(ledger.charge(&peer, RECORDS_PER_SECOND as usize, now + SECOND));
        ledger.spend(&peer, 7, now + 2 * SECOND);
        assert!(ledger.charge(&peer, RECORDS_PER_SECOND as usize - 7, now + 2 * SECOND));
        ledger.spend(&peer, burst, now + 3 * SECOND);
        assert!(
            !ledger.allow_records(&peer, 1, now + 3 * SECOND),
            "what was done before it was known counts"
        );
    }

    #[test]
    fn a_slowed_peer_is_looked_at_once_per_interval() {
        let (mut ledger, peer, now) = (Ledger::default(), PeerId::random(), platform::now());
        for _ in 0..2 {
            refuse(&mut ledger, peer, Refusal::InvalidSignature, now);
        }
        let looks =
            |ledger: &mut Ledger, now| (0..100).filter(|_| ledger.allow_records(&peer, 1, now)).count();
        assert_eq!(looks(&mut ledger, now), 1);
        assert_eq!(looks(&mut ledger, now + SLOWED_INTERVAL / 2), 0);
        assert_eq!(looks(&mut ledger, now + SLOWED_INTERVAL), 1);
        // 40 points become 20 within a minute, and 19 are too few.
        assert_eq!(looks(&mut ledger, now + 60 * SECOND), 1);
        assert_eq!(looks(&mut ledger, now + 63 * SECOND), 100);
        assert_eq!(ledger.report(&peer, now).unwrap().throttled, 99 + 100 + 99 + 99);
    }

    #[test]
    fn a_peer_sends_so_many_records_in_a_second() {
        let (mut ledger, peer, now) = (Ledger::default(), PeerId::random(), platform::now());
        let (burst, rate) = (RECORD_BURST as usize, RECORDS_PER_SECOND as usize);
        assert!(ledger.allow_records(&peer, burst, now));
        assert!(!ledger.allow_records(&peer, 1, now));
        assert!(ledger.allow_records(&peer, rate, now + SECOND));
        assert!(!ledger.allow_records(&peer, 1, now + SECOND));
        assert!(ledger.allow_records(&PeerId::random(), 1, now), "others are not affected");
        assert!(!ledger.allow_records(&peer, burst + 1, now + 3600 * SECOND), "no more than the burst");
        assert_eq!(ledger.report(&peer, now).unwrap().state, PeerState::Good);
    }

    #[test]
    fn the_peers_that_are_remembered_are_bounded_and_bans_stay() {
        let (mut ledger, start) = (Ledger::default(), platform::now());
        let (banned, quiet) = (PeerId::random(), PeerId::random());
        ban(&mut ledger, banned, None, start);
        refuse(&mut ledger, quiet, Refusal::Busy, start + SECOND);
        for _ in 1..MAX_TRACKED_PEERS {
            refuse(&mut ledger, PeerId::random(), Refusal::Busy, start + 2 * SECOND);
        }
        assert_eq!(ledger.peers.len(), MAX_TRACKED_PEERS);
        assert!(ledger.report(&quiet, start).is_none() && ledger.is_banned(&banned, start));
    }

    #[test]
    fn a_prefix_of_several_banned_peers_is_limited_while_they_are() {
        let (mut ledger, now) = (Ledger::default(), platform::now());
        let address: Multiaddr = "/ip4/192.0.2.7/tcp/1".parse().unwrap();
        let prefix = Prefix::of(&address).unwrap();
        for banned in 0..BANNED_PER_PREFIX {
            assert!(!ledger.is_limited(prefix, now), "{banned}");
            assert_eq!(ban(&mut ledger, PeerId::random(), Some(prefix), now), 5);
        }
        assert!(ledger.is_limited(prefix, now));
        let another: Multiaddr = "/ip4/192.0.3.7/tcp/1".parse().unwrap();
        assert!(!ledger.is_limited(Prefix::of(&another).unwrap(), now));
        assert!(!ledger.is_limited(prefix, now + BAN));
    }

    #[test]
    fn a_pardoned_peer_begins_anew() {
        let (mut ledger, peer, now) = (Ledger::default(), PeerId::random(), platform::now());
        ban(&mut ledger, peer, None, now);
        assert!(ledger.pardon(&peer) && !ledger.pardon(&peer));
        assert!(!ledger.is_banned(&peer, now) && ledger.report(&peer, now).is_none());
    }
}
