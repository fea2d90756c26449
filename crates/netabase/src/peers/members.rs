//! Passes the member list of a closed network on, so that every node has the newest one however far
//! it is from the list's key: to each peer when it was identified, and to all connected peers when
//! it is news.

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

/// Who has been given which list.
#[derive(Debug)]
pub(crate) struct MemberNews {
    /// The list's record key; none in an open network.
    key: Option<RecordKey>,
    /// Told when a newer list has been committed.
    news: Arc<Notify>,
    /// The connected peers that take records, as many as there are connections at most.
    peers: HashMap<PeerId, Given>,
    /// How often the list was asked for because of a new peer.
    asked: usize,
    renewed: Instant,
}

/// What a peer was given.
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

    /// Waits until there is a newer list than before.
    pub(crate) async fn changed(&self) {
        self.news.notified().await;
    }

    /// Whether a key is that of the list, which every node keeps.
    pub(crate) fn is_list(&self, key: &RecordKey) -> bool {
        self.key.as_ref() == Some(key)
    }

    /// Forgets a peer that is gone.
    pub(crate) fn forget(&mut self, peer: &PeerId) {
        self.peers.remove(peer);
    }

    /// A peer has answered to the list: one that has not taken it may be given it again.
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
    /// A connected peer was identified that takes records: it may not have the list, or have a
    /// newer one.
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

    /// A newer list is here: every peer may need it, whatever it did not take before, and may have
    /// records of new members that this node has refused until now.
    pub(crate) fn on_members_changed(&mut self) {
        self.peers.members.peers.values_mut().for_each(|given| given.attempts = 0);
        self.give_members();
        self.compare_with_connected();
    }

    /// Tries again what has failed, and asks where nobody would give.
    pub(crate) fn renew_members(&mut self) {
        let Some(key) = self.peers.members.key.clone() else { return };
        self.give_members();
        let waits = self.kad().mode() == kad::Mode::Client || self.current_members().is_none();
        if waits && platform::since(self.peers.members.renewed) >= LIST_RENEWAL_INTERVAL {
            self.peers.members.renewed = platform::now();
            self.look_for_newer(key);
        }
    }

    /// Sends the list to the peers that were not given it yet.
    fn give_members(&mut self) {
        let Some(list) = self.current_members() else { return };
        let Some(key) = self.peers.members.key.clone() else { return };
        let version = list.version();
        // Who is silent is given it when it is heard of.
        let lacks =
            |peer: &PeerId, given: &Given| given.lacks(version) && !self.peers.silence.is_silent(peer);
        let lacking = self.peers.members.peers.iter().filter(|(peer, given)| lacks(peer, given));
        for peer in lacking.map(|(peer, _)| *peer).collect::<Vec<_>>() {
            // With too much on its way already, the rest is given later.
            let Some(permit) = self.calls.puts.try_permit(list.envelope()) else { return };
            self.note_given(peer, version);
            let (key, envelope, purpose) =
                (key.clone(), list.envelope().clone(), Purpose::Members { _permit: Arc::new(permit) });
            self.send_version(&connected(peer), Outgoing { key, envelope, purpose, trace: None });
        }
    }

    /// Returns whom a version is sent to that is put: the list goes to every peer at once, which
    /// are as good as given it; other records have holders.
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

/// A peer that needs no address, as it is connected.
fn connected(peer_id: PeerId) -> PeerInfo {
    PeerInfo { peer_id, addrs: Vec::new() }
}
