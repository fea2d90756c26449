//! The choice of packages for the steps.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};

use crate::models::Package;

/// The most packages that are read one by one in a step.
const MAX_READS: usize = 100;

/// Random packages for the steps, each of them for one step.
#[derive(Debug)]
pub(super) struct Plan {
    /// The package that gets a new version.
    pub(super) changed: Package,
    /// The package that is removed.
    pub(super) removed: Package,
    /// The packages that are read while all peers run.
    pub(super) fetched: Vec<Package>,
    /// The packages that are read when the peer that imported them has stopped.
    pub(super) survivors: Vec<Package>,
}

impl Plan {
    /// Chooses packages, or returns `None` if there are too few.
    pub(super) fn new(packages: &[Package]) -> Option<Self> {
        let random = RandomState::new();
        let mut shuffled: Vec<&Package> = packages.iter().collect();
        shuffled.sort_by_cached_key(|package| random.hash_one(&package.name));
        let mut chosen = shuffled.into_iter().cloned();
        let (changed, removed) = (chosen.next()?, chosen.next()?);
        let reads = MAX_READS.min(chosen.len() / 2);
        let fetched = chosen.by_ref().take(reads).collect();
        let survivors = chosen.take(reads).collect();
        Some(Self { changed, removed, fetched, survivors })
    }
}

/// Returns the section with the most packages, and its packages in the order of their names.
pub(super) fn largest_section(packages: &[Package]) -> Option<(&str, Vec<&Package>)> {
    let mut sections: BTreeMap<&str, Vec<&Package>> = BTreeMap::new();
    for package in packages {
        sections.entry(&package.section).or_default().push(package);
    }
    let (section, mut members) = sections.into_iter().max_by_key(|(_, members)| members.len())?;
    members.sort_by(|a, b| a.name.cmp(&b.name));
    Some((section, members))
}
