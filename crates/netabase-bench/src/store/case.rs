//! The cases.

use clap::ValueEnum;

use super::system::System;

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub(super) enum Case {
    /// Inserts in transactions of 10,000 records
    BulkInsert,
    /// Inserts of one record, each durable before the next
    Insert,
    /// Such inserts by 64 threads at the same time
    #[value(name = "insert_64_threads")]
    Insert64Threads,
    /// How much faster 64 threads are than one
    #[value(name = "64_threads_to_1")]
    ThreadsToOne,
    /// How the rate of 64 threads compares with that of the bulk insert
    #[value(name = "64_threads_to_bulk")]
    ThreadsToBulk,
    /// Updates that move records to another value of a key, in transactions of 100
    Update,
    /// Deletions in transactions of 100
    Delete,
    /// Gets of one record at random
    Get,
    /// Gets of 100 records at random in one call
    #[value(name = "get_many_100")]
    GetMany,
    /// Lookups by a key that one record has
    #[value(name = "find_1")]
    FindOne,
    /// Lookups by a key that 100 records have
    #[value(name = "find_100")]
    FindHundred,
    /// Ranges of 1,000 records by primary key
    #[value(name = "range_1000")]
    Range,
    /// Reads of everything
    Scan,
    /// The opening of the database after the bulk insert
    Open,
    /// The size of the files after the bulk insert
    FileSize,
    /// The most memory that the process has had, beyond what it has without a database
    PeakMemory,
    /// Inserts of records with ten secondary keys, in transactions of 10,000
    #[value(name = "bulk_insert_10_keys")]
    BulkInsertTenKeys,
}

impl Case {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::BulkInsert => "bulk_insert",
            Self::Insert => "insert",
            Self::Insert64Threads => "insert_64_threads",
            Self::ThreadsToOne => "64_threads_to_1",
            Self::ThreadsToBulk => "64_threads_to_bulk",
            Self::Update => "update",
            Self::Delete => "delete",
            Self::Get => "get",
            Self::GetMany => "get_many_100",
            Self::FindOne => "find_1",
            Self::FindHundred => "find_100",
            Self::Range => "range_1000",
            Self::Scan => "scan",
            Self::Open => "open",
            Self::FileSize => "file_size",
            Self::PeakMemory => "peak_memory",
            Self::BulkInsertTenKeys => "bulk_insert_10_keys",
        }
    }

    /// Returns what is measured, and its unit.
    pub(super) fn metric(self) -> (&'static str, &'static str) {
        match self {
            Self::BulkInsert
            | Self::Insert
            | Self::Insert64Threads
            | Self::Update
            | Self::Delete
            | Self::Scan
            | Self::BulkInsertTenKeys => ("per record", "us"),
            Self::Get | Self::GetMany | Self::FindOne | Self::FindHundred | Self::Range => ("per call", "us"),
            Self::ThreadsToOne | Self::ThreadsToBulk => ("rate", "times"),
            Self::Open => ("time", "ms"),
            Self::FileSize | Self::PeakMemory => ("size", "MiB"),
        }
    }

    pub(super) fn is_measured_on(self, system: System) -> bool {
        match self {
            Self::BulkInsertTenKeys => {
                matches!(system, System::Netabase | System::Redb | System::NativeDb | System::Sqlite)
            }
            Self::PeakMemory => cfg!(target_os = "linux"),
            _ => true,
        }
    }
}
