//! The HTTP API of `netabase serve`.

use std::time::Duration;

use anyhow::Context;
use netabase::Node;
use netabase_http::{ApiConfig, Limits, Server, Token};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::follow::print;
use crate::config::Config;
use crate::failure::Failure;

/// The divisor of the stop timeout that gives the time for requests in progress.
const GRACE_PART: u32 = 2;

/// An API that is bound to its address and does not answer yet.
#[derive(Debug)]
pub(super) struct Api(Server);

/// An API that answers.
#[derive(Debug)]
pub(super) struct Serving {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Api {
    /// Listens at the address of the settings. Returns `None` if they disable the API.
    pub(super) async fn bind(
        node: &Node,
        config: &Config,
        token: Option<Token>,
    ) -> Result<Option<Self>, Failure> {
        if !config.api_enabled.value {
            return Ok(None);
        }
        let grace: Duration = config.stop_timeout() / GRACE_PART;
        let limits =
            Limits { shutdown_grace: grace.min(Limits::default().shutdown_grace), ..Limits::default() };
        let api = ApiConfig {
            bind: config.api_listen.value,
            token,
            allow_origins: config.allow_origins.value.clone(),
            allow_hosts: config.hosts.value.clone(),
            backup_directory: config.backup_directory.value.clone(),
            limits,
            ..ApiConfig::default()
        };
        let bound = Server::bind(node.clone(), api).await;
        let server =
            bound.context("the API cannot be served; change --api-listen, or disable it with --no-api")?;
        Ok(Some(Self(server)))
    }

    /// Starts answering, and prints the address.
    pub(super) fn serve(self) -> Serving {
        let Self(server) = self;
        let address = server.local_addr();
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(server.run(async {
            // A dropped sender ends the API as well.
            let _ = stopped.await;
        }));
        print("api", format_args!("http://{address}"));
        Serving { stop, task }
    }
}

impl Serving {
    /// Accepts no more requests, and waits for those in progress.
    pub(super) async fn stop(self) {
        drop(self.stop);
        if self.task.await.is_err() {
            tracing::warn!("the task of the API panicked");
        }
    }
}
