//! Large values on a disk: reads, detection of damage, and crashes.

use std::fs;
use std::sync::atomic::Ordering;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::blobs::limits::MAX_BLOB_BYTES;

const GROUP: usize = 16 * 1024;

fn value(size: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; size];
    blake3::Hasher::new().update(&seed.to_be_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

fn open(directory: &TempDir) -> Arc<Blobs> {
    let options =
        StoreOptions { blob_directory: Some(directory.path().to_owned()), ..StoreOptions::default() };
    Arc::new(Blobs::open(None, &options).unwrap())
}

fn read_all(blobs: &Arc<Blobs>, blob: &Blob, bytes: Range<u64>) -> Result<Vec<u8>, BlobError> {
    let mut read = Vec::new();
    blobs.read(blob, bytes, |part| {
        read.extend_from_slice(part);
        Ok(())
    })?;
    Ok(read)
}

/// Sizes at the edges of groups and of subtrees, and others.
fn sizes() -> impl Strategy<Value = usize> {
    let edges =
        [0, 1, 1023, 1024, 1025, GROUP - 1, GROUP, GROUP + 1, 2 * GROUP, 3 * GROUP - 1, 8 * GROUP + 1];
    prop_oneof![3 => prop::sample::select(edges.to_vec()), 2 => 0..5 * GROUP, 1 => 0..4 * 1024 * 1024_usize]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn what_is_read_is_the_same_part_of_what_was_added(
        size in sizes(), seed in any::<u64>(), ranges in prop::collection::vec((0..1100_usize, 0..1100_usize), 8),
    ) {
        let (directory, value) = (TempDir::new().unwrap(), value(size, seed));
        let blobs = open(&directory);
        let blob = blobs.add(&value[..]).unwrap();
        prop_assert_eq!(blob, Blob::of(&value));
        prop_assert_eq!(&read_all(&blobs, &blob, 0..blob.size).unwrap(), &value);
        for (first, second) in ranges {
            let at = |part: usize| part * size / 1000;
            let (start, end) = (at(first).min(at(second)).min(size), at(first).max(at(second)));
            let read = read_all(&blobs, &blob, start as u64..end as u64).unwrap();
            prop_assert_eq!(&read, &value[start..end.min(size)]);
        }
        // The same after it was opened again, and it is stored once.
        let again = open(&directory);
        prop_assert_eq!(again.add(&value[..]).unwrap(), blob);
        prop_assert_eq!(&read_all(&again, &blob, 0..blob.size).unwrap(), &value);
        prop_assert_eq!(again.state.lock().statistics().added, 1);
    }

    #[test]
    fn every_flipped_byte_of_a_file_is_noticed(size in 1..6 * GROUP, at in any::<prop::sample::Index>(), bit in 0..8_u8) {
        let (directory, value) = (TempDir::new().unwrap(), value(size, 1));
        let blobs = open(&directory);
        let blob = blobs.add(&value[..]).unwrap();
        let paths = blobs.directory.whole(&blob.hash, Source::Added);
        let mut files = vec![paths.data];
        files.extend((size > GROUP).then_some(paths.tree));
        for path in files {
            let whole = fs::read(&path).unwrap();
            let mut flipped = whole.clone();
            *at.get_mut(&mut flipped) ^= 1 << bit;
            fs::write(&path, flipped).unwrap();
            prop_assert!(matches!(read_all(&blobs, &blob, 0..blob.size), Err(BlobError::Damaged { .. })), "{path:?}");
            let slice = blobs.slice(&blob, &(0..groups_of(blob.size)));
            prop_assert!(matches!(slice, Err(BlobError::Damaged { .. })), "nobody is sent it");
            fs::write(&path, whole).unwrap();
        }
    }

    #[test]
    fn every_flipped_byte_of_a_slice_is_noticed(
        size in 1..6 * GROUP, range in any::<(prop::sample::Index, prop::sample::Index)>(),
        at in any::<prop::sample::Index>(), bit in 0..8_u8,
    ) {
        let (here, there) = (TempDir::new().unwrap(), TempDir::new().unwrap());
        let (from, to) = (open(&there), open(&here));
        let blob = from.add(&value(size, 2)[..]).unwrap();
        let all = usize::try_from(groups_of(blob.size)).unwrap();
        let (first, second) = (range.0.index(all) as u64, range.1.index(all) as u64);
        let groups = first.min(second)..first.max(second) + 1;
        let slice = from.slice(&blob, &groups).unwrap();
        let mut flipped = slice.clone();
        *at.get_mut(&mut flipped) ^= 1 << bit;
        let partial = to.partial(&blob).unwrap();
        let refused = partial.write_slice(groups.clone(), &flipped);
        prop_assert!(matches!(refused, Err(BlobError::Invalid { .. })), "{refused:?}");
        prop_assert_eq!(partial.present_bytes(), 0);
        let bytes = tree::bytes_of(&groups, blob.size);
        prop_assert_eq!(partial.write_slice(groups.clone(), &slice).unwrap(), bytes.end - bytes.start);
        prop_assert_eq!(read_all(&to, &blob, bytes.clone()).unwrap(), read_all(&from, &blob, bytes).unwrap());
    }

    /// A crash after any number of changes of the disk, and all that was not synced by then is
    /// lost.
    #[test]
    fn a_crash_leaves_a_blob_that_can_be_fetched_to_its_end(
        size in sizes(), crash_after in 0..60_usize, slice_groups in 1..9_u64, checkpoints in any::<u8>(),
        lost in any::<u8>(),
    ) {
        let (here, there) = (TempDir::new().unwrap(), TempDir::new().unwrap());
        let (from, value) = (open(&there), value(size, 3));
        let blob = from.add(&value[..]).unwrap();
        let to = open(&here);
        to.directory.crash_after.store(crash_after, Ordering::Relaxed);
        let fetched = fetch(&from, &to, &blob, slice_groups, checkpoints);
        prop_assert!(fetched.is_ok() || to.directory.crash_after.load(Ordering::Relaxed) == 0);
        // The process is gone: nothing runs any more, not even what drops.
        lose_power(&to, lost);
        std::mem::forget(to);
        lose_what_the_map_does_not_say(&here, &blob);

        let again = open(&here);
        let present = match again.status(&blob) {
            BlobStatus::Whole => blob.size,
            BlobStatus::Partial { present } => present,
            BlobStatus::Absent => 0,
        };
        prop_assert!(fetched.is_err() || present == blob.size);
        let partial = again.partial(&blob).unwrap();
        prop_assert_eq!(partial.present_bytes(), present);
        let missing = partial.missing(0..groups_of(blob.size), usize::MAX);
        let is_here = |group: u64| !missing.iter().any(|run| run.contains(&group));
        for group in (0..groups_of(blob.size)).filter(|group| is_here(*group)) {
            let bytes = tree::bytes_of(&(group..group + 1), blob.size);
            let at = |at: u64| usize::try_from(at).unwrap();
            let part = &value[at(bytes.start)..at(bytes.end)];
            prop_assert_eq!(&read_all(&again, &blob, bytes).unwrap(), part);
        }
        drop(partial);
        fetch(&from, &again, &blob, 3, 0).unwrap();
        prop_assert_eq!(&read_all(&again, &blob, 0..blob.size).unwrap(), &value);
        prop_assert_eq!(open(&here).status(&blob), BlobStatus::Whole);
    }

}

/// Crashes while the last part of a blob is stored lose no other.
#[test]
fn a_crash_while_a_blob_becomes_whole_leaves_what_was_written_down() {
    let crash = |crash_after: usize, lost: u8| {
        let (here, there) = (TempDir::new().unwrap(), TempDir::new().unwrap());
        let (from, to) = (open(&there), open(&here));
        let blob = from.add(&value(3 * GROUP, 3)[..]).unwrap();
        let partial = to.partial(&blob).unwrap();
        partial.write_slice(0..2, &from.slice(&blob, &(0..2)).unwrap()).unwrap();
        partial.flush().unwrap();
        to.directory.crash_after.store(crash_after, Ordering::Relaxed);
        let last = partial.write_slice(2..3, &from.slice(&blob, &(2..3)).unwrap());
        lose_power(&to, lost);
        std::mem::forget((to, partial));
        let again = open(&here);
        let present = again.partial(&blob).unwrap().present_bytes();
        assert!(present >= 2 * BLOB_GROUP_BYTES, "crash after {crash_after}, {lost}");
        assert!(last.is_err() || again.has(&blob));
        fetch(&from, &again, &blob, 1, 0).unwrap();
        assert_eq!(read_all(&again, &blob, 0..blob.size).unwrap(), value(3 * GROUP, 3));
        last.is_err()
    };
    for lost in [0, 1] {
        let crashes = (0..100).take_while(|crash_after| crash(*crash_after, lost)).count();
        assert!((8..100).contains(&crashes), "{crashes}");
    }
}

/// After each number of changes of the disk, of which some of the last are lost with the power.
#[test]
fn a_crash_while_a_blob_is_added_leaves_all_of_it_or_what_was_there() {
    for (size, before) in (0..6).map(|case| ([GROUP, 3 * GROUP + 5][case % 2], case / 2)) {
        for lost in [0, 1] {
            let crashes =
                (0..100).take_while(|crash_after| crash_while_added(size, *crash_after, lost, before));
            assert!((5..100).contains(&crashes.count()), "it has many steps");
        }
    }
}

/// Crashes while a blob is added of which nothing (0), a part (1) or all (2) was fetched before;
/// returns whether it did.
fn crash_while_added(size: usize, crash_after: usize, lost: u8, before: usize) -> bool {
    let (directory, there, value) = (TempDir::new().unwrap(), TempDir::new().unwrap(), value(size, 4));
    let (blobs, from) = (open(&directory), open(&there));
    let blob = from.add(&value[..]).unwrap();
    match before {
        1 => {
            let slice = from.slice(&blob, &(0..1)).unwrap();
            blobs.partial(&blob).unwrap().write_slice(0..1, &slice).unwrap();
        }
        2 => fetch(&from, &blobs, &blob, 8, 0).unwrap(),
        _ => {}
    }
    let before = blobs.status(&blob);
    blobs.directory.crash_after.store(crash_after, Ordering::Relaxed);
    let added = blobs.add(&value[..]);
    assert!(added.is_ok() || blobs.directory.crash_after.load(Ordering::Relaxed) == 0);
    lose_power(&blobs, lost);
    // The process is gone: nothing runs any more, not even what drops.
    std::mem::forget(blobs);
    let again = open(&directory);
    match again.status(&blob) {
        BlobStatus::Whole => assert_eq!(read_all(&again, &blob, 0..blob.size).unwrap(), value),
        status => assert_eq!((added.is_ok(), status), (false, before), "crash after {crash_after}, {lost}"),
    }
    assert_eq!(again.add(&value[..]).unwrap(), blob);
    let statistics = again.state.lock().statistics();
    assert_eq!((statistics.added, statistics.fetched, statistics.fetched_bytes), (1, 0, 0));
    for left in ["temporary", "partial", "fetched"] {
        let left = fs::read_dir(directory.path().join(left)).unwrap().count();
        assert_eq!(left, 0, "nothing is left over");
    }
    added.is_err()
}

/// Takes back some of the changes of names that are not on the disk.
fn lose_power(blobs: &Blobs, lost: u8) {
    for (at, (from, to)) in blobs.directory.renamed.lock().iter().enumerate().rev() {
        if lost >> (at % 8) & 1 == 1 && to.exists() {
            fs::rename(to, from).unwrap();
        }
    }
}

/// Fetches the missing groups, slice by slice, with a checkpoint after some of the first slices.
fn fetch(
    from: &Arc<Blobs>,
    to: &Arc<Blobs>,
    blob: &Blob,
    step: u64,
    checkpoints: u8,
) -> Result<(), BlobError> {
    let partial = to.partial(blob)?;
    let mut slices = 0_u32;
    while let Some(run) = partial.missing(0..groups_of(blob.size), 1).pop() {
        let groups = run.start..run.end.min(run.start + step);
        let written = from.slice(blob, &groups).and_then(|slice| partial.write_slice(groups, &slice));
        let flushed =
            written.and_then(|_| if checkpoints >> (slices % 8) & 1 == 1 { partial.flush() } else { Ok(()) });
        if let Err(error) = flushed {
            std::mem::forget(partial);
            return Err(error);
        }
        slices += 1;
    }
    Ok(())
}

/// Overwrites every group that the map on the disk does not name.
fn lose_what_the_map_does_not_say(directory: &TempDir, blob: &Blob) {
    let name = |end: &str| directory.path().join("partial").join(format!("{}-{}{end}", blob.hash, blob.size));
    let (Ok(map), Ok(mut data)) = (fs::read(name(".map")), fs::read(name(".data"))) else { return };
    for (group, bytes) in data.chunks_mut(GROUP).enumerate() {
        let is_there = map.get(8 + group / 8).is_some_and(|byte| byte >> (group % 8) & 1 == 1);
        if !is_there {
            bytes.fill(0xee);
        }
    }
    fs::write(name(".data"), data).unwrap();
}

#[test]
fn a_blob_that_was_fetched_is_promoted_when_it_is_added() {
    let (here, there) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let (from, to) = (open(&there), open(&here));
    let value = value(3 * GROUP, 5);
    let blob = from.add(&value[..]).unwrap();
    fetch(&from, &to, &blob, 1, 0).unwrap();
    let statistics = to.state.lock().statistics();
    assert_eq!((statistics.fetched, statistics.fetched_bytes), (1, blob.size));
    to.add(&value[..]).unwrap();
    for blobs in [&to, &open(&here)] {
        let statistics = blobs.state.lock().statistics();
        assert_eq!((statistics.fetched, statistics.fetched_bytes), (0, 0));
        assert_eq!((statistics.added, statistics.added_bytes), (1, blob.size));
        assert_eq!(read_all(blobs, &blob, 0..blob.size).unwrap(), value);
    }
}

#[test]
fn whoever_fetches_a_blob_that_is_added_meanwhile_has_it() {
    let (here, there) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let (from, to) = (open(&there), open(&here));
    let value = value(3 * GROUP, 6);
    let blob = from.add(&value[..]).unwrap();
    let partial = to.partial(&blob).unwrap();
    partial.write_slice(0..1, &from.slice(&blob, &(0..1)).unwrap()).unwrap();
    to.add(&value[..]).unwrap();
    assert!(partial.is_whole());
    assert_eq!(partial.write_slice(1..2, &from.slice(&blob, &(1..2)).unwrap()).unwrap(), 0);
    assert_eq!(fs::read_dir(here.path().join("partial")).unwrap().count(), 0);
    assert_eq!(to.state.lock().statistics().fetched_bytes, 0);
}

#[test]
fn who_fetches_a_blob_that_was_removed_does_not_write_into_the_next_fetch_of_it() {
    let (here, there) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let (from, to) = (open(&there), open(&here));
    let value = value(4 * GROUP, 10);
    let blob = from.add(&value[..]).unwrap();
    let slice = |group: u64| from.slice(&blob, &(group..group + 1)).unwrap();
    let before = to.partial(&blob).unwrap();
    for group in 0..3 {
        before.write_slice(group..group + 1, &slice(group)).unwrap();
    }
    assert!(to.remove(&blob.hash).unwrap());
    let after = to.partial(&blob).unwrap();
    assert_eq!(after.present_bytes(), 0);
    after.write_slice(0..1, &slice(0)).unwrap();
    // Its last part would make the blob whole as far as it knows.
    assert!(matches!(before.write_slice(3..4, &slice(3)), Err(BlobError::Missing { .. })));
    assert!(matches!(before.flush(), Err(BlobError::Missing { .. })));
    drop(before);
    after.flush().unwrap();
    assert_eq!(to.state.lock().statistics().fetched_bytes, BLOB_GROUP_BYTES);
    drop((after, to));
    let again = open(&here);
    assert_eq!(again.status(&blob), BlobStatus::Partial { present: BLOB_GROUP_BYTES });
    assert_eq!(fs::read_dir(here.path().join("partial")).unwrap().count(), 3, "no files of the first");
    fetch(&from, &again, &blob, 1, 0).unwrap();
    assert_eq!(read_all(&again, &blob, 0..blob.size).unwrap(), value);
}

#[test]
fn fetched_blobs_take_no_more_than_their_share() {
    let (here, there) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let options = StoreOptions {
        blob_directory: Some(here.path().to_owned()),
        max_blob_bytes: 2 * BLOB_GROUP_BYTES,
        ..StoreOptions::default()
    };
    let (from, to) = (open(&there), Arc::new(Blobs::open(None, &options).unwrap()));
    let blob = from.add(&value(3 * GROUP, 7)[..]).unwrap();
    assert!(
        matches!(fetch(&from, &to, &blob, 1, 0), Err(BlobError::Full { limit }) if limit == 2 * BLOB_GROUP_BYTES)
    );
    assert_eq!(to.state.lock().statistics().fetched_bytes, 2 * BLOB_GROUP_BYTES);
}

#[test]
fn a_size_that_is_a_lie_takes_no_space_and_proves_nothing() {
    let (here, there) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let (from, to) = (open(&there), open(&here));
    let blob = from.add(&value(3 * GROUP, 8)[..]).unwrap();
    let huge = Blob { size: u64::MAX, ..blob };
    assert!(matches!(to.partial(&huge), Err(BlobError::TooLarge { limit: MAX_BLOB_BYTES, .. })));
    let lying = Blob { size: MAX_BLOB_BYTES, ..blob };
    assert!(matches!(from.slice(&lying, &(0..1)), Err(BlobError::Missing { .. })), "it has another blob");
    let partial = to.partial(&lying).unwrap();
    let slice = from.slice(&blob, &(0..1)).unwrap();
    assert!(matches!(partial.write_slice(0..1, &slice), Err(BlobError::Invalid { .. })));
    let last = MAX_BLOB_BYTES / BLOB_GROUP_BYTES - 1;
    assert!(partial.write_slice(last..last + 1, &slice).is_err());
    assert!(
        fs::metadata(to.directory.partial(&PartId { blob: lying, number: 0 }).data).unwrap().len()
            < BLOB_GROUP_BYTES
    );
    // The size is not what names the files: the true one is fetched all the same.
    fetch(&from, &to, &blob, 1, 0).unwrap();
    assert!(to.has(&blob) && !to.has(&lying));
}

#[test]
fn files_that_are_no_blobs_go_when_a_store_is_opened() {
    let directory = TempDir::new().unwrap();
    let blobs = open(&directory);
    let blob = blobs.add(&value(3 * GROUP, 9)[..]).unwrap();
    let stray = Blob::of(b"stray").hash;
    let tree = blobs.directory.whole(&stray, Source::Added).tree;
    fs::write(&tree, b"without data").unwrap();
    let data = blobs.directory.partial(&PartId { blob: Blob::of(b"stray"), number: 0 }).data;
    fs::write(&data, b"without map").unwrap();
    drop(blobs);
    let again = open(&directory);
    assert!(!tree.exists() && !data.exists());
    assert!(again.has(&blob));
}
