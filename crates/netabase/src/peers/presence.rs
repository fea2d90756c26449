//! Presence: whether this node has compared its records with other nodes since it was away.
//!
//! A node is away while it sleeps, while it is not running, and while it has no connection. It
//! lacks the changes of that time until [repair](crate::replication::repair) has compared all its
//! records with other holders.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use netabase_store::{NetabaseStore, StoreError};

/// Discards records that may have been deleted while this node was away for long. Blocks on the
/// disk.
///
/// The length of an absence is known only when peers have sent their clocks: with a wrong clock
/// every absence looks long.
pub(crate) fn discard_unvouched(store: &NetabaseStore) -> Result<(), StoreError> {
    if store.replica().was_away() && store.replica().is_clock_compared() {
        let discarded = store.replica().discard_unvouched()?;
        tracing::info!(
            ?discarded,
            "this node was away for long: records that peers may have deleted are discarded"
        );
    }
    Ok(())
}

/// The absences of a node, and which of them repair has covered. The counts outlive the swarm.
#[derive(Debug, Clone, Default)]
pub(crate) struct Presence(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    /// Whether repair never runs by itself, so that no absence would be covered.
    is_never_compared: AtomicBool,
    absences: AtomicU64,
    /// The number of absences at the start of the last complete comparison.
    compared: AtomicU64,
}

impl Presence {
    /// Returns whether peers may have changes that this node lacks, since no complete comparison
    /// has followed the last absence.
    pub(crate) fn is_behind(&self) -> bool {
        !self.0.is_never_compared.load(Ordering::Relaxed)
            && self.absences() > self.0.compared.load(Ordering::Acquire)
    }

    /// Records that repair never runs by itself.
    pub(crate) fn is_never_compared(&self) {
        self.0.is_never_compared.store(true, Ordering::Relaxed);
    }

    /// Records an absence.
    pub(crate) fn was_away(&self) {
        self.0.absences.fetch_add(1, Ordering::AcqRel);
    }

    /// Returns the number of absences.
    pub(crate) fn absences(&self) -> u64 {
        self.0.absences.load(Ordering::Acquire)
    }

    /// Records a complete comparison that started after so many absences.
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
