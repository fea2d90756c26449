//! Distribution of the member list of a closed network, so that every node has the newest list
//! however far it is from the list's key. The list is sent to each peer when it was identified, and
//! to all connected peers when it is new.

use std::collections::HashMap;
use std::sync::Arc;

use libp2p::PeerId;
use libp2p::kad::{self, PeerInfo};
use netabase_store::members::SignedMembers;
use netabase_store::{NetabaseStore, RecordKey, Refusal, Version};
use tokio::sync::Notify;

use crate::event_loop::EventLoop;
use crate::outcome::WriteAnswer;
use crate::peers::limits::{FIRST_LIST_PEERS, LIST_RENEWAL_INTERVAL, MAX_LIST_ATTEMPTS};
use crate::platform::{self, Instant};
use crate::rpc::outbox::{Outgoing, Purpose};

/// The versions of the member list that peers have.
#[derive(Debug)]
pub(crate) struct MemberNews {
    /// The list's record key, or `None` in an open network.
    key: Option<RecordKey>,
    /// Notified when a newer list has been committed.
    news: Arc<Notify>,
    /// The connected peers that accept records, at most as many as connections.
    peers: HashMap<PeerId, Given>,
    /// The number of questions for the list that new peers have caused.
    asked: usize,
    renewed: Instant,
}

/// The list that a peer was sent.
#[derive(Debug, Default)]
struct Given {
    version: Option<Version>,
    attempts: u32,
}

impl Given {
    fn lacks(&self, version: Version) -> bool {
        self.version != Some(version) && self.attempts < MAX_LIST_ATTEMPTS
    }
}

impl MemberNews {
    pub(crate) fn new(store: &NetabaseStore, news: Arc<Notify>) -> Self {
        let key = store.replica().members_key().cloned();
        Self { key, news, peers: HashMap::new(), asked: 0, renewed: platform::now() }
    }

    /// Waits until a newer list is committed.
    pub(crate) async fn changed(&self) {
        self.news.notified().await;
    }

    /// Returns whether a key is that of the list, which every node stores.
    pub(crate) fn is_list(&self, key: &RecordKey) -> bool {
        self.key.as_ref() == Some(key)
    }

    /// Removes a disconnected peer.
    pub(crate) fn forget(&mut self, peer: &PeerId) {
        self.peers.remove(peer);
    }

    /// Records a peer's answer to the list. A peer that has not accepted it may be sent it again.
    pub(crate) fn answered(&mut self, peer: &PeerId, answer: &WriteAnswer) {
        let has_it = matches!(
            answer,
            WriteAnswer::Accepted | WriteAnswer::Known | WriteAnswer::Refused(Refusal::Outdated)
        );
        if let Some(given) = self.peers.get_mut(peer).filter(|_| !has_it) {
            given.version = None;
        }
    }
}

impl EventLoop {
    /// Handles the identification of a peer that accepts records: the peer may lack the list, or
    /// have a newer one.
    pub(crate) fn on_members_peer(&mut self, peer: PeerId) {
        let Some(key) = self.peers.members.key.clone() else { return };
        if !self.swarm.is_connected(&peer) || self.peers.members.peers.contains_key(&peer) {
            return;
        }
        self.peers.members.peers.insert(peer, Given::default());
        self.give_members();
        if self.peers.members.asked < FIRST_LIST_PEERS || self.current_members().is_none() {
            self.peers.members.asked += 1;
            self.look_for_newer(key);
        }
    }

    /// Handles a newer list: every peer may lack it, whatever it refused before, and may have
    /// records of new members that this node has refused until now.
    pub(crate) fn on_members_changed(&mut self) {
        self.peers.members.peers.values_mut().for_each(|given| given.attempts = 0);
        self.give_members();
        self.compare_with_connected();
    }

    /// Retries failed deliveries, and asks for the list if no peer can push it.
    pub(crate) fn renew_members(&mut self) {
        let Some(key) = self.peers.members.key.clone() else { return };
        self.give_members();
        let waits = self.kad().mode() == kad::Mode::Client || self.current_members().is_none();
        if waits && platform::since(self.peers.members.renewed) >= LIST_RENEWAL_INTERVAL {
            self.peers.members.renewed = platform::now();
            self.look_for_newer(key);
        }
    }

    /// Sends the list to the peers that were not sent it yet.
    fn give_members(&mut self) {
        let Some(list) = self.current_members() else { return };
        let Some(key) = self.peers.members.key.clone() else { return };
        let version = list.version();
        // A silent peer is sent the list when it answers again.
        let lacks =
            |peer: &PeerId, given: &Given| given.lacks(version) && !self.peers.silence.is_silent(peer);
        let lacking = self.peers.members.peers.iter().filter(|(peer, given)| lacks(peer, given));
        for peer in lacking.map(|(peer, _)| *peer).collect::<Vec<_>>() {
            // If the put budget is used up, the remaining peers are sent the list later.
            let Some(permit) = self.calls.puts.try_permit(list.envelope()) else { return };
            self.note_given(peer, version);
            let (key, envelope, purpose) =
                (key.clone(), list.envelope().clone(), Purpose::Members { _permit: Arc::new(permit) });
            self.send_version(&connected(peer), Outgoing { key, envelope, purpose, trace: None });
        }
    }

    /// Returns the peers that a put is sent to: for the list all connected peers, which are
    /// recorded as having been sent it, and `None` for other records, which have holders.
    pub(crate) fn members_holders(
        &mut self,
        key: &RecordKey,
        version: Option<Version>,
    ) -> Option<Vec<PeerInfo>> {
        if !self.peers.members.is_list(key) {
            return None;
        }
        let version = version?;
        let peers: Vec<PeerId> = self.peers.members.peers.keys().copied().collect();
        for peer in &peers {
            self.note_given(*peer, version);
        }
        Some(peers.into_iter().map(connected).collect())
    }

    fn note_given(&mut self, peer: PeerId, version: Version) {
        if let Some(given) = self.peers.members.peers.get_mut(&peer) {
            given.version = Some(version);
            given.attempts += 1;
        }
    }

    fn current_members(&self) -> Option<SignedMembers> {
        self.store.replica().members().ok().flatten()
    }
}

/// Returns a peer without addresses, which a connected peer does not need.
fn connected(peer_id: PeerId) -> PeerInfo {
    PeerInfo { peer_id, addrs: Vec::new() }
}
