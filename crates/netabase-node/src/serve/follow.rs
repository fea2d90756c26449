//! The events that a node prints and logs.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::io::{self, Write};
use std::time::{Duration, Instant};

use netabase::libp2p::multiaddr::Protocol;
use netabase::netabase_store::text;
use netabase::{EventError, Events, NetabaseSwarmEvent, PeerId, RecordKey, Refusal};

/// The most peers whose failed dials are remembered.
const MAX_FAILED: usize = 1024;

/// Prints and logs events until the node ends.
pub(super) async fn follow(events: &mut Events, local: PeerId) {
    let mut failed = HashSet::new();
    let mut refusals = Refusals::default();
    loop {
        match events.recv().await {
            // An unreachable peer is dialled repeatedly and logged once.
            Ok(NetabaseSwarmEvent::OutgoingConnectionError { peer: Some(peer), cause }) => {
                if failed.len() >= MAX_FAILED {
                    failed.clear();
                }
                if failed.insert(peer) {
                    tracing::info!(%peer, %cause, "cannot connect; will try again");
                } else {
                    tracing::debug!(%peer, %cause, "cannot connect");
                }
            }
            Ok(event @ NetabaseSwarmEvent::ConnectionEstablished { peer, .. }) => {
                failed.remove(&peer);
                log(&event);
            }
            Ok(NetabaseSwarmEvent::NewListenAddress(address)) => {
                print("address", address.with(Protocol::P2p(local)));
            }
            Ok(NetabaseSwarmEvent::RecordRefused { peer, key, reason }) => {
                refusals.log(peer, key.as_ref(), reason, Instant::now());
            }
            Ok(event) => log(&event),
            Err(EventError::Lagged { missed }) => tracing::warn!(missed, "too many events to log them all"),
            Err(EventError::Closed) => return,
        }
    }
}

fn log(event: &NetabaseSwarmEvent) {
    match event {
        NetabaseSwarmEvent::Record(record) => {
            // A log line for every stored record would be as long as the database.
            tracing::debug!(kind = ?record.kind(), key = %record.key(), origin = ?record.origin(), "record");
        }
        NetabaseSwarmEvent::MembersChanged(list) => {
            tracing::info!(members = list.members().len(), signed = ?list.timestamp(), "members");
        }
        // Logged where it was detected.
        NetabaseSwarmEvent::OtherRoot(_) => {}
        NetabaseSwarmEvent::ConnectionEstablished { peer, address, connections: 1, .. } => {
            tracing::info!(%peer, %address, "connected");
        }
        NetabaseSwarmEvent::ConnectionClosed { peer, connections: 0, cause, .. } => {
            let cause = cause.as_deref().unwrap_or("closed");
            tracing::info!(%peer, cause, "disconnected");
        }
        NetabaseSwarmEvent::ListenerClosed { addresses, cause: Some(cause) } => {
            tracing::warn!(?addresses, %cause, "stopped listening");
        }
        event => tracing::trace!(?event, "event"),
    }
}

/// The interval at which refusals for the same reason are logged.
const REFUSALS_INTERVAL: Duration = Duration::from_secs(60);

/// The time of the last log line for each reason, and the number of refusals since then.
#[derive(Debug, Default)]
struct Refusals(HashMap<Refusal, (Instant, u64)>);

impl Refusals {
    /// Logs the first refusal for a reason, and then one a minute, since a peer could fill the disk
    /// with log lines otherwise.
    fn log(&mut self, peer: Option<PeerId>, key: Option<&RecordKey>, reason: Refusal, now: Instant) {
        let (peer, key) = (peer.map(tracing::field::display), key.map(tracing::field::display));
        match self.count(reason, now) {
            Some(0) => tracing::warn!(peer, key, %reason, "a record was refused"),
            Some(others) => tracing::warn!(peer, key, %reason, others, "records were refused"),
            None => tracing::debug!(peer, key, %reason, "a record was refused"),
        }
    }

    /// Counts a refusal. Returns the number of refusals that were not logged if this one is to be
    /// logged.
    fn count(&mut self, reason: Refusal, now: Instant) -> Option<u64> {
        match self.0.entry(reason) {
            Entry::Vacant(new) => {
                new.insert((now, 0));
                Some(0)
            }
            Entry::Occupied(mut known) => {
                let (told, others) = known.get_mut();
                if now.saturating_duration_since(*told) < REFUSALS_INTERVAL {
                    *others += 1;
                    return None;
                }
                *told = now;
                Some(std::mem::take(others))
            }
        }
    }
}

/// Prints a line for scripts, and ignores errors such as a closed pipe.
pub(super) fn print(what: &str, value: impl std::fmt::Display) {
    let mut out = io::stdout().lock();
    let line = format!("{what} {value}");
    let _ = writeln!(out, "{}", text::line(&line)).and_then(|()| out.flush());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_told_once_a_minute_with_how_often_it_came() {
        let (mut refusals, begin) = (Refusals::default(), Instant::now());
        let mut count = |reason, seconds| refusals.count(reason, begin + Duration::from_secs(seconds));
        assert_eq!(count(Refusal::InvalidSignature, 0), Some(0));
        assert_eq!([1, 2, 59].map(|seconds| count(Refusal::InvalidSignature, seconds)), [None; 3]);
        assert_eq!(count(Refusal::Full, 30), Some(0));
        assert_eq!(count(Refusal::InvalidSignature, 60), Some(3));
        assert_eq!(count(Refusal::InvalidSignature, 121), Some(0));
    }
}
