//! Publication of local versions.

use std::collections::{BTreeMap, HashSet};

use libp2p::gossipsub::{PublishError, TopicHash};

use crate::event_loop::EventLoop;
use crate::protocol::limits::MAX_MESSAGE_BYTES;
use crate::protocol::live as wire;
use crate::protocol::live::Records;
use crate::replication::live::{Announcement, Counters};

impl EventLoop {
    /// Publishes the waiting versions; those that wait together share a message.
    pub(super) fn publish_live(&mut self) {
        let mut messages: BTreeMap<TopicHash, Records> = BTreeMap::new();
        for Announcement { key, envelope, topics } in self.replication.exchange.live.take_waiting() {
            let (key, envelope, timestamp) = (key.as_bytes(), envelope.as_bytes(), envelope.timestamp());
            let is_long = wire::record_len(key, envelope) > MAX_MESSAGE_BYTES;
            for topic in topics {
                if is_long {
                    if let Some(timestamp) = timestamp {
                        self.publish_message(topic, 1, wire::notice(key, timestamp));
                    }
                    continue;
                }
                let message = messages.entry(topic.clone()).or_insert_with(Records::new);
                if !message.push(key, envelope) {
                    let mut next = Records::new();
                    next.push(key, envelope);
                    let (count, bytes) = std::mem::replace(message, next).finish();
                    self.publish_message(topic, count, bytes);
                }
            }
        }
        for (topic, message) in messages {
            let (count, bytes) = message.finish();
            self.publish_message(topic, count, bytes);
        }
        let unpublished = self.replication.exchange.live.take_unpublished();
        if !unpublished.is_empty() {
            self.replication.exchange.overran_topics(&unpublished);
        }
    }

    fn publish_message(&mut self, topic: TopicHash, count: usize, bytes: Vec<u8>) {
        let gossip = &mut self.swarm.behaviour_mut().live;
        let published = if gossip.may_publish(bytes.len()) {
            match gossip.publish(topic.clone(), bytes) {
                // The subscribers have disconnected, or know the message.
                Ok(_) | Err(PublishError::NoPeersSubscribedToTopic | PublishError::Duplicate) => true,
                Err(error) => {
                    tracing::debug!(%error, "cannot publish a change");
                    false
                }
            }
        } else {
            false
        };
        if !published {
            self.replication.exchange.overran_topics(&HashSet::from([topic]));
        }
        let Counters { published: yes, unpublished: no, .. } = &self.replication.exchange.live.0.counters;
        let counter = if published { yes } else { no };
        counter.fetch_add(u64::try_from(count).unwrap_or(u64::MAX), std::sync::atomic::Ordering::Relaxed);
    }
}
