//! Records that an export or a migration has to leave as they are, and why.

use std::fmt;
use std::sync::Arc;

use thiserror::Error;

use crate::admin::limits::MAX_REPORTED;
use crate::error::{StoreError, ValueError};
use crate::model::schema::payload_version;
use crate::tables::ModelTables;
use crate::version::envelope::{Envelope, EnvelopeError};

/// A record that was left as it is.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct LeftRecord {
    /// Its model.
    pub model: &'static str,
    /// The bytes of its primary key.
    pub primary_key: Vec<u8>,
    /// The reason.
    pub reason: LeftReason,
}

impl fmt::Display for LeftRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.model, self.primary_key.escape_ascii(), self.reason)
    }
}

/// The reason why a record was left as it is.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum LeftReason {
    /// The stored bytes are no envelope.
    #[error("the stored bytes are damaged")]
    Damaged(#[source] EnvelopeError),
    /// The stored record does not match its checksum.
    #[error("its checksum is wrong: some byte of it has changed")]
    Checksum,
    /// A later version of the program wrote it.
    #[error("it has model version {found}, this program knows version {known}; use the newer program")]
    Newer {
        /// Its model version.
        found: u32,
        /// The version of this program.
        known: u32,
    },
    /// This program cannot read the value, or cannot write it in the required form.
    #[error("{0}")]
    Value(#[source] ValueError),
    /// The conversion to the present version of the model changes the primary key.
    #[error("its conversion changes the primary key; put the converted record and remove this one")]
    KeyChanged,
    /// The converted record cannot be stored.
    #[error("the converted record is refused: {0}")]
    Refused(#[source] Arc<StoreError>),
}

/// The first records that were left, of any number.
#[derive(Debug, Default)]
pub(crate) struct LeftRecords(Vec<LeftRecord>);

impl LeftRecords {
    pub(crate) fn push(&mut self, model: &ModelTables, primary_key: &[u8], reason: LeftReason) {
        if self.0.len() < MAX_REPORTED {
            let primary_key = primary_key.to_vec();
            self.0.push(LeftRecord { model: model.schema.name, primary_key, reason });
        }
    }

    pub(crate) fn into_vec(self) -> Vec<LeftRecord> {
        self.0
    }
}

/// Reads an entry of a model's records with the model version of its payload, unless it is a later
/// one.
pub(crate) fn read_entry(model: &ModelTables, value: &[u8]) -> Result<(Envelope, u32), LeftReason> {
    let envelope = Envelope::parse(value).map_err(LeftReason::Damaged)?;
    let found = payload_version(envelope.payload()).map_err(LeftReason::Value)?;
    let known = model.schema.version;
    if found > known { Err(LeftReason::Newer { found, known }) } else { Ok((envelope, found)) }
}
