//! Watches of the records of a query.

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures::Stream;
use netabase_store::changes::{WatchStream, Watched};
use netabase_store::{NetabaseModel, WatchFrom};

use crate::error::NetabaseError;
use crate::replication::sync::Replication;

/// A stream of the changes of the records that match a query, by this program and by peers; see
/// [`Netabase::watch`](crate::Netabase::watch).
///
/// A watch is a [`Stream`] for any runtime. It ends when the database is closed, and does not keep
/// the database open. While a watch lives, peers send their changes of these records to this node,
/// and this node stores copies of them.
///
/// Changes are read from the database's history, so a lost connection loses and repeats none, and
/// after a restart [`LiveWatch::from`] resumes after the last change. A reader that is so slow that
/// the history has dropped its next change receives
/// [`HistoryError::Trimmed`](netabase_store::changes::HistoryError::Trimmed) once, and then the end
/// of the stream.
///
/// ```
/// # use netabase::{Netabase, NetabaseConfig, StoreOptions, netabase_definition_module};
/// use netabase::{Query, WatchEvent, WatchFrom};
/// # #[netabase_definition_module(ChatDefinition, ChatKeys)]
/// # mod chat {
/// #     use netabase::NetabaseModel;
/// #     use serde::{Deserialize, Serialize};
/// #     #[derive(NetabaseModel, Clone, Debug, PartialEq, Serialize, Deserialize)]
/// #     #[netabase(ChatDefinition)]
/// #     pub struct Message {
/// #         #[primary_key]
/// #         pub id: u64,
/// #         #[secondary_key]
/// #         pub room: String,
/// #     }
/// # }
/// # use chat::*;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), netabase::NetabaseError> {
/// # let config = NetabaseConfig { store: StoreOptions::in_memory(), ..NetabaseConfig::default() };
/// # let netabase = Netabase::<ChatDefinition>::new_with_config(config)?;
/// let general = Query::<Message>::new().room("general");
/// let mut watch = netabase.watch(general.clone())?;
/// netabase.put_record(Message { id: 1, room: "general".into() }).await?;
/// netabase.put_record(Message { id: 2, room: "random".into() }).await?;
/// netabase.put_record(Message { id: 3, room: "general".into() }).await?;
///
/// let Some(first) = watch.next().await.transpose()? else { return Ok(()) };
/// assert_eq!(first.event, WatchEvent::Inserted { record: Message { id: 1, room: "general".into() } });
///
/// // After a restart, with the position of the last change that was read:
/// let mut watch = netabase.watch(general)?.from(WatchFrom::Position(first.position))?;
/// let Some(next) = watch.next().await.transpose()? else { return Ok(()) };
/// assert_eq!(next.event, WatchEvent::Inserted { record: Message { id: 3, room: "general".into() } });
/// # Ok(())
/// # }
/// ```
#[must_use = "a watch that is dropped follows nothing"]
pub struct LiveWatch<M> {
    changes: WatchStream<M>,
    replication: Replication,
}

impl<M: NetabaseModel> LiveWatch<M> {
    pub(crate) fn new(changes: WatchStream<M>, replication: Replication) -> Self {
        Self { changes, replication }
    }

    /// Restarts the watch elsewhere, such as after the [position](Watched::position) of the last
    /// change that was read.
    ///
    /// Blocks on the disk where a page is not cached, for microseconds otherwise.
    ///
    /// Fails with [`HistoryError::Trimmed`](netabase_store::changes::HistoryError::Trimmed) if the
    /// history does not go back so far, and with
    /// [`HistoryError::Gone`](netabase_store::changes::HistoryError::Gone) or
    /// [`HistoryError::NoSuchChange`](netabase_store::changes::HistoryError::NoSuchChange) if it
    /// has no such change.
    pub fn from(self, from: WatchFrom) -> Result<Self, NetabaseError> {
        let Self { changes, replication } = self;
        Ok(Self { changes: changes.from(from)?, replication })
    }

    /// Returns the handle that replicates the scope of the query: its progress and its costs.
    pub fn replication(&self) -> &Replication {
        &self.replication
    }

    /// Waits for the next change, or returns `None` if the database is closed. This method is
    /// cancel safe.
    pub async fn next(&mut self) -> Option<Result<Watched<M>, NetabaseError>> {
        poll_fn(|context| Pin::new(&mut *self).poll_next(context)).await
    }
}

impl<M: NetabaseModel> Stream for LiveWatch<M> {
    type Item = Result<Watched<M>, NetabaseError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Pin::new(&mut self.changes).poll_next(context).map_err(NetabaseError::from)
    }
}

impl<M> fmt::Debug for LiveWatch<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LiveWatch").field("replication", &self.replication).finish_non_exhaustive()
    }
}
