//! Commands that need no peer.

use netabase_store::{Envelope, RecordKey};
use tokio::sync::oneshot;

use crate::event_loop::EventLoop;
use crate::event_loop::command::{Reply, answer};
use crate::platform;

impl EventLoop {
    /// Reads the local store on a blocking thread, since the swarm must not wait for the disk.
    pub(super) fn local_store(&mut self, limit: Option<usize>, reply: Reply<Vec<(RecordKey, Envelope)>>) {
        let store = self.store.clone();
        platform::blocking(move || {
            let records = store.local_records(limit);
            // An answered caller may close the database and open it again.
            drop(store);
            answer(reply, records.map_err(Into::into));
        });
    }

    /// Ends the loop; dropping it answers the callers in flight.
    pub(super) fn stop(&mut self, reply: oneshot::Sender<()>) {
        self.stopping = Some(reply);
    }
}
