//! Commands about records.

use netabase_store::{Envelope, RecordKey};

use crate::dht::queries::{Get, Put, Query, Waiting};
use crate::event_loop::EventLoop;
use crate::event_loop::command::{Publication, PutTerms, Reading, Reply};
use crate::ops::survey::{Ask, Copies, Survey};
use crate::outcome::Health;
use crate::swarm::{Deadline, PutPermit};

impl EventLoop {
    /// Looks for the closest peers, unless they are known; the version is sent to them when they
    /// are.
    ///
    /// The version is in the local store already: kad's own `put_record` would check and store it
    /// once more, and would not say which peers accepted it.
    pub(super) fn put_record(
        &mut self,
        key: &RecordKey,
        envelope: Envelope,
        terms: PutTerms,
        permit: PutPermit,
        reply: Reply<Publication>,
    ) {
        let concern = terms.concern.unwrap_or(self.config.dht.write_concern);
        let put = Put::new(key.clone(), envelope, concern, terms, permit, reply);
        let members = self.members_holders(key, put.envelope.version());
        let waiting = Waiting::Put(self.queries.add_put(put));
        self.answer_late(waiting, terms.deadline);
        if let Some(peers) = members {
            return self.on_holders_known(waiting, &peers);
        }
        self.find_holders(key, waiting);
    }

    /// Asks the closest peers for their copies; callers who ask for the same record at a time share
    /// what is found.
    pub(crate) fn get_record(&mut self, key: RecordKey, reply: Reply<Reading>) {
        if let Some(reply) = self.queries.join_get(&key, reply) {
            self.begin_get(key, reply);
        }
    }

    /// Does so without sharing what others have asked for before.
    pub(crate) fn begin_get(&mut self, key: RecordKey, reply: Reply<Reading>) {
        let query = self.kad().get_record(key.as_bytes().to_vec().into());
        self.begin_query(query, Query::Get(Get::new(key, reply)));
    }

    /// Asks every one of the closest peers for its copy.
    pub(super) fn get_all_copies(&mut self, key: RecordKey, deadline: Deadline, reply: Reply<Reading>) {
        self.ask(Ask::Copies(Copies::new(key, deadline, reply)));
    }

    /// Asks every one of the closest peers for its version.
    pub(super) fn health(&mut self, key: RecordKey, repair: bool, deadline: Deadline, reply: Reply<Health>) {
        self.ask(Ask::Survey(Survey::new(key, repair, deadline, reply)));
    }

    fn ask(&mut self, ask: Ask) {
        let (key, deadline) = (ask.key().clone(), ask.deadline());
        let waiting = Waiting::Ask(self.queries.add_ask(ask));
        self.answer_late(waiting, Some(deadline));
        self.find_holders(&key, waiting);
    }

    /// Looks for the peers that hold a record, unless they are known;
    /// [`EventLoop::on_holders_found`] goes on.
    fn find_holders(&mut self, key: &RecordKey, waiting: Waiting) {
        if let Some(holders) = self.known_holders() {
            return self.on_holders_known(waiting, &holders);
        }
        // Without a number kad looks for twenty, whatever the replication factor is.
        let holders = self.config.dht.replication_factor;
        let query = self.kad().get_n_closest_peers(key.as_bytes().to_vec(), holders);
        self.begin_query(query, Query::FindHolders(waiting));
    }
}
