//! The limits of republishing and advertising.

use std::time::Duration;

use crate::query::limits::{LOOKUP_ANSWERS, LOOKUP_TIMEOUT};

/// The most values of a secondary key that are said one by one. A holder of more says only that.
pub(crate) const MAX_ADVERTISED_VALUES: usize = 1024;
/// The most keys that one node says in all, a quarter of what others keep of one peer.
pub(crate) const MAX_ADVERTISED_KEYS: usize = 2048;
/// How often what is held is compared with what was said, if anything was written.
pub(crate) const ADVERTISE_TICK: Duration = Duration::from_secs(5);
/// How many times as long as the comparison has taken it rests.
pub(crate) const ADVERTISE_REST: u32 = 20;
/// How many keys are said per tick, each of which is told to 20 peers.
pub(crate) const KEYS_PER_TICK: usize = 16;
/// How many of them may be said for the first time while others are to be said again.
pub(crate) const NEW_KEYS_PER_TICK: usize = KEYS_PER_TICK / 4 * 3;
/// How many of them are under way at a time.
pub(crate) const ADVERTISE_CONCURRENCY: usize = 4;
/// How long reading a list of providers may take, to see whether it is full.
pub(crate) const LIST_TIMEOUT: Duration = LOOKUP_TIMEOUT;
/// How many answers wait to be read, from peers that were asked for a list.
pub(crate) const LIST_ANSWERS: usize = LOOKUP_ANSWERS;

/// The most records that are published in one batch.
pub(crate) const REPUBLISH_BATCH: usize = 256;
/// How many of them are under way at a time.
pub(crate) const REPUBLISH_CONCURRENCY: usize = 8;
/// How long to wait between batches, so that a long schedule does not crowd out everything else.
pub(crate) const REPUBLISH_PAUSE: Duration = Duration::from_secs(1);
/// How often to look for what is due while nothing happens.
pub(crate) const REPUBLISH_TICK: Duration = Duration::from_secs(10);
/// How soon a version that no peer accepted is due again.
pub(crate) const REPUBLISH_RETRY: Duration = Duration::from_secs(60);
/// How far the time to the next publication strays from the interval, in percent, so that what was
/// written together is not published together for ever.
pub(crate) const REPUBLISH_JITTER_PERCENT: u32 = 10;

const _: () = assert!(MAX_ADVERTISED_VALUES < MAX_ADVERTISED_KEYS);
const _: () = assert!(NEW_KEYS_PER_TICK < KEYS_PER_TICK && ADVERTISE_CONCURRENCY <= KEYS_PER_TICK);
const _: () = assert!(REPUBLISH_CONCURRENCY <= REPUBLISH_BATCH);
const _: () = assert!(REPUBLISH_PAUSE.as_secs() < REPUBLISH_TICK.as_secs());
const _: () = assert!(REPUBLISH_TICK.as_secs() < REPUBLISH_RETRY.as_secs());
