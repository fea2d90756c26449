//! Trace ids of W3C Trace Context, by which the logs of several programs are joined.

use std::fmt;
use std::future::Future;
use std::hash::{BuildHasher, RandomState};
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};

use thiserror::Error;
use tracing::{Instrument, Span};

use crate::platform;

tokio::task_local! {
    static CURRENT: TraceContext;
}

/// The bytes of a trace context between peers.
pub(crate) const TRACE_CONTEXT_BYTES: usize = 16 + 8 + 1;
/// The flag that the caller may have recorded the trace.
const SAMPLED: u8 = 1;
/// The length of a header of version 00.
const HEADER_BYTES: usize = 55;

/// The id of a trace, and of the span in it that a call belongs to, as in [W3C Trace
/// Context](https://www.w3.org/TR/trace-context/).
///
/// Each call of a node starts a trace, or continues that of the [`scope`](Self::scope) in which it
/// is made. The context is sent to the peers that the call asks, and is on the spans of both sides,
/// so that their logs can be joined. A context is only a name and gives no privileges.
///
/// ```
/// use netabase::TraceContext;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), netabase::TraceContextError> {
/// let header = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
/// let context = TraceContext::parse(header)?;
/// assert_eq!(context.to_string(), header);
/// // Calls of a node inside the scope belong to the trace.
/// let inside = context.scope(async { TraceContext::current() }).await;
/// assert_eq!((inside, TraceContext::current()), (Some(context), None));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceContext {
    trace: [u8; 16],
    span: [u8; 8],
    flags: u8,
}

/// The error of a text that is not a trace context.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error(
    "not a trace context: it has the form 00-<32 hex digits>-<16 hex digits>-<2 hex digits>, and no id is zero"
)]
pub struct TraceContextError;

impl TraceContext {
    /// Starts a trace with random ids.
    pub fn begin() -> Self {
        Self {
            trace: (u128::from(random()) << 64 | u128::from(random())).to_be_bytes(),
            span: random_span(),
            flags: SAMPLED,
        }
    }

    /// Parses the value of a `traceparent` header. For later versions of the format, the known part
    /// is parsed.
    pub fn parse(header: &str) -> Result<Self, TraceContextError> {
        Self::read(header).ok_or(TraceContextError)
    }

    /// Returns the context of the scope that the caller runs in.
    pub fn current() -> Option<Self> {
        CURRENT.try_with(|context| *context).ok()
    }

    /// Returns a context of the same trace with a random span id.
    #[must_use]
    pub fn child(&self) -> Self {
        Self { span: random_span(), ..*self }
    }

    /// Runs a future in the scope of this context. Calls of a node by the future belong to the
    /// trace, but not those of tasks that it spawns.
    pub fn scope<F: Future>(self, future: F) -> impl Future<Output = F::Output> {
        CURRENT.scope(self, future)
    }

    /// Runs an independent future in the trace and the span of its caller.
    pub(crate) fn inherit<F: Future>(future: F) -> impl Future<Output = F::Output> {
        let (outer, span) = (Self::current(), Span::current());
        async move {
            match outer {
                Some(outer) => outer.scope(future.instrument(span)).await,
                None => future.instrument(span).await,
            }
        }
    }

    /// Runs work that no call has caused, in a trace of its own, with a span that names the work.
    pub(crate) async fn carry_out<F: Future>(work: &'static str, future: F) -> F::Output {
        let context = Self::begin();
        let span = tracing::info_span!(
            "work",
            otel.name = work,
            trace_id = %Hex(&context.trace_id()),
            span_id = %Hex(&context.span_id()),
        );
        context.scope(future.instrument(span)).await
    }

    /// Returns the id of the trace, which is never zero.
    pub fn trace_id(&self) -> [u8; 16] {
        self.trace
    }

    /// Returns the id of the span, which is never zero.
    pub fn span_id(&self) -> [u8; 8] {
        self.span
    }

    /// Returns whether the program that started the trace may have recorded it.
    pub fn is_sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// Returns the encoding for peers.
    pub(crate) fn to_bytes(self) -> [u8; TRACE_CONTEXT_BYTES] {
        let mut bytes = [0; TRACE_CONTEXT_BYTES];
        for (to, from) in bytes.iter_mut().zip(self.trace.iter().chain(&self.span).chain([&self.flags])) {
            *to = *from;
        }
        bytes
    }

    /// Decodes a peer's context; `None` if an id is zero.
    pub(crate) fn from_bytes(bytes: [u8; TRACE_CONTEXT_BYTES]) -> Option<Self> {
        let (trace, rest) = bytes.split_first_chunk()?;
        let (span, flags) = rest.split_first_chunk()?;
        Self { trace: *trace, span: *span, flags: *flags.first()? & SAMPLED }.checked()
    }

    fn read(header: &str) -> Option<Self> {
        let mut parts = header.split('-');
        let [version] = hex(parts.next()?)?;
        let (trace, span) = (hex(parts.next()?)?, hex(parts.next()?)?);
        let [flags] = hex(parts.next()?)?;
        let is_whole = parts.next().is_none() && header.len() == HEADER_BYTES;
        let is_known = if version == 0 { is_whole } else { version != u8::MAX };
        Self { trace, span, flags: flags & SAMPLED }.checked().filter(|_| is_known)
    }

    fn checked(self) -> Option<Self> {
        (self.trace != [0; 16] && self.span != [0; 8]).then_some(self)
    }
}

/// Writes the value of the header.
impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{}-{}-{:02x}", Hex(&self.trace), Hex(&self.span), self.flags)
    }
}

impl FromStr for TraceContext {
    type Err = TraceContextError;

    fn from_str(header: &str) -> Result<Self, TraceContextError> {
        Self::parse(header)
    }
}

/// The display of an id in spans.
pub(crate) struct Hex<'a>(pub(crate) &'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Parses `N` bytes of lower-case hexadecimal digits.
fn hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let digit = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let bytes = pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?));
    let bytes: Vec<u8> = bytes.collect::<Option<_>>()?;
    if rest.is_empty() { bytes.try_into().ok() } else { None }
}

/// Returns a number that peers cannot guess and that does not repeat. It is zero only by chance.
fn random() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    thread_local! {
        static KEYS: RandomState = platform::random_hasher();
    }
    let next = NEXT.fetch_add(1, Ordering::Relaxed);
    KEYS.with(|keys| keys.hash_one(next))
}

fn random_span() -> [u8; 8] {
    random().max(1).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_header_is_read_and_written() {
        let header = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";
        assert_eq!(TraceContext::parse(header).unwrap().to_string(), header);
        let later = "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-what-will-be";
        assert!(TraceContext::parse(later).unwrap().is_sampled());
        for bad in [
            "",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-",
        ] {
            assert_eq!(TraceContext::parse(bad), Err(TraceContextError), "{bad}");
        }
    }

    #[test]
    fn traces_have_names_of_their_own_and_children_that_of_their_trace() {
        let (one, other) = (TraceContext::begin(), TraceContext::begin());
        assert_ne!(one.trace_id(), other.trace_id());
        let child = one.child();
        assert_eq!(child.trace_id(), one.trace_id());
        assert_ne!(child.span_id(), one.span_id());
    }

    proptest! {
        #[test]
        fn what_is_sent_is_what_comes(bytes in any::<[u8; TRACE_CONTEXT_BYTES]>(), text in ".{0,80}") {
            if let Some(context) = TraceContext::from_bytes(bytes) {
                prop_assert_eq!(TraceContext::from_bytes(context.to_bytes()), Some(context));
                prop_assert_eq!(TraceContext::parse(&context.to_string()), Ok(context));
            }
            let _ = TraceContext::parse(&text);
        }
    }
}
