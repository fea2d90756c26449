//! Multiplexing by yamux, in turns.
//!
//! yamux reads until nothing is left, into a window of 256 KiB for each stream, before a protocol
//! sees the first byte and can refuse the rest; frames of 12 bytes it handles by the thousand. So a
//! turn of the connection's task reads no more than [`MAX_READ_BYTES`] and for no longer than
//! [`LONGEST_TURN`], and what came is looked at before more is read.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures::{AsyncRead, AsyncWrite};
use libp2p::core::upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade, UpgradeInfo};
use libp2p::yamux;

use crate::connection::limits::{LONGEST_TURN, MAX_READ_BYTES};
use crate::connection::processor::turn;
use crate::platform::{self, Instant};

/// yamux over sockets of which a task reads a piece in each of its turns.
#[derive(Debug, Clone, Default)]
pub(crate) struct Multiplexing(yamux::Config);

impl UpgradeInfo for Multiplexing {
    type Info = <yamux::Config as UpgradeInfo>::Info;
    type InfoIter = <yamux::Config as UpgradeInfo>::InfoIter;

    fn protocol_info(&self) -> Self::InfoIter {
        self.0.protocol_info()
    }
}

impl<S: AsyncRead + AsyncWrite + Send + Unpin + 'static> InboundConnectionUpgrade<S> for Multiplexing {
    type Output = <yamux::Config as InboundConnectionUpgrade<Paced<S>>>::Output;
    type Error = <yamux::Config as InboundConnectionUpgrade<Paced<S>>>::Error;
    type Future = <yamux::Config as InboundConnectionUpgrade<Paced<S>>>::Future;

    fn upgrade_inbound(self, socket: S, info: Self::Info) -> Self::Future {
        self.0.upgrade_inbound(Paced::new(socket), info)
    }
}

impl<S: AsyncRead + AsyncWrite + Send + Unpin + 'static> OutboundConnectionUpgrade<S> for Multiplexing {
    type Output = <yamux::Config as OutboundConnectionUpgrade<Paced<S>>>::Output;
    type Error = <yamux::Config as OutboundConnectionUpgrade<Paced<S>>>::Error;
    type Future = <yamux::Config as OutboundConnectionUpgrade<Paced<S>>>::Future;

    fn upgrade_outbound(self, socket: S, info: Self::Info) -> Self::Future {
        self.0.upgrade_outbound(Paced::new(socket), info)
    }
}

/// A socket of which a task reads a piece in each of its turns.
pub(crate) struct Paced<S> {
    socket: S,
    /// The turn of the last read, the time of its first one, and the bytes that it has read.
    turn: Option<Instant>,
    since: Instant,
    read: usize,
}

impl<S> Paced<S> {
    fn new(socket: S) -> Self {
        Self { socket, turn: None, since: platform::now(), read: 0 }
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
            (self.turn, self.since, self.read) = (turn, platform::now(), 0);
        } else if self.read >= MAX_READ_BYTES || platform::since(self.since) >= LONGEST_TURN {
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
