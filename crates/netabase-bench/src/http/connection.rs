//! As much of HTTP/1.1 as one side of a measurement needs: nothing between the socket and the
//! clock.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

/// The longest answer that is read.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// A connection that stays open.
pub(crate) struct Connection {
    stream: TcpStream,
    address: SocketAddr,
    read: Vec<u8>,
}

/// What was answered.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: String,
}

impl Connection {
    pub(crate) async fn open(address: SocketAddr) -> anyhow::Result<Self> {
        Self::new(TcpStream::connect(address).await?, address)
    }

    /// Opens one that comes from a local address.
    pub(crate) async fn open_from(source: Ipv4Addr, address: SocketAddr) -> anyhow::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.bind((source, 0).into())?;
        Self::new(socket.connect(address).await?, address)
    }

    fn new(stream: TcpStream, address: SocketAddr) -> anyhow::Result<Self> {
        stream.set_nodelay(true)?;
        Ok(Self { stream, address, read: Vec::new() })
    }

    pub(crate) async fn ask(&mut self, method: &str, path: &str, body: &str) -> anyhow::Result<Answer> {
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            self.address,
            body.len(),
        );
        self.stream.write_all(request.as_bytes()).await?;
        loop {
            if let Some(answer) = self.answer()? {
                return Ok(answer);
            }
            ensure!(self.read.len() < MAX_ANSWER_BYTES, "the answer is too long");
            ensure!(self.stream.read_buf(&mut self.read).await? > 0, "the server has closed the connection");
        }
    }

    /// Takes the answer out of what was read, if all of it is there.
    fn answer(&mut self) -> anyhow::Result<Option<Answer>> {
        const END: &[u8] = b"\r\n\r\n";
        let Some(end) = self.read.windows(END.len()).position(|window| window == END) else {
            return Ok(None);
        };
        let head = str::from_utf8(self.read.get(..end).unwrap_or_default())?.to_ascii_lowercase();
        let mut lines = head.lines();
        let status = lines.next().and_then(|line| line.split(' ').nth(1)).context("no status")?.parse()?;
        let length = lines.find_map(|line| line.strip_prefix("content-length:")).context("no length")?;
        let (start, length) = (end + END.len(), length.trim().parse::<usize>()?);
        let Some(body) = self.read.get(start..start + length) else { return Ok(None) };
        let body = String::from_utf8(body.to_vec())?;
        self.read.drain(..start + length);
        Ok(Some(Answer { status, body }))
    }
}
