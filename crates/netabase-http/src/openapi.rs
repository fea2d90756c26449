//! The description of the interface, with the node's own models (`OpenAPI` 3.1).

#![expect(clippy::needless_pass_by_value, reason = "schemas are made where they are used")]

use netabase::netabase_store::schema::ModelSchema;
use netabase_client::media::{EVENT_STREAM, JSON, NDJSON, PROBLEM_JSON};
use serde_json::{Map, Value, json};

use crate::app::App;
use crate::body::BYTES;
use crate::params::{MAX_TIMEOUT_MILLIS, MIN_TIMEOUT_MILLIS};
use crate::problem::Kind;
use crate::routes::models::TOML;
use crate::routes::records::{CONSISTENCIES, DEFAULT_PAGE, MAX_CONCERN, MAX_PAGE, RESERVED};
use crate::routes::status::PROMETHEUS;
use crate::routes::transfer::{CSV, IMPORTED};
use crate::statistics;

mod answers;
mod models;

use models::KeyPlace;

/// Returns the `OpenAPI` document.
pub(crate) fn document(app: &App) -> Value {
    let mut paths = Map::new();
    node_paths(&mut paths);
    stream_paths(app, &mut paths);
    work_paths(app, &mut paths);
    for model in app.node.schema().models {
        model_paths(app, model, &mut paths);
    }
    let mut schemas = answers::schemas();
    models::add(app, &mut schemas);
    let mut document = json!({
        "openapi": "3.1.0",
        "info": {
            "title": format!("Netabase node of {}", app.node.schema().name),
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Records, queries, live changes, peers and state of one node. Failed requests are answered \
                with problem documents (RFC 9457), whose types are stable.",
            "license": { "name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0" },
        },
        "servers": [{ "url": "/" }],
        "paths": paths,
        "components": { "schemas": schemas },
        "x-problems": Kind::ALL.iter().map(|kind| {
            let (status, slug, title, meaning) = kind.parts();
            json!({ "type": format!("/problems/{slug}"), "status": status.as_u16(), "title": title, "meaning": meaning })
        }).collect::<Vec<_>>(),
    });
    if app.config.token.is_some()
        && let Some(document) = document.as_object_mut()
    {
        document.insert("security".to_owned(), json!([{ "token": [] }]));
        if let Some(components) = document.get_mut("components").and_then(Value::as_object_mut) {
            components.insert(
                "securitySchemes".to_owned(),
                json!({ "token": { "type": "http", "scheme": "bearer" } }),
            );
        }
    }
    document
}

/// The problems that any request may be answered with.
const ALWAYS: [Kind; 10] = [
    Kind::BadParameter,
    Kind::Unauthorized,
    Kind::ForeignOrigin,
    Kind::ForeignHost,
    Kind::NotAcceptable,
    Kind::TooManyRequests,
    Kind::Internal,
    Kind::StoreFailed,
    Kind::Busy,
    Kind::Stopping,
];
/// The problems that a request with a body may be answered with.
const BODY: [Kind; 5] =
    [Kind::NotJson, Kind::TooSlow, Kind::TooLarge, Kind::UnsupportedMediaType, Kind::InvalidValue];
/// The problems that a write may be answered with.
const WRITE: [Kind; 9] = [
    Kind::ForeignOrigin,
    Kind::NotAllowed,
    Kind::KeyMismatch,
    Kind::NotUnique,
    Kind::NewerRecord,
    Kind::PreconditionFailed,
    Kind::InvalidValue,
    Kind::TooLarge,
    Kind::Timeout,
];
/// The problems that a call to peers may be answered with.
const NETWORK: [Kind; 3] = [Kind::NotRunning, Kind::NoPeers, Kind::Timeout];

/// A method of a path.
struct Operation {
    id: String,
    summary: String,
    parameters: Vec<Value>,
    /// The media types that the body may have, with their schemas.
    bodies: Vec<(&'static str, Value)>,
    answers: Vec<(u16, &'static str, Value, Vec<&'static str>)>,
    problems: Vec<Kind>,
}

impl Operation {
    fn new(id: impl Into<String>, summary: &str) -> Self {
        Self {
            id: id.into(),
            summary: summary.to_owned(),
            parameters: Vec::new(),
            bodies: Vec::new(),
            answers: Vec::new(),
            problems: Vec::new(),
        }
    }

    fn with(mut self, parameters: impl IntoIterator<Item = Value>) -> Self {
        self.parameters.extend(parameters);
        self
    }

    fn body(mut self, media: &'static str, schema: Value) -> Self {
        self.bodies.push((media, schema));
        self.may(&BODY).may(&[Kind::ForeignOrigin])
    }

    /// Adds an answer with the JSON of a component.
    fn answers(self, status: u16, component: &str) -> Self {
        self.answers_as(status, JSON, reference(component))
    }

    fn answers_as(mut self, status: u16, media: &'static str, schema: Value) -> Self {
        self.answers.push((status, media, schema, Vec::new()));
        self
    }

    /// Adds headers to the last answer.
    fn headers(mut self, names: &[&'static str]) -> Self {
        if let Some((.., headers)) = self.answers.last_mut() {
            headers.extend(names);
        }
        self
    }

    fn may(mut self, problems: &[Kind]) -> Self {
        self.problems.extend(problems);
        self
    }

    fn json(self) -> Value {
        let mut responses = Map::new();
        for (status, media, schema, headers) in &self.answers {
            let mut answer = json!({ "description": "As asked for" });
            if let Some(fields) = answer.as_object_mut() {
                if !media.is_empty() {
                    let content =
                        responses.get(&status.to_string()).and_then(|known: &Value| known.get("content"));
                    let mut content = content.and_then(Value::as_object).cloned().unwrap_or_default();
                    content.insert((*media).to_owned(), json!({ "schema": schema }));
                    fields.insert("content".to_owned(), content.into());
                }
                if !headers.is_empty() {
                    let header =
                        |name: &&str| ((*name).to_owned(), json!({ "schema": { "type": "string" } }));
                    fields.insert("headers".to_owned(), Value::Object(headers.iter().map(header).collect()));
                }
            }
            responses.insert(status.to_string(), answer);
        }
        for (status, kinds) in by_status(&self.problems) {
            let types: Vec<_> = kinds.iter().map(|kind| format!("/problems/{}", kind.slug())).collect();
            let meanings: Vec<_> = kinds.iter().map(|kind| kind.parts().3).collect();
            let schema = json!({
                "allOf": [reference("Problem")],
                "properties": { "type": { "enum": types }, "status": { "const": status } },
            });
            responses.entry(status.to_string()).or_insert_with(|| {
                json!({ "description": meanings.join(" "), "content": { PROBLEM_JSON: { "schema": schema } } })
            });
        }
        let mut json = json!({
            "operationId": self.id,
            "summary": self.summary,
            "parameters": self.parameters,
            "responses": responses,
        });
        if let (false, Some(fields)) = (self.bodies.is_empty(), json.as_object_mut()) {
            let content = self
                .bodies
                .into_iter()
                .map(|(media, schema)| (media.to_owned(), json!({ "schema": schema })));
            let content: Map<_, _> = content.collect();
            fields.insert("requestBody".to_owned(), json!({ "required": true, "content": content }));
        }
        json
    }
}

fn by_status(problems: &[Kind]) -> Vec<(u16, Vec<Kind>)> {
    let mut found: Vec<(u16, Vec<Kind>)> = Vec::new();
    for kind in problems.iter().chain(&ALWAYS) {
        let status = kind.status().as_u16();
        match found.iter_mut().find(|(known, _)| *known == status) {
            Some((_, kinds)) if !kinds.contains(kind) => kinds.push(*kind),
            Some(_) => {}
            None => found.push((status, vec![*kind])),
        }
    }
    found
}

fn reference(component: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{component}") })
}

fn query(name: &str, schema: Value, description: &str) -> Value {
    json!({ "name": name, "in": "query", "description": description, "schema": schema })
}

fn path(name: &str, schema: Value, description: &str) -> Value {
    json!({ "name": name, "in": "path", "required": true, "description": description, "schema": schema })
}

fn header(name: &str, schema: Value, description: &str) -> Value {
    json!({ "name": name, "in": "header", "description": description, "schema": schema })
}

fn timeout() -> Value {
    let schema = json!({ "type": "integer", "minimum": MIN_TIMEOUT_MILLIS, "maximum": MAX_TIMEOUT_MILLIS });
    query("timeout_ms", schema, "The longest time to wait for the network, in milliseconds")
}

fn reach() -> Value {
    query("scope", json!({ "enum": ["local", "network"] }), "Whether peers are asked as well")
}

fn add(paths: &mut Map<String, Value>, path: &str, operations: Vec<(&str, Operation)>) {
    let operations = operations.into_iter().map(|(method, operation)| (method.to_owned(), operation.json()));
    paths.insert(path.to_owned(), Value::Object(operations.collect()));
}

fn node_paths(paths: &mut Map<String, Value>) {
    let simple =
        |id: &str, summary: &str, component: &str| Operation::new(id, summary).answers(200, component);
    add(
        paths,
        "/v1/status",
        vec![("get", simple("status", "The state of the node and its warnings", "Status"))],
    );
    let format =
        query("format", json!({ "enum": ["json", "toml"] }), "`toml` answers in the format of `schema.toml`");
    let schema = simple("schema", "The models and their fields", "Schema")
        .with([format])
        .answers_as(200, TOML, json!({ "type": "string" }))
        .may(&[Kind::Unsupported]);
    add(paths, "/v1/schema", vec![("get", schema)]);
    add(
        paths,
        "/v1/models",
        vec![("get", simple("models", "The models and their numbers of records", "Models"))],
    );
    let names = statistics::names().collect::<Vec<_>>().join("|");
    let statistics = simple(
        "statistics",
        "The activity of the node in each second of the last ten minutes",
        "Series",
    )
    .with([
        query(
            "after",
            json!({ "type": "string" }),
            "The last time of an earlier answer, for the samples since then if that one is still kept",
        ),
        query(
            "series",
            json!({ "type": "string", "pattern": format!("^({names})(,({names}))*$") }),
            "The names of the wanted series, separated by commas; all by default",
        ),
    ]);
    add(paths, "/v1/statistics", vec![("get", statistics)]);
    add(
        paths,
        "/v1/store",
        vec![("get", simple("store", "The numbers and sizes of everything in the database", "Store"))],
    );
    let dial =
        Operation::new("dial", "Connects to a peer: 200 if it is connected, 202 while it is being dialled")
            .body(JSON, reference("Dial"))
            .answers(200, "Dialled")
            .answers(202, "Dialled")
            .may(&[Kind::NotReached])
            .may(&NETWORK);
    let peers = simple("peers", "The connected peers", "Peers");
    add(paths, "/v1/peers", vec![("get", peers), ("post", dial)]);
    let name = json!({ "type": "string", "pattern": "^12D3KooW[1-9A-HJ-NP-Za-km-z]{44}$" });
    let id = || path("id", name.clone(), "The id of a peer");
    let peer = simple("peer", "The connections and the conduct of a peer", "Peer")
        .with([id()])
        .may(&[Kind::UnknownPeer, Kind::Timeout]);
    let disconnect = simple("disconnect", "Disconnects from a peer, which may connect again", "PeerName")
        .with([id()])
        .may(&[Kind::UnknownPeer, Kind::ForeignOrigin])
        .may(&NETWORK);
    add(paths, "/v1/peers/{id}", vec![("get", peer), ("delete", disconnect)]);
    let author = || {
        let key = json!({ "type": "string", "pattern": "^[0-9a-f]{64}$" });
        path("author", key, "The public key of an author")
    };
    let authors = simple("authors", "The authors with the most bytes, and the refused authors", "Authors");
    add(paths, "/v1/authors", vec![("get", authors)]);
    let change = |id: &str, summary: &str, component: &str| {
        let change = simple(id, summary, component).with([author()]);
        change.may(&[Kind::NotAllowed, Kind::ForeignOrigin])
    };
    let remove = change("removeAuthor", "Removes the records of an author from this node alone", "Removed");
    add(paths, "/v1/authors/{author}", vec![("delete", remove)]);
    let refuse =
        change("refuseAuthor", "Refuses the records of an author, and removes the stored ones", "Refused");
    let allow = change("allowAuthor", "Takes records of an author again", "Refused");
    add(paths, "/v1/authors/{author}/refusal", vec![("put", refuse), ("delete", allow)]);
    add(paths, "/health/live", vec![("get", simple("live", "Whether the server answers", "Live"))]);
    let ready = simple("ready", "Whether the node is ready", "Ready").answers(503, "Ready");
    add(paths, "/health/ready", vec![("get", ready)]);
    let metrics = Operation::new("metrics", "Counters for Prometheus").answers_as(
        200,
        PROMETHEUS,
        json!({ "type": "string" }),
    );
    add(paths, "/metrics", vec![("get", metrics)]);
    let slug =
        path("slug", json!({ "type": "string", "minLength": 1 }), "The last part of a problem's `type`");
    let problem = simple("problem", "The meaning of a kind of problem", "ProblemKind")
        .with([slug])
        .may(&[Kind::NotFound]);
    add(paths, "/problems/{slug}", vec![("get", problem)]);
}

fn stream_paths(app: &App, paths: &mut Map<String, Value>) {
    let names: Vec<_> = app.node.schema().models.iter().map(|model| model.name).collect();
    let changes =
        Operation::new("changes", "Follows changes of records: events `put` and `remove` with a Record")
            .with([
                query(
                    "model",
                    json!({ "enum": names }),
                    "Only records of this model, which the parameters of its queries can restrict further",
                ),
                query(
                    "since",
                    json!({ "type": "string", "pattern": "^([0-9]+_)?[0-9]+$" }),
                    "Begins after the change with this id or number, in place of now",
                ),
                header(
                    "Last-Event-ID",
                    json!({ "type": "string" }),
                    "The same as `since`, in the form of browsers",
                ),
                reach(),
            ])
            .answers_as(200, EVENT_STREAM, json!({ "type": "string" }))
            .may(&[Kind::UnknownModel, Kind::HistoryTrimmed, Kind::TooManyStreams, Kind::Unsupported]);
    add(paths, "/v1/changes", vec![("get", changes)]);
    let events =
        Operation::new("events", "Follows the events of the node: connections, records, refusals, syncs")
            .answers_as(200, EVENT_STREAM, json!({ "type": "string" }))
            .may(&[Kind::TooManyStreams]);
    add(paths, "/v1/events", vec![("get", events)]);
}

fn work_paths(app: &App, paths: &mut Map<String, Value>) {
    let names: Vec<_> = app.node.schema().models.iter().map(|model| model.name).collect();
    let line = || json!({ "type": "integer", "minimum": 1, "maximum": u32::MAX });
    let described = |import: Operation, media: &'static str| {
        let schema = match media {
            JSON => {
                let description = "Lines of an export, or values of `model`";
                json!({ "type": "array", "items": { "type": "object", "description": description } })
            }
            CSV => {
                let description = "A table of values of `model`, whose first row names the fields";
                json!({ "type": "string", "description": description })
            }
            _ => {
                let description = "An object on each line: lines of an export, or values of `model`";
                json!({ "type": "string", "description": description })
            }
        };
        import.body(media, schema)
    };
    let import = Operation::new(
        "import",
        "Imports records from an export, lines of JSON, an array of JSON, or a table",
    )
    .with([
        query(
            "on_conflict",
            json!({ "enum": ["replace", "skip", "fail"] }),
            "The action for a record whose key exists",
        ),
        query("model", json!({ "enum": names }), "The model of plain objects and rows"),
        query(
            "format",
            json!({ "enum": ["json", "csv"] }),
            "The format of the body; detected from its beginning by default",
        ),
        query("first_line", line(), "The line or element to begin with"),
        query("stop_at_errors", line(), "The number of bad lines after which the import stops"),
    ])
    .answers(200, "Import")
    .may(&[Kind::Underway]);
    let import = IMPORTED.into_iter().fold(import, described);
    add(paths, "/v1/import", vec![("post", import)]);
    let export = Operation::new("export", "All records as lines of JSON")
        .with([query(
            "signed",
            json!({ "type": "boolean" }),
            "Whether lines have the signed versions, which an import gives back with their authors",
        )])
        .answers_as(200, NDJSON, json!({ "type": "string" }))
        .may(&[Kind::Underway]);
    add(paths, "/v1/export", vec![("get", export)]);
    let backup = Operation::new("backup", "Writes a backup into the node's directory of backups")
        .body(JSON, reference("BackupRequest"))
        .answers(201, "Backup")
        .may(&[Kind::Underway, Kind::Occupied, Kind::Unsupported]);
    add(paths, "/v1/backup", vec![("post", backup)]);
    let check = Operation::new("check", "Checks the database for damage and inconsistencies")
        .body(JSON, reference("CheckRequest"))
        .answers(200, "Check")
        .may(&[Kind::Underway]);
    add(paths, "/v1/check", vec![("post", check)]);
    let compact =
        Operation::new("compact", "Compacts the database, which returns unused space to the file system")
            .answers(200, "Compaction")
            .may(&[Kind::Underway, Kind::Unsupported]);
    add(paths, "/v1/compact", vec![("post", compact)]);
}

/// Returns the parameter for the form in which a record is answered.
fn record_form() -> Value {
    let forms = json!({ "enum": ["json", "envelope"] });
    query("format", forms, "`envelope` answers with the bytes that peers exchange")
}

fn model_paths(app: &App, model: &'static ModelSchema, paths: &mut Map<String, Value>) {
    let name = model.name;
    let records = format!("/v1/models/{name}/records");
    let (value, page) = (format!("Value.{name}"), format!("Page.{name}"));
    let text = || json!({ "type": "string" });
    let flag = || json!({ "type": "boolean" });
    let limit = json!({ "type": "integer", "minimum": 1, "maximum": MAX_PAGE, "default": DEFAULT_PAGE });
    let mut selection = vec![
        query("key", text(), "Only records with this key, or with these first parts of it"),
        query("prefix", text(), "Only records whose key starts with this text"),
        query("from", text(), "Only records with this key or a later one"),
        query("to", text(), "Only records with an earlier key"),
    ];
    let names: Vec<_> = model.indexes.iter().map(|index| index.name).collect();
    if !names.is_empty() {
        let index = json!({ "enum": names });
        selection.push(query("index", index, "The secondary key to select by, in place of the primary key"));
    }
    let by = |name: &&str| query(name, text(), "Short for `index` with this name and `key`");
    let list = Operation::new(format!("list{name}"), "A page of records, in the order of a key")
        .with(selection)
        .with(names.iter().filter(|name| !RESERVED.contains(*name)).map(by))
        .with([
            query("reverse", flag(), "Reverses the order"),
            query("limit", limit, "The most records of the page"),
            query(
                "cursor",
                json!({ "type": "string", "pattern": "^01([0-9a-f]{2}){12,}$" }),
                "The `next` of the previous page of the same query",
            ),
            reach(),
            query(
                "freshness",
                json!({ "enum": ["found", "newest"] }),
                "With `scope=network`: `newest` also asks all holders for newer versions",
            ),
            query(
                "authors",
                json!({ "type": "string", "pattern": "^(members|[0-9a-f]{64}(,[0-9a-f]{64})*)$" }),
                "Only records of these authors: public keys with commas between, or `members`",
            ),
            timeout(),
        ])
        .answers(200, &page)
        .may(&NETWORK);
    let post = Operation::new(format!("post{name}"), "Writes a record under the key in its value")
        .with([write_concern(), timeout()])
        .with(conditions())
        .body(JSON, reference(&value))
        .answers(200, "WriteOutcome")
        .headers(&["ETag"])
        .answers(201, "WriteOutcome")
        .headers(&["ETag", "Location"])
        .may(&WRITE);
    add(paths, &records, vec![("get", list), ("post", post)]);

    record_paths(app, model, KeyPlace::Path, paths);
    record_paths(app, model, KeyPlace::Query, paths);
}

/// Adds the paths of a single record, whose key is in the path or in the query string.
fn record_paths(app: &App, model: &'static ModelSchema, place: KeyPlace, paths: &mut Map<String, Value>) {
    let (value, record) = (format!("Value.{}", model.name), format!("Record.{}", model.name));
    let (root, name) = match place {
        KeyPlace::Path => (format!("/v1/models/{}/records/{{key}}", model.name), model.name.to_owned()),
        KeyPlace::Query => (format!("/v1/models/{}/record", model.name), format!("{}ByKey", model.name)),
    };
    let key = || {
        let schema = models::key_schema(app, model, place);
        let mut parameter = path("key", schema, "The primary key: text, or a JSON array of its parts");
        if let (KeyPlace::Query, Some(fields)) = (place, parameter.as_object_mut()) {
            let description =
                "The primary key; here it may also be empty, `.` or `..`, which a path cannot have";
            fields.insert("in".to_owned(), "query".into());
            fields.insert("description".to_owned(), description.into());
        }
        parameter
    };
    let words: Vec<_> = CONSISTENCIES.iter().map(|(word, _)| *word).collect();
    let get = Operation::new(format!("get{name}"), "A record")
        .with([key(), record_form(), query("consistency", json!({ "enum": words }), "Whom to ask: peers if this node does not have the record (first), this node alone (local), some peers (newest, or its former name latest) or all of the closest peers (all)"), timeout()])
        .with([tag("If-None-Match", "Answers 304 if the record still has this version")])
        .answers(200, &record)
        .answers_as(200, BYTES, json!({ "type": "string", "format": "binary" }))
        .headers(&["ETag"])
        .answers_as(304, "", Value::Null)
        .may(&[Kind::NoRecord])
        .may(&NETWORK);
    let put = Operation::new(format!("put{name}"), "Writes a record under its key")
        .with([key(), write_concern(), timeout()])
        .with(conditions())
        .body(JSON, reference(&value))
        .answers(200, "WriteOutcome")
        .headers(&["ETag"])
        .answers(201, "WriteOutcome")
        .headers(&["ETag", "Location"])
        .may(&WRITE);
    let delete = Operation::new(format!("delete{name}"), "Removes a record from this node and its peers")
        .with([key(), write_concern(), timeout()])
        .with(conditions())
        .answers(200, "WriteOutcome")
        .headers(&["ETag"])
        .may(&[Kind::NoRecord])
        .may(&WRITE);
    add(paths, &root, vec![("get", get), ("put", put), ("delete", delete)]);

    let details = |id: &str, summary: &str, component: &str| {
        Operation::new(format!("{id}{name}"), summary).with([key()]).answers(200, component).may(&NETWORK)
    };
    let health = details("health", "The versions that the holders of the record have", "Health");
    let repair = details(
        "repair",
        "The same as health, and sends the newest version to holders that lack it",
        "Health",
    );
    let repair = repair.may(&[Kind::ForeignOrigin]);
    add(paths, &format!("{root}/health"), vec![("get", health), ("post", repair)]);
    let why = details("why", "The history of the record on this node", "Trace");
    add(paths, &format!("{root}/why"), vec![("get", why)]);
    let holders = details("holders", "The peers that may have records of the model", "Holders");
    add(paths, &format!("{root}/holders"), vec![("get", holders)]);
}

fn write_concern() -> Value {
    let schema = json!({ "type": "integer", "minimum": 0, "maximum": MAX_CONCERN });
    query(
        "write_concern",
        schema,
        "The number of peers that must accept the version before the answer; 0 for none",
    )
}

fn tag(name: &str, description: &str) -> Value {
    let tags = r#"^(\*|((W/)?"[!#-~]*"(, *(W/)?"[!#-~]*")*)?)$"#;
    header(name, json!({ "type": "string", "pattern": tags }), description)
}

fn conditions() -> [Value; 2] {
    [
        tag("If-Match", "Writes only if the record has this version; `*` for any"),
        tag("If-None-Match", "Writes only if the record does not have this version; `*` for any"),
    ]
}
