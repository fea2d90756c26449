//! The event loop's part of live changes.

use std::collections::{HashMap, HashSet};

use libp2p::PeerId;
use libp2p::gossipsub::{self, MessageAcceptance, MessageId, TopicHash};
use netabase_store::RecordKey;
use tokio::task::JoinSet;

use super::judge::{Job, Judged, Judges, Verdict, Work};
use super::{Live, count};
use crate::error::NetabaseError;
use crate::network::Parts;
use crate::network::command::Reply;
use crate::network::record_protocol::Frame;
use crate::network::record_protocol::wire::get_request;
use crate::network::swarm::EventLoop;

/// How many records are fetched at a time that were too large for a message; of others a node learns when it compares
/// what it has.
const MAX_FETCHES: usize = 16;
/// How many of them from one peer.
const MAX_FETCHES_OF_PEER: usize = 4;

/// What the event loop knows of live changes.
#[derive(Debug)]
pub(in crate::network) struct Exchange {
    pub(super) live: Live,
    judges: Judges,
    /// What each connected peer has subscribed to.
    subscribed: HashMap<PeerId, HashSet<TopicHash>>,
    fetches: JoinSet<Fetched>,
    /// How many are under way from each peer.
    fetching: HashMap<PeerId, usize>,
}

/// A record that was asked for.
#[derive(Debug)]
pub(in crate::network) struct Fetched {
    peer: PeerId,
    id: MessageId,
    topic: TopicHash,
    key: RecordKey,
    answer: Result<Frame, NetabaseError>,
}

/// What there is to do.
#[derive(Debug)]
pub(in crate::network) enum Errand {
    /// Something is to be published, or other topics are to be followed.
    News,
    /// A message was judged.
    Judged(Judged),
    /// A peer was asked for a record.
    Fetched(Fetched),
}

impl Exchange {
    pub(in crate::network) fn new(parts: &Parts) -> Self {
        let live = parts.live.clone();
        live.want_nothing();
        let judges = Judges::new(live.clone(), parts.store.clone(), parts.traces.clone());
        let (subscribed, fetches, fetching) = Default::default();
        Self { live, judges, subscribed, fetches, fetching }
    }

    /// Returns what there is to do next. Cancelling the call loses nothing.
    pub(in crate::network) async fn next(&mut self) -> Errand {
        tokio::select! {
            () = self.live.changed() => Errand::News,
            judged = self.judges.next() => Errand::Judged(judged),
            fetched = next_fetched(&mut self.fetches) => Errand::Fetched(fetched),
        }
    }

    /// Ends; returns when nothing holds the store any more.
    pub(in crate::network) async fn stop(self) {
        self.live.want_nothing();
        self.judges.stop().await;
    }

    /// A peer has gone.
    pub(in crate::network) fn forget(&mut self, peer: &PeerId) {
        if let Some(topics) = self.subscribed.remove(peer) {
            self.live.want_no_more(&topics);
        }
    }

    fn subscribed(&mut self, peer: PeerId, topic: TopicHash) {
        if self.subscribed.entry(peer).or_default().insert(topic.clone()) {
            self.live.want(topic);
        }
    }

    fn unsubscribed(&mut self, peer: &PeerId, topic: &TopicHash) {
        if self.subscribed.get_mut(peer).is_some_and(|topics| topics.remove(topic)) {
            self.live.want_no_more([topic]);
        }
    }

    /// Whether another record may be fetched from a peer, which is counted if it may.
    fn may_fetch(&mut self, peer: PeerId) -> bool {
        let of_peer = self.fetching.get(&peer).copied().unwrap_or_default();
        let may = self.fetches.len() < MAX_FETCHES && of_peer < MAX_FETCHES_OF_PEER;
        if may {
            self.fetching.insert(peer, of_peer + 1);
        }
        may
    }

    fn has_fetched(&mut self, peer: &PeerId) {
        if let Some(count) = self.fetching.get_mut(peer) {
            *count -= 1;
            if *count == 0 {
                self.fetching.remove(peer);
            }
        }
    }
}

async fn next_fetched(fetches: &mut JoinSet<Fetched>) -> Fetched {
    loop {
        match fetches.join_next().await {
            Some(Ok(done)) => return done,
            Some(Err(error)) => tracing::error!(%error, "a record was not fetched"),
            None => std::future::pending().await,
        }
    }
}

impl EventLoop {
    /// Subscribes to what is followed already.
    pub(in crate::network) fn begin_live(&mut self) {
        let topics = self.exchange.live.topics();
        self.swarm.behaviour_mut().live.subscribe_to(&topics);
    }

    pub(in crate::network) fn on_live_errand(&mut self, errand: Errand) {
        match errand {
            Errand::News => {
                self.begin_live();
                self.publish_live();
            }
            Errand::Judged(judged) => self.on_judged(judged),
            Errand::Fetched(fetched) => self.on_fetched(fetched),
        }
    }

    pub(in crate::network) fn on_live(&mut self, event: gossipsub::Event) {
        match event {
            gossipsub::Event::Message { propagation_source: peer, message_id: id, message } => {
                self.swarm.behaviour_mut().kad.heard_of(peer);
                let work = Work::Message { topic: message.topic, bytes: message.data };
                self.offer(Job { peer, id, work });
            }
            gossipsub::Event::Subscribed { peer_id, topic } => {
                self.exchange.subscribed(peer_id, topic);
            }
            gossipsub::Event::Unsubscribed { peer_id, topic } => {
                self.exchange.unsubscribed(&peer_id, &topic);
            }
            gossipsub::Event::GossipsubNotSupported { .. } => {}
            gossipsub::Event::SlowPeer { peer_id: peer, failed_messages } => {
                tracing::debug!(%peer, ?failed_messages, "a peer does not take live changes in time");
            }
        }
    }

    fn offer(&mut self, job: Job) {
        if let Err((peer, id)) = self.exchange.judges.offer(job) {
            self.say(&id, &peer, MessageAcceptance::Ignore);
        }
    }

    fn on_judged(&mut self, judged: Judged) {
        let Judged { peer, id, verdict, refused } = judged;
        match verdict {
            Verdict::Said(acceptance) => self.say(&id, &peer, acceptance),
            Verdict::Fetch { topic, key } => self.fetch(peer, id, topic, key),
        }
        for offence in refused {
            self.on_refused(peer, offence);
        }
    }

    /// Has gossipsub pass a message on, or not.
    fn say(&mut self, id: &MessageId, peer: &PeerId, acceptance: MessageAcceptance) {
        let counters = &self.exchange.live.0.counters;
        count(match acceptance {
            MessageAcceptance::Accept => &counters.accepted,
            MessageAcceptance::Ignore => &counters.ignored,
            MessageAcceptance::Reject => &counters.rejected,
        });
        let gossip = &mut self.swarm.behaviour_mut().live;
        // It is not in the history any more if that took too long.
        let _ = gossip.report_message_validation_result(id, peer, acceptance);
    }

    /// Asks the peer that has passed on a notice for the record.
    fn fetch(&mut self, peer: PeerId, id: MessageId, topic: TopicHash, key: RecordKey) {
        if !self.exchange.may_fetch(peer) {
            return self.say(&id, &peer, MessageAcceptance::Ignore);
        }
        let request = Frame::new(get_request([key.as_bytes()], self.max_frame_bytes()));
        let (reply, answer) = Reply::new(None);
        self.ask_peer(peer, request, reply);
        self.exchange.fetches.spawn(async move {
            let answer = answer.await.unwrap_or(Err(NetabaseError::Closed));
            Fetched { peer, id, topic, key, answer }
        });
    }

    fn on_fetched(&mut self, fetched: Fetched) {
        let Fetched { peer, id, topic, key, answer } = fetched;
        self.exchange.has_fetched(&peer);
        match answer {
            Ok(answer) => self.offer(Job { peer, id, work: Work::Fetched { topic, key, answer } }),
            Err(error) => {
                tracing::debug!(%peer, %error, "cannot fetch a record that a peer has told of");
                self.say(&id, &peer, MessageAcceptance::Ignore);
            }
        }
    }
}
