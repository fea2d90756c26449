//! The peers whose live changes were lost: not sent to this node, or dropped by it unseen.

use std::collections::BTreeSet;
use std::sync::Arc;

use libp2p::PeerId;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::replication::live::limits::MAX_OVERRUN_PEERS;

/// The peers whose replicated scopes are to be compared at once, since live changes were lost.
#[derive(Debug, Clone, Default)]
pub(crate) struct Overrun(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    peers: Mutex<BTreeSet<PeerId>>,
    news: Notify,
}

impl Overrun {
    /// Records that live changes were lost that a peer has written or forwarded.
    pub(crate) fn add(&self, peer: PeerId) {
        let mut peers = self.0.peers.lock();
        let is_news = peers.len() < MAX_OVERRUN_PEERS && peers.insert(peer);
        drop(peers);
        if is_news {
            self.0.news.notify_one();
        }
    }

    /// Waits until there are such peers. This method is cancel safe.
    pub(crate) async fn changed(&self) {
        self.0.news.notified().await;
    }

    /// Takes the peers.
    pub(crate) fn take(&self) -> BTreeSet<PeerId> {
        std::mem::take(&mut *self.0.peers.lock())
    }
}
