//! Running tasks, each with a key.

use std::collections::HashMap;

use libp2p::PeerId;
use tokio::task::{Id, JoinError};

use crate::platform::JoinSet;

/// Running tasks with their keys. The failure of one does not affect the others.
#[derive(Debug)]
pub(super) struct Running<K, T> {
    tasks: JoinSet<T>,
    of: HashMap<Id, K>,
}

/// The key of a session: the scope and the peer.
pub(super) type SessionOf = (u64, PeerId);

impl<K: Copy, T: Send + 'static> Running<K, T> {
    pub(super) fn new() -> Self {
        Self { tasks: JoinSet::new(), of: HashMap::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.of.len()
    }

    /// Returns whether a task is running whose key satisfies `is_it`.
    pub(super) fn any(&self, is_it: impl FnMut(&K) -> bool) -> bool {
        self.of.values().any(is_it)
    }

    pub(super) fn start(&mut self, what: K, task: impl Future<Output = T> + Send + 'static) {
        let id = self.tasks.spawn(task).id();
        self.of.insert(id, what);
    }

    /// Waits for the next task that ends; returns its key and its result, or `None` if there is no
    /// task. This method is cancel safe.
    pub(super) async fn next(&mut self) -> Option<(K, Result<T, JoinError>)> {
        loop {
            let (id, ended) = match self.tasks.join_next_with_id().await? {
                Ok((id, done)) => (id, Ok(done)),
                Err(error) => (error.id(), Err(error)),
            };
            if let Some(what) = self.of.remove(&id) {
                return Some((what, ended));
            }
        }
    }

    /// Cancels all tasks, and waits for their end.
    pub(super) async fn shutdown(&mut self) {
        self.tasks.shutdown().await;
        self.of.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_that_panics_takes_its_own_mark_away_and_no_other() {
        let mut running = Running::new();
        running.start(1, std::future::pending());
        running.start(2, async { panic!("a test of what a panic does") });
        running.start(3, std::future::pending());
        let Some((2, Err(error))) = running.next().await else { panic!("the second one has ended") };
        assert!(error.is_panic());
        assert_eq!([1, 2, 3].map(|scope| running.any(|of| *of == scope)), [true, false, true]);
        assert_eq!(running.len(), 2);
        running.start(2, async {});
        assert!(matches!(running.next().await, Some((2, Ok(())))));
        running.shutdown().await;
        assert!(running.len() == 0 && running.next().await.is_none());
    }
}
