//! Reads the bytes of the sync protocol.

use netabase_store::{Refusal, SYNC_ID_BYTES, SyncBound, Timestamp};

use super::{KNOWN, MAX_IDS, MODEL, Malformed, Need, REFUSED, STORED, VALUE, WireScope};
use crate::network::record_protocol::wire::{PutAnswer, WireRecord};
use crate::outcome::VersionId;

/// Reads from the front of what is left.
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    pub(super) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    pub(super) fn end(&self) -> Result<(), Malformed> {
        if self.0.is_empty() { Ok(()) } else { Err(Malformed) }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(Malformed)?;
        self.0 = rest;
        Ok(*taken)
    }

    pub(super) fn u8(&mut self) -> Result<u8, Malformed> {
        self.array().map(|[byte]| byte)
    }

    pub(super) fn u16(&mut self) -> Result<u16, Malformed> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_be_bytes)
    }

    pub(super) fn flag(&mut self) -> Result<bool, Malformed> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Malformed),
        }
    }

    fn key(&mut self) -> Result<&'a [u8], Malformed> {
        let len = self.u16()?;
        self.take(len.into())
    }

    fn bytes(&mut self) -> Result<&'a [u8], Malformed> {
        let len = self.u32()?;
        self.take(usize::try_from(len).map_err(|_| Malformed)?)
    }

    pub(super) fn scope(&mut self) -> Result<WireScope<'a>, Malformed> {
        let kind = self.u8()?;
        let model = self.array()?;
        let value = match kind {
            MODEL => None,
            VALUE => Some((self.key()?, self.key()?)),
            _ => return Err(Malformed),
        };
        Ok(WireScope { model, value })
    }

    pub(super) fn bound(&mut self) -> Result<SyncBound, Malformed> {
        let timestamp = u64::from_be_bytes(self.array()?);
        let len = usize::from(self.u8()?);
        if len > SYNC_ID_BYTES {
            return Err(Malformed);
        }
        SyncBound::new(timestamp, self.take(len)?).ok_or(Malformed)
    }

    pub(super) fn need(&mut self) -> Result<Need, Malformed> {
        let (from, to) = (self.bound()?, self.bound()?);
        Ok(Need { from, to, ids: self.list(MAX_IDS, Self::array)? })
    }

    pub(super) fn record(&mut self) -> Result<WireRecord<'a>, Malformed> {
        Ok((self.key()?, self.bytes()?))
    }

    pub(super) fn optional_record(&mut self) -> Result<Option<WireRecord<'a>>, Malformed> {
        if self.flag()? { self.record().map(Some) } else { Ok(None) }
    }

    pub(super) fn version(&mut self) -> Result<(&'a [u8], VersionId), Malformed> {
        let key = self.key()?;
        let timestamp = Timestamp::from_bits(u64::from_be_bytes(self.array()?));
        Ok((key, VersionId { timestamp, fingerprint: self.array()? }))
    }

    pub(super) fn put_answer(&mut self) -> Result<PutAnswer, Malformed> {
        Ok(match self.array()? {
            [STORED, _] => PutAnswer::Stored,
            [KNOWN, _] => PutAnswer::Known,
            [REFUSED, reason] => PutAnswer::Refused(Refusal::from_code(reason)),
            _ => PutAnswer::Refused(Refusal::Other),
        })
    }

    pub(super) fn list<T>(
        &mut self,
        max: usize,
        mut item: impl FnMut(&mut Self) -> Result<T, Malformed>,
    ) -> Result<Vec<T>, Malformed> {
        let count = usize::from(self.u16()?);
        // An item has at least one byte.
        if count > max || count > self.0.len() {
            return Err(Malformed);
        }
        (0..count).map(|_| item(self)).collect()
    }
}
