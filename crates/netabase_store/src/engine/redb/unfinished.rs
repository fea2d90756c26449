//! Storages in which a database was never finished, because the power failed while it was created.
//! A file gets its name when it is finished.
//!
//! redb gives a new file its size, and writes its magic number last, when everything else is on the
//! disk. redb refuses a file that has a size and no magic number, so a crash in between would make
//! the path unusable for ever. Such a file never had any content: it is truncated, and created
//! anew.

use std::io;

use redb::StorageBackend;

/// The length of redb's magic number, with which a file begins.
pub(super) const MAGIC_BYTES: usize = 9;
/// The rest of the header, which may be there or not.
const HEADER_BYTES: usize = 320;
/// The offset of the page size in the header, and its value.
const PAGE_SIZE: (usize, [u8; 4]) = (12, 4096_u32.to_le_bytes());

/// Empties a storage that holds an unfinished database; returns whether it did.
pub(super) fn clear(storage: &impl StorageBackend) -> io::Result<bool> {
    // More than redb gives a new database.
    const MOST_BYTES: u64 = 16 * 1024 * 1024;
    let len = storage.len()?;
    if !(HEADER_BYTES as u64..=MOST_BYTES).contains(&len) {
        return Ok(false);
    }
    let mut magic = [0; MAGIC_BYTES];
    storage.read(0, &mut magic)?;
    if magic != [0; MAGIC_BYTES] {
        return Ok(false);
    }
    let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
    storage.read(0, &mut bytes)?;
    let unfinished = is_unfinished(&bytes);
    if unfinished {
        storage.set_len(0)?;
        storage.sync_data()?;
    }
    Ok(unfinished)
}

fn is_unfinished(bytes: &[u8]) -> bool {
    let Some((header, rest)) = bytes.split_at_checked(HEADER_BYTES) else { return false };
    let (offset, page_size) = PAGE_SIZE;
    let has_zeros = |bytes: &[u8]| bytes.iter().all(|byte| *byte == 0);
    let has_page_size = header.get(offset..).is_some_and(|bytes| bytes.starts_with(&page_size));
    has_zeros(rest) && (has_zeros(header) || has_page_size)
}
