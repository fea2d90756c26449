//! The names of topics.

use libp2p::gossipsub::TopicHash;
use netabase_store::schema::DefinitionSchema;
use netabase_store::{Scope, ScopePart, WritePolicy};

/// The context of the key derivation.
const CONTEXT: &str = "netabase 2026 live topic 1";
/// The bytes of the hash in a topic's name, two characters for each.
const TOPIC_BYTES: usize = 16;

/// Returns the topic of a scope: a hash, so that it is short whatever the value, and discloses the
/// scope only to those who can guess it. The length precedes every part, so that different scopes
/// have different inputs.
pub(crate) fn topic_of(network: &str, schema: &DefinitionSchema, scope: &Scope) -> TopicHash {
    let mut hasher = blake3::Hasher::new_derive_key(CONTEXT);
    let mut part = |bytes: &[u8]| {
        let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        hasher.update(&len.to_be_bytes()).update(bytes);
    };
    part(network.as_bytes());
    part(scope.definition.as_bytes());
    if let ScopePart::Model(model) | ScopePart::Value { model, .. } = &scope.part {
        part(&[policy(schema, model)]);
        part(model.as_bytes());
    }
    if let ScopePart::Value { index, key, .. } = &scope.part {
        part(index.as_bytes());
        part(key);
    }
    let hash = hasher.finalize();
    let mut name = hash.to_hex();
    name.truncate(2 * TOPIC_BYTES);
    TopicHash::from_raw(name.as_str())
}

/// Returns whether a topic has the form of this node's topics.
pub(super) fn is_topic(topic: &TopicHash) -> bool {
    let name = topic.as_str();
    name.len() == 2 * TOPIC_BYTES && name.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Returns the policy's byte in a topic. Models with another policy are different.
fn policy(schema: &DefinitionSchema, model: &str) -> u8 {
    match schema.model(model).map(|model| model.policy) {
        None | Some(WritePolicy::Open) => 0,
        Some(WritePolicy::Owned) => 1,
        Some(WritePolicy::Merged) => 2,
        Some(WritePolicy::Root) => 3,
        // A policy that a later version of the store adds.
        Some(_) => u8::MAX,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCHEMA: DefinitionSchema = DefinitionSchema { name: "Chat", models: &[] };

    fn topic(part: ScopePart) -> TopicHash {
        topic_of("net", &SCHEMA, &Scope { definition: "Chat".into(), part })
    }

    #[test]
    fn topics_have_their_golden_names() {
        let value =
            ScopePart::Value { model: "Message".into(), index: "room".into(), key: b"general".to_vec() };
        assert_eq!(topic(ScopePart::Model("Message".into())).as_str(), "3a31eae8121c7b0a692ad84e5e3c3bc4");
        assert_eq!(topic(value).as_str(), "5735d3cba07597b80bb2b4417294c00c");
    }

    #[test]
    fn no_two_scopes_have_the_same_topic() {
        let value = |index: &str, key: &str| {
            topic(ScopePart::Value { model: "M".into(), index: index.into(), key: key.into() })
        };
        assert_ne!(value("a", "bc"), value("ab", "c"));
        assert_ne!(value("a", ""), topic(ScopePart::Model("M".into())));
        assert!(is_topic(&value("a", "b")) && !is_topic(&TopicHash::from_raw("chat")));
    }
}
