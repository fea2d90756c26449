//! Panics of the engines, which are errors here.
//!
//! redb trusts a file that was closed in order, and panics where it was damaged afterwards. Every
//! call of an engine is caught, and its panic is not printed: the error says which file is damaged
//! and what to do. After the first panic nothing is written any more.

use std::any::Any;
use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Once, OnceLock};

use super::TableName;
use crate::error::{DamageError, StoreError};

thread_local! {
    /// `true` while this thread is inside an engine, and not in a reader that the engine calls.
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// The health of an open database.
#[derive(Debug)]
pub(crate) struct Health {
    path: PathBuf,
    panicked: OnceLock<Arc<Panicked>>,
}

impl Health {
    pub(super) fn new(path: &Path) -> Arc<Self> {
        keep_quiet();
        Arc::new(Self { path: path.to_owned(), panicked: OnceLock::new() })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the error of a database whose engine has panicked.
    pub(crate) fn failure(&self) -> Option<StoreError> {
        self.panicked.get().map(|panicked| self.corrupt(Arc::clone(panicked)))
    }

    /// Returns the error of an entry whose checksum is wrong.
    #[cold]
    pub(super) fn damaged(&self, table: &TableName, key: &[u8]) -> StoreError {
        StoreError::Damage(DamageError::Entry {
            table: table.as_str().to_owned(),
            entry: key.to_vec(),
            path: self.path.clone(),
        })
    }

    /// Calls an engine.
    pub(super) fn call<T>(&self, call: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
        let was_inside = INSIDE.replace(true);
        let outcome = catch_unwind(AssertUnwindSafe(call));
        INSIDE.set(was_inside);
        match outcome {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(self.name(error)),
            Err(panic) => Err(self.note(panic.as_ref())),
        }
    }

    /// Calls an engine, which calls a reader with bytes where they lie. The reader's panics are its
    /// own.
    pub(super) fn call_reading<T>(
        &self,
        call: impl FnOnce() -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let was_inside = INSIDE.replace(true);
        let outcome = catch_unwind(AssertUnwindSafe(call));
        let of_engine = INSIDE.replace(was_inside);
        match outcome {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(self.name(error)),
            Err(panic) if of_engine => Err(self.note(panic.as_ref())),
            Err(panic) => resume_unwind(panic),
        }
    }

    /// Says which file is damaged.
    #[cold]
    fn name(&self, error: StoreError) -> StoreError {
        match error {
            StoreError::Damage(DamageError::Database(source)) => {
                StoreError::Damage(DamageError::File { path: self.path.clone(), source })
            }
            error => error,
        }
    }

    /// Remembers a panic.
    #[cold]
    fn note(&self, panic: &(dyn Any + Send)) -> StoreError {
        let panicked = Panicked::of(panic);
        let first = self.panicked.get_or_init(|| {
            tracing::error!(path = %self.path.display(), reason = %panicked.0, "the database file is damaged");
            Arc::new(panicked)
        });
        self.corrupt(Arc::clone(first))
    }

    fn corrupt(&self, panicked: Arc<Panicked>) -> StoreError {
        StoreError::Damage(DamageError::File { path: self.path.clone(), source: panicked })
    }
}

/// Calls a reader inside of an engine.
#[inline]
pub(super) fn reading<T>(read: impl FnOnce() -> T) -> T {
    let was_inside = INSIDE.replace(false);
    let read = read();
    INSIDE.set(was_inside);
    read
}

/// Calls an engine inside of a write, which is called by an engine itself.
#[inline]
pub(super) fn inside<T>(call: impl FnOnce() -> T) -> T {
    let was_inside = INSIDE.replace(true);
    let outcome = call();
    INSIDE.set(was_inside);
    outcome
}

/// Prints no panics of engines from now on, and all others as before.
fn keep_quiet() {
    // The prefix of the names of sled's threads, whose panics cannot be caught.
    const SLED_THREADS: &str = "sled-";
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            let of_sled = || std::thread::current().name().is_some_and(|name| name.starts_with(SLED_THREADS));
            if !INSIDE.get() && !of_sled() {
                before(panic);
            }
        }));
    });
}

/// Drops what belongs to an engine: after a panic that may panic again.
#[derive(Debug)]
pub(crate) struct Guarded<T>(Option<T>);

impl<T> Guarded<T> {
    pub(super) fn new(inner: T) -> Self {
        Self(Some(inner))
    }

    pub(super) fn get(&self) -> Option<&T> {
        self.0.as_ref()
    }

    pub(super) fn get_mut(&mut self) -> Option<&mut T> {
        self.0.as_mut()
    }
}

impl<T> Drop for Guarded<T> {
    fn drop(&mut self) {
        let inner = self.0.take();
        let was_inside = INSIDE.replace(true);
        if catch_unwind(AssertUnwindSafe(|| drop(inner))).is_err() {
            tracing::debug!("a database that is damaged panicked while something of it was dropped");
        }
        INSIDE.set(was_inside);
    }
}

/// The message of an engine's panic.
#[derive(Debug, thiserror::Error)]
#[error("the backend panicked: {0}")]
struct Panicked(String);

impl Panicked {
    fn of(panic: &(dyn Any + Send)) -> Self {
        let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
        Self(text.unwrap_or_else(|| "no reason given".to_owned()))
    }
}
