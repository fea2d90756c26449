//! The processor time that peers take, and the pauses of peers that take more than their share.
//!
//! Every poll of a connection's task is timed, with all that runs in it: encryption, multiplexing,
//! negotiation and decoding. The work that the event loop and the request threads do for a peer is
//! added. While all peers together take more than [`PEER_CORES`] of the machine, nothing is read of
//! the connections of those above their max-min fair share, so that TCP and QUIC slow their senders
//! down. The other part of the machine is left to the node's own callers and to the HTTP interface.
//!
//! Nothing but reading pauses: libp2p hands the answers of all peers to their connections in one
//! order, and a connection that did not take its own would keep all others waiting.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt;
use std::num::NonZeroUsize;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use libp2p::PeerId;
use parking_lot::Mutex;

use crate::connection::limits::{
    JUDGE_INTERVAL, LONGEST_PAUSE, LONGEST_TURN, MAX_ACCOUNTS, PEER_CORES, SHORTEST_PAUSE, TIME_HALF_LIFE,
    USEFUL_SHARES, USEFUL_TIME,
};
use crate::dht::address::Prefix;
use crate::platform::{self, Instant, Stopwatch};
use crate::rpc::limits::DEFAULT_WORKERS;
use crate::rpc::token_bucket::amount;

/// The processor time of all peers.
#[derive(Debug, Clone)]
pub(crate) struct Processor(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// The cores of the machine, and the part of them that peers may take.
    threads: u32,
    cores: f64,
    /// Whether peers take more than that, which connections ask at every turn.
    is_busy: AtomicBool,
    accounts: Mutex<Accounts>,
}

#[derive(Debug, Default)]
struct Accounts {
    peers: HashMap<PeerId, Account>,
    /// The open connections that come from each prefix.
    prefixes: HashMap<Prefix, usize>,
    /// The share of the processor above which a peer pauses, or `None` while there is enough.
    share: Option<f64>,
    judged: Option<Instant>,
}

/// What a peer has taken.
#[derive(Debug, Clone, Copy)]
struct Account {
    /// The time taken, and the part of it that was useful.
    time: Duration,
    useful: Duration,
    at: Instant,
    /// The prefix of its connections, and their number.
    prefix: Option<Prefix>,
    connections: usize,
}

impl Account {
    fn new(now: Instant) -> Self {
        Self { time: Duration::ZERO, useful: Duration::ZERO, at: now, prefix: None, connections: 0 }
    }

    /// Returns what is left of a time at `now`: half is forgotten after each [`TIME_HALF_LIFE`].
    fn rest(&self, time: Duration, now: Instant) -> Duration {
        let lives = now.saturating_duration_since(self.at).as_secs_f64() / TIME_HALF_LIFE.as_secs_f64();
        time.mul_f64((-lives).exp2())
    }

    fn left(&self, now: Instant) -> Duration {
        self.rest(self.time, now)
    }

    fn add(&mut self, time: Duration, useful: Duration, now: Instant) {
        (self.time, self.useful) = (self.left(now) + time, self.rest(self.useful, now) + useful);
        self.at = now;
    }

    /// Returns the shares that the peer has: more than one as far as its time is useful.
    fn shares(&self) -> f64 {
        let useful = self.useful.as_secs_f64() / self.time.as_secs_f64().max(f64::MIN_POSITIVE);
        1.0 + (USEFUL_SHARES - 1.0) * useful.min(1.0)
    }
}

/// Returns the cores that a peer uses which has taken `time` lately.
fn cores(time: Duration) -> f64 {
    time.as_secs_f64() * std::f64::consts::LN_2 / TIME_HALF_LIFE.as_secs_f64()
}

impl Accounts {
    fn add(&mut self, peer: PeerId, time: Duration, useful: Duration, now: Instant) {
        self.make_room(&peer, now);
        self.peers.entry(peer).or_insert_with(|| Account::new(now)).add(time, useful, now);
    }

    /// Forgets the peer that has taken the least if there are too many; those with connections
    /// stay.
    fn make_room(&mut self, newcomer: &PeerId, now: Instant) {
        if self.peers.len() < MAX_ACCOUNTS || self.peers.contains_key(newcomer) {
            return;
        }
        let gone = self.peers.iter().filter(|(_, account)| account.connections == 0);
        let least = gone.min_by_key(|(_, account)| account.left(now)).map(|(peer, _)| *peer);
        least.and_then(|least| self.peers.remove(&least));
    }

    fn connected(&mut self, peer: PeerId, prefix: Option<Prefix>, now: Instant) {
        self.make_room(&peer, now);
        let account = self.peers.entry(peer).or_insert_with(|| Account::new(now));
        account.connections += 1;
        let earlier = std::mem::replace(&mut account.prefix, prefix);
        let connections = account.connections;
        if earlier != prefix {
            self.left_prefix(earlier, connections - 1);
            if let Some(prefix) = prefix {
                *self.prefixes.entry(prefix).or_default() += connections;
            }
        } else if let Some(count) = prefix.and_then(|prefix| self.prefixes.get_mut(&prefix)) {
            *count += 1;
        }
    }

    fn disconnected(&mut self, peer: &PeerId) {
        let Some(account) = self.peers.get_mut(peer) else { return };
        account.connections = account.connections.saturating_sub(1);
        let prefix = account.prefix;
        self.left_prefix(prefix, 1);
    }

    fn left_prefix(&mut self, prefix: Option<Prefix>, connections: usize) {
        let Some(prefix) = prefix else { return };
        if let Some(count) = self.prefixes.get_mut(&prefix) {
            *count = count.saturating_sub(connections);
            if *count == 0 {
                self.prefixes.remove(&prefix);
            }
        }
    }

    /// Returns the shares of a peer. Peers of one prefix divide what one peer has.
    fn shares(&self, account: &Account) -> f64 {
        let alike = account.prefix.and_then(|prefix| self.prefixes.get(&prefix)).copied();
        account.shares() / amount(alike.unwrap_or(1).max(1))
    }

    /// Sets the share to that of max-min fairness, if the peers take more than there is for them.
    fn judge(&mut self, most: f64, now: Instant) {
        self.judged = Some(now);
        let used = self.peers.values().map(|account| (cores(account.left(now)), self.shares(account)));
        let mut used: Vec<(f64, f64)> = used.filter(|(used, _)| *used > 0.0).collect();
        let mut left = most;
        self.share = None;
        if used.iter().map(|(used, _)| used).sum::<f64>() <= most {
            return;
        }
        // The lightest have all that they take; what is left is divided among the others.
        used.sort_unstable_by(|(one, shares), (other, others)| (one / shares).total_cmp(&(other / others)));
        let mut all: f64 = used.iter().map(|(_, shares)| shares).sum();
        for (used, shares) in used {
            let share = left / all;
            self.share = Some(share);
            if used / shares > share {
                return;
            }
            left -= used;
            all -= shares;
        }
    }

    /// Returns how long nothing is read of a peer, or `None` if it has not taken too much.
    fn pause(&self, peer: &PeerId, now: Instant) -> Option<Duration> {
        let account = self.peers.get(peer)?;
        let halves = (cores(account.left(now)) / self.shares(account) / self.share?).log2();
        let pause = (halves > 0.0).then(|| TIME_HALF_LIFE.mul_f64(halves.min(8.0)))?;
        Some(pause.clamp(SHORTEST_PAUSE, LONGEST_PAUSE))
    }
}

impl Processor {
    /// Makes the accounts for the cores of this machine.
    pub(crate) fn new() -> Self {
        let threads = platform::parallelism().map_or(DEFAULT_WORKERS, NonZeroUsize::get);
        Self::of(u32::try_from(threads).unwrap_or(u32::MAX))
    }

    fn of(threads: u32) -> Self {
        let (is_busy, accounts) = Default::default();
        Self(Arc::new(Inner { threads, cores: f64::from(threads) * PEER_CORES, is_busy, accounts }))
    }

    /// Adds processor time that was spent on a peer.
    pub(crate) fn charge(&self, peer: PeerId, time: Duration) {
        self.charge_at(peer, time, platform::now());
    }

    fn charge_at(&self, peer: PeerId, time: Duration, now: Instant) {
        let mut accounts = self.0.accounts.lock();
        accounts.add(peer, time, Duration::ZERO, now);
        if accounts.judged.is_none_or(|judged| now.saturating_duration_since(judged) >= JUDGE_INTERVAL) {
            accounts.judge(self.0.cores, now);
            self.0.is_busy.store(accounts.share.is_some(), Ordering::Relaxed);
        }
    }

    /// Records that a peer's work has led to so many records that were accepted, given out or
    /// received in answer to this node's requests.
    pub(crate) fn was_useful(&self, peer: PeerId, records: usize) {
        if records > 0 {
            let useful = USEFUL_TIME * u32::try_from(records).unwrap_or(u32::MAX);
            self.0.accounts.lock().add(peer, Duration::ZERO, useful, platform::now());
        }
    }

    /// Starts to measure the time of work on this thread.
    pub(crate) fn begin(&self) -> Stopwatch {
        // While peers keep the machine busy, a thread is often stopped in the middle of its work.
        Stopwatch::start(self.0.is_busy.load(Ordering::Relaxed))
    }

    /// Runs work for a peer in the event loop, and adds its time. Peers may have as much of this
    /// single thread as of the machine, so it counts as often as the machine has cores.
    pub(crate) fn time<T>(&self, peer: PeerId, work: impl FnOnce() -> T) -> T {
        let begin = self.begin();
        let done = work();
        self.charge(peer, begin.elapsed() * self.0.threads);
        done
    }

    /// Returns the time that a peer has taken lately for each of its shares.
    pub(crate) fn taken(&self, peer: &PeerId, now: Instant) -> Duration {
        let accounts = self.0.accounts.lock();
        let of = |account: &Account| account.left(now).div_f64(accounts.shares(account));
        accounts.peers.get(peer).map_or(Duration::ZERO, of)
    }

    /// Returns how long nothing is to be read of a peer, or `None` if it may go on.
    pub(crate) fn pause(&self, peer: &PeerId) -> Option<Duration> {
        if !self.0.is_busy.load(Ordering::Relaxed) {
            return None;
        }
        self.0.accounts.lock().pause(peer, platform::now())
    }

    /// Begins the account of a connection.
    pub(crate) fn connected(&self, peer: PeerId, prefix: Option<Prefix>) -> Connected {
        self.0.accounts.lock().connected(peer, prefix, platform::now());
        Connected { processor: self.clone(), peer }
    }

    /// Wraps the task of a connection, so that its time is charged to the peer of the
    /// [`Connected`] that it polls.
    pub(crate) fn metered<T>(&self, task: T) -> Metered<T> {
        Metered { task, peer: None, processor: self.clone() }
    }
}

/// An open connection of a peer, until it is dropped.
pub(crate) struct Connected {
    processor: Processor,
    peer: PeerId,
}

impl Connected {
    /// Tells the task that runs this whose connection it has.
    pub(crate) fn is_polled(&self) {
        if IS_UNKNOWN.get() {
            CURRENT.set(Some(self.peer));
        }
    }

    /// Returns whether the task that runs this has had its turn. Others wait for the thread, such
    /// as the event loop.
    pub(crate) fn has_had_its_turn() -> bool {
        TURN.get().is_some_and(|begin| platform::since(begin) >= LONGEST_TURN)
    }

    /// Returns how long nothing is to be read of the connection, or `None` if it may go on.
    pub(crate) fn pause(&self) -> Option<Duration> {
        self.processor.pause(&self.peer)
    }
}

impl fmt::Debug for Connected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Connected").field(&self.peer).finish()
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.processor.0.accounts.lock().disconnected(&self.peer);
    }
}

thread_local! {
    /// Whether the task that runs on this thread does not know its peer, and the peer once it is
    /// known.
    static IS_UNKNOWN: Cell<bool> = const { Cell::new(false) };
    static CURRENT: RefCell<Option<PeerId>> = const { RefCell::new(None) };
    /// When the turn of the task has begun that runs on this thread.
    static TURN: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Returns the turn of the task that runs on this thread, by the time of its beginning.
pub(crate) fn turn() -> Option<Instant> {
    TURN.get()
}

/// A task whose time is charged to a peer.
pub(crate) struct Metered<T> {
    task: T,
    /// The peer, once the task has polled its connection.
    peer: Option<PeerId>,
    processor: Processor,
}

impl<T: Future<Output = ()> + Unpin> Future for Metered<T> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let begin = self.processor.begin();
        IS_UNKNOWN.set(self.peer.is_none());
        TURN.set(Some(platform::now()));
        let polled = Pin::new(&mut self.task).poll(context);
        TURN.set(None);
        if IS_UNKNOWN.replace(false) {
            self.peer = CURRENT.take();
        }
        if let Some(peer) = self.peer {
            self.processor.charge(peer, begin.elapsed());
        }
        polled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    /// The cores that peers may take of two.
    const ALL: f64 = 2.0 * PEER_CORES;

    fn prefix(number: u8) -> Option<Prefix> {
        Prefix::of(&format!("/ip4/198.51.{number}.1/tcp/1").parse().unwrap())
    }

    /// Has peers take parts of a core for a while, but not while they pause; returns what each has
    /// taken in the last second.
    fn demand(processor: &Processor, peers: &[(PeerId, f64)]) -> Vec<f64> {
        const STEP: Duration = Duration::from_millis(1);
        let (begin, mut taken) = (platform::now(), vec![0.0; peers.len()]);
        let mut paused = vec![begin; peers.len()];
        for step in 1..5000 {
            let now = begin + STEP * step;
            for (place, (peer, part)) in peers.iter().enumerate() {
                if paused[place] > now {
                    continue;
                }
                processor.charge_at(*peer, STEP.mul_f64(*part), now);
                if now > begin + 4 * SECOND {
                    taken[place] += STEP.mul_f64(*part).as_secs_f64();
                }
                let pause = processor.0.accounts.lock().pause(peer, now);
                paused[place] = now + pause.unwrap_or_default();
            }
        }
        taken
    }

    /// Pauses have a shortest and a longest time, so that shares are not met exactly.
    fn is_about(taken: f64, expected: f64) -> bool {
        (taken - expected).abs() < expected / 4.0
    }

    #[test]
    fn peers_that_take_too_much_share_what_the_light_ones_leave() {
        let processor = Processor::of(2);
        let [light, usual] = [(PeerId::random(), 0.05), (PeerId::random(), 0.25)];
        let heavy = [(); 4].map(|()| (PeerId::random(), 1.0));
        let taken = demand(&processor, &[&[light, usual], heavy.as_slice()].concat());
        assert!(is_about(taken[0], 0.05), "{taken:?}");
        assert!(taken[1..].iter().all(|taken| is_about(*taken, (ALL - 0.05) / 5.0)), "{taken:?}");
        assert!(processor.0.is_busy.load(Ordering::Relaxed));
    }

    #[test]
    fn peers_whose_work_is_useful_have_more() {
        let processor = Processor::of(2);
        let peers: Vec<(PeerId, f64)> = (0..12).map(|_| (PeerId::random(), 1.0)).collect();
        let useful = peers[0].0;
        // Enough for all half-lives of the test.
        let time = Duration::from_secs(1 << 60);
        processor.0.accounts.lock().add(useful, Duration::ZERO, time, platform::now());
        let taken = demand(&processor, &peers);
        let share = ALL / (USEFUL_SHARES + 11.0);
        assert!(is_about(taken[0], USEFUL_SHARES * share), "{taken:?}");
        assert!(taken[1..].iter().all(|taken| is_about(*taken, share)), "{taken:?}");
    }

    #[test]
    fn nobody_pauses_while_there_is_enough() {
        let processor = Processor::of(2);
        let peers = [(PeerId::random(), 0.5), (PeerId::random(), 0.1)];
        let taken = demand(&processor, &peers);
        assert!(is_about(taken[0], 0.5) && is_about(taken[1], 0.1), "{taken:?}");
    }

    #[test]
    fn peers_of_one_prefix_share_as_one_peer_does() {
        let processor = Processor::of(2);
        let peers: Vec<(PeerId, f64)> = (0..8).map(|_| (PeerId::random(), 1.0)).collect();
        let of = |place: usize| prefix(if place < 7 { 1 } else { 2 });
        let connected: Vec<Connected> = peers
            .iter()
            .enumerate()
            .map(|(place, (peer, _))| processor.connected(*peer, of(place)))
            .collect();
        let taken = demand(&processor, &peers);
        assert!(is_about(taken[7], ALL / 2.0), "{taken:?}");
        assert!(taken[..7].iter().all(|taken| is_about(*taken, ALL / 2.0 / 7.0)), "{taken:?}");
        drop(connected);
        assert!(processor.0.accounts.lock().prefixes.is_empty());
    }

    #[test]
    fn a_peer_that_moves_counts_where_it_is() {
        let (processor, peer) = (Processor::of(2), PeerId::random());
        let connections = [1, 1, 2, 1].map(|number| processor.connected(peer, prefix(number)));
        let count = |number| processor.0.accounts.lock().prefixes.get(&prefix(number).unwrap()).copied();
        assert_eq!((count(1), count(2)), (Some(4), None));
        drop(connections);
        assert_eq!(count(1), None);
    }

    #[test]
    fn time_is_forgotten_by_halves_and_few_accounts_are_kept() {
        let (processor, peer, now) = (Processor::of(2), PeerId::random(), platform::now());
        processor.charge_at(peer, SECOND, now);
        assert_eq!(processor.taken(&peer, now + 3 * TIME_HALF_LIFE), SECOND / 8);
        let connected = processor.connected(PeerId::random(), None);
        for _ in 0..2 * MAX_ACCOUNTS {
            processor.charge_at(PeerId::random(), SECOND / 1000, now);
        }
        assert_eq!(processor.0.accounts.lock().peers.len(), MAX_ACCOUNTS);
        assert_eq!(processor.taken(&peer, now), SECOND, "the least go");
        assert!(processor.0.accounts.lock().peers.contains_key(&connected.peer));
    }

    #[test]
    fn the_time_of_a_peer_whose_work_is_useful_counts_less() {
        let (processor, peer) = (Processor::of(2), PeerId::random());
        processor.charge(peer, SECOND);
        processor.was_useful(peer, 10_000);
        let taken = processor.taken(&peer, platform::now()).as_secs_f64();
        assert!(taken <= 1.0 / USEFUL_SHARES && taken > 0.5 / USEFUL_SHARES, "{taken}");
    }

    #[tokio::test]
    async fn a_task_has_its_turn_and_lets_others_have_theirs() {
        let processor = Processor::of(2);
        assert!(!Connected::has_had_its_turn(), "no task runs");
        let task = async {
            for _ in 0..2 {
                assert!(!Connected::has_had_its_turn());
                let begin = platform::now();
                while platform::since(begin) < LONGEST_TURN {}
                assert!(Connected::has_had_its_turn());
                tokio::task::yield_now().await;
            }
        };
        processor.metered(Box::pin(task)).await;
        assert!(!Connected::has_had_its_turn());
    }

    #[tokio::test]
    async fn the_time_of_a_task_is_charged_to_the_peer_whose_connection_it_polls() {
        let (processor, peer) = (Processor::of(2), PeerId::random());
        let connected = processor.connected(peer, None);
        let begin = platform::now();
        let work = || while platform::since(begin) < Duration::from_millis(20) {};
        processor.metered(Box::pin(async { work() })).await;
        assert_eq!(processor.taken(&peer, begin), Duration::ZERO, "it has polled no connection");
        let begin = platform::now();
        let work = || while platform::since(begin) < Duration::from_millis(20) {};
        processor
            .metered(Box::pin(async {
                connected.is_polled();
                work();
            }))
            .await;
        assert!(processor.taken(&peer, begin) > Duration::from_millis(10));
    }
}
