//! Commands about providers.

use std::collections::HashSet;
use std::sync::Arc;

use libp2p::PeerId;
use libp2p::kad;
use tokio::sync::mpsc;

use crate::dht::queries::Query;
use crate::error::NetabaseError;
use crate::event_loop::EventLoop;
use crate::event_loop::command::{Reply, answer};

impl EventLoop {
    /// Stores a provider record here and sends it to the closest peers.
    pub(super) fn start_providing(&mut self, key: Vec<u8>, reply: Reply<bool>) {
        let told = self.known_peers() > 0;
        match self.kad().start_providing(key.into()) {
            Ok(query) => self.begin_query(query, Query::StartProviding { told, reply }),
            Err(error) => answer(reply, Err(NetabaseError::Provider(Arc::new(error)))),
        }
    }

    /// Removes the provider record here; the other peers drop it when its TTL ends.
    pub(super) fn stop_providing(&mut self, key: Vec<u8>, reply: Reply<()>) {
        self.kad().stop_providing(&kad::RecordKey::from(key));
        answer(reply, Ok(()));
    }

    /// Asks the closest peers for provider records.
    pub(super) fn get_providers(&mut self, key: Vec<u8>, reply: Reply<HashSet<PeerId>>) {
        let query = self.kad().get_providers(key.into());
        self.begin_query(query, Query::GetProviders { found: HashSet::new(), reply });
    }

    /// Asks the closest peers for provider records, and sends on the providers of each answer.
    pub(super) fn look_up_providers(&mut self, key: Vec<u8>, providers: mpsc::Sender<HashSet<PeerId>>) {
        let query = self.kad().get_providers(key.into());
        self.begin_query(query, Query::LookUpProviders { providers });
    }
}
