//! Requests of a query, one page at a time.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use libp2p::PeerId;
use netabase_store::NetabaseStore;
use netabase_store::query::ResolvedQuery;
use tokio::sync::Semaphore;

use crate::admission::Admission;
use crate::event_loop::command::Commands;
use crate::platform;
use crate::protocol::query::PageRequest;
use crate::query::intake::{Asked, Outcome, is_busy};
use crate::query::limits::{BUSY_BACKOFF, MAX_BUSY_REQUESTS, MAX_PAGES_IN_FLIGHT, PAGE_BYTES};
use crate::query::merge::SourceId;
use crate::query::report::{HolderFailure, QueryOptions};
use crate::rpc::Protocol;
use crate::rpc::frame::Frame;
use crate::rpc::limits::REQUEST_TIMEOUT;
use crate::rpc::outbox::Silence;
use crate::swarm::Parts;

/// The state that the queries of a node share.
#[derive(Debug, Clone)]
pub(crate) struct Asker {
    store: NetabaseStore,
    admission: Admission,
    commands: Commands,
    pages: Arc<Semaphore>,
}

impl Asker {
    pub(crate) fn new(parts: &Parts, commands: Commands) -> Self {
        let pages = Arc::new(Semaphore::new(MAX_PAGES_IN_FLIGHT));
        Self { store: parts.store.clone(), admission: parts.admission(), commands, pages }
    }

    pub(crate) fn commands(&self) -> &Commands {
        &self.commands
    }

    pub(crate) fn store(&self) -> &NetabaseStore {
        &self.store
    }

    pub(crate) fn admission(&self) -> &Admission {
        &self.admission
    }

    /// Reports a peer's refused records, without waiting for the reply.
    pub(crate) async fn tell_refused(&self, peer: PeerId, outcome: &mut Outcome) {
        // A stopped event loop counts no offences.
        let _ = self.commands.refuse(peer, std::mem::take(&mut outcome.refused)).await;
    }
}

/// The answer of a source to one request.
pub(super) struct Answer {
    pub(super) source: SourceId,
    pub(super) asked: Asked,
    pub(super) said: Result<Frame, HolderFailure>,
}

/// Returns this node's own answer, whose records are read when answers are decoded.
pub(super) fn local_answer(source: SourceId, asked: Asked) -> BoxFuture<'static, Answer> {
    let said = Ok(Frame::new(Vec::new()));
    Box::pin(std::future::ready(Answer { source, asked, said }))
}

pub(super) fn peer_answer(
    asker: &Asker,
    query: &ResolvedQuery,
    peer: PeerId,
    source: SourceId,
    question: Asked,
    options: &QueryOptions,
) -> BoxFuture<'static, Answer> {
    let model = query.model().marked_name();
    let request = PageRequest {
        definition: query.definition(),
        model: &model,
        index: query.index(),
        span: question.span.clone(),
        reverse: query.is_reverse(),
        records: question.records,
        bytes: PAGE_BYTES,
    };
    let (request, asker) = (Frame::new(request.encode()), asker.clone());
    let timeout = options.peer_timeout.min(REQUEST_TIMEOUT);
    Box::pin(
        async move { Answer { source, asked: question, said: ask(&asker, peer, request, timeout).await } },
    )
}

/// Asks a peer, and retries while it is busy.
async fn ask(asker: &Asker, peer: PeerId, request: Frame, timeout: Duration) -> Result<Frame, HolderFailure> {
    for failures in 1..=MAX_BUSY_REQUESTS {
        let frame = ask_once(asker, peer, request.clone(), timeout).await?;
        if !is_busy(&frame) {
            return Ok(frame);
        }
        platform::sleep(BUSY_BACKOFF.after(failures)).await;
    }
    Err(HolderFailure::Busy)
}

async fn ask_once(
    asker: &Asker,
    peer: PeerId,
    request: Frame,
    timeout: Duration,
) -> Result<Frame, HolderFailure> {
    // The timeout starts when the request may be sent.
    let _page = asker.pages.acquire().await.map_err(|_| HolderFailure::TimedOut)?;
    let answer = asker.commands.ask(Protocol::Query, peer, request);
    let answer = platform::timeout(timeout, answer).await.map_err(|_| HolderFailure::TimedOut)?;
    answer.map_err(|silence| match silence {
        Silence::TimedOut => HolderFailure::TimedOut,
        Silence::Stopped => HolderFailure::Unreachable(Arc::from("the swarm was stopped")),
        Silence::Unreachable(reason) => HolderFailure::Unreachable(reason),
    })
}
