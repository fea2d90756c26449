//! The background swarm: the task that owns the libp2p swarm, and its handle.
//!
//! This layer knows no model. A record is a [`RecordKey`] and an [`Envelope`].

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use libp2p::Multiaddr;
use libp2p::identity::Keypair;
use netabase_store::{Envelope, NetabaseStore, RecordKey};
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, broadcast, mpsc, oneshot};

use crate::admission::Admission;
use crate::config::NetabaseConfig;
use crate::connection::processor::Processor;
use crate::error::NetabaseError;
use crate::event::NetabaseSwarmEvent;
use crate::platform::{self, Instant, JoinHandle};
use crate::telemetry::metrics::Metrics;

use crate::event_loop::EventLoop;
use crate::event_loop::command::{Answer, Command, Commands, Publication, PutTerms, Reply};
use crate::limits::{
    COMMAND_CAPACITY, LONGEST_TIMEOUT, MAX_CALLS, MAX_REPAIR_ORDERS, MIN_PUT_COST_KIB, PUT_BUDGET_KIB,
};
use crate::peers::authors::AuthorRates;
use crate::peers::other_roots::OtherRoots;
use crate::peers::presence::Presence;
use crate::peers::score::PeerScores;
use crate::peers::standing::Standings;
use crate::query::{Asker, FoundPages};
use crate::replication::advertise::Advertiser;
use crate::replication::live::Live;
use crate::replication::repair::backlog::Backlog;
use crate::replication::repair::news::PeerNews;
use crate::replication::repair::{self, RepairReport, Repairer};
use crate::replication::republish::Republisher;
use crate::replication::sync::{BlobKeeper, Replications, Replicator};
use crate::telemetry::trace::Traces;

/// The state that the parts of a node share.
#[derive(Clone)]
pub(crate) struct Parts {
    pub(crate) config: Arc<NetabaseConfig>,
    /// The network's name.
    pub(crate) network: Arc<str>,
    pub(crate) identity: Keypair,
    pub(crate) store: NetabaseStore,
    pub(crate) events: broadcast::Sender<NetabaseSwarmEvent>,
    /// The file of saved peers, or `None` if peers are not saved.
    pub(crate) known_peers: Option<Arc<Path>>,
    pub(crate) scores: PeerScores,
    /// The processor time that peers take.
    pub(crate) processor: Processor,
    /// The rates of new records of each author that peers send.
    pub(crate) author_rates: AuthorRates,
    /// The peers of closed networks of the same name and another root.
    pub(crate) other_roots: OtherRoots,
    pub(crate) standings: Standings,
    pub(crate) traces: Traces,
    /// Topics, watches and the queue of live changes.
    pub(crate) live: Live,
    pub(crate) metrics: Metrics,
    /// Notified when a newer member list has been committed.
    pub(crate) members_news: Arc<Notify>,
    /// The cache of pages that queries of the network have found.
    pub(crate) found_pages: FoundPages,
    /// The groups of blobs that may be requested concurrently.
    pub(crate) blob_window: Arc<Semaphore>,
    /// The scopes that this node replicates.
    pub(crate) replications: Replications,
    /// The number of records written here that no put sends.
    pub(crate) backlog: Backlog,
    /// Whether this node was away and has not compared its records since.
    pub(crate) presence: Presence,
}

/// The handle of a running swarm. Dropping it stops the swarm.
#[derive(Debug)]
pub(crate) struct RunningSwarm {
    commands: mpsc::Sender<Command>,
    calls: Arc<Semaphore>,
    puts: PutBudget,
    /// The default timeout of calls.
    timeout: Duration,
    addresses: Arc<RwLock<Vec<Multiaddr>>>,
    swarm: JoinHandle<()>,
    /// The republisher, the repairer, the advertiser, the replicator and the task that fetches
    /// blobs. The first call to stop takes them.
    workers: Mutex<Vec<JoinHandle<()>>>,
    stop_workers: Vec<Arc<Notify>>,
    repairs: mpsc::Sender<repair::Order>,
    asker: Asker,
    /// Tells the republisher to check for due records.
    due: Arc<Notify>,
}

impl Parts {
    /// Returns the gate for peers' records.
    pub(crate) fn admission(&self) -> Admission {
        Admission::new(self.store.clone(), self.scores.clone(), self.traces.clone())
            .with_author_rates(self.author_rates.clone())
    }
}

impl RunningSwarm {
    /// Starts the swarm and waits until it listens.
    pub(crate) async fn start(parts: Parts) -> Result<Self, NetabaseError> {
        let (commands, receiver) = mpsc::channel(COMMAND_CAPACITY);
        let addresses = Arc::new(RwLock::new(Vec::new()));
        let (new_peer, peer_news) = (Arc::new(Notify::new()), Arc::<PeerNews>::default());
        let (ready, listening) = Reply::new(None);
        let puts = PutBudget::default();
        let mut event_loop = EventLoop::new(
            &parts,
            receiver,
            puts.clone(),
            Arc::clone(&addresses),
            Arc::clone(&new_peer),
            Arc::clone(&peer_news),
            ready,
        )?;
        event_loop.dht.lookups.commands = Some(Commands::new(&commands));
        let swarm = platform::spawn(event_loop.run());
        listening.await.map_err(|_| NetabaseError::Closed)??;
        let stop_workers: [Arc<Notify>; 5] = std::array::from_fn(|_| Arc::default());
        let [stop_republisher, stop_repairer, stop_advertiser, stop_replicator, stop_blobs] =
            stop_workers.clone();
        let republisher = Republisher::new(
            &parts,
            Commands::new(&commands),
            puts.clone(),
            Arc::clone(&new_peer),
            stop_republisher,
        );
        let (repairs, orders) = mpsc::channel(MAX_REPAIR_ORDERS);
        let repairer = Repairer::new(&parts, Commands::new(&commands), peer_news, stop_repairer, orders);
        let advertiser = Advertiser::new(&parts, Commands::new(&commands), stop_advertiser);
        let replicator = Replicator::new(&parts, Commands::new(&commands), stop_replicator);
        let blob_keeper =
            BlobKeeper::new(&parts, Commands::new(&commands), Arc::clone(&new_peer), stop_blobs);
        let mut workers = vec![
            platform::spawn(republisher.run()),
            platform::spawn(repairer.run()),
            platform::spawn(advertiser.run()),
            platform::spawn(replicator.run()),
        ];
        workers.extend(blob_keeper.map(|keeper| platform::spawn(keeper.run())));
        let asker = Asker::new(&parts, Commands::new(&commands));
        Ok(Self {
            asker,
            commands,
            calls: Arc::new(Semaphore::new(MAX_CALLS)),
            puts,
            timeout: parts.config.call_timeout,
            addresses,
            swarm,
            workers: Mutex::new(workers),
            stop_workers: stop_workers.into(),
            repairs,
            due: new_peer,
        })
    }

    /// Stops the swarm and returns when the swarm has released the store; every call in flight ends
    /// with [`NetabaseError::Closed`].
    pub(crate) async fn stop(&self) {
        let (reply, stopped) = oneshot::channel();
        if self.commands.send(Command::Stop { reply }).await.is_ok() {
            // An error means that the swarm has ended by itself.
            let _ = stopped.await;
        }
        self.stop_workers.iter().for_each(|stop| stop.notify_one());
        let workers = std::mem::take(&mut *self.workers.lock());
        for worker in workers {
            if let Err(error) = worker.await {
                tracing::error!(%error, "a task of the node has failed");
            }
        }
    }

    /// Starts a complete repair pass now, and waits for its end.
    pub(crate) async fn repair(&self) -> Result<RepairReport, NetabaseError> {
        let (order, done) = oneshot::channel();
        self.repairs.send(order).await.map_err(|_| NetabaseError::Closed)?;
        done.await.map_err(|_| NetabaseError::Closed)
    }

    /// Returns the handle by which queries ask the network.
    pub(crate) fn asker(&self) -> Asker {
        self.asker.clone()
    }

    /// Returns a sender of commands, for tasks that do not keep the swarm running.
    pub(crate) fn commands(&self) -> Commands {
        Commands::new(&self.commands)
    }

    /// Advertises new data now.
    pub(crate) fn announce(&self) {
        self.due.notify_one();
    }

    /// Returns whether the swarm has ended by itself, such as by a panic.
    pub(crate) fn is_finished(&self) -> bool {
        self.swarm.is_finished()
    }

    /// Returns the addresses that the node listens on.
    pub(crate) fn listen_addresses(&self) -> Vec<Multiaddr> {
        self.addresses.read().clone()
    }

    /// Sends a command and waits for its reply, at most for the default timeout.
    pub(crate) async fn call<T>(
        &self,
        command: impl FnOnce(Reply<T>) -> Command,
    ) -> Result<T, NetabaseError> {
        self.call_before(self.deadline(None), command).await
    }

    /// Sends a command and waits for its reply, at most until the deadline.
    pub(crate) async fn call_before<T>(
        &self,
        deadline: Deadline,
        command: impl FnOnce(Reply<T>) -> Command,
    ) -> Result<T, NetabaseError> {
        deadline.limit(async { answered(self.send(command).await?).await }).await
    }

    /// Sends a command whose reply at the deadline is a partial result.
    pub(crate) async fn ask<T>(
        &self,
        deadline: Deadline,
        command: impl FnOnce(Reply<T>) -> Command,
    ) -> Result<T, NetabaseError> {
        answered(deadline.limit(self.send(command)).await?).await
    }

    /// Publishes a version and waits until enough peers have accepted it. At the deadline the call
    /// returns the answers so far, or fails if no peers were found yet.
    pub(crate) async fn publish(
        &self,
        key: RecordKey,
        envelope: Envelope,
        terms: PutTerms,
        deadline: Deadline,
    ) -> Result<Publication, NetabaseError> {
        let terms = PutTerms { deadline: Some(deadline), ..terms };
        let sent = async {
            let permit = self.puts.permit(&envelope).await?;
            self.send(|reply| Command::publish(key, envelope, terms, permit, reply)).await
        };
        answered(deadline.limit(sent).await?).await
    }

    /// Publishes a version without waiting for its acceptance. Returns whether the put budget
    /// allowed it.
    pub(crate) fn begin_to_publish(&self, key: &RecordKey, envelope: &Envelope, terms: PutTerms) -> bool {
        let Some(permit) = self.puts.try_permit(envelope) else { return false };
        let (reply, _) = Reply::new(None);
        let command = Command::publish(key.clone(), envelope.clone(), terms, permit, reply);
        self.commands.try_send(command).is_ok()
    }

    /// Returns the deadline of a call that starts now.
    pub(crate) fn deadline(&self, timeout: Option<Duration>) -> Deadline {
        Deadline::after(timeout.unwrap_or(self.timeout))
    }

    async fn send<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<Answer<T>, NetabaseError> {
        let permit = Arc::clone(&self.calls).acquire_owned().await.map_err(|_| NetabaseError::Closed)?;
        let (reply, answer) = Reply::new(Some(permit));
        self.commands.send(command(reply)).await.map_err(|_| NetabaseError::Closed)?;
        Ok(answer)
    }
}

async fn answered<T>(answer: Answer<T>) -> Result<T, NetabaseError> {
    answer.await.map_err(|_| NetabaseError::Closed)?
}

/// The time at which a call stops waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Deadline {
    pub(crate) at: Instant,
    /// The time from the start of the call.
    pub(crate) after: Duration,
}

impl Deadline {
    pub(crate) fn after(after: Duration) -> Self {
        let now = platform::now();
        Self { at: now.checked_add(after).unwrap_or(now + LONGEST_TIMEOUT), after }
    }

    pub(crate) async fn limit<T>(
        self,
        answer: impl Future<Output = Result<T, NetabaseError>>,
    ) -> Result<T, NetabaseError> {
        let expired = |_| NetabaseError::Timeout { after: self.after };
        platform::timeout_at(self.at, answer).await.map_err(expired)?
    }
}

/// The memory for versions that are being sent to peers.
#[derive(Debug, Clone)]
pub(crate) struct PutBudget(Arc<Semaphore>);

/// A part of the [`PutBudget`], which is returned when it is dropped.
pub(crate) type PutPermit = OwnedSemaphorePermit;

impl PutBudget {
    /// Waits until the budget allows a version.
    pub(crate) async fn permit(&self, envelope: &Envelope) -> Result<PutPermit, NetabaseError> {
        let permit = Arc::clone(&self.0).acquire_many_owned(put_cost(envelope));
        permit.await.map_err(|_| NetabaseError::Closed)
    }

    /// Returns a permit if the budget allows a version now.
    pub(crate) fn try_permit(&self, envelope: &Envelope) -> Option<PutPermit> {
        Arc::clone(&self.0).try_acquire_many_owned(put_cost(envelope)).ok()
    }
}

fn put_cost(envelope: &Envelope) -> u32 {
    let kib = u32::try_from(envelope.as_bytes().len() / 1024).unwrap_or(u32::MAX);
    kib.clamp(MIN_PUT_COST_KIB, PUT_BUDGET_KIB)
}

impl Default for PutBudget {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(PUT_BUDGET_KIB as usize)))
    }
}

impl Drop for RunningSwarm {
    fn drop(&mut self) {
        self.workers.get_mut().iter().for_each(JoinHandle::abort);
        self.swarm.abort();
    }
}
