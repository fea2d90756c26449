//! Commands that need no peer.

use netabase_store::{Envelope, RecordKey};
use tokio::sync::oneshot;

use crate::event_loop::EventLoop;
use crate::event_loop::command::{Reply, answer};
use crate::platform;

impl EventLoop {
    /// Reads the local store on a thread that may wait for the disk, which the swarm must not.
    pub(super) fn local_store(&mut self, limit: Option<usize>, reply: Reply<Vec<(RecordKey, Envelope)>>) {
        let store = self.store.clone();
        platform::blocking(move || {
            let records = store.local_records(limit);
            // A caller that is answered may close the database and open it again.
            drop(store);
            answer(reply, records.map_err(Into::into));
        });
    }

    /// Lets the loop end; callers in flight are answered when it is dropped.
    pub(super) fn stop(&mut self, reply: oneshot::Sender<()>) {
        self.stopping = Some(reply);
    }
}
