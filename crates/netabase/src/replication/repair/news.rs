//! Events of peers for the repairer.

use std::collections::BTreeSet;

use libp2p::PeerId;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::replication::repair::limits::MAX_RETURNED;

/// The changes of the routing table, and the returned peers, for the repairer.
#[derive(Debug, Default)]
pub(crate) struct PeerNews {
    returned: Mutex<BTreeSet<PeerId>>,
    changed: Notify,
}

impl PeerNews {
    /// Reports that peers have entered or left the routing table.
    pub(crate) fn view_has_changed(&self) {
        self.changed.notify_one();
    }

    /// Reports a peer that is connected or answers again. Either side may have missed versions of
    /// the other.
    pub(crate) fn has_returned(&self, peer: PeerId) {
        let mut returned = self.returned.lock();
        if returned.len() < MAX_RETURNED {
            returned.insert(peer);
        }
        drop(returned);
        self.changed.notify_one();
    }

    /// Waits for an event. This method is cancel safe.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Takes the returned peers.
    pub(super) fn take_returned(&self) -> BTreeSet<PeerId> {
        std::mem::take(&mut *self.returned.lock())
    }
}
