//! The schedule of comparisons: periodic passes, comparisons after peers have connected, returned
//! or disconnected, and passes on request.

use std::collections::BTreeSet;

use crate::event_loop::command::Commands;
use crate::jitter;
use crate::peers::presence::Presence;
use crate::platform;
use crate::platform::at;
use crate::replication::repair::backlog::Backlog;
use crate::replication::repair::limits::{
    ARRIVAL_SETTLING_TIME, MAX_REPAIR_REST, REPAIR_HURRY, REPAIR_JITTER_PERCENT, REPAIR_REST, REPAIR_RETRY,
};
use crate::replication::repair::news::PeerNews;
use crate::replication::repair::*;

/// The reply channel of a requested pass.
pub(crate) type Order = oneshot::Sender<RepairReport>;

/// The task that repairs until the swarm has stopped.
pub(crate) struct Repairer {
    peers: Peers,
    /// `None` if passes run only on request.
    interval: Option<Duration>,
    news: Arc<PeerNews>,
    backlog: Backlog,
    presence: Presence,
    stop: Arc<Notify>,
    orders: mpsc::Receiver<Order>,
    events: broadcast::Sender<NetabaseSwarmEvent>,
    meters: Arc<Meters>,
}

/// The progress of the current pass.
struct Walk {
    from: Position,
    /// The start of the pass at the start of the keyspace, if everything since was compared.
    heard: Option<Begun>,
    /// The time of the next slice, or `None` without an interval.
    next: Option<Instant>,
    report: RepairReport,
}

/// The start of a pass.
#[derive(Debug, Clone, Copy)]
struct Begun {
    /// The time, in milliseconds since the Unix epoch.
    at: u64,
    /// The number of this node's absences so far.
    absences: u64,
}

/// The peers that have connected or returned, and the time of their comparison.
#[derive(Debug)]
struct Arrivals {
    /// The peers of the routing table at the last check.
    known: Vec<PeerId>,
    returned: BTreeSet<PeerId>,
    /// Whether many records were written here that their holders lack.
    is_much: bool,
    /// The number of this node's absences at the start of the last comparison.
    absences: u64,
    /// The time of the next comparison, or `None` without an event.
    due: Option<Instant>,
    /// The end of the rest after a comparison, so that a flapping peer costs only a fraction of the
    /// time.
    rested: Instant,
    /// The end of the short rest, so that urgent events cost at most half of the time.
    ready: Instant,
    /// The number of consecutive comparisons after which this node was still behind.
    failures: u32,
}

impl Arrivals {
    fn new(now: Instant) -> Self {
        let (known, returned, is_much, absences) = Default::default();
        Self { known, returned, is_much, absences, due: None, rested: now, ready: now, failures: 0 }
    }

    /// Handles an event of peers. The comparison waits for further events and for the rest after
    /// the last one. A node that was away since then, which the count of absences in `behind`
    /// tells, does not rest.
    fn have_peers(&mut self, now: Instant, behind: Option<u64>) {
        let is_urgent = behind.is_some_and(|absences| absences > self.absences);
        self.have_news(now, if is_urgent { self.ready } else { self.rested });
    }

    /// Handles many local writes. The comparison waits only for further events, and for the short
    /// rest.
    fn have_much(&mut self, now: Instant) {
        self.is_much = true;
        self.have_news(now, self.ready);
    }

    fn have_news(&mut self, now: Instant, not_before: Instant) {
        let settled = (now + ARRIVAL_SETTLING_TIME).max(not_before);
        self.due = Some(self.due.map_or(settled, |due| due.min(settled)));
    }

    /// Takes the peers to compare with, and whether some have disconnected.
    fn take(&mut self, peers: Vec<PeerId>) -> (Vec<PeerId>, bool) {
        let returned = std::mem::take(&mut self.returned);
        let has_come = |peer: &PeerId| returned.contains(peer) || !self.known.contains(peer);
        let come = peers.iter().copied().filter(has_come).collect();
        let are_gone = self.known.iter().any(|peer| !peers.contains(peer));
        self.known = peers;
        (come, are_gone)
    }

    /// Records the end of a comparison: its duration, the count of absences at its start, and
    /// whether this node is still behind.
    fn have_compared(&mut self, now: Instant, took: Duration, absences: u64, is_behind: bool) {
        self.absences = absences;
        self.ready = now + took.min(MAX_REPAIR_REST);
        self.rested = now + (took * REPAIR_REST).min(MAX_REPAIR_REST);
        if is_behind {
            self.failures = self.failures.saturating_add(1);
            self.due = Some((now + REPAIR_RETRY.after(self.failures)).max(self.rested));
        } else {
            self.failures = 0;
        }
    }
}

impl Repairer {
    pub(crate) fn new(
        parts: &Parts,
        commands: Commands,
        news: Arc<PeerNews>,
        stop: Arc<Notify>,
        orders: mpsc::Receiver<Order>,
    ) -> Self {
        Self {
            peers: Peers {
                store: parts.store.clone(),
                admission: parts.admission(),
                commands,
                max_frame_bytes: max_frame_bytes(parts.config.store.max_value_bytes),
                republish_interval: parts.config.dht.republish_interval,
            },
            interval: parts.config.dht.repair_interval,
            news,
            backlog: parts.backlog.clone(),
            presence: parts.presence.clone(),
            stop,
            orders,
            events: parts.events.clone(),
            meters: Arc::clone(parts.metrics.meters()),
        }
    }

    /// Runs the task. It is never cancelled in the middle, so that no read of the store outlives
    /// it.
    pub(crate) async fn run(mut self) {
        self.walk_on_time().await;
        // Without passes there is no position.
        self.meters.repair_position.set(0);
    }

    async fn walk_on_time(&mut self) {
        let from = self.peers.store.replica().mark(CURSOR);
        let from = from.and_then(|cursor| cursor.try_into().ok()).unwrap_or_default();
        let mut walk = Walk { from, heard: None, next: self.after_pause(1), report: RepairReport::default() };
        self.show(&walk.from);
        let mut arrivals = Arrivals::new(platform::now());
        loop {
            let done = tokio::select! {
                () = self.stop.notified() => return,
                order = self.orders.recv() => match order {
                    Some(order) => self.walk_now(order).await,
                    None => return,
                },
                () = self.news.changed(), if self.interval.is_some() => {
                    arrivals.returned.extend(self.news.take_returned());
                    let behind = self.presence.is_behind().then(|| self.presence.absences());
                    arrivals.have_peers(platform::now(), behind);
                    Ok(())
                }
                () = self.backlog.is_much(), if self.interval.is_some() => {
                    arrivals.have_much(platform::now());
                    Ok(())
                }
                () = at(arrivals.due) => self.on_arrivals(&mut arrivals, &mut walk).await,
                () = at(walk.next) => self.go_on(&mut walk).await,
            };
            if done.is_err() {
                return;
            }
        }
    }

    /// Compares the next slice; at the end of the keyspace a new pass starts.
    async fn go_on(&self, walk: &mut Walk) -> Result<(), Gone> {
        if walk.from == Position::default() {
            walk.heard = Some(self.begin());
        }
        let Repaired { next, is_heard } =
            TraceContext::carry_out("repair", self.peers.repair_slice(walk.from, None, &mut walk.report))
                .await?;
        walk.heard = walk.heard.filter(|_| is_heard);
        walk.from = next.unwrap_or_default();
        self.show(&walk.from);
        if let Err(error) = self.peers.store.replica().set_mark(CURSOR, &walk.from) {
            tracing::warn!(%error, "cannot store the position of the repair");
        }
        let slices = self.peers.slices().await;
        walk.next = self.after_pause(slices);
        if next.is_none() {
            self.note_compared(walk.heard.take());
            self.tell(std::mem::take(&mut walk.report));
        }
        Ok(())
    }

    /// Runs a complete pass without pauses, for a caller that waits for it.
    async fn walk_now(&self, order: Order) -> Result<(), Gone> {
        let (store, mut report) = (self.peers.store.clone(), RepairReport::default());
        // Writes before the call count, though they may still be queued.
        if let Some(Err(error)) = blocking(move || store.flush()).await {
            tracing::warn!(%error, "cannot flush queued writes");
        }
        self.walk_over(None, &mut report).await?;
        self.tell(report);
        // The caller may have cancelled the call.
        let _ = order.send(report);
        Ok(())
    }

    /// Compares everything with peers that have connected or returned, and shortens the time to the
    /// next slice if some have disconnected. A node that is behind, or has written many records,
    /// compares with all peers.
    async fn on_arrivals(&self, arrivals: &mut Arrivals, walk: &mut Walk) -> Result<(), Gone> {
        arrivals.due = None;
        let (come, are_gone) = arrivals.take(self.peers.view().await?.peers());
        if are_gone {
            walk.next = walk.next.min(self.after_pause(REPAIR_HURRY));
        }
        // Without peers the node stays behind until some connect.
        let is_behind = self.presence.is_behind() && !arrivals.known.is_empty();
        let is_much = std::mem::take(&mut arrivals.is_much);
        if !is_behind && !is_much && come.is_empty() {
            return Ok(());
        }
        self.backlog.take();
        let (begun, absences) = (platform::now(), self.presence.absences());
        let mut report = RepairReport::default();
        let only = Some(come.as_slice()).filter(|_| !is_behind && !is_much);
        self.walk_over(only, &mut report).await?;
        arrivals.have_compared(platform::now(), platform::since(begun), absences, self.presence.is_behind());
        if is_much && report.sent > 0 && self.backlog.take() {
            // The end of a burst may have been written meanwhile.
            arrivals.have_much(platform::now());
        }
        self.tell(report);
        Ok(())
    }

    async fn walk_over(&self, only: Option<&[PeerId]>, report: &mut RepairReport) -> Result<(), Gone> {
        let mut from = Position::default();
        let mut heard = Some(self.begin());
        loop {
            let Repaired { next, is_heard } =
                TraceContext::carry_out("repair", self.peers.repair_slice(from, only, report)).await?;
            heard = heard.filter(|_| is_heard);
            let Some(next) = next else {
                self.note_compared(heard);
                return Ok(());
            };
            from = next;
        }
    }

    fn begin(&self) -> Begun {
        Begun { at: self.peers.store.replica().clock().unix_millis(), absences: self.presence.absences() }
    }

    /// Records a complete comparison since the start of a pass, if there was one.
    fn note_compared(&self, heard: Option<Begun>) {
        if let Some(Begun { at, absences }) = heard {
            self.peers.store.replica().note_online_at(at);
            self.presence.has_compared(absences);
        }
    }

    /// Updates the metric of the position.
    fn show(&self, from: &Position) {
        let part = from.first_chunk().map_or(0, |first| u16::from_be_bytes(*first).into());
        self.meters.repair_position.set(part);
    }

    /// Returns the time of the next of `slices` slices, with jitter.
    fn after_pause(&self, slices: u32) -> Option<Instant> {
        self.interval
            .map(|interval| platform::now() + jitter::around(interval / slices.max(1), REPAIR_JITTER_PERCENT))
    }

    fn tell(&self, report: RepairReport) {
        let records = [
            ("compared", report.records),
            ("received", report.received),
            ("sent", report.sent),
            ("released", report.released),
        ];
        for (action, count) in records {
            self.meters.repair_records.add(action, count);
        }
        self.meters.repair_walks.add(1);
        // Sending fails only without subscribers.
        let _ = self.events.send(NetabaseSwarmEvent::Repaired(report));
    }
}

#[cfg(test)]
mod tests {
    use netabase_store::StoreOptions;

    use super::*;
    use crate::peers::score::PeerScores;
    use crate::telemetry::trace::Traces;

    /// Returns the time after `now` until the next comparison, or `None` if there is none.
    fn wait(arrivals: &Arrivals, now: Instant) -> Option<Duration> {
        arrivals.due.map(|due| due.saturating_duration_since(now))
    }

    #[test]
    fn what_was_written_does_not_wait_for_the_rest_and_peers_do() {
        let now = platform::now();
        let (took, soon) = (Duration::from_secs(2), Duration::from_millis(1));
        let compared = || {
            let mut arrivals = Arrivals::new(now);
            arrivals.have_compared(now, took, 1, false);
            arrivals
        };
        let mut arrivals = compared();
        arrivals.have_peers(now, None);
        assert_eq!(wait(&arrivals, now), Some(took * REPAIR_REST));
        arrivals.have_much(now);
        assert_eq!((wait(&arrivals, now), arrivals.is_much), (Some(took), true));
        arrivals.have_peers(now, None);
        assert_eq!(wait(&arrivals, now), Some(took), "later news does not delay it");

        // The end of a burst is compared, too, however soon after the last comparison it comes.
        let mut arrivals = Arrivals::new(now);
        arrivals.have_compared(now, soon, 1, false);
        arrivals.have_much(now);
        assert_eq!(wait(&arrivals, now), Some(ARRIVAL_SETTLING_TIME));
        let mut arrivals = Arrivals::new(now);
        arrivals.have_compared(now, MAX_REPAIR_REST * 2, 1, false);
        arrivals.have_much(now);
        assert_eq!(wait(&arrivals, now), Some(MAX_REPAIR_REST));
    }

    #[test]
    fn a_node_that_falls_behind_does_not_rest_and_one_that_stays_behind_does() {
        let (now, took) = (platform::now(), Duration::from_secs(2));
        let mut arrivals = Arrivals::new(now);
        arrivals.have_compared(now, took, 1, false);
        arrivals.have_peers(now, Some(2));
        assert_eq!(wait(&arrivals, now), Some(took));

        let mut arrivals = Arrivals::new(now);
        arrivals.have_compared(now, took, 2, true);
        arrivals.due = None;
        arrivals.have_peers(now, Some(2));
        assert_eq!(wait(&arrivals, now), Some(took * REPAIR_REST));
        arrivals.have_peers(now, Some(3));
        assert_eq!(wait(&arrivals, now), Some(took));
    }

    #[tokio::test]
    async fn the_position_is_that_of_the_walk_as_long_as_there_is_one() {
        let options = StoreOptions::in_memory();
        let store = NetabaseStore::open_with("", None, options).unwrap();
        store.replica().set_mark(CURSOR, &[0x40; 32]).unwrap();
        let ((sender, _commands), (_orders, orders)) = (mpsc::channel(1), mpsc::channel(1));
        let (meters, stop) = (Arc::<Meters>::default(), Arc::<Notify>::default());
        let repairer = Repairer {
            peers: Peers {
                admission: Admission::new(store.clone(), PeerScores::default(), Traces::default()),
                store,
                commands: Commands::new(&sender),
                max_frame_bytes: 1 << 20,
                republish_interval: Duration::from_secs(1),
            },
            interval: Some(Duration::from_secs(24 * 60 * 60)),
            news: Arc::default(),
            backlog: Backlog::default(),
            presence: Presence::default(),
            stop: Arc::clone(&stop),
            orders,
            events: broadcast::channel(1).0,
            meters: Arc::clone(&meters),
        };
        let running = platform::spawn(repairer.run());
        // The task continues from its mark before it waits.
        tokio::task::yield_now().await;
        assert_eq!(meters.repair_position.get(), 0x4040);
        stop.notify_one();
        running.await.unwrap();
        assert_eq!(meters.repair_position.get(), 0);
    }
}
