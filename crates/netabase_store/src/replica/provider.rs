//! Provider records: the peers that announce to have the value of a key.
//!
//! Provider records are few and are read inside the swarm's poll, so they are kept in memory and
//! written lazily; a restart reads them back.

use std::collections::HashMap;
use std::time::Duration;

use libp2p::kad::{ProviderRecord, RecordKey as KadKey};
use libp2p::{Multiaddr, PeerId};
use serde::{Deserialize, Serialize};

use crate::engine::{Engine, Sync, unless_damaged};
use crate::error::StoreError;
use crate::platform;
use crate::replica::limits::{
    MAX_PROVIDER_ADDRESS_BYTES, MAX_PROVIDER_ADDRESSES, MAX_PROVIDER_BYTES, MAX_PROVIDER_BYTES_PER_PEER,
    MAX_PROVIDER_RECORDS, MAX_PROVIDER_RECORDS_PER_PEER, MAX_PROVIDERS_PER_KEY,
};
use crate::tables;
use crate::write::apply::Op;

/// The provider records of a store.
#[derive(Debug, Default)]
pub(crate) struct Providers {
    by_key: HashMap<Vec<u8>, Vec<Provider>>,
    /// The share of each peer.
    by_peer: HashMap<PeerId, Share>,
    len: usize,
    /// The bytes of their keys and addresses, counted for each record.
    bytes: usize,
    /// No record expires before this time, in milliseconds since the Unix epoch.
    next_expiry: u64,
}

/// The records of one peer, and the bytes of their keys and addresses.
#[derive(Debug, Clone, Copy, Default)]
struct Share {
    len: usize,
    bytes: usize,
}

/// One provider of one key.
#[derive(Debug, Clone, PartialEq)]
struct Provider {
    peer: PeerId,
    contact: Contact,
}

/// The stored value of a provider record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Contact {
    /// The expiry, in milliseconds since the Unix epoch.
    expires: Option<u64>,
    addresses: Vec<Vec<u8>>,
}

impl Providers {
    /// Reads the stored provider records, and deletes those that have expired or cannot be read.
    pub(crate) fn load(engine: &Engine, now: u64) -> Result<Self, StoreError> {
        let mut providers = Self::default();
        let mut stale = Vec::new();
        for entry in engine.snapshot()?.all(&tables::PROVIDERS)? {
            let Some(entry) = unless_damaged(entry.map(Some))? else { continue };
            let contact = postcard::from_bytes::<Contact>(entry.value()).ok();
            let contact = contact.filter(|contact| contact.is_current(now));
            match (split_table_key(entry.key()), contact) {
                (Some((key, peer)), Some(contact)) if providers.fits(&key, Some(&peer), &contact) => {
                    providers.insert(key, Provider { peer, contact });
                }
                _ => stale.push(entry.key().to_vec()),
            }
        }
        if !stale.is_empty() {
            engine.write(Sync::Now, |tables| {
                stale.iter().try_for_each(|key| tables.remove(&tables::PROVIDERS, key))
            })?;
        }
        Ok(providers)
    }

    /// Adds or renews a record unless a limit is reached; returns whether it did.
    ///
    /// A record that never expires is this node's own, as kad sets a time for those of peers: the
    /// the records that expire first are removed for it. The writes that keep it, and that forget
    /// the others, are added to `ops`.
    pub(crate) fn add(&mut self, record: &ProviderRecord, now: u64, ops: &mut Vec<Op>) -> bool {
        let (key, peer) = (record.key.to_vec(), record.provider);
        let contact = Contact::of(record, now);
        let Ok(value) = postcard::to_stdvec(&contact) else { return false };
        if !self.fits(&key, Some(&peer), &contact) {
            self.forget_expired_of(&key, now, ops);
            if now >= self.next_expiry {
                self.forget_expired(now, ops);
            }
        }
        while !self.fits(&key, Some(&peer), &contact) {
            let victim = if contact.expires.is_none() { self.first_to_expire(&key) } else { None };
            let Some((of_key, of_peer)) = victim else { return false };
            ops.extend(self.remove(&of_key, &of_peer));
        }
        self.next_expiry = self.next_expiry.min(contact.expires.unwrap_or(u64::MAX));
        let write = Op::Set { table: &tables::PROVIDERS, key: table_key(&key, &peer), value: Some(value) };
        let known =
            self.by_key.get_mut(&key).and_then(|known| known.iter_mut().find(|known| known.peer == peer));
        if let Some(known) = known {
            let (before, after) = (known.contact.bytes(), contact.bytes());
            known.contact = contact;
            self.bytes = self.bytes - before + after;
            if let Some(share) = self.by_peer.get_mut(&peer) {
                share.bytes = share.bytes - before + after;
            }
        } else {
            self.insert(key, Provider { peer, contact });
        }
        ops.push(write);
        true
    }

    /// Removes a record; returns the write that forgets it, if it was there.
    pub(crate) fn remove(&mut self, key: &[u8], peer: &PeerId) -> Option<Op> {
        let of_key = self.by_key.get_mut(key)?;
        let position = of_key.iter().position(|known| known.peer == *peer)?;
        let removed = of_key.swap_remove(position);
        if of_key.is_empty() {
            self.by_key.remove(key);
        }
        self.len -= 1;
        let bytes = key.len() + removed.contact.bytes();
        self.bytes -= bytes;
        self.count_out(peer, bytes);
        Some(Op::Set { table: &tables::PROVIDERS, key: table_key(key, peer), value: None })
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

    /// Returns whether a record fits the limits, in place of the known one of the same provider.
    fn fits(&self, key: &[u8], peer: Option<&PeerId>, contact: &Contact) -> bool {
        let of_key = self.by_key.get(key).map_or(&[][..], Vec::as_slice);
        if let Some(known) = of_key.iter().find(|known| Some(&known.peer) == peer) {
            return self.bytes - known.contact.bytes() + contact.bytes() <= MAX_PROVIDER_BYTES;
        }
        of_key.len() < MAX_PROVIDERS_PER_KEY
            && !self.has_enough(key, peer, contact)
            && self.len < MAX_PROVIDER_RECORDS
            && self.bytes + key.len() + contact.bytes() <= MAX_PROVIDER_BYTES
    }

    /// Returns whether a peer's share is full; this node's own records, which never expire, do not
    /// count.
    fn has_enough(&self, key: &[u8], peer: Option<&PeerId>, contact: &Contact) -> bool {
        let Share { len, bytes } = peer.and_then(|peer| self.by_peer.get(peer)).copied().unwrap_or_default();
        contact.expires.is_some()
            && (len >= MAX_PROVIDER_RECORDS_PER_PEER
                || bytes + key.len() + contact.bytes() > MAX_PROVIDER_BYTES_PER_PEER)
    }

    fn count_in(&mut self, peer: PeerId, bytes: usize) {
        let share = self.by_peer.entry(peer).or_default();
        share.len += 1;
        share.bytes += bytes;
    }

    fn count_out(&mut self, peer: &PeerId, bytes: usize) {
        if let Some(share) = self.by_peer.get_mut(peer) {
            share.len -= 1;
            share.bytes -= bytes;
            if share.len == 0 {
                self.by_peer.remove(peer);
            }
        }
    }

    fn insert(&mut self, key: Vec<u8>, provider: Provider) {
        self.len += 1;
        let bytes = key.len() + provider.contact.bytes();
        self.bytes += bytes;
        self.count_in(provider.peer, bytes);
        self.by_key.entry(key).or_default().push(provider);
    }

    /// Returns the record that expires first, of the key if it has too many, or of all.
    fn first_to_expire(&self, key: &[u8]) -> Option<(Vec<u8>, PeerId)> {
        let is_full = self.by_key.get(key).is_some_and(|known| known.len() >= MAX_PROVIDERS_PER_KEY);
        let candidates = self.by_key.iter().filter(|(of_key, _)| !is_full || of_key.as_slice() == key);
        let records = candidates.flat_map(|(key, known)| known.iter().map(move |known| (key, known)));
        let expiring = records.filter_map(|(key, known)| Some((known.contact.expires?, key, known.peer)));
        expiring.min_by_key(|(expires, ..)| *expires).map(|(_, key, peer)| (key.clone(), peer))
    }

    fn forget_expired(&mut self, now: u64, ops: &mut Vec<Op>) {
        self.by_key.retain(|key, known| {
            forget_expired(key, known, now, ops);
            !known.is_empty()
        });
        self.count();
        let expiries = self.by_key.values().flatten().filter_map(|known| known.contact.expires);
        self.next_expiry = expiries.min().unwrap_or(u64::MAX);
    }

    fn forget_expired_of(&mut self, key: &[u8], now: u64, ops: &mut Vec<Op>) {
        let Some(known) = self.by_key.get(key) else { return };
        let expired = known.iter().filter(|known| !known.contact.is_current(now));
        let expired: Vec<_> = expired.map(|known| known.peer).collect();
        ops.extend(expired.iter().filter_map(|peer| self.remove(key, peer)));
    }

    fn count(&mut self) {
        self.len = self.by_key.values().map(Vec::len).sum();
        self.by_peer.clear();
        for (key, known) in &self.by_key {
            for known in known {
                let share = self.by_peer.entry(known.peer).or_default();
                share.len += 1;
                share.bytes += key.len() + known.contact.bytes();
            }
        }
        let bytes = |(key, known): (&Vec<u8>, &Vec<Provider>)| {
            known.iter().map(|known| key.len() + known.contact.bytes()).sum::<usize>()
        };
        self.bytes = self.by_key.iter().map(bytes).sum();
    }
}

fn forget_expired(key: &[u8], known: &mut Vec<Provider>, now: u64, ops: &mut Vec<Op>) {
    known.retain(|known| {
        let current = known.contact.is_current(now);
        if !current {
            let key = table_key(key, &known.peer);
            ops.push(Op::Set { table: &tables::PROVIDERS, key, value: None });
        }
        current
    });
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
                .map(|expires| platform::now() + Duration::from_millis(expires.saturating_sub(now))),
            addresses: addresses.filter_map(|address| Multiaddr::try_from(address.clone()).ok()).collect(),
        }
    }
}

impl Contact {
    fn of(record: &ProviderRecord, now: u64) -> Self {
        let addresses = record.addresses.iter().map(Multiaddr::to_vec);
        let addresses = addresses.filter(|address| address.len() <= MAX_PROVIDER_ADDRESS_BYTES);
        let remaining = record.expires.map(|expires| expires.saturating_duration_since(platform::now()));
        Self {
            expires: remaining.map(|remaining| now.saturating_add(crate::write::writer::millis(remaining))),
            addresses: addresses.take(MAX_PROVIDER_ADDRESSES).collect(),
        }
    }

    fn bytes(&self) -> usize {
        self.addresses.iter().map(Vec::len).sum()
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
