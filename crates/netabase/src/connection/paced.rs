//! A socket that is read in pieces.
//!
//! yamux reads its socket until nothing is left, into a window of 256 KiB for each stream, before a
//! protocol sees the first byte and can refuse the rest. So a turn of the connection's task reads
//! no more than [`MAX_READ_BYTES`] of the socket, and what came is looked at before more is read.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures::{AsyncRead, AsyncWrite};

use crate::connection::limits::MAX_READ_BYTES;
use crate::connection::processor::turn;
use crate::platform::Instant;

/// A socket of which a task reads a piece in each of its turns.
pub(crate) struct Paced<S> {
    socket: S,
    /// The turn of the last read, and the bytes that it has read.
    turn: Option<Instant>,
    read: usize,
}

impl<S> Paced<S> {
    pub(crate) fn new(socket: S) -> Self {
        Self { socket, turn: None, read: 0 }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Paced<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let turn = turn();
        if turn.is_none() || self.turn != turn {
            (self.turn, self.read) = (turn, 0);
        } else if self.read >= MAX_READ_BYTES {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let read = ready!(Pin::new(&mut self.socket).poll_read(context, buffer))?;
        self.read += read;
        Poll::Ready(Ok(read))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Paced<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(context, buffer)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(context, buffers)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(context)
    }

    fn poll_close(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_close(context)
    }
}

#[cfg(test)]
mod tests {
    use futures::AsyncReadExt;
    use futures::io::Cursor;

    use super::*;
    use crate::connection::processor::Processor;

    #[tokio::test]
    async fn a_turn_reads_a_piece() {
        const PIECES: usize = 3;
        let mut socket = Paced::new(Cursor::new(vec![0; PIECES * MAX_READ_BYTES]));
        let mut turns = Vec::new();
        let task = async {
            let mut buffer = vec![0; MAX_READ_BYTES / 4];
            while socket.read(&mut buffer).await.unwrap() > 0 {
                turns.push(turn());
            }
        };
        Processor::new().metered(Box::pin(task)).await;
        assert_eq!(turns.len(), 4 * PIECES);
        turns.dedup();
        assert_eq!(turns.len(), PIECES);
    }
}
