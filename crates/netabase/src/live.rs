//! Following the records of a query, whoever writes them.

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures::Stream;
use netabase_store::changes::{WatchStream, Watched};
use netabase_store::{NetabaseModel, WatchFrom};

use crate::error::NetabaseError;
use crate::replication::sync::Replication;

/// The changes of the records that a query asks for, of this program and of its peers; see
/// [`Netabase::watch`](crate::Netabase::watch).
///
/// It is a [`Stream`] for any runtime, which ends when the database is closed; watching does not
/// prevent that. While it lives, peers send this node what they write of these records, and this
/// node keeps copies of them.
///
/// Changes come from the database's history. So none is lost or repeated whatever happens to
/// connections, and after a restart [`LiveWatch::from`] goes on where the last one ended. Whoever
/// is so slow that the history no longer has what comes next gets
/// [`StoreError::HistoryTrimmed`](crate::StoreError::HistoryTrimmed), once, and then the end.
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
/// // After a restart, with the position of the last change that was seen:
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

    /// Begins elsewhere, such as after the [position](Watched::position) of the last change that
    /// was seen.
    ///
    /// Blocks on the disk where a page is not cached, for microseconds otherwise.
    ///
    /// Fails with [`StoreError::HistoryTrimmed`](crate::StoreError::HistoryTrimmed) if the history
    /// does not go back so far, and with
    /// [`StoreError::HistoryGone`](crate::StoreError::HistoryGone) or
    /// [`StoreError::NoSuchChange`](crate::StoreError::NoSuchChange) if it has no such change.
    pub fn from(self, from: WatchFrom) -> Result<Self, NetabaseError> {
        let Self { changes, replication } = self;
        Ok(Self { changes: changes.from(from)?, replication })
    }

    /// Returns what keeps the scope of the query here: how far it is, and what it has cost.
    pub fn replication(&self) -> &Replication {
        &self.replication
    }

    /// Waits for the next change; `None` says that the database is closed. Cancelling the call
    /// loses nothing.
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
