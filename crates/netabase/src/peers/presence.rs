//! Whether this node has compared what it has with others since it was away.
//!
//! A node was away while it slept, while it was not running, and while it had no connection. What
//! was written and removed meanwhile is missing here until the [repair](crate::replication::repair)
//! has compared everything with other holders.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use netabase_store::{NetabaseStore, StoreError};

/// Discards what may have been deleted while this node was away for long. Waits for the disk.
///
/// Whether it was is known when peers have told their clocks: a clock that is wrong makes every
/// absence long.
pub(crate) fn discard_unvouched(store: &NetabaseStore) -> Result<(), StoreError> {
    if store.replica().was_away() && store.replica().is_clock_compared() {
        let discarded = store.replica().discard_unvouched()?;
        tracing::info!(?discarded, "this node was away for long: what others may have deleted is discarded");
    }
    Ok(())
}

/// Counts the absences of a node, and which of them it has made up for. It outlives the swarm.
#[derive(Debug, Clone, Default)]
pub(crate) struct Presence(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    /// Whether no comparison is made by itself, so that none would end an absence.
    is_never_compared: AtomicBool,
    absences: AtomicU64,
    /// How many absences there were when the last complete comparison began.
    compared: AtomicU64,
}

impl Presence {
    /// Whether others may have written what is not here, since nothing was compared after an
    /// absence.
    pub(crate) fn is_behind(&self) -> bool {
        !self.0.is_never_compared.load(Ordering::Relaxed)
            && self.absences() > self.0.compared.load(Ordering::Acquire)
    }

    /// Nothing is compared by itself here.
    pub(crate) fn is_never_compared(&self) {
        self.0.is_never_compared.store(true, Ordering::Relaxed);
    }

    /// This node was away.
    pub(crate) fn was_away(&self) {
        self.0.absences.fetch_add(1, Ordering::AcqRel);
    }

    /// Returns how many absences there were.
    pub(crate) fn absences(&self) -> u64 {
        self.0.absences.load(Ordering::Acquire)
    }

    /// Everything was compared with others, beginning after so many absences.
    pub(crate) fn has_compared(&self, absences: u64) {
        self.0.compared.fetch_max(absences, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_absence_during_a_comparison_needs_another_one() {
        let presence = Presence::default();
        assert!(!presence.is_behind());
        presence.was_away();
        let begun = presence.absences();
        presence.was_away();
        presence.has_compared(begun);
        assert!(presence.is_behind());
        presence.has_compared(presence.absences());
        assert!(!presence.is_behind());
    }
}
