//! A pool of threads for peers' requests: signatures are verified, and the disk is read and hashed,
//! on every core and not in the event loop.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use libp2p::PeerId;
use tokio::task;

use crate::connection::limits::LONGEST_PAUSE;
use crate::connection::processor::Processor;
use crate::platform::{self, Instant, JoinSet};
use crate::rpc::limits::{DEFAULT_WORKERS, LIGHT_TIME, LIGHT_WORKERS, OVERDUE_INTERVAL};

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
    /// Jobs of a peer may run concurrently; the next one is of the peer whose jobs have taken the
    /// least time lately.
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
    waiting: VecDeque<Waiting<Job>>,
    running: JoinSet<(Option<Done>, Duration)>,
    /// The peers whose jobs are running.
    running_of: Vec<(task::Id, PeerId)>,
    /// When to look again at the jobs of peers that have taken too much, and when the last one of
    /// such a peer has started.
    rest: Option<Instant>,
    overdue: Option<Instant>,
    processor: Processor,
}

/// A job that waits for a thread.
struct Waiting<Job> {
    peer: PeerId,
    job: Job,
    /// Since when no job of the peer has started.
    since: Instant,
}

impl<Job: Send + 'static, Done: Send + 'static> Pool<Job, Done> {
    /// Creates a pool whose jobs run `work`, which returns a result to report, if there is one.
    pub(crate) fn new(
        limits: Limits,
        order: Order,
        processor: Processor,
        work: impl Fn(PeerId, Job) -> Option<Done> + Send + Sync + 'static,
    ) -> Self {
        let workers = platform::parallelism().map_or(DEFAULT_WORKERS, NonZeroUsize::get);
        Self {
            work: Arc::new(work),
            limits,
            order,
            workers,
            waiting: VecDeque::new(),
            running: JoinSet::new(),
            running_of: Vec::new(),
            rest: None,
            overdue: None,
            processor,
        }
    }

    /// Queues a job of a peer. If a limit is reached, returns the job that is not carried out: this
    /// one, or the last one of the peer that has the most.
    pub(crate) fn offer(&mut self, peer: PeerId, job: Job) -> Result<(), Job> {
        let of_peer = self.waiting.iter().filter(|waiting| waiting.peer == peer).count();
        if of_peer >= self.limits.of_peer {
            return Err(job);
        }
        let mut displaced = None;
        if self.waiting.len() >= self.limits.waiting {
            let Some(place) = self.last_of_greediest(of_peer + 1) else { return Err(job) };
            displaced = self.waiting.remove(place);
        }
        self.waiting.push_back(Waiting { peer, job, since: platform::now() });
        self.start_waiting();
        displaced.map_or(Ok(()), |displaced| Err(displaced.job))
    }

    /// Returns the place of the last job of the peer that has the most, if it has more than `most`.
    fn last_of_greediest(&self, most: usize) -> Option<usize> {
        let mut counts: HashMap<PeerId, (usize, usize)> = HashMap::new();
        for (place, waiting) in self.waiting.iter().enumerate() {
            let (count, last) = counts.entry(waiting.peer).or_default();
            (*count, *last) = (*count + 1, place);
        }
        counts.into_values().max().filter(|(count, _)| *count > most).map(|(_, last)| last)
    }

    /// Returns the result of the next job that ends. This method is cancel safe.
    pub(crate) async fn next(&mut self) -> Done {
        loop {
            let rest = self.rest;
            let ended = async {
                match self.running.join_next_with_id().await {
                    Some(ended) => ended,
                    None => std::future::pending().await,
                }
            };
            let ended = match rest {
                Some(rest) => platform::timeout_at(rest, ended).await.ok(),
                None => Some(ended.await),
            };
            let (id, (done, time)) = match ended {
                Some(Ok(ended)) => ended,
                // A peer that waits for an answer receives a failure.
                Some(Err(error)) => {
                    tracing::error!(%error, "a job of a peer has panicked");
                    (error.id(), (None, Duration::ZERO))
                }
                None => {
                    self.start_waiting();
                    continue;
                }
            };
            if let Some(place) = self.running_of.iter().position(|(running, _)| *running == id) {
                let (_, peer) = self.running_of.swap_remove(place);
                self.processor.charge(peer, time);
            }
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
        let mut pauses = HashMap::new();
        while let Some(Waiting { peer, job, .. }) = self.next_waiting(&mut pauses) {
            let (work, processor) = (Arc::clone(&self.work), self.processor.clone());
            let task = self.running.spawn_blocking(move || {
                let begin = processor.begin();
                let done = work(peer, job);
                (done, begin.elapsed())
            });
            self.running_of.push((task.id(), peer));
        }
        // The end of a job is soon enough, where one has to end first.
        let is_free = self.running.len() < self.workers;
        let now = platform::now();
        let until = |waiting: &Waiting<Job>| {
            let pause = pauses.get(&waiting.peer).copied().flatten()?;
            let may_start = is_free && (self.order == Order::Fair || !self.is_running(&waiting.peer));
            may_start.then(|| (now + pause).min(self.overdue_at(waiting)))
        };
        self.rest = self.waiting.iter().filter_map(until).min();
    }

    /// Returns the job that starts now, if one does. Those of peers above their share wait, as what
    /// they send does, until they are overdue: `pauses` has how long, of those that were asked
    /// about.
    fn next_waiting(&mut self, pauses: &mut HashMap<PeerId, Option<Duration>>) -> Option<Waiting<Job>> {
        let running = self.running.len();
        let threads = self.workers + if self.order == Order::Fair { LIGHT_WORKERS } else { 0 };
        if running >= threads {
            return None;
        }
        let (now, all) = (platform::now(), running < self.workers);
        let mut times = HashMap::new();
        let mut time_of = |peer| {
            *times.entry(peer).or_insert_with(|| self.processor.taken(&peer, now) + self.running_time(&peer))
        };
        let (mut next, mut overdue) = (None, None);
        for (place, waiting) in self.waiting.iter().enumerate() {
            let peer = waiting.peer;
            if self.order == Order::OfPeer && self.is_running(&peer) {
                continue;
            }
            let is_paused = pauses.entry(peer).or_insert_with(|| self.processor.pause(&peer)).is_some();
            let best = match is_paused {
                false if self.order == Order::OfPeer => return self.take(place),
                false => &mut next,
                true if now >= self.overdue_at(waiting) => &mut overdue,
                true => continue,
            };
            let this = (time_of(peer), place);
            *best = Some(best.map_or(this, |best: (Duration, usize)| best.min(this)));
        }
        match (next.filter(|(time, _)| all || *time < LIGHT_TIME), overdue.filter(|_| all)) {
            (Some((_, place)), _) => self.take(place),
            (None, Some((_, place))) => {
                self.overdue = Some(now);
                self.take(place)
            }
            (None, None) => None,
        }
    }

    /// Returns when a job starts in any case, so that its peer is not taken for silent: no job of
    /// it has started for [`LONGEST_PAUSE`], and none of another such peer for
    /// [`OVERDUE_INTERVAL`].
    fn overdue_at(&self, waiting: &Waiting<Job>) -> Instant {
        let since = waiting.since + LONGEST_PAUSE;
        self.overdue.map_or(since, |last| since.max(last + OVERDUE_INTERVAL))
    }

    fn take(&mut self, place: usize) -> Option<Waiting<Job>> {
        let taken = self.waiting.remove(place)?;
        let now = platform::now();
        self.waiting
            .iter_mut()
            .filter(|waiting| waiting.peer == taken.peer)
            .for_each(|waiting| waiting.since = now);
        Some(taken)
    }

    fn is_running(&self, peer: &PeerId) -> bool {
        self.running_of.iter().any(|(_, running)| running == peer)
    }

    /// Returns the time that a peer's running jobs count as until they end.
    fn running_time(&self, peer: &PeerId) -> Duration {
        let running = self.running_of.iter().filter(|(_, running)| running == peer).count();
        LIGHT_TIME * u32::try_from(running).unwrap_or(u32::MAX)
    }
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

    #[tokio::test]
    async fn a_peer_that_asks_much_waits_for_others() {
        let (mut pool, release) = held(Limits { waiting: 9, of_peer: 9 }, Order::Fair);
        let [greedy, other, third] = [(); 3].map(|()| PeerId::random());
        pool.workers = 1;
        // Nobody pauses for so little.
        pool.processor.charge(greedy, 2 * LIGHT_TIME);
        for (peer, job) in [(greedy, 0), (greedy, 2), (other, 4), (greedy, 6), (third, 8)] {
            pool.offer(peer, job).unwrap();
        }
        let running: Vec<PeerId> = pool.running_of.iter().map(|(_, peer)| *peer).collect();
        assert_eq!(running, [greedy, other], "the first, and one that costs little");
        let waiting: Vec<u8> = pool.waiting.iter().map(|waiting| waiting.job).collect();
        assert_eq!(waiting, [2, 6, 8]);
        let mut done = Vec::new();
        for _ in 0..5 {
            release.send(()).unwrap();
            done.push(pool.next().await);
        }
        let place = |job| done.iter().position(|done| *done == job).unwrap();
        assert!(place(8) < place(6), "{done:?}");
    }

    #[tokio::test]
    async fn a_peer_above_its_share_waits_although_a_thread_is_free() {
        for order in [Order::Fair, Order::OfPeer] {
            let (mut pool, release) = held(Limits { waiting: 9, of_peer: 9 }, order);
            let [greedy, other] = [(); 2].map(|()| PeerId::random());
            pool.processor.charge(greedy, Duration::from_secs(1));
            for (peer, job) in [(greedy, 0), (greedy, 2), (other, 4)] {
                pool.offer(peer, job).unwrap();
            }
            let running: Vec<PeerId> = pool.running_of.iter().map(|(_, peer)| *peer).collect();
            assert_eq!(running, [other]);
            (0..3).for_each(|_| release.send(()).unwrap());
            assert_eq!(pool.next().await, 4);
            assert!(pool.running_of.is_empty() && pool.processor.pause(&greedy).is_some());
            let mut done = [pool.next().await, pool.next().await];
            done.sort_unstable();
            assert_eq!(done, [0, 2], "what it has taken is forgotten meanwhile");
        }
    }

    #[tokio::test]
    async fn a_peer_above_its_share_is_heard_now_and_then() {
        let (mut pool, release) = held(Limits { waiting: 9, of_peer: 9 }, Order::Fair);
        let greedy = [(); 2].map(|()| PeerId::random());
        // It takes seconds until that is forgotten.
        for peer in greedy {
            pool.processor.charge(peer, Duration::from_secs(100));
        }
        for (peer, job) in [(greedy[0], 0), (greedy[0], 2), (greedy[1], 4)] {
            pool.offer(peer, job).unwrap();
        }
        assert!(pool.running_of.is_empty() && pool.rest.is_some());
        let begin = platform::now();
        (0..3).for_each(|_| release.send(()).unwrap());
        let mut first = [pool.next().await, pool.next().await];
        first.sort_unstable();
        assert_eq!(first, [0, 4], "one of each");
        assert!(platform::since(begin) >= LONGEST_PAUSE + OVERDUE_INTERVAL);
        assert_eq!(pool.next().await, 2);
        assert!(platform::since(begin) >= 2 * LONGEST_PAUSE);
        assert!(greedy.iter().all(|peer| pool.processor.pause(peer).is_some()));
    }

    #[tokio::test]
    async fn nobody_looks_at_jobs_that_cannot_start_before_another_one_ends() {
        for order in [Order::Fair, Order::OfPeer] {
            let (mut pool, release) = held(Limits { waiting: 9, of_peer: 9 }, order);
            pool.workers = if order == Order::Fair { 1 } else { 2 };
            let greedy = PeerId::random();
            pool.offer(greedy, 0).unwrap();
            assert_eq!(pool.running_of.len(), 1);
            pool.processor.charge(greedy, Duration::from_secs(100));
            pool.offer(greedy, 2).unwrap();
            assert_eq!(pool.rest, None, "{order:?}");
            (0..2).for_each(|_| release.send(()).unwrap());
            assert_eq!([pool.next().await, pool.next().await], [0, 2]);
        }
    }

    #[tokio::test]
    async fn a_full_queue_takes_a_job_of_a_peer_that_has_fewer() {
        let (mut pool, release) = held(Limits { waiting: 4, of_peer: 4 }, Order::OfPeer);
        pool.workers = 0;
        let [greedy, other] = [(); 2].map(|()| PeerId::random());
        assert_eq!([0, 2, 4, 6].map(|job| pool.offer(greedy, job)), [Ok(()); 4]);
        assert_eq!(pool.offer(other, 8), Err(6), "the last one of whoever has the most");
        assert_eq!(pool.offer(other, 10), Err(4));
        assert_eq!(pool.offer(other, 12), Err(12), "both have two");
        assert_eq!(pool.offer(greedy, 14), Err(14));
        drop(release);
    }

    /// Returns a pool whose jobs end when they are told to.
    fn held(limits: Limits, order: Order) -> (Pool<u8, u8>, SyncSender<()>) {
        let (release, released): (_, Receiver<()>) = sync_channel(10);
        let released = Mutex::new(released);
        let work = move |_, job| {
            released.lock().recv().ok();
            (job % 2 == 0).then_some(job)
        };
        (Pool::new(limits, order, Processor::new(), work), release)
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
        let mut pool = Pool::new(Limits { waiting: 9, of_peer: 9 }, Order::OfPeer, Processor::new(), work);
        let peer = PeerId::random();
        assert_eq!([1, 2].map(|job| pool.offer(peer, job)), [Ok(()); 2]);
        assert_eq!(pool.next().await, 2);
        assert!(pool.running_of.is_empty());
    }
}
