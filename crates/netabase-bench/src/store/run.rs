//! The measuring of one system, each case on what the one before has left.

use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use super::case::Case;
use super::model::{Message, Messages, ROOM_RECORDS, Sum, serial, wide};
use super::system::{Store, System, Writes};
use crate::usage::{disk_bytes, mebibytes, peak_memory};

/// How many records a bulk insert has in a transaction.
const BULK: u64 = 10_000;
/// How many records are updated or deleted in a transaction.
const BATCH: u64 = 100;
/// How many records one call of `get_many` asks for.
const GET_MANY: usize = 100;
/// How many records a range has.
const RANGE: u64 = 1000;
/// How many threads insert at the same time.
const THREADS: usize = 64;

/// How much is done.
#[derive(Debug, Clone, Copy)]
pub(super) struct Effort {
    /// How many records are there.
    pub(super) records: u64,
    /// How long single inserts go on.
    pub(super) inserts: Duration,
    /// How many gets there are; the number of other calls follows.
    pub(super) gets: u64,
}

/// What a case has come to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Outcome {
    pub(super) case: Case,
    pub(super) value: f64,
    pub(super) n: u64,
}

/// One system's database and what was measured on it.
pub(super) struct Run<'a> {
    system: System,
    cases: &'a [Case],
    effort: Effort,
    directory: PathBuf,
    messages: Messages,
    /// The number of the next record to be added.
    next: u64,
    /// How many records there should be.
    live: u64,
    outcomes: Vec<Outcome>,
}

impl<'a> Run<'a> {
    pub(super) fn new(system: System, cases: &'a [Case], effort: Effort, directory: &Path) -> Self {
        let messages = Messages { count: effort.records };
        let (directory, outcomes) = (directory.to_owned(), Vec::new());
        Self { system, cases, effort, directory, messages, next: 0, live: 0, outcomes }
    }

    /// Measures the cases; returns what they came to.
    pub(super) fn measure(mut self) -> anyhow::Result<Vec<Outcome>> {
        // What the generator needs is not the database's.
        black_box(self.batch(BULK.min(self.effort.records)));
        let without = peak_memory()?;
        let store = self.system.open(&self.directory)?;
        let bulk = self.bulk_insert(&*store)?;
        drop(store);
        self.add(Case::FileSize, mebibytes(disk_bytes(&self.directory)?), 1);
        let start = Instant::now();
        let store = self.system.open(&self.directory)?;
        self.add(Case::Open, start.elapsed().as_secs_f64() * 1e3, 1);
        self.ensure_count(&*store)?;
        self.reads(&*store)?;
        self.writes(&*store, bulk)?;
        drop(store);
        if let Some((peak, without)) = peak_memory()?.zip(without) {
            self.add(Case::PeakMemory, mebibytes(peak.saturating_sub(without)), 1);
        }
        Ok(self.outcomes)
    }

    fn reads(&mut self, store: &dyn Store) -> anyhow::Result<()> {
        let gets = self.effort.gets;
        if self.wants(Case::Get) {
            self.get(store, gets)?;
        }
        if self.wants(Case::GetMany) {
            self.get_many(store, (gets / 100).max(1))?;
        }
        if self.wants(Case::FindOne) {
            self.find_one(store, (gets / 2).max(1))?;
        }
        if self.wants(Case::FindHundred) {
            self.find_hundred(store, (gets / 50).max(1))?;
        }
        if self.wants(Case::Range) {
            self.range(store, (gets / 200).max(1))?;
        }
        if self.wants(Case::Scan) {
            self.scan(store)?;
        }
        Ok(())
    }

    fn writes(&mut self, store: &dyn Store, bulk: f64) -> anyhow::Result<()> {
        let threads = [Case::Insert64Threads, Case::ThreadsToOne, Case::ThreadsToBulk];
        let compared = threads.into_iter().any(|case| self.wants(case));
        if self.wants(Case::Insert) || compared {
            let one = self.insert(store)?;
            if compared {
                let many = self.insert_64_threads(store)?;
                self.add(Case::ThreadsToOne, one / many, 1);
                self.add(Case::ThreadsToBulk, bulk / many, 1);
            }
        }
        if self.wants(Case::Update) {
            self.update(store)?;
        }
        if self.wants(Case::Delete) {
            self.delete(store)?;
        }
        Ok(())
    }

    fn wants(&self, case: Case) -> bool {
        self.cases.contains(&case) && case.is_measured_on(self.system)
    }

    fn add(&mut self, case: Case, value: f64, n: u64) {
        if self.wants(case) {
            self.outcomes.push(Outcome { case, value, n });
        }
    }

    /// Adds the time of one of `n`; returns it, in microseconds.
    fn add_time(&mut self, case: Case, time: Duration, n: u64) -> f64 {
        let each = micros_each(time, n);
        self.add(case, each, n);
        each
    }

    /// Makes the next records.
    fn batch(&self, size: u64) -> Vec<Message> {
        (self.next..self.next + size).map(|n| self.messages.message(n)).collect()
    }

    fn ensure_count(&self, store: &dyn Store) -> anyhow::Result<()> {
        let count = store.len()?;
        ensure!(count == self.live, "there are {count} records and not {}", self.live);
        Ok(())
    }

    fn bulk_insert(&mut self, store: &dyn Store) -> anyhow::Result<f64> {
        let mut time = Duration::ZERO;
        while self.next < self.effort.records {
            let batch = self.batch(BULK.min(self.effort.records - self.next));
            let start = Instant::now();
            store.insert(&batch)?;
            time += start.elapsed();
            let size = u64::try_from(batch.len())?;
            self.next += size;
            self.live += size;
        }
        self.ensure_count(store)?;
        Ok(self.add_time(Case::BulkInsert, time, self.effort.records))
    }

    fn get(&mut self, store: &dyn Store, calls: u64) -> anyhow::Result<()> {
        let messages = self.messages;
        self.read(
            Case::Get,
            calls,
            |sum, call| {
                let id = messages.id(messages.pick(call));
                let found = store.get(id)?.context("a record is missing")?;
                sum.add(&found);
                ensure!(found.id == id, "record {} came for {id}", found.id);
                Ok(())
            },
            |call| Ok(Sum::from_iter([messages.message(messages.pick(call))])),
        )
    }

    fn get_many(&mut self, store: &dyn Store, calls: u64) -> anyhow::Result<()> {
        let messages = self.messages;
        let picks = |call: u64| {
            let first = call * GET_MANY as u64;
            (first..first + GET_MANY as u64).map(move |n| messages.pick(n))
        };
        self.read(
            Case::GetMany,
            calls,
            |sum, call| {
                let ids: Vec<u64> = picks(call).map(|n| messages.id(n)).collect();
                let found = store.get_many(&ids)?;
                sum.extend(found.iter().flatten());
                Ok(())
            },
            |call| Ok(picks(call).map(|n| messages.message(n)).collect()),
        )
    }

    fn find_one(&mut self, store: &dyn Store, calls: u64) -> anyhow::Result<()> {
        let messages = self.messages;
        self.read(
            Case::FindOne,
            calls,
            |sum, call| {
                sum.extend(&store.find_serial(serial(messages.id(messages.pick(call))))?);
                Ok(())
            },
            |call| Ok(Sum::from_iter([messages.message(messages.pick(call))])),
        )
    }

    fn find_hundred(&mut self, store: &dyn Store, calls: u64) -> anyhow::Result<()> {
        let messages = self.messages;
        self.read(
            Case::FindHundred,
            calls,
            |sum, call| {
                let room = messages.room(messages.pick(call));
                let found = store.find_room(&room)?;
                sum.extend(&found);
                ensure!(found.iter().all(|found| found.room == room), "a record of another room was found");
                let count = u64::try_from(found.len())?;
                ensure!(count == ROOM_RECORDS, "{room} has {count} records");
                Ok(())
            },
            |_| Ok(Sum::default()),
        )
    }

    fn range(&mut self, store: &dyn Store, calls: u64) -> anyhow::Result<()> {
        let messages = self.messages;
        let limit = RANGE.min(self.effort.records / 10).max(1);
        let size = usize::try_from(limit)?;
        self.read(
            Case::Range,
            calls,
            |sum, call| {
                // Below three quarters of all ids there are enough to come.
                let start = messages.id(messages.pick(call)) / 4 * 3;
                let found = store.range(start, size)?;
                sum.extend(&found);
                ensure!(found.len() == size, "{} of {size} records were found", found.len());
                ensure!(found.first().is_some_and(|found| found.id >= start), "a range begins too early");
                ensure!(found.is_sorted_by(|a, b| a.id < b.id), "a range is not in order");
                Ok(())
            },
            |_| Ok(Sum::default()),
        )
    }

    /// Times calls that read, after a tenth as many that are not timed, and compares what they have
    /// read with what they should have, where `expected` says it.
    fn read(
        &mut self,
        case: Case,
        calls: u64,
        mut read: impl FnMut(&mut Sum, u64) -> anyhow::Result<()>,
        expected: impl Fn(u64) -> anyhow::Result<Sum>,
    ) -> anyhow::Result<()> {
        for call in calls..calls + calls / 10 {
            read(&mut Sum::default(), call)?;
        }
        let mut sum = Sum::default();
        let start = Instant::now();
        for call in 0..calls {
            read(&mut sum, call)?;
        }
        let time = start.elapsed();
        let mut should_be = Sum::default();
        for call in 0..calls {
            should_be += expected(call)?;
        }
        let sum = black_box(sum);
        ensure!(should_be == Sum::default() || sum == should_be, "other records were read than written");
        self.add_time(case, time, calls);
        Ok(())
    }

    fn scan(&mut self, store: &dyn Store) -> anyhow::Result<()> {
        let mut sum = Sum::default();
        let start = Instant::now();
        store.scan(&mut |message| sum.add(message))?;
        let time = start.elapsed();
        let should_be: Sum = (0..self.next).map(|n| self.messages.message(n)).collect();
        ensure!(black_box(sum) == should_be, "other records were read than written");
        self.add_time(Case::Scan, time, self.live);
        Ok(())
    }

    fn insert(&mut self, store: &dyn Store) -> anyhow::Result<f64> {
        let (mut time, mut inserted) = (Duration::ZERO, 0);
        while time < self.effort.inserts || inserted == 0 {
            let record = self.batch(1);
            let start = Instant::now();
            store.insert(&record)?;
            time += start.elapsed();
            inserted += 1;
            self.next += 1;
            self.live += 1;
        }
        self.ensure_count(store)?;
        Ok(self.add_time(Case::Insert, time, inserted))
    }

    fn insert_64_threads(&mut self, store: &dyn Store) -> anyhow::Result<f64> {
        let (messages, first, limit) = (self.messages, self.next, self.effort.inserts);
        let inserted = AtomicU64::new(0);
        let start = Instant::now();
        thread::scope(|scope| {
            let thread = |first: u64| {
                let inserted = &inserted;
                scope.spawn(move || {
                    for n in (first..).step_by(THREADS) {
                        store.insert(&[messages.message(n)])?;
                        inserted.fetch_add(1, Ordering::Relaxed);
                        if start.elapsed() >= limit {
                            break;
                        }
                    }
                    anyhow::Ok(())
                })
            };
            let threads: Vec<_> = (first..).take(THREADS).map(thread).collect();
            threads
                .into_iter()
                .try_for_each(|thread| thread.join().unwrap_or_else(|_| anyhow::bail!("a thread panicked")))
        })?;
        let time = start.elapsed();
        let inserted = inserted.into_inner();
        self.live += inserted;
        self.ensure_count(store)?;
        Ok(self.add_time(Case::Insert64Threads, time, inserted))
    }

    fn update(&mut self, store: &dyn Store) -> anyhow::Result<()> {
        let (messages, batches) = (self.messages, self.batches());
        let mut time = Duration::ZERO;
        for numbers in self.batch_numbers(0, batches) {
            let records: Vec<Message> = numbers.iter().map(|n| messages.moved(*n)).collect();
            let start = Instant::now();
            store.update(&records)?;
            time += start.elapsed();
        }
        self.ensure_count(store)?;
        for n in self.batch_numbers(0, batches).into_iter().flatten().step_by(7) {
            let (old, new) = (messages.message(n), messages.moved(n));
            ensure!(store.get(new.id)?.as_ref() == Some(&new), "a record was not updated");
            ensure!(store.find_room(&new.room)?.contains(&new), "a record is not in its new room");
            let left = store.find_room(&old.room)?.into_iter().any(|found| found.id == old.id);
            ensure!(old.room == new.room || !left, "a record is still in its old room");
        }
        self.add_time(Case::Update, time, batches * BATCH);
        Ok(())
    }

    fn delete(&mut self, store: &dyn Store) -> anyhow::Result<()> {
        let (messages, batches) = (self.messages, self.batches());
        let mut time = Duration::ZERO;
        for numbers in self.batch_numbers(batches, batches) {
            let ids: Vec<u64> = numbers.iter().map(|n| messages.id(*n)).collect();
            let start = Instant::now();
            store.remove(&ids)?;
            time += start.elapsed();
            self.live -= BATCH;
        }
        self.ensure_count(store)?;
        for n in self.batch_numbers(batches, batches).into_iter().flatten().step_by(7) {
            let id = messages.id(n);
            ensure!(store.get(id)?.is_none(), "a record was not deleted");
            ensure!(store.find_serial(serial(id))?.is_empty(), "a deleted record is found");
        }
        self.add_time(Case::Delete, time, batches * BATCH);
        Ok(())
    }

    /// How many batches are updated, and deleted: two percent of the records, up to 10,000.
    fn batches(&self) -> u64 {
        (self.effort.records / 50 / BATCH).clamp(1, 100)
    }

    /// Returns the numbers of the records in each of `count` batches, from batch `first` on.
    fn batch_numbers(&self, first: u64, count: u64) -> Vec<Vec<u64>> {
        let numbers =
            |batch| (batch * BATCH..(batch + 1) * BATCH).map(|n| self.messages.shuffled(n)).collect();
        (first..first + count).map(numbers).collect()
    }
}

/// Measures the inserts of records with ten keys.
pub(super) fn bulk_insert_ten_keys(
    system: System,
    records: u64,
    directory: &Path,
) -> anyhow::Result<Vec<Outcome>> {
    let store: Box<dyn Writes<_>> = system.open_wide(directory)?;
    let mut time = Duration::ZERO;
    for first in (0..records).step_by(usize::try_from(BULK)?) {
        let batch: Vec<_> = (first..records.min(first + BULK)).map(wide).collect();
        let start = Instant::now();
        store.insert(&batch)?;
        time += start.elapsed();
    }
    let count = store.len()?;
    ensure!(count == records, "there are {count} records and not {records}");
    let (case, value) = (Case::BulkInsertTenKeys, micros_each(time, records));
    Ok(vec![Outcome { case, value, n: records }])
}

fn micros_each(time: Duration, n: u64) -> f64 {
    time.as_secs_f64() * 1e6 / u32::try_from(n).map_or(f64::INFINITY, f64::from)
}
