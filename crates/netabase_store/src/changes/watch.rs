//! Following the changes of a store.

use std::collections::VecDeque;
use std::fmt;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_core::Stream;

use crate::changes::change::{Change, ChangeKind, Origin};
use crate::changes::feed::{Feed, FollowerState};
use crate::changes::history::{self, Position};
use crate::changes::limits::POLL_CHANGES;
use crate::changes::position::{ChangePosition, Histories};
use crate::core::Core;
use crate::error::{HistoryError, StoreError};
use crate::model::schema::{IndexKeys, NetabaseModel, decode_payload};
use crate::options::WriterMode;
use crate::platform::{self, HAS_THREADS, Instant};
use crate::read::view::Scan;
use crate::version::envelope::Envelope;

/// The change at which following begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WatchFrom {
    /// With the next change.
    Now,
    /// With the oldest change that is kept.
    Oldest,
    /// With the change after the one at this position, such as the last one that was seen before a
    /// restart.
    ///
    /// Fails with [`HistoryError::Gone`](crate::changes::HistoryError::Gone) if the position is of
    /// another database, or of a change after the copy that was restored.
    Position(ChangePosition),
    /// With the change after the one of this number.
    ///
    /// The number must be of this database: in another one, and after a backup was restored, it may
    /// be of another change than the one that was seen, and the store cannot detect that. Keep a
    /// [`WatchFrom::Position`] instead.
    After(u64),
}

/// A change with its number.
#[derive(Debug, Clone)]
pub struct NumberedChange {
    /// The place of the change among all changes of the database, from 1, without gaps over
    /// restarts.
    pub sequence: u64,
    /// The change.
    pub change: Change,
}

/// The committed changes of a store, in the order of their commits; see
/// [`NetabaseStore::changes`](crate::NetabaseStore::changes).
///
/// Iterating waits for the next change, and ends when the store is closed, which following does not
/// prevent. Later changes can be read from the [position](Changes::position) on after the store is
/// opened again. A follower that is so slow that the history no longer has its next change gets
/// [`HistoryError::Trimmed`](crate::changes::HistoryError::Trimmed), once, and then the end.
///
/// Waiting drives a writer that [has no thread](crate::WriterMode::Driven). In a browser, where
/// there is one thread, waiting ends when there is nothing more to read: take the
/// [stream](Changes::into_stream).
pub struct Changes {
    core: Weak<Core>,
    feed: Arc<Feed>,
    follower: u64,
    /// The number of the next change to read from the history.
    next: u64,
    /// The known histories, as of the last read.
    histories: Histories,
    /// Changes of one row of the history that were read and not returned.
    read: VecDeque<(u64, Change)>,
    ended: bool,
}

impl Changes {
    pub(crate) fn new(core: &Arc<Core>, from: WatchFrom) -> Result<Self, StoreError> {
        if core.options().history_bytes == 0 {
            return Err(HistoryError::NotKept.into());
        }
        // The end that readers see, who may read a commit before it is published.
        let snapshot = core.engine().snapshot()?;
        let end = Position::load(&snapshot)?.next;
        let histories = Histories::load(&snapshot)?;
        let next = match from {
            WatchFrom::Now => end,
            WatchFrom::Oldest => history::oldest(&snapshot, end)?,
            // A copy that was restored and not written since has begun no other history.
            WatchFrom::Position(position) if !histories.knows(position) || position.sequence() >= end => {
                return Err(HistoryError::Gone { position }.into());
            }
            WatchFrom::Position(position) => position.sequence() + 1,
            WatchFrom::After(sequence) if sequence >= end => {
                return Err(HistoryError::NoSuchChange { sequence, newest: end - 1 }.into());
            }
            WatchFrom::After(sequence) => sequence + 1,
        };
        if next < end {
            // A trimmed history is known at once.
            history::read(&snapshot, next)?;
        }
        let feed = Arc::clone(core.feed());
        let follower = feed.follow();
        let (core, read) = (Arc::downgrade(core), VecDeque::new());
        Ok(Self { core, feed, follower, next, histories, read, ended: false })
    }

    /// Follows from another change, while the store is open.
    fn from(mut self, from: WatchFrom) -> Result<Self, StoreError> {
        // Outlives the core: a store that is closed meanwhile waits for it.
        let feed = Arc::clone(&self.feed);
        let _reading = feed.reading();
        let Some(core) = self.core.upgrade() else {
            self.ended = true;
            return Ok(self);
        };
        Self::new(&core, from)
    }

    /// Returns the next change if it is committed already; does not wait.
    ///
    /// Blocks on the disk where a page is not cached, for microseconds otherwise.
    pub fn try_next(&mut self) -> Result<Option<NumberedChange>, StoreError> {
        self.next_until(Some(platform::now()))
    }

    /// Waits at most `timeout` for the next change.
    pub fn next_timeout(&mut self, timeout: Duration) -> Result<Option<NumberedChange>, StoreError> {
        self.next_until(platform::now().checked_add(timeout))
    }

    /// Returns the position of the last change before the next one, for [`WatchFrom::Position`].
    pub fn position(&self) -> ChangePosition {
        self.histories.position(self.read.front().map_or(self.next, |(sequence, _)| *sequence) - 1)
    }

    /// Returns the same changes as an asynchronous stream, for any runtime.
    ///
    /// The stream reads the changes from the database when it is polled, mostly from its cache.
    pub fn into_stream(self) -> ChangeStream {
        ChangeStream(self)
    }

    fn next_until(&mut self, deadline: Option<Instant>) -> Result<Option<NumberedChange>, StoreError> {
        while !self.ended {
            if let Some((sequence, change)) = self.read.pop_front() {
                return Ok(Some(NumberedChange { sequence, change }));
            }
            match self.wait(deadline) {
                FollowerState::Ahead => self.refill()?,
                FollowerState::Current => break,
                FollowerState::Closed => self.end()?,
            }
        }
        Ok(None)
    }

    /// Waits for a change, at most until `deadline`; drives a writer that has no thread meanwhile.
    fn wait(&self, deadline: Option<Instant>) -> FollowerState {
        loop {
            let now = platform::now();
            let found = self.feed.wait(self.next, Some(now));
            if found != FollowerState::Current || deadline.is_some_and(|deadline| deadline <= now) {
                return found;
            }
            match self.drive_writer() {
                None => return self.feed.wait(self.next, deadline),
                // Nobody else makes a change while the only thread waits.
                Some(_) if !HAS_THREADS => return self.feed.wait(self.next, Some(now)),
                Some(rest) => {
                    let until = now.checked_add(rest).into_iter().chain(deadline).min();
                    self.feed.wait(self.next, until);
                }
            }
        }
    }

    /// Lets a writer without a thread carry out all due work; returns the time until more is due.
    fn drive_writer(&self) -> Option<Duration> {
        // Outlives the core: a store that is closed meanwhile waits for it.
        let _reading = self.feed.reading();
        let core = self.core.upgrade().filter(|core| core.options().writer == WriterMode::Driven)?;
        if core.queue().is_writer() {
            return None;
        }
        loop {
            let rest = core.step_writer()?;
            if !rest.is_zero() {
                return Some(rest);
            }
        }
    }

    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<NumberedChange, StoreError>>> {
        while !self.ended {
            if let Some((sequence, change)) = self.read.pop_front() {
                return Poll::Ready(Some(Ok(NumberedChange { sequence, change })));
            }
            match self.feed.poll(self.follower, self.next, context.waker()) {
                FollowerState::Ahead => {
                    if let Err(error) = self.refill() {
                        return Poll::Ready(Some(Err(error)));
                    }
                }
                FollowerState::Current => return Poll::Pending,
                FollowerState::Closed => {
                    if let Err(error) = self.end() {
                        return Poll::Ready(Some(Err(error)));
                    }
                }
            }
        }
        Poll::Ready(None)
    }

    /// Ends, with the error if the store has failed.
    fn end(&mut self) -> Result<(), StoreError> {
        self.ended = true;
        // Outlives the core: a store that is closed meanwhile waits for it.
        let _reading = self.feed.reading();
        let failure = self.core.upgrade().and_then(|core| core.poisoned());
        failure.map_or(Ok(()), Err)
    }

    fn refill(&mut self) -> Result<(), StoreError> {
        // Outlives `core`: a store that is closed meanwhile waits for it.
        let _reading = self.feed.reading();
        let Some(core) = self.core.upgrade() else {
            self.ended = true;
            return Ok(());
        };
        let read = core.engine().snapshot().and_then(|snapshot| {
            // A store that has written nothing before begins its history with the changes of this
            // read.
            self.histories = Histories::load(&snapshot)?;
            history::read(&snapshot, self.next)
        });
        // There must be something: the writer has said so.
        let read = read.and_then(|read| if read.is_empty() { Err(history::damaged()) } else { Ok(read) });
        // A change that cannot be read now cannot be read the next time either.
        self.ended = read.is_err();
        self.read.extend(read?);
        self.next = self.read.back().map_or(self.next, |(sequence, _)| sequence + 1);
        Ok(())
    }
}

impl Iterator for Changes {
    type Item = Result<NumberedChange, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_until(None).transpose()
    }
}

impl Drop for Changes {
    fn drop(&mut self) {
        self.feed.leave(self.follower);
    }
}

impl fmt::Debug for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Changes")
            .field("next", &self.next)
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}

/// [`Changes`] as a stream.
#[derive(Debug)]
pub struct ChangeStream(Changes);

impl ChangeStream {
    /// Returns the position of the last change before the next one, as [`Changes::position`] does.
    pub fn position(&self) -> ChangePosition {
        self.0.position()
    }
}

impl Stream for ChangeStream {
    type Item = Result<NumberedChange, StoreError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_next(context)
    }
}

/// A change of a watched record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watched<M> {
    /// The number of the change.
    pub sequence: u64,
    /// The position of the change, for [`WatchFrom::Position`].
    pub position: ChangePosition,
    /// The source of the change.
    pub origin: Origin,
    /// The event.
    pub event: WatchEvent<M>,
}

/// A change of a record from the view of a watch of some records of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WatchEvent<M> {
    /// A record joined the watched ones.
    Inserted {
        /// The record.
        record: M,
    },
    /// A watched record was replaced, and still is watched.
    Updated {
        /// The former record.
        old: M,
        /// The new record.
        new: M,
    },
    /// A record left the watched ones.
    Removed {
        /// The former record.
        record: M,
        /// The reason.
        reason: RemovalReason,
    },
}

/// The reason why a record left the watched ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RemovalReason {
    /// The record was deleted.
    Deleted,
    /// The record has expired.
    Expired,
    /// This store has evicted its copy of another author's record; see
    /// [`ChangeKind::Evicted`](crate::ChangeKind::Evicted).
    Evicted,
    /// The record was replaced by a version without a watched key.
    Left,
    /// The record was replaced by a version that this program cannot read.
    Unreadable,
}

/// The changes of some records of one model; see [`Tree::watch`](crate::Tree::watch).
///
/// Iterating waits as [`Changes`] does.
///
/// ```
/// # use netabase_store::{NetabaseModel, NetabaseStore, WatchEvent, WatchFrom, netabase_definition_module};
/// # #[netabase_definition_module(LibraryDefinition, LibraryKeys)]
/// # mod library {
/// #     use netabase_store::NetabaseModel;
/// #     use serde::{Deserialize, Serialize};
/// #     #[derive(NetabaseModel, Clone, Debug, PartialEq, Serialize, Deserialize)]
/// #     #[netabase(LibraryDefinition)]
/// #     pub struct Book { #[primary_key] pub isbn: String, pub title: String }
/// # }
/// # use library::*;
/// let store = NetabaseStore::in_memory::<LibraryDefinition>()?;
/// let books = store.open_tree::<Book>()?;
/// let watch = books.watch(WatchFrom::Now)?;
/// let follower = std::thread::spawn(move || {
///     for change in watch {
///         if let WatchEvent::Inserted { record } = change?.event {
///             return Ok(Some(record.title));
///         }
///     }
///     Ok::<_, netabase_store::StoreError>(None)
/// });
/// books.put(&Book { isbn: "978-0-13-110362-7".into(), title: "The C Programming Language".into() })?;
/// assert_eq!(follower.join().unwrap()?.as_deref(), Some("The C Programming Language"));
/// # Ok::<(), netabase_store::StoreError>(())
/// ```
pub struct Watch<M> {
    changes: Changes,
    scan: Scan,
    marker: PhantomData<fn() -> M>,
}

impl<M: NetabaseModel> Watch<M> {
    pub(crate) fn new(changes: Changes, scan: Scan) -> Self {
        Self { changes, scan, marker: PhantomData }
    }

    /// Returns the next change if it is committed already; does not wait.
    ///
    /// Blocks on the disk where a page is not cached, for microseconds otherwise.
    pub fn try_next(&mut self) -> Result<Option<Watched<M>>, StoreError> {
        self.next_until(Some(platform::now()))
    }

    /// Waits at most `timeout` for the next change.
    pub fn next_timeout(&mut self, timeout: Duration) -> Result<Option<Watched<M>>, StoreError> {
        self.next_until(platform::now().checked_add(timeout))
    }

    /// Follows the same records from another change.
    ///
    /// Blocks on the disk where a page is not cached, for microseconds otherwise.
    ///
    /// After the store is closed the watch ends.
    pub fn from(self, from: WatchFrom) -> Result<Self, StoreError> {
        let Self { changes, scan, marker } = self;
        Ok(Self { changes: changes.from(from)?, scan, marker })
    }

    /// Returns the same changes as an asynchronous stream, for any runtime.
    ///
    /// The stream reads the changes from the database when it is polled, mostly from its cache.
    pub fn into_stream(self) -> WatchStream<M> {
        WatchStream(self)
    }

    fn next_until(&mut self, deadline: Option<Instant>) -> Result<Option<Watched<M>>, StoreError> {
        while let Some(change) = self.changes.next_until(deadline)? {
            if let Some(watched) = self.judge(&change) {
                return Ok(Some(watched));
            }
        }
        Ok(None)
    }

    /// Returns the event of a change for this watch, if any.
    fn judge(&self, NumberedChange { sequence, change }: &NumberedChange) -> Option<Watched<M>> {
        if !change.key.is_of::<M>()
            || (self.scan.index.is_none() && !self.scan.span.contains(change.key.primary_key()))
        {
            return None;
        }
        let old = change.previous.as_ref().and_then(|previous| self.record(previous));
        let (new, reason) = match (change.kind, &change.envelope) {
            (ChangeKind::Stored | ChangeKind::Updated, Some(envelope)) => {
                let readable = decode_payload::<M>(envelope.payload()).ok();
                let reason = readable.as_ref().map_or(RemovalReason::Unreadable, |_| RemovalReason::Left);
                (readable.filter(|record| self.watches(record)), reason)
            }
            (ChangeKind::Expired, _) => (None, RemovalReason::Expired),
            (ChangeKind::Evicted, _) => (None, RemovalReason::Evicted),
            _ => (None, RemovalReason::Deleted),
        };
        let event = match (old, new) {
            (None, None) => return None,
            (None, Some(record)) => WatchEvent::Inserted { record },
            (Some(old), Some(new)) => WatchEvent::Updated { old, new },
            (Some(record), None) => WatchEvent::Removed { record, reason },
        };
        let position = self.changes.histories.position(*sequence);
        Some(Watched { sequence: *sequence, position, origin: change.origin, event })
    }

    /// Decodes a record if it is one that is watched.
    fn record(&self, envelope: &Envelope) -> Option<M> {
        decode_payload(envelope.payload()).ok().filter(|record| self.watches(record))
    }

    fn watches(&self, record: &M) -> bool {
        let Some(watched) = self.scan.index else { return true };
        let mut keys = IndexKeys::default();
        record.encode_index_keys(&mut keys);
        keys.iter().any(|(index, key)| index == watched && self.scan.span.contains(key))
    }
}

impl<M: NetabaseModel> Iterator for Watch<M> {
    type Item = Result<Watched<M>, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_until(None).transpose()
    }
}

impl<M> fmt::Debug for Watch<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").field("changes", &self.changes).finish_non_exhaustive()
    }
}

/// [`Watch`] as a stream.
#[derive(Debug)]
pub struct WatchStream<M>(Watch<M>);

impl<M: NetabaseModel> WatchStream<M> {
    /// Follows the same records from another change, as [`Watch::from`] does.
    ///
    /// Blocks on the disk where a page is not cached, for microseconds otherwise.
    pub fn from(self, from: WatchFrom) -> Result<Self, StoreError> {
        self.0.from(from).map(Self)
    }
}

impl<M: NetabaseModel> Stream for WatchStream<M> {
    type Item = Result<Watched<M>, StoreError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let watch = &mut self.0;
        for _ in 0..POLL_CHANGES {
            match watch.changes.poll_next(context) {
                Poll::Ready(Some(Ok(change))) => {
                    if let Some(watched) = watch.judge(&change) {
                        return Poll::Ready(Some(Ok(watched)));
                    }
                }
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error))),
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending => return Poll::Pending,
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }
}
