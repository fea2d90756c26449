//! From whom this node was not sent all changes that it follows, or has not looked at all that it
//! was sent.

use std::collections::BTreeSet;
use std::sync::Arc;

use libp2p::PeerId;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::replication::live::limits::MAX_OVERRUN_PEERS;

/// The peers whose kept scopes are to be compared at once, since live changes were lost.
#[derive(Debug, Clone, Default)]
pub(crate) struct Overrun(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    peers: Mutex<BTreeSet<PeerId>>,
    news: Notify,
}

impl Overrun {
    /// Changes of a peer, or that it has passed on, were lost.
    pub(crate) fn add(&self, peer: PeerId) {
        let mut peers = self.0.peers.lock();
        let is_news = peers.len() < MAX_OVERRUN_PEERS && peers.insert(peer);
        drop(peers);
        if is_news {
            self.0.news.notify_one();
        }
    }

    /// Waits until there are such peers. Cancelling the call loses nothing.
    pub(crate) async fn changed(&self) {
        self.0.news.notified().await;
    }

    /// Takes the peers.
    pub(crate) fn take(&self) -> BTreeSet<PeerId> {
        std::mem::take(&mut *self.0.peers.lock())
    }
}
