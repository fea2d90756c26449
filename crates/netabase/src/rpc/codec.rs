//! Encoding and decoding of fields: numbers are big-endian, keys and names have a length of two
//! bytes in front, values one of four bytes, and lists a count of two bytes.
//!
//! Decoded fields borrow from the message. Every count and length is compared with a bound, and
//! with the remaining bytes, before memory is allocated.

/// The error of a malformed message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed;

/// A record in a message: its key and its envelope, both unverified.
pub(crate) type WireRecord<'a> = (&'a [u8], &'a [u8]);

/// A reader of the remaining bytes of a message.
#[derive(Debug, Clone)]
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Returns the number of remaining bytes.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns all remaining bytes.
    pub(crate) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    /// Fails if bytes remain.
    pub(crate) fn end(&self) -> Result<(), Malformed> {
        if self.0.is_empty() { Ok(()) } else { Err(Malformed) }
    }

    pub(crate) fn take(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(Malformed)?;
        self.0 = rest;
        Ok(*taken)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Malformed> {
        self.array().map(|[byte]| byte)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, Malformed> {
        self.array().map(u16::from_be_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_be_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_be_bytes)
    }

    /// Reads a flag.
    pub(crate) fn flag(&mut self) -> Result<bool, Malformed> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Malformed),
        }
    }

    /// Reads a key or a name of at most `max` bytes.
    pub(crate) fn short(&mut self, max: usize) -> Result<&'a [u8], Malformed> {
        let len = usize::from(self.u16()?);
        if len > max { Err(Malformed) } else { self.take(len) }
    }

    /// Reads a key; the caller checks its length.
    pub(crate) fn key(&mut self) -> Result<&'a [u8], Malformed> {
        self.short(usize::MAX)
    }

    /// Reads a value.
    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], Malformed> {
        let len = self.u32()?;
        self.take(usize::try_from(len).map_err(|_| Malformed)?)
    }

    pub(crate) fn record(&mut self) -> Result<WireRecord<'a>, Malformed> {
        Ok((self.key()?, self.bytes()?))
    }

    /// Reads an optional field behind its flag.
    pub(crate) fn optional<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, Malformed>,
    ) -> Result<Option<T>, Malformed> {
        if self.flag()? { read(self).map(Some) } else { Ok(None) }
    }

    /// Reads a list of at most `max` items of at least one byte each.
    pub(crate) fn list<T>(
        &mut self,
        max: usize,
        mut read: impl FnMut(&mut Self) -> Result<T, Malformed>,
    ) -> Result<Vec<T>, Malformed> {
        let count = usize::from(self.u16()?);
        if count > max || count > self.len() {
            return Err(Malformed);
        }
        (0..count).map(|_| read(self)).collect()
    }
}

/// Writes a key or a name of less than 64 KiB.
pub(crate) fn write_short(bytes: &mut Vec<u8>, value: &[u8]) {
    bytes.extend(u16::try_from(value.len()).unwrap_or(u16::MAX).to_be_bytes());
    bytes.extend(value);
}

/// Writes a value.
pub(crate) fn write_bytes(bytes: &mut Vec<u8>, value: &[u8]) {
    bytes.extend(u32::try_from(value.len()).unwrap_or(u32::MAX).to_be_bytes());
    bytes.extend(value);
}

pub(crate) fn write_record(bytes: &mut Vec<u8>, (key, envelope): WireRecord<'_>) {
    write_short(bytes, key);
    write_bytes(bytes, envelope);
}

/// Writes a flag, and then the value if there is one.
pub(crate) fn write_optional<T>(bytes: &mut Vec<u8>, value: Option<T>, write: impl FnOnce(&mut Vec<u8>, T)) {
    bytes.push(u8::from(value.is_some()));
    if let Some(value) = value {
        write(bytes, value);
    }
}

/// A builder of a list: a count and as many items as fit, behind a prefix.
#[derive(Debug)]
pub(crate) struct List {
    bytes: Vec<u8>,
    /// The offset of the count.
    at: usize,
    count: u16,
    max: usize,
    limit: usize,
}

impl List {
    /// Starts a list of at most `max` items in a message of at most `limit` bytes.
    pub(crate) fn after(mut bytes: Vec<u8>, max: usize, limit: usize) -> Self {
        let at = bytes.len();
        bytes.extend([0; 2]);
        Self { bytes, at, count: 0, max: max.min(u16::MAX.into()), limit }
    }

    /// Adds an item, or removes it again if it does not fit beside others.
    pub(crate) fn push(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> bool {
        if self.len() >= self.max {
            return false;
        }
        let before = self.bytes.len();
        write(&mut self.bytes);
        if self.count > 0 && self.bytes.len() > self.limit {
            self.bytes.truncate(before);
            return false;
        }
        self.count += 1;
        true
    }

    /// Returns the number of items.
    pub(crate) fn len(&self) -> usize {
        usize::from(self.count)
    }

    pub(crate) fn finish(mut self) -> Vec<u8> {
        if let Some(count) = self.bytes.get_mut(self.at..self.at + 2) {
            count.copy_from_slice(&self.count.to_be_bytes());
        }
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut list = List::after(vec![9], 2, 23);
        assert!(list.push(|bytes| write_record(bytes, (b"key", b"value"))));
        assert!(!list.push(|bytes| write_record(bytes, (b"other", b""))), "it has no room");
        assert!(list.push(|bytes| write_record(bytes, (b"", b""))));
        assert!(!list.push(|bytes| write_record(bytes, (b"", b""))), "there are enough");
        let mut large = List::after(Vec::new(), 2, 0);
        assert!(large.push(|bytes| bytes.push(1)) && large.len() == 1, "the first one always has room");
        let mut bytes = list.finish();
        write_optional(&mut bytes, Some(&b"n"[..]), write_short);
        write_optional(&mut bytes, None::<&[u8]>, write_short);
        assert_eq!(
            bytes,
            b"\x09\x00\x02\x00\x03key\x00\x00\x00\x05value\x00\x00\x00\x00\x00\x00\x01\x00\x01n\x00"
        );
        let mut reader = Reader::new(&bytes);
        assert_eq!(reader.u8(), Ok(9));
        assert_eq!(reader.list(2, Reader::record), Ok(vec![(&b"key"[..], &b"value"[..]), (b"", b"")]));
        assert_eq!(reader.optional(|reader| reader.short(1)), Ok(Some(&b"n"[..])));
        assert_eq!((reader.optional(Reader::key), reader.end()), (Ok(None), Ok(())));
    }

    #[test]
    fn counts_and_lengths_beyond_their_bounds_and_the_bytes_are_refused() {
        let list = |bytes, max| Reader::new(bytes).list(max, Reader::u8);
        assert_eq!(list(b"\x00\x02ab", 2), Ok(vec![b'a', b'b']));
        assert_eq!(list(b"\x00\x02ab", 1), Err(Malformed));
        assert_eq!(list(b"\xff\xffab", usize::MAX), Err(Malformed));
        assert_eq!(Reader::new(b"\x00\x02ab").short(1), Err(Malformed));
        assert_eq!(Reader::new(b"\x00\x03ab").key(), Err(Malformed));
        assert_eq!(Reader::new(b"\xff\xff\xff\xffab").bytes(), Err(Malformed));
        assert_eq!(Reader::new(b"\x02").flag(), Err(Malformed));
        assert_eq!(Reader::new(b"a").end(), Err(Malformed));
    }
}
