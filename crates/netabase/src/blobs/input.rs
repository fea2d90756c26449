//! A bridge from an async reader to a blocking thread.

use std::io::{self, Read};
use std::pin::pin;

use tokio::io::{AsyncRead, ReadBuf};
use tokio::sync::mpsc;

use crate::blobs::limits::{INPUT_PART_BYTES, INPUT_PARTS};

/// The blocking end of a bridge.
pub(super) struct BlockingReader {
    parts: mpsc::Receiver<io::Result<Vec<u8>>>,
    part: io::Cursor<Vec<u8>>,
    is_over: bool,
}

/// Returns a blocking reader, and the future that feeds it.
pub(super) fn bridge(reader: impl AsyncRead + Send) -> (BlockingReader, impl Future<Output = ()>) {
    let (sender, parts) = mpsc::channel(INPUT_PARTS);
    let blocking = BlockingReader { parts, part: io::Cursor::default(), is_over: false };
    (blocking, feed(reader, sender))
}

/// Feeds the reader. An empty part marks the end: a channel that closes without one means that the
/// caller has cancelled.
async fn feed(reader: impl AsyncRead + Send, sender: mpsc::Sender<io::Result<Vec<u8>>>) {
    let mut reader = pin!(reader);
    loop {
        let mut part = vec![0; INPUT_PART_BYTES];
        let mut buffer = ReadBuf::new(&mut part);
        let read = std::future::poll_fn(|context| reader.as_mut().poll_read(context, &mut buffer)).await;
        let filled = buffer.filled().len();
        part.truncate(filled);
        let is_last = read.is_err() || filled == 0;
        // An error means that the thread has failed and has reported it.
        if sender.send(read.map(|()| part)).await.is_err() || is_last {
            return;
        }
    }
}

impl Read for BlockingReader {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = self.part.read(out)?;
            if read > 0 || self.is_over || out.is_empty() {
                return Ok(read);
            }
            match self.parts.blocking_recv() {
                Some(part) => {
                    self.part = io::Cursor::new(part?);
                    self.is_over = self.part.get_ref().is_empty();
                }
                None => return Err(io::Error::other("the caller that adds the blob has cancelled the call")),
            }
        }
    }
}
