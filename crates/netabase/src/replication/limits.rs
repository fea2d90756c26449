//! The limits of republishing and advertising.

use std::time::Duration;

use crate::query::limits::{LOOKUP_ANSWERS, LOOKUP_TIMEOUT};

/// The most values of a secondary key that are advertised one by one. A holder of more advertises
/// only that.
pub(crate) const MAX_ADVERTISED_VALUES: usize = 1024;
/// The most keys that one node advertises, a quarter of those that other nodes keep of one peer.
pub(crate) const MAX_ADVERTISED_KEYS: usize = 2048;
/// The time between two comparisons of held and advertised keys, if there were writes.
pub(crate) const ADVERTISE_TICK: Duration = Duration::from_secs(5);
/// The factor of the comparison's duration for which it rests.
pub(crate) const ADVERTISE_REST: u32 = 20;
/// The most keys that are advertised per tick, each to 20 peers.
pub(crate) const KEYS_PER_TICK: usize = 16;
/// The most keys per tick that are advertised for the first time while others are due again.
pub(crate) const NEW_KEYS_PER_TICK: usize = KEYS_PER_TICK / 4 * 3;
/// The most concurrent advertisements.
pub(crate) const ADVERTISE_CONCURRENCY: usize = 4;
/// The timeout of reading a list of providers, which tells whether the list is full.
pub(crate) const LIST_TIMEOUT: Duration = LOOKUP_TIMEOUT;
/// The most unread answers from peers that were asked for a list.
pub(crate) const LIST_ANSWERS: usize = LOOKUP_ANSWERS;

/// The most records that are published in one batch.
pub(crate) const REPUBLISH_BATCH: usize = 256;
/// The most concurrent publications of a batch.
pub(crate) const REPUBLISH_CONCURRENCY: usize = 8;
/// The pause between batches, so that a long schedule does not crowd out other work.
pub(crate) const REPUBLISH_PAUSE: Duration = Duration::from_secs(1);
/// The time between two checks for due publications while nothing happens.
pub(crate) const REPUBLISH_TICK: Duration = Duration::from_secs(10);
/// The time after which a version that no peer accepted is due again.
pub(crate) const REPUBLISH_RETRY: Duration = Duration::from_secs(60);
/// The jitter of the republish interval, in percent, so that records that were written together are
/// not republished together for ever.
pub(crate) const REPUBLISH_JITTER_PERCENT: u32 = 10;

const _: () = assert!(MAX_ADVERTISED_VALUES < MAX_ADVERTISED_KEYS);
const _: () = assert!(NEW_KEYS_PER_TICK < KEYS_PER_TICK && ADVERTISE_CONCURRENCY <= KEYS_PER_TICK);
const _: () = assert!(REPUBLISH_CONCURRENCY <= REPUBLISH_BATCH);
const _: () = assert!(REPUBLISH_PAUSE.as_secs() < REPUBLISH_TICK.as_secs());
const _: () = assert!(REPUBLISH_TICK.as_secs() < REPUBLISH_RETRY.as_secs());
