//! Hellos: the mutual reports of this node and a peer, and their consequences.
//!
//! A peer is sent a hello when a connection to it was identified, every [`HELLO_INTERVAL`], and
//! when its report has changed. A program that does not know hellos answers with a failure, which
//! has no consequences.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use libp2p::PeerId;
use libp2p::request_response::{OutboundRequestId, ResponseChannel};
use libp2p::swarm::ConnectionId;
use netabase_store::{Clock, Refusal};

use crate::event::NetabaseSwarmEvent;
use crate::event_loop::EventLoop;
use crate::peers::limits::{BAN_NOTICE_TIME, HELLO_COST, HELLO_INTERVAL, MAX_BAN, MIN_HELLO_INTERVAL};
use crate::peers::standing::ClockComparison;
use crate::platform::{self, Instant};
use crate::protocol::record::{Failure, Hello, Request, Response};
use crate::rpc::frame::Frame;
use twins::Twins;

mod twins;

/// The state of hellos.
#[derive(Debug, Default)]
pub(crate) struct Greetings {
    /// The hellos in flight, a few for each peer.
    asked: HashMap<OutboundRequestId, Asked>,
    /// Connections that are not identified yet.
    fresh: HashSet<ConnectionId>,
    /// The connected peers that speak the record protocol.
    peers: HashMap<PeerId, Greeted>,
    /// Connections to banned peers that are being notified of the ban, with the latest time of
    /// their end.
    ban_notices: HashMap<ConnectionId, (PeerId, Instant)>,
    twins: Twins,
    /// Whether a difference of clocks was reported, and not yet that the clocks agree again.
    says_that_it_differs: bool,
    /// The clocks at the last check: the monotonic clock, and the wall clock in milliseconds.
    clocks: Option<(Instant, u64)>,
}

/// A hello in flight.
#[derive(Debug, Clone, Copy)]
struct Asked {
    at: Instant,
    /// The wall clock at that time, in milliseconds.
    clock: u64,
    /// Whether this node's wall clock was set since. A machine may have been suspended before the
    /// answer.
    is_stale: bool,
}

#[derive(Debug)]
struct Greeted {
    last: Instant,
    /// Whether to send a hello as soon as the interval allows.
    is_due: bool,
    /// The milliseconds by which this node's clock is ahead of the peer's, or `None` if unknown.
    ahead: Option<i64>,
    /// Whether this node's clock was set since the peer has sent its own.
    is_stale: bool,
}

impl Greetings {
    /// Records a new connection, which is not identified yet.
    pub(crate) fn connected(&mut self, connection: ConnectionId) {
        self.fresh.insert(connection);
    }

    /// Records a closed connection, which may be the last one to the peer.
    pub(crate) fn closed(&mut self, peer: &PeerId, connection: ConnectionId, is_last: bool) {
        self.fresh.remove(&connection);
        self.ban_notices.remove(&connection);
        if is_last {
            self.peers.remove(peer);
        }
    }

    /// Returns the peers whose hello is due.
    fn due(&self, now: Instant) -> Vec<PeerId> {
        let is_due = |greeted: &Greeted| {
            let wait = if greeted.is_due { MIN_HELLO_INTERVAL } else { HELLO_INTERVAL };
            now.saturating_duration_since(greeted.last) >= wait
        };
        self.peers.iter().filter(|(_, greeted)| is_due(greeted)).map(|(peer, _)| *peer).collect()
    }

    /// Schedules a hello to a peer as soon as the interval allows.
    fn hasten(&mut self, peer: &PeerId) {
        if let Some(greeted) = self.peers.get_mut(peer) {
            greeted.is_due = true;
        }
    }

    /// Returns the milliseconds by which this node's clock is ahead of each peer's.
    fn ahead(&self) -> Vec<(PeerId, i64)> {
        self.peers.iter().filter_map(|(peer, greeted)| Some((*peer, greeted.ahead?))).collect()
    }

    /// Compares this node's clock with those that peers have sent since it was set.
    fn compared(&self) -> Option<ClockComparison> {
        let told =
            self.peers.values().filter(|greeted| !greeted.is_stale).filter_map(|greeted| greeted.ahead);
        ClockComparison::of(told.collect())
    }

    /// Checks the clocks; returns whether the wall clock was set since the last check. The
    /// differences from the peers' clocks are adjusted.
    fn notice_clock(&mut self, now: Instant, clock: u64) -> bool {
        let Some((before, clock_before)) = self.clocks.replace((now, clock)) else { return false };
        let passed = i64::try_from(now.saturating_duration_since(before).as_millis()).unwrap_or(i64::MAX);
        let set_by = clock.cast_signed().wrapping_sub(clock_before.cast_signed()).saturating_sub(passed);
        if u128::from(set_by.unsigned_abs()) <= Clock::MAX_DRIFT.as_millis() {
            return false;
        }
        for greeted in self.peers.values_mut() {
            greeted.ahead = greeted.ahead.map(|ahead| ahead.saturating_add(set_by));
            greeted.is_stale = true;
        }
        for asked in self.asked.values_mut() {
            (asked.clock, asked.is_stale) = (asked.clock.saturating_add_signed(set_by), true);
        }
        true
    }
}

impl EventLoop {
    /// Sends a hello after a connection to a peer that speaks the record protocol was identified.
    pub(crate) fn on_acquainted(&mut self, peer: PeerId, connection: ConnectionId) {
        // A peer may identify itself as often as it likes.
        if self.peers.greetings.fresh.remove(&connection) {
            self.greet(peer);
        }
    }

    /// Sends a hello to a connected peer on each of its connections.
    pub(crate) fn greet(&mut self, peer: PeerId) {
        let now = platform::now();
        if !self.swarm.is_connected(&peer) {
            return;
        }
        self.look_at_clock();
        match self.peers.greetings.peers.get_mut(&peer) {
            Some(known) if now.saturating_duration_since(known.last) < MIN_HELLO_INTERVAL => {
                known.is_due = true;
                return;
            }
            Some(known) => (known.last, known.is_due) = (now, false),
            None => {
                let greeted = Greeted { last: now, is_due: false, ahead: None, is_stale: false };
                self.peers.greetings.peers.insert(peer, greeted);
            }
        }
        let hello = self.hello_to(&peer);
        let (clock, frame) = (hello.clock, Frame::new(hello.encode()));
        // libp2p uses the connections of a peer in turn.
        for _ in 0..self.swarm.behaviour().connections.count_of(&peer) {
            let id = self.swarm.behaviour_mut().records.send_request(&peer, frame.clone());
            self.peers.greetings.asked.insert(id, Asked { at: now, clock, is_stale: false });
        }
    }

    /// Notifies a banned peer of its ban on a new connection, which is closed afterwards.
    pub(crate) fn notify_of_ban(&mut self, peer: PeerId, connection: ConnectionId) {
        self.peers.greetings.ban_notices.insert(connection, (peer, platform::now() + BAN_NOTICE_TIME));
        self.greet(peer);
    }

    /// Sends the hellos that are due, or one to every peer if the wall clock was set. Called about
    /// once a second.
    pub(crate) fn greet_due(&mut self) {
        let now = platform::now();
        self.look_at_clock();
        self.tell_store();
        let is_over = |(connection, (_, end)): (&ConnectionId, &(PeerId, Instant))| {
            (*end <= now).then_some(*connection)
        };
        for connection in self.peers.greetings.ban_notices.iter().filter_map(is_over).collect::<Vec<_>>() {
            self.swarm.close_connection(connection);
        }
        for peer in self.peers.greetings.due(now) {
            self.greet(peer);
        }
        let us = *self.swarm.local_peer_id();
        if self.store.replica().is_identity_shared() && !self.peers.standings.is_shared(&us) {
            tracing::info!("no other node has the identity of this one any more: this node writes again");
            self.store.replica().set_identity_shared(false);
        }
    }

    /// Checks whether the wall clock was set.
    fn look_at_clock(&mut self) {
        if self.peers.greetings.notice_clock(platform::now(), self.store.replica().clock().unix_millis()) {
            tracing::info!("the wall clock was set");
            self.peers.greetings.peers.values_mut().for_each(|greeted| greeted.is_due = true);
            self.compare_clocks();
            // Versions that peers refused for their timestamps may be valid by now, or may be
            // signed again.
            self.peers.new_peer.notify_one();
        }
    }

    /// Answers a peer's hello at once, since the peer compares its clock with this node's.
    pub(crate) fn on_hello(&mut self, peer: PeerId, request: &[u8], channel: ResponseChannel<Frame>) {
        let response = match Request::decode(request) {
            Ok(_) if !self.peers.scores.allow_cost(&peer, HELLO_COST) => Frame::failure(Failure::TooFast),
            Ok(Request::Hello(hello)) => {
                self.on_told(peer, &hello);
                Frame::new(self.hello_to(&peer).encode())
            }
            Ok(_) => Frame::failure(Failure::UnknownRequest),
            Err(failure) => Frame::failure(failure),
        };
        self.respond(channel, response);
    }

    /// Handles the response to a request; returns whether the request was a hello.
    pub(crate) fn on_hello_answered(
        &mut self,
        peer: PeerId,
        id: OutboundRequestId,
        response: Option<&Frame>,
    ) -> bool {
        if !self.peers.greetings.asked.contains_key(&id) {
            return false;
        }
        self.look_at_clock();
        let Some(asked) = self.peers.greetings.asked.remove(&id) else { return false };
        let response = response.and_then(|frame| frame.bytes().ok()).map(Response::decode);
        // Other peers do not know hellos, or are busy.
        if let Some(Ok(Response::Hello(hello))) = response {
            self.on_clock_told(peer, asked, hello.clock);
            self.on_told(peer, &hello);
        }
        let left: Vec<_> =
            self.peers.greetings.ban_notices.iter().filter(|(_, (told, _))| *told == peer).collect();
        for connection in left.into_iter().map(|(connection, _)| *connection).collect::<Vec<_>>() {
            self.swarm.close_connection(connection);
        }
        true
    }

    fn hello_to(&mut self, peer: &PeerId) -> Hello {
        let seconds = |rest: Duration| u32::try_from(rest.as_secs().saturating_add(1)).unwrap_or(u32::MAX);
        let mut hello = Hello {
            clock: self.store.replica().clock().unix_millis(),
            run: self.peers.standings.run(),
            slowed: self.peers.scores.slowed_for(peer).map(seconds),
            banned: self.peers.scores.ban_of(peer).map(|(rest, reason)| (seconds(rest), reason)),
            ..Hello::default()
        };
        self.peers.greetings.twins.tell(&self.identity, peer, &mut hello, platform::now());
        hello
    }

    /// Evaluates a peer's hello or its answer to one.
    fn on_told(&mut self, peer: PeerId, hello: &Hello) {
        let slowed = hello.slowed.map(|rest| Duration::from_secs(rest.into()).min(MAX_BAN));
        if self.peers.standings.slowed_by(peer, slowed)
            && let Some(rest) = slowed
        {
            tracing::warn!(%peer, seconds = rest.as_secs(), "a peer has slowed this node for what it has sent");
            self.broadcast(NetabaseSwarmEvent::SlowedBy { peer, rest });
        }
        let banned = |(rest, reason): (u32, Refusal)| (Duration::from_secs(rest.into()).min(MAX_BAN), reason);
        let banned = hello.banned.map(banned);
        if self.peers.standings.banned_by(peer, banned)
            && let Some((rest, reason)) = banned
        {
            let seconds = rest.as_secs();
            tracing::warn!(%peer, seconds, %reason, "a peer has banned this node for what it has sent");
            self.broadcast(NetabaseSwarmEvent::BannedBy { peer, rest, reason });
        }
        let (run, us) = (self.peers.standings.run(), *self.swarm.local_peer_id());
        let insight = self.peers.greetings.twins.learn(run, us, peer, hello, platform::now());
        if insight.greet {
            self.peers.greetings.hasten(&peer);
        }
        if insight.peer_is_shared {
            self.on_shared(peer);
        }
        if insight.we_are_shared {
            self.on_we_are_shared();
        }
    }

    /// Handles the proof that another running node has this node's identity.
    pub(crate) fn on_we_are_shared(&mut self) {
        self.store.replica().set_identity_shared(true);
        self.on_shared(*self.swarm.local_peer_id());
    }

    /// Handles the proof that two running nodes have the identity of a peer, which may be this
    /// node.
    fn on_shared(&mut self, peer: PeerId) {
        if self.peers.standings.shared(peer) {
            tracing::warn!(%peer, "two running nodes have the same identity; stop one, or give one a new identity");
            self.broadcast(NetabaseSwarmEvent::IdentityShared { peer });
        }
    }

    fn on_clock_told(&mut self, peer: PeerId, asked: Asked, clock: u64) {
        let Some(greeted) = self.peers.greetings.peers.get_mut(&peer) else { return };
        // The peer has read its clock about halfway between request and answer.
        let half = platform::since(asked.at).as_millis() / 2;
        let ours = i128::from(asked.clock) + i128::try_from(half).unwrap_or_default();
        let ahead = ours - i128::from(clock);
        greeted.ahead = Some(i64::try_from(ahead).unwrap_or(if ahead < 0 { i64::MIN } else { i64::MAX }));
        greeted.is_stale = asked.is_stale;
        self.compare_clocks();
        if self.store.replica().was_away() && self.store.replica().is_clock_compared() {
            // The clock is right, so the absence was real: the republisher discards what may have
            // been deleted.
            self.peers.new_peer.notify_one();
        }
    }

    /// Tells the store the difference between its clock and those of peers. Clocks that peers sent
    /// before this node's was set do not count: a node that was suspended seems to be ahead of all
    /// of them until they answer again.
    fn tell_store(&self) {
        let (compared, ahead) = (self.peers.greetings.compared(), self.peers.greetings.ahead());
        if compared.is_some() || ahead.is_empty() {
            let ahead = |clock: ClockComparison| if clock.differs() { clock.ahead_millis } else { 0 };
            self.store.replica().note_clock_ahead(compared.map(ahead));
        }
    }

    /// Compares this node's clock with those of the peers, and reports a difference once.
    pub(crate) fn compare_clocks(&mut self) {
        self.tell_store();
        let now = self.peers.standings.compare_clocks(&self.peers.greetings.ahead());
        self.telemetry.meters.clock_ahead.set(now.map_or(0, |clock| clock.ahead_millis));
        let said = &mut self.peers.greetings.says_that_it_differs;
        match now.filter(ClockComparison::differs) {
            Some(clock) if !*said => {
                *said = true;
                let ClockComparison { ahead_millis, peers } = clock;
                tracing::warn!(
                    ahead_millis,
                    peers,
                    "the clock of this node differs from its peers'; set it by NTP, or theirs"
                );
                self.broadcast(NetabaseSwarmEvent::ClockDiffers(clock));
            }
            // Without peers, the difference is unknown.
            None if *said && now.is_some() => {
                *said = false;
                tracing::info!("the clock of this node agrees with its peers' again");
                self.broadcast(NetabaseSwarmEvent::ClockAgrees);
            }
            Some(_) | None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_set_is_noticed_and_one_that_drifts_is_not() {
        let (mut greetings, start, peer) = (Greetings::default(), platform::now(), PeerId::random());
        greetings.peers.insert(peer, Greeted { last: start, is_due: false, ahead: Some(7), is_stale: false });
        let mut look = |seconds: u64, clock: u64| {
            greetings.notice_clock(start + Duration::from_secs(seconds), clock * 1000)
        };
        assert!(!look(0, 1000) && !look(1, 1001) && !look(2, 1000) && !look(100, 1102));
        assert!(look(101, 5000) && !look(102, 5001));
        assert!(look(103, 0) && !look(104, 1));
        // From 1102 at 100 s to 1 at 104 s.
        assert_eq!(greetings.ahead(), [(peer, 7 - 1_105_000)]);
        assert_eq!(greetings.compared(), None, "it is to be asked again");
    }
}
