//! Multicast DNS on the local network: the peers that it has reported, queries, and another running
//! node with this node's identity.

use crate::config::MDNSDiscoveryConfig;
use crate::mdns::peers::LocalPeers;
use crate::mdns::query::Answers;
use crate::mdns::twins::LocalTwins;

#[cfg_attr(
    all(target_family = "wasm", target_os = "unknown"),
    expect(dead_code, reason = "there is no multicast to tell of peers")
)]
pub(crate) mod limits;
#[cfg_attr(
    all(target_family = "wasm", target_os = "unknown"),
    expect(dead_code, reason = "there is no multicast to tell of peers")
)]
pub(crate) mod peers;
#[cfg_attr(all(target_family = "wasm", target_os = "unknown"), path = "mdns/query/browser.rs")]
pub(crate) mod query;
pub(crate) mod twins;

pub(crate) use query::{Behaviour, behaviour};

/// The event loop's state of mDNS.
#[derive(Debug)]
pub(crate) struct Mdns {
    /// The peers that mDNS has reported.
    pub(crate) peers: LocalPeers,
    /// Other nodes with this node's identity, which the swarm does not report.
    pub(crate) twins: LocalTwins,
}

impl Mdns {
    /// Listens to mDNS answers, if this node uses mDNS.
    pub(crate) fn new(config: &MDNSDiscoveryConfig) -> Self {
        let answers = config.enabled.then(|| Answers::open(config.enable_ipv6));
        let failed = |error: &_| tracing::debug!(%error, "cannot receive mDNS answers");
        let answers = answers.and_then(|answers| answers.inspect_err(failed).ok());
        Self { peers: LocalPeers::default(), twins: LocalTwins::new(answers) }
    }
}
