//! A wrapper of identify that bounds how often a peer may identify itself.
//!
//! Each time costs every behaviour of the node a look at the peer's addresses and protocols. Of
//! what comes too fast, the last one is kept until its turn, so that this node knows what a peer
//! has become.

use std::collections::HashMap;
use std::pin::Pin;
use std::task::{Context, Poll};

use libp2p::PeerId;
use libp2p::identify;
use libp2p::swarm::behaviour::ConnectionClosed;
use libp2p::swarm::{ConnectionId, FromSwarm, NetworkBehaviour, THandlerInEvent, THandlerOutEvent, ToSwarm};

use crate::connection::delegate::{delegate_established, delegate_pending};
use crate::connection::limits::{IDENTIFY_BURST, IDENTIFY_PER_SECOND};
use crate::connection::processor::Processor;
use crate::platform::{self, Sleep, sleep};
use crate::rpc::token_bucket::TokenBucket;

/// The behaviour of identify.
#[expect(unnameable_types, reason = "a part of the public behaviour that nobody needs to name")]
pub struct Behaviour {
    identify: identify::Behaviour,
    rates: HashMap<ConnectionId, Rate>,
    processor: Processor,
    /// The time at which something that was kept has its turn, if anything was.
    next_turn: Option<Pin<Box<Sleep>>>,
}

/// What a connection may still do.
struct Rate {
    peer: PeerId,
    allowed: TokenBucket,
    /// The last event that came too fast.
    kept: Option<THandlerOutEvent<identify::Behaviour>>,
}

impl std::fmt::Debug for Behaviour {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Behaviour").finish_non_exhaustive()
    }
}

impl Behaviour {
    pub(crate) fn new(identify: identify::Behaviour, processor: Processor) -> Self {
        Self { identify, rates: HashMap::new(), processor, next_turn: None }
    }

    fn take(&mut self, peer: PeerId, connection: ConnectionId, event: THandlerOutEvent<identify::Behaviour>) {
        let Self { identify, processor, .. } = self;
        processor.time(peer, || identify.on_connection_handler_event(peer, connection, event));
    }

    /// Takes what has its turn now.
    fn take_kept(&mut self) {
        let now = platform::now();
        let is_due = |rate: &mut Rate| rate.kept.is_some() && rate.allowed.take(1.0, now);
        let due = self.rates.iter_mut().filter_map(|(connection, rate)| {
            if is_due(rate) { Some((rate.peer, *connection, rate.kept.take()?)) } else { None }
        });
        for (peer, connection, event) in due.collect::<Vec<_>>() {
            self.take(peer, connection, event);
        }
        let waits = self.rates.values_mut().filter(|rate| rate.kept.is_some());
        let wait = waits.map(|rate| rate.allowed.time_until(1.0, now)).min();
        self.next_turn = wait.map(|wait| Box::pin(sleep(wait)));
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = <identify::Behaviour as NetworkBehaviour>::ConnectionHandler;
    type ToSwarm = identify::Event;

    delegate_pending!(identify);
    delegate_established!(identify);

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        if let FromSwarm::ConnectionClosed(ConnectionClosed { connection_id, .. }) = &event {
            self.rates.remove(connection_id);
        }
        self.identify.on_swarm_event(event);
    }

    fn on_connection_handler_event(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        let now = platform::now();
        let allowed = || TokenBucket::new(IDENTIFY_PER_SECOND, IDENTIFY_BURST, now);
        let rate =
            self.rates.entry(connection).or_insert_with(|| Rate { peer, allowed: allowed(), kept: None });
        if rate.allowed.take(1.0, now) {
            rate.kept = None;
            return self.take(peer, connection, event);
        }
        rate.kept = Some(event);
        let wait = rate.allowed.time_until(1.0, now);
        self.next_turn.get_or_insert_with(|| Box::pin(sleep(wait)));
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        while let Some(turn) = &mut self.next_turn
            && turn.as_mut().poll(context).is_ready()
        {
            self.take_kept();
        }
        self.identify.poll(context)
    }
}
