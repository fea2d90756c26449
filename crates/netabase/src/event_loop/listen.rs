//! Where a node listens.

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

/// Where the node is heard, and who waits for that.
#[derive(Debug)]
pub(crate) struct Listening {
    /// The addresses, which the handle reads.
    pub(crate) addresses: Arc<RwLock<Vec<Multiaddr>>>,
    /// The listeners that the start waits for, and who waits.
    pub(crate) starting: Option<(HashSet<ListenerId>, Reply<()>)>,
    /// Whether addresses of this machine have come or gone in the last second: they come and go
    /// together.
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

/// Listens on every address; one that cannot be used is an error.
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

/// libp2p's own text leaves out what the operating system said.
fn reason(error: &TransportError<io::Error>) -> String {
    match error {
        TransportError::MultiaddrNotSupported(_) => "no transport for such an address".into(),
        TransportError::Other(error) => error.to_string(),
    }
}
