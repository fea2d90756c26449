//! Live changes of records.

use axum::extract::State;
use axum::http::{HeaderMap, Uri};
use axum::response::sse::Event;
use futures::StreamExt;
use netabase::changes::{Change, ChangeKind};
use netabase::changes::{ChangePosition, ChangeStream, NumberedChange};
use netabase::netabase_store::query::ResolvedQuery;
use netabase::sync::ScopePart;
use netabase::{Envelope, Replication, Scope, StoreError, WatchFrom};

use crate::app::Shared;
use crate::body::written;
use crate::params::Params;
use crate::problem::{Answer, Problem};
use crate::render::Record;
use crate::routes::details::origin as origin_name;
use crate::routes::records::{Reach, query_of};
use crate::sse::{Source, admit, stream_of};

/// The number of skipped changes after which the task yields.
const STEP: usize = 256;

/// Follows the changes of records.
pub(crate) async fn changes(State(app): State<Shared>, headers: HeaderMap, uri: Uri) -> Answer {
    let mut params = Params::of(&uri)?;
    let since = params.parse::<ChangePosition>("since", "the id of a change, or its number")?;
    let last = match headers.get("last-event-id") {
        None => None,
        Some(last) => {
            let position = last.to_str().ok().and_then(|last| last.parse::<ChangePosition>().ok());
            Some(position.ok_or_else(|| Problem::parameter("Last-Event-ID", "is not the id of a change"))?)
        }
    };
    let reach = params.choice("scope", &[("local", Reach::Local), ("network", Reach::Network)])?;
    let model = params.take("model")?.map(|model| app.keys.model(&model)).transpose()?;
    let filter = match model {
        Some(model) => {
            let query = query_of(&app, model, &mut params)?;
            let resolved = query.resolve(app.node.schema());
            Some(resolved.map_err(|error| Problem::parameter("index", error))?)
        }
        None => None,
    };
    params.finish()?;
    let permit = admit(&app, &headers)?;
    let replication = match reach {
        Some(Reach::Network) => {
            let definition = app.node.schema().name.to_owned();
            let part = model.map_or(ScopePart::All, |model| ScopePart::Model(model.name.to_owned()));
            Some(app.node.replicate(Scope { definition, part })?)
        }
        _ => None,
    };
    // A browser that reconnects sends the former `since` as well.
    let from = last.or(since).map_or(WatchFrom::Now, WatchFrom::Position);
    let changes = app.node.store().changes(from)?.into_stream();
    let source = Following {
        app: Shared::clone(&app),
        last: changes.position(),
        changes,
        filter,
        _replication: replication,
    };
    Ok(stream_of(&app, permit, source))
}

/// A stream of the changes of some records.
struct Following {
    app: Shared,
    changes: ChangeStream,
    filter: Option<ResolvedQuery>,
    /// The position of the last change that was examined.
    last: ChangePosition,
    /// Replicates the records to this node while the stream is open.
    _replication: Option<Replication>,
}

impl Source for Following {
    async fn next(&mut self) -> Option<Event> {
        loop {
            for _ in 0..STEP {
                match self.changes.next().await? {
                    Ok(NumberedChange { change, .. }) => {
                        self.last = self.changes.position();
                        if let Some(event) = self.event(self.last, &change) {
                            return Some(event);
                        }
                    }
                    Err(error) => return Some(failed(error)),
                }
            }
            tokio::task::yield_now().await;
        }
    }

    /// Carries the position, so that a client that reconnects does not repeat the skipped changes.
    fn keep_alive(&self) -> Event {
        Event::default().id(self.last.to_string())
    }
}

impl Following {
    fn event(&self, position: ChangePosition, change: &Change) -> Option<Event> {
        let Change { key, kind, envelope, previous, origin } = change;
        let was = previous.as_ref().is_some_and(|previous| self.follows(change, previous));
        let new = envelope.as_ref().filter(|_| matches!(kind, ChangeKind::Stored | ChangeKind::Updated));
        let is = new.is_some_and(|new| self.follows(change, new));
        let origin = origin_name(*origin).into();
        let (name, record) = match (new, envelope) {
            (Some(new), _) if is => ("put", Record::new(&self.app, key, new, origin)?),
            _ if !was => return None,
            (Some(_), _) => ("remove", Record::gone(&self.app, key, origin, "left")?),
            (None, Some(tombstone)) => {
                let mut record = Record::new(&self.app, key, tombstone, origin)?;
                record.reason = Some(reason(*kind));
                ("remove", record)
            }
            (None, None) => ("remove", Record::gone(&self.app, key, origin, reason(*kind))?),
        };
        let data = written(&record).ok()?;
        Some(Event::default().id(position.to_string()).event(name).data(data))
    }

    fn follows(&self, change: &Change, envelope: &Envelope) -> bool {
        let Some(filter) = &self.filter else { return true };
        let model = filter.model();
        change.key.model() == model.name
            && change.key.policy() == model.policy
            && !filter.entries_of(&change.key, envelope).is_empty()
    }
}

fn reason(kind: ChangeKind) -> &'static str {
    match kind {
        ChangeKind::Expired => "expired",
        ChangeKind::Evicted => "evicted",
        _ => "deleted",
    }
}

/// Returns the last event of a stream that has failed.
fn failed(error: StoreError) -> Event {
    Event::default().event("problem").data(Problem::from(error).document())
}
