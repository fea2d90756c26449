//! The log of the program, on standard error.

use std::io::IsTerminal;

use anyhow::Context;
use netabase::PeerId;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, fmt};

use crate::failure::Failure;
#[cfg(feature = "otlp")]
use {crate::otlp, tracing::Subscriber, tracing_subscriber::registry::LookupSpan};

/// The default filter of a node. It hides Kademlia's warning about having no peers, since every
/// network starts that way.
pub(crate) const NODE: &str = "warn,netabase=info,netabase_store=info,libp2p_kad=error";
/// The default filter of all other commands.
pub(crate) const COMMAND: &str = "error";

/// Starts logging with the filter `chosen`, or else that of `RUST_LOG`, or else `default`.
pub(crate) fn start(chosen: Option<&str>, default: &str) -> Result<(), Failure> {
    let environment = std::env::var("RUST_LOG").ok();
    let directives = chosen.or(environment.as_deref()).filter(|text| !text.is_empty()).unwrap_or(default);
    let filter = EnvFilter::try_new(directives)
        .with_context(|| format!("`{directives}` is not a log filter; write RUST_LOG=netabase=debug"))
        .map_err(Failure::usage)?;
    let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let log = fmt::layer().with_ansi(colours).with_writer(std::io::stderr).with_filter(filter);
    let subscriber = tracing_subscriber::registry().with(log);
    #[cfg(feature = "otlp")]
    let subscriber = subscriber.with(spans()?);
    subscriber.init();
    Ok(())
}

/// Starts sending spans to the collector that the environment names, if any.
#[cfg(feature = "otlp")]
fn spans<S: Subscriber + for<'a> LookupSpan<'a>>() -> Result<Option<impl Layer<S>>, Failure> {
    let Some(endpoint) = std::env::var(otlp::ENDPOINT).ok().filter(|endpoint| !endpoint.is_empty()) else {
        return Ok(None);
    };
    let (exporter, spans) = otlp::Exporter::begin(&endpoint).map_err(Failure::usage)?;
    // Logging is started once.
    let _ = EXPORTER.set(exporter);
    Ok(Some(spans.layer()))
}

#[cfg(feature = "otlp")]
static EXPORTER: std::sync::OnceLock<otlp::Exporter> = std::sync::OnceLock::new();

/// Sets the node to which the exported spans are attributed.
pub(crate) fn name_node(peer: PeerId) {
    #[cfg(feature = "otlp")]
    if let Some(exporter) = EXPORTER.get() {
        exporter.name_instance(peer.to_string());
    }
    #[cfg(not(feature = "otlp"))]
    let _ = peer;
}

/// Waits until the recorded spans are sent to the collector, if there is one.
pub(crate) fn flush() {
    #[cfg(feature = "otlp")]
    if let Some(exporter) = EXPORTER.get() {
        exporter.flush();
    }
}
