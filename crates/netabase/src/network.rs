//! The background swarm: a task that owns the libp2p swarm, and the handle that talks to it.
//!
//! Nothing here knows a model. Records are a [`RecordKey`] and an [`Envelope`].

use std::sync::Arc;
use std::time::Duration;

use libp2p::Multiaddr;
use libp2p::identity::Keypair;
use netabase_store::NetabaseStore;
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, Semaphore, broadcast, mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::config::NetabaseConfig;
use crate::error::NetabaseError;
use crate::event::NetabaseSwarmEvent;

mod behaviour;
mod command;
mod event;
mod query;
mod republish;
mod swarm;

pub use behaviour::NetabaseBehaviour;
pub(crate) use command::{Command, Publication, Reply};

/// How many commands wait for the swarm before callers wait.
pub const COMMAND_CAPACITY: usize = 100;
/// How many calls of one node may be in flight before callers wait.
const MAX_CALLS: usize = 256;

/// What a node is made of.
#[derive(Clone)]
pub(crate) struct Parts {
    pub(crate) config: Arc<NetabaseConfig>,
    /// The network's name.
    pub(crate) network: Arc<str>,
    pub(crate) identity: Keypair,
    pub(crate) store: NetabaseStore,
    pub(crate) events: broadcast::Sender<NetabaseSwarmEvent>,
}

/// The handle of a running swarm. Dropping it stops the swarm.
#[derive(Debug)]
pub(crate) struct Node {
    commands: mpsc::Sender<Command>,
    calls: Semaphore,
    deadline: Duration,
    addresses: Arc<RwLock<Vec<Multiaddr>>>,
    swarm: JoinHandle<()>,
    /// Taken by whoever stops the node.
    republisher: Mutex<Option<JoinHandle<()>>>,
    stop_republisher: Arc<Notify>,
}

impl Node {
    /// Starts the swarm and waits until it listens.
    pub(crate) async fn start(parts: Parts) -> Result<Self, NetabaseError> {
        let (commands, receiver) = mpsc::channel(COMMAND_CAPACITY);
        let addresses = Arc::new(RwLock::new(Vec::new()));
        let new_peer = Arc::new(Notify::new());
        let (ready, listening) = oneshot::channel();
        let event_loop =
            swarm::EventLoop::new(&parts, receiver, Arc::clone(&addresses), Arc::clone(&new_peer), ready)?;
        let swarm = tokio::spawn(event_loop.run());
        listening.await.map_err(|_| NetabaseError::Closed)??;
        let stop_republisher = Arc::new(Notify::new());
        let republisher = republish::Republisher::new(
            &parts,
            commands.downgrade(),
            new_peer,
            Arc::clone(&stop_republisher),
        );
        Ok(Self {
            commands,
            calls: Semaphore::new(MAX_CALLS),
            deadline: parts.config.call_timeout,
            addresses,
            swarm,
            republisher: Mutex::new(Some(tokio::spawn(republisher.run()))),
            stop_republisher,
        })
    }

    /// Stops the swarm and returns when it has let go of the store; every call in flight ends with
    /// [`NetabaseError::Closed`].
    pub(crate) async fn stop(&self) {
        let (reply, stopped) = oneshot::channel();
        if self.commands.send(Command::Stop { reply }).await.is_ok() {
            // An error says that the swarm has ended by itself.
            let _ = stopped.await;
        }
        self.stop_republisher.notify_one();
        let republisher = self.republisher.lock().take();
        if let Some(republisher) = republisher
            && let Err(error) = republisher.await
        {
            tracing::error!(%error, "the republisher has failed");
        }
    }

    /// Returns the addresses that the node listens on.
    pub(crate) fn listen_addresses(&self) -> Vec<Multiaddr> {
        self.addresses.read().clone()
    }

    /// Sends a command and waits for its reply, no longer than the deadline.
    pub(crate) async fn call<T>(
        &self,
        command: impl FnOnce(Reply<T>) -> Command,
    ) -> Result<T, NetabaseError> {
        let answer = async {
            let _permit = self.calls.acquire().await.map_err(|_| NetabaseError::Closed)?;
            let (reply, answer) = oneshot::channel();
            self.commands.send(command(reply)).await.map_err(|_| NetabaseError::Closed)?;
            answer.await.map_err(|_| NetabaseError::Closed)?
        };
        let expired = |_| NetabaseError::Timeout { after: self.deadline };
        tokio::time::timeout(self.deadline, answer).await.map_err(expired)?
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(republisher) = self.republisher.get_mut() {
            republisher.abort();
        }
        self.swarm.abort();
    }
}
