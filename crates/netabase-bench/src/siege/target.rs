//! The node as the strangers know it, what is counted of them, and when they begin and end.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use futures::future::BoxFuture;
use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;
use tokio::net::{TcpSocket, TcpStream};
use tokio::runtime::Builder;
use tokio::sync::{Notify, OnceCell, oneshot};
use tokio::task::JoinHandle;

use super::conversations::Log;
use super::ground::Ground;
use super::hosts::{self, Hosts};
use crate::node::run_on;
use crate::program::Node;

/// The niceness of the strangers' threads.
#[cfg(unix)]
const LOWEST_PRIORITY: i32 = 19;

/// The node, from outside.
pub(super) struct Target {
    /// Its address of TCP with its peer id.
    pub(super) address: Multiaddr,
    pub(super) tcp: SocketAddr,
    pub(super) quic: SocketAddr,
    pub(super) api: SocketAddr,
    /// The number of its process.
    pub(super) process: u32,
    pub(super) ground: Ground,
    /// What conversations follow from.
    pub(super) seed: u64,
    pub(super) log: Log,
    pub(super) counts: Counts,
    hosts: OnceCell<Hosts>,
    sources: AtomicU32,
}

impl Target {
    pub(super) fn new(node: &Node, ground: Ground, seed: u64) -> anyhow::Result<Self> {
        let on = |port: fn(&Protocol<'_>) -> Option<u16>| {
            node.addresses.iter().find_map(|address| Some((address, address.iter().find_map(|p| port(&p))?)))
        };
        let tcp = on(|part| if let Protocol::Tcp(port) = part { Some(*port) } else { None });
        let quic = on(|part| if let Protocol::Udp(port) = part { Some(*port) } else { None });
        let (address, tcp) = tcp.context("the node does not listen on TCP")?;
        let (_, quic) = quic.context("the node does not listen on QUIC")?;
        Ok(Self {
            address: address.clone(),
            tcp: (ground.node(), tcp).into(),
            quic: (ground.node(), quic).into(),
            api: node.api,
            process: node.id(),
            ground,
            seed,
            log: Log::default(),
            counts: Counts::default(),
            hosts: OnceCell::new(),
            sources: AtomicU32::new(0),
        })
    }

    /// Opens a TCP connection from the next address.
    pub(super) async fn connect(&self, to: SocketAddr) -> anyhow::Result<TcpStream> {
        self.connect_from(self.source(), to).await
    }

    pub(super) async fn connect_from(&self, source: Ipv4Addr, to: SocketAddr) -> anyhow::Result<TcpStream> {
        let socket = TcpSocket::new_v4()?;
        socket.bind((source, 0).into())?;
        let stream = socket.connect(to).await?;
        self.counts.connections.fetch_add(1, Ordering::Relaxed);
        self.counts.first.notify_one();
        Ok(stream)
    }

    /// Returns the next address to come from.
    pub(super) fn source(&self) -> Ipv4Addr {
        self.ground.stranger(self.sources.fetch_add(1, Ordering::Relaxed))
    }

    /// Returns the hosts that the node can be had to dial. They are there from the first call on.
    pub(super) async fn hosts(self: &Arc<Self>) -> anyhow::Result<&Hosts> {
        self.hosts.get_or_try_init(|| hosts::start(Arc::clone(self))).await
    }
}

/// What is counted while it happens.
#[derive(Default)]
pub(super) struct Counts {
    messages: AtomicU64,
    bytes: AtomicU64,
    connections: AtomicUsize,
    dials: AtomicUsize,
    sent_to_hosts: AtomicU64,
    first: Notify,
}

/// What was counted.
pub(super) struct Counted {
    /// What the strangers have sent: frames, packets, or requests.
    pub(super) messages: u64,
    /// What they have written to sockets, handshakes too.
    pub(super) bytes: u64,
    /// How many TCP connections they have opened, including those that the node has closed at once.
    pub(super) connections: usize,
    /// How often the node has dialled hosts that strangers chose.
    pub(super) dials: usize,
    pub(super) sent_to_hosts: u64,
}

impl Counts {
    pub(super) fn sent(&self, messages: u64) {
        self.messages.fetch_add(messages, Ordering::Relaxed);
        self.first.notify_one();
    }

    pub(super) fn wrote(&self, bytes: usize) {
        self.bytes.fetch_add(u64::try_from(bytes).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    pub(super) fn dialled(&self) {
        self.dials.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn sent_to_hosts(&self, bytes: usize) {
        self.sent_to_hosts.fetch_add(u64::try_from(bytes).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    pub(super) fn read(&self) -> Counted {
        Counted {
            messages: self.messages.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
            connections: self.connections.load(Ordering::Relaxed),
            dials: self.dials.load(Ordering::Relaxed),
            sent_to_hosts: self.sent_to_hosts.load(Ordering::Relaxed),
        }
    }
}

/// Has this thread run when the machine has nothing else to do. Otherwise the scheduler would
/// divide the processors between strangers and node, which share none in earnest.
fn give_way() {
    // Strangers for whom this fails are only stronger.
    #[cfg(unix)]
    let _ = rustix::process::nice(LOWEST_PRIORITY);
}

/// Strangers at work, on threads of their own.
pub(super) struct Siege {
    begin: Instant,
    stop: oneshot::Sender<()>,
    strangers: JoinHandle<anyhow::Result<()>>,
}

impl Siege {
    /// Starts the strangers, and waits for the first thing that one of them does.
    pub(super) async fn begin(
        target: Arc<Target>,
        strangers: usize,
        attack: fn(Arc<Target>, usize) -> BoxFuture<'static, anyhow::Result<()>>,
    ) -> anyhow::Result<Self> {
        let (stop, stopped) = oneshot::channel();
        let ours = Arc::clone(&target);
        let mut strangers = tokio::task::spawn_blocking(move || {
            run_on(Builder::new_multi_thread().on_thread_start(give_way), async move {
                tokio::select! {
                    _ = stopped => Ok(()),
                    ended = attack(ours, strangers) => ended,
                }
            })
        });
        tokio::select! {
            () = target.counts.first.notified() => {}
            ended = &mut strangers => {
                ended??;
                bail!("the strangers have ended");
            }
        }
        Ok(Self { begin: Instant::now(), stop, strangers })
    }

    /// Stops the strangers, and returns how long they were at work.
    pub(super) async fn end(self) -> anyhow::Result<Duration> {
        let time = self.begin.elapsed();
        // They may have failed, which is said next.
        let _ = self.stop.send(());
        self.strangers.await??;
        Ok(time)
    }
}
