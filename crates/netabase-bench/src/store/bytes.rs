//! The bytes of a record by positions, as `docs/formats.md` has them, for the systems that are
//! written by hand: whoever writes one takes postcard.

use anyhow::ensure;

use super::model::Indexed;

/// The first byte of an unsigned envelope, then the version of the model.
const HEAD: [u8; 2] = [0, 1];

/// Appends the unsigned envelope of a record.
pub(super) fn encode<M: Indexed>(record: &M) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(256);
    bytes.extend(HEAD);
    Ok(postcard::to_extend(record, bytes)?)
}

pub(super) fn decode<M: Indexed>(envelope: &[u8]) -> anyhow::Result<M> {
    let (head, value) = envelope.split_at_checked(HEAD.len()).unwrap_or_default();
    ensure!(head == HEAD, "an envelope begins with {head:?}");
    let (record, rest) = postcard::take_from_bytes(value)?;
    ensure!(rest.is_empty(), "{} bytes are left over", rest.len());
    Ok(record)
}

/// Makes the key of an index entry: the secondary key, then the primary key.
pub(super) fn entry(mut secondary: Vec<u8>, primary: [u8; 8]) -> Vec<u8> {
    secondary.extend(primary);
    secondary
}

/// Returns the value of an index entry: the length of its secondary key.
pub(super) fn key_length(secondary: &[u8]) -> anyhow::Result<[u8; 2]> {
    Ok(u16::try_from(secondary.len())?.to_be_bytes())
}

/// Returns the part of an index entry that comes after the secondary key.
pub(super) fn primary(entry: &[u8], secondary: &[u8]) -> [u8; 8] {
    let primary = entry.strip_prefix(secondary).and_then(|primary| primary.first_chunk());
    primary.copied().unwrap_or_default()
}

/// Returns the first key after all that begin with `prefix`, which ends with a byte below 255.
pub(super) fn after(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if let Some(next) = last.checked_add(1) {
            end.push(next);
            break;
        }
    }
    end
}
