//! Large values between nodes: fetched from several holders, resumed, read in part, and what liars
//! get.

use std::fs;
use std::io::SeekFrom;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use std::future::IntoFuture;

use netabase::blob::{BlobError, BlobHolder, BlobStatus, HolderConduct};
use netabase::{
    Blob, Netabase, NetabaseConfig, NetabaseError, NetabaseSwarmEvent, PeerId, RecordKey, ReplicateOptions,
    Scope, StorageBackend, StoreOptions,
};
use tokio::io::{AsyncReadExt, AsyncSeekExt};

use crate::common::bare::{self, Reaction};
use crate::common::*;

const GROUP: usize = 16 * 1024;

fn value(size: usize) -> Vec<u8> {
    (0..size).map(|at| u8::try_from((at ^ (at >> 8) ^ (at >> 16)) % 251).unwrap()).collect()
}

fn of(holders: &[BlobHolder], peer: PeerId) -> &BlobHolder {
    holders.iter().find(|holder| holder.peer == peer).expect("the peer was asked")
}

/// A node in memory whose database, and with it its blobs, are on the disk.
fn disk_config(path: &Path, knowing: Option<&Notes>) -> NetabaseConfig {
    NetabaseConfig {
        store: StoreOptions { backend: StorageBackend::Redb, ..StoreOptions::default() },
        database_path: Some(path.to_owned()),
        ..knowing.map_or_else(memory_config, config_knowing)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_blob_added_at_one_node_is_fetched_at_another_and_named_by_its_hash() {
    let nodes = network(3).await;
    for size in [0, 1, GROUP - 1, GROUP, GROUP + 1, 3_000_000] {
        let value = value(size);
        let blob = nodes[0].blobs().add_bytes(value.clone()).await.unwrap();
        assert_eq!(blob, Blob::of(&value));
        assert!(!nodes[1].blobs().has(&blob));
        let outcome =
            within_deadline("the fetch", async { nodes[1].blobs().fetch(&blob).await }).await.unwrap();
        assert_eq!(outcome.fetched, blob.size, "{size} bytes");
        assert!(nodes[1].blobs().has(&blob));
        let mut read = Vec::new();
        nodes[1].blobs().open(&blob).unwrap().read_to_end(&mut read).await.unwrap();
        assert!(read == value, "{size} bytes");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_read_from_a_reader_and_from_a_file_is_the_same_blob() {
    let node = Notes::new_with_config(memory_config()).unwrap();
    let (value, directory) = (value(700_000), tempfile::tempdir().unwrap());
    fs::write(directory.path().join("file"), &value).unwrap();
    let from_file = node.blobs().add_file(directory.path().join("file")).await.unwrap();
    let from_reader = node.blobs().add_reader(&value[..]).await.unwrap();
    assert_eq!((from_file, from_reader), (Blob::of(&value), Blob::of(&value)));
    assert!(node.blobs().add_file(directory.path().join("nothing")).await.is_err());
    assert!(matches!(node.blobs().fetch(&Blob::of(b"elsewhere")).await, Err(NetabaseError::NotRunning)));
}

/// Three holders: one's file was tampered with by itself, one lies and one dies half-way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_blob_is_fetched_whole_though_one_holder_lies_and_another_dies() {
    let nodes = network(3).await;
    let (good, dying, asker) = (&nodes[0], &nodes[1], &nodes[2]);
    let value = value(24 * 1024 * 1024 + 5);
    let blob = good.blobs().add_bytes(value.clone()).await.unwrap();
    dying.blobs().add_bytes(value.clone()).await.unwrap();
    let liar = lying_peer(asker).await;

    let (stop, stopped) = tokio::sync::oneshot::channel();
    let mut stop = Some(stop);
    let progress = move |progress: netabase::blob::BlobProgress| {
        if progress.present > progress.size / 3 {
            stop.take().map(|stop| stop.send(()));
        }
    };
    let fetch = asker.blobs().fetch(&blob).from(liar).from(dying.local_peer_id()).progress(progress);
    let dies = async {
        stopped.await.unwrap();
        dying.stop_swarm().await.unwrap();
    };
    let (outcome, ()) = within_deadline("the fetch", async { tokio::join!(fetch.into_future(), dies) }).await;
    let outcome = outcome.unwrap();
    assert!(asker.blobs().store().read(&blob, 0..blob.size).unwrap() == value);
    assert_eq!(of(&outcome.holders, liar).conduct, HolderConduct::Corrupt);
    assert_eq!(of(&outcome.holders, liar).bytes, 0);
    assert!(of(&outcome.holders, dying.local_peer_id()).bytes > 0, "it died half-way");
    assert!(of(&outcome.holders, good.local_peer_id()).bytes > 0);
    let delivered: u64 = outcome.holders.iter().map(|holder| holder.bytes).sum();
    assert_eq!(delivered, blob.size);
    let report = asker.peer_report(liar).expect("the liar is known");
    assert!(report.refused.contains(&(netabase::Refusal::InvalidBlob, 1)), "{report:?}");
}

/// A peer of bare libp2p that says to have a blob, and sends bytes that are not of it.
async fn lying_peer(victim: &Notes) -> PeerId {
    answering_peer(victim, |request| {
        let mut slice = vec![2];
        slice.extend(vec![0x55; 64 + request.len() * 1000]);
        slice
    })
    .await
}

/// A peer that has a blob, as it says, and answers requests for parts of it with what `answer`
/// makes.
async fn answering_peer(
    victim: &Notes,
    mut answer: impl FnMut(Vec<u8>) -> Vec<u8> + Send + 'static,
) -> PeerId {
    let swarm = bare::blob_peer(victim).await;
    let peer = *swarm.local_peer_id();
    bare::react_to_blobs(swarm, move |request| match request.first() {
        Some(1) => Reaction::Answer(vec![1]),
        _ => Reaction::Answer(answer(request)),
    });
    peer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_holder_whose_file_was_tampered_with_sends_nothing_of_it() {
    let directory = tempfile::tempdir().unwrap();
    let asker = started(memory_config()).await;
    let (tampered, good) = (
        started(disk_config(&directory.path().join("tampered"), Some(&asker))).await,
        started(config_knowing(&asker)).await,
    );
    let value = value(40 * GROUP);
    let blob = tampered.blobs().add_bytes(value.clone()).await.unwrap();
    good.blobs().add_bytes(value.clone()).await.unwrap();
    let file = directory.path().join("tampered.blobs/added").join(blob.hash.to_string());
    let mut bytes = fs::read(&file).unwrap();
    bytes[5 * GROUP + 3] ^= 1;
    fs::write(&file, bytes).unwrap();
    knows_peers(&asker, 2).await;
    let holders = [tampered.local_peer_id(), good.local_peer_id()];
    let fetch = asker.blobs().fetch(&blob).from(holders[0]).from(holders[1]);
    let outcome = within_deadline("the fetch", fetch.into_future()).await.unwrap();
    assert!(asker.blobs().store().read(&blob, 0..blob.size).unwrap() == value);
    assert_ne!(of(&outcome.holders, holders[0]).conduct, HolderConduct::Corrupt, "it has checked itself");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fetch_goes_on_after_a_restart_and_asks_for_what_is_missing_alone() {
    let directory = tempfile::tempdir().unwrap();
    let holder = started(memory_config()).await;
    let value = value(200 * GROUP);
    let blob = holder.blobs().add_bytes(value.clone()).await.unwrap();
    let config = || disk_config(&directory.path().join("asker"), Some(&holder));
    let asker = started(config()).await;
    let part = 0..70 * Blob::GROUP_BYTES;
    let outcome =
        within_deadline("a part", asker.blobs().fetch(&blob).range(part.clone()).into_future()).await;
    assert_eq!(outcome.unwrap().fetched, part.end);
    assert_eq!(asker.blobs().store().status(&blob), BlobStatus::Partial { present: part.end });
    asker.stop_swarm().await.unwrap();
    drop(asker);

    let asker = started(config()).await;
    assert_eq!(asker.blobs().store().status(&blob), BlobStatus::Partial { present: part.end });
    let outcome = within_deadline("the rest", asker.blobs().fetch(&blob).into_future()).await.unwrap();
    assert_eq!(outcome.fetched, blob.size - part.end);
    let delivered: u64 = outcome.holders.iter().map(|holder| holder.bytes).sum();
    assert_eq!(delivered, blob.size - part.end, "nothing was fetched twice");
    assert!(asker.blobs().store().read(&blob, 0..blob.size).unwrap() == value);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_fetches_the_groups_that_it_touches_and_no_more() {
    let holder = started(memory_config()).await;
    let value = value(1000 * GROUP);
    let blob = holder.blobs().add_bytes(value.clone()).await.unwrap();
    let asker = started(config_knowing(&holder)).await;
    knows_peers(&asker, 1).await;
    let mut reader = asker.blobs().open(&blob).unwrap();
    let present = |expected: usize| {
        let expected = u64::try_from(expected * GROUP).unwrap();
        assert_eq!(asker.blobs().store().status(&blob), BlobStatus::Partial { present: expected });
    };
    let mut read = [0; 10];
    for (at, groups) in [(500 * GROUP + 7, 1), (500 * GROUP + 900, 1), (700 * GROUP - 5, 3), (999 * GROUP, 4)]
    {
        reader.seek(SeekFrom::Start(u64::try_from(at).unwrap())).await.unwrap();
        within_deadline("a read", reader.read_exact(&mut read)).await.unwrap();
        assert_eq!(read, value[at..at + 10]);
        present(groups);
    }
    let delivered: u64 = reader.holders().iter().map(|holder| holder.bytes).sum();
    assert_eq!(delivered, 4 * Blob::GROUP_BYTES);
    // In order, it reads ahead, and to the end of it.
    reader.seek(SeekFrom::Start(0)).await.unwrap();
    let mut all = Vec::new();
    within_deadline("all of it", reader.read_to_end(&mut all)).await.unwrap();
    assert!(all == value);
    assert!(asker.blobs().has(&blob));
    let delivered: u64 = reader.holders().iter().map(|holder| holder.bytes).sum();
    assert_eq!(delivered, blob.size, "nothing was fetched twice");
    assert!(reader.seek(SeekFrom::Current(-1 - i64::try_from(blob.size).unwrap())).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_here_is_read_without_a_network_and_the_rest_is_an_error() {
    let holder = started(memory_config()).await;
    let value = value(100 * GROUP);
    let blob = holder.blobs().add_bytes(value.clone()).await.unwrap();
    let asker = started(config_knowing(&holder)).await;
    let part = asker.blobs().fetch(&blob).range(0..10).into_future();
    within_deadline("a part", part).await.unwrap();
    asker.stop_swarm().await.unwrap();
    let mut reader = asker.blobs().open(&blob).unwrap();
    let mut read = vec![0; GROUP];
    reader.read_exact(&mut read).await.unwrap();
    assert_eq!(read, value[..GROUP]);
    let error = reader.read_exact(&mut read).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::NotConnected);
}

/// A holder that proves to have groups of a blob of another size is asked for no more than the
/// declared size, and what is declared takes no memory and no disk.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_declared_size_that_is_a_lie_ends_in_an_error_and_takes_no_space() {
    let directory = tempfile::tempdir().unwrap();
    let config = disk_config(&directory.path().join("asker"), None);
    let asker = started(NetabaseConfig {
        store: StoreOptions { max_blob_bytes: u64::MAX, ..config.store },
        ..config
    })
    .await;
    let holder = started(config_knowing(&asker)).await;
    knows_peers(&asker, 1).await;
    let blob = holder.blobs().add_bytes(value(10 * GROUP)).await.unwrap();
    let huge = Blob { size: u64::MAX, ..blob };
    assert!(matches!(asker.blobs().fetch(&huge).await, Err(NetabaseError::Blob(_))));
    assert!(asker.blobs().open(&huge).is_err());
    let full = holder.blobs().fetch(&Blob { size: Blob::MAX_BYTES, ..Blob::of(b"too much") }).await;
    assert!(
        matches!(full, Err(NetabaseError::Blob(BlobError::Full { .. }))),
        "nothing is asked for: {full:?}"
    );
    let lie = Blob { size: Blob::MAX_BYTES, ..blob };
    let requests = Arc::new(AtomicU64::new(0));
    let liar = answering_peer(&asker, {
        let requests = Arc::clone(&requests);
        move |_| {
            requests.fetch_add(1, Ordering::Relaxed);
            [vec![2], vec![7; 600 * 1024]].concat()
        }
    })
    .await;
    let fetch = asker.blobs().fetch(&lie).from(liar).timeout(Duration::from_secs(30));
    let ended = within_deadline("the fetch", fetch.into_future()).await;
    let Err(NetabaseError::BlobIncomplete { missing, holders, .. }) = ended else { panic!("{ended:?}") };
    assert_eq!(missing, lie.size);
    assert_eq!(of(&holders, liar).conduct, HolderConduct::Corrupt);
    assert!(requests.load(Ordering::Relaxed) <= 2, "it is dropped for the first lie");
    let honest = holders.iter().find(|found| found.peer == holder.local_peer_id());
    assert!(
        honest.is_none_or(|honest| honest.conduct == HolderConduct::NotHere),
        "it has another blob: {honest:?}"
    );
    let taken: u64 = fs::read_dir(directory.path().join("asker.blobs/partial"))
        .unwrap()
        .map(|file| file.unwrap().metadata().unwrap().len())
        .sum();
    assert!(taken <= Blob::MAX_BYTES / Blob::GROUP_BYTES / 8 + 8, "{taken}");
    assert_eq!(asker.blobs().store().statistics().fetched_bytes, 0);
    // Each reads its size and no more.
    let small = Blob { size: 5, ..Blob::of(b"hello, world") };
    assert!(asker.blobs().fetch(&small).timeout(Duration::from_secs(30)).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_blob_that_nobody_has_ends_in_an_error_that_says_who_was_asked() {
    let nodes = network(2).await;
    let missing = Blob::of(b"nowhere");
    let ended = within_deadline("the fetch", nodes[0].blobs().fetch(&missing).into_future()).await;
    assert!(matches!(ended, Err(NetabaseError::BlobIncomplete { missing: 7, .. })), "{ended:?}");
}

/// The holder is not connected to: it is found by the blob's provider record.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn holders_are_found_by_the_root_and_are_withdrawn_with_the_blob() {
    let nodes = network(4).await;
    let blob = nodes[0].blobs().add_bytes(value(5 * GROUP)).await.unwrap();
    let key = |blob: &Blob| {
        let hash = blake3::derive_key("netabase 2026-01-01 blob provider key", blob.hash.as_bytes());
        [&b"blob"[..], &hash].concat()
    };
    let provides =
        |node: &Notes, peer: PeerId| node.store().replica().provided_by(&peer).contains(&key(&blob));
    let holder = nodes[0].local_peer_id();
    within_deadline("the announcement", async {
        while !provides(&nodes[3], holder) {
            tokio::task::yield_now().await;
        }
    })
    .await;
    within_deadline("the fetch", nodes[1].blobs().fetch(&blob).into_future()).await.unwrap();
    within_deadline("the second announcement", async {
        while !provides(&nodes[3], nodes[1].local_peer_id()) {
            tokio::task::yield_now().await;
        }
    })
    .await;
    nodes[0].blobs().store().remove(&blob.hash).unwrap();
    // Anything that is added has the announcements looked at.
    nodes[0].blobs().add_bytes(vec![1]).await.unwrap();
    within_deadline("the withdrawal", async {
        while provides(&nodes[0], holder) {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// A provider record names a peer and not where it is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_holder_that_is_known_to_others_alone_is_looked_for_and_connected_to() {
    let nodes = network(3).await;
    let (holder, asker) = (&nodes[0], &nodes[2]);
    let blob = holder.blobs().add_bytes(value(5 * GROUP)).await.unwrap();
    let announced = || !nodes[1].store().replica().provided_by(&holder.local_peer_id()).is_empty();
    within_deadline("the announcement", async {
        while !announced() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let mut events = asker.subscribe_to_broadcasts();
    assert!(asker.remove_peer(holder.local_peer_id()).await.unwrap());
    let left = |event: &NetabaseSwarmEvent| match event {
        NetabaseSwarmEvent::ConnectionClosed { peer, connections: 0, .. } => {
            (*peer == holder.local_peer_id()).then_some(())
        }
        _ => None,
    };
    wait_for(&mut events, left).await;
    let outcome = within_deadline("the fetch", asker.blobs().fetch(&blob).into_future()).await.unwrap();
    assert_eq!(of(&outcome.holders, holder.local_peer_id()).bytes, blob.size);
}

/// The most memory that the process has had, in KiB.
#[cfg(target_os = "linux")]
fn peak_memory(reset: bool) -> u64 {
    if reset {
        fs::write("/proc/self/clear_refs", "5").unwrap();
    }
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).expect("Linux says it");
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// All nodes are in this process: what the holders need to send is counted, too.
#[cfg(target_os = "linux")]
#[ignore = "it writes a gigabyte, and other tests of the process would be counted"]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_blob_of_256_mib_takes_less_than_64_mib_of_memory() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let asker = started(disk_config(&path("asker"), None)).await;
    let good = started(disk_config(&path("good"), Some(&asker))).await;
    let dying = started(disk_config(&path("dying"), Some(&asker))).await;
    knows_peers(&asker, 2).await;
    let block = value(1024 * 1024);
    let mut blob = None;
    for node in [&good, &dying] {
        let block = block.clone();
        let blocks =
            (0..256_u64).flat_map(move |number| [number.to_be_bytes().to_vec(), block[8..].to_vec()]);
        let reader = Blocks { blocks: Box::new(blocks), block: std::io::Cursor::default() };
        let store = node.blobs().store();
        blob = Some(tokio::task::spawn_blocking(move || store.add_reader(reader)).await.unwrap().unwrap());
    }
    let blob = blob.unwrap();
    assert_eq!(blob.size, 256 * 1024 * 1024);
    let liar = lying_peer(&asker).await;
    let before = peak_memory(true);
    let (stop, stopped) = tokio::sync::oneshot::channel();
    let mut stop = Some(stop);
    let progress = move |progress: netabase::blob::BlobProgress| {
        if progress.present > progress.size / 2 {
            stop.take().map(|stop| stop.send(()));
        }
    };
    let fetch = asker.blobs().fetch(&blob).progress(progress);
    let fetch = fetch.from(liar).from(good.local_peer_id()).from(dying.local_peer_id());
    let dies = async {
        stopped.await.unwrap();
        dying.stop_swarm().await.unwrap();
    };
    let (outcome, ()) = tokio::join!(fetch.into_future(), dies);
    let outcome = outcome.unwrap();
    let taken = peak_memory(false) - before;
    eprintln!("{} MiB in {:?}, {taken} KiB: {:#?}", blob.size >> 20, outcome.elapsed, outcome.holders);
    assert_eq!(of(&outcome.holders, liar).conduct, HolderConduct::Corrupt);
    asker.blobs().store().verify(&blob).unwrap();
    assert!(taken < 64 * 1024, "{taken} KiB");
}

/// Reads block after block.
struct Blocks {
    blocks: Box<dyn Iterator<Item = Vec<u8>> + Send>,
    block: std::io::Cursor<Vec<u8>>,
}

impl std::io::Read for Blocks {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        loop {
            let read = std::io::Read::read(&mut self.block, out)?;
            if read > 0 {
                return Ok(read);
            }
            let Some(block) = self.blocks.next() else { return Ok(0) };
            self.block = std::io::Cursor::new(block);
        }
    }
}

#[netabase::netabase_definition_module(AlbumDefinition, AlbumKeys)]
mod album {
    use netabase::{Blob, NetabaseModel};
    use serde::{Deserialize, Serialize};

    #[derive(NetabaseModel, Clone, Debug, PartialEq, Serialize, Deserialize)]
    #[netabase(AlbumDefinition)]
    pub(crate) struct Photo {
        #[primary_key]
        pub(crate) id: u64,
        #[secondary_key]
        pub(crate) album: String,
        #[blob]
        pub(crate) file: Blob,
    }
}
use album::*;

async fn add_photo(node: &Netabase<AlbumDefinition>, id: u64, album: &str, size: usize) -> Blob {
    let file = node.blobs().add_bytes(vec![u8::try_from(id).unwrap(); size]).await.unwrap();
    node.put_record(Photo { id, album: album.into(), file }).await.unwrap();
    file
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blobs_come_with_the_records_that_are_kept_within_the_bound() {
    let ada = Netabase::<AlbumDefinition>::new_with_config(memory_config()).unwrap();
    ada.start_swarm().await.unwrap();
    let photos = [add_photo(&ada, 1, "summer", 300_000).await, add_photo(&ada, 2, "summer", 200_000).await];
    let winter = add_photo(&ada, 3, "winter", 100_000).await;

    let address = ada.listen_addresses().remove(0).with_p2p(ada.local_peer_id()).unwrap();
    let mut config = memory_config();
    config.dht.bootstrap_peers.push(address);
    let bob = Netabase::<AlbumDefinition>::new_with_config(config).unwrap();
    let mut options = ReplicateOptions::default();
    options.max_blob_bytes = 600_000;
    let summer = Scope::value(&PhotoAlbumSecondaryKey("summer".into()));
    let replication = bob.replicate_with(summer, &options).unwrap();
    bob.start_swarm().await.unwrap();
    within_deadline("the records", replication.caught_up()).await.unwrap();
    within_deadline("their blobs", replication.blobs_caught_up()).await.unwrap();
    assert!(photos.iter().all(|photo| bob.blobs().has(photo)));
    assert!(!bob.blobs().has(&winter), "it is in no scope that is kept");
    let kept = replication.blobs();
    assert_eq!((kept.present, kept.present_bytes, kept.missing, kept.left_out), (2, 500_000, 0, 0));

    // What comes later comes with its blob, as long as there is room.
    let fits = add_photo(&ada, 4, "summer", 100_000).await;
    let mut records = bob.subscribe_to_broadcasts();
    let too_large = add_photo(&ada, 5, "summer", 100_000).await;
    wait_for_record(&mut records, |record| *record.key() == RecordKey::of(&PhotoPrimaryKey(5)).unwrap())
        .await;
    within_deadline("the new blob", replication.blobs_caught_up()).await.unwrap();
    assert!(bob.blobs().has(&fits) != bob.blobs().has(&too_large), "there is room for one of the two");
    assert_eq!((replication.blobs().present_bytes, replication.blobs().left_out), (600_000, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_being_asked_for_no_blob_comes_with_its_record() {
    let ada = Netabase::<AlbumDefinition>::new_with_config(memory_config()).unwrap();
    ada.start_swarm().await.unwrap();
    let photo = add_photo(&ada, 1, "summer", 300_000).await;
    let address = ada.listen_addresses().remove(0).with_p2p(ada.local_peer_id()).unwrap();
    let mut config = memory_config();
    config.dht.bootstrap_peers.push(address);
    let bob = Netabase::<AlbumDefinition>::new_with_config(config).unwrap();
    let replication = bob.replicate(Scope::model::<Photo>()).unwrap();
    bob.start_swarm().await.unwrap();
    within_deadline("the records", replication.caught_up()).await.unwrap();
    assert!(bob.store().open_tree::<Photo>().unwrap().get(&PhotoPrimaryKey(1)).unwrap().is_some());
    assert!(!bob.blobs().has(&photo) && !replication.blobs().is_caught_up);

    // Somebody else who keeps the scope may ask for them.
    let mut options = ReplicateOptions::default();
    options.max_blob_bytes = u64::MAX;
    let with_blobs = bob.replicate_with(Scope::model::<Photo>(), &options).unwrap();
    within_deadline("the blob", with_blobs.blobs_caught_up()).await.unwrap();
    assert!(bob.blobs().has(&photo));
}
