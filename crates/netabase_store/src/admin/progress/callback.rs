//! The callback of an export or an import.

use std::fmt;
use std::ops::ControlFlow;

/// A callback that receives the progress of an operation, and may stop it; by default there is
/// none.
///
/// ```
/// use std::ops::ControlFlow;
///
/// use netabase_store::admin::ProgressCallback;
/// use netabase_store::export::ExportOptions;
///
/// let progress = ProgressCallback::new(|progress: netabase_store::export::ExportProgress| {
///     if progress.done < 1_000_000 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
/// });
/// let options = ExportOptions { progress, ..ExportOptions::default() };
/// # let _ = options;
/// ```
pub struct ProgressCallback<'a, P>(Option<Callback<'a, P>>);

type Callback<'a, P> = Box<dyn FnMut(P) -> ControlFlow<()> + 'a>;

impl<'a, P> ProgressCallback<'a, P> {
    /// Calls `callback` with each state of the operation, on the thread that runs it.
    pub fn new(callback: impl FnMut(P) -> ControlFlow<()> + 'a) -> Self {
        Self(Some(Box::new(callback)))
    }

    pub(crate) fn report(&mut self, progress: P) -> ControlFlow<()> {
        self.0.as_mut().map_or(ControlFlow::Continue(()), |callback| callback(progress))
    }
}

impl<P> Default for ProgressCallback<'_, P> {
    fn default() -> Self {
        Self(None)
    }
}

impl<P> fmt::Debug for ProgressCallback<'_, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "ProgressCallback(..)" } else { "ProgressCallback(none)" })
    }
}
