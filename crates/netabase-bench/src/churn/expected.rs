//! What would become of the records if nothing repaired them.
//!
//! The textbook says that a record with K copies is lost with probability churn^K. Two things make
//! the real number another one: records have more or fewer copies than K, since its author keeps
//! one too, and a lookup asks the K closest nodes only, so that K newcomers who are closer hide a
//! copy that is still there. Both follow from who has what and where everybody is. The rest is
//! chance: which nodes go, and where the new ones are. It is drawn many times here, for mean and
//! deviation; records share nodes and are not independent, so that no formula gives the deviation.

use super::keyspace::{Position, by_distance};
use crate::dice::Dice;

/// How often chance is drawn.
const DRAWS: u64 = 300;

/// One node as a record sees it.
#[derive(Debug, Clone, Copy)]
struct Neighbour {
    node: usize,
    distance: u128,
    holds: bool,
}

/// A record and all nodes, the closest first.
#[derive(Debug)]
pub(super) struct Surroundings {
    position: Position,
    neighbours: Vec<Neighbour>,
    replication: usize,
}

impl Surroundings {
    pub(super) fn new(
        position: Position,
        nodes: &[Position],
        replication: usize,
        holds: impl Fn(usize) -> bool,
    ) -> Self {
        let neighbour = |node: usize| {
            let distance = nodes.get(node).map_or(u128::MAX, |place| place.distance(position));
            Neighbour { node, distance, holds: holds(node) }
        };
        let neighbours = by_distance(position, nodes).into_iter().map(neighbour).collect();
        Self { position, neighbours, replication }
    }

    /// Returns the nodes that have a copy because they are among the closest.
    pub(super) fn replicas(&self) -> impl Iterator<Item = usize> {
        let closest = self.neighbours.iter().take(self.replication);
        closest.filter(|neighbour| neighbour.holds).map(|neighbour| neighbour.node)
    }

    /// Whether any replica stays.
    fn survives(&self, gone: &[bool]) -> bool {
        self.replicas().any(|node| stays(node, gone))
    }

    /// Whether any of the closest nodes that are left or new is a holder.
    fn is_found(&self, gone: &[bool], newcomers: &[Position]) -> bool {
        let mut left = self.neighbours.iter().filter(|neighbour| stays(neighbour.node, gone));
        let mut closer = 0;
        let holder = left.find(|neighbour| {
            closer += usize::from(!neighbour.holds);
            neighbour.holds
        });
        let Some(holder) = holder.filter(|_| closer < self.replication) else { return false };
        let nearer = |new: &&Position| new.distance(self.position) < holder.distance;
        closer + newcomers.iter().filter(nearer).count() < self.replication
    }
}

fn stays(node: usize, gone: &[bool]) -> bool {
    !gone.get(node).copied().unwrap_or(false)
}

/// A number that depends on chance.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Chance {
    pub(super) mean: f64,
    pub(super) deviation: f64,
}

impl Chance {
    fn of(draws: &[f64]) -> Self {
        let n = count(draws.len());
        let mean = draws.iter().sum::<f64>() / n;
        let squares: f64 = draws.iter().map(|draw| (draw - mean).powi(2)).sum();
        Self { mean, deviation: (squares / n).sqrt() }
    }

    /// Returns how many deviations a result is from the mean; half a record counts as one at least.
    pub(super) fn deviations(self, result: f64) -> f64 {
        (result - self.mean).abs() / self.deviation.max(0.5)
    }
}

/// Of how many records a replica should survive a replacement, and how many a lookup should find.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Expectation {
    pub(super) survive: Chance,
    pub(super) found: Chance,
}

/// Draws what becomes of records when `replaced` of `nodes` nodes go and as many come.
pub(super) fn expect(
    records: &[Surroundings],
    nodes: usize,
    replaced: usize,
    dice: &mut Dice,
) -> Expectation {
    let (mut survive, mut found) = (Vec::new(), Vec::new());
    for _ in 0..DRAWS {
        let mut gone = vec![false; nodes];
        for node in dice.sample(replaced, nodes) {
            if let Some(gone) = gone.get_mut(node) {
                *gone = true;
            }
        }
        let newcomers: Vec<Position> = (0..replaced).map(|_| position(dice)).collect();
        survive.push(count(records.iter().filter(|record| record.survives(&gone)).count()));
        let is_found = |record: &&Surroundings| record.is_found(&gone, &newcomers);
        found.push(count(records.iter().filter(is_found).count()));
    }
    Expectation { survive: Chance::of(&survive), found: Chance::of(&found) }
}

fn position(dice: &mut Dice) -> Position {
    Position(u128::from(dice.next()) << 64 | u128::from(dice.next()))
}

/// Returns the share of records that the textbook expects to survive.
pub(super) fn textbook(churn: f64, replication: usize) -> f64 {
    1.0 - churn.powi(i32::try_from(replication).unwrap_or(i32::MAX))
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
pub(super) fn count(number: usize) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Records whose closest nodes hold them.
    fn surroundings(records: usize, nodes: usize, copies: usize) -> Vec<Surroundings> {
        let mut dice = Dice::new(&[1]);
        let nodes: Vec<Position> = (0..nodes).map(|_| position(&mut dice)).collect();
        let record = |_| {
            let place = position(&mut dice);
            let holders = by_distance(place, &nodes)[..copies].to_vec();
            Surroundings::new(place, &nodes, copies, |node| holders.contains(&node))
        };
        (0..records).map(record).collect()
    }

    #[test]
    fn as_many_copies_as_replicas_survive_as_the_textbook_says() {
        let records = surroundings(2000, 200, 3);
        let expected = expect(&records, 200, 60, &mut Dice::new(&[2]));
        let share = expected.survive.mean / 2000.0;
        assert!((share - textbook(0.3, 3)).abs() < 0.005, "{share}");
    }

    #[test]
    fn newcomers_hide_about_as_many_records_as_are_lost() {
        let records = surroundings(2000, 200, 3);
        let expected = expect(&records, 200, 60, &mut Dice::new(&[2]));
        let (lost, hidden) = (2000.0 - expected.survive.mean, 2000.0 - expected.found.mean);
        assert!((1.7..2.3).contains(&(hidden / lost)), "{expected:?}");
    }

    #[test]
    fn nothing_is_lost_if_nothing_is_replaced() {
        let expected = expect(&surroundings(50, 20, 2), 20, 0, &mut Dice::new(&[3]));
        let all = Chance { mean: 50.0, deviation: 0.0 };
        assert_eq!(expected, Expectation { survive: all, found: all });
    }

    #[test]
    fn everything_is_lost_if_everybody_is_replaced() {
        let expected = expect(&surroundings(50, 20, 2), 20, 20, &mut Dice::new(&[3]));
        assert_eq!(expected.survive, Chance { mean: 0.0, deviation: 0.0 });
        assert_eq!(format!("{}", expected.survive.deviations(1.0)), "2");
    }

    #[test]
    fn a_copy_that_is_far_away_is_no_replica_and_is_not_found() {
        let nodes: Vec<Position> = (1..=5).map(|place| Position(place << 64)).collect();
        let record = |replication| Surroundings::new(Position(0), &nodes, replication, |node| node == 4);
        assert!(!record(4).survives(&[false; 5]) && record(5).survives(&[false; 5]));
        assert!(!record(4).is_found(&[false; 5], &[]));
        assert!(record(5).is_found(&[false; 5], &[]));
        assert!(!record(5).is_found(&[false; 5], &[Position(1)]));
        assert!(record(4).is_found(&[true, false, false, false, false], &[]));
    }
}
