//! Comparison of a peer's set with this node's.

use crate::platform;
use crate::replication::sync::limits::{
    FRAME_RESERVE, MAX_DIFFERENCES, MAX_HAVE, MAX_ROUNDS, STREAM_AT, SYNC_FRAME_BYTES,
};
use crate::replication::sync::session::*;

/// The result of a comparison.
pub(super) struct Compared {
    pub(super) difference: SyncDifference,
    /// Whether the peer replicates the scope, too.
    pub(super) keeps: bool,
    /// Whether the comparison was completed.
    pub(super) is_whole: bool,
    /// The bound from which the peer's records should be streamed instead.
    pub(super) stream_from: Option<SyncBound>,
}

impl Session<'_> {
    /// Compares the peer's set with this node's.
    pub(super) async fn compare(&mut self) -> Result<Compared, SyncFailure> {
        let mut compared = Compared {
            difference: SyncDifference { have_limit: Some(MAX_HAVE), ..SyncDifference::default() },
            keeps: false,
            is_whole: false,
            stream_from: None,
        };
        // Records without space must not be streamed again and again; the others are found one by
        // one.
        let may_stream = !self.has_streamed && !self.entry.lacks_room(platform::now());
        let mut has_given = false;
        let (mut count, mut message) = self
            .with_set(move |set| {
                // An empty set need not be compared.
                let is_new = set.is_empty() && may_stream;
                Ok((set.len(), if is_new { None } else { Some(set.initiate()?) }))
            })
            .await?;
        if message.is_none() {
            compared.stream_from = Some(SyncBound::BEGIN);
        }
        for round in 0..MAX_ROUNDS {
            let Some(asked) = message.take() else {
                compared.is_whole = true;
                return Ok(compared);
            };
            let frame = self.ask(wire::reconcile(&self.wire, count, &asked)).await?;
            let Response::Reconciled { keeps, count: theirs, message: answer } = decode(&frame)? else {
                return Err(SyncFailure::Nonsense);
            };
            compared.keeps = keeps;
            self.report.compare_round_trips += 1;
            self.report.compare_bytes += number(asked.len() + answer.len());
            if answer.is_empty() {
                // The peer has many times as many records.
                if self.entry.lacks_room(platform::now()) {
                    compared.is_whole = true;
                    return Ok(compared);
                }
                if self.has_streamed {
                    return Err(SyncFailure::Nonsense);
                }
                compared.stream_from = Some(SyncBound::BEGIN);
                return Ok(compared);
            }
            compared.difference.ignores_have = !self.wants_have(keeps);
            let (answer, mut difference) = (answer.to_vec(), std::mem::take(&mut compared.difference));
            let may_stream = round == 0 && may_stream;
            let theirs = usize::try_from(theirs).unwrap_or(usize::MAX);
            let (size, step, found, stream_from) = self
                .with_set(move |set| {
                    let step = set.reconcile(&answer, SYNC_FRAME_BYTES - FRAME_RESERVE, &mut difference)?;
                    let stream = if may_stream { worth_streaming(set, &step, theirs)? } else { None };
                    Ok((set.len(), step, difference, stream))
                })
                .await?;
            (count, message, compared.difference) = (size, step.message, found);
            if stream_from.is_some() {
                compared.stream_from = stream_from;
                return Ok(compared);
            }
            if compared.difference.have.len() >= MAX_HAVE {
                has_given = true;
                self.give(std::mem::take(&mut compared.difference.have), keeps).await?;
            }
            if compared.difference.needed() > MAX_DIFFERENCES {
                compared.is_whole = message.is_none();
                return Ok(compared);
            }
        }
        // The next session sends more of so large a set.
        if has_given { Ok(compared) } else { Err(SyncFailure::Endless) }
    }
}

/// Returns the bound from which a peer's records should be streamed: the first difference, if from
/// there on the peer has at least twice as many records as this node, plus [`STREAM_AT`].
fn worth_streaming(
    set: &mut SyncSet,
    step: &SyncStep,
    theirs: usize,
) -> Result<Option<SyncBound>, StoreError> {
    let Some(from) = step.first_difference else { return Ok(None) };
    let before = set.count_before(&from)?;
    let (ours, theirs) = (set.len().saturating_sub(before), theirs.saturating_sub(before));
    Ok(Some(from).filter(|_| theirs >= ours.saturating_mul(2).saturating_add(STREAM_AT)))
}
