//! A connection, as those see it who ask.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use libp2p::{Multiaddr, PeerId};

/// A connection, as [`Node::connections`](crate::Node::connections) tells it.
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
    /// The peer at the other end.
    pub peer: PeerId,
    /// The address that it was reached at, or came from.
    pub address: Multiaddr,
    /// Whether this node dialled.
    pub outgoing: bool,
    /// When it was established.
    pub since: SystemTime,
    /// What the peer says that it is, the first 128 bytes of it; none before it has said so. It may
    /// say anything.
    pub agent: Option<Arc<str>>,
    /// How long it took to answer a ping last; none before it has.
    pub round_trip: Option<Duration>,
}
