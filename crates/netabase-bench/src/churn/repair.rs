//! Waiting for the network to repair itself.

use super::network::Network;

/// What repairing has cost.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Traffic {
    pub(super) messages: u64,
    pub(super) bytes: u64,
}

/// Returns when every node has been through one round of repair that began after the call, with what
/// all of them have sent for it.
///
/// Nodes do not repair anything by themselves yet, so there is nothing to wait for.
pub(super) async fn repair_round(_network: &Network) -> anyhow::Result<Traffic> {
    Ok(Traffic::default())
}
