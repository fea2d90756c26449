//! Rounds of repair: every node walks over what it holds, once.

use futures::{StreamExt, TryStreamExt, stream};
use netabase::health::RepairReport;

use super::network::{Network, Node};

/// How many nodes repair at a time: in earnest, each begins at another time of the interval.
const REPAIRING: usize = 4;

/// What repairing has done, all nodes together.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Work {
    pub(super) messages: u64,
    /// Each counted once, at the node that asked.
    pub(super) bytes: u64,
    pub(super) comparisons: u64,
    /// Comparisons that found no difference.
    pub(super) equal: u64,
    /// Copies that were made.
    pub(super) made: u64,
    pub(super) released: u64,
    pub(super) unreachable: u64,
}

impl Work {
    fn add(self, report: &RepairReport) -> Self {
        Self {
            messages: self.messages + report.messages,
            bytes: self.bytes + report.bytes_sent + report.bytes_received,
            comparisons: self.comparisons + report.comparisons,
            equal: self.equal + report.equal,
            made: self.made + report.sent + report.received,
            released: self.released + report.released,
            unreachable: self.unreachable + report.unreachable,
        }
    }
}

/// Lets every node walk over everything that it holds.
pub(super) async fn repair_round(network: &Network) -> anyhow::Result<Work> {
    let repairs = stream::iter(&network.nodes)
        .map(|node: &Node| async move { anyhow::Ok(node.netabase.repair().await?) })
        .buffer_unordered(REPAIRING);
    repairs.try_fold(Work::default(), |work, report| async move { Ok(work.add(&report)) }).await
}
