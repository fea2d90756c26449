//! A pool of threads for peers' requests: signatures are verified, and the disk is read and hashed,
//! on every core and not in the event loop.

use std::collections::VecDeque;
use std::fmt;
use std::num::NonZeroUsize;
use std::sync::Arc;

use libp2p::PeerId;
use tokio::task;

use crate::platform::{self, JoinSet};
use crate::rpc::limits::DEFAULT_WORKERS;

/// The limits of queued work. Further work is refused at once.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// The most jobs in total.
    pub(crate) waiting: usize,
    /// The most jobs of one peer, so that others are served, too.
    pub(crate) of_peer: usize,
}

/// The order in which a peer's jobs run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// Jobs of a peer may run concurrently; another peer's jobs go first.
    Fair,
    /// Jobs of a peer run one after the other, in the order of their arrival.
    OfPeer,
}

/// Queued and running jobs of peers.
pub(crate) struct Pool<Job, Done> {
    work: Arc<dyn Fn(PeerId, Job) -> Option<Done> + Send + Sync>,
    limits: Limits,
    order: Order,
    /// The number of concurrent jobs: one for each core.
    workers: usize,
    waiting: VecDeque<(PeerId, Job)>,
    running: JoinSet<Option<Done>>,
    /// The peers whose jobs are running.
    running_of: Vec<(task::Id, PeerId)>,
    /// The peer whose job was started last.
    last_peer: Option<PeerId>,
}

impl<Job: Send + 'static, Done: Send + 'static> Pool<Job, Done> {
    /// Creates a pool whose jobs run `work`, which returns a result to report, if there is one.
    pub(crate) fn new(
        limits: Limits,
        order: Order,
        work: impl Fn(PeerId, Job) -> Option<Done> + Send + Sync + 'static,
    ) -> Self {
        let workers = platform::parallelism().map_or(DEFAULT_WORKERS, NonZeroUsize::get);
        let (waiting, running, running_of) = Default::default();
        Self { work: Arc::new(work), limits, order, workers, waiting, running, running_of, last_peer: None }
    }

    /// Queues a job of a peer, or gives it back if a limit is reached.
    pub(crate) fn offer(&mut self, peer: PeerId, job: Job) -> Result<(), Job> {
        let of_peer = self.waiting.iter().filter(|(waiting, _)| *waiting == peer).count();
        if self.waiting.len() >= self.limits.waiting || of_peer >= self.limits.of_peer {
            return Err(job);
        }
        self.waiting.push_back((peer, job));
        self.start_waiting();
        Ok(())
    }

    /// Returns the result of the next job that ends. This method is cancel safe.
    pub(crate) async fn next(&mut self) -> Done {
        loop {
            let (id, done) = match self.running.join_next_with_id().await {
                Some(Ok((id, done))) => (id, done),
                // A peer that waits for an answer receives a failure.
                Some(Err(error)) => {
                    tracing::error!(%error, "a job of a peer has panicked");
                    (error.id(), None)
                }
                None => std::future::pending().await,
            };
            self.running_of.retain(|(running, _)| *running != id);
            self.start_waiting();
            if let Some(done) = done {
                return done;
            }
        }
    }

    /// Stops the pool; returns when no job holds anything any more.
    pub(crate) async fn stop(mut self) {
        self.running.shutdown().await;
    }

    fn start_waiting(&mut self) {
        while self.running.len() < self.workers
            && let Some((peer, job)) = self.next_waiting()
        {
            let work = Arc::clone(&self.work);
            let task = self.running.spawn_blocking(move || work(peer, job));
            self.running_of.push((task.id(), peer));
            self.last_peer = Some(peer);
        }
    }

    fn next_waiting(&mut self) -> Option<(PeerId, Job)> {
        let mut peers = self.waiting.iter().map(|(peer, _)| *peer);
        let next = match self.order {
            Order::Fair => next_place(peers, self.last_peer),
            Order::OfPeer => {
                let is_running = |peer| self.running_of.iter().any(|(_, running)| *running == peer);
                peers.position(|peer| !is_running(peer))?
            }
        };
        self.waiting.remove(next)
    }
}

/// Returns the index of the first peer that is not `last`, or the first index.
fn next_place(mut waiting: impl Iterator<Item = PeerId>, last: Option<PeerId>) -> usize {
    waiting.position(|peer| Some(peer) != last).unwrap_or(0)
}

impl<Job, Done> fmt::Debug for Pool<Job, Done> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (waiting, running) = (self.waiting.len(), self.running.len());
        f.debug_struct("Pool").field("waiting", &waiting).field("running", &running).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

    use parking_lot::Mutex;

    use super::*;

    #[test]
    fn a_peer_that_asks_much_waits_for_others() {
        let [greedy, other, third] = [(); 3].map(|()| PeerId::random());
        let mut waiting = VecDeque::from([greedy, greedy, greedy, other, greedy, third]);
        let (mut served, mut last) = (Vec::new(), None);
        while !waiting.is_empty() {
            last = waiting.remove(next_place(waiting.iter().copied(), last));
            served.extend(last);
        }
        assert_eq!(served, [greedy, other, greedy, third, greedy, greedy]);
    }

    /// Returns a pool whose jobs end when they are told to.
    fn held(limits: Limits, order: Order) -> (Pool<u8, u8>, SyncSender<()>) {
        let (release, released): (_, Receiver<()>) = sync_channel(10);
        let released = Mutex::new(released);
        let work = move |_, job| {
            released.lock().recv().ok();
            (job % 2 == 0).then_some(job)
        };
        (Pool::new(limits, order, work), release)
    }

    #[tokio::test]
    async fn what_a_peer_has_sent_is_worked_on_in_its_order_and_told_if_there_is_something_to_tell() {
        let (mut pool, release) = held(Limits { waiting: 3, of_peer: 2 }, Order::OfPeer);
        let (peer, other) = (PeerId::random(), PeerId::random());
        assert_eq!([0, 1, 2].map(|job| pool.offer(peer, job)), [Ok(()); 3]);
        assert_eq!((pool.running.len(), pool.waiting.len()), (1, 2), "one at a time");
        assert_eq!(pool.offer(peer, 4), Err(4), "it has no room left");
        pool.workers = 1;
        assert_eq!(pool.offer(other, 6), Ok(()));
        assert_eq!(pool.offer(other, 8), Err(8), "nobody has");
        for _ in 0..4 {
            release.send(()).unwrap();
        }
        assert_eq!([pool.next().await, pool.next().await, pool.next().await], [0, 2, 6]);
        pool.stop().await;
    }

    #[tokio::test]
    async fn work_that_panics_is_not_in_the_way_of_other_work() {
        let work = |_, job| if job == 1 { panic!("injected") } else { Some(job) };
        let mut pool = Pool::new(Limits { waiting: 9, of_peer: 9 }, Order::OfPeer, work);
        let peer = PeerId::random();
        assert_eq!([1, 2].map(|job| pool.offer(peer, job)), [Ok(()); 2]);
        assert_eq!(pool.next().await, 2);
        assert!(pool.running_of.is_empty());
    }
}
