//! A disk that keeps what was synced, and of the rest what chance leaves.

use std::io;
use std::sync::{Arc, Mutex};

use netabase_store::RedbStorage;

/// The unit that a disk writes atomically.
const SECTOR: usize = 512;

/// A fault, and the number of the change or the read at which it happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Every call from this one on fails, and what was not synced is lost.
    PowerLoss { at: u32 },
    /// Every write from this one on fails for want of space.
    Full { at: u32 },
    /// From this change on, syncing fails, and what was not synced may be lost.
    Sync { at: u32 },
    /// A read fails.
    Read { at: u32 },
}

/// The rest of the writes that were not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// Nothing.
    All,
    /// The writes up to some moment.
    Prefix,
    /// Any of them.
    Subset,
    /// Any of their sectors.
    Sectors,
}

/// How often things went wrong.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Faults {
    /// Calls that failed.
    pub failed: u64,
    /// Writes that were lost, whole or in part, after the fault.
    pub dropped: u64,
    /// Writes that were not synced, and are there nevertheless.
    pub kept: u64,
}

/// Cloning is cheap, and clones share the disk.
#[derive(Debug, Clone, Default)]
pub struct Disk(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    synced: Vec<u8>,
    current: Vec<u8>,
    unsynced: Vec<Change>,
    changes: u32,
    reads: u32,
    fault: Option<Fault>,
    faults: Faults,
}

#[derive(Debug, Clone)]
enum Change {
    Write { offset: usize, data: Vec<u8> },
    SetLen(usize),
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Write { offset, data } => write(bytes, *offset, data),
            Self::SetLen(len) => bytes.resize(*len, 0),
        }
    }
}

/// Writes as far as there is room: what was written behind an end that was lost is lost, too.
fn write(bytes: &mut [u8], offset: usize, data: &[u8]) {
    let end = (offset + data.len()).min(bytes.len());
    if offset < end {
        bytes[offset..end].copy_from_slice(&data[..end - offset]);
    }
}

impl Disk {
    pub fn holding(bytes: Vec<u8>) -> Self {
        let state = State { synced: bytes.clone(), current: bytes, ..State::default() };
        Self(Arc::new(Mutex::new(state)))
    }

    pub fn fail(&self, fault: Option<Fault>) {
        let mut state = self.0.lock().unwrap();
        (state.changes, state.reads, state.fault) = (0, 0, fault);
    }

    /// Returns a disk with what is left after the loss, which `chance` decides.
    pub fn after(&self, loss: Loss, mut chance: impl FnMut() -> bool) -> (Self, Faults) {
        let mut state = self.0.lock().unwrap();
        let mut bytes = state.synced.clone();
        let mut faults = state.faults;
        let mut going = true;
        for change in std::mem::take(&mut state.unsynced) {
            let kept = match loss {
                Loss::All => false,
                Loss::Prefix => {
                    // About twenty changes are kept.
                    going = going && (0..5).any(|_| chance());
                    going
                }
                Loss::Subset => chance(),
                Loss::Sectors => match &change {
                    Change::Write { offset, data } => {
                        let kept: Vec<bool> = data.chunks(SECTOR).map(|_| chance()).collect();
                        for (number, (sector, _)) in
                            data.chunks(SECTOR).zip(&kept).enumerate().filter(|(_, (_, kept))| **kept)
                        {
                            write(&mut bytes, offset + number * SECTOR, sector);
                        }
                        faults.dropped += u64::from(kept.contains(&false));
                        faults.kept += u64::from(!kept.contains(&false));
                        continue;
                    }
                    Change::SetLen(_) => chance(),
                },
            };
            if kept {
                change.apply(&mut bytes);
            }
            faults.kept += u64::from(kept);
            faults.dropped += u64::from(!kept);
        }
        drop(state);
        (Self::holding(bytes), faults)
    }

    /// Returns the disk as the operating system sees it, if it goes on running.
    pub fn as_it_is(&self) -> (Self, Faults) {
        let state = self.0.lock().unwrap();
        (Self::holding(state.current.clone()), state.faults)
    }

    pub fn bytes(&self) -> Vec<u8> {
        self.0.lock().unwrap().current.clone()
    }
}

impl State {
    fn change(&mut self, change: Change) -> io::Result<()> {
        self.changes += 1;
        match self.fault {
            Some(Fault::PowerLoss { at }) if self.changes > at => {
                // The one that is interrupted may be there in part; what comes later never is.
                if self.changes == at + 1 {
                    self.unsynced.push(change);
                }
                self.failed(io::ErrorKind::BrokenPipe)
            }
            Some(Fault::Full { at }) if self.changes > at => {
                if let Change::Write { offset, mut data } = change {
                    data.truncate(data.len() / 2);
                    self.keep(Change::Write { offset, data });
                }
                self.failed(io::ErrorKind::StorageFull)
            }
            _ => {
                self.keep(change);
                Ok(())
            }
        }
    }

    fn keep(&mut self, change: Change) {
        change.apply(&mut self.current);
        self.unsynced.push(change);
    }

    fn sync(&mut self) -> io::Result<()> {
        self.changes += 1;
        match self.fault {
            Some(Fault::PowerLoss { at }) if self.changes > at => self.failed(io::ErrorKind::BrokenPipe),
            Some(Fault::Sync { at }) if self.changes > at => self.failed(io::ErrorKind::Other),
            _ => {
                for change in self.unsynced.drain(..) {
                    change.apply(&mut self.synced);
                }
                Ok(())
            }
        }
    }

    fn read(&mut self, offset: usize, out: &mut [u8]) -> io::Result<()> {
        self.reads += 1;
        match self.fault {
            Some(Fault::PowerLoss { at }) if self.changes > at => self.failed(io::ErrorKind::BrokenPipe),
            Some(Fault::Read { at }) if self.reads > at => self.failed(io::ErrorKind::Other),
            _ => {
                let bytes = self.current.get(offset..offset + out.len());
                out.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
                Ok(())
            }
        }
    }

    fn failed(&mut self, kind: io::ErrorKind) -> io::Result<()> {
        self.faults.failed += 1;
        Err(kind.into())
    }
}

impl RedbStorage for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().unwrap().current.len().try_into().unwrap())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.lock().unwrap().read(offset.try_into().unwrap(), out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.lock().unwrap().change(Change::SetLen(len.try_into().unwrap()))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.lock().unwrap().sync()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let change = Change::Write { offset: offset.try_into().unwrap(), data: data.to_vec() };
        self.0.lock().unwrap().change(change)
    }
}
