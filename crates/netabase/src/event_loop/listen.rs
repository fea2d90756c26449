//! The listen addresses of a node.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;

use libp2p::core::transport::ListenerId;
use libp2p::{Multiaddr, Swarm, TransportError};
use parking_lot::RwLock;

use crate::error::NetabaseError;
use crate::event_loop::behaviour::NetabaseBehaviour;
use crate::event_loop::command::Reply;
use crate::event_loop::transport::check_free;

/// The state of the listeners.
#[derive(Debug)]
pub(crate) struct Listening {
    /// The addresses, which the handle reads.
    pub(crate) addresses: Arc<RwLock<Vec<Multiaddr>>>,
    /// The listeners that the start waits for, and the caller.
    pub(crate) starting: Option<(HashSet<ListenerId>, Reply<()>)>,
    /// Whether addresses of this machine have appeared or disappeared in the last second: several
    /// change together.
    pub(crate) interfaces_changed: bool,
}

impl Listening {
    pub(crate) fn new(
        addresses: Arc<RwLock<Vec<Multiaddr>>>,
        listeners: HashSet<ListenerId>,
        ready: Reply<()>,
    ) -> Self {
        Self { addresses, starting: Some((listeners, ready)), interfaces_changed: false }
    }
}

/// Listens on every address; fails if one cannot be used.
pub(crate) fn listen(
    swarm: &mut Swarm<NetabaseBehaviour>,
    addresses: &[Multiaddr],
) -> Result<HashSet<ListenerId>, NetabaseError> {
    let listen = |address: &Multiaddr| {
        let failed = |reason| NetabaseError::Listen { address: address.clone(), reason };
        check_free(address).map_err(|error| failed(error.to_string()))?;
        swarm.listen_on(address.clone()).map_err(|error| failed(reason(&error)))
    };
    addresses.iter().map(listen).collect()
}

/// Returns the reason of a failure with the operating system's error, which libp2p's own text
/// omits.
fn reason(error: &TransportError<io::Error>) -> String {
    match error {
        TransportError::MultiaddrNotSupported(_) => "no transport for such an address".into(),
        TransportError::Other(error) => error.to_string(),
    }
}
