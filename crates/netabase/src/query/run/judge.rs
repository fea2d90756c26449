//! The verdict on a source's answer.

use crate::query::intake::Outcome;
use crate::query::limits::{MAX_EMPTY_PAGES, MAX_REFUSED_RECORDS};
use crate::query::merge::{Merge, SourceId};
use crate::query::report::{CutOff, HolderAnswer, HolderFailure};
use crate::query::run::{Asking, SourceState};

impl Asking {
    /// Updates a source by the outcome of its answer.
    pub(super) fn judge(&mut self, merge: &mut Merge, id: SourceId, outcome: Outcome, bytes: usize) {
        let (records, total_bytes, refused) = self.count(id, &outcome, bytes);
        let Some(source) = self.sources.get_mut(id) else { return };
        source.empty_pages = if outcome.records == 0 { source.empty_pages + 1 } else { 0 };
        if let Some(failure) = outcome.failure {
            return self.fail(merge, id, failure);
        }
        if refused >= MAX_REFUSED_RECORDS {
            return self.fail(merge, id, HolderFailure::Misbehaved);
        }
        let Some(left) = outcome.left else {
            source.state = SourceState::Over;
            merge.passed(id, None);
            return self.set_answer(id, HolderAnswer::Answered);
        };
        source.left = left;
        merge.passed(id, outcome.last);
        if source.peer.is_none() {
            return;
        }
        let options = &self.run.options;
        let cut_off = if records >= options.max_peer_records {
            CutOff::Records
        } else if total_bytes >= options.max_peer_bytes {
            CutOff::Bytes
        } else if source.empty_pages >= MAX_EMPTY_PAGES {
            CutOff::Endless
        } else {
            return;
        };
        source.state = SourceState::Over;
        merge.gone(id);
        self.set_answer(id, HolderAnswer::CutOff(cut_off));
    }

    /// Adds an answer to the report; returns the totals of the source.
    fn count(&self, id: SourceId, outcome: &Outcome, bytes: usize) -> (u64, u64, u64) {
        let mut report = self.run.report.lock();
        report.skipped += outcome.skipped;
        report.of_others += outcome.of_others;
        let peer = self.sources.get(id).and_then(|source| source.peer);
        let Some(holder) = report.peers.iter_mut().find(|holder| Some(holder.peer) == peer) else {
            report.local_records += outcome.records;
            return (0, 0, 0);
        };
        holder.records += outcome.records;
        holder.bytes += u64::try_from(bytes).unwrap_or(u64::MAX);
        holder.refused += outcome.refused_records;
        (holder.records, holder.bytes, holder.refused)
    }

    pub(super) fn fail(&mut self, merge: &mut Merge, id: SourceId, failure: HolderFailure) {
        if let Some(source) = self.sources.get_mut(id) {
            source.state = SourceState::Over;
        }
        merge.gone(id);
        self.set_answer(id, HolderAnswer::Failed(failure));
    }

    fn set_answer(&self, id: SourceId, answer: HolderAnswer) {
        let peer = self.sources.get(id).and_then(|source| source.peer);
        let mut report = self.run.report.lock();
        if let Some(holder) = report.peers.iter_mut().find(|holder| Some(holder.peer) == peer) {
            holder.answer = answer;
        }
    }

    /// Sets the answer of all remaining sources when everything was found.
    pub(super) fn end(&self, answer: &HolderAnswer) {
        let mut report = self.run.report.lock();
        for holder in report.peers.iter_mut().filter(|holder| holder.answer == HolderAnswer::Pending) {
            holder.answer = answer.clone();
        }
    }
}
