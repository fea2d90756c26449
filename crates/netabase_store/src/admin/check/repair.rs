//! Repairs data that follows from the records.

use super::examine::Damage;
use crate::admin::migrate::{for_each, rebuild_all_indexes, rebuild_marked, write_format};
use crate::core::Core;
use crate::engine::{Engine, Span, Sync, TableName, WriteTables, unless_damaged};
use crate::error::{DamageError, StoreError};
use crate::replica::lease::LeaseRow;
use crate::tables::{self, Layout};
use crate::version::envelope::EnvelopeRef;
use crate::version::record_key::RecordKey;

/// Repairs the damage. The caller holds the writer.
pub(super) fn repair(core: &Core, damage: Damage) -> Result<(), StoreError> {
    let (engine, layout) = (core.engine(), core.layout());
    // The counts come first: the other repairs keep them right.
    if damage.counts {
        engine.recount()?;
    }
    if damage.entries {
        remove_damaged(engine)?;
        let definition = layout.schema().map_or("", |schema| schema.name);
        engine.write(Sync::Now, |tables| {
            write_format(tables)?;
            tables.insert(&tables::META, tables::META_DEFINITION, definition.as_bytes())
        })?;
    }
    if damage.indexes {
        let _rebuilding = core.rebuilding().lock();
        rebuild_all_indexes(engine, layout)?;
        core.load_sums()?;
    }
    if damage.signed {
        rebuild_marked(engine, layout)?;
        core.load_usage()?;
        core.load_sums()?;
    }
    if damage.times {
        let definition = layout.schema().map_or("", |schema| schema.name);
        for model in layout.models() {
            let key = |primary: &[u8]| model.schema.record_key(definition, primary).ok();
            add_expiry(engine, &model.records, key)?;
        }
        // Versions in place of tombstones have expired already.
        add_expiry(engine, &tables::FOREIGN, |key| RecordKey::parse(key).ok())?;
        remove_expiry(engine, layout)?;
        add_due(engine, layout)?;
        remove_due(engine)?;
        correct_leases(engine, layout)?;
        remove_deletions(engine)?;
    }
    Ok(())
}

/// Removes the entries whose checksums are wrong, each table's in one transaction.
fn remove_damaged(engine: &Engine) -> Result<(), StoreError> {
    let snapshot = engine.snapshot()?;
    for table in snapshot.tables()? {
        let (mut damaged, mut before) = (Vec::new(), Vec::new());
        for entry in snapshot.all(&table)? {
            match entry {
                Err(StoreError::Damage(DamageError::Entry { entry, .. })) => {
                    // A history without gaps begins after the damage.
                    damaged.append(&mut before);
                    damaged.push(entry);
                }
                entry if table == tables::HISTORY => before.push(entry?.key().to_vec()),
                entry => drop(entry?),
            }
        }
        if !damaged.is_empty() {
            engine
                .write(Sync::Now, |tables| damaged.iter().try_for_each(|key| tables.remove(&table, key)))?;
        }
    }
    Ok(())
}

/// Adds missing entries to the table of expiries.
fn add_expiry(
    engine: &Engine,
    table: &TableName,
    name: impl Fn(&[u8]) -> Option<RecordKey>,
) -> Result<(), StoreError> {
    for_each(engine, table, Span::ALL, |tables, entries| {
        for (key, envelope) in entries {
            let expires = EnvelopeRef::parse(envelope).ok().and_then(EnvelopeRef::expires);
            if let (Some(expires), Some(key)) = (expires, name(key)) {
                let entry = tables::time_key(expires, &key);
                if tables.get(&tables::EXPIRY, &entry)?.is_none() {
                    tables.insert(&tables::EXPIRY, &entry, &[])?;
                }
            }
        }
        Ok(())
    })
}

/// Removes entries of the table of expiries whose record does not expire, or expires at another
/// time.
fn remove_expiry(engine: &Engine, layout: &Layout) -> Result<(), StoreError> {
    for_each(engine, &tables::EXPIRY, Span::ALL, |tables, entries| {
        for (entry, _) in entries {
            let key = tables::split_time_key(entry).map(|(_, key)| key);
            let is_in_tombstones = match &key {
                Some(key) => tables.get(&tables::TOMBSTONES, key.as_bytes())?.is_some(),
                None => false,
            };
            let expires = match tables::split_time_key(entry) {
                Some((time, key)) => stored(tables, layout, &key)?
                    .and_then(|envelope| EnvelopeRef::parse(&envelope).ok()?.expires())
                    .filter(|expires| *expires == time)
                    .filter(|_| !is_in_tombstones),
                None => None,
            };
            if expires.is_none() {
                tables.remove(&tables::EXPIRY, entry)?;
            }
        }
        Ok(())
    })
}

/// Adds missing due times of scheduled records; removes missing records from the schedule.
fn add_due(engine: &Engine, layout: &Layout) -> Result<(), StoreError> {
    for_each(engine, &tables::SCHEDULE, Span::ALL, |tables, entries| {
        for (name, time) in entries {
            let entry = RecordKey::parse(name).ok().zip(time.as_slice().try_into().ok());
            match entry {
                Some((key, time)) if stored(tables, layout, &key)?.is_some() => {
                    tables.insert(&tables::DUE, &tables::time_key(u64::from_be_bytes(time), &key), &[])?;
                }
                _ => tables.remove(&tables::SCHEDULE, name)?,
            }
        }
        Ok(())
    })
}

/// Removes due times of records that are not scheduled.
fn remove_due(engine: &Engine) -> Result<(), StoreError> {
    for_each(engine, &tables::DUE, Span::ALL, |tables, entries| {
        for (entry, _) in entries {
            let scheduled = match tables::split_time_key(entry) {
                Some((time, key)) => {
                    let scheduled = unless_damaged(tables.get(&tables::SCHEDULE, key.as_bytes()))?;
                    scheduled.as_deref() == Some(time.to_be_bytes().as_slice())
                }
                None => false,
            };
            if !scheduled {
                tables.remove(&tables::DUE, entry)?;
            }
        }
        Ok(())
    })
}

/// Removes entries of deletions without a tombstone.
fn remove_deletions(engine: &Engine) -> Result<(), StoreError> {
    for_each(engine, &tables::DELETIONS, Span::ALL, |tables, entries| {
        for (name, time) in entries {
            if time.len() != 8 || unless_damaged(tables.get(&tables::TOMBSTONES, name))?.is_none() {
                tables.remove(&tables::DELETIONS, name)?;
            }
        }
        Ok(())
    })
}

/// Corrects the leases by the expiries of their records, and the renewals by the leases. No lease
/// is without its renewal meanwhile, so that it is renewed if the program ends before this is done.
fn correct_leases(engine: &Engine, layout: &Layout) -> Result<(), StoreError> {
    for_each(engine, &tables::LEASES, Span::ALL, |tables, entries| {
        for (name, row) in entries {
            let lease = match RecordKey::parse(name).ok().zip(LeaseRow::parse(row)) {
                Some((key, row)) => stored(tables, layout, &key)?
                    .and_then(|envelope| EnvelopeRef::parse(&envelope).ok()?.expires())
                    .map(|expires| (key, LeaseRow::new(row.lifetime, expires))),
                None => None,
            };
            match lease {
                Some((key, lease)) => {
                    tables.insert(&tables::LEASES, name, &lease.to_bytes())?;
                    tables.insert(&tables::RENEWALS, &tables::time_key(lease.due, &key), &[])?;
                }
                None => tables.remove(&tables::LEASES, name)?,
            }
        }
        Ok(())
    })?;
    for_each(engine, &tables::RENEWALS, Span::ALL, |tables, entries| {
        for (entry, _) in entries {
            let due = match tables::split_time_key(entry) {
                Some((time, key)) => {
                    let lease = unless_damaged(tables.get(&tables::LEASES, key.as_bytes()))?;
                    lease.and_then(|row| LeaseRow::parse(&row)).is_some_and(|lease| lease.due == time)
                }
                None => false,
            };
            if !due {
                tables.remove(&tables::RENEWALS, entry)?;
            }
        }
        Ok(())
    })
}

fn stored(
    tables: &mut dyn WriteTables,
    layout: &Layout,
    key: &RecordKey,
) -> Result<Option<Vec<u8>>, StoreError> {
    let place = layout.place(key);
    match unless_damaged(tables.get(place.table, place.key))? {
        Some(live) => Ok(Some(live)),
        None => tables.get(&tables::TOMBSTONES, key.as_bytes()),
    }
}
