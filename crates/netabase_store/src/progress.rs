//! Telling the caller of a long operation how far it is.

use std::fmt;
use std::ops::ControlFlow;

/// A callback that is told how far an operation is, and may stop it; by default there is none.
///
/// ```
/// use std::ops::ControlFlow;
///
/// use netabase_store::{ExportOptions, Progress};
///
/// let progress = Progress::new(|progress: netabase_store::ExportProgress| {
///     if progress.done < 1_000_000 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
/// });
/// let options = ExportOptions { progress };
/// # let _ = options;
/// ```
pub struct Progress<'a, P>(Option<Callback<'a, P>>);

type Callback<'a, P> = Box<dyn FnMut(P) -> ControlFlow<()> + 'a>;

impl<'a, P> Progress<'a, P> {
    /// Calls `callback` with each state of the operation, on the thread that runs it.
    pub fn new(callback: impl FnMut(P) -> ControlFlow<()> + 'a) -> Self {
        Self(Some(Box::new(callback)))
    }

    pub(crate) fn report(&mut self, progress: P) -> ControlFlow<()> {
        self.0.as_mut().map_or(ControlFlow::Continue(()), |callback| callback(progress))
    }
}

impl<P> Default for Progress<'_, P> {
    fn default() -> Self {
        Self(None)
    }
}

impl<P> fmt::Debug for Progress<'_, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Progress(..)" } else { "Progress(none)" })
    }
}
