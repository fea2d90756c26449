//! The number of the last synced commit, in a file beside sled's log.
//!
//! With a damaged log sled continues from the part before, as after a crash, and nothing in the
//! tree tells that there was more. So every commit has a number, and the number of the last synced
//! one is in a file that sled does not know. The file itself is not synced: an older number is a
//! lower bound, too.

use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;

use super::super::checksum::{self, CHECKSUM_BYTES};
use crate::platform::files::{self, File};

/// The name of the file.
const NAME: &str = "netabase-durable";
/// The distance of the two places of the file, each in a sector of its own: only one is written at
/// a time.
const SECTOR: usize = 512;
/// A number, and whether commits before it are lost.
const VALUE_BYTES: usize = 9;

/// The number of the last commit, and the content of the file.
#[derive(Debug)]
pub(super) struct Durable {
    file: Mutex<File>,
    commit: AtomicU64,
    lost: AtomicBool,
}

impl Durable {
    /// Opens the file of a database whose tree has `commit` as the number of its last commit.
    pub(super) fn open(path: &Path, commit: u64) -> io::Result<Self> {
        let file = files::open_or_create(path.join(NAME))?;
        let mut bytes = Vec::new();
        (&file).take(2 * SECTOR as u64).read_to_end(&mut bytes)?;
        let places = bytes.chunks(SECTOR).filter_map(parse);
        let (synced, was_lost) = places.max().unwrap_or_default();
        let lost = was_lost || synced > commit;
        let durable = Self {
            file: Mutex::new(file),
            commit: AtomicU64::new(commit.max(synced)),
            lost: AtomicBool::new(lost),
        };
        if lost && !was_lost {
            // The numbers go on from the larger one, and the loss stays known until it is repaired.
            durable.note(commit.max(synced))?;
        }
        Ok(durable)
    }

    /// Returns the number of the next commit.
    pub(super) fn next(&self) -> u64 {
        self.commit.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(super) fn last(&self) -> u64 {
        self.commit.load(Ordering::Relaxed)
    }

    /// Notes that a commit was synced.
    pub(super) fn note(&self, commit: u64) -> io::Result<()> {
        let mut value = [0; VALUE_BYTES];
        let (number, lost) = value.split_at_mut(VALUE_BYTES - 1);
        number.copy_from_slice(&commit.to_be_bytes());
        lost.fill(self.is_lost().into());
        let mut file = self.file.lock();
        file.seek(SeekFrom::Start(commit % 2 * SECTOR as u64))?;
        file.write_all(&[&value[..], &checksum_of(&value)].concat())
    }

    /// Returns whether synced commits are lost.
    pub(super) fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Relaxed)
    }

    /// Accepts the loss, and counts from the present commit.
    pub(super) fn accept(&self) -> io::Result<()> {
        self.lost.store(false, Ordering::Relaxed);
        let last = self.last();
        self.note(last)?;
        self.note(last + 1)?;
        self.commit.store(last + 1, Ordering::Relaxed);
        Ok(())
    }
}

fn parse(place: &[u8]) -> Option<(u64, bool)> {
    let (value, found) = place.get(..VALUE_BYTES + CHECKSUM_BYTES)?.split_at(VALUE_BYTES);
    let (commit, lost) = value.split_first_chunk()?;
    (checksum_of(value) == found).then(|| (u64::from_be_bytes(*commit), lost != [0]))
}

fn checksum_of(value: &[u8]) -> [u8; CHECKSUM_BYTES] {
    checksum::checksum(checksum::seed_of(NAME), b"", value)
}
