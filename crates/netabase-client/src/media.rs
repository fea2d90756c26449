//! Media types of the HTTP interface.

/// JSON.
pub const JSON: &str = "application/json";
/// Lines of JSON.
pub const NDJSON: &str = "application/x-ndjson";
/// A problem document (RFC 9457).
pub const PROBLEM_JSON: &str = "application/problem+json";
/// A stream of server-sent events.
pub const EVENT_STREAM: &str = "text/event-stream";
