//! Peers as a node knows them: their connections, what they say of themselves and of us, how they
//! behave, and whether they answer.

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
    /// The peers that owe answers, and those that are not waited for any more.
    pub(crate) silence: SilentPeers,
    pub(crate) presence: Presence,
    pub(crate) scores: PeerScores,
    pub(crate) other_roots: OtherRoots,
    pub(crate) standings: Standings,
    pub(crate) greetings: Greetings,
    /// Tells the republisher that there is somebody to publish to.
    pub(crate) new_peer: Arc<Notify>,
    /// Tells the repairer that peers have come, come back or gone.
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
