//! Separation of closed networks of the same name and different roots.
//!
//! Every node of a closed network has a fingerprint of its root in its identify agent. A peer with
//! another root belongs to another network of the same name, or one of the two nodes is configured
//! with a wrong root. All its records would be refused, so it is neither routed to nor synced with,
//! and not contacted for a while. Peers without a fingerprint, such as open nodes and earlier
//! versions, are treated as usual.

use std::collections::HashMap;
use std::sync::Arc;

use libp2p::PeerId;
use netabase_store::Author;
use parking_lot::Mutex;

use crate::event::NetabaseSwarmEvent;
use crate::event_loop::EventLoop;
use crate::peers::limits::{MAX_STRANGERS, STRANGER_LEFT_ALONE, STRANGER_REPORTED};
use crate::platform::{self, Instant};

/// The hexadecimal digits of a fingerprint: enough to tell two roots apart.
const FINGERPRINT_DIGITS: usize = 16;
/// The text before the fingerprint in the agent.
const MARK: &str = " root/";

/// A peer of a network of the same name whose root is not this node's; see
/// [`NetabaseSwarmEvent::OtherRoot`](crate::NetabaseSwarmEvent::OtherRoot).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct OtherRoot {
    /// The peer.
    pub peer: PeerId,
    /// The first 16 hexadecimal digits of the peer's root.
    pub theirs: Arc<str>,
    /// The first 16 hexadecimal digits of this node's root, or `None` if this node has no root, in
    /// which case the peer refuses its records.
    pub ours: Option<Arc<str>>,
}

/// The peers with another root, shared by the behaviour that denies them and the handles that
/// report them.
#[derive(Debug, Clone)]
pub(crate) struct OtherRoots {
    ours: Option<Arc<str>>,
    peers: Arc<Mutex<HashMap<PeerId, Seen>>>,
}

#[derive(Debug)]
struct Seen {
    theirs: Arc<str>,
    at: Instant,
}

impl OtherRoots {
    pub(crate) fn new(root: Option<Author>) -> Self {
        Self { ours: root.map(|root| fingerprint(&root)), peers: Arc::default() }
    }

    /// Returns the agent of `program`: its name with the fingerprint of the root.
    pub(crate) fn agent(&self, program: &str) -> String {
        match &self.ours {
            Some(ours) => format!("{program}{MARK}{ours}"),
            None => program.to_owned(),
        }
    }

    /// Records the agent of a peer; returns a report if the peer has another root than before.
    fn note(&self, peer: PeerId, agent: &str, now: Instant) -> Option<OtherRoot> {
        let theirs = agent.split_once(MARK).map(|(_, root)| root).filter(|root| is_fingerprint(root));
        let Some(theirs) = theirs.filter(|theirs| self.ours.as_deref() != Some(*theirs)) else {
            self.peers.lock().remove(&peer);
            return None;
        };
        let mut peers = self.peers.lock();
        if let Some(seen) = peers.get_mut(&peer).filter(|seen| &*seen.theirs == theirs) {
            seen.at = now;
            return None;
        }
        if peers.len() >= MAX_STRANGERS {
            peers.retain(|_, seen| now.duration_since(seen.at) < STRANGER_REPORTED);
        }
        let theirs: Arc<str> = theirs.into();
        if peers.len() < MAX_STRANGERS {
            peers.insert(peer, Seen { theirs: Arc::clone(&theirs), at: now });
        }
        Some(OtherRoot { peer, theirs, ours: self.ours.clone() })
    }

    /// Returns whether a peer has another root than this node. A peer that has a root where this
    /// node has none is no stranger: its records are valid here.
    fn is_stranger(&self, peer: &PeerId) -> bool {
        self.ours.is_some() && self.peers.lock().contains_key(peer)
    }

    /// Returns whether a peer is not contacted for the time being.
    pub(crate) fn is_left_alone(&self, peer: &PeerId) -> bool {
        let left_alone = |seen: &Seen| platform::since(seen.at) < STRANGER_LEFT_ALONE;
        self.ours.is_some() && self.peers.lock().get(peer).is_some_and(left_alone)
    }

    /// Returns the peers with another root that were seen in the last ten minutes.
    pub(crate) fn recent(&self) -> Vec<OtherRoot> {
        let peers = self.peers.lock();
        let recent = peers.iter().filter(|(_, seen)| platform::since(seen.at) < STRANGER_REPORTED);
        recent
            .map(|(peer, seen)| OtherRoot {
                peer: *peer,
                theirs: Arc::clone(&seen.theirs),
                ours: self.ours.clone(),
            })
            .collect()
    }
}

impl EventLoop {
    /// Records the root of a peer of a network of the same name; returns whether the peer belongs
    /// to this network.
    pub(crate) fn note_root(&mut self, peer: PeerId, agent: &str) -> bool {
        if let Some(other) = self.peers.other_roots.note(peer, agent, platform::now()) {
            let (theirs, ours) = (&*other.theirs, other.ours.as_deref().unwrap_or("none"));
            tracing::warn!(
                %peer, theirs, ours,
                "a peer's network has the same name and another root; give the networks names of their own, or compare \
                 the roots if it is meant to be one"
            );
            self.broadcast(NetabaseSwarmEvent::OtherRoot(other));
        }
        !self.peers.other_roots.is_stranger(&peer)
    }

    /// Closes the connections to peers with another root, which have received the agent by now,
    /// too.
    pub(crate) fn disconnect_strangers(&mut self) {
        let connected = self.swarm.connected_peers().copied();
        let strangers: Vec<PeerId> =
            connected.filter(|peer| self.peers.other_roots.is_left_alone(peer)).collect();
        for peer in strangers {
            // The peer may have disconnected already.
            let _ = self.swarm.disconnect_peer_id(peer);
        }
    }
}

/// Returns the fingerprint of a root.
fn fingerprint(root: &Author) -> Arc<str> {
    root.to_string().chars().take(FINGERPRINT_DIGITS).collect::<String>().into()
}

fn is_fingerprint(text: &str) -> bool {
    text.len() == FINGERPRINT_DIGITS && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn roots(seed: u8) -> OtherRoots {
        OtherRoots::new(Some(Author::from_bytes([seed; 32])))
    }

    #[test]
    fn a_peer_with_another_root_is_told_of_once_and_left_alone() {
        let (ours, theirs, peer, now) = (roots(1), roots(2), PeerId::random(), platform::now());
        assert_eq!(ours.note(peer, &roots(1).agent("netabase/9"), now), None);
        let other = ours.note(peer, &theirs.agent("netabase/9"), now).unwrap();
        assert_eq!((&*other.theirs, other.ours.as_deref()), ("0202020202020202", Some("0101010101010101")));
        assert_eq!(ours.note(peer, &theirs.agent("netabase/9"), now), None);
        assert!(ours.is_left_alone(&peer) && ours.is_stranger(&peer));
        assert_eq!(ours.recent(), [other]);
        assert_eq!(ours.note(peer, &ours.agent("netabase/9"), now), None, "it was mended");
        assert!(!ours.is_left_alone(&peer) && ours.recent().is_empty());
    }

    #[test]
    fn peers_that_say_nothing_are_not_strangers_and_an_open_node_has_none() {
        let (ours, open, peer, now) = (roots(1), OtherRoots::new(None), PeerId::random(), platform::now());
        for agent in ["netabase/0.1.0", "", " root/", " root/xyz", "other root/0202"] {
            assert_eq!(ours.note(peer, agent, now), None, "{agent}");
        }
        assert_eq!(open.agent("netabase/9"), "netabase/9");
        let other = open.note(peer, &ours.agent("netabase/9"), now).unwrap();
        assert_eq!(other.ours, None);
        assert!(!open.is_stranger(&peer) && !open.is_left_alone(&peer));
    }
}
