//! mDNS queries in a browser, which has no multicast: they do nothing.

use std::io::{self, ErrorKind};

use libp2p::Multiaddr;
use libp2p::identity::Keypair;
use libp2p::swarm::behaviour::toggle::Toggle;
use libp2p::swarm::dummy;

use crate::config::MDNSDiscoveryConfig;
use crate::error::NetabaseError;

pub(crate) type Behaviour = Toggle<dummy::Behaviour>;

pub(crate) fn behaviour(_: &Keypair, _: &MDNSDiscoveryConfig) -> Result<Behaviour, NetabaseError> {
    Ok(Toggle::from(None))
}

/// Answers, which do not exist in a browser.
#[derive(Debug)]
pub(crate) enum Answers {}

impl Answers {
    pub(crate) fn open(_: bool) -> io::Result<Self> {
        Err(ErrorKind::Unsupported.into())
    }

    pub(crate) fn join(&self, _: &[Multiaddr]) {
        match *self {}
    }

    pub(crate) async fn next(&mut self) -> Vec<Multiaddr> {
        match *self {}
    }
}

pub(crate) fn ask(_: &[Multiaddr], _: bool) {}
