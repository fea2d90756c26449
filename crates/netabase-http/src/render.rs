//! The JSON of records, versions and outcomes.

use std::borrow::Cow;

use axum::http::HeaderValue;
use netabase::dynamic::Schema;
use netabase::health::ReadSource;
use netabase::health::{ClockComparison, PeerAnswer, WriteAnswer};
use netabase::netabase_store::schema::{EncodedRecord, ModelSchema};
use netabase::{Envelope, PeerId, RecordKey, Refusal, Version, WriteOutcome};
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::app::App;
use crate::problem::Answer;
use crate::time::rfc3339;

/// Returns bytes as hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    const DIGITS: [char; 16] =
        ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f'];
    let digit = |half: u8| DIGITS.get(usize::from(half)).copied().unwrap_or_default();
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        text.extend([digit(byte >> 4), digit(byte & 15)]);
    }
    text
}

/// Parses the hexadecimal digits of [`hex`].
pub(crate) fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> =
        text.chars().map(|digit| digit.to_digit(16).and_then(|digit| u8::try_from(digit).ok())).collect();
    let digits = digits.filter(|digits| digits.len().is_multiple_of(2))?;
    Some(digits.chunks_exact(2).map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | digit)).collect())
}

/// The version of a record.
#[derive(Debug, Serialize)]
pub(crate) struct VersionBody {
    timestamp: String,
    author: String,
    hash: String,
}

impl VersionBody {
    pub(crate) fn new(version: &Version) -> Self {
        let Version { timestamp, author, hash } = version;
        Self { timestamp: rfc3339(timestamp.unix_millis()), author: author.to_string(), hash: hex(hash) }
    }
}

/// A record in an answer.
#[derive(Debug, Serialize)]
pub(crate) struct Record {
    model: &'static str,
    key: Value,
    /// `None` if the record was removed or cannot be read.
    value: Option<Box<RawValue>>,
    author: Option<String>,
    version: Option<VersionBody>,
    expires: Option<String>,
    size: usize,
    origin: Cow<'static, str>,
    /// The error because of which the value cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    unreadable: Option<String>,
    /// Why the record left the records that are followed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<&'static str>,
}

impl Record {
    /// Makes the answer for a version of a record, which may be a tombstone.
    pub(crate) fn new(
        app: &App,
        key: &RecordKey,
        envelope: &Envelope,
        origin: Cow<'static, str>,
    ) -> Option<Self> {
        let model = app.node.schema().model(key.model())?;
        let (value, unreadable) = if envelope.is_tombstone() { (None, None) } else { value(model, envelope) };
        let version = envelope.version().map(|version| VersionBody::new(&version));
        let author = || envelope.author().map(|author| author.to_string());
        Some(Self {
            model: model.name,
            key: app.keys.to_json(model.name, key.primary_key()),
            value,
            author: version.as_ref().map(|version| version.author.clone()).or_else(author),
            version,
            expires: envelope.expires().map(rfc3339),
            size: envelope.as_bytes().len(),
            origin,
            unreadable,
            reason: None,
        })
    }

    /// Returns the entity tag of the version, if it has one.
    pub(crate) fn tag(&self) -> Option<&str> {
        self.version.as_ref().map(|version| version.hash.as_str())
    }

    /// Returns the length of the value as JSON, in bytes.
    pub(crate) fn value_len(&self) -> usize {
        self.value.as_ref().map_or(0, |value| value.get().len())
    }

    /// Makes the answer for a record of which no version is left.
    pub(crate) fn gone(
        app: &App,
        key: &RecordKey,
        origin: Cow<'static, str>,
        reason: &'static str,
    ) -> Option<Self> {
        let model = app.node.schema().model(key.model())?;
        Some(Self {
            model: model.name,
            key: app.keys.to_json(model.name, key.primary_key()),
            value: None,
            author: None,
            version: None,
            expires: None,
            size: 0,
            origin,
            unreadable: None,
            reason: Some(reason),
        })
    }
}

fn value(model: &ModelSchema, envelope: &Envelope) -> (Option<Box<RawValue>>, Option<String>) {
    let json = model.guarded(|codec| codec.to_json(envelope.payload()));
    match json.map(RawValue::from_string) {
        Ok(Ok(json)) => (Some(json), None),
        Ok(Err(error)) => (None, Some(error.to_string())),
        Err(error) => (None, Some(error.to_string())),
    }
}

/// Encodes a value to the keys and the payload of a record.
///
/// The `Deserialize` of a model may ignore unknown fields. The described schema refuses them, so it
/// parses the value as well, and a misspelt field is an error.
pub(crate) fn encode(app: &App, model: &'static ModelSchema, json: &str) -> Answer<EncodedRecord> {
    let described = app.keys.described().map(Schema::definition);
    if let Some(described) = described.filter(|described| !std::ptr::eq(*described, app.node.schema()))
        && let Some(described) = described.model(model.name)
    {
        described.read_json(described.version, json)?;
    }
    Ok(model.read_json(model.version, json)?)
}

/// Returns the entity tag of an envelope: the hash of its version.
pub(crate) fn tag(envelope: &Envelope) -> String {
    let hash = envelope.version().map_or_else(|| *envelope.content_hash().as_bytes(), |version| version.hash);
    hex(&hash)
}

/// Returns an entity tag as the value of a header.
pub(crate) fn etag(tag: &str) -> Option<HeaderValue> {
    HeaderValue::from_str(&format!("\"{tag}\"")).ok()
}

/// Returns where a version was found.
pub(crate) fn source(source: Option<ReadSource>) -> Cow<'static, str> {
    match source {
        Some(ReadSource::Peer(peer)) => peer.to_string().into(),
        Some(ReadSource::Unconfirmed) => "unconfirmed".into(),
        _ => "local".into(),
    }
}

/// Returns the outcome of a write as JSON.
pub(crate) fn write_outcome(app: &App, key: &RecordKey, outcome: &WriteOutcome) -> Value {
    let WriteOutcome { version, replaced, asked, accepted, peers, overtaken_by, .. } = outcome;
    json!({
        "model": key.model(),
        "key": app.keys.to_json(key.model(), key.primary_key()),
        "version": VersionBody::new(version),
        "replaced": replaced,
        "asked": peer_ids(asked),
        "accepted": peer_ids(accepted),
        "peers": write_answers(app, peers),
        "overtaken_by": overtaken_by.as_ref().map(VersionBody::new),
    })
}

pub(crate) fn peer_ids<'a>(peers: impl IntoIterator<Item = &'a PeerId>) -> Vec<String> {
    peers.into_iter().map(PeerId::to_string).collect()
}

/// Returns the answer of each peer to a write, with its reason. The reason of a peer that slows
/// this node says for how much longer.
pub(crate) fn write_answers(app: &App, peers: &[PeerAnswer<WriteAnswer>]) -> Vec<Value> {
    let slowed_by = app.node.standing().slowed_by;
    let slowed = |peer: &PeerId| {
        let rest = slowed_by.iter().find(|(slowing, _)| slowing == peer).map(|(_, rest)| rest.as_secs() + 1);
        rest.map(|seconds| {
            format!("the peer slows this node for {seconds} s more because of earlier requests")
        })
    };
    let answer = |PeerAnswer { peer, answer }: &PeerAnswer<WriteAnswer>| {
        let (word, reason) = match answer {
            WriteAnswer::Accepted => ("accepted", None),
            WriteAnswer::Known => ("known", None),
            WriteAnswer::Refused(Refusal::Slowed) => {
                ("refused", slowed(peer).or_else(|| Some(Refusal::Slowed.to_string())))
            }
            WriteAnswer::Refused(reason) => ("refused", Some(reason.to_string())),
            WriteAnswer::TimedOut => ("timed_out", None),
            WriteAnswer::Unreachable(reason) => ("unreachable", Some(reason.to_string())),
            WriteAnswer::Pending => ("pending", None),
            _ => ("other", None),
        };
        json!({ "peer": peer.to_string(), "answer": word, "reason": reason })
    };
    peers.iter().map(answer).collect()
}

/// Returns the comparison of this node's clock with those of its peers as JSON.
pub(crate) fn clock_json(clock: &ClockComparison) -> Value {
    json!({ "ahead_ms": clock.ahead_millis, "peers": clock.peers })
}

/// Returns the name of a reason in snake case.
pub(crate) fn refusal(reason: Refusal) -> &'static str {
    match reason {
        Refusal::InvalidKey => "invalid_key",
        Refusal::TooLarge => "too_large",
        Refusal::NotOwner => "not_owner",
        Refusal::NotMember => "not_member",
        Refusal::RefusedAuthor => "refused_author",
        Refusal::InvalidEnvelope => "invalid_envelope",
        Refusal::InvalidSignature => "invalid_signature",
        Refusal::FutureTimestamp => "future_timestamp",
        Refusal::Expired => "expired",
        Refusal::InvalidValue => "invalid_value",
        Refusal::KeyMismatch => "key_mismatch",
        Refusal::Outdated => "outdated",
        Refusal::OverQuota => "over_quota",
        Refusal::Full => "full",
        Refusal::Busy => "busy",
        Refusal::Slowed => "slowed",
        Refusal::TooFast => "too_fast",
        Refusal::Overloaded => "overloaded",
        Refusal::StoreFailed => "store_failed",
        Refusal::OtherPolicy => "other_policy",
        Refusal::NotCanonical => "not_canonical",
        Refusal::InvalidBlob => "invalid_blob",
        Refusal::UnknownFormat => "unknown_format",
        _ => "other",
    }
}
