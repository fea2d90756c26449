//! The HTTP API of `netabase serve`.
//!
//! It has a runtime of its own, so that an operator is answered whatever peers have the node do.

use std::time::Duration;

use anyhow::Context;
use netabase::Node;
use netabase_http::{ApiConfig, Limits, Server, Token};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::follow::print;
use crate::config::Config;
use crate::failure::Failure;

/// The divisor of the stop timeout that gives the time for requests in progress.
const GRACE_PART: u32 = 2;

/// The threads that answer, beside those of the runtime that read the disk.
const WORKERS: usize = 1;

/// An API that is bound to its address and does not answer yet.
#[derive(Debug)]
pub(super) struct Api {
    server: Server,
    runtime: Background,
}

/// A runtime that ends in the background, since it is dropped inside of another one.
#[derive(Debug)]
struct Background {
    handle: Handle,
    runtime: Option<Runtime>,
}

impl Background {
    fn start() -> std::io::Result<Self> {
        let mut runtime = Builder::new_multi_thread();
        let runtime = runtime.worker_threads(WORKERS).thread_name("netabase-api").enable_all().build()?;
        Ok(Self { handle: runtime.handle().clone(), runtime: Some(runtime) })
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// An API that answers.
#[derive(Debug)]
pub(super) struct Serving {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
    runtime: Background,
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
        let runtime = Background::start().context("cannot start the threads of the API")?;
        let bound =
            runtime.handle.spawn(Server::bind(node.clone(), api)).await.context("the API has panicked")?;
        let server =
            bound.context("the API cannot be served; change --api-listen, or disable it with --no-api")?;
        Ok(Some(Self { server, runtime }))
    }

    /// Starts answering, and prints the address.
    pub(super) fn serve(self) -> Serving {
        let Self { server, runtime } = self;
        let address = server.local_addr();
        let (stop, stopped) = oneshot::channel();
        let task = runtime.handle.spawn(server.run(async {
            // A dropped sender ends the API as well.
            let _ = stopped.await;
        }));
        print("api", format_args!("http://{address}"));
        Serving { stop, task, runtime }
    }
}

impl Serving {
    /// Accepts no more requests, and waits for those in progress.
    pub(super) async fn stop(self) {
        let Self { stop, task, runtime } = self;
        drop(stop);
        if task.await.is_err() {
            tracing::warn!("the task of the API panicked");
        }
        drop(runtime);
    }
}
