//! The peers of a node: their connections, hellos, scores and silence, and this node's standing
//! with them.

use std::sync::Arc;

use tokio::sync::Notify;

use crate::peers::greeting::Greetings;
use crate::peers::members::MemberNews;
use crate::peers::other_roots::OtherRoots;
use crate::peers::presence::Presence;
use crate::peers::score::PeerScores;
use crate::peers::silence::SilentPeers;
use crate::peers::standing::Standings;
use crate::replication::repair::news::PeerNews;
use crate::swarm::Parts;

pub(crate) mod authors;
pub(crate) mod connections;
pub(crate) mod greeting;
#[cfg(test)]
mod greeting_tests;
pub(crate) mod limits;
pub(crate) mod members;
pub(crate) mod other_roots;
pub(crate) mod presence;
pub(crate) mod score;
pub(crate) mod silence;
pub(crate) mod standing;

/// The event loop's state of its peers.
#[derive(Debug)]
pub(crate) struct Peers {
    pub(crate) members: MemberNews,
    /// The peers that owe answers, and the silent ones.
    pub(crate) silence: SilentPeers,
    pub(crate) presence: Presence,
    pub(crate) scores: PeerScores,
    pub(crate) other_roots: OtherRoots,
    pub(crate) standings: Standings,
    pub(crate) greetings: Greetings,
    /// Tells the republisher that a peer has connected.
    pub(crate) new_peer: Arc<Notify>,
    /// Tells the repairer about peers that have connected, returned or disconnected.
    pub(crate) news: Arc<PeerNews>,
}

impl Peers {
    pub(crate) fn new(parts: &Parts, new_peer: Arc<Notify>, news: Arc<PeerNews>) -> Self {
        Self {
            members: MemberNews::new(&parts.store, Arc::clone(&parts.members_news)),
            silence: SilentPeers::default(),
            presence: parts.presence.clone(),
            scores: parts.scores.clone(),
            other_roots: parts.other_roots.clone(),
            standings: parts.standings.clone(),
            greetings: Greetings::default(),
            new_peer,
            news,
        }
    }
}
