//! A Kademlia node as small as libp2p allows: no disk, no signatures, and no task between the
//! caller and the swarm.

use std::collections::HashSet;
use std::ops::Range;

use anyhow::{Context, ensure};
use futures::StreamExt;
use libp2p::identity::Keypair;
use libp2p::kad::store::{MemoryStore, MemoryStoreConfig, RecordStore};
use libp2p::kad::{self, GetRecordOk, Mode, QueryId, QueryResult, Quorum, Record};
use libp2p::multiaddr::Protocol;
use libp2p::swarm::{NetworkBehaviour, SwarmEvent};
use libp2p::{Multiaddr, StreamProtocol, Swarm, SwarmBuilder, identify, noise, tcp, yamux};

use super::model::encoded;

const KAD_PROTOCOL: StreamProtocol = StreamProtocol::new("/bare/kad/1.0.0");
const IDENTIFY_PROTOCOL: &str = "/bare/id/1.0.0";
const MAX_PACKET_BYTES: usize = 2 * 1024 * 1024;
const MAX_RECORDS: usize = 2_000_000;

#[derive(NetworkBehaviour)]
struct Behaviour {
    kad: kad::Behaviour<MemoryStore>,
    identify: identify::Behaviour,
}

pub(crate) struct Bare {
    swarm: Swarm<Behaviour>,
}

impl Bare {
    pub(super) async fn start(mode: Mode, stored: Range<u64>) -> anyhow::Result<Self> {
        let swarm = SwarmBuilder::with_new_identity()
            .with_tokio()
            .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)?
            .with_behaviour(|keypair| Behaviour::new(keypair, mode))?
            .build();
        let mut bare = Self { swarm };
        for id in stored {
            let record = record(id)?;
            bare.kad().store_mut().put(record)?;
        }
        bare.swarm.listen_on("/ip4/127.0.0.1/tcp/0".parse()?)?;
        while bare.swarm.listeners().next().is_none() {
            bare.next().await;
        }
        Ok(bare)
    }

    pub(super) fn address(&self) -> anyhow::Result<Multiaddr> {
        let address = self.swarm.listeners().next().cloned().context("it does not listen")?;
        Ok(address.with(Protocol::P2p(*self.swarm.local_peer_id())))
    }

    pub(super) async fn connect(&mut self, mut address: Multiaddr) -> anyhow::Result<()> {
        self.swarm.dial(address.clone())?;
        let Some(Protocol::P2p(peer)) = address.pop() else { anyhow::bail!("the address has no peer") };
        self.kad().add_address(&peer, address);
        loop {
            if let SwarmEvent::Behaviour(BehaviourEvent::Identify(identify::Event::Received { .. })) =
                self.next().await
            {
                return Ok(());
            }
        }
    }

    pub(super) async fn put(&mut self, id: u64) -> anyhow::Result<()> {
        let query = self.start_put(id)?;
        while self.next_put().await? != query {}
        Ok(())
    }

    pub(super) async fn put_all(&mut self, mut ids: Range<u64>, callers: u64) -> anyhow::Result<()> {
        let mut under_way = HashSet::new();
        for id in ids.by_ref().take(usize::try_from(callers)?) {
            under_way.insert(self.start_put(id)?);
        }
        while !under_way.is_empty() {
            let ended = self.next_put().await?;
            if under_way.remove(&ended)
                && let Some(id) = ids.next()
            {
                under_way.insert(self.start_put(id)?);
            }
        }
        Ok(())
    }

    fn start_put(&mut self, id: u64) -> anyhow::Result<QueryId> {
        Ok(self.kad().put_record(record(id)?, Quorum::One)?)
    }

    /// Waits for the next put that a peer has accepted.
    async fn next_put(&mut self) -> anyhow::Result<QueryId> {
        loop {
            let (query, result) = self.next_result().await;
            if let QueryResult::PutRecord(result) = result {
                result?;
                return Ok(query);
            }
        }
    }

    pub(super) fn ensure_absent(&mut self, id: u64) -> anyhow::Result<()> {
        let key = record(id)?.key;
        ensure!(self.kad().store_mut().get(&key).is_none(), "record {id} is here already");
        Ok(())
    }

    pub(super) async fn get(&mut self, id: u64) -> anyhow::Result<()> {
        let wanted = record(id)?;
        let query = self.kad().get_record(wanted.key);
        loop {
            let (answered, result) = self.next_result().await;
            if let QueryResult::GetRecord(result) = result
                && answered == query
            {
                let GetRecordOk::FoundRecord(found) = result? else { anyhow::bail!("not found") };
                ensure!(found.record.value == wanted.value, "another value came for {id}");
                if let Some(mut query) = self.kad().query_mut(&query) {
                    query.finish();
                }
                return Ok(());
            }
        }
    }

    pub(super) async fn serve(&mut self) {
        loop {
            self.next().await;
        }
    }

    fn kad(&mut self) -> &mut kad::Behaviour<MemoryStore> {
        &mut self.swarm.behaviour_mut().kad
    }

    async fn next_result(&mut self) -> (QueryId, QueryResult) {
        loop {
            if let SwarmEvent::Behaviour(BehaviourEvent::Kad(kad::Event::OutboundQueryProgressed {
                id,
                result,
                ..
            })) = self.next().await
            {
                return (id, result);
            }
        }
    }

    /// Waits for the next event; peers that speak our protocol enter the routing table.
    async fn next(&mut self) -> SwarmEvent<BehaviourEvent> {
        let event = self.swarm.select_next_some().await;
        if let SwarmEvent::Behaviour(BehaviourEvent::Identify(identify::Event::Received {
            peer_id,
            info,
            ..
        })) = &event
            && info.protocols.contains(&KAD_PROTOCOL)
        {
            for address in &info.listen_addrs {
                self.kad().add_address(peer_id, address.clone());
            }
        }
        event
    }
}

impl Behaviour {
    /// Has the settings of a Netabase's Kademlia, as far as there is a counterpart.
    fn new(keypair: &Keypair, mode: Mode) -> Self {
        let peer = keypair.public().to_peer_id();
        let store = MemoryStoreConfig { max_records: MAX_RECORDS, ..MemoryStoreConfig::default() };
        let mut config = kad::Config::new(KAD_PROTOCOL);
        config
            .set_record_ttl(None)
            .set_replication_interval(None)
            .set_publication_interval(None)
            .set_provider_publication_interval(None)
            .set_record_filtering(kad::StoreInserts::Unfiltered)
            .set_kbucket_inserts(kad::BucketInserts::Manual)
            .set_max_packet_size(MAX_PACKET_BYTES);
        let mut kad = kad::Behaviour::with_config(peer, MemoryStore::with_config(peer, store), config);
        kad.set_mode(Some(mode));
        let identify = identify::Config::new(IDENTIFY_PROTOCOL.into(), keypair.public())
            .with_push_listen_addr_updates(true);
        Self { kad, identify: identify::Behaviour::new(identify) }
    }
}

fn record(id: u64) -> anyhow::Result<Record> {
    let (key, value) = encoded(id)?;
    Ok(Record::new(key, value))
}
