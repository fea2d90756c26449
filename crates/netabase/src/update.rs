//! Updating a record: read, change, write, and retry if another writer came first.

use std::hash::{BuildHasher, RandomState};

use netabase_store::replica::ExpectedVersion;
use netabase_store::schema::{EncodedRecord, decode_payload};
use netabase_store::{
    Envelope, NetabaseDefinition, NetabaseStore, PrimaryKey, RecordKey, StoreError, WriteError, WritePolicy,
};
use tokio::sync::{Mutex, MutexGuard, oneshot};

use crate::error::NetabaseError;
use crate::limits::UPDATE_TURNS;
use crate::netabase::Netabase;
use crate::node::{Node, answer_to};
use crate::outcome::{GetOptions, PutOptions, WriteOutcome};
use crate::platform;
use crate::telemetry::metrics::Call;

/// Serializes the updates of one record in this program, so that none of them starves.
#[derive(Debug)]
pub(crate) struct UpdateTurns {
    turns: [Mutex<()>; UPDATE_TURNS],
    hasher: RandomState,
}

impl UpdateTurns {
    pub(crate) fn new() -> Self {
        Self { turns: std::array::from_fn(|_| Mutex::default()), hasher: platform::random_hasher() }
    }

    async fn take(&self, key: &RecordKey) -> Option<MutexGuard<'_, ()>> {
        let place = usize::try_from(self.hasher.hash_one(key.as_bytes())).unwrap_or_default() % UPDATE_TURNS;
        Some(self.turns.get(place)?.lock().await)
    }
}

impl Node {
    /// Updates the record under `key`: reads it, calls `change`, and stores the result here and at
    /// the closest peers. Returns the stored version and the peers' answers, or `None` if there is
    /// no record.
    ///
    /// [`Netabase::update_record`] documents the details.
    pub async fn update<F>(
        &self,
        key: &RecordKey,
        options: PutOptions,
        change: F,
    ) -> Result<Option<(Envelope, WriteOutcome)>, NetabaseError>
    where
        F: FnMut(&Envelope) -> Result<EncodedRecord, NetabaseError>,
    {
        let work = self.update_now(key, options, change);
        self.metrics().call(Call::Put, key.model(), work, |_| "ok").await
    }

    async fn update_now<F>(
        &self,
        key: &RecordKey,
        options: PutOptions,
        mut change: F,
    ) -> Result<Option<(Envelope, WriteOutcome)>, NetabaseError>
    where
        F: FnMut(&Envelope) -> Result<EncodedRecord, NetabaseError>,
    {
        let fetched = self.fetched(key, &options).await?;
        let turn = self.inner.update_turns.take(key).await;
        for _ in 0..NetabaseStore::MAX_UPDATE_ATTEMPTS {
            let here = self.store().envelope(key)?;
            let current = match &here {
                Some(here) => (!here.is_tombstone()).then_some(here),
                None => fetched.as_ref(),
            };
            let Some(current) = current else { return Ok(None) };
            let record = change(current)?;
            if self.key_of(&record)? != *key {
                let key = key.clone();
                return Err(StoreError::from(WriteError::KeyChanged { key }).into());
            }
            let content = |here: &Envelope| ExpectedVersion::Content(here.content_hash());
            let expected = here.as_ref().map_or(ExpectedVersion::Absent, content);
            let (done, durable) = oneshot::channel();
            self.store().replica().submit_if(&record, options.lifetime, expected, answer_to(done))?;
            match self.written_if(durable).await {
                Err(NetabaseError::Store(StoreError::Write(WriteError::Conflict { .. }))) => {}
                Err(error) => return Err(error),
                Ok(written) => {
                    // The next update need not wait for the network.
                    drop(turn);
                    let envelope = written.1.clone();
                    let outcome = self.publish_written(key, written, &options).await?;
                    return Ok(Some((self.stored(key, envelope)?, outcome)));
                }
            }
        }
        Err(StoreError::Write(WriteError::Conflict { key: key.clone() }).into())
    }

    /// Fetches the record from peers if there is none here, and stores it, so that the new version
    /// is later than theirs.
    async fn fetched(
        &self,
        key: &RecordKey,
        options: &PutOptions,
    ) -> Result<Option<Envelope>, NetabaseError> {
        if self.store().envelope(key)?.is_some() {
            return Ok(None);
        }
        let asked = GetOptions { timeout: options.timeout, ..GetOptions::default() };
        let Some(found) = self.read(key, asked).await?.record else { return Ok(None) };
        match self.store().replica().check_quietly(key, found.as_bytes()) {
            Ok(checked) => self.store().replica().keep(checked),
            Err(reason) => {
                tracing::debug!(%key, %reason, "cannot store the peers' version before the update");
            }
        }
        Ok(Some(found))
    }

    /// Returns the stored version after `written`: for a merged record, the join of all
    /// contributions.
    fn stored(&self, key: &RecordKey, written: Envelope) -> Result<Envelope, NetabaseError> {
        if key.policy() != WritePolicy::Merged {
            return Ok(written);
        }
        let stored = self.store().envelope(key)?.filter(|stored| !stored.is_tombstone());
        Ok(stored.unwrap_or(written))
    }
}

impl<D: NetabaseDefinition> Netabase<D> {
    /// Updates the record under `key` with `change`, here and at the closest peers; returns the new
    /// record, or `None` if there is none.
    ///
    /// The call reads the record as [`get_record`](Self::get_record) does: here, or from peers if
    /// it is not here. If another task of this program changes the record before the write,
    /// `change` is called again with the new record, up to
    /// [`NetabaseStore::MAX_UPDATE_ATTEMPTS`](crate::NetabaseStore::MAX_UPDATE_ATTEMPTS) times,
    /// after which the call fails with
    /// [`WriteError::Conflict`](netabase_store::WriteError::Conflict). A peer may write
    /// concurrently, and the later version wins as always; use a merged model for counters of
    /// several peers, see
    /// `docs/models.md`. `change` must not change the primary key.
    ///
    /// Returns when [`put_record`](Self::put_record) would. For a merged record the result is the
    /// join of all contributions.
    ///
    /// ```
    /// # use netabase::{Netabase, NetabaseConfig, StoreOptions, netabase_definition_module};
    /// # #[netabase_definition_module(ClubDefinition, ClubKeys)]
    /// # mod club {
    /// #     use netabase::NetabaseModel;
    /// #     use serde::{Deserialize, Serialize};
    /// #     #[derive(NetabaseModel, Clone, Debug, PartialEq, Serialize, Deserialize)]
    /// #     #[netabase(ClubDefinition)]
    /// #     pub struct Event { #[primary_key] pub id: u64, pub guests: Vec<String> }
    /// # }
    /// # use club::*;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), netabase::NetabaseError> {
    /// # let config = NetabaseConfig { store: StoreOptions::in_memory(), ..NetabaseConfig::default() };
    /// # let netabase = Netabase::<ClubDefinition>::new_with_config(config)?;
    /// netabase.put_record(Event { id: 7, guests: vec![] }).await?;
    /// let event = netabase
    ///     .update_record(EventPrimaryKey(7), |event| event.guests.push("ada".into()))
    ///     .await?;
    /// assert_eq!(event, Some(Event { id: 7, guests: vec!["ada".into()] }));
    ///
    /// let missing = netabase.update_record(EventPrimaryKey(8), |event| event.guests.clear()).await?;
    /// assert_eq!(missing, None);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn update_record<K>(
        &self,
        key: K,
        change: impl FnMut(&mut K::Model),
    ) -> Result<Option<K::Model>, NetabaseError>
    where
        K: PrimaryKey,
        D: From<K::Model>,
    {
        let updated = self.update_record_with(key, PutOptions::default(), change).await?;
        Ok(updated.map(|(record, _)| record))
    }

    /// Updates a record like [`update_record`](Self::update_record), with `options`, and returns
    /// the peers' answers, too. [`PutOptions::expected`] is ignored: the expected version is the
    /// one that was read.
    pub async fn update_record_with<K>(
        &self,
        key: K,
        options: PutOptions,
        mut change: impl FnMut(&mut K::Model),
    ) -> Result<Option<(K::Model, WriteOutcome)>, NetabaseError>
    where
        K: PrimaryKey,
        D: From<K::Model>,
    {
        let changed = |current: &Envelope| {
            let mut record: K::Model = decode_payload(current.payload())?;
            change(&mut record);
            Ok(EncodedRecord::of(&record)?)
        };
        let updated = self.node().update(&RecordKey::of(&key)?, options, changed).await?;
        let decode = |(envelope, outcome): (Envelope, WriteOutcome)| {
            Ok::<_, NetabaseError>((decode_payload(envelope.payload())?, outcome))
        };
        updated.map(decode).transpose()
    }
}
