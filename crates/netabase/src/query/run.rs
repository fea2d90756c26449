//! The task of a query, which lives as long as its results are read.

use std::collections::HashSet;
use std::sync::Arc;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use libp2p::PeerId;
use netabase_store::key::KeySpan;
use netabase_store::query::ResolvedQuery;
use netabase_store::{Cursor, Scope};
use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::error::NetabaseError;
use crate::event_loop::command::Command;
use crate::platform::{self, Instant};
use crate::protocol::limits::MAX_PAGE_RECORDS;
use crate::query::authors::AuthorFilter;
use crate::query::holders::Holders;
use crate::query::intake::{Asked, Intake};
use crate::query::limits::{CONFIRM_BATCH, MAX_HOLDERS, MIN_PAGE_RECORDS, READ_AHEAD_RECORDS};
use crate::query::merge::{FoundRecord, Merge, SourceId};
use crate::query::report::{
    CutOff, Freshness, HolderAnswer, HolderFailure, HolderReport, QueryOptions, QueryReport,
};

mod ask;
mod judge;

pub(crate) use ask::Asker;
use ask::{Answer, local_answer, peer_answer};

/// A query to run.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) asker: Asker,
    pub(crate) query: Arc<ResolvedQuery>,
    /// The smallest scope that has all matching records.
    pub(crate) scope: Scope,
    pub(crate) authors: AuthorFilter,
    pub(crate) options: QueryOptions,
    pub(crate) deadline: Option<Instant>,
    pub(crate) report: Arc<Mutex<QueryReport>>,
    pub(crate) records: mpsc::Sender<Result<FoundRecord, NetabaseError>>,
}

/// The end of a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RunEnd {
    /// There are no further records.
    All,
    /// There may be further records after this entry.
    After(Cursor),
    /// No source has answered in time.
    Nothing,
    /// The reader is gone, or reading has failed, which the reader was told.
    Abandoned,
}

/// A source of records: a peer, or this node.
struct Source {
    /// `None` means this node.
    peer: Option<PeerId>,
    /// The rest of the span that the source has not sent yet.
    left: KeySpan,
    asking: bool,
    pages: u32,
    empty_pages: u32,
    state: SourceState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SourceState {
    Active,
    /// The source has ended or is gone.
    Over,
}

/// A running query without its merge, which may be on another thread.
struct Asking {
    run: Run,
    sources: Vec<Source>,
    /// The peers that are asked for newer versions, in addition to the sources.
    confirmers: Vec<PeerId>,
    in_flight: FuturesUnordered<BoxFuture<'static, Answer>>,
    left: u64,
}

const LOCAL: SourceId = 0;

impl Run {
    /// Runs until every record is found, the limit is reached, or the reader is gone.
    pub(crate) async fn run(self) -> RunEnd {
        let records = self.records.clone();
        let until = self.deadline;
        let asked = async {
            let mut merge = Merge::new(Arc::clone(&self.query), self.authors.clone());
            let mut asking = Asking::begin(self, &mut merge).await?;
            asking.go_on(merge).await
        };
        tokio::select! {
            () = records.closed() => RunEnd::Abandoned,
            end = asked => match end {
                Ok(end) => end,
                Err(NetabaseError::Timeout { .. }) if until.is_some() => RunEnd::Nothing,
                Err(error) => {
                    let _ = records.send(Err(error)).await;
                    RunEnd::Abandoned
                }
            },
        }
    }

    async fn find_holders(&self, scope: Scope) -> Result<Holders, NetabaseError> {
        let found = self.asker.commands().call(|reply| Command::FindHolders { scope, reply });
        let Some(deadline) = self.deadline else { return found.await };
        // Local records are returned nevertheless.
        platform::timeout_at(deadline, found).await.unwrap_or_else(|_| Ok(Holders::default()))
    }

    fn model_scope(&self) -> Scope {
        let part = netabase_store::ScopePart::Model(self.query.model().name.to_owned());
        Scope { definition: self.scope.definition.clone(), part }
    }
}

impl Asking {
    /// Looks up the sources.
    async fn begin(run: Run, merge: &mut Merge) -> Result<Self, NetabaseError> {
        let newest = run.options.freshness == Freshness::Newest;
        let all =
            async { if newest { run.find_holders(run.model_scope()).await } else { Ok(Holders::default()) } };
        let (found, all) = futures::try_join!(run.find_holders(run.scope.clone()), all)?;
        let max_peers = run.options.max_peers.min(MAX_HOLDERS);
        let (asked, others) = found.peers.split_at(found.peers.len().min(max_peers));
        let confirmers = all.peers.iter().filter(|peer| !asked.contains(peer)).take(max_peers).copied();
        let confirmers: Vec<PeerId> = confirmers.collect();
        {
            let mut report = run.report.lock();
            let state = |answer: HolderAnswer| move |peer: &PeerId| HolderReport::new(*peer, answer.clone());
            report.peers = asked.iter().map(state(HolderAnswer::Pending)).collect();
            report.peers.extend(others.iter().map(state(HolderAnswer::NotAsked)));
            report.all_holders_found = found.is_complete && (!newest || all.is_complete);
        }
        let peers = std::iter::once(None).chain(asked.iter().copied().map(Some));
        let sources = peers.map(|peer| {
            merge.add_source();
            let left = run.query.span().clone();
            Source { peer, left, asking: false, pages: 0, empty_pages: 0, state: SourceState::Active }
        });
        let sources = sources.collect();
        let left = run.query.limit().unwrap_or(u64::MAX);
        Ok(Self { run, sources, confirmers, in_flight: FuturesUnordered::new(), left })
    }

    async fn go_on(&mut self, mut merge: Merge) -> Result<RunEnd, NetabaseError> {
        let mut last = None;
        loop {
            merge = self.give_out(merge, &mut last).await?;
            if merge.is_finished() {
                self.end(&HolderAnswer::Answered);
                return Ok(RunEnd::All);
            }
            if self.left == 0 {
                self.end(&HolderAnswer::Answered);
                return Ok(last.map_or(RunEnd::Nothing, |last| RunEnd::After(self.run.query.cursor(&last))));
            }
            self.ask_for_more(&merge);
            let answer = match self.run.deadline {
                Some(deadline) => platform::timeout_at(deadline, self.in_flight.next()).await,
                None => Ok(self.in_flight.next().await),
            };
            match answer {
                Ok(Some(answer)) => merge = self.on_answer(merge, answer).await?,
                Ok(None) => {
                    // No request is in flight, so there is nothing to wait for.
                    debug_assert!(false, "a source was neither asked nor over");
                    return Ok(RunEnd::Nothing);
                }
                Err(_) => return self.end_in_time(merge, last).await,
            }
        }
    }

    /// Returns the records that every source has passed.
    async fn give_out(
        &mut self,
        mut merge: Merge,
        last: &mut Option<Vec<u8>>,
    ) -> Result<Merge, NetabaseError> {
        loop {
            let count = CONFIRM_BATCH.min(usize::try_from(self.left).unwrap_or(CONFIRM_BATCH));
            let ready = merge.ready(count);
            if ready.is_empty() || count == 0 {
                return Ok(merge);
            }
            let only = if self.run.options.freshness == Freshness::Newest {
                let peers: Vec<(Option<SourceId>, PeerId)> = self.who_confirms();
                let keys = ready.iter().map(|(key, ..)| key.clone()).collect::<HashSet<_>>();
                merge = self.run.asker.confirm(merge, ready, &peers, self.run.options.peer_timeout).await?;
                Some(keys)
            } else {
                None
            };
            let store = self.run.asker.store().clone();
            let (returned, taken) = on_a_thread(move || {
                let taken = merge.take(&store, count, LOCAL, only.as_ref());
                (merge, taken)
            })
            .await?;
            merge = returned;
            for found in taken {
                *last = Some(found.entry.clone());
                self.left = self.left.saturating_sub(1);
                // A reader that is gone ends the task.
                let _ = self.run.records.send(Ok(found)).await;
            }
        }
    }

    /// Returns all peers that may have newer versions.
    fn who_confirms(&self) -> Vec<(Option<SourceId>, PeerId)> {
        let failed: HashSet<PeerId> = {
            let report = self.run.report.lock();
            let failed = report.peers.iter().filter(|peer| matches!(peer.answer, HolderAnswer::Failed(_)));
            failed.map(|peer| peer.peer).collect()
        };
        let sources = self.sources.iter().enumerate();
        let sources = sources.filter_map(|(id, source)| Some((Some(id), source.peer?)));
        let others = self.confirmers.iter().map(|peer| (None, *peer));
        sources.chain(others).filter(|(_, peer)| !failed.contains(peer)).collect()
    }

    /// Requests the next page of every source that the others wait for, or soon will.
    fn ask_for_more(&mut self, merge: &Merge) {
        let wanted = READ_AHEAD_RECORDS.min(usize::try_from(self.left).unwrap_or(READ_AHEAD_RECORDS));
        let records = usize::try_from(self.left).unwrap_or(usize::MAX);
        let records = records.clamp(MIN_PAGE_RECORDS, MAX_PAGE_RECORDS);
        // A source whose first page had too few of the authors' records may have many of others'.
        let is_open = self.run.authors.is_open();
        for (id, source) in self.sources.iter_mut().enumerate() {
            if source.asking || source.state == SourceState::Over || !merge.is_short(id, wanted) {
                continue;
            }
            source.asking = true;
            let records = if is_open || source.pages == 0 { records } else { MAX_PAGE_RECORDS };
            let asked = Asked { span: source.left.clone(), records };
            let answer = match source.peer {
                None => local_answer(id, asked),
                Some(peer) => {
                    peer_answer(&self.run.asker, &self.run.query, peer, id, asked, &self.run.options)
                }
            };
            self.in_flight.push(answer);
        }
    }

    async fn on_answer(&mut self, mut merge: Merge, answer: Answer) -> Result<Merge, NetabaseError> {
        let Answer { source: id, asked, said } = answer;
        let Some(peer) = self.sources.get_mut(id).map(|source| {
            source.asking = false;
            source.pages += 1;
            source.peer
        }) else {
            return Ok(merge);
        };
        let bytes = said.as_ref().ok().and_then(|frame| frame.bytes().ok()).map_or(0, <[u8]>::len);
        let intake = match said {
            Err(failure) => {
                self.fail(&mut merge, id, failure);
                return Ok(merge);
            }
            Ok(frame) => {
                let asker = &self.run.asker;
                let (store, admission) = (asker.store().clone(), asker.admission().clone());
                Intake { store, admission, source: id, asked, frame }
            }
        };
        let (returned, mut outcome) = on_a_thread(move || {
            let outcome = match peer {
                None => intake.read_local(&mut merge),
                Some(peer) => intake.take(peer, &mut merge),
            };
            (merge, outcome)
        })
        .await?;
        merge = returned;
        let error = outcome.error.take();
        if let Some(peer) = peer {
            self.run.asker.tell_refused(peer, &mut outcome).await;
        }
        if let Some(error) = error {
            return Err(error);
        }
        self.judge(&mut merge, id, outcome, bytes);
        Ok(merge)
    }

    /// Handles the timeout: sources that have not answered at all are dropped, and the records that
    /// the others have passed are returned.
    async fn end_in_time(
        &mut self,
        mut merge: Merge,
        mut last: Option<Vec<u8>>,
    ) -> Result<RunEnd, NetabaseError> {
        let silent = self.sources.iter().enumerate();
        let silent = silent.filter(|(_, source)| source.state == SourceState::Active && source.pages == 0);
        let silent: Vec<SourceId> = silent.map(|(id, _)| id).collect();
        for id in silent {
            self.fail(&mut merge, id, HolderFailure::TimedOut);
        }
        merge = self.give_out(merge, &mut last).await?;
        self.end(&HolderAnswer::CutOff(CutOff::Time));
        if merge.is_finished() {
            return Ok(RunEnd::All);
        }
        let passed = merge.frontier().ok().flatten().cloned().filter(|_| self.left > 0).or(last);
        Ok(passed.map_or(RunEnd::Nothing, |passed| RunEnd::After(self.run.query.cursor(&passed))))
    }
}

impl HolderReport {
    fn new(peer: PeerId, answer: HolderAnswer) -> Self {
        Self { peer, answer, records: 0, bytes: 0, refused: 0 }
    }
}

/// Runs blocking work, or the verification of signatures, on a thread of its own.
pub(crate) async fn on_a_thread<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, NetabaseError> {
    let ended = platform::blocking(work).await;
    ended.map_err(|error| {
        tracing::error!(%error, "a query has failed");
        NetabaseError::Closed
    })
}
