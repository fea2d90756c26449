//! The steps of the demonstration, each of which checks its own answer.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use netabase::{NetabaseError, PeerId, StorageBackend, WriteOutcome};
use tokio::task::JoinSet;

use super::input::Input;
use super::peer::{Node, Peer, learns_of, loses, wait_until};
use super::plan::{Plan, largest_section};

use super::report::{Outcome, Report, millis};
use crate::models::{Package, PackageSectionSecondaryKey};
use crate::progress;

/// The most puts in progress at a time.
const PUTS_IN_FLIGHT: usize = 64;
/// The most reads in progress at a time.
const READS_IN_FLIGHT: usize = 16;
/// The number of failed puts after which the import gives up.
const MAX_FAILED_PUTS: usize = 64;
/// The deadline of the import.
const IMPORT_DEADLINE: Duration = Duration::from_secs(30 * 60);
/// The deadline of any other step.
const STEP_DEADLINE: Duration = Duration::from_secs(120);
/// The suffix of the version of the changed package.
const CHANGE: &str = "+netabase1";

/// The three peers of the demonstration.
#[derive(Debug)]
pub(super) struct Demonstration {
    first: Peer,
    second: Peer,
    third: Peer,
    packages: Vec<Package>,
    plan: Plan,
}

impl Demonstration {
    pub(super) fn new(backend: StorageBackend, input: Input) -> anyhow::Result<Self> {
        let packages = input.packages;
        Ok(Self {
            first: Peer::new("peer 1", backend)?,
            second: Peer::new("peer 2", backend)?,
            third: Peer::new("peer 3", backend)?,
            plan: Plan::new(&packages).context("there are too few packages")?,
            packages,
        })
    }

    /// Runs every step, also after one has failed.
    pub(super) async fn run(&mut self, report: &mut Report) {
        report.step("meet", STEP_DEADLINE, self.meet()).await;
        report.step("import", IMPORT_DEADLINE, Box::pin(self.import())).await;
        report.step("question", STEP_DEADLINE, self.question()).await;
        report.step("join", STEP_DEADLINE, self.join()).await;
        report.step("fetch", STEP_DEADLINE, Box::pin(self.fetch())).await;
        report.step("outage", STEP_DEADLINE, Box::pin(self.outage())).await;
        report.step("agree", STEP_DEADLINE, self.agree()).await;
        report.step("return", STEP_DEADLINE, self.come_back()).await;
        report.name_peers([&self.first, &self.second, &self.third].map(Peer::id).into_iter().flatten());
    }

    /// Peers 1 and 3 find each other.
    async fn meet(&mut self) -> anyhow::Result<Outcome> {
        self.first.open(Vec::new())?;
        let mut first = self.first.start().await?;
        self.third.open(self.first.addresses()?)?;
        let mut third = self.third.start().await?;
        learns_of(&mut first, &[self.third.id()?]).await?;
        learns_of(&mut third, &[self.first.id()?]).await?;
        Ok(Outcome { count: 2, detail: "peers 1 and 3 found each other over loopback sockets".into() })
    }

    /// Peer 1 imports everything, and peer 3 accepts a copy of each package.
    async fn import(&mut self) -> anyhow::Result<Outcome> {
        let start = Instant::now();
        let node = self.first.node()?;
        let bar = progress::bar("import", to_u64(self.packages.len()));
        let mut tally = Tally::new(self.third.id().ok());
        let puts = self.packages.iter().cloned().map(|package| {
            let node = node.clone();
            async move { node.put_record(package).await }
        });
        each(puts, PUTS_IN_FLIGHT, |put| {
            bar.inc(1);
            tally.add(put)
        })
        .await?;
        tally.check()?;
        self.import_outcome(start.elapsed())
    }

    fn import_outcome(&self, time: Duration) -> anyhow::Result<Outcome> {
        let count = self.packages.len();
        let kept = self.first.packages()?.len()?;
        ensure!(usize::try_from(kept) == Ok(count), "peer 1 keeps {kept} of {count} packages");
        let rate = f64::from(u32::try_from(count)?) / time.as_secs_f64();
        let detail = format!("peer 1 put every package and peer 3 accepted a copy, {rate:.0} per second");
        Ok(Outcome { count, detail })
    }

    /// Peer 3 lists a section from its own replica.
    async fn question(&mut self) -> anyhow::Result<Outcome> {
        let expected = u64::try_from(self.packages.len())?;
        let mut events = self.third.node()?.subscribe_to_broadcasts();
        let replica = self.third.packages()?;
        let complete = async || Ok(replica.len()? == expected);
        wait_until(&mut events, complete).await.context("the replica at peer 3 is not complete")?;

        let (section, members) = largest_section(&self.packages).context("there are no sections")?;
        let start = Instant::now();
        let found = replica.find(PackageSectionSecondaryKey(section.to_owned()))?;
        let time = millis(start.elapsed());
        let (count, wanted) = (found.len(), members.len());
        ensure!(found.iter().eq(members), "peer 3 found {count} packages in `{section}`, not those {wanted}");
        let detail =
            format!("peer 3 found section `{section}` in its own replica by secondary key, in {time} ms");
        Ok(Outcome { count, detail })
    }

    /// Peer 2 joins late, and knows only the address of peer 1.
    async fn join(&mut self) -> anyhow::Result<Outcome> {
        let mut first = self.first.node()?.subscribe_to_broadcasts();
        let mut third = self.third.node()?.subscribe_to_broadcasts();
        self.second.open(self.first.addresses()?)?;
        ensure!(self.second.packages()?.is_empty()?, "the new database of peer 2 is not empty");
        let mut second = self.second.start().await?;
        learns_of(&mut second, &[self.first.id()?, self.third.id()?]).await?;
        learns_of(&mut first, &[self.second.id()?]).await?;
        learns_of(&mut third, &[self.second.id()?]).await?;
        let detail = "peer 2 joined with an empty database through peer 1; all three know each other";
        Ok(Outcome { count: 3, detail: detail.into() })
    }

    /// Peer 2 gets packages from the network.
    async fn fetch(&mut self) -> anyhow::Result<Outcome> {
        let times = self.read_at_second(&self.plan.fetched).await?;
        let detail = format!("peer 2 got packages by name that it did not have, field for field, {times}");
        Ok(Outcome { count: self.plan.fetched.len(), detail })
    }

    /// Peer 1 has stopped, and peer 2 still gets other packages.
    async fn outage(&mut self) -> anyhow::Result<Outcome> {
        let gone = self.first.id()?;
        self.first.stop().await?;
        loses(self.second.node()?, gone).await?;
        loses(self.third.node()?, gone).await?;
        let times = self.read_at_second(&self.plan.survivors).await?;
        let detail = format!("peer 1 was stopped; peer 2 got other packages from peer 3, {times}");
        Ok(Outcome { count: self.plan.survivors.len(), detail })
    }

    /// Reads packages that peer 2 does not have, and returns the time that each took.
    async fn read_at_second(&self, packages: &[Package]) -> anyhow::Result<String> {
        let (node, own) = (self.second.node()?, self.second.packages()?);
        for package in packages {
            ensure!(!own.contains(&package.key())?, "peer 2 has {} already", package.name);
        }
        let bar = progress::bar("get", to_u64(packages.len()));
        let mut times = Vec::with_capacity(packages.len());
        let reads = packages.iter().cloned().map(|package| read(node.clone(), package));
        each(reads, READS_IN_FLIGHT, |time| {
            bar.inc(1);
            times.push(time?);
            Ok(())
        })
        .await?;
        times.sort();
        let [median, longest] =
            [times.get(times.len() / 2), times.last()].map(|time| time.copied().map(millis));
        let (median, longest) = (median.unwrap_or_default(), longest.unwrap_or_default());
        Ok(format!("median {median} ms, longest {longest} ms"))
    }

    /// Peer 2 changes a package, peer 3 removes another one, and each sees the other's change.
    async fn agree(&mut self) -> anyhow::Result<Outcome> {
        let (changed, removed) = (self.changed(), self.plan.removed.key());
        let put = self.second.node()?.put_record(changed.clone()).await?;
        ensure!(put.accepted.contains(&self.third.id()?), "peer 3 did not accept the change");
        let removal = self.third.node()?.remove_record(removed.clone()).await?;
        let removal = removal.context("peer 3 had nothing to remove")?;
        ensure!(removal.accepted.contains(&self.second.id()?), "peer 2 did not accept the removal");
        for peer in [&self.second, &self.third] {
            peer.agrees(changed.key(), Some(&changed)).await?;
            peer.agrees(removed.clone(), None).await?;
        }
        let detail = "peer 2 changed a package, peer 3 removed another; both agree on both";
        Ok(Outcome { count: 2, detail: detail.into() })
    }

    /// Peer 1 starts again with its former database and learns of the changes by asking.
    async fn come_back(&mut self) -> anyhow::Result<Outcome> {
        let (changed, removed) = (self.changed(), &self.plan.removed);
        self.first.open(self.third.addresses()?)?;
        let own = self.first.packages()?;
        ensure!(own.get(&changed.key())?.as_ref() == Some(&self.plan.changed), "peer 1 lost a package");
        ensure!(own.get(&removed.key())?.as_ref() == Some(removed), "peer 1 lost a package");

        let mut events = self.first.start().await?;
        learns_of(&mut events, &[self.second.id()?, self.third.id()?]).await?;
        self.first.agrees(changed.key(), Some(&changed)).await?;
        self.first.agrees(removed.key(), None).await?;
        let detail =
            "peer 1 was started again with outdated copies; fetch_record asked the others and updated both";
        Ok(Outcome { count: 2, detail: detail.into() })
    }

    fn changed(&self) -> Package {
        let package = self.plan.changed.clone();
        Package { version: format!("{}{CHANGE}", package.version), ..package }
    }

    /// Returns the three nodes, which all run unless a step has failed.
    pub(super) fn nodes(&self) -> anyhow::Result<Vec<netabase::Node>> {
        let peers = [&self.first, &self.second, &self.third].into_iter();
        peers.map(|peer| Ok(peer.node()?.node().clone())).collect()
    }

    /// Stops the peers that are still running.
    pub(super) async fn stop(&mut self) {
        for peer in [&mut self.first, &mut self.second, &mut self.third] {
            if tokio::time::timeout(STEP_DEADLINE, peer.stop()).await.is_err() {
                tracing::warn!("a peer does not stop");
            }
        }
    }
}

/// Gets a package and compares every field. Returns the time that the get took.
async fn read(node: Node, package: Package) -> anyhow::Result<Duration> {
    let (name, start) = (&package.name, Instant::now());
    let found = node.get_record(package.key()).await.with_context(|| format!("no answer for {name}"))?;
    ensure!(found.is_some(), "{name} was not found");
    ensure!(found.as_ref() == Some(&package), "{name} was found with other fields");
    Ok(start.elapsed())
}

/// Runs all of `work`, at most `limit` at a time, and passes each result to `done`. An error ends
/// it.
async fn each<T: Send + 'static>(
    work: impl Iterator<Item = impl Future<Output = T> + Send + 'static>,
    limit: usize,
    mut done: impl FnMut(T) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut running = JoinSet::new();
    for future in work {
        if running.len() >= limit
            && let Some(result) = running.join_next().await
        {
            done(result?)?;
        }
        running.spawn(future);
    }
    while let Some(result) = running.join_next().await {
        done(result?)?;
    }
    Ok(())
}

/// The outcome of the puts of an import.
#[derive(Debug)]
struct Tally {
    /// The peer that must have accepted each package.
    replica: Option<PeerId>,
    /// The number of packages that this peer did not accept.
    unaccepted: usize,
    failed: usize,
    first_error: Option<NetabaseError>,
}

impl Tally {
    fn new(replica: Option<PeerId>) -> Self {
        Self { replica, unaccepted: 0, failed: 0, first_error: None }
    }

    fn add(&mut self, put: Result<WriteOutcome, NetabaseError>) -> anyhow::Result<()> {
        match put {
            Ok(outcome) => {
                let accepted = self.replica.is_some_and(|replica| outcome.accepted.contains(&replica));
                self.unaccepted += usize::from(!accepted);
            }
            Err(error) => {
                self.failed += 1;
                self.first_error.get_or_insert(error);
            }
        }
        if self.failed < MAX_FAILED_PUTS { Ok(()) } else { self.check() }
    }

    fn check(&self) -> anyhow::Result<()> {
        if let Some(error) = self.first_error.clone() {
            return Err(error).with_context(|| format!("{} packages were not put", self.failed));
        }
        ensure!(self.unaccepted == 0, "peer 3 did not accept {} packages", self.unaccepted);
        Ok(())
    }
}

fn to_u64(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}
