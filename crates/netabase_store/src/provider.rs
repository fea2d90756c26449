//! Provider records: which peers say that they have what a key names.
//!
//! They are few and are asked for inside the swarm's poll, so they are kept in memory and written
//! behind; a restart reads them back.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use libp2p::kad::{ProviderRecord, RecordKey as KadKey};
use libp2p::{Multiaddr, PeerId};
use serde::{Deserialize, Serialize};

use crate::apply::Op;
use crate::engine::Snapshot;
use crate::error::StoreError;
use crate::tables;

/// The most providers of one key.
pub(crate) const MAX_PROVIDERS_PER_KEY: usize = 20;
/// The most provider records in all.
pub(crate) const MAX_PROVIDER_RECORDS: usize = 65_536;
/// The most addresses that are kept of one provider.
pub(crate) const MAX_PROVIDER_ADDRESSES: usize = 16;

/// The provider records of a store.
#[derive(Debug, Default)]
pub(crate) struct Providers {
    by_key: HashMap<Vec<u8>, Vec<Provider>>,
    len: usize,
}

/// One provider of one key.
#[derive(Debug, Clone, PartialEq)]
struct Provider {
    peer: PeerId,
    contact: Contact,
}

/// What is stored of a provider.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Contact {
    /// When the record stops counting, in milliseconds since the Unix epoch.
    expires: Option<u64>,
    addresses: Vec<Vec<u8>>,
}

impl Providers {
    /// Reads what an earlier run has stored; entries that cannot be read are left out.
    pub(crate) fn load(snapshot: &Snapshot, now: u64) -> Result<Self, StoreError> {
        let mut providers = Self::default();
        for entry in snapshot.all(tables::PROVIDERS)?.take(MAX_PROVIDER_RECORDS) {
            let (key, value) = entry?;
            let contact = postcard::from_bytes::<Contact>(&value).ok();
            if let (Some((key, peer)), Some(contact)) = (split_table_key(&key), contact)
                && contact.is_current(now)
            {
                providers.by_key.entry(key).or_default().push(Provider { peer, contact });
                providers.len += 1;
            }
        }
        Ok(providers)
    }

    /// Adds or renews a record; returns the write that keeps it, or `None` if there is no room.
    pub(crate) fn add(&mut self, record: &ProviderRecord, now: u64) -> Option<Op> {
        let key = record.key.to_vec();
        let contact = Contact::of(record, now);
        let op = Op::Set {
            table: tables::PROVIDERS,
            key: table_key(&key, &record.provider),
            value: Some(postcard::to_stdvec(&contact).ok()?),
        };
        if self.len >= MAX_PROVIDER_RECORDS {
            self.forget_expired(now);
        }
        let full = self.len >= MAX_PROVIDER_RECORDS;
        let of_key = self.by_key.entry(key).or_default();
        if let Some(known) = of_key.iter_mut().find(|known| known.peer == record.provider) {
            known.contact = contact;
            return Some(op);
        }
        let before = of_key.len();
        of_key.retain(|known| known.contact.is_current(now));
        let room = !full && of_key.len() < MAX_PROVIDERS_PER_KEY;
        if room {
            of_key.push(Provider { peer: record.provider, contact });
        }
        self.len = self.len + of_key.len() - before;
        room.then_some(op)
    }

    /// Removes a record; returns the write that forgets it, if it was there.
    pub(crate) fn remove(&mut self, key: &KadKey, peer: &PeerId) -> Option<Op> {
        let of_key = self.by_key.get_mut(key.as_ref())?;
        let position = of_key.iter().position(|known| known.peer == *peer)?;
        of_key.swap_remove(position);
        self.len -= 1;
        if of_key.is_empty() {
            self.by_key.remove(key.as_ref());
        }
        Some(Op::Set { table: tables::PROVIDERS, key: table_key(key.as_ref(), peer), value: None })
    }

    /// Returns the current providers of a key.
    pub(crate) fn of_key(&self, key: &KadKey, now: u64) -> Vec<ProviderRecord> {
        let known = self.by_key.get(key.as_ref()).map_or(&[][..], Vec::as_slice);
        known
            .iter()
            .filter(|known| known.contact.is_current(now))
            .map(|known| known.record(key, now))
            .collect()
    }

    /// Returns the keys that `peer` provides.
    pub(crate) fn provided_by(&self, peer: &PeerId) -> Vec<Vec<u8>> {
        let provides = |known: &Vec<Provider>| known.iter().any(|known| known.peer == *peer);
        self.by_key.iter().filter(|(_, known)| provides(known)).map(|(key, _)| key.clone()).collect()
    }

    fn forget_expired(&mut self, now: u64) {
        self.by_key.retain(|_, known| {
            known.retain(|known| known.contact.is_current(now));
            !known.is_empty()
        });
        self.len = self.by_key.values().map(Vec::len).sum();
    }
}

impl Provider {
    fn record(&self, key: &KadKey, now: u64) -> ProviderRecord {
        let addresses = self.contact.addresses.iter();
        ProviderRecord {
            key: key.clone(),
            provider: self.peer,
            expires: self
                .contact
                .expires
                .map(|expires| Instant::now() + Duration::from_millis(expires.saturating_sub(now))),
            addresses: addresses.filter_map(|address| Multiaddr::try_from(address.clone()).ok()).collect(),
        }
    }
}

impl Contact {
    fn of(record: &ProviderRecord, now: u64) -> Self {
        let remaining = record.expires.map(|expires| expires.saturating_duration_since(Instant::now()));
        Self {
            expires: remaining.map(|remaining| now.saturating_add(crate::writer::millis(remaining))),
            addresses: record.addresses.iter().take(MAX_PROVIDER_ADDRESSES).map(Multiaddr::to_vec).collect(),
        }
    }

    fn is_current(&self, now: u64) -> bool {
        self.expires.is_none_or(|expires| expires > now)
    }
}

fn table_key(key: &[u8], peer: &PeerId) -> Vec<u8> {
    let len = u32::try_from(key.len()).unwrap_or(u32::MAX);
    [&len.to_be_bytes()[..], key, &peer.to_bytes()].concat()
}

fn split_table_key(bytes: &[u8]) -> Option<(Vec<u8>, PeerId)> {
    let (len, rest) = bytes.split_first_chunk()?;
    let (key, peer) = rest.split_at_checked(usize::try_from(u32::from_be_bytes(*len)).ok()?)?;
    Some((key.to_vec(), PeerId::from_bytes(peer).ok()?))
}
