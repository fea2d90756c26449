//! Gossipsub behind a gate that checks every message first.
//!
//! Gossipsub remembers every message that it receives, by its id for [`DUPLICATE_TIME`] and whole
//! for [`HISTORY_BEATS`] heartbeats, on whatever topic. So the gate charges the sender of a message
//! before gossipsub stores it. While gossipsub handles one event of one connection, the peer of
//! that event is the sender.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use libp2p::PeerId;
use libp2p::gossipsub::{
    self, DataTransform, MaxCountSubscriptionFilter, Message, MessageAuthenticity, MessageId, MetricsConfig,
    RawMessage, TopicHash, TopicSubscriptionFilter, ValidationMode, Version,
};
use libp2p::metrics::Registry;
use libp2p::swarm::{ConnectionId, FromSwarm, NetworkBehaviour, THandlerInEvent, THandlerOutEvent, ToSwarm};
use parking_lot::Mutex;

use crate::connection::delegate::{delegate_established, delegate_pending};
use crate::connection::processor::Processor;
use crate::error::NetabaseError;
use crate::peers::score::PeerScores;
use crate::platform::{self};
use crate::protocol::limits::MAX_MESSAGE_BYTES;
use crate::protocol::live as wire;
use crate::replication::live::limits::{
    DUPLICATE_TIME, GOSSIP_OVERHEAD_BYTES, HISTORY_BEATS, HISTORY_BEATS_OFFERED, LIVE_BYTES_PER_RECORD,
    MAX_MESSAGES_PER_REQUEST, MAX_OFFERED, MAX_TOPICS_PER_PEER, MESH, MESH_HIGH, MESH_LOW, PRUNE_BACKOFF,
    QUEUE_MESSAGES, UNSUBSCRIBE_BACKOFF,
};
use crate::replication::live::rates::Rates;
use crate::replication::live::topic::is_topic;
use crate::replication::live::{Live, count};

type Gossip = gossipsub::Behaviour<Gate, MaxCountSubscriptionFilter<Topics>>;

/// Gossipsub behind its gate, which dereferences to gossipsub's own behaviour.
#[expect(unnameable_types, reason = "a part of the public behaviour that nobody needs to name")]
pub struct Behaviour {
    gossip: Gossip,
    gate: Gate,
    processor: Processor,
}

impl Behaviour {
    pub(crate) fn new(
        protocol: String,
        live: Live,
        scores: PeerScores,
        processor: Processor,
        registry: &mut Registry,
    ) -> Result<Self, NetabaseError> {
        let config = gossipsub::ConfigBuilder::default()
            .protocol_id(protocol, Version::V1_1)
            .max_transmit_size(MAX_MESSAGE_BYTES + GOSSIP_OVERHEAD_BYTES)
            .max_publish_messages(MAX_MESSAGES_PER_REQUEST)
            .max_control_messages_sent(MAX_OFFERED)
            .connection_handler_queue_len(QUEUE_MESSAGES)
            // Authors sign the records, so the peer that forwards them needs no signature.
            .validation_mode(ValidationMode::Anonymous)
            .validate_messages()
            .message_id_fn(|message| message_id(&message.topic, &message.data))
            .duplicate_cache_time(DUPLICATE_TIME)
            .history_length(HISTORY_BEATS)
            .history_gossip(HISTORY_BEATS_OFFERED)
            // Local versions are sent directly to all connected subscribers.
            .flood_publish(true)
            .mesh_n(MESH)
            .mesh_n_low(MESH_LOW)
            .mesh_n_high(MESH_HIGH)
            .mesh_outbound_min(1)
            .gossip_lazy(MESH)
            .prune_backoff(PRUNE_BACKOFF)
            .unsubscribe_backoff(UNSUBSCRIBE_BACKOFF)
            .heartbeat_initial_delay(Duration::ZERO)
            .build()
            .map_err(NetabaseError::network)?;
        let gate = Gate(Arc::new(Mutex::new(GateState {
            live,
            scores,
            topics: HashSet::new(),
            sender: None,
            rates: Rates::new(platform::now()),
        })));
        let anonymous = MessageAuthenticity::Anonymous;
        let filter = MaxCountSubscriptionFilter {
            filter: Topics(gate.clone()),
            max_subscribed_topics: MAX_TOPICS_PER_PEER,
            max_subscriptions_per_request: MAX_TOPICS_PER_PEER,
        };
        let gossip =
            Gossip::new_with_subscription_filter_and_transform(anonymous, config, filter, gate.clone());
        // Topics are hashes that peers choose, so they are no labels of metrics.
        let mut counted = MetricsConfig::default();
        (counted.max_topics, counted.max_never_subscribed_topics) = (0, 0);
        let gossip = gossip.map_err(NetabaseError::network)?.with_metrics(registry, counted);
        Ok(Self { gossip, gate, processor })
    }

    /// Sets the subscriptions to `topics`.
    pub(super) fn subscribe_to(&mut self, topics: &HashSet<TopicHash>) {
        let before = std::mem::replace(&mut self.gate.0.lock().topics, topics.clone());
        for topic in before.difference(topics) {
            self.gossip.unsubscribe(&named(topic));
        }
        for topic in topics.difference(&before) {
            if let Err(error) = self.gossip.subscribe(&named(topic)) {
                tracing::warn!(%error, "cannot subscribe to a topic");
            }
        }
    }

    /// Returns whether a message of `bytes` bytes may be sent now, and charges it if so.
    pub(super) fn may_publish(&self, bytes: usize) -> bool {
        self.gate.0.lock().rates.publish(bytes, platform::now())
    }
}

/// Returns the topic of this name.
fn named(topic: &TopicHash) -> gossipsub::IdentTopic {
    gossipsub::IdentTopic::new(topic.as_str())
}

/// Returns the id of a message. The topic is a part of the id, or a message would be forwarded on
/// the first of its topics only.
fn message_id(topic: &TopicHash, data: &[u8]) -> MessageId {
    let mut hasher = blake3::Hasher::new();
    hasher.update(topic.as_str().as_bytes()).update(data);
    MessageId::new(hasher.finalize().as_bytes().first_chunk::<16>().map_or(&[][..], |id| &id[..]))
}

impl std::fmt::Debug for Behaviour {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Behaviour").field("topics", &self.gossip.topics().count()).finish_non_exhaustive()
    }
}

impl std::ops::Deref for Behaviour {
    type Target = Gossip;

    fn deref(&self) -> &Self::Target {
        &self.gossip
    }
}

impl std::ops::DerefMut for Behaviour {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.gossip
    }
}

/// The gate, which checks messages before gossipsub.
#[derive(Clone)]
#[expect(unnameable_types, reason = "a part of the public behaviour that nobody needs to name")]
pub struct Gate(Arc<Mutex<GateState>>);

impl std::fmt::Debug for Gate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gate").finish_non_exhaustive()
    }
}

struct GateState {
    live: Live,
    scores: PeerScores,
    /// The topics of this node.
    topics: HashSet<TopicHash>,
    /// The peer whose message gossipsub handles, or `None` during a call of this program.
    sender: Option<PeerId>,
    rates: Rates,
}

impl GateState {
    fn admits(&mut self, message: &RawMessage) -> bool {
        let counters = &self.live.0.counters;
        count(&counters.received);
        let is_followed = self.topics.contains(&message.topic);
        let admitted = is_followed
            && message.data.len() <= MAX_MESSAGE_BYTES
            && self.sender.is_none_or(|sender| {
                self.scores.allow_cost(&sender, cost(&message.data))
                    && self.rates.receive(sender, message.data.len(), platform::now())
            });
        if !admitted {
            count(&self.live.0.counters.dropped);
            if let Some(sender) = self.sender.filter(|_| is_followed) {
                self.live.overrun().add(sender);
            }
        }
        admitted
    }
}

/// Returns the number of records that a message counts as: the records in it, and its bytes, so
/// that a single peer cannot use up the whole rate.
fn cost(message: &[u8]) -> usize {
    records(message) + message.len() / LIVE_BYTES_PER_RECORD
}

fn records(message: &[u8]) -> usize {
    match wire::Message::decode(message) {
        Ok(wire::Message::Records(records)) => records.len(),
        Ok(wire::Message::Notice { .. } | wire::Message::Unknown) | Err(_) => 1,
    }
}

impl DataTransform for Gate {
    fn inbound_transform(&self, message: RawMessage) -> Result<Message, io::Error> {
        if !self.0.lock().admits(&message) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let RawMessage { source, data, sequence_number, topic, .. } = message;
        Ok(Message { source, data, sequence_number, topic })
    }

    fn outbound_transform(&self, _: &TopicHash, data: Vec<u8>) -> Result<Vec<u8>, io::Error> {
        Ok(data)
    }
}

/// The filter of peers' subscriptions, which bounds their rate and accepts only topics of the right
/// form.
#[derive(Debug, Clone)]
#[expect(unnameable_types, reason = "a part of the public behaviour that nobody needs to name")]
pub struct Topics(Gate);

impl TopicSubscriptionFilter for Topics {
    fn can_subscribe(&mut self, topic: &TopicHash) -> bool {
        // This node's own subscriptions have no sender.
        let state = &mut *self.0.0.lock();
        is_topic(topic) && state.sender.is_none_or(|sender| state.rates.subscribe(sender, platform::now()))
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = <Gossip as NetworkBehaviour>::ConnectionHandler;
    type ToSwarm = gossipsub::Event;

    delegate_pending!(gossip);
    delegate_established!(gossip);

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        self.gossip.on_swarm_event(event);
    }

    fn on_connection_handler_event(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        self.gate.0.lock().sender = Some(peer);
        self.processor.time(peer, || self.gossip.on_connection_handler_event(peer, connection, event));
        self.gate.0.lock().sender = None;
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        self.gossip.poll(context)
    }
}
