//! Advertising of the complete blobs.
//!
//! The store's table of provider records has the provided blobs. The republisher announces them
//! from there, a few at a time, and again before other nodes drop them.

use std::collections::HashSet;

use libp2p::PeerId;
use libp2p::kad::store::RecordStore;
use libp2p::kad::{ProviderRecord, RecordKey};
use netabase_store::NetabaseStore;
use netabase_store::blob::BlobHash;

use crate::blobs::limits::MAX_PROVIDED_BLOBS;

/// The prefix of a blob's provider key.
const PREFIX: &[u8] = b"blob";
/// The context of the key derivation.
const CONTEXT: &str = "netabase 2026-01-01 blob provider key";

/// Returns the provider key of a blob.
pub(crate) fn provider_key(hash: &BlobHash) -> Vec<u8> {
    [PREFIX, &blake3::derive_key(CONTEXT, hash.as_bytes())].concat()
}

/// Updates the provided blobs to the complete ones; returns whether there was a change.
pub(crate) fn update(store: &NetabaseStore, local: PeerId) -> bool {
    let whole = store.blobs().whole_after(None, MAX_PROVIDED_BLOBS);
    let here: HashSet<Vec<u8>> = whole.iter().map(|blob| provider_key(&blob.hash)).collect();
    let provided: HashSet<Vec<u8>> =
        store.replica().provided_by(&local).into_iter().filter(|key| is_provider_key(key)).collect();
    let mut store = store.clone();
    for gone in provided.difference(&here) {
        store.remove_provider(&RecordKey::from(gone.clone()), &local);
    }
    for new in here.difference(&provided) {
        let record = ProviderRecord::new(new.clone(), local, Vec::new());
        if let Err(error) = store.add_provider(record) {
            tracing::debug!(%error, "a blob is not provided");
        }
    }
    provided != here
}

fn is_provider_key(key: &[u8]) -> bool {
    key.starts_with(PREFIX) && key.len() == PREFIX.len() + blake3::OUT_LEN
}
