//! The lookup of the holders of a scope.

use std::collections::{HashMap, HashSet};

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use libp2p::PeerId;
use netabase_store::Scope;
use tokio::sync::mpsc;

use crate::event_loop::EventLoop;
use crate::event_loop::command::{Command, Commands, Reply, answer};
use crate::platform::{self, Instant};
use crate::query::keys::{ProviderKey, SHARDS};
use crate::query::limits::{
    HOLDERS_LIFETIME, LOOKUP_ANSWERS, LOOKUP_CONCURRENCY, LOOKUP_TIMEOUT, MAX_HOLDERS, MAX_KEPT_LOOKUPS,
    MAX_LISTED_PROVIDERS, MAX_LISTS, MAX_SHARD_DEPTH, SMALL_NETWORK,
};

/// The peers that may hold records of a scope.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Holders {
    /// The peers without this node, each once, those that most peers have named first.
    pub(crate) peers: Vec<PeerId>,
    /// Whether all lists of holders were read completely. Peers that no list has may hold records
    /// nevertheless.
    pub(crate) is_complete: bool,
}

/// The running lookups, and cached results.
#[derive(Debug, Default)]
pub(crate) struct Lookups {
    /// Set when the event loop starts.
    pub(crate) commands: Option<Commands>,
    waiting: HashMap<Scope, Vec<Reply<Holders>>>,
    found: HashMap<Scope, (Instant, Holders)>,
}

impl Lookups {
    /// Clears the cached results.
    pub(crate) fn forget(&mut self) {
        self.found.clear();
    }

    fn known(&mut self, scope: &Scope) -> Option<Holders> {
        let (at, holders) = self.found.get(scope)?;
        (platform::since(*at) < HOLDERS_LIFETIME).then(|| holders.clone())
    }

    fn keep(&mut self, scope: Scope, holders: Holders) {
        if self.found.len() >= MAX_KEPT_LOOKUPS {
            self.found.retain(|_, (at, _)| platform::since(*at) < HOLDERS_LIFETIME);
        }
        if self.found.len() < MAX_KEPT_LOOKUPS {
            self.found.insert(scope, (platform::now(), holders));
        }
    }
}

impl EventLoop {
    /// Looks up the peers that may hold records of a scope. Concurrent lookups of a scope are
    /// joined.
    pub(crate) fn find_scope(&mut self, scope: Scope, reply: Reply<Holders>) {
        let keys = self.store.schema().map_or_else(Vec::new, |schema| ProviderKey::of_scope(schema, &scope));
        // A scope that the schema lacks has no known holders.
        let known = if keys.is_empty() { Some(Holders::default()) } else { self.known_scope(&scope) };
        if let Some(holders) = known {
            return answer(reply, Ok(holders));
        }
        if let Some(waiting) = self.dht.lookups.waiting.get_mut(&scope) {
            return waiting.push(reply);
        }
        let Some(commands) = self.dht.lookups.commands.clone() else { return };
        self.dht.lookups.waiting.insert(scope.clone(), vec![reply]);
        platform::spawn(async move {
            let holders = look_up(&commands, keys).await;
            // A stopped event loop has no callers.
            let _ = commands.send(Command::HoldersFound { scope, holders }).await;
        });
    }

    fn known_scope(&mut self, scope: &Scope) -> Option<Holders> {
        if let Some(known) = self.dht.lookups.known(scope) {
            return Some(known);
        }
        let whole = self.known_holders()?;
        let peers = whole.into_iter().map(|peer| peer.peer_id).collect();
        Some(self.with_neighbours(Holders { peers, is_complete: true }))
    }

    /// Handles the end of a lookup.
    pub(crate) fn on_scope_found(&mut self, scope: Scope, holders: Holders) {
        let holders = self.with_neighbours(holders);
        for reply in self.dht.lookups.waiting.remove(&scope).unwrap_or_default() {
            answer(reply, Ok(holders.clone()));
        }
        self.dht.lookups.keep(scope, holders);
    }

    /// Adds all known peers of a small network.
    fn with_neighbours(&mut self, mut holders: Holders) -> Holders {
        let local = *self.swarm.local_peer_id();
        let view = self.view().peers();
        if view.len() < SMALL_NETWORK {
            let found: HashSet<PeerId> = holders.peers.iter().copied().collect();
            holders.peers.extend(view.into_iter().filter(|peer| !found.contains(peer)));
        }
        holders.peers.retain(|peer| *peer != local);
        holders
    }
}

/// The number of times that each peer was named, and whether lists are incomplete.
#[derive(Debug, Default)]
struct Found {
    named: HashMap<PeerId, usize>,
    is_cut_off: bool,
}

/// Reads lists of providers, and the shards of full ones.
pub(crate) async fn look_up(commands: &Commands, keys: Vec<ProviderKey>) -> Holders {
    let deadline = platform::now() + LOOKUP_TIMEOUT;
    let mut waiting: Vec<(ProviderKey, usize)> = keys.into_iter().map(|key| (key, 0)).collect();
    let mut found = Found { is_cut_off: waiting.len() > MAX_LISTS, ..Found::default() };
    waiting.truncate(MAX_LISTS);
    let (mut asked, mut reading) = (waiting.len(), FuturesUnordered::new());
    loop {
        while reading.len() < LOOKUP_CONCURRENCY
            && let Some((key, depth)) = waiting.pop()
        {
            reading.push(async move { (key, depth, read(commands, key, deadline).await) });
        }
        let Some((key, depth, list)) = reading.next().await else { break };
        found.is_cut_off |= list.is_cut_off;
        if list.named.len() >= MAX_LISTED_PROVIDERS {
            let shards = if depth < MAX_SHARD_DEPTH { usize::from(SHARDS) } else { 0 };
            if shards == 0 || asked + shards > MAX_LISTS {
                found.is_cut_off = true;
            } else {
                asked += shards;
                waiting.extend((0..SHARDS).map(|shard| (key.shard(shard), depth + 1)));
            }
        }
        for (peer, times) in list.named {
            *found.named.entry(peer).or_default() += times;
        }
    }
    let mut peers: Vec<(PeerId, usize)> = found.named.into_iter().collect();
    // Peers that a single liar has invented come last.
    peers.sort_unstable_by_key(|(peer, times)| (std::cmp::Reverse(*times), *peer));
    let is_complete = !found.is_cut_off && peers.len() <= MAX_HOLDERS;
    Holders { peers: peers.into_iter().take(MAX_HOLDERS).map(|(peer, _)| peer).collect(), is_complete }
}

/// Reads one list of providers, as far as possible until the deadline.
async fn read(commands: &Commands, key: ProviderKey, deadline: Instant) -> Found {
    let mut found = Found::default();
    let (providers, mut answers) = mpsc::channel(LOOKUP_ANSWERS);
    if commands.send(Command::LookUpProviders { key: key.to_bytes(), providers }).await.is_err() {
        return found;
    }
    loop {
        match platform::timeout_at(deadline, answers.recv()).await {
            Ok(Some(providers)) => count(&mut found.named, providers),
            Ok(None) => return found,
            Err(_) => {
                found.is_cut_off = true;
                return found;
            }
        }
    }
}

/// Counts the providers that one peer has named: no more than an honest peer names.
fn count(named: &mut HashMap<PeerId, usize>, providers: HashSet<PeerId>) {
    for peer in providers.into_iter().take(MAX_LISTED_PROVIDERS) {
        *named.entry(peer).or_default() += 1;
    }
}
