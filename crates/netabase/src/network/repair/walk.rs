//! When everything is compared: by the clock, when peers come and go, and when somebody asks for it.

use super::*;

/// Who waits for a walk that was asked for.
pub(in crate::network) type Order = oneshot::Sender<RepairReport>;

/// Walks until the swarm is gone.
pub(in crate::network) struct Repairer {
    peers: Peers,
    /// None where the walk is only made when it is asked for.
    interval: Option<Duration>,
    view_changed: Arc<Notify>,
    stop: Arc<Notify>,
    orders: mpsc::Receiver<Order>,
    events: broadcast::Sender<NetabaseSwarmEvent>,
    meters: Arc<Meters>,
}

/// How far the present walk is.
struct Walk {
    from: Position,
    /// When it began at the start of the keyspace, in milliseconds since the Unix epoch, if all since was compared.
    heard: Option<u64>,
    /// None where there is no interval.
    next: Option<Instant>,
    report: RepairReport,
}

/// Waits until a time, for ever if there is none.
async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

impl Repairer {
    pub(in crate::network) fn new(
        parts: &Parts,
        commands: mpsc::WeakSender<Command>,
        view_changed: Arc<Notify>,
        stop: Arc<Notify>,
        orders: mpsc::Receiver<Order>,
    ) -> Self {
        Self {
            peers: Peers {
                store: parts.store.clone(),
                commands,
                max_frame_bytes: max_frame_bytes(parts.config.max_value_bytes),
                republish_interval: parts.config.dht.republish_interval,
            },
            interval: parts.config.dht.repair_interval,
            view_changed,
            stop,
            orders,
            events: parts.events.clone(),
            meters: Arc::clone(parts.metrics.meters()),
        }
    }

    /// It is never cancelled in the middle, so that no read of the store outlives it.
    pub(in crate::network) async fn run(mut self) {
        self.walk_on_time().await;
        // Where nobody walks there is no position.
        self.meters.repair_position.set(0);
    }

    async fn walk_on_time(&mut self) {
        let from = self.peers.store.mark(CURSOR);
        let from = from.and_then(|cursor| cursor.try_into().ok()).unwrap_or_default();
        let mut walk = Walk { from, heard: None, next: self.after_pause(1), report: RepairReport::default() };
        self.show(&walk.from);
        let mut known: Vec<PeerId> = Vec::new();
        loop {
            let done = tokio::select! {
                () = self.stop.notified() => return,
                order = self.orders.recv() => match order {
                    Some(order) => self.walk_now(order).await,
                    None => return,
                },
                () = self.view_changed.notified(), if self.interval.is_some() => self.on_view_changed(&mut known, &mut walk).await,
                () = at(walk.next) => self.go_on(&mut walk).await,
            };
            if done.is_err() {
                return;
            }
        }
    }

    /// Compares the next slice; at the end of the keyspace the walk begins anew.
    async fn go_on(&self, walk: &mut Walk) -> Result<(), Gone> {
        if walk.from == Position::default() {
            walk.heard = Some(self.peers.store.clock().unix_millis());
        }
        let Repaired { next, is_heard } =
            TraceContext::carry_out("repair", self.peers.repair_slice(walk.from, None, &mut walk.report))
                .await?;
        walk.heard = walk.heard.filter(|_| is_heard);
        walk.from = next.unwrap_or_default();
        self.show(&walk.from);
        if let Err(error) = self.peers.store.set_mark(CURSOR, &walk.from) {
            tracing::warn!(%error, "how far the repair is cannot be kept");
        }
        let slices = self.peers.slices().await;
        walk.next = self.after_pause(slices);
        if next.is_none() {
            self.peers.note_online(walk.heard.take());
            self.tell(std::mem::take(&mut walk.report));
        }
        Ok(())
    }

    /// Walks over everything without pauses, for somebody who waits for it.
    async fn walk_now(&self, order: Order) -> Result<(), Gone> {
        let (store, mut report) = (self.peers.store.clone(), RepairReport::default());
        // What has come before counts, though it may still wait for the disk.
        if let Some(Err(error)) = blocking(move || store.flush()).await {
            tracing::warn!(%error, "cannot write what waits");
        }
        self.walk_over(None, &mut report).await?;
        self.tell(report);
        // Whoever has gone away needs no answer.
        let _ = order.send(report);
        Ok(())
    }

    /// Compares everything with peers that have appeared, and everything sooner if some have gone.
    async fn on_view_changed(&self, known: &mut Vec<PeerId>, walk: &mut Walk) -> Result<(), Gone> {
        tokio::select! {
            () = self.stop.notified() => return Err(Gone),
            () = tokio::time::sleep(SETTLING_TIME) => {}
        }
        let peers = self.peers.view().await?.peers();
        let new: Vec<PeerId> = peers.iter().copied().filter(|peer| !known.contains(peer)).collect();
        if known.iter().any(|peer| !peers.contains(peer)) {
            walk.next = walk.next.min(self.after_pause(HURRY));
        }
        *known = peers;
        if new.is_empty() { Ok(()) } else { self.walk_over(Some(&new), &mut walk.report).await }
    }

    async fn walk_over(&self, only: Option<&[PeerId]>, report: &mut RepairReport) -> Result<(), Gone> {
        let mut from = Position::default();
        let mut heard = Some(self.peers.store.clock().unix_millis());
        loop {
            let Repaired { next, is_heard } =
                TraceContext::carry_out("repair", self.peers.repair_slice(from, only, report)).await?;
            heard = heard.filter(|_| is_heard);
            let Some(next) = next else {
                self.peers.note_online(heard);
                return Ok(());
            };
            from = next;
        }
    }

    /// Has the metrics say how far the walk is.
    fn show(&self, from: &Position) {
        let part = from.first_chunk().map_or(0, |first| u16::from_be_bytes(*first).into());
        self.meters.repair_position.set(part);
    }

    /// Returns when the next of `slices` is due, about.
    fn after_pause(&self, slices: u32) -> Option<Instant> {
        let jitter = RandomState::new().hash_one(slices) % u64::from(2 * JITTER_PERCENT + 1);
        let percent = 100 - JITTER_PERCENT + u32::try_from(jitter).unwrap_or(JITTER_PERCENT);
        self.interval.map(|interval| Instant::now() + interval / slices.max(1) * percent / 100)
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
        // Without subscribers there is nobody to miss it.
        let _ = self.events.send(NetabaseSwarmEvent::Repaired(report));
    }
}

#[cfg(test)]
mod tests {
    use netabase_store::{StorageBackend, StoreOptions};

    use super::*;

    #[tokio::test]
    async fn the_position_is_that_of_the_walk_as_long_as_there_is_one() {
        let options = StoreOptions { backend: StorageBackend::Memory, ..StoreOptions::default() };
        let store = NetabaseStore::open_with("", None, options).unwrap();
        store.set_mark(CURSOR, &[0x40; 32]).unwrap();
        let ((sender, _commands), (_orders, orders)) = (mpsc::channel(1), mpsc::channel(1));
        let (meters, stop) = (Arc::<Meters>::default(), Arc::<Notify>::default());
        let repairer = Repairer {
            peers: Peers {
                store,
                commands: sender.downgrade(),
                max_frame_bytes: 1 << 20,
                republish_interval: Duration::from_secs(1),
            },
            interval: Some(Duration::from_secs(24 * 60 * 60)),
            view_changed: Arc::default(),
            stop: Arc::clone(&stop),
            orders,
            events: broadcast::channel(1).0,
            meters: Arc::clone(&meters),
        };
        let running = tokio::spawn(repairer.run());
        // It goes on from its mark before it waits for anything.
        tokio::task::yield_now().await;
        assert_eq!(meters.repair_position.get(), 0x4040);
        stop.notify_one();
        running.await.unwrap();
        assert_eq!(meters.repair_position.get(), 0);
    }
}
