//! The log of the program, on standard error.

use std::fmt::Debug;
use std::io::IsTerminal;

use anyhow::Context;
use netabase::PeerId;
use netabase::netabase_store::text;
use tracing::Subscriber;
use tracing::field::Field;
use tracing_subscriber::field::MakeExt;
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::{Writer, debug_fn};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, fmt};

use crate::failure::Failure;
#[cfg(feature = "otlp")]
use crate::otlp;

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
    let log = log().with_ansi(colours).with_writer(std::io::stderr).with_filter(filter);
    let subscriber = tracing_subscriber::registry().with(log);
    #[cfg(feature = "otlp")]
    let subscriber = subscriber.with(spans()?);
    subscriber.init();
    Ok(())
}

/// Makes the layer that writes the log. No field of an event or of a span forges a line or reaches
/// the terminal, since peers choose addresses, names and the errors that quote them.
fn log<S: Subscriber + for<'a> LookupSpan<'a>>() -> fmt::Layer<S, impl for<'w> FormatFields<'w> + 'static> {
    fmt::layer().fmt_fields(debug_fn(write_field).delimited(" "))
}

fn write_field(out: &mut Writer<'_>, field: &Field, value: &dyn Debug) -> std::fmt::Result {
    let value = format!("{value:?}");
    let value = text::line(&value);
    match field.name().trim_start_matches("r#") {
        "message" => out.write_str(&value),
        name if out.has_ansi_escapes() => write!(out, "\x1b[3m{name}\x1b[0m\x1b[2m=\x1b[0m{value}"),
        name => write!(out, "{name}={value}"),
    }
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

#[cfg(test)]
mod tests {
    use std::io::{Read, Seek};
    use std::sync::Arc;

    use super::*;

    #[test]
    fn no_field_of_the_log_is_more_than_text() {
        let written = Arc::new(tempfile::tempfile().unwrap());
        for colours in [false, true] {
            let evil = "/dns/\u{1b}]0;\u{7}\n2026 WARN forged\u{9b}\u{202e}\u{200b}/tcp/1";
            let log = log().with_ansi(colours).with_writer(Arc::clone(&written));
            let log = tracing_subscriber::registry().with(log);
            tracing::subscriber::with_default(log, || {
                let _span = tracing::error_span!("peer", agent = %evil).entered();
                let error: &dyn std::error::Error = &std::io::Error::other(evil);
                tracing::error!(address = %evil, list = ?[evil], error, "{evil}");
            });
            let mut lines = String::new();
            (&*written).rewind().unwrap();
            (&*written).read_to_string(&mut lines).unwrap();
            written.set_len(0).unwrap();
            (&*written).rewind().unwrap();
            let shown = r"/dns/\u{1b}]0;\u{7}\n2026 WARN forged\u{9b}\u{202e}\u{200b}/tcp/1";
            assert_eq!(lines.matches(shown).count(), 5, "{lines}");
            let plain = lines.trim_end_matches('\n');
            assert!(colours || !plain.contains(text::is_hidden), "{lines}");
            assert!(!console::strip_ansi_codes(plain).contains(text::is_hidden), "{lines}");
        }
    }
}
