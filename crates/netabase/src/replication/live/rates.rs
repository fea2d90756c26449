//! Rates of live messages: of each sender, of all senders together, and of this node.

use std::collections::HashMap;

use libp2p::PeerId;

use crate::platform::Instant;
use crate::replication::live::limits::{
    LIVE_BYTES_PER_SECOND, LIVE_MESSAGES_PER_SECOND, MAX_SENDERS, OWN_SHARE, QUIET_SENDER_TIME, SENDER_SHARE,
    SUBSCRIPTION_BURST, SUBSCRIPTIONS_PER_SECOND,
};
use crate::rpc::token_bucket::{TokenBucket, amount};

/// The buckets of all senders and of this node.
#[derive(Debug)]
pub(super) struct Rates {
    /// The buckets of this node alone, and those of all.
    own: Pair,
    common: Pair,
    senders: HashMap<PeerId, Sender>,
}

#[derive(Debug)]
struct Sender {
    messages: Pair,
    subscriptions: TokenBucket,
    last: Instant,
}

impl Rates {
    pub(super) fn new(now: Instant) -> Self {
        let (own, common) = (Pair::new(OWN_SHARE, now), Pair::new(1.0 - OWN_SHARE, now));
        Self { own, common, senders: HashMap::new() }
    }

    /// Returns whether this node may publish `bytes` bytes now, and charges them if so.
    pub(super) fn publish(&mut self, bytes: usize, now: Instant) -> bool {
        self.own.take(bytes, now) || self.common.take(bytes, now)
    }

    /// Returns whether a message of a peer may come in now, and charges it if so.
    pub(super) fn receive(&mut self, peer: PeerId, bytes: usize, now: Instant) -> bool {
        let Some(sender) = self.sender(peer, now) else { return false };
        if !sender.messages.has(bytes, now) || !self.common.take(bytes, now) {
            return false;
        }
        self.sender(peer, now).is_some_and(|sender| sender.messages.take(bytes, now))
    }

    /// Returns whether a peer may subscribe to a topic or leave one now, and charges it if so.
    pub(super) fn subscribe(&mut self, peer: PeerId, now: Instant) -> bool {
        self.sender(peer, now).is_some_and(|sender| sender.subscriptions.take(1.0, now))
    }

    fn sender(&mut self, peer: PeerId, now: Instant) -> Option<&mut Sender> {
        if self.senders.len() >= MAX_SENDERS && !self.senders.contains_key(&peer) {
            self.senders.retain(|_, sender| now.saturating_duration_since(sender.last) < QUIET_SENDER_TIME);
            if self.senders.len() >= MAX_SENDERS {
                return None;
            }
        }
        let sender = self.senders.entry(peer).or_insert_with(|| Sender {
            messages: Pair::new(SENDER_SHARE, now),
            subscriptions: TokenBucket::new(
                amount(SUBSCRIPTIONS_PER_SECOND),
                amount(SUBSCRIPTION_BURST),
                now,
            ),
            last: now,
        });
        sender.last = now;
        Some(sender)
    }
}

/// A bucket of bytes and one of messages.
#[derive(Debug)]
struct Pair {
    bytes: TokenBucket,
    messages: TokenBucket,
}

impl Pair {
    fn new(share: f64, now: Instant) -> Self {
        let (bytes, messages) = (LIVE_BYTES_PER_SECOND * share, LIVE_MESSAGES_PER_SECOND * share);
        Self {
            bytes: TokenBucket::new(bytes, bytes, now),
            messages: TokenBucket::new(messages, messages, now),
        }
    }

    fn has(&mut self, bytes: usize, now: Instant) -> bool {
        self.messages.has(1.0, now) && self.bytes.has(amount(bytes), now)
    }

    fn take(&mut self, bytes: usize, now: Instant) -> bool {
        self.has(bytes, now) && self.messages.take(1.0, now) && self.bytes.take(amount(bytes), now)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::platform;

    const MESSAGE: usize = 1000;

    /// Sends as many messages as are accepted.
    fn flood(rates: &mut Rates, peer: PeerId, bytes: usize, now: Instant) -> usize {
        (0..100_000).take_while(|_| rates.receive(peer, bytes, now)).count()
    }

    #[test]
    fn one_flooder_silences_neither_others_nor_this_node() {
        for bytes in [10, MESSAGE, 32 * 1024] {
            let now = platform::now();
            let mut rates = Rates::new(now);
            let [flooder, other] = [(); 2].map(|()| PeerId::random());
            let sent = flood(&mut rates, flooder, bytes, now);
            assert!(sent > 100 && sent < 100_000, "{sent}");
            assert!(!rates.receive(flooder, bytes, now));
            assert_eq!(flood(&mut rates, other, bytes, now), sent, "the other one may send as much");
            assert!(rates.publish(bytes, now));
            // The next second is the same.
            let later = now + Duration::from_secs(1);
            assert_eq!(flood(&mut rates, flooder, bytes, later), sent);
            assert!(rates.receive(other, bytes, later) && rates.publish(bytes, later));
        }
    }

    #[test]
    fn all_together_do_not_silence_this_node_nor_send_more_than_there_is_room_for() {
        let now = platform::now();
        let mut rates = Rates::new(now);
        let sent: usize = (0..50).map(|_| flood(&mut rates, PeerId::random(), MESSAGE, now)).sum();
        let published = (0..100_000).take_while(|_| rates.publish(MESSAGE, now)).count();
        assert!(published > 1000, "{published}");
        assert!(amount((sent + published) * MESSAGE) <= LIVE_BYTES_PER_SECOND, "{sent} {published}");
        // While no peer sends, this node may use the whole rate.
        let mut rates = Rates::new(now);
        let published = (0..100_000).take_while(|_| rates.publish(MESSAGE, now)).count();
        assert!(amount((published + 2) * MESSAGE) > LIVE_BYTES_PER_SECOND, "{published}");
    }

    #[test]
    fn who_subscribes_again_and_again_is_not_listened_to() {
        let (peer, other, now) = (PeerId::random(), PeerId::random(), platform::now());
        let mut rates = Rates::new(now);
        let subscribe =
            |rates: &mut Rates, now| (0..10_000).take_while(|_| rates.subscribe(peer, now)).count();
        assert_eq!(subscribe(&mut rates, now), SUBSCRIPTION_BURST);
        assert_eq!(subscribe(&mut rates, now + Duration::from_secs(2)), 2 * SUBSCRIPTIONS_PER_SECOND);
        assert_eq!(subscribe(&mut rates, now + QUIET_SENDER_TIME * 2), SUBSCRIPTION_BURST);
        assert!(rates.subscribe(other, now + QUIET_SENDER_TIME * 2));
    }

    #[test]
    fn senders_are_forgotten_when_they_were_quiet() {
        let now = platform::now();
        let mut rates = Rates::new(now);
        for _ in 0..MAX_SENDERS {
            assert!(rates.receive(PeerId::random(), 10, now));
        }
        assert!(!rates.receive(PeerId::random(), 10, now));
        assert!(rates.receive(PeerId::random(), 10, now + QUIET_SENDER_TIME));
        assert_eq!(rates.senders.len(), 1);
    }
}
