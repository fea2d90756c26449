//! Commands about records.

use netabase_store::{Envelope, RecordKey};

use crate::network::PutPermit;
use crate::network::command::{Publication, Reply};
use crate::network::query::{Get, Put, Query};
use crate::network::swarm::EventLoop;

impl EventLoop {
    /// Looks for the closest peers, unless they are known; the version is sent to them when they are.
    ///
    /// The version is in the local store already: kad's own `put_record` would check and store it
    /// once more, and would not say which peers accepted it.
    pub(super) fn put_record(
        &mut self,
        key: RecordKey,
        envelope: Envelope,
        permit: PutPermit,
        reply: Reply<Publication>,
    ) {
        let members = self.members_holders(&key, &envelope);
        if let Some(holders) = members.or_else(|| self.known_holders()) {
            let put = self.queries.add_put(Put::new(key, envelope, permit, reply));
            return self.send_to_holders(put, holders);
        }
        let query = self.kad().get_closest_peers(key.as_bytes().to_vec());
        let put = self.queries.add_put(Put::new(key, envelope, permit, reply));
        self.queries.insert(query, Query::FindHolders { put });
    }

    /// Asks the closest peers for their copies.
    pub(in crate::network) fn get_record(&mut self, key: RecordKey, reply: Reply<Option<Envelope>>) {
        let query = self.kad().get_record(key.as_bytes().to_vec().into());
        self.queries.insert(query, Query::Get(Get::new(key, reply)));
    }
}
