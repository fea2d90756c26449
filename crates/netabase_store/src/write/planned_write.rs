//! Writes that are made in batches and fail one by one.

use std::ops::ControlFlow;
use std::sync::mpsc;

use crate::changes::change::Origin;
use crate::error::{StoreError, WriteError};
use crate::model::schema::IndexKeys;
use crate::store::NetabaseStore;
use crate::version::envelope::Envelope;
use crate::version::record_key::RecordKey;
use crate::write::apply::{Expected, Lease, Op};
use crate::write::writer::{Batch, Done};

/// A write that may have to be tried again without others of its batch.
#[derive(Debug)]
pub(crate) struct PlannedWrite {
    /// The caller's identification of the write.
    #[cfg_attr(not(feature = "import-export"), expect(dead_code, reason = "only an import asks for it"))]
    pub(crate) tag: u64,
    pub(crate) key: RecordKey,
    pub(crate) envelope: Envelope,
    pub(crate) secondary: IndexKeys,
    pub(crate) lease: Lease,
    pub(crate) expected: Option<Expected>,
}

impl PlannedWrite {
    /// About how much memory it takes.
    pub(crate) fn bytes(&self) -> usize {
        let secondary = self.secondary.iter().map(|(_, key)| key.len()).sum::<usize>();
        self.key.as_bytes().len() + self.envelope.as_bytes().len() + secondary
    }

    fn op(&self) -> Op {
        Op::Put {
            key: self.key.clone(),
            envelope: self.envelope.clone(),
            secondary: self.secondary.clone(),
            origin: Origin::Local,
            lease: self.lease,
        }
    }
}

/// Receives the results of writes, in their order.
pub(crate) trait Answers {
    /// Returns the number of further refusals after which it stops.
    fn patience(&self) -> usize;

    /// Receives the result of a write that is durable or was refused; may stop the later ones.
    fn answer(&mut self, write: &PlannedWrite, refusal: Option<StoreError>) -> ControlFlow<()>;
}

impl NetabaseStore {
    /// Makes writes durable, in their order, and tells `answers` of each.
    ///
    /// The writes are one batch unless one is refused. Then each is a batch of its own; but if that
    /// could store a write after the last wanted one, the batch is halved until one is alone.
    pub(crate) fn commit_each(
        &self,
        writes: &[PlannedWrite],
        answers: &mut impl Answers,
    ) -> Result<ControlFlow<()>, StoreError> {
        if writes.is_empty() {
            return Ok(ControlFlow::Continue(()));
        }
        match self.commit(batch(writes)) {
            Ok(_) => Ok(writes.iter().try_for_each(|write| answers.answer(write, None))),
            Err(error) if !is_refusal(&error) => Err(error),
            Err(error) => match writes {
                [alone] => Ok(answers.answer(alone, Some(error))),
                several if several.len() < answers.patience() => self.commit_singly(several, answers),
                several => {
                    let (first, second) = several.split_at(several.len() / 2);
                    if self.commit_each(first, answers)?.is_break() {
                        return Ok(ControlFlow::Break(()));
                    }
                    self.commit_each(second, answers)
                }
            },
        }
    }

    /// Writes each on its own; they share commits all the same.
    fn commit_singly(
        &self,
        writes: &[PlannedWrite],
        answers: &mut impl Answers,
    ) -> Result<ControlFlow<()>, StoreError> {
        let (sender, receiver) = mpsc::sync_channel(writes.len());
        for write in writes {
            let sender = sender.clone();
            let done: Done = Box::new(move |result| {
                // The channel has space for every answer; after a failure nothing receives the
                // rest.
                let _ = sender.send(result.map(drop));
            });
            let batch = batch(std::slice::from_ref(write));
            self.core().push(Batch { resign: true, done: Some(done), ..batch });
        }
        drop(sender);
        for write in writes {
            let refusal = match self.core().receive(&receiver).map_err(StoreError::backend)? {
                Ok(()) => None,
                Err(error) if is_refusal(&error) => Some(error),
                Err(error) => return Err(error),
            };
            if answers.answer(write, refusal).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }
}

fn batch(writes: &[PlannedWrite]) -> Batch {
    let expected = |write: &PlannedWrite| Some((write.key.clone(), write.expected?));
    Batch {
        ops: writes.iter().map(PlannedWrite::op).collect(),
        expected: writes.iter().filter_map(expected).collect(),
        unpublished: true,
        flush: true,
        ..Batch::default()
    }
}

/// Returns whether an error concerns one record, and not the store.
pub(crate) fn is_refusal(error: &StoreError) -> bool {
    matches!(
        error,
        StoreError::Write(
            WriteError::Conflict { .. }
                | WriteError::Exists { .. }
                | WriteError::NotOwner { .. }
                | WriteError::NotUnique { .. }
                | WriteError::NewerRecord { .. }
                | WriteError::ValueTooLarge { .. }
                | WriteError::ContributionTooLarge { .. }
                | WriteError::IndexKeyTooLong { .. }
                | WriteError::TooManyIndexKeys { .. }
                | WriteError::TooManyBlobs { .. }
        ) | StoreError::RecordKey(_)
    )
}
