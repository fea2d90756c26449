//! The public description of a connection.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use libp2p::{Multiaddr, PeerId};

/// A connection, returned by [`Node::connections`](crate::Node::connections).
///
/// ```
/// # use netabase::{Netabase, NetabaseConfig, StoreOptions, netabase_definition_module};
/// # #[netabase_definition_module(ChatDefinition, ChatKeys)]
/// # mod chat {
/// #     use netabase::NetabaseModel;
/// #     use serde::{Deserialize, Serialize};
/// #     #[derive(NetabaseModel, Clone, Serialize, Deserialize)]
/// #     #[netabase(ChatDefinition)]
/// #     pub struct Message { #[primary_key] pub id: u64 }
/// # }
/// # use chat::*;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), netabase::NetabaseError> {
/// # let config = NetabaseConfig {
/// #     store: StoreOptions::in_memory(),
/// #     listen_addresses: vec!["/memory/0".parse().unwrap()],
/// #     mdns: netabase::MDNSDiscoveryConfig { enabled: false, ..Default::default() },
/// #     ..NetabaseConfig::default()
/// # };
/// let netabase = Netabase::<ChatDefinition>::new_with_config(config)?;
/// netabase.start_swarm().await?;
/// for connection in netabase.connections().await? {
///     let direction = if connection.outgoing { "to" } else { "from" };
///     println!("{direction} {} at {}, {:?} away", connection.peer, connection.address, connection.round_trip);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConnectionInfo {
    /// The peer.
    pub peer: PeerId,
    /// The address that this node dialled, or that the peer came from.
    pub address: Multiaddr,
    /// Whether this node dialled.
    pub outgoing: bool,
    /// The time at which it was established.
    pub since: SystemTime,
    /// The peer's agent, cut to 128 bytes, or `None` before the peer has sent one. It may have any
    /// content.
    pub agent: Option<Arc<str>>,
    /// The round trip time of the last ping, or `None` before the first.
    pub round_trip: Option<Duration>,
}
