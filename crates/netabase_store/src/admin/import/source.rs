//! The bytes of an import, which may arrive slowly.

use std::io::{self, BufRead, ErrorKind};
use std::time::Duration;

use crate::platform;

/// The state of the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ready {
    Bytes,
    /// No input has arrived yet: the lines read so far can be stored meanwhile.
    Idle,
    End,
}

/// Reads an input, counts its bytes and lines, and reports when a read would block.
pub(super) struct Source<R> {
    reader: R,
    /// The first bytes, until they are taken.
    begin: Vec<u8>,
    was_idle: bool,
    /// Whether the last byte was a carriage return, which a newline may follow.
    after_return: bool,
    /// The number of bytes that were taken.
    pub(super) bytes: u64,
    /// The number of line ends that were taken.
    pub(super) ends: u64,
}

impl<R: BufRead> Source<R> {
    pub(super) fn new(reader: R) -> Self {
        Self { reader, begin: Vec::new(), was_idle: false, after_return: false, bytes: 0, ends: 0 }
    }

    /// Returns the first bytes of the input, before any is taken; fewer only if there are no more.
    pub(super) fn begin(&mut self) -> io::Result<&[u8]> {
        // The longest byte order mark that is told apart from others has four bytes.
        const BEGIN: usize = 4;
        while self.begin.len() < BEGIN {
            match self.ready_behind()? {
                Ready::Idle => {}
                Ready::End => break,
                Ready::Bytes => {
                    let chunk = self.reader.fill_buf()?;
                    let wanted = chunk.iter().take(BEGIN - self.begin.len());
                    let before = self.begin.len();
                    self.begin.extend(wanted);
                    self.reader.consume(self.begin.len() - before);
                }
            }
        }
        Ok(&self.begin)
    }

    pub(super) fn ready(&mut self) -> io::Result<Ready> {
        if self.begin.is_empty() { self.ready_behind() } else { Ok(Ready::Bytes) }
    }

    fn ready_behind(&mut self) -> io::Result<Ready> {
        // The pause after a reader has said twice that nothing has come yet.
        const PAUSE: Duration = Duration::from_millis(10);
        loop {
            let ready = match self.reader.fill_buf() {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    if self.was_idle {
                        platform::sleep(PAUSE);
                    }
                    Ready::Idle
                }
                Err(error) => return Err(error),
                Ok([]) => Ready::End,
                Ok(_) => Ready::Bytes,
            };
            self.was_idle = ready == Ready::Idle;
            return Ok(ready);
        }
    }

    /// Returns some of the bytes that come next; there are some after [`Ready::Bytes`].
    pub(super) fn chunk(&mut self) -> io::Result<&[u8]> {
        if self.begin.is_empty() { self.reader.fill_buf() } else { Ok(&self.begin) }
    }

    /// Returns whether the next byte, of which there is one, ends a line together with the one
    /// before.
    pub(super) fn is_newline_of_return(&mut self) -> io::Result<bool> {
        Ok(self.after_return && self.chunk()?.first() == Some(&b'\n'))
    }

    /// Takes bytes of the chunk.
    pub(super) fn take(&mut self, len: usize) -> io::Result<()> {
        let chunk = if self.begin.is_empty() { self.reader.fill_buf()? } else { &self.begin };
        let (mut ends, mut after_return) = (0, self.after_return);
        for byte in chunk.iter().take(len) {
            ends += u64::from(*byte == b'\r' || (*byte == b'\n' && !after_return));
            after_return = *byte == b'\r';
        }
        self.ends += ends;
        self.after_return = after_return;
        self.bytes += u64::try_from(len).unwrap_or(u64::MAX);
        if self.begin.is_empty() {
            self.reader.consume(len);
        } else {
            self.begin.drain(..len.min(self.begin.len()));
        }
        Ok(())
    }

    /// Takes bytes as long as `is_passed` returns `true`.
    pub(super) fn pass(&mut self, is_passed: impl Fn(u8) -> bool) -> io::Result<Passed> {
        loop {
            match self.ready()? {
                Ready::Idle => return Ok(Passed::Idle),
                Ready::End => return Ok(Passed::End),
                Ready::Bytes => {}
            }
            let chunk = self.chunk()?;
            let other = chunk.iter().position(|byte| !is_passed(*byte));
            let (len, byte) =
                (other.unwrap_or(chunk.len()), other.and_then(|other| chunk.get(other).copied()));
            self.take(len)?;
            if let Some(byte) = byte {
                return Ok(Passed::At(byte));
            }
        }
    }
}

/// The place at which skipping bytes has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Passed {
    /// At this byte, which is not taken.
    At(u8),
    Idle,
    End,
}
