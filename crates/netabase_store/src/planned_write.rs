//! Writes that are made in batches and fail one by one.

use std::ops::ControlFlow;

use crate::apply::{Expected, Op};
use crate::change::Origin;
use crate::envelope::Envelope;
use crate::error::StoreError;
use crate::record_key::RecordKey;
use crate::schema::IndexKeys;
use crate::store::NetabaseStore;
use crate::writer::Batch;

/// A write that may have to be tried again without others of its batch.
#[derive(Debug)]
pub(crate) struct PlannedWrite {
    /// What the caller knows it by.
    pub(crate) tag: u64,
    pub(crate) key: RecordKey,
    pub(crate) envelope: Envelope,
    pub(crate) secondary: IndexKeys,
    pub(crate) expected: Option<Expected>,
}

impl PlannedWrite {
    pub(crate) fn bytes(&self) -> usize {
        self.key.as_bytes().len() + self.envelope.as_bytes().len()
    }

    fn op(&self) -> Op {
        Op::Put {
            key: self.key.clone(),
            envelope: self.envelope.clone(),
            secondary: self.secondary.clone(),
            origin: Origin::Local,
        }
    }
}

impl NetabaseStore {
    /// Makes writes durable and calls `done` for each, in their order, with why it was refused if it was.
    ///
    /// They are one batch as long as none is refused. A batch with one that is, is halved until that one
    /// is alone. `done` may stop it, and an error of the store does.
    pub(crate) fn commit_each(
        &self,
        writes: &[PlannedWrite],
        done: &mut impl FnMut(&PlannedWrite, Option<StoreError>) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, StoreError> {
        if writes.is_empty() {
            return Ok(ControlFlow::Continue(()));
        }
        let expected = |write: &PlannedWrite| Some((write.key.clone(), write.expected?));
        let batch = Batch {
            ops: writes.iter().map(PlannedWrite::op).collect(),
            expected: writes.iter().filter_map(expected).collect(),
            flush: true,
            ..Batch::default()
        };
        match self.commit(batch) {
            Ok(_) => Ok(writes.iter().try_for_each(|write| done(write, None))),
            Err(error) if !is_refusal(&error) => Err(error),
            Err(error) => match writes {
                [alone] => Ok(done(alone, Some(error))),
                several => {
                    let (first, second) = several.split_at(several.len() / 2);
                    if self.commit_each(first, done)?.is_break() {
                        return Ok(ControlFlow::Break(()));
                    }
                    self.commit_each(second, done)
                }
            },
        }
    }
}

/// Whether an error is about one record and what is there, and not about the store.
pub(crate) fn is_refusal(error: &StoreError) -> bool {
    matches!(
        error,
        StoreError::Conflict { .. }
            | StoreError::Exists { .. }
            | StoreError::NotUnique { .. }
            | StoreError::NewerRecord { .. }
            | StoreError::ValueTooLarge { .. }
            | StoreError::IndexKeyTooLong { .. }
            | StoreError::TooManyIndexKeys { .. }
            | StoreError::RecordKey(_)
    )
}
