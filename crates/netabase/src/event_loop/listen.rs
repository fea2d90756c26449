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
        let failed = |source| NetabaseError::Listen { address: address.clone(), source: Arc::new(source) };
        check_free(address).map_err(failed)?;
        swarm.listen_on(address.clone()).map_err(|error| failed(cause(error)))
    };
    addresses.iter().map(listen).collect()
}

/// Returns the operating system's error.
fn cause(error: TransportError<io::Error>) -> io::Error {
    match error {
        TransportError::MultiaddrNotSupported(_) => {
            io::Error::new(io::ErrorKind::Unsupported, "no transport for such an address")
        }
        TransportError::Other(error) => error,
    }
}
