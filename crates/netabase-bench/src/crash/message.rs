//! What the process that will be killed says: six bytes before every call and six after it.

use std::io::{self, Write};

use anyhow::{Context, bail, ensure};

use super::plan::THREADS;

/// The length of a message.
const BYTES: usize = 6;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Message {
    /// The store is open.
    Ready,
    /// The thread will make its n-th call.
    Intent { thread: u8, n: u32 },
    /// The thread's n-th call has returned.
    Done { thread: u8, n: u32 },
}

impl Message {
    /// Writes the message at once; the process may be killed at any time.
    pub(super) fn say(self) -> io::Result<()> {
        let (kind, thread, n) = match self {
            Self::Ready => (0, 0, 0),
            Self::Intent { thread, n } => (1, thread, n),
            Self::Done { thread, n } => (2, thread, n),
        };
        let mut bytes = vec![kind, thread];
        bytes.extend(n.to_le_bytes());
        let mut out = io::stdout().lock();
        out.write_all(&bytes)?;
        out.flush()
    }

    fn parse([kind, thread, n @ ..]: [u8; BYTES]) -> anyhow::Result<Self> {
        let n = u32::from_le_bytes(n);
        Ok(match kind {
            0 => Self::Ready,
            1 => Self::Intent { thread, n },
            2 => Self::Done { thread, n },
            kind => bail!("what is a message of kind {kind}?"),
        })
    }
}

/// Everything that a process has said.
#[derive(Debug, Default)]
pub(super) struct Heard {
    /// Whether it had opened the store.
    pub(super) ready: bool,
    /// The number of calls of each thread that have returned.
    pub(super) done: [u32; THREADS as usize],
    /// Whether each thread was in a call.
    pub(super) in_flight: [bool; THREADS as usize],
}

impl Heard {
    /// Takes in all whole messages; the last one may be torn.
    pub(super) fn parse(bytes: &[u8]) -> anyhow::Result<Self> {
        let mut heard = Self::default();
        for message in bytes.as_chunks::<BYTES>().0 {
            heard.take(Message::parse(*message)?)?;
        }
        Ok(heard)
    }

    fn take(&mut self, message: Message) -> anyhow::Result<()> {
        let (thread, n, done) = match message {
            Message::Ready => {
                self.ready = true;
                return Ok(());
            }
            Message::Intent { thread, n } => (thread, n, false),
            Message::Done { thread, n } => (thread, n, true),
        };
        let calls = self.done.get_mut(usize::from(thread)).context("an unknown thread")?;
        let in_flight = self.in_flight.get_mut(usize::from(thread)).context("an unknown thread")?;
        ensure!(*calls == n && *in_flight == done, "thread {thread} says {message:?} out of turn");
        *calls += u32::from(done);
        *in_flight = !done;
        Ok(())
    }
}
