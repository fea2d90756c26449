//! Versions of this author that a wrong clock has dated, and that no peer has accepted.

use super::{Applier, Published, published};
use crate::changes::change::{Change, ChangeKind, Origin};
use crate::error::StoreError;
use crate::model::schema::IndexKeys;
use crate::version::envelope::Envelope;
use crate::version::record_key::RecordKey;
use crate::write::apply::Lease;

impl Applier<'_> {
    /// Signs a version of this author again with the present time, in place of one that is further
    /// ahead of the clock than peers accept, unless the record has another version by now.
    ///
    /// This is the only write that replaces a signed version by an earlier one. All data that
    /// follows from the former version is removed first.
    pub(super) fn redate(
        &mut self,
        key: &RecordKey,
        refused: Option<Published>,
    ) -> Result<Option<Change>, StoreError> {
        let Some(current) = self.current(key)?.filter(|now| published(now, self.author) == refused) else {
            return Ok(None);
        };
        let Some((stored, secondary)) = self.dated_now(key, &current) else { return Ok(None) };
        let lease = self.lease(key)?;
        let previous = self.take(key)?;
        let change = self.put(key, &stored, &secondary, Origin::Local, false)?;
        if let Some(lease) = lease {
            self.set_lease(key, Some(&current), Some(&stored), Lease::For(lease.lifetime))?;
        }
        self.schedule(key, Some(self.core.options().clock.unix_millis()))?;
        let kind = if stored.is_tombstone() { ChangeKind::Removed } else { ChangeKind::Updated };
        Ok(previous.zip(change).map(|(previous, change)| Change { kind, previous: Some(previous), ..change }))
    }

    /// Returns a version in which contributions of this author that are dated too far ahead are
    /// signed with the present time, and its secondary keys; `None` if there are none. Other
    /// contributions stay as they are.
    fn dated_now(&self, key: &RecordKey, current: &Envelope) -> Option<(Envelope, IndexKeys)> {
        let clock = &self.core.options().clock;
        let is_ahead = |part: &Envelope| {
            part.author() == self.author && part.timestamp().is_some_and(|dated| clock.is_beyond_skew(dated))
        };
        let (ahead, mut parts): (Vec<_>, Vec<_>) = current.contributions().into_iter().partition(is_ahead);
        if ahead.is_empty() {
            return None;
        }
        let mut again = None;
        for part in &ahead {
            let payload = (!part.is_tombstone()).then(|| part.payload());
            let signed = self.core.sign(key, None, payload, part.expires().unwrap_or_default())?;
            parts.extend(signed.contributions());
            again = Some(signed);
        }
        let again = again?;
        if current.is_bundle() {
            return Some(self.core.merged(key, &Envelope::bundle(&parts)?));
        }
        let model = self.layout.place(key).model.filter(|_| !again.is_tombstone());
        let model = model.filter(|model| !model.is_newer(again.payload()));
        let keys = model.and_then(|model| model.schema.keys_of(again.payload()));
        Some((again, keys.map_or_else(IndexKeys::default, |keys| keys.secondary)))
    }
}
