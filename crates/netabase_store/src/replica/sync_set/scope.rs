//! The model of a scope, and the records that have a value.

use std::sync::Arc;

use super::{Gathered, SyncItem, SyncSet};
use crate::changes::history::Position;
use crate::engine::unless_damaged;
use crate::error::{ScopeError, StoreError};
use crate::model::key_range::KeySpan;
use crate::model::scope::{Scope, ScopePart};
use crate::replica::Replica;
use crate::replica::limits::MAX_VALUE_ITEMS;
use crate::tables::{self, ModelTables};
use crate::version::envelope::Envelope;
use crate::version::record_key::RecordKey;

/// The length of [`Replica::model_tag`].
pub(crate) const MODEL_TAG_BYTES: usize = 8;
/// Separates these hashes from every other use of the hash.
const TAG_DOMAIN: &str = "netabase model of a scope v1";

impl<'a> Replica<'a> {
    /// Returns the scopes that are compared one by one for a scope: those of the models of a
    /// definition, and any other scope itself.
    ///
    /// Fails with [`ScopeError::Unknown`] if this store's
    /// schema has no such definition, model or secondary key.
    pub fn parts_of_scope(self, scope: &Scope) -> Result<Vec<Scope>, StoreError> {
        if scope.part != ScopePart::All {
            return self.model_of_scope(scope).map(|_| vec![scope.clone()]);
        }
        let schema = self.store.schema().filter(|schema| schema.name == scope.definition);
        let schema = schema.ok_or_else(|| StoreError::Scope(ScopeError::Unknown { scope: scope.clone() }))?;
        let part = |name: &str| Scope { part: ScopePart::Model(name.to_owned()), ..scope.clone() };
        Ok(schema.models.iter().map(|model| part(model.name)).collect())
    }

    /// Returns a short name for the model of a scope, by which stores tell models apart: with
    /// another policy it is another one.
    pub fn model_tag(self, scope: &Scope) -> Result<[u8; MODEL_TAG_BYTES], StoreError> {
        self.model_of_scope(scope).map(|(_, model)| self.tag_of(model))
    }

    /// Returns the scope of the model with a short name, if this store has it.
    pub fn model_of_tag(self, tag: &[u8; MODEL_TAG_BYTES]) -> Option<Scope> {
        let layout = self.core().layout();
        let model = layout.models().iter().find(|model| self.tag_of(model) == *tag)?;
        let part = ScopePart::Model(model.schema.name.to_owned());
        Some(Scope { definition: layout.schema()?.name.to_owned(), part })
    }

    fn tag_of(self, model: &ModelTables) -> [u8; MODEL_TAG_BYTES] {
        let definition = self.store.schema().map_or("", |schema| schema.name);
        let mut hasher = blake3::Hasher::new_derive_key(TAG_DOMAIN);
        hasher.update(definition.as_bytes()).update(b"/").update(model.marked.as_bytes());
        hasher.finalize().as_bytes().first_chunk().copied().unwrap_or_default()
    }

    /// Returns whether a version is in a scope; a tombstone is in that of no value.
    pub fn is_in_scope(self, scope: &Scope, key: &RecordKey, envelope: &Envelope) -> bool {
        self.core().is_in_scope(scope, key, envelope)
    }

    pub(super) fn model_of_scope(self, scope: &Scope) -> Result<(usize, &'a ModelTables), StoreError> {
        let layout = self.core().layout();
        let other = || StoreError::Scope(ScopeError::Unknown { scope: scope.clone() });
        let (name, index) = match &scope.part {
            ScopePart::All => return Err(other()),
            ScopePart::Model(model) => (model, None),
            ScopePart::Value { model, index, .. } => (model, Some(index)),
        };
        let ours = layout.schema().is_some_and(|schema| schema.name == scope.definition);
        let model = layout.model(name).filter(|_| ours).ok_or_else(other)?;
        let has_index = index.is_none_or(|index| model.schema.indexes.iter().any(|i| i.name == index));
        if has_index { Ok((model.position, model)) } else { Err(other()) }
    }

    /// Gathers the records that have a value, unless they were gathered lately and are the same.
    pub(super) fn set_of_value(
        self,
        scope: &Scope,
        position: usize,
        model: &ModelTables,
        index: &str,
        value: &[u8],
    ) -> Result<SyncSet, StoreError> {
        let core = self.core();
        let snapshot = core.whole_snapshot()?;
        if let Some(set) = core.gathered(scope, &snapshot) {
            return Ok(SyncSet::of_items(self.store.clone(), snapshot, position, set, 0));
        }
        let next = Position::load(&snapshot)?.next;
        let index = model.schema.indexes.iter().position(|schema| schema.name == index);
        let table = model.index(index.unwrap_or(usize::MAX))?;
        let definition = core.layout().schema().map_or("", |schema| schema.name);
        let now = core.options().clock.unix_millis();
        let (mut items, mut entries_read, mut expires) = (Vec::new(), 0, u64::MAX);
        for entry in snapshot.range(table, (&KeySpan::prefix(value.to_vec())).into())?.readable() {
            let entry = entry?;
            entries_read += 1;
            let split = tables::split_entry(entry.key(), entry.value());
            let Some((_, primary)) = split.filter(|(key, _)| *key == value) else { continue };
            let Ok(key) = model.schema.record_key(definition, primary) else { continue };
            let stored = unless_damaged(snapshot.get_with(&model.records, primary, Envelope::parse))?;
            let Some(Ok(stored)) = stored else { continue };
            let is_here = !stored.is_expired(now) && self.is_found_by(model, index, value, &stored);
            let Some(item) = SyncItem::of(&key, &stored).filter(|_| is_here) else { continue };
            if items.len() == MAX_VALUE_ITEMS {
                return Err(ScopeError::TooLarge { limit: MAX_VALUE_ITEMS }.into());
            }
            expires = stored.expires().unwrap_or(u64::MAX).min(expires);
            items.push((item, primary.into()));
        }
        let set = Arc::new(Gathered::new(items));
        // On sled, which has no snapshots, the entries may be of different moments.
        if core.engine().has_snapshots() {
            core.keep_gathered(scope, &set, next, expires);
        }
        Ok(SyncSet::of_items(self.store.clone(), snapshot, position, set, entries_read))
    }

    /// Returns whether a record has a key; the check is needed only if an index may be stale.
    fn is_found_by(self, model: &ModelTables, index: Option<usize>, value: &[u8], stored: &Envelope) -> bool {
        if !model.may_be_stale() && self.core().engine().has_snapshots() {
            return true;
        }
        let keys = model.schema.keys_of(stored.payload());
        keys.is_some_and(|keys| keys.secondary.iter().any(|(at, key)| Some(at) == index && key == value))
    }
}
