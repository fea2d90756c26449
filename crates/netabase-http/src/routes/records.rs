//! Records: reading, writing, and finding them.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::Response;
use netabase::netabase_store::query::{CursorError, PageBounds, QueryError, ResolvedQuery};
use netabase::netabase_store::schema::{EncodedRecord, ModelSchema};
use netabase::query::{AuthorFilter, Authors, HolderAnswer, HolderFailure, NodePage, QueryReport, RawQuery};
use netabase::sync::ScopePart;
use netabase::{
    Consistency, Cursor, Envelope, Freshness, GetOptions, NetabaseError, PutOptions, QueryOptions,
    ReadOutcome, RecordKey, Scope, StoreError, WriteOutcome,
};
use netabase_client::media::JSON;
use netabase_client::record_path;
use serde::Serialize;
use serde_json::{Value, json};

use crate::app::{App, Shared};
use crate::body::{self, BYTES, answer, blocking, json_text, ok, require_accept};
use crate::keys::Selection;
use crate::params::Params;
use crate::problem::{Answer, Kind, Problem};
use crate::render::{self, Record, encode, etag, tag};
use crate::routes::Path;
use crate::routes::conditions::{Comparison, Named, condition};

/// The number of records of a page if the request does not say.
pub(crate) const DEFAULT_PAGE: u64 = 100;
/// The most records of a page.
pub(crate) const MAX_PAGE: u64 = 1000;
/// The most entries that are read for a page. Damaged and expired ones are left out of it.
const MAX_ENTRIES: usize = 10_000;
/// The most entries, and the most bytes of records, that are read for a page of some authors:
/// as many as of one peer in a query of the network.
const MAX_FILTERED_ENTRIES: usize = 100_000;
const MAX_FILTERED_BYTES: usize = 64 * 1024 * 1024;
/// The sizes of records, and of their values as JSON, after which a page ends.
const MAX_PAGE_BYTES: usize = 16 * 1024 * 1024;
const MAX_PAGE_JSON_BYTES: usize = 8 * 1024 * 1024;
/// The largest `write_concern`: the number of peers that have to accept a version.
pub(crate) const MAX_CONCERN: usize = 20;
/// The values of `consistency`, which says whom a read asks.
pub(crate) const CONSISTENCIES: [(&str, Consistency); 5] = [
    ("first", Consistency::LocalFirst),
    ("local", Consistency::Local),
    ("newest", Consistency::Newest),
    ("all", Consistency::All),
    // The former name of `newest`, which clients of this version of the API may send.
    ("latest", Consistency::Newest),
];

/// The form in which a record is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Json,
    Envelope,
}

/// A page of records.
#[derive(Debug, Serialize)]
struct PageBody {
    records: Vec<Record>,
    next: Option<String>,
    report: Option<Value>,
}

/// Whether a request also asks peers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    Local,
    Network,
}

/// Reads a record.
pub(crate) async fn get(State(app): State<Shared>, path: Path, headers: HeaderMap, uri: Uri) -> Answer {
    let mut params = Params::of(&uri)?;
    let key = key_of(&app, &path, &uri, &mut params)?;
    let form = params.choice("format", &[("json", Form::Json), ("envelope", Form::Envelope)])?;
    let form = form.unwrap_or(Form::Json);
    require_accept(&headers, if form == Form::Json { JSON } else { BYTES })?;
    let mut options = GetOptions::default();
    options.consistency = params.choice("consistency", &CONSISTENCIES)?.unwrap_or_default();
    options.timeout = params.timeout()?;
    params.finish()?;
    let known = Named::of(&headers, &header::IF_NONE_MATCH)?;
    let ReadOutcome { record, source, .. } = app.node.get(&key, options).await?;
    let Some(envelope) = record else {
        return Err(no_record(&key));
    };
    let is_known = |tag: &str| known.as_ref().is_some_and(|known| known.names(Some(tag), Comparison::Weak));
    let record = match form {
        Form::Json => Record::new(&app, &key, &envelope, render::source(source)),
        Form::Envelope => None,
    };
    // Hashing a large value twice is avoided.
    let tag = record.as_ref().and_then(Record::tag).map_or_else(|| tag(&envelope), str::to_owned);
    let mut response = if is_known(&tag) {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response
    } else if form == Form::Envelope {
        body::bytes(envelope.to_wire().as_bytes().to_vec())
    } else {
        ok(&record)?
    };
    response.headers_mut().extend(etag(&tag).map(|tag| (header::ETAG, tag)));
    Ok(response)
}

fn no_record(key: &RecordKey) -> Problem {
    Problem::new(Kind::NoRecord, format!("there is no {} under this key", key.model()))
}

/// Writes a record under its key.
pub(crate) async fn put(
    State(app): State<Shared>,
    path: Path,
    headers: HeaderMap,
    uri: Uri,
    body: Body,
) -> Answer {
    require_accept(&headers, JSON)?;
    let mut params = Params::of(&uri)?;
    let key = key_of(&app, &path, &uri, &mut params)?;
    let options = put_options(params)?;
    let model = app.keys.model(path.part("model")?)?;
    let record = encode(&app, model, &json_text(&app, &headers, body).await?)?;
    if app.node.key_of(&record)? != key {
        let own = app.keys.to_text(model.name, &record.keys.primary);
        let detail = format!("the value belongs under the key {own}");
        return Err(Problem::new(Kind::KeyMismatch, detail));
    }
    write(&app, &key, record, options, &headers).await
}

/// Writes a record under the key in its value.
pub(crate) async fn post(
    State(app): State<Shared>,
    path: Path,
    headers: HeaderMap,
    uri: Uri,
    body: Body,
) -> Answer {
    require_accept(&headers, JSON)?;
    let model = app.keys.model(path.part("model")?)?;
    let options = put_options(Params::of(&uri)?)?;
    let record = encode(&app, model, &json_text(&app, &headers, body).await?)?;
    let key = app.node.key_of(&record)?;
    write(&app, &key, record, options, &headers).await
}

async fn write(
    app: &App,
    key: &RecordKey,
    record: EncodedRecord,
    mut options: PutOptions,
    headers: &HeaderMap,
) -> Answer {
    options.expected = condition(app, key, headers)?;
    let outcome = app.node.put(record, options).await?;
    let status = if outcome.replaced { StatusCode::OK } else { StatusCode::CREATED };
    written(app, key, &outcome, status)
}

/// Removes a record.
pub(crate) async fn delete(State(app): State<Shared>, path: Path, headers: HeaderMap, uri: Uri) -> Answer {
    require_accept(&headers, JSON)?;
    let mut params = Params::of(&uri)?;
    let key = key_of(&app, &path, &uri, &mut params)?;
    let mut options = put_options(params)?;
    options.expected = condition(&app, &key, &headers)?;
    let outcome = app.node.remove(key.clone(), options).await?;
    let outcome = outcome.ok_or_else(|| no_record(&key))?;
    written(&app, &key, &outcome, StatusCode::OK)
}

fn written(app: &App, key: &RecordKey, outcome: &WriteOutcome, status: StatusCode) -> Answer {
    let mut response = answer(status, &render::write_outcome(app, key, outcome))?;
    let headers = response.headers_mut();
    headers.extend(etag(&render::hex(&outcome.version.hash)).map(|tag| (header::ETAG, tag)));
    if status == StatusCode::CREATED {
        let location = HeaderValue::try_from(path_of(app, key)).map_err(Problem::internal)?;
        headers.insert(header::LOCATION, location);
    }
    Ok(response)
}

/// Returns the path of a record.
pub(crate) fn path_of(app: &App, key: &RecordKey) -> String {
    record_path(key.model(), &app.keys.to_text(key.model(), key.primary_key()), None)
}

/// Answers with a page of records in the order of a key.
pub(crate) async fn list(State(app): State<Shared>, path: Path, headers: HeaderMap, uri: Uri) -> Answer {
    app.counters.queries.add();
    require_accept(&headers, JSON)?;
    let model = app.keys.model(path.part("model")?)?;
    let mut params = Params::of(&uri)?;
    let reach = params.choice("scope", &[("local", Reach::Local), ("network", Reach::Network)])?;
    let mut query = query_of(&app, model, &mut params)?;
    page_of(&mut params, &mut query)?;
    let authors = authors_of(&mut params)?;
    let resolved = query.resolve(app.node.schema()).map_err(|error| match error {
        QueryError::Cursor(error) => not_continued(error),
        error => Problem::parameter("index", error),
    })?;
    let page = match reach {
        None | Some(Reach::Local) => {
            params.finish()?;
            let filter = authors.filter(app.node.store()).map_err(no_members)?;
            local_page(&app, resolved, filter).await?
        }
        Some(Reach::Network) => {
            let mut options = network_options(&mut params)?;
            params.finish()?;
            authors.filter(app.node.store()).map_err(no_members)?;
            options.authors = authors;
            network_page(&app, model, &query, &options).await?
        }
    };
    ok(&page)
}

/// The parameters of every query. A secondary key of the same name is selected with `index`.
pub(crate) const RESERVED: [&str; 12] = [
    "index",
    "key",
    "prefix",
    "from",
    "to",
    "limit",
    "reverse",
    "cursor",
    "scope",
    "timeout_ms",
    "freshness",
    "authors",
];

/// Refuses a parameter that could also mean a secondary key of the same name.
fn check_ambiguous(model: &ModelSchema, selection: &Selection) -> Answer<()> {
    let Selection { index, key, prefix, from, to } = selection;
    let given = [("key", key), ("prefix", prefix), ("from", from), ("to", to)];
    let is_index = |name: &str| model.indexes.iter().any(|index| index.name == name);
    match given.into_iter().find(|(name, given)| given.is_some() && is_index(name)) {
        Some((name, _)) if index.is_none() => {
            let detail = format!("is also a secondary key of {}: write index={name}&key=..", model.name);
            Err(Problem::parameter(name, detail))
        }
        _ => Ok(()),
    }
}

/// Takes the parameters that select records.
pub(crate) fn query_of(app: &App, model: &'static ModelSchema, params: &mut Params) -> Answer<RawQuery> {
    let mut selection = Selection {
        index: params.take("index")?,
        key: params.take("key")?,
        prefix: params.take("prefix")?,
        from: params.take("from")?,
        to: params.take("to")?,
    };
    check_ambiguous(model, &selection)?;
    let named = model.indexes.iter().map(|index| index.name).filter(|name| !RESERVED.contains(name));
    if let Some((index, key)) = params.one_of(named)? {
        if selection.key.is_some() || selection.index.as_deref().is_some_and(|other| other != index) {
            return Err(Problem::parameter(index, "and another key cannot be asked for together"));
        }
        (selection.index, selection.key) = (Some(index.to_owned()), Some(key));
    }
    if let Some(index) = &selection.index
        && !model.indexes.iter().any(|known| known.name == *index)
    {
        let detail = format!("is not a secondary key of {}: `{index}`", model.name);
        return Err(Problem::parameter("index", detail));
    }
    let given = [
        selection.key.is_some(),
        selection.prefix.is_some(),
        selection.from.is_some() || selection.to.is_some(),
    ];
    if given.iter().filter(|given| **given).count() > 1 {
        return Err(Problem::parameter("prefix", "cannot be together with a key or a range"));
    }
    app.keys.query(model, &selection)
}

fn page_of(params: &mut Params, query: &mut RawQuery) -> Answer<()> {
    let limit = params.parse::<u64>("limit", "a number")?.unwrap_or(DEFAULT_PAGE);
    if !(1..=MAX_PAGE).contains(&limit) {
        return Err(Problem::parameter("limit", format!("must be 1 to {MAX_PAGE}")));
    }
    query.limit = Some(limit);
    query.reverse = params.flag("reverse")?;
    query.after = match params.take("cursor")? {
        None => None,
        Some(text) => {
            let bytes = render::unhex(&text).ok_or_else(|| not_continued(CursorError::Malformed))?;
            Some(Cursor::new(bytes))
        }
    };
    Ok(())
}

/// Takes the authors whose records are asked for.
fn authors_of(params: &mut Params) -> Answer<Authors> {
    let Some(text) = params.take("authors")? else { return Ok(Authors::All) };
    if text == "members" {
        return Ok(Authors::Members);
    }
    let authors = text.split(',').map(str::parse).collect::<Result<_, _>>();
    authors.map(Authors::Of).map_err(|_| {
        Problem::parameter(
            "authors",
            "must be `members`, or public keys of 64 hexadecimal digits with commas between",
        )
    })
}

/// Returns the problem of a query for members where there are none.
fn no_members(error: NetabaseError) -> Problem {
    match error {
        NetabaseError::Store(StoreError::Members(_)) => {
            Problem::parameter("authors", "asks for the members of an open network, which has none")
        }
        error => error.into(),
    }
}

fn not_continued(error: CursorError) -> Problem {
    Problem::parameter("cursor", format!("does not continue this query: {error}"))
}

async fn local_page(app: &Shared, query: ResolvedQuery, authors: AuthorFilter) -> Answer<PageBody> {
    let app = Shared::clone(app);
    let place = Arc::clone(&app.pages).acquire_owned().await.map_err(Problem::internal)?;
    let read = move || {
        let _place = place;
        let mut records = Vec::new();
        let bounds = if authors.is_open() {
            PageBounds { entries: MAX_ENTRIES, bytes: MAX_PAGE_BYTES }
        } else {
            PageBounds { entries: MAX_FILTERED_ENTRIES, bytes: MAX_FILTERED_BYTES }
        };
        let mut json_bytes = 0;
        // Records of other authors do not count.
        let limit = query.limit().and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX);
        let query = query.narrowed(query.span().clone(), usize::MAX);
        let mut found = 0;
        let take = |key: &RecordKey, envelope: Envelope| {
            if !authors.passes(&envelope) {
                return true;
            }
            if json_bytes > MAX_PAGE_JSON_BYTES || found >= limit {
                return false;
            }
            found += 1;
            let record = Record::new(&app, key, &envelope, "local".into());
            json_bytes += record.as_ref().map_or(0, Record::value_len);
            records.extend(record);
            true
        };
        let end = query.page(app.node.store(), bounds, |_| true, take)?;
        let next = end.last.filter(|_| !end.is_last).map(|last| render::hex(query.cursor(&last).as_bytes()));
        Ok(PageBody { records, next, report: None })
    };
    blocking(read).await?
}

fn network_options(params: &mut Params) -> Answer<QueryOptions> {
    let mut options = QueryOptions::default();
    let choices = [("found", Freshness::Found), ("newest", Freshness::Newest)];
    options.freshness = params.choice("freshness", &choices)?.unwrap_or_default();
    options.timeout = params.timeout()?;
    Ok(options)
}

async fn network_page(
    app: &Shared,
    model: &ModelSchema,
    query: &RawQuery,
    options: &QueryOptions,
) -> Answer<PageBody> {
    let scope = Scope { definition: query.definition.clone(), part: ScopePart::Model(model.name.to_owned()) };
    let NodePage { records, cursor, report, .. } = app.node.find(query, scope, options).await?;
    let app = Shared::clone(app);
    let show = move || {
        let record = |(key, envelope): &(RecordKey, Envelope)| {
            let here = app.node.store().envelope(key).ok().flatten();
            let origin = if here.as_ref() == Some(envelope) { "local" } else { "network" };
            Record::new(&app, key, envelope, origin.into())
        };
        records.iter().filter_map(record).collect()
    };
    Ok(PageBody {
        records: blocking(show).await?,
        next: cursor.map(|cursor| render::hex(cursor.as_bytes())),
        report: Some(report_json(&report)),
    })
}

fn report_json(report: &QueryReport) -> Value {
    let peers: Vec<_> = report
        .peers
        .iter()
        .map(|holder| {
            let (answer, reason) = match &holder.answer {
                HolderAnswer::Pending => ("pending", None),
                HolderAnswer::Answered => ("answered", None),
                HolderAnswer::CutOff(cut) => ("cut_off", Some(format!("{cut:?}").to_lowercase())),
                HolderAnswer::Failed(HolderFailure::Unreachable(reason)) => {
                    ("failed", Some(reason.to_string()))
                }
                HolderAnswer::Failed(failure) => ("failed", Some(format!("{failure:?}").to_lowercase())),
                HolderAnswer::NotAsked => ("not_asked", None),
                _ => ("other", None),
            };
            json!({
                "peer": holder.peer.to_string(),
                "answer": answer,
                "reason": reason,
                "records": holder.records,
                "bytes": holder.bytes,
                "refused": holder.refused,
            })
        })
        .collect();
    json!({
        "is_complete": report.is_complete(),
        "all_holders_found": report.all_holders_found,
        "local_records": report.local_records,
        "of_others": report.of_others,
        "skipped": report.skipped,
        "unreadable": report.unreadable,
        "peers": peers,
    })
}

fn put_options(mut params: Params) -> Answer<PutOptions> {
    let mut options = PutOptions::default();
    let concern = params.parse::<usize>("write_concern", "a number")?;
    if concern.is_some_and(|concern| concern > MAX_CONCERN) {
        return Err(Problem::parameter("write_concern", format!("must be 0 to {MAX_CONCERN}")));
    }
    options.write_concern = concern;
    options.timeout = params.timeout()?;
    params.finish()?;
    Ok(options)
}

/// Returns the key of the record of a request, from its path or its parameter `key`.
pub(crate) fn key_of(app: &App, path: &Path, uri: &Uri, params: &mut Params) -> Answer<RecordKey> {
    let model = app.keys.model(path.part("model")?)?;
    if let Some(text) = path.find("key") {
        return app.keys.record(model, text);
    }
    if uri.path().ends_with('/') {
        return app.keys.record(model, "");
    }
    let text = params.take("key")?;
    let text =
        text.ok_or_else(|| Problem::parameter("key", "is missing: write the primary key as `?key=`"))?;
    app.keys.record(model, &text)
}
