//! A stranger's connection: TCP, noise and a yamux of its own, which sends what it is told to.

use std::collections::HashMap;
use std::io;
use std::net::Ipv4Addr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use futures::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use libp2p::core::upgrade::OutboundConnectionUpgrade;
use libp2p::identity::Keypair;
use libp2p::{Multiaddr, noise, tcp};
use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedSemaphorePermit, mpsc};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::target::Target;
use super::wire;

/// How long a handshake may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// How many writes wait for the node to read.
const QUEUE: usize = 16;
/// How much of a stream yamux lets a side send before the other grants more.
const WINDOW_BYTES: usize = 256 * 1024;
/// The longest frame that the node may send.
const MAX_FRAME_BYTES: usize = 1024 * 1024;
/// How many streams of the node are followed, and how much of what opens one is read.
const MAX_INBOUND: usize = 1024;
const MAX_OPENING_BYTES: usize = 1024;

/// The parts of a yamux frame's head.
pub(super) const DATA: u8 = 0;
pub(super) const WINDOW: u8 = 1;
pub(super) const PING: u8 = 2;
pub(super) const GO_AWAY: u8 = 3;
pub(super) const SYN: u16 = 1;
pub(super) const ACK: u16 = 2;
pub(super) const FIN: u16 = 4;
pub(super) const RST: u16 = 8;
pub(super) const HEAD_BYTES: usize = 12;

/// Who a stranger is, and what it says of itself.
#[derive(Clone)]
pub(super) struct Stranger {
    pub(super) keypair: Keypair,
    protocols: Vec<String>,
    addresses: Vec<Multiaddr>,
}

impl Stranger {
    /// Makes a new one that asks and is not asked.
    pub(super) fn client() -> Self {
        let protocols = [wire::IDENTIFY, wire::PING].map(str::to_owned).into();
        Self { keypair: Keypair::generate_ed25519(), protocols, addresses: Vec::new() }
    }

    /// Makes a new one that claims to hold records at some addresses.
    pub(super) fn holder(addresses: Vec<Multiaddr>) -> Self {
        let mut stranger = Self::client();
        stranger.protocols.extend([wire::protocol(wire::KAD), wire::protocol(wire::RECORD)]);
        Self { addresses, ..stranger }
    }

    /// Makes a new one that follows live changes.
    pub(super) fn follower() -> Self {
        let mut stranger = Self::client();
        stranger.protocols.push(wire::protocol(wire::LIVE));
        stranger
    }

    /// Returns its identify message with other addresses.
    pub(super) fn identify(&self, addresses: &[Multiaddr]) -> Vec<u8> {
        wire::identify(&self.keypair.public(), &self.protocols, addresses)
    }
}

/// What is sent on a new stream.
pub(super) struct Sent {
    pub(super) bytes: Arc<[u8]>,
    /// Whether the stream is closed behind it.
    pub(super) closes: bool,
    /// Whether what the node answers is read, as far as yamux can tell.
    pub(super) reads: bool,
}

/// An open connection, which is closed when it is dropped.
pub(super) struct Link {
    queue: mpsc::Sender<Vec<u8>>,
    streams: Arc<Mutex<Streams>>,
    identified: Arc<Notify>,
    target: Arc<Target>,
    _task: JoinSet<()>,
}

/// The streams that the stranger has opened.
struct Streams {
    next: u32,
    open: HashMap<u32, Outgoing>,
}

struct Outgoing {
    sent: Sent,
    /// How many bytes were sent.
    position: usize,
    _turn: Option<OwnedSemaphorePermit>,
}

impl Link {
    pub(super) async fn open(target: &Arc<Target>, stranger: &Stranger) -> anyhow::Result<Self> {
        Self::open_from(target.source(), target, stranger).await
    }

    /// Opens one that comes from an address.
    pub(super) async fn open_from(
        source: Ipv4Addr,
        target: &Arc<Target>,
        stranger: &Stranger,
    ) -> anyhow::Result<Self> {
        let (read, write) = timeout(PATIENCE, connect(source, target, &stranger.keypair)).await??.split();
        let (queue, queued) = mpsc::channel(QUEUE);
        let streams = Arc::new(Mutex::new(Streams { next: 1, open: HashMap::new() }));
        let identified = Arc::new(Notify::new());
        let reader = Reader {
            queue: queue.clone(),
            streams: Arc::clone(&streams),
            identified: Arc::clone(&identified),
            identify: stranger.identify(&stranger.addresses),
            target: Arc::clone(target),
            inbound: HashMap::new(),
        };
        let mut task = JoinSet::new();
        task.spawn(async move {
            // When one of them ends, so does the connection.
            tokio::select! {
                _ = reader.run(read) => {}
                _ = run_writer(queued, write) => {}
            }
        });
        Ok(Self { queue, streams, identified, target: Arc::clone(target), _task: task })
    }

    /// Opens a stream, which keeps `turn` until the node has ended it. Returns its number.
    pub(super) async fn send(&self, sent: Sent, turn: Option<OwnedSemaphorePermit>) -> anyhow::Result<u32> {
        let (id, frame) = {
            let mut streams = self.streams.lock();
            let id = streams.next;
            streams.next = id.wrapping_add(2);
            let mut outgoing = Outgoing { sent, position: 0, _turn: turn };
            let frame = outgoing.next_frame(id, WINDOW_BYTES, SYN);
            streams.open.insert(id, outgoing);
            (id, frame)
        };
        self.send_frames(1, frame.context("nothing is to be sent")?).await?;
        Ok(id)
    }

    /// Sends a piece on an open stream.
    pub(super) async fn add(&self, id: u32, piece: &[u8]) -> anyhow::Result<()> {
        self.send_frames(1, [head(DATA, 0, id, piece.len()).as_slice(), piece].concat()).await
    }

    /// Lets the node send so many more bytes on a stream.
    pub(super) async fn grant(&self, id: u32, bytes: usize) -> anyhow::Result<()> {
        self.send_frames(1, head(WINDOW, 0, id, bytes).into()).await
    }

    /// Asks with many pings of yamux whether the node is there.
    pub(super) async fn ping(&self, count: usize) -> anyhow::Result<()> {
        let frames: Vec<u8> = (0..count).flat_map(|number| head(PING, SYN, 0, number)).collect();
        self.send_frames(u64::try_from(count)?, frames).await
    }

    /// Opens many streams and resets each at once.
    pub(super) async fn open_and_reset(&self, count: u32) -> anyhow::Result<()> {
        let mut frames = Vec::new();
        {
            let mut streams = self.streams.lock();
            for _ in 0..count {
                frames.extend(head(WINDOW, SYN, streams.next, 0));
                frames.extend(head(WINDOW, RST, streams.next, 0));
                streams.next = streams.next.wrapping_add(2);
            }
        }
        self.send_frames(2 * u64::from(count), frames).await
    }

    async fn send_frames(&self, count: u64, frames: Vec<u8>) -> anyhow::Result<()> {
        self.queue.send(frames).await.context("the node has closed the connection")?;
        self.target.counts.sent(count);
        Ok(())
    }

    /// Waits until the node was told what it asks by identify.
    pub(super) async fn identified(&self) {
        self.identified.notified().await;
    }

    /// Waits until the connection is closed.
    pub(super) async fn closed(&self) {
        self.queue.closed().await;
    }
}

impl Outgoing {
    /// Returns the next frame that the node's window has room for, unless everything was sent.
    fn next_frame(&mut self, id: u32, window: usize, flags: u16) -> Option<Vec<u8>> {
        let rest = self.sent.bytes.get(self.position..).filter(|rest| !rest.is_empty())?;
        let body = rest.get(..window).unwrap_or(rest);
        let ends = body.len() == rest.len() && self.sent.closes;
        let flags = if ends { flags | FIN } else { flags };
        let frame = [head(DATA, flags, id, body.len()).as_slice(), body].concat();
        self.position += body.len();
        Some(frame)
    }
}

async fn connect(
    source: Ipv4Addr,
    target: &Arc<Target>,
    keypair: &Keypair,
) -> anyhow::Result<noise::Output<Socket>> {
    let mut stream = secure(source, target, keypair, None).await?;
    agree(&mut stream, wire::YAMUX).await?;
    Ok(stream)
}

/// Connects and shakes hands by noise; a byte of that or of what follows may be tampered with.
pub(super) async fn secure(
    source: Ipv4Addr,
    target: &Arc<Target>,
    keypair: &Keypair,
    tamper: Option<Tamper>,
) -> anyhow::Result<noise::Output<Socket>> {
    let stream = target.connect_from(source, target.tcp).await?;
    stream.set_nodelay(true)?;
    let stream = tcp::tokio::TcpStream(stream);
    let mut stream = Socket { stream, target: Arc::clone(target), tamper };
    agree(&mut stream, wire::NOISE).await?;
    let (_, stream) = noise::Config::new(keypair)?.upgrade_outbound(stream, wire::NOISE).await?;
    Ok(stream)
}

/// What becomes of one byte that is written to a socket.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tamper {
    /// How many bytes are written before it.
    left: u64,
    /// Whether it is the last one; otherwise it is another one.
    cuts: bool,
}

impl Tamper {
    pub(super) fn new(place: u64, cuts: bool) -> Self {
        Self { left: place, cuts }
    }
}

/// A socket that counts what is written.
pub(super) struct Socket {
    stream: tcp::tokio::TcpStream,
    target: Arc<Target>,
    tamper: Option<Tamper>,
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let (mut bytes, other) = (bytes, bytes.first().map(|byte| [!byte]));
        if let (Some(tamper), Some(other)) = (&self.tamper, &other) {
            match usize::try_from(tamper.left).unwrap_or(usize::MAX) {
                0 if tamper.cuts => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
                0 => bytes = other,
                left => bytes = bytes.get(..left).unwrap_or(bytes),
            }
        }
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes))?;
        self.target.counts.wrote(written);
        let before = self.tamper.filter(|tamper| tamper.left > 0);
        let after = |tamper: Tamper| Tamper { left: tamper.left.saturating_sub(written as u64), ..tamper };
        self.tamper = before.map(after);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_close(cx)
    }
}

/// Has the other side agree to a protocol.
async fn agree(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), protocol: &str) -> anyhow::Result<()> {
    let opening = wire::opening(protocol);
    stream.write_all(&opening).await?;
    stream.flush().await?;
    let mut answer = vec![0; opening.len()];
    stream.read_exact(&mut answer).await?;
    ensure!(answer == opening, "the node does not speak {protocol}");
    Ok(())
}

pub(super) async fn run_writer(
    mut queued: mpsc::Receiver<Vec<u8>>,
    mut write: impl AsyncWrite + Unpin,
) -> anyhow::Result<()> {
    while let Some(frames) = queued.recv().await {
        write.write_all(&frames).await?;
        if queued.is_empty() {
            write.flush().await?;
        }
    }
    Ok(())
}

/// A frame of yamux that the node has sent. Only one of data has a body, of the length that every
/// frame names.
pub(super) struct Frame {
    pub(super) kind: u8,
    pub(super) flags: u16,
    pub(super) stream: u32,
    pub(super) length: usize,
    pub(super) body: Vec<u8>,
}

impl Frame {
    pub(super) async fn read(mut read: impl AsyncRead + Unpin) -> anyhow::Result<Self> {
        let mut bytes = [0; HEAD_BYTES];
        read.read_exact(&mut bytes).await?;
        let [_, kind, f0, f1, s0, s1, s2, s3, l0, l1, l2, l3] = bytes;
        let length = usize::try_from(u32::from_be_bytes([l0, l1, l2, l3]))?;
        let mut body = Vec::new();
        if kind == DATA {
            ensure!(length <= MAX_FRAME_BYTES, "a frame is too long");
            body.resize(length, 0);
            read.read_exact(&mut body).await?;
        }
        let (flags, stream) = (u16::from_be_bytes([f0, f1]), u32::from_be_bytes([s0, s1, s2, s3]));
        Ok(Self { kind, flags, stream, length, body })
    }
}

/// What reads the frames of the node: it answers no more than the node needs to keep the
/// connection.
struct Reader {
    queue: mpsc::Sender<Vec<u8>>,
    streams: Arc<Mutex<Streams>>,
    identified: Arc<Notify>,
    identify: Vec<u8>,
    target: Arc<Target>,
    /// The streams that the node has opened.
    inbound: HashMap<u32, Inbound>,
}

enum Inbound {
    /// What was read before a protocol was named.
    Opening(Vec<u8>),
    Ping,
    /// Neither answered nor closed.
    Ignored,
}

impl Reader {
    async fn run(mut self, mut read: impl AsyncRead + Unpin) -> anyhow::Result<()> {
        loop {
            let Frame { kind, flags, stream, length, body } = Frame::read(&mut read).await?;
            let credit = if kind == WINDOW { length } else { 0 };
            match kind {
                PING if flags & SYN != 0 => self.answer(head(PING, ACK, 0, length).into()),
                PING => {}
                GO_AWAY => return Ok(()),
                _ if stream % 2 == 1 => self.on_own(stream, flags, credit, body.len()).await?,
                _ => self.on_inbound(stream, flags, &body),
            }
        }
    }

    /// An answer for which there is no room is lost: the node does not read.
    fn answer(&self, frames: Vec<u8>) {
        if self.queue.try_send(frames).is_ok() {
            self.target.counts.sent(1);
        }
    }

    async fn on_own(&self, id: u32, flags: u16, credit: usize, read: usize) -> anyhow::Result<()> {
        let frame = {
            let mut streams = self.streams.lock();
            if flags & (FIN | RST) != 0 {
                streams.open.remove(&id);
            }
            let Some(outgoing) = streams.open.get_mut(&id) else { return Ok(()) };
            if read > 0 && outgoing.sent.reads {
                self.answer(head(WINDOW, 0, id, read).into());
            }
            if credit > 0 { outgoing.next_frame(id, credit, 0) } else { None }
        };
        if let Some(frame) = frame {
            self.queue.send(frame).await?;
            self.target.counts.sent(1);
        }
        Ok(())
    }

    fn on_inbound(&mut self, id: u32, flags: u16, body: &[u8]) {
        if flags & SYN != 0 && self.inbound.len() < MAX_INBOUND {
            self.inbound.insert(id, Inbound::Opening(Vec::new()));
            self.answer(head(WINDOW, ACK, id, 0).into());
        }
        if let Some(inbound) = self.inbound.get_mut(&id) {
            let (answer, ends) = inbound.feed(body, &self.identify);
            if !answer.is_empty() {
                let flags = if ends { FIN } else { 0 };
                self.answer([head(DATA, flags, id, answer.len()).as_slice(), &answer].concat());
            }
            if ends {
                self.identified.notify_one();
            }
        }
        if flags & (FIN | RST) != 0 {
            self.inbound.remove(&id);
        }
    }
}

impl Inbound {
    /// Takes what the node has sent. Returns what it is answered, and whether that is all.
    fn feed(&mut self, body: &[u8], identify: &[u8]) -> (Vec<u8>, bool) {
        match self {
            Self::Opening(read) => {
                read.extend(body);
                let lines = wire::line(read).and_then(|(_, rest)| wire::line(rest));
                let (answer, ends, next) = match lines {
                    None if read.len() <= MAX_OPENING_BYTES => return (Vec::new(), false),
                    Some((wire::IDENTIFY, _)) => {
                        ([&wire::opening(wire::IDENTIFY), identify].concat(), true, Self::Ignored)
                    }
                    Some((wire::PING, rest)) => {
                        ([&wire::opening(wire::PING), rest].concat(), false, Self::Ping)
                    }
                    None | Some(_) => (Vec::new(), false, Self::Ignored),
                };
                *self = next;
                (answer, ends)
            }
            Self::Ping => (body.to_vec(), false),
            Self::Ignored => (Vec::new(), false),
        }
    }
}

pub(super) fn head(kind: u8, flags: u16, stream: u32, length: usize) -> [u8; HEAD_BYTES] {
    let length = u32::try_from(length).unwrap_or(u32::MAX);
    let ([f0, f1], [s0, s1, s2, s3]) = (flags.to_be_bytes(), stream.to_be_bytes());
    let [l0, l1, l2, l3] = length.to_be_bytes();
    [0, kind, f0, f1, s0, s1, s2, s3, l0, l1, l2, l3]
}
