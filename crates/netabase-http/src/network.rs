//! The connections of the node to its peers, also while its event loop is late.

use std::fmt;

use futures::FutureExt;
use futures::future::BoxFuture;
use netabase::health::ConnectionInfo;
use netabase::{NetabaseError, Node};
use parking_lot::Mutex;
use tokio::sync::Mutex as AsyncMutex;
use tokio::time::timeout;

use crate::limits::LATE_AFTER;
use crate::problem::Answer;

type Told = Result<Vec<ConnectionInfo>, NetabaseError>;

/// What the event loop has told of the connections.
#[derive(Default)]
pub(crate) struct Network {
    /// The question that the event loop has not answered yet. There is one at most: further
    /// requests wait for the same answer.
    asked: AsyncMutex<Option<BoxFuture<'static, Told>>>,
    /// The last answer.
    last: Mutex<Vec<ConnectionInfo>>,
}

/// The connections of a node.
#[derive(Debug, Default)]
pub(crate) struct Connections {
    /// The connections, the oldest one first.
    pub(crate) known: Vec<ConnectionInfo>,
    pub(crate) is_running: bool,
    /// Whether the event loop has not answered in time. The connections are those of its last
    /// answer.
    pub(crate) is_late: bool,
}

impl Network {
    /// Returns the connections. There are none while the network is not running.
    ///
    /// Waits for the event loop for [`LATE_AFTER`] at most.
    pub(crate) async fn connections(&self, node: &Node) -> Answer<Connections> {
        let Ok(told) = timeout(LATE_AFTER, self.ask(node)).await else { return Ok(self.late()) };
        match told {
            Ok(known) => {
                self.last.lock().clone_from(&known);
                Ok(Connections { known, is_running: true, is_late: false })
            }
            Err(NetabaseError::NotRunning | NetabaseError::Closed) => {
                self.last.lock().clear();
                Ok(Connections::default())
            }
            Err(NetabaseError::Timeout { .. }) => Ok(self.late()),
            Err(error) => Err(error.into()),
        }
    }

    async fn ask(&self, node: &Node) -> Told {
        let mut asked = self.asked.lock().await;
        if let Some(Some(told)) = asked.as_mut().map(FutureExt::now_or_never) {
            // It came after everybody had given up, and may be old by now.
            *asked = None;
            if let Ok(known) = told {
                *self.last.lock() = known;
            }
        }
        let node = node.clone();
        let ask = || async move { node.connections().await }.boxed();
        let told = asked.get_or_insert_with(ask).await;
        *asked = None;
        told
    }

    fn late(&self) -> Connections {
        Connections { known: self.last.lock().clone(), is_running: true, is_late: true }
    }
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Network").field("last", &self.last).finish_non_exhaustive()
    }
}
