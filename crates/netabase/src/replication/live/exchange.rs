//! The event loop's part of live changes.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::Ordering;

use libp2p::PeerId;
use libp2p::gossipsub::{self, MessageAcceptance, MessageId, TopicHash};
use netabase_store::RecordKey;

use crate::event_loop::EventLoop;
use crate::event_loop::command::Reply;
use crate::platform::{self, Instant, JoinSet, at};
use crate::protocol::record::get_request;
use crate::protocol::sync::overrun_request;
use crate::replication::live::judge::{Job, Judged, Judges, Verdict, Work, judges};
use crate::replication::live::limits::{
    FIRST_NOTICE, MAX_FETCHES, MAX_FETCHES_OF_PEER, NEXT_NOTICE, NOTICES,
};
use crate::replication::live::{Live, count};
use crate::rpc::Protocol;
use crate::rpc::frame::Frame;
use crate::rpc::outbox::Silence;
use crate::swarm::Parts;

/// The event loop's state of live changes.
#[derive(Debug)]
pub(crate) struct Exchange {
    pub(super) live: Live,
    judges: Judges,
    /// The topics of each connected peer.
    subscribed: HashMap<PeerId, HashSet<TopicHash>>,
    fetches: JoinSet<Fetched>,
    /// The number of running fetches from each peer.
    fetching: HashMap<PeerId, usize>,
    /// The connected peers that were not sent all changes of their topics, and the number of
    /// notices that each is still to be sent.
    overran: BTreeMap<PeerId, u8>,
    notice: Option<Instant>,
}

/// The response to a fetch of a record.
#[derive(Debug)]
pub(crate) struct Fetched {
    peer: PeerId,
    id: MessageId,
    topic: TopicHash,
    key: RecordKey,
    answer: Result<Frame, Silence>,
}

/// An event of live changes.
#[derive(Debug)]
pub(crate) enum LiveEvent {
    /// A version is to be published, or the topics have changed.
    News,
    /// The verdict on a message.
    Judged(Judged),
    /// The response to a fetch of a record.
    Fetched(Fetched),
    /// Notices of lost changes are due.
    Notice,
}

impl Exchange {
    pub(crate) fn new(parts: &Parts) -> Self {
        let live = parts.live.clone();
        live.want_nothing();
        let judges = judges(live.clone(), parts.store.clone(), parts.admission(), parts.processor.clone());
        let (subscribed, fetches, fetching, overran) = Default::default();
        Self { live, judges, subscribed, fetches, fetching, overran, notice: None }
    }

    /// Waits for the next event. This method is cancel safe.
    pub(crate) async fn next(&mut self) -> LiveEvent {
        tokio::select! {
            () = self.live.changed() => LiveEvent::News,
            judged = self.judges.next() => LiveEvent::Judged(judged),
            fetched = next_fetched(&mut self.fetches) => LiveEvent::Fetched(fetched),
            () = at(self.notice) => LiveEvent::Notice,
        }
    }

    /// Records that a peer was not sent all changes of its topics.
    pub(super) fn overran(&mut self, peer: PeerId) {
        if self.subscribed.contains_key(&peer) {
            self.overran.insert(peer, NOTICES);
            let soon = platform::now() + FIRST_NOTICE;
            self.notice = Some(self.notice.map_or(soon, |notice| notice.min(soon)));
        }
    }

    /// Records that changes of these topics were not published.
    pub(super) fn overran_topics(&mut self, topics: &HashSet<TopicHash>) {
        let follows = |(_, followed): &(&PeerId, &HashSet<TopicHash>)| !followed.is_disjoint(topics);
        let peers: Vec<PeerId> = self.subscribed.iter().filter(follows).map(|(peer, _)| *peer).collect();
        for peer in peers {
            self.overran(peer);
        }
    }

    /// Returns the peers to notify now of lost changes.
    fn notices(&mut self) -> Vec<PeerId> {
        let peers = self.overran.keys().copied().collect();
        self.overran.values_mut().for_each(|left| *left -= 1);
        self.overran.retain(|_, left| *left > 0);
        self.notice = (!self.overran.is_empty()).then(|| platform::now() + NEXT_NOTICE);
        peers
    }

    /// Stops; returns when no job holds the store any more.
    pub(crate) async fn stop(self) {
        self.live.want_nothing();
        self.judges.stop().await;
    }

    /// Removes a disconnected peer.
    pub(crate) fn forget(&mut self, peer: &PeerId) {
        self.overran.remove(peer);
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

    /// Returns whether another record may be fetched from a peer, and counts the fetch if so.
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
    /// Subscribes to the topics of the scopes that are watched already.
    pub(crate) fn begin_live(&mut self) {
        let topics = self.replication.exchange.live.topics();
        self.swarm.behaviour_mut().live.subscribe_to(&topics);
    }

    pub(crate) fn on_live_event(&mut self, event: LiveEvent) {
        match event {
            LiveEvent::News => {
                self.begin_live();
                self.publish_live();
            }
            LiveEvent::Judged(judged) => self.on_judged(judged),
            LiveEvent::Fetched(fetched) => self.on_fetched(fetched),
            LiveEvent::Notice => {
                for peer in self.replication.exchange.notices() {
                    // An earlier version of the program does not know the request, and compares
                    // when it is due.
                    self.swarm.behaviour_mut().sync.send_request(&peer, Frame::new(overrun_request()));
                }
            }
        }
    }

    pub(crate) fn on_live(&mut self, event: gossipsub::Event) {
        match event {
            gossipsub::Event::Message { propagation_source: peer, message_id: id, message } => {
                self.heard_of(peer);
                let work = Work::Message { topic: message.topic, bytes: message.data };
                self.offer(peer, Job { id, work });
            }
            gossipsub::Event::Subscribed { peer_id, topic } => {
                self.replication.exchange.subscribed(peer_id, topic);
            }
            gossipsub::Event::Unsubscribed { peer_id, topic } => {
                self.replication.exchange.unsubscribed(&peer_id, &topic);
            }
            gossipsub::Event::GossipsubNotSupported { .. } => {}
            gossipsub::Event::SlowPeer { peer_id: peer, failed_messages } => {
                tracing::debug!(%peer, ?failed_messages, "a peer does not accept live changes in time");
                let unsent = u64::try_from(failed_messages.non_priority).unwrap_or(u64::MAX);
                self.replication.exchange.live.0.counters.unsent.fetch_add(unsent, Ordering::Relaxed);
                self.replication.exchange.overran(peer);
            }
        }
    }

    fn offer(&mut self, peer: PeerId, job: Job) {
        if let Err(Job { id, .. }) = self.replication.exchange.judges.offer(peer, job) {
            count(&self.replication.exchange.live.0.counters.dropped);
            self.replication.exchange.live.overrun().add(peer);
            self.tell(&id, &peer, MessageAcceptance::Ignore);
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

    /// Tells gossipsub whether to forward a message.
    fn say(&mut self, id: &MessageId, peer: &PeerId, acceptance: MessageAcceptance) {
        let counters = &self.replication.exchange.live.0.counters;
        count(match acceptance {
            MessageAcceptance::Accept => &counters.accepted,
            MessageAcceptance::Ignore => &counters.ignored,
            MessageAcceptance::Reject => &counters.rejected,
        });
        self.tell(id, peer, acceptance);
    }

    fn tell(&mut self, id: &MessageId, peer: &PeerId, acceptance: MessageAcceptance) {
        let gossip = &mut self.swarm.behaviour_mut().live;
        // A message that took too long is no longer in the history.
        let _ = gossip.report_message_validation_result(id, peer, acceptance);
    }

    /// Fetches the record of a notice from the peer that has forwarded it.
    fn fetch(&mut self, peer: PeerId, id: MessageId, topic: TopicHash, key: RecordKey) {
        if !self.replication.exchange.may_fetch(peer) {
            self.replication.exchange.live.overrun().add(peer);
            return self.say(&id, &peer, MessageAcceptance::Ignore);
        }
        let request = Frame::new(get_request([key.as_bytes()], self.max_frame_bytes()));
        let (reply, answer) = Reply::new(None);
        self.ask_peer(Protocol::Records, peer, request, reply);
        self.replication.exchange.fetches.spawn(async move {
            let answer = answer.await.ok().and_then(Result::ok).unwrap_or(Err(Silence::Stopped));
            Fetched { peer, id, topic, key, answer }
        });
    }

    fn on_fetched(&mut self, fetched: Fetched) {
        let Fetched { peer, id, topic, key, answer } = fetched;
        self.replication.exchange.has_fetched(&peer);
        match answer {
            Ok(answer) => self.offer(peer, Job { id, work: Work::Fetched { topic, key, answer } }),
            Err(error) => {
                tracing::debug!(%peer, %error, "cannot fetch the record of a peer's notice");
                self.replication.exchange.live.overrun().add(peer);
                self.say(&id, &peer, MessageAcceptance::Ignore);
            }
        }
    }
}
