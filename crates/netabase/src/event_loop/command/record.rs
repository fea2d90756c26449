//! Commands about records.

use netabase_store::{Envelope, RecordKey};

use crate::event_loop::EventLoop;
use crate::event_loop::command::{Publication, PutTerms, Reply};
use crate::ops::put::Put;
use crate::ops::survey::Survey;
use crate::outcome::Health;
use crate::swarm::{Deadline, PutPermit};

impl EventLoop {
    /// Sends a version that is in the local store to the holders of its record.
    pub(super) fn put_record(
        &mut self,
        key: RecordKey,
        envelope: Envelope,
        terms: PutTerms,
        permit: PutPermit,
        reply: Reply<Publication>,
    ) {
        let concern = terms.concern.unwrap_or(self.config.dht.write_concern);
        let put = Put::new(key, envelope, concern).on_newer_version(terms.newer);
        self.begin_put(put, terms.deadline, permit, reply);
    }

    /// Asks each of the holders for its version.
    pub(super) fn health(&mut self, key: RecordKey, repair: bool, deadline: Deadline, reply: Reply<Health>) {
        self.survey(Survey::new(key, repair), deadline, reply);
    }
}
