//! Scopes whose records are all kept.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::RwLock;

use crate::core::Core;
use crate::model::scope::{Scope, ScopePart};
use crate::replica::Replica;
use crate::version::envelope::Envelope;
use crate::version::record_key::RecordKey;

/// The pinned scopes, and the number of pins of each.
#[derive(Debug, Default)]
pub(crate) struct Pins {
    scopes: RwLock<BTreeMap<Scope, usize>>,
    /// The number of pins, so that no lock is taken if there is none.
    len: AtomicUsize,
    /// The number of changes of the pins.
    changes: AtomicU64,
}

/// Keeps the records of a scope as long as it lives: they are evicted only when no others are left,
/// and are not [released](Replica::release).
///
/// A pin is in memory only, and does not keep the store open.
#[derive(Debug)]
pub struct Pin {
    pins: Arc<Pins>,
    scope: Scope,
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut scopes = self.pins.scopes.write();
        if let Some(count) = scopes.get_mut(&self.scope) {
            *count -= 1;
            if *count == 0 {
                scopes.remove(&self.scope);
            }
        }
        self.pins.len.store(scopes.len(), Ordering::Release);
        self.pins.changes.fetch_add(1, Ordering::Release);
    }
}

impl Pins {
    pub(crate) fn is_empty(&self) -> bool {
        self.len.load(Ordering::Acquire) == 0
    }

    /// Returns a number that changes with the pinned scopes.
    pub(crate) fn generation(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }
}

impl Replica<'_> {
    /// Keeps the records of a scope until the returned pin is dropped.
    pub fn pin(self, scope: &Scope) -> Pin {
        let pins = Arc::clone(self.core().pins());
        let mut scopes = pins.scopes.write();
        *scopes.entry(scope.clone()).or_default() += 1;
        pins.len.store(scopes.len(), Ordering::Release);
        pins.changes.fetch_add(1, Ordering::Release);
        drop(scopes);
        Pin { pins, scope: scope.clone() }
    }

    /// Returns whether a version is in a scope that is [pinned](Self::pin).
    pub fn is_pinned(self, key: &RecordKey, envelope: &Envelope) -> bool {
        self.core().is_pinned(key, envelope)
    }
}

impl Core {
    pub(crate) fn is_pinned(&self, key: &RecordKey, envelope: &Envelope) -> bool {
        let pins = self.pins();
        if pins.is_empty() {
            return false;
        }
        pins.scopes.read().keys().any(|scope| self.is_in_scope(scope, key, envelope))
    }

    /// Returns whether a version is in a scope; a tombstone is in that of no value.
    pub(crate) fn is_in_scope(&self, scope: &Scope, key: &RecordKey, envelope: &Envelope) -> bool {
        if scope.definition != key.definition() {
            return false;
        }
        match &scope.part {
            ScopePart::All => true,
            ScopePart::Model(model) => model == key.model(),
            ScopePart::Value { model, index, key: value } => {
                if model != key.model() || envelope.is_tombstone() {
                    return false;
                }
                let Some(model) = self.layout().place(key).model else { return false };
                let index = model.schema.indexes.iter().position(|schema| schema.name == index);
                let keys = model.schema.keys_of(self.merged(key, envelope).0.payload());
                let has = |keys: crate::model::schema::RecordKeys| {
                    keys.secondary.iter().any(|(position, key)| Some(position) == index && key == value)
                };
                keys.is_some_and(has)
            }
        }
    }
}
