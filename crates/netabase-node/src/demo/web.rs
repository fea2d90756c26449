//! The dashboards of the demonstration's peers.

use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr};

use anyhow::Context;
use netabase::Node;
use netabase_http::{ApiConfig, DEFAULT_BIND, ServeError, Server};
use serde_json::json;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use crate::failure::Failure;
use crate::signals::Signals;

/// Serves the dashboards of `nodes` until a signal comes, and prints their URLs.
pub(super) async fn serve(nodes: Vec<Node>, as_json: bool, signals: &mut Signals) -> Result<(), Failure> {
    let (mut serving, mut stops, mut urls) = (JoinSet::new(), Vec::new(), Vec::new());
    for (port, node) in (DEFAULT_BIND.port()..).zip(nodes) {
        let server = bind(node, port).await.context("a dashboard cannot be served")?;
        urls.push(format!("http://{}", server.local_addr()));
        let (stop, stopped) = oneshot::channel::<()>();
        stops.push(stop);
        serving.spawn(server.run(async {
            // A dropped sender ends the server as well.
            let _ = stopped.await;
        }));
    }
    say(&urls, as_json).context("cannot write to standard output")?;
    signals.recv().await;
    drop(stops);
    tokio::select! {
        _ = serving.join_all() => {}
        () = signals.recv() => {}
    }
    Ok(())
}

/// Listens on the port, or on another one if the port is in use.
async fn bind(node: Node, port: u16) -> Result<Server, ServeError> {
    let at = |port| ApiConfig { bind: SocketAddr::from((Ipv4Addr::LOCALHOST, port)), ..ApiConfig::default() };
    match Server::bind(node.clone(), at(port)).await {
        Err(ServeError::Listen { .. }) => Server::bind(node, at(0)).await,
        bound => bound,
    }
}

fn say(urls: &[String], as_json: bool) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if as_json {
        writeln!(out, "{}", json!({ "dashboards": urls }))?;
    } else {
        writeln!(out)?;
        for (number, url) in (1..).zip(urls) {
            writeln!(out, "dashboard of peer {number}: {url}")?;
        }
        writeln!(out, "\nThe peers run until Ctrl-C; what you change at one shows at the others.")?;
    }
    out.flush()
}
