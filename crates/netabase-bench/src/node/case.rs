//! The cases.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use libp2p::kad::Mode;
use tokio::time::{sleep, timeout};

use super::model::WARM_UP;
use super::peer::Peer;
use super::system::{Node, System};
use crate::{Latencies, Measurement};

/// How many callers there are where there are many.
pub(super) const CALLERS: u64 = 64;
/// How many records are moved before the clock runs.
const WARM_UP_RECORDS: u64 = 50;
/// How many records arrive for each one of the other cases.
const INGEST: u64 = 10;
/// How long two nodes have to find each other.
const MEETING: Duration = Duration::from_secs(10);

/// What a case is given.
pub(crate) struct Setup {
    pub(crate) system: System,
    pub(crate) directory: PathBuf,
    pub(crate) records: u64,
}

impl Setup {
    async fn node(&self, mode: Mode, peer: &Peer) -> anyhow::Result<Node> {
        let mut node = Node::start(self.system, mode, &self.directory, 0..0).await?;
        timeout(MEETING, node.connect(peer.address.clone())).await.context("the peer is not there")??;
        Ok(node)
    }

    fn measurement(
        &self,
        case: &'static str,
        metric: &'static str,
        value: f64,
        unit: &'static str,
        n: u64,
    ) -> Measurement {
        let n = usize::try_from(n).unwrap_or(usize::MAX);
        Measurement { case, system: self.system.name(), metric, value, unit, n }
    }
}

pub(super) async fn put(setup: &Setup) -> anyhow::Result<Vec<Measurement>> {
    let peer = Peer::start(setup, 0).await?;
    let mut node = setup.node(Mode::Server, &peer).await?;
    wait_for_peer(&mut node).await?;
    node.put_all(WARM_UP..WARM_UP + WARM_UP_RECORDS, 1).await?;
    let mut puts = Latencies::default();
    for id in 0..setup.records {
        let start = Instant::now();
        node.put(id).await?;
        puts.push(start.elapsed());
    }
    peer.end().await?;
    Ok(latencies("put", setup, puts, &["p50", "p99"]))
}

/// The measuring node is no server, so that the peer never sends it a record by itself.
pub(super) async fn get(setup: &Setup) -> anyhow::Result<Vec<Measurement>> {
    let peer = Peer::start(setup, WARM_UP_RECORDS + setup.records).await?;
    let mut node = setup.node(Mode::Client, &peer).await?;
    let mut ids = WARM_UP..WARM_UP + WARM_UP_RECORDS + setup.records;
    for id in ids.by_ref().take(usize::try_from(WARM_UP_RECORDS)?) {
        node.get(id).await?;
    }
    let mut gets = Latencies::default();
    for id in ids {
        node.ensure_absent(id)?;
        let start = Instant::now();
        node.get(id).await?;
        gets.push(start.elapsed());
    }
    peer.end().await?;
    Ok(latencies("get", setup, gets, &["p50", "p99"]))
}

pub(super) async fn put_64_callers(setup: &Setup) -> anyhow::Result<Vec<Measurement>> {
    let peer = Peer::start(setup, 0).await?;
    let mut node = setup.node(Mode::Server, &peer).await?;
    wait_for_peer(&mut node).await?;
    node.put_all(WARM_UP..WARM_UP + WARM_UP_RECORDS, CALLERS).await?;
    let records = setup.records;
    let start = Instant::now();
    node.put_all(0..records, 1).await?;
    let one = per_second(records, start.elapsed());
    // As many for each caller would take long; enough that every caller has its share.
    let many_records = records.max(CALLERS) * 4;
    let start = Instant::now();
    node.put_all(records..records + many_records, CALLERS).await?;
    let many = per_second(many_records, start.elapsed());
    peer.end().await?;
    let case = "put_64_callers";
    Ok(vec![
        setup.measurement(case, "1 caller", one, "puts/s", records),
        setup.measurement(case, "64 callers", many, "puts/s", many_records),
        setup.measurement(case, "64 to 1", many / one, "times", records + many_records),
    ])
}

pub(super) async fn loop_delay_ingest(setup: &Setup) -> anyhow::Result<Vec<Measurement>> {
    let mut peer = Peer::start(setup, 0).await?;
    let mut node = setup.node(Mode::Server, &peer).await?;
    wait_for_peer(&mut node).await?;
    let Node::Ours(node) = node else { anyhow::bail!("only a netabase has an event loop to ask") };
    let records = setup.records * INGEST;
    let (mut put, start) = (Ok(()), Instant::now());
    let probes = node.probe(async { put = peer.put(records).await }).await?;
    put?;
    let rate = per_second(records, start.elapsed());
    let arrived = node.count_stored(records).await?;
    ensure!(arrived == usize::try_from(records)?, "{arrived} of {records} records have arrived");
    peer.end().await?;
    let mut measurements = latencies("loop_delay_ingest", setup, probes, &["p50", "p99", "max"]);
    measurements.push(setup.measurement("loop_delay_ingest", "arriving", rate, "puts/s", records));
    Ok(measurements)
}

/// Puts a record until the peer accepts it, which it does once both have identified each other.
pub(crate) async fn wait_for_peer(node: &mut Node) -> anyhow::Result<()> {
    const PAUSE: Duration = Duration::from_millis(10);
    let accepted = async {
        while node.put(WARM_UP).await.is_err() {
            sleep(PAUSE).await;
        }
    };
    timeout(MEETING, accepted).await.context("the peer accepts nothing")
}

/// Makes a measurement of each percentile that `metrics` names.
pub(super) fn latencies(
    case: &'static str,
    setup: &Setup,
    mut latencies: Latencies,
    metrics: &[&'static str],
) -> Vec<Measurement> {
    let n = u64::try_from(latencies.len()).unwrap_or(u64::MAX);
    let mut value = |metric: &str| match metric {
        "p50" => latencies.percentile(50),
        "p99" => latencies.percentile(99),
        _ => latencies.percentile(100),
    };
    metrics.iter().map(|metric| setup.measurement(case, metric, value(metric), "us", n)).collect()
}

fn per_second(records: u64, time: Duration) -> f64 {
    u32::try_from(records).map_or(f64::INFINITY, f64::from) / time.as_secs_f64()
}
