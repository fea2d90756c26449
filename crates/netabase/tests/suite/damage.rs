//! Records that a disk has damaged are served by peers, and whole again here.

use std::path::{Path, PathBuf};

use netabase::health::ReadSource;
use netabase::netabase_store::admin::DamageError;
use netabase::{
    DHTDiscoveryConfig, GetOptions, Keypair, NetabaseConfig, StorageBackend, StoreError, StoreOptions,
};
use netabase_store::admin::{CheckOptions, Problem};

use crate::common::*;

/// What is looked for in the file.
const THEIRS: &str = "a text of somebody else that is damaged on the disk";
const OURS: &str = "a text of this node's own that is damaged on the disk";

/// A node on disk, and a peer that has the same records.
struct Pair {
    peer: Notes,
    identity: Keypair,
    path: PathBuf,
    _directory: tempfile::TempDir,
}

impl Pair {
    /// A node that has a record of the peer's and one of its own, which the peer has as well.
    async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let peer = started(quiet()).await;
        let path = directory.path().join("notes.redb");
        let pair = Self { peer, identity: Keypair::generate_ed25519(), path, _directory: directory };
        let node = pair.open().await;
        for (author, note) in [(&pair.peer, note(1, THEIRS)), (&node, note(2, OURS))] {
            let outcome = author.put_record(note).await.unwrap();
            assert_eq!(outcome.accepted.len(), 1);
        }
        node.store().flush().unwrap();
        node.stop_swarm().await.unwrap();
        drop(node);
        pair
    }

    fn config(&self) -> NetabaseConfig {
        NetabaseConfig {
            store: StoreOptions { backend: StorageBackend::Redb, ..quiet().store },
            database_path: Some(self.path.clone()),
            identity: Some(self.identity.clone()),
            ..quiet()
        }
    }

    async fn open(&self) -> Notes {
        let mut config = self.config();
        config.dht.bootstrap_peers = vec![full_address(&self.peer)];
        let node = started(config).await;
        knows_peers(&node, 1).await;
        knows_peers(&self.peer, 1).await;
        node
    }
}

/// Nothing is compared but when a test says so.
fn quiet() -> NetabaseConfig {
    let dht = DHTDiscoveryConfig { repair_interval: None, ..DHTDiscoveryConfig::default() };
    NetabaseConfig { dht, ..memory_config() }
}

/// Flips a bit of a text wherever it is in a file.
fn damage(path: &Path, text: &str) {
    let mut bytes = std::fs::read(path).unwrap();
    let places: Vec<_> = bytes
        .windows(text.len())
        .enumerate()
        .filter(|(_, window)| *window == text.as_bytes())
        .map(|(place, _)| place)
        .collect();
    assert!(!places.is_empty(), "{text:?} is in the file");
    for place in places {
        bytes[place + 3] ^= 1;
    }
    std::fs::write(path, bytes).unwrap();
}

/// Returns how many records a check finds damaged, and repairs them if it is told to.
fn damaged_records(node: &Notes, repair: bool) -> usize {
    let report = node.store().check(CheckOptions { repair, ..CheckOptions::default() }).unwrap();
    let is_record = |problem: &&Problem| matches!(problem, Problem::DamagedEntry { table, .. } if table.starts_with("records/"));
    report.problems.iter().chain(&report.repaired).filter(is_record).count()
}

fn read(node: &Notes, id: u64) -> Result<Option<Note>, StoreError> {
    node.store().open_tree::<Note>().unwrap().get(&NotePrimaryKey(id))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_get_of_a_damaged_record_returns_a_peers_copy_and_keeps_it() {
    let pair = Pair::start().await;
    damage(&pair.path, THEIRS);
    damage(&pair.path, OURS);
    let node = pair.open().await;
    assert_eq!(damaged_records(&node, false), 2);
    for (id, text) in [(1, THEIRS), (2, OURS)] {
        assert!(
            matches!(read(&node, id), Err(StoreError::Damage(DamageError::Entry { .. }))),
            "{:?}",
            read(&node, id)
        );
        let outcome = node.get_record_with(NotePrimaryKey(id), GetOptions::default()).await.unwrap();
        assert_eq!(outcome.record, Some(note(id, text)));
        assert_eq!(outcome.source, Some(ReadSource::Peer(pair.peer.local_peer_id())));
        node.store().flush().unwrap();
        assert_eq!(read(&node, id).unwrap(), Some(note(id, text)), "it is whole here");
    }
    assert_eq!(damaged_records(&node, false), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_check_has_removed_as_damaged_comes_with_the_repair() {
    let pair = Pair::start().await;
    damage(&pair.path, THEIRS);
    damage(&pair.path, OURS);
    let node = pair.open().await;
    assert_eq!(damaged_records(&node, true), 2);
    let report = within_deadline("the repair", node.repair()).await.unwrap();
    node.store().flush().unwrap();
    for (id, text) in [(1, THEIRS), (2, OURS)] {
        assert_eq!(read(&node, id).unwrap(), Some(note(id, text)), "{report:?}");
    }
    assert_eq!((report.received, damaged_records(&node, false)), (2, 0), "{report:?}");
}
