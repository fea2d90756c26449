//! The provider keys under which holders advertise their records.

use libp2p::PeerId;
use netabase_store::schema::{DefinitionSchema, ModelSchema};
use netabase_store::{Scope, ScopePart};

/// The prefix of every such key, which separates it from applications' keys.
const PREFIX: &[u8] = b"/netabase-find/";
/// The context of the key derivation.
const CONTEXT: &str = "netabase 2026-11 provider key of a scope";
/// The context of the hash of a peer's shard.
const SHARD_CONTEXT: &str = "netabase 2026-11 shard of a provider";
/// The number of shards of a full list.
pub(crate) const SHARDS: u8 = 16;

const MODEL: u8 = 0;
const VALUE: u8 = 1;
const UNLISTED: u8 = 2;
const SHARD: u8 = 3;

/// The key of a list of providers: those of a model, of one value of a secondary key, or of a shard
/// of either.
///
/// ```text
/// /netabase-find/ ++ BLAKE3 in key derivation mode of a tag and the parts, each with its length (u32) in front
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ProviderKey([u8; 32]);

impl ProviderKey {
    /// The least key.
    pub(crate) const FIRST: Self = Self([0; 32]);

    /// Returns the key of the holders of any record of a model.
    pub(crate) fn of_model(definition: &str, model: &ModelSchema) -> Self {
        Self::hash(MODEL, &[definition.as_bytes(), model.marked_name().as_bytes()])
    }

    /// Returns the key of the holders of a record with a value of a secondary key.
    pub(crate) fn of_value(definition: &str, model: &ModelSchema, index: &str, value: &[u8]) -> Self {
        let model = model.marked_name();
        Self::hash(VALUE, &[definition.as_bytes(), model.as_bytes(), index.as_bytes(), value])
    }

    /// Returns the key of the holders of more values of a secondary key than they advertise.
    pub(crate) fn of_unlisted(definition: &str, model: &ModelSchema, index: &str) -> Self {
        let model = model.marked_name();
        Self::hash(UNLISTED, &[definition.as_bytes(), model.as_bytes(), index.as_bytes()])
    }

    /// Returns the key of a shard of this list.
    pub(crate) fn shard(self, shard: u8) -> Self {
        Self::hash(SHARD, &[&self.0, &[shard]])
    }

    /// Returns the keys of the lists that may have holders of a scope, or none if the schema lacks
    /// the scope.
    pub(crate) fn of_scope(schema: &DefinitionSchema, scope: &Scope) -> Vec<Self> {
        if scope.definition != schema.name {
            return Vec::new();
        }
        let of_model = |model: &ModelSchema| Self::of_model(schema.name, model);
        match &scope.part {
            ScopePart::All => schema.models.iter().map(|model| of_model(model)).collect(),
            ScopePart::Model(model) => schema.model(model).map(of_model).into_iter().collect(),
            ScopePart::Value { model, index, key } => {
                let model = schema
                    .model(model)
                    .filter(|model| model.indexes.iter().any(|known| known.name == *index));
                let keys = model.map(|model| {
                    let value = Self::of_value(schema.name, model, index, key);
                    [value, Self::of_unlisted(schema.name, model, index)]
                });
                keys.into_iter().flatten().collect()
            }
        }
    }

    /// Returns Kademlia's key.
    pub(crate) fn to_bytes(self) -> Vec<u8> {
        [PREFIX, &self.0].concat()
    }

    /// Parses Kademlia's key.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        bytes.strip_prefix(PREFIX)?.try_into().ok().map(Self)
    }

    fn hash(tag: u8, parts: &[&[u8]]) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key(CONTEXT);
        hasher.update(&[tag]);
        for part in parts {
            let len = u32::try_from(part.len()).unwrap_or(u32::MAX);
            hasher.update(&len.to_be_bytes());
            hasher.update(part);
        }
        Self(*hasher.finalize().as_bytes())
    }
}

/// Returns the shard of a peer in a full list that is itself a shard of depth `depth`.
pub(crate) fn shard_of(peer: PeerId, depth: usize) -> u8 {
    let hash = blake3::derive_key(SHARD_CONTEXT, &peer.to_bytes());
    let byte = hash.get(depth / 2).copied().unwrap_or_default();
    if depth.is_multiple_of(2) { byte >> 4 } else { byte % SHARDS }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_told_from_what_applications_provide() {
        let key = ProviderKey::hash(MODEL, &[b"Chat", b"Message"]);
        assert_eq!(ProviderKey::parse(&key.to_bytes()), Some(key));
        assert_eq!(ProviderKey::parse(b"/Chat/Message/42"), None);
        assert_eq!(ProviderKey::parse(&key.to_bytes()[1..]), None);
    }

    #[test]
    fn the_parts_of_a_name_do_not_run_into_each_other() {
        let keys = [
            ProviderKey::hash(VALUE, &[b"ab", b"c"]),
            ProviderKey::hash(VALUE, &[b"a", b"bc"]),
            ProviderKey::hash(UNLISTED, &[b"a", b"bc"]),
        ];
        assert!(keys[0] != keys[1] && keys[1] != keys[2] && keys[0].shard(1) != keys[0].shard(2));
    }

    #[test]
    fn the_shards_of_a_peer_are_the_nibbles_of_a_hash() {
        let peer = PeerId::random();
        let hash = blake3::derive_key(SHARD_CONTEXT, &peer.to_bytes());
        let shards: Vec<u8> = (0..4).map(|depth| shard_of(peer, depth)).collect();
        assert_eq!(shards, [hash[0] >> 4, hash[0] & 15, hash[1] >> 4, hash[1] & 15]);
    }
}
