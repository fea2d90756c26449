//! A wrapper of kad that knows the sender of each record.
//!
//! kad passes records and provider records to its store without their sender. It does so only while
//! it handles one event of one connection, so the peer of that event is the sender. A refusal of
//! the store becomes an event of its own.

use std::cell::Cell;
use std::collections::{HashMap, VecDeque};
use std::task::{Context, Poll};
use std::time::Duration;

use libp2p::core::Endpoint;
use libp2p::kad::store::{Error, RecordStore, Result as StoreResult};
use libp2p::kad::{self, ProviderRecord, Record};
use libp2p::swarm::behaviour::{ConnectionClosed, ConnectionEstablished, DialFailure};
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, DialError, FromSwarm, ListenAddresses, NetworkBehaviour, THandlerInEvent,
    THandlerOutEvent, ToSwarm,
};
use libp2p::{Multiaddr, PeerId};
use netabase_store::{NetabaseStore, Refusal};
use thiserror::Error;

use crate::admission::{Admission, Offence, Source};
use crate::connection::delegate::delegate_established;
use crate::connection::limits::{PROMISE_TIME, SMALL_KAD_BYTES};
use crate::connection::processor::Processor;
use crate::dht::address::{Scope, is_believable, scope, without_peer};
use crate::dht::limits::{
    CLAIMED_DIAL_BURST, CLAIMED_DIALS_PER_SECOND, MAX_ADDRESSES_PER_PEER, MAX_CLAIMED_ADDRESSES,
    MAX_WAITING_REFUSALS,
};
use crate::event::remote_address;
use crate::peers::score::PeerScores;
use crate::platform::{self, Instant};
use crate::rpc::budget::ByteBudget;
use crate::rpc::token_bucket::TokenBucket;

/// An event of Kademlia.
#[derive(Debug)]
#[expect(unnameable_types, reason = "a part of the public behaviour that nobody needs to name")]
#[expect(clippy::large_enum_variant, reason = "nearly all are of the large one")]
pub enum Event {
    /// An event of kad itself.
    Kad(kad::Event),
    /// A record of a peer was refused.
    Refused(RefusedRecord),
}

/// A refused record of a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(unnameable_types, reason = "a part of the public behaviour that nobody needs to name")]
pub struct RefusedRecord {
    pub(crate) peer: PeerId,
    pub(crate) offence: Offence,
}

/// Kademlia over a [`PeerStore`], which dereferences to kad's own behaviour.
#[expect(unnameable_types, reason = "a part of the public behaviour that nobody needs to name")]
pub struct Behaviour {
    kad: kad::Behaviour<PeerStore>,
    listen_addresses: ListenAddresses,
    /// The reach of each connection's address.
    scopes: HashMap<ConnectionId, Scope>,
    /// The time of the last message of each connected peer.
    active: HashMap<PeerId, Instant>,
    /// The dials to peers of which other peers have told.
    claimed_dials: TokenBucket,
    /// The dials in flight.
    dials: HashMap<ConnectionId, Dial>,
    processor: Processor,
}

/// A dial in flight, whoever has asked for it.
#[derive(Debug)]
struct Dial {
    peer: PeerId,
    began: Instant,
    /// Whether queries go on without the peer.
    is_given_up: bool,
}

impl std::fmt::Debug for Behaviour {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Behaviour").field("mode", &self.kad.mode()).finish_non_exhaustive()
    }
}

impl Behaviour {
    pub(crate) fn new(kad: kad::Behaviour<PeerStore>, processor: Processor) -> Self {
        let (listen_addresses, scopes, active, dials) = Default::default();
        let claimed_dials = TokenBucket::new(CLAIMED_DIALS_PER_SECOND, CLAIMED_DIAL_BURST, platform::now());
        Self { kad, listen_addresses, scopes, active, claimed_dials, dials, processor }
    }

    /// Records that a connected peer has sent a message by another protocol.
    pub(crate) fn heard_of(&mut self, peer: PeerId) {
        if let Some(active) = self.active.get_mut(&peer) {
            *active = platform::now();
        }
    }

    /// Returns the time of the last message of a connected peer.
    pub(crate) fn last_active(&self, peer: &PeerId) -> Option<Instant> {
        self.active.get(peer).copied()
    }

    /// Returns whether this node listens on an address.
    pub(crate) fn is_own(&self, address: &Multiaddr) -> bool {
        let address = without_peer(address);
        self.listen_addresses.iter().any(|own| without_peer(own) == address)
    }

    /// Returns whether a dial may use an address that a query has found: none of this node's own,
    /// and none with a narrower reach than the node's connections, so that no peer can make this
    /// node dial hosts of its local network.
    fn may_dial(&self, address: &Multiaddr, peer: PeerId) -> bool {
        let narrowest = self.scopes.values().min().copied().unwrap_or(Scope::Everywhere);
        is_believable(address, peer, narrowest) && !self.is_own(address)
    }

    /// Has queries go on without the peers whose dials have taken `patience`, as if these had
    /// failed: kad would wait until they do, which takes as long as TCP and QUIC try. A connection
    /// that comes about later is as good as any other.
    pub(crate) fn give_up_dials(&mut self, patience: Duration) {
        let (now, active) = (platform::now(), &self.active);
        let is_slow = |dial: &&mut Dial| {
            let age = now.saturating_duration_since(dial.began);
            !dial.is_given_up && age >= patience && !active.contains_key(&dial.peer)
        };
        let slow = self.dials.values_mut().filter(is_slow);
        let given_up = slow.map(|dial| {
            dial.is_given_up = true;
            dial.peer
        });
        for peer in given_up.collect::<Vec<_>>() {
            self.forget_questions(peer);
        }
    }

    fn is_given_up(&self, peer: &PeerId) -> bool {
        !self.active.contains_key(peer)
            && self.dials.values().any(|dial| dial.is_given_up && dial.peer == *peer)
    }

    /// Handles the close of one of several connections to a peer. kad would wait 10 s for the
    /// answers to its requests on that connection, unless it is told that the peer was not reached.
    fn forget_questions(&mut self, peer: PeerId) {
        let (error, connection_id) = (DialError::Aborted, ConnectionId::new_unchecked(usize::MAX));
        let failure = DialFailure { peer_id: Some(peer), error: &error, connection_id };
        self.kad.on_swarm_event(FromSwarm::DialFailure(failure));
    }

    /// Returns the addresses that are in the routing table, which were checked when they were
    /// added, and a few of those that a dial may use.
    pub(crate) fn judge_addresses(&mut self, peer: PeerId, mut found: Vec<Multiaddr>) -> Vec<Multiaddr> {
        let known = self.routed_addresses(peer);
        let mut claimed = 0;
        found.retain(|address| {
            let is_known = known.contains(address);
            let is_claimed = !is_known && claimed < MAX_CLAIMED_ADDRESSES && self.may_dial(address, peer);
            claimed += usize::from(is_claimed);
            is_known || is_claimed
        });
        found.truncate(MAX_ADDRESSES_PER_PEER);
        found
    }

    /// Returns the addresses of a peer in the routing table, or none if the table lacks the peer.
    pub(crate) fn routed_addresses(&mut self, peer: PeerId) -> Vec<Multiaddr> {
        self.kad.kbucket(peer).map_or_else(Vec::new, |bucket| {
            let entries = bucket.iter().filter(|entry| *entry.node.key.preimage() == peer);
            entries.flat_map(|entry| entry.node.value.iter().cloned().collect::<Vec<_>>()).collect()
        })
    }
}

/// The reason of a denied dial.
#[derive(Debug, Error)]
#[error("too many peers of which others have told are dialled")]
struct TooManyDials;

impl std::ops::Deref for Behaviour {
    type Target = kad::Behaviour<PeerStore>;

    fn deref(&self) -> &Self::Target {
        &self.kad
    }
}

impl std::ops::DerefMut for Behaviour {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.kad
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = <kad::Behaviour<PeerStore> as NetworkBehaviour>::ConnectionHandler;
    type ToSwarm = Event;

    delegate_established!(kad);

    fn handle_pending_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: Option<PeerId>,
        addresses: &[Multiaddr],
        role: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        let found = self.kad.handle_pending_outbound_connection(connection, peer, addresses, role)?;
        let Some(peer) = peer else { return Ok(found) };
        let known = self.routed_addresses(peer);
        let found = self.judge_addresses(peer, found);
        let is_claimed = addresses.is_empty() && !found.is_empty() && known.is_empty();
        if is_claimed && !self.claimed_dials.take(1.0, platform::now()) {
            return Err(ConnectionDenied::new(TooManyDials));
        }
        let dial = Dial { peer, began: platform::now(), is_given_up: false };
        self.dials.insert(connection, dial);
        Ok(found)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        self.listen_addresses.on_swarm_event(&event);
        match &event {
            FromSwarm::ConnectionEstablished(ConnectionEstablished {
                peer_id,
                connection_id,
                endpoint,
                ..
            }) => {
                self.dials.remove(connection_id);
                let scope = scope(remote_address(endpoint)).unwrap_or(Scope::Everywhere);
                self.scopes.insert(*connection_id, scope);
                self.active.insert(*peer_id, platform::now());
            }
            FromSwarm::ConnectionClosed(ConnectionClosed {
                peer_id,
                connection_id,
                remaining_established,
                ..
            }) => {
                self.scopes.remove(connection_id);
                if *remaining_established == 0 {
                    self.active.remove(peer_id);
                } else {
                    self.forget_questions(*peer_id);
                }
            }
            FromSwarm::DialFailure(DialFailure { peer_id, error, connection_id }) => {
                self.dials.remove(connection_id);
                // A query that begins while a dial is in flight would wait for that one.
                if let (Some(peer), DialError::DialPeerConditionFalse(_)) = (peer_id, error)
                    && self.is_given_up(peer)
                {
                    self.forget_questions(*peer);
                }
            }
            // Other events, and those that libp2p adds, concern kad alone.
            _ => {}
        }
        self.kad.on_swarm_event(event);
    }

    fn on_connection_handler_event(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        self.active.insert(peer, platform::now());
        self.kad.store_mut().sender = Some(peer);
        self.processor.time(peer, || self.kad.on_connection_handler_event(peer, connection, event));
        self.kad.store_mut().sender = None;
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        if let Some(refused) = self.kad.store_mut().refused.pop_front() {
            return Poll::Ready(ToSwarm::GenerateEvent(Event::Refused(refused)));
        }
        self.kad.poll(context).map(|event| event.map_out(Event::Kad))
    }
}

/// kad's view of the store: it knows the sender of a record, and checks whether that peer may send
/// it.
#[derive(Debug)]
#[expect(unnameable_types, reason = "a part of the public behaviour that nobody needs to name")]
pub struct PeerStore {
    store: NetabaseStore,
    scores: PeerScores,
    admission: Admission,
    /// The memory of messages.
    memory: ByteBudget,
    /// The bytes of larger answers of the last [`PROMISE_TIME`] and its beginning: they may not be
    /// paid for yet.
    promised: Cell<Option<(Instant, usize)>>,
    /// The peer whose message kad handles, or `None` during a call of this program.
    sender: Option<PeerId>,
    refused: VecDeque<RefusedRecord>,
}

impl PeerStore {
    pub(crate) fn new(
        store: NetabaseStore,
        scores: PeerScores,
        admission: Admission,
        memory: ByteBudget,
    ) -> Self {
        let (promised, refused) = Default::default();
        Self { store, scores, admission, memory, promised, sender: None, refused }
    }

    /// Returns whether there is memory for a record that a peer has asked for. Its stream pays for
    /// it as soon as the answer is written.
    fn may_send(&self, record: &Record) -> bool {
        let (bytes, now) = (record.value.len(), platform::now());
        let Some(peer) = self.sender.filter(|_| bytes > SMALL_KAD_BYTES) else { return true };
        let is_recent = |(since, _): &(Instant, usize)| now.saturating_duration_since(*since) < PROMISE_TIME;
        let (since, promised) = self.promised.get().filter(is_recent).unwrap_or((now, 0));
        let may_send = self.memory.of(peer).has(promised + bytes);
        if may_send {
            self.promised.set(Some((since, promised + bytes)));
        }
        may_send
    }

    /// Checks a record of a peer and queues it for the writer.
    fn put_of_peer(&mut self, peer: PeerId, record: &Record) -> Result<(), Refusal> {
        if self.store.replica().was_away() || !self.scores.allow_records(&peer, 1) {
            // The refusal is counted for the peer but not reported: a flood would fill the queue of
            // every subscriber.
            return Err(Refusal::Busy);
        }
        let (key, value) = (record.key.as_ref(), record.value.as_slice());
        self.admission.admit(Source::Kademlia, peer, key, value).map(drop).map_err(|refusal| {
            if let Some(offence) = refusal.offence {
                if self.refused.len() >= MAX_WAITING_REFUSALS {
                    self.refused.pop_front();
                }
                self.refused.push_back(RefusedRecord { peer, offence });
            }
            refusal.reason
        })
    }
}

impl RecordStore for PeerStore {
    type RecordsIter<'a> = <NetabaseStore as RecordStore>::RecordsIter<'a>;
    type ProvidedIter<'a> = <NetabaseStore as RecordStore>::ProvidedIter<'a>;

    fn get(&self, key: &kad::RecordKey) -> Option<std::borrow::Cow<'_, Record>> {
        // The local records are about to be discarded: peers may have deleted them during a long
        // absence.
        let record = if self.store.replica().was_away() { None } else { self.store.get(key) };
        record.filter(|record| self.may_send(record))
    }

    /// Checks and stores a record. An error resets the sender's stream, whatever the error is.
    fn put(&mut self, record: Record) -> StoreResult<()> {
        match self.sender {
            Some(peer) => self.put_of_peer(peer, &record).map_err(|reason| match reason {
                Refusal::Busy | Refusal::TooFast | Refusal::StoreFailed => Error::MaxRecords,
                _ => Error::ValueTooLarge,
            }),
            None => self.store.put(record),
        }
    }

    fn remove(&mut self, key: &kad::RecordKey) {
        self.store.remove(key);
    }

    fn records(&self) -> Self::RecordsIter<'_> {
        self.store.records()
    }

    fn add_provider(&mut self, record: ProviderRecord) -> StoreResult<()> {
        if self.sender.is_some_and(|peer| !self.scores.allow_records(&peer, 1)) {
            return Err(Error::MaxProvidedKeys);
        }
        self.store.add_provider(record)
    }

    fn providers(&self, key: &kad::RecordKey) -> Vec<ProviderRecord> {
        self.store.providers(key)
    }

    fn provided(&self) -> Self::ProvidedIter<'_> {
        self.store.provided()
    }

    fn remove_provider(&mut self, key: &kad::RecordKey, provider: &PeerId) {
        self.store.remove_provider(key, provider);
    }
}

#[cfg(test)]
mod tests {
    use libp2p::core::ConnectedPoint;
    use libp2p::core::transport::ListenerId;
    use libp2p::swarm::behaviour::NewListenAddr;
    use libp2p::swarm::dial_opts::PeerCondition;
    use netabase_store::StoreOptions;

    use super::*;
    use crate::admission::Severity;
    use crate::connection::limits::MAX_KAD_BYTES;
    use crate::connection::muxer::kad_memory;
    use crate::rpc::limits::PEER_SHARE;
    use crate::telemetry::trace::Traces;

    fn behaviour() -> Behaviour {
        let options = StoreOptions::in_memory();
        let store = NetabaseStore::open_with("", None, options).unwrap();
        let admission = Admission::new(store.clone(), PeerScores::default(), Traces::default());
        let store = PeerStore::new(store, PeerScores::default(), admission, kad_memory(1024));
        let protocol = libp2p::StreamProtocol::new("/netabase/test/kad/1.0.0");
        let config = kad::Config::new(protocol);
        Behaviour::new(kad::Behaviour::with_config(PeerId::random(), store, config), Processor::new())
    }

    fn address(text: &str) -> Multiaddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_dial_tries_no_address_that_others_told_of_our_own_networks() {
        let (mut behaviour, peer) = (behaviour(), PeerId::random());
        let own = address("/ip4/198.51.100.1/tcp/4001");
        let listener_id = ListenerId::next();
        behaviour.on_swarm_event(FromSwarm::NewListenAddr(NewListenAddr { listener_id, addr: &own }));
        let told = |behaviour: &mut Behaviour| {
            let told = ["/ip4/127.0.0.1/tcp/1", "/ip4/10.0.0.1/tcp/1", "/ip4/203.0.113.1/tcp/1"].map(address);
            let own = own.clone().with_p2p(peer).unwrap();
            behaviour.judge_addresses(peer, told.into_iter().chain([own]).collect())
        };
        let public = address("/ip4/203.0.113.1/tcp/1");
        assert_eq!(told(&mut behaviour), std::slice::from_ref(&public));
        behaviour.scopes.insert(ConnectionId::new_unchecked(1), Scope::Network);
        assert_eq!(told(&mut behaviour), [address("/ip4/10.0.0.1/tcp/1"), public]);
        behaviour.scopes.clear();
        let known = address("/ip4/127.0.0.1/tcp/1");
        behaviour.add_address(&peer, known.clone());
        let known = known.with_p2p(peer).unwrap();
        assert_eq!(behaviour.judge_addresses(peer, vec![known.clone()]), [known], "it was judged before");
    }

    /// Returns whether a query has ended, and the peers that kad wants to be dialled.
    fn run(behaviour: &mut Behaviour) -> (bool, Vec<PeerId>) {
        let (mut context, mut dialled) = (Context::from_waker(futures::task::noop_waker_ref()), Vec::new());
        while let Poll::Ready(event) = behaviour.poll(&mut context) {
            match event {
                ToSwarm::GenerateEvent(Event::Kad(kad::Event::OutboundQueryProgressed { .. })) => {
                    return (true, dialled);
                }
                ToSwarm::Dial { opts } => dialled.extend(opts.get_peer_id()),
                _ => {}
            }
        }
        (false, dialled)
    }

    #[test]
    fn a_query_does_not_wait_for_a_slow_dial_nor_does_one_that_begins_later() {
        let (mut behaviour, peer) = (behaviour(), PeerId::random());
        behaviour.add_address(&peer, address("/ip4/203.0.113.1/tcp/1"));
        behaviour.get_closest_peers(b"key".to_vec());
        assert_eq!(run(&mut behaviour), (false, vec![peer]));
        let id = ConnectionId::new_unchecked(1);
        let found = behaviour.handle_pending_outbound_connection(id, Some(peer), &[], Endpoint::Dialer);
        assert_eq!(found.unwrap().len(), 1);
        behaviour.give_up_dials(Duration::from_secs(60));
        assert_eq!(run(&mut behaviour), (false, vec![]), "it may still be reached");
        behaviour.give_up_dials(Duration::ZERO);
        assert_eq!(run(&mut behaviour), (true, vec![]));

        let refused = |behaviour: &mut Behaviour, number, error: &DialError| {
            let connection_id = ConnectionId::new_unchecked(number);
            let failure = DialFailure { peer_id: Some(peer), error, connection_id };
            behaviour.on_swarm_event(FromSwarm::DialFailure(failure));
        };
        behaviour.get_closest_peers(b"other key".to_vec());
        assert_eq!(run(&mut behaviour), (false, vec![peer]));
        refused(&mut behaviour, 2, &DialError::DialPeerConditionFalse(PeerCondition::NotDialing));
        assert_eq!(run(&mut behaviour), (true, vec![]));
        refused(&mut behaviour, 1, &DialError::Aborted);
        assert!(behaviour.dials.is_empty() && !behaviour.is_given_up(&peer));
    }

    #[test]
    fn a_query_does_not_wait_for_a_connection_that_has_closed_beside_another() {
        let (mut behaviour, peer) = (behaviour(), PeerId::random());
        let remote = address("/ip4/10.0.0.1/tcp/1");
        let endpoint =
            ConnectedPoint::Listener { local_addr: remote.clone(), send_back_addr: remote.clone() };
        for number in [1, 2] {
            let id = ConnectionId::new_unchecked(number);
            let _ = behaviour.handle_established_inbound_connection(id, peer, &remote, &remote).unwrap();
            behaviour.on_swarm_event(FromSwarm::ConnectionEstablished(ConnectionEstablished {
                peer_id: peer,
                connection_id: id,
                endpoint: &endpoint,
                failed_addresses: &[],
                other_established: number - 1,
            }));
        }
        behaviour.add_address(&peer, remote);
        behaviour.get_closest_peers(b"key".to_vec());
        assert!(!run(&mut behaviour).0, "the peer is asked");
        behaviour.on_swarm_event(FromSwarm::ConnectionClosed(ConnectionClosed {
            peer_id: peer,
            connection_id: ConnectionId::new_unchecked(1),
            endpoint: &endpoint,
            cause: None,
            remaining_established: 1,
        }));
        assert!(run(&mut behaviour).0);
    }

    #[test]
    fn large_records_are_sent_as_far_as_there_is_memory_for_the_answers() {
        let (mut behaviour, [peer, other]) = (behaviour(), [(); 2].map(|()| PeerId::random()));
        let store = behaviour.store_mut();
        let record = |bytes| Record::new(b"key".to_vec(), vec![0; bytes]);
        let (small, large) = (record(SMALL_KAD_BYTES), record(MAX_KAD_BYTES / PEER_SHARE));
        assert!(store.may_send(&large) && store.may_send(&large), "this program itself asks");
        store.sender = Some(peer);
        assert!(store.may_send(&large), "there is a share");
        assert!(!store.may_send(&large), "it is promised");
        assert!(store.may_send(&small));
        store.sender = Some(other);
        assert!(!store.may_send(&large), "nothing tells whether the other stream has paid yet");
        store.promised.take();
        let mut taken = None;
        assert!(store.memory.of(other).take(1, &mut taken) && !store.may_send(&large));
        store.sender = Some(peer);
        assert!(!store.may_send(&large), "an eighth of what is free is less than that");
        drop(taken);
        assert!(store.may_send(&large));
    }

    #[test]
    fn the_store_knows_whom_a_record_is_from_and_how_many_there_are() {
        let (mut behaviour, peer) = (behaviour(), PeerId::random());
        let store = behaviour.store_mut();
        let record = Record::new(b"no key".to_vec(), Vec::new());
        store.put(record.clone()).unwrap_err();
        assert!(store.refused.is_empty(), "nobody sent it");
        store.sender = Some(peer);
        store.put(record.clone()).unwrap_err();
        let offence = Offence { key: None, reason: Refusal::InvalidKey, is_author: false };
        let expected = RefusedRecord { peer, offence };
        assert_eq!(store.refused, [expected]);
        let burst = crate::peers::limits::RECORD_BURST as usize;
        for _ in 1..burst {
            store.put(record.clone()).unwrap_err();
        }
        assert_eq!(store.refused.len(), MAX_WAITING_REFUSALS);
        let seen = store.store.replica().refusals();
        for _ in 0..2 * crate::peers::limits::BAN_AT {
            store.scores.refused(peer, None, Refusal::InvalidSignature, Severity::Grave);
        }
        let provider = ProviderRecord::new(b"key".to_vec(), peer, Vec::new());
        assert!(store.put(record).is_err() && store.add_provider(provider).is_err());
        assert_eq!(store.store.replica().refusals(), seen, "the last one was not looked at");
    }
}
