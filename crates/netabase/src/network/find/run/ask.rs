//! Questions to peers, one page at a time.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use libp2p::PeerId;
use netabase_store::{NetabaseStore, ResolvedQuery};
use tokio::sync::{Semaphore, mpsc};

use super::PAGE_BYTES;
use crate::error::NetabaseError;
use crate::find::report::{HolderFailure, QueryOptions};
use crate::network::ask::Silence;
use crate::network::command::{Command, Reply};
use crate::network::find::MAX_PAGES_IN_FLIGHT;
use crate::network::find::intake::{Asked, Outcome, is_busy};
use crate::network::find::merge::SourceId;
use crate::network::find::wire::PageRequest;
use crate::network::record_protocol::{Frame, REQUEST_TIMEOUT};

/// How often a busy peer is asked again, and how much later each time.
const BUSY_RETRIES: u32 = 3;
const BUSY_PAUSE: Duration = Duration::from_millis(100);

/// What the queries of a node share.
#[derive(Debug, Clone)]
pub(crate) struct Asker {
    store: NetabaseStore,
    /// Does not keep the swarm running.
    commands: mpsc::WeakSender<Command>,
    pages: Arc<Semaphore>,
}

impl Asker {
    pub(crate) fn new(store: NetabaseStore, commands: mpsc::WeakSender<Command>) -> Self {
        Self { store, commands, pages: Arc::new(Semaphore::new(MAX_PAGES_IN_FLIGHT)) }
    }

    /// Sends a command and waits for its reply.
    pub(in crate::network::find) async fn call<T>(
        &self,
        command: impl FnOnce(Reply<T>) -> Command,
    ) -> Result<T, NetabaseError> {
        let (reply, answer) = Reply::new(None);
        let commands = self.commands.upgrade().ok_or(NetabaseError::Closed)?;
        commands.send(command(reply)).await.map_err(|_| NetabaseError::Closed)?;
        drop(commands);
        answer.await.map_err(|_| NetabaseError::Closed)?
    }

    pub(in crate::network::find) fn store(&self) -> &NetabaseStore {
        &self.store
    }

    /// Tells of what was refused of a peer, without waiting for anybody.
    pub(in crate::network::find) async fn tell_refused(&self, peer: PeerId, outcome: &mut Outcome) {
        let refused = std::mem::take(&mut outcome.refused);
        if refused.is_empty() {
            return;
        }
        if let Some(commands) = self.commands.upgrade() {
            // Without the loop nobody counts any more.
            let _ = commands.send(Command::Refused { peer, refused }).await;
        }
    }
}

/// The answer of a source to one question.
pub(super) struct Answer {
    pub(super) source: SourceId,
    pub(super) asked: Asked,
    pub(super) said: Result<Frame, HolderFailure>,
}

/// This node answers itself: what it has is read where answers are.
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

/// Asks a peer, and again if it is busy.
async fn ask(asker: &Asker, peer: PeerId, request: Frame, timeout: Duration) -> Result<Frame, HolderFailure> {
    let mut pause = BUSY_PAUSE;
    for _ in 0..BUSY_RETRIES {
        let frame = ask_once(asker, peer, request.clone(), timeout).await?;
        if !is_busy(&frame) {
            return Ok(frame);
        }
        tokio::time::sleep(pause).await;
        pause *= 2;
    }
    Err(HolderFailure::Busy)
}

async fn ask_once(
    asker: &Asker,
    peer: PeerId,
    request: Frame,
    timeout: Duration,
) -> Result<Frame, HolderFailure> {
    let closed = |_| HolderFailure::Unreachable(Arc::from("the swarm was stopped"));
    // Its time begins when it is its turn.
    let _page = asker.pages.acquire().await.map_err(|_| HolderFailure::TimedOut)?;
    let answer = asker.call(|reply| Command::AskPage { peer, request, reply });
    let answer = tokio::time::timeout(timeout, answer).await.map_err(|_| HolderFailure::TimedOut)?;
    answer.map_err(closed)?.map_err(|silence| match silence {
        Silence::TimedOut => HolderFailure::TimedOut,
        Silence::Unreachable(reason) => HolderFailure::Unreachable(reason),
    })
}
