//! What it takes to find out how two sets of a million differ.
//!
//! Each of both has half of the differences, at random places. Messages go from one to the other as
//! they are, in frames of [`FRAME_BYTES`] at most: `bytes` are those of all messages, a `round
//! trip` is a message and its answer. `sets ready` is the time until both sets can be compared, of
//! `negentropy` that of building them from items that are in memory, and `time` is that and the
//! comparison. Nothing waits for a network.

use std::time::{Duration, Instant};

use anyhow::ensure;

use tempfile::TempDir;

use self::ours::{Ours, Stores};
use self::plain::Plain;
use super::{Effort, NEGENTROPY, OURS, millis};
use crate::{Measurement, Table};

mod ours;
mod plain;

const FRAME_BYTES: usize = 1 << 20;
/// How many more round trips nobody should need.
const MOST_ROUND_TRIPS: u64 = 1000;
/// The cases, with how many differences there are.
pub(super) const CASES: [(&str, u64); 3] =
    [("0 differences", 0), ("100 differences", 100), ("10000 differences", 10_000)];

/// When something was written, and its hash.
type Item = (u64, [u8; 32]);

/// One side of a comparison.
trait Side {
    /// Returns the first message.
    fn initiate(&mut self) -> anyhow::Result<Vec<u8>>;
    /// Answers a message.
    fn respond(&mut self, message: &[u8]) -> anyhow::Result<Vec<u8>>;
    /// Takes an answer; returns what to ask next, if anything.
    fn take(&mut self, answer: &[u8]) -> anyhow::Result<Option<Vec<u8>>>;
    /// Returns how many items only this side has, and how many only the other.
    fn found(&self) -> (usize, usize);
}

/// What a comparison has cost.
#[derive(Debug, Default, Clone, Copy)]
struct Cost {
    bytes: usize,
    round_trips: u64,
    ready: Duration,
    all: Duration,
}

/// Measures each case once.
pub(super) fn measure(effort: &Effort<'_>, table: &mut Table) -> anyhow::Result<()> {
    let directory = TempDir::new_in(effort.directory)?;
    let mut stores = Stores::fill(directory.path(), effort.items)?;
    for (case, differences) in CASES.into_iter().filter(|(_, differences)| *differences <= effort.items) {
        let alone = usize::try_from(differences / 2)?;
        stores.differ(differences / 2)?;
        let [here, there] = stores.items()?;
        let cost = compare(|| Ok((Plain::build(&here)?, Plain::build(&there)?)), alone)?;
        add(table, case, NEGENTROPY, &cost, effort.items)?;
        let cost = compare(|| Ok((Ours::of(&stores.here)?, Ours::of(&stores.there)?)), alone)?;
        add(table, case, OURS, &cost, effort.items)?;
    }
    Ok(())
}

fn add(
    table: &mut Table,
    case: &'static str,
    system: &'static str,
    cost: &Cost,
    n: u64,
) -> anyhow::Result<()> {
    let n = usize::try_from(n)?;
    let mut add = |metric, value, unit| table.add(Measurement { case, system, metric, value, unit, n });
    add("bytes", f64::from(u32::try_from(cost.bytes)?), "bytes");
    add("round trips", f64::from(u32::try_from(cost.round_trips)?), "messages");
    add("sets ready", millis(cost.ready), "ms");
    add("time", millis(cost.all), "ms");
    Ok(())
}

/// Compares two sides, each of which has `alone` items that the other has not.
fn compare<S: Side>(sides: impl FnOnce() -> anyhow::Result<(S, S)>, alone: usize) -> anyhow::Result<Cost> {
    let start = Instant::now();
    let (mut here, mut there) = sides()?;
    let mut cost = Cost { ready: start.elapsed(), ..Cost::default() };
    let mut next = Some(here.initiate()?);
    while let Some(message) = next {
        ensure!(cost.round_trips < MOST_ROUND_TRIPS, "the sides talk for ever");
        let answer = there.respond(&message)?;
        ensure!(message.len().max(answer.len()) <= FRAME_BYTES, "a message does not fit into its frame");
        cost.bytes += message.len() + answer.len();
        cost.round_trips += 1;
        next = here.take(&answer)?;
    }
    cost.all = start.elapsed();
    ensure!(here.found() == (alone, alone), "{:?} of {alone} differences on each side", here.found());
    Ok(cost)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dice::Dice;

    /// How many records are written in a millisecond.
    const PER_MILLISECOND: u64 = 25;

    #[test]
    fn every_difference_is_found() {
        for differences in [0, 2, 300] {
            let (here, there) = items(5000, differences);
            assert_eq!((here.len(), there.len()), (5000, 5000));
            let sides = || Ok((Plain::build(&here)?, Plain::build(&there)?));
            let cost = compare(sides, usize::try_from(differences / 2).unwrap()).unwrap();
            assert!(cost.round_trips > 0 && cost.bytes > 0);
        }
    }

    #[test]
    fn a_difference_too_many_is_noticed() {
        let (here, there) = items(5000, 2);
        assert!(compare(|| Ok((Plain::build(&here)?, Plain::build(&there)?)), 2).is_err());
    }

    /// Makes two sets of `count` items of which each has half of the differences for itself.
    fn items(count: u64, differences: u64) -> (Vec<Item>, Vec<Item>) {
        let mut dice = Dice::new(&[count, differences]);
        let alone = usize::try_from(differences / 2).unwrap_or(usize::MAX);
        let common = count - differences / 2;
        let mut here: Vec<Item> =
            (0..common).map(|serial| (serial / PER_MILLISECOND, id(&mut dice))).collect();
        let mut there = here.clone();
        for side in [&mut here, &mut there] {
            let more = (0..alone).map(|_| (dice.below(common.max(1)) / PER_MILLISECOND, id(&mut dice)));
            side.extend(more.collect::<Vec<_>>());
        }
        (here, there)
    }

    fn id(dice: &mut Dice) -> [u8; 32] {
        let mut id = [0; 32];
        for eight in id.chunks_exact_mut(8) {
            eight.copy_from_slice(&dice.next().to_le_bytes());
        }
        id
    }
}
