//! JSON Schemas of the requests and answers that do not depend on the models.

use serde_json::{Map, Value, json};

use super::reference;
use crate::statistics::SERIES;

fn object<const N: usize>(fields: [(&str, Value); N]) -> Value {
    let required: Vec<_> = fields.iter().map(|(name, _)| (*name).to_owned()).collect();
    let properties: Map<_, _> = fields.into_iter().map(|(name, schema)| (name.to_owned(), schema)).collect();
    json!({ "type": "object", "properties": properties, "required": required, "additionalProperties": false })
}

/// Returns the schema of an object, of whose fields `others` may be missing.
fn partly<const N: usize, const M: usize>(needed: [(&str, Value); N], others: [(&str, Value); M]) -> Value {
    let mut schema = object(needed);
    if let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) {
        properties.extend(others.into_iter().map(|(name, schema)| (name.to_owned(), schema)));
    }
    schema
}

fn list(items: Value) -> Value {
    json!({ "type": "array", "items": items })
}

fn or_null(schema: Value) -> Value {
    json!({ "anyOf": [schema, { "type": "null" }] })
}

fn text() -> Value {
    json!({ "type": "string" })
}

fn number() -> Value {
    json!({ "type": "integer", "minimum": 0 })
}

fn flag() -> Value {
    json!({ "type": "boolean" })
}

fn time() -> Value {
    json!({ "type": "string", "format": "date-time" })
}

fn hash() -> Value {
    json!({ "type": "string", "pattern": "^[0-9a-f]{64}$" })
}

fn words(words: &[&str]) -> Value {
    json!({ "enum": words })
}

fn counts() -> Value {
    json!({ "type": "object", "additionalProperties": number() })
}

/// Returns the schemas by name.
pub(super) fn schemas() -> Map<String, Value> {
    let mut schemas = Map::new();
    for (name, schema) in
        record_schemas().into_iter().chain(node_schemas()).chain(peer_schemas()).chain(work_schemas())
    {
        schemas.insert(name.to_owned(), schema);
    }
    schemas
}

#[expect(clippy::too_many_lines, reason = "it is a list")]
fn record_schemas() -> Vec<(&'static str, Value)> {
    let peer_answer = object([
        ("peer", text()),
        ("answer", words(&["accepted", "known", "refused", "timed_out", "unreachable", "pending", "other"])),
        ("reason", or_null(text())),
    ]);
    let holder = object([
        ("peer", text()),
        ("state", words(&["current", "older", "missing", "unreachable", "invalid", "other"])),
        ("version", or_null(reference("VersionName"))),
        ("reason", or_null(text())),
    ]);
    let history = object([
        ("sequence", number()),
        ("kind", text()),
        ("origin", words(&["local", "peer"])),
        ("version", or_null(reference("Version"))),
    ]);
    vec![
        (
            "Problem",
            json!({
                "type": "object",
                "properties": {
                    "type": { "type": "string", "pattern": "^/problems/[a-z-]+$" },
                    "title": text(),
                    "status": { "type": "integer", "minimum": 400, "maximum": 599 },
                    "detail": text(),
                },
                "required": ["type", "title", "status", "detail"],
            }),
        ),
        (
            "ProblemKind",
            object([("type", text()), ("title", text()), ("status", number()), ("meaning", text())]),
        ),
        ("Version", object([("timestamp", time()), ("author", hash()), ("hash", hash())])),
        (
            "VersionName",
            object([
                ("timestamp", time()),
                ("fingerprint", json!({ "type": "string", "pattern": "^[0-9a-f]{32}$" })),
            ]),
        ),
        (
            "Record",
            partly(
                [
                    ("model", text()),
                    ("key", json!({ "description": "The primary key; an array if it has several parts" })),
                    ("value", json!({ "description": "Null if the record was removed or cannot be read" })),
                    ("author", or_null(hash())),
                    ("version", or_null(reference("Version"))),
                    ("expires", or_null(time())),
                    ("size", number()),
                    (
                        "origin",
                        json!({ "type": "string", "description": "`local`, `peer`, `network` or the id of a peer" }),
                    ),
                ],
                [("unreadable", text()), ("reason", words(&["deleted", "expired", "evicted", "left"]))],
            ),
        ),
        (
            "Page",
            object([
                ("records", list(reference("Record"))),
                (
                    "next",
                    or_null(json!({ "type": "string", "description": "The `cursor` of the next page" })),
                ),
                ("report", or_null(reference("QueryReport"))),
            ]),
        ),
        (
            "QueryReport",
            object([
                ("is_complete", flag()),
                ("all_holders_found", flag()),
                ("local_records", number()),
                ("of_others", number()),
                ("skipped", number()),
                ("unreadable", number()),
                (
                    "peers",
                    list(object([
                        ("peer", text()),
                        (
                            "answer",
                            words(&["pending", "answered", "cut_off", "failed", "not_asked", "other"]),
                        ),
                        ("reason", or_null(text())),
                        ("records", number()),
                        ("bytes", number()),
                        ("refused", number()),
                    ])),
                ),
            ]),
        ),
        (
            "WriteOutcome",
            object([
                ("model", text()),
                ("key", json!({})),
                ("version", reference("Version")),
                ("replaced", flag()),
                ("asked", list(text())),
                ("accepted", list(text())),
                ("peers", list(peer_answer.clone())),
                ("overtaken_by", or_null(reference("Version"))),
            ]),
        ),
        (
            "Health",
            object([
                ("holders", list(holder)),
                ("current", number()),
                ("wanted", number()),
                ("newest", or_null(reference("VersionName"))),
                ("local", or_null(reference("VersionName"))),
                ("repairs", list(peer_answer)),
            ]),
        ),
        (
            "Trace",
            object([
                ("model", text()),
                ("key", json!({})),
                ("current", or_null(reference("Record"))),
                ("is_holder", or_null(flag())),
                ("next_publication", or_null(time())),
                (
                    "events",
                    list(json!({
                        "type": "object",
                        "properties": { "event": text(), "time": time() },
                        "required": ["event", "time"],
                    })),
                ),
                ("history", list(history)),
                ("text", text()),
            ]),
        ),
        ("Holders", object([("model", text()), ("peers", list(text()))])),
    ]
}

#[expect(clippy::too_many_lines, reason = "it is a list")]
fn node_schemas() -> Vec<(&'static str, Value)> {
    let warning = partly(
        [("kind", text()), ("message", text()), ("what_to_do", text())],
        [("reason", text()), ("count", number())],
    );
    let store = object([
        ("backend", text()),
        ("path", or_null(text())),
        ("disk_bytes", or_null(number())),
        ("commits", number()),
        ("takes_writes", flag()),
    ]);
    let model = object([
        ("name", text()),
        ("version", number()),
        ("policy", words(&["open", "owned", "merged", "root"])),
        ("lifetime_ms", or_null(number())),
        ("primary_key", list(text())),
        ("fields", or_null(list(object([("name", text()), ("type", text())])))),
        ("secondary_keys", list(object([("name", text()), ("source", text()), ("unique", flag())]))),
    ]);
    let series = |gauges: bool| {
        let names = SERIES.iter().filter(|(_, grows, ..)| *grows != gauges).map(|(name, ..)| *name);
        let names = names.chain(if gauges { vec!["peers", "records"] } else { Vec::new() });
        let properties: Map<_, _> = names.map(|name| (name.to_owned(), list(or_null(number())))).collect();
        json!({ "type": "object", "properties": properties, "additionalProperties": false })
    };
    let table = || reference("Table");
    vec![
        (
            "Status",
            object([
                ("peer_id", text()),
                ("author", or_null(hash())),
                ("version", text()),
                ("definition", text()),
                ("network", text()),
                ("mode", words(&["server", "client"])),
                ("running", flag()),
                ("late", flag()),
                ("current", flag()),
                ("started", time()),
                ("uptime_ms", number()),
                ("listen_addresses", list(text())),
                ("peers", list(text())),
                ("records", number()),
                ("refused", counts()),
                ("largest_authors", list(reference("Author"))),
                ("store", store),
                ("clock", or_null(object([("ahead_ms", json!({ "type": "integer" })), ("peers", number())]))),
                ("streams", number()),
                ("warnings", list(warning)),
            ]),
        ),
        (
            "Author",
            object([
                ("author", hash()),
                ("own", flag()),
                ("refused", flag()),
                ("records", number()),
                ("tombstones", number()),
                ("bytes", number()),
            ]),
        ),
        (
            "Authors",
            object([
                ("authors", list(reference("Author"))),
                ("refused", list(hash())),
                ("fast", list(object([("author", hash()), ("refused", number())]))),
                ("max_author_bytes", number()),
                ("records_per_second", number()),
            ]),
        ),
        ("Refused", object([("author", hash()), ("refused", flag()), ("changed", flag())])),
        (
            "Removed",
            object([
                ("author", hash()),
                ("refused", flag()),
                ("records", number()),
                ("tombstones", number()),
            ]),
        ),
        ("Schema", object([("name", text()), ("models", list(model))])),
        ("Models", object([("models", list(object([("name", text()), ("records", number())])))])),
        ("Live", object([("status", words(&["live"]))])),
        ("Ready", object([("status", words(&["ready", "stopping", "store_failed"])), ("current", flag())])),
        (
            "Series",
            object([
                ("interval_ms", number()),
                ("continues", flag()),
                ("times", list(time())),
                ("counters", series(false)),
                ("gauges", series(true)),
            ]),
        ),
        ("Table", object([("count", number()), ("key_bytes", number()), ("value_bytes", number())])),
        (
            "Store",
            object([
                (
                    "models",
                    list(object([
                        ("name", text()),
                        ("records", table()),
                        ("newer", number()),
                        ("secondary_keys", list(object([("name", text()), ("entries", table())]))),
                    ])),
                ),
                ("foreign", table()),
                ("tombstones", table()),
                ("expiring", number()),
                ("scheduled", number()),
                ("leases", number()),
                ("own_bytes", number()),
                ("others_bytes", number()),
                ("largest_authors", list(object([("author", hash()), ("bytes", number())]))),
                (
                    "history",
                    object([
                        ("changes", number()),
                        ("bytes", number()),
                        ("first", or_null(number())),
                        ("last", number()),
                    ]),
                ),
                ("disk_bytes", or_null(number())),
                ("commits", number()),
            ]),
        ),
    ]
}

fn peer_schemas() -> Vec<(&'static str, Value)> {
    let connection =
        object([("address", text()), ("direction", words(&["incoming", "outgoing"])), ("since", time())]);
    let report = object([
        ("state", words(&["good", "slowed", "banned", "other"])),
        ("banned_until", or_null(time())),
        ("score", number()),
        ("refused", counts()),
        ("throttled", number()),
        ("bans", number()),
    ]);
    vec![
        (
            "Peer",
            object([
                ("peer", text()),
                ("connected", flag()),
                ("connections", list(connection)),
                ("agent", or_null(text())),
                ("rtt_ms", or_null(json!({ "type": "number" }))),
                ("report", or_null(report)),
            ]),
        ),
        ("Peers", object([("peers", list(reference("Peer"))), ("late", flag())])),
        ("PeerName", object([("peer", text())])),
        ("Dialled", object([("peer", text()), ("connected", json!({ "type": "boolean" }))])),
        (
            "Dial",
            object([(
                "address",
                json!({ "type": "string", "description": "A multiaddr that ends with /p2p/ and the peer id" }),
            )]),
        ),
    ]
}

fn work_schemas() -> Vec<(&'static str, Value)> {
    let check = json!({
        "type": "object",
        "properties": { "signatures": flag(), "repair": flag() },
        "additionalProperties": false,
    });
    vec![
        (
            "Import",
            object([
                ("lines", number()),
                ("bytes", number()),
                ("records", number()),
                ("skipped", number()),
                ("bad", number()),
                ("bad_lines", list(object([("line", number()), ("error", text())]))),
                ("last_line", number()),
                ("left_out", number()),
                ("end", words(&["complete", "cut_off", "incomplete", "stopped", "too_many_errors", "other"])),
                ("is_whole", flag()),
            ]),
        ),
        (
            "BackupRequest",
            object([("path", json!({ "type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$" }))]),
        ),
        ("Backup", object([("path", text())])),
        ("Compaction", object([("before_bytes", number()), ("after_bytes", number())])),
        ("CheckRequest", check),
        (
            "Check",
            object([
                ("records", number()),
                ("newer", number()),
                ("foreign", number()),
                ("tombstones", number()),
                ("signatures", number()),
                ("unsigned", number()),
                ("index_entries", number()),
                ("changes", number()),
                ("problems", list(text())),
                ("total_problems", number()),
                ("faults", number()),
                ("repaired", list(text())),
                ("is_complete", flag()),
                ("is_clean", flag()),
            ]),
        ),
    ]
}
