//! What the event loop tells the repairer about peers.

use std::collections::BTreeSet;

use libp2p::PeerId;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::replication::repair::limits::MAX_RETURNED;

/// Tells the repairer that the routing table has changed, and which peers have come back.
#[derive(Debug, Default)]
pub(crate) struct PeerNews {
    returned: Mutex<BTreeSet<PeerId>>,
    changed: Notify,
}

impl PeerNews {
    /// Peers have entered the routing table or left it.
    pub(crate) fn view_has_changed(&self) {
        self.changed.notify_one();
    }

    /// A peer is connected, or answers, and either side may have missed what the other has
    /// meanwhile.
    pub(crate) fn has_returned(&self, peer: PeerId) {
        let mut returned = self.returned.lock();
        if returned.len() < MAX_RETURNED {
            returned.insert(peer);
        }
        drop(returned);
        self.changed.notify_one();
    }

    /// Waits until there is news. Cancelling the call loses nothing.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Takes the peers that have come back.
    pub(super) fn take_returned(&self) -> BTreeSet<PeerId> {
        std::mem::take(&mut *self.returned.lock())
    }
}
