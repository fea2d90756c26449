//! `SQLite` through rusqlite: one connection, statements prepared once.
//!
//! It logs ahead (WAL) and syncs the log at every commit (`synchronous = FULL`). The primary key is
//! the table's rowid, which is what `WITHOUT ROWID` would make of it, and what `SQLite` does best.

use std::path::Path;

use parking_lot::Mutex;
use rusqlite::types::ToSql;
use rusqlite::{Connection, OptionalExtension, Row, params_from_iter};

use super::model::{Message, Wide};
use super::system::{CACHE_BYTES, Store, Writes};

const INSERT: &str = "INSERT INTO message (id, room, serial, sent_at, body) VALUES (?, ?, ?, ?, ?)";
const UPDATE: &str = "UPDATE message SET room = ?, serial = ?, sent_at = ?, body = ? WHERE id = ?";
const DELETE: &str = "DELETE FROM message WHERE id = ?";
const GET: &str = "SELECT id, room, serial, sent_at, body FROM message WHERE id = ?";
const FIND_SERIAL: &str = "SELECT id, room, serial, sent_at, body FROM message WHERE serial = ? ORDER BY id";
const FIND_ROOM: &str = "SELECT id, room, serial, sent_at, body FROM message WHERE room = ? ORDER BY id";
const RANGE: &str = "SELECT id, room, serial, sent_at, body FROM message WHERE id >= ? ORDER BY id LIMIT ?";
const SCAN: &str = "SELECT id, room, serial, sent_at, body FROM message ORDER BY id";
const INSERT_WIDE: &str = "INSERT INTO wide VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";
const WIDE_KEYS: [&str; 10] =
    ["key_0", "key_1", "key_2", "key_3", "key_4", "key_5", "key_6", "key_7", "key_8", "key_9"];
const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS message (
        id INTEGER PRIMARY KEY, room TEXT NOT NULL, serial INTEGER NOT NULL,
        sent_at INTEGER NOT NULL, body TEXT NOT NULL
    ) STRICT;
    CREATE INDEX IF NOT EXISTS message_room ON message (room);
    CREATE INDEX IF NOT EXISTS message_serial ON message (serial);
";

/// One connection behind a lock: there is one writer at a time anyhow, and a lock is fairer and
/// cheaper than connections that retry.
pub(super) struct Sqlite(Mutex<Connection>);

impl Sqlite {
    pub(super) fn open(directory: &Path) -> anyhow::Result<Self> {
        let connection = Connection::open(directory.join("bench.sqlite"))?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        // A negative number is one of kibibytes.
        connection.pragma_update(None, "cache_size", -i64::try_from(CACHE_BYTES / 1024)?)?;
        connection.set_prepared_statement_cache_capacity(32);
        connection.execute_batch(TABLES)?;
        connection.execute_batch(&wide_tables())?;
        Ok(Self(Mutex::new(connection)))
    }

    fn write<T>(
        &self,
        sql: &str,
        items: &[T],
        run: impl Fn(&mut rusqlite::Statement<'_>, &T) -> rusqlite::Result<usize>,
    ) -> anyhow::Result<()> {
        let mut connection = self.0.lock();
        let transaction = connection.transaction()?;
        let mut statement = transaction.prepare_cached(sql)?;
        for item in items {
            anyhow::ensure!(run(&mut statement, item)? == 1, "a row was not written");
        }
        drop(statement);
        Ok(transaction.commit()?)
    }

    fn query(&self, sql: &str, params: &[&dyn ToSql]) -> anyhow::Result<Vec<Message>> {
        let connection = self.0.lock();
        let mut statement = connection.prepare_cached(sql)?;
        let rows = statement.query_map(params, message)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    fn count(&self, sql: &str) -> anyhow::Result<u64> {
        let count: i64 = self.0.lock().query_row(sql, (), |row| row.get(0))?;
        Ok(u64::try_from(count)?)
    }
}

fn wide_tables() -> String {
    let columns = WIDE_KEYS.map(|key| format!("{key} INTEGER NOT NULL")).join(", ");
    let index = |key| format!("CREATE INDEX IF NOT EXISTS wide_{key} ON wide ({key});");
    let indexes = WIDE_KEYS.map(index).concat();
    format!(
        "CREATE TABLE IF NOT EXISTS wide (id INTEGER PRIMARY KEY, {columns}, body TEXT NOT NULL) STRICT;
        {indexes}"
    )
}

/// Makes a signed number in the order of the unsigned ones.
fn signed(number: u64) -> i64 {
    (number ^ (1 << 63)).cast_signed()
}

fn unsigned(number: i64) -> u64 {
    number.cast_unsigned() ^ (1 << 63)
}

fn message(row: &Row<'_>) -> rusqlite::Result<Message> {
    Ok(Message {
        id: unsigned(row.get(0)?),
        room: row.get(1)?,
        serial: unsigned(row.get(2)?),
        sent_at: unsigned(row.get(3)?),
        body: row.get(4)?,
    })
}

impl Writes<Message> for Sqlite {
    fn insert(&self, records: &[Message]) -> anyhow::Result<()> {
        self.write(INSERT, records, |statement, Message { id, room, serial, sent_at, body }| {
            statement.execute((signed(*id), room, signed(*serial), signed(*sent_at), body))
        })
    }

    fn len(&self) -> anyhow::Result<u64> {
        self.count("SELECT count(*) FROM message")
    }
}

impl Writes<Wide> for Sqlite {
    fn insert(&self, records: &[Wide]) -> anyhow::Result<()> {
        self.write(INSERT_WIDE, records, |statement, record| {
            let keys = record.keys().map(signed);
            let id = signed(record.id);
            let numbers = std::iter::once(&id).chain(&keys).map(|number| number as &dyn ToSql);
            statement.execute(params_from_iter(numbers.chain([&record.body as &dyn ToSql])))
        })
    }

    fn len(&self) -> anyhow::Result<u64> {
        self.count("SELECT count(*) FROM wide")
    }
}

impl Store for Sqlite {
    fn update(&self, records: &[Message]) -> anyhow::Result<()> {
        self.write(UPDATE, records, |statement, Message { id, room, serial, sent_at, body }| {
            statement.execute((room, signed(*serial), signed(*sent_at), body, signed(*id)))
        })
    }

    fn remove(&self, ids: &[u64]) -> anyhow::Result<()> {
        self.write(DELETE, ids, |statement, id| statement.execute([signed(*id)]))
    }

    fn get(&self, id: u64) -> anyhow::Result<Option<Message>> {
        let connection = self.0.lock();
        let mut statement = connection.prepare_cached(GET)?;
        Ok(statement.query_row([signed(id)], message).optional()?)
    }

    fn get_many(&self, ids: &[u64]) -> anyhow::Result<Vec<Option<Message>>> {
        let connection = self.0.lock();
        let transaction = connection.unchecked_transaction()?;
        let mut statement = transaction.prepare_cached(GET)?;
        let get = |id: &u64| Ok(statement.query_row([signed(*id)], message).optional()?);
        ids.iter().map(get).collect()
    }

    fn find_serial(&self, serial: u64) -> anyhow::Result<Vec<Message>> {
        self.query(FIND_SERIAL, &[&signed(serial)])
    }

    fn find_room(&self, room: &str) -> anyhow::Result<Vec<Message>> {
        self.query(FIND_ROOM, &[&room])
    }

    fn range(&self, start: u64, limit: usize) -> anyhow::Result<Vec<Message>> {
        self.query(RANGE, &[&signed(start), &i64::try_from(limit)?])
    }

    fn scan(&self, each: &mut dyn FnMut(&Message)) -> anyhow::Result<()> {
        let connection = self.0.lock();
        let mut statement = connection.prepare_cached(SCAN)?;
        for row in statement.query_map((), message)? {
            each(&row?);
        }
        Ok(())
    }
}
