//! How peers are connected, as the node's events tell it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use netabase::libp2p::identify;
use netabase::{EventError, Events, Multiaddr, NetabaseSwarmEvent, PeerId};
use parking_lot::Mutex;

use crate::app::App;

/// The most peers that are remembered; a node has fewer connections.
const MAX_CONTACTS: usize = 4096;
/// The most connections of a peer that are remembered.
const MAX_CONNECTIONS: usize = 8;
/// The longest name of a program that is shown, in bytes.
const MAX_AGENT_BYTES: usize = 128;

/// What is known of the peers that are connected.
#[derive(Debug, Default)]
pub(crate) struct Contacts(Mutex<HashMap<PeerId, Contact>>);

/// How a peer is connected.
#[derive(Debug, Clone, Default)]
pub(crate) struct Contact {
    pub(crate) connections: Vec<Connection>,
    /// What it says that it is.
    pub(crate) agent: Option<Arc<str>>,
    /// How long it took to answer last.
    pub(crate) round_trip: Option<Duration>,
}

#[derive(Debug, Clone)]
pub(crate) struct Connection {
    pub(crate) address: Multiaddr,
    pub(crate) outgoing: bool,
    pub(crate) since: SystemTime,
}

impl Contacts {
    pub(crate) fn get(&self, peer: &PeerId) -> Contact {
        self.0.lock().get(peer).cloned().unwrap_or_default()
    }

    fn with(&self, peer: PeerId, change: impl FnOnce(&mut Contact)) {
        let mut contacts = self.0.lock();
        if contacts.len() < MAX_CONTACTS || contacts.contains_key(&peer) {
            change(contacts.entry(peer).or_default());
        }
    }

    fn note(&self, event: &NetabaseSwarmEvent) {
        match event {
            NetabaseSwarmEvent::ConnectionEstablished { peer, address, outgoing, .. } => {
                let (address, outgoing) = (address.clone(), *outgoing);
                self.with(*peer, |contact| {
                    if contact.connections.len() < MAX_CONNECTIONS {
                        let since = SystemTime::now();
                        contact.connections.push(Connection { address, outgoing, since });
                    }
                });
            }
            NetabaseSwarmEvent::ConnectionClosed { peer, connections: 0, .. } => {
                self.0.lock().remove(peer);
            }
            NetabaseSwarmEvent::ConnectionClosed { peer, address, .. } => self.with(*peer, |contact| {
                contact.connections.retain(|connection| connection.address != *address);
            }),
            NetabaseSwarmEvent::RoundTrip { peer, time } => {
                self.with(*peer, |contact| contact.round_trip = Some(*time));
            }
            NetabaseSwarmEvent::Identify(event) => {
                if let identify::Event::Received { peer_id, info, .. } = &**event {
                    let agent: String = info.agent_version.chars().take(MAX_AGENT_BYTES).collect();
                    self.with(*peer_id, |contact| contact.agent = Some(agent.into()));
                }
            }
            NetabaseSwarmEvent::Stopped => self.0.lock().clear(),
            _ => {}
        }
    }
}

/// Follows the events of the node until it is gone.
pub(crate) async fn follow(app: Arc<App>, mut events: Events) {
    loop {
        match events.recv().await {
            Ok(event) => app.contacts.note(&event),
            Err(EventError::Lagged { .. }) => {}
            Err(EventError::Closed) => return,
        }
    }
}
